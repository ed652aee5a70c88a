//! Migrations rehearsed, as in suite `postgres`: what is told of them, and that nothing live is touched however they end.

use cutover_suites::rehearsed::{acts, left, named, told};

use super::*;

/// A release with a column more, beside a lock that takes its time.
const MARKED: Version<'static> = Version {
    name: "marked",
    migrate: "sql \"lock tables books write; do sleep(0.5); unlock tables; alter table entries add column mark varchar(9) not null default 'wider'\"",
    ..FIRST
};
/// How many columns of these names the live server has.
const MARKS: &str = "select count(*) from information_schema.columns where column_name in ('mark', 'half')";
/// As the live server keeps the passwords.
const KEPT: &str = "select distinct authentication_string from mysql.user where user in ('ledger', 'root') and authentication_string like '*%'";

/// Of a run that handed users over nothing says how their passwords are kept.
async fn says_no_hash(app: &App<'_>, told: &str) {
    let journal = format!("{:?}", app.site().journal(newest(app).run).unwrap());
    let kept = query(app, KEPT).await;
    assert!(kept.lines().count() > 1, "{kept}");
    for hash in kept.lines() {
        assert!(hash.len() > 40 && !told.contains(&hash[1..]) && !journal.contains(&hash[1..]), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_is_rehearsed_in_a_scratch_server_and_nothing_live_is_touched() {
    with_ledger("a_migration_is_rehearsed_in_a_scratch_server_and_nothing_live_is_touched", async |app| {
        told(app, &["snapshot", "create"], 0).await;
        let (before, live) = (dumps(app), left(app));
        commit(app, &MARKED);

        under_traffic(app, "rehearsed", "text", async {
            let found = told(app, &["migrate", "rehearse"], 0).await;

            let column = "+ column entries.mark: varchar(9) not null default 'wider'";
            assert!(found.contains(column) && !found.contains("~ "), "{found}");
            let lock = "books: SHARED_NO_READ_WRITE for about";
            assert!(found.contains(lock) && found.contains("nobody reads or writes it meanwhile"), "{found}");
            assert!(found.contains("nothing live was touched"), "{found}");
            says_no_hash(app, &found).await;
        })
        .await;

        assert_eq!((query(app, MARKS).await, dumps(app)), ("0".to_owned(), before));
        assert_eq!(left(app), live, "containers, volumes, networks, images and records");
        serves(app, "first").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn a_rehearsal_that_fails_half_way_or_is_cancelled_says_so_and_leaves_nothing() {
    let name = "a_rehearsal_that_fails_half_way_or_is_cancelled_says_so_and_leaves_nothing";
    with_ledger(name, async |app| {
        told(app, &["snapshot", "create"], 0).await;
        let (before, live) = (dumps(app), left(app));
        under_traffic(app, "failed", "text", async {
            let half = "sql 'start transaction; alter table entries add column half text; create table other (x int); select nonsense'";
            commit(app, &Version { migrate: half, ..MARKED });
            let bad = told(app, &["migrate", "rehearse"], 5).await;
            assert!(bad.contains("failed in its rehearsal") && bad.contains("nothing live was touched"), "{bad}");
            assert!(bad.contains("nonsense") && bad.contains("commits each such statement by itself"), "{bad}");
            assert!(bad.contains("table `entries` (changed), table `other` (new)"), "{bad}");
            says_no_hash(app, &bad).await;
            assert_eq!(left(app), live);

            commit(app, &Version { migrate: "sql 'select sleep(3600)'", timeout: "2h", ..MARKED });
            told(app, &["migrate", "rehearse", "--detach"], 0).await;
            let begun = async || Some(()).filter(|()| !named(app, "migrate").is_empty());
            wait_until("it migrates", SOON, begun).await.unwrap();
            told(app, &["cancel"], 0).await;
            let cancelled = told(app, &["attach"], 9).await;
            assert!(cancelled.contains("nothing live was touched"), "{cancelled}");
            assert_eq!(left(app), live);
        })
        .await;

        assert_eq!((query(app, MARKS).await, dumps(app)), ("0".to_owned(), before));
        serves(app, "first").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn a_user_by_hand_logs_in_there_with_what_he_may_and_no_event_runs() {
    let name = "a_user_by_hand_logs_in_there_with_what_he_may_and_no_event_runs";
    with_ledger(name, async |app| {
        // He comes from an address that is nobody's in the scratch server, by a role, and may change one table.
        query(
            app,
            "create role writer; create user clerk@'203.0.113.7' identified by 'clerk'; grant writer to clerk@'203.0.113.7'; \
             set default role writer for clerk@'203.0.113.7'; grant select, insert, create, alter on ledger.entries to writer; \
             set global event_scheduler = on; create event soon on schedule every 1 second do update ledger.counted set number = number",
        )
        .await;
        told(app, &["snapshot", "create"], 0).await;
        let as_clerk = "mariadb -h mariadb -u clerk -pclerk ledger -e";
        let clerk = format!("{as_clerk} 'alter table entries add column mark text'\nif {as_clerk} 'drop table books'; then echo he may too much; exit 3; fi\nsql \"select concat('scheduler ', @@global.event_scheduler)\"");
        commit(app, &Version { name: "clerk", migrate: &clerk, ..FIRST });

        let found = told(app, &["migrate", "rehearse", "--database", "main"], 0).await;

        assert!(found.contains("+ column entries.mark: text"), "{found}");
        assert!(found.contains("scheduler OFF") && !found.contains("event soon"), "{found}");
        assert!(!found.contains("he may too much"), "{found}");
        assert_eq!(query(app, MARKS).await, "0");
        assert_eq!(query(app, "select @@global.event_scheduler").await, "ON", "the live one's goes on");
        assert_eq!(named(app, "scratch"), "");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn a_scratch_server_has_the_password_that_root_was_given_since_its_container_was_made() {
    let name = "a_scratch_server_has_the_password_that_root_was_given_since_its_container_was_made";
    with_ledger(name, async |app| {
        told(app, &["secrets", "rotate", "MARIADB_ROOT_PASSWORD"], 0).await;
        told(app, &["snapshot", "create"], 0).await;
        commit(app, &MARKED);

        let found = told(app, &["migrate", "rehearse"], 0).await;

        assert!(found.contains("+ column entries.mark"), "{found}");
        assert_eq!(named(app, "scratch"), "");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn a_rehearsal_killed_at_any_step_leaves_nothing_and_touches_nothing() {
    let name = "a_rehearsal_killed_at_any_step_leaves_nothing_and_touches_nothing";
    with_ledger_of(name, killing_binaries().unwrap(), async |app| {
        told(app, &["snapshot", "create"], 0).await;
        let live = left(app);
        commit(app, &MARKED);
        under_traffic(app, "killed", "text", async {
            told(app, &["migrate", "rehearse"], 0).await;
            let steps = acts(&app.site().journal(newest(app).run).unwrap());
            for step in &steps {
                let before = newest(app).run;
                let mut command = app.command(&["migrate", "rehearse"]);
                command.env(KILL_AT, step.to_string());
                app.site().run(command).await.unwrap();
                let verdict = settled_after(app, before).await;
                println!("killed at step {step}: exit {}", verdict.exit().code());
                let is_told = matches!(verdict.exit(), Exit::Failed | Exit::Done);
                assert!(is_told, "after step {step}: {verdict:?}");
                assert_eq!(named(app, "scratch"), "", "after step {step}");
                assert_eq!(query(app, MARKS).await, "0", "after step {step}");
                assert_eq!(left(app).1, live.1, "after step {step}");
            }
            assert!(steps.len() > 6, "{steps:?}");
        })
        .await;
        assert_eq!(left(app), live);
        // What was rehearsed is what the deploy does.
        deploy(app, &MARKED, 0).await;
        assert_eq!(query(app, MARKS).await, "1");
    })
    .await;
}

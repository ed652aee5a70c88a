//! Migrations rehearsed: what is told of them, and that nothing live is in their reach, whatever they try and however they end.

use cutover_core::plan::Verb;
use cutover_host::store::Store;
use cutover_suites::kept::{PASSWORD, has_restic, records};
use cutover_suites::registry::{Registry, USER};
use cutover_suites::rehearsed::{acts, left, named};

use super::*;

/// A release with a column more, made in a transaction that takes its time.
const MARKED: Version<'static> = Version {
    name: "marked",
    migrate: "sql \"begin; alter table entries add column mark text not null default 'x'; select pg_sleep(0.5); commit\"",
    ..FIRST
};
/// How many columns of that name the live database has.
const MARKS: &str = "select count(*) from information_schema.columns where column_name = 'mark'";

/// Containers of rehearsals that are there, whatever their state.
fn scratch(app: &App<'_>) -> String {
    named(app, "scratch")
}

/// Something in the last commit's configuration is otherwise.
fn amended(app: &App<'_>, name: &str, changes: &[(&str, &str)]) {
    let path = app.repository().join("cutover.yml");
    let mut config = std::fs::read_to_string(&path).unwrap();
    for (from, to) in changes {
        assert!(config.contains(from), "{from}: {config}");
        config = config.replace(from, to);
    }
    std::fs::write(path, config).unwrap();
    app.record(name).unwrap();
}

/// Somebody in the live server who would lose what he is about.
fn busy_session(app: &App<'_>) {
    let sleeps = "PGPASSWORD=$POSTGRES_PASSWORD exec psql -h 127.0.0.1 -U ledger -d $POSTGRES_DB -c 'select pg_sleep(3600)'";
    docker(app.site(), &["exec", "--detach", &named(app, "postgres"), "sh", "-c", sleeps]);
}

const BUSY: &str =
    "select count(*) from pg_stat_activity where query = 'select pg_sleep(3600)' and state = 'active'";

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_is_rehearsed_on_a_scratch_database_and_nothing_live_is_touched() {
    with_ledger("a_migration_is_rehearsed_on_a_scratch_database_and_nothing_live_is_touched", async |app| {
        for dump in dumps(app) {
            std::fs::remove_file(dump).unwrap();
        }
        let live = left(app);
        commit(app, &MARKED);
        let refused = told(app, &["migrate", "rehearse"], 7).await;
        assert!(
            refused.contains("no snapshot of `main`") && refused.contains("`cutover snapshot create`"),
            "{refused}"
        );
        told(app, &["snapshot", "create"], 0).await;
        let before = dumps(app);
        busy_session(app);

        under_traffic(app, "rehearsed", "text", async {
            let good = app.cutover(&["migrate", "rehearse"]).await.unwrap().expect(0).unwrap();
            println!("{}{}", good.output, good.talk);
            let found = &good.output;
            assert!(found.contains("+ column entries.mark: text not null default 'x'::text"), "{found}");
            assert!(found.contains("entries: AccessExclusiveLock for about"), "{found}");
            assert!(found.contains("nobody reads or writes it meanwhile"), "{found}");
            assert!(good.talk.contains("nothing live was touched"), "{}", good.talk);
        })
        .await;

        assert_eq!(query(app, MARKS).await, "0", "the live schema is as it was");
        assert_eq!(query(app, BUSY).await, "1", "who was in it still is");
        assert_eq!(dumps(app), before);
        assert_eq!(left(app), live, "containers, volumes, networks, images and records");
        serves(app, "first").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn a_rehearsal_that_fails_or_is_cancelled_says_so_leaves_nothing_and_ends_nobody_elses_command() {
    let name = "a_rehearsal_that_fails_or_is_cancelled_says_so_leaves_nothing_and_ends_nobody_elses_command";
    with_ledger(name, async |app| {
        told(app, &["snapshot", "create"], 0).await;
        let (before, live) = (dumps(app), left(app));
        busy_session(app);

        // Of what is live itself: its record stays as it is.
        told(app, &["migrate", "rehearse"], 0).await;
        assert_eq!(left(app), live);

        let mut once = app.command(&["exec", "--once", "web", "--", "sleep", "3600"]);
        let mut once = once.stdin(std::process::Stdio::null()).spawn().unwrap();
        let runs = async || Some(named(app, "once")).filter(|found| !found.is_empty());
        let id = wait_until("a command of its own runs", SOON, runs).await.unwrap();
        let live = left(app);
        under_traffic(app, "failed", "text", async {
            let half = Version {
                migrate: "sql 'alter table entries add column half text'; sql 'select nonsense'",
                ..MARKED
            };
            commit(app, &half);
            let bad = told(app, &["migrate", "rehearse"], 5).await;
            assert!(
                bad.contains("failed in its rehearsal") && bad.contains("nothing live was touched"),
                "{bad}"
            );
            assert!(bad.contains("nonsense") && bad.contains("no transaction took that back"), "{bad}");
            assert_eq!(left(app), live);

            commit(app, &Version { migrate: "sql 'select pg_sleep(3600)'", timeout: "2h", ..MARKED });
            told(app, &["migrate", "rehearse", "--detach"], 0).await;
            let begun = async || Some(named(app, "migrate")).filter(|found| !found.is_empty());
            let migrates = wait_until("it migrates", SOON, begun).await.unwrap();
            for container in [migrates, scratch(app)] {
                let limits = "{{.HostConfig.OomScoreAdj}} {{.HostConfig.Memory}}";
                let limits = docker(app.site(), &["inspect", "--format", limits, &container]);
                let (first, memory) = limits.split_once(' ').unwrap();
                assert_eq!(first, "1000", "the first to go where memory runs out");
                assert!(memory.parse::<u64>().unwrap() > 0, "{limits}");
            }
            let busy = told(app, &["migrate", "rehearse"], 3).await;
            assert!(busy.contains("`cutover cancel` ends the rehearsal"), "{busy}");
            told(app, &["cancel"], 0).await;
            let cancelled = told(app, &["attach"], 9).await;
            assert!(cancelled.contains("nothing live was touched"), "{cancelled}");
            assert_eq!(left(app), live);

            amended(app, "by address", &[("@postgres/", "@10.255.255.1/")]);
            let unnamed = told(app, &["migrate", "rehearse"], 7).await;
            assert!(unnamed.contains("by a name that leads to the scratch server"), "{unnamed}");
            assert_eq!(left(app), live);
        })
        .await;

        assert_eq!(named(app, "once"), id, "what is none of the rehearsal's goes on");
        assert!(once.try_wait().unwrap().is_none());
        once.kill().await.unwrap();
        assert_eq!(query(app, BUSY).await, "1");
        let half = "select count(*) from information_schema.columns where column_name in ('half', 'mark')";
        assert_eq!((query(app, half).await, dumps(app)), ("0".to_owned(), before));
        serves(app, "first").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn a_socket_of_the_live_server_is_not_reached_and_a_file_of_the_host_is_there() {
    let name = "a_socket_of_the_live_server_is_not_reached_and_a_file_of_the_host_is_there";
    on_engine(name, Binaries::beside_this_program().unwrap(), async |site| {
        if let Err(why) = databases_image(site.docker().unwrap().engine()) {
            return println!("not run: {name}: {why}");
        }
        let app = &site.app("ledger", HOST).unwrap();
        // The server's sockets lie in a folder that the app mounts by another path.
        let (host, by) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (sockets, flag, link) =
            (host.path().join("sockets"), host.path().join("flag"), by.path().join("link"));
        std::fs::create_dir(&sockets).unwrap();
        std::fs::write(&flag, "").unwrap();
        std::os::unix::fs::symlink(host.path(), &link).unwrap();
        let of_server = format!(
            "volumes: [\"pgdata:/data\", \"{}:/var/run/postgresql\", \"{}:/flag\"]",
            sockets.display(),
            flag.display()
        );
        let of_web =
            format!("init: true\n    volumes: [\"{}:/sockets:ro\"]", link.join("sockets").display());
        let changes = [
            ("volumes: [\"pgdata:/data\"]", &*of_server),
            ("\"set -e;", "\"set -e; test -f /flag; perl -e 'open(F, q(/flag)) && flock(F, 6) or exit 1';"),
            ("init: true", &*of_web),
        ];
        commit(app, &FIRST);
        amended(app, "first", &changes);
        app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
        told(app, &["snapshot", "create"], 0).await;
        let by_socket = "psql \"$(echo $DATABASE_URL | sed s/@postgres/@/)?host=/sockets\" -qAtc";
        let reached = format!("{by_socket} 'select 42'");
        let reached = told(app, &["exec", "--once", "web", "--", "sh", "-c", &reached], 0).await;
        assert!(reached.contains("42"), "the app itself does reach it: {reached}");

        let tries = format!(
            "if {by_socket} 'alter table entries add column reached text'; then echo it is live; fi\nsql \"alter table entries add column mark text default '$DATABASE_URL'\""
        );
        commit(app, &Version { migrate: &tries, ..MARKED });
        amended(app, "tries", &changes);
        let live = left(app);
        // A lock on what the live server has is none on what the scratch server sees.
        let locked = std::fs::File::open(&flag).unwrap();
        locked.lock().unwrap();
        let found = told(app, &["migrate", "rehearse"], 0).await;
        drop(locked);
        assert!(found.contains("+ column entries.mark: text") && !found.contains("it is live"), "{found}");
        assert!(found.contains("postgresql://ledger:[redacted]@postgres/ledger"), "{found}");
        let columns = "select count(*) from information_schema.columns where column_name in ('reached', 'mark')";
        assert_eq!(query(app, columns).await, "0");
        assert_eq!(left(app), live);

        // What the server needs of the host is there no more: that is no fault of the migration.
        std::fs::remove_file(&flag).unwrap();
        let down = told(app, &["migrate", "rehearse"], 1).await;
        assert!(down.contains("was not rehearsed") && down.contains("has ended by itself"), "{down}");
        assert!(down.contains("nothing live was touched"), "{down}");
        assert_eq!(left(app), live);
        serves(app, "first").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn a_scratch_server_that_runs_out_of_memory_says_nothing_of_the_migration() {
    let name = "a_scratch_server_that_runs_out_of_memory_says_nothing_of_the_migration";
    on_engine(name, Binaries::beside_this_program().unwrap(), async |site| {
        if let Err(why) = databases_image(site.docker().unwrap().engine()) {
            return println!("not run: {name}: {why}");
        }
        let app = &site.app("ledger", HOST).unwrap();
        let little = [("volumes: [\"pgdata:/data\"]", "mem_limit: 256m\n    volumes: [\"pgdata:/data\"]")];
        commit(app, &FIRST);
        amended(app, "first", &little);
        app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
        told(app, &["snapshot", "create"], 0).await;
        let hogs = "sql \"select length(string_agg(repeat('x', 1000000), '')) from generate_series(1, 900)\"";
        commit(app, &Version { migrate: hogs, ..MARKED });
        amended(app, "hogs", &little);
        let live = left(app);

        let ended = told(app, &["migrate", "rehearse"], 1).await;

        assert!(ended.contains("was not rehearsed") && !ended.contains("failed in its rehearsal"), "{ended}");
        let why = "a process of the scratch server, made like `postgres`, was ended by the kernel for want of memory, of which it had 256.0 MiB";
        assert!(ended.contains(why), "{ended}");
        assert!(ended.contains("a larger `mem_limit:`") && ended.contains("nothing live was touched"), "{ended}");
        assert_eq!(left(app), live);
        serves(app, "first").await;
    })
    .await;
}

/// A rehearsal that goes on until it is asked to end.
async fn rehearses(app: &App<'_>) {
    told(app, &["migrate", "rehearse", "--detach"], 0).await;
    let begun = async || Some(named(app, "migrate")).filter(|found| !found.is_empty());
    wait_until("it migrates", SOON, begun).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn a_backup_and_a_deploy_go_before_a_rehearsal_which_says_who_asked_it_to_end() {
    let name = "a_backup_and_a_deploy_go_before_a_rehearsal_which_says_who_asked_it_to_end";
    if !has_restic(name) {
        return;
    }
    with_ledger(name, async |app| {
        app.add_to_env(&format!("BACKUP_PASSWORD={PASSWORD}")).unwrap();
        let repository = app.site().folder().join("backups").display().to_string();
        let backup = format!(
            "backup: {{ to: {repository}, password: \"${{BACKUP_PASSWORD}}\", every: 31d }}\nservices:"
        );
        let changes = [("services:", &*backup)];
        commit(app, &FIRST);
        amended(app, "backed up", &changes);
        told(app, &["deploy"], 0).await;
        // The first is made at once, and a rehearsal would give way to it.
        records(app, 1).await;
        told(app, &["snapshot", "create"], 0).await;
        commit(app, &Version { migrate: "sql 'select pg_sleep(3600)'", timeout: "2h", ..MARKED });
        amended(app, "sleeps", &changes);
        let live = left(app);

        rehearses(app).await;
        told(app, &["backup", "run"], 0).await;
        let cancelled = told(app, &["attach"], 9).await;
        assert!(
            cancelled.contains("the rehearsal was cancelled") && cancelled.contains("backup by"),
            "{cancelled}"
        );
        assert!(cancelled.contains("nothing live was touched"), "{cancelled}");
        assert_eq!(left(app), live);

        rehearses(app).await;
        commit(app, &MARKED);
        amended(app, "marked", &changes);
        told(app, &["deploy"], 0).await;
        assert_eq!(query(app, MARKS).await, "1");
        let store = Store::open(&app.site().layout()).unwrap();
        let ended = store.verdicts(app.id(), 2).unwrap().pop().unwrap();
        assert_eq!((ended.verb, ended.exit()), (Verb::MigrateRehearse, Exit::Cancelled), "{ended:?}");
        assert!(format!("{:?}", ended.outcome).contains("deploy by"), "{ended:?}");
        assert_eq!(named(app, "scratch") + &named(app, "migrate"), "");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn an_image_that_is_fetched_for_a_rehearsal_goes_with_it_unless_a_release_has_it() {
    let name = "an_image_that_is_fetched_for_a_rehearsal_goes_with_it_unless_a_release_has_it";
    with_ledger(name, async |app| {
        let registry = match Registry::start(app.site().docker().unwrap().engine()).await {
            Ok(registry) => registry,
            Err(why) => return println!("not run: {name}: {why}"),
        };
        registry.keep("shop/side:1", "one").unwrap();
        let (server, sign) = (registry.server(), "${REGISTRY_TOKEN}");
        app.add_to_env(&format!("REGISTRY_TOKEN={}", cutover_suites::registry::PASSWORD)).unwrap();
        told(app, &["snapshot", "create"], 0).await;
        let live = left(app);
        commit(app, &MARKED);
        let side = format!(
            "registry: {{ server: \"{server}\", username: {USER}, password: \"{sign}\" }}\nservices:\n  side:\n    \
             image: \"{server}/shop/side:1\"\n    init: true"
        );
        amended(app, "side", &[("services:", &side)]);

        let fetched = || docker(app.site(), &["images", "--quiet", &format!("{server}/shop/side")]);

        told(app, &["migrate", "rehearse"], 0).await;
        assert_eq!((left(app), fetched()), (live, String::new()));

        told(app, &["deploy"], 0).await;
        // The engine takes its time to remove what was live before.
        let is_gone = async || Some(()).filter(|()| named(app, "web-blue").is_empty());
        wait_until("what was live is gone", SOON, is_gone).await.unwrap();
        let (live, image) = (left(app).0, fetched());
        assert_ne!(image, "");
        told(app, &["migrate", "rehearse"], 0).await;
        assert_eq!((left(app).0, fetched()), (live, image));
    })
    .await;
}

/// A rehearsal whose run is killed at an entry of its journal.
async fn rehearsal_killed_at(app: &App<'_>, step: u64) -> Verdict {
    let before = newest(app).run;
    let mut command = app.command(&["migrate", "rehearse"]);
    command.env(KILL_AT, step.to_string());
    app.site().run(command).await.unwrap();
    settled_after(app, before).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn a_rehearsal_killed_at_any_step_leaves_nothing_and_touches_nothing() {
    let name = "a_rehearsal_killed_at_any_step_leaves_nothing_and_touches_nothing";
    with_ledger_of(name, killing_binaries().unwrap(), async |app| {
        // The only snapshot is from before there was a table.
        told(app, &["snapshot", "create"], 0).await;
        let live = left(app);
        commit(app, &MARKED);
        under_traffic(app, "killed", "text", async {
            told(app, &["migrate", "rehearse"], 0).await;
            let journal = app.site().journal(newest(app).run).unwrap();
            let steps = acts(&journal);
            for step in &steps {
                let verdict = rehearsal_killed_at(app, *step).await;
                println!("killed at step {step}: exit {}", verdict.exit().code());
                assert!(
                    matches!(verdict.exit(), Exit::Failed | Exit::Done),
                    "after step {step}: {verdict:?}"
                );
                assert_eq!(scratch(app), "", "after step {step}");
                assert_eq!(query(app, MARKS).await, "0", "after step {step}");
                assert_eq!(left(app).1, live.1, "after step {step}");
            }
            assert!(steps.len() > 6, "{steps:?}");
            told(app, &["migrate", "rehearse"], 0).await;
        })
        .await;
        assert_eq!(left(app), live);
        // What was rehearsed is what the deploy does.
        deploy(app, &MARKED, 0).await;
        assert_eq!(query(app, MARKS).await, "1");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn a_rehearsal_asks_what_is_pending_follows_a_role_by_hand_and_names_an_older_state() {
    let name = "a_rehearsal_asks_what_is_pending_follows_a_role_by_hand_and_names_an_older_state";
    with_ledger(name, async |app| {
        // What owns a table and comes in by a password of its own is there in the scratch server, too.
        query(app, "create role clerk login password 'clerk'; grant all on schema public to clerk; alter table entries owner to clerk").await;
        told(app, &["snapshot", "create"], 0).await;
        let clerk = Version {
            name: "clerk",
            migrate: "psql postgresql://clerk:clerk@postgres/ledger -v ON_ERROR_STOP=1 -qAtc 'alter table entries add column mark text'",
            more: ", pending: sh /pending.sh",
            ..FIRST
        };
        commit(app, &clerk);
        let found = told(app, &["migrate", "rehearse", "--database", "main"], 0).await;
        assert!(found.contains("+ column entries.mark: text"), "{found}");
        told(app, &["migrate", "rehearse", "--database", "other"], 2).await;

        // Live has it then, and the newest snapshot does not.
        deploy(app, &clerk, 0).await;
        let older = told(app, &["migrate", "rehearse", "--dry-run"], 0).await;
        assert!(older.contains("it was taken before release"), "{older}");
        told(app, &["snapshot", "create"], 0).await;
        let found = told(app, &["migrate", "rehearse"], 0).await;
        assert!(found.contains("nothing is pending"), "{found}");
        assert!(!found.contains("it was taken before release"), "{found}");
        let lines = told(app, &["migrate", "rehearse", "--json"], 0).await;
        assert!(lines.contains(r#""result":"tried""#), "{lines}");
        assert_eq!(scratch(app), "");
    })
    .await;
}

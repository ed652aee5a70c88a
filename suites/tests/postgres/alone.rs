//! Another installation that shares the database has its lock of migrations.

use cutover_suites::engine::Session;

use super::*;

/// Somebody else has the lock.
fn somebody(app: &App<'_>) -> Session {
    let client = "PGPASSWORD=$POSTGRES_PASSWORD exec psql -h 127.0.0.1 -U ledger -d postgres -qAt";
    let lock = "select pg_advisory_lock(hashtextextended('cutover ledger', 0)), 'taken';";
    let (session, answer) = Session::open(app, "postgres", client, lock);
    assert_eq!(answer, "|taken");
    session
}

/// Fails where the lock is not taken meanwhile.
const TAKEN: &str = r#"[ "$(psql "${DATABASE_URL%/ledger}/postgres" -qAtc "select pg_try_advisory_lock(hashtextextended('cutover ledger', 0))")" = f ]"#;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn a_database_that_somebody_else_migrates_is_not_migrated() {
    with_ledger("a_database_that_somebody_else_migrates_is_not_migrated", async |app| {
        let wider = format!("{TAKEN}; sql \"alter table entries add column mark text default 'wider'\"");
        let expand = Version { name: "wider", migrate: &wider, ..FIRST };
        let renames = format!("{TAKEN}; sql 'alter table entries rename column text to line'");
        let breaking = Version { migrate: &renames, ..renamed("renamed") };
        let before = dumps(app);

        under_traffic(app, "refused", "text", async {
            let session = somebody(app);
            for version in [&expand, &breaking] {
                let talk = deploy(app, version, 3).await;
                assert!(talk.contains("`main` is being migrated by somebody else"), "{talk}");
            }
            serves(app, "first").await;
            drop(session);
        })
        .await;

        assert_eq!(dumps(app), before, "not even dumped");
        // Each sees itself that it has the lock, and nobody has it afterwards.
        under_traffic(app, "wider", "text", async { drop(deploy(app, &expand, 0).await) }).await;
        deploy(app, &breaking, 0).await;
        drop(somebody(app));
    })
    .await;
}

/// The migration of a run that was killed: whoever ends its sessions, it comes back.
const COMES_BACK: &str = "export PGPASSWORD=$POSTGRES_PASSWORD PGAPPNAME=cutover-migration PGHOST=127.0.0.1 PGUSER=ledger PGDATABASE=ledger
(while [ ! -e /tmp/settled ]; do psql -qAtc 'select pg_sleep(600)' >/dev/null 2>&1; done) &
read -r _; echo on; cat >/dev/null; touch /tmp/settled
until ! kill -0 $! 2>/dev/null; do psql -d postgres -qAtc \"select pg_terminate_backend(pid) from pg_stat_activity where query like '%pg_sleep(600)%' and pid <> pg_backend_pid()\" >/dev/null; done
wait; rm /tmp/settled";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn a_database_that_a_killed_run_of_somebody_else_migrates_is_not_migrated() {
    with_ledger("a_database_that_a_killed_run_of_somebody_else_migrates_is_not_migrated", async |app| {
        let adds = "sql \"alter table entries add column mark text default 'wider'\"";
        let expand = Version { name: "wider", migrate: adds, ..FIRST };

        let (killed, _) = Session::open(app, "postgres", COMES_BACK, "begin");
        for compatible in ["expand", "breaking"] {
            let talk = deploy(app, &Version { compatible, ..expand }, 3).await;
            assert!(talk.contains("`main` is being migrated by somebody else"), "{talk}");
            assert!(talk.contains("was killed, and nobody has settled that yet"), "{talk}");
        }
        serves(app, "first").await;
        drop(killed);

        deploy(app, &expand, 0).await;
        serves(app, "wider").await;
    })
    .await;
}

/// Whether the client program that holds the lock runs in the server's container.
fn has_holder(app: &App<'_>) -> bool {
    let words = "grep -lz PGAPPNAME=cutover-alone /proc/[0-9]*/environ 2>/dev/null || true";
    !docker(app.site(), &["exec", &containers(app, "postgres"), "sh", "-c", words]).is_empty()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn a_lock_that_somebody_else_ends_is_told_and_the_migration_goes_on() {
    with_ledger("a_lock_that_somebody_else_ends_is_told_and_the_migration_goes_on", async |app| {
        let ends = "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name = 'cutover-alone'";
        let waits = "select pg_advisory_lock(1)";
        let migrate = format!(
            "[ \"$(sql \"{ends}\")\" = 1 ]; sql '{waits}'; sql \"alter table entries add column mark text default 'wider'\""
        );
        let version = Version { name: "wider", migrate: &migrate, ..FIRST };
        let client = "PGPASSWORD=$POSTGRES_PASSWORD exec psql -h 127.0.0.1 -U ledger -d ledger -qAt";
        let (gate, _) = Session::open(app, "postgres", client, &waits.replace(')', "), 'closed';"));

        let noticed = async {
            let waiting = "select count(*) from pg_stat_activity where wait_event = 'advisory'";
            let waits = async || (query(app, waiting).await == "1").then_some(());
            wait_until("the migration waits", SOON, waits).await.unwrap();
            let has_ended = async || (!has_holder(app)).then_some(());
            wait_until("it is noticed", SOON, has_ended).await.unwrap();
            drop(gate);
        };
        let (talk, ()) = tokio::join!(deploy(app, &version, 0), noticed);

        assert!(talk.contains("the lock of migrations of `main` was lost while it was migrated"), "{talk}");
        serves(app, "wider").await;
        assert_eq!(query(app, "select count(*) from entries where mark is null").await, "0");
    })
    .await;
}

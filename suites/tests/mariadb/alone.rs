//! Another installation that shares the database has its lock of migrations.

use cutover_core::hash::ContentHash;
use cutover_suites::engine::Session;

use super::*;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn a_database_that_somebody_else_migrates_is_not_migrated() {
    with_ledger("a_database_that_somebody_else_migrates_is_not_migrated", async |app| {
        let lock = format!("cutover {}", ContentHash::of(b"ledger").short());
        let somebody = || {
            let client = "MYSQL_PWD=$MARIADB_ROOT_PASSWORD exec mariadb -u root -N --batch --unbuffered";
            let (session, answer) =
                Session::open(app, "mariadb", client, &format!("select get_lock('{lock}', 10);"));
            assert_eq!(answer, "1");
            session
        };
        let taken = format!("[ \"$(sql \"select is_free_lock('{lock}')\")\" = 0 ]");
        let wider = format!("{taken}; sql \"alter table entries add column mark text default 'wider'\"");
        let expand = Version { name: "wider", migrate: &wider, ..FIRST };
        let renames = format!("{taken}; sql 'alter table entries rename column text to line'");
        let breaking = Version { migrate: &renames, ..renamed("renamed") };
        let before = dumps(app);

        under_traffic(app, "refused", "text", async {
            let session = somebody();
            for version in [&expand, &breaking] {
                let talk = deploy(app, version, 3).await;
                assert!(talk.contains("`main` is being migrated by somebody else"), "{talk}");
            }
            drop(session);
        })
        .await;

        assert_eq!(dumps(app), before, "not even dumped");
        // Each sees itself that it has the lock, and nobody has it afterwards.
        deploy(app, &expand, 0).await;
        deploy(app, &breaking, 0).await;
        drop(somebody());
    })
    .await;
}

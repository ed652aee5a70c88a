//! What a dump of `MariaDB` must not lose, and what cannot be put back: that is told before anything is done.

use super::*;

/// A snapshot by hand, put back over what was done since.
async fn snapshot(app: &App<'_>) -> String {
    let before = dumps(app);
    app.cutover(&["snapshot", "create"]).await.unwrap().expect(0).unwrap();
    let taken = dumps(app).into_iter().find(|path| !before.contains(path)).unwrap();
    taken.file_name().unwrap().to_string_lossy().into_owned()
}

/// Longer than what the server takes, once each byte is written in two letters.
const LONG: &str = "insert into papers values (1, repeat(char(7), 9 * 1024 * 1024))";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn history_and_long_rows_come_back_or_are_refused_when_the_snapshot_is_taken() {
    let name = "history_and_long_rows_come_back_or_are_refused_when_the_snapshot_is_taken";
    with_ledger(name, async |app| {
        query(app, "create table prices (id int primary key, price int) with system versioning").await;
        for change in [
            "insert into prices values (1, 10)",
            "update prices set price = 11",
            "update prices set price = 12",
        ] {
            query(app, change).await;
        }
        let past =
            "select group_concat(price order by row_start), min(row_start) from prices for system_time all";
        let before = query(app, past).await;
        assert!(before.starts_with("10,11,12"), "{before}");
        let taken = snapshot(app).await;
        query(app, "update prices set price = 13").await;

        app.cutover(&["snapshot", "restore", &taken, "--yes"]).await.unwrap().expect(0).unwrap();

        assert_eq!(query(app, past).await, before);
        query(app, "create table papers (id int primary key, paper longblob)").await;
        query(app, LONG).await;
        let refused = app.cutover(&["snapshot", "create"]).await.unwrap();
        println!("{}", refused.failure());
        assert!(refused.failure().contains("a row is too long to be put back"), "{}", refused.talk);
        let enough = refused.failure();
        let enough = enough.split("max_allowed_packet = ").nth(1).unwrap().split('`').next().unwrap();
        query(app, &format!("set global max_allowed_packet = {enough}")).await;
        let taken = snapshot(app).await;
        query(app, "delete from papers").await;

        app.cutover(&["snapshot", "restore", &taken, "--yes"]).await.unwrap().expect(0).unwrap();

        assert_eq!(
            query(
                app,
                "select length(paper), md5(paper) = md5(repeat(char(7), 9 * 1024 * 1024)) from papers"
            )
            .await,
            "9437184\t1"
        );
        whole(app).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn what_could_not_be_put_back_is_told_before_anybody_is_held() {
    with_ledger("what_could_not_be_put_back_is_told_before_anybody_is_held", async |app| {
        let breaking = async |name: &str, place: &str, address: &str, told: &str| {
            commit_at(app, &Version { place, ..renamed(name) }, address);
            let talk = deploy_committed(app, name, 7).await;
            assert!(talk.contains("it could not be put back if that failed") && talk.contains(told), "{talk}");
            serves(app, "first").await;
        };
        query(app, "create database blog; create table blog.orders (book int, foreign key (book) references ledger.books (id)) ").await;
        breaking("led", FIRST.place, "mariadb", "blog.orders").await;
        let taken = snapshot(app).await;
        let refused = app.cutover(&["snapshot", "restore", &taken, "--yes"]).await.unwrap();
        assert!(refused.failure().contains("blog.orders"), "{}", refused.talk);
        query(app, "insert into blog.orders values (1)").await;
        query(app, "drop database blog").await;

        // Who has all rights on the database has none to define something as somebody else.
        if std::process::Command::new("mariadb-dump").arg("--version").output().is_ok() {
            query(app, "create definer = root@localhost trigger audit before delete on books for each row set @x = 1").await;
            query(app, r"grant all on \`ledger\_cutover\_%\`.* to ledger@'%'").await;
            let place = r#"url: "mysql://ledger:${MARIADB_PASSWORD}@ADDRESS/ledger""#;
            breaking("defined", place, &address(app), "could not be made again as those who defined them").await;
            query(app, "drop trigger audit").await;
        }
        deploy(app, &renamed("free"), 0).await;
        serves(app, "free").await;
        whole(app).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn a_young_statement_of_a_migration_by_url_is_seen_at_its_deadline() {
    let name = "a_young_statement_of_a_migration_by_url_is_seen_at_its_deadline";
    if std::process::Command::new("mariadb-dump").arg("--version").output().is_err() {
        return println!("not run: {name}: this machine has no mariadb-dump (package mariadb-client)");
    }
    with_ledger(name, async |app| {
        let place = r#"url: "mysql://root:${MARIADB_ROOT_PASSWORD}@ADDRESS/ledger""#;
        // The statement that goes on begins moments before the deadline.
        let migrate = "sql 'do sleep(3)'; sql 'update books set id = id where benchmark(100000000000, md5(id)) = 1'";
        commit_at(app, &Version { name: "hangs", migrate, timeout: "5s", place, ..FIRST }, &address(app));

        let talk = deploy_committed(app, "hangs", 5).await;

        assert!(talk.contains("has been changing the database for"), "{talk}");
        assert!(!talk.contains("is as it was before"), "{talk}");
        serves(app, "first").await;
        let running = "select id from information_schema.processlist where info like '%benchmark(%' and id <> connection_id()";
        let session = query(app, running).await;
        query(app, &format!("kill {session}")).await;
    })
    .await;
}

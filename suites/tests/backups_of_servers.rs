//! Databases of servers in backups: a real `PostgreSQL` and a real Redis, in containers.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test stops where it fails, and says why it did not run"
)]

use std::fs;

use cutover_core::backup::BackupOutcome;
use cutover_suites::engine::{containers, databases_image, docker, on_engine};
use cutover_suites::kept::{self, HOST, PASSWORD, has_restic, inside, query, records, restic};
use cutover_testkit::site::{App, Binaries, Site};

const BACKUP: &str = r#"backup: { to: REPOSITORY, password: "${BACKUP_PASSWORD}", every: 31d, keep: { daily: 1, weekly: 0, monthly: 0 } }"#;

fn backup(site: &Site) -> String {
    BACKUP.replace("REPOSITORY", &site.folder().join("backups").display().to_string())
}

/// The application, live, with some data.
async fn with_kept(name: &str, test: impl AsyncFnOnce(&App<'_>)) {
    if !has_restic(name) {
        return;
    }
    on_engine(name, Binaries::beside_this_program().unwrap(), async |site| {
        if let Err(why) = databases_image(site.docker().unwrap().engine()) {
            return println!("not run: {name}: {why}");
        }
        let app = site.app("kept", HOST).unwrap();
        app.add_to_env(&format!("BACKUP_PASSWORD={PASSWORD}")).unwrap();
        kept::commit(&app, &backup(site));
        app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
        records(&app, 1).await;
        query(&app, "create table entries (id int primary key, text text)").await;
        query(&app, "insert into entries select n, 'row ' || n from generate_series(1, 1000) n").await;
        inside(&app, "cache", "redis-cli set word kept").await;
        test(&app).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn databases_of_servers_are_in_a_backup_and_come_out_of_it() {
    with_kept("databases_of_servers_are_in_a_backup_and_come_out_of_it", async |app| {
        let told = app.cutover(&["backup", "run"]).await.unwrap().expect(0).unwrap();

        println!("{}{}", told.talk, told.output);
        assert!(told.output.contains("Redis cache, database main, volume cache"), "{}", told.output);
        assert!(told.talk.contains("`main` is dumped instead, without the server's roles"), "{}", told.talk);
        let verified = app.cutover(&["backup", "verify"]).await.unwrap().expect(0).unwrap();
        assert!(verified.output.contains("database main: its dump came back"), "{}", verified.output);
        let scratch = app.site().folder().join("scratch");
        app.cutover(&["backup", "restore", "--to", scratch.to_str().unwrap()])
            .await
            .unwrap()
            .expect(0)
            .unwrap();
        let saved = fs::read(scratch.join("volumes/cache/dump.rdb")).unwrap();
        assert!(String::from_utf8_lossy(&saved).contains("kept"), "it was not saved");
        // A person with restic and the password, and nothing of ours.
        let listed = restic(app.site(), &["snapshots", "--json", "--tag", &format!("{}/dump", app.id())]);
        let listed: serde_json::Value = serde_json::from_slice(&listed).unwrap();
        // Only one stays, with what belongs to it.
        let [dump] = listed.as_array().unwrap().as_slice() else { panic!("{listed}") };
        let dumped =
            restic(app.site(), &["dump", dump["short_id"].as_str().unwrap(), "/databases/main.dump"]);
        assert_eq!(fs::read(scratch.join("databases/main.dump")).unwrap(), dumped);
        assert!(String::from_utf8_lossy(&dumped).contains("row 1000"), "it cannot be deduplicated");
        let container = containers(app, "postgres");
        let dump = scratch.join("databases/main.dump");
        docker(app.site(), &["cp", dump.to_str().unwrap(), &format!("{container}:/tmp/main.dump")]);
        let table = inside(app, "postgres", "pg_restore --list /tmp/main.dump").await;
        assert!(table.contains("TABLE DATA public entries"), "{table}");
        in_place(app).await;
    })
    .await;
}

/// The database comes among the snapshots, and from there into its place; what was there is among them, too.
async fn in_place(app: &App<'_>) {
    query(app, "delete from entries").await;
    let told = app.cutover(&["backup", "restore"]).await.unwrap().expect(0).unwrap();
    println!("{}{}", told.talk, told.output);
    let name = told.output.split_once("cutover snapshot restore ").unwrap().1.split_once('`').unwrap().0;

    let told = app.cutover(&["snapshot", "restore", name, "--yes"]).await.unwrap().expect(0).unwrap();

    println!("{}", told.talk);
    assert_eq!(query(app, "select count(*), max(text) from entries").await, "1000|row 999");
    let list = app.cutover(&["snapshot", "list"]).await.unwrap().expect(0).unwrap().output;
    assert!(list.contains(name) && list.matches(".dump.zst").count() == 2, "{list}");
}

/// What was stored anew by the newest backup, in bytes.
async fn added(app: &App<'_>) -> u64 {
    app.cutover(&["backup", "run"]).await.unwrap().expect(0).unwrap();
    match &records(app, 1).await[0].outcome {
        BackupOutcome::Verified { added, .. } => *added,
        BackupOutcome::Failed { why } => panic!("{why}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn a_second_backup_after_one_row_in_a_hundred_changed_stores_little() {
    with_kept("a_second_backup_after_one_row_in_a_hundred_changed_stores_little", async |app| {
        query(app, "truncate entries; insert into entries select n, md5(n::text) || md5((n + 1)::text) from generate_series(1, 1000000) n").await;
        let first = added(app).await;
        let change = "update entries set text = md5(text) || md5(id::text) where";
        query(app, &format!("{change} id between 500001 and 510000")).await;
        let second = added(app).await;
        query(app, &format!("{change} id % 100 = 0")).await;
        let scattered = added(app).await;

        let of_first = |bytes: u64| format!("{}.{} %", bytes * 100 / first, bytes * 1000 / first % 10);
        println!(
            "1,000,000 rows: the first backup stores {first} bytes; after 10,000 rows in a row {second} ({}), after every hundredth {scattered} ({})",
            of_first(second),
            of_first(scattered)
        );
        assert!(second * 20 <= first, "{second} of {first}");
    })
    .await;
}

/// The host is gone, with all that was on it but the backups.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn a_host_that_was_lost_comes_back_with_its_databases() {
    with_kept("a_host_that_was_lost_comes_back_with_its_databases", async |app| {
        app.cutover(&["backup", "run"]).await.unwrap().expect(0).unwrap();
        app.cutover(&["remove", "--volumes", "--yes"]).await.unwrap().expect(0).unwrap();

        let told = app.cutover(&["backup", "restore", "--all"]).await.unwrap().expect(0).unwrap();
        println!("{}{}", told.talk, told.output);
        assert!(told.output.contains("database main: waits for its server"), "{}", told.output);
        let told = app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();

        println!("{}", told.talk);
        assert!(told.talk.contains("database `main` is back from its backup"), "{}", told.talk);
        assert_eq!(query(app, "select count(*), max(text) from entries").await, "1000|row 999");
        assert_eq!(inside(app, "cache", "redis-cli get word").await, "kept");
        // The schedule may be at one.
        records(app, 1).await;
        let again = app.cutover(&["backup", "restore", "--all"]).await.unwrap().expect(7).unwrap();
        println!("{}", again.failure());
        assert!(again.failure().contains("is live on this host"), "{}", again.talk);
    })
    .await;
}

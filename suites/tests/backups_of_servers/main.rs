//! Databases of servers in backups: a real `PostgreSQL` and a real Redis, in containers.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a test stops where it fails, and says why it did not run"
)]

mod killed;

use std::fs;

use cutover_core::backup::BackupOutcome;
use cutover_host::backup::drill_lock_name;
use cutover_host::lock::ProcessLock;
use cutover_suites::engine::{
    MARIADB_IMAGE, MARIADB_START, containers, databases_image, docker, mariadb_image, on_engine,
};
use cutover_suites::kept::{self, HOST, PASSWORD, has_restic, inside, query, records, restic};
use cutover_testkit::site::{App, Binaries, Site};
use cutover_testkit::{SOON, wait_until};

const BACKUP: &str = r#"backup: { to: REPOSITORY, password: "${BACKUP_PASSWORD}", every: 31d, keep: { daily: 1, weekly: 0, monthly: 0 } }"#;

fn backup(site: &Site) -> String {
    BACKUP.replace("REPOSITORY", &site.folder().join("backups").display().to_string())
}

/// The application, live, with some data.
async fn with_kept(name: &str, test: impl AsyncFnOnce(&App<'_>)) {
    with_kept_of(name, Binaries::beside_this_program().unwrap(), test).await;
}

async fn with_kept_of(name: &str, binaries: Binaries, test: impl AsyncFnOnce(&App<'_>)) {
    if !has_restic(name) {
        return;
    }
    on_engine(name, binaries, async |site| {
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
        // The first made the database's password, and has backups: neither is a change.
        let again = app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
        assert!(again.talk.contains("is live already: nothing to do"), "{}", again.talk);
        let told = app.cutover(&["backup", "run"]).await.unwrap().expect(0).unwrap();

        println!("{}{}", told.talk, told.output);
        assert!(told.output.contains("Redis cache, database main, volume cache"), "{}", told.output);
        assert!(
            told.talk.contains("`main` is dumped instead, without the server's roles' passwords"),
            "{}",
            told.talk
        );
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

/// restic cuts what it stores at places that it finds by the content, some 1.5 MB apart and 8 MB at most, differently in each repository: what a
/// change costs beside its own bytes is a matter of luck, so several are measured.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn a_second_backup_after_one_row_in_a_hundred_changed_stores_little() {
    with_kept("a_second_backup_after_one_row_in_a_hundred_changed_stores_little", async |app| {
        let narrow = stored_after_changes(app, 1).await;
        let wide = stored_after_changes(app, 8).await;
        assert!(narrow < 0.10, "{narrow}");
        assert!(wide <= 0.05, "{wide}");

        query(app, "update entries set text = reverse(text) where id % 100 = 0").await;
        println!("every hundredth row changed: {} bytes", added(app).await);
    })
    .await;
}

/// What the next backup stores after 10,000 of 1,000,000 rows changed, as a part of the first: the mean of five changes, each of rows in a row.
/// A row is as many times 64 bytes wide, and its number.
async fn stored_after_changes(app: &App<'_>, width: u32) -> f64 {
    let text = (0..width).map(|nth| format!("md5((n + {nth})::text) || md5((-n - {nth})::text)"));
    let text = text.collect::<Vec<_>>().join(" || ");
    query(
        app,
        &format!("set jit = off; truncate entries; insert into entries select n, {text} from generate_series(1, 1000000) n"),
    )
    .await;
    let first = added(app).await as f64;
    let unchanged = added(app).await;
    assert!(unchanged < 100_000, "{unchanged} bytes, and nothing changed");
    let mut parts = Vec::new();
    for begin in [100_000, 300_000, 500_000, 700_000, 900_000] {
        let rows = format!("id between {} and {}", begin + 1, begin + 10_000);
        query(app, &format!("update entries set text = reverse(text) where {rows}")).await;
        parts.push(added(app).await as f64 / first);
    }
    let mean = parts.iter().sum::<f64>() / parts.len() as f64;
    let told = parts.iter().map(|part| format!("{:.1} %", part * 100.0)).collect::<Vec<_>>().join(", ");
    println!(
        "1,000,000 rows, {first} bytes: unchanged {unchanged} bytes, after 10,000 rows in a row {told}: {:.1} %",
        mean * 100.0
    );
    mean
}

const DRILL: &str = r#"backup: { to: REPOSITORY, password: "${BACKUP_PASSWORD}", every: 31d, drill: { checks: { main: CHECKS } } }"#;

/// Another configuration, live; all of the rest is as it was.
async fn with_checks(app: &App<'_>, checks: &str) {
    let to = app.site().folder().join("backups").display().to_string();
    kept::commit(app, &DRILL.replace("REPOSITORY", &to).replace("CHECKS", checks));
    app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
}

/// The databases beside the live one.
async fn beside(app: &App<'_>) -> String {
    query(app, "select string_agg(datname, ' ' order by datname) from pg_database where datname like 'kept_cutover%'").await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn a_drill_tries_a_dump_in_its_server_and_leaves_nothing_there_also_when_it_is_killed() {
    let name = "a_drill_tries_a_dump_in_its_server_and_leaves_nothing_there_also_when_it_is_killed";
    with_kept(name, async |app| {
        app.cutover(&["backup", "run"]).await.unwrap().expect(0).unwrap();
        query(app, "delete from entries").await;
        with_checks(app, r#"["select count(*) = 1000 from entries", "select max(text) from entries"]"#).await;

        let told = app.cutover(&["backup", "drill"]).await.unwrap().expect(0).unwrap();

        println!("{}{}", told.talk, told.output);
        assert!(told.output.contains("database main: it came back with 1 tables"), "{}", told.output);
        assert!(
            told.output.contains("from entries`: t; `select max(text) from entries`: row 999"),
            "{}",
            told.output
        );
        assert!(told.output.contains("volume cache: it came back"), "{}", told.output);
        assert_eq!(beside(app).await, "");
        assert_eq!(query(app, "select count(*) from entries").await, "0", "the live one was touched");
        with_checks(app, "select count(*) from entries where id > 1000").await;
        let told = app.cutover(&["backup", "drill"]).await.unwrap().expect(1).unwrap();
        println!("{}", told.failure());
        assert!(told.failure().contains("the answer is `0`"), "{}", told.talk);
        assert_eq!(beside(app).await, "");

        query(app, "insert into entries select n, 'row ' || n from generate_series(1, 10) n").await;
        // Killed while its database is there: whoever comes next takes it away, be it a drill or a backup.
        with_checks(app, "select count(pg_sleep(60)) from entries where id < 3").await;
        for (next, exit) in [("run", 0), ("drill", 0)] {
            let mut running = app.command(&["backup", "drill"]).spawn().unwrap();
            let is_there = async || (beside(app).await == "kept_cutover_drilled").then_some(());
            wait_until("it is asked", SOON, is_there).await.unwrap();
            let worker = ProcessLock::peek(&app.site().layout(), &drill_lock_name(app.id())).unwrap();
            let worker = rustix::process::Pid::from_raw(i32::try_from(worker).unwrap()).unwrap();
            rustix::process::kill_process(worker, rustix::process::Signal::KILL).unwrap();
            running.wait().await.unwrap();
            if next == "drill" {
                with_checks(app, "select count(*) from entries").await;
            }
            let told = app.cutover(&["backup", next]).await.unwrap().expect(exit).unwrap();
            println!("{}{}", told.talk, told.output);
            assert_eq!(beside(app).await, "");
        }
    })
    .await;
}

/// The host is gone, with all that was on it but the backups.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn a_host_that_was_lost_comes_back_with_its_databases() {
    with_kept("a_host_that_was_lost_comes_back_with_its_databases", async |app| {
        // On a new server nobody is but who its image makes.
        query(app, "create role reporting login; create role \\\"Al's\\\"; grant select on entries to reporting").await;
        query(app, "create table theirs (id int); alter table theirs owner to \\\"Al's\\\"").await;
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
        let theirs = "select has_table_privilege('reporting', 'entries', 'select'), tableowner from pg_tables where tablename = 'theirs'";
        assert_eq!(query(app, theirs).await, "t|Al's");
        assert_eq!(query(app, "select rolcanlogin from pg_roles where rolname = 'reporting'").await, "f");
        // The schedule may be at one.
        records(app, 1).await;
        let again = app.cutover(&["backup", "restore", "--all"]).await.unwrap().expect(7).unwrap();
        println!("{}", again.failure());
        assert!(again.failure().contains("is live on this host"), "{}", again.talk);
    })
    .await;
}

const MARIADB: &str = r#"app: APP
services:
  web:
    image: IMAGE
    command: [httpd, -f, -p, "8080", -h, /etc]
    port: 8080
    init: true
    stop_grace_period: 2s
    route: { host: kept.localhost }
    health: { path: /hostname, interval: 200ms, within: 60s }
databases:
  main: { engine: mariadb, service: mariadb, services: [web] }
backing:
  mariadb:
    image: IMAGE
    command: [sh, -c, "START"]
    environment: { MARIADB_USER: kept, MARIADB_DATABASE: kept, MARIADB_PASSWORD: , MARIADB_ROOT_PASSWORD: }
    volumes: ["data:/data"]
    healthcheck: { test: [CMD, sh, -c, "MYSQL_PWD=$$MARIADB_PASSWORD mariadb -h 127.0.0.1 -u kept kept -e 'select 1'"], interval: 1s, retries: 60 }
bake: 0s
BACKUP
"#;

/// What a query in `MariaDB` says.
async fn maria(app: &App<'_>, query: &str) -> String {
    let script = format!("MYSQL_PWD=$MARIADB_ROOT_PASSWORD mariadb -u root -N kept -e \"{query}\"");
    inside(app, "mariadb", &script).await
}

/// Rows, and what is made again after them: a view, a trigger and an event.
const ALL_OF_IT: &str = "select (select count(*) from entries), (select max(text) from entries), (select sum(hex(raw) = '00FF27') from entries), \
    (select number from doubled), (select count(*) from information_schema.triggers where trigger_schema = 'kept'), \
    (select count(*) from information_schema.events where event_schema = 'kept')";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn a_mariadb_is_in_a_backup_and_comes_back_from_it_in_place_and_on_a_new_host() {
    let name = "a_mariadb_is_in_a_backup_and_comes_back_from_it_in_place_and_on_a_new_host";
    if !has_restic(name) {
        return;
    }
    on_engine(name, Binaries::beside_this_program().unwrap(), async |site| {
        if let Err(why) = mariadb_image(site.docker().unwrap().engine()) {
            return println!("not run: {name}: {why}");
        }
        let app = &site.app("kept", HOST).unwrap();
        app.add_to_env(&format!("BACKUP_PASSWORD={PASSWORD}")).unwrap();
        let config = MARIADB
            .replace("IMAGE", MARIADB_IMAGE)
            .replace("START", &MARIADB_START.replace('$', "$$"))
            .replace("BACKUP", &backup(site))
            .replace("app: APP", &format!("app: {}", app.id().app));
        fs::write(app.repository().join("cutover.yml"), config).unwrap();
        app.record("release").unwrap();
        app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
        records(app, 1).await;
        maria(app, "create table entries (id int primary key, text varchar(20), raw varbinary(3)); \
            insert into entries select seq, concat('row ', seq), 0x00ff27 from seq_1_to_1000; \
            create table counted (number int); insert into counted values (1000); \
            create trigger count_entries after insert on entries for each row update counted set number = number + 1; \
            create view doubled as select 2 * number as number from counted; \
            create event never on schedule every 1 year do delete from counted").await;
        let all = maria(app, ALL_OF_IT).await;
        assert_eq!(all, "1000\trow 999\t1000\t2000\t1\t1");
        maria(app, "create table hits (n int) engine=Aria transactional=0").await;

        let told = app.cutover(&["backup", "run"]).await.unwrap().expect(0).unwrap();

        println!("{}{}", told.talk, told.output);
        assert!(told.output.contains("database main"), "{}", told.output);
        assert!(told.talk.contains("without the server's users and their rights"), "{}", told.talk);
        assert!(told.talk.contains("the rows of `hits` are not of one moment with the rest"), "{}", told.talk);
        app.cutover(&["backup", "verify"]).await.unwrap().expect(0).unwrap();
        let drilled = app.cutover(&["backup", "drill"]).await.unwrap().expect(0).unwrap();
        println!("{}", drilled.output);
        assert!(drilled.output.contains("database main: it came back with 3 tables"), "{}", drilled.output);
        assert_eq!(maria(app, "select schema_name from information_schema.schemata where schema_name like '%cutover%'").await, "");
        // A person with restic and the client program, and nothing of ours.
        let listed = restic(site, &["snapshots", "--json", "--tag", &format!("{}/dump", app.id())]);
        let listed: serde_json::Value = serde_json::from_slice(&listed).unwrap();
        let [dump] = listed.as_array().unwrap().as_slice() else { panic!("{listed}") };
        let text = restic(site, &["dump", dump["short_id"].as_str().unwrap(), "/databases/main.sql"]);
        fs::write(site.folder().join("main.sql"), text).unwrap();
        let (from, container) = (site.folder().join("main.sql"), containers(app, "mariadb"));
        docker(site, &["cp", from.to_str().unwrap(), &format!("{container}:/tmp/main.sql")]);
        inside(app, "mariadb", "export MYSQL_PWD=$MARIADB_ROOT_PASSWORD; mariadb -u root -e 'create database other'; mariadb -u root other < /tmp/main.sql").await;
        assert_eq!(maria(app, "select count(*) from other.entries").await, "1000");
        maria(app, "drop database other").await;

        maria(app, "drop view doubled; drop event never; delete from entries").await;
        let told = app.cutover(&["backup", "restore"]).await.unwrap().expect(0).unwrap();
        let name = told.output.split_once("cutover snapshot restore ").unwrap().1.split_once('`').unwrap().0;
        app.cutover(&["snapshot", "restore", name, "--yes"]).await.unwrap().expect(0).unwrap();
        assert_eq!(maria(app, ALL_OF_IT).await, all);

        app.cutover(&["remove", "--volumes", "--yes"]).await.unwrap().expect(0).unwrap();
        app.cutover(&["backup", "restore", "--all"]).await.unwrap().expect(0).unwrap();
        let told = app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();

        println!("{}", told.talk);
        assert!(told.talk.contains("database `main` is back from its backup"), "{}", told.talk);
        assert_eq!(maria(app, ALL_OF_IT).await, all);
        records(app, 1).await;
    })
    .await;
}

//! Migrations of a real `MariaDB` in a deploy, under traffic that writes numbered rows: as suite `postgres`, where no transaction takes back what a
//! statement did to a table. Every row whose answer was good is there in the end, and with it what triggers, views and routines make of it.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test stops where it fails, and says its numbers"
)]

mod alone;
mod limits;
mod password;
mod rehearsals;

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use cutover_core::exit::Exit;
use cutover_core::journal::{Step, StepResult, What};
use cutover_core::verdict::{Outcome, Verdict};
use cutover_suites::engine::{MARIADB_IMAGE, MARIADB_START, containers, docker, mariadb_image, on_engine};
use cutover_suites::rows::{HOST, none_is_missing, serves, written_while};
use cutover_suites::{KILL_AT, killing_binaries};
use cutover_testkit::site::{App, Binaries};
use cutover_testkit::{SOON, ask, wait_until};

const CONFIG: &str = r#"app: APP
services:
  web:
    build: .
    command: [httpd, -f, -p, "8080", -h, /www]
    environment: { MYSQL_PWD: "${MARIADB_PASSWORD}", DATABASE_HOST: mariadb }
    port: 8080
    init: true
    stop_grace_period: 2s
    route: { host: ledger.localhost }
    health: { path: /cgi-bin/health, interval: 200ms, timeout: 5s, within: 60s }
    hold: { budget: 60s }
databases:
  main:
    engine: mariadb
    PLACE
    migrate: { service: web, command: sh /migrate.sh, timeout: TIMEOUT, compatible: COMPATIBLE }
backing:
  mariadb:
    image: IMAGE
    command: [sh, -c, "START"]
    environment: { MARIADB_USER: ledger, MARIADB_DATABASE: ledger, MARIADB_PASSWORD: , MARIADB_ROOT_PASSWORD: }
    volumes: ["data:/data"]
    healthcheck: { test: [CMD, sh, -c, "MYSQL_PWD=$$MARIADB_PASSWORD mariadb -h 127.0.0.1 -u ledger ledger -e 'select 1'"], interval: 1s, retries: 60 }
bake: 500ms
"#;

const SQL: &str = "sql() { mariadb -h mariadb -u ledger -N ledger -e \"$1\"; }\n";

const HEALTH: &str = r#"#!/bin/sh
if said=$(mariadb -h mariadb -u ledger -N ledger -e 'select count(*) from entries' 2>&1)
then printf 'Content-Type: text/plain\r\n\r\n%s\n' "$(cat /version)"
else printf 'Status: 503 Service Unavailable\r\nContent-Type: text/plain\r\n\r\n%s\n' "$said"; fi
"#;

/// A row, in the words of this release.
const ADD: &str = r#"#!/bin/sh
if mariadb -h mariadb -u ledger ledger -e "insert into entries (COLUMN) values ('$QUERY_STRING')" >/dev/null 2>&1
then printf 'Content-Type: text/plain\r\n\r\nadded %s\n' "$QUERY_STRING"
else printf 'Status: 500 Internal Server Error\r\n\r\n'; fi
"#;

/// One release of the application.
struct Version<'a> {
    name: &'a str,
    /// What its migration does: a shell's words, with `sql` to run statements.
    migrate: &'a str,
    compatible: &'a str,
    timeout: &'a str,
    /// The column it writes to.
    column: &'a str,
    /// Where the database is said to be.
    place: &'a str,
}

/// A table that another refers to, and one of each kind that cannot move with a table.
const FIRST: Version<'static> = Version {
    name: "first",
    migrate: "sql 'create table if not exists books (id int primary key); insert ignore into books values (1);
        create table if not exists entries (text varchar(100) primary key, book int not null default 1, raw varbinary(9) default 0x00ff27,
            constraint entry_book foreign key (book) references books (id));
        create table if not exists counted (number int not null); insert into counted select 0 where not exists (select 1 from counted);
        create trigger if not exists count_entries after insert on entries for each row update counted set number = number + 1;
        create function if not exists twice (n int) returns int deterministic return 2 * n;
        create or replace view doubled as select twice(number) as number from counted;
        create event if not exists never on schedule every 1 year do delete from counted;'",
    compatible: "expand",
    timeout: "60s",
    column: "text",
    place: "service: mariadb",
};

/// A release that cannot live with what was before, nor the other way round.
fn renamed(name: &str) -> Version<'_> {
    let migrate = "sql 'alter table entries rename column text to line'";
    Version { name, migrate, compatible: "breaking", column: "line", ..FIRST }
}

fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// A commit of the application, as a developer would have it; `address` is where the server is reached from outside.
fn commit_at(app: &App<'_>, version: &Version<'_>, address: &str) {
    let folder = app.repository();
    let config = CONFIG
        .replace("IMAGE", MARIADB_IMAGE)
        .replace("START", &MARIADB_START.replace('$', "$$"))
        .replace("TIMEOUT", version.timeout)
        .replace("COMPATIBLE", version.compatible)
        .replace("PLACE", version.place)
        .replace("ADDRESS", address)
        .replace("app: APP", &format!("app: {}", app.id().app));
    write(folder, "cutover.yml", &config);
    write(folder, "Dockerfile", &format!("FROM {MARIADB_IMAGE}\nCOPY www /www\nCOPY *.sh version /\n"));
    write(folder, "www/cgi-bin/health", HEALTH);
    write(folder, "www/cgi-bin/add", &ADD.replace("COLUMN", version.column));
    write(folder, "migrate.sh", &format!("set -e\n{SQL}{}\n", version.migrate));
    write(folder, "version", version.name);
    app.record(version.name).unwrap();
}

fn commit(app: &App<'_>, version: &Version<'_>) {
    commit_at(app, version, "mariadb");
}

/// Deploys it, and expects this exit code; gives what was said.
async fn deploy(app: &App<'_>, version: &Version<'_>, exit: i32) -> String {
    commit(app, version);
    deploy_committed(app, version.name, exit).await
}

async fn deploy_committed(app: &App<'_>, name: &str, exit: i32) -> String {
    let told = app.cutover(&["deploy"]).await.unwrap().expect(exit).unwrap();
    println!("--- {name} ({exit})\n{}", told.talk);
    told.talk
}

/// What a query in the backing service itself says.
async fn query(app: &App<'_>, query: &str) -> String {
    let script =
        format!("MYSQL_PWD=$MARIADB_ROOT_PASSWORD mariadb -u root -N $MARIADB_DATABASE -e \"{query}\"");
    let told = app.cutover(&["exec", "mariadb", "--", "sh", "-c", &script]).await.unwrap();
    told.expect(0).unwrap().output.trim().to_owned()
}

/// Where the server is reached from outside.
fn address(app: &App<'_>) -> String {
    let format = "{{range .NetworkSettings.Networks}}{{println .IPAddress}}{{end}}";
    let addresses = docker(app.site(), &["inspect", "--format", format, &containers(app, "mariadb")]);
    addresses.split_whitespace().next().unwrap().to_owned()
}

/// Rows are written all the while; none fails, every one is there afterwards, and was counted by the trigger.
async fn under_traffic(app: &App<'_>, name: &str, column: &str, acts: impl Future<Output = ()>) {
    let (acknowledged, ()) = written_while(app.site(), name, acts).await;
    let rows = query(app, &format!("select {column} from entries where raw = 0x00ff27")).await;
    none_is_missing(name, &acknowledged, &rows);
    let count = rows.lines().collect::<BTreeSet<_>>().len();
    assert_eq!(query(app, "select number from doubled").await, (2 * count).to_string());
    whole(app).await;
}

/// All kinds of objects are there, and nothing beside the database.
async fn whole(app: &App<'_>) {
    let asked = "select (select count(*) from information_schema.triggers where trigger_schema = 'ledger'), \
        (select count(*) from information_schema.events where event_schema = 'ledger'), \
        (select count(*) from information_schema.referential_constraints where constraint_schema = 'ledger' and referenced_table_name = 'books'), \
        (select count(*) from information_schema.schemata where schema_name like '%cutover_restored')";
    assert_eq!(query(app, asked).await, "1\t1\t1\t0");
}

/// The dumps that lie there; nothing else may.
fn dumps(app: &App<'_>) -> Vec<PathBuf> {
    let folder = app.site().layout().snapshots(app.id());
    let mut found: Vec<PathBuf> =
        std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    assert!(found.iter().all(|path| path.to_string_lossy().ends_with(".dump.zst")), "{found:?}");
    found
}

fn newest(app: &App<'_>) -> Verdict {
    let store = cutover_host::store::Store::open(&app.site().layout()).unwrap();
    store.verdicts(app.id(), 1).unwrap().pop().unwrap()
}

/// A site with the first release live.
async fn with_ledger(name: &str, test: impl AsyncFnOnce(&App<'_>)) {
    with_ledger_of(name, Binaries::beside_this_program().unwrap(), test).await;
}

async fn with_ledger_of(name: &str, binaries: Binaries, test: impl AsyncFnOnce(&App<'_>)) {
    on_engine(name, binaries, async |site| {
        if let Err(why) = mariadb_image(site.docker().unwrap().engine()) {
            return println!("not run: {name}: {why}");
        }
        let app = site.app("ledger", HOST).unwrap();
        deploy(&app, &FIRST, 0).await;
        test(&app).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_beside_the_old_release_has_a_snapshot_and_one_that_fails_half_way_is_told() {
    let name = "a_migration_beside_the_old_release_has_a_snapshot_and_one_that_fails_half_way_is_told";
    with_ledger(name, async |app| {
        let before = dumps(app).len();
        query(app, "create table hits (n int) engine=MyISAM; create table seen (n int) engine=MEMORY").await;
        under_traffic(app, "beside", "text", async {
            let migrate = "sql \"alter table entries add column mark varchar(9) not null default 'wider'\"";
            let talk = deploy(app, &Version { name: "wider", migrate, ..FIRST }, 0).await;
            assert!(talk.contains(".dump.zst"), "{talk}");
            assert!(talk.contains("the rows of `hits`, `seen` are not of one moment with the rest"), "{talk}");
            serves(app, "wider").await;
            assert_eq!(dumps(app).len(), before + 1);

            // No transaction takes it back: half of it stays, and the way back is said.
            let migrate = "sql 'start transaction; alter table entries add column half text; create table other (x int); select nonsense'";
            let talk = deploy(app, &Version { name: "half", migrate, ..FIRST }, 5).await;
            assert!(talk.contains("was changed by the migration that failed"), "{talk}");
            assert!(talk.contains("commits each such statement by itself"), "{talk}");
            assert!(talk.contains("table `entries` (changed), table `other` (new)"), "{talk}");
            assert!(!talk.contains("a transaction took back"), "{talk}");
            serves(app, "wider").await;
        })
        .await;
        put_back_by_hand(app).await;
    })
    .await;
}

/// What the message says to type does what it says.
async fn put_back_by_hand(app: &App<'_>) {
    let Outcome::Failed { failure } = newest(app).outcome else { panic!("it did not fail") };
    let line = failure.next.iter().find(|line| line.contains("cutover snapshot restore")).unwrap();
    let command: Vec<&str> = line.split('`').nth(1).unwrap().split(' ').skip(1).collect();
    let name = command.last().copied().unwrap();
    let read = app.cutover(&["snapshot", "verify", name]).await.unwrap().expect(0).unwrap();
    println!("{} {}", read.talk, read.output);
    app.cutover(&[&command[..], &["--to", "scratch"]].concat()).await.unwrap().expect(0).unwrap();
    app.cutover(&[&command[..], &["--yes"]].concat()).await.unwrap().expect(0).unwrap();
    let halves = "select table_schema from information_schema.columns where column_name = 'half'";
    assert_eq!(query(app, halves).await, "");
    assert_eq!(query(app, "select count(*) > 0 from scratch.entries").await, "1");
    whole(app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breaking_migration_holds_is_put_back_when_it_fails_and_is_taken_back_with_its_snapshot() {
    let name = "a_breaking_migration_holds_is_put_back_when_it_fails_and_is_taken_back_with_its_snapshot";
    with_ledger(name, async |app| {
        under_traffic(app, "held", "text", async {
            let migrate = "sql 'alter table entries rename column text to line; drop view doubled; drop trigger count_entries'; sql 'select nonsense'";
            let talk = deploy(app, &Version { migrate, ..renamed("fails") }, 5).await;
            assert!(talk.contains("the database was put back as it was"), "{talk}");
            serves(app, "first").await;
        })
        .await;
        under_traffic(app, "renamed", "line", async {
            deploy(app, &renamed("renamed"), 0).await;
            serves(app, "renamed").await;
        })
        .await;
        let beside = "select count(*) from information_schema.schemata where schema_name like '%cutover%'";
        assert_eq!(query(app, beside).await, "0", "what was kept goes with the next one that is good");
        let answer = ask(app.site().http().unwrap(), HOST, "/cgi-bin/add?afterwards").await.unwrap();
        assert_eq!(answer.status, 200);
        let snapshot = dumps(app).pop().unwrap();
        let good = std::fs::read(&snapshot).unwrap();
        let mut flipped = good.clone();
        flipped[good.len() / 2] ^= 1;
        std::fs::write(&snapshot, flipped).unwrap();
        let refused = app.cutover(&["rollback", "--restore-db", "--yes"]).await.unwrap().expect(7).unwrap();
        assert!(refused.talk.contains("cannot be trusted"), "{}", refused.talk);
        serves(app, "renamed").await;
        assert_eq!(query(app, "select count(*) from entries where line = 'afterwards'").await, "1");
        std::fs::write(&snapshot, good).unwrap();
        let back = app.cutover(&["rollback", "--restore-db", "--yes"]).await.unwrap().expect(0).unwrap();
        assert!(back.talk.contains("is not known (mariadb keeps no count of them)"), "{}", back.talk);
        serves(app, "first").await;
        assert_eq!(query(app, "select count(*) from entries where text = 'afterwards'").await, "0");
        assert_ne!(query(app, "select count(*) from entries where text like 'held%'").await, "0");
        whole(app).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn a_migration_that_hangs_is_ended_in_the_server_too_and_nobody_elses_session_is() {
    let name = "a_migration_that_hangs_is_ended_in_the_server_too_and_nobody_elses_session_is";
    with_ledger(name, async |app| {
        under_traffic(app, "hangs", "text", async {
            let migrate = "sql 'update books set id = id where benchmark(100000000000, md5(id)) = 1'";
            let talk = deploy(app, &Version { name: "hangs", migrate, timeout: "8s", ..FIRST }, 5).await;
            assert!(talk.contains("did not end within 8 s"), "{talk}");
            assert!(talk.contains("its sessions there were ended"), "{talk}");
            assert!(talk.contains("the schema of `main` is as it was before"), "{talk}");
            let sleeping = "select count(*) from information_schema.processlist where info like '%benchmark(%' and id <> connection_id()";
            assert_eq!(query(app, sleeping).await, "0");
        })
        .await;
        // The same while requests are held.
        under_traffic(app, "waits", "text", async {
            let migrate = "sql 'alter table entries rename column text to line'; sql 'update books set id = id where benchmark(100000000000, md5(id)) = 1'";
            let talk = deploy(app, &Version { migrate, timeout: "8s", ..renamed("waits") }, 5).await;
            assert!(talk.contains("the database was put back as it was"), "{talk}");
            serves(app, "first").await;
        })
        .await;
    })
    .await;
}

/// In the place of the dump program: a shell's words, with `$TOOL` for the true one.
fn false_dumps(app: &App<'_>, what: &str) {
    let container = containers(app, "mariadb");
    let script = format!(
        "[ -e /usr/bin/true-dump ] || mv /usr/bin/mariadb-dump /usr/bin/true-dump; \
         printf '#!/bin/sh\\n%s\\n' '{}' > /usr/bin/mariadb-dump; chmod 755 /usr/bin/mariadb-dump",
        what.replace("$TOOL", "/usr/bin/true-dump \"$@\"")
    );
    docker(app.site(), &["exec", &container, "sh", "-c", &script]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn a_dump_that_cannot_be_taken_keeps_the_migration_away() {
    with_ledger("a_dump_that_cannot_be_taken_keeps_the_migration_away", async |app| {
        let before = dumps(app);
        let wider = Version { name: "wider", migrate: "sql 'alter table entries add column mark text'", ..FIRST };
        // Half of a dump and a good end, then nothing at all, then a bad end.
        for (what, told) in [
            ("$TOOL | head -c 900; exit 0", "mark of a dump that was completed"),
            ("true", "cannot be trusted"),
            ("echo no; exit 3", "exited with code 3"),
        ] {
            false_dumps(app, what);
            let talk = deploy(app, &wider, 5).await;
            assert!(talk.contains(told), "{talk}");
            assert_eq!(dumps(app), before);
            serves(app, "first").await;
        }
        false_dumps(app, "exec $TOOL");
        let marks = "select count(*) from information_schema.columns where column_name = 'mark'";
        assert_eq!(query(app, marks).await, "0");
        deploy(app, &wider, 0).await;
        let journal = app.site().journal(newest(app).run).unwrap();
        let taken = journal.iter().any(|entry| {
            matches!(&entry.what, What::Outcome { result: StepResult::Snapshot { bytes, hash: Some(_) }, .. } if *bytes > 0)
        });
        assert!(taken, "its size and hash are on record");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn a_server_by_its_url_is_migrated_with_the_hosts_own_programs() {
    let name = "a_server_by_its_url_is_migrated_with_the_hosts_own_programs";
    if std::process::Command::new("mariadb-dump").arg("--version").output().is_err() {
        return println!("not run: {name}: this machine has no mariadb-dump (package mariadb-client)");
    }
    with_ledger(name, async |app| {
        let address = &address(app);
        let at_url = |version: Version<'static>| Version {
            place: "url: \"mysql://root:${MARIADB_ROOT_PASSWORD}@ADDRESS/ledger\"",
            ..version
        };
        commit_at(app, &at_url(Version { name: "away", ..FIRST }), address);
        deploy_committed(app, "away", 0).await;
        under_traffic(app, "away", "text", async {
            let migrate = "sql 'alter table entries rename column text to line'; sql 'select nonsense'";
            commit_at(app, &at_url(Version { migrate, ..renamed("fails") }), address);
            let talk = deploy_committed(app, "fails", 5).await;
            assert!(talk.contains("the database was put back as it was"), "{talk}");
        })
        .await;
        // Somebody who is not known there, and what is no such server at all.
        for (place, told) in
            [(format!("nobody@{address}"), "Access denied"), (format!("root@{address}:9"), "cannot be asked")]
        {
            let place = format!("url: \"mysql://{place}/ledger\"");
            deploy(app, &Version { name: "wrong", migrate: "false", place: &place, ..FIRST }, 5).await;
            let Outcome::Failed { failure } = newest(app).outcome else { panic!("it did not fail") };
            let all = format!("{failure:?}");
            assert!(all.contains(told) && all.contains("was not migrated"), "{all}");
            serves(app, "away").await;
        }
    })
    .await;
}

/// The verdict of the run after this one, once nobody holds the lock.
async fn settled_after(app: &App<'_>, before: cutover_core::names::RunId) -> Verdict {
    let settled = async || {
        let verdict = newest(app);
        let is_free = cutover_host::lock::AppLock::peek(&app.site().layout(), app.id()).is_none();
        (verdict.run != before && is_free).then_some(verdict)
    };
    wait_until("the run that was killed is settled", SOON, settled).await.unwrap()
}

/// A deploy whose run is killed when its journal has this entry: watch settles it by itself.
async fn killed_at(app: &App<'_>, version: &Version<'_>, step: u64) {
    let before = newest(app).run;
    commit(app, version);
    let mut command = app.command(&["deploy"]);
    command.env(KILL_AT, step.to_string());
    app.site().run(command).await.unwrap();
    let verdict = settled_after(app, before).await;
    assert_ne!(verdict.exit(), Exit::Person, "nobody is needed after step {step}: {verdict:?}");
    println!("killed at step {step}: exit {}", verdict.exit().code());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn a_run_killed_at_every_step_of_a_breaking_migration_is_put_back_or_goes_on() {
    let name = "a_run_killed_at_every_step_of_a_breaking_migration_is_put_back_or_goes_on";
    with_ledger_of(name, killing_binaries().unwrap(), async |app| {
        deploy(app, &renamed("whole"), 0).await;
        let journal = app.site().journal(newest(app).run).unwrap();
        let is_snapshot = |what: &What| matches!(what, What::Intent { step: Step::Snapshot { .. }, .. });
        let from = journal.iter().position(|entry| is_snapshot(&entry.what)).unwrap();
        let is_act = |what: &What| matches!(what, What::Intent { .. } | What::Outcome { .. });
        let steps: Vec<u64> =
            journal[from..].iter().filter(|entry| is_act(&entry.what)).map(|entry| entry.seq).collect();
        let back = async || {
            app.cutover(&["rollback", "--restore-db", "--yes"]).await.unwrap().expect(0).unwrap();
        };
        back().await;
        for step in steps {
            killed_at(app, &renamed(&format!("killed{step}")), step).await;
            let lines = "select count(*) from information_schema.columns where table_schema = 'ledger' and column_name = 'line'";
            let has_line = query(app, lines).await;
            let answer = ask(app.site().http().unwrap(), HOST, "/cgi-bin/health").await.unwrap();
            assert_eq!(answer.status, 200, "after step {step}: {answer:?}");
            assert_eq!(answer.body.contains("killed"), has_line == "1", "after step {step}: {answer:?}");
            whole(app).await;
            if has_line == "1" {
                back().await;
            }
        }
        deploy(app, &renamed("after"), 0).await;
    })
    .await;
}

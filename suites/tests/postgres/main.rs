//! Migrations of a real `PostgreSQL` in a deploy, under traffic that writes numbered rows: the snapshot before it, what becomes of one that fails,
//! hangs or breaks the old release, and the way back. Every row whose answer was good is there in the end.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test stops where it fails, and says its numbers"
)]

mod alone;
mod by_url;
mod large;
mod password;
mod progress;
mod rehearsals;
mod several;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use cutover_core::exit::Exit;
use cutover_core::journal::{Step, StepResult, What};
use cutover_core::plan::Stage;
use cutover_core::verdict::Verdict;
use cutover_suites::disk::Disk;
use cutover_suites::engine::{
    DATABASES_IMAGE, POSTGRES_START, containers, databases_image, docker, on_engine,
};
use cutover_suites::rehearsed::told;
use cutover_suites::rows::{HOST, none_is_missing, serves, written_while};
use cutover_suites::{KILL_AT, killing_binaries};
use cutover_testkit::site::{App, Binaries};
use cutover_testkit::{SOON, ask, wait_until};

const CONFIG: &str = r#"app: APP
environment:
  DATABASE_URL: VALUE
services:
  web:
    build: .
    command: [httpd, -f, -p, "8080", -h, /www]
    port: 8080
    init: true
    stop_grace_period: 2s
    route: { host: ledger.localhost }
    health: { path: /cgi-bin/health, interval: 200ms, timeout: 5s, within: 60s }
    hold: { budget: 60s }
databases:
  main:
    engine: postgres
    PLACE
    migrate: { service: web, command: sh /migrate.sh, timeout: TIMEOUT, compatible: COMPATIBLE MORE }
bake: 500ms
"#;

const BACKING: &str = r#"backing:
  postgres:
    image: IMAGE
    command: [sh, -c, "START"]
    environment: { POSTGRES_USER: ledger, POSTGRES_DB: DATABASE, POSTGRES_PASSWORD: }
    volumes: ["pgdata:/data"]
    healthcheck: { test: [CMD, pg_isready, -h, 127.0.0.1, -U, ledger], interval: 1s, retries: 60 }
"#;

/// Where the database's server is.
#[derive(Clone, Copy)]
enum Place {
    /// A backing service of the application.
    Backing,
    /// Whose it is cutover does not know: a variable says how it is reached.
    Url,
}

const HEALTH: &str = r#"#!/bin/sh
if said=$(psql "$DATABASE_URL" -qAtc 'select count(*) from entries' 2>&1)
then printf 'Content-Type: text/plain\r\n\r\n%s\n' "$(cat /version)"
else printf 'Status: 503 Service Unavailable\r\nContent-Type: text/plain\r\n\r\n%s\n' "$said"; fi
"#;

/// A row, in the words of this release.
const ADD: &str = r#"#!/bin/sh
if psql "$DATABASE_URL" -qc "insert into entries (COLUMN) values ('$QUERY_STRING')" >/dev/null 2>&1
then printf 'Content-Type: text/plain\r\n\r\nadded %s\n' "$QUERY_STRING"
else printf 'Status: 500 Internal Server Error\r\n\r\n'; fi
"#;

/// One release of the application.
struct Version<'a> {
    name: &'a str,
    /// What its migration does: a shell's words, with `sql` to run one.
    migrate: &'a str,
    compatible: &'a str,
    timeout: &'a str,
    more: &'a str,
    /// The column it writes to.
    column: &'a str,
    /// The database's name.
    database: &'a str,
    place: Place,
}

const FIRST: Version<'static> = Version {
    name: "first",
    migrate: "sql 'create table if not exists entries (text text primary key)'",
    compatible: "expand",
    timeout: "60s",
    more: "",
    column: "text",
    database: "ledger",
    place: Place::Backing,
};

fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// A commit of the application, as a developer would have it.
fn commit(app: &App<'_>, version: &Version<'_>) {
    let folder = app.repository();
    let config = match version.place {
        Place::Backing => {
            CONFIG
                .replace("VALUE", "postgresql://ledger:${POSTGRES_PASSWORD}@postgres/DATABASE")
                .replace("PLACE", "service: postgres")
                + BACKING
        }
        Place::Url => CONFIG.replace("VALUE", "").replace("PLACE", "url: \"${DATABASE_URL}\""),
    };
    let config = config
        .replace("POSTGRES_DB: DATABASE,", &format!("POSTGRES_DB: {},", version.database))
        .replace("@postgres/DATABASE", &format!("@postgres/{}", version.database))
        .replace("IMAGE", DATABASES_IMAGE)
        .replace("START", &POSTGRES_START.replace('$', "$$"))
        .replace("TIMEOUT", version.timeout)
        .replace("COMPATIBLE", version.compatible)
        .replace("MORE", version.more)
        .replace("app: APP", &format!("app: {}", app.id().app));
    write(folder, "cutover.yml", &config);
    write(folder, "Dockerfile", &format!("FROM {DATABASES_IMAGE}\nCOPY www /www\nCOPY *.sh version /\n"));
    write(folder, "www/cgi-bin/health", HEALTH);
    write(folder, "www/cgi-bin/add", &ADD.replace("COLUMN", version.column));
    let run = "sql() { psql \"$DATABASE_URL\" -v ON_ERROR_STOP=1 -qAtc \"$1\"; }\nset -e\n";
    write(folder, "migrate.sh", &format!("{run}{}\n", version.migrate));
    // Nothing is pending where there is no such column to be added.
    write(
        folder,
        "pending.sh",
        &format!(
            "{run}[ \"$(sql \"select count(*) from information_schema.columns where column_name = 'mark'\")\" = 1 ]\n"
        ),
    );
    write(folder, "version", version.name);
    app.record(version.name).unwrap();
}

/// Deploys it, and expects this exit code; gives what was said.
async fn deploy(app: &App<'_>, version: &Version<'_>, exit: i32) -> String {
    commit(app, version);
    let told = app.cutover(&["deploy"]).await.unwrap().expect(exit).unwrap();
    println!("--- {} ({exit})\n{}", version.name, told.talk);
    told.talk
}

/// What a query in the backing service itself says.
async fn query(app: &App<'_>, query: &str) -> String {
    let script = format!(
        "PGPASSWORD=$POSTGRES_PASSWORD psql -h 127.0.0.1 -U ledger -d $POSTGRES_DB -qAtc \"{query}\""
    );
    let told = app.cutover(&["exec", "postgres", "--", "sh", "-c", &script]).await.unwrap();
    told.expect(0).unwrap().output.trim().to_owned()
}

/// Rows are written all the while; none fails, and every one is there afterwards.
async fn under_traffic(app: &App<'_>, name: &str, column: &str, acts: impl Future<Output = ()>) {
    let (acknowledged, ()) = written_while(app.site(), name, acts).await;
    none_is_missing(name, &acknowledged, &query(app, &format!("select {column} from entries")).await);
}

/// The dumps that lie there; nothing else may.
fn dumps(app: &App<'_>) -> Vec<PathBuf> {
    let folder = app.site().layout().snapshots(app.id());
    let mut found: Vec<PathBuf> =
        std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    let is_dump = |path: &PathBuf| path.to_string_lossy().ends_with(".dump.zst");
    assert!(found.iter().all(is_dump), "{found:?}");
    found
}

fn newest(app: &App<'_>) -> Verdict {
    let store = cutover_host::store::Store::open(&app.site().layout()).unwrap();
    store.verdicts(app.id(), 1).unwrap().pop().unwrap()
}

/// The places in a journal of what was begun from the snapshot on, of what came of it, and of the record: where a run is killed.
fn steps(app: &App<'_>) -> Vec<u64> {
    let journal = app.site().journal(newest(app).run).unwrap();
    let is_snapshot = |what: &What| matches!(what, What::Intent { step: Step::Snapshot { .. }, .. });
    let from = journal.iter().position(|entry| is_snapshot(&entry.what)).unwrap();
    let is_act = |what: &What| {
        matches!(what, What::Intent { .. } | What::Outcome { .. } | What::Left { stage: Stage::Migrate, .. })
    };
    journal[from..].iter().filter(|entry| is_act(&entry.what)).map(|entry| entry.seq).collect()
}

/// A deploy whose run is killed when its journal has this entry: watch settles it by itself. `false`: it had ended before.
async fn killed_at(app: &App<'_>, version: &Version<'_>, step: u64) -> bool {
    let before = newest(app).run;
    commit(app, version);
    let mut command = app.command(&["deploy"]);
    command.env(KILL_AT, step.to_string());
    app.site().run(command).await.unwrap();
    let verdict = settled_after(app, before).await;
    assert_ne!(verdict.exit(), Exit::Person, "nobody is needed after step {step}: {verdict:?}");
    let journal = app.site().journal(verdict.run).unwrap();
    let resumed = journal.iter().any(|entry| matches!(entry.what, What::Resumed { .. }));
    println!("killed at step {step}: exit {}, killed: {resumed}", verdict.exit().code());
    resumed
}

/// Runs killed at some of their steps while rows are written, each with a migration of its own to carry out.
async fn kills(app: &App<'_>, every: usize) {
    under_traffic(app, "killed", "text", async {
        let migrate =
            |number: u64| format!("sql 'alter table entries add column if not exists mark{number} text'");
        deploy(app, &Version { name: "whole", migrate: &migrate(0), ..FIRST }, 0).await;
        let steps = steps(app);
        let mut killed = 0;
        for step in steps.iter().step_by(every) {
            let (name, migrate) = (format!("killed{step}"), migrate(*step));
            killed += usize::from(
                killed_at(app, &Version { name: &name, migrate: &migrate, ..FIRST }, *step).await,
            );
            let answer = ask(app.site().http().unwrap(), HOST, "/cgi-bin/health").await.unwrap();
            assert_eq!(answer.status, 200, "after step {step}: {answer:?}");
        }
        println!("killed {killed} of {} steps", steps.len().div_ceil(every));
        assert!(killed > 1, "{steps:?}");
        // What was settled is in nobody's way.
        deploy(app, &Version { name: "after", migrate: &migrate(999), ..FIRST }, 0).await;
    })
    .await;
    assert_eq!(
        query(app, "select count(*) from pg_stat_activity where application_name like 'cutover-%'").await,
        "0"
    );
}

/// A release that cannot live with what was before, nor the other way round.
fn renamed(name: &str) -> Version<'_> {
    let migrate = "sql 'alter table entries rename column text to line'";
    Version { name, migrate, compatible: "breaking", column: "line", ..FIRST }
}

/// The same with the held path, which puts the database back where the run dies before its hold ends.
async fn kills_held(app: &App<'_>, every: usize) {
    deploy(app, &renamed("whole"), 0).await;
    let steps = steps(app);
    app.cutover(&["rollback", "--restore-db", "--yes"]).await.unwrap().expect(0).unwrap();
    for step in steps.iter().step_by(every) {
        let name = format!("killed{step}");
        killed_at(app, &renamed(&name), *step).await;
        let has_line =
            query(app, "select count(*) from information_schema.columns where column_name = 'line'").await;
        let answer = ask(app.site().http().unwrap(), HOST, "/cgi-bin/health").await.unwrap();
        assert_eq!(answer.status, 200, "after step {step}: {answer:?}");
        assert_eq!(answer.body.contains("killed"), has_line == "1", "after step {step}: {answer:?}");
        if has_line == "1" {
            app.cutover(&["rollback", "--restore-db", "--yes"]).await.unwrap().expect(0).unwrap();
        }
    }
    deploy(app, &renamed("after"), 0).await;
}

/// A site with the first release live.
async fn with_ledger(name: &str, test: impl AsyncFnOnce(&App<'_>)) {
    with_ledger_of(name, Binaries::beside_this_program().unwrap(), test).await;
}

async fn with_ledger_of(name: &str, binaries: Binaries, test: impl AsyncFnOnce(&App<'_>)) {
    on_engine(name, binaries, async |site| {
        if let Err(why) = databases_image(site.docker().unwrap().engine()) {
            return println!("not run: {name}: {why}");
        }
        let app = site.app("ledger", HOST).unwrap();
        deploy(&app, &FIRST, 0).await;
        test(&app).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_beside_the_old_release_has_a_snapshot_and_one_that_fails_is_told() {
    with_ledger("a_migration_beside_the_old_release_has_a_snapshot_and_one_that_fails_is_told", async |app| {
        let before = dumps(app).len();
        under_traffic(app, "beside", "text", async {
            let wider = Version {
                name: "wider",
                migrate: "sql \"alter table entries add column if not exists mark text not null default 'wider'\"",
                ..FIRST
            };
            let talk = deploy(app, &wider, 0).await;
            assert!(talk.contains(".dump.zst"), "{talk}");
            serves(app, "wider").await;
            assert_eq!(dumps(app).len(), before + 1);

            // In a transaction: nothing of it stays.
            let talk = deploy(
                app,
                &Version {
                    name: "undone",
                    migrate: "sql 'begin; alter table entries add column half text; select nonsense; commit'",
                    ..FIRST
                },
                5,
            )
            .await;
            assert!(talk.contains("the schema of `main` is as it was before"), "{talk}");
            assert!(talk.contains("a transaction took back") && talk.contains("cutover snapshot restore main_"), "{talk}");

            // Outside of one: half of it stays, and the way back is said.
            let talk = deploy(
                app,
                &Version {
                    name: "half",
                    migrate: "sql 'alter table entries add column half text'; sql 'select nonsense'",
                    ..FIRST
                },
                5,
            )
            .await;
            assert!(talk.contains("was changed by the migration that failed"), "{talk}");
            assert!(talk.contains("cutover snapshot restore main_"), "{talk}");
            serves(app, "wider").await;
        })
        .await;
        put_back_by_hand(app, "wider").await;
        let halves = "select count(*) from information_schema.columns where column_name = 'half'";
        assert_eq!(query(app, halves).await, "0");
    })
    .await;
}

/// What the message says to type does what it says, and this version goes on.
async fn put_back_by_hand(app: &App<'_>, version: &str) {
    let failure = newest(app);
    let cutover_core::verdict::Outcome::Failed { failure } = failure.outcome else { panic!("{failure:?}") };
    let line = failure.next.iter().find(|line| line.contains("cutover snapshot restore")).unwrap();
    let command: Vec<&str> = line.split('`').nth(1).unwrap().split(' ').skip(1).chain(["--yes"]).collect();
    app.cutover(&command).await.unwrap().expect(0).unwrap();
    serves(app, version).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_hangs_is_ended_in_the_server_too() {
    with_ledger("a_migration_that_hangs_is_ended_in_the_server_too", async |app| {
        under_traffic(app, "hangs", "text", async {
            let hangs = Version {
                name: "hangs",
                migrate: "echo it begins; sql 'select pg_sleep(600)'",
                timeout: "3s",
                ..FIRST
            };
            let talk = deploy(app, &hangs, 5).await;
            assert!(talk.contains("did not end within 3 s"), "{talk}");
            assert!(talk.contains("the schema of `main` is as it was before"), "{talk}");
            let sleeping = "select count(*) from pg_stat_activity where query like '%pg_sleep(600)%' and pid <> pg_backend_pid()";
            assert_eq!(query(app, sleeping).await, "0");
        })
        .await;
        told_while_it_ran(app);
    })
    .await;
}

/// A migration's words are heard while it runs, not at its end.
fn told_while_it_ran(app: &App<'_>) {
    let journal = app.site().journal(newest(app).run).unwrap();
    let said =
        journal.iter().find(|entry| matches!(&entry.what, What::Output { line, .. } if line == "it begins"));
    let ended = journal.iter().find(|entry| matches!(&entry.what, What::Broke { .. }));
    let (said, ended) = (said.unwrap().at, ended.unwrap().at);
    assert!(ended.duration_since(said) > jiff::SignedDuration::from_secs(1), "{said} {ended}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_is_pending_no_snapshot_is_taken() {
    with_ledger("where_nothing_is_pending_no_snapshot_is_taken", async |app| {
        let asked = Version {
            name: "asked",
            migrate: "sql \"alter table entries add column mark text\"",
            more: ", pending: sh /pending.sh",
            ..FIRST
        };
        let before = dumps(app).len();
        deploy(app, &asked, 0).await;
        assert_eq!(dumps(app).len(), before + 1, "it was pending");

        // It would fail, were it run.
        let talk = deploy(app, &Version { name: "again", ..asked }, 0).await;

        assert!(talk.contains("no migration is pending"), "{talk}");
        assert_eq!(dumps(app).len(), before + 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breaking_migration_holds_is_put_back_when_it_fails_and_is_taken_back_with_its_snapshot() {
    let name = "a_breaking_migration_holds_is_put_back_when_it_fails_and_is_taken_back_with_its_snapshot";
    with_ledger(name, async |app| {
        let renamed = renamed("renamed");
        under_traffic(app, "held", "text", async {
            let fails = Version {
                name: "fails",
                migrate: "sql 'alter table entries rename column text to line'; sql 'select nonsense'",
                ..renamed
            };
            let talk = deploy(app, &fails, 5).await;
            assert!(talk.contains("the database was put back as it was"), "{talk}");
            assert!(talk.contains("as the database `ledger_cutover_replaced_"), "{talk}");
            serves(app, "first").await;
        })
        .await;
        let kept = "select count(*) from pg_database where datname like 'ledger_cutover_replaced_%'";
        assert_eq!(query(app, kept).await, "1");
        under_traffic(app, "renamed", "line", async {
            deploy(app, &renamed, 0).await;
            serves(app, "renamed").await;
        })
        .await;
        assert_eq!(query(app, kept).await, "0", "a deploy that migrates went well");
        let answer = ask(app.site().http().unwrap(), HOST, "/cgi-bin/add?afterwards").await.unwrap();
        assert_eq!(answer.status, 200);
        let refused = app.cutover(&["rollback", "--yes"]).await.unwrap().expect(7).unwrap();
        assert!(refused.failure().contains("--restore-db"), "{}", refused.talk);
        let snapshot = dumps(app).pop().unwrap();
        let good = std::fs::read(&snapshot).unwrap();
        let mut flipped = good.clone();
        flipped[good.len() / 2] ^= 1;
        std::fs::write(&snapshot, flipped).unwrap();
        let refused = app.cutover(&["rollback", "--restore-db", "--yes"]).await.unwrap().expect(7).unwrap();
        assert!(refused.failure().contains("cannot be trusted"), "{}", refused.talk);
        serves(app, "renamed").await;
        assert_eq!(query(app, "select count(*) from entries where line = 'afterwards'").await, "1");
        std::fs::write(&snapshot, good).unwrap();
        app.cutover(&["rollback", "--restore-db", "--yes"]).await.unwrap().expect(0).unwrap();
        serves(app, "first").await;
        assert_eq!(query(app, "select count(*) from entries where text = 'afterwards'").await, "0");
        assert_ne!(query(app, "select count(*) from entries where text like 'held%'").await, "0");
        assert_eq!(query(app, BESIDE).await, "ledger_cutover_replaced");
    })
    .await;
}

/// The databases that restores have left beside.
const BESIDE: &str = "select string_agg(datname, ' ') from pg_database where datname like '%cutover%'";

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_by_hand_is_taken_read_and_put_back_and_the_present_is_kept() {
    with_ledger("a_snapshot_by_hand_is_taken_read_and_put_back_and_the_present_is_kept", async |app| {
        under_traffic(app, "created", "text", async {
            told(app, &["snapshot", "create"], 0).await;
        })
        .await;
        let dump = dumps(app).pop().unwrap();
        let taken = name(&dump);
        let read = told(app, &["snapshot", "verify", &taken], 0).await;
        assert!(read.contains("is the one on record") && read.contains("table of contents"), "{read}");
        assert!(told(app, &["snapshot", "list"], 0).await.contains(&taken));
        told(app, &["snapshot", "create"], 0).await;
        let dump = dumps(app).pop().unwrap();
        let taken = name(&dump);
        query(app, "insert into entries values ('afterwards'), ('no more')").await;
        query(app, "delete from entries where text = 'no more'").await;
        let lost = told(app, &["snapshot", "restore", &taken, "--dry-run"], 0).await;
        assert!(lost.contains("3 rows were changed since (as its server counts them"), "{lost}");
        let is_there = "select count(*) from entries where text = 'afterwards'";

        written_while(app.site(), "beside", async {
            told(app, &["snapshot", "restore", &taken, "--to", "scratch"], 0).await;
            let again = told(app, &["snapshot", "restore", &taken, "--to", "scratch"], 5).await;
            assert!(again.contains("scratch is there already") && again.contains("is serving"), "{again}");
            let again =
                told(app, &["snapshot", "restore", &taken, "--to", "ledger_cutover_replaced"], 2).await;
            assert!(again.contains("name another place"), "{again}");
        })
        .await;
        assert_eq!(query(app, is_there).await, "1");
        assert_eq!(
            query(
                app,
                "select count(*) from pg_database where datname like '%cutover%' or datname = 'scratch'"
            )
            .await,
            "1"
        );

        written_while(app.site(), "restored", async {
            told(app, &["snapshot", "restore", &taken, "--yes"], 0).await;
        })
        .await;
        assert_eq!(query(app, is_there).await, "0");
        assert_ne!(query(app, "select count(*) from entries where text like 'created%'").await, "0");
        // What somebody wrote who came and went between the snapshot of the present and the restore is there, too.
        let other = "psql -h 127.0.0.1 -U ledger -d ledger_cutover_replaced -qAtc";
        let script = format!("export PGPASSWORD=$POSTGRES_PASSWORD; {other} \"{is_there}\"");
        let kept = app.cutover(&["exec", "postgres", "--", "sh", "-c", &script]).await.unwrap();
        assert_eq!(kept.expect(0).unwrap().output.trim(), "1");
        let present = name(&dumps(app).pop().unwrap());
        let lost = told(app, &["snapshot", "restore", &present, "--yes"], 0).await;
        assert!(lost.contains("is not known (its server began to count anew meanwhile)"), "{lost}");
        assert_eq!(query(app, is_there).await, "1", "a snapshot of the present was taken before");
        assert_eq!(
            query(app, BESIDE).await,
            "ledger_cutover_replaced",
            "that of the last restore, and no other"
        );
        refused(app, &dump).await;
    })
    .await;
}

/// What cannot be trusted is refused before anybody waits, and what is written goes on.
async fn refused(app: &App<'_>, dump: &Path) {
    let (folder, taken) = (dump.parent().unwrap(), name(dump));
    let good = std::fs::read(dump).unwrap();
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    std::fs::write(dump, flipped).unwrap();
    let others = folder.join("main_20200101T000000000Z_7f3c9e1.dump.zst");
    let script = "export PGPASSWORD=$POSTGRES_PASSWORD; createdb -h 127.0.0.1 -U ledger other; pg_dump -h 127.0.0.1 -U ledger -Fc -Z0 other";
    let container = containers(app, "postgres");
    let made = std::process::Command::new("sh")
        .args(["-c", &format!("docker exec {container} sh -c '{script}' | zstd -q -o {}", others.display())])
        .env("DOCKER_HOST", app.site().docker().unwrap().address())
        .status()
        .unwrap();
    assert!(made.success());
    under_traffic(app, "refused", "text", async {
        assert!(told(app, &["snapshot", "verify", &taken], 1).await.contains("changed since it was taken"));
        let said = told(app, &["snapshot", "restore", &taken, "--yes"], 7).await;
        assert!(said.contains("changed since it was taken") && said.contains("is serving"), "{said}");
        let said = told(app, &["snapshot", "restore", &name(&others), "--yes"], 7).await;
        assert!(said.contains("the dump is of database `other`"), "{said}");
    })
    .await;
    std::fs::write(dump, good).unwrap();
}

/// Where its run is killed, a restore is brought to its end or taken back; either way the whole of one of the two databases is there.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn a_restore_killed_at_any_step_leaves_one_whole_database_that_serves() {
    let test = "a_restore_killed_at_any_step_leaves_one_whole_database_that_serves";
    with_ledger_of(test, killing_binaries().unwrap(), async |app| {
        told(app, &["snapshot", "create"], 0).await;
        let taken = name(&dumps(app).pop().unwrap());
        let restore = ["snapshot", "restore", &taken, "--yes"];
        told(app, &restore, 0).await;
        let journal = app.site().journal(newest(app).run).unwrap();
        let acts =
            journal.iter().filter(|entry| matches!(entry.what, What::Intent { .. } | What::Outcome { .. }));
        let steps: Vec<u64> = acts.map(|entry| entry.seq).collect();
        for step in steps.iter().step_by(2) {
            // One of its own: of those that nothing needs the newest ten stay, and each restore brings another.
            query(app, "delete from entries where text = 'afterwards'").await;
            told(app, &["snapshot", "create"], 0).await;
            let taken = name(&dumps(app).pop().unwrap());
            let restore = ["snapshot", "restore", &taken, "--yes"];
            query(app, "insert into entries values ('afterwards')").await;
            let before = newest(app).run;
            let mut command = app.command(&restore);
            command.env(KILL_AT, step.to_string());
            app.site().run(command).await.unwrap();
            let verdict = settled_after(app, before).await;
            let rows = query(app, "select count(*) from entries where text = 'afterwards'").await;
            println!("killed at step {step} of {}: exit {}, rows {rows}", steps.len(), verdict.exit().code());
            assert_ne!(verdict.exit(), Exit::Person, "{verdict:?}");
            assert_eq!(rows == "0", verdict.exit() == Exit::Done, "{verdict:?}");
            serves(app, "first").await;
        }
        let wider = "sql 'alter table entries add column mark text'";
        deploy(app, &Version { name: "wider", migrate: wider, ..FIRST }, 0).await;
        assert_eq!(query(app, "select count(*) from pg_database where datname like '%cutover%'").await, "0");
    })
    .await;
}

/// What takes [`renamed`] back, or fails half-way.
const DOWN: &str = ", down: [sh, -c, \"psql \\\"$$DATABASE_URL\\\" -v ON_ERROR_STOP=1 -qc 'alter table entries rename column line to text'\"]";
const HALF_DOWN: &str = ", down: [sh, -c, \"psql \\\"$$DATABASE_URL\\\" -qc 'alter table entries rename column line to text'; exit 3\"]";

/// What was written since stays; a command that fails puts all back; where the run dies it is one or the other.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn a_breaking_migration_is_taken_back_by_its_own_command_or_not_at_all() {
    let test = "a_breaking_migration_is_taken_back_by_its_own_command_or_not_at_all";
    let down = ["rollback", "--migrate-down", "--yes"];
    with_ledger_of(test, killing_binaries().unwrap(), async |app| {
        deploy(app, &Version { more: HALF_DOWN, ..renamed("half") }, 0).await;
        query(app, "insert into entries values ('since')").await;
        let failed = told(app, &down, 5).await;
        assert!(failed.contains("the down migration of `main` failed"), "{failed}");
        serves(app, "half").await;
        assert_eq!(query(app, "select count(*) from entries where line = 'since'").await, "1");
        told(app, &["rollback", "--restore-db", "--yes"], 0).await;

        deploy(app, &Version { more: DOWN, ..renamed("whole") }, 0).await;
        written_while(app.site(), "down", async {
            query(app, "insert into entries values ('since')").await;
            told(app, &down, 0).await;
        })
        .await;
        serves(app, "first").await;
        assert_eq!(query(app, "select count(*) from entries where text = 'since'").await, "1");
        let steps = steps(app);
        for step in steps.iter().step_by(2) {
            let name = format!("killed{step}");
            deploy(app, &Version { more: DOWN, ..renamed(&name) }, 0).await;
            query(app, &format!("insert into entries values ('row{step}')")).await;
            let before = newest(app).run;
            let mut command = app.command(&down);
            command.env(KILL_AT, step.to_string());
            app.site().run(command).await.unwrap();
            let verdict = settled_after(app, before).await;
            println!("killed at step {step} of {}: exit {}", steps.len(), verdict.exit().code());
            assert_ne!(verdict.exit(), Exit::Person, "{verdict:?}");
            let is_down = verdict.exit() == Exit::Done;
            serves(app, if is_down { "first" } else { &name }).await;
            let column = if is_down { "text" } else { "line" };
            let rows =
                query(app, &format!("select count(*) from entries where {column} = 'row{step}'")).await;
            assert_eq!(rows, "1", "{verdict:?}");
            if !is_down {
                told(app, &down, 0).await;
            }
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

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_that_cannot_be_taken_keeps_the_migration_away() {
    with_ledger("a_dump_that_cannot_be_taken_keeps_the_migration_away", async |app| {
        let before = dumps(app);
        let wider = Version { name: "wider", migrate: "sql 'alter table entries add column mark text'", ..FIRST };
        let container = containers(app, "postgres");
        let tool = docker(app.site(), &["exec", &container, "readlink", "-f", "/usr/bin/pg_dump"]);
        // Half of an archive and a good end, then nothing at all, then a bad end.
        for (what, told) in [("head -c 300; exit 0", "`pg_restore` exited with code 1"), ("true", "cannot be trusted"), ("echo no; exit 3", "exited with code 3")] {
            let script = format!("printf '#!/bin/sh\\n{}\\n' > /usr/bin/pg_dump.false; chmod 755 /usr/bin/pg_dump.false; ln -sf /usr/bin/pg_dump.false /usr/bin/pg_dump",
                what.replace("head", &format!("{tool} \"$@\" | head")));
            docker(app.site(), &["exec", &container, "sh", "-c", &script]);
            let talk = deploy(app, &wider, 5).await;
            assert!(talk.contains(told), "{talk}");
            assert_eq!(dumps(app), before);
            serves(app, "first").await;
        }
        docker(app.site(), &["exec", &container, "ln", "-sf", &tool, "/usr/bin/pg_dump"]);
        assert_eq!(query(app, "select count(*) from information_schema.columns where column_name = 'mark'").await, "0");
        deploy(app, &wider, 0).await;
        let journal = app.site().journal(newest(app).run).unwrap();
        let taken = journal.iter().any(|entry| matches!(&entry.what, What::Outcome { result: StepResult::Snapshot { bytes, hash: Some(_) }, .. } if *bytes > 0));
        assert!(taken, "its size and hash are on record");
    })
    .await;
}

/// A role that may not make databases could not put one back: that is known before anybody waits, and not when the old release is stopped.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn what_could_not_be_put_back_is_not_migrated_while_requests_wait() {
    with_ledger("what_could_not_be_put_back_is_not_migrated_while_requests_wait", async |app| {
        query(app, "create role reader").await;
        query(app, "grant connect on database ledger to reader with grant option").await;
        query(app, "revoke temporary on database ledger from public").await;
        query(app, "alter role ledger in database ledger set statement_timeout to '55s'").await;
        query(app, "alter database ledger connection limit 77").await;
        query(app, "alter database ledger set app.words to E'it''s\\\\n:two; \\\\\\\\lines'").await;
        let about = "select datconnlimit, (select string_agg(acl::text, ',' order by acl::text) from unnest(datacl) acl), (select string_agg(setconfig::text, ',' order by setrole) from pg_db_role_setting where setdatabase = d.oid) from pg_database d where datname = 'ledger'";
        let before = query(app, about).await;
        under_traffic(app, "fails", "text", async {
            let fails = "sql 'alter table entries rename column text to line'; sql 'select nonsense'";
            deploy(app, &Version { migrate: fails, ..renamed("fails") }, 5).await;
        })
        .await;
        assert_eq!(query(app, about).await, before, "limit, grants and settings by role are as before");

        query(app, "alter role ledger nosuperuser nocreatedb").await;
        under_traffic(app, "refused", "text", async {
            let talk = deploy(app, &renamed("refused"), 7).await;
            assert!(talk.contains("could not be put back if that failed"), "{talk}");
            assert!(talk.contains("permission denied to create database"), "{talk}");
        })
        .await;
        serves(app, "first").await;
    })
    .await;
}

/// The usual image makes one of this name where nobody names another. Databases are renamed from one that is beside it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn a_database_that_is_called_postgres_is_put_back_like_any_other() {
    let name = "a_database_that_is_called_postgres_is_put_back_like_any_other";
    on_engine(name, Binaries::beside_this_program().unwrap(), async |site| {
        if let Err(why) = databases_image(site.docker().unwrap().engine()) {
            return println!("not run: {name}: {why}");
        }
        let app = site.app("ledger", HOST).unwrap();
        deploy(&app, &Version { database: "postgres", ..FIRST }, 0).await;
        under_traffic(&app, "called", "text", async {
            let fails = "sql 'alter table entries rename column text to line'; sql 'select nonsense'";
            let fails = Version { migrate: fails, database: "postgres", ..renamed("fails") };
            let talk = deploy(&app, &fails, 5).await;
            assert!(talk.contains("the database was put back as it was"), "{talk}");
            serves(&app, "first").await;
        })
        .await;
    })
    .await;
}

/// In the place of `pg_dump`: what writes the beginning of a dump, and then nothing more. It leaves no child of its own behind when it is told to end: the
/// server, whose child that would be, takes its end by a signal for a crash of its own.
fn hang_dumps(app: &App<'_>) -> (String, String) {
    let container = containers(app, "postgres");
    let tool = docker(app.site(), &["exec", &container, "readlink", "-f", "/usr/bin/pg_dump"]);
    let script = format!(
        "printf '#!/bin/sh\\ntrap \"ended=1\" TERM\\n%s \"$@\" | head -c 300\\ntrap - TERM\\n[ -z \"$ended\" ] || exit 1\\nexec sleep 600\\n' \
         {tool} > /usr/bin/pg_dump.false; \
         chmod 755 /usr/bin/pg_dump.false; ln -sf /usr/bin/pg_dump.false /usr/bin/pg_dump"
    );
    docker(app.site(), &["exec", &container, "sh", "-c", &script]);
    (container, tool)
}

/// Half a dump, hidden beside the others.
async fn half_a_dump(app: &App<'_>) {
    let folder = app.site().layout().snapshots(app.id());
    let is_half =
        |path: PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    let look = async || {
        std::fs::read_dir(&folder).unwrap().any(|entry| is_half(entry.unwrap().path())).then_some(())
    };
    wait_until("a dump was begun", SOON, look).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_off_in_the_middle_of_a_dump_leaves_nothing_of_it() {
    with_ledger("what_breaks_off_in_the_middle_of_a_dump_leaves_nothing_of_it", async |app| {
        let (before, wider) = (
            dumps(app),
            Version { name: "wider", migrate: "sql 'alter table entries add column mark text'", ..FIRST },
        );
        let (container, tool) = hang_dumps(app);
        // The run itself.
        let last = newest(app).run;
        commit(app, &wider);
        let deploying = app.command(&["deploy"]).spawn().unwrap();
        half_a_dump(app).await;
        let holder = cutover_host::lock::AppLock::peek(&app.site().layout(), app.id()).unwrap();
        let run = rustix::process::Pid::from_raw(i32::try_from(holder.pid).unwrap()).unwrap();
        rustix::process::kill_process(run, rustix::process::Signal::KILL).unwrap();
        tokio::time::timeout(SOON, deploying.wait_with_output()).await.unwrap().unwrap();
        let settled = async || {
            let is_free = cutover_host::lock::AppLock::peek(&app.site().layout(), app.id()).is_none();
            (newest(app).run != last && is_free).then_some(())
        };
        wait_until("the killed run is settled", SOON, settled).await.unwrap();
        assert_eq!(dumps(app), before, "of the killed run");
        serves(app, "first").await;
        let sessions = "select count(*) from pg_stat_activity where application_name like 'cutover-%'";
        assert_eq!(query(app, sessions).await, "0");

        // The database.
        commit(app, &Version { name: "again", ..wider });
        let deploying = app.command(&["deploy"]).spawn().unwrap();
        half_a_dump(app).await;
        docker(app.site(), &["kill", &container]);
        // The way back waits for the old release to be well, and that is not without its database.
        docker(app.site(), &["start", &container]);
        let ended = tokio::time::timeout(SOON, deploying.wait_with_output()).await.unwrap().unwrap();
        println!("{}", String::from_utf8_lossy(&ended.stderr));
        assert_eq!(ended.status.code(), Some(5));
        assert_eq!(dumps(app), before, "of the database that went away");
        let answers = async || {
            let answer = ask(app.site().http().unwrap(), HOST, "/cgi-bin/health").await.ok()?;
            (answer.status == 200 && answer.body.contains("first")).then_some(())
        };
        wait_until("the old release serves with its database", SOON, answers).await.unwrap();
        docker(app.site(), &["exec", &containers(app, "postgres"), "ln", "-sf", &tool, "/usr/bin/pg_dump"]);
        deploy(app, &Version { name: "good", ..wider }, 0).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn a_disk_that_is_full_keeps_the_migration_away() {
    let name = "a_disk_that_is_full_keeps_the_migration_away";
    with_ledger(name, async |app| {
        let folder = app.site().layout().snapshots(app.id());
        std::fs::create_dir_all(&folder).unwrap();
        let disk = match Disk::mount_of(&folder, "16m") {
            Ok(disk) => disk,
            Err(why) => return println!("not run: {name}: {why}"),
        };
        disk.fill().unwrap();
        let wider =
            Version { name: "wider", migrate: "sql 'alter table entries add column mark text'", ..FIRST };
        commit(app, &wider);
        let told = app.cutover(&["deploy", "--allow", "low-disk"]).await.unwrap().expect(5).unwrap();
        println!("{}", told.talk);
        assert!(told.failure().contains("No space left"), "{}", told.talk);
        serves(app, "first").await;
        disk.make_room().unwrap();
        assert_eq!(dumps(app), Vec::<PathBuf>::new());
        let marks = "select count(*) from information_schema.columns where column_name = 'mark'";
        assert_eq!(query(app, marks).await, "0");
        deploy(app, &Version { name: "again", ..wider }, 0).await;
        assert_eq!(dumps(app).len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_killed_at_some_steps_from_the_snapshot_on_loses_no_row() {
    let name = "a_run_killed_at_some_steps_from_the_snapshot_on_loses_no_row";
    with_ledger_of(name, killing_binaries().unwrap(), async |app| kills(app, 5).await).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn a_run_killed_at_every_step_from_the_snapshot_on_loses_no_row() {
    let name = "a_run_killed_at_every_step_from_the_snapshot_on_loses_no_row";
    with_ledger_of(name, killing_binaries().unwrap(), async |app| kills(app, 1).await).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn a_run_killed_at_every_step_of_a_breaking_migration_is_put_back_or_goes_on() {
    let name = "a_run_killed_at_every_step_of_a_breaking_migration_is_put_back_or_goes_on";
    with_ledger_of(name, killing_binaries().unwrap(), async |app| kills_held(app, 1).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_tool_calls_unfinished_is_not_migrated_again() {
    with_ledger("what_a_tool_calls_unfinished_is_not_migrated_again", async |app| {
        let dirty = "sql 'create table schema_migrations (version bigint primary key, dirty boolean not null); insert into schema_migrations values (7, true)'; sql 'select nonsense'";
        let talk = deploy(app, &Version { name: "dirty", migrate: dirty, ..FIRST }, 5).await;
        assert!(talk.contains("the schema is at version 7 (golang-migrate, not finished), and had none before"), "{talk}");
        assert!(talk.contains("`migrate force 7` where it is done, `migrate force -- -1` where it is not"), "{talk}");

        let talk = deploy(app, &Version { name: "again", ..FIRST }, 5).await;

        assert!(talk.contains("an earlier migration of it did not come to its end"), "{talk}");
        assert!(talk.contains("migrate force 7") && talk.contains(".dump.zst"), "{talk}");
        serves(app, "first").await;
        query(app, "update schema_migrations set dirty = false").await;
        deploy(app, &Version { name: "mended", ..FIRST }, 0).await;
        let store = cutover_host::store::Store::open(&app.site().layout()).unwrap();
        let releases = store.releases(app.id()).unwrap();
        let mut schema = releases.iter().flat_map(|record| &record.migrations).filter_map(|one| one.done.schema.as_ref());
        let last = schema.next_back().unwrap();
        assert_eq!(last.after[0].to_string(), "7 (golang-migrate)", "it is on record with the release");
    })
    .await;
}

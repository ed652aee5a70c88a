//! All of a backup on its way to a new host, and from there into the first deploy's database, killed wherever it is.

use std::path::{Path, PathBuf};

use cutover_core::exit::Exit;
use cutover_core::journal::What;
use cutover_core::plan::Stage;
use cutover_core::verdict::Verdict;
use cutover_host::backup::lock_name;
use cutover_host::lock::AppLock;
use cutover_host::store::Store;
use cutover_suites::scenes::killed::was_killed;
use cutover_suites::{KILL_AT, killing_binaries};

use super::*;

const ROWS: &str = "100000";
const FILES: &str = "500";

/// Time to be killed in: the last of the rows takes two seconds to come in, also out of a dump.
const SLOWLY: &str = "create function come(id int) returns boolean language plpgsql as \
    'begin if id = 100000 then perform pg_catalog.pg_sleep(2); end if; return true; end'; \
    alter table entries add check (come(id))";

/// What is there once a step is behind it: something in a folder whose name begins so.
fn steps(app: &App<'_>) -> [(PathBuf, &'static str); 10] {
    let layout = app.site().layout();
    let (waiting, room) = (layout.returning(app.id()), layout.backup_room(app.id()));
    let dumps = waiting.join("dumps");
    [
        (room.clone(), "restic"),
        (waiting.clone(), "backup"),
        (room.clone(), ".scratch"),
        (room.join("scratch/volumes"), "cache"),
        (waiting.clone(), "cache.placed"),
        (waiting.clone(), "dumps"),
        (dumps.clone(), ".main"),
        (waiting.clone(), "main.roles"),
        (dumps, "main"),
        (waiting, "ready"),
    ]
}

fn is_there(folder: &Path, begins: &str) -> bool {
    let mut entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.any(|entry| entry.file_name().to_string_lossy().starts_with(begins))
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

/// All that was in the backup is where it was.
async fn whole(app: &App<'_>) {
    let rows = query(app, "select count(*), count(distinct id), max(text) from entries").await;
    assert_eq!(rows, format!("{ROWS}|{ROWS}|row 99999"));
    // The server's own, which was empty: it stays until the next restore.
    assert_eq!(beside(app).await, "kept_cutover_replaced", "something is left of what was tried");
    assert_eq!(inside(app, "cache", "redis-cli get word").await, "kept");
    let files = inside(app, "cache", "cat /data/upload* | sort -n | uniq | wc -l").await;
    assert_eq!(files, FILES);
}

async fn said(app: &App<'_>, words: &[&str], exit: i32) -> String {
    app.cutover(words).await.unwrap().expect(exit).unwrap().talk
}

/// A host that has nothing of the application but its backups.
async fn lost(app: &App<'_>) {
    said(app, &["remove", "--volumes", "--yes"], 0).await;
}

fn newest(app: &App<'_>) -> Option<Verdict> {
    Store::open(&app.site().layout()).unwrap().verdicts(app.id(), 1).unwrap().pop()
}

/// Waits for the verdict of the run after this one, which was killed, or has ended by itself.
async fn settled_after(app: &App<'_>, before: &Verdict) -> Verdict {
    let settled = async || {
        let verdict = newest(app)?;
        let is_free = AppLock::peek(&app.site().layout(), app.id()).is_none();
        (verdict.run != before.run && is_free).then_some(verdict)
    };
    wait_until("the run that was killed is settled", SOON, settled).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn a_host_comes_back_with_its_databases_wherever_its_return_is_killed() {
    let name = "a_host_comes_back_with_its_databases_wherever_its_return_is_killed";
    with_kept_of(name, killing_binaries().unwrap(), async |app| {
        query(app, SLOWLY).await;
        query(app, &format!("truncate entries; insert into entries select n, 'row ' || n from generate_series(1, {ROWS}) n")).await;
        inside(app, "cache", &format!("for n in $(seq {FILES}); do echo $n > /data/upload$n; done")).await;
        said(app, &["backup", "run"], 0).await;
        lost(app).await;
        killed_on_its_way(app).await;
        let steps = into_its_place(app).await;
        whole(app).await;
        let (mut killed, count) = (0, steps.len());
        for step in steps {
            lost(app).await;
            said(app, &["backup", "restore", "--all"], 0).await;
            killed += usize::from(killed_at(app, step).await);
            whole(app).await;
        }
        // One run may have a few entries less than another.
        assert!(killed + 1 >= count, "only {killed} of {count} deploys were killed");
        lost(app).await;
        said(app, &["backup", "restore", "--all"], 0).await;
        killed_while_it_is_filled(app).await;
        whole(app).await;
        records(app, 1).await;
        let room = app.site().layout().backup_room(app.id());
        assert_eq!(fs::read_dir(room).unwrap().count(), 0, "something was left behind");
    })
    .await;
}

/// `restore --all`, each time killed a step later; what came goes on, and nothing goes live on a part of it.
async fn killed_on_its_way(app: &App<'_>) {
    let waiting = app.site().layout().returning(app.id());
    let mut killed = 0;
    for (folder, what) in steps(app) {
        let mut running = app.command(&["backup", "restore", "--all"]).spawn().unwrap();
        let worker = async || {
            let worker = ProcessLock::peek(&app.site().layout(), &lock_name(app.id()));
            let has_ended = running.try_wait().unwrap().is_some();
            (has_ended || (worker.is_some() && is_there(&folder, what))).then_some(worker)
        };
        if let Some(worker) = wait_until(what, SOON, worker).await.unwrap() {
            kill(worker);
            killed += 1;
        }
        tokio::time::timeout(SOON, running.wait()).await.unwrap().unwrap();
        let (has_begun, is_ready) = (waiting.join("backup").exists(), waiting.join("ready").exists());
        println!("{what}: begun {has_begun}, ready {is_ready}");
        if has_begun && !is_ready {
            let half = said(app, &["deploy"], 7).await;
            assert!(half.contains("only partly back"), "{half}");
        }
    }
    assert!(killed > 5, "most were over before they could be killed: {killed}");
    said(app, &["backup", "restore", "--all"], 0).await;
}

/// The first deploy; the places in its journal where one is killed: in its stage `backing` all, beyond it some.
async fn into_its_place(app: &App<'_>) -> Vec<u64> {
    let talk = said(app, &["deploy"], 0).await;
    assert!(talk.contains("database `main` is back from its backup"), "{talk}");
    let journal = app.site().journal(newest(app).unwrap().run).unwrap();
    let after_backing = journal
        .iter()
        .position(|entry| matches!(entry.what, What::Left { stage: Stage::Backing, .. }))
        .unwrap();
    let (first, rest) = journal.split_at(after_backing + 1);
    let backing =
        first.iter().skip_while(|entry| !matches!(entry.what, What::Entered { stage: Stage::Backing }));
    backing.chain(rest.iter().step_by(7)).map(|entry| entry.seq).collect()
}

/// `false`: it had ended before.
async fn killed_at(app: &App<'_>, step: u64) -> bool {
    let before = newest(app).unwrap();
    let mut command = app.command(&["deploy"]);
    command.env(KILL_AT, step.to_string());
    app.site().run(command).await.unwrap();
    let verdict = settled_after(app, &before).await;
    let was_killed = was_killed(&app.site().journal(verdict.run).unwrap(), step);
    println!("step {step}: killed {was_killed}, exit {}", verdict.exit().code());
    assert_ne!(verdict.exit(), Exit::Person, "{verdict:?}");
    // Done again where it did not go on by itself.
    if verdict.exit() != Exit::Done {
        said(app, &["deploy"], 0).await;
    }
    was_killed
}

/// The run and then the database's own server, while the dump comes into it.
async fn killed_while_it_is_filled(app: &App<'_>) {
    let dump = app.site().layout().returning(app.id()).join("dumps/main");
    // What one try leaves is not what the next has made.
    let mut last = String::new();
    for what in ["run", "server", "run"] {
        let before = newest(app).unwrap();
        let mut running = app.command(&["deploy"]).spawn().unwrap();
        let is_made = async || {
            let made = try_query(app, "select oid from pg_database where datname = 'kept_cutover_restored'");
            (!made.is_empty() && made != last).then_some(made)
        };
        let made = wait_until("the database is made that the dump comes into", SOON, is_made).await.unwrap();
        last = made;
        match what {
            "run" => kill(AppLock::peek(&app.site().layout(), app.id()).unwrap().pid),
            _ => drop(docker(app.site(), &["kill", &containers(app, "postgres")])),
        }
        tokio::time::timeout(SOON, running.wait()).await.unwrap().unwrap();
        let verdict = settled_after(app, &before).await;
        println!("the {what} killed while it is filled: exit {}", verdict.exit().code());
        assert!(!matches!(verdict.exit(), Exit::Done | Exit::Person), "{verdict:?}");
        assert!(dump.exists(), "it waits on");
    }
    said(app, &["deploy"], 0).await;
}

/// At once, with the engine's own client; nothing where it fails.
fn try_query(app: &App<'_>, query: &str) -> String {
    let script = format!("PGPASSWORD=$POSTGRES_PASSWORD psql -h 127.0.0.1 -U kept -d kept -qAtc \"{query}\"");
    let mut command = std::process::Command::new("docker");
    command.args(["exec", &containers(app, "postgres"), "sh", "-c", &script]);
    let output = command.env("DOCKER_HOST", app.site().docker().unwrap().address()).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

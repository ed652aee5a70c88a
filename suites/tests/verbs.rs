//! The verbs of who looks after a host: each run for real against a site of plain processes.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test stops where it fails, and says why it did not run"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::journal::{Entry, LockHolder, What};
use cutover_core::layout::in_snapshots;
use cutover_core::plan::Verb;
use cutover_core::verdict::{Outcome, Verdict};
use cutover_host::lock::AppLock;
use cutover_host::store::Store;
use cutover_suites::engine::{SHELL_IMAGE, shell_image, usable};
use cutover_testkit::get;
use cutover_testkit::probe::Probe;
use cutover_testkit::site::{App, Binaries, Found, Site};
use cutover_testkit::{SOON, wait_until};

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::timeout;

fn site() -> Site {
    Site::with(Binaries::beside_this_program().unwrap()).unwrap()
}

async fn exits(app: &App<'_>, words: &[&str], code: i32) -> String {
    let told = app.cutover(words).await.unwrap().expect(code).unwrap();
    format!("{}{}", told.output, told.talk)
}

/// In order.
fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = entries.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn diff_tells_what_a_person_did_by_hand_and_what_mends_it() {
    let site = site();
    let app = site.app("guestbook", "guestbook.localhost").unwrap();
    app.deploy("v1").await.unwrap().expect(0).unwrap();
    assert!(exits(&app, &["diff"], 0).await.contains("is as it was recorded"));

    let env = site.layout().env_file(app.id());
    fs::create_dir_all(env.parent().unwrap()).unwrap();
    fs::write(&env, "EXTRA=by-hand\n").unwrap();
    mode(&env, 0o644);
    let told = exits(&app, &["diff"], 4).await;
    assert!(told.contains("its mode is 0644") && told.contains("chmod 600"), "{told}");
    assert!(told.contains("other values than the live release: EXTRA"), "{told}");
    assert!(!told.contains("by-hand"), "{told}");
    fs::remove_file(&env).unwrap();
    exits(&app, &["diff"], 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn env_files_are_pushed_and_compared_without_a_value_being_told() {
    let site = site();
    let app = site.app("guestbook", "guestbook.localhost").unwrap();
    app.deploy("v1").await.unwrap().expect(0).unwrap();
    let file = app.repository().join("push.env");
    let push = |no_deploy| {
        let words = ["env", "push", "push.env"].into_iter();
        words.chain(if no_deploy { Some("--no-deploy") } else { None }).collect::<Vec<_>>()
    };

    fs::write(&file, "GREETING=hello-there-secret\n").unwrap();
    mode(&file, 0o644);
    assert!(exits(&app, &push(true), 7).await.contains("can be read by others"));
    mode(&file, 0o600);
    fs::write(&file, "GREETING=CHANGE_ME\n").unwrap();
    assert!(exits(&app, &push(true), 7).await.contains("still a placeholder"));
    fs::write(&file, "GREETING=hello-there-secret\n").unwrap();

    assert!(exits(&app, &push(true), 0).await.contains("the next deploy takes it"));
    app.add_to_env("GREETING=another").unwrap();
    let told = exits(&app, &["env", "diff"], 4).await;
    assert!(told.contains("differs  GREETING") && !told.contains("hello-there"), "{told}");
    app.add_to_env("GREETING=hello-there-secret").unwrap();
    let told = exits(&app, &["env", "diff"], 4).await;
    assert!(told.contains("same     GREETING"), "{told}");

    fs::write(&file, "GREETING=hello-again-secret\n").unwrap();
    let before = app.serving().await.unwrap();
    exits(&app, &push(false), 0).await;
    assert_eq!(app.serving().await.unwrap(), before, "the same commit, with other variables");
    let told = exits(&app, &["env", "list"], 0).await;
    assert!(told.contains("GREETING ***"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn status_shows_the_host_and_what_each_route_leads_to() {
    let site = site();
    let app = site.app("guestbook", "guestbook.localhost").unwrap();
    app.deploy("v1").await.unwrap().expect(0).unwrap();
    let told = exits(&app, &["status"], 0).await;
    assert!(told.contains("host this machine: cutover-host "), "{told}");
    assert!(told.contains("(blue: web-blue-1-") && told.contains(" free"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_says_what_is_well_and_what_helps_also_before_anything_was_deployed() {
    let site = site();
    let app = site.app("guestbook", "guestbook.localhost").unwrap();
    app.commit("v1", str::to_owned).unwrap();
    let told = exits(&app, &["doctor"], 0).await;
    assert!(told.contains("is free for the proxy") && told.contains("its clock is right"), "{told}");
    app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
    let told = exits(&app, &["doctor"], 0).await;
    assert!(told.contains("our proxy listens on") && told.contains("proxy and watch are seen to"), "{told}");

    let env = site.layout().env_file(app.id());
    fs::create_dir_all(env.parent().unwrap()).unwrap();
    fs::write(&env, "EXTRA=by-hand\n").unwrap();
    mode(&env, 0o644);
    let told = exits(&app, &["doctor"], 1).await;
    assert!(told.contains("can be read by others (mode 0644)") && told.contains("chmod 600"), "{told}");

    let mut alone = app.command(&["doctor"]);
    alone.env("CUTOVER_HOST_BINARY", "/nowhere/cutover-host");
    let told = site.run(alone).await.unwrap().expect(1).unwrap();
    assert!(told.output.contains("problem  this machine: "), "{}{}", told.output, told.talk);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_leads_several_connections_to_a_service_and_ends_by_ctrl_c() {
    let site = site();
    let app = site.app("guestbook", "guestbook.localhost").unwrap();
    app.deploy("v1").await.unwrap().expect(0).unwrap();
    let mut command = app.command(&["tunnel", "web"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = timeout(SOON, lines.next_line()).await.unwrap().unwrap().unwrap();
    let address: std::net::SocketAddr = line.parse().unwrap();
    let asked = (0..8).map(|_| tokio::spawn(timeout(SOON, get(address, "guestbook.localhost", "/health"))));
    for answer in asked.collect::<Vec<_>>() {
        answer.await.unwrap().unwrap().unwrap();
    }
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(timeout(SOON, child.wait()).await.unwrap().unwrap().code(), Some(0));
    let told = exits(&app, &["tunnel", "web:1"], 2).await;
    assert!(told.contains("a tunnel cannot lead to port 1 of `web`"), "{told}");
    let told = exits(&app, &["tunnel", "nobody"], 1).await;
    assert!(told.contains("has no instance that a tunnel could lead to"), "{told}");
}

/// What lies below the folders where `prune` looks, but for what a command writes of itself.
fn lying_there(site: &Site) -> Vec<String> {
    fn below(folder: &Path, into: &mut Vec<String>) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            into.push(entry.path().display().to_string());
            if entry.file_type().unwrap().is_dir() {
                below(&entry.path(), into);
            }
        }
    }
    let layout = site.layout();
    let mut all = Vec::new();
    for folder in [layout.artifacts(), layout.layers(), layout.backups().to_owned(), layout.run_events()] {
        below(&folder, &mut all);
    }
    below(&layout.state().join("apps"), &mut all);
    all.sort_unstable();
    all
}

fn put(path: &Path, bytes: usize) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, vec![7; bytes]).unwrap();
}

fn long_ago(path: &Path) {
    let at = std::time::SystemTime::now() - Duration::from_hours(30);
    fs::File::open(path).unwrap().set_modified(at).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn prune_takes_what_nothing_needs_and_nothing_else() {
    let site = site();
    let (app, other) = (
        site.app("guestbook", "guestbook.localhost").unwrap(),
        site.app("other", "other.localhost").unwrap(),
    );
    app.deploy("v1").await.unwrap().expect(0).unwrap();
    let layout = site.layout();
    let snapshot = |number: u32| {
        let name = format!("main_20261126T0405{number}000Z_7f3c9e1.sqlite");
        put(&layout.snapshots(app.id()).join(name), 1_000);
    };
    let snapshots = || fs::read_dir(layout.snapshots(app.id())).unwrap().count();
    (10..22).for_each(snapshot);
    let store = Store::open(&layout).unwrap();
    for name in names_in(&layout.snapshots(app.id())) {
        store.put_snapshot(app.id(), &in_snapshots(app.id(), &name), None).unwrap();
    }
    drop(store);
    snapshot(50);
    app.deploy("v2").await.unwrap().expect(0).unwrap();
    assert_eq!(snapshots(), 11, "a deploy keeps the newest of those on record, and what is on none");
    other.deploy("v1").await.unwrap().expect(0).unwrap();
    let told = exits(&app, &["prune", "--dry-run"], 0).await;
    assert!(!told.contains("artifacts"), "what rollback and the other app need is none of it: {told}");

    // Given a release that failed, whose candidate was kept.
    app.deploy("v4").await.unwrap().expect(4).unwrap();
    // And what crashes and clients that went away leave behind.
    let artifact = layout.artifacts().join("ab".repeat(32));
    put(&artifact.join("web/server"), 3_000_000);
    let torn = layout.artifacts().join(".torn.0123");
    put(&torn.join("web/server"), 1_000);
    long_ago(&torn);
    let writing = layout.artifacts().join(".writing.0123");
    put(&writing.join("web/server"), 1_000);
    let layer = layout.layers().join("cd".repeat(32));
    put(&layer, 2_000_000);
    let pack = layout.parcels().join(".pack.0123");
    put(&pack, 1_000);
    let list = layout.chunks(&cutover_core::hash::ContentHash::of(b"an artifact that is gone"));
    put(&list, 1_000);
    let log = layout.instance_log(app.id(), &"web-blue-1-gone".parse().unwrap());
    put(&log, 1_000);
    let events = layout.events("018f3c9e-0000-7000-8000-000000000001".parse().unwrap());
    put(&events, 1_000);
    long_ago(&events);
    let release = layout.release(app.id(), &"0123456".parse().unwrap());
    put(&release.join("env"), 10);
    (20..23).for_each(snapshot);
    put(&layout.snapshots(app.id()).join("notes of mine.txt"), 1_000);

    // When only the list is asked for, or nobody says yes, then all of it stays.
    let before = lying_there(&site);
    let listed = exits(&app, &["prune", "--dry-run"], 0).await;
    exits(&app, &["prune"], 2).await;
    assert_eq!(lying_there(&site), before);
    for line in
        ["releases", "artifacts", "snapshots", "logs", "runs", "left-overs", "failed candidates", "in all"]
    {
        assert!(listed.contains(line), "no {line}: {listed}");
    }
    assert!(!listed.contains("writing"), "{listed}");

    // When it is done, then nothing that was live noticed, and the rest is there.
    let probe = Probe::start(app.traffic().unwrap());
    let told = exits(&app, &["prune", "--yes"], 0).await;
    let report = probe.stop().await;
    assert_eq!(report.failed(), 0, "{report}");
    let total = listed.lines().find(|line| line.contains("in all")).unwrap().split_whitespace();
    let total: Vec<&str> = total.rev().take(2).collect();
    assert!(told.contains(&format!("done: freed {} {} (", total[1], total[0])), "{listed}{told}");
    for gone in [&artifact, &torn, &layer, &pack, &list, &log, &events, &release] {
        assert!(!gone.exists(), "{} is still there", gone.display());
    }
    assert!(writing.exists());
    assert_eq!(snapshots(), 11, "ten, and a file that is none");
    assert!(layout.snapshots(app.id()).join("notes of mine.txt").exists());
    assert!(exits(&app, &["prune", "--yes"], 0).await.contains("nothing to do"));

    // Then what rollback reaches was kept, of both apps.
    exits(&app, &["rollback", "--yes"], 0).await;
    assert_eq!(app.serving().await.unwrap(), "v1");
    assert_eq!(other.serving().await.unwrap(), "v1");
    exits(&other, &["restart"], 0).await;
    assert!(exits(&app, &["history"], 0).await.contains("prune"));
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_stay_for_as_long_as_the_live_release_says() {
    let site = site();
    let app = site.app("guestbook", "guestbook.localhost").unwrap();
    let keep = |config: &str| config.replace("engine: sqlite", "engine: sqlite\n    snapshot: { keep: 1d }");
    app.commit("v1", keep).unwrap();
    app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
    let (layout, folder) = (site.layout(), site.layout().snapshots(app.id()));
    let file = |name: &str| folder.join(format!("main_{name}_7f3c9e1.sqlite"));
    // Many that are new, two that are old, and one that came out of an old backup just now.
    let new: Vec<_> = (10..25).map(|number| file(&format!("20991126T0405{number}000Z"))).collect();
    let (old, asked) = (file("20200101T000000000Z"), file("20200101T000000001Z"));
    let recalled = file("20200101T000000002Z");
    for path in new.iter().chain([&old, &asked, &recalled]) {
        put(path, 1_000);
    }
    long_ago(&old);
    long_ago(&asked);
    let store = Store::open(&layout).unwrap();
    for path in [&old, &recalled].into_iter().chain(&new) {
        let file = in_snapshots(app.id(), path.file_name().unwrap().to_str().unwrap());
        let hash = cutover_core::hash::ContentHash::of(b"rows");
        store.put_snapshot(app.id(), &file, Some(&hash)).unwrap();
    }
    drop(store);

    // What is on no record goes only once somebody was asked.
    exits(&app, &["snapshot", "create"], 0).await;
    assert!(!old.exists() && asked.exists() && recalled.exists());
    assert!(new.iter().all(|path| path.exists()), "however many they are");
    let told = exits(&app, &["snapshot", "prune", "--yes"], 0).await;
    assert!(told.contains("20200101T000000001Z") && !asked.exists() && recalled.exists(), "{told}");
    assert!(exits(&app, &["prune", "--yes"], 0).await.contains("nothing to do"));

    // Once nothing is said of it any more, the newest ten stay.
    app.deploy("v2").await.unwrap().expect(0).unwrap();
    assert_eq!(names_in(&folder).len(), 10, "{:?}", names_in(&folder));
}

/// The names of an app's snapshots, as a list shows them: the newest first.
async fn snapshots(app: &App<'_>) -> Vec<String> {
    let listed = app.cutover(&["snapshot", "list", "--json"]).await.unwrap().expect(0).unwrap().output;
    let line = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
    listed.lines().map(|text| line(text)["snapshot"]["name"].as_str().unwrap().to_owned()).collect()
}

/// Whether the database has what was marked in it.
fn is_marked(app: &App<'_>) -> bool {
    let connection = rusqlite::Connection::open(app.volume("data").join("guestbook.db")).unwrap();
    connection.prepare("SELECT * FROM marked").is_ok()
}

fn mark(app: &App<'_>) {
    let connection = rusqlite::Connection::open(app.volume("data").join("guestbook.db")).unwrap();
    connection.busy_timeout(SOON).unwrap();
    connection
        .execute_batch("CREATE TABLE marked (at TEXT); INSERT INTO marked VALUES (1), (2), (3)")
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_by_hand_is_taken_read_and_put_back_and_the_present_is_kept() {
    let site = site();
    let app = site.app("guestbook", "guestbook.localhost").unwrap();
    app.deploy("v1").await.unwrap().expect(0).unwrap();
    let probe = Probe::start(app.traffic().unwrap());

    exits(&app, &["snapshot", "create"], 0).await;
    let name = snapshots(&app).await.remove(0);
    let told = exits(&app, &["snapshot", "verify", &name], 0).await;
    assert!(told.contains("is the one on record") && told.contains("integrity check"), "{told}");
    let copy = site.layout().state().join("copy.db");
    exits(&app, &["snapshot", "restore", &name, "--to", &copy.display().to_string()], 0).await;
    assert!(copy.exists());
    let again = exits(&app, &["snapshot", "restore", &name, "--to", &copy.display().to_string()], 5).await;
    assert!(again.contains("is there already"), "{again}");
    assert_eq!(probe.stop().await.failed(), 0);

    // Given what was written since, when nobody says yes, then it stays.
    exits(&app, &["snapshot", "create"], 0).await;
    let name = snapshots(&app).await.remove(0);
    mark(&app);
    let told = exits(&app, &["snapshot", "restore", &name], 2).await;
    assert!(told.contains("ago (main_") && told.contains("3 rows were changed since (the two"), "{told}");
    assert!(is_marked(&app));
    // Nobody opens the file while a run may have it closed.
    let run = "018f3c9e-0000-7000-8000-000000000001".parse().unwrap();
    let (verb, since) = (Verb::Deploy, "2026-11-26T04:05:06Z".parse().unwrap());
    let holder =
        LockHolder { app: app.id().clone(), run, by: "ann".to_owned(), verb, since, pid: std::process::id() };
    let lock = AppLock::take(&site.layout(), app.id(), &holder).unwrap();
    let told = exits(&app, &["snapshot", "restore", &name, "--dry-run"], 0).await;
    assert!(told.contains("is not known (a run works on it)"), "{told}");
    drop(lock);
    // Requests wait meanwhile; what is written by them is not served any more, but there.
    let told = exits(&app, &["snapshot", "restore", &name, "--yes"], 0).await;
    assert!(told.contains("is in its database's place"), "{told}");
    assert!(!is_marked(&app));
    assert_eq!(app.serving().await.unwrap(), "v1");
    let present = snapshots(&app).await.remove(0);
    exits(&app, &["snapshot", "restore", &present, "--yes"], 0).await;
    assert!(is_marked(&app), "a snapshot of the present was taken before");

    // And every command of the verb is in the history, as a run.
    let history = exits(&app, &["history"], 0).await;
    assert!(history.contains("snapshot create") && history.contains("snapshot restore"), "{history}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_cannot_be_trusted_is_refused_and_nobody_waits_for_it() {
    let site = site();
    let app = site.app("guestbook", "guestbook.localhost").unwrap();
    app.deploy("v1").await.unwrap().expect(0).unwrap();
    exits(&app, &["snapshot", "create", "main"], 0).await;
    exits(&app, &["snapshot", "create", "other"], 2).await;
    let name = snapshots(&app).await.remove(0);
    let folder = site.layout().snapshots(app.id());
    mark(&app);
    let probe = Probe::start(app.traffic().unwrap());

    let good = fs::read(folder.join(&name)).unwrap();
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    fs::write(folder.join(&name), flipped).unwrap();
    let told = exits(&app, &["snapshot", "verify", &name], 1).await;
    assert!(told.contains("changed since it was taken"), "{told}");
    for words in [&["--yes"][..], &["--yes", "--to", "/tmp/nothing-is-made-here.db"]] {
        let words = [&["snapshot", "restore", &name], words].concat();
        let told = exits(&app, &words, 7).await;
        assert!(told.contains("changed since it was taken") && told.contains("is serving"), "{told}");
    }
    fs::write(folder.join(&name), &good).unwrap();

    // What is no snapshot, or lies elsewhere.
    let (empty, link) =
        ("main_20200101T000000000Z_7f3c9e1.sqlite", "main_20200101T000000001Z_7f3c9e1.sqlite");
    fs::write(folder.join(empty), "").unwrap();
    std::os::unix::fs::symlink(folder.join(&name), folder.join(link)).unwrap();
    let elsewhere = format!("../local/{name}");
    for (name, why) in [
        (empty, "0 bytes"),
        (link, "a link"),
        (elsewhere.as_str(), "without a folder"),
        ("/etc/passwd", "without a folder"),
        ("main.sqlite", "no snapshot is called so"),
        ("main_20200101T000000002Z_7f3c9e1.sqlite", "nothing of that name"),
        ("other_20200101T000000002Z_7f3c9e1.sqlite", "nothing of that name"),
    ] {
        let told = exits(&app, &["snapshot", "restore", name, "--yes"], 7).await;
        assert!(told.contains(why) && told.contains("is serving"), "{name}: {told}");
    }
    let listed = exits(&app, &["snapshot", "list"], 0).await;
    assert!(listed.contains("cannot be put back: it is empty: 0 bytes"), "{listed}");
    let report = probe.stop().await;
    assert_eq!(report.failed(), 0, "{report}");
    assert!(is_marked(&app));

    // Those that nothing needs go, beyond the newest ten.
    (10..22).for_each(|number| {
        put(&folder.join(format!("main_20190101T0405{number}000Z_7f3c9e1.sqlite")), 1_000);
    });
    exits(&app, &["snapshot", "prune"], 2).await;
    exits(&app, &["snapshot", "prune", "--yes"], 0).await;
    let left = snapshots(&app).await;
    assert!(left.len() == 10 && left.contains(&name), "{left:?}");
    assert!(exits(&app, &["snapshot", "prune", "--yes"], 0).await.contains("nothing to do"));
}

/// What it is called, how it is done, and what rollback then puts live.
type Damage<'a> = (&'a str, &'a dyn Fn(), &'a str);

#[tokio::test(flavor = "multi_thread")]
async fn records_that_are_damaged_are_made_anew_while_all_goes_on_and_that_is_told_once() {
    let site = site();
    let app = site.app("guestbook", "guestbook.localhost").unwrap();
    app.deploy("v1").await.unwrap().expect(0).unwrap();
    app.deploy("v2").await.unwrap().expect(0).unwrap();
    let probe = Probe::start(app.traffic().unwrap());
    // The log has all that was not yet written to the file itself: what is lost is lost in both.
    let store = site.layout().store();
    let log = store.with_extension("db-wal");
    let both = [&store, &log];
    let cut = |file: &Path, bytes: u64| {
        fs::OpenOptions::new().write(true).open(file).unwrap().set_len(bytes).unwrap();
    };
    let damages: [Damage<'_>; 3] = [
        ("garbage", &|| both.iter().for_each(|file| fs::write(file, vec![0xA5; 400_000]).unwrap()), "v1"),
        ("cut", &|| both.iter().for_each(|file| cut(file, 6_000)), "v2"),
        ("gone", &|| both.iter().for_each(|file| fs::remove_file(file).unwrap()), "v1"),
    ];
    for (what, damage, then) in damages {
        let live = app.status().await.unwrap().live.unwrap().release;

        damage();

        // Then it is said what is live, with its record, and that something may be lost.
        let told = exits(&app, &["status"], 0).await;
        assert!(told.contains("made anew") && told.contains(live.as_str()), "{what}: {told}");
        // And rollback reaches what it reached; the run tells it, and after that nobody does.
        let told = exits(&app, &["rollback", "--yes"], 0).await;
        assert!(told.contains("made anew"), "{what}: {told}");
        assert_eq!(app.serving().await.unwrap(), then, "{what}");
        let told = exits(&app, &["status"], 0).await;
        assert!(!told.contains("made anew"), "{what}: {told}");
    }
    app.deploy("v2").await.unwrap().expect(0).unwrap();
    let report = probe.stop().await;
    assert_eq!(report.failed(), 0, "{report}");
    // Watch works on the records that are there now.
    let killed = site.kill(|process| process.is_instance_of("web")).unwrap();
    let is_another = |found: &Found| found.process.is_instance_of("web") && found.pid != killed.pid;
    let back = async || site.processes().iter().any(is_another).then_some(());
    wait_until("the instance is back", SOON, back).await.unwrap();
}

/// What a run told, changed: a line of it, or none where that gives none.
fn tell_otherwise(events: &Path, change: impl Fn(Entry) -> Option<Entry>) {
    let text = fs::read_to_string(events).unwrap();
    let entries = text.lines().filter_map(|line| change(serde_json::from_str(line).unwrap()));
    let lines: Vec<String> = entries.map(|entry| serde_json::to_string(&entry).unwrap() + "\n").collect();
    fs::write(events, lines.concat()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_of_which_no_end_is_known_is_not_settled_anew_when_others_came_after_it() {
    let site = site();
    let app = site.app("guestbook", "guestbook.localhost").unwrap();
    for version in ["v1", "v2", "v1", "v2"] {
        app.deploy(version).await.unwrap().expect(0).unwrap();
    }
    let layout = site.layout();
    let store = Store::open(&layout).unwrap();
    let runs: Vec<_> = store.verdicts(app.id(), 9).unwrap().into_iter().map(|verdict| verdict.run).collect();
    drop(store);
    let [_, third, second, _] = runs[..] else { panic!("{runs:?}") };
    // Given two runs before the newest: of one the last line is lost, of the other a person was told that it could not be settled.
    tell_otherwise(&layout.events(third), |entry| {
        (!matches!(entry.what, What::Verdict { .. })).then_some(entry)
    });
    tell_otherwise(&layout.events(second), |mut entry| {
        if let What::Verdict { verdict } = &mut entry.what {
            verdict.outcome =
                Outcome::Failed { failure: Failure::new(Exit::Person, "it could not be settled") };
        }
        Some(entry)
    });
    let probe = Probe::start(app.traffic().unwrap());

    // When the records are lost, and made anew from what the runs have told.
    for file in [layout.store(), layout.store().with_extension("db-wal")] {
        fs::remove_file(file).unwrap();
    }
    assert!(exits(&app, &["status"], 0).await.contains("made anew"));

    // Then neither is taken up again: what came after them stays, and the next deploy has nothing to settle before it.
    let store = Store::open(&layout).unwrap();
    assert_eq!(store.all_unfinished().unwrap(), []);
    let known: Vec<_> = store.verdicts(app.id(), 9).unwrap().iter().map(Verdict::exit).collect();
    assert_eq!(known, [Exit::Done, Exit::Person, Exit::Done], "of one no end is known");
    assert_eq!(app.serving().await.unwrap(), "v2");
    app.deploy("v1").await.unwrap().expect(0).unwrap();
    exits(&app, &["rollback", "--yes"], 0).await;
    assert_eq!(app.serving().await.unwrap(), "v2");
    let report = probe.stop().await;
    assert_eq!(report.failed(), 0, "{report}");
    let resumed =
        |run| site.journal(run).unwrap().iter().any(|entry| matches!(entry.what, What::Resumed { .. }));
    assert!(!resumed(third) && !resumed(second));
}

#[tokio::test(flavor = "multi_thread")]
async fn over_ssh_a_tunnel_leads_into_a_container_and_doctor_looks_at_both_ends() {
    let name = "over_ssh_a_tunnel_leads_into_a_container_and_doctor_looks_at_both_ends";
    let engine = match usable().await {
        Ok(engine) => engine,
        Err(why) => return println!("not run: {name}: {why}"),
    };
    if let Err(why) = shell_image(&engine) {
        return println!("not run: {name}: {why}");
    }
    let binaries = Binaries::beside_this_program().unwrap();
    let site = match Site::over_ssh_on_engine(binaries, engine).await.unwrap() {
        Ok(site) => site,
        Err(why) => return println!("not run: {name}: {why}"),
    };
    let app = site.app("tunnelled", "tunnelled.localhost").unwrap();
    let serve = "mkdir /tmp/www && echo inside > /tmp/www/index.html && exec httpd -f -p 80 -h /tmp/www";
    let text = format!(
        "app: tunnelled\nservices:\n  web:\n    image: \"{SHELL_IMAGE}\"\n    command: [sh, -c, \"{serve}\"]\n    port: 80\n    \
         init: true\n    route: {{ host: tunnelled.localhost }}\nbake: 0\n"
    );
    fs::write(app.repository().join("cutover.yml"), site.remote().own(&text)).unwrap();
    app.record("first").unwrap();
    let host = site.remote().host();

    // Before anything is deployed both ends are looked at.
    let before = site.remote().client.executions();
    let told = app.cutover(&["doctor"]).await.unwrap();
    assert!(told.output.contains(&format!("{host}: ")) && told.output.contains("here: "), "{}", told.output);
    assert!(told.output.contains("Docker") && told.output.contains("its clock is right"), "{}", told.output);
    // One of the two only says which ssh it is.
    assert_eq!(site.remote().client.executions() - before, 2);

    app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
    let mut command = app.command(&["tunnel", "web"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = timeout(SOON, lines.next_line()).await.unwrap().unwrap().unwrap();
    let address: std::net::SocketAddr = line.parse().unwrap();
    for _ in 0..3 {
        let answer = timeout(SOON, get(address, "anything", "/")).await.unwrap().unwrap();
        assert_eq!(answer.trim(), "inside");
    }
    // When the link is cut, then the tunnel ends and says so.
    site.remote().relay.cut();
    let ended = timeout(2 * SOON, child.wait()).await.unwrap().unwrap();
    site.remote().relay.heal();
    assert_ne!(ended.code(), Some(0));
}

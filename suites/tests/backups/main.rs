//! Backups of a running application, read by restic itself: made, listed, verified, put back; and what is said when they cannot be.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test stops where it fails, and says why it did not run"
)]

mod drill;
mod killed;
mod still;
mod targets;
mod told;

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use cutover_core::backup::BackupRecord;
use cutover_host::backup::lock_name;
use cutover_host::lock::ProcessLock;
use cutover_suites::disk::Disk;
use cutover_suites::kept::{PASSWORD, has_restic, records, restic};
use cutover_testkit::probe::Probe;
use cutover_testkit::site::{App, Binaries, Site};
use cutover_testkit::{SOON, wait_until};

/// A site with the guestbook live and backups to a folder; `None`, told, where restic is not installed.
struct Place {
    site: Site,
}

impl Place {
    fn new(test: &str) -> Option<Self> {
        has_restic(test).then(|| Self { site: Site::with(Binaries::beside_this_program().unwrap()).unwrap() })
    }

    fn repository(&self) -> PathBuf {
        self.site.folder().join("backups")
    }

    /// The guestbook, live, with `backup` in its configuration.
    async fn app(&self, backup: &str) -> App<'_> {
        let app = self.site.app("guestbook", "guestbook.localhost").unwrap();
        app.add_to_env(&format!("BACKUP_PASSWORD={PASSWORD}")).unwrap();
        self.deploy(&app, backup).await;
        app
    }

    /// The same, once the schedule has made the first.
    async fn backed_up(&self) -> App<'_> {
        let app = self.app(MONTHLY).await;
        self.records(&app, 1).await;
        app
    }

    /// The records of backups, once there are so many; the newest first.
    async fn records(&self, app: &App<'_>, count: usize) -> Vec<BackupRecord> {
        records(app, count).await
    }

    async fn deploy(&self, app: &App<'_>, backup: &str) {
        let to = self.repository().display().to_string();
        let backup = backup.replace("REPOSITORY", &to);
        app.commit("v1", |text| format!("{text}{backup}\n")).unwrap();
        app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
    }

    /// What restic says by itself.
    fn restic(&self, words: &[&str]) -> String {
        String::from_utf8(restic(&self.site, words)).unwrap()
    }
}

/// The schedule makes one at once, and none after it.
const MONTHLY: &str = "backup: { to: REPOSITORY, password: \"${BACKUP_PASSWORD}\", every: 31d }";

fn id(told: &str) -> String {
    let after = told.split_once("backup ").unwrap().1;
    after.split_whitespace().next().unwrap().to_owned()
}

fn entries(file: &Path) -> i64 {
    let connection = rusqlite::Connection::open(file).unwrap();
    connection.query_row("SELECT count(*) FROM entries", [], |row| row.get(0)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_made_beside_traffic_and_restic_alone_puts_it_back() {
    let Some(place) = Place::new("a_backup_is_made_beside_traffic_and_restic_alone_puts_it_back") else {
        return;
    };
    let app = place.backed_up().await;
    let first = &place.records(&app, 1).await[0];
    assert!(first.is_verified() && first.by == "schedule", "{first:?}");
    app.cutover(&["status", "--check"]).await.unwrap().expect(0).unwrap();
    let volume = app.volume("data");
    fs::create_dir(volume.join("uploads")).unwrap();
    fs::write(volume.join("uploads/empty"), "").unwrap();
    fs::write(volume.join("uploads/[odd] name*"), "kept").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", volume.join("uploads/link")).unwrap();
    let probe = Probe::start(app.traffic().unwrap());
    wait_until("something was written", SOON, async || {
        (entries(&volume.join("guestbook.db")) > 0).then_some(())
    })
    .await
    .unwrap();
    let before = entries(&volume.join("guestbook.db"));

    let told = app.cutover(&["backup", "run"]).await.unwrap().expect(0).unwrap();

    println!("{}{}", told.talk, told.output);
    assert!(told.output.contains("database main, volume data"), "{}", told.output);
    let id = id(&told.output);
    let list = app.cutover(&["backup", "list"]).await.unwrap().expect(0).unwrap().output;
    assert!(list.contains(&id) && list.contains("read back"), "{list}");
    let verified = app.cutover(&["backup", "verify"]).await.unwrap().expect(0).unwrap();
    assert!(verified.output.contains("database main: put back, integrity_check: ok"), "{}", verified.output);
    let scratch = place.site.folder().join("scratch");
    let words = ["backup", "restore", "--to", scratch.to_str().unwrap()];
    app.cutover(&words).await.unwrap().expect(0).unwrap();
    assert!(entries(&scratch.join("databases/main.sqlite")) >= before);
    let uploads = scratch.join("volumes/data/uploads");
    assert_eq!(fs::read_to_string(uploads.join("[odd] name*")).unwrap(), "kept");
    assert_eq!(fs::read(uploads.join("empty")).unwrap(), b"");
    assert_eq!(fs::read_link(uploads.join("link")).unwrap(), Path::new("/etc/passwd"));
    let again = app.cutover(&words).await.unwrap().expect(2).unwrap();
    assert!(again.failure().contains("something is there"), "{}", again.talk);

    // A person with restic and the password, and nothing of ours.
    place.restic(&["check", "--read-data"]);
    let alone = place.site.folder().join("alone");
    place.restic(&["restore", &id, "--target", alone.to_str().unwrap()]);
    let copy = place.site.layout().backup_room(app.id()).join("volumes/data/guestbook.db");
    assert!(entries(&alone.join(copy.strip_prefix("/").unwrap())) >= before);
    let report = probe.stop().await;
    println!("{report}");
    assert_eq!(report.failed(), 0, "{report}");
    let state = fs::read(place.site.layout().store()).unwrap();
    let said = format!("{}{}{list}{}", told.talk, told.output, String::from_utf8_lossy(&state));
    assert!(!said.contains(PASSWORD), "the password is somewhere");
}

/// A folder with a `restic` that sends and fetches 8 MiB a second, to stand before the others in `PATH`.
fn slow_restic(place: &Place) -> String {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = place.site.folder().join("slow");
    fs::create_dir(&folder).unwrap();
    let path = std::env::var("PATH").unwrap();
    let script =
        format!("#!/bin/sh\nPATH='{path}' exec restic --limit-upload 8192 --limit-download 8192 \"$@\"\n");
    fs::write(folder.join("restic"), script).unwrap();
    fs::set_permissions(folder.join("restic"), fs::Permissions::from_mode(0o755)).unwrap();
    format!("{}:{path}", folder.display())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn a_backup_of_much_says_how_far_it_is() {
    let Some(place) = Place::new("a_backup_of_much_says_how_far_it_is") else { return };
    let app = place.backed_up().await;
    let mut random = fs::File::open("/dev/urandom").unwrap().take(24 * 1024 * 1024);
    std::io::copy(&mut random, &mut fs::File::create(app.volume("data").join("uploads.bin")).unwrap())
        .unwrap();
    let path = slow_restic(&place);

    let told = async |words: &[&str], what: &str| {
        let mut command = app.command(&[words, &["--json"]].concat());
        command.env("PATH", &path);
        let told = place.site.run(command).await.unwrap().expect(0).unwrap();
        let lines = told.output.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let all: Vec<_> = lines.filter(|line| line["kind"] == "progress").collect();
        let is_told = all.iter().any(|line| {
            let progress = &line["progress"];
            progress["what"] == what && progress["bytes"].as_u64().is_some_and(|bytes| bytes > 0)
        });
        assert!(is_told, "{words:?}: {all:?}");
    };
    told(&["backup", "run"], "read back").await;
    told(&["backup", "verify"], "read").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_a_backup_from_being_made_is_said_and_status_tells() {
    let Some(place) = Place::new("what_keeps_a_backup_from_being_made_is_said_and_status_tells") else {
        return;
    };
    let app = place.backed_up().await;
    let run = async || app.cutover(&["backup", "run"]).await.unwrap().expect(1).unwrap();

    let good = fs::read_to_string(app.repository().join(".env")).unwrap();
    app.write_env(&good.replace(PASSWORD, "another-password")).unwrap();
    let told = run().await;
    println!("{}", told.failure());
    assert!(told.failure().contains("the password does not open the repository"), "{}", told.talk);
    assert!(!told.talk.contains("another-password"), "{}", told.talk);
    app.write_env(&good).unwrap();

    // A disk that is not mounted any more must not become a new repository.
    let aside = place.site.folder().join("aside");
    fs::rename(place.repository(), &aside).unwrap();
    let told = run().await;
    println!("{}", told.failure());
    assert!(told.failure().contains("there was one"), "{}", told.talk);
    assert!(!place.repository().exists());
    fs::rename(&aside, place.repository()).unwrap();

    let config = app.repository().join("cutover.yml");
    let text = fs::read_to_string(&config).unwrap();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let away = format!("to: \"sftp://nobody@127.0.0.1:{nobody}//srv/backups\"");
    fs::write(&config, text.replace(&format!("to: {}", place.repository().display()), &away)).unwrap();
    let told = run().await;
    println!("{}", told.failure());
    assert!(told.failure().contains("cannot be reached"), "{}", told.talk);
    fs::write(&config, &text).unwrap();

    // What vanished is not left out of a backup that looks good.
    let (file, aside) = (app.volume("data").join("guestbook.db"), app.volume("data").join("aside"));
    fs::rename(&file, &aside).unwrap();
    let told = run().await;
    println!("{}", told.failure());
    assert!(told.failure().contains("earlier backups have it"), "{}", told.talk);
    fs::rename(&aside, &file).unwrap();

    // One that failed does not make the good one before it worthless.
    let status = app.cutover(&["status", "--check"]).await.unwrap().expect(0).unwrap();
    assert!(status.output.contains("failed: there is no new backup"), "{}", status.output);
    flipped(&place, &app).await;
}

/// A byte of a pack changes: whoever reads it says so.
async fn flipped(place: &Place, app: &App<'_>) {
    let mut packs = Vec::new();
    for folder in fs::read_dir(place.repository().join("data")).unwrap() {
        packs.extend(fs::read_dir(folder.unwrap().path()).unwrap().map(|pack| pack.unwrap().path()));
    }
    for pack in packs {
        let mut bytes = fs::read(&pack).unwrap();
        let middle = bytes.len() / 3;
        bytes[middle] ^= 1;
        fs::set_permissions(&pack, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        fs::write(&pack, bytes).unwrap();
    }
    let told = app.cutover(&["backup", "verify"]).await.unwrap().expect(1).unwrap();
    println!("{}", told.failure());
    assert!(told.failure().contains("is not what was written"), "{}", told.talk);
    let scratch = place.site.folder().join("scratch");
    let words = ["backup", "restore", "--to", scratch.to_str().unwrap()];
    let told = app.cutover(&words).await.unwrap().expect(1).unwrap();
    println!("{}", told.failure());
    assert!(told.failure().contains("is not what was written"), "{}", told.talk);
    assert!(!scratch.exists(), "half a restore lies there");
}

/// Nobody takes back the number of the killed restic here, as in a container whose first process is no init: it counts as alive for restic itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_killed_leaves_nothing_that_the_next_cannot_mend_and_two_never_go_at_once() {
    let name = "a_backup_that_is_killed_leaves_nothing_that_the_next_cannot_mend_and_two_never_go_at_once";
    let Some(place) = Place::new(name) else { return };
    let app = place.backed_up().await;
    let mut noise = vec![0; 96 << 20];
    std::io::Read::read_exact(&mut fs::File::open("/dev/urandom").unwrap(), &mut noise).unwrap();
    fs::write(app.volume("data").join("large"), noise).unwrap();
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();

    let running = app.command(&["backup", "run"]).spawn().unwrap();
    let locks = place.repository().join("locks");
    let has_lock = || fs::read_dir(&locks).unwrap().any(|entry| is_lock(&entry.unwrap().path()));
    let works = async || {
        let worker = ProcessLock::peek(&place.site.layout(), &lock_name(app.id()))?;
        Some(worker).filter(|_| has_lock())
    };
    let worker = wait_until("restic is at work", SOON, works).await.unwrap();
    let restic = child_of(worker, "restic").unwrap();
    signal(restic, rustix::process::Signal::STOP);
    let second = app.cutover(&["backup", "run"]).await.unwrap().expect(3).unwrap();
    println!("{}", second.failure());
    assert!(second.failure().contains("works on the backups"), "{}", second.talk);
    assert!(has_lock(), "it was stopped too late to have a lock");
    signal(worker, rustix::process::Signal::KILL);
    let ended = tokio::time::timeout(SOON, running.wait_with_output()).await.unwrap().unwrap();
    assert_eq!(ended.status.code(), Some(1));
    let has_ended = async || (state(restic)?.1 == "Z").then_some(());
    wait_until("the kernel ended restic with its worker", SOON, has_ended).await.unwrap();
    let status = app.cutover(&["status"]).await.unwrap().expect(0).unwrap();
    println!("{}", status.output);
    assert!(status.output.contains("it did not come to its end"), "{}", status.output);

    let told = app.cutover(&["backup", "run"]).await.unwrap().expect(0).unwrap();

    println!("{}{}", told.talk, told.output);
    assert!(told.talk.contains("a lock that an ended process had left"), "{}", told.talk);
    let room = place.site.layout().backup_room(app.id());
    assert_eq!(fs::read_dir(room).unwrap().count(), 0, "something was left behind");
    place.restic(&["check"]);
    let records = place.records(&app, 3).await;
    let verified: Vec<bool> = records.iter().map(BackupRecord::is_verified).collect();
    assert_eq!(verified, [true, false, true], "the one that was killed is on record, once: {records:?}");
}

/// Its process was none of ours and is not there: so it is with a server that was made from the same image, whose name is the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_of_another_host_with_the_same_name_is_waited_for() {
    use tokio::io::AsyncBufReadExt as _;

    let Some(place) = Place::new("a_lock_of_another_host_with_the_same_name_is_waited_for") else { return };
    let app = place.backed_up().await;
    let locks = place.repository().join("locks");
    let has_lock = || fs::read_dir(&locks).unwrap().any(|entry| is_lock(&entry.unwrap().path()));
    let mut other = std::process::Command::new("restic");
    other.args(["backup", "--stdin"]).env("RESTIC_REPOSITORY", place.repository());
    other.env("RESTIC_PASSWORD", PASSWORD).env("RESTIC_CACHE_DIR", place.site.folder().join("cache"));
    let mut other = other.stdin(std::process::Stdio::piped()).spawn().unwrap();
    wait_until("it has its lock", SOON, async || has_lock().then_some(())).await.unwrap();
    other.kill().unwrap();
    other.wait().unwrap();

    let mut command = app.command(&["backup", "run"]);
    command.stderr(std::process::Stdio::piped()).kill_on_drop(true);
    let mut running = command.spawn().unwrap();
    let mut talk = tokio::io::BufReader::new(running.stderr.take().unwrap()).lines();
    let waits = async {
        while let Some(line) = talk.next_line().await.unwrap() {
            println!("{line}");
            if line.contains("waits for process") {
                return true;
            }
        }
        false
    };
    assert!(tokio::time::timeout(SOON, waits).await.unwrap(), "it did not wait");
    assert!(has_lock(), "somebody else's lock was taken away");
    place.restic(&["unlock", "--remove-all"]);
    let ended = tokio::time::timeout(SOON, running.wait()).await.unwrap().unwrap();
    assert_eq!(ended.code(), Some(0));
}

/// By its name: what is written beside, to be renamed, is none yet.
fn is_lock(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.len() == 64)
}

fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// A process's name, its state and its parent; `None`: there is none.
fn state(pid: u32) -> Option<(String, String, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (head, rest) = stat.rsplit_once(')')?;
    let mut rest = rest.split_whitespace();
    Some((head.split_once('(')?.1.to_owned(), rest.next()?.to_owned(), rest.next()?.parse().ok()?))
}

fn child_of(parent: u32, name: &str) -> Option<u32> {
    let pids =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    pids.into_iter().find(|pid| state(*pid).is_some_and(|(its, _, of)| its == name && of == parent))
}

/// restic tries for half a minute each time.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn a_target_that_is_full_or_read_only_is_told() {
    let name = "a_target_that_is_full_or_read_only_is_told";
    let Some(place) = Place::new(name) else { return };
    fs::create_dir(place.repository()).unwrap();
    let disk = match Disk::mount_of(&place.repository(), "64m") {
        Ok(disk) => disk,
        Err(why) => return println!("not run: {name}: {why}"),
    };
    let app = place.backed_up().await;

    disk.fill().unwrap();
    let told = app.cutover(&["backup", "run"]).await.unwrap().expect(1).unwrap();
    println!("{}", told.failure());
    assert!(told.failure().contains("there is no room left"), "{}", told.talk);
    disk.make_room().unwrap();
    disk.read_only().unwrap();
    let told = app.cutover(&["backup", "run"]).await.unwrap().expect(1).unwrap();
    println!("{}", told.failure());
    assert!(told.failure().contains("nothing can be written"), "{}", told.talk);
    disk.writable().unwrap();

    app.cutover(&["backup", "run"]).await.unwrap().expect(0).unwrap();
}

/// The host is gone, with all that was on it but the backups.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_was_lost_comes_back() {
    let name = "a_host_that_was_lost_comes_back";
    let (Some(lost), Some(new)) = (Place::new(name), Place::new(name)) else { return };
    let to = lost.repository();
    {
        let app = lost.app(MONTHLY).await;
        lost.records(&app, 1).await;
        let connection = rusqlite::Connection::open(app.volume("data").join("guestbook.db")).unwrap();
        connection.busy_timeout(SOON).unwrap();
        connection.execute("CREATE TABLE kept (text TEXT)", []).unwrap();
        fs::write(app.volume("data").join("upload"), "kept").unwrap();
        app.cutover(&["backup", "run"]).await.unwrap().expect(0).unwrap();
    }
    let app = new.site.app("guestbook", "guestbook.localhost").unwrap();
    app.add_to_env(&format!("BACKUP_PASSWORD={PASSWORD}")).unwrap();
    let backup = MONTHLY.replace("REPOSITORY", &to.display().to_string());
    app.commit("v1", |text| format!("{text}{backup}\n")).unwrap();

    let told = app.cutover(&["backup", "restore", "--all"]).await.unwrap().expect(0).unwrap();

    println!("{}{}", told.talk, told.output);
    // Broken off before its end: nothing goes live on a part of it.
    fs::remove_file(new.site.layout().returning(app.id()).join("ready")).unwrap();
    let half = app.cutover(&["deploy"]).await.unwrap().expect(7).unwrap();
    println!("{}", half.failure());
    assert!(half.failure().contains("only partly back"), "{}", half.talk);
    let again = app.cutover(&["backup", "restore", "--all"]).await.unwrap().expect(0).unwrap();
    assert!(again.output.contains("volume data"), "{}", again.output);
    app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
    assert_eq!(fs::read_to_string(app.volume("data").join("upload")).unwrap(), "kept");
    let connection = rusqlite::Connection::open(app.volume("data").join("guestbook.db")).unwrap();
    connection.query_row("SELECT count(*) FROM kept", [], |_| Ok(())).unwrap();
    // The schedule makes one at once.
    new.records(&app, 1).await;
    let refused = app.cutover(&["backup", "restore", "--all"]).await.unwrap().expect(7).unwrap();
    println!("{}", refused.failure());
    assert!(refused.failure().contains("is live on this host"), "{}", refused.talk);
}

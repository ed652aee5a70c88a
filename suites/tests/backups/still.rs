//! Volumes that nothing changes while they are copied: the app keeps them so when it is told to, or is paused; and what becomes of it when that is killed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::*;

const KEPT: &str = r#"backup:
  to: REPOSITORY
  password: "${BACKUP_PASSWORD}"
  every: 31d
  volumes:
    data: STILL
"#;
const HOOK: &str =
    "{ service: web, before: [sh, -c, 'BEFORE'], after: [rm, -f, VOLUME/frozen], timeout: 20s }";
/// Asks the writer to stop, and waits until it has.
const FREEZE: &str = "cd VOLUME && rm -f idle && touch frozen && until [ -e idle ]; do sleep 0.02; done";

/// Somebody who writes two files that belong together, one after the other, until he is told to keep still.
struct Writer {
    ends: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Writer {
    fn start(volume: PathBuf) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&ends);
        let thread = std::thread::spawn(move || {
            let mut number = 0_u64;
            while !end.load(Ordering::Relaxed) {
                if volume.join("frozen").exists() {
                    fs::write(volume.join("idle"), "").unwrap();
                    std::thread::sleep(Duration::from_millis(2));
                    continue;
                }
                number += 1;
                fs::write(volume.join("one"), number.to_string()).unwrap();
                std::thread::sleep(Duration::from_millis(20));
                fs::write(volume.join("two"), number.to_string()).unwrap();
            }
            number
        });
        Self { ends, thread }
    }

    /// How often he wrote.
    fn end(self) -> u64 {
        self.ends.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// The guestbook, live, with its volume kept still so.
async fn kept<'a>(place: &'a Place, still: &str) -> App<'a> {
    let app = place.site.app("guestbook", "guestbook.localhost").unwrap();
    app.add_to_env(&format!("BACKUP_PASSWORD={PASSWORD}")).unwrap();
    let volume = app.volume("data").display().to_string();
    place.deploy(&app, &KEPT.replace("STILL", still).replace("VOLUME", &volume)).await;
    app
}

/// What the newest backup has, put back beside.
async fn put_back(place: &Place, app: &App<'_>, name: &str) -> PathBuf {
    let scratch = place.site.folder().join(name);
    let words = ["backup", "restore", "--to", scratch.to_str().unwrap()];
    app.cutover(&words).await.unwrap().expect(0).unwrap();
    scratch.join("volumes/data")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_is_told_keeps_its_volume_still_for_the_copy_and_goes_on_whatever_happens() {
    let name = "an_app_that_is_told_keeps_its_volume_still_for_the_copy_and_goes_on_whatever_happens";
    let Some(place) = Place::new(name) else { return };
    let app = kept(&place, &HOOK.replace("BEFORE", FREEZE)).await;
    let volume = app.volume("data");
    let frozen = volume.join("frozen");
    let writer = Writer::start(volume.clone());

    // The first is the schedule's, by what is live.
    place.records(&app, 1).await;
    let told = app.cutover(&["backup", "run"]).await.unwrap().expect(0).unwrap();
    println!("{}{}", told.talk, told.output);
    let back = put_back(&place, &app, "scratch").await;
    let read = |file: &str| fs::read_to_string(back.join(file)).unwrap();
    assert_eq!(read("one"), read("two"), "it was not of one moment");
    assert!(back.join("frozen").exists(), "it was copied when nothing kept it still");
    assert!(entries(&back.join("guestbook.db")) >= 0, "the database came with it");
    assert!(!frozen.exists(), "it was not told to go on");

    // That it may go on is said again, where it was not heard.
    let config = app.repository().join("cutover.yml");
    let text = fs::read_to_string(&config).unwrap();
    let heard = format!("[rm, -f, {}]", frozen.display());
    assert!(text.contains(&heard), "{text}");
    let flaky = format!(
        "[sh, -c, 'cd {}; if [ -e tried ]; then rm frozen tried; else touch tried; exit 1; fi']",
        volume.display()
    );
    fs::write(&config, text.replace(&heard, &flaky)).unwrap();
    app.cutover(&["backup", "run"]).await.unwrap().expect(0).unwrap();
    assert!(!frozen.exists() && !volume.join("tried").exists(), "it was told once only");

    // What its command says is told, without the values it was given.
    let freeze = FREEZE.replace("VOLUME", &volume.display().to_string());
    let fails = format!(
        "touch {}; cat {}; echo no key; exit 3",
        frozen.display(),
        app.repository().join(".env").display()
    );
    fs::write(&config, text.replace(&freeze, &fails)).unwrap();
    let told = app.cutover(&["backup", "run"]).await.unwrap().expect(1).unwrap();
    println!("{}", told.failure());
    let failure = told.failure();
    assert!(failure.contains("exited with code 3") && failure.contains("no key"), "{failure}");
    assert!(!told.talk.contains(PASSWORD), "{failure}");
    assert!(!frozen.exists(), "it was not told to go on");
    let hangs = text.replace(&freeze, &format!("touch {}; sleep 60", frozen.display())).replace("20s", "1s");
    fs::write(&config, hangs).unwrap();
    let told = app.cutover(&["backup", "run"]).await.unwrap().expect(1).unwrap();
    println!("{}", told.failure());
    assert!(!frozen.exists(), "it was not told to go on");

    // Killed while the app keeps still.
    let waits =
        format!("touch {}; until [ -e {}/go ]; do sleep 0.05; done", frozen.display(), volume.display());
    fs::write(&config, text.replace(&freeze, &waits)).unwrap();
    let running = app.command(&["backup", "run"]).spawn().unwrap();
    let begun = async || frozen.exists().then_some(());
    wait_until("it keeps still", SOON, begun).await.unwrap();
    let worker = ProcessLock::peek(&place.site.layout(), &lock_name(app.id())).unwrap();
    signal(worker, Signal::KILL);
    let since = Instant::now();
    let goes_on = async || (!frozen.exists()).then_some(());
    wait_until("watch tells it to go on", SOON, goes_on).await.unwrap();
    println!("it went on {:?} after the kill", since.elapsed());
    fs::write(volume.join("go"), "").unwrap();
    tokio::time::timeout(SOON, running.wait_with_output()).await.unwrap().unwrap();
    fs::write(&config, text).unwrap();
    app.cutover(&["backup", "run"]).await.unwrap().expect(0).unwrap();
    assert!(writer.end() > 1);
}

/// The processes of the service `web`, and whether each is stopped.
fn web(app: &App<'_>) -> Vec<(u32, bool)> {
    let file = app.volume("data").join("guestbook.db").display().to_string();
    let pids =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    let is_web = |pid: &u32| {
        let read = |name: &str| {
            String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default()).into_owned()
        };
        read("environ").contains(&file) && read("cmdline").contains("serve")
    };
    pids.filter(is_web).filter_map(|pid| Some((pid, state(pid)?.1 == "T"))).collect()
}

/// Begins a backup, and stops its worker while `web` is paused for it.
async fn stopped_while_paused(place: &Place, app: &App<'_>) -> (u32, tokio::process::Child) {
    let running = app.command(&["backup", "run"]).spawn().unwrap();
    let is_paused = async || {
        let worker = ProcessLock::peek(&place.site.layout(), &lock_name(app.id()))?;
        let web = web(app);
        (!web.is_empty() && web.iter().all(|(_, stopped)| *stopped)).then_some(worker)
    };
    let worker = wait_until("it is paused", SOON, is_paused).await.unwrap();
    signal(worker, Signal::STOP);
    (worker, running)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_paused_for_the_copy_no_request_fails_and_it_goes_on_whatever_happens() {
    let name = "a_service_is_paused_for_the_copy_no_request_fails_and_it_goes_on_whatever_happens";
    let Some(place) = Place::new(name) else { return };
    let app = kept(&place, "{ pause: [web], timeout: 2s }").await;
    place.records(&app, 1).await;
    let mut noise = vec![0; 256 << 20];
    fs::File::open("/dev/urandom").unwrap().read_exact(&mut noise[..1 << 20]).unwrap();
    fs::write(app.volume("data").join("large"), &noise).unwrap();
    let before = web(&app);
    let probe = Probe::start(app.traffic().unwrap());

    // Killed while it is paused.
    let (worker, running) = stopped_while_paused(&place, &app).await;
    let since = Instant::now();
    signal(worker, Signal::KILL);
    let goes_on = async || web(&app).iter().all(|(_, stopped)| !stopped).then_some(());
    wait_until("watch lets it go on", SOON, goes_on).await.unwrap();
    println!("it went on {:?} after the kill", since.elapsed());
    tokio::time::timeout(SOON, running.wait_with_output()).await.unwrap().unwrap();

    // Longer than it may.
    let (worker, running) = stopped_while_paused(&place, &app).await;
    let is_over = Instant::now() + Duration::from_secs(3);
    wait_until("its time is over", SOON, async || (Instant::now() > is_over).then_some(())).await.unwrap();
    assert!(web(&app).iter().all(|(_, stopped)| *stopped), "somebody else let it go on, or started it anew");
    signal(worker, Signal::CONT);
    let ended = tokio::time::timeout(SOON, running.wait_with_output()).await.unwrap().unwrap();
    assert_eq!(ended.status.code(), Some(1));
    wait_until("it goes on", SOON, goes_on).await.unwrap();
    let status = app.cutover(&["status"]).await.unwrap().expect(0).unwrap();
    println!("{}", status.output);
    assert!(status.output.contains("took too long"), "{}", status.output);

    let config = app.repository().join("cutover.yml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("timeout: 2s", "timeout: 30s")).unwrap();
    app.cutover(&["backup", "run"]).await.unwrap().expect(0).unwrap();
    let report = probe.stop().await;
    println!("{report}");
    assert_eq!(report.failed(), 0, "{report}");
    assert_eq!(web(&app), before, "it was started anew");
    let back = put_back(&place, &app, "scratch").await;
    assert!(fs::read(back.join("large")).unwrap() == noise, "it is not what it was");
    assert!(entries(&back.join("guestbook.db")) > 0);
    let room = place.site.layout().backup_room(app.id());
    assert_eq!(fs::read_dir(room).unwrap().count(), 0, "something was left behind");
}

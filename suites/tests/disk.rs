//! A disk that is full, before a command and at every step of a deploy, and one that can only be read: the old release serves, the message
//! names the place, and when there is room again all goes on.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test stops where it fails, and says its numbers"
)]

use cutover_host::lock::AppLock;
use cutover_host::store::Store;
use cutover_suites::disk::{Disk, take_ballast};
use cutover_suites::input::{GOOD, Golden, Shop};
use cutover_suites::stopped::{go_on, stopped_run};
use cutover_suites::{STOP_AT, killing_binaries};
use cutover_testkit::probe::{Probe, Report, fetch_entries};
use cutover_testkit::site::{App, Site, Told};
use cutover_testkit::{SOON, wait_until};

/// So many sites share the steps of a deploy.
const SITES: usize = 4;

/// A site whose whole state lies on a disk of its own.
struct Place {
    // Goes first: its folder is the site's.
    disk: Disk,
    site: Site,
}

/// The place, or why there is none.
fn on_disk(name: &str) -> Option<Place> {
    let site = Site::with(killing_binaries().unwrap()).unwrap();
    match Disk::mount(&site.root()) {
        Ok(disk) => Some(Place { disk, site }),
        Err(why) => {
            println!("not run: {name}: {why}");
            None
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Who works on a disk that is gone is not found any more.
        let ended = self.site.kill_all();
        assert!(ended.is_ok() || std::thread::panicking(), "left behind: {ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_is_told_before_anything_is_touched() {
    let name = "a_disk_that_is_full_is_told_before_anything_is_touched";
    let Some(place) = on_disk(name) else { return };
    let (site, disk) = (&place.site, &place.disk);
    let mut shop = Shop::serving(site).await;
    let mut golden = Golden::new("full_disk");
    shop.recovers("a second release").await;
    shop.changes("a third");
    disk.fill().unwrap();
    for (words, exit) in [
        (&["deploy"][..], 7),
        (&["deploy", "--allow", "low-disk"], 1),
        (&["rollback", "--yes"], 7),
        (&["restart", "--yes"], 7),
        (&["env", "set", "NEW=1", "--yes"], 7),
    ] {
        let told = shop.app.cutover(words).await.unwrap();
        golden.failure(site, &words.join(" "), exit, &told);
        shop.still_answers(&words.join(" ")).await;
    }
    for words in [&["status"][..], &["history"], &["releases"], &["logs"], &["lock"], &["env", "list"]] {
        shop.app.cutover(words).await.unwrap().expect(0).unwrap();
    }
    disk.make_room().unwrap();
    shop.still_serves("there is room again").await;
    shop.recovers("full disks").await;
    golden.compare();
}

/// A site's share of the steps, from the `first` on: a deploy whose disk is full from this step to its end.
async fn steps(site: &Site, disk: &Disk, first: usize, ballast: Ballast) -> (usize, usize) {
    let mut shop = Shop::serving(site).await;
    let store = Store::open(&site.layout()).unwrap();
    let (mut steps, mut live) = (0, 0);
    for step in (first..).step_by(SITES * ballast.every()) {
        let case = format!("full from step {step} on, {ballast:?}");
        shop.changes(&case);
        let (told, stopped) = filled_at(&shop.app, disk, step, ballast).await;
        println!("{case}: exit {:?}; {}", told.exit, told.failure().replace('\n', " "));
        if told.exit == Some(0) {
            shop.took_over(&case).await;
            live += 1;
        } else {
            is_told_in_full(&case, &told);
            // Who could not even write how it ended may have switched before.
            if told.exit != Some(8) {
                shop.still_answers(&case).await;
            }
            let serving = format!("(release {}) is serving", shop.settles_for_what_serves().await);
            assert!(told.failure().contains(&serving), "{case}: {serving}; {}", told.talk);
        }
        if !stopped {
            break;
        }
        disk.make_room().unwrap();
        is_settled(&shop.app, &store).await;
        shop.settles_for_what_serves().await;
        steps += 1;
    }
    shop.recovers("every step").await;
    (steps, live)
}

/// There is room again: whoever looks settles the run, without being asked.
async fn is_settled(app: &App<'_>, store: &Store) {
    let settled = async || store.all_unfinished().ok()?.is_empty().then_some(());
    wait_until("the run is settled by itself", SOON, settled).await.unwrap();
    let free = async || AppLock::peek(&app.site().layout(), app.id()).is_none().then_some(());
    wait_until("nobody works on it", SOON, free).await.unwrap();
}

/// What is kept for such a day: there, or used up by an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ballast {
    Kept,
    Gone,
}

impl Ballast {
    /// Which steps are tried: each is left to itself for seconds where nothing can be written any more.
    fn every(self) -> usize {
        match self {
            Self::Kept => 1,
            Self::Gone => 2,
        }
    }
}

/// What a deploy told; and whether it came to this step.
async fn filled_at(app: &App<'_>, disk: &Disk, step: usize, ballast: Ballast) -> (Told, bool) {
    filled_while(app, &["deploy"], disk, step, ballast).await
}

/// The same of other words.
async fn filled_while(
    app: &App<'_>,
    words: &[&str],
    disk: &Disk,
    step: usize,
    ballast: Ballast,
) -> (Told, bool) {
    let mut command = app.command(words);
    command.env(STOP_AT, step.to_string());
    let mut deploy = std::pin::pin!(app.site().run(command));
    let (run, told) = tokio::select! {
        told = &mut deploy => match stops_afterwards(app).await {
            Some(run) => (run, told.ok()),
            None => return (told.unwrap(), false),
        },
        run = stopped_run(app.site()) => (run, None),
    };
    if ballast == Ballast::Gone {
        take_ballast(&app.site().layout()).unwrap();
    }
    disk.fill().unwrap();
    go_on(run);
    match told {
        Some(told) => (told, true),
        None => (deploy.await.unwrap(), true),
    }
}

/// The run that has told how it ended and stops at what it puts away then; `None`: it is over.
async fn stops_afterwards(app: &App<'_>) -> Option<u32> {
    let free = async || AppLock::peek(&app.site().layout(), app.id()).is_none().then_some(());
    tokio::select! {
        run = stopped_run(app.site()) => Some(run),
        over = wait_until("the run is over", SOON, free) => {
            over.unwrap();
            None
        }
    }
}

/// Four answers, the place, and the room that is left there.
fn is_told_in_full(case: &str, told: &Told) {
    let failure = told.failure();
    let why = match told.exit {
        // At its beginning a run asks for the room it needs, and is refused; later an act finds none.
        Some(7) => ["free for state", "/root", "make room"],
        // The gate sees only that a line is missing, which an instance said and its log had no room for.
        Some(8) if failure.contains("no line with") => ["no line with", "polling started", "cutover logs"],
        _ => ["free there", "/root", "make room"],
    };
    for part in ["error: ", "\n  cause: ", "\n  state: ", "\n  next:  "].iter().chain(&why) {
        assert!(failure.contains(part), "{case}: no `{part}` in {:?} {}", told.exit, told.talk);
    }
    assert!(matches!(told.exit, Some(1 | 4 | 5 | 7 | 8)), "{case}: {:?} {}", told.exit, told.talk);
}

async fn every_step(name: &str, ballast: Ballast) {
    let places: Vec<_> = (0..SITES).map_while(|_| on_disk(name)).collect();
    let first = (1..).step_by(ballast.every());
    let all = places.iter().zip(first).map(|(place, first)| steps(&place.site, &place.disk, first, ballast));
    let done = futures_util::future::join_all(all).await;
    let sum = |of: fn(&(usize, usize)) -> usize| done.iter().map(of).sum::<usize>();
    println!("{} steps on a full disk, {} deploys went live", sum(|done| done.0), sum(|done| done.1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_at_any_step_leaves_one_release_serving() {
    every_step("a_disk_that_fills_at_any_step_leaves_one_release_serving", Ballast::Kept).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_any_ballast_left_one_release_serves_all_the_same() {
    every_step("without_any_ballast_left_one_release_serves_all_the_same", Ballast::Gone).await;
}

/// Of a migration's steps, which are many.
const EVERY: usize = 3;

/// A release of the guestbook, told from others by `name`; `v3` migrates the database of `v2`, and holds requests meanwhile.
fn commit(app: &App<'_>, version: &str, name: &str) {
    app.commit(version, |config| config.replace("bake: 1s", "bake: 0")).unwrap();
    std::fs::write(app.repository().join("web/pages/about.html"), format!("<p>{name}</p>")).unwrap();
    app.record(&format!("{version} {name}")).unwrap();
}

/// The guestbook with entries, and who wrote them.
async fn with_entries(site: &Site) -> (App<'_>, Report) {
    let app = site.app("guestbook", "guestbook.localhost").unwrap();
    commit(&app, "v2", "first");
    app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
    let probe = Probe::start(app.traffic().unwrap());
    let written = async || (probe.so_far().sent() > 100).then_some(());
    wait_until("entries are written", SOON, written).await.unwrap();
    let report = probe.stop().await;
    assert_eq!(report.failed(), 0, "{report}");
    (app, report)
}

/// A site's share of the steps of a migration, each on a disk that is full from there on.
async fn migrations(site: &Site, disk: &Disk, first: usize) -> (usize, usize) {
    let (app, written) = with_entries(site).await;
    let store = Store::open(&site.layout()).unwrap();
    let (mut steps, mut live) = (0, 0);
    for step in (first..).step_by(SITES * EVERY) {
        let (before, name) = (app.serving().await.unwrap(), step.to_string());
        commit(&app, "v3", &name);
        let (told, stopped) = filled_at(&app, disk, step, Ballast::Kept).await;
        println!(
            "a migration, full from step {step} on: exit {:?}; {}",
            told.exit,
            told.failure().replace('\n', " ")
        );
        if stopped {
            disk.make_room().unwrap();
        }
        is_settled(&app, &store).await;
        let serving = app.serving().await.unwrap();
        let is_new = serving == format!("v3 {name}");
        assert!(is_new || serving == before, "step {step}: {serving} serves");
        if told.exit == Some(0) {
            assert!(is_new, "step {step}: {serving} serves; {}", told.talk);
        } else {
            is_told_in_full(&format!("step {step}"), &told);
        }
        let entries = fetch_entries(&app.traffic().unwrap()).await.unwrap();
        let found = written.verify_entries(&entries);
        assert!(found.is_complete(), "step {step}: {:?} {:?}; {}", found.missing, found.twice, told.talk);
        if is_new {
            app.cutover(&["rollback", "--restore-db", "--yes"]).await.unwrap().expect(0).unwrap();
            live += usize::from(stopped);
        }
        if !stopped {
            break;
        }
        steps += 1;
    }
    (steps, live)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_on_a_disk_that_fills_loses_no_entry() {
    let name = "a_migration_on_a_disk_that_fills_loses_no_entry";
    let places: Vec<_> = (0..SITES).map_while(|_| on_disk(name)).collect();
    let first = (1..).step_by(EVERY);
    let all = places.iter().zip(first).map(|(place, first)| migrations(&place.site, &place.disk, first));
    let done = futures_util::future::join_all(all).await;
    let sum = |of: fn(&(usize, usize)) -> usize| done.iter().map(of).sum::<usize>();
    println!("{} steps of a migration on a full disk, {} went live", sum(|done| done.0), sum(|done| done.1));
}

/// Of a rollback's steps.
const EVERY_OF_ROLLBACK: usize = 5;

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_on_a_disk_that_fills_leaves_one_release_serving() {
    let Some(place) = on_disk("a_rollback_on_a_disk_that_fills_leaves_one_release_serving") else { return };
    let (site, disk) = (&place.site, &place.disk);
    let (app, written) = with_entries(site).await;
    commit(&app, "v2", "second");
    app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
    let store = Store::open(&site.layout()).unwrap();
    let (mut steps, mut back) = (0, 0);
    for step in (1..).step_by(EVERY_OF_ROLLBACK) {
        let before = app.serving().await.unwrap();
        let (told, stopped) = filled_while(&app, &["rollback", "--yes"], disk, step, Ballast::Kept).await;
        if stopped {
            disk.make_room().unwrap();
        }
        is_settled(&app, &store).await;
        let serving = app.serving().await.unwrap();
        assert!(["v2 first", "v2 second"].contains(&serving.as_str()), "step {step}: {serving} serves");
        if told.exit == Some(0) {
            assert_ne!(serving, before, "step {step}: {}", told.talk);
            back += 1;
        } else {
            is_told_in_full(&format!("a rollback, full from step {step} on"), &told);
        }
        if !stopped {
            break;
        }
        steps += 1;
    }
    let entries = fetch_entries(&app.traffic().unwrap()).await.unwrap();
    assert!(written.verify_entries(&entries).is_complete());
    println!("{steps} steps of a rollback on a full disk, {back} went back");
}

/// Lines without end, beside the app.
const CHATTY: &str = r#"sh -c "(while :; do echo tick; done) & exec ./guestbook serve""#;

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_writes_on_a_full_disk_goes_on() {
    let Some(place) = on_disk("an_app_that_writes_on_a_full_disk_goes_on") else { return };
    let (site, disk) = (&place.site, &place.disk);
    let mut shop = Shop::serving(site).await;
    shop.configured(&GOOD.replace("./guestbook serve", CHATTY));
    shop.app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
    shop.took_over("a chatty one").await;
    let written = async || {
        let told = shop.app.cutover(&["logs", "web"]).await.ok()?;
        told.output.contains("tick").then_some(())
    };
    wait_until("it writes", SOON, written).await.unwrap();
    disk.fill().unwrap();
    for _ in 0..200 {
        shop.still_answers("its log has no room").await;
    }
    disk.make_room().unwrap();
    shop.recovers("a chatty one").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_can_only_be_read_is_told() {
    let Some(place) = on_disk("a_root_that_can_only_be_read_is_told") else { return };
    let (site, disk) = (&place.site, &place.disk);
    let mut shop = Shop::serving(site).await;
    let mut golden = Golden::new("read_only");
    shop.recovers("a second release").await;
    shop.changes("a third");
    disk.read_only().unwrap();
    for words in [&["deploy"][..], &["rollback", "--yes"], &["env", "set", "NEW=1", "--yes"]] {
        let told = shop.app.cutover(words).await.unwrap();
        golden.failure(site, &words.join(" "), 1, &told);
        shop.still_answers(&words.join(" ")).await;
    }
    let told = shop.app.cutover(&["status"]).await.unwrap().expect(0).unwrap();
    assert!(told.output.contains("lies on a read-only file system"), "{}", told.output);
    let told = shop.app.cutover(&["history"]).await.unwrap().expect(0).unwrap();
    assert!(told.output.lines().count() >= 2, "{}", told.output);
    disk.writable().unwrap();
    shop.still_serves("it can be written again").await;
    shop.recovers("read-only roots").await;
    golden.compare();
}

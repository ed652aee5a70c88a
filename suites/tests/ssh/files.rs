//! Artifacts cross chunk by chunk: only what the server lacks, each of them once.

use std::path::{Path, PathBuf};
use std::time::Duration;

use cutover_suites::disk::Disk;
use cutover_testkit::site::{App, Site, Told};
use cutover_testkit::ssh::Link;
use cutover_testkit::{SOON, wait_until};

use super::{once, server};

const MIB: usize = 1024 * 1024;

/// Bytes that no compression makes fewer of.
fn noise(mut seed: u64, bytes: usize) -> Vec<u8> {
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33).to_le_bytes()[0]
    };
    (0..bytes).map(|_| next()).collect()
}

/// The guestbook with `data` in its web service's artifact.
fn lay_out(app: &App<'_>, version: &str, data: &[u8]) {
    app.commit(version, str::to_owned).unwrap();
    let folder = app.repository().join("web");
    std::fs::write(folder.join("data"), data).unwrap();
    std::fs::create_dir_all(folder.join("pages")).unwrap();
    for number in 0..200 {
        std::fs::write(folder.join(format!("pages/{number}")), format!("page {number}")).unwrap();
    }
}

/// A deploy that succeeds, and the bytes it took over the wire in both directions.
async fn deployed(app: &App<'_>) -> (Told, usize) {
    let relay = &app.site().remote().relay;
    let before = relay.carried();
    let told = once(app, &["deploy"], 0).await;
    let ship: Vec<&str> = told.talk.lines().filter(|line| line.contains("ship")).collect();
    println!("{}", ship.join("\n"));
    (told, usize::try_from(relay.carried() - before).unwrap())
}

/// The copies of `data` that the server keeps.
fn kept(site: &Site) -> Vec<PathBuf> {
    let artifacts = std::fs::read_dir(site.layout().artifacts()).into_iter().flatten();
    artifacts.map(|artifact| artifact.unwrap().path().join("data")).filter(|path| path.is_file()).collect()
}

fn has(site: &Site, data: &[u8]) -> bool {
    kept(site).iter().any(|path| std::fs::read(path).unwrap() == data)
}

/// How many chunks lacked, and of how many.
fn lacked(told: &Told) -> (usize, usize) {
    let line = told.talk.lines().find(|line| line.ends_with(" chunks")).unwrap();
    let (before, after) = line.split_once(" of ").unwrap();
    let number = |word: Option<&str>| word.unwrap().parse().unwrap();
    (number(before.rsplit(' ').next()), number(after.split(' ').next()))
}

/// What waits on the server for the rest.
fn waiting(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let packs = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(".pack."));
    packs.filter_map(|pack| Some(pack.metadata().ok()?.len())).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_one_line_sends_what_is_around_it_and_a_kept_file_that_was_edited_is_found() {
    let Some(site) =
        server("a_change_of_one_line_sends_what_is_around_it_and_a_kept_file_that_was_edited_is_found")
    else {
        return;
    };
    let app = site.app("guestbook", "guestbook.localhost").unwrap();
    let mut data = noise(1, 6 * MIB);
    lay_out(&app, "v1", &data);
    let (_, first) = deployed(&app).await;
    assert!(has(&site, &data));

    data.splice(3 * MIB..3 * MIB, *b"one line more\n");
    lay_out(&app, "v2", &data);
    let (_, second) = deployed(&app).await;
    assert!(has(&site, &data));
    assert_eq!(app.serving().await.unwrap(), "v2");

    // When somebody writes into what the server keeps, then it is not made part of the next release.
    for path in kept(&site) {
        let mut edited = std::fs::read(&path).unwrap();
        for place in [MIB, 2 * MIB, 5 * MIB] {
            edited[place] ^= 1;
        }
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, edited).unwrap();
    }
    data[4 * MIB] ^= 1;
    lay_out(&app, "v1", &data);
    let (_, third) = deployed(&app).await;
    assert!(has(&site, &data), "what was kept is held against its hash");

    println!("over the wire: first {first}, one line more {second}, with three chunks to mend {third}");
    assert!(first > 6 * MIB, "{first}");
    assert!(second < MIB, "{second}");
    assert!(third < 2 * MIB, "{third}");
    assert_eq!(waiting(&site.layout().parcels()), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_lost_connection_chunks_that_came_are_not_sent_again() {
    let Some(site) = server("after_a_lost_connection_chunks_that_came_are_not_sent_again") else { return };
    let app = site.app("guestbook", "guestbook.localhost").unwrap();
    let data = noise(2, 12 * MIB);
    lay_out(&app, "v1", &data);
    let relay = &site.remote().relay;
    relay.becomes(Link { delay: Duration::ZERO, rate: Some(3 * MIB as u64) });
    let lost = async {
        // What the relay has carried may be on the way still.
        let part = async || (waiting(&site.layout().parcels()) > 4 * MIB as u64).then_some(());
        wait_until("a part of it came", SOON, part).await.unwrap();
        relay.reset();
    };
    let (told, ()) = tokio::join!(async { app.cutover(&["deploy"]).await.unwrap() }, lost);
    println!("{}", told.failure());
    assert_ne!(told.exit, Some(0));
    for part in ["error: ", "cause: ", "state: ", "next: "] {
        assert!(told.failure().contains(part), "no {part} in {}", told.talk);
    }
    relay.heal();
    relay.becomes(Link::OPEN);
    assert!(kept(&site).is_empty());
    let came = async || Some(waiting(&site.layout().parcels())).filter(|bytes| *bytes > 0);
    let came = wait_until("what came is kept", SOON, came).await.unwrap();

    let (told, again) = deployed(&app).await;
    let (lacked, all) = lacked(&told);
    println!("{came} bytes waited, {again} went over the wire after that");
    assert!(has(&site, &data));
    // A chunk has 64 KiB mostly, and none more than four times that.
    let came = usize::try_from(came).unwrap() / (256 * 1024);
    assert!(came > 10 && lacked + came <= all, "{lacked} of {all}, {came} came");
    assert_eq!(waiting(&site.layout().parcels()), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_without_room_for_an_artifact_is_told_before_it_is_sent() {
    let Some(site) = server("a_disk_without_room_for_an_artifact_is_told_before_it_is_sent") else { return };
    let app = site.app("guestbook", "guestbook.localhost").unwrap();
    app.deploy("v1").await.unwrap().expect(0).unwrap();
    let disk = match Disk::mount_of(&site.layout().parcels(), "34m") {
        Ok(disk) => disk,
        Err(why) => {
            return println!("not run: a_disk_without_room_for_an_artifact_is_told_before_it_is_sent: {why}");
        }
    };
    lay_out(&app, "v2", &noise(3, 4 * MIB));
    let before = site.remote().relay.carried();
    let told = once(&app, &["deploy"], 7).await;
    let sent = site.remote().relay.carried() - before;
    println!("{}", told.failure());
    assert!(told.failure().contains("make room under"), "{}", told.talk);
    assert!(told.failure().contains("release"), "what serves is told: {}", told.talk);
    assert!(sent < MIB as u64, "{sent}");
    drop(disk);
    deployed(&app).await;
    assert_eq!(app.serving().await.unwrap(), "v2");
}

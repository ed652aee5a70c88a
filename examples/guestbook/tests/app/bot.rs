//! The bot and its ledger.

use cutover_testkit::probe::Ledger;
use cutover_testkit::wait_until;
use rustix::process::Signal;
use tokio::time::timeout;

use crate::instance::{Place, SOON, spawn, tell, until, was_killed};

#[tokio::test]
async fn given_one_bot_after_another_then_nothing_overlaps() {
    let place = Place::of("v1");
    for _ in 0..2 {
        let (mut child, mut log) = spawn(place.command("bot", &["bot"]));
        until(&mut log, "polling started").await;
        tell(&child, Signal::TERM);
        until(&mut log, "polling stopped").await;
        assert_eq!(timeout(SOON, child.wait()).await.unwrap().unwrap().code(), Some(0));
    }

    let ledger = Ledger::read(&place.ledger()).unwrap();

    assert_eq!(ledger.instances().len(), 2);
    assert!(ledger.overlaps().is_empty(), "{:?}", ledger.overlaps());
    assert_eq!(ledger.releases(), ["r1"]);
}

#[tokio::test]
async fn given_two_bots_at_once_and_a_kill_then_the_overlap_is_found() {
    let place = Place::of("v1");
    let (mut one, mut log) = spawn(place.command("bot", &["bot"]));
    until(&mut log, "polling started").await;
    let (other, mut log) = spawn(place.command("bot", &["bot"]));
    until(&mut log, "polling started").await;
    let read = || Ledger::read(&place.ledger()).unwrap();
    wait_until("both have polled", SOON, async || (!read().overlaps().is_empty()).then_some(()))
        .await
        .unwrap();

    tell(&one, Signal::KILL);
    assert!(was_killed(timeout(SOON, one.wait()).await.unwrap().unwrap()));

    assert_eq!(read().overlaps().len(), 1);
    assert!(read().longest_gap().is_some());
    drop(other);
}

#[tokio::test]
async fn given_no_ledger_then_the_bot_does_not_start() {
    let place = Place::of("v1");
    let mut command = place.command("bot", &["bot"]);
    let output = timeout(SOON, command.env_remove("BOT_LEDGER").output()).await.unwrap().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(said, "guestbook: environment variable BOT_LEDGER is not set\n");
}

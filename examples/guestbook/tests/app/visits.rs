//! What visitors and programs see.

use std::time::{Duration, Instant};

use cutover_testkit::probe::{Mix, Probe, fetch_entries};
use cutover_testkit::wait_until;

use crate::instance::{Instance, Place, SOON};

#[tokio::test]
async fn given_an_entry_with_markup_then_the_page_shows_it_as_text() {
    let place = Place::of("v1").migrated().await;
    let app = place.serve().await;

    let added = app.post("content-type: application/json\r\n", r#"{"name":"<Ada>","message":"a & b"}"#).await;

    assert_eq!((added.status, added.json()["id"].as_i64()), (201, Some(1)));
    let page = app.get("/").await;
    assert_eq!(page.status, 200);
    assert!(page.body.contains("<strong>&lt;Ada&gt;</strong>"), "{}", page.body);
    assert!(page.body.contains("a &amp; b"));
    assert!(page.head.contains("x-app-release: r1"), "{}", page.head);
}

#[tokio::test]
async fn given_a_browser_then_it_is_sent_back_to_the_page() {
    let place = Place::of("v1").migrated().await;
    let app = place.serve().await;

    let added = app.post("accept: text/html,*/*\r\n", "name=Ada&message=hello+there").await;

    assert_eq!(added.status, 303);
    assert!(added.head.contains("location: /"));
    let entries = app.get("/entries.json?after=0").await.json();
    assert_eq!(entries["entries"][0]["message"], "hello there");
    assert_eq!(app.get("/entries.json?after=1").await.json()["entries"].as_array().unwrap().len(), 0);
}

#[tokio::test]
async fn given_what_is_not_understood_then_the_answer_says_so() {
    let place = Place::of("v1").migrated().await;
    let app = place.serve().await;

    assert_eq!(app.post("", "name=Ada").await.status, 400);
    assert_eq!(app.post("", &"x".repeat(70_000)).await.status, 413);
    assert_eq!(app.get("/entries.json?after=x").await.status, 400);
    assert_eq!(app.get("/nowhere").await.status, 404);
    assert_eq!(app.get("/entry").await.status, 404);
    assert_eq!(app.get("/socket").await.status, 400);
    assert_eq!(app.get("/about").await.status, 200);
}

#[tokio::test]
async fn given_every_kind_of_traffic_then_all_is_answered_and_every_entry_is_there() {
    let place = Place::of("v1").migrated().await;
    let app = place.serve().await;
    let mut options = app.probe();
    options.slow_for = Duration::from_millis(50);
    let probe = Probe::start(options.clone());

    let busy = wait_until("traffic of each kind", SOON, async || {
        let report = probe.so_far();
        let each = report.kinds.values().all(|figures| figures.answered >= 1);
        (report.sent() > 300 && report.kinds.len() == 5 && each).then_some(())
    });
    busy.await.unwrap();
    let report = probe.stop().await;

    println!("{report}");
    assert_eq!(report.failed(), 0, "{report}");
    let total = report.total();
    assert_eq!((total.answered, total.closed), (total.sent, 0));
    assert!(report.kinds.values().filter(|figures| figures.messages > 0).count() == 2, "{report}");
    let found = report.verify_entries(&fetch_entries(&options).await.unwrap());
    assert!(found.is_complete() && found.found > 0, "{found:?}");
    assert_eq!(found.unacknowledged, 0);
}

#[tokio::test]
async fn given_another_instance_on_the_same_file_then_its_entries_come_as_events_too() {
    let place = Place::of("v1").migrated().await;
    let (one, other) = (place.serve().await, place.serve().await);
    let mut listening = one.probe();
    listening.mix = Mix { sse: 1, ..Mix::NONE };
    let probe = Probe::start(listening);
    wait_until("the greeting", SOON, async || (probe.so_far().total().messages >= 1).then_some(()))
        .await
        .unwrap();

    other.post("", "name=Ada&message=from+the+other").await;

    wait_until("the event", SOON, async || (probe.so_far().total().messages >= 2).then_some(()))
        .await
        .unwrap();
    assert_eq!(probe.stop().await.failed(), 0);
}

#[tokio::test]
async fn given_a_peer_then_its_own_words_are_passed_on() {
    let behaviour = r#"{"database": "memory"}"#;
    let (front, back) =
        (Place::of("v1").with_behaviour("web", behaviour), Place::of("v1").with_behaviour("web", behaviour));
    let peer = back.serve().await;
    let mut command = front.command("web", &["serve"]);
    command.env("PEER_URL", format!("http://{}", peer.address)).env("CUTOVER_RELEASE", "r2");
    let app = Instance::start(command).await;

    let said = app.get("/peer").await.json();

    assert_eq!((said["own"]["release"].as_str(), said["peer"]["release"].as_str()), (Some("r2"), Some("r1")));
    assert_eq!(peer.get("/peer").await.status, 502);
}

#[tokio::test]
async fn given_a_migrated_database_then_the_start_is_fast() {
    let place = Place::of("v1").migrated().await;
    let start = Instant::now();
    let app = place.serve().await;
    let health = app.get("/health").await;
    let took = start.elapsed();

    println!("from the start to the first answer: {took:?}");
    assert_eq!((health.status, health.body.as_str()), (200, "ok\n"));
    assert!(took < Duration::from_secs(2), "{took:?}");
}

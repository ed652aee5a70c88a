//! Changing what is served, under traffic: nobody may notice.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use std::time::Duration;

use cutover_routes::control::{Answer, Ask};
use support::client::{Client, Traffic, get};
use support::upstream::Upstream;
use support::{TestProxy, eventually, held, in_time, serving, web};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_switches_under_traffic_lose_nothing() {
    let proxy = TestProxy::start().await;
    let mut control = proxy.control().await;
    let mut live = Upstream::start("v0").await;
    control.serve(vec![web(serving(&[("v0", live.address)]))]).await;
    let traffic = Traffic::start(proxy.address, 3);
    let mut left_at_a_drain = 0;

    for number in 1..=200 {
        let id = format!("v{number}");
        let next = Upstream::start("next").await;
        control.serve(vec![web(serving(&[(&id, next.address)]))]).await;
        let (left, _, _) = control.drain(&format!("v{}", number - 1), 10_000, false).await;
        left_at_a_drain += left;
        std::mem::replace(&mut live, next).terminate().await;
    }

    assert_eq!(left_at_a_drain, 0);
    traffic.stop_without_failures("200 switches, each with the old drained and ended").await;
    assert!(live.requests() > 0);
    assert!(proxy.figures().await.targets.len() < 30, "departed targets are forgotten");
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_keeps_requests_waiting_and_the_switch_lets_them_on() {
    let proxy = TestProxy::start().await;
    let mut control = proxy.control().await;
    let old = Upstream::start("old").await;
    control.serve(vec![web(serving(&[("old", old.address)]))]).await;
    let traffic = Traffic::start(proxy.address, 3);
    eventually("traffic", || async { traffic.sent() > 100 }).await;

    control.serve(vec![web(held(Duration::from_secs(20), 1000))]).await;
    assert_eq!(control.drain("old", 10_000, false).await.0, 0);
    old.terminate().await;
    // Nothing serves now; everybody waits.
    eventually("all clients wait", || async { proxy.held().await == 12 }).await;
    let new = Upstream::start("new").await;
    control.serve(vec![web(serving(&[("new", new.address)]))]).await;

    let before = traffic.sent();
    eventually("traffic goes on", || async { traffic.sent() > before + 100 }).await;
    traffic.stop_without_failures("a handover with a hold").await;
    let figures = proxy.figures().await;
    assert_eq!(figures.routes["app/web"].held, 0);
    assert!(figures.routes["app/web"].longest_hold_ms > 0);
    proxy.stop().await;
}

#[tokio::test]
async fn a_hold_has_bounds_and_an_end() {
    let proxy = TestProxy::start().await;
    proxy.serve(vec![web(held(Duration::from_secs(20), 1))]).await;
    let waiting = tokio::spawn(async move { get(proxy.address, "/").await });
    eventually("one waits", || async { proxy.held().await == 1 }).await;

    let second = get(proxy.address, "/").await;
    assert_eq!((second.status.as_u16(), second.refused()), (503, "hold-full"));
    assert_eq!(second.headers["retry-after"], "1");
    assert_eq!(second.body, "a migration runs\n");

    // The same route held on, but only for a moment: who waits keeps waiting, to the new end.
    proxy.serve(vec![web(held(Duration::from_millis(100), 1))]).await;
    let first = in_time("the hold's end", waiting).await.unwrap();
    assert_eq!((first.status.as_u16(), first.refused()), (503, "hold-expired"));
    assert_eq!(proxy.held().await, 0);
    let figures = proxy.figures().await;
    assert_eq!(figures.routes["app/web"].refused["hold-full"], 1);
    assert_eq!(figures.routes["app/web"].requests, 2);
}

#[tokio::test]
async fn who_leaves_a_hold_frees_its_place_with_or_without_a_body() {
    let proxy = TestProxy::start().await;
    proxy.serve(vec![web(held(Duration::from_secs(20), 2))]).await;
    let (address, mut clients) = (proxy.address, tokio::task::JoinSet::new());
    clients.spawn(async move { get(address, "/").await });
    clients.spawn(async move { Client::new(address).post("/echo", &"x".repeat(200_000)).await });
    eventually("both wait", || async { proxy.held().await == 2 }).await;

    clients.shutdown().await;

    eventually("both places are free", || async { proxy.held().await == 0 }).await;
}

#[tokio::test]
async fn an_upload_that_breaks_off_in_a_hold_frees_its_place_and_never_arrives() {
    use tokio::io::AsyncWriteExt;
    let proxy = TestProxy::start().await;
    for head in ["Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "Content-Length: 10\r\n\r\nhello"] {
        proxy.serve(vec![web(held(Duration::from_secs(20), 1))]).await;
        let mut raw = support::client::Raw::connect(proxy.address).await;
        raw.send(format!("POST /echo HTTP/1.1\r\nHost: a\r\n{head}")).await;
        eventually("it waits", || async { proxy.held().await == 1 }).await;

        raw.stream.shutdown().await.unwrap();

        eventually("its place is free", || async { proxy.held().await == 0 }).await;
        let answer = raw.read_all().await;
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("bad-request"), "{answer}");
        let app = Upstream::start("app").await;
        proxy.serve(vec![web(serving(&[("app", app.address)]))]).await;
        assert_eq!(get(proxy.address, "/").await.body, "app");
        assert_eq!(app.requests(), 1, "the upload never arrived");
    }
}

#[tokio::test]
async fn a_body_read_ahead_in_a_hold_arrives_whole() {
    let proxy = TestProxy::start().await;
    proxy.serve(vec![web(held(Duration::from_secs(20), 10))]).await;
    let address = proxy.address;
    // One that fits the bounds, one that does not and stays with the client in part.
    let bodies = ["small".to_owned(), "large".repeat(1_000_000)];
    let posts: Vec<_> = bodies
        .iter()
        .cloned()
        .map(|body| tokio::spawn(async move { Client::new(address).post("/echo", &body).await }))
        .collect();
    eventually("both wait", || async { proxy.held().await == 2 }).await;

    let app = Upstream::start("app").await;
    proxy.serve(vec![web(serving(&[("app", app.address)]))]).await;

    for (post, body) in posts.into_iter().zip(bodies) {
        let answer = in_time("the post", post).await.unwrap();
        assert_eq!(answer.status, 200);
        assert!(answer.body == body, "{} of {} bytes", answer.body.len(), body.len());
    }
}

#[tokio::test]
async fn a_drain_waits_for_what_is_inside_and_reports_what_is_left() {
    let proxy = TestProxy::start().await;
    let old = Upstream::start("old").await;
    proxy.serve(vec![web(serving(&[("old", old.address)]))]).await;
    let address = proxy.address;
    let slow = tokio::spawn(async move { get(address, "/slow?600").await });
    eventually("it is inside", || async { proxy.in_flight("old").await == 1 }).await;
    proxy.serve(vec![]).await;

    assert_eq!(proxy.control().await.drain("old", 50, false).await, (1, 0, 0), "still inside");
    assert_eq!(proxy.in_flight("old").await, 1, "a departed target is still told of");
    assert_eq!(proxy.control().await.drain("old", 10_000, false).await, (0, 0, 0));
    assert_eq!(slow.await.unwrap().body, "old");
    assert_eq!(proxy.control().await.drain("unknown", 10_000, true).await, (0, 0, 0));
    old.terminate().await;
}

#[tokio::test]
async fn a_drain_cuts_at_its_deadline_only_when_told() {
    let proxy = TestProxy::start().await;
    let old = Upstream::start("old").await;
    proxy.serve(vec![web(serving(&[("old", old.address)]))]).await;
    let address = proxy.address;
    let waiting = tokio::spawn(async move { get(address, "/slow?600000").await });
    let reading = tokio::spawn(async move {
        Client::new(address).send(support::client::request(http::Method::GET, "/drip?100000", "")).await
    });
    eventually("both are inside", || async { proxy.in_flight("old").await == 2 }).await;
    proxy.serve(vec![]).await;

    assert_eq!(proxy.control().await.drain("old", 30, true).await, (0, 0, 2));

    let waiting = in_time("the cut request", waiting).await.unwrap();
    assert_eq!((waiting.status.as_u16(), waiting.refused()), (503, "cut"));
    assert!(
        in_time("the cut answer", reading).await.unwrap().is_err(),
        "an answer cut in the middle does not look whole"
    );
}

#[tokio::test]
async fn a_drain_ends_when_its_asker_leaves() {
    let proxy = TestProxy::start().await;
    let old = Upstream::start("old").await;
    proxy.serve(vec![web(serving(&[("old", old.address)]))]).await;
    let address = proxy.address;
    let slow = tokio::spawn(async move { get(address, "/slow?700").await });
    eventually("it is inside", || async { proxy.in_flight("old").await == 1 }).await;
    proxy.serve(vec![]).await;

    let mut asker = proxy.control().await;
    let ask = Ask::Drain { targets: vec!["old".into()], spread_ms: 0, deadline_ms: 100, cut: true };
    let envelope = cutover_routes::control::Envelope { version: 1, ask };
    asker.say(&serde_json::to_string(&envelope).unwrap()).await;
    drop(asker);

    assert_eq!(
        in_time("the slow answer", slow).await.unwrap().body,
        "old",
        "the deadline of a drain nobody waits for cuts nothing"
    );
}

#[tokio::test]
async fn a_lost_compare_and_swap_changes_nothing_and_tells_what_is_served() {
    let proxy = TestProxy::start().await;
    let app = Upstream::start("app").await;
    let (empty, _) = proxy.control().await.read().await;
    let first = proxy.serve(vec![web(serving(&[("app", app.address)]))]).await;

    let late = Ask::Replace { expect: empty, table: support::table(vec![]) };
    match proxy.control().await.ask(late).await {
        Answer::Moved { hash, table } => {
            assert_eq!(hash, first);
            assert_eq!(table.owners["app"].routes.len(), 1);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(get(proxy.address, "/").await.body, "app");
}

#[tokio::test]
async fn a_cut_ends_what_a_client_does_not_even_take() {
    let proxy = TestProxy::start().await;
    let old = Upstream::start("old").await;
    proxy.serve(vec![web(serving(&[("old", old.address)]))]).await;
    let mut stuck = support::client::Raw::connect(proxy.address).await;
    stuck.send("GET /large?1000000 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut websocket = support::client::Raw::connect(proxy.address).await;
    websocket.send("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await;
    websocket.read_to("\r\n\r\n").await;
    // In the middle of a frame, which never ends.
    websocket.send(b"\x82\x06hal").await;
    assert_eq!(websocket.read_bytes(5).await, b"\x82\x06hal");
    eventually("both are inside", || async { proxy.in_flight("old").await == 2 }).await;
    proxy.serve(vec![]).await;

    let (left, closed, _cut) = proxy.control().await.drain("old", 50, true).await;

    assert_eq!((left, closed), (0, 1));
    websocket.read_all().await;
    // A well-behaved end waits for its connections: none is left.
    old.terminate().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_let_go_at_once_is_served_even_by_an_app_with_a_short_queue() {
    let proxy = TestProxy::start().await;
    proxy.serve(vec![web(held(Duration::from_secs(20), 1000))]).await;
    let (address, mut clients) = (proxy.address, tokio::task::JoinSet::new());
    for number in 0..400 {
        let body = format!("entry {number}");
        clients.spawn(async move { Client::new(address).post("/echo", &body).await.body == body });
    }
    eventually("all wait", || async { proxy.held().await == 400 }).await;
    // Ten may wait to be accepted, as with many a small server.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let app = Upstream::on("app", socket.listen(10).unwrap());

    let begun = std::time::Instant::now();
    proxy.serve(vec![web(serving(&[("app", app.address)]))]).await;

    let answered = in_time("all answers", clients.join_all()).await;
    println!("400 requests let go at once: {:?}", begun.elapsed());
    assert!(answered.into_iter().all(|whole| whole));
    assert_eq!(app.requests(), 400, "none was sent twice");
}

//! Slow and greedy clients, slow and dead targets: each phase has an end.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use cutover_proxy::Limits;
use support::client::{Client, Raw, get};
use support::upstream::Upstream;
use support::{TestProxy, eventually, in_time, nobody, serving, web};

const SHORT: Duration = Duration::from_millis(300);

async fn proxied(limits: Limits) -> (TestProxy, Upstream) {
    let (proxy, app) = (TestProxy::with(limits).await, Upstream::start("app").await);
    proxy.serve(vec![web(serving(&[("app", app.address)]))]).await;
    (proxy, app)
}

/// Sends a byte every 50 ms until it is not taken any more; says how long that went well.
async fn trickle(raw: &mut Raw) -> Duration {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let begun = Instant::now();
    in_time("the end of a trickle", async {
        loop {
            let mut buffer = [0; 1024];
            tokio::select! {
                read = raw.stream.read(&mut buffer) => if matches!(read, Ok(0) | Err(_)) { return },
                () = tokio::time::sleep(Duration::from_millis(50)) => if raw.stream.write_all(b"a").await.is_err() { return },
            }
        }
    })
    .await;
    begun.elapsed()
}

#[tokio::test]
async fn a_head_that_trickles_in_is_not_awaited_for_ever() {
    let (proxy, app) = proxied(Limits { request_head: SHORT, ..Limits::default() }).await;

    let mut raw = Raw::connect(proxy.address).await;
    raw.send("GET / HTTP/1.1\r\nX-Slow: ").await;
    let took = trickle(&mut raw).await;
    assert!((SHORT..SHORT * 20).contains(&took), "{took:?}");

    // A second head on a connection that was good once.
    let mut raw = Raw::connect(proxy.address).await;
    raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    raw.read_to("app").await;
    raw.send("GET / HTTP/1.1\r\nX-Slow: ").await;
    let took = trickle(&mut raw).await;
    assert!((SHORT..SHORT * 20).contains(&took), "{took:?}");
    assert_eq!(app.requests(), 1);
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_a_silent_one_too() {
    let (proxy, _app) = proxied(Limits { request_head: SHORT * 2, idle: SHORT, ..Limits::default() }).await;

    let mut idle = Raw::connect(proxy.address).await;
    idle.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    idle.read_to("app").await;
    let begun = Instant::now();
    assert_eq!(idle.read_all().await, "");
    assert!((SHORT..SHORT * 20).contains(&begun.elapsed()), "{:?}", begun.elapsed());

    let begun = Instant::now();
    assert_eq!(Raw::connect(proxy.address).await.read_all().await, "");
    assert!((SHORT * 2..SHORT * 20).contains(&begun.elapsed()), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_slow_answer_and_a_websocket_are_not_idle() {
    let (proxy, _app) = proxied(Limits { request_head: SHORT, idle: SHORT, ..Limits::default() }).await;

    let mut client = Client::new(proxy.address);
    assert_eq!(client.get("/slow?900").await.body, "app");
    let mut raw = Raw::connect(proxy.address).await;
    raw.send("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await;
    raw.read_to("\r\n\r\n").await;
    tokio::time::sleep(SHORT * 3).await;
    raw.send(b"\x82\x02ok").await;
    assert_eq!(raw.read_bytes(4).await, b"\x82\x02ok");
}

#[tokio::test]
async fn a_body_that_stops_coming_is_answered_408() {
    let (proxy, app) = proxied(Limits { request_body: SHORT, ..Limits::default() }).await;
    let mut raw = Raw::connect(proxy.address).await;

    raw.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nsome").await;

    let answer = raw.read_all().await;
    assert!(
        answer.starts_with("HTTP/1.1 408") && answer.contains("x-cutover-error: client-timeout"),
        "{answer}"
    );
    assert_eq!(app.requests(), 1);
    eventually("it is out", || async { proxy.in_flight("app").await == 0 }).await;
}

#[tokio::test]
async fn a_body_that_keeps_coming_may_take_longer_than_an_answers_head() {
    let limits = Limits { response_head: SHORT, request_body: SHORT, ..Limits::default() };
    let (proxy, _app) = proxied(limits).await;
    let mut raw = Raw::connect(proxy.address).await;

    raw.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n").await;
    for _ in 0..10 {
        tokio::time::sleep(SHORT / 3).await;
        raw.send("a").await;
    }

    raw.read_to("\r\n\r\naaaaaaaaaa").await;
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_let_go() {
    let (proxy, _app) = proxied(Limits { response_write: SHORT, ..Limits::default() }).await;
    let mut raw = Raw::connect(proxy.address).await;

    raw.send("GET /large?100000 HTTP/1.1\r\nHost: a\r\n\r\n").await;

    eventually("it is inside", || async { proxy.in_flight("app").await == 1 }).await;
    eventually("it is let go", || async { proxy.in_flight("app").await == 0 }).await;
}

#[tokio::test]
async fn a_target_that_does_not_answer_in_time_is_told_as_that() {
    let (proxy, app) = proxied(Limits { response_head: SHORT, ..Limits::default() }).await;

    let answer = get(proxy.address, "/slow?600000").await;

    assert_eq!((answer.status.as_u16(), answer.refused()), (504, "upstream-timeout"));
    assert_eq!(app.requests(), 1, "it is not sent again");
    assert_eq!(proxy.figures().await.targets["app"].broken, 1);
}

#[tokio::test]
async fn nobody_at_all_is_502_after_a_while() {
    let proxy = TestProxy::with(Limits { restart: SHORT, ..Limits::default() }).await;
    proxy.serve(vec![web(serving(&[("a", nobody()), ("b", nobody())]))]).await;

    let begun = Instant::now();
    let answer = get(proxy.address, "/").await;

    assert_eq!((answer.status.as_u16(), answer.refused()), (502, "upstream-unreachable"));
    assert!((SHORT..SHORT * 20).contains(&begun.elapsed()), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn heads_have_a_size() {
    let (proxy, app) = proxied(Limits::default()).await;

    let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Long: {}\r\n\r\n", "x".repeat(80_000));
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X-Many: 1\r\n".repeat(200));
    for head in [long, many] {
        let mut raw = Raw::connect(proxy.address).await;
        raw.send(head).await;
        let answer = raw.read_to("\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    }
    assert_eq!(app.requests(), 0);
}

#[tokio::test]
async fn past_its_connections_the_proxy_lets_clients_wait() {
    let (proxy, app) = proxied(Limits { connections: 2, ..Limits::default() }).await;
    let (address, mut busy) = (proxy.address, tokio::task::JoinSet::new());
    for _ in 0..2 {
        busy.spawn(async move { get(address, "/slow?600000").await });
    }
    eventually("both are inside", || async { app.requests() == 2 }).await;

    let third = tokio::spawn(async move { get(address, "/").await });
    assert_eq!(proxy.in_flight("app").await, 2);
    assert!(!third.is_finished());
    busy.shutdown().await;

    assert_eq!(in_time("the third", third).await.unwrap().body, "app");
}

#[tokio::test]
async fn past_its_connections_the_longest_idle_one_makes_room() {
    let (proxy, _app) = proxied(Limits { connections: 2, ..Limits::default() }).await;
    let (mut one, mut two) = (Raw::connect(proxy.address).await, Raw::connect(proxy.address).await);
    for raw in [&mut one, &mut two] {
        raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        raw.read_to("app").await;
    }

    assert_eq!(get(proxy.address, "/").await.body, "app");

    assert_eq!(one.read_all().await, "", "closed");
    two.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    two.read_to("app").await;
}

#[tokio::test]
async fn a_client_that_fell_asleep_has_no_say_in_a_handover() {
    let (proxy, app) = proxied(Limits { hurry: SHORT, ..Limits::default() }).await;
    let (mut sending, mut taking) = (Raw::connect(proxy.address).await, Raw::connect(proxy.address).await);
    sending.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nsome").await;
    taking.send("GET /large?1000000 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    eventually("both are inside", || async { app.requests() == 2 && proxy.in_flight("app").await == 2 })
        .await;
    proxy.serve(vec![web(support::held(Duration::from_secs(25), 10))]).await;

    let drained = proxy.control().await.drain("app", 20_000, false).await;

    assert_eq!(drained, (0, 0, 0));
    assert!(sending.read_all().await.starts_with("HTTP/1.1 408"));
}

#[tokio::test]
async fn idle_connections_to_a_target_are_closed_before_the_target_would() {
    let (proxy, app) = proxied(Limits { target_idle: SHORT, ..Limits::default() }).await;
    let mut client = Client::new(proxy.address);
    for expected in 1..=3 {
        assert_eq!(client.get("/").await.body, "app");
        assert_eq!(app.seen.connections.load(std::sync::atomic::Ordering::SeqCst), expected);
        tokio::time::sleep(SHORT * 2).await;
    }
}

//! Upstreams that refuse, die, come back, break off: what a client notices of it, and what is sent twice.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use support::client::{Client, Raw, get};
use support::upstream::Upstream;
use support::{TestProxy, eventually, in_time, nobody, serving, web};

async fn proxied() -> (TestProxy, Upstream) {
    let (proxy, app) = (TestProxy::start().await, Upstream::start("app").await);
    proxy.serve(vec![web(serving(&[("app", app.address)]))]).await;
    (proxy, app)
}

#[tokio::test]
async fn requests_are_spread_over_replicas() {
    let proxy = TestProxy::start().await;
    let (one, two) = (Upstream::start("one").await, Upstream::start("two").await);
    proxy.serve(vec![web(serving(&[("one", one.address), ("two", two.address)]))]).await;

    let address = proxy.address;
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..20 {
        clients.spawn(async move { get(address, "/slow?200").await.body });
    }
    eventually("all are inside", || async { one.requests() + two.requests() == 20 }).await;

    assert_eq!((one.requests(), two.requests()), (10, 10));
    assert_eq!(clients.join_all().await.len(), 20);
}

#[tokio::test]
async fn a_replica_that_refuses_is_passed_over_and_nobody_notices() {
    let proxy = TestProxy::start().await;
    let app = Upstream::start("app").await;
    proxy.serve(vec![web(serving(&[("gone", nobody()), ("app", app.address)]))]).await;
    let mut client = Client::new(proxy.address);

    for number in 0..20 {
        assert_eq!(client.get("/").await.body, "app", "GET {number}");
        assert_eq!(client.post("/echo", "hello").await.body, "hello", "POST {number}");
    }

    let figures = proxy.figures().await;
    assert!((1..=5).contains(&figures.targets["gone"].broken), "{figures:?}");
    assert_eq!(figures.routes["app/web"].refused.len(), 0);
}

#[tokio::test]
async fn an_instance_that_comes_back_in_time_has_lost_nothing() {
    let proxy = TestProxy::start().await;
    let address = nobody();
    let app = Upstream::at("app", address).await;
    proxy.serve(vec![web(serving(&[("app", address)]))]).await;
    assert_eq!(get(proxy.address, "/").await.body, "app");
    app.kill().await;

    let proxy_address = proxy.address;
    let posts: Vec<_> = (0..10)
        .map(|_| tokio::spawn(async move { Client::new(proxy_address).post("/echo", "hello").await }))
        .collect();
    eventually("the dead one was tried", || async { proxy.figures().await.targets["app"].broken >= 10 })
        .await;
    let _back = Upstream::at("app", address).await;

    for post in posts {
        assert_eq!(in_time("a post", post).await.unwrap().body, "hello");
    }
}

#[tokio::test]
async fn a_get_that_was_broken_off_is_sent_once_more_and_a_post_never() {
    let proxy = TestProxy::start().await;
    // An upstream that reads a request and closes without a word.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mute = listener.local_addr().unwrap();
    let seen = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counting = tokio::spawn({
        let seen = Arc::clone(&seen);
        async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut buffer = [0; 1024];
                if tokio::io::AsyncReadExt::read(&mut stream, &mut buffer).await.unwrap() > 0 {
                    seen.fetch_add(1, Ordering::SeqCst);
                }
            }
        }
    });
    proxy.serve(vec![web(serving(&[("mute", mute)]))]).await;

    let post = Client::new(proxy.address).post("/", "once").await;
    assert_eq!((post.status.as_u16(), post.refused()), (502, "upstream-broken"));
    assert_eq!(seen.load(Ordering::SeqCst), 1);
    let answer = get(proxy.address, "/").await;
    assert_eq!((answer.status.as_u16(), answer.refused()), (502, "upstream-broken"));
    assert_eq!(seen.load(Ordering::SeqCst), 3);
    counting.abort();
}

#[tokio::test]
async fn a_get_inside_an_instance_that_is_killed_is_answered_by_its_successor_and_a_post_is_not() {
    let proxy = TestProxy::start().await;
    let address = nobody();
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    proxy.serve(vec![web(serving(&[("app", address)]))]).await;
    let proxy_address = proxy.address;
    let get = tokio::spawn(async move { get(proxy_address, "/").await });
    let post = tokio::spawn(async move { Client::new(proxy_address).post("/echo", "once").await });
    let mut inside = Vec::new();
    for _ in 0..2 {
        let (mut stream, _) = in_time("a connection", listener.accept()).await.unwrap();
        assert!(tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 1024]).await.unwrap() > 0);
        inside.push(stream);
    }

    drop((inside, listener));
    let successor = Upstream::at("app", address).await;

    assert_eq!(in_time("the get", get).await.unwrap().body, "app");
    let post = in_time("the post", post).await.unwrap();
    assert_eq!((post.status.as_u16(), post.refused()), (502, "upstream-broken"));
    assert_eq!(successor.requests(), 1);
}

#[tokio::test]
async fn an_answer_that_breaks_off_in_the_middle_does_not_look_whole() {
    let (proxy, app) = proxied().await;
    let mut raw = Raw::connect(proxy.address).await;
    raw.send("GET /drip?1000 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    raw.read_to("data: 1\n").await;

    app.kill().await;

    let rest = raw.read_all().await;
    assert!(!rest.ends_with("0\r\n\r\n"), "{rest}");
    eventually("it is counted", || async { proxy.figures().await.targets["app"].broken == 1 }).await;
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_request_upstream() {
    let (proxy, app) = proxied().await;
    let mut raw = Raw::connect(proxy.address).await;
    raw.send("GET /slow?600000 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    eventually("it is inside", || async { app.requests() == 1 }).await;
    assert_eq!(proxy.in_flight("app").await, 1);

    drop(raw);

    eventually("it is out", || async { proxy.in_flight("app").await == 0 }).await;
}

#[tokio::test]
async fn a_body_that_is_none_is_the_clients_fault_and_not_the_targets() {
    let (proxy, app) = proxied().await;

    let mut raw = Raw::connect(proxy.address).await;
    raw.send("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    eventually("it is inside", || async { app.requests() == 1 }).await;
    raw.send("5\r\nhello\r\nzz\r\n").await;

    let answer = raw.read_all().await;
    assert!(
        answer.starts_with("HTTP/1.1 400") && answer.contains("x-cutover-error: bad-request"),
        "{answer}"
    );
    assert_eq!(proxy.figures().await.targets["app"].broken, 0);
}

//! What goes on until told to end: event streams and WebSockets.
#![allow(clippy::unwrap_used)]

mod support;

use support::client::{Client, Raw, request};
use support::upstream::Upstream;
use support::{TestProxy, eventually, in_time, serving, web};

async fn proxied() -> (TestProxy, Upstream) {
    let (proxy, app) = (TestProxy::start().await, Upstream::start("app").await);
    proxy.serve(vec![web(serving(&[("app", app.address)]))]).await;
    (proxy, app)
}

#[tokio::test]
async fn an_event_stream_flows_unbuffered_and_ends_properly_at_a_drain() {
    let (proxy, app) = proxied().await;
    let mut raw = Raw::connect(proxy.address).await;
    raw.send("GET /events HTTP/1.1\r\nHost: a\r\n\r\n").await;
    raw.read_to("data: 3\n").await;
    assert_eq!(proxy.in_flight("app").await, 1);
    proxy.serve(vec![]).await;

    assert_eq!(proxy.control().await.drain("app", 10_000, false).await, (0, 1, 0));

    raw.read_to("\r\n0\r\n\r\n").await;
    assert_eq!(proxy.in_flight("app").await, 0);
    app.terminate().await;
}

async fn websocket(address: std::net::SocketAddr) -> Raw {
    let mut raw = Raw::connect(address).await;
    raw.send("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n").await;
    let head = raw.read_to("\r\n\r\n").await.to_lowercase();
    assert!(
        head.starts_with("http/1.1 101")
            && head.contains("upgrade: websocket")
            && head.contains("connection: upgrade"),
        "{head}"
    );
    raw
}

#[tokio::test]
async fn a_websocket_passes_both_ways_and_a_drain_says_goodbye_between_two_frames() {
    let (proxy, app) = proxied().await;
    let mut raw = websocket(proxy.address).await;
    raw.send(b"\x82\x05hello").await;
    assert_eq!(raw.read_bytes(7).await, b"\x82\x05hello");
    assert_eq!(proxy.in_flight("app").await, 1);
    // The drain begins in the middle of a frame of each direction; another WebSocket, between two, tells when.
    let mut other = websocket(proxy.address).await;
    raw.send(b"\x82\x06hal").await;
    assert_eq!(raw.read_bytes(5).await, b"\x82\x06hal");
    proxy.serve(vec![]).await;

    let mut control = proxy.control().await;
    let drain = tokio::spawn(async move { control.drain("app", 10_000, false).await });
    assert_eq!(other.read_bytes(4).await, b"\x88\x02\x03\xe9");
    drop(other);
    raw.send(b"f\xff\xff").await;

    assert_eq!(raw.read_bytes(7).await, b"f\xff\xff\x88\x02\x03\xe9");
    raw.send(b"\x88\x82\0\0\0\0\x03\xe9").await;
    drop(raw);
    assert_eq!(in_time("the drain", drain).await.unwrap(), (0, 2, 0));
    app.terminate().await;
}

#[tokio::test]
async fn websockets_end_with_their_client_and_with_their_app() {
    let (proxy, app) = proxied().await;
    let first = websocket(proxy.address).await;
    let mut second = websocket(proxy.address).await;
    assert_eq!(proxy.in_flight("app").await, 2);

    drop(first);
    eventually("the first is out", || async { proxy.in_flight("app").await == 1 }).await;
    proxy.serve(vec![]).await;
    assert_eq!(proxy.control().await.drain("app", 10_000, false).await, (0, 1, 0));
    assert!(second.read_all().await.starts_with('\u{fffd}'), "a goodbye before the end");
    app.kill().await;
}

#[tokio::test]
async fn an_upgrade_that_the_app_declines_is_an_answer() {
    let (proxy, _app) = proxied().await;
    let mut client = Client::new(proxy.address);
    let mut wish = request(http::Method::GET, "/", "");
    wish.headers_mut().insert("connection", "upgrade".parse().unwrap());
    wish.headers_mut().insert("upgrade", "websocket".parse().unwrap());

    assert_eq!(client.send(wish).await.unwrap().body, "app");
    assert_eq!(client.get("/").await.body, "app");
}

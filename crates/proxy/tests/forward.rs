//! What passes through, byte for byte where it matters, and what does not.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use cutover_routes::{Address, Route, RouteState, Target};
use support::client::{Client, Raw, exchange, get};
use support::upstream::{Seen, Upstream, converse};
use support::{TestProxy, eventually, in_time, route, serving, web};

async fn proxied() -> (TestProxy, Upstream) {
    let (proxy, app) = (TestProxy::start().await, Upstream::start("app").await);
    proxy.serve(vec![web(serving(&[("app", app.address)]))]).await;
    (proxy, app)
}

#[tokio::test]
async fn the_head_arrives_with_the_way_it_came_and_without_what_was_for_one_hop() {
    let (proxy, _app) = proxied().await;

    let answer = exchange(
        proxy.address,
        "GET /head?a=b&c HTTP/1.1\r\nHost: App.test:8080\r\nX-Custom: kept\r\nConnection: close, x-hop\r\nX-Hop: gone\r\n\
         TE: trailers\r\nUpgrade: h2c\r\nX-Forwarded-For: 198.51.100.7\r\n\r\n",
    )
    .await;

    let body = answer.split("\r\n\r\n").nth(1).unwrap();
    let mut lines: Vec<_> = body.lines().collect();
    assert_eq!(lines.remove(0), "GET /head?a=b&c HTTP/1.1");
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "host: App.test:8080",
            "x-custom: kept",
            "x-forwarded-for: 198.51.100.7, 127.0.0.1",
            "x-forwarded-host: App.test:8080",
            "x-forwarded-proto: http",
        ]
    );
}

#[tokio::test]
async fn an_answers_head_passes_without_what_was_for_one_hop() {
    let (proxy, _app) = proxied().await;

    let answer = get(proxy.address, "/hop").await;

    assert_eq!(answer.body, "app");
    for gone in ["connection", "keep-alive", "x-inner", "x-cutover-error"] {
        assert!(!answer.headers.contains_key(gone), "{gone}");
    }
    assert_eq!(answer.headers.get_all("set-cookie").iter().count(), 2);
    for status in [204, 304, 404, 500] {
        assert_eq!(get(proxy.address, &format!("/status?{status}")).await.status.as_u16(), status);
    }
}

#[tokio::test]
async fn one_client_connection_and_one_upstream_connection_carry_many_requests() {
    let (proxy, app) = proxied().await;
    let mut client = Client::new(proxy.address);

    for number in 0..50 {
        assert_eq!(client.get("/").await.body, "app");
        assert_eq!(client.post("/echo", &"y".repeat(number * 100)).await.body.len(), number * 100);
        assert_eq!(client.get("/status?204").await.body, "");
    }

    assert_eq!(app.requests(), 150);
    assert!(app.seen.connections.load(Ordering::SeqCst) <= 2, "{:?}", app.seen);
    let figures = &proxy.figures().await.targets["app"];
    assert_eq!((figures.answers["2xx"], figures.broken, figures.in_flight), (150, 0, 0));
    assert_eq!(figures.latency.count, 150);
}

#[tokio::test]
async fn http_1_0_clients_are_served_with_and_without_keep_alive() {
    let (proxy, _app) = proxied().await;

    let plain = exchange(proxy.address, "GET /large?3 HTTP/1.0\r\n\r\n").await;
    assert!(plain.starts_with("HTTP/1.0 200 OK\r\n"), "{plain}");
    assert!(
        plain.ends_with(&format!("\r\n\r\n{}", "x".repeat(3072))) && !plain.contains("chunked"),
        "{plain}"
    );

    let mut raw = Raw::connect(proxy.address).await;
    for _ in 0..2 {
        raw.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
        let head = raw.read_to("\r\n\r\n").await.to_lowercase();
        assert!(head.contains("connection: keep-alive") && head.contains("content-length: 3"), "{head}");
        raw.read_to("app").await;
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let (proxy, _app) = proxied().await;
    let mut raw = Raw::connect(proxy.address).await;

    raw.send("GET /slow?30 HTTP/1.1\r\nHost: a\r\n\r\nPOST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhiGET /status?404 HTTP/1.1\r\nHost: a\r\n\r\n").await;

    assert!(raw.read_to("app").await.starts_with("HTTP/1.1 200"));
    raw.read_to("\r\n\r\nhi").await;
    raw.read_to("HTTP/1.1 404").await;
}

#[tokio::test]
async fn a_head_request_tells_the_length_and_sends_no_body() {
    let (proxy, _app) = proxied().await;
    let mut raw = Raw::connect(proxy.address).await;

    for _ in 0..2 {
        raw.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let head = raw.read_to("\r\n\r\n").await.to_lowercase();
        assert!(head.starts_with("http/1.1 200") && head.contains("content-length: 3"), "{head}");
    }
}

#[tokio::test]
async fn chunked_bodies_pass_both_ways() {
    let (proxy, _app) = proxied().await;
    let mut raw = Raw::connect(proxy.address).await;

    raw.send("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n")
        .await;
    raw.read_to("HTTP/1.1 100 Continue\r\n\r\n").await;
    raw.send("5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n").await;
    raw.read_to("\r\n\r\nhello world").await;

    assert_eq!(get(proxy.address, "/large?5000").await.body.len(), 5000 * 1024);
}

#[tokio::test]
async fn a_get_with_a_chunked_body_arrives_with_it() {
    let (proxy, _app) = proxied().await;
    let mut raw = Raw::connect(proxy.address).await;

    for method in ["GET", "DELETE"] {
        raw.send(format!("{method} /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")).await;
        raw.send("5\r\nhello\r\n0\r\n\r\n").await;
        let head = raw.read_to("\r\n\r\n").await;
        assert!(head.contains("content-length: 5"), "{head}");
        raw.read_to("hello").await;
    }
}

/// An upstream of one connection that answers each head it reads with the same bytes.
async fn parrot(answer: &'static str) -> std::net::SocketAddr {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut seen = Vec::new();
        while stream.read_buf(&mut seen).await.is_ok_and(|length| length > 0) {
            if seen.ends_with(b"\r\n\r\n") {
                seen.clear();
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    });
    address
}

#[tokio::test]
async fn trailers_are_an_end_and_the_connection_carries_the_next_request() {
    let proxy = TestProxy::start().await;
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n2\r\nok\r\n0\r\nx-sum: 1\r\n\r\n";
    proxy.serve(vec![web(serving(&[("app", parrot(answer).await)]))]).await;
    let mut client = Client::new(proxy.address);

    for _ in 0..3 {
        assert_eq!(client.get("/").await.body, "ok");
    }

    assert_eq!(proxy.figures().await.targets["app"].answers["2xx"], 3);
}

#[tokio::test]
async fn trailers_of_a_request_are_its_end_too() {
    let (proxy, app) = proxied().await;
    let mut raw = Raw::connect(proxy.address).await;

    for _ in 0..3 {
        raw.send("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n").await;
        raw.send("0\r\nX-Sum: 1\r\n\r\n").await;
        raw.read_to("\r\n\r\nhello").await;
    }

    assert_eq!(app.seen.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_answer_with_two_lengths_has_the_one_that_it_came_by() {
    let proxy = TestProxy::start().await;
    let answer =
        "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    proxy.serve(vec![web(serving(&[("app", parrot(answer).await)]))]).await;

    let answer = get(proxy.address, "/").await;

    assert_eq!(answer.body, "ok");
    assert!(!answer.headers.contains_key("content-length"), "{answer:?}");
}

#[tokio::test]
async fn an_answer_whose_length_is_in_doubt_is_none() {
    for lengths in ["Content-Length: 2\r\nContent-Length: 3", "Content-Length: 2, 3", "Content-Length: +2"] {
        let proxy = TestProxy::start().await;
        let answer = format!("HTTP/1.1 200 OK\r\n{lengths}\r\n\r\nok").leak();
        proxy.serve(vec![web(serving(&[("app", parrot(answer).await)]))]).await;

        let post = Client::new(proxy.address).post("/", "\r\n\r\n").await;

        assert_eq!((post.status.as_u16(), post.refused()), (502, "upstream-broken"), "{lengths}");
    }
}

#[tokio::test]
async fn a_request_with_two_lengths_cannot_smuggle_another() {
    let (proxy, app) = proxied().await;

    // Chunked wins, the length is not passed on, and nothing that follows on the connection is read.
    let both = "POST /head HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /admin HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let answer = exchange(proxy.address, both).await;
    assert!(!answer.to_lowercase().contains("\ncontent-length: 6"), "{answer}");
    assert!(answer.contains("connection: close") && app.requests() == 1, "{answer}");

    let before = app.requests();
    for bad in [
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nContent-Length: 5\r\n\r\nhello!",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 6\r\n\r\nhello!",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\u{b}chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX-Bad: a\0b\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX-Bad : 1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n folded: 1\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        let answer = exchange(proxy.address, bad).await;
        assert!(
            answer.starts_with("HTTP/1.1 400") || answer.starts_with("HTTP/1.0 400"),
            "{bad:?}: {answer}"
        );
    }
    assert_eq!(app.requests(), before, "none of them arrived");
}

#[tokio::test]
async fn what_is_no_request_for_us_is_refused_with_the_reason() {
    let (proxy, app) = proxied().await;

    for (bytes, status, reason) in [
        ("GET / HTTP/1.1\r\n\r\n", "400", "bad-request"),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400", "bad-request"),
        ("GET /a/../b HTTP/1.1\r\nHost: a\r\n\r\n", "400", "bad-request"),
        ("GET /a/%2e%2E/b HTTP/1.1\r\nHost: a\r\n\r\n", "400", "bad-request"),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", "405", "method"),
    ] {
        let mut raw = Raw::connect(proxy.address).await;
        raw.send(bytes).await;
        let head = raw.read_to("\r\n\r\n").await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{bytes:?}: {head}");
        assert!(head.contains(&format!("x-cutover-error: {reason}\r\n")), "{bytes:?}: {head}");
    }
    assert_eq!(app.requests(), 0);
    assert_eq!(proxy.figures().await.routes["-"].refused["bad-request"], 4);
}

#[tokio::test]
async fn the_request_lines_host_counts_before_the_headers() {
    let (proxy, app) = (TestProxy::start().await, Upstream::start("app").await);
    let mut named = web(serving(&[("app", app.address)]));
    named.hosts = vec!["app.test".into()];
    proxy.serve(vec![named]).await;

    let found = exchange(
        proxy.address,
        "GET http://app.test/head HTTP/1.1\r\nHost: other.test\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert!(found.contains("\nhost: app.test") && found.contains("GET /head HTTP/1.1"), "{found}");
    let lost =
        exchange(proxy.address, "GET / HTTP/1.1\r\nHost: other.test\r\nConnection: close\r\n\r\n").await;
    assert!(lost.starts_with("HTTP/1.1 404") && lost.contains("x-cutover-error: no-route"), "{lost}");
}

#[tokio::test]
async fn the_longest_prefix_gets_the_request_and_strip_takes_it_off() {
    let proxy = TestProxy::start().await;
    let (site, api) = (Upstream::start("site").await, Upstream::start("api").await);
    let stripped = Route { strip: true, ..route("api", "/api", serving(&[("api", api.address)])) };
    proxy.serve(vec![web(serving(&[("site", site.address)])), stripped]).await;

    assert_eq!(get(proxy.address, "/apiary").await.body, "site");
    let answer = get(proxy.address, "/api/head?page=2").await.body;
    assert!(answer.starts_with("GET /head?page=2 HTTP/1.1\n"), "{answer}");
    assert!(answer.contains("\nx-forwarded-prefix: /api"), "{answer}");
    assert_eq!(get(proxy.address, "/%61pi").await.body, "api");
}

#[tokio::test]
async fn closed_empty_and_missing_routes_say_so() {
    let proxy = TestProxy::start().await;
    let none = get(proxy.address, "/").await;
    assert_eq!((none.status.as_u16(), none.refused()), (404, "no-route"));

    proxy.serve(vec![web(serving(&[]))]).await;
    let empty = get(proxy.address, "/").await;
    assert_eq!((empty.status.as_u16(), empty.refused()), (503, "no-target"));

    proxy.serve(vec![web(RouteState::Closed { reason: "stopped by hand".into() })]).await;
    let closed = get(proxy.address, "/").await;
    assert_eq!(
        (closed.status.as_u16(), closed.refused(), closed.body.as_str()),
        (503, "closed", "stopped by hand\n")
    );
    assert!(closed.headers.contains_key("retry-after"));
}

#[tokio::test]
async fn a_unix_socket_is_a_target_like_any_other() {
    let proxy = TestProxy::start().await;
    let path = proxy.home.path().join("app.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    let accepting = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(converse("unix", stream, Arc::<Seen>::default(), stopped.clone()));
        }
    });
    let target = Target { id: "unix".into(), address: Address::Unix(path) };
    proxy.serve(vec![web(RouteState::Serving { targets: vec![target] })]).await;

    assert_eq!(get(proxy.address, "/").await.body, "unix");
    assert_eq!(Client::new(proxy.address).post("/echo", "hello").await.body, "hello");
    accepting.abort();
}

#[tokio::test]
async fn a_refusal_arrives_however_much_its_client_still_sends() {
    let proxy = TestProxy::start().await;
    proxy.serve(vec![web(RouteState::Closed { reason: "stopped by hand".into() })]).await;

    for _ in 0..5 {
        let mut raw = Raw::connect(proxy.address).await;
        raw.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5000000\r\n\r\n").await;
        raw.send(vec![b'x'; 5_000_000]).await;

        assert!(raw.read_to("\r\n").await.starts_with("HTTP/1.1 503"));
        raw.read_to("stopped by hand").await;
    }
}

#[tokio::test]
async fn an_answer_that_comes_before_the_body_was_sent_arrives() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let proxy = TestProxy::start().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    proxy.serve(vec![web(serving(&[("hasty", listener.local_addr().unwrap())]))]).await;
    let hasty = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut buffer = vec![0; 64 * 1024];
        assert!(stream.read(&mut buffer).await.unwrap() > 0);
        stream
            .write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\nConnection: close\r\n\r\nlong")
            .await
            .unwrap();
        stream.shutdown().await.unwrap();
        while stream.read(&mut buffer).await.is_ok_and(|length| length > 0) {}
    });

    let mut raw = Raw::connect(proxy.address).await;
    raw.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n").await;
    raw.send(vec![b'x'; 1_000_000]).await;

    assert!(raw.read_to("\r\n").await.starts_with("HTTP/1.1 413"));
    raw.read_to("long").await;
    drop(raw);
    in_time("the upstream's end", hasty).await.unwrap();
    eventually("nothing is in flight", || async { proxy.in_flight("hasty").await == 0 }).await;
}

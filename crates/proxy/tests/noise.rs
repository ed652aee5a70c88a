//! Bytes that are almost requests: whatever comes, the proxy goes on, and its counts come back to nothing.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use std::time::Duration;

use cutover_proxy::Limits;
use support::client::{Raw, get};
use support::upstream::Upstream;
use support::{TestProxy, eventually, serving, web};
use tokio::io::AsyncWriteExt;

const GOOD: [&str; 6] = [
    "GET /a%20b?c=d HTTP/1.1\r\nHost: app.test\r\nConnection: keep-alive, x-a\r\nX-A: 1\r\n\r\n",
    "POST /echo HTTP/1.1\r\nHost: app.test\r\nContent-Length: 10\r\n\r\n0123456789",
    "POST /echo HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n01234\r\n0\r\nX-Trailer: 1\r\n\r\n",
    "GET /ws HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\u{1}\u{1}a",
    "GET http://app.test:80/large?20 HTTP/1.0\r\nX-Forwarded-For: 1.2.3.4, 5.6.7.8\r\n\r\n",
    "PUT /status?204 HTTP/1.1\r\nHost: app.test\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
];

/// A generator that gives the same numbers for the same seed.
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(bound).unwrap()).unwrap()
    }

    /// A few requests one after another, with bytes changed, doubled, dropped, and maybe cut.
    fn noise(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for _ in 0..=self.below(3) {
            bytes.extend_from_slice(GOOD[self.below(GOOD.len())].as_bytes());
        }
        for _ in 0..self.below(6) {
            let at = self.below(bytes.len().max(2) - 1);
            match self.below(4) {
                0 => bytes[at] = u8::try_from(self.below(256)).unwrap(),
                1 => bytes.insert(at, b"\r\n :/%,0\0\xff"[self.below(10)]),
                2 if bytes.len() > 2 => drop(bytes.remove(at)),
                _ => bytes.truncate(at.max(1)),
            }
        }
        bytes
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn noise_neither_stops_the_proxy_nor_leaves_anything_behind() {
    let short = Duration::from_millis(200);
    let limits =
        Limits { request_head: short, idle: short, request_body: short, restart: short, ..Limits::default() };
    let (proxy, app) = (TestProxy::with(limits).await, Upstream::start("app").await);
    proxy.serve(vec![web(serving(&[("app", app.address)]))]).await;
    let seed = std::env::var("NOISE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0x00c0_ffee);
    println!("NOISE_SEED={seed}");
    let mut seeded = Seeded(seed);
    let mut clients = tokio::task::JoinSet::new();

    for _ in 0..1000 {
        let (noise, address) = (seeded.noise(), proxy.address);
        clients.spawn(async move {
            let mut raw = Raw::connect(address).await;
            // It may have been closed in the middle, as it deserves. Half of them end what they have to say.
            let said = raw.stream.write_all(&noise).await;
            if said.is_ok() && (noise.len() % 2 == 0 || raw.stream.shutdown().await.is_ok()) {
                // A WebSocket came to be, perhaps: that has no end of its own.
                let _ended_or_left = tokio::time::timeout(Duration::from_secs(2), raw.read_all()).await;
            }
        });
        if clients.len() >= 50 {
            clients.join_next().await.unwrap().unwrap();
        }
    }
    clients.join_all().await;

    eventually("nothing is in flight", || async { proxy.in_flight("app").await == 0 }).await;
    assert_eq!(get(proxy.address, "/").await.body, "app");
    proxy.stop().await;
    app.kill().await;
}

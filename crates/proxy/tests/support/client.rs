//! Clients: one that writes and reads bytes, one that sends requests on a kept connection, and traffic that counts what fails.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::in_time;

/// A connection of bytes.
pub(crate) struct Raw {
    pub(crate) stream: TcpStream,
    seen: Vec<u8>,
}

impl Raw {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(address).await.unwrap(), seen: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Reads until `text` has come; what came up to its end is given and forgotten.
    pub(crate) async fn read_to(&mut self, text: &str) -> String {
        loop {
            if let Some(at) = self.seen.windows(text.len()).position(|window| window == text.as_bytes()) {
                let rest = self.seen.split_off(at + text.len());
                return String::from_utf8_lossy(&std::mem::replace(&mut self.seen, rest)).into_owned();
            }
            let mut buffer = [0; 4096];
            let length = in_time("bytes of an answer", self.stream.read(&mut buffer)).await.unwrap();
            assert!(length > 0, "closed before {text:?} came: {}", String::from_utf8_lossy(&self.seen));
            self.seen.extend_from_slice(&buffer[..length]);
        }
    }

    pub(crate) async fn read_bytes(&mut self, count: usize) -> Vec<u8> {
        while self.seen.len() < count {
            let mut buffer = [0; 4096];
            let length = in_time("bytes", self.stream.read(&mut buffer)).await.unwrap();
            assert!(length > 0, "closed after {:?}", self.seen);
            self.seen.extend_from_slice(&buffer[..length]);
        }
        let rest = self.seen.split_off(count);
        std::mem::replace(&mut self.seen, rest)
    }

    /// Reads to the end of the connection.
    pub(crate) async fn read_all(&mut self) -> String {
        let mut rest = std::mem::take(&mut self.seen);
        // A reset is an end too.
        let _end = in_time("the connection's end", self.stream.read_to_end(&mut rest)).await;
        String::from_utf8_lossy(&rest).into_owned()
    }
}

/// Sends one request of bytes and reads to the connection's end.
pub(crate) async fn exchange(address: SocketAddr, bytes: &str) -> String {
    let mut raw = Raw::connect(address).await;
    raw.send(bytes).await;
    raw.read_all().await
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    /// The reason, where the proxy made it itself.
    pub(crate) fn refused(&self) -> &str {
        self.headers.get("x-cutover-error").map_or("", |value| value.to_str().unwrap())
    }
}

/// A kept connection.
pub(crate) struct Client {
    address: SocketAddr,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, sender: None }
    }

    async fn sender(&mut self) -> Result<SendRequest<Full<Bytes>>, String> {
        if let Some(mut sender) = self.sender.take()
            && sender.ready().await.is_ok()
        {
            return Ok(sender);
        }
        let stream = TcpStream::connect(self.address).await.map_err(|error| error.to_string())?;
        let shaken = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = shaken.map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        Ok(sender)
    }

    pub(crate) async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, String> {
        let mut sender = self.sender().await?;
        let response = sender.send_request(request).await.map_err(|error| format!("{error:?}"))?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(|error| format!("body: {error:?}"))?.to_bytes();
        self.sender = Some(sender);
        let body = String::from_utf8_lossy(&body).into_owned();
        Ok(Answer { status: head.status, headers: head.headers, body })
    }

    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        in_time(path, self.send(request(Method::GET, path, ""))).await.unwrap()
    }

    pub(crate) async fn post(&mut self, path: &str, body: &str) -> Answer {
        in_time(path, self.send(request(Method::POST, path, body))).await.unwrap()
    }
}

pub(crate) fn request(method: Method, path: &str, body: &str) -> Request<Full<Bytes>> {
    let body = Full::new(Bytes::from(body.to_owned()));
    Request::builder().method(method).uri(path).header("host", "app.test").body(body).unwrap()
}

pub(crate) async fn get(address: SocketAddr, path: &str) -> Answer {
    Client::new(address).get(path).await
}

/// What traffic came to.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) sent: AtomicU64,
    pub(crate) slowest_us: AtomicU64,
    pub(crate) failures: std::sync::Mutex<Vec<String>>,
}

/// Clients that go on until told to stop: GETs and POSTs on kept and on new connections, and slow requests.
pub(crate) struct Traffic {
    pub(crate) tally: Arc<Tally>,
    stop: Arc<AtomicBool>,
    clients: JoinSet<()>,
}

impl Traffic {
    pub(crate) fn start(address: SocketAddr, each: usize) -> Self {
        Self::of(address, &[0, 1, 2, 3].repeat(each))
    }

    /// GETs alone, quick and slow.
    pub(crate) fn gets(address: SocketAddr, each: usize) -> Self {
        Self::of(address, &[0, 2, 3].repeat(each))
    }

    fn of(address: SocketAddr, kinds: &[usize]) -> Self {
        let (tally, stop, mut clients) =
            (Arc::new(Tally::default()), Arc::new(AtomicBool::new(false)), JoinSet::new());
        for kind in kinds {
            clients.spawn(one(address, *kind, Arc::clone(&tally), Arc::clone(&stop)));
        }
        Self { tally, stop, clients }
    }

    pub(crate) fn sent(&self) -> u64 {
        self.tally.sent.load(Ordering::SeqCst)
    }

    /// Stops, waits for the last answers, prints the numbers, and fails the test if any request failed.
    pub(crate) async fn stop_without_failures(mut self, what: &str) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        in_time("the clients' last answers", async { while self.clients.join_next().await.is_some() {} })
            .await;
        let failures = self.tally.failures.lock().unwrap();
        let (sent, slowest) = (self.sent(), self.tally.slowest_us.load(Ordering::SeqCst));
        println!("{what}: {sent} requests, {} failed, slowest {} ms", failures.len(), slowest / 1000);
        assert!(
            failures.is_empty(),
            "{} of {sent} failed: {:#?}",
            failures.len(),
            &failures[..failures.len().min(5)]
        );
        assert!(sent > 0);
        sent
    }
}

async fn one(address: SocketAddr, kind: usize, tally: Arc<Tally>, stop: Arc<AtomicBool>) {
    let mut client = Client::new(address);
    let mut number = 0_u64;
    while !stop.load(Ordering::SeqCst) {
        number += 1;
        let body = format!("{kind} {number} {}", "x".repeat(usize::try_from(number % 3000).unwrap()));
        let (request, expected) = match kind {
            0 => (request(Method::GET, "/", ""), None),
            1 => (request(Method::POST, "/echo", &body), Some(body)),
            2 => (request(Method::GET, "/slow?30", ""), None),
            _ => {
                client = Client::new(address);
                (request(Method::GET, "/", ""), None)
            }
        };
        let begun = Instant::now();
        let answer = in_time("an answer under traffic", client.send(request)).await;
        let took = u64::try_from(begun.elapsed().as_micros()).unwrap();
        tally.slowest_us.fetch_max(took, Ordering::SeqCst);
        tally.sent.fetch_add(1, Ordering::SeqCst);
        let failure = match answer {
            Err(error) => Some(error),
            Ok(answer) if answer.status != StatusCode::OK => {
                Some(format!("{} {} {}", answer.status, answer.refused(), answer.body))
            }
            Ok(answer) if expected.is_some_and(|expected| expected != answer.body) => {
                Some("another body".to_owned())
            }
            Ok(_) => None,
        };
        if let Some(failure) = failure {
            tally
                .failures
                .lock()
                .unwrap()
                .push(format!("kind {kind} request {number} after {took} µs: {failure}"));
        }
    }
}

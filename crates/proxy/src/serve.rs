//! One client's connection: HTTP/1 read from it and written to it, until it ends or the proxy wants to.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;

use http::HeaderValue;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::{Notify, OwnedSemaphorePermit};

use crate::pace::{Alarm, Pace, PacedStream};
use crate::plane::{Plane, Stop};
use crate::request;

/// Who is at the other end of a connection. Lives as long as anything of the connection does, an upgraded one included.
#[derive(Debug)]
pub(crate) struct Client {
    /// As it stands in `X-Forwarded-For`.
    pub(crate) address: HeaderValue,
    /// On this machine: a proxy in front of this one, a health check.
    pub(crate) is_local: bool,
    pub(crate) pace: Pace,
    /// For an answer's head to come.
    pub(crate) answer: Mutex<Alarm>,
    pub(crate) stop: Arc<Stop>,
    /// Whether its connection is to make room for another, and the word of that.
    leaves: AtomicBool,
    leave: Notify,
    /// The connection's place among those that may be open.
    _permit: Option<OwnedSemaphorePermit>,
}

impl Client {
    pub(crate) fn new(address: IpAddr) -> Self {
        // An IPv4 client of an IPv6 listener is an IPv4 client.
        let address = address.to_canonical();
        let text = HeaderValue::try_from(address.to_string());
        Self {
            address: text.unwrap_or_else(|_| HeaderValue::from_static("unknown")),
            is_local: address.is_loopback(),
            pace: Pace::default(),
            answer: Mutex::default(),
            stop: Arc::default(),
            leaves: AtomicBool::new(false),
            leave: Notify::new(),
            _permit: None,
        }
    }

    fn in_place(address: IpAddr, stop: &Arc<Stop>, permit: OwnedSemaphorePermit) -> Self {
        Self { stop: Arc::clone(stop), _permit: Some(permit), ..Self::new(address) }
    }

    /// Ends its connection, with what is on it.
    pub(crate) fn leave(&self) {
        self.leaves.store(true, Ordering::Relaxed);
        self.leave.notify_one();
    }

    pub(crate) fn leaves(&self) -> bool {
        self.leaves.load(Ordering::Relaxed)
    }
}

/// Serves a connection to its end.
pub(crate) async fn serve(
    plane: Arc<Plane>,
    stream: TcpStream,
    peer: SocketAddr,
    permit: OwnedSemaphorePermit,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a client left before it was served");
        return;
    }
    let client = Arc::new(Client::in_place(peer.ip(), &plane.stop, permit));
    let _open = plane.clients.enter(&client);
    let io = TokioIo::new(PacedStream::new(stream, Arc::clone(&client), &plane.limits));
    let (plane, client) = (&plane, &client);
    let service =
        service_fn(|request| async { Ok::<_, Infallible>(request::answer(plane, client, request).await) });
    let connection = http1::Builder::new()
        // Ours are in `pace`: this one would count the time between requests to the next head.
        .header_read_timeout(None)
        .max_header_size(plane.limits.head_bytes)
        .max_buf_size(plane.limits.buffer)
        .serve_connection(io, service)
        .with_upgrades();

    let mut connection = pin!(connection);
    let mut ending = pin!(ending(plane, client));
    let (mut registered, mut told, mut closing) = (false, false, false);
    let ended = poll_fn(|context| {
        // Reading comes first: what a client has sent is answered.
        if let Poll::Ready(ended) = connection.as_mut().poll(context) {
            return Poll::Ready(ended);
        }
        // Polled once to be woken, and then only when there is something to hear: many connections share what they listen to.
        if !told && (!registered || plane.stop.is_told() || client.leaves()) {
            registered = true;
            told = ending.as_mut().poll(context).is_ready();
        }
        if !told || closing || client.pace.is_mid_head() {
            return Poll::Pending;
        }
        closing = true;
        connection.as_mut().graceful_shutdown();
        connection.as_mut().poll(context)
    });
    if let Err(error) = ended.await {
        tracing::debug!(%error, %peer, "a client's connection broke");
    }
}

/// Done when the connection is to end with what is on it. One that was opened a moment ago and has sent nothing yet has a request on
/// its way: it gets the time to send it, and ends with the answer.
async fn ending(plane: &Plane, client: &Client) {
    tokio::select! {
        () = plane.stop.told() => {}
        () = client.leave.notified() => return,
    }
    if !client.pace.had_requests() {
        tokio::time::sleep(plane.limits.farewell).await;
    }
}

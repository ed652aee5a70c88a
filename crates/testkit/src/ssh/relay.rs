//! A relay between a client and a server, on a free port of loopback: each direction is delayed and narrowed by rule, and at any moment all that
//! passes may be dropped without a word, as on a network that is gone, or reset.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

/// Bytes that are read at once.
const PIECE: usize = 16 * 1024;
/// Pieces on their way in one direction: enough for any of our links.
const ON_THE_WAY: usize = 4096;

/// What a link is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// For each direction: half a round trip.
    pub delay: Duration,
    /// Bytes in a second, for each direction; `None`: as many as come.
    pub rate: Option<u64>,
}

impl Link {
    /// Nothing is in the way.
    pub const OPEN: Self = Self { delay: Duration::ZERO, rate: None };

    /// A link with this round trip, and all the room there is.
    pub fn with_round_trip(time: Duration) -> Self {
        Self { delay: time / 2, rate: None }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Passing {
    All,
    /// What comes is taken and goes nowhere; nobody is told.
    Nothing,
    /// Each connection so far is reset.
    Reset,
}

/// Before a server. Dropped, its connections end.
pub struct Relay {
    address: SocketAddr,
    passing: watch::Sender<Passing>,
    link: watch::Sender<Link>,
    carried: Arc<AtomicU64>,
    thread: Option<std::thread::JoinHandle<()>>,
    over: Option<tokio::sync::oneshot::Sender<()>>,
}

#[derive(Clone)]
struct Way {
    passing: watch::Receiver<Passing>,
    link: watch::Receiver<Link>,
    carried: Arc<AtomicU64>,
}

impl Relay {
    /// One before `server`. It has a thread of its own, so that what a test does besides delays nothing.
    pub fn before(server: SocketAddr, link: Link) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (passing, passing_seen) = watch::channel(Passing::All);
        let (link, link_seen) = watch::channel(link);
        let carried = Arc::new(AtomicU64::new(0));
        let way = Way { passing: passing_seen, link: link_seen, carried: Arc::clone(&carried) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (over, ends) = tokio::sync::oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, server, way) => {}
                    _ = ends => {}
                }
            });
        });
        Ok(Self { address, passing, link, carried, thread: Some(thread), over: Some(over) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Bytes that it has carried to the other side, both directions together.
    pub fn carried(&self) -> u64 {
        self.carried.load(Ordering::Relaxed)
    }

    /// The link is like this from now on.
    pub fn becomes(&self, link: Link) {
        self.link.send_replace(link);
    }

    /// The network is gone: what comes is dropped, no connection is made, nobody is told.
    pub fn cut(&self) {
        self.passing.send_replace(Passing::Nothing);
    }

    /// The network is back, for new connections: what was dropped stays lost, so that those of before are dead.
    pub fn heal(&self) {
        self.passing.send_replace(Passing::All);
    }

    /// Every connection is reset; new ones are reset, too, until it heals.
    pub fn reset(&self) {
        self.passing.send_replace(Passing::Reset);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        drop(self.over.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap_or_default();
        }
    }
}

async fn accept(listener: std::net::TcpListener, server: SocketAddr, way: Way) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    let mut all = tokio::task::JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        all.spawn(carry(client, server, way.clone()));
    }
}

/// One connection, to its end.
async fn carry(client: TcpStream, server: SocketAddr, mut way: Way) {
    let now = *way.passing.borrow();
    match now {
        Passing::All => {}
        Passing::Nothing => {
            // Its words are never answered; it goes when the relay does.
            return std::future::pending().await;
        }
        Passing::Reset => return reset(&client),
    }
    // A handshake takes a round trip, too.
    let delay = way.link.borrow().delay;
    tokio::time::sleep(2 * delay).await;
    let Ok(server) = TcpStream::connect(server).await else { return };
    for stream in [&client, &server] {
        stream.set_nodelay(true).unwrap_or_default();
    }
    let copies = [&client, &server].map(rustix::io::dup);
    // Halves of this kind close nothing when they go.
    let (from_client, to_client) = tokio::io::split(client);
    let (from_server, to_server) = tokio::io::split(server);
    let (there, back) = (way.clone(), way.clone());
    tokio::select! {
        _ = way.passing.wait_for(|passing| *passing == Passing::Reset) => copies.iter().flatten().for_each(reset),
        _ = async { tokio::join!(direction(from_client, to_server, there), direction(from_server, to_client, back)) } => {}
    }
}

/// A stream without time to linger is reset when it is closed, which it is next.
fn reset(stream: impl std::os::fd::AsFd) {
    set_socket_linger(stream, Some(Duration::ZERO)).unwrap_or_default();
}

/// Carries one direction: each piece leaves once its time has come.
async fn direction(mut from: ReadHalf<TcpStream>, to: WriteHalf<TcpStream>, way: Way) {
    let (send, receive) = mpsc::channel(ON_THE_WAY);
    let writing = deliver(to, receive, way.clone());
    let reading = async move {
        let mut piece = vec![0; PIECE];
        let mut free = Instant::now();
        loop {
            let read = from.read(&mut piece).await.unwrap_or(0);
            let link = *way.link.borrow();
            // A narrow link passes one piece after the other.
            free = free.max(Instant::now()) + link.rate.map_or(Duration::ZERO, |rate| time(read, rate));
            if send.send((free + link.delay, piece[..read].to_vec())).await.is_err() || read == 0 {
                return;
            }
            if link.rate.is_some() {
                sleep_until(free).await;
            }
        }
    };
    tokio::join!(reading, writing);
}

fn time(bytes: usize, rate: u64) -> Duration {
    Duration::from_nanos((bytes as u64).saturating_mul(1_000_000_000) / rate.max(1))
}

async fn deliver(mut to: WriteHalf<TcpStream>, mut receive: mpsc::Receiver<(Instant, Vec<u8>)>, way: Way) {
    let mut is_dead = false;
    while let Some((at, piece)) = receive.recv().await {
        sleep_until(at).await;
        is_dead |= *way.passing.borrow() == Passing::Nothing;
        if is_dead {
            // A connection of which something was lost never recovers.
            continue;
        }
        if piece.is_empty() {
            to.shutdown().await.unwrap_or_default();
            return;
        }
        if to.write_all(&piece).await.is_err() {
            return;
        }
        way.carried.fetch_add(piece.len() as u64, Ordering::Relaxed);
    }
    if is_dead {
        // Nor is the other side told of its end.
        std::future::pending::<()>().await;
    }
}

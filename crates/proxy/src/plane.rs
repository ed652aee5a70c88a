//! The data plane as a whole: what it is started with, what its parts share, how it ends.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::clients::Clients;
use crate::control::{self, Socket};
use crate::deadline::Limits;
use crate::inflight::Counter;
use crate::listen;
use crate::store::{Store, StoreError};
use crate::table::ServedTable;

/// What a proxy is started with.
#[derive(Debug)]
pub struct Options {
    /// Bound sockets to take requests on. The caller binds or inherits them, and may keep copies to outlive the proxy.
    pub listeners: Vec<TcpListener>,
    /// Where to answer control questions; made with mode 0600 in a folder that exists.
    pub control: PathBuf,
    /// Where the last good table lies; made with mode 0700 where there is none.
    pub folder: PathBuf,
    /// Deadlines and limits.
    pub limits: Limits,
}

/// Why a proxy did not start.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The table's folder cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The control socket cannot be made.
    #[error("cannot make the control socket {}: {error}", path.display())]
    Control {
        /// Where.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A listener cannot be used.
    #[error("cannot listen: {0}")]
    Listen(io::Error),
    /// The runtime could not be made.
    #[error("cannot start: {0}")]
    Runtime(io::Error),
}

/// What all parts share.
#[derive(Debug)]
pub(crate) struct Plane {
    pub(crate) table: ServedTable,
    pub(crate) limits: Limits,
    pub(crate) stop: Arc<Stop>,
    pub(crate) clients: Clients,
    /// A place for each connection that may be open.
    pub(crate) connections: Arc<Semaphore>,
    /// Tells this start from every other.
    pub(crate) started: String,
}

/// The wish to end: first to say so with each answer, then to take nobody in.
#[derive(Debug, Default)]
pub(crate) struct Stop {
    leaving: AtomicBool,
    flag: AtomicBool,
    tell: watch::Sender<bool>,
    /// Requests that began before the wish, and do not go on until told.
    before: Counter,
}

impl Stop {
    /// Whether connections end with their next answer.
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// Counts a request in if it is one that the end waits for; says whether it is.
    pub(crate) fn request_begins(&self) -> bool {
        let awaited = !self.is_leaving();
        if awaited {
            self.before.enter();
        }
        awaited
    }

    pub(crate) fn request_ends(&self) {
        self.before.leave();
    }

    fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_told(&self) -> bool {
        self.flag.load(Ordering::Relaxed)
    }

    pub(crate) async fn told(&self) {
        let mut told = self.tell.subscribe();
        // An error would mean that the sender is gone, and it lives here.
        let _never_fails = told.wait_for(|told| *told).await;
    }

    fn tell(&self) {
        self.flag.store(true, Ordering::Relaxed);
        self.tell.send_replace(true);
    }
}

impl Plane {
    /// Returns when the requests that began before the wish to end are done, and nobody waits in a hold.
    async fn nothing_keeps(&self) {
        self.stop.before.empty().await;
        while self.table.held() > 0 {
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// Between two looks at something that does not say when it changes, at the end of the proxy.
const LOOK: Duration = Duration::from_millis(20);

/// A proxy that serves. Dropped, it stops accepting and answering questions; [`Proxy::serve_until`] ends it in order.
#[derive(Debug)]
pub struct Proxy {
    plane: Arc<Plane>,
    addresses: Vec<SocketAddr>,
    places: u32,
    accepting: JoinSet<()>,
    answering: JoinSet<()>,
    control: Socket,
}

impl Proxy {
    /// Takes the folder, loads the last good table, serves it, answers questions. Needs a tokio runtime with time and I/O.
    pub async fn start(options: Options) -> Result<Self, ProxyError> {
        let Options { listeners, control, folder, limits } = options;
        let (store, table) = tokio::task::spawn_blocking(move || open(&folder))
            .await
            .map_err(|error| ProxyError::Runtime(io::Error::other(error)))??;
        let places = places(&limits, raise_descriptor_limit());
        let plane = Arc::new(Plane {
            table: ServedTable::new(store, table, limits.departed),
            limits,
            stop: Arc::default(),
            clients: Clients::default(),
            connections: Arc::new(Semaphore::new(places as usize)),
            started: started(),
        });

        let listeners: io::Result<Vec<_>> = listeners.into_iter().map(listen::prepare).collect();
        let listeners = listeners.map_err(ProxyError::Listen)?;
        let addresses: io::Result<Vec<_>> =
            listeners.iter().map(tokio::net::TcpListener::local_addr).collect();
        let addresses = addresses.map_err(ProxyError::Listen)?;
        let mut accepting = JoinSet::new();
        for listener in listeners {
            accepting.spawn(listen::accept(Arc::clone(&plane), listener));
        }
        // Last, so that whoever finds the socket finds a proxy that serves.
        let bound = control::bind(&control).map_err(|error| ProxyError::Control { path: control, error });
        let (listener, control) = bound?;
        let mut answering = JoinSet::new();
        answering.spawn(control::answer_all(Arc::clone(&plane), listener));
        Ok(Self { plane, addresses, places, accepting, answering, control })
    }

    /// Where requests are taken, in the order of the listeners.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Serves until `shutdown` is done. Goes on serving, and says so with each answer, while there is something that would keep it:
    /// nobody serves between its end of accepting and its end. Then takes nobody in, closes what never ends by itself, and lets the
    /// rest end within the limit.
    pub async fn serve_until(mut self, shutdown: impl Future<Output = ()>) {
        shutdown.await;
        self.plane.stop.leave();
        tokio::time::sleep(self.plane.limits.farewell).await;
        if tokio::time::timeout(self.plane.limits.leaving, self.plane.nothing_keeps()).await.is_err() {
            tracing::warn!("requests that began before the end are not done yet");
        }
        self.plane.stop.tell();
        while self.accepting.join_next().await.is_some() {}
        let ended = async {
            let mut streams = tokio::time::interval(LOOK);
            let mut all = pin!(self.plane.connections.acquire_many(self.places));
            loop {
                tokio::select! {
                    _places_or_closed = &mut all => return,
                    _ = streams.tick() => self.plane.table.all_targets().iter().for_each(|target| drop(target.streams.take())),
                }
            }
        };
        if tokio::time::timeout(self.plane.limits.shutdown, ended).await.is_err() {
            tracing::warn!("requests were still in flight at the end");
        }
        // The table may not be replaced by anybody else while requests that rely on it are inside: the folder goes last.
        self.answering.shutdown().await;
        drop(self.control);
        self.plane.table.close().await;
    }
}

fn open(folder: &Path) -> Result<(Store, cutover_routes::RouteTable), StoreError> {
    let store = Store::open(folder)?;
    let table = store.load()?;
    store.settle();
    Ok((store, table))
}

/// Runs a proxy on a runtime of its own until SIGTERM or SIGINT. For a process that does nothing else.
pub fn run(options: Options) -> Result<(), ProxyError> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(ProxyError::Runtime)?;
    runtime.block_on(async {
        let signalled = signalled().map_err(ProxyError::Runtime)?;
        Proxy::start(options).await?.serve_until(signalled).await;
        Ok(())
    })
}

fn signalled() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// A name that no other start of a proxy has.
fn started() -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("{}-{}", since.as_micros(), std::process::id())
}

/// Asks for as many descriptors as the process may have; says how many that are.
fn raise_descriptor_limit() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
    {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Connections of clients that may be open: each may need a second descriptor for its target, and some are for ourselves.
fn places(limits: &Limits, descriptors: u64) -> u32 {
    let affordable = descriptors.saturating_sub(64).max(2) / 2;
    u32::try_from(limits.connections).unwrap_or(u32::MAX).min(u32::try_from(affordable).unwrap_or(u32::MAX))
}

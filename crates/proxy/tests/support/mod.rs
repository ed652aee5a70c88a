//! What the proxy's tests share: a proxy with a folder of its own, upstreams that do as told, clients that look closely.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test stops where it fails, and says its numbers"
)]

pub(crate) mod client;
pub(crate) mod upstream;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cutover_proxy::{Limits, Options, Proxy, ProxyError};
use cutover_routes::control::{Answer, Ask, CONTROL_VERSION, Envelope};
use cutover_routes::figures::Figures;
use cutover_routes::{Address, Hold, Route, RouteState, RouteTable, TableHash, Target};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::oneshot;

/// No wait of a test is longer.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// Whatever it is, it is done in time or the test fails.
pub(crate) async fn in_time<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, work).await.unwrap_or_else(|_| panic!("{what}: not within {DEADLINE:?}"))
}

/// Asks until the answer is yes, or the test fails.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut ask: impl FnMut() -> F) {
    in_time(what, async {
        while !ask().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// A proxy on a free port of the loopback.
pub(crate) struct TestProxy {
    pub(crate) address: SocketAddr,
    pub(crate) home: Arc<TempDir>,
    stop: Option<oneshot::Sender<()>>,
    ended: Option<tokio::task::JoinHandle<()>>,
}

pub(crate) fn options(home: &TempDir, limits: Limits) -> Options {
    listening(TcpListener::bind("127.0.0.1:0").unwrap(), home, limits)
}

pub(crate) fn listening(listener: TcpListener, home: &TempDir, limits: Limits) -> Options {
    Options {
        listeners: vec![listener],
        control: home.path().join("control.sock"),
        folder: home.path().join("proxy"),
        limits,
    }
}

impl TestProxy {
    pub(crate) async fn start() -> Self {
        Self::with(Limits::default()).await
    }

    pub(crate) async fn with(limits: Limits) -> Self {
        Self::at(Arc::new(tempfile::tempdir().unwrap()), limits).await.unwrap()
    }

    pub(crate) async fn at(home: Arc<TempDir>, limits: Limits) -> Result<Self, ProxyError> {
        let options = options(&home, limits);
        Self::of(home, options).await
    }

    pub(crate) async fn of(home: Arc<TempDir>, options: Options) -> Result<Self, ProxyError> {
        let proxy = Proxy::start(options).await?;
        let address = proxy.addresses()[0];
        let (stop, stopped) = oneshot::channel();
        let ended = tokio::spawn(proxy.serve_until(async {
            let _told_or_dropped = stopped.await;
        }));
        Ok(Self { address, home, stop: Some(stop), ended: Some(ended) })
    }

    pub(crate) fn control_path(&self) -> PathBuf {
        self.home.path().join("control.sock")
    }

    pub(crate) async fn control(&self) -> Control {
        Control::connect(self.control_path()).await
    }

    /// Ends the proxy in order.
    pub(crate) async fn stop(mut self) -> Arc<TempDir> {
        drop(self.stop.take());
        in_time("the proxy's end", self.ended.take().unwrap()).await.unwrap();
        Arc::clone(&self.home)
    }

    /// Replaces whatever is served, and fails the test if that fails.
    pub(crate) async fn serve(&self, routes: Vec<Route>) -> TableHash {
        self.control().await.serve(routes).await
    }

    pub(crate) async fn figures(&self) -> Figures {
        match self.control().await.ask(Ask::Figures).await {
            Answer::Figures(figures) => figures,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn held(&self) -> u64 {
        self.figures().await.routes["app/web"].held
    }

    pub(crate) async fn in_flight(&self, id: &str) -> u64 {
        self.figures().await.targets.get(id).map_or(0, |target| target.in_flight)
    }
}

/// A connection to the control socket.
pub(crate) struct Control {
    stream: BufReader<UnixStream>,
}

impl Control {
    pub(crate) async fn connect(path: PathBuf) -> Self {
        Self { stream: BufReader::new(UnixStream::connect(path).await.unwrap()) }
    }

    pub(crate) async fn say(&mut self, line: &str) {
        self.stream.get_mut().write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }

    pub(crate) async fn hear(&mut self) -> Answer {
        let mut line = String::new();
        in_time("an answer of control", self.stream.read_line(&mut line)).await.unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    pub(crate) async fn ask(&mut self, ask: Ask) -> Answer {
        let envelope = Envelope { version: CONTROL_VERSION, ask };
        self.say(&serde_json::to_string(&envelope).unwrap()).await;
        self.hear().await
    }

    pub(crate) async fn read(&mut self) -> (TableHash, RouteTable) {
        match self.ask(Ask::Read).await {
            Answer::Table { hash, table } => (hash, table),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn serve(&mut self, routes: Vec<Route>) -> TableHash {
        let (expect, _) = self.read().await;
        match self.ask(Ask::Replace { expect, table: table(routes) }).await {
            Answer::Replaced { hash } => hash,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn drain(&mut self, id: &str, deadline_ms: u64, cut: bool) -> (u64, u64, u64) {
        let ask = Ask::Drain { targets: vec![id.to_owned()], spread_ms: 20, deadline_ms, cut };
        match self.ask(ask).await {
            Answer::Drained { left, closed, cut } => (left, closed, cut),
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) fn table(routes: Vec<Route>) -> RouteTable {
    let mut table = RouteTable::default();
    if !routes.is_empty() {
        table.owners.entry("app".into()).or_default().routes = routes;
    }
    table
}

pub(crate) fn target(id: &str, address: SocketAddr) -> Target {
    Target { id: id.to_owned(), address: Address::Tcp(address) }
}

/// The route `web` of `app`: every host, every path.
pub(crate) fn web(state: RouteState) -> Route {
    route("web", "/", state)
}

pub(crate) fn route(name: &str, path: &str, state: RouteState) -> Route {
    Route { name: name.into(), hosts: vec![], path: path.into(), strip: false, state }
}

pub(crate) fn serving(targets: &[(&str, SocketAddr)]) -> RouteState {
    RouteState::Serving { targets: targets.iter().map(|(id, address)| target(id, *address)).collect() }
}

pub(crate) fn held(within: Duration, requests: u32) -> RouteState {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let until = u64::try_from((now + within).as_millis()).unwrap();
    RouteState::Held { hold: Hold { until, requests, bytes: 1024 * 1024, reason: "a migration runs".into() } }
}

/// A free port that refuses connections, and can be listened on later: connections of this machine leave from another address, so that
/// none of them takes the port meanwhile.
pub(crate) fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.2:0").unwrap();
    listener.local_addr().unwrap()
}

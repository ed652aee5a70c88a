//! The supervisor: two children, started again when they end, with the same listening sockets.

use std::fs::{File, OpenOptions};
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use cutover_core::defaults::{LOG_BYTES, RESTART_FIRST, RESTART_STEADY};
use cutover_core::layout::Layout;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::adopt::Other;
use super::report::{self, Said};
use super::{UpError, seat};
use crate::files;
use crate::lock::ProcessLock;
use crate::program;

/// Longest pause before a child is started again: what it serves is everybody's.
const PAUSE_MOST: Duration = Duration::from_secs(5);
/// For a child to end in order: a proxy lets requests finish first.
const GRACE: Duration = Duration::from_secs(40);
/// For the proxy to answer at the start.
pub(super) const READY: Duration = Duration::from_secs(5);
/// Between two looks for the control socket at the start.
const LOOK: Duration = Duration::from_millis(5);

/// A kind of child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Proxy,
    Watch,
}

impl Kind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Proxy => "proxy",
            Self::Watch => "watch",
        }
    }
}

/// Supervises proxy and watch until it is told to end (SIGTERM, SIGINT); then ends them in order. Started detached, it makes a session of its
/// own and says whether it is ready.
///
/// # Errors
/// When another supervises this root, or the proxy cannot listen.
pub async fn run(layout: &Layout, host_binary: &Path) -> Result<(), UpError> {
    let starter = report::listener();
    if starter.is_some() {
        // Fails where it is the leader of a session already, which is all it should become.
        if let Err(error) = rustix::process::setsid() {
            tracing::debug!(%error, "it stays in its session");
        }
    }
    let outcome = supervise(layout, host_binary, || report::say(starter.as_ref(), &Said::Ready)).await;
    if let Err(error) = &outcome {
        let said = match error {
            UpError::Taken { address, by } => Said::Taken { address: *address, by: by.clone() },
            other => Said::Failed { reason: other.to_string(), next: other.next() },
        };
        report::say(starter.as_ref(), &said);
    }
    outcome
}

async fn supervise(layout: &Layout, host_binary: &Path, ready: impl FnOnce()) -> Result<(), UpError> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let _lock = ProcessLock::take(layout, "up")?;
    let stop = CancellationToken::new();
    let child = |kind| Supervised {
        kind,
        layout: layout.clone(),
        binary: host_binary.to_owned(),
        stop: stop.clone(),
    };
    let (proxy, watch) = (child(Kind::Proxy), child(Kind::Watch));
    let listeners = match Other::find(layout, Kind::Proxy.as_str())? {
        // Its predecessor's proxy has the sockets; they are bound anew when it ends.
        Some(_) => None,
        None => Some(seat::listen(layout, &seat::http_addresses(layout)?)?),
    };
    let work = async { tokio::join!(proxy.keep(listeners), watch.keep(None)) };
    let mut work = std::pin::pin!(work);
    tokio::select! {
        ended = &mut work => return ended.0.and(ended.1),
        () = answers(layout) => ready(),
        _ = terminate.recv() => stop.cancel(),
        _ = interrupt.recv() => stop.cancel(),
    }
    tokio::select! {
        ended = &mut work => return ended.0.and(ended.1),
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    stop.cancel();
    let ended = work.await;
    ended.0.and(ended.1)
}

/// Returns when the proxy answers on its control socket.
async fn answers(layout: &Layout) {
    let socket = layout.proxy_socket();
    while tokio::net::UnixStream::connect(&socket).await.is_err() {
        tokio::time::sleep(LOOK).await;
    }
}

/// One of the two.
#[derive(Debug)]
struct Supervised {
    kind: Kind,
    layout: Layout,
    binary: PathBuf,
    stop: CancellationToken,
}

impl Supervised {
    /// Sees to it that there is one, until told to stop; then ends it. A proxy gets the sockets, which are bound when first needed.
    async fn keep(&self, mut listeners: Option<Vec<TcpListener>>) -> Result<(), UpError> {
        let mut pause = Duration::ZERO;
        loop {
            let began = Instant::now();
            let how = match Other::find(&self.layout, self.kind.as_str())? {
                Some(other) => self.watch_over(&other).await,
                None => match self.start(&mut listeners) {
                    Ok(child) => self.attend(child).await,
                    Err(error) => Some(error.to_string()),
                },
            };
            let Some(how) = how else { return Ok(()) };
            tracing::warn!(process = self.kind.as_str(), %how, "it ended and is started again");
            pause = if began.elapsed() >= RESTART_STEADY {
                Duration::ZERO
            } else {
                (pause * 2).clamp(RESTART_FIRST / 5, PAUSE_MOST)
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.stop.cancelled() => return Ok(()),
            }
        }
    }

    /// An earlier supervisor's process: left at work. Says how it ended; `None`: told to stop.
    async fn watch_over(&self, other: &Other) -> Option<String> {
        tracing::info!(process = self.kind.as_str(), pid = other.pid, "one is at work already");
        tokio::select! {
            () = other.ended() => Some("the process of an earlier supervisor is gone".to_owned()),
            () = self.stop.cancelled() => {
                if !other.end(GRACE).await {
                    other.signal(Signal::KILL);
                    other.ended().await;
                }
                None
            }
        }
    }

    fn start(&self, listeners: &mut Option<Vec<TcpListener>>) -> Result<Child, UpError> {
        let input = match self.kind {
            Kind::Watch => Stdio::null(),
            Kind::Proxy => {
                if listeners.is_none() {
                    *listeners = Some(seat::bind_all(&seat::http_addresses(&self.layout)?)?);
                }
                super::sockets::hand_over(listeners.as_deref().unwrap_or_default())?.into()
            }
        };
        let log = open_log(&self.layout, self.kind.as_str())?;
        Command::from(program::command(&self.binary))
            .arg(self.kind.as_str())
            .stdin(input)
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(|error| UpError::Spawn { binary: self.binary.clone(), error })
    }

    /// Waits for the child's end. Says how it ended; `None`: told to stop.
    async fn attend(&self, mut child: Child) -> Option<String> {
        tokio::select! {
            status = child.wait() => Some(status.map_or_else(|error| error.to_string(), |status| status.to_string())),
            () = self.stop.cancelled() => {
                end(&mut child).await;
                None
            }
        }
    }
}

/// Ends a child: it is asked, then killed.
async fn end(child: &mut Child) {
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid
        && let Err(error) = kill_process(pid, Signal::TERM)
    {
        tracing::debug!(%error, "no signal was sent");
    }
    let waited = tokio::time::timeout(GRACE, child.wait()).await;
    if waited.is_err()
        && let Err(error) = child.kill().await
    {
        tracing::warn!(%error, "a child was not ended");
    }
}

/// Where a child writes what it has to say to developers. One that has grown too large is begun anew, the old one kept once.
pub(super) fn open_log(layout: &Layout, process: &str) -> Result<File, UpError> {
    let path = layout.process_log(process);
    files::ensure_folder(layout.logs(), 0o700)?;
    if std::fs::metadata(&path).is_ok_and(|found| found.len() > LOG_BYTES) {
        std::fs::rename(&path, path.with_extension("log.1"))?;
    }
    Ok(OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?)
}

//! What a detached `up` tells the one who started it: ready, or why not. It goes through the socket that is its standard input.

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader};

/// The one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Said {
    /// The proxy answers.
    Ready,
    /// It will not.
    Failed {
        /// Why.
        reason: String,
        /// What helps.
        next: Vec<String>,
    },
    /// The address is taken: told apart because the remedy is.
    Taken {
        /// Which.
        address: std::net::SocketAddr,
        /// By whom.
        by: Option<String>,
    },
}

/// Both ends: the first stays here, the second becomes a standard input.
pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?)
}

/// Waits for the line; `None`: the other end was closed without one.
pub(super) async fn hear(end: OwnedFd, limit: Duration) -> io::Result<Option<Said>> {
    let stream = UnixStream::from(end);
    stream.set_nonblocking(true)?;
    let mut lines = BufReader::new(tokio::net::UnixStream::from_std(stream)?).lines();
    let line =
        tokio::time::timeout(limit, lines.next_line()).await.map_err(|_| io::ErrorKind::TimedOut)??;
    Ok(line.and_then(|line| serde_json::from_str(&line).ok()))
}

/// The way back to whoever started this process detached; `None`: nobody waits for a word (a terminal, an init system).
pub(super) fn listener() -> Option<UnixStream> {
    let input = std::io::stdin();
    // Only a socket has a peer.
    rustix::net::getpeername(&input).ok()?;
    input.as_fd().try_clone_to_owned().ok().map(UnixStream::from)
}

/// Says it. Whoever waited may have left.
pub(super) fn say(listener: Option<&UnixStream>, said: &Said) {
    let Some(mut listener) = listener else { return };
    let mut line = serde_json::to_vec(said).unwrap_or_default();
    line.push(b'\n');
    if let Err(error) = listener.write_all(&line) {
        tracing::debug!(%error, "nobody waits for the report any more");
    }
}

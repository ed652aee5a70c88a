//! What a probe sends, to whom, and how much of it.

use std::net::SocketAddr;
use std::time::Duration;

use http::HeaderName;

/// How the app's own answers are told from everybody else's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mark {
    /// By this header; its value names the release.
    Header(HeaderName),
    /// The app has no mark: what the proxy did not sign is taken for the app's.
    None,
}

/// Workers of one kind. Each sends one request after another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// A connection for each request.
    pub fresh: usize,
    /// One connection, kept.
    pub keep_alive: usize,
}

/// Workers of all kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mix {
    pub get: Load,
    pub post: Load,
    pub slow: Load,
    pub websocket: usize,
    pub sse: usize,
}

impl Mix {
    /// One or two of each: what tests use unless they are about load.
    pub const LIGHT: Self = Self {
        get: Load { fresh: 1, keep_alive: 2 },
        post: Load { fresh: 1, keep_alive: 1 },
        slow: Load { fresh: 1, keep_alive: 1 },
        websocket: 1,
        sse: 1,
    };
    /// Nothing; a start for a mix of one's own.
    pub const NONE: Self = Self {
        get: Load { fresh: 0, keep_alive: 0 },
        post: Load { fresh: 0, keep_alive: 0 },
        slow: Load { fresh: 0, keep_alive: 0 },
        websocket: 0,
        sse: 0,
    };
}

#[derive(Clone, Debug)]
pub struct ProbeOptions {
    /// Where the proxy (or the app itself) listens.
    pub address: SocketAddr,
    /// The `Host` of every request, without a port.
    pub host: String,
    pub mix: Mix,
    /// Pause of a worker between two requests, or of a WebSocket between two messages.
    pub pace: Duration,
    /// How long a request may take in all. Above the longest hold, so that a held request is not a failed one.
    pub deadline: Duration,
    pub mark: Mark,
    /// What the GETs ask for, in turn.
    pub paths: Vec<String>,
    /// How long a slow answer is asked to take.
    pub slow_for: Duration,
}

impl ProbeOptions {
    /// The guestbook behind `address`, lightly.
    pub fn new(address: SocketAddr, host: &str) -> Self {
        Self {
            address,
            host: host.to_owned(),
            mix: Mix::LIGHT,
            pace: Duration::from_millis(10),
            deadline: Duration::from_secs(40),
            mark: Mark::Header(HeaderName::from_static("x-app-release")),
            paths: vec!["/".to_owned()],
            slow_for: Duration::from_millis(300),
        }
    }
}

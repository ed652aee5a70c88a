//! Messages on a proxy's control socket: one JSON object a line, a request and then its answer, several pairs a connection.

use serde::{Deserialize, Serialize};

use crate::figures::Figures;
use crate::{RouteTable, TableHash};

/// The version spoken here; the proxy refuses a newer one by [`Answer::Refused`].
pub const CONTROL_VERSION: u32 = 1;

/// A line to the proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    pub version: u32,
    pub ask: Ask,
}

/// What a proxy can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Ask {
    /// The table served, with its hash.
    Read,
    /// Serve this table, made durable first, if the one served has the hash `expect`.
    Replace { expect: TableHash, table: RouteTable },
    /// Wait until no request is in flight on the targets. WebSockets and event streams on them are closed, spread over `spread_ms`.
    /// At the deadline what is left is reported; with `cut` it is closed.
    Drain { targets: Vec<String>, spread_ms: u64, deadline_ms: u64, cut: bool },
    /// Counters and latencies of all routes and targets, and whose they are (the proxy's start).
    Figures,
}

/// What the proxy answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    Table { hash: TableHash, table: RouteTable },
    /// The table is durable and served.
    Replaced { hash: TableHash },
    /// Another table was served; nothing changed.
    Moved { hash: TableHash, table: RouteTable },
    /// What was still in flight on the targets when the wait ended (0: drained), and how many upgraded connections were closed.
    Drained { left: u64, closed: u64, cut: u64 },
    Figures(Figures),
    /// The request was not carried out.
    Refused { reason: String },
}

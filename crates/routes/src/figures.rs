//! Figures of a proxy: in flight, counters, latency. All counters grow from the proxy's start; readers take differences.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The route under which answers are counted that belong to no route: no route was found, or the request was no request.
pub const NO_ROUTE: &str = "-";

/// Everything counted since the proxy started.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Figures {
    /// Tells one start of the proxy from another; a reader that sees it change starts its differences over.
    pub started: String,
    /// By target id.
    pub targets: BTreeMap<String, TargetFigures>,
    /// By `owner/route name`.
    pub routes: BTreeMap<String, RouteFigures>,
}

/// What one target did.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct TargetFigures {
    /// Requests now inside, upgraded connections included.
    pub in_flight: u64,
    /// Answers that came whole, by class (`1xx`…`5xx`).
    pub answers: BTreeMap<String, u64>,
    /// Requests that found no answer: could not be sent, or the connection broke.
    pub broken: u64,
    /// Time to the head of an answer, hold and queue not included.
    pub latency: Latency,
}

/// What one route did.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RouteFigures {
    /// Requests taken in.
    pub requests: u64,
    /// Answers the proxy made itself, by reason.
    pub refused: BTreeMap<String, u64>,
    /// Requests waiting in a hold now.
    pub held: u64,
    /// The longest any request has waited in a hold, in milliseconds.
    pub longest_hold_ms: u64,
}

/// Time from a request's being given to a target to its answer's head, in microseconds.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Latency {
    /// Answers measured.
    pub count: u64,
    /// Half were faster.
    pub p50_us: u64,
    /// Nine in ten were faster.
    pub p90_us: u64,
    /// All but one in a hundred were faster.
    pub p99_us: u64,
    /// The slowest.
    pub max_us: u64,
}

//! Figures of a proxy: in flight, counters, latency. All counters grow from the proxy's start; readers take differences.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

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

/// Time from a request's head to its answer's head, in microseconds.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Latency {
    pub count: u64,
    pub p50_us: u64,
    pub p90_us: u64,
    pub p99_us: u64,
    pub max_us: u64,
}

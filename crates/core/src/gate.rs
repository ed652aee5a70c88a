//! What a candidate must pass to be healthy: rise, fall and deadline, as plain arithmetic over probe outcomes.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// All checks of a service; a candidate is healthy when every one has passed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gate {
    /// At least one: a service that names none gets [`Check::Steady`] (or [`Check::Tcp`] where it has a route).
    pub checks: Vec<GateCheck>,
    /// For all of them together, from the start of the instance.
    #[serde(with = "crate::millis")]
    pub within: Duration,
}

/// One check with its pace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateCheck {
    /// What is looked at.
    pub check: Check,
    /// Between tries once the quick first ones are over.
    #[serde(with = "crate::millis")]
    pub interval: Duration,
    /// For one try.
    #[serde(with = "crate::millis")]
    pub timeout: Duration,
    /// Successes in a row until it counts as passed.
    pub rise: u32,
    /// Failures in a row until a live instance counts as unhealthy.
    pub fall: u32,
}

/// What is looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Check {
    /// A GET on the instance.
    Http {
        /// The path, begins with `/`.
        path: String,
        /// The port; `None`: the service's.
        port: Option<u16>,
        /// Sent as `Host`; the route's first host unless the author says otherwise.
        host: Option<String>,
        /// Sent as `X-Forwarded-Proto`.
        scheme: String,
        /// Accepted status codes, from and to inclusive.
        status: (u16, u16),
        /// Dotted key → expected value in a JSON body.
        json: BTreeMap<String, String>,
        /// From within the instance's own network namespace.
        inside: bool,
    },
    /// A connection is accepted.
    Tcp {
        /// The port; `None`: the service's.
        port: Option<u16>,
        /// From within the instance's own network namespace.
        inside: bool,
    },
    /// A command in the instance exits 0.
    Command {
        /// Its words.
        words: Vec<String>,
    },
    /// A line of its output has this text in it.
    Log {
        /// The text.
        text: String,
    },
    /// A file appears in the instance.
    File {
        /// Absolute, or below its working folder.
        path: String,
    },
    /// The container's own HEALTHCHECK command, run at cutover's pace.
    Container,
    /// Up and not restarted for so long.
    Steady {
        /// How long.
        #[serde(rename = "for", with = "crate::millis")]
        duration: Duration,
    },
}

/// What one try showed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Probe {
    /// It was as it should be.
    Passed,
    /// It was not; what was seen instead.
    Failed(Finding),
}

/// What a failed try saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "found", rename_all = "snake_case")]
pub enum Finding {
    /// Nobody listens there.
    Refused,
    /// No answer in time.
    NoAnswer,
    /// Another status than expected.
    Status {
        /// The status.
        status: u16,
        /// The first bytes of the body, redacted.
        body: String,
    },
    /// The body is not as expected.
    Body {
        /// What differs.
        detail: String,
    },
    /// The command's exit.
    Exit {
        /// Its code.
        code: i64,
        /// The end of its output, redacted.
        output: String,
    },
    /// Not there yet (a log line, a file, steadiness).
    NotYet,
    /// The try itself could not be made.
    Other {
        /// Why.
        detail: String,
    },
}

/// Counts tries of one check.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tally {
    /// Successes in a row.
    pub risen: u32,
    /// Failures in a row.
    pub fallen: u32,
    /// All tries.
    pub tries: u32,
    /// The last failure.
    pub last: Option<Finding>,
}

impl Tally {
    /// Counts one try.
    pub fn count(&mut self, probe: Probe) {
        self.tries += 1;
        match probe {
            Probe::Passed => {
                self.risen += 1;
                self.fallen = 0;
            }
            Probe::Failed(finding) => {
                self.fallen += 1;
                self.risen = 0;
                self.last = Some(finding);
            }
        }
    }

    /// Whether the check has passed.
    pub fn passed(&self, check: &GateCheck) -> bool {
        self.risen >= check.rise.max(1)
    }

    /// Whether a live instance counts as unhealthy.
    pub fn failed(&self, check: &GateCheck) -> bool {
        self.fallen >= check.fall.max(1)
    }
}

/// The pause before try number `tries` (0 is the first): quick at first, backing off to the configured interval. It grows by a fifth, so that
/// what is ready is found so after at most a fifth longer than it took.
pub fn pause(tries: u32, interval: Duration) -> Duration {
    let growth = tries.saturating_sub(FEW).min(MOST_GROWTH);
    let quick = (0..growth).fold(crate::defaults::FIRST_PROBE, |pause, _| pause + pause / 5);
    quick.min(interval.max(crate::defaults::FIRST_PROBE))
}

/// Tries before the pause grows.
const FEW: u32 = 5;
/// By then the pause is longer than any interval.
const MOST_GROWTH: u32 = 100;

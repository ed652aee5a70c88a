//! Messages on a proxy's control socket: one JSON object a line, a request and then its answer, several pairs a connection.

use serde::{Deserialize, Serialize};

use crate::figures::Figures;
use crate::{RouteTable, TableHash};

/// The version spoken here; the proxy refuses a newer one by [`Answer::Refused`].
pub const CONTROL_VERSION: u32 = 1;

/// A line to the proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// The version of the asker, [`CONTROL_VERSION`].
    pub version: u32,
    /// What is asked.
    pub ask: Ask,
}

/// What a proxy can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Ask {
    /// The table served, with its hash.
    Read,
    /// Serve this table, made durable first, if the one served has the hash `expect`.
    Replace {
        /// What the asker believes is served.
        expect: TableHash,
        /// What is to be served.
        table: RouteTable,
    },
    /// Wait until no request is in flight on the targets. `WebSockets` and event streams on them are closed, spread over `spread_ms`.
    /// At the deadline what is left is reported; with `cut` it is closed.
    Drain {
        /// Target ids, in the table or not in it any more.
        targets: Vec<String>,
        /// Over how long the closing of long-lived connections is spread.
        spread_ms: u64,
        /// How long to wait at most.
        deadline_ms: u64,
        /// Whether what is left at the deadline is closed.
        cut: bool,
    },
    /// Counters and latencies of all routes and targets, and whose they are (the proxy's start).
    Figures,
}

/// What the proxy answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// What is served now.
    Table {
        /// Its hash, for a later [`Ask::Replace`].
        hash: TableHash,
        /// The table itself.
        table: RouteTable,
    },
    /// The table is durable and served.
    Replaced {
        /// Its hash.
        hash: TableHash,
    },
    /// Another table was served; nothing changed.
    Moved {
        /// The hash of what is served.
        hash: TableHash,
        /// What is served.
        table: RouteTable,
    },
    /// The wait has ended.
    Drained {
        /// Still in flight on the targets at the deadline and left alone; 0 when drained, and always 0 with `cut`.
        left: u64,
        /// Upgraded connections and event streams that were told to close.
        closed: u64,
        /// Still in flight at the deadline and cut; always 0 without `cut`. So `left + cut` is what did not end by itself.
        cut: u64,
    },
    /// Everything counted since the proxy's start.
    Figures(Figures),
    /// The request was not carried out.
    Refused {
        /// Why, and what helps.
        reason: String,
        /// Whether it was for want of room on the disk. Absent where it was not, and from proxies that do not say.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        full: bool,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_without_a_word_on_the_disk_is_read_and_written_as_before() {
        let line = r#"{"answer":"refused","reason":"no"}"#;
        let refused = Answer::Refused { reason: "no".into(), full: false };

        assert_eq!(serde_json::from_str::<Answer>(line).unwrap(), refused);
        assert_eq!(serde_json::to_string(&refused).unwrap(), line);
    }
}

//! The route table: what a proxy serves, as plain data.
//!
//! A table is replaced as a whole, compare-and-swap by its [`crate::TableHash`]. Entries are grouped by owner, so that
//! one owner's change never touches another's routes. The proxy reads it, nothing here acts.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The version of the table's format that this build writes; a newer one is refused, an older one upgraded in
/// [`RouteTable::from_json`].
pub const TABLE_VERSION: u32 = 1;

/// All that one proxy serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteTable {
    /// Format version, [`TABLE_VERSION`] when written by this build.
    pub version: u32,
    /// The entries by owner (who put them there: an opaque name to the proxy).
    pub owners: BTreeMap<String, Entry>,
}

/// What one owner has in the table.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Entry {
    /// Facts the owner keeps beside its routes; they are part of the hash, so that they change with the routes or not at all.
    pub facts: BTreeMap<String, String>,
    /// The owner's routes.
    pub routes: Vec<Route>,
}

/// One way in: host names and a path prefix that lead to targets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The name of what is served, unique within the owner; figures are kept under it.
    pub name: String,
    /// Host names in lower case without a port; empty means every host.
    pub hosts: Vec<String>,
    /// Path prefix, begins with `/`; matches whole segments; the longest wins.
    pub path: String,
    /// Take the prefix off before the request goes on.
    pub strip: bool,
    /// Where requests go now.
    pub state: RouteState,
}

/// What happens to a request of a route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum RouteState {
    /// Requests go to one of the targets.
    Serving {
        /// Equal places; none at all answers 503.
        targets: Vec<Target>,
    },
    /// Requests wait. Those past a bound, or past the end, get 503 with `Retry-After`.
    Held {
        /// How many, how much, how long.
        hold: Hold,
    },
    /// Requests get 503 with the reason.
    Closed {
        /// Shown in the 503.
        reason: String,
    },
}

/// The bounds of a hold. It survives a restart of the proxy, so its end is wall-clock time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// When the hold ends by itself, in milliseconds since the Unix epoch.
    pub until: u64,
    /// At most so many requests wait.
    pub requests: u32,
    /// At most so many bytes of request bodies are kept while they wait.
    pub bytes: u64,
    /// Shown in the 503 of a request that was not taken in.
    pub reason: String,
}

/// One place that answers requests.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Target {
    /// The name of the target; figures and drains are asked for by it. It stands for one owner's one address: several of that
    /// owner's routes may lead to it, but nobody else's, and never by another address ([`RouteTable::check`]).
    pub id: String,
    /// Where it listens.
    pub address: Address,
}

/// How a target is reached.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Address {
    /// An IP address and port.
    Tcp(SocketAddr),
    /// The absolute path of a stream socket.
    Unix(PathBuf),
}

/// Why a table is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// The bytes are not a table at all.
    #[error("not a route table: {0}")]
    Malformed(String),
    /// Written by a newer build; it may mean what this one does not know.
    #[error("the route table has version {found}, this build knows up to {TABLE_VERSION}")]
    Newer {
        /// The version found.
        found: u32,
    },
    /// Two routes, of two owners or of one, would answer the same requests.
    #[error("`{owner}` and `{other}` both claim {host}{path}")]
    Claimed {
        /// Who comes first in the table.
        owner: String,
        /// Who claims it too.
        other: String,
        /// The host name, or `*` for every host.
        host: String,
        /// The path prefix.
        path: String,
    },
    /// One route breaks a rule of its own.
    #[error("route `{name}` of `{owner}`: {problem}")]
    Invalid {
        /// Whose route it is.
        owner: String,
        /// The route's name.
        name: String,
        /// The broken rule.
        problem: String,
    },
}

impl Default for RouteTable {
    fn default() -> Self {
        Self { version: TABLE_VERSION, owners: BTreeMap::new() }
    }
}

impl RouteTable {
    /// Every target of every route, with its owner.
    pub fn targets(&self) -> impl Iterator<Item = (&str, &Target)> {
        self.owners.iter().flat_map(|(owner, entry)| {
            entry
                .routes
                .iter()
                .flat_map(move |route| route.state.targets().iter().map(move |t| (owner.as_str(), t)))
        })
    }
}

impl RouteState {
    /// The targets that requests may reach in this state.
    pub fn targets(&self) -> &[Target] {
        match self {
            Self::Serving { targets } => targets,
            Self::Held { .. } | Self::Closed { .. } => &[],
        }
    }
}

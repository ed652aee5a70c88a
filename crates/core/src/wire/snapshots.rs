//! What `snapshot list` and `snapshot verify` say; the other words of it are runs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::names::{AppId, DatabaseName};
use crate::plan::DatabasePlace;
use crate::retention::{KnownSnapshot, Leftovers};

/// From the client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "snapshot", rename_all = "snake_case")]
pub enum SnapshotAsk {
    /// Those that there are → [`SnapshotReply::Listed`].
    List {
        /// Whose.
        app: AppId,
        /// How much was changed since is asked of these, too. Who does not know of this leaves it out.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        since: Vec<PutBack>,
    },
    /// Those that nothing needs → [`SnapshotReply::Unneeded`].
    Unneeded {
        /// Whose.
        app: AppId,
    },
    /// Read one whole → [`SnapshotReply::Verified`].
    Verify {
        /// Whose.
        app: AppId,
        /// Which, as a list shows it.
        name: String,
    },
}

/// From the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "snapshot", rename_all = "snake_case")]
pub enum SnapshotReply {
    /// The newest first.
    Listed {
        /// Each.
        snapshots: Vec<KnownSnapshot>,
        /// How much was changed since, of the databases that this was asked of.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        since: BTreeMap<DatabaseName, RowsChanged>,
    },
    /// They may go, and nothing else does.
    Unneeded {
        /// Each.
        leftovers: Leftovers,
    },
    /// It is whole, and can be put back.
    Verified {
        /// Which.
        found: KnownSnapshot,
        /// What was found good, a line each.
        lines: Vec<String>,
    },
}

/// A snapshot that is to be put in its database's place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutBack {
    /// Of which database.
    pub database: DatabaseName,
    /// Where that lies.
    pub place: DatabasePlace,
    /// Which, as a list shows it.
    pub name: String,
}

/// How much was changed in a database since a snapshot of it was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowsChanged {
    /// Rows that were inserted, changed or deleted; `None`: that is not known.
    pub rows: Option<u64>,
    /// How that was counted, or why it is not known, in words.
    pub how: String,
}

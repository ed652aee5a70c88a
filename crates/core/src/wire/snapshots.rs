//! What `snapshot list` and `snapshot verify` say; the other words of it are runs.

use serde::{Deserialize, Serialize};

use crate::names::AppId;
use crate::retention::{KnownSnapshot, Leftovers};

/// From the client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "snapshot", rename_all = "snake_case")]
pub enum SnapshotAsk {
    /// Those that there are → [`SnapshotReply::Listed`].
    List {
        /// Whose.
        app: AppId,
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

//! What is known of backups: on the host's own record, and in each backup itself.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Target;
use crate::config::settings::ServerKind;
use crate::hash::ContentHash;
use crate::names::{AppId, DatabaseName, ReleaseId, VolumeName};
use crate::plan::VolumeSpec;

/// The version of [`Manifest`] that this build writes.
pub const MANIFEST_VERSION: u32 = 1;

/// One backup that was tried, as the host remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupRecord {
    /// Where it went.
    pub to: Target,
    /// Who asked for it.
    pub by: String,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub finished: Timestamp,
    /// How.
    pub outcome: BackupOutcome,
}

/// How a backup ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum BackupOutcome {
    /// It was read back and is what was put in.
    Verified {
        /// Its id in the repository.
        id: String,
        /// What is in it.
        items: Vec<String>,
        /// Bytes that are in it.
        bytes: u64,
        /// Bytes by which the repository grew, before they were squeezed.
        added: u64,
        /// What is not in it, and why.
        left_out: Vec<String>,
    },
    /// It does not count.
    Failed {
        /// Why.
        why: String,
    },
}

impl BackupRecord {
    /// Whether it counts.
    pub fn is_verified(&self) -> bool {
        matches!(self.outcome, BackupOutcome::Verified { .. })
    }
}

/// What the host knows of an app's backups.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BackupState {
    /// From one to the next, in milliseconds, as the live release has it; `None`: there is no schedule.
    pub every_ms: Option<u64>,
    /// The newest that was tried.
    pub last: Option<BackupRecord>,
    /// The newest that counts.
    pub verified: Option<BackupRecord>,
    /// The newest that counts is too old, or there is none, where there should be one; or the newest drill is, or went badly.
    pub stale: bool,
    /// The newest drill.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drill: Option<DrillRecord>,
}

/// A backup that was put back for a trial, as the host remembers the newest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillRecord {
    /// Who asked for it.
    pub by: String,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub finished: Timestamp,
    /// How.
    pub outcome: DrillOutcome,
}

/// How a drill ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum DrillOutcome {
    /// All of it came back, and every check was good.
    Good {
        /// Which backup.
        id: String,
        /// What was found good, a line each.
        lines: Vec<String>,
    },
    /// It did not.
    Failed {
        /// Why.
        why: String,
    },
}

impl DrillRecord {
    /// Whether the backup came back.
    pub fn is_good(&self) -> bool {
        matches!(self.outcome, DrillOutcome::Good { .. })
    }
}

/// A backup as the repository has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownBackup {
    /// Its id there.
    pub id: String,
    /// When it was made.
    pub at: Timestamp,
    /// It was read back after it was made, and was what was put in.
    pub verified: bool,
}

/// What is in a backup, in itself: how it is put back on a host that knows nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`MANIFEST_VERSION`] of who wrote it.
    pub version: u32,
    /// Whose it is.
    pub app: AppId,
    /// What was live.
    pub release: ReleaseId,
    /// The databases, each with its file below the manifest's folder.
    pub databases: BTreeMap<DatabaseName, String>,
    /// The volumes.
    pub volumes: BTreeMap<VolumeName, VolumeInBackup>,
    /// Databases of servers. Their dumps lie beside this backup in the repository, each on its own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub dumps: BTreeMap<DatabaseName, DumpInBackup>,
}

/// A dump that belongs to a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DumpInBackup {
    /// Of which engine.
    pub kind: ServerKind,
    /// Its path in a backup of its own, which has the same mark as this one.
    pub file: String,
    /// The mark.
    pub mark: String,
    /// Of its bytes.
    pub hash: ContentHash,
    /// How many they are.
    pub bytes: u64,
    /// The server's roles that it names, without which it does not come back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// Tables that the database had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tables: Option<u64>,
    /// How many of them each part has, where the dump is put back in parts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<u64>,
}

/// A volume in a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeInBackup {
    /// Where it lay on the host; its files have these paths in the backup.
    pub path: String,
    /// `SQLite` files below it that were copied while they were used; they lie below the manifest's folder, in `volumes/NAME`.
    pub copies: Vec<String>,
    /// What carried it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<VolumeSpec>,
}

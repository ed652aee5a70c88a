//! A database that lies on this host as a file: copied, compared, snapshot, restored (S16). Nothing here decides when.

use std::collections::BTreeMap;
use std::path::Path;

use async_trait::async_trait;
use cutover_core::hash::ContentHash;

use super::Certainty;

/// What is done with databases.
#[async_trait]
pub trait Database: Send + Sync {
    /// A consistent copy of a live file at `to`, durable; `to` is replaced.
    async fn copy(&self, from: &Path, to: &Path) -> Result<u64, DatabaseError>;

    /// The content, table by table; an absent file has none.
    async fn content(&self, file: &Path) -> Result<Content, DatabaseError>;

    /// A verified, durable copy: `integrity_check` has passed. Gives its size in bytes.
    async fn snapshot(&self, file: &Path, to: &Path) -> Result<u64, DatabaseError>;

    /// Returns once nothing has the file open: what may be migrated (P8). An absent file is open nowhere. Fails with the names of the
    /// processes that still have it open after a while.
    async fn closed(&self, file: &Path) -> Result<(), DatabaseError>;

    /// Puts a snapshot in the file's place while nothing has it open: verified, beside it, old `-wal` and `-shm` removed durably, then renamed;
    /// owner and mode are kept.
    async fn restore(&self, snapshot: &Path, file: &Path) -> Result<(), DatabaseError>;
}

/// The content of a database: a hash by table, the schema among them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Content(pub BTreeMap<String, ContentHash>);

/// Why it was not done.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct DatabaseError {
    /// The disk is full.
    pub full: bool,
    /// Whether it may have happened all the same.
    pub certainty: Certainty,
    /// What happened.
    pub message: String,
}

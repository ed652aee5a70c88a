//! What is done with a database in a server, whatever its engine.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use cutover_core::config::settings::ServerKind;

use super::mariadb::Maria;
use super::postgres::Postgres;
use crate::ports::{DatabaseError, Server, ServerState, Taken};

/// For an answer of a server.
pub(super) const ANSWER: Duration = Duration::from_secs(30);
/// For sessions to end whose client is gone, and for instances that were stopped to let go.
pub(super) const LET_GO: Duration = Duration::from_secs(10);
/// Between two looks at them.
pub(super) const AGAIN: Duration = Duration::from_millis(100);

/// One database of one engine: see [`crate::ports::Database`], whose words these are.
#[async_trait]
pub(in crate::database) trait InServer: Send + Sync {
    async fn look(&self) -> Result<ServerState, DatabaseError>;
    async fn snapshot(&self, to: &Path) -> Result<Taken, DatabaseError>;
    async fn closed(&self) -> Result<(), DatabaseError>;
    async fn end_sessions(&self) -> Result<u64, DatabaseError>;
    async fn restore(&self, snapshot: &Path) -> Result<(), DatabaseError>;
    async fn check(&self, snapshot: &Path) -> Result<Vec<String>, DatabaseError>;
    async fn restore_beside(&self, snapshot: &Path, to: &str) -> Result<(), DatabaseError>;
    async fn restore_keeping(&self, snapshot: &Path) -> Result<Option<String>, DatabaseError>;
    async fn rehearse_restore(&self, scratch: &Path) -> Result<(), DatabaseError>;
    async fn kept(&self) -> Result<Vec<String>, DatabaseError>;
    async fn drop_kept(&self, name: &str) -> Result<(), DatabaseError>;
}

/// The database, by its engine.
pub(in crate::database) fn of(server: &Server) -> Box<dyn InServer + '_> {
    match server.kind {
        ServerKind::Postgres => Box::new(Postgres::of(server)),
        ServerKind::Mysql | ServerKind::Mariadb => Box::new(Maria::of(server)),
    }
}

//! What is done with a database in a server, whatever its engine.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use cutover_core::config::settings::ServerKind;

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
    async fn check(&self, _: &Path) -> Result<Vec<String>, DatabaseError> {
        Ok(vec!["what is in it is looked at when it is put back".to_owned()])
    }
    async fn restore_beside(&self, _: &Path, _: &str) -> Result<(), DatabaseError> {
        Err(DatabaseError::plain("a snapshot of this engine cannot be put beside its database yet"))
    }
    /// What was replaced is gone.
    async fn restore_keeping(&self, snapshot: &Path) -> Result<Option<String>, DatabaseError> {
        self.restore(snapshot).await.map(|()| None)
    }
    async fn rehearse_restore(&self, _: &Path) -> Result<(), DatabaseError> {
        Ok(())
    }
    async fn kept(&self) -> Result<Vec<String>, DatabaseError> {
        Ok(Vec::new())
    }
    async fn drop_kept(&self, _: &str) -> Result<(), DatabaseError> {
        Ok(())
    }
}

/// The database, by its engine.
///
/// # Errors
/// Its engine is not known yet.
pub(in crate::database) fn of(server: &Server) -> Result<Box<dyn InServer + '_>, DatabaseError> {
    match server.kind {
        ServerKind::Postgres => Ok(Box::new(Postgres::of(server))),
        ServerKind::Mysql | ServerKind::Mariadb => {
            Err(DatabaseError::plain(format!("{} is not looked into yet", server.kind.as_str())))
        }
    }
}

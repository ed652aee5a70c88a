//! The route table of the proxy: read, replaced, drained, counted.

use std::time::Duration;

use async_trait::async_trait;
use cutover_core::state::FoundTable;
use cutover_routes::figures::Figures;
use cutover_routes::{RouteTable, TableHash};

use super::Certainty;

/// What carries requests to instances.
#[async_trait]
pub trait Router: Send + Sync {
    /// The table served.
    async fn read(&self) -> Result<FoundTable, RouterError>;

    /// Serves `table`, durably, if the one served has the hash `expect`; gives the hash now served.
    /// Another table there: [`RouterErrorKind::Moved`].
    async fn replace(&self, expect: &TableHash, table: &RouteTable) -> Result<TableHash, RouterError>;

    /// Waits until nothing is in flight on the targets; WebSockets and event streams are closed, staggered over `spread`. What is left at
    /// the deadline is told, and with `cut` closed.
    async fn drain(
        &self,
        targets: &[String],
        spread: Duration,
        deadline: Duration,
        cut: bool,
    ) -> Result<Drained, RouterError>;

    /// All counters.
    async fn figures(&self) -> Result<Figures, RouterError>;
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Requests still in flight at the deadline.
    pub left: u64,
    /// WebSockets and event streams closed.
    pub closed: u64,
}

/// Why the router did not do it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct RouterError {
    /// What kind of trouble.
    pub kind: RouterErrorKind,
    /// Whether it may have happened all the same.
    pub certainty: Certainty,
    /// In the proxy's words.
    pub message: String,
}

/// Kinds of trouble that decide what is done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouterErrorKind {
    /// Another table is served.
    Moved,
    /// The proxy does not answer.
    Unreachable,
    /// The disk is full.
    Full,
    /// The table is wrong.
    Refused,
}

//! What the stages need of the world, by need: a runtime, a router, databases, probes. Each has one real implementation a kind, and one in memory
//! for the fault sweep.

mod attached;
mod database;
mod prober;
mod router;
mod runtime;

use std::sync::Arc;

use cutover_core::release::RuntimeKind;

use crate::meter::Meter;

pub use attached::{Attached, TerminalSize, Written};
pub use database::{
    Account, Alone, Content, Database, DatabaseError, Located, LockSamples, NotAlone, RowCounts, Server,
    ServerState, Taken, Way,
};
pub use prober::{ProbeTarget, Prober};
pub use router::{Drained, Router, RouterError, RouterErrorKind};
pub use runtime::{
    Doing, Exec, Finished, ImageRequest, LogLine, LogQuery, Login, Runtime, RuntimeError, RuntimeErrorKind,
    Scope,
};

/// Whether a failed act may have happened all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certainty {
    /// It did not happen.
    NotDone,
    /// It may have happened, or may yet happen.
    Unknown,
}

/// All ports of a host.
#[derive(Clone)]
pub struct Ports {
    /// Plain processes.
    pub process: Arc<dyn Runtime>,
    /// Containers; `None`: no engine answers.
    pub container: Option<Arc<dyn Runtime>>,
    /// The proxy.
    pub router: Arc<dyn Router>,
    /// Databases.
    pub database: Arc<dyn Database>,
    /// Probes of instances and of the public route.
    pub prober: Arc<dyn Prober>,
    /// What counts the bytes that pass by them.
    pub meter: Meter,
}

impl Ports {
    /// The runtime that carries such content.
    ///
    /// # Errors
    /// When it needs an engine and none answers.
    pub fn runtime(&self, kind: RuntimeKind) -> Result<&Arc<dyn Runtime>, RuntimeError> {
        match kind {
            RuntimeKind::Process => Ok(&self.process),
            RuntimeKind::Container => self.container.as_ref().ok_or_else(|| {
                RuntimeError::new(
                    RuntimeErrorKind::Unreachable,
                    Certainty::NotDone,
                    "no container engine answers",
                )
            }),
        }
    }

    /// All runtimes there are.
    pub fn runtimes(&self) -> impl Iterator<Item = &Arc<dyn Runtime>> {
        std::iter::once(&self.process).chain(self.container.iter())
    }
}

//! `cutover-host up`: keeps proxy and watch alive where no init system does, and their listening sockets over restarts; `down` ends it and
//! every plain process it keeps. It decides nothing about apps.
//!
//! One `up` a root, by lock. When it is killed, proxy and watch go on; the next `up` leaves them at work and takes their places when they end.

mod adopt;
mod down;
pub(crate) mod port;
mod report;
mod seat;
mod sockets;
mod start;
mod supervise;

use std::net::SocketAddr;
use std::path::PathBuf;

use cutover_core::exit::Exit;
use cutover_core::names::AppId;

use crate::files::FileError;
use crate::host_file::HostFileError;
use crate::lock::LockError;

pub use down::{Down, down, end_supervisor, remove_edge};
pub use seat::{ProxySeat, given_up_by_a_unit, http_addresses, listeners};
pub(crate) use sockets::{hand_over_by as send, take_over as receive};
pub use start::{ensure_up, http_variable, is_up};
pub use supervise::run;

/// Why proxy and watch are not there, or did not go.
#[derive(Debug, thiserror::Error)]
pub enum UpError {
    /// Something else listens where the proxy should.
    #[error("{address} is taken{}", by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default())]
    Taken {
        /// The address.
        address: SocketAddr,
        /// Who has it, as far as can be found out.
        by: Option<String>,
    },
    /// The proxy cannot listen for another reason.
    #[error("the proxy cannot listen on {address}: {error}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        error: std::io::Error,
    },
    /// `CUTOVER_HTTP` or the like cannot be read.
    #[error("{what} is `{found}`: expected address:port, as in 127.0.0.1:8080")]
    Address {
        /// Where it stands.
        what: &'static str,
        /// What stands there.
        found: String,
    },
    /// The host's own configuration cannot be used.
    #[error(transparent)]
    HostFile(#[from] HostFileError),
    /// A process could not be started.
    #[error("cannot start {}: {error}", binary.display())]
    Spawn {
        /// Which program.
        binary: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// It was started and did not become ready.
    #[error("`cutover-host up` did not become ready: {reason}; see {}", log.display())]
    NotReady {
        /// What it said, or how long was waited.
        reason: String,
        /// Where it writes what it has to say.
        log: PathBuf,
        /// What it said that helps.
        next: Vec<String>,
    },
    /// A run holds an app: nothing is stopped under its hands.
    #[error("{app} is being changed: {by}")]
    Busy {
        /// Which app.
        app: AppId,
        /// Who changes it.
        by: String,
    },
    /// A process does not end.
    #[error("process {pid} (`{process}`) does not end")]
    Stuck {
        /// Which kind.
        process: &'static str,
        /// Its number.
        pid: u32,
    },
    /// An instance was not stopped.
    #[error("{instance} of {app} was not stopped: {reason}")]
    Instance {
        /// Whose.
        app: AppId,
        /// Which.
        instance: String,
        /// Why.
        reason: String,
    },
    /// A lock was not had.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The system refused something it should not.
    #[error("{0}")]
    System(#[from] std::io::Error),
}

impl UpError {
    /// How whoever wanted it ends.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Taken { .. } => Exit::Refused,
            Self::HostFile(_) => Exit::Configuration,
            _ => Exit::Failed,
        }
    }

    /// What helps.
    pub fn next(&self) -> Vec<String> {
        match self {
            Self::Taken { address, .. } => vec![
                "stop it, or move it to another port".to_owned(),
                format!(
                    "or stand behind it: set CUTOVER_HTTP=127.0.0.1:8080 and let it pass requests for {address} on to there"
                ),
            ],
            Self::Listen { .. } => {
                vec!["set CUTOVER_HTTP to an address and port that this user may listen on".to_owned()]
            }
            Self::Busy { .. } => vec!["wait for its end (`cutover attach`), then try again".to_owned()],
            Self::Address { what, .. } => {
                vec![format!("set {what} to addresses with their ports, as in {what}=127.0.0.1:8080")]
            }
            Self::HostFile(_) => vec!["mend the host's configuration at the places named above".to_owned()],
            Self::NotReady { next, .. } if !next.is_empty() => next.clone(),
            Self::NotReady { log, .. } => vec![format!("read {}", log.display())],
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests;

//! What was asked, as plain data: all that is left of the command line once clap is done with it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use cutover_core::names::{EnvironmentName, HostName, ReleaseId, RunId, ServiceName, VariableName};
use cutover_core::request::Request;
use cutover_core::wire::BackupWork;
use jiff::Timestamp;

use crate::verbs::SnapshotAsked;

/// Which app and environment a verb is about, and how its answer is wanted.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Place {
    /// Named on the command line or by `CUTOVER_ENV`.
    pub(crate) environment: Option<EnvironmentName>,
    /// `--file`.
    pub(crate) file: Option<PathBuf>,
    /// `--json`.
    pub(crate) json: bool,
}

/// A verb with what was said about it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Command {
    Check {
        variables: BTreeMap<VariableName, String>,
    },
    /// Every verb that makes a plan, be it carried out or only shown.
    Change(Box<Asked>),
    /// `check`: the time to wait for health, with `--check`.
    Status {
        check: Option<Duration>,
    },
    History {
        limit: u32,
    },
    Releases,
    Logs(LogsAsked),
    Exec(ExecAsked),
    Tunnel(TunnelAsked),
    Doctor,
    /// Drift.
    Diff,
    EnvList,
    EnvDiff,
    Attach {
        run: Option<RunId>,
    },
    Cancel {
        by: String,
    },
    Lock,
    /// Verbs that are about a server as a whole.
    Server(ServerAsked),
    Backup(Box<BackupAsked>),
    /// What only looks at snapshots.
    Snapshot(SnapshotAsked),
    Key(KeyAsked),
    Schema,
    Completion {
        shell: clap_complete::Shell,
    },
    /// `out`: a folder for all pages; else the first to standard output.
    Man {
        out: Option<PathBuf>,
    },
}

/// What is done with a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServerVerb {
    Setup,
    Upgrade,
    Teardown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ServerAsked {
    pub(crate) verb: ServerVerb,
    /// Show what would be changed and stop.
    pub(crate) dry_run: bool,
    /// Every question is answered with yes.
    pub(crate) yes: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BackupAsked {
    pub(crate) work: BackupWork,
    pub(crate) by: String,
    /// Every question is answered with yes.
    pub(crate) yes: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KeyAsked {
    /// The public key in this file; `-`: on standard input.
    Add(PathBuf),
    List,
    Revoke(String),
    /// What a server shows as its key, once a person or this fingerprint says that it is.
    Trust {
        host: HostName,
        fingerprint: Option<String>,
    },
}

/// A request, what the client has to bring for it, and how the run is to be treated.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Asked {
    pub(crate) request: Request,
    pub(crate) brings: Brings,
    pub(crate) conduct: Conduct,
}

/// Where the client takes the release's parts from.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Brings {
    /// `--commit`; else HEAD.
    pub(crate) commit: Option<String>,
    /// `--version`: the tag of every `image:`.
    pub(crate) version: Option<String>,
    /// `--image`.
    pub(crate) images: BTreeMap<ServiceName, String>,
    /// `--dirty`: the work tree instead of the commit.
    pub(crate) dirty: bool,
    /// `-v`.
    pub(crate) variables: BTreeMap<VariableName, String>,
    /// `--from-env`.
    pub(crate) from_env: bool,
    /// `env set|unset`.
    pub(crate) change: EnvironmentChange,
}

/// A change of the host's env file.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct EnvironmentChange {
    /// A name without a value is asked for.
    pub(crate) set: BTreeMap<VariableName, Option<String>>,
    pub(crate) unset: BTreeSet<VariableName>,
    /// `env push`: all that is in this file is set.
    pub(crate) push: Option<PathBuf>,
    /// `secrets rotate`: the value is made.
    pub(crate) made: Option<VariableName>,
}

/// How the plan and its run are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Conduct {
    /// Show the plan and stop.
    pub(crate) dry_run: bool,
    /// Wait for the lock.
    pub(crate) wait: bool,
    /// Do not follow the run.
    pub(crate) detach: bool,
    /// Every question is answered with yes.
    pub(crate) yes: bool,
    /// `env … --no-deploy`.
    pub(crate) stage_only: bool,
}

impl Conduct {
    pub(crate) fn dry_run() -> Self {
        Self { dry_run: true, wait: false, detach: false, yes: false, stage_only: false }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LogsAsked {
    pub(crate) services: BTreeSet<ServiceName>,
    pub(crate) follow: bool,
    pub(crate) since: Option<Timestamp>,
    pub(crate) release: Option<ReleaseId>,
    pub(crate) tail: Option<u32>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ExecAsked {
    pub(crate) once: bool,
    pub(crate) service: ServiceName,
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TunnelAsked {
    pub(crate) service: ServiceName,
    /// Of the service; else the one in its settings.
    pub(crate) port: Option<u16>,
    /// Where to listen here.
    pub(crate) listen: Option<std::net::SocketAddr>,
}

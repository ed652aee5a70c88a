//! What is: the state of one host as one app sees it, and of all hosts together. Found by looking, never remembered.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use cutover_routes::{RouteTable, TableHash};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::addresses::Ports;
use crate::hash::ContentHash;
use crate::journal::LockHolder;
use crate::names::{
    AppId, DatabaseName, HostName, InstanceName, ReleaseId, RunId, ServiceName, Slot, VariableName,
};
use crate::release::{Live, Release, RuntimeKind};
use crate::retention::{KnownSnapshot, Leftovers};
use crate::verdict::Verdict;

/// All hosts of an environment.
#[derive(Debug, Clone, PartialEq)]
pub struct World {
    /// By name.
    pub hosts: BTreeMap<HostName, HostState>,
}

/// One host, as one app in one environment sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostState {
    /// Whose view.
    pub app: AppId,
    /// The `CUTOVER_ROOT`'s own id (S6).
    pub installation: String,
    /// For hashes of variables (S28).
    pub salt: String,
    /// The host's folder of state, for paths in plans and messages.
    pub root: String,
    /// The host's clock at the look.
    pub now: Timestamp,
    /// What is live, from the table or the live file; `None`: nothing yet.
    pub live: Option<Live>,
    /// The proxy's table; `None`: no proxy answers.
    pub table: Option<FoundTable>,
    /// Every instance of this app and environment, whatever its state, one-off ones included.
    pub instances: Vec<FoundInstance>,
    /// Releases on record, oldest first.
    pub releases: Vec<ReleaseRecord>,
    /// Salted hashes of the host's env file; `None`: there is no env file.
    pub variables: Option<BTreeMap<VariableName, ContentHash>>,
    /// Names in the env file whose value is a placeholder.
    pub placeholders: BTreeSet<VariableName>,
    /// What is wrong with the env file, where it cannot be read; without a value of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env_file_problems: Vec<String>,
    /// The env file's permission bits, where there is one.
    pub env_file_mode: Option<u32>,
    /// Artifacts in the host's store.
    pub artifacts: BTreeSet<ContentHash>,
    /// What instances wrote into artifacts of the live release, by name: not what such tools put there that can do without it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub written: BTreeMap<ContentHash, BTreeSet<String>>,
    /// Images the plan may name, by reference asked for.
    pub images: BTreeMap<String, FoundImage>,
    /// The container engine; `None`: none answers.
    pub engine: Option<FoundEngine>,
    /// Addresses and ports taken by anything on this host, other apps' kept instances included (S29).
    pub taken: BTreeSet<SocketAddr>,
    /// Loopback ports that instances of plain processes are given.
    #[serde(default)]
    pub ports: Ports,
    /// SQLite databases by name, as far as the live release has them.
    pub databases: BTreeMap<DatabaseName, FoundDatabase>,
    /// Free bytes where state lies.
    pub disk_free: u64,
    /// A run that has no verdict yet.
    pub unfinished: Option<RunId>,
    /// Who holds the lock.
    pub lock: Option<LockHolder>,
    /// Verdicts, newest first, bounded.
    pub verdicts: Vec<Verdict>,
    /// The proxy's own listening addresses.
    pub listeners: Vec<SocketAddr>,
    /// What people should know of the host's own records.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<String>,
    /// What nothing on the host needs any more; `None`: it was not looked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leftovers: Option<Leftovers>,
    /// Snapshots of the app's databases; `None`: they were not looked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshots: Option<Vec<KnownSnapshot>>,
}

/// A proxy's table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundTable {
    /// Its hash.
    pub hash: TableHash,
    /// Itself.
    pub table: RouteTable,
}

/// An instance as a runtime shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundInstance {
    /// Its name.
    pub name: InstanceName,
    /// Which service it runs.
    pub service: ServiceName,
    /// What it is for.
    pub role: Role,
    /// Which release it was made for.
    pub release: ReleaseId,
    /// Its colour.
    pub slot: Slot,
    /// Its number among equals, from 1.
    pub replica: u32,
    /// The run that made it.
    pub run: RunId,
    /// What carries it.
    pub runtime: RuntimeKind,
    /// Hash of the specification it was made from.
    pub spec: ContentHash,
    /// Where the proxy and the probes reach it.
    pub address: Option<SocketAddr>,
    /// What it does now.
    pub state: InstanceState,
    /// Whether it is started again after an exit or a reboot.
    pub restart: RestartPolicy,
    /// Made by this installation; another's is never touched (S6).
    pub ours: bool,
}

impl FoundInstance {
    /// Whether its process is there.
    pub fn is_running(&self) -> bool {
        matches!(self.state, InstanceState::Running { .. })
    }
}

/// What an instance is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// A service of a release.
    Service,
    /// A backing service.
    Backing,
    /// A migration, rehearsal or `exec --once`: ends by itself.
    OneOff,
}

/// What an instance does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum InstanceState {
    /// Made, never started.
    Created,
    /// Its process is there.
    Running {
        /// Since when.
        since: Timestamp,
        /// Times it was started again by its policy.
        restarts: u32,
    },
    /// Ended; its policy will start it again.
    Restarting {
        /// The last end.
        exit: ExitStatus,
        /// Times so far.
        restarts: u32,
    },
    /// Ended for good.
    Exited {
        /// How.
        exit: ExitStatus,
    },
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitStatus {
    /// Its code, where it ended by itself.
    pub code: Option<i32>,
    /// The signal's number, where one ended it.
    pub signal: Option<i32>,
    /// The kernel ended it for want of memory.
    pub out_of_memory: bool,
    /// It could not be started at all: why.
    pub error: Option<String>,
    /// When.
    pub at: Option<Timestamp>,
}

impl std::fmt::Display for ExitStatus {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.code, self.signal, &self.error) {
            (_, _, Some(error)) => write!(formatter, "could not be started: {error}"),
            (_, Some(signal), _) => write!(formatter, "ended by signal {signal}"),
            (Some(code), None, None) => write!(formatter, "exited with code {code}"),
            (None, None, None) => formatter.write_str("ended"),
        }?;
        if self.out_of_memory { formatter.write_str(" (out of memory)") } else { Ok(()) }
    }
}

/// Whether an instance is started again by what keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestartPolicy {
    /// An exit is an exit (candidates, one-off instances).
    No,
    /// After every exit and reboot, unless stopped through cutover.
    UnlessStopped,
}

/// A release with what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseRecord {
    /// The release.
    pub release: Release,
    /// Its place in the order of this app's releases; order is by this, never by clock (S26).
    pub sequence: u64,
    /// Whether it was ever live.
    pub lived: bool,
    /// Migrations that were carried out when it went live, with their snapshots: what a rollback across it meets.
    pub migrations: Vec<MigrationRecord>,
    /// Kept running until then, after being replaced.
    pub warm_until: Option<Timestamp>,
}

/// A migration that was carried out, with when. Moments are the numbers under which releases went live, so that no clock is asked (S26).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrationRecord {
    /// What was done.
    #[serde(flatten)]
    pub done: Migrated,
    /// Under which number its release went live with it.
    pub at: u64,
    /// Under which number a release went live with a restore that undid it.
    pub undone: Option<u64>,
    /// It was undone under the release that was live and stayed so: that needs it, so the next deploy carries it out again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub again: bool,
}

impl MigrationRecord {
    /// Whether the schema had it when a release went live under this number.
    pub fn held_at(&self, moment: u64) -> bool {
        self.at <= moment && self.undone.is_none_or(|undone| undone > moment)
    }

    /// Whether it found nothing to do, as far as that is known.
    pub fn is_empty(&self) -> bool {
        let same = |schema: &SchemaChange| !schema.before.is_empty() && schema.before == schema.after;
        let unchanged = self.done.changed.map(|changed| !changed);
        unchanged.unwrap_or_else(|| self.done.schema.as_ref().is_some_and(same))
    }
}

/// What a run did to a database on its way to a live release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Migrated {
    /// Which.
    pub database: DatabaseName,
    /// Whether the release before can live with it.
    pub compatible: crate::config::settings::Compatible,
    /// The snapshot taken before it, a file name under the backups folder; `None`: the decision to go without.
    pub snapshot: Option<String>,
    /// What the migration tool says of the schema; `None`: not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<SchemaChange>,
    /// Whether it changed anything; `None`: that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<bool>,
}

/// A migration that was taken back by its own `down` command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undone {
    /// The release that was migrated.
    pub release: ReleaseId,
    /// Which.
    pub database: DatabaseName,
    /// Under which number that release had gone live with it.
    pub at: u64,
}

/// What a migration tool said of a schema, before and after.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SchemaChange {
    /// Before the migration.
    pub before: Vec<SchemaVersion>,
    /// After it.
    pub after: Vec<SchemaVersion>,
}

/// The version of a schema, as a migration tool keeps it in a table of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchemaVersion {
    /// Whose table it is.
    pub tool: String,
    /// In the tool's own words; empty: no migration yet.
    pub version: String,
    /// The tool says that a migration did not come to its end, and refuses to go on.
    pub broken: bool,
}

impl std::fmt::Display for SchemaVersion {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let version = if self.version.is_empty() { "none" } else { &self.version };
        write!(formatter, "{version} ({}{})", self.tool, if self.broken { ", not finished" } else { "" })
    }
}

/// A snapshot that a run put in a database's place on its way to a live release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// Which.
    pub database: DatabaseName,
    /// Its file name under the backups folder.
    pub snapshot: String,
}

/// An image as the host's engine has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundImage {
    /// The engine's id.
    pub id: String,
    /// Content identity (S6).
    pub identity: ContentHash,
    /// Ports it says it listens on.
    pub exposed: Vec<u16>,
    /// It brings a HEALTHCHECK of its own.
    pub healthcheck: bool,
    /// Its command, for warnings (a shell as PID 1).
    pub command: Vec<String>,
    /// The files' rights and so on need it: `linux/amd64` …
    pub platform: String,
    /// Where it can be had again, by digest: `registry/name@sha256:…`; `None`: it came from no registry.
    #[serde(default)]
    pub origin: Option<String>,
}

/// A container engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundEngine {
    /// `Docker` or `Podman`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// `linux/amd64` …
    pub platform: String,
    /// Whether its bridge is reached from the host; else ports are published on loopback.
    pub bridge_reachable: bool,
    /// Networks it has, and routes of the host: subnets in use, as CIDR.
    pub subnets: Vec<String>,
    /// Where new networks are cut from, as CIDR.
    pub range: String,
    /// Our networks by name, with their subnet.
    pub networks: BTreeMap<String, String>,
    /// Volumes of this app by the engine's name.
    pub volumes: BTreeSet<String>,
}

/// A SQLite database as found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundDatabase {
    /// The absolute path on the host.
    pub path: String,
    /// Whether there is a file.
    pub exists: bool,
    /// Its size with its log, in bytes.
    pub bytes: u64,
}

//! The plan as data: a field per stage, each saying what to do, or why nothing. Comparable, serialisable, without behaviour.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use cutover_routes::Entry as RouteEntry;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::settings::{
    Compatible, HoldSettings, RunSettings, ServerKind, SnapshotPolicy, StopSettings, Strategy, Verify,
};
use crate::gate::Gate;
use crate::hash::ContentHash;
use crate::names::{
    AppId, DatabaseName, HostName, InstanceName, ReleaseId, RunId, ServiceName, Slot, VariableName,
};
use crate::release::{Content, Live, Release, RuntimeKind, Shipped};
use crate::retention::Leftover;
use crate::state::{Role, Undone};
use crate::template::Template;

/// The version of the plan's format on wire and disk.
pub const PLAN_VERSION: u32 = 1;

/// What a request will do, on every host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// By host.
    pub hosts: BTreeMap<HostName, HostPlan>,
}

/// What a request will do on one host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostPlan {
    /// [`PLAN_VERSION`].
    pub version: u32,
    /// The run that will carry it out.
    pub run: RunId,
    /// Whose.
    pub app: AppId,
    /// What was asked.
    pub verb: Verb,
    /// By whom.
    pub by: String,
    /// When it was made.
    pub made: Timestamp,
    /// Of the state it was made from; the host refuses when its own differs under the lock.
    pub fingerprint: ContentHash,
    /// Rules that were let pass.
    pub allowed: BTreeSet<Rule>,
    /// Towards what was asked, or back to what was.
    pub direction: Direction,
    /// What will be live; `None`: nothing (remove).
    pub release: Option<Release>,
    /// What is live when the plan is made; `None`: nothing.
    pub live: Option<Live>,
    /// What will be live, as it will be written at the switch.
    pub becomes: Option<Live>,
    /// What happens to each service, for people.
    pub services: BTreeMap<ServiceName, ServicePlan>,
    /// Where each variable comes from, for people.
    pub variables: BTreeMap<VariableName, crate::config::settings::Origin>,
    /// Rights, room, engine, secrets.
    pub preflight: Planned<PreflightPlan>,
    /// Networks, volumes, backing services absent so far.
    pub backing: Planned<BackingPlan>,
    /// Snapshots outside a handover.
    pub snapshot: Planned<SnapshotPlan>,
    /// Migrations outside a handover, and rehearsals.
    pub migrate: Planned<MigratePlan>,
    /// New instances beside the old.
    pub start: Planned<StartPlan>,
    /// Their gates.
    pub check: Planned<CheckPlan>,
    /// Routed singletons and groups.
    pub handover: Planned<HandoverPlan>,
    /// The commit point.
    pub switch: Planned<SwitchPlan>,
    /// The public route; then services without routes.
    pub verify: Planned<VerifyPlan>,
    /// Watching while the old is warm.
    pub bake: Planned<BakePlan>,
    /// What was replaced goes.
    pub drain: Planned<DrainPlan>,
    /// Records and retention.
    pub record: RecordPlan,
    /// Things worth saying.
    pub notes: Vec<String>,
}

/// Something to do, or why nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Planned<T> {
    /// Nothing, and why.
    NotNeeded(WhyNot),
    /// This.
    Do(T),
}

impl<T> Planned<T> {
    /// What to do, if anything.
    pub fn todo(&self) -> Option<&T> {
        match self {
            Self::Do(plan) => Some(plan),
            Self::NotNeeded(_) => None,
        }
    }
}

/// Why a stage has nothing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhyNot {
    /// Nothing differs from what is live.
    Unchanged,
    /// The app has none of it.
    None,
    /// All of it is there.
    Present,
    /// No migration is pending.
    NothingPending,
    /// It happens inside the handover.
    InHandover,
    /// `snapshot: none`, the recorded decision.
    Decided,
    /// `--skip-migrations`.
    SkipMigrations,
    /// Switched off (`bake: 0`, `--no-bake`).
    SwitchedOff,
    /// Nothing was live before.
    FirstDeploy,
    /// Found done by an earlier attempt.
    AlreadyDone,
    /// This verb has no such stage.
    NotInThisVerb,
}

impl WhyNot {
    /// The reason as people read it.
    pub fn text(self) -> &'static str {
        match self {
            Self::Unchanged => "nothing differs from what is live",
            Self::None => "the app has none",
            Self::Present => "all of it is there",
            Self::NothingPending => "no migration is pending",
            Self::InHandover => "it happens inside the handover",
            Self::Decided => "`snapshot: none` was decided",
            Self::SkipMigrations => "`--skip-migrations`",
            Self::SwitchedOff => "switched off",
            Self::FirstDeploy => "nothing was live before",
            Self::AlreadyDone => "done by an earlier attempt",
            Self::NotInThisVerb => "not part of this",
        }
    }
}

/// What can be asked of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// Put a release live.
    Deploy,
    /// Put a recorded release live.
    Rollback,
    /// The live release with other variables.
    Environment,
    /// The live release with another password, which a role of a backing service's server gets with it.
    SecretsRotate,
    /// New instances of the live release.
    Restart,
    /// Start what was stopped.
    Start,
    /// Stop services until they are started.
    Stop,
    /// Take the app off the host.
    Remove,
    /// A backing service made anew, as the live release wants it.
    BackingApply,
    /// A backing service stopped and started.
    BackingRestart,
    /// What nothing on the host needs is taken away.
    Prune,
    /// Snapshots of databases, as they are now.
    SnapshotCreate,
    /// A snapshot put in its database's place, or beside it.
    SnapshotRestore,
    /// Snapshots that nothing needs are taken away.
    SnapshotPrune,
    /// Migrations tried on a scratch database, which goes afterwards; what is live stays as it is.
    MigrateRehearse,
}

impl Verb {
    /// As people read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deploy => "deploy",
            Self::Rollback => "rollback",
            Self::Environment => "env change",
            Self::SecretsRotate => "secrets rotate",
            Self::Restart => "restart",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Remove => "remove",
            Self::BackingApply => "backing apply",
            Self::BackingRestart => "backing restart",
            Self::Prune => "prune",
            Self::SnapshotCreate => "snapshot create",
            Self::SnapshotRestore => "snapshot restore",
            Self::SnapshotPrune => "snapshot prune",
            Self::MigrateRehearse => "migrate rehearse",
        }
    }

    /// Whether it only takes away what nothing needs.
    pub fn is_prune(self) -> bool {
        matches!(self, Self::Prune | Self::SnapshotPrune)
    }

    /// Whether it is about a backing service, and no release changes.
    pub fn is_of_backing(self) -> bool {
        matches!(self, Self::BackingApply | Self::BackingRestart)
    }
}

/// Whether a plan goes towards what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Towards what was asked.
    Forward,
    /// Back to what was live before.
    Back,
}

/// The stages, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Held by the run.
    Lock,
    /// Rights, room, engine, secrets.
    Preflight,
    /// Networks, volumes, backing services.
    Backing,
    /// Outside a handover.
    Snapshot,
    /// Rehearsals, and migrations outside a handover.
    Migrate,
    /// New beside old.
    Start,
    /// Gates.
    Check,
    /// Singletons and groups.
    Handover,
    /// The commit point.
    Switch,
    /// The public route, then services without routes.
    Verify,
    /// Watching.
    Bake,
    /// The old goes.
    Drain,
    /// Records and retention.
    Record,
}

impl Stage {
    /// All, in their order.
    pub const ALL: [Self; 13] = [
        Self::Lock,
        Self::Preflight,
        Self::Backing,
        Self::Snapshot,
        Self::Migrate,
        Self::Start,
        Self::Check,
        Self::Handover,
        Self::Switch,
        Self::Verify,
        Self::Bake,
        Self::Drain,
        Self::Record,
    ];

    /// As people read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lock => "lock",
            Self::Preflight => "preflight",
            Self::Backing => "backing",
            Self::Snapshot => "snapshot",
            Self::Migrate => "migrate",
            Self::Start => "start",
            Self::Check => "check",
            Self::Handover => "handover",
            Self::Switch => "switch",
            Self::Verify => "verify",
            Self::Bake => "bake",
            Self::Drain => "drain",
            Self::Record => "record",
        }
    }
}

impl std::fmt::Display for Stage {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// The safety rules, by the name that `--allow` takes. Each is a function in `rules.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// A migration without a snapshot and without `snapshot: none`.
    MigrationWithoutSnapshot,
    /// A rollback to before a breaking migration.
    RollbackAcrossBreakingMigration,
    /// Less room than the plan needs.
    LowDisk,
    /// A commit that is a proper ancestor of the live one.
    OlderCommit,
    /// A route another app holds, or an app of this name from another repository.
    ForeignRoute,
    /// A required variable without a value, or a placeholder.
    MissingVariable,
    /// A rehearsed migration longer than half the hold's budget.
    LongHold,
    /// An env file others can read.
    OpenEnvFile,
    /// A breaking migration without the hold it needs.
    BreakingMigrationBesideOld,
}

impl Rule {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::MigrationWithoutSnapshot,
        Self::RollbackAcrossBreakingMigration,
        Self::LowDisk,
        Self::OlderCommit,
        Self::ForeignRoute,
        Self::MissingVariable,
        Self::LongHold,
        Self::OpenEnvFile,
        Self::BreakingMigrationBesideOld,
    ];

    /// The name that `--allow` takes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MigrationWithoutSnapshot => "migration-without-snapshot",
            Self::RollbackAcrossBreakingMigration => "rollback-across-breaking-migration",
            Self::LowDisk => "low-disk",
            Self::OlderCommit => "older-commit",
            Self::ForeignRoute => "foreign-route",
            Self::MissingVariable => "missing-variable",
            Self::LongHold => "long-hold",
            Self::OpenEnvFile => "open-env-file",
            Self::BreakingMigrationBesideOld => "breaking-migration-beside-old",
        }
    }

    /// Rules that nobody can let pass: what they guard belongs to somebody else, or cannot work.
    pub fn can_be_allowed(self) -> bool {
        !matches!(self, Self::ForeignRoute | Self::MissingVariable | Self::BreakingMigrationBesideOld)
    }
}

/// What happens to one service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "does", rename_all = "snake_case")]
pub enum ServicePlan {
    /// Stays as it is.
    Kept,
    /// Starts for the first time, or again.
    Started {
        /// Its instances.
        incoming: Vec<InstanceName>,
    },
    /// Is replaced.
    Replaced {
        /// Why: what differs.
        why: Vec<Change>,
        /// How.
        strategy: Strategy,
        /// What goes.
        outgoing: Vec<InstanceName>,
        /// What comes.
        incoming: Vec<InstanceName>,
    },
    /// Is no longer part of the app, or is stopped.
    Stopped {
        /// What goes.
        outgoing: Vec<InstanceName>,
    },
    /// Is stopped and started again: a backing service.
    Restarted {
        /// What.
        instances: Vec<InstanceName>,
    },
}

/// What differs between a service as it is live and as it is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Its image or artifact.
    Content,
    /// A file of the repository that is mounted into it.
    Files,
    /// Its settings.
    Settings,
    /// The value of a variable it uses.
    Variables,
    /// A service that it refers to.
    Url,
    /// It was asked for.
    Asked,
    /// Its instances are not all there.
    Missing,
}

/// All that is needed to make one instance, again and again alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceSpec {
    /// Its name.
    pub name: InstanceName,
    /// Whose.
    pub app: AppId,
    /// Which service it runs.
    pub service: ServiceName,
    /// What it is for.
    pub role: Role,
    /// Which release it is made for; its env file fills the open references.
    pub release: ReleaseId,
    /// Its colour.
    pub slot: Slot,
    /// Its number among equals, from 1.
    pub replica: u32,
    /// The run that plans it.
    pub run: RunId,
    /// What it is made of.
    pub content: Content,
    /// Files of the repository that are mounted into it, by their path beside cutover.yml.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub shipped: BTreeMap<String, Shipped>,
    /// How it runs.
    pub settings: RunSettings,
    /// The port it listens on.
    pub port: Option<u16>,
    /// Where the proxy and the probes reach it; fixed, so that a table from disk can never point at another's (S29).
    pub address: Option<SocketAddr>,
    /// The container networks it joins, the first one at its creation.
    pub networks: Vec<NetworkUse>,
    /// A host port on loopback that stands for the address where the bridge cannot be reached.
    pub published: Option<u16>,
    /// `${services.X.url}`.
    pub urls: BTreeMap<ServiceName, String>,
    /// `${databases.X.file}`, absolute.
    pub files: BTreeMap<DatabaseName, String>,
    /// The engine's volume name, or the folder of a plain process, by the volume's name in the configuration. Empty: one without a name, which is
    /// gone with the instance.
    pub volumes: BTreeMap<crate::names::VolumeName, String>,
    /// Variables of cutover's own: `PORT`, `CUTOVER_…`.
    pub given: BTreeMap<VariableName, String>,
    /// Set for a rehearsal: no network.
    pub isolated: bool,
    /// Set for a rehearsal on a scratch database: the network of this instance, which has none but itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_of: Option<InstanceName>,
}

impl InstanceSpec {
    /// What carries it.
    pub fn runtime(&self) -> RuntimeKind {
        self.content.runtime()
    }

    /// As far as stopping it needs it.
    pub fn reference(&self) -> InstanceRef {
        InstanceRef {
            name: self.name.clone(),
            service: self.service.clone(),
            runtime: self.runtime(),
            stop: self.settings.stop.clone(),
        }
    }

    /// What it needs of the host's artifact store.
    pub fn artifacts(&self) -> impl Iterator<Item = &ContentHash> {
        self.content.artifacts(&self.shipped)
    }

    /// The hash of all of it: what its label shows and a look compares.
    pub fn hash(&self) -> ContentHash {
        ContentHash::of_value(self)
    }
}

/// A network an instance joins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkUse {
    /// The engine's name of it.
    pub network: String,
    /// Names it answers to there.
    pub aliases: Vec<String>,
    /// A fixed address there.
    pub address: Option<std::net::Ipv4Addr>,
}

/// A network to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSpec {
    /// The engine's name of it.
    pub name: String,
    /// CIDR.
    pub subnet: String,
    /// The half the engine hands out of; the other half is ours (S29).
    pub range: String,
}

/// A volume to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeSpec {
    /// What carries it.
    pub runtime: RuntimeKind,
    /// The engine's name, or the folder.
    pub name: String,
    /// Made elsewhere: must be there already.
    pub external: bool,
}

/// An instance that exists, as far as stopping it needs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceRef {
    /// Its name, and its target id in the route table.
    pub name: InstanceName,
    /// Of which service.
    pub service: ServiceName,
    /// What carries it.
    pub runtime: RuntimeKind,
    /// How it is stopped.
    pub stop: StopSettings,
}

/// What a look must find before anything is touched.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PreflightPlan {
    /// Free bytes wanted where state lies.
    pub disk: u64,
    /// What must lie in the host's artifact store.
    pub artifacts: BTreeSet<ContentHash>,
    /// Images that must be there, by what the engine is asked for; fetched again where that is known how.
    pub images: BTreeMap<String, WantedImage>,
    /// An engine is needed.
    pub engine: bool,
    /// A proxy is needed.
    pub proxy: bool,
    /// How the release's env file is made.
    pub env: EnvSource,
    /// Names that must have a value in it.
    pub required: BTreeSet<VariableName>,
    /// Names that get a generated value in the host's env file where they have none.
    pub generate: BTreeSet<VariableName>,
    /// Host ports that must be free.
    pub ports: BTreeSet<SocketAddr>,
}

/// An image that must be on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WantedImage {
    /// Its identity.
    pub identity: ContentHash,
    /// What the configuration calls it, for people.
    pub name: Option<String>,
    /// Where it can be had again, by digest.
    pub origin: Option<String>,
    /// `linux/amd64` …, where the author says so.
    pub platform: Option<String>,
}

/// How a release's own env file is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EnvSource {
    /// The host's env file, with what the client sent over it.
    HostFile,
    /// What this release has in its own, with the host's env file and what the client sent over it: some of it came from a local file that is not read now.
    Release {
        /// The one that is live.
        base: ReleaseId,
    },
    /// The release has one already.
    Recorded,
}

/// What backing services and their surroundings need.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct BackingPlan {
    /// Networks that are absent.
    pub networks: Vec<NetworkSpec>,
    /// Volumes that are absent.
    pub volumes: Vec<VolumeSpec>,
    /// What goes first: backing services that an earlier deploy made otherwise, and that nothing which went live stands on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retire: Vec<InstanceRef>,
    /// Backing services that are absent, are down, or have not passed their gate yet, in the order of their dependencies.
    pub instances: Vec<GatedInstance>,
}

/// An instance with its gate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatedInstance {
    /// The instance.
    pub spec: InstanceSpec,
    /// What it must pass.
    pub gate: Gate,
}

/// Snapshots outside a handover: of databases with a server, before their migrations. SQLite's are taken inside (S16).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotPlan {
    /// Which. Of one with nothing pending none is taken.
    pub databases: BTreeSet<DatabaseName>,
    /// Those that somebody asked for, and no migration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asked: Vec<AskedSnapshot>,
    /// One that is put back beside its database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beside: Option<RestoredBeside>,
}

/// A snapshot that somebody asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskedSnapshot {
    /// Of which database.
    pub database: DatabaseName,
    /// Where it lies.
    pub place: DatabasePlace,
    /// The snapshot's file name under the backups folder.
    pub file: String,
}

/// A snapshot put back beside its database, which goes on as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoredBeside {
    /// Of which database.
    pub database: DatabaseName,
    /// Where that lies.
    pub place: DatabasePlace,
    /// The snapshot's file name under the backups folder.
    pub file: String,
    /// What is made: a database of that name in the same server, or a file of the host; it is not there yet.
    pub to: String,
    /// A run that was killed had begun to make it: what is there is its.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub begun: bool,
}

/// Rehearsals, and migrations outside a handover.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MigratePlan {
    /// What happens inside the handover of `if_pending`, where it is pending: SQLite's, rehearsed on a copy here, and breaking ones of other
    /// engines.
    pub rehearse: Vec<Migration>,
    /// Other engines: carried out here, after their snapshots.
    pub direct: Vec<Migration>,
    /// The plan to go on with when something is found pending: the group is handed over (S16, S18).
    pub if_pending: Option<Box<HostPlan>>,
    /// Those that somebody asked to see tried, and that change nothing live.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scratch: Vec<ScratchRehearsal>,
}

/// A migration tried on a database that is made of a snapshot, in a server of its own. Both one-off instances go afterwards.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScratchRehearsal {
    /// What is tried. Its place is that of the live database, which is looked at.
    pub migration: Migration,
    /// The snapshot's file name under the backups folder.
    pub snapshot: String,
    /// The scratch server: made as the live one is, with nothing of its volumes.
    pub server: InstanceSpec,
    /// Names of the live server that lead to the scratch server here. A migration that is told none of them is not begun.
    pub names: BTreeSet<String>,
    /// For the server to answer.
    #[serde(with = "crate::millis")]
    pub within: Duration,
}

/// One migration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Migration {
    /// Of which database.
    pub database: DatabaseName,
    /// Where it lies; `None`: nothing says so.
    pub place: Option<DatabasePlace>,
    /// The one-off instance that migrates, or the first of several.
    pub spec: InstanceSpec,
    /// The one-off instance whose exit code 0 says that nothing of the first is pending; `None`: something may be, or a rehearsal tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<Box<InstanceSpec>>,
    /// How long the first may take.
    #[serde(with = "crate::millis")]
    pub timeout: Duration,
    /// What is run after the first, one after another: all of them are one migration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub then: Vec<NextCommand>,
    /// Whether the old release can live with it.
    pub compatible: Compatible,
    /// Whether a snapshot is taken.
    pub snapshot: SnapshotPolicy,
    /// The file name of its snapshot under the backups folder.
    pub snapshot_file: String,
    /// The services that are handed over with it: one group.
    pub group: BTreeSet<ServiceName>,
    /// The release's other SQLite databases: a rehearsal gets copies of them, too.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub beside: BTreeMap<DatabaseName, FilePlace>,
    /// Deadline of the hold, for `refuse_long_hold`.
    #[serde(with = "crate::millis")]
    pub budget: Duration,
    /// It takes earlier ones back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub down: Option<Down>,
}

/// A further command of a migration. Of those that take migrations back, each is of the release whose migration it takes back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NextCommand {
    /// The one-off instance.
    pub spec: InstanceSpec,
    /// The one whose exit code 0 says that nothing of it is pending; `None`: something may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<Box<InstanceSpec>>,
    /// How long it may take.
    #[serde(with = "crate::millis")]
    pub timeout: Duration,
}

/// Migrations that are taken back by their own `down` commands, the newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Down {
    /// Of plans of earlier builds: what is run after the first one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub then: Vec<InstanceSpec>,
    /// What is undone by all of them.
    pub undoes: Vec<Undone>,
}

impl Migration {
    /// The one-off instances that change the database, in their order, each with how long it may take.
    pub fn commands(&self) -> impl Iterator<Item = (&InstanceSpec, Duration)> {
        let then = self.then.iter().map(|next| (&next.spec, next.timeout));
        let earlier = self.down.iter().flat_map(|down| &down.then).map(|spec| (spec, self.timeout));
        std::iter::once((&self.spec, self.timeout)).chain(then).chain(earlier)
    }

    /// The same without the time.
    pub fn instances(&self) -> impl Iterator<Item = &InstanceSpec> {
        self.commands().map(|(spec, _)| spec)
    }

    /// Those that are asked whether something is pending: nothing is where all of them end with 0. None: one of its commands cannot be asked, so
    /// that something may be.
    pub fn questions(&self) -> Vec<(&InstanceSpec, Duration)> {
        let then = self.then.iter().map(|next| Some((next.pending.as_deref()?, next.timeout)));
        let first = self.pending.as_deref().map(|pending| (pending, self.timeout));
        std::iter::once(first).chain(then).collect::<Option<_>>().unwrap_or_default()
    }

    /// All its one-off instances.
    pub fn specs_mut(&mut self) -> impl Iterator<Item = &mut InstanceSpec> {
        let then = self
            .then
            .iter_mut()
            .flat_map(|next| std::iter::once(&mut next.spec).chain(next.pending.as_deref_mut()));
        std::iter::once(&mut self.spec).chain(self.pending.as_deref_mut()).chain(then)
    }

    /// Where its file lies; `None`: it has a server.
    pub fn file(&self) -> Option<&FilePlace> {
        match self.place.as_ref()? {
            DatabasePlace::File(place) => Some(place),
            DatabasePlace::Server(_) => None,
        }
    }
}

/// Where a database lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum DatabasePlace {
    /// A file of SQLite.
    File(FilePlace),
    /// A server.
    Server(ServerPlace),
}

/// A database in a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerPlace {
    /// Which engine.
    pub kind: ServerKind,
    /// By which way its server is reached.
    pub reached: Reached,
    /// The database's name there; `None`: the one that the image made, or that the URL names.
    pub name: Option<String>,
}

/// By which way a server is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum Reached {
    /// Inside the instance of a backing service.
    Backing {
        /// Which.
        service: ServiceName,
        /// What carries it.
        runtime: RuntimeKind,
        /// The password of who comes from within, as the image is told it; references only, no values. `None`: nothing that a variable says.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        password: Option<Template>,
    },
    /// By its URL, from the host.
    Url {
        /// References only, no values.
        url: Template,
        /// Whose env file fills them.
        release: ReleaseId,
    },
}

/// Where a SQLite file lies on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilePlace {
    /// In which volume.
    pub volume: VolumeSpec,
    /// The volume's name in the configuration.
    pub name: crate::names::VolumeName,
    /// Its path below the volume.
    pub file: String,
}

/// New instances beside the old.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StartPlan {
    /// What goes first: warm instances of an earlier release that wear the colour the new ones will wear, and failed candidates of earlier
    /// deploys.
    pub retire: Vec<InstanceRef>,
    /// Waves: those of a later wave wait for the health of those before (`depends_on`).
    pub waves: Vec<Vec<GatedInstance>>,
    /// Kept instances that join the new slot's network.
    pub joins: Vec<NetworkMove>,
}

/// A kept instance and a network it joins or leaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkMove {
    /// The instance.
    pub instance: InstanceName,
    /// The network, with the names it answers to.
    pub network: NetworkUse,
}

/// Gates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckPlan {
    /// What must pass, each with its gate.
    pub instances: Vec<GatedInstance>,
}

/// Singletons and groups: prepare, hold, drain, stop old, migrate, start new, gate; the switch ends the hold (S13).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HandoverPlan {
    /// Services whose routes are held.
    pub hold: Vec<ServiceName>,
    /// The hold's bounds; its budget is the deadline.
    pub bounds: HoldSettings,
    /// What is stopped.
    pub outgoing: Vec<InstanceRef>,
    /// What happens to the databases while nothing has them open.
    pub databases: Vec<HeldDatabase>,
    /// What is started.
    pub incoming: Vec<GatedInstance>,
    /// What runs all the while and may need what is started here: gated after it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub afterwards: Vec<GatedInstance>,
}

/// What happens to a database while nothing has it open.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "act", rename_all = "snake_case")]
pub enum HeldDatabase {
    /// Snapshot, then migrate.
    Migrate {
        /// How.
        migration: Box<Migration>,
    },
    /// Put a snapshot in its place; with a snapshot of the present before it, when one is named.
    Restore {
        /// Which.
        database: DatabaseName,
        /// Where it lies.
        place: DatabasePlace,
        /// The snapshot's file name; `None`: there was no file of SQLite, and none stays.
        snapshot: Option<String>,
        /// Where the present is kept (a restore that somebody asked for); `None`: only candidates can have written (S16).
        present: Option<String>,
    },
    /// Give a role of a backing service's server another password.
    Password {
        /// Which.
        change: Box<PasswordChange>,
    },
    /// End what a migration of a run that was killed left in its server: it may hold what the old release waits for (S19).
    Settle {
        /// Which.
        database: DatabaseName,
        /// Where it lies.
        place: DatabasePlace,
    },
}

/// One role's password, and the two releases that are told it. The values are in their env files only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PasswordChange {
    /// The variable that says it.
    pub variable: VariableName,
    /// Of which backing service.
    pub service: ServiceName,
    /// The server, from within.
    pub place: ServerPlace,
    /// The port that apps come by, where it is not the usual one.
    pub port: Option<u16>,
    /// Whose password it is; references only, no values.
    pub role: Template,
    /// The password, as the image is told it; references only, no values.
    pub password: Template,
    /// Whose env file says what it was.
    pub from: ReleaseId,
    /// Whose env file says what it becomes.
    pub to: ReleaseId,
}

impl PasswordChange {
    /// The same change the other way.
    #[must_use]
    pub fn back(&self) -> Self {
        Self { from: self.to.clone(), to: self.from.clone(), ..self.clone() }
    }
}

/// The commit point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum SwitchPlan {
    /// The app's entry in the route table.
    Table {
        /// As found: what a switch back puts back.
        before: Option<RouteEntry>,
        /// As it will be; `None`: taken out.
        after: Option<RouteEntry>,
    },
    /// The live file of an app without routes; written when the last gate has passed.
    LiveFile,
}

/// The public route; then services without routes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VerifyPlan {
    /// Requests to be made through the proxy.
    pub routes: Vec<RouteCheck>,
    /// Services without routes, in the order of their dependencies.
    pub follow: Vec<Follow>,
}

/// A route that must answer with the new release.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RouteCheck {
    /// Of which service.
    pub service: ServiceName,
    /// Sent as `Host`.
    pub host: Option<String>,
    /// What is asked for: the gate's path below the route, or the route itself.
    pub path: String,
    /// Accepted status codes, from and to inclusive.
    pub status: (u16, u16),
    /// The targets of which one must have answered.
    pub targets: Vec<InstanceName>,
    /// What else the author wants to see.
    pub expect: Vec<Verify>,
}

/// A service without a route that changes after the routed ones have passed verify.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Follow {
    /// Which.
    pub service: ServiceName,
    /// `Handover`: old stopped before new is started. `BlueGreen`: new gated before old is stopped, in the drain.
    pub strategy: Strategy,
    /// What goes.
    pub outgoing: Vec<InstanceRef>,
    /// What comes.
    pub incoming: Vec<GatedInstance>,
}

/// Watching while the old is warm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BakePlan {
    /// How long.
    #[serde(with = "crate::millis")]
    pub duration: Duration,
    /// The new instances, whose exit or errors fail it.
    pub watched: Vec<InstanceRef>,
    /// The targets they replaced, for comparison.
    pub compared: Vec<InstanceName>,
}

/// What was replaced goes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DrainPlan {
    /// Instances that go.
    pub outgoing: Vec<InstanceRef>,
    /// For requests in flight.
    #[serde(with = "crate::millis")]
    pub deadline: Duration,
    /// Kept running so long instead.
    #[serde(with = "crate::millis")]
    pub keep_warm: Duration,
    /// Networks that kept instances leave.
    pub leaves: Vec<NetworkMove>,
    /// Instances that are stopped and kept for a look, one a service (a failed candidate); they are not removed.
    pub kept_candidates: Vec<InstanceName>,
}

/// Records and retention. By default nothing goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordPlan {
    /// Releases that nothing needs any more: their records, env files, artifacts and images.
    pub forget: Vec<ReleaseId>,
    /// Failed candidates of earlier deploys, where nothing new starts; else they went before that.
    pub candidates: Vec<InstanceRef>,
    /// Networks to be removed (remove).
    pub networks: Vec<String>,
    /// Volumes to be removed (remove --volumes).
    pub volumes: Vec<VolumeSpec>,
    /// The app's state folder goes (remove).
    pub forget_app: bool,
    /// With the env file and every volume of plain processes, also of releases that are on record no more (remove --volumes).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub data: bool,
    /// The env file stays (remove): a volume does, and may have been made with what it says.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub env_stays: bool,
    /// Snapshots of each database that stay, the newest, besides those that releases on record refer to; `None`: all. Where the release that is live
    /// says how long they stay, that counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshots: Option<u32>,
    /// What nothing on the host needs, as a look found it (prune). Looked at again before anything goes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leftovers: Vec<Leftover>,
}

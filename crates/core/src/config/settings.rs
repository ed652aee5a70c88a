//! The settled configuration of one environment: what `plan` reads, and, by way of the release record, what hosts carry out.
//!
//! Everything here has its default filled in and its public references resolved; what stays open in a [`Template`] is secret or known
//! to the plan only.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::backup::BackupSettings;
use crate::gate::Gate;
use crate::names::{AppId, DatabaseName, HostName, ServiceName, VariableName, VolumeName};
use crate::setup::SetupSettings;
use crate::template::Template;

/// One app in one environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// App and environment.
    pub id: AppId,
    /// Destructive verbs ask for the environment's name.
    pub protected: bool,
    /// The servers; empty means this machine.
    pub hosts: Vec<HostName>,
    /// What `cutover setup` leaves alone on them, and what it leaves open.
    pub setup: SetupSettings,
    /// Where images come from, with its credentials' references.
    pub registry: Option<Registry>,
    /// The services by name.
    pub services: BTreeMap<ServiceName, Service>,
    /// Images of migrations' own, by the name that they have for themselves.
    pub one_offs: BTreeMap<ServiceName, OneOff>,
    /// The backing services by name.
    pub backing: BTreeMap<ServiceName, Backing>,
    /// The databases by name.
    pub databases: BTreeMap<DatabaseName, Database>,
    /// The volumes by name.
    pub volumes: BTreeMap<VolumeName, Volume>,
    /// Backups; `None`: none are made.
    pub backup: Option<BackupSettings>,
    /// Watching after the switch; zero: none.
    pub bake: Duration,
    /// How long the old release keeps running after the bake.
    pub keep_warm: Duration,
    /// Releases that rollback can reach.
    pub keep: u32,
    /// Names without a value and `${X}` that no public source fills: the host must find a value for each.
    pub required: BTreeMap<VariableName, Origin>,
    /// Of `required`: passwords of backing services, made on the host when absent and kept in its env file.
    pub generate: BTreeSet<VariableName>,
    /// Public variables and where each came from, for the plan's listing.
    pub variables: BTreeMap<VariableName, Origin>,
    /// Keys ignored with a note, and other things worth saying.
    pub notes: Vec<String>,
}

impl Config {
    /// The platform that is asked for of a service or a backing service: `linux/amd64` …
    pub fn platform(&self, name: &ServiceName) -> Option<&str> {
        self.parts().find(|(part, ..)| *part == name)?.2.platform.as_deref()
    }

    /// All that instances are made of: its name, its source, and how it runs.
    pub fn parts(&self) -> impl Iterator<Item = (&ServiceName, &Source, &RunSettings)> {
        let services = self.services.iter().map(|(name, of)| (name, &of.source, &of.run));
        let one_offs = self.one_offs.iter().map(|(name, of)| (name, &of.source, &of.run));
        let backing = self.backing.iter().map(|(name, of)| (name, &of.source, &of.run));
        services.chain(one_offs).chain(backing)
    }

    /// Paths beside cutover.yml of all that is mounted and ships with the release.
    pub fn shipped(&self) -> impl Iterator<Item = &str> {
        self.parts().flat_map(|(_, _, run)| run.shipped())
    }
}

/// Where a variable's value comes from (never the value).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// `-v NAME=value`.
    CommandLine,
    /// The process environment of the command.
    ProcessEnvironment,
    /// `.env.<environment>` beside cutover.yml.
    LocalFile,
    /// The host's env file.
    HostFile,
    /// `environments.X.variables`.
    EnvironmentVariables,
    /// `environment:` in cutover.yml.
    Configuration,
    /// Made by cutover because it was absent.
    Generated,
    /// cutover's own (`CUTOVER_…`, `PORT`).
    Cutover,
}

/// A registry to pull from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registry {
    /// Its address.
    pub server: String,
    /// User name.
    pub username: Option<Template>,
    /// A reference; never a value.
    pub password: Option<Template>,
}

/// One long-running part of the app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// What it is made from.
    pub source: Source,
    /// How an instance runs.
    pub run: RunSettings,
    /// The port it listens on; given to it as `PORT`. Needed by routes and by http and tcp gates.
    pub port: Option<u16>,
    /// How requests reach it.
    pub route: Option<RouteSettings>,
    /// What a candidate must pass.
    pub gate: Gate,
    /// What the public route must show after the switch.
    pub verify: Vec<Verify>,
    /// How it is replaced.
    pub strategy: Strategy,
    /// Equal instances.
    pub replicas: u32,
    /// Bounds of its hold.
    pub hold: HoldSettings,
    /// How long requests in flight may finish on the old instances.
    #[serde(with = "crate::millis")]
    pub drain: Duration,
    /// Restart the last instance, too, when it turns unhealthy.
    pub restart_unhealthy: bool,
}

/// What a service is made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// An image of a registry or of the engine.
    Image {
        /// Its reference.
        reference: String,
    },
    /// An image to be built.
    Build(BuildSettings),
    /// A file or folder of the work tree, run as plain processes.
    Artifact {
        /// Relative to cutover.yml.
        path: String,
    },
}

/// How an image is built.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BuildSettings {
    /// Folder relative to cutover.yml.
    pub context: String,
    /// Relative to the context.
    pub dockerfile: String,
    /// Stage to stop at.
    pub target: Option<String>,
    /// Public values only.
    pub args: BTreeMap<String, String>,
    /// Whose engine builds it.
    #[serde(default, skip_serializing_if = "BuildPlace::is_here")]
    pub on: BuildPlace,
}

/// Whose engine builds an image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BuildPlace {
    /// That of the machine where the command is run.
    #[default]
    Here,
    /// The host's.
    Host,
}

impl BuildPlace {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde asks it")]
    fn is_here(&self) -> bool {
        *self == Self::Here
    }
}

/// How one instance runs: the Compose keys of its container, or what of them means something for a plain process.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RunSettings {
    /// Replaces the image's command; for an artifact, what is run.
    pub command: Option<Command>,
    /// Replaces the image's entrypoint.
    pub entrypoint: Option<Command>,
    /// Variables; open references are secret.
    pub environment: BTreeMap<VariableName, Template>,
    /// How it is stopped.
    pub stop: StopSettings,
    /// What must be up before it: service → condition.
    pub depends_on: BTreeMap<ServiceName, DependsOn>,
    /// Volumes, binds and tmpfs.
    pub mounts: Vec<Mount>,
    /// Ports published on the host, besides routes.
    pub ports: Vec<PublishedPort>,
    /// The user it runs as.
    pub user: Option<String>,
    /// Its working folder (for an artifact: below the artifact).
    pub working_dir: Option<String>,
    /// The host name it sees.
    pub hostname: Option<String>,
    /// The root file system cannot be written.
    pub read_only: bool,
    /// An init as PID 1.
    pub init: Option<bool>,
    /// Capabilities added.
    pub cap_add: Vec<String>,
    /// Capabilities dropped.
    pub cap_drop: Vec<String>,
    /// Security options.
    pub security_opt: Vec<String>,
    /// Bytes.
    pub memory: Option<u64>,
    /// Thousandths of a CPU.
    pub cpu_millis: Option<u64>,
    /// Processes.
    pub pids_limit: Option<i64>,
    /// Bytes of `/dev/shm`.
    pub shm_size: Option<u64>,
    /// Name → (soft, hard).
    pub ulimits: BTreeMap<String, (i64, i64)>,
    /// Kernel settings of the container.
    pub sysctls: BTreeMap<String, String>,
    /// `name:address`.
    pub extra_hosts: Vec<String>,
    /// Name servers.
    pub dns: Vec<String>,
    /// `host:container[:rights]`.
    pub devices: Vec<String>,
    /// The user's own labels.
    pub labels: BTreeMap<String, String>,
    /// Log driver and options.
    pub logging: Option<Logging>,
    /// The container's own health command; `None`: the image's.
    pub healthcheck: Option<OwnHealthcheck>,
    /// `linux/amd64` …
    pub platform: Option<String>,
}

impl RunSettings {
    /// Paths beside cutover.yml of what is mounted and ships with the release.
    pub fn shipped(&self) -> impl Iterator<Item = &str> {
        self.mounts.iter().filter_map(|mount| match mount {
            Mount::Shipped { source, .. } => Some(source.as_str()),
            Mount::Volume { .. } | Mount::Host { .. } | Mount::Tmpfs { .. } => None,
        })
    }
}

/// A command as words; text is split as Compose splits it, and no shell reads it unless the author names one.
pub type Command = Vec<Template>;

/// How an instance is stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopSettings {
    /// The signal's name without `SIG` (`TERM`, `INT`, `QUIT` …); `None`: the image's, else `TERM`.
    pub signal: Option<String>,
    /// From the signal to the kill.
    #[serde(with = "crate::millis")]
    pub grace: Duration,
}

impl Default for StopSettings {
    fn default() -> Self {
        Self { signal: None, grace: crate::defaults::STOP_GRACE }
    }
}

/// What must hold of another service before this one starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DependsOn {
    /// It has been started.
    Started,
    /// It passed its gate.
    Healthy,
}

/// Something mounted into an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mount {
    /// A volume that outlives releases.
    Volume {
        /// Which.
        volume: VolumeName,
        /// Where.
        target: String,
        /// Cannot be written.
        read_only: bool,
    },
    /// A file or folder of the repository that ships with the release; read-only.
    Shipped {
        /// Relative to cutover.yml.
        source: String,
        /// Where.
        target: String,
    },
    /// An absolute path of the host.
    Host {
        /// On the host.
        source: String,
        /// Where.
        target: String,
        /// Cannot be written.
        read_only: bool,
    },
    /// Memory.
    Tmpfs {
        /// Where.
        target: String,
        /// Mount options (`size=64m`).
        options: String,
    },
}

/// A port of an instance that the host publishes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedPort {
    /// 127.0.0.1 unless the author says otherwise.
    pub address: std::net::IpAddr,
    /// On the host.
    pub host: u16,
    /// In the instance.
    pub container: u16,
    /// UDP instead of TCP.
    pub udp: bool,
}

/// A container's log driver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logging {
    /// `json-file`, `local`, `journald` …
    pub driver: String,
    /// Its options.
    pub options: BTreeMap<String, String>,
}

/// What stands in the place of an image's own health command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OwnHealthcheck {
    /// Nothing: `disable: true`.
    Off,
    /// This.
    Command(Healthcheck),
}

impl OwnHealthcheck {
    /// The command, where there is one.
    pub fn command(&self) -> Option<&Healthcheck> {
        match self {
            Self::Off => None,
            Self::Command(healthcheck) => Some(healthcheck),
        }
    }
}

/// A container's own health command; run at cutover's pace while gating.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Healthcheck {
    /// Words to run (`CMD`), or a shell's text as `["/bin/sh", "-c", text]`.
    pub test: Vec<String>,
    /// The engine's own pace after the gate.
    #[serde(with = "crate::millis")]
    pub interval: Duration,
    /// For one try.
    #[serde(with = "crate::millis")]
    pub timeout: Duration,
    /// Tries until unhealthy.
    pub retries: u32,
    /// Failures do not count at first.
    #[serde(with = "crate::millis")]
    pub start_period: Duration,
}

/// How requests reach a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteSettings {
    /// Host names, lower case; empty: every host.
    pub hosts: Vec<String>,
    /// Path prefix, begins with `/`.
    pub path: String,
    /// Take the prefix off.
    pub strip: bool,
}

/// What the public route must show after the switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verify {
    /// A GET through the proxy.
    Http {
        /// On the route's host; whole path, not below the prefix.
        path: String,
        /// The body has this in it.
        contains: Option<String>,
        /// Dotted key → expected value in a JSON body.
        json: BTreeMap<String, String>,
    },
    /// A smoke test, run on the host in an instance of the service.
    Command {
        /// Its words.
        words: Vec<String>,
        /// How long it may take.
        #[serde(with = "crate::millis")]
        timeout: Duration,
    },
}

/// How a service is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// New beside old, then the switch.
    BlueGreen,
    /// Hold, drain, stop old, start new: never two at once.
    Handover,
}

/// Bounds of a hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldSettings {
    /// The budget: how long requests may be kept waiting.
    #[serde(with = "crate::millis")]
    pub budget: Duration,
    /// Requests waiting.
    pub requests: u32,
    /// Bytes of their bodies.
    pub bytes: u64,
}

/// A backing service: started when absent or down; one that a live release has is never replaced by a deploy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backing {
    /// What it is made from.
    pub source: Source,
    /// How it runs.
    pub run: RunSettings,
    /// The port its clients use.
    pub port: Option<u16>,
    /// When it counts as up.
    pub gate: Gate,
}

/// What only one-off instances are made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OneOff {
    /// What it is made from.
    pub source: Source,
    /// How it runs.
    pub run: RunSettings,
}

/// A database of the app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Database {
    /// Which engine, and where.
    pub engine: DatabaseEngine,
    /// How it is migrated: one after another, all of them one migration. None: it is not.
    #[serde(default, with = "crate::one_or_more")]
    pub migrate: Vec<Migrate>,
    /// `snapshot: none`, the recorded decision to go without.
    pub snapshot: SnapshotPolicy,
    /// How long its snapshots stay; `None`: the newest ten do, however old.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<Duration>,
}

impl Database {
    /// Whether the old release can live with what its migrations, all together, make of the schema.
    pub fn compatible(&self) -> Compatible {
        let is = |wanted: Compatible| self.migrate.iter().any(|one| one.compatible == wanted);
        match () {
            () if is(Compatible::Breaking) => Compatible::Breaking,
            () if self.migrate.is_empty() || is(Compatible::Undeclared) => Compatible::Undeclared,
            () => Compatible::Expand,
        }
    }
}

/// Which engine a database has, and where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "engine", rename_all = "lowercase")]
pub enum DatabaseEngine {
    /// A file in a volume.
    Sqlite {
        /// Where the file lies.
        volume: VolumeName,
        /// Its path below the volume.
        file: String,
        /// The services that open it: one group.
        services: Vec<ServiceName>,
    },
    /// A server: a backing service, or one outside.
    Server {
        /// Which.
        kind: ServerKind,
        /// The backing service; `None`: outside.
        service: Option<ServiceName>,
        /// Where it is, when it is outside.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        url: Option<Template>,
        /// The database's name in the backing service; `None`: the one that its image made.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// The services that write to it: stopped for a breaking migration. Empty: all.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        services: Vec<ServiceName>,
    },
}

/// An engine with a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServerKind {
    /// `PostgreSQL`.
    Postgres,
    /// `MySQL`.
    Mysql,
    /// `MariaDB`.
    Mariadb,
}

impl ServerKind {
    /// As the configuration has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Mysql => "mysql",
            Self::Mariadb => "mariadb",
        }
    }

    /// Whether a url that begins so is of it; a driver's name behind a `+` means nothing.
    pub fn has_scheme(self, scheme: &str) -> bool {
        self.schemes().contains(&scheme.split('+').next().unwrap_or_default())
    }

    /// What its urls begin with.
    pub const fn schemes(self) -> &'static [&'static str] {
        match self {
            Self::Postgres => &["postgres", "postgresql"],
            Self::Mysql | Self::Mariadb => &["mysql", "mysql2", "mariadb"],
        }
    }

    /// Whether a transaction takes back what was begun of tables, columns and indexes.
    pub fn takes_definitions_back(self) -> bool {
        self == Self::Postgres
    }
}

/// How a database is migrated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Migrate {
    /// In whose image or artifact, with whose variables: a service, or an image of its own (`one_offs`).
    pub service: ServiceName,
    /// What is run.
    pub command: Command,
    /// What tells whether something is pending: exit code 0 says that nothing is. `None`: something may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<Command>,
    /// How long it may take.
    #[serde(with = "crate::millis")]
    pub timeout: Duration,
    /// Whether the old release can live with the migrated schema.
    pub compatible: Compatible,
    /// What takes it back, for a rollback that asks for it; `None`: only the snapshot does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub down: Option<Command>,
}

/// Whether the old release can live with a migrated schema (S18).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compatible {
    /// It can.
    Expand,
    /// It cannot.
    Breaking,
    /// Nothing was said: counts as `expand`, and is recorded as undeclared.
    Undeclared,
}

/// Whether a snapshot is taken before a migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotPolicy {
    /// Always.
    BeforeMigration,
    /// `snapshot: none`.
    None,
}

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// The name of one made elsewhere (`external: true`); else cutover makes and names it.
    pub external: Option<String>,
}

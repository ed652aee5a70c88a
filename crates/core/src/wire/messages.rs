//! The messages. A client asks, the host answers each (but [`Ask::Alive`], [`Ask::Input`] and [`Ask::Resize`]) with one or more replies; the last one is never [`Reply::Doing`],
//! [`Reply::Progress`], [`Reply::Event`], [`Reply::Line`] or [`Reply::Data`].

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::backup::BackupState;
use crate::config::settings::Registry;
use crate::failure::Failure;
use crate::hash::ContentHash;
use crate::journal::{Entry, LockHolder};
use crate::names::{AppId, InstanceName, ReleaseId, RunId, ServiceName, VariableName};
use crate::plan::HostPlan;
use crate::retention::Leftovers;
use crate::state::{FoundImage, HostState};
use crate::verdict::Verdict;
use crate::wire::{HostFacts, ImageParts, Lacking};

/// The protocol's version; the sides must speak the same.
pub const WIRE_VERSION: u32 = 1;

/// From the client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Ask {
    /// First of all.
    Hello {
        /// [`WIRE_VERSION`] of the client.
        version: u32,
        /// The client's package version.
        package: String,
        /// It understands [`Reply::Progress`]; who does not is told none.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        progress: bool,
    },
    /// Look at the host for an app → [`Reply::State`].
    Observe {
        /// Which.
        app: AppId,
        /// Images whose identity the plan wants to know.
        images: BTreeSet<String>,
    },
    /// The files of an artifact follow as a tar archive of `bytes` bytes → [`Reply::Done`] once it is durable under `hash`.
    Artifact {
        /// Its content hash.
        hash: ContentHash,
        /// Bytes that follow.
        bytes: u64,
    },
    /// Fetch images that the host lacks from their registries; `env` bytes follow: an env file's text laid over the host's, for the
    /// registry's credentials → [`Reply::Doing`]s, then [`Reply::Images`].
    Fetch {
        /// For which app.
        app: AppId,
        /// References, each with the platform it is wanted for.
        images: BTreeMap<String, Option<String>>,
        /// Who we are to one of the registries.
        registry: Option<Registry>,
        /// Bytes of an env file that follow.
        env: u64,
    },
    /// Carry a plan out, detached; `env` bytes follow: an env file's text laid over the host's (0 for none).
    /// → [`Reply::Event`]s, then [`Reply::Verdict`], or with `detach` [`Reply::Done`] at once. A run that is known is attached to (S12).
    Run {
        /// The plan.
        plan: Box<HostPlan>,
        /// Bytes of an env file that follow.
        env: u64,
        /// Names that go out of the host's env file (`env unset`).
        unset: BTreeSet<VariableName>,
        /// Whether what was sent is also kept in the host's env file (`env set`), and not for this release only.
        keep_env: bool,
        /// Do not follow.
        detach: bool,
        /// Wait for the lock instead of refusing.
        wait: bool,
    },
    /// Follow or replay a run from an entry on → [`Reply::Event`]s, [`Reply::Verdict`].
    Attach {
        /// Which; `None`: the app's newest.
        run: Option<RunId>,
        /// Of which app.
        app: AppId,
        /// First `seq` wanted.
        from: u64,
    },
    /// Cancel the app's run → [`Reply::Done`], or refused.
    Cancel {
        /// Whose.
        app: AppId,
        /// Who asks.
        by: String,
    },
    /// What runs, as samples and probes know it → [`Reply::Health`].
    Health {
        /// Which.
        app: AppId,
    },
    /// Verdicts, newest first → [`Reply::History`].
    History {
        /// Whose.
        app: AppId,
        /// At most.
        limit: u32,
    },
    /// Log lines → [`Reply::Line`]s, then [`Reply::Done`]; with `follow` until the client leaves.
    Logs {
        /// Whose.
        app: AppId,
        /// Which services; empty: all.
        services: BTreeSet<ServiceName>,
        /// Of which release; `None`: the live one, candidates included.
        release: Option<ReleaseId>,
        /// From when.
        since: Option<Timestamp>,
        /// At most so many of the past, for each instance.
        tail: Option<u32>,
        /// Go on.
        follow: bool,
    },
    /// Run a command in a live instance, or with `once` in a fresh one of the live release → [`Reply::Data`]s, [`Reply::Exit`].
    Exec {
        /// Whose.
        app: AppId,
        /// Which service.
        service: ServiceName,
        /// Words.
        command: Vec<String>,
        /// In a fresh instance.
        once: bool,
        /// Size of the terminal to make, columns and rows; `None`: none.
        terminal: Option<(u16, u16)>,
    },
    /// For a running [`Ask::Exec`]: `bytes` of input follow; 0 ends the input.
    Input {
        /// Bytes that follow.
        bytes: u64,
    },
    /// For a running [`Ask::Exec`] with a terminal: its new size.
    Resize {
        /// Characters in a line.
        columns: u16,
        /// Lines.
        rows: u16,
    },
    /// The names in the host's env file, with what is masked of their values → [`Reply::Variables`].
    EnvList {
        /// Whose.
        app: AppId,
    },
    /// Change the host's env file without a release (`env set --no-deploy`); `bytes` of env file text follow → [`Reply::Done`].
    EnvStage {
        /// Whose.
        app: AppId,
        /// Bytes that follow.
        bytes: u64,
        /// Names that go.
        unset: BTreeSet<VariableName>,
    },
    /// Who holds the lock → [`Reply::Lock`].
    Lock {
        /// Of which app.
        app: AppId,
    },
    /// Start proxy and watch where nothing supervises them yet → [`Reply::Up`].
    Up,
    /// What the host lacks of the images and artifacts that a run is to use → [`Reply::Lacking`]. From here on until the run's end, or this session's where
    /// none begins, nobody takes them away (S26).
    Lacking {
        /// For which run.
        run: RunId,
        /// Which.
        images: Vec<ImageParts>,
        /// Artifacts that it is to use, which nobody takes away either.
        #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
        artifacts: BTreeSet<ContentHash>,
    },
    /// One layer of an image follows, compressed with zstd → [`Reply::Done`] once it is unpacked, found to be what it is called, and durable.
    Layer {
        /// The hash of what is in it, unpacked (its diff id).
        layer: ContentHash,
        /// Bytes that follow.
        bytes: u64,
    },
    /// Make an image of the layers that are there and those that were sent; its configuration follows, compressed with zstd
    /// → [`Reply::Lacking`] with the image, or with layers that lack after all.
    Load {
        /// Which.
        image: ImageParts,
        /// Bytes that follow.
        bytes: u64,
    },
    /// About what makes this server a host.
    Setup(super::setup::SetupAsk),
    /// Work on an app's backups; `env` bytes follow: an env file's text laid over the host's, for the repository's password and credentials
    /// → [`Reply::Doing`]s, then [`Reply::Backup`]. Work that changes something goes on when the client leaves.
    Backup {
        /// What.
        order: Box<super::BackupOrder>,
        /// Bytes of an env file that follow.
        env: u64,
    },
    /// What the host knows of an app's backups → [`Reply::Backups`].
    Backups {
        /// Whose.
        app: AppId,
    },
    /// About snapshots that lie on the host.
    Snapshots(super::SnapshotAsk),
    /// From now on a client that was silent for so long has left: a network that is gone tells nobody. An empty line between messages is a
    /// sign of life and nothing else. There is no answer.
    Alive {
        /// In milliseconds.
        silence_ms: u64,
    },
    /// Lead connections to a port of a service → [`Reply::Tunnel`]; then [`Ask::Through`] and [`Reply::Through`] until the client leaves.
    Tunnel {
        /// Whose.
        app: AppId,
        /// Which service or backing service.
        service: ServiceName,
        /// Which port of it; `None`: the one in its settings.
        port: Option<u16>,
    },
    /// Of one connection through a tunnel; with [`Through::Bytes`] they follow.
    Through {
        /// A number that the client chose when it opened it.
        connection: u32,
        /// What is said of it.
        what: Through,
    },
    /// What the machine is like, with the rights of an app's files → [`Reply::Facts`].
    Facts {
        /// Whose files are looked at.
        app: AppId,
    },
    /// Lists of files follow, as JSON of [`super::Parcel`]s compressed with zstd → [`Reply::Chunks`]: what of them lacks.
    Parcels {
        /// Bytes that follow.
        bytes: u64,
    },
    /// The next of the chunks that lack, one behind the other, compressed with zstd → [`Reply::Done`] once they were found to be what they are called.
    Chunks {
        /// How many they are.
        chunks: u32,
        /// Bytes that follow.
        bytes: u64,
    },
    /// All was sent: the files are made of it → [`Reply::Chunks`], with nothing that lacks once they are durable.
    Unpack,
    /// What nothing on the host needs any more → [`Reply::Leftovers`].
    Leftovers {
        /// Whose releases, images, snapshots, runs and logs are looked at; what belongs to no app is looked at, too.
        app: AppId,
    },
    /// Build an image from a context that was unpacked, for a run → [`Reply::Doing`]s, [`Reply::Images`]. It is not taken away before the run has
    /// ended (S26). Who leaves meanwhile ends the build.
    Build {
        /// For which run.
        run: RunId,
        /// What.
        order: Box<super::BuildOrder>,
    },
    /// Images of these names are about to be made on this host's engine, for a run → [`Reply::Done`]. They are not taken away before the run has ended,
    /// or this session where none begins (S26).
    Lease {
        /// For which run.
        run: RunId,
        /// Their names.
        images: BTreeSet<String>,
    },
}

/// From the host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// To [`Ask::Hello`].
    Hello {
        /// [`WIRE_VERSION`] of the host.
        version: u32,
        /// The host's package version.
        package: String,
        /// `x86_64-linux` …
        platform: String,
        /// The host's clock.
        now: Timestamp,
    },
    /// The host as found.
    State {
        /// It.
        state: Box<HostState>,
    },
    /// What is being done, for people who wait.
    Doing {
        /// In a few words.
        what: String,
    },
    /// How far what takes long is, while a run is followed, a backup worked on or a snapshot read; only to a client that said that it understands it.
    Progress {
        /// It.
        progress: super::Progress,
    },
    /// Images that were fetched.
    Images {
        /// By the reference asked for.
        images: BTreeMap<String, FoundImage>,
    },
    /// A line of a run's journal.
    Event {
        /// It.
        entry: Box<Entry>,
    },
    /// A run's end.
    Verdict {
        /// It.
        verdict: Box<Verdict>,
    },
    /// How the app's services are.
    Health {
        /// By service.
        services: BTreeMap<ServiceName, ServiceHealth>,
    },
    /// Verdicts.
    History {
        /// Newest first.
        verdicts: Vec<Verdict>,
    },
    /// A log line.
    Line {
        /// Of which instance.
        instance: InstanceName,
        /// When it was written.
        at: Option<Timestamp>,
        /// From the standard error stream.
        error: bool,
        /// The line.
        text: String,
    },
    /// Output of an exec; `bytes` follow.
    Data {
        /// From the standard error stream.
        error: bool,
        /// Bytes that follow.
        bytes: u64,
    },
    /// An exec's end.
    Exit {
        /// Its code (128 + signal, where one ended it).
        code: i32,
    },
    /// The host's env file.
    Variables {
        /// Name → masked value.
        masked: BTreeMap<VariableName, String>,
    },
    /// Who holds the lock.
    Lock {
        /// Nobody, if `None`.
        holder: Option<LockHolder>,
    },
    /// Proxy and watch are there.
    Up {
        /// Whether they were started now.
        started: bool,
        /// Where the proxy listens.
        listeners: Vec<std::net::SocketAddr>,
    },
    /// To [`Ask::Lacking`] and [`Ask::Load`].
    Lacking {
        /// What is there, and what lacks.
        lacking: Lacking,
    },
    /// About what makes this server a host.
    Setup(super::setup::SetupReply),
    /// The machine.
    Facts {
        /// As found.
        facts: Box<HostFacts>,
    },
    /// A tunnel leads here.
    Tunnel {
        /// Where the service is reached on the host.
        address: std::net::SocketAddr,
    },
    /// Of one connection through a tunnel; with [`Through::Bytes`] they follow.
    Through {
        /// Its number.
        connection: u32,
        /// What is said of it.
        what: Through,
    },
    /// To [`Ask::Parcels`] and [`Ask::Unpack`].
    Chunks {
        /// What lacks, as `(first, how many)` of the distinct chunks in the order of the parcels.
        lacking: Vec<(u32, u32)>,
    },
    /// What nothing on the host needs any more.
    Leftovers {
        /// As found.
        leftovers: Leftovers,
    },
    /// To [`Ask::Backup`].
    Backup {
        /// What became of it.
        told: Box<super::BackupTold>,
    },
    /// What the host knows of an app's backups.
    Backups {
        /// It.
        state: Box<BackupState>,
    },
    /// About snapshots that lie on the host.
    Snapshots(super::SnapshotReply),
    /// It is done.
    Done,
    /// It was not done.
    Failed {
        /// Why.
        failure: Box<Failure>,
    },
}

/// What is said of one connection through a tunnel, in either direction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "says", rename_all = "snake_case")]
pub enum Through {
    /// A new one (by the client only).
    Open,
    /// So many bytes follow.
    Bytes {
        /// How many.
        bytes: u64,
    },
    /// So many bytes were passed on: as many more may come.
    Room {
        /// How many.
        bytes: u64,
    },
    /// No more bytes come in this direction.
    End,
    /// It is over in both.
    Gone {
        /// Why it could not be, where it could not.
        why: Option<String>,
    },
}

/// How one service is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceHealth {
    /// Its instances.
    pub instances: Vec<InstanceHealth>,
    /// Stopped through cutover.
    pub stopped: bool,
    /// Wanted instances.
    pub wanted: u32,
}

/// How one instance is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceHealth {
    /// Which.
    pub name: InstanceName,
    /// As its runtime shows it.
    pub state: crate::state::InstanceState,
    /// It passes its gate now; `None`: not probed.
    pub healthy: Option<bool>,
    /// It ends again and again.
    pub crash_loop: bool,
    /// What the last failed probe found.
    pub finding: Option<crate::gate::Finding>,
}

//! What was found on a host: facts, no judgement.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::record::Record;
use crate::names::VariableName;

/// The facts that setup decides by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// What the system says it is.
    pub distribution: Distribution,
    /// What starts processes.
    pub init: Init,
    /// The folder that [`super::place::LINK`] leads to.
    pub linked: Option<String>,
    /// Proxy or watch still execute another program than that.
    pub outdated: bool,
    /// Installed packages, of those that setup may install.
    pub packages: BTreeSet<String>,
    /// Files that setup may write, with what is in them.
    pub files: BTreeMap<String, String>,
    /// The engine.
    pub engine: Engine,
    /// What stands beside the engine's file.
    pub engine_told: EngineTold,
    /// Units by name, of those that setup may enable.
    pub units: BTreeMap<String, Unit>,
    /// The rules the kernel has of ours, as [`super::ruleset`] would have written them; `None`: none, or others.
    pub firewall: Option<String>,
    /// sshd, as it says itself.
    pub ssh: SshFound,
    /// Where the proxy listens, or will.
    pub http: BTreeSet<u16>,
    /// Of those, which another process has, by its name.
    pub taken: BTreeMap<u16, String>,
    /// Who listens where others than this machine can reach it.
    pub listeners: BTreeSet<Listener>,
    /// Who is reached from outside otherwise than by a port of TCP or UDP, which is all that can be opened: in people's words.
    #[serde(default)]
    pub portless: BTreeSet<String>,
    /// Another firewall is at work, by its name.
    pub other_firewall: Option<String>,
    /// Whether something keeps the clock.
    pub clock: Clock,
    /// Names that have a value in the host's env file of the app.
    pub secrets: BTreeSet<VariableName>,
    /// Memory and disk.
    pub room: Room,
    /// What earlier setups did.
    pub record: Record,
}

/// From `os-release`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Distribution {
    /// `debian`, `ubuntu` …
    pub id: String,
    /// `12`, `24.04` …
    pub version: String,
    /// As people read it.
    pub name: String,
}

/// What starts processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Init {
    /// systemd.
    Systemd,
    /// Something else: `cutover-host up` keeps proxy and watch.
    Other,
}

/// The container engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Engine {
    /// Not installed.
    Absent,
    /// Installed; it does not answer.
    Silent,
    /// It answers.
    Answers {
        /// Containers that run.
        running: u32,
        /// They go on when it is restarted.
        live_restore: bool,
    },
}

/// What the engine goes by beside its own file: it does not start with the same said twice, or with what does not fit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineTold {
    /// It is part of a swarm, with which there is no live-restore.
    pub swarm: bool,
    /// Where output of containers goes; `None`: it does not answer.
    pub log_driver: Option<String>,
    /// Names of the flags it is started with, without dashes.
    pub flags: BTreeSet<String>,
}

/// A unit of the init system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// Started at boot.
    pub enabled: bool,
    /// At work, or waiting for its turn; not one that fails and is started again and again.
    pub active: bool,
}

/// Somebody who listens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Listener {
    /// By its name.
    pub name: String,
    /// UDP, else TCP.
    pub udp: bool,
    /// Where.
    pub port: u16,
}

impl Listener {
    /// The port as `open` of the environment names it.
    pub fn opening(&self) -> String {
        if self.udp { format!("{}/udp", self.port) } else { self.port.to_string() }
    }

    /// Ours: what has a route is open, and nobody else is to be heard there.
    pub(super) fn is_the_proxy(&self) -> bool {
        !self.udp && self.name == PROXY
    }
}

/// As the kernel names the proxy's process.
const PROXY: &str = "cutover-host";

impl std::fmt::Display for Listener {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let protocol = if self.udp { "UDP" } else { "TCP" };
        write!(out, "{} ({protocol} {})", self.name, self.port)
    }
}

/// sshd's settings as it tells them (`sshd -T`), and who came in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SshFound {
    /// Ports that it listens on by its settings or in fact, and the one of the connection that asks.
    pub ports: BTreeSet<u16>,
    /// Passwords are accepted, in one way or another.
    pub passwords: bool,
    /// `permitrootlogin`.
    pub root_login: String,
    /// Who came in.
    pub login: String,
    /// That user has a key here.
    pub has_key: bool,
    /// Others who log in by a password and have no key here.
    #[serde(default)]
    pub by_password: BTreeSet<String>,
    /// There is an sshd.
    pub installed: bool,
    /// The tunnel's interface by which that user came in; `None`: none.
    pub tunnel: Option<String>,
    /// The UDP port of that tunnel, where it is known.
    #[serde(default)]
    pub tunnel_port: Option<u16>,
}

/// Whether the clock is kept right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Clock {
    /// By a service that is enabled.
    Kept,
    /// By nothing that is known.
    Unkept,
}

/// Memory and disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room {
    /// Bytes of memory.
    pub memory: u64,
    /// Bytes of swap.
    pub swap: u64,
    /// Bytes free where the state lies.
    pub disk: u64,
}

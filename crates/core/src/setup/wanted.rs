//! What is wanted of a host: from the configuration.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::names::{AppId, VariableName};

/// A part of setup. Those that have a key in the configuration can be switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Item {
    /// `cutover-host` itself.
    Program,
    /// What backups are made with.
    Backups,
    /// Docker Engine.
    Docker,
    /// Rotation of logs, and limits of the logs of containers.
    Logs,
    /// Proxy and watch as units of the init system.
    Services,
    /// Security upgrades by themselves.
    Upgrades,
    /// A clock that is kept right.
    Time,
    /// Values made for secrets that have none.
    Secrets,
    /// What may come in.
    Firewall,
    /// Keys only.
    SshHardening,
}

impl Item {
    /// Those that have a key below `setup`, with the key.
    pub const KEYS: [(Self, &'static str); 7] = [
        (Self::Docker, "docker"),
        (Self::Logs, "logs"),
        (Self::Services, "services"),
        (Self::Upgrades, "upgrades"),
        (Self::Time, "time"),
        (Self::Firewall, "firewall"),
        (Self::SshHardening, "ssh_hardening"),
    ];
}

/// `environments.X.setup`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetupSettings {
    /// What is switched off.
    pub off: BTreeSet<Item>,
    /// TCP ports that the firewall leaves open, too.
    pub open: BTreeSet<u16>,
    /// UDP ports, the same.
    #[serde(default)]
    pub open_udp: BTreeSet<u16>,
}

/// Whether requests from outside are expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ingress {
    /// A service has a route.
    Routes,
    /// None has: a bot, a worker.
    None,
}

/// What is wanted of a host for one app and environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// For which.
    pub app: AppId,
    /// The folder below [`super::place::PROGRAMS`] for the program that carries it out: version and hash.
    pub program: String,
    /// What is switched off, and what is left open.
    pub settings: SetupSettings,
    /// Whether the firewall lets requests in.
    pub ingress: Ingress,
    /// Whether there are backups to be made.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub backups: bool,
    /// Secrets that are made where the host has no value for them.
    pub secrets: BTreeSet<VariableName>,
}

impl Wanted {
    pub(super) fn has(&self, item: Item) -> bool {
        !self.settings.off.contains(&item)
    }
}

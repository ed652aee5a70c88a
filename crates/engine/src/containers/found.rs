//! What containers say of themselves, as plain data.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use jiff::Timestamp;

use super::spec::{Endpoint, Environment, Protocol, RestartPolicy};

/// One container in a list: what can be known of all of them in one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The engine's id.
    pub id: String,
    /// Without the leading slash.
    pub name: String,
    /// All labels, also those of its image.
    pub labels: BTreeMap<String, String>,
    /// Where it is in its life.
    pub phase: Phase,
    /// Id of its image.
    pub image_id: String,
    /// Reference it was made from.
    pub image: String,
    /// By name of the network.
    pub networks: BTreeMap<String, Attached>,
    /// Ports bound on the host.
    pub ports: Vec<Published>,
}

/// One container in full.
#[derive(Debug, Clone, PartialEq)]
pub struct Container {
    /// The engine's id.
    pub id: String,
    /// Without the leading slash.
    pub name: String,
    /// All labels, also those of its image.
    pub labels: BTreeMap<String, String>,
    /// Its variables, the image's among them; `Debug` hides the values.
    pub environment: Environment,
    /// Id of its image.
    pub image_id: String,
    /// Reference it was made from.
    pub image: String,
    /// Where it is in its life, and how it ended.
    pub state: State,
    /// When it was last started.
    pub started_at: Option<Timestamp>,
    /// When it last ended, also where it runs again: output from before belongs to an earlier start.
    pub finished_at: Option<Timestamp>,
    /// When it was made.
    pub created_at: Option<Timestamp>,
    /// How often the engine started it again by itself.
    pub restarts: u64,
    /// What the engine does when it ends.
    pub restart: RestartPolicy,
    /// By name of the network.
    pub networks: BTreeMap<String, Attached>,
    /// Ports bound on the host.
    pub ports: Vec<Published>,
    /// Ports its image or spec says it listens on.
    pub exposed: Vec<(u16, Protocol)>,
    /// The engine's own probe, where it has one.
    pub health: Option<Health>,
    /// Command of the probe: `["CMD", …]` or `["CMD-SHELL", line]`, also from the image.
    pub health_test: Vec<String>,
    /// Process 1 of the container, as the host numbers it.
    pub pid: Option<u32>,
    /// Entrypoint and command, as run.
    pub command: Vec<String>,
    /// Signal that stops it; `None` is SIGTERM.
    pub stop_signal: Option<String>,
    /// Time between that and the kill; `None` is the engine's 10 s.
    pub stop_grace: Option<Duration>,
    /// Has a terminal, so that output and errors are one stream.
    pub terminal: bool,
}

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Made, never started.
    Created,
    /// Running.
    Running,
    /// Frozen.
    Paused,
    /// Ended; the engine starts it again after a pause.
    Restarting,
    /// On its way out of the engine.
    Removing,
    /// Ended.
    Exited,
    /// Ended, and the engine failed to remove it.
    Dead,
}

/// Where a container is in its life, with what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Made, never started.
    Created,
    /// Running.
    Running,
    /// Frozen.
    Paused,
    /// Ended so; the engine starts it again after a pause.
    Restarting(Exit),
    /// On its way out of the engine.
    Removing,
    /// Ended so.
    Exited(Exit),
    /// Ended so, and the engine failed to remove it.
    Dead(Exit),
}

impl State {
    /// Without the details.
    pub fn phase(&self) -> Phase {
        match self {
            Self::Created => Phase::Created,
            Self::Running => Phase::Running,
            Self::Paused => Phase::Paused,
            Self::Restarting(_) => Phase::Restarting,
            Self::Removing => Phase::Removing,
            Self::Exited(_) => Phase::Exited,
            Self::Dead(_) => Phase::Dead,
        }
    }
}

/// How a container ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exit {
    /// Exit code; 128 + n after signal n.
    pub code: i64,
    /// The kernel killed it for want of memory.
    pub out_of_memory: bool,
    /// The engine's words where it failed to start.
    pub error: String,
    /// When.
    pub finished_at: Option<Timestamp>,
}

impl Exit {
    /// The signal that ended it, as far as the code tells.
    pub fn signal(&self) -> Option<i64> {
        (129..=192).contains(&self.code).then(|| self.code - 128)
    }
}

/// A container's place on a network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attached {
    /// Id of the network.
    pub network_id: String,
    /// Address it has now; none while it does not run.
    pub address: Option<Ipv4Addr>,
    /// Address it was given for good, also while it does not run.
    pub fixed: Option<Ipv4Addr>,
    /// Names it answers to.
    pub aliases: Vec<String>,
}

/// A port bound on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// In the container.
    pub container: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// On the host.
    pub address: IpAddr,
    /// On the host.
    pub host: u16,
}

/// What the engine's own probe has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Its verdict.
    pub status: HealthStatus,
    /// Failures in a row.
    pub failures: u64,
    /// Output of the last probe.
    pub last_output: String,
}

/// Verdict of the engine's own probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealthStatus {
    /// Not known yet.
    Starting,
    /// Passed.
    Healthy,
    /// Failed as often as it may.
    Unhealthy,
}

impl Container {
    /// Whether it is on the network of that name or id.
    pub fn joined(&self, network: &str) -> bool {
        self.networks.iter().any(|(name, place)| name == network || place.network_id == network)
    }

    /// Whether it has that very place: network, address, every alias.
    pub(super) fn joined_as(&self, endpoint: &Endpoint) -> bool {
        let same = |name: &String, place: &Attached| {
            (*name == endpoint.network || place.network_id == endpoint.network)
                && endpoint
                    .address
                    .is_none_or(|address| place.fixed == Some(address) || place.address == Some(address))
                && endpoint.aliases.iter().all(|alias| place.aliases.contains(alias))
        };
        self.networks.iter().any(|(name, place)| same(name, place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_code_beyond_128_names_its_signal() {
        let exit = |code| Exit { code, ..Exit::default() };
        assert_eq!(exit(137).signal(), Some(9));
        assert_eq!(exit(1).signal(), None);
        assert_eq!(exit(255).signal(), None);
    }
}

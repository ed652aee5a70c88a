//! What a container is made of: plain data, filled in by the caller, sent as it is.
//!
//! The fields follow the Compose keys; which of them people may use, and their defaults, is decided by the caller.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

/// Variables of a container. Their values never appear in `Debug` (P6).
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// Sets a variable, replacing an earlier value.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.insert(name.into(), value.into());
    }

    /// The value of a variable; to be hashed or compared, never shown.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Names and values in order of name; to be hashed or compared, never shown.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        Self(variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_map().entries(self.0.keys().map(|name| (name, format_args!("[redacted]")))).finish()
    }
}

/// Everything `create` needs to know. `Default` gives a container with the image's own settings, on no network but the
/// engine's default bridge, without a restart policy (S4).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ContainerSpec {
    /// Unique on the engine; at least two characters.
    pub name: String,
    /// Reference or id.
    pub image: String,
    /// `os/architecture`; `None` takes what the image has.
    pub platform: Option<String>,
    /// Replaces the image's command.
    pub command: Option<Vec<String>>,
    /// Replaces the image's entrypoint; an empty list clears it.
    pub entrypoint: Option<Vec<String>>,
    /// Added to the image's variables.
    pub environment: Environment,
    /// How we find it again, and tell it from others'.
    pub labels: BTreeMap<String, String>,
    /// `user[:group]`.
    pub user: Option<String>,
    /// Further groups.
    pub groups: Vec<String>,
    /// Inside the container.
    pub working_folder: Option<String>,
    /// Its own name for itself.
    pub hostname: Option<String>,
    /// Its own domain.
    pub domain: Option<String>,
    /// A root file system that cannot be written to.
    pub read_only: bool,
    /// An init process of the engine's as process 1.
    pub init: Option<bool>,
    /// All rights on the host. Refusing that is the caller's business.
    pub privileged: bool,
    /// Capabilities beyond the engine's usual ones.
    pub capabilities_added: Vec<String>,
    /// Capabilities taken away; `ALL` takes every one.
    pub capabilities_dropped: Vec<String>,
    /// Such as `no-new-privileges:true`.
    pub security_options: Vec<String>,
    /// Kernel settings of its namespaces.
    pub kernel_settings: BTreeMap<String, String>,
    /// Devices of the host.
    pub devices: Vec<Device>,
    /// Memory, processor, processes.
    pub limits: Limits,
    /// Volumes and folders.
    pub mounts: Vec<Mount>,
    /// Folder → options (`size=64m,mode=1777`), held in memory.
    pub memory_folders: BTreeMap<String, String>,
    /// Size of `/dev/shm` in bytes.
    pub shared_memory: Option<u64>,
    /// Which networks, with which names and addresses.
    pub networking: Networking,
    /// Ports bound on the host.
    pub ports: Vec<Port>,
    /// Ports it listens on, to be seen by `inspect` only.
    pub exposed: Vec<(u16, Protocol)>,
    /// `name:address` lines for its hosts file.
    pub extra_hosts: Vec<String>,
    /// Name servers in place of the engine's choice.
    pub name_servers: Vec<IpAddr>,
    /// Domains searched for short names.
    pub search_domains: Vec<String>,
    /// `host`, `container:<id>`; `None` is its own.
    pub process_namespace: Option<String>,
    /// `host`, `shareable`, `container:<id>`; `None` is the engine's choice.
    pub ipc_namespace: Option<String>,
    /// The engine's own probe.
    pub health: Option<HealthCheck>,
    /// Where its output goes; `None` is the engine's choice.
    pub logging: Option<Logging>,
    /// Sent to stop it; `None` is the image's, else SIGTERM.
    pub stop_signal: Option<String>,
    /// Time between that signal and the kill.
    pub stop_grace: Option<Duration>,
    /// What the engine does when it ends.
    pub restart: RestartPolicy,
    /// A terminal for its process.
    pub terminal: bool,
    /// Its standard input stays open.
    pub open_input: bool,
}

/// What a container may use at most. `None` is no limit.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Limits {
    /// Bytes; beyond it the kernel kills.
    pub memory: Option<u64>,
    /// Bytes it is pressed down to when memory is short.
    pub memory_reservation: Option<u64>,
    /// Bytes of memory and swap together; -1 is no limit.
    pub memory_and_swap: Option<i64>,
    /// Processors, such as 1.5.
    pub processors: Option<f64>,
    /// Weight against others, 1024 being the usual.
    pub processor_shares: Option<u32>,
    /// Which processors, such as `0-1`.
    pub processor_set: Option<String>,
    /// Processes and threads.
    pub processes: Option<i64>,
    /// Resource limits of each process.
    pub ulimits: Vec<Ulimit>,
    /// -1000 (never) to 1000 (first) when the kernel looks for somebody to kill.
    pub out_of_memory_score: Option<i32>,
}

/// One resource limit, such as `nofile`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ulimit {
    /// As in `ulimit`: `nofile`, `nproc`, …
    pub name: String,
    /// What applies.
    pub soft: i64,
    /// What it may be raised to.
    pub hard: i64,
}

/// A device of the host, passed through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Path on the host.
    pub source: String,
    /// Path in the container.
    pub target: String,
    /// Some of `rwm`.
    pub permissions: String,
}

/// A folder or file from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Where it comes from.
    pub source: MountSource,
    /// Absolute path in the container.
    pub target: String,
    /// Cannot be written to from inside.
    pub read_only: bool,
}

/// Where a mount comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountSource {
    /// A volume of the engine; made without labels if absent, so make it first.
    Volume(String),
    /// A path on the host that has to exist: the engine refuses instead of making an empty folder.
    Path(PathBuf),
    /// A volume without a name, gone with the container.
    Anonymous,
}

/// The networks of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Networking {
    /// The engine's default bridge.
    #[default]
    Default,
    /// Loopback only.
    None,
    /// The host's own.
    Host,
    /// The network namespace of another container, by id or name.
    Of(String),
    /// Networks of ours, the first one at creation.
    Joined(Vec<Endpoint>),
}

/// A container's place on a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Name or id of the network.
    pub network: String,
    /// Names it answers to there.
    pub aliases: Vec<String>,
    /// Fixed address; `None` takes one from the network's range.
    pub address: Option<Ipv4Addr>,
}

/// A port bound on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// In the container.
    pub container: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Address on the host. Loopback unless people say otherwise: the engine opens the firewall for it.
    pub address: IpAddr,
    /// On the host; `None` takes any free one.
    pub host: Option<u16>,
}

/// Transport of a port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// Streams.
    #[default]
    Tcp,
    /// Datagrams.
    Udp,
    /// SCTP.
    Sctp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// The engine's own probe of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is run; `None` keeps the image's.
    pub test: Option<HealthTest>,
    /// Between two probes; the first comes one interval after the start.
    pub interval: Option<Duration>,
    /// For one probe.
    pub timeout: Option<Duration>,
    /// While it lasts, failures do not count.
    pub start_period: Option<Duration>,
    /// Failures until it counts as unhealthy.
    pub retries: Option<u32>,
}

/// What a probe runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HealthTest {
    /// No probe, also not the image's.
    Off,
    /// A command and its arguments.
    Command(Vec<String>),
    /// A line for the image's shell.
    Shell(String),
}

/// Where output goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logging {
    /// `json-file`, `local`, `journald`, `none`, …
    pub driver: String,
    /// The driver's options.
    pub options: BTreeMap<String, String>,
}

/// What the engine does when a container ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RestartPolicy {
    /// Nothing: its exit is an exit (S4).
    #[default]
    No,
    /// Starts it again, also after the engine's own restart.
    Always,
    /// As `Always`, unless it was stopped by a request.
    UnlessStopped,
    /// Only after a failure, at most so many times (0: without end).
    OnFailure {
        /// Restarts at most.
        times: u32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_variables_are_never_shown() {
        let spec = ContainerSpec {
            name: "web".to_owned(),
            environment: [("TOKEN", "hunter2")].into_iter().collect(),
            ..ContainerSpec::default()
        };
        let shown = format!("{spec:?} {spec:#?}");
        assert!(shown.contains("TOKEN") && shown.contains("[redacted]"), "{shown}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

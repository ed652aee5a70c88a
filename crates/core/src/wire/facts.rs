//! What a host says of itself beside any app: what `doctor`, `diff` and `status` need to know of the machine.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// A host as a machine. Found by looking; nothing is made or changed for it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFacts {
    /// The name it has for itself.
    pub name: String,
    /// Its system, as it calls itself: `Debian GNU/Linux 12 (bookworm)`.
    pub system: String,
    /// Whether the session has all rights.
    pub root: bool,
    /// The folders that cutover writes to.
    pub folders: Vec<FoundFolder>,
    /// Files with secrets in them that others may read.
    pub open_files: Vec<OpenFile>,
    /// The container engine that answers.
    pub engine: Option<EngineFacts>,
    /// Why none does, where none does.
    pub engine_trouble: Option<String>,
    /// Where the proxy listens, or would.
    pub ports: Vec<FoundPort>,
    /// What is wrong with the host's own configuration.
    pub host_file_trouble: Option<String>,
    /// Whether the proxy answers.
    pub proxy: bool,
    /// How the table on the disk stands to the one that is served.
    pub table_file: TableFile,
    /// Whether something sees to it that proxy and watch run: `cutover-host up`, or an init system's units.
    pub supervised: bool,
    /// For an unprivileged user under systemd: whether what it runs outlives its login.
    pub lingers: Option<bool>,
    /// The firewall that setup loaded is not in the kernel any more.
    #[serde(default)]
    pub firewall_gone: bool,
    /// Addresses of its own, loopback apart.
    pub addresses: Vec<IpAddr>,
}

/// A folder, its rights, and the disk it lies on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundFolder {
    /// What lies there, in a word or two.
    pub what: String,
    /// Where.
    pub path: String,
    /// Its permission bits; `None`: it is not there yet.
    pub mode: Option<u32>,
    /// Bytes for us.
    pub free: u64,
    /// Bytes in all.
    pub size: u64,
    /// Files that may still be made there; 0 of 0: its file system does not count them.
    pub inodes_free: u64,
    /// Files there may be in all.
    pub inodes: u64,
}

/// A file that others may read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenFile {
    /// Where it lies.
    pub path: String,
    /// Its permission bits.
    pub mode: u32,
}

/// A container engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineFacts {
    /// `Docker` or `Podman`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Such as `overlay2`.
    pub storage_driver: String,
    /// Whether it honours memory limits.
    pub limits_memory: bool,
}

/// An address the proxy wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundPort {
    /// Which.
    pub address: SocketAddr,
    /// Who has it.
    pub by: PortHolder,
}

/// Who has a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "who", rename_all = "snake_case")]
pub enum PortHolder {
    /// Nobody.
    Nobody,
    /// Our proxy.
    Ours,
    /// Somebody else, by name where it can be seen.
    Other {
        /// `nginx (process 812)`.
        name: Option<String>,
    },
}

/// How the table on the disk stands to the one that is served.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TableFile {
    /// No proxy answers, or there is no table yet.
    #[default]
    Unknown,
    /// It is the one that is served.
    Served,
    /// It is another one, or cannot be read: a proxy that starts would serve something else.
    Other,
}

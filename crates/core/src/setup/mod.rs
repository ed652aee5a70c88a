//! What makes a fresh server a host: what is wanted (from the configuration) beside what was found there gives a list of changes. Pure:
//! `--dry-run` shows the list, the host carries it out, looks again and must find nothing left to do. Found as wanted, the list is empty.

mod change;
mod decide;
mod engine_file;
mod firewall;
mod found;
mod record;
mod support;
mod texts;
mod wanted;

pub use change::{Act, Change, EngineEffect};
pub use decide::{Decision, decide};
pub use engine_file::without as engine_file_without;
pub use firewall::{Openings, ruleset};
pub use found::{Clock, Distribution, Engine, EngineTold, Found, Init, Listener, Room, SshFound, Unit};
pub use record::{AppSetup, RECORD_VERSION, Record};
pub use support::{SUPPORTED, refuse_unsupported};
pub use texts::{program, user_sshd, user_sudoers};
pub use wanted::{Ingress, Item, SetupSettings, Wanted};

/// Where things lie that setup makes outside the folders of an installation.
pub mod place {
    /// The programs, each in a folder of its own version (S23).
    pub const PROGRAMS: &str = "/usr/local/lib/cutover";
    /// What people and units call: a link to the newest.
    pub const LINK: &str = "/usr/local/bin/cutover-host";
    /// The unit of the proxy.
    pub const PROXY_UNIT: &str = "cutover-proxy.service";
    /// The unit of watch.
    pub const WATCH_UNIT: &str = "cutover-watch.service";
    /// The unit that loads the firewall's rules at boot.
    pub const FIREWALL_UNIT: &str = "cutover-firewall.service";
    /// The unit that takes back at boot what was on trial when the power went.
    pub const DEAD_MAN_UNIT: &str = "cutover-dead-man.service";
    /// Where units lie.
    pub const UNITS: &str = "/etc/systemd/system";
    /// What a person says of the host itself.
    pub const HOST_FILE: &str = "/var/lib/cutover/host.yml";
    /// The rules.
    pub const FIREWALL: &str = "/etc/cutover/firewall.nft";
    /// What sshd is told. The first value it reads counts: the name sorts before others.
    pub const SSHD: &str = "/etc/ssh/sshd_config.d/10-cutover.conf";
    /// What the engine is told.
    pub const ENGINE: &str = "/etc/docker/daemon.json";
    /// Rotation of the logs of our own processes.
    pub const LOGROTATE: &str = "/etc/logrotate.d/cutover";
    /// Security upgrades.
    pub const UPGRADES: &str = "/etc/apt/apt.conf.d/52cutover-upgrades";
    /// The user of CI keys.
    pub const USER: &str = "cutover";
    /// Where that user's keys lie.
    pub const KEYS: &str = "/etc/cutover/authorized_keys";
    /// What that user may do.
    pub const SUDOERS: &str = "/etc/sudoers.d/cutover";
    /// What sshd is told about that user.
    pub const SSHD_USER: &str = "/etc/ssh/sshd_config.d/20-cutover-user.conf";
}

#[cfg(test)]
mod tests;

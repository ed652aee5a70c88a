//! The files that setup writes, word for word.

use super::place::{KEYS, LINK, PROGRAMS, USER};

const HEAD: &str = "# Written by cutover setup; `cutover teardown` removes it.\n";

/// The proxy: root without root's powers, since its files are root's. It keeps its listening sockets in systemd's store: a restart, and a
/// crash, loses no connection.
pub(super) fn proxy_unit() -> String {
    format!(
        "{HEAD}[Unit]
Description=cutover proxy
Documentation=https://github.com/cutover/cutover
After=network.target
StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart={LINK} proxy
Restart=always
RestartSec=200ms
TimeoutStartSec=infinity
TimeoutStopSec=45s
KillMode=mixed
FileDescriptorStoreMax=16
LimitNOFILE=1048576
StandardError=append:/var/log/cutover/proxy.log
LogsDirectory=cutover
LogsDirectoryMode=0700
RuntimeDirectory=cutover
RuntimeDirectoryMode=0700
RuntimeDirectoryPreserve=yes
StateDirectory=cutover
StateDirectoryMode=0711
NoNewPrivileges=yes
CapabilityBoundingSet=CAP_NET_BIND_SERVICE
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
RestrictSUIDSGID=yes
RestrictRealtime=yes
LockPersonality=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK

[Install]
WantedBy=multi-user.target
"
    )
}

/// Watch. The instances it starts inherit what is taken from it, and must be able to do what they could when a deploy started them: so it
/// keeps more than the proxy.
pub(super) fn watch_unit() -> String {
    format!(
        "{HEAD}[Unit]
Description=cutover watch
Documentation=https://github.com/cutover/cutover
After=network.target docker.service cutover-proxy.service
StartLimitIntervalSec=0

[Service]
ExecStart={LINK} watch
Restart=always
RestartSec=200ms
TimeoutStopSec=45s
KillMode=mixed
StandardError=append:/var/log/cutover/watch.log
LogsDirectory=cutover
LogsDirectoryMode=0700
RuntimeDirectory=cutover
RuntimeDirectoryMode=0700
RuntimeDirectoryPreserve=yes
StateDirectory=cutover
StateDirectoryMode=0711
ProtectKernelModules=yes
ProtectKernelLogs=yes
RestrictRealtime=yes
LockPersonality=yes

[Install]
WantedBy=multi-user.target
"
    )
}

/// Loads the rules before anything listens, and again after the distribution's own, which begin by throwing away everybody's.
pub(super) fn firewall_unit(rules: &str) -> String {
    format!(
        "{HEAD}[Unit]
Description=cutover firewall
DefaultDependencies=no
Before=network-pre.target
Wants=network-pre.target
After=local-fs.target nftables.service
PartOf=nftables.service
ReloadPropagatedFrom=nftables.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/sbin/nft -f {rules}
ExecReload=/usr/sbin/nft -f {rules}
ExecStop=-/usr/sbin/nft delete table inet cutover

[Install]
WantedBy=multi-user.target
"
    )
}

/// What was on trial when the power went was never confirmed: it is taken back before sshd starts.
pub(super) fn dead_man_unit() -> String {
    format!(
        "{HEAD}[Unit]
Description=cutover: take back what was on trial when this machine stopped
DefaultDependencies=no
ConditionPathExists=|/var/lib/cutover/setup/trial.json
ConditionPathExists=|/var/lib/cutover/setup/trial.taken-back.json
ConditionPathExists=|/var/lib/cutover/setup/trial.confirmed.json
After=local-fs.target
Before=ssh.service sshd.service cutover-firewall.service

[Service]
Type=oneshot
ExecStart={LINK} dead-man --now

[Install]
WantedBy=multi-user.target
"
    )
}

pub(super) fn logrotate() -> String {
    format!(
        "{HEAD}/var/log/cutover/*.log {{
	size 10M
	rotate 3
	missingok
	notifempty
	copytruncate
}}
"
    )
}

pub(super) fn upgrades() -> String {
    "// Written by cutover setup; `cutover teardown` removes it.
APT::Periodic::Update-Package-Lists \"1\";
APT::Periodic::Unattended-Upgrade \"1\";
"
    .to_owned()
}

/// The root login is narrowed where it is open, and never opened where it is not.
pub(super) fn sshd(root: RootLogin) -> String {
    let root = match root {
        RootLogin::Narrowed => "PermitRootLogin prohibit-password\n",
        RootLogin::AsFound => "",
    };
    format!("{HEAD}PasswordAuthentication no\nKbdInteractiveAuthentication no\n{root}")
}

/// What becomes of the root login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RootLogin {
    Narrowed,
    AsFound,
}

/// Only the one command, whatever a key of theirs says.
pub fn user_sshd() -> String {
    format!(
        "{HEAD}Match User {USER}\n\tAuthorizedKeysFile {KEYS}\n\tForceCommand sudo -n {LINK} session\n\tPasswordAuthentication no\n\t\
         AllowTcpForwarding no\n\tAllowAgentForwarding no\n\tX11Forwarding no\n\tPermitTTY no\n\tPermitTunnel no\nMatch all\n"
    )
}

/// The one command that user may do as root.
pub fn user_sudoers() -> String {
    format!("{HEAD}Defaults:{USER} !requiretty\n{USER} ALL=(root) NOPASSWD: {LINK} session\n")
}

/// Where a program lies.
pub fn program(folder: &str) -> String {
    format!("{PROGRAMS}/{folder}/cutover-host")
}

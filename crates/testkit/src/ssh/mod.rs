//! A real `sshd` of a test's own on loopback, a client's configuration that knows it and nothing else, and a relay in front of it that delays,
//! narrows, cuts and resets.

mod client;
mod keys;
mod relay;
mod server;

pub use client::SshClient;
pub use relay::{Link, Relay};
pub use server::SshServer;

use std::path::{Path, PathBuf};

/// Why there can be no server here; `None` where there can.
pub fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("an sshd for tests needs root".to_owned());
    }
    let needed = [("sshd", sshd()), ("ssh", which("ssh")), ("ssh-keygen", which("ssh-keygen"))];
    let absent = needed.into_iter().find(|(_, found)| found.is_none());
    absent.map(|(program, _)| format!("there is no {program} (openssh-server, openssh-client)"))
}

fn sshd() -> Option<PathBuf> {
    which("sshd").or_else(|| Some(PathBuf::from("/usr/sbin/sshd")).filter(|path| path.is_file()))
}

fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// A script that anybody may run.
fn script(path: &Path, text: &str) -> std::io::Result<()> {
    std::fs::write(path, text)?;
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755))
}

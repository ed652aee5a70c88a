//! Keys of one server and of those who may enter it: nobody's own keys, agent or configuration are asked.

use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

/// Who works on a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    Root,
    /// May do all, by sudo without a password.
    Admin,
    /// May do nothing as root.
    Guest,
}

impl User {
    pub fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Admin => "admin",
            Self::Guest => "guest",
        }
    }

    fn home(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Admin => "home/admin",
            Self::Guest => "home/guest",
        }
    }

    const ALL: [Self; 3] = [Self::Root, Self::Admin, Self::Guest];
}

/// Files of a client that may enter one server, in a folder of their own.
pub(super) struct Access {
    folder: tempfile::TempDir,
}

impl Access {
    /// With new keys for both sides.
    pub(super) fn new() -> anyhow::Result<Self> {
        let access = Self { folder: tempfile::Builder::new().prefix("machine-").tempdir()? };
        for key in ["key", "host_key"] {
            let mut command = Command::new("ssh-keygen");
            command.args(["-q", "-t", "ed25519", "-N", "", "-C", "cutover-test", "-f"]).arg(access.path(key));
            ensure!(command.status().context("ssh-keygen")?.success(), "ssh-keygen made no key");
        }
        Ok(access)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A tree to be laid over the server's: its own key, and who may enter.
    pub(super) fn tree(&self) -> anyhow::Result<PathBuf> {
        let tree = self.path("tree");
        let ssh = tree.join("etc/ssh");
        std::fs::create_dir_all(&ssh)?;
        std::fs::copy(self.path("host_key"), ssh.join("ssh_host_ed25519_key"))?;
        std::fs::copy(self.path("host_key.pub"), ssh.join("ssh_host_ed25519_key.pub"))?;
        for user in User::ALL {
            let folder = tree.join(user.home()).join(".ssh");
            std::fs::create_dir_all(&folder)?;
            std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o700))?;
            std::fs::copy(self.path("key.pub"), folder.join("authorized_keys"))?;
        }
        Ok(tree)
    }

    /// Writes what the client needs to know of the server at this address.
    pub(super) fn write_client(&self, address: Ipv4Addr) -> anyhow::Result<()> {
        let key = std::fs::read_to_string(self.path("host_key.pub"))?;
        std::fs::write(self.path("known_hosts"), format!("{address} {key}"))?;
        let text = format!(
            "Host *\n  IdentityFile {}\n  IdentitiesOnly yes\n  IdentityAgent none\n  UserKnownHostsFile {}\n  StrictHostKeyChecking yes\n",
            self.path("key").display(),
            self.path("known_hosts").display()
        );
        std::fs::write(self.path("ssh_config"), text)?;
        self.write_program(&format!("exec ssh -F {} \"$@\"", self.path("ssh_config").display()))
    }

    /// The ssh that takes these files.
    pub(super) fn program(&self) -> PathBuf {
        self.path("ssh")
    }

    fn write_program(&self, line: &str) -> anyhow::Result<()> {
        let program = self.program();
        std::fs::write(&program, format!("#!/bin/sh\n{line}\n"))?;
        Ok(std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755))?)
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

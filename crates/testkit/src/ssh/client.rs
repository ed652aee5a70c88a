//! The client's side: a configuration of ssh that names one key and one file of known hosts, and a wrapper that counts how often ssh connects.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::SshServer;

/// ssh as one person has it set up.
pub struct SshClient {
    folder: PathBuf,
}

impl SshClient {
    /// Set up below `folder`, which must be there, for the key that `server` lets in; it knows no host yet.
    pub fn new(folder: &Path, server: &SshServer) -> std::io::Result<Self> {
        let client = Self { folder: folder.to_owned() };
        let config = format!(
            "Host *\n  IdentityFile {}\n  IdentitiesOnly yes\n  IdentityAgent none\n  UserKnownHostsFile {}\n  GlobalKnownHostsFile none\n",
            server.client_key().display(),
            client.known_hosts().display(),
        );
        std::fs::write(client.config(), config)?;
        client.knows("")?;
        super::script(&client.program(), &client.wrapper())?;
        Ok(client)
    }

    /// Asking ssh for its configuration connects to nobody, and is not counted.
    fn wrapper(&self) -> String {
        let (config, count) =
            (self.config().display().to_string(), self.executions_file().display().to_string());
        format!(
            "#!/bin/sh\ncase \" $* \" in *' -G '*) ;; *) echo \"$$\" >>'{count}' ;; esac\nexec ssh -F '{config}' \"$@\"\n"
        )
    }

    /// The program, for `CUTOVER_SSH`.
    pub fn program(&self) -> PathBuf {
        self.folder.join("ssh")
    }

    /// Its configuration.
    pub fn config(&self) -> PathBuf {
        self.folder.join("ssh_config")
    }

    /// The file of hosts it knows.
    pub fn known_hosts(&self) -> PathBuf {
        self.folder.join("known_hosts")
    }

    /// It knows these hosts, and no others.
    pub fn knows(&self, lines: &str) -> std::io::Result<()> {
        std::fs::write(self.known_hosts(), lines)
    }

    /// It knows the server, reached at these addresses.
    pub fn knows_at(&self, server: &SshServer, addresses: &[SocketAddr]) -> std::io::Result<()> {
        self.knows(&addresses.iter().map(|address| server.known_at(*address)).collect::<String>())
    }

    fn executions_file(&self) -> PathBuf {
        self.folder.join("executions")
    }

    /// How often ssh was executed to connect, so far.
    pub fn executions(&self) -> usize {
        std::fs::read_to_string(self.executions_file()).unwrap_or_default().lines().count()
    }
}

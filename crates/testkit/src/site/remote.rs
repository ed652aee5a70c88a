//! A site as a server: an sshd before it, and a client that is set up for it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cutover_core::variables;

use crate::ssh::{Link, Relay, SshClient, SshServer};

/// The environment that is on it.
pub(super) const ENVIRONMENT: &str = "production";

/// What lies between the command line and a site.
pub struct Remote {
    pub server: SshServer,
    pub client: SshClient,
    /// What the command line connects to.
    pub relay: Relay,
    /// Where a session finds `cutover-host`.
    programs: PathBuf,
}

impl Remote {
    pub(super) fn start(folder: &Path, host: &Path, variables: &[(&str, String)]) -> anyhow::Result<Self> {
        let (programs, of_server, of_client) =
            (folder.join("programs"), folder.join("sshd"), folder.join("client"));
        for folder in [&programs, &of_server, &of_client] {
            std::fs::create_dir(folder)?;
        }
        std::os::unix::fs::symlink(host, programs.join("cutover-host"))?;
        let server = SshServer::start(&of_server, &[])?;
        let relay = Relay::before(server.address(), Link::OPEN)?;
        let client = SshClient::new(&of_client, &server)?;
        client.knows_at(&server, &[relay.address(), server.address()])?;
        let remote = Self { server, client, relay, programs };
        remote.sessions_get(variables)?;
        Ok(remote)
    }

    /// Sessions get these from now on, and find `cutover-host`.
    pub(super) fn sessions_get(&self, variables: &[(&str, String)]) -> anyhow::Result<()> {
        let path = ("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", self.programs.display()));
        let all: Vec<(&str, String)> = variables.iter().cloned().chain([path]).collect();
        self.server.configure(&all, "")
    }

    /// How the configuration names it.
    pub fn host(&self) -> String {
        named(self.relay.address())
    }

    /// Adds to a configuration that the app is on it; one that says so already stays.
    pub fn own(&self, text: &str) -> String {
        if text.contains("environments:") {
            return text.to_owned();
        }
        format!("{}\nenvironments:\n  {ENVIRONMENT}: {{ hosts: [\"{}\"] }}\n", text.trim_end(), self.host())
    }

    /// A link with this round trip from now on.
    pub fn round_trip(&self, time: Duration) {
        self.relay.becomes(Link::with_round_trip(time));
    }

    /// Makes a command one of the client, to whom nothing tells where the site lies.
    pub(super) fn near(&self, command: &mut tokio::process::Command) {
        for name in [variables::ROOT, variables::HTTP, variables::HOST_BINARY] {
            command.env_remove(name);
        }
        command.env(variables::SSH, self.client.program());
    }
}

/// An address as the configuration has it.
fn named(address: SocketAddr) -> String {
    format!("root@{address}")
}

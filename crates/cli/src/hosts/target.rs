//! Which host a verb is about: this machine, or a server.

use std::path::{Path, PathBuf};
use std::time::Duration;

use cutover_core::defaults::{GREETING, GREETING_OF_SERVER, GREETING_OF_SERVER_WITH_PERSON};
use cutover_core::names::{EnvironmentName, HostName};

/// The file of host keys that lies beside cutover.yml, for everybody who works on the app.
const KNOWN_HOSTS: &str = "cutover.known_hosts";

/// Which host a verb is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// This machine.
    Here,
    /// A server, over SSH.
    Server(Box<Server>),
}

/// A server, and what it takes to reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) name: HostName,
    /// Whose host it is, for commands that people are told.
    pub(crate) environment: EnvironmentName,
    /// Beside cutover.yml; it need not be there.
    pub(crate) known_hosts: PathBuf,
    /// Whether ssh may ask a person, for a passphrase say.
    pub(crate) asks: bool,
}

impl Server {
    /// How a person goes there.
    pub(super) fn by_hand(&self) -> String {
        let port = self.name.port().map_or_else(String::new, |port| format!("-p {port} "));
        let user = self.name.user().map_or_else(String::new, |user| format!("{user}@"));
        format!("ssh {port}{user}{}", self.name.address())
    }
}

impl Target {
    /// The host of an environment whose configuration lies in `folder`. A configuration with several is refused where it is read.
    pub(crate) fn of(hosts: &[HostName], environment: &EnvironmentName, folder: &Path) -> Self {
        let Some(name) = hosts.first() else { return Self::Here };
        Self::Server(Box::new(Server {
            name: name.clone(),
            environment: environment.clone(),
            known_hosts: folder.join(KNOWN_HOSTS),
            // ssh asks on the terminal itself, wherever our input comes from.
            asks: std::io::IsTerminal::is_terminal(&std::io::stderr()),
        }))
    }

    /// Its name in plans.
    pub(crate) fn name(&self) -> HostName {
        match self {
            Self::Here => HostName::local(),
            Self::Server(server) => server.name.clone(),
        }
    }

    /// As people are told of it.
    pub(crate) fn shown(&self) -> &str {
        match self {
            Self::Here => "this machine",
            Self::Server(server) => server.name.as_str(),
        }
    }

    /// For its session to greet: on a server that includes the way to it, and what a person is asked on the way.
    pub(super) fn greeting(&self) -> Duration {
        match self {
            Self::Here => GREETING,
            Self::Server(server) if server.asks => GREETING_OF_SERVER_WITH_PERSON,
            Self::Server(_) => GREETING_OF_SERVER,
        }
    }
}

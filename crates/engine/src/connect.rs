//! Finding the engine and agreeing on an API version with it.
//!
//! The first thing every user of this crate does. Only a local socket is spoken to: another machine's engine is reached
//! by the session on that machine, never over a network port.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::models::LocalNodeState;
use bollard::{API_DEFAULT_VERSION, ClientVersion, Docker};

use crate::error::{Certainty, EngineError, Kind, Subject, explain};
#[cfg(unix)]
use crate::greeting::Greeting;

// bollard writes whole request bodies to the `log` facade at debug level, and a container's variables are in them (P6).
// The facade is compiled down to `info` by this crate's dependency on it; this line breaks the build if that is lost.
const _: () = assert!(matches!(
    log::STATIC_MAX_LEVEL,
    log::LevelFilter::Off | log::LevelFilter::Error | log::LevelFilter::Warn | log::LevelFilter::Info
));

/// The oldest engine API that does all that is needed.
const OLDEST: ClientVersion = ClientVersion { major_version: 1, minor_version: 41 };

/// How long an engine may take for the first answer, so that a hung one is told apart from a slow deploy.
const FIRST_ANSWER: Duration = Duration::from_secs(10);

/// Backstop for calls that should answer at once; deadlines of stages come from outside, by dropping the call.
const ORDINARY: Duration = Duration::from_mins(2);

/// Backstop for calls that answer when something in the container, the build or the registry is done.
const LONG: Duration = Duration::from_hours(24);

/// A connection to one engine. Cheap to clone; each call opens its own stream on the local socket.
#[derive(Clone)]
pub struct Engine {
    ordinary: Docker,
    long: Docker,
    address: String,
    product: Product,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Engine").field(&self.address).finish()
    }
}

/// What an engine says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineInfo {
    /// `Docker` or `Podman`.
    pub product: Product,
    /// Its version, as it writes it: `20.10.24+dfsg1`.
    pub version: String,
    /// The API version agreed on, such as `1.41`.
    pub api: String,
    /// The engine's own id; changes when its data folder does.
    pub id: String,
    /// Such as `overlay2`; `vfs` is slow and heavy.
    pub storage_driver: String,
    /// Where output of containers goes that name no driver of their own: `json-file`, `journald` …
    pub logging_driver: String,
    /// True where images live in containerd's store: an image's id is then the manifest's digest, not the configuration's.
    pub containerd_store: bool,
    /// The folder whose file system fills up with images and volumes.
    pub data_folder: PathBuf,
    /// True where the engine runs without root: bridges cannot be reached from the host.
    pub rootless: bool,
    /// Machine architecture as the kernel names it: `x86_64`, `aarch64`.
    pub architecture: String,
    /// Such as `linux`.
    pub operating_system: String,
    /// Memory limits are honoured.
    pub limits_memory: bool,
    /// Limits of the number of processes are honoured.
    pub limits_processes: bool,
    /// Containers that run.
    pub running: u32,
    /// Containers go on when the engine is restarted.
    pub live_restore: bool,
    /// It is part of a swarm.
    pub swarm: bool,
    /// What the engine itself warns of.
    pub warnings: Vec<String>,
}

/// The kinds of engine that speak this API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Product {
    /// Docker Engine (or Docker Desktop, Colima, …).
    Docker,
    /// Podman through its Docker-compatible socket.
    Podman,
}

impl Engine {
    /// Connects to the engine that answers: `DOCKER_HOST` if it is set, else the first of the usual sockets.
    ///
    /// # Errors
    /// `Unreachable`, naming each place tried and why not.
    pub async fn connect() -> Result<Self, EngineError> {
        if let Some(host) = std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty()) {
            return Self::connect_to(&host).await;
        }
        let mut tried = Vec::new();
        for address in usual_addresses() {
            match Self::connect_to(&address).await {
                Ok(engine) => return Ok(engine),
                Err(error) => tried.push(format!("{address} ({})", error.message)),
            }
        }
        Err(EngineError {
            kind: Kind::Unreachable,
            certainty: Certainty::NotDone,
            act: "find a container engine".to_owned(),
            message: format!("none answers; tried {}", tried.join(", ")),
        })
    }

    /// Connects to the engine at `address` (`unix:///…`, on Windows `npipe://…`) and agrees on the API version.
    pub async fn connect_to(address: &str) -> Result<Self, EngineError> {
        let act = || format!("connect to the container engine at {address}");
        let docker = Docker::connect_with_host(address).map_err(explain(Subject::Thing, act))?;
        let (agreed, product) = tokio::time::timeout(FIRST_ANSWER, agree(docker, address))
            .await
            .map_err(|_| no_answer(act(), FIRST_ANSWER))?
            .map_err(explain(Subject::Thing, act))
            .map_err(|error| EngineError { certainty: Certainty::NotDone, ..error })?;
        let version = agreed.client_version();
        if version < OLDEST {
            return Err(EngineError::refused(
                act(),
                format!("it speaks API {version}; {OLDEST} (Docker 20.10) is the oldest that will do"),
            ));
        }
        Ok(Self {
            ordinary: agreed.clone().with_timeout(ORDINARY),
            long: agreed.with_timeout(LONG),
            address: address.to_owned(),
            product,
        })
    }

    /// Where the engine was found.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Whether the engine answers within `deadline`.
    pub async fn ping(&self, deadline: Duration) -> Result<(), EngineError> {
        let act = || "ping the container engine".to_owned();
        tokio::time::timeout(deadline, self.ordinary.ping())
            .await
            .map_err(|_| no_answer(act(), deadline))?
            .map_err(explain(Subject::Thing, act))?;
        Ok(())
    }

    /// What the engine says of itself. Costs some 10 ms: once a run is enough.
    pub async fn info(&self) -> Result<EngineInfo, EngineError> {
        let act = || "ask the container engine about itself".to_owned();
        let info = self.ordinary.info().await.map_err(explain(Subject::Thing, act))?;
        let security = info.security_options.unwrap_or_default();
        let status = info.driver_status.unwrap_or_default();
        Ok(EngineInfo {
            product: self.product,
            version: info.server_version.unwrap_or_default(),
            api: self.ordinary.client_version().to_string(),
            id: info.id.unwrap_or_default(),
            storage_driver: info.driver.unwrap_or_default(),
            logging_driver: info.logging_driver.unwrap_or_default(),
            containerd_store: status.iter().flatten().any(|word| word == "io.containerd.snapshotter.v1"),
            data_folder: info.docker_root_dir.unwrap_or_default().into(),
            rootless: security.iter().any(|option| option.contains("rootless")),
            architecture: info.architecture.unwrap_or_default(),
            operating_system: info.os_type.unwrap_or_default(),
            limits_memory: info.memory_limit.unwrap_or(false),
            limits_processes: info.pids_limit.unwrap_or(false),
            running: info.containers_running.and_then(|count| u32::try_from(count).ok()).unwrap_or_default(),
            swarm: info
                .swarm
                .and_then(|swarm| swarm.local_node_state)
                .is_some_and(|state| !matches!(state, LocalNodeState::EMPTY | LocalNodeState::INACTIVE)),
            live_restore: info.live_restore_enabled.unwrap_or(false),
            warnings: info.warnings.unwrap_or_default(),
        })
    }

    /// For calls that answer at once.
    pub(crate) fn docker(&self) -> &Docker {
        &self.ordinary
    }

    /// For calls that last as long as what they wait for.
    pub(crate) fn docker_long(&self) -> &Docker {
        &self.long
    }

    /// Whether the agreed API is at least 1.`minor`.
    pub(crate) fn speaks(&self, minor: usize) -> bool {
        self.ordinary.client_version() >= ClientVersion { major_version: 1, minor_version: minor }
    }
}

/// The newest API that both speak, and what the engine is.
#[cfg(unix)]
async fn agree(_: Docker, address: &str) -> Result<(Docker, Product), bollard::errors::Error> {
    let socket = Path::new(address.strip_prefix("unix://").unwrap_or(address));
    let Greeting { api, product } = crate::greeting::hear(socket).await?;
    let agreed = if api < *API_DEFAULT_VERSION { api } else { *API_DEFAULT_VERSION };
    Ok((Docker::connect_with_unix(address, ORDINARY.as_secs(), &agreed)?, product))
}

/// The newest API that both speak, and what the engine is.
#[cfg(not(unix))]
async fn agree(docker: Docker, _: &str) -> Result<(Docker, Product), bollard::errors::Error> {
    let agreed = docker.negotiate_version().await?;
    let components = agreed.version().await?.components.unwrap_or_default();
    let podman = components.iter().any(|component| component.name.starts_with("Podman"));
    Ok((agreed, if podman { Product::Podman } else { Product::Docker }))
}

/// What this build can speak at most; an engine that wants more refuses.
pub fn newest_api() -> String {
    API_DEFAULT_VERSION.to_string()
}

fn no_answer(act: String, deadline: Duration) -> EngineError {
    EngineError {
        kind: Kind::Unreachable,
        certainty: Certainty::Unknown,
        act,
        message: format!("no answer within {deadline:?}"),
    }
}

#[cfg(windows)]
fn usual_addresses() -> Vec<String> {
    vec!["npipe:////./pipe/docker_engine".to_owned()]
}

/// Docker's socket, then a rootless Docker's, Docker Desktop's and Colima's, then Podman's.
#[cfg(not(windows))]
fn usual_addresses() -> Vec<String> {
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let home = folder("HOME");
    let runtime = folder("XDG_RUNTIME_DIR");
    let under = |base: &Option<PathBuf>, path: &str| base.as_ref().map(|base| base.join(path));
    let sockets = [
        Some(PathBuf::from("/var/run/docker.sock")),
        under(&runtime, "docker.sock"),
        under(&home, ".docker/run/docker.sock"),
        under(&home, ".colima/default/docker.sock"),
        Some(PathBuf::from("/run/podman/podman.sock")),
        under(&runtime, "podman/podman.sock"),
    ];
    // The first is kept although it is not there, so that an error names at least the usual place.
    let there = |(place, socket): &(usize, PathBuf)| *place == 0 || Path::exists(socket);
    sockets
        .into_iter()
        .flatten()
        .enumerate()
        .filter(there)
        .map(|(_, socket)| format!("unix://{}", socket.display()))
        .collect()
}

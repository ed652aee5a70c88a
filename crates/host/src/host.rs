//! One installation with all that acts on it: what sessions, runs and watch open first.

use std::sync::Arc;

use cutover_core::layout::Layout;

use crate::database::sqlite::Sqlite;
use crate::installation::{Installation, InstallationError};
use crate::ports::{Ports, Runtime};
use crate::probe::Probes;
use crate::router::proxy::ProxyRouter;
use crate::runtime::docker::DockerRuntime;
use crate::runtime::process::ProcessRuntime;
use crate::store::{Store, StoreError};

/// One installation, open.
#[derive(Clone)]
pub struct Host {
    /// Where things lie.
    pub layout: Layout,
    /// Its id and salt.
    pub installation: Installation,
    /// Its records.
    pub store: Arc<Store>,
    /// The ways to act.
    pub ports: Ports,
    /// The process runtime, for what only it can tell (keepers).
    pub process: Arc<ProcessRuntime>,
    /// The container runtime, for what only it can tell (images, networks).
    pub docker: Option<Arc<DockerRuntime>>,
}

/// Why an installation cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// Its id.
    #[error(transparent)]
    Installation(#[from] InstallationError),
    /// Its store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The path of this very program.
    #[error("this program's own path is not known: {0}")]
    Program(std::io::Error),
}

impl Host {
    /// Opens an installation; makes it where there is none yet.
    ///
    /// # Errors
    /// When its folder cannot be used, or a newer build wrote its store.
    pub async fn open(layout: Layout) -> Result<Self, HostError> {
        let installation = Installation::open(&layout)?;
        let store = Arc::new(Store::open(&layout)?);
        let program = std::env::current_exe().map_err(HostError::Program)?;
        let process = Arc::new(ProcessRuntime::new(layout.clone(), installation.id.clone(), program));
        // An engine that does not answer is told where it is needed: an app of plain processes needs none.
        let docker = match DockerRuntime::connect(&layout, &installation.id).await {
            Ok(docker) => docker.map(Arc::new),
            Err(error) => {
                tracing::warn!(%error, "no container engine");
                None
            }
        };
        let container = docker.clone().map(|docker| docker as Arc<dyn Runtime>);
        let listeners = crate::installation::http_listener_address(&layout).into_iter().collect();
        let ports = Ports {
            process: process.clone(),
            container: container.clone(),
            router: Arc::new(ProxyRouter::new(layout.clone())),
            database: Arc::new(Sqlite),
            prober: Arc::new(Probes::new(process.clone(), container, listeners)),
        };
        Ok(Self { layout, installation, store, ports, process, docker })
    }
}

//! One installation with all that acts on it: what sessions, runs and watch open first.

use std::sync::Arc;
use std::time::Duration;

use cutover_core::defaults;
use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::layout::Layout;
use cutover_core::names::AppId;
use cutover_core::release::{Content, Release, RuntimeKind};
use tokio::time::Instant;

use crate::database::Databases;
use crate::installation::{Installation, InstallationError};
use crate::meter::Meter;
use crate::ports::{Ports, Runtime};
use crate::probe::Probes;
use crate::program;
use crate::router::proxy::ProxyRouter;
use crate::runtime::docker::DockerRuntime;
use crate::runtime::process::ProcessRuntime;
use crate::store::{Store, StoreError};

/// Between two tries to find an engine that is not up yet.
const ENGINE_AGAIN: Duration = Duration::from_secs(1);

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
}

/// Whether a release has parts that only an engine carries.
pub(crate) fn needs_engine(release: &Release) -> bool {
    kinds(release).any(|kind| kind == RuntimeKind::Container)
}

/// What carries the parts of a release.
pub(crate) fn kinds(release: &Release) -> impl Iterator<Item = RuntimeKind> {
    release.contents().map(Content::runtime)
}

impl HostError {
    /// What helps.
    pub fn next(&self) -> Vec<String> {
        match self {
            Self::Installation(error) => error.next(),
            Self::Store(error) => error.next(),
        }
    }

    /// The four answers.
    pub fn failure(&self) -> Failure {
        let failure = Failure::new(Exit::Failed, "the state on this host cannot be opened")
            .because(self.to_string())
            .while_serving("not known: what was serving goes on");
        self.next().into_iter().fold(failure, Failure::next)
    }
}

impl Host {
    /// Opens an installation for an app's run. An engine that carries something of the app and does not answer is not up yet, as after a
    /// reboot: it is waited for (S4a).
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_for(layout: &Layout, app: &AppId) -> Result<Self, HostError> {
        let end = Instant::now() + defaults::ENGINE_UP;
        loop {
            let host = Self::open(layout.clone()).await?;
            let needed = host.docker.is_none() && host.app_needs_engine(app)?;
            if !needed || Instant::now() >= end {
                return Ok(host);
            }
            tracing::info!(%app, "the container engine does not answer yet and is waited for");
            tokio::time::sleep(ENGINE_AGAIN).await;
        }
    }

    /// Whether a release of the app that is on record has containers.
    pub(crate) fn app_needs_engine(&self, app: &AppId) -> Result<bool, StoreError> {
        Ok(self.store.releases(app)?.iter().any(|record| needs_engine(&record.release)))
    }

    /// Opens an installation; makes it where there is none yet.
    ///
    /// # Errors
    /// When its folder cannot be used, or a newer build wrote its store.
    pub async fn open(layout: Layout) -> Result<Self, HostError> {
        let installation = Installation::open(&layout)?;
        let store = Arc::new(Store::open(&layout)?);
        let process = Arc::new(ProcessRuntime::new(layout.clone(), installation.id.clone(), program::own()));
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
        let meter = Meter::default();
        let ports = Ports {
            process: process.clone(),
            container: container.clone(),
            router: Arc::new(ProxyRouter::new(layout.clone())),
            database: Arc::new(Databases { meter: meter.clone() }),
            prober: Arc::new(Probes::new(process.clone(), container, listeners)),
            meter,
        };
        Ok(Self { layout, installation, store, ports, process, docker })
    }
}

//! Instances as containers of the engine on this host.
//!
//! A thin translation: plans come in in cutover's words, calls go out by `cutover-engine`, what is found comes back as the core's own types. It
//! decides nothing, remembers nothing, and touches only what carries this installation's label (S6). Every act looks first, by name, and then acts by
//! id, so that it cannot meet what took the name in between.

mod attached;
mod error;
mod exits;
mod facts;
mod found;
mod images;
mod inside;
mod instance;
mod networks;
mod output;
mod sockets;
mod specification;
mod volumes;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use cutover_core::config::settings::StopSettings;
use cutover_core::layout::Layout;
use cutover_core::names::{AppId, InstanceName};
use cutover_core::plan::{InstanceSpec, NetworkSpec, NetworkUse, VolumeSpec};
use cutover_core::release::{BuiltImage, RuntimeKind};
use cutover_core::retention::HeldImage;
use cutover_core::secret::Secrets;
use cutover_core::state::{ExitStatus, FoundEngine, FoundImage, FoundInstance, RestartPolicy};
use cutover_engine::{Engine, EngineInfo, Kind};
use tokio::sync::OnceCell;

use crate::ports::{
    Attached, Doing, Exec, Finished, ImageRequest, LogLine, LogQuery, Runtime, RuntimeError, TerminalSize,
};
use error::failed;

/// The engine of this host, as one installation uses it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct DockerRuntime {
    engine: Engine,
    layout: Layout,
    installation: String,
    /// What the engine says of itself: asked once, it costs as much as ten looks at a container.
    info: Arc<OnceCell<EngineInfo>>,
}

impl DockerRuntime {
    /// Connects to the engine that answers: `DOCKER_HOST`, else the usual sockets. `None`: none does.
    ///
    /// # Errors
    /// When one answers that cannot be used (too old, say).
    pub async fn connect(layout: &Layout, installation: &str) -> Result<Option<Self>, RuntimeError> {
        match Engine::connect().await {
            Ok(engine) => Ok(Some(Self::on(engine, layout, installation))),
            Err(error) if error.kind == Kind::Unreachable => {
                tracing::debug!(%error, "no container engine");
                Ok(None)
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// On an engine that is connected already.
    pub fn on(engine: Engine, layout: &Layout, installation: &str) -> Self {
        Self { engine, layout: layout.clone(), installation: installation.to_owned(), info: Arc::default() }
    }

    /// The connection itself, for what is no matter of instances (building, listing images).
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Begins to ask the engine about itself, for somebody who will want to know: it takes it some 10 ms, and other work goes on meanwhile.
    pub fn ask_ahead(&self) {
        let runtime = self.clone();
        tokio::spawn(async move {
            if let Err(error) = runtime.info().await {
                // Whoever needs it asks again, and tells.
                tracing::debug!(%error, "the engine says nothing of itself");
            }
        });
    }

    async fn info(&self) -> Result<&EngineInfo, RuntimeError> {
        self.info.get_or_try_init(|| self.engine.info()).await.map_err(failed)
    }
}

#[async_trait]
impl Runtime for DockerRuntime {
    fn kind(&self) -> RuntimeKind {
        RuntimeKind::Container
    }

    async fn list(&self, app: &AppId) -> Result<Vec<FoundInstance>, RuntimeError> {
        self.list_instances(app).await
    }

    async fn inspect(&self, app: &AppId, name: &InstanceName) -> Result<Option<FoundInstance>, RuntimeError> {
        self.find_instance(app, name).await
    }

    async fn create(&self, spec: &InstanceSpec, values: &Secrets) -> Result<(), RuntimeError> {
        self.create_instance(spec, values).await
    }

    async fn start(&self, app: &AppId, name: &InstanceName) -> Result<(), RuntimeError> {
        self.start_instance(app, name).await
    }

    async fn stop(&self, app: &AppId, name: &InstanceName, stop: &StopSettings) -> Result<(), RuntimeError> {
        self.stop_instance(app, name, stop).await
    }

    async fn pause(&self, app: &AppId, name: &InstanceName) -> Result<(), RuntimeError> {
        self.pause_instance(app, name).await
    }

    async fn resume(&self, app: &AppId, name: &InstanceName) -> Result<(), RuntimeError> {
        self.resume_instance(app, name).await
    }

    async fn end(&self, app: &AppId, name: &InstanceName, stop: &StopSettings) -> Result<(), RuntimeError> {
        self.end_instance(app, name, stop).await
    }

    async fn remove(&self, app: &AppId, name: &InstanceName) -> Result<(), RuntimeError> {
        self.remove_instance(app, name).await
    }

    async fn set_restart(
        &self,
        app: &AppId,
        name: &InstanceName,
        policy: RestartPolicy,
    ) -> Result<(), RuntimeError> {
        self.set_instance_restart(app, name, policy).await
    }

    async fn exited(&self, app: &AppId, name: &InstanceName) -> Result<ExitStatus, RuntimeError> {
        self.end_of_instance(app, name).await
    }

    async fn logs(
        &self,
        app: &AppId,
        name: &InstanceName,
        query: &LogQuery,
    ) -> Result<Vec<LogLine>, RuntimeError> {
        self.instance_output(app, name, query).await
    }

    async fn exec(&self, app: &AppId, name: &InstanceName, exec: &Exec) -> Result<Finished, RuntimeError> {
        self.exec_inside(app, name, exec).await
    }

    async fn listening(&self, app: &AppId, name: &InstanceName) -> Result<Vec<SocketAddr>, RuntimeError> {
        self.listening_inside(app, name).await
    }

    async fn health_command(
        &self,
        app: &AppId,
        name: &InstanceName,
    ) -> Result<Option<Vec<String>>, RuntimeError> {
        self.own_health_command(app, name).await
    }

    async fn network_namespace(
        &self,
        app: &AppId,
        name: &InstanceName,
    ) -> Result<Option<PathBuf>, RuntimeError> {
        self.own_network_namespace(app, name).await
    }

    async fn attach(
        &self,
        app: &AppId,
        name: &InstanceName,
        words: &[String],
        terminal: Option<TerminalSize>,
    ) -> Result<Attached, RuntimeError> {
        self.attach_inside(app, name, words, terminal).await
    }

    async fn attach_fresh(
        &self,
        spec: &InstanceSpec,
        values: &Secrets,
        terminal: Option<TerminalSize>,
    ) -> Result<Attached, RuntimeError> {
        Self::attach_fresh(self, spec, values, terminal).await
    }

    async fn image(&self, reference: &str) -> Result<Option<FoundImage>, RuntimeError> {
        self.find_image(reference).await
    }

    async fn fetch_image(
        &self,
        request: &ImageRequest,
        doing: &mut Doing<'_>,
    ) -> Result<FoundImage, RuntimeError> {
        self.pull(request, doing).await
    }

    async fn remove_image(&self, image: &BuiltImage) -> Result<(), RuntimeError> {
        self.drop_image(image).await
    }

    async fn images(&self, app: &AppId) -> Result<Vec<HeldImage>, RuntimeError> {
        self.held_images(app).await
    }

    async fn data_folder(&self) -> Option<PathBuf> {
        let folder = self.info().await.ok()?.data_folder.clone();
        // An engine in a virtual machine has its disk there.
        folder.is_dir().then_some(folder)
    }

    async fn engine(&self, app: &AppId) -> Result<Option<FoundEngine>, RuntimeError> {
        self.facts(app).await.map(Some)
    }

    async fn ensure_network(&self, network: &NetworkSpec) -> Result<(), RuntimeError> {
        self.make_network(network).await
    }

    async fn join(&self, app: &AppId, name: &InstanceName, network: &NetworkUse) -> Result<(), RuntimeError> {
        self.join_network(app, name, network).await
    }

    async fn leave(&self, app: &AppId, name: &InstanceName, network: &str) -> Result<(), RuntimeError> {
        self.leave_network(app, name, network).await
    }

    async fn remove_network(&self, name: &str) -> Result<(), RuntimeError> {
        self.drop_network(name).await
    }

    async fn ensure_volume(&self, app: &AppId, volume: &VolumeSpec) -> Result<(), RuntimeError> {
        self.make_volume(app, volume).await
    }

    async fn remove_volume(&self, volume: &VolumeSpec) -> Result<(), RuntimeError> {
        self.drop_volume(volume).await
    }

    async fn volume_path(&self, volume: &VolumeSpec) -> Result<PathBuf, RuntimeError> {
        self.folder_of_volume(volume).await
    }
}

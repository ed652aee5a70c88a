//! The container engine of a site: kills as a person does them, and the end of all that the installation made on it.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use cutover_core::layout::{self, label};
use cutover_core::names::{AppId, VolumeName};
use cutover_engine::{ContainerSpec, Engine, Kind, Phase, RemoveVolumes};

use super::base;

/// For ending and clearing all of it.
const END: Duration = Duration::from_mins(1);

/// The engine of one site.
pub struct Docker {
    engine: Engine,
    base: String,
    /// Where the engine keeps volumes.
    volumes: PathBuf,
}

impl Docker {
    pub(super) async fn on(engine: Engine, program: &Path) -> anyhow::Result<Self> {
        let volumes = engine.info().await?.data_folder.join("volumes");
        let base = base::made(&engine, program).await?;
        Ok(Self { engine, base, volumes })
    }

    /// The engine itself.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// As `DOCKER_HOST` has it.
    pub fn address(&self) -> &str {
        self.engine.address()
    }

    /// The image that the example's images are made from.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The folder of an app's volume, on this machine.
    pub(super) fn volume(&self, app: &AppId, name: &VolumeName) -> PathBuf {
        self.volumes.join(layout::engine_volume(app, name)).join("_data")
    }

    /// How long the engine takes now to start a container of the example's program: what nobody who starts one can go below.
    pub async fn time_of_a_start(&self) -> anyhow::Result<Duration> {
        let spec = ContainerSpec {
            name: format!("cutover-test-{}", uuid::Uuid::new_v4().simple()),
            image: self.base.clone(),
            command: Some(["/app/guestbook", "bot"].map(str::to_owned).to_vec()),
            environment: [("BOT_LEDGER".to_owned(), "/ledger".to_owned())].into_iter().collect(),
            ..ContainerSpec::default()
        };
        self.engine.create(&spec).await?;
        let began = Instant::now();
        let started = self.engine.start(&spec.name).await;
        let took = began.elapsed();
        self.engine.kill_and_remove(&spec.name, RemoveVolumes::Unnamed).await?;
        Ok(started.map(|()| took)?)
    }

    /// `docker kill`.
    pub(super) async fn kill(&self, container: &str) -> anyhow::Result<()> {
        Ok(self.engine.signal(container, "KILL").await?)
    }

    /// Kills each container of the installation so that it stays dead.
    pub(super) fn kill_all(&self, installation: &str) -> anyhow::Result<()> {
        let (engine, labels) = (self.engine.clone(), of(installation));
        to_its_end(async move {
            for container in engine.list(&labels).await? {
                if !matches!(container.phase, Phase::Running | Phase::Restarting | Phase::Paused) {
                    continue;
                }
                match engine.signal(&container.id, "KILL").await {
                    // It ended by itself meanwhile.
                    Err(error) if matches!(error.kind, Kind::Conflict | Kind::Gone) => {}
                    other => other?,
                }
            }
            Ok(())
        })
    }

    /// Removes all that the installation and its apps made.
    pub(super) fn clear(&self, installation: &str, apps: &[AppId]) -> anyhow::Result<()> {
        let (engine, labels) = (self.engine.clone(), of(installation));
        let names: Vec<_> = apps.iter().map(|app| format!("cutover/{app}/")).collect();
        to_its_end(async move {
            for container in engine.list(&labels).await? {
                engine.kill_and_remove(&container.id, RemoveVolumes::Unnamed).await?;
            }
            for network in engine.list_networks(&labels).await? {
                engine.remove_network(&network.id).await?;
            }
            for volume in engine.list_volumes(&labels).await? {
                engine.remove_volume(&volume.name).await?;
            }
            let images = engine.list_images(&BTreeMap::new()).await?;
            let tags = images.into_iter().flat_map(|image| image.tags);
            for tag in tags.filter(|tag| names.iter().any(|name| tag.starts_with(name))) {
                engine.remove_image(&tag).await?;
            }
            Ok(())
        })
    }
}

fn of(installation: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(label::INSTALLATION.to_owned(), installation.to_owned())])
}

/// Also where nobody can wait: in a destructor, with a runtime that is going down.
fn to_its_end(work: impl Future<Output = anyhow::Result<()>> + Send + 'static) -> anyhow::Result<()> {
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime
            .block_on(async { tokio::time::timeout(END, work).await.context("the engine takes too long")? })
    });
    thread.join().map_err(|_| anyhow!("the thread that speaks with the engine ended"))?
}

//! The port: instances as plain processes. Every act looks at the instance's folder and its keeper first, so that it can be repeated; what a
//! keeper does goes on when its caller is dropped.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use async_trait::async_trait;
use cutover_core::config::settings::StopSettings;
use cutover_core::layout::Layout;
use cutover_core::names::{AppId, InstanceName};
use cutover_core::plan::{InstanceSpec, NetworkSpec, NetworkUse, VolumeSpec};
use cutover_core::release::RuntimeKind;
use cutover_core::secret::Secrets;
use cutover_core::state::{ExitStatus, FoundInstance, RestartPolicy};

use super::folder::{Folder, Record};
use super::launch::Launch;
use super::leftovers::Search;
use super::{attached, create, exec, exits, life, listening, logs, look, processes, volumes};
use crate::ports::{
    Attached, Certainty, Exec, Finished, LogLine, LogQuery, Runtime, RuntimeError, RuntimeErrorKind,
    TerminalSize,
};

/// Plain processes under keepers.
#[derive(Debug, Clone)]
pub struct ProcessRuntime {
    pub(super) layout: Layout,
    pub(super) installation: String,
    pub(super) host_binary: PathBuf,
    pub(super) boot: String,
}

impl ProcessRuntime {
    /// The processes of one installation; `host_binary` is the `cutover-host` whose `keep` supervises new starts.
    pub fn new(layout: Layout, installation: String, host_binary: PathBuf) -> Self {
        Self { layout, installation, host_binary, boot: processes::boot() }
    }

    /// The folder of an instance, whether or not it is there.
    pub(super) fn folder(&self, app: &AppId, name: &InstanceName) -> Folder {
        Folder::new(self.layout.instance(app, name))
    }

    /// The folder and record of an instance that is there.
    pub(super) fn existing(
        &self,
        app: &AppId,
        name: &InstanceName,
    ) -> Result<(Folder, Record), RuntimeError> {
        let folder = self.folder(app, name);
        if !folder.exists() {
            return Err(RuntimeError::new(
                RuntimeErrorKind::Gone,
                Certainty::NotDone,
                format!("there is no instance `{name}` of {app}"),
            ));
        }
        let record = folder.record()?;
        if record.installation != self.installation {
            return Err(RuntimeError::new(
                RuntimeErrorKind::Refused,
                Certainty::NotDone,
                format!("instance `{name}` of {app} belongs to another installation"),
            ));
        }
        Ok((folder, record))
    }
}

#[async_trait]
impl Runtime for ProcessRuntime {
    fn kind(&self) -> RuntimeKind {
        RuntimeKind::Process
    }

    async fn list(&self, app: &AppId) -> Result<Vec<FoundInstance>, RuntimeError> {
        look::list(self, app).await
    }

    async fn inspect(&self, app: &AppId, name: &InstanceName) -> Result<Option<FoundInstance>, RuntimeError> {
        look::inspect(self, &self.folder(app, name)).await
    }

    async fn create(&self, spec: &InstanceSpec, values: &Secrets) -> Result<(), RuntimeError> {
        let (runtime, spec, values) = (self.clone(), spec.clone(), values.clone());
        blocking(move || create::create(&runtime, &spec, &values)).await
    }

    async fn start(&self, app: &AppId, name: &InstanceName) -> Result<(), RuntimeError> {
        life::start(self, app, name).await
    }

    async fn stop(&self, app: &AppId, name: &InstanceName, stop: &StopSettings) -> Result<(), RuntimeError> {
        life::stop(self, app, name, stop).await
    }

    async fn pause(&self, app: &AppId, name: &InstanceName) -> Result<(), RuntimeError> {
        let (folder, record) = self.existing(app, name)?;
        Ok(Search::new(&record, folder.state().as_ref(), &self.boot).pause().await?)
    }

    async fn resume(&self, app: &AppId, name: &InstanceName) -> Result<(), RuntimeError> {
        if !self.folder(app, name).exists() {
            return Ok(());
        }
        let (folder, record) = self.existing(app, name)?;
        Ok(Search::new(&record, folder.state().as_ref(), &self.boot).resume().await?)
    }

    async fn remove(&self, app: &AppId, name: &InstanceName) -> Result<(), RuntimeError> {
        if let Some(found) = self.inspect(app, name).await?
            && (found.is_running() || self.is_kept(app, name).await?)
        {
            return Err(RuntimeError::new(
                RuntimeErrorKind::Refused,
                Certainty::NotDone,
                format!("instance `{name}` of {app} runs: it is stopped before it is removed"),
            ));
        }
        let (runtime, app, name) = (self.clone(), app.clone(), name.clone());
        blocking(move || create::remove(&runtime, &app, &name)).await
    }

    async fn set_restart(
        &self,
        app: &AppId,
        name: &InstanceName,
        policy: RestartPolicy,
    ) -> Result<(), RuntimeError> {
        life::set_restart(self, app, name, policy).await
    }

    async fn exited(&self, app: &AppId, name: &InstanceName) -> Result<ExitStatus, RuntimeError> {
        let (folder, record) = self.existing(app, name)?;
        Ok(exits::wait(&folder, &record, &self.boot).await?)
    }

    /// Whether a keeper lives. An instance that runs without one is an orphan, to be started again under a hold (S10).
    async fn is_kept(&self, app: &AppId, name: &InstanceName) -> Result<bool, RuntimeError> {
        Ok(self.folder(app, name).keeper()?.is_some())
    }

    async fn unkept(&self, app: &AppId, name: &InstanceName) -> Result<(), RuntimeError> {
        match self.folder(app, name).keeper()? {
            Some(keeper) => life::gone(keeper).await,
            None => Ok(()),
        }
    }

    async fn logs(
        &self,
        app: &AppId,
        name: &InstanceName,
        query: &LogQuery,
    ) -> Result<Vec<LogLine>, RuntimeError> {
        let (_, record) = self.existing(app, name)?;
        let query = query.clone();
        blocking(move || {
            logs::read(&record.log, &query).map_err(|error| {
                let text = format!("cannot read {}: {error}", record.log.display());
                RuntimeError::new(RuntimeErrorKind::Other, Certainty::NotDone, text)
            })
        })
        .await
    }

    async fn exec(&self, app: &AppId, name: &InstanceName, wanted: &Exec) -> Result<Finished, RuntimeError> {
        let (folder, record) = self.existing(app, name)?;
        let launch = Launch::new(&record, &folder.values()?, Some(&wanted.words))?;
        match exec::run(&launch, wanted.timeout).await {
            Ok(Some(finished)) => Ok(finished),
            Ok(None) => Err(RuntimeError::new(
                RuntimeErrorKind::Late,
                Certainty::Unknown,
                format!("the command did not end within {} ms and was killed", wanted.timeout.as_millis()),
            )),
            Err(error) => Err(launch.refused(&error).into()),
        }
    }

    async fn attach(
        &self,
        app: &AppId,
        name: &InstanceName,
        words: &[String],
        terminal: Option<TerminalSize>,
    ) -> Result<Attached, RuntimeError> {
        let (folder, record) = self.existing(app, name)?;
        let launch = Launch::new(&record, &folder.values()?, Some(words))?;
        attached::start(&launch, &self.host_binary, terminal).map_err(|error| launch.refused(&error).into())
    }

    /// It runs without a keeper: it is somebody's for as long as they are at it.
    async fn attach_fresh(
        &self,
        spec: &InstanceSpec,
        values: &Secrets,
        terminal: Option<TerminalSize>,
    ) -> Result<Attached, RuntimeError> {
        self.create(spec, values).await?;
        let (folder, record) = self.existing(&spec.app, &spec.name)?;
        let launch = Launch::new(&record, &folder.values()?, None)?;
        attached::start(&launch, &self.host_binary, terminal).map_err(|error| launch.refused(&error).into())
    }

    async fn listening(&self, app: &AppId, name: &InstanceName) -> Result<Vec<SocketAddr>, RuntimeError> {
        let (folder, record) = self.existing(app, name)?;
        let search = Search::new(&record, folder.state().as_ref(), &self.boot);
        blocking(move || {
            let found: BTreeSet<i32> = search.find().into_iter().map(|id| id.pid).collect();
            let members: Vec<_> = found.into_iter().filter_map(processes::stat).collect();
            Ok(listening::addresses(&members))
        })
        .await
    }

    async fn health_command(
        &self,
        app: &AppId,
        name: &InstanceName,
    ) -> Result<Option<Vec<String>>, RuntimeError> {
        let (_, record) = self.existing(app, name)?;
        Ok(record.spec.settings.healthcheck.as_ref().and_then(|own| Some(own.command()?.test.clone())))
    }

    /// Plain processes share the host's network.
    async fn ensure_network(&self, _network: &NetworkSpec) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn join(
        &self,
        _app: &AppId,
        _name: &InstanceName,
        _network: &NetworkUse,
    ) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn leave(&self, _app: &AppId, _name: &InstanceName, _network: &str) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn remove_network(&self, _name: &str) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn ensure_volume(&self, _app: &AppId, volume: &VolumeSpec) -> Result<(), RuntimeError> {
        Ok(volumes::ensure(&self.layout, volume)?)
    }

    async fn remove_volume(&self, volume: &VolumeSpec) -> Result<(), RuntimeError> {
        let (layout, volume) = (self.layout.clone(), volume.clone());
        blocking(move || Ok(volumes::remove(&layout, &volume)?)).await
    }

    async fn volume_path(&self, volume: &VolumeSpec) -> Result<PathBuf, RuntimeError> {
        Ok(PathBuf::from(&volume.name))
    }
}

/// Work that waits for the disk. Dropped, it is still carried to its end; every act can be repeated.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RuntimeError> + Send + 'static,
) -> Result<T, RuntimeError> {
    crate::blocking::blocking(work).await.unwrap_or_else(|error| {
        Err(RuntimeError::new(RuntimeErrorKind::Other, Certainty::Unknown, error.to_string()))
    })
}

//! The life of a container as an instance: looked at, made, started, stopped, gone. Each act can be repeated.

use std::collections::BTreeMap;

use cutover_core::config::settings::StopSettings;
use cutover_core::defaults;
use cutover_core::layout::{self, label};
use cutover_core::names::{AppId, InstanceName};
use cutover_core::plan::InstanceSpec;
use cutover_core::secret::Secrets;
use cutover_core::state::{FoundInstance, RestartPolicy, Role};
use cutover_engine::{
    Container, ContainerSpec, EngineError, Kind, MountSource, Phase, RemoveVolumes,
    RestartPolicy as EnginePolicy, State,
};
use futures_util::future::try_join_all;

use super::DockerRuntime;
use super::error::{as_kind, failed, gone, refused};
use super::found;
use super::specification::{self, Ground};
use crate::ports::{Certainty, RuntimeError, RuntimeErrorKind};

impl DockerRuntime {
    pub(super) async fn list_instances(&self, app: &AppId) -> Result<Vec<FoundInstance>, RuntimeError> {
        let labels = BTreeMap::from([(label::APP.to_owned(), app.to_string())]);
        let listed = self.engine.list(&labels).await.map_err(failed)?;
        // A list tells neither how one ended nor its restart policy.
        let containers = try_join_all(listed.iter().map(|container| self.look(&container.id))).await?;
        let mut instances = Vec::new();
        for container in containers.into_iter().flatten() {
            instances.extend(found::instance(&container, &self.installation)?);
        }
        instances.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(instances)
    }

    pub(super) async fn find_instance(
        &self,
        app: &AppId,
        name: &InstanceName,
    ) -> Result<Option<FoundInstance>, RuntimeError> {
        match self.look(&layout::container(app, name)).await? {
            Some(container) => found::instance(&container, &self.installation),
            None => Ok(None),
        }
    }

    pub(super) async fn create_instance(
        &self,
        spec: &InstanceSpec,
        values: &Secrets,
    ) -> Result<(), RuntimeError> {
        let container = self.container(spec, values).await?;
        self.make(&container).await
    }

    /// One that a person or a pipe will be at.
    pub(super) async fn create_attached(
        &self,
        spec: &InstanceSpec,
        values: &Secrets,
        terminal: bool,
    ) -> Result<(), RuntimeError> {
        let container = self.container(spec, values).await?;
        self.make(&ContainerSpec { terminal, open_input: true, ..container }).await
    }

    async fn container(&self, spec: &InstanceSpec, values: &Secrets) -> Result<ContainerSpec, RuntimeError> {
        let ground = Ground {
            layout: &self.layout,
            installation: &self.installation,
            values,
            usual_logging: &self.info().await?.logging_driver,
        };
        specification::container(spec, &ground)
    }

    async fn make(&self, container: &ContainerSpec) -> Result<(), RuntimeError> {
        self.volumes_are_there(container).await?;
        match self.engine.create(container).await {
            Ok(created) => {
                for warning in created.warnings {
                    tracing::warn!(container = container.name, warning, "the engine cannot honour all of it");
                }
                Ok(())
            }
            Err(error) if error.kind == Kind::NotFoundImage => Err(RuntimeError {
                message: format!("the image {} is not on this host ({})", container.image, error.message),
                ..failed(error)
            }),
            Err(error) => Err(failed(error)),
        }
    }

    /// An engine makes a volume that is missing, empty and without a label: data that is gone would go unnoticed.
    async fn volumes_are_there(&self, container: &ContainerSpec) -> Result<(), RuntimeError> {
        for mount in &container.mounts {
            if let MountSource::Volume(name) = &mount.source
                && self.find_volume(name).await?.is_none()
            {
                return Err(gone(format!("volume {name}, which {} mounts, is not there", container.name)));
            }
        }
        Ok(())
    }

    pub(super) async fn start_instance(&self, app: &AppId, name: &InstanceName) -> Result<(), RuntimeError> {
        let container = self.existing(app, name).await?;
        if container.state == State::Running {
            return Ok(());
        }
        self.engine.start(&container.id).await.map_err(|error| match error.kind {
            // The command is not in the image, or may not be executed.
            Kind::Refused => as_kind(RuntimeErrorKind::Content, error),
            // Its address or a published port is somebody else's.
            Kind::Conflict => as_kind(RuntimeErrorKind::Exists, error),
            _ => failed(error),
        })
    }

    pub(super) async fn stop_instance(
        &self,
        app: &AppId,
        name: &InstanceName,
        stop: &StopSettings,
    ) -> Result<(), RuntimeError> {
        match self.ours(app, name).await? {
            Some(container) => self.stop_container(&container, name, stop).await,
            None => Ok(()),
        }
    }

    /// The engine answers a stop when it has taken the container's network apart, too, which takes longer than the end of its processes; that it
    /// tells at once. An end of one that it would start again is none.
    pub(super) async fn end_instance(
        &self,
        app: &AppId,
        name: &InstanceName,
        stop: &StopSettings,
    ) -> Result<(), RuntimeError> {
        let Some(container) = self.ours(app, name).await? else { return Ok(()) };
        if container.state != State::Running || container.restart != EnginePolicy::No {
            return self.stop_container(&container, name, stop).await;
        }
        // It listens before it stops. An event that is lost (S22) costs time only: the stop returns as well.
        tokio::select! {
            biased;
            () = self.death_of(&container, app, name) => Ok(()),
            stopped = self.stop_container(&container, name, stop) => stopped,
        }
    }

    async fn stop_container(
        &self,
        container: &Container,
        name: &InstanceName,
        stop: &StopSettings,
    ) -> Result<(), RuntimeError> {
        let stopping = async {
            match &stop.signal {
                Some(signal) if !is_stop_signal(signal, container) => {
                    self.end_by(container, signal, stop).await
                }
                _ => self.engine.stop(&container.id, stop.grace).await,
            }
        };
        // An engine that hangs answers never.
        let limit = stop.grace + defaults::ENGINE_CALL;
        let Ok(stopped) = tokio::time::timeout(limit, stopping).await else {
            let message = format!("the engine did not stop {name} within {} s", limit.as_secs());
            return Err(RuntimeError::new(RuntimeErrorKind::Late, Certainty::Unknown, message));
        };
        match stopped {
            Err(error) if error.kind != Kind::Gone => Err(failed(error)),
            _ => Ok(()),
        }
    }

    /// Stops it by another signal than it was made with: that signal, the grace, the kill.
    async fn end_by(
        &self,
        container: &Container,
        signal: &str,
        stop: &StopSettings,
    ) -> Result<(), EngineError> {
        if container.state == State::Running {
            match self.engine.signal(&container.id, signal).await {
                Ok(()) => {
                    if let Ok(ended) = tokio::time::timeout(stop.grace, self.engine.wait(&container.id)).await
                    {
                        ended?;
                    }
                }
                // Ended by itself a moment ago.
                Err(error) if error.kind == Kind::Conflict => {}
                Err(error) => return Err(error),
            }
        }
        self.engine.stop(&container.id, std::time::Duration::ZERO).await
    }

    pub(super) async fn pause_instance(&self, app: &AppId, name: &InstanceName) -> Result<(), RuntimeError> {
        let container = self.existing(app, name).await?;
        match container.state.phase() {
            Phase::Paused => Ok(()),
            _ => self.engine.pause(&container.id).await.map_err(failed),
        }
    }

    pub(super) async fn resume_instance(&self, app: &AppId, name: &InstanceName) -> Result<(), RuntimeError> {
        match self.ours(app, name).await? {
            Some(container) if container.state.phase() == Phase::Paused => {
                self.engine.unpause(&container.id).await.map_err(failed)
            }
            Some(_) | None => Ok(()),
        }
    }

    pub(super) async fn remove_instance(&self, app: &AppId, name: &InstanceName) -> Result<(), RuntimeError> {
        let Some(container) = self.ours(app, name).await? else { return Ok(()) };
        let volumes = unnamed_volumes(&container);
        let removed = match container.state.phase() {
            Phase::Running | Phase::Paused | Phase::Restarting => {
                return Err(refused(format!("{name} is not stopped, so it is not removed")));
            }
            // Somebody's removal is under way, or failed half-way: force means to see it through.
            Phase::Removing | Phase::Dead => self.engine.kill_and_remove(&container.id, volumes).await,
            Phase::Created | Phase::Exited => self.engine.remove(&container.id, volumes).await,
        };
        removed.map_err(failed)
    }

    pub(super) async fn set_instance_restart(
        &self,
        app: &AppId,
        name: &InstanceName,
        policy: RestartPolicy,
    ) -> Result<(), RuntimeError> {
        let policy = match policy {
            RestartPolicy::No => EnginePolicy::No,
            RestartPolicy::UnlessStopped => EnginePolicy::UnlessStopped,
        };
        let container = self.existing(app, name).await?;
        if container.restart == policy {
            return Ok(());
        }
        self.engine.set_restart(&container.id, policy).await.map_err(failed)
    }

    /// The container of that name or id; `None`: there is none. An engine that does not answer is an error (S4a).
    pub(super) async fn look(&self, container: &str) -> Result<Option<Container>, RuntimeError> {
        match self.engine.inspect(container).await {
            Ok(container) => Ok(Some(container)),
            Err(error) if error.kind == Kind::Gone => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// The instance's container, where there is one; one that is not this installation's is refused (S6).
    pub(super) async fn ours(
        &self,
        app: &AppId,
        name: &InstanceName,
    ) -> Result<Option<Container>, RuntimeError> {
        let Some(container) = self.look(&layout::container(app, name)).await? else { return Ok(None) };
        if found::belongs(&container, &self.installation) {
            return Ok(Some(container));
        }
        let whose = match container.labels.get(label::INSTALLATION) {
            Some(other) => format!("belongs to another installation of cutover ({other})"),
            None => "was not made by cutover".to_owned(),
        };
        Err(refused(format!("container {} {whose} and is left alone", container.name)))
    }

    /// The instance's container, which has to be there.
    pub(super) async fn existing(&self, app: &AppId, name: &InstanceName) -> Result<Container, RuntimeError> {
        self.ours(app, name).await?.ok_or_else(|| gone(format!("there is no container of {name}")))
    }
}

fn is_stop_signal(signal: &str, container: &Container) -> bool {
    fn bare(name: &str) -> &str {
        name.strip_prefix("SIG").unwrap_or(name)
    }
    bare(signal) == bare(container.stop_signal.as_deref().unwrap_or("TERM"))
}

/// Volumes that an image asks for and nobody named go with the container, but not a backing service's: they may hold its data.
fn unnamed_volumes(container: &Container) -> RemoveVolumes {
    match container.labels.get(label::ROLE).and_then(|text| found::role(text)) {
        Some(Role::Service | Role::OneOff) => RemoveVolumes::Unnamed,
        Some(Role::Backing) | None => RemoveVolumes::Keep,
    }
}

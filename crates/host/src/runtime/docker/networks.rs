//! Networks of ours, and instances on them. Names are made once: an engine before 24 lets two networks have the same name.

use std::collections::BTreeMap;

use cutover_core::layout::label;
use cutover_core::names::{AppId, InstanceName};
use cutover_core::plan::{NetworkSpec, NetworkUse};
use cutover_engine::{Kind, Network, NetworkSpec as EngineSpec, Subnet};

use super::DockerRuntime;
use super::error::{as_kind, failed, gone, refused};
use super::specification::endpoint;
use crate::files;
use crate::ports::{Certainty, RuntimeError, RuntimeErrorKind};

impl DockerRuntime {
    pub(super) async fn make_network(&self, network: &NetworkSpec) -> Result<(), RuntimeError> {
        let wanted = EngineSpec {
            name: network.name.clone(),
            subnet: Some(subnet(&network.subnet)?),
            handed_out: Some(subnet(&network.range)?),
            labels: BTreeMap::from([(label::INSTALLATION.to_owned(), self.installation.clone())]),
            ..EngineSpec::default()
        };
        // Two runs of two apps may both find that the edge is missing.
        let making = self.making_networks().await?;
        let made = match self.find_network(&network.name).await? {
            Some(found) => self.check(&found, &wanted),
            None => match self.engine.create_network(&wanted).await {
                Ok(_) => Ok(()),
                // The subnet is in use by now: the host has moved on since the plan was made.
                Err(error) if error.kind == Kind::Conflict => Err(as_kind(RuntimeErrorKind::Exists, error)),
                Err(error) => Err(failed(error)),
            },
        };
        drop(making);
        made
    }

    /// Whether a network that is there is the one that is wanted.
    fn check(&self, found: &Network, wanted: &EngineSpec) -> Result<(), RuntimeError> {
        self.must_be_ours(found)?;
        let same = wanted.subnet.is_none_or(|subnet| found.subnets.contains(&subnet));
        if same {
            return Ok(());
        }
        let has: Vec<String> = found.subnets.iter().map(ToString::to_string).collect();
        Err(RuntimeError::new(
            RuntimeErrorKind::Exists,
            Certainty::NotDone,
            format!("network {} is there with the subnet {}", found.name, has.join(", ")),
        ))
    }

    fn must_be_ours(&self, found: &Network) -> Result<(), RuntimeError> {
        match found.labels.get(label::INSTALLATION) {
            Some(installation) if *installation == self.installation => Ok(()),
            Some(other) => Err(refused(format!(
                "network {} belongs to another installation of cutover ({other}); it is left alone",
                found.name
            ))),
            None => Err(refused(format!("network {} was not made by cutover; it is left alone", found.name))),
        }
    }

    async fn find_network(&self, name: &str) -> Result<Option<Network>, RuntimeError> {
        match self.engine.inspect_network(name).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.kind == Kind::Gone => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// The right to make networks, shared by all runs of this installation; dropped, it is free.
    async fn making_networks(&self) -> Result<std::fs::File, RuntimeError> {
        let path = self.layout.process_lock("networks");
        let locked = tokio::task::spawn_blocking(move || {
            files::ensure_folder(files::folder_of(&path), 0o700).map_err(|error| error.to_string())?;
            let file = std::fs::File::options()
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)
                .map_err(|error| format!("{}: {error}", path.display()))?;
            file.lock().map_err(|error| format!("lock {}: {error}", path.display()))?;
            Ok(file)
        });
        let failed =
            |message: String| RuntimeError::new(RuntimeErrorKind::Other, Certainty::NotDone, message);
        locked.await.map_err(|error| failed(error.to_string()))?.map_err(failed)
    }

    pub(super) async fn join_network(
        &self,
        app: &AppId,
        name: &InstanceName,
        network: &NetworkUse,
    ) -> Result<(), RuntimeError> {
        let container = self.existing(app, name).await?;
        self.engine.join(&container.id, &endpoint(network)).await.map_err(|error| match error.kind {
            // The address is somebody else's.
            Kind::Conflict => as_kind(RuntimeErrorKind::Exists, error),
            _ => failed(error),
        })
    }

    pub(super) async fn leave_network(
        &self,
        app: &AppId,
        name: &InstanceName,
        network: &str,
    ) -> Result<(), RuntimeError> {
        match self.ours(app, name).await? {
            Some(container) if container.joined(network) => {
                self.engine.leave(&container.id, network).await.map_err(failed)
            }
            Some(_) => Ok(()),
            None => Err(gone(format!("there is no container of {name}"))),
        }
    }

    pub(super) async fn drop_network(&self, name: &str) -> Result<(), RuntimeError> {
        let Some(found) = self.find_network(name).await? else { return Ok(()) };
        self.must_be_ours(&found)?;
        self.engine.remove_network(&found.id).await.map_err(failed)
    }
}

fn subnet(text: &str) -> Result<Subnet, RuntimeError> {
    text.parse().map_err(|error: cutover_engine::NotASubnet| refused(error.to_string()))
}

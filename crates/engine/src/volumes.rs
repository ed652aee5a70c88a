//! Volumes: named data that outlives every container.

use std::collections::BTreeMap;

use bollard::models::{Volume as EngineVolume, VolumeCreateRequest};
use bollard::query_parameters::{ListVolumesOptions, RemoveVolumeOptions};

use crate::connect::Engine;
use crate::error::{EngineError, Kind, Subject, explain};
use crate::filters;

/// A volume, as the engine tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// `local`, or a plugin.
    pub driver: String,
    /// Its folder on the engine's host.
    pub folder: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

impl Engine {
    /// Makes a volume. One of that name stays as it is, with the labels it has: compare them before using it.
    pub async fn create_volume(
        &self,
        name: &str,
        labels: &BTreeMap<String, String>,
    ) -> Result<Volume, EngineError> {
        let request = VolumeCreateRequest {
            name: Some(name.to_owned()),
            labels: Some(labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect()),
            ..VolumeCreateRequest::default()
        };
        let made = self.docker().create_volume(request).await;
        made.map(volume).map_err(explain(Subject::NewThing, || format!("create volume {name}")))
    }

    /// One volume by name.
    pub async fn inspect_volume(&self, name: &str) -> Result<Volume, EngineError> {
        let found = self.docker().inspect_volume(name).await;
        found.map(volume).map_err(explain(Subject::Thing, || format!("inspect volume {name}")))
    }

    /// Volumes that carry all of `labels`.
    pub async fn list_volumes(&self, labels: &BTreeMap<String, String>) -> Result<Vec<Volume>, EngineError> {
        let options = ListVolumesOptions { filters: Some(filters::by_labels(labels)) };
        let found = self
            .docker()
            .list_volumes(Some(options))
            .await
            .map_err(explain(Subject::Thing, || "list volumes".to_owned()))?;
        Ok(found.volumes.unwrap_or_default().into_iter().map(volume).collect())
    }

    /// Removes a volume with all that is in it; one that is gone already is no error, one in use a `Conflict`.
    pub async fn remove_volume(&self, name: &str) -> Result<(), EngineError> {
        let removed = self.docker().remove_volume(name, None::<RemoveVolumeOptions>).await;
        match removed.map_err(explain(Subject::Thing, || format!("remove volume {name}"))) {
            Err(error) if error.kind == Kind::Gone => Ok(()),
            other => other,
        }
    }
}

fn volume(found: EngineVolume) -> Volume {
    Volume {
        name: found.name,
        driver: found.driver,
        folder: found.mountpoint,
        labels: found.labels.into_iter().collect(),
    }
}

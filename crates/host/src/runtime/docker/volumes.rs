//! Volumes of ours, and those made elsewhere. No data is touched but by a removal that was asked for.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::PathBuf;

use cutover_core::layout::label;
use cutover_core::names::AppId;
use cutover_core::plan::VolumeSpec;
use cutover_engine::{Kind, Volume};

use super::DockerRuntime;
use super::error::{failed, gone, refused};
use crate::ports::RuntimeError;

impl DockerRuntime {
    pub(super) async fn make_volume(&self, app: &AppId, volume: &VolumeSpec) -> Result<(), RuntimeError> {
        if volume.external {
            return match self.find_volume(&volume.name).await? {
                Some(_) => Ok(()),
                None => Err(gone(format!(
                    "volume {} is said to be external, but the engine has none of that name",
                    volume.name
                ))),
            };
        }
        let labels = BTreeMap::from([
            (label::INSTALLATION.to_owned(), self.installation.clone()),
            (label::APP.to_owned(), app.to_string()),
        ]);
        // One that is there already stays as it is, labels included.
        let found = self.engine.create_volume(&volume.name, &labels).await.map_err(failed)?;
        self.must_be_our_volume(&found)
    }

    pub(super) async fn drop_volume(&self, volume: &VolumeSpec) -> Result<(), RuntimeError> {
        if volume.external {
            return Err(refused(format!("volume {} was made elsewhere; it is left alone", volume.name)));
        }
        let Some(found) = self.find_volume(&volume.name).await? else { return Ok(()) };
        self.must_be_our_volume(&found)?;
        self.engine.remove_volume(&volume.name).await.map_err(failed)
    }

    pub(super) async fn folder_of_volume(&self, volume: &VolumeSpec) -> Result<PathBuf, RuntimeError> {
        let found = self
            .find_volume(&volume.name)
            .await?
            .ok_or_else(|| gone(format!("there is no volume {}", volume.name)))?;
        let folder = PathBuf::from(&found.folder);
        match std::fs::metadata(&folder) {
            Ok(_) => Ok(folder),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(refused(format!(
                "the files of volume {} lie in {}, where this user may not look: SQLite in a volume of the engine needs root",
                volume.name, found.folder
            ))),
            Err(error) => Err(refused(format!(
                "the files of volume {} are not to be seen from this host ({}: {error})",
                volume.name, found.folder
            ))),
        }
    }

    pub(super) async fn find_volume(&self, name: &str) -> Result<Option<Volume>, RuntimeError> {
        match self.engine.inspect_volume(name).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.kind == Kind::Gone => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    fn must_be_our_volume(&self, found: &Volume) -> Result<(), RuntimeError> {
        let name = &found.name;
        match found.labels.get(label::INSTALLATION) {
            Some(installation) if *installation == self.installation => Ok(()),
            Some(other) => Err(refused(format!(
                "volume {name} belongs to another installation of cutover ({other}); to use it all the same, say `external: true, name: {name}`"
            ))),
            None => Err(refused(format!(
                "volume {name} was not made by cutover; to use it, say `external: true, name: {name}`"
            ))),
        }
    }
}

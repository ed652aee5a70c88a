//! Volumes of plain processes: folders of the app's own state folder that outlive releases.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use cutover_core::layout::Layout;
use cutover_core::plan::VolumeSpec;

use crate::files::{self, FileError};

/// Why a volume is not as it was asked for.
#[derive(Debug, thiserror::Error)]
pub(super) enum VolumeError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("the external volume {} is not there: make the folder first", .0.display())]
    Absent(PathBuf),
    #[error("{} is no volume of this installation", .0.display())]
    Foreign(PathBuf),
}

/// Makes a volume where it is absent; an external one must be there.
pub(super) fn ensure(layout: &Layout, volume: &VolumeSpec) -> Result<(), VolumeError> {
    let folder = PathBuf::from(&volume.name);
    if volume.external {
        return if folder.is_dir() { Ok(()) } else { Err(VolumeError::Absent(folder)) };
    }
    if !is_ours(layout, &folder) {
        return Err(VolumeError::Foreign(folder));
    }
    Ok(files::ensure_folder(&folder, 0o700)?)
}

/// Removes a volume of ours with what is in it; absent: nothing. It is out of its place at once and durably, before its files go.
pub(super) fn remove(layout: &Layout, volume: &VolumeSpec) -> Result<(), VolumeError> {
    let folder = PathBuf::from(&volume.name);
    if volume.external || !is_ours(layout, &folder) {
        return Err(VolumeError::Foreign(folder));
    }
    let gone = files::beside(&folder);
    match fs::rename(&folder, &gone) {
        Ok(()) => files::sync_folder(files::folder_of(&folder))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(FileError::new("remove", &folder, &error).into()),
    }
    Ok(fs::remove_dir_all(&gone).map_err(|error| FileError::new("remove", &gone, &error))?)
}

/// `apps/APP/ENVIRONMENT/volumes/NAME` below the folder of state, and no other way to write it.
fn is_ours(layout: &Layout, folder: &Path) -> bool {
    let Ok(below) = folder.strip_prefix(layout.state()) else { return false };
    let parts: Option<Vec<&str>> = below
        .components()
        .map(|part| if let Component::Normal(name) = part { name.to_str() } else { None })
        .collect();
    matches!(parts.as_deref(), Some(["apps", _, _, "volumes", _]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use cutover_core::release::RuntimeKind;

    fn volume(folder: &Path, external: bool) -> VolumeSpec {
        VolumeSpec { runtime: RuntimeKind::Process, name: folder.to_str().unwrap().to_owned(), external }
    }

    #[test]
    fn a_volume_of_ours_is_made_and_removed_and_no_other() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::under(root.path());
        let ours = layout.state().join("apps/shop/production/volumes/data");
        ensure(&layout, &volume(&ours, false)).unwrap();
        fs::write(ours.join("app.db"), "rows").unwrap();
        remove(&layout, &volume(&ours, false)).unwrap();
        remove(&layout, &volume(&ours, false)).unwrap();
        assert_eq!(fs::read_dir(ours.parent().unwrap()).unwrap().count(), 0);

        for foreign in ["apps/shop/production/env", "apps/../../volumes/x", "apps/a/b/volumes/../../../.."] {
            let error = remove(&layout, &volume(&layout.state().join(foreign), false)).unwrap_err();
            assert!(matches!(error, VolumeError::Foreign(_)), "{foreign}");
        }
        let external = root.path().join("nas");
        assert!(matches!(ensure(&layout, &volume(&external, true)), Err(VolumeError::Absent(_))));
        fs::create_dir(&external).unwrap();
        ensure(&layout, &volume(&external, true)).unwrap();
        assert!(matches!(remove(&layout, &volume(&external, true)), Err(VolumeError::Foreign(_))));
    }
}

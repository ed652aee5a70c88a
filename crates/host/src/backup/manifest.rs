//! What is in a backup, read from itself: names and paths in it are of whoever wrote it, and lead nowhere else.

use std::path::{Component, Path, PathBuf};

use cutover_core::backup::{MANIFEST_VERSION, Manifest};

use super::prose::Trouble;
use super::restic::{Listed, Restic, ResticError, is_mark, tag};

/// The manifest's file name.
pub(super) const FILE: &str = "cutover-backup.json";
/// Where databases lie, beside it.
pub(super) const DATABASES: &str = "databases";
/// Where files lie that were copied out of volumes, beside it.
pub(super) const VOLUMES: &str = "volumes";

/// A manifest, and the folder in the backup that it lies in.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) manifest: Manifest,
    pub(super) folder: PathBuf,
}

/// Reads the manifest of a backup.
pub(super) async fn read(restic: &Restic, backup: &Listed) -> Result<Found, ResticError> {
    let wrong = |words: String| ResticError { trouble: Trouble::Damaged, words };
    let short = &backup.id[..backup.id.len().min(8)];
    let path = backup.paths.iter().find(|path| path.file_name().is_some_and(|name| name == FILE));
    let path = path.ok_or_else(|| wrong(format!("backup {short} was not made by cutover")))?;
    let text =
        restic.run(&["dump".as_ref(), "--no-lock".as_ref(), backup.id.as_ref(), path.as_os_str()]).await?;
    let manifest: Manifest = serde_json::from_str(&text)
        .map_err(|error| wrong(format!("what backup {short} says of itself: {error}")))?;
    check(&manifest, backup).map_err(|why| wrong(format!("backup {short}: {why}")))?;
    let folder = path.parent().unwrap_or(Path::new("/")).to_owned();
    Ok(Found { manifest, folder })
}

fn check(manifest: &Manifest, backup: &Listed) -> Result<(), String> {
    if manifest.version > MANIFEST_VERSION {
        return Err(format!(
            "it is of version {}, this cutover-host knows {MANIFEST_VERSION}",
            manifest.version
        ));
    }
    if !backup.tags.contains(&tag(&manifest.app)) {
        return Err(format!("it says that it is of {}, and lies among those of another app", manifest.app));
    }
    let files =
        manifest.databases.values().chain(manifest.volumes.values().flat_map(|volume| &volume.copies));
    for file in files {
        if !is_below_only(Path::new(file)) {
            return Err(format!("`{file}` leads out of it"));
        }
    }
    for dump in manifest.dumps.values() {
        let is_below = Path::new(&dump.file).strip_prefix("/").is_ok_and(is_below_only);
        if !is_below || !is_mark(&dump.mark) {
            return Err(format!("`{}` leads out of it", dump.file));
        }
    }
    for volume in manifest.volumes.values() {
        // Only what restic was told to take is a volume in it.
        if !backup.paths.iter().any(|path| *path == Path::new(&volume.path)) {
            return Err(format!("`{}` is not in it", volume.path));
        }
    }
    Ok(())
}

/// A path that only goes down.
fn is_below_only(path: &Path) -> bool {
    let mut parts = path.components().peekable();
    parts.peek().is_some() && parts.all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(file: &str, path: &str) -> (Manifest, Listed) {
        let manifest = serde_json::from_value(serde_json::json!({
            "version": 1, "app": { "app": "shop", "environment": "local" }, "release": "v1",
            "databases": { "main": file },
            "volumes": { "data": { "path": path, "copies": [] } },
        }));
        let listed = serde_json::from_value(serde_json::json!({
            "id": "1a2b3c4d", "tags": ["shop/local"], "time": "2026-11-26T03:00:00Z", "paths": ["/srv/volumes/data", "/srv/cutover-backup.json"],
        }));
        (manifest.unwrap(), listed.unwrap())
    }

    #[test]
    fn names_in_a_backup_lead_nowhere_else() {
        let good = manifest("databases/main.sqlite", "/srv/volumes/data");
        assert_eq!(check(&good.0, &good.1), Ok(()));
        for file in ["../../etc/passwd", "/etc/passwd", "", "databases/../../x"] {
            let (manifest, listed) = manifest(file, "/srv/volumes/data");
            assert!(check(&manifest, &listed).unwrap_err().contains("leads out"), "{file}");
        }
        let (found, mut listed) = manifest("databases/main.sqlite", "/etc");
        assert!(check(&found, &listed).unwrap_err().contains("is not in it"));
        listed.tags = vec!["other/local".to_owned()];
        assert!(check(&found, &listed).unwrap_err().contains("another app"));
    }

    #[test]
    fn a_name_of_a_database_or_volume_with_a_path_in_it_is_none() {
        let text = r#"{"version":1,"app":{"app":"shop","environment":"local"},"release":"v1","databases":{"../x":"a"},"volumes":{}}"#;
        assert!(serde_json::from_str::<Manifest>(text).is_err());
    }
}

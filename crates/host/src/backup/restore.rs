//! A backup comes out of the repository: into a folder of its own, beside everything. What it is made of is checked there; names and links in it
//! lead nowhere else.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use cutover_core::failure::Failure;
use cutover_core::wire::Extent;

use super::dumps::{self, Fetched};
use super::gather::{failed, trouble};
use super::manifest::{self, DATABASES, Found, VOLUMES};
use super::restic::{Counted, Kernel, Listed, Restic};
use crate::database::sqlite;
use crate::files::{self, FileError};

/// What was put back.
pub(super) struct PutBack {
    pub(super) found: Found,
    /// What lies where, a line each.
    pub(super) lines: Vec<String>,
}

/// Puts a backup back into `folder`, which must not be there: `volumes/NAME` as they were, and `databases/NAME.sqlite`, a copy each.
pub(super) async fn beside(restic: &Restic, backup: &Listed, folder: &Path) -> Result<PutBack, Failure> {
    refuse_taken(folder)?;
    let found = manifest::read(restic, backup).await;
    let found = found.map_err(|error| error.failure("the backup was not put back", restic.target()))?;
    let bytes = refuse_without_room(restic, backup, &found, folder).await?;
    let put = async {
        let mut lines = volumes(restic, backup, &found, bytes, folder).await?;
        lines.extend(files_of_databases(&found, folder)?);
        lines.extend(dumps_beside(restic, &found, folder).await?);
        lines.sort();
        Ok::<_, Failure>(lines)
    };
    match put.await {
        Ok(lines) => Ok(PutBack { found, lines }),
        Err(failure) => {
            remove(folder)?;
            Err(failure)
        }
    }
}

/// The volumes of a backup, each below `folder` as it was; `bytes`: what all its files take.
pub(super) async fn volumes(
    restic: &Restic,
    backup: &Listed,
    found: &Found,
    bytes: u64,
    folder: &Path,
) -> Result<Vec<String>, Failure> {
    let raw = files::beside(folder);
    files::ensure_folder(&raw, 0o700).map_err(|error| trouble(&error))?;
    let words =
        ["restore".as_ref(), "--no-lock".as_ref(), backup.id.as_ref(), "--target".as_ref(), raw.as_os_str()];
    let counted = Counted { what: "put back", by: Kernel::Written, of: Extent::About { bytes } };
    let restored = restic.run_counted(&words, counted).await;
    let arranged = match restored {
        Ok(()) => arrange(found, &raw, folder),
        Err(error) => Err(error.failure("the backup was not put back", restic.target())),
    };
    remove(&raw)?;
    arranged
}

/// Dumps come as they left their servers: `databases/NAME.dump`.
async fn dumps_beside(restic: &Restic, found: &Found, folder: &Path) -> Result<Vec<String>, Failure> {
    let mut lines = Vec::new();
    for (name, dump) in &found.manifest.dumps {
        let databases = folder.join(DATABASES);
        files::ensure_folder(&databases, 0o700).map_err(|error| trouble(&error))?;
        let file = Path::new(&dump.file).file_name().unwrap_or_default();
        let to = databases.join(file);
        let fetched = dumps::fetch(restic, &found.manifest.app, dump, Fetched::AsItIs, &to).await;
        fetched.map_err(|error| error.failure("the backup was not put back", restic.target()))?;
        lines.push(format!("database {name}: {} (as it was dumped: every byte)", to.display()));
    }
    Ok(lines)
}

/// All of it has room where it comes to: a disk that is full would be everybody's trouble. Gives what its files take, without the dumps.
pub(super) async fn refuse_without_room(
    restic: &Restic,
    backup: &Listed,
    found: &Found,
    place: &Path,
) -> Result<u64, Failure> {
    let what = "the backup was not put back";
    let bytes = restic.size(&backup.id).await.map_err(|error| error.failure(what, restic.target()))?;
    let dumps: u64 = found.manifest.dumps.values().map(|dump| dump.bytes).sum();
    let needed = bytes.saturating_add(dumps).saturating_add(cutover_core::defaults::DISK_FREE);
    refuse_without(place, needed)?;
    Ok(bytes)
}

/// So much is free where it comes to.
fn refuse_without(place: &Path, needed: u64) -> Result<(), Failure> {
    let there = place.ancestors().find(|folder| folder.exists()).unwrap_or(place);
    let free = files::free(there).map_err(|error| trouble(&error))?;
    if free >= needed {
        return Ok(());
    }
    let size = cutover_core::rules::size;
    Err(failed("the backup was not put back")
        .because(format!("{} free at {}, {} needed", size(free), there.display(), size(needed)))
        .next("make room there, or name a folder of another disk (`--to`)"))
}

fn refuse_taken(folder: &Path) -> Result<(), Failure> {
    let usage = |why: &str| {
        Failure::new(cutover_core::exit::Exit::Usage, "the backup was not put back")
            .because(format!("{}: {why}", folder.display()))
            .while_serving("what was serving goes on")
            .next("name a folder of the host, by its whole path, that is not there yet: `--to /srv/scratch`")
    };
    if !folder.is_absolute() || folder.components().any(|part| part.as_os_str() == "..") {
        return Err(usage("it is no absolute path"));
    }
    match fs::symlink_metadata(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        _ => Err(usage("something is there")),
    }
}

/// Brings what restic laid out by whole paths into the form that people look for, and checks it.
fn arrange(found: &Found, raw: &Path, folder: &Path) -> Result<Vec<String>, Failure> {
    let mut lines = Vec::new();
    let made = |path: &Path| files::ensure_folder(path, 0o700).map_err(|error| trouble(&error));
    made(&folder.join(VOLUMES))?;
    for (name, volume) in &found.manifest.volumes {
        let to = folder.join(VOLUMES).join(name.as_str());
        let from = inside(raw, Path::new(&volume.path))?;
        rename(&from, &to)?;
        for file in &volume.copies {
            let copy = inside(raw, &found.folder.join(VOLUMES).join(name.as_str()).join(file))?;
            let place = inside_parent(&to, Path::new(file))?;
            rename(&copy, &place)?;
            sqlite::verify(&place).map_err(|error| broken(&error.message))?;
        }
        lines.push(format!("volume {name}: {}", to.display()));
    }
    Ok(lines)
}

/// A copy of each database that is a file.
fn files_of_databases(found: &Found, folder: &Path) -> Result<Vec<String>, Failure> {
    let mut lines = Vec::new();
    for (name, file) in &found.manifest.databases {
        files::ensure_folder(&folder.join(DATABASES), 0o700).map_err(|error| trouble(&error))?;
        let to = folder.join(DATABASES).join(format!("{name}.sqlite"));
        let from = file_of_database(folder, file)?;
        let bytes = fs::metadata(&from).map_or(0, |found| found.len());
        refuse_without(folder, bytes.saturating_add(cutover_core::defaults::DISK_FREE))?;
        let copied = fs::copy(from, &to);
        copied.map_err(|error| trouble(&FileError::new("copy to", &to, &error)))?;
        lines.push(format!("database {name}: {} (integrity_check: ok)", to.display()));
    }
    Ok(lines)
}

/// Where a database that is a file came to, with the volume that has it.
pub(super) fn file_of_database(folder: &Path, file: &str) -> Result<PathBuf, Failure> {
    inside(folder, Path::new("/").join(file).as_path())
}

/// The place of an absolute path below a folder. Every folder on the way is one, and no link.
fn inside(top: &Path, path: &Path) -> Result<PathBuf, Failure> {
    let below = path.strip_prefix("/").unwrap_or(path);
    let place = inside_parent(top, below)?;
    match fs::symlink_metadata(&place) {
        Ok(about) if !about.is_symlink() => Ok(place),
        Ok(_) => Err(broken(&format!("{} is a link", path.display()))),
        Err(_) => Err(broken(&format!("{} is not in it", path.display()))),
    }
}

fn inside_parent(top: &Path, below: &Path) -> Result<PathBuf, Failure> {
    let mut place = top.to_owned();
    let mut parts = below.components().peekable();
    while let Some(part) = parts.next() {
        place.push(part);
        if parts.peek().is_some() && !fs::symlink_metadata(&place).is_ok_and(|about| about.is_dir()) {
            return Err(broken(&format!("{} leads through something that is no folder", below.display())));
        }
    }
    Ok(place)
}

fn rename(from: &Path, to: &Path) -> Result<(), Failure> {
    fs::rename(from, to).map_err(|error| trouble(&FileError::new("move to", to, &error)))
}

fn broken(why: &str) -> Failure {
    failed("the backup was not put back")
        .because(why)
        .next("`cutover backup list` shows the others; `cutover backup verify` tells which are good")
}

fn remove(folder: &Path) -> Result<(), Failure> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(trouble(&FileError::new("remove", folder, &error)))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_in_a_backup_is_not_gone_through() {
        let folder = tempfile::tempdir().unwrap();
        let (top, outside) = (folder.path().join("raw"), folder.path().join("outside"));
        fs::create_dir_all(top.join("srv")).unwrap();
        fs::create_dir_all(outside.join("data")).unwrap();
        std::os::unix::fs::symlink(&outside, top.join("srv/volumes")).unwrap();
        assert!(inside(&top, Path::new("/srv/volumes/data")).is_err());
        std::os::unix::fs::symlink(&outside, top.join("srv/data")).unwrap();
        assert!(inside(&top, Path::new("/srv/data")).is_err());
        fs::create_dir(top.join("srv/good")).unwrap();
        assert_eq!(inside(&top, Path::new("/srv/good")).unwrap(), top.join("srv/good"));
    }
}

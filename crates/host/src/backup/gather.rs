//! What goes into a backup, made ready: volumes are taken from where they lie; `SQLite` files in them, databases of the app or not, are copied
//! beside first, by `SQLite` itself, while they are used. Links are not followed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use cutover_core::backup::{DatabaseItem, Items, MANIFEST_VERSION, Manifest, VolumeInBackup, VolumeItem};
use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::names::{AppId, DatabaseName, ReleaseId, VolumeName};
use sha2::{Digest, Sha256};

use super::manifest::{FILE, VOLUMES};
use crate::files::{self, FileError};
use crate::host::Host;
use crate::ports::Located;

/// What every `SQLite` file begins with.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// Every `SQLite` file is a multiple of this long.
const PAGE: u64 = 512;
/// What may lie beside a `SQLite` file and belongs to its present content.
const BESIDE: [&str; 3] = ["-wal", "-shm", "-journal"];

/// All that goes into a backup.
#[derive(Debug)]
pub(super) struct Gathered {
    /// What restic is told to take.
    pub(super) paths: Vec<PathBuf>,
    /// What it is told to leave: files that were copied.
    pub(super) exclude: Vec<PathBuf>,
    /// The hash of each file that was made for this backup, by its path.
    pub(super) hashes: BTreeMap<PathBuf, [u8; 32]>,
    /// What is in it, in words.
    pub(super) items: Vec<String>,
    /// What is not, and why.
    pub(super) left_out: Vec<String>,
    /// What it says of itself.
    pub(super) manifest: Manifest,
}

/// A volume, and the `SQLite` files in it.
struct Volume<'a> {
    item: &'a VolumeItem,
    path: PathBuf,
    files: Vec<PathBuf>,
}

/// Makes everything ready in `room`, which is empty. The app's lock is held meanwhile: nothing has a database open while it is migrated (P8).
pub(super) async fn gather(
    host: &Host,
    app: &AppId,
    release: &ReleaseId,
    items: &Items,
    room: &Path,
) -> Result<Gathered, Failure> {
    let mut left_out = items.left_out.clone();
    let volumes = find(host, items, &mut left_out).await?;
    if volumes.is_empty() && items.servers.is_empty() {
        return Err(failed("there is nothing to back up")
            .because(if left_out.is_empty() {
                "what is live has no database and no volume".to_owned()
            } else {
                left_out.join("; ")
            })
            .next("deploy a release that has one; or leave `backup` away"));
    }
    refuse_without_room(room, bytes(&volumes))?;
    let mut gathered = Gathered {
        paths: Vec::new(),
        exclude: Vec::new(),
        hashes: BTreeMap::new(),
        items: Vec::new(),
        left_out,
        manifest: Manifest {
            version: MANIFEST_VERSION,
            app: app.clone(),
            release: release.clone(),
            databases: BTreeMap::new(),
            volumes: BTreeMap::new(),
            dumps: BTreeMap::new(),
        },
    };
    for volume in &volumes {
        let folder = room.join(VOLUMES).join(volume.item.name.as_str());
        for file in &volume.files {
            copy(host, &volume.path.join(file), &folder.join(file), &mut gathered).await?;
        }
        let copies = volume.files.iter().map(|file| file.display().to_string()).collect();
        gathered.manifest.volumes.insert(
            volume.item.name.clone(),
            VolumeInBackup {
                path: volume.path.display().to_string(),
                copies,
                spec: Some(volume.item.spec.clone()),
            },
        );
        gathered.items.push(format!("volume {}", volume.item.name));
        gathered.paths.push(volume.path.clone());
    }
    for database in &items.databases {
        let is_copied = volumes.iter().any(|volume| {
            volume.item.name == database.volume
                && volume.files.iter().any(|file| *file == Path::new(&database.file))
        });
        if is_copied {
            let file = format!("{VOLUMES}/{}/{}", database.volume, database.file);
            gathered.manifest.databases.insert(database.name.clone(), file);
            gathered.items.push(format!("database {}", database.name));
        } else {
            gathered
                .left_out
                .push(format!("database `{}`: its file is not there, or has nothing in it", database.name));
        }
    }
    Ok(gathered)
}

impl Gathered {
    /// What it says of itself is written: nothing comes to it any more.
    pub(super) fn seal(&mut self, room: &Path) -> Result<(), Failure> {
        let path = room.join(FILE);
        let text = serde_json::to_vec_pretty(&self.manifest).unwrap_or_default();
        files::replace(&path, &text, 0o600).map_err(|error| trouble(&error))?;
        self.hashes.insert(path.clone(), Sha256::digest(&text).into());
        self.paths.insert(0, path);
        let copies = room.join(VOLUMES);
        if copies.exists() {
            self.paths.push(copies);
        }
        self.items.sort();
        Ok(())
    }
}

/// Volumes, and databases that are files, which are there now.
pub(super) async fn present(
    host: &Host,
    items: &Items,
) -> Result<(BTreeSet<VolumeName>, BTreeSet<DatabaseName>), Failure> {
    let volumes = find(host, items, &mut Vec::new()).await?;
    let is_there = |database: &&DatabaseItem| {
        let mut of = volumes.iter().filter(|volume| volume.item.name == database.volume);
        of.any(|volume| volume.files.iter().any(|file| *file == Path::new(&database.file)))
    };
    let databases = items.databases.iter().filter(is_there).map(|database| database.name.clone()).collect();
    Ok((volumes.iter().map(|volume| volume.item.name.clone()).collect(), databases))
}

async fn find<'a>(
    host: &Host,
    items: &'a Items,
    left_out: &mut Vec<String>,
) -> Result<Vec<Volume<'a>>, Failure> {
    let mut volumes = Vec::new();
    for item in &items.volumes {
        let path = path(host, item).await?;
        if !path.is_dir() {
            left_out.push(format!("volume `{}`: there is none yet", item.name));
            continue;
        }
        let declared = items.databases.iter().filter(|database| database.volume == item.name);
        let files = sqlite_files(&path, &declared.collect::<Vec<_>>()).map_err(|error| trouble(&error))?;
        volumes.push(Volume { item, path, files });
    }
    Ok(volumes)
}

/// Where a volume lies on this host.
pub(super) async fn path(host: &Host, item: &VolumeItem) -> Result<PathBuf, Failure> {
    volume_path(host, &item.name, &item.spec).await
}

pub(super) async fn volume_path(
    host: &Host,
    name: &VolumeName,
    spec: &cutover_core::plan::VolumeSpec,
) -> Result<PathBuf, Failure> {
    let found = async { host.ports.runtime(spec.runtime)?.volume_path(spec).await };
    found.await.map_err(|error| {
        failed("a volume cannot be found")
            .because(format!("volume `{name}`: {error}"))
            .next("see that the container engine answers (`cutover doctor`), then try again")
    })
}

/// The `SQLite` files of a volume, by their paths below it: those that the app names, and all others that are some.
fn sqlite_files(volume: &Path, declared: &[&DatabaseItem]) -> Result<Vec<PathBuf>, FileError> {
    let mut found = Vec::new();
    let mut folders = vec![volume.to_owned()];
    while let Some(folder) = folders.pop() {
        let failed = |error: io::Error| FileError::new("look into", &folder, &error);
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            // It went while we looked.
            Err(error) if error.kind() == io::ErrorKind::NotFound && folder != volume => continue,
            Err(error) => return Err(failed(error)),
        };
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            let Ok(about) = fs::symlink_metadata(&path) else { continue };
            let Ok(below) = path.strip_prefix(volume) else { continue };
            let is_declared = declared.iter().any(|database| Path::new(&database.file) == below);
            if about.is_dir() {
                folders.push(path);
            } else if about.is_file() && about.len() > 0 && (is_declared || is_sqlite(&path, about.len())) {
                found.push(below.to_owned());
            }
        }
    }
    found.sort();
    Ok(found)
}

fn is_sqlite(path: &Path, length: u64) -> bool {
    if !length.is_multiple_of(PAGE) {
        return false;
    }
    let mut beginning = [0_u8; 16];
    File::open(path).and_then(|mut file| file.read_exact(&mut beginning)).is_ok() && beginning == *MAGIC
}

/// A consistent copy of a file that is used, with the owner and the mode of the file itself.
async fn copy(host: &Host, from: &Path, to: &Path, gathered: &mut Gathered) -> Result<(), Failure> {
    files::ensure_folder(files::folder_of(to), 0o700).map_err(|error| trouble(&error))?;
    host.ports.database.snapshot(&Located::File(from.to_owned()), to).await.map_err(|error| {
        let next = if error.full {
            "make room on the disk, then try again"
        } else {
            "see what has it open, and that it is whole (`PRAGMA integrity_check`)"
        };
        failed("a database could not be copied").because(error.to_string()).next(next)
    })?;
    let finished =
        files::like(to, from).and_then(|()| hash(to).map_err(|error| FileError::new("read", to, &error)));
    gathered.hashes.insert(to.to_owned(), finished.map_err(|error| trouble(&error))?);
    gathered.exclude.push(from.to_owned());
    for ending in BESIDE {
        let mut name = from.as_os_str().to_owned();
        name.push(ending);
        gathered.exclude.push(name.into());
    }
    Ok(())
}

fn hash(path: &Path) -> io::Result<[u8; 32]> {
    let mut hasher = Sha256::new();
    let mut file = File::open(path)?;
    let mut piece = vec![0_u8; 64 * 1024];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hasher.finalize().into()),
            read => hasher.update(&piece[..read]),
        }
    }
}

/// What the copies of files will take.
fn bytes(volumes: &[Volume<'_>]) -> u64 {
    let files = volumes.iter().flat_map(|volume| volume.files.iter().map(|file| volume.path.join(file)));
    files.filter_map(|file| fs::metadata(file).ok()).map(|about| about.size()).sum()
}

/// What is copied has room: a disk that is full would be the app's trouble, too.
pub(super) fn refuse_without_room(room: &Path, bytes: u64) -> Result<(), Failure> {
    let needed = bytes.saturating_add(cutover_core::defaults::DISK_FREE);
    let free = files::free(room).map_err(|error| trouble(&error))?;
    if free >= needed {
        return Ok(());
    }
    let size = cutover_core::rules::size;
    Err(failed("there is no room for the copies of the databases")
        .because(format!("{} free at {}, {} needed", size(free), room.display(), size(needed)))
        .next("make room: `cutover prune`, `docker image prune`"))
}

pub(super) fn failed(what: &str) -> Failure {
    Failure::new(Exit::Failed, what).while_serving("what was serving goes on")
}

pub(super) fn trouble(error: &FileError) -> Failure {
    failed("the backup could not be made ready").because(error.to_string()).next(if error.full {
        "make room on the disk, then try again"
    } else {
        "see that it can be read and written, then try again"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_not_followed_and_other_files_are_no_databases() {
        let folder = tempfile::tempdir().unwrap();
        let (volume, outside) = (folder.path().join("volume"), folder.path().join("outside"));
        fs::create_dir_all(volume.join("deep")).unwrap();
        fs::create_dir_all(&outside).unwrap();
        let database = [MAGIC.as_slice(), &[0; 512 - 16]].concat();
        fs::write(volume.join("deep/cache.bin"), &database).unwrap();
        fs::write(outside.join("secret.db"), &database).unwrap();
        std::os::unix::fs::symlink(&outside, volume.join("away")).unwrap();
        std::os::unix::fs::symlink(outside.join("secret.db"), volume.join("away.db")).unwrap();
        fs::write(volume.join("empty.db"), "").unwrap();
        fs::write(volume.join("upload.db"), vec![7; 512]).unwrap();

        assert_eq!(sqlite_files(&volume, &[]).unwrap(), [Path::new("deep/cache.bin")]);
    }
}

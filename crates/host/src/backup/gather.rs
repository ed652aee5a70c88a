//! What goes into a backup, made ready: volumes are taken from where they lie; `SQLite` files in them, databases of the app or not, are copied
//! beside first, by `SQLite` itself, while they are used. What only looks like one is no reason to have no backup. Links are not followed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use cutover_core::backup::{
    BackupOutcome, DatabaseItem, Items, MANIFEST_VERSION, Manifest, Still, VolumeInBackup, VolumeItem,
};
use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::names::{AppId, DatabaseName, ReleaseId, VolumeName};
use sha2::{Digest, Sha256};

use super::manifest::{FILE, VOLUMES};
use super::record::unreadable;
use super::still::{self, Of};
use super::whole;
use crate::files::{self, FileError};
use crate::host::Host;
use crate::ports::{Database, DatabaseError, Located};

/// What every `SQLite` file begins with.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// Every `SQLite` file is a multiple of this long.
const PAGE: u64 = 512;
/// Where volumes lie that were copied whole, in the room.
const WHOLE: &str = "whole";
/// A `SQLite` file, and what may lie beside it and belongs to its present content, by their endings.
const ENDINGS: [&str; 4] = ["", "-wal", "-shm", "-journal"];
/// So many files of a volume that `SQLite` does not copy are named: whoever may bring files there may bring thousands.
const NAMED: usize = 5;

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
    files: Vec<SqliteFile>,
}

/// A `SQLite` file, or what begins like one.
#[derive(Debug, PartialEq, Eq)]
struct SqliteFile {
    /// Below its volume.
    path: PathBuf,
    /// It is a database of the app.
    is_declared: bool,
}

/// Makes everything ready in `room`, which is empty. The app's lock is held meanwhile: nothing has a database open while it is migrated (P8).
pub(super) async fn gather(
    host: &Host,
    app: &AppId,
    release: &ReleaseId,
    items: &Items,
    stills: &BTreeMap<VolumeName, Still>,
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
    refuse_vanished(host, app, items, &volumes)?;
    let mut needed = bytes(&volumes);
    for volume in volumes.iter().filter(|volume| stills.contains_key(&volume.item.name)) {
        let by_sqlite = volume.files.iter().flat_map(|file| with_logs(&volume.path.join(&file.path)));
        let whole = whole::needed(&volume.path, room, &by_sqlite.collect());
        needed = needed.saturating_add(whole.map_err(|error| trouble(&error))?);
    }
    refuse_without_room(room, needed)?;
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
        let name = &volume.item.name;
        let folder = room.join(VOLUMES).join(name.as_str());
        let copying = copies(&*host.ports.database, volume, &folder, &mut gathered);
        let (path, copies) = match stills.get(name) {
            None => (volume.path.clone(), copying.await?),
            Some(still) => {
                let (of, to) = (
                    Of { ports: &host.ports, layout: &host.layout, app },
                    room.join(WHOLE).join(name.as_str()),
                );
                let copying = async {
                    let copies = copying.await?;
                    let copied =
                        whole::copy(&volume.path, &to, &beside(volume, &copies), &host.ports.meter).await;
                    copied.map(|()| copies).map_err(|error| trouble(&error))
                };
                let copies = still::keep(of, name, still, copying).await?;
                (to, copies)
            }
        };
        gathered.manifest.volumes.insert(
            volume.item.name.clone(),
            VolumeInBackup { path: path.display().to_string(), copies, spec: Some(volume.item.spec.clone()) },
        );
        gathered.items.push(of_volume(&volume.item.name));
        gathered.paths.push(path);
    }
    for database in &items.databases {
        let is_copied = volumes.iter().any(|volume| {
            volume.item.name == database.volume
                && volume.files.iter().any(|file| file.path == Path::new(&database.file))
        });
        if is_copied {
            let file = format!("{VOLUMES}/{}/{}", database.volume, database.file);
            gathered.manifest.databases.insert(database.name.clone(), file);
            gathered.items.push(item_of(&database.name));
        } else {
            gathered
                .left_out
                .push(format!("database `{}`: its file is not there, or has nothing in it", database.name));
        }
    }
    Ok(gathered)
}

/// A backup without data that an earlier one has, which counts, would push the good ones out, one day. That is seen before anything is kept still.
fn refuse_vanished(host: &Host, app: &AppId, items: &Items, volumes: &[Volume<'_>]) -> Result<(), Failure> {
    let records = host.store.backups(app).map_err(|error| unreadable(&error))?;
    let had = |item: &String| {
        records.iter().any(|record| match &record.outcome {
            BackupOutcome::Verified { items, .. } => items.contains(item),
            BackupOutcome::Failed { .. } => false,
        })
    };
    let has = |volume: &VolumeName| volumes.iter().find(|found| found.item.name == *volume);
    let gone =
        items.volumes.iter().find(|volume| has(&volume.name).is_none() && had(&of_volume(&volume.name)));
    if let Some(volume) = gone {
        return Err(failed("there is no new backup")
            .because(format!("volume `{}` is not there any more; earlier backups have it", volume.name))
            .next("`cutover backup restore --to FOLDER` brings its files back beside")
            .next("if it is to be gone, take it out of cutover.yml and deploy"));
    }
    let is_copied = |database: &&DatabaseItem| {
        let mut files = has(&database.volume).into_iter().flat_map(|volume| &volume.files);
        files.any(|file| file.path == Path::new(&database.file))
    };
    let gone = items.databases.iter().filter(|database| !is_copied(database));
    gone.into_iter().find(|database| had(&item_of(&database.name))).map_or(Ok(()), |gone| Err(vanished(gone)))
}

fn of_volume(name: &VolumeName) -> String {
    format!("volume {name}")
}

fn vanished(database: &DatabaseItem) -> Failure {
    let DatabaseItem { name, volume, file, .. } = database;
    failed("there is no new backup")
        .because(format!(
            "database `{name}`: its file `{file}` is not in volume `{volume}` any more, or has nothing in it; earlier backups have it"
        ))
        .next("`cutover backup restore` brings it among the snapshots, and `cutover snapshot restore` puts it back")
        .next("if it is to be gone, take it out of `databases` in cutover.yml and deploy")
}

/// How it is called among a backup's items.
fn item_of(database: &DatabaseName) -> String {
    format!("database {database}")
}

impl Gathered {
    /// The copy goes into it, and not the file itself, nor what lies beside that.
    fn copied(&mut self, from: &Path, to: PathBuf, hash: [u8; 32]) {
        self.hashes.insert(to, hash);
        self.exclude.extend(with_logs(from));
    }

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
        of.any(|volume| volume.files.iter().any(|file| file.path == Path::new(&database.file)))
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
fn sqlite_files(volume: &Path, declared: &[&DatabaseItem]) -> Result<Vec<SqliteFile>, FileError> {
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
                found.push(SqliteFile { path: below.to_owned(), is_declared });
            }
        }
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(found)
}

fn is_sqlite(path: &Path, length: u64) -> bool {
    if !length.is_multiple_of(PAGE) {
        return false;
    }
    let mut beginning = [0_u8; 16];
    File::open(path).and_then(|mut file| file.read_exact(&mut beginning)).is_ok() && beginning == *MAGIC
}

/// Copies the `SQLite` files of a volume into `folder`; gives those that were copied. A database of the app has to be among them. Any other that
/// `SQLite` does not copy is taken as it lies, as all files are, and that is said; one that went meanwhile is not there.
async fn copies(
    database: &dyn Database,
    volume: &Volume<'_>,
    folder: &Path,
    gathered: &mut Gathered,
) -> Result<Vec<String>, Failure> {
    let (mut copies, mut as_they_lie) = (Vec::new(), 0);
    for SqliteFile { path, is_declared } in &volume.files {
        let (from, to) = (volume.path.join(path), folder.join(path));
        let why = match (path.to_str(), copy(database, &from, &to).await) {
            (Some(name), Ok(hash)) => {
                gathered.copied(&from, to, hash);
                copies.push(name.to_owned());
                continue;
            }
            (_, Err(error)) if *is_declared || error.full => return Err(not_copied(&error)),
            (_, Err(error)) => error.message,
            (None, Ok(_)) => "the name of its copy cannot be told".to_owned(),
        };
        files::discard(&to);
        if fs::symlink_metadata(&from).is_err() {
            continue;
        }
        as_they_lie += 1;
        if as_they_lie <= NAMED {
            gathered.left_out.push(format!(
                "volume `{}`: `{}` begins like a SQLite file and cannot be copied as one: it is taken as it lies ({why})",
                volume.item.name,
                path.display()
            ));
        }
    }
    if as_they_lie > NAMED {
        let more = as_they_lie - NAMED;
        gathered
            .left_out
            .push(format!("volume `{}`: {more} more such files are taken as they lie", volume.item.name));
    }
    Ok(copies)
}

fn not_copied(error: &DatabaseError) -> Failure {
    failed("a database could not be copied").because(error.to_string()).next(if error.full {
        "make room on the disk, then try again"
    } else {
        "see what has it open, and that it is whole (`PRAGMA integrity_check`)"
    })
}

/// A consistent copy of a file that is used, with the owner and the mode of the file itself; gives its hash.
async fn copy(database: &dyn Database, from: &Path, to: &Path) -> Result<[u8; 32], DatabaseError> {
    files::ensure_folder(files::folder_of(to), 0o700)?;
    database.snapshot(&Located::File(from.to_owned()), to).await?;
    files::like(to, from)?;
    Ok(hash(to).map_err(|error| FileError::new("read", to, &error))?)
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

/// A `SQLite` file, and what may lie beside it.
fn with_logs(file: &Path) -> [PathBuf; 4] {
    ENDINGS.map(|ending| {
        let mut name = file.as_os_str().to_owned();
        name.push(ending);
        name.into()
    })
}

/// The files of a volume of which `SQLite` made these copies.
fn beside(volume: &Volume<'_>, copies: &[String]) -> BTreeSet<PathBuf> {
    copies.iter().flat_map(|copy| with_logs(&volume.path.join(copy))).collect()
}

/// What the copies of files will take.
fn bytes(volumes: &[Volume<'_>]) -> u64 {
    let files =
        volumes.iter().flat_map(|volume| volume.files.iter().map(|file| volume.path.join(&file.path)));
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
    Err(failed("there is no room for the copies of databases and volumes")
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

        let found = sqlite_files(&volume, &[]).unwrap();
        assert_eq!(found, [SqliteFile { path: "deep/cache.bin".into(), is_declared: false }]);
    }

    fn item() -> VolumeItem {
        VolumeItem {
            name: "data".parse().unwrap(),
            spec: cutover_core::plan::VolumeSpec {
                runtime: cutover_core::release::RuntimeKind::Process,
                name: "data".to_owned(),
                external: false,
            },
            services: BTreeSet::new(),
            backing: BTreeSet::new(),
        }
    }

    fn nothing() -> Gathered {
        let manifest = serde_json::json!({
            "version": 1, "app": { "app": "shop", "environment": "local" }, "release": "v1", "databases": {}, "volumes": {},
        });
        Gathered {
            paths: Vec::new(),
            exclude: Vec::new(),
            hashes: BTreeMap::new(),
            items: Vec::new(),
            left_out: Vec::new(),
            manifest: serde_json::from_value(manifest).unwrap(),
        }
    }

    fn database(file: &Path) {
        let made = rusqlite::Connection::open(file).unwrap();
        made.execute_batch("CREATE TABLE entries (id INTEGER PRIMARY KEY); INSERT INTO entries VALUES (1)")
            .unwrap();
    }

    #[tokio::test]
    async fn given_files_that_only_look_like_databases_then_they_are_taken_as_they_lie_and_that_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let (path, copied) = (folder.path().join("volume"), folder.path().join("room"));
        fs::create_dir_all(path.join("uploads")).unwrap();
        let odd = [MAGIC.as_slice(), &[0; 512 - 16]].concat();
        let long = format!("{}.db", "x".repeat(240));
        let no_text: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"caf\xe9.db");
        database(&path.join("good.db"));
        database(&path.join(&long));
        database(&path.join(no_text));
        for name in ["uploads/a.bin", "gone.db"] {
            fs::write(path.join(name), &odd).unwrap();
        }
        let files = sqlite_files(&path, &[]).unwrap();
        assert_eq!(files.len(), 5);
        // A visitor takes his file away between the look and the copy.
        fs::remove_file(path.join("gone.db")).unwrap();
        let item = item();
        let volume = Volume { item: &item, path, files };

        let (mut gathered, databases) =
            (nothing(), crate::database::Databases { meter: crate::meter::Meter::default() });
        let copies = copies(&databases, &volume, &copied, &mut gathered).await.unwrap();

        assert_eq!(copies, ["good.db"]);
        assert_eq!(gathered.hashes.keys().collect::<Vec<_>>(), [&copied.join("good.db")]);
        assert!(
            gathered.exclude.iter().all(|path| path.to_string_lossy().contains("/good.db")),
            "{gathered:?}"
        );
        let said = gathered.left_out.join("\n");
        assert_eq!(gathered.left_out.len(), 3, "{said}");
        assert!(said.contains("`uploads/a.bin`") && said.contains("file is not a database"), "{said}");
        // Nothing of what was tried goes along with the copies.
        assert_eq!(fs::read_dir(&copied).unwrap().count(), 2, "the copy, and a folder with nothing in it");
        assert_eq!(fs::read_dir(copied.join("uploads")).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn given_a_database_of_the_app_that_cannot_be_copied_then_there_is_no_backup() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("volume");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("app.db"), [MAGIC.as_slice(), &[0; 512 - 16]].concat()).unwrap();
        let item = item();
        let declared = DatabaseItem {
            name: "main".parse().unwrap(),
            volume: item.name.clone(),
            spec: item.spec.clone(),
            file: "app.db".to_owned(),
            services: BTreeSet::new(),
        };
        let files = sqlite_files(&path, &[&declared]).unwrap();
        let volume = Volume { item: &item, path, files };

        let databases = crate::database::Databases { meter: crate::meter::Meter::default() };
        let refused =
            copies(&databases, &volume, &folder.path().join("room"), &mut nothing()).await.unwrap_err();

        assert!(refused.to_string().contains("file is not a database"), "{refused}");
    }

    #[tokio::test]
    async fn of_many_such_files_a_few_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("volume");
        fs::create_dir(&path).unwrap();
        for number in 0..8 {
            fs::write(path.join(format!("{number}.bin")), [MAGIC.as_slice(), &[0; 512 - 16]].concat())
                .unwrap();
        }
        let item = item();
        let files = sqlite_files(&path, &[]).unwrap();
        let volume = Volume { item: &item, path, files };

        let (mut gathered, databases) =
            (nothing(), crate::database::Databases { meter: crate::meter::Meter::default() });
        copies(&databases, &volume, &folder.path().join("room"), &mut gathered).await.unwrap();

        assert_eq!(gathered.left_out.len(), NAMED + 1);
        assert!(gathered.left_out[NAMED].contains("3 more"), "{:?}", gathered.left_out);
    }
}

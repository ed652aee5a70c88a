//! What lies in cutover's own folders and is needed by nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use cutover_core::defaults::{RUNS_PRUNED, SNAPSHOTS, STAGED};
use cutover_core::hash::ContentHash;
use cutover_core::layout::{self, Layout};
use cutover_core::names::{AppId, DatabaseName, InstanceName, ReleaseId, RunId, ServiceName};
use cutover_core::retention::{
    HeldSnapshot, Kind, Leftover, SnapshotsKept, needed_snapshots, unneeded_snapshots,
};
use jiff::Timestamp;

use super::{Going, Needed};
use crate::backup;
use crate::files::{self, FileError};
use crate::journal::Trouble;
use crate::lock::{ProcessLock, RunLock};
use crate::observe::live_on_disk;
use crate::parcels;
use crate::runtime::process::artifact::Artifacts;
use crate::store::Store;

/// Bytes in a block, as the system counts what a file takes.
const BLOCK: u64 = 512;

/// All of it. It blocks: it walks through folders.
pub(super) fn look(
    layout: &Layout,
    store: &Store,
    app: &AppId,
    going: &Going,
    needed: &Needed,
) -> Result<Vec<Leftover>, Trouble> {
    let mut gone = releases(layout, store, app, going, needed)?;
    gone.extend(artifacts(layout, needed)?);
    gone.extend(old_snapshots(layout, store, app, &going.releases, SNAPSHOTS)?);
    gone.extend(runs(layout, store, app)?);
    gone.extend(logs(layout, app)?);
    gone.extend(staged(layout, store, app, needed)?);
    Ok(gone)
}

/// Those that go, and folders that a crash left when their record was gone. Where records were lost, folders stay: one of them may be what lives.
fn releases(
    layout: &Layout,
    store: &Store,
    app: &AppId,
    going: &Going,
    needed: &Needed,
) -> Result<Vec<Leftover>, Trouble> {
    let mut all = going.releases.clone();
    let known: BTreeSet<_> = store.releases(app)?.into_iter().map(|record| record.release.id).collect();
    let folders = names(&layout.app(app).join("releases"))?;
    let folders = folders.iter().filter_map(|name| name.parse::<ReleaseId>().ok());
    let is_left = |id: &ReleaseId| !known.contains(id) && !going.carried.contains(id);
    all.extend(folders.filter(|id| needed.is_complete() && is_left(id)));
    let leftover = |id: &ReleaseId| {
        let bytes = room(&layout.release(app, id));
        Leftover { kind: Kind::Release, name: id.to_string(), bytes }
    };
    Ok(all.iter().map(leftover).collect())
}

fn artifacts(layout: &Layout, needed: &Needed) -> Result<Vec<Leftover>, Trouble> {
    let Some(needed) = needed.artifacts() else { return Ok(Vec::new()) };
    let all = Artifacts::new(layout.clone()).list()?;
    let unneeded = all.into_iter().filter(|hash| !needed.contains(hash));
    let leftover = |hash: ContentHash| {
        let bytes = room(&layout.artifact(&hash));
        Leftover { kind: Kind::Artifact, name: hash.as_str().to_owned(), bytes }
    };
    Ok(unneeded.map(leftover).collect())
}

/// Snapshots of an app beyond those that releases refer to which are not `going`, and beyond those that are kept: the younger ones where the live
/// release says how long they stay, or else the newest one that has the database, else the `newest`. Where it is not known what the live one says, all stay.
pub(crate) fn old_snapshots(
    layout: &Layout,
    store: &Store,
    app: &AppId,
    going: &BTreeSet<ReleaseId>,
    newest: u32,
) -> Result<Vec<Leftover>, Trouble> {
    let known = store.snapshots(app)?;
    let hashes = store.snapshot_hashes(app)?;
    let records = store.releases(app)?;
    let live = live_on_disk(layout, app)
        .map_err(|failure| Trouble::plain(format!("what is live is not known: {}", failure.what)))?;
    let is_live = |record: &cutover_core::state::ReleaseRecord| {
        live.as_ref().is_some_and(|live| record.release.id == live.release)
    };
    if live.is_some() && !records.iter().any(is_live) {
        return Ok(Vec::new());
    }
    // A rollback to a release of before that was said, or a database that is in no release any more, changes nothing of it.
    let mut newest_last: Vec<_> = records.iter().collect();
    newest_last.sort_by_key(|record| record.release.created);
    let mut younger: BTreeMap<DatabaseName, Option<Duration>> = BTreeMap::new();
    for record in newest_last {
        younger.extend(record.release.databases.iter().map(|(name, database)| (name.clone(), database.keep)));
    }
    let of_live =
        records.iter().filter(|record| is_live(record)).flat_map(|record| &record.release.databases);
    younger.extend(of_live.filter(|(_, of)| of.keep.is_some()).map(|(name, of)| (name.clone(), of.keep)));
    let younger = younger.into_iter().filter_map(|(name, keep)| Some((name, keep?))).collect();
    let needed = needed_snapshots(records.iter().filter(|record| !going.contains(&record.release.id)));
    let folder = layout.snapshots(app);
    let held = names(&folder)?.into_iter().filter_map(|name| {
        let file = layout::in_snapshots(app, &name);
        let path = folder.join(&name);
        let (database, taken, _) = layout::parts_of_snapshot(&name)?;
        // One that came out of a backup is called by when that was made.
        let written = fs::symlink_metadata(&path).and_then(|found| found.modified());
        let written = written.ok().and_then(|at| Timestamp::try_from(at).ok());
        Some(HeldSnapshot {
            database,
            sequence: known.get(&file).copied(),
            bytes: room(&path),
            since: written.map_or(taken, |at| at.max(taken)),
            verified: hashes.contains_key(&file),
            file,
        })
    });
    let kept = SnapshotsKept { newest, younger: &younger, now: Timestamp::now() };
    Ok(unneeded_snapshots(&held.collect::<Vec<_>>(), &needed, kept))
}

/// Journals and events of runs long over, and events whose run nobody knows any more.
fn runs(layout: &Layout, store: &Store, app: &AppId) -> Result<Vec<Leftover>, Trouble> {
    let mut all = BTreeMap::new();
    for (run, bytes) in store.old_runs(app, RUNS_PRUNED)? {
        all.insert(run, bytes + room(&layout.events(run)));
    }
    for name in names(&layout.run_events())? {
        let Some(run) = name.strip_suffix(".jsonl").and_then(|run| run.parse::<RunId>().ok()) else {
            continue;
        };
        let events = layout.events(run);
        if is_old(&events) && store.run(run)?.is_none() {
            all.insert(run, room(&events));
        }
    }
    let leftover = |(run, bytes): (RunId, u64)| Leftover { kind: Kind::Run, name: run.to_string(), bytes };
    Ok(all.into_iter().map(leftover).collect())
}

/// Output of plain processes that are gone: a crash kept it from going with them.
fn logs(layout: &Layout, app: &AppId) -> Result<Vec<Leftover>, Trouble> {
    let folder = layout.instance_logs(app);
    let mut all: BTreeMap<InstanceName, u64> = BTreeMap::new();
    for name in names(&folder)? {
        let instance =
            name.split_once(".log").and_then(|(instance, _)| instance.parse::<InstanceName>().ok());
        let Some(instance) = instance.filter(|instance| !layout.instance(app, instance).exists()) else {
            continue;
        };
        *all.entry(instance).or_default() += room(&folder.join(&name));
    }
    let leftover =
        |(name, bytes): (InstanceName, u64)| Leftover { kind: Kind::Log, name: name.to_string(), bytes };
    Ok(all.into_iter().map(leftover).collect())
}

/// What never arrived: torn files, layers of images that nobody waits for, folders of runs that are over.
fn staged(layout: &Layout, store: &Store, app: &AppId, needed: &Needed) -> Result<Vec<Leftover>, Trouble> {
    let mut all = Vec::new();
    let mut add = |area: &str, folder: &Path, name: &str| {
        let bytes = room(&folder.join(name));
        all.push(Leftover { kind: Kind::Staged, name: format!("{area}/{name}"), bytes });
    };
    let is_torn = |folder: &Path, name: &str| name.starts_with('.') && is_old(&folder.join(name));
    let layers = layout.layers();
    for name in names(&layers)? {
        // A layer that came whole is not sent again; but where nobody sends, it may wait for ever.
        let waits = !name.starts_with('.') && !needed.is_leased();
        if waits || is_old(&layers.join(&name)) {
            add("layers", &layers, &name);
        }
    }
    let parcels_folder = layout.parcels();
    for name in names(&parcels_folder)? {
        let list_of = name.strip_suffix(".list").and_then(ContentHash::from_hex);
        let is_stale = list_of.is_some_and(|artifact| !layout.artifact(&artifact).exists());
        // Chunks of a connection that was lost wait for whoever sends the rest.
        let is_part = name.starts_with('.') && !parcels::is_written(&parcels_folder.join(&name));
        if is_stale || is_part && (!needed.is_leased() || is_old(&parcels_folder.join(&name))) {
            add("parcels", &parcels_folder, &name);
        }
    }
    let contexts = layout.contexts();
    for name in names(&contexts)?.iter().filter(|name| is_torn(&contexts, name)) {
        add("contexts", &contexts, name);
    }
    for name in old_contexts(layout, app, needed)? {
        add("contexts", &contexts, &name);
    }
    let artifacts = layout.artifacts();
    for name in names(&artifacts)?.iter().filter(|name| is_torn(&artifacts, name)) {
        add("artifacts", &artifacts, name);
    }
    let snapshots = layout.snapshots(app);
    for name in names(&snapshots)?.iter().filter(|name| is_torn(&snapshots, name)) {
        add("snapshots", &snapshots, name);
    }
    let runs = layout.run_folders();
    for name in names(&runs)?.iter().filter(|name| is_old(&runs.join(name))) {
        let Ok(run) = name.parse::<RunId>() else { continue };
        if !RunLock::is_held(layout, run) && (store.run(run)?.is_none() || store.is_over(run)?) {
            add("runs", &runs, name);
        }
    }
    Ok(all)
}

/// What images of an app were built from, with its lists, where no release on record has such an image any more: names below the folder of contexts.
/// One of a service that is still built stays, so that only what changed crosses again.
pub(super) fn old_contexts(layout: &Layout, app: &AppId, needed: &Needed) -> Result<Vec<String>, FileError> {
    let of_app = format!("{}.{}.", app.app, app.environment);
    let mut names = names(&layout.contexts())?;
    names.retain(|name| {
        let service = name.strip_prefix(&of_app).map(|name| name.strip_suffix(".list").unwrap_or(name));
        let service = service.and_then(|service| service.parse::<ServiceName>().ok());
        needed.is_complete() && service.is_some_and(|service| !needed.is_built(app, &service))
    });
    Ok(names)
}

/// What a process that was killed left of snapshots that it was writing. For who holds the app's lock: nobody writes one then but who brings them out
/// of a backup, who has a lock of its own.
pub(crate) fn forget_torn_snapshots(layout: &Layout, app: &AppId) -> Result<(), FileError> {
    if ProcessLock::is_held(layout, &backup::lock_name(app)) {
        return Ok(());
    }
    let folder = layout.snapshots(app);
    let torn: Vec<PathBuf> =
        names(&folder)?.iter().filter(|name| is_torn(name)).map(|name| folder.join(name)).collect();
    let removed = torn.iter().filter(|path| path.is_file()).map(|path| files::remove(path));
    removed.fold(Ok(()), Result::and)
}

/// Whether it is a name that [`files::beside`] gives: what others leave there is theirs.
fn is_torn(name: &str) -> bool {
    let id = name.strip_prefix('.').and_then(|name| name.rsplit_once('.')).map(|(_, id)| id);
    id.is_some_and(|id| id.len() == 32 && uuid::Uuid::try_parse(id).is_ok())
}

/// Where something of an area lies, as [`staged`] names it.
pub(super) fn staged_path(layout: &Layout, app: &AppId, name: &str) -> Option<PathBuf> {
    let (area, name) = name.split_once('/')?;
    let folder = match area {
        "layers" => layout.layers(),
        "parcels" => layout.parcels(),
        "contexts" => layout.contexts(),
        "artifacts" => layout.artifacts(),
        "snapshots" => layout.snapshots(app),
        "runs" => layout.run_folders(),
        _ => return None,
    };
    Some(folder.join(name))
}

/// The names in a folder, in order; none where it is not there.
pub(crate) fn names(folder: &Path) -> Result<Vec<String>, FileError> {
    let unreadable = |error: io::Error| FileError::new("read", folder, &error);
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.map_err(unreadable)?.file_name().into_string().ok());
    }
    names.sort_unstable();
    Ok(names)
}

/// Bytes that a file or a whole folder takes on the disk; what cannot be looked at counts as nothing.
pub(super) fn room(path: &Path) -> u64 {
    let Ok(found) = fs::symlink_metadata(path) else { return 0 };
    let below = if found.is_dir() {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        entries.map(|entry| room(&entry.path())).sum()
    } else {
        0
    };
    found.blocks() * BLOCK + below
}

/// Whether nobody can be writing it any more. What seems to come from the future is new: a clock may have jumped.
fn is_old(path: &Path) -> bool {
    let modified = fs::symlink_metadata(path).and_then(|found| found.modified());
    modified.is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|age| age > STAGED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_writer_of_ours_leaves_is_torn() {
        let ours = files::beside(Path::new("/backups/main_20261126T120000Z_41d0aa2.dump.zst"));
        assert!(is_torn(&ours.file_name().unwrap().to_string_lossy()));
        for name in [
            ".main.dump.zst.Xk3f9Q",
            ".nfs000000000001a2b300000001",
            ".note",
            "main.dump.zst",
            ".d.0123456789abcdef0123456789abcdeg",
        ] {
            assert!(!is_torn(name), "{name}");
        }
    }
}

//! Room on the disk, at each place that the plan will write to: state, snapshots, databases and the engine's data may lie on disks of their own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cutover_core::config::settings::SnapshotPolicy;
use cutover_core::defaults;
use cutover_core::failure::Failure;
use cutover_core::plan::{
    DatabasePlace, FilePlace, HeldDatabase, PreflightPlan, Reached, RestoredBeside, Rule, ScratchRehearsal,
    ServerPlace, SnapshotPlan,
};
use cutover_core::release::RuntimeKind;
use cutover_core::rules::{self, Room};

use super::Act;
use super::located;
use crate::backup;
use crate::files::{self, FileError};
use crate::journal::Trouble;

/// So much of a server's log stays at most before it is written over, where nothing keeps it (`max_wal_size`).
const LOG: u64 = 1 << 30;

/// What will be written somewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Want {
    /// For people.
    what: String,
    place: PathBuf,
    bytes: u64,
}

impl Want {
    fn new(what: &str, place: &Path, bytes: u64) -> Self {
        Self { what: what.to_owned(), place: place.to_owned(), bytes }
    }
}

/// The refusal, where a disk has less room than what the plan will write there.
pub(super) async fn refuse_low(act: &Act<'_>, plan: &PreflightPlan) -> Result<Option<Failure>, Trouble> {
    if act.plan.allowed.contains(&Rule::LowDisk) {
        return Ok(None);
    }
    let rooms = by_disk(wants(act, plan).await, disk)?;
    Ok(rules::refuse_low_room(&rooms))
}

/// The same for snapshots that somebody asked for, which have no preflight.
pub(super) async fn refuse_low_for_asked(
    act: &Act<'_>,
    plan: &SnapshotPlan,
) -> Result<Option<Failure>, Trouble> {
    if act.plan.allowed.contains(&Rule::LowDisk) {
        return Ok(None);
    }
    let mut wants = Vec::new();
    for asked in &plan.asked {
        let bytes = bytes(act, &asked.place).await.unwrap_or_default();
        wants.push(Want::new("snapshots", act.layout.backups(), bytes.saturating_add(defaults::DISK_FREE)));
    }
    match &plan.beside {
        Some(RestoredBeside { place: DatabasePlace::Server(place), .. }) => {
            wants.extend(in_data_of(act, place, in_server(act, place).await).await);
        }
        Some(RestoredBeside { place: DatabasePlace::File(_), file, to, .. }) => {
            let bytes = std::fs::metadata(act.layout.snapshot(file)).map_or(0, |found| found.len());
            let folder = files::folder_of(Path::new(to));
            wants.push(Want::new("the copy", folder, bytes.saturating_add(defaults::DISK_FREE)));
        }
        None => {}
    }
    Ok(rules::refuse_low_room(&by_disk(wants, disk)?))
}

/// How large a database is; `None`: there is none, or it does not say.
pub(super) async fn bytes(act: &Act<'_>, place: &DatabasePlace) -> Option<u64> {
    match place {
        DatabasePlace::File(place) => Some(file(act, place).await?.1),
        DatabasePlace::Server(place) => in_server(act, place).await,
    }
}

/// A second database beside one of this size, where its server is ours: in the engine's data, or below the state folder.
async fn in_data_of(act: &Act<'_>, place: &ServerPlace, bytes: Option<u64>) -> Option<Want> {
    let Reached::Backing { runtime, .. } = &place.reached else { return None };
    let folder = match runtime {
        RuntimeKind::Container => act.ports.runtime(*runtime).ok()?.data_folder().await?,
        RuntimeKind::Process => act.layout.state().to_owned(),
    };
    // All of it goes through the server's log, which is written over after a while.
    let bytes = bytes?;
    Some(Want::new("the database server's data", &folder, bytes.saturating_add(bytes.min(LOG))))
}

/// The refusal, where a disk has less room than what comes from a client takes: layers where they wait, and twice that where the engine unpacks
/// them.
///
/// # Errors
/// When the free room of a disk cannot be told.
pub(crate) fn refuse_low_for_layers(
    waiting: &Path,
    engine: Option<&Path>,
    bytes: u64,
) -> Result<Option<Failure>, FileError> {
    let want = Want::new;
    let mut wants =
        vec![want("layers on their way to the engine", waiting, bytes.saturating_add(defaults::DISK_FREE))];
    wants.extend(engine.map(|folder| want("the container engine's data", folder, bytes.saturating_mul(2))));
    refuse_low_before(wants)
}

/// The refusal, where a disk has less room than what comes from a client takes: chunks where they wait, and the files that are made of them.
///
/// # Errors
/// When the free room of a disk cannot be told.
pub(crate) fn refuse_low_for_files(
    waiting: (&Path, u64),
    made: (&Path, u64),
) -> Result<Option<Failure>, FileError> {
    let want = |what: &str, (place, bytes): (&Path, u64)| Want {
        what: what.to_owned(),
        place: place.to_owned(),
        bytes: bytes.saturating_add(defaults::DISK_FREE / 2),
    };
    refuse_low_before(vec![want("files on their way", waiting), want("files that are sent", made)])
}

/// The refusal, where the engine's disk has less room than a build takes at least: its context, and the image that has it.
///
/// # Errors
/// When the free room of a disk cannot be told.
pub(crate) fn refuse_low_for_build(engine: &Path, context: u64) -> Result<Option<Failure>, FileError> {
    let bytes = context.saturating_mul(2).saturating_add(defaults::DISK_FREE);
    refuse_low_before(vec![Want {
        what: "the container engine's data".to_owned(),
        place: engine.to_owned(),
        bytes,
    }])
}

fn refuse_low_before(wants: Vec<Want>) -> Result<Option<Failure>, FileError> {
    let mut low = rules::refuse_low_room(&by_disk(wants, disk)?);
    if let Some(failure) = &mut low {
        // Where there is no room nobody's leave makes some: only what makes room is said.
        failure.next.truncate(1);
    }
    Ok(low)
}

async fn wants(act: &Act<'_>, plan: &PreflightPlan) -> Vec<Want> {
    let want = Want::new;
    let mut wants = vec![want("state", act.layout.state(), plan.disk)];
    if plan.engine
        && let Ok(runtime) = act.ports.runtime(RuntimeKind::Container)
        && let Some(folder) = runtime.data_folder().await
    {
        wants.push(want("the container engine's data", &folder, defaults::DISK_FREE));
    }
    for held in act.plan.handover.todo().into_iter().flat_map(|handover| &handover.databases) {
        let HeldDatabase::Restore { database, place, present: Some(_), .. } = held else { continue };
        let bytes = match place {
            DatabasePlace::File(place) => file(act, place).await.map(|(folder, bytes)| {
                // What is put back lies beside it first.
                wants.push(want(&format!("database `{database}`"), &folder, bytes));
                bytes
            }),
            DatabasePlace::Server(place) => {
                let bytes = in_server(act, place).await;
                wants.extend(in_data_of(act, place, bytes).await);
                bytes
            }
        };
        wants.extend(bytes.map(|bytes| want("snapshots", act.layout.backups(), bytes)));
    }
    let Some(migrate) = act.plan.migrate.todo() else { return wants };
    for scratch in &migrate.scratch {
        wants.extend(scratch_room(act, scratch).await);
    }
    for migration in migrate.rehearse.iter().chain(&migrate.direct) {
        let (found, server) = match &migration.place {
            Some(DatabasePlace::File(place)) => (file(act, place).await, None),
            Some(DatabasePlace::Server(place)) => (None, in_server(act, place).await),
            None => (None, None),
        };
        if let Some((folder, bytes)) = &found {
            // Its growth, or what is put back beside it.
            wants.push(want(&format!("database `{}`", migration.database), folder, *bytes));
        }
        // What takes the held path is put back by itself where it fails.
        let is_put_back = migrate.rehearse.iter().any(|held| held.database == migration.database)
            && migration.snapshot != SnapshotPolicy::None;
        if let Some(DatabasePlace::Server(place)) = migration.place.as_ref().filter(|_| is_put_back) {
            wants.extend(in_data_of(act, place, server).await);
        }
        let bytes = found.map(|(_, bytes)| bytes).or(server);
        if let Some(bytes) = bytes.filter(|_| migration.snapshot != SnapshotPolicy::None) {
            wants.push(want("snapshots", act.layout.backups(), bytes));
        }
    }
    wants
}

/// A server beside the live one, with a database of its size or of the dump's.
async fn scratch_room(act: &Act<'_>, scratch: &ScratchRehearsal) -> Option<Want> {
    let Some(DatabasePlace::Server(place)) = &scratch.migration.place else { return None };
    let folder = act.ports.runtime(scratch.server.runtime()).ok()?.data_folder().await?;
    let dump = std::fs::metadata(act.layout.snapshot(&scratch.snapshot)).map_or(0, |found| found.len());
    let live = in_server(act, place).await.unwrap_or_default();
    Some(Want::new("the scratch server's data", &folder, backup::room_beside(live, dump)))
}

/// How large a database is in its server; a dump is smaller. `None`: it has none, or none that answers yet.
async fn in_server(act: &Act<'_>, place: &ServerPlace) -> Option<u64> {
    let server = located::server(act, place).await.ok()?;
    Some(act.ports.database.look(&server).await.ok()?.bytes)
}

/// Where a database's file lies and how large it is with its log; `None`: there is none yet.
async fn file(act: &Act<'_>, place: &FilePlace) -> Option<(PathBuf, u64)> {
    let path = located::path(act, place).await.ok()?;
    let bytes = std::fs::metadata(&path).ok()?.len();
    let mut log = path.clone().into_os_string();
    log.push("-wal");
    let log = std::fs::metadata(log).map_or(0, |log| log.len());
    Some((files::folder_of(&path).to_owned(), bytes + log))
}

/// Adds up what will be written to each disk, as `disk` tells them apart, with their free bytes.
fn by_disk(
    wants: Vec<Want>,
    disk: impl Fn(&Path) -> Result<(u64, u64), FileError>,
) -> Result<Vec<Room>, FileError> {
    let mut rooms: BTreeMap<u64, Room> = BTreeMap::new();
    for want in wants {
        let (number, free) = disk(&want.place)?;
        let room = rooms.entry(number).or_insert_with(|| Room { places: Vec::new(), free, needed: 0 });
        room.needed = room.needed.saturating_add(want.bytes);
        let place = (want.what, want.place.display().to_string());
        if !room.places.contains(&place) {
            room.places.push(place);
        }
    }
    Ok(rooms.into_values().collect())
}

/// The disk of a place, or of the nearest folder above it that is there: its number, and its free bytes.
fn disk(place: &Path) -> Result<(u64, u64), FileError> {
    use std::os::unix::fs::MetadataExt;
    let there = place.ancestors().find(|folder| folder.is_dir()).unwrap_or(place);
    let found = std::fs::metadata(there).map_err(|error| FileError::new("look at", there, &error))?;
    Ok((found.dev(), files::free(there)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn want(what: &str, place: &str, bytes: u64) -> Want {
        Want::new(what, Path::new(place), bytes)
    }

    #[test]
    fn what_goes_to_one_disk_is_added_up_and_each_disk_is_asked() {
        let wants = vec![
            want("state", "/state", 100),
            want("snapshots", "/backups", 40),
            want("database `main`", "/state/volumes", 40),
            want("snapshots", "/backups", 10),
        ];
        let disk = |place: &Path| Ok(if place.starts_with("/state") { (1, 1_000) } else { (2, 49) });

        let rooms = by_disk(wants, disk).unwrap();

        assert_eq!(rooms.iter().map(|room| room.needed).collect::<Vec<_>>(), [140, 50]);
        let refusal = rules::refuse_low_room(&rooms).unwrap();
        assert_eq!(refusal.cause, ["49 B free for snapshots (/backups), 50 B needed"]);
        assert!(rules::refuse_low_room(&rooms[..1]).is_none());
    }

    #[test]
    fn a_place_that_is_not_there_yet_lies_where_its_folder_does() {
        let folder = tempfile::tempdir().unwrap();

        let (number, free) = disk(&folder.path().join("not/there")).unwrap();

        assert_eq!(number, disk(folder.path()).unwrap().0);
        assert!(free > 0);
    }
}

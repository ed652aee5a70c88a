//! Snapshot: a restorable copy before a migration. Those of databases with a server are taken here, while the old release serves; those of SQLite,
//! and of what takes the held path, inside the handover, while nothing has them open (S16, S18). Where nothing is pending, none is taken. Those that
//! somebody asked for are taken here, whatever they are of, and here one is put beside its database.

use std::collections::BTreeMap;
use std::path::Path;

use cutover_core::config::settings::ServerKind;
use cutover_core::hash::ContentHash;
use cutover_core::journal::{Step, StepResult};
use cutover_core::layout;
use cutover_core::names::DatabaseName;
use cutover_core::plan::{
    AskedSnapshot, DatabasePlace, HeldDatabase, Migration, Planned, RestoredBeside, Rule, SnapshotPlan, Stage,
};
use cutover_core::rules;
use tokio::time::Instant;

use super::Act;
use super::backing::Backed;
use super::located::{located, server};
use super::once::run_once;
use super::{alone, room, told};
use crate::files::{self, FileError};
use crate::journal::{StageError, Trouble};
use crate::ports::{Located, Server, ServerState};
use crate::snapshots;

/// What may be migrated outside a handover, as it was before.
pub(crate) struct Snapshotted {
    /// Of each database for which something may be pending.
    pub(super) before: BTreeMap<DatabaseName, Before>,
}

/// A database before its migration.
#[derive(Default)]
pub(super) struct Before {
    /// The way to its server, and what that said; `None`: it has none, or none that is looked into.
    pub(super) server: Option<(Server, ServerState)>,
    /// The snapshot that was taken.
    pub(super) snapshot: Option<String>,
}

pub(crate) async fn snapshot(
    act: &Act<'_>,
    plan: &Planned<SnapshotPlan>,
    _: Backed,
) -> Result<Snapshotted, StageError> {
    if let Some(plan) = plan.todo() {
        Box::pin(asked(act, plan)).await?;
    }
    for held in act.plan.handover.todo().into_iter().flat_map(|handover| &handover.databases) {
        // Somebody asked for it: nothing is held or stopped for a snapshot that cannot be put back.
        if let HeldDatabase::Restore { database, place, snapshot: Some(file), present: Some(_) } = held {
            Box::pin(fits(act, database, place, file)).await?;
            refuse_long(act, database, place).await?;
            let found = located(act, place).await;
            let found = found.map_err(|trouble| told::not_put_back(act, database, &trouble))?;
            alone::for_asked(act, Stage::Snapshot, database, place, &found).await?;
        }
    }
    let mut before = BTreeMap::new();
    let Some(migrate) = act.plan.migrate.todo() else { return Ok(Snapshotted { before }) };
    for migration in &migrate.direct {
        let database = &migration.database;
        if is_pending(act, Stage::Snapshot, migration).await? {
            let wanted = plan.todo().is_some_and(|plan| plan.databases.contains(database));
            alone::for_migration(act, Stage::Snapshot, migration).await?;
            before.insert(database.clone(), take_before(act, Stage::Snapshot, migration, wanted).await?);
        }
    }
    Ok(Snapshotted { before })
}

/// What was asked for besides migrations.
async fn asked(act: &Act<'_>, plan: &SnapshotPlan) -> Result<(), StageError> {
    let low = room::refuse_low_for_asked(act, plan).await;
    if let Some(refusal) = low.map_err(|trouble| told::no_room_told(&trouble))? {
        return Err(refusal.into());
    }
    for AskedSnapshot { database, place, file } in &plan.asked {
        let found = located(act, place).await.map_err(|trouble| told::unreached(act, database, &trouble))?;
        if matches!(&found, Located::File(path) if !path.exists()) {
            return Err(told::unreached(act, database, &Trouble::plain("there is no file of it yet")).into());
        }
        // Half of what somebody else's migration does is no state that anybody would want back.
        alone::for_asked(act, Stage::Snapshot, database, place, &found).await?;
        take(act, Stage::Snapshot, database, &found, file).await?;
        alone::tell_lost(act, Stage::Snapshot, database, "dumped")?;
    }
    match &plan.beside {
        Some(plan) => beside(act, plan).await,
        None => Ok(()),
    }
}

/// A snapshot put back beside its database. What is there already is somebody's, unless a run that was killed had begun to make it.
async fn beside(act: &Act<'_>, plan: &RestoredBeside) -> Result<(), StageError> {
    let RestoredBeside { database, place, file, to, begun } = plan;
    unchanged(act, Stage::Snapshot, database, file).await?;
    fits(act, database, place, file).await?;
    let snapshot = act.layout.snapshot(file);
    let found = located(act, place).await.map_err(|trouble| told::unreached(act, database, &trouble))?;
    let is_there = is_there(act, &found, to).await;
    let is_there = is_there.map_err(|trouble| told::unreached(act, database, &trouble))?;
    if is_there && !begun {
        return Err(told::taken(database, to).into());
    }
    let step = Step::Restore { database: database.clone(), file: file.clone() };
    let made = async {
        // PostgreSQL names it once it is whole; so is a file, and what it holds tells whether it is this one. The others fill it under its name: what
        // is there was begun by this run, and is made anew.
        let is_made = is_there
            && match &found {
                Located::File(_) => hash_of(act, Path::new(to)).await? == hash_of(act, &snapshot).await?,
                Located::Server(server) if server.kind == ServerKind::Postgres => true,
                Located::Server(server) => {
                    act.ports.database.drop_kept(server, to).await?;
                    false
                }
            };
        if !is_made {
            act.ports.database.restore_beside(&snapshot, &found, to).await?;
        }
        Ok::<_, Trouble>(((), StepResult::Done))
    };
    act.journal.act(Stage::Snapshot, step, made).await?;
    act.journal.note(Stage::Snapshot, format!("the snapshot of `{database}` is put back as {to}"))
}

/// Whether something has the name already under which a snapshot is to be put beside.
async fn is_there(act: &Act<'_>, of: &Located, to: &str) -> Result<bool, Trouble> {
    match of {
        Located::File(_) => Ok(std::fs::symlink_metadata(to).is_ok()),
        Located::Server(server) => {
            let state = act.ports.database.look(server).await?;
            Ok(state.database == to || state.others.iter().any(|other| other == to))
        }
    }
}

/// Refuses a snapshot that is not what was recorded. All of it is read for that, and nothing touched.
pub(super) async fn unchanged(
    act: &Act<'_>,
    stage: Stage,
    database: &DatabaseName,
    file: &str,
) -> Result<(), StageError> {
    let read = async {
        let recorded = act.store.snapshot_hashes(act.app())?.remove(file);
        snapshots::unchanged(&act.layout.snapshot(file), recorded, &act.ports.meter).await
    };
    let lines = read.await.map_err(|trouble| told::distrusted(act, database, file, &trouble))?;
    act.journal.note(stage, format!("{}: {}", layout::snapshot_name(file), lines.join("; ")))
}

/// Refuses a snapshot that cannot be put in this database's place, as far as it says by itself and to the server.
async fn fits(
    act: &Act<'_>,
    database: &DatabaseName,
    place: &DatabasePlace,
    file: &str,
) -> Result<(), StageError> {
    let read = async {
        let of = located(act, place).await?;
        Ok::<_, Trouble>(act.ports.database.check(&act.layout.snapshot(file), &of).await?)
    };
    let lines = read.await.map_err(|trouble| told::unreadable(act, database, file, &trouble))?;
    act.journal.note(Stage::Snapshot, format!("{}: {}", layout::snapshot_name(file), lines.join("; ")))
}

/// Refuses a restore whose snapshot of the present would hold requests for longer than they wait (S18).
async fn refuse_long(
    act: &Act<'_>,
    database: &DatabaseName,
    place: &DatabasePlace,
) -> Result<(), StageError> {
    let Some(handover) = act.plan.handover.todo().filter(|plan| !plan.hold.is_empty()) else { return Ok(()) };
    let budget = u64::try_from(handover.bounds.budget.as_millis()).unwrap_or(u64::MAX);
    let bytes = room::bytes(act, place).await.unwrap_or_default();
    match rules::refuse_long_dump(database.as_str(), bytes, budget) {
        Some(refusal) if !act.plan.allowed.contains(&Rule::LongHold) => Err(refusal.into()),
        Some(_) | None => Ok(()),
    }
}

/// Whether a migration is pending, as far as something tells it.
pub(super) async fn is_pending(
    act: &Act<'_>,
    stage: Stage,
    migration: &Migration,
) -> Result<bool, StageError> {
    let questions = migration.questions();
    if questions.is_empty() {
        return Ok(true);
    }
    let step = Step::Pending { database: migration.database.clone() };
    let asked = async {
        let begun = Instant::now();
        // Whatever else it ends with: a migration that finds nothing to do harms nobody.
        let mut pending = false;
        for (spec, timeout) in questions {
            pending = pending || run_once(act, spec, timeout).await?.is_err();
        }
        let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok::<_, Trouble>((pending, StepResult::Rehearsed { pending, took_ms }))
    };
    act.journal.act(stage, step, asked).await
}

/// Looks at a database that is about to be migrated, and takes its snapshot where one is wanted.
pub(super) async fn take_before(
    act: &Act<'_>,
    stage: Stage,
    migration: &Migration,
    wanted: bool,
) -> Result<Before, StageError> {
    let place = match &migration.place {
        Some(DatabasePlace::Server(place)) => place,
        Some(DatabasePlace::File(_)) | None => return Ok(Before::default()),
    };
    let look = async {
        let server = server(act, place).await?;
        // What an earlier run left there would be in the way, and could still change something.
        act.ports.database.end_sessions(&server).await?;
        let state = act.ports.database.look(&server).await?;
        Ok::<_, Trouble>((server, state))
    };
    let (server, state) = look.await.map_err(|trouble| told::unseen(act, migration, &trouble))?;
    told::refuse_broken(act, migration, &state.schema)?;
    let file = &migration.snapshot_file;
    if wanted {
        take(act, stage, &migration.database, &Located::Server(server.clone()), file).await?;
    }
    Ok(Before { server: Some((server, state)), snapshot: wanted.then(|| file.clone()) })
}

/// Takes a verified, durable snapshot of a database that is there.
pub(super) async fn take(
    act: &Act<'_>,
    stage: Stage,
    database: &DatabaseName,
    of: &Located,
    file: &str,
) -> Result<(), StageError> {
    let to = act.layout.snapshot(file);
    let step = Step::Snapshot { database: database.clone(), file: file.to_owned() };
    let snapshot = async {
        files::ensure_folder(to.parent().unwrap_or(&to), 0o700)?;
        let taken = act.ports.database.snapshot(of, &to).await?;
        let loose = taken.told_loose();
        let hash = match taken.hash {
            Some(hash) => hash,
            None => hash_of(act, &to).await?,
        };
        act.store.put_snapshot(act.app(), file, Some(&hash))?;
        if let Some(counts) = &taken.counts {
            act.store.put_row_counts(file, counts)?;
        }
        Ok::<_, Trouble>((loose, StepResult::Snapshot { bytes: taken.bytes, hash: Some(hash) }))
    };
    match act.journal.act(stage, step, snapshot).await? {
        Some(loose) => act.journal.note(stage, format!("the snapshot of `{database}`: {loose}")),
        None => Ok(()),
    }
}

async fn hash_of(act: &Act<'_>, file: &Path) -> Result<ContentHash, Trouble> {
    let read = snapshots::hash_counted(file, &act.ports.meter).await;
    read.map_err(|error| FileError::new("read", file, &error).into())
}

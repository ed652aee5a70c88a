//! Migrate: SQLite migrations are rehearsed on a copy here, other engines' carried out after their snapshots, or looked at where they need the
//! held path. One-off instances run under a deadline; what a killed one left is ended by recovery (S9), and in the server, too (S19).

use std::path::{Path, PathBuf};

use cutover_core::config::settings::{Mount, ServerKind, SnapshotPolicy};
use cutover_core::journal::{Step, StepResult};
use cutover_core::layout;
use cutover_core::names::{ReleaseId, VolumeName};
use cutover_core::plan::{
    DatabasePlace, FilePlace, HostPlan, InstanceSpec, MigratePlan, Migration, Planned, Rule, ServerPlace,
    Stage,
};
use cutover_core::release::RuntimeKind;
use cutover_core::rules;
use cutover_core::state::SchemaChange;
use tokio::time::Instant;

use super::Act;
use super::located::{path, server};
use super::once::run_once;
use super::snapshot::{self, Before, Snapshotted};
use super::{alone, scratch, told};
use crate::files::{self, FileError};
use crate::journal::{StageError, Trouble};
use crate::ports::{Server, ServerState};

/// Nothing stands between the release and its databases but what the handover does.
pub(crate) struct Migrated {
    /// The plan to go on with, where a rehearsal found something pending.
    pub(crate) instead: Option<HostPlan>,
}

pub(crate) async fn migrate(
    act: &Act<'_>,
    plan: &Planned<MigratePlan>,
    taken: &Snapshotted,
) -> Result<Migrated, StageError> {
    let Planned::Do(plan) = plan else { return Ok(Migrated { instead: None }) };
    for one in &plan.scratch {
        Box::pin(scratch::rehearse(act, one)).await?;
    }
    let mut pending = false;
    for migration in &plan.rehearse {
        pending |= match &migration.place {
            Some(DatabasePlace::Server(place)) => must_be_held(act, migration, place).await?,
            Some(DatabasePlace::File(place)) => rehearse(act, migration, place).await?,
            None => false,
        };
    }
    for migration in &plan.direct {
        if let Some(before) = taken.before.get(&migration.database) {
            carry_out(act, Stage::Migrate, migration, before).await?;
        }
    }
    Ok(Migrated { instead: if pending { plan.if_pending.as_deref().cloned() } else { None } })
}

/// Whether a breaking migration of a server is pending, seen before anybody is held for it.
async fn must_be_held(act: &Act<'_>, migration: &Migration, place: &ServerPlace) -> Result<bool, StageError> {
    if !snapshot::is_pending(act, Stage::Migrate, migration).await? {
        return Ok(false);
    }
    alone::for_migration(act, Stage::Migrate, migration).await?;
    let found = async {
        let server = server(act, place).await?;
        act.ports.database.end_sessions(&server).await?;
        let state = act.ports.database.look(&server).await?;
        Ok::<_, Trouble>((server, state))
    };
    let (server, found) = found.await.map_err(|trouble| told::unseen(act, migration, &trouble))?;
    alone::refuse_another(act, Stage::Migrate, migration, &server).await?;
    told::refuse_broken(act, migration, &found.schema)?;
    let budget = u64::try_from(migration.budget.as_millis()).unwrap_or(u64::MAX);
    let is_dumped = migration.snapshot == SnapshotPolicy::BeforeMigration;
    let long = rules::refuse_long_dump(migration.database.as_str(), found.bytes, budget);
    if let Some(refusal) = long.filter(|_| is_dumped && refuses_long(act)) {
        return Err(refusal.into());
    }
    if is_dumped {
        try_to_restore(act, migration, &server).await?;
    }
    Ok(true)
}

/// Whether somebody would wait for it who may not wait for long: where all is stopped nobody does.
fn refuses_long(act: &Act<'_>) -> bool {
    act.plan.live.as_ref().is_some_and(|live| !live.members.is_empty())
        && !act.plan.allowed.contains(&Rule::LongHold)
}

/// Refuses what could not be put back if its migration failed, while nobody is held for it yet.
async fn try_to_restore(act: &Act<'_>, migration: &Migration, server: &Server) -> Result<(), StageError> {
    let folder = act.layout.run_folder(act.journal.run()).join("rehearsal");
    let scratch = folder.join(format!("{}.{}", migration.database, layout::DUMP));
    let tried = act.ports.database.rehearse_restore(server, &scratch).await;
    let how = match server.kind {
        ServerKind::Postgres => "its schema was, beside it, for a moment",
        ServerKind::Mysql | ServerKind::Mariadb => {
            "a database could be made beside it, and one of each kind of what cannot move"
        }
    };
    let text = format!("`{}` can be put back: {how}", migration.database);
    // The run's folder goes with the run in any case.
    files::discard(&scratch);
    tried.map_err(|error| told::not_restorable(act, migration, &error.into()))?;
    act.journal.note(Stage::Migrate, text)
}

/// Migrates a copy; tells whether that changed its content.
async fn rehearse(act: &Act<'_>, migration: &Migration, place: &FilePlace) -> Result<bool, StageError> {
    let step = Step::Rehearse { database: migration.database.clone() };
    let folder = act.layout.run_folder(act.journal.run()).join("rehearsal").join(migration.database.as_str());
    let rehearsal = async {
        for place in migration.beside.values() {
            copy_to(act, place, &folder).await?;
        }
        let begun = Instant::now();
        let copy = copy_to(act, place, &folder).await?;
        let before = act.ports.database.content(&copy).await?;
        let mut ran = Ok(());
        for (spec, timeout) in migration.commands() {
            ran = run_once(act, &on_copy(migration, spec, place, &folder), timeout).await?;
            if let Err(ended) = &mut ran {
                told::of_several(ended, migration, spec);
                break;
            }
        }
        let after = act.ports.database.content(&copy).await?;
        let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let pending = before != after;
        // What a migration that failed would have changed is not known.
        let result = ran.as_ref().map_or(StepResult::Done, |()| StepResult::Rehearsed { pending, took_ms });
        Ok::<_, Trouble>(((ran, pending, took_ms), result))
    };
    let (ran, pending, took_ms) = act.journal.act(Stage::Migrate, step, rehearsal).await?;
    act.journal
        .best_effort(Stage::Migrate, Step::Discard { what: "the rehearsal's copy".to_owned() }, async {
            std::fs::remove_dir_all(&folder)
                .map(|()| ((), StepResult::Done))
                .map_err(|error| FileError::new("remove", &folder, &error))
        })
        .await;
    ran.map_err(|ended| told::failed(act, migration, &ended, "its rehearsal on a copy"))?;
    if !pending && migration.down.is_some() {
        return Err(told::nothing_taken_back(
            &migration.database,
            back_to(act),
            " in a copy of the database",
        )
        .into());
    }
    let budget = u64::try_from(migration.budget.as_millis()).unwrap_or(u64::MAX);
    let long = rules::refuse_long_hold(migration.database.as_str(), took_ms, budget);
    match long.filter(|_| pending && refuses_long(act)) {
        Some(refusal) => Err(refusal.into()),
        None => Ok(pending),
    }
}

/// The release that a rollback goes to.
fn back_to<'a>(act: &'a Act<'_>) -> Option<&'a ReleaseId> {
    act.plan.release.as_ref().map(|release| &release.id)
}

/// The copy and the folders it lies in belong to whom the live ones belong: the migration may run as another user than we.
fn as_live(live: &Path, copy: &Path, file: &str) -> Result<(), Trouble> {
    let depth = Path::new(file).components().count() + 1;
    for (live, copy) in live.ancestors().zip(copy.ancestors()).take(depth) {
        if live.exists() && copy.exists() {
            files::like(copy, live)?;
        }
    }
    Ok(())
}

/// Where the copy of a database lies: each volume is a folder of its own.
fn copied(place: &FilePlace, folder: &Path) -> PathBuf {
    folder.join(place.name.as_str()).join(&place.file)
}

/// Copies a database for a rehearsal; where there is none yet, there is none to copy.
async fn copy_to(act: &Act<'_>, place: &FilePlace, folder: &Path) -> Result<PathBuf, Trouble> {
    let live = path(act, place).await?;
    let copy = copied(place, folder);
    files::ensure_folder(copy.parent().unwrap_or(folder), 0o700)?;
    if live.exists() {
        act.ports.database.copy(&live, &copy).await?;
    }
    as_live(&live, &copy, &place.file)?;
    Ok(copy)
}

/// The migrating instance as it sees the copies: at the same paths and without network in a container, by their files' names in a plain
/// process. Of the rest of the app's data a container can only read.
fn on_copy(migration: &Migration, spec: &InstanceSpec, place: &FilePlace, folder: &Path) -> InstanceSpec {
    let mut spec = spec.clone();
    if let Ok(name) = format!("rehearse-{}", spec.name).parse() {
        spec.name = name;
    }
    spec.isolated = true;
    let places = || migration.beside.iter().chain([(&migration.database, place)]);
    let is_copied = |volume: &VolumeName| places().any(|(_, place)| place.name == *volume);
    for mount in &mut spec.settings.mounts {
        match mount {
            Mount::Volume { volume, .. } if is_copied(volume) => {}
            Mount::Volume { read_only, .. } | Mount::Host { read_only, .. } => *read_only = true,
            Mount::Shipped { .. } | Mount::Tmpfs { .. } => {}
        }
    }
    for (database, place) in places() {
        spec.volumes.insert(place.name.clone(), folder.join(place.name.as_str()).display().to_string());
        if spec.runtime() == RuntimeKind::Process {
            spec.files.insert(database.clone(), copied(place, folder).display().to_string());
        }
    }
    spec
}

/// Migrates the database itself. What it left that did not end well is looked at, and told.
pub(super) async fn carry_out(
    act: &Act<'_>,
    stage: Stage,
    migration: &Migration,
    before: &Before,
) -> Result<(), StageError> {
    if let Some((server, _)) = &before.server {
        alone::refuse_another(act, stage, migration, server).await?;
    }
    alone::refuse_lost(act, &migration.database, "migrated")?;
    let step = Step::Migrate { database: migration.database.clone() };
    let (mut ended, mut is_empty) = (None, false);
    let run = async {
        for (spec, timeout) in migration.commands() {
            if let Err(mut badly) = run_once(act, spec, timeout).await? {
                told::of_several(&mut badly, migration, spec);
                // The journal must not say that it was done: what it left is not known.
                return Err(Trouble::plain(ended.insert(badly).why.clone()));
            }
        }
        let result = came_of(act, before).await;
        is_empty =
            migration.down.is_some() && matches!(&result, StepResult::Migrated { changed: Some(false), .. });
        if is_empty {
            return Err(Trouble::plain("it changed nothing"));
        }
        Ok(((), result))
    };
    let outcome = act.journal.act(stage, step, run).await;
    let lost = alone::tell_lost(act, stage, &migration.database, "migrated");
    let Err(error) = outcome else { return lost };
    if let Err(error) = lost {
        tracing::warn!(?error, "that the lock of migrations was lost is not written");
    }
    if is_empty {
        return Err(told::nothing_taken_back(&migration.database, back_to(act), "").into());
    }
    let left = inspect(act, stage, migration, before).await;
    Err(ended.map_or(error, |ended| {
        told::failed_for_real(act, stage, migration, &ended, &told::Known { before, left }).into()
    }))
}

/// What a migration that ended well made of the schema. It has ended well also where the server does not say.
async fn came_of(act: &Act<'_>, before: &Before) -> StepResult {
    let Some((server, was)) = &before.server else { return StepResult::Done };
    match act.ports.database.look(server).await {
        Ok(is) => {
            let changed = changed(was, &is);
            let schema = SchemaChange { before: was.schema.clone(), after: is.schema };
            StepResult::Migrated { schema, changed }
        }
        Err(error) => {
            tracing::warn!(%error, "the schema's version is not known");
            StepResult::Done
        }
    }
}

/// Whether a migration changed anything; `None`: tables and the like are as they were, and no tool says that it found nothing to do (rows are not
/// compared).
fn changed(was: &ServerState, is: &ServerState) -> Option<bool> {
    if is.catalogue != was.catalogue || is.schema != was.schema {
        return Some(true);
    }
    (!was.schema.is_empty()).then_some(false)
}

/// What a migration that did not end well left in its server, once no session of it goes on there (S19).
async fn inspect(act: &Act<'_>, stage: Stage, migration: &Migration, before: &Before) -> Option<told::Left> {
    let (server, was) = before.server.as_ref()?;
    let step = Step::Inspect { database: migration.database.clone() };
    let look = async {
        let sessions = act.ports.database.end_sessions(server).await?;
        let is = act.ports.database.look(server).await?;
        let changed = is.catalogue != was.catalogue;
        let objects = told::changed_objects(was, &is);
        let schema = SchemaChange { before: was.schema.clone(), after: is.schema };
        let left = told::Left { sessions, changed, objects, schema: schema.clone() };
        Ok::<_, Trouble>((left, StepResult::Inspected { changed, schema }))
    };
    act.journal.best_effort(stage, step, look).await
}

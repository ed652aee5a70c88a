//! Migrate: SQLite migrations are rehearsed on a copy here, other engines' carried out. One-off instances run under a deadline; what a
//! killed one left is ended by recovery (S9).

use std::path::{Path, PathBuf};
use std::time::Duration;

use cutover_core::config::settings::Mount;
use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::journal::{Step, StepResult, What};
use cutover_core::names::VolumeName;
use cutover_core::plan::{
    DatabasePlace, HostPlan, InstanceRef, InstanceSpec, MigratePlan, Migration, Planned, Rule, Stage,
};
use cutover_core::release::RuntimeKind;
use cutover_core::rules;
use tokio::time::Instant;

use super::Act;
use super::backing::Backed;
use crate::files::{self, FileError};
use crate::journal::{StageError, Trouble};
use crate::ports::{LogQuery, Scope};

/// Lines of a migration's output that are kept in the journal.
const OUTPUT_LINES: usize = 200;

/// Nothing stands between the release and its databases but what the handover does.
pub(crate) struct Migrated {
    /// The plan to go on with, where a rehearsal found something pending.
    pub(crate) instead: Option<HostPlan>,
}

pub(crate) async fn migrate(
    act: &Act<'_>,
    plan: &Planned<MigratePlan>,
    _: Backed,
) -> Result<Migrated, StageError> {
    let Planned::Do(plan) = plan else { return Ok(Migrated { instead: None }) };
    let mut pending = false;
    for migration in &plan.rehearse {
        pending |= rehearse(act, migration).await?;
    }
    for migration in &plan.direct {
        carry_out(act, Stage::Migrate, migration).await?;
    }
    Ok(Migrated { instead: if pending { plan.if_pending.as_deref().cloned() } else { None } })
}

/// Migrates a copy; tells whether that changed its content.
async fn rehearse(act: &Act<'_>, migration: &Migration) -> Result<bool, StageError> {
    let Some(place) = &migration.place else { return Ok(false) };
    let step = Step::Rehearse { database: migration.database.clone() };
    let folder = act.layout.run_folder(act.journal.run()).join("rehearsal").join(migration.database.as_str());
    let rehearsal = async {
        for place in migration.beside.values() {
            copy_to(act, place, &folder).await?;
        }
        let begun = Instant::now();
        let copy = copy_to(act, place, &folder).await?;
        let before = act.ports.database.content(&copy).await?;
        let ran = run_once(act, &on_copy(migration, place, &folder), migration.timeout).await?;
        let after = act.ports.database.content(&copy).await?;
        let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let pending = before != after;
        Ok::<_, Trouble>(((ran, pending, took_ms), StepResult::Rehearsed { pending, took_ms }))
    };
    let (ran, pending, took_ms) = act.journal.act(Stage::Migrate, step, rehearsal).await?;
    act.journal
        .best_effort(Stage::Migrate, Step::Discard { what: "the rehearsal's copy".to_owned() }, async {
            std::fs::remove_dir_all(&folder)
                .map(|()| ((), StepResult::Done))
                .map_err(|error| FileError::new("remove", &folder, &error))
        })
        .await;
    ran.map_err(|ended| failed(act, migration, &ended, "its rehearsal on a copy"))?;
    let budget = u64::try_from(migration.budget.as_millis()).unwrap_or(u64::MAX);
    let long = rules::refuse_long_hold(migration.database.as_str(), took_ms, budget);
    match long.filter(|_| pending && act.plan.live.is_some() && !act.plan.allowed.contains(&Rule::LongHold)) {
        Some(refusal) => Err(refusal.into()),
        None => Ok(pending),
    }
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
fn copied(place: &DatabasePlace, folder: &Path) -> PathBuf {
    folder.join(place.name.as_str()).join(&place.file)
}

/// Copies a database for a rehearsal; where there is none yet, there is none to copy.
async fn copy_to(act: &Act<'_>, place: &DatabasePlace, folder: &Path) -> Result<PathBuf, Trouble> {
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
fn on_copy(migration: &Migration, place: &DatabasePlace, folder: &Path) -> InstanceSpec {
    let mut spec = migration.spec.clone();
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

/// Migrates the database itself.
pub(super) async fn carry_out(act: &Act<'_>, stage: Stage, migration: &Migration) -> Result<(), StageError> {
    let step = Step::Migrate { database: migration.database.clone() };
    let mut ended = None;
    let run = async {
        match run_once(act, &migration.spec, migration.timeout).await? {
            Ok(()) => Ok(((), StepResult::Done)),
            // The journal must not say that it was done: what it left is not known.
            Err(badly) => Err(Trouble::plain(ended.insert(badly).why.clone())),
        }
    };
    let outcome = act.journal.act(stage, step, run).await;
    outcome.map_err(|error| ended.map_or(error, |ended| failed(act, migration, &ended, "it").into()))
}

/// How a one-off instance ended that did not end well.
pub(super) struct Ended {
    why: String,
    output: Vec<String>,
}

/// Runs a one-off instance to its end and removes it. An earlier one of the same name is ended first (S9).
async fn run_once(
    act: &Act<'_>,
    spec: &InstanceSpec,
    timeout: Duration,
) -> Result<Result<(), Ended>, Trouble> {
    let runtime = act.ports.runtime(spec.runtime())?;
    let values = act.values(&spec.release).map_err(|error| Trouble::plain(error.failure().to_string()))?;
    let app = act.app();
    let reference = InstanceRef {
        name: spec.name.clone(),
        service: spec.service.clone(),
        runtime: spec.runtime(),
        stop: spec.settings.stop.clone(),
    };
    runtime.stop(app, &reference.name, &reference.stop).await?;
    runtime.remove(app, &reference.name).await?;
    runtime.create(spec, &values).await?;
    runtime.start(app, &spec.name).await?;
    let ended = tokio::time::timeout(timeout, runtime.exited(app, &spec.name)).await;
    // Ended or late: nothing of it may be left when the database is looked at, opened or put back.
    runtime.stop(app, &reference.name, &reference.stop).await?;
    let query = LogQuery { tail: Some(OUTPUT_LINES), scope: Scope::ThisStart, since: None };
    let lines = runtime.logs(app, &spec.name, &query).await.unwrap_or_default();
    let output: Vec<String> = lines.into_iter().map(|line| values.redact(&line.text)).collect();
    for line in &output {
        let written = act.journal.write(What::Output { of: spec.name.to_string(), line: line.clone() });
        written.map_err(|error| Trouble::plain(error.failure().to_string()))?;
    }
    runtime.remove(app, &spec.name).await?;
    let why = match ended {
        Ok(exit) => {
            let exit = exit?;
            if exit.code == Some(0) {
                return Ok(Ok(()));
            }
            exit.to_string()
        }
        Err(_) => format!("it did not end within {} s and was stopped", timeout.as_secs()),
    };
    Ok(Err(Ended { why, output }))
}

fn failed(act: &Act<'_>, migration: &Migration, ended: &Ended, what: &str) -> Failure {
    let release = &migration.spec.release;
    let mut failure = Failure::new(
        Exit::Migration,
        format!("release {release} was not put live: the migration of `{}` failed", migration.database),
    );
    failure.cause.push(format!("{what}: {}", ended.why));
    failure.log = ended.output.iter().rev().take(cutover_core::defaults::LOG_TAIL).rev().cloned().collect();
    failure.next.push("mend the migration and deploy again".to_owned());
    if migration.place.is_none() && what == "it" {
        let database = &migration.database;
        failure.next.insert(0, format!("see first what it left in `{database}`: nothing there was undone"));
    }
    failure.next.push(format!("its whole output: `cutover attach {}`", act.journal.run()));
    failure
}

/// The absolute path of a database's file.
pub(super) async fn path(act: &Act<'_>, place: &DatabasePlace) -> Result<PathBuf, Trouble> {
    let runtime = act.ports.runtime(place.volume.runtime)?;
    Ok(runtime.volume_path(&place.volume).await?.join(&place.file))
}

//! A migration tried on a scratch database: a snapshot in a server of its own, beside the live one and with no network but itself, in which the migration
//! runs. Nothing live is in its reach. Server and migration are one-off instances: what a failure or a crash leaves of them is taken away by recovery.

use std::path::PathBuf;
use std::time::Duration;

use cutover_core::failure::Failure;
use cutover_core::journal::{Step, StepResult};
use cutover_core::layout;
use cutover_core::plan::{DatabasePlace, ScratchRehearsal, ServerPlace, Stage};
use cutover_core::rehearsal::{Findings, LockTally, TableLock, differences};
use cutover_core::state::SchemaChange;
use futures_util::StreamExt as _;
use tokio::time::Instant;

use super::located::server;
use super::once::{Ended, run_once};
use super::start::{remove, run, stop};
use super::{Act, told};
use crate::backup;
use crate::files;
use crate::journal::{StageError, Trouble};
use crate::ports::{LockSamples, Server, ServerState, Way};
use crate::snapshots;

/// Between two looks at a server that starts.
const AGAIN: Duration = Duration::from_millis(100);
/// For the first look at its locks.
const FIRST_LOOK: Duration = Duration::from_secs(30);
/// How a rehearsal is called, and begun.
const REHEARSAL: (&str, &str) = ("the rehearsal", "cutover migrate rehearse");

/// Tries one migration and takes all of it away again.
pub(super) async fn rehearse(act: &Act<'_>, plan: &ScratchRehearsal) -> Result<(), StageError> {
    let database = &plan.migration.database;
    let Some(DatabasePlace::Server(place)) = &plan.migration.place else { return Ok(()) };
    let read = async {
        let recorded = act.store.snapshot_hashes(act.app())?.remove(&plan.snapshot);
        snapshots::unchanged(&act.layout.snapshot(&plan.snapshot), recorded).await
    };
    let lines = read.await.map_err(|trouble| {
        told::not_rehearsed(act, database, &trouble)
            .next("`cutover snapshot create` takes one now, while the database is used; then rehearse again")
    })?;
    act.journal
        .note(Stage::Migrate, format!("{}: {}", layout::snapshot_name(&plan.snapshot), lines.join("; ")))?;
    run(act, Stage::Migrate, &plan.server).await?;
    let mut badly = None;
    let step = Step::Rehearse { database: database.clone() };
    let tried = async {
        let filled_up = filled_up(act, plan);
        let tried = tokio::select! {
            tried = tried(act, plan, place) => tried?,
            failure = filled_up => Err(failure),
        };
        match tried {
            Ok(findings) => Ok(((), StepResult::Tried { findings: Box::new(findings) })),
            // The journal must not say that it was done.
            Err(failure) => Err(Trouble::plain(badly.insert(failure).what.clone())),
        }
    };
    let outcome = act.journal.act(Stage::Migrate, step, tried).await;
    if let Err(error) = outcome {
        return Err(badly.map_or(error, StageError::from));
    }
    let server = plan.server.reference();
    stop(act, Stage::Migrate, &server).await?;
    remove(act, Stage::Migrate, &server).await
}

/// A server whose disk is full takes the live database with it.
async fn filled_up(act: &Act<'_>, plan: &ScratchRehearsal) -> Failure {
    let data: Option<PathBuf> = match act.ports.runtime(plan.server.runtime()) {
        Ok(runtime) => runtime.data_folder().await,
        Err(_) => None,
    };
    backup::filled_up(data.as_deref(), files::free, REHEARSAL).await
}

/// Fills the scratch server and migrates what is in it; `Ok(Err)`: what is told of a migration that did not end well.
async fn tried(
    act: &Act<'_>,
    plan: &ScratchRehearsal,
    place: &ServerPlace,
) -> Result<Result<Findings, Failure>, Trouble> {
    let (database, migration) = (&act.ports.database, &plan.migration);
    let live = server(act, place).await?;
    let runtime = act.ports.runtime(plan.server.runtime())?.clone();
    let way = Way::Inside { runtime, app: act.app().clone(), instance: plan.server.name.clone() };
    let scratch = Server { kind: place.kind, name: None, way, client: layout::OWN_CLIENT };
    answers(act, plan, &scratch).await?;
    let begun = Instant::now();
    database.fill(&scratch, &act.layout.snapshot(&plan.snapshot), &live).await?;
    let restored_ms = millis(begun);
    let scratch = Server { name: Some(database.look(&live).await?.database), ..scratch };
    let (before, was) = (database.look(&scratch).await?, database.schema(&scratch).await?);
    let findings = Findings {
        snapshot: layout::snapshot_name(&plan.snapshot).to_owned(),
        bytes: before.bytes,
        restored_ms,
        ..Findings::default()
    };
    if let Some(spec) = &migration.pending
        && run_once(act, spec, migration.timeout).await?.is_ok()
    {
        let schema = SchemaChange { before: before.schema.clone(), after: before.schema };
        return Ok(Ok(Findings { schema, ..findings }));
    }
    let Migrated { ran, took_ms, locks } = migrated(act, plan, &scratch).await?;
    if let Err(ended) = ran {
        return Ok(Err(failed(act, plan, &scratch, &ended, &before).await?));
    }
    let (after, is) = (database.look(&scratch).await?, database.schema(&scratch).await?);
    Ok(Ok(Findings {
        migrated_ms: Some(took_ms),
        locks,
        schema: SchemaChange { before: before.schema, after: after.schema },
        differences: differences(&was, &is),
        ..findings
    }))
}

/// Waits until the server takes connections as it will go on to: while it makes its first database it takes none from a network.
async fn answers(act: &Act<'_>, plan: &ScratchRehearsal, scratch: &Server) -> Result<(), Trouble> {
    let runtime = act.ports.runtime(plan.server.runtime())?;
    let end = Instant::now() + plan.within;
    loop {
        let name = &plan.server.name;
        let listens = runtime.listening(act.app(), name).await.is_ok_and(|found| !found.is_empty());
        let why = match act.ports.database.look(scratch).await {
            Ok(_) if listens => return Ok(()),
            Ok(_) => "it takes no connections from a network".to_owned(),
            Err(error) => error.message,
        };
        let runs = runtime.inspect(act.app(), name).await?.is_some_and(|found| found.is_running());
        if !runs || Instant::now() >= end {
            let how = if runs { "does not answer" } else { "has ended by itself" };
            return Err(Trouble::plain(format!("the scratch server {how}: {why}")));
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// How a migration on its scratch database ended.
struct Migrated {
    ran: Result<(), Ended>,
    took_ms: u64,
    locks: Option<Vec<TableLock>>,
}

/// Migrates, and looks at the locks meanwhile.
async fn migrated(act: &Act<'_>, plan: &ScratchRehearsal, scratch: &Server) -> Result<Migrated, Trouble> {
    let mut tally = LockTally::default();
    let mut samples = looking(act, scratch, &mut tally).await;
    let begun = Instant::now();
    let running = run_once(act, &plan.migration.spec, plan.migration.timeout);
    tokio::pin!(running);
    let ran = loop {
        let Some(looks) = &mut samples else { break running.await? };
        tokio::select! {
            ran = &mut running => break ran?,
            sample = looks.next() => match sample {
                Some(sample) => tally.add(&sample),
                None => samples = None,
            },
        }
    };
    let locks = samples.map(|_| tally.into_locks());
    Ok(Migrated { ran, took_ms: millis(begun), locks })
}

/// The looks at the locks, the first of which was made; `None`: they cannot be seen.
async fn looking(act: &Act<'_>, scratch: &Server, tally: &mut LockTally) -> Option<LockSamples> {
    let looks = Server { client: layout::LOCKS_CLIENT, ..scratch.clone() };
    let first = async {
        let mut samples = act.ports.database.locks(&looks).await.map_err(|error| error.message)?;
        let first = samples.next().await.ok_or("the server ended the session that looks at them")?;
        tally.add(&first);
        Ok::<_, String>(samples)
    };
    match tokio::time::timeout(FIRST_LOOK, first).await {
        Ok(Ok(samples)) => Some(samples),
        Ok(Err(error)) => {
            tracing::warn!(error, "the locks of a rehearsal are not seen");
            None
        }
        Err(_) => None,
    }
}

/// What is told of a migration that did not end well, once no session of it goes on.
async fn failed(
    act: &Act<'_>,
    plan: &ScratchRehearsal,
    scratch: &Server,
    ended: &Ended,
    was: &ServerState,
) -> Result<Failure, Trouble> {
    let sessions = act.ports.database.end_sessions(scratch).await?;
    let is = act.ports.database.look(scratch).await?;
    let left = told::Left {
        sessions,
        changed: is.catalogue != was.catalogue,
        objects: told::changed_objects(was, &is),
        schema: SchemaChange { before: was.schema.clone(), after: is.schema },
    };
    Ok(told::failed_on_scratch(act, &plan.migration, ended, &left))
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

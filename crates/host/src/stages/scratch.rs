//! A migration tried on a scratch database: a snapshot in a server of its own, beside the live one and with no network but itself, in which the migration
//! runs. Nothing live is in its reach. Server and migration are one-off instances: what a failure or a crash leaves of them is taken away by recovery.
//! Only how the migration itself ends is told as a migration's end (exit 5); all else is trouble of the rehearsal (exit 1).

use std::path::PathBuf;
use std::time::Duration;

use cutover_core::config::settings::ServerKind;
use cutover_core::defaults::LOG_TAIL;
use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::journal::{Step, StepResult, What};
use cutover_core::layout;
use cutover_core::plan::{DatabasePlace, InstanceSpec, Migration, ScratchRehearsal, ServerPlace, Stage};
use cutover_core::rehearsal::{Findings, LockTally, TableLock, differences};
use cutover_core::state::SchemaChange;
use futures_util::StreamExt as _;
use rustix::process::geteuid;
use tokio::time::Instant;

use super::check::{cancelled, unless_cancelled};
use super::confined::{Unconfined, confined};
use super::located::server;
use super::once::{Ended, run_once};
use super::start::{retire, run};
use super::{Act, scratch_memory, told};
use crate::backup;
use crate::files;
use crate::journal::{StageError, Trouble};
use crate::memory;
use crate::ports::{LockSamples, LogQuery, Server, ServerState, Way};
use crate::runtime::names_host;
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
    let plan = &unless_cancelled(act, confined_to_host(act, plan)).await?;
    refuse_unnamed(act, plan, place.kind)?;
    let lines = unless_cancelled(act, read(act, plan)).await?;
    act.journal
        .note(Stage::Migrate, format!("{}: {}", layout::snapshot_name(&plan.snapshot), lines.join("; ")))?;
    let started = unless_cancelled(act, run(act, Stage::Migrate, &plan.server)).await;
    started.map_err(|error| not_started(act, plan, error))?;
    let mut broken = None;
    let step = Step::Rehearse { database: database.clone() };
    let tried = async {
        match watched(act, plan, place).await {
            Ok(findings) => {
                let findings = findings.map_text(|text| told::without_values(act, plan, text));
                Ok(((), StepResult::Tried { findings: Box::new(findings) }))
            }
            // The journal must not say that it was done.
            Err(error) => Err(Trouble::plain(broken.insert(error).clone().failure().what)),
        }
    };
    let outcome = act.journal.act(Stage::Migrate, step, tried).await;
    if let Err(error) = outcome {
        return Err(broken.unwrap_or(error));
    }
    take_away(act, plan).await
}

/// Reads the whole snapshot; what was found good, a line each.
async fn read(act: &Act<'_>, plan: &ScratchRehearsal) -> Result<Vec<String>, StageError> {
    let read = async {
        let recorded = act.store.snapshot_hashes(act.app())?.remove(&plan.snapshot);
        snapshots::unchanged(&act.layout.snapshot(&plan.snapshot), recorded, &act.ports.meter).await
    };
    let lines = read.await.map_err(|trouble| {
        told::not_rehearsed(act, plan, Exit::Refused, &trouble.message)
            .next("`cutover snapshot create` takes one now, while the database is used; then rehearse again")
    })?;
    Ok(lines)
}

/// What was found is no less true where the server does not go: watch takes it away, as it does what nobody wants.
async fn take_away(act: &Act<'_>, plan: &ScratchRehearsal) -> Result<(), StageError> {
    match retire(act, Stage::Migrate, &plan.server.reference()).await {
        Err(StageError::Failed(failure)) => {
            let container = layout::container(act.app(), &plan.server.name);
            let text = told::left_over(&plan.migration.database, &container, &failure);
            act.journal.write(What::Warning { stage: Stage::Migrate, text }).map(drop)
        }
        other => other,
    }
}

/// Server, migration and question with what of the host may stay within their reach: its plain files, and its memory as far as nobody else has it.
async fn confined_to_host(act: &Act<'_>, plan: &ScratchRehearsal) -> Result<ScratchRehearsal, StageError> {
    let failed = |trouble: Trouble| told::not_rehearsed(act, plan, Exit::Failed, &trouble.message);
    let engine = act.ports.runtime(plan.server.runtime()).map_err(|error| failed(error.into()))?;
    let data = engine.data_folder().await;
    let room = act.layout.run_folder(act.journal.run()).join("rehearsal").join("files");
    let files = async |spec: &InstanceSpec| {
        let confined = confined(spec, data.as_deref(), room.join(spec.name.as_str())).await;
        confined.map_err(|error| match error {
            Unconfined::Forbidden { path, error } => {
                told::forbidden(failed(error.into()), &path, &spec.service, geteuid().as_raw())
            }
            Unconfined::Trouble(trouble) => failed(trouble),
        })
    };
    let mut confined = plan.clone();
    confined.server = files(&plan.server).await?;
    for spec in confined.migration.specs_mut() {
        *spec = files(spec).await?;
    }
    // The memory of an engine that is elsewhere is not seen from here.
    if let Some(available) = data.and_then(|_| memory::told("MemAvailable")) {
        let lowered = scratch_memory::bound(&mut confined, available).map_err(|why| {
            told::not_rehearsed(act, plan, Exit::Refused, &why)
                .next("stop what is not needed there, or rehearse on a host with more memory")
        })?;
        for line in lowered {
            act.journal.note(Stage::Migrate, line)?;
        }
    }
    Ok(confined)
}

/// A migration that is not told of the server beside which the scratch one is put would find nothing there: how that ends says nothing about it.
fn refuse_unnamed(act: &Act<'_>, plan: &ScratchRehearsal, kind: ServerKind) -> Result<(), StageError> {
    for spec in plan.migration.instances() {
        match names_host(spec, &act.values(&spec.release)?, &plan.names) {
            Ok(true) => {}
            Ok(false) => return Err(told::unnamed(act, plan, &spec.service, kind).into()),
            Err(open) => {
                return Err(told::not_rehearsed(act, plan, Exit::Refused, &open.to_string()).into());
            }
        }
    }
    Ok(())
}

/// The scratch server's own trouble is not the migration's.
fn not_started(act: &Act<'_>, plan: &ScratchRehearsal, error: StageError) -> StageError {
    match error {
        StageError::Failed(failure) => {
            let mut told = told::not_rehearsed(act, plan, Exit::Failed, &failure.what);
            told.cause.extend(failure.cause.iter().map(|cause| told::without_values(act, plan, cause)));
            told.into()
        }
        cancelled @ StageError::Cancelled { .. } => cancelled,
    }
}

/// Tries it for as long as nobody wants it to end and the disk has room. What it writes ends before anything else is done.
async fn watched(
    act: &Act<'_>,
    plan: &ScratchRehearsal,
    place: &ServerPlace,
) -> Result<Findings, StageError> {
    let error = tokio::select! {
        tried = tried(act, plan, place) => return tried,
        failure = filled_up(act, plan) => failure.into(),
        error = cancelled(act) => error,
    };
    let questions = plan.migration.questions().into_iter().map(|(spec, _)| spec);
    let specs = plan.migration.instances().chain(questions).chain([&plan.server]);
    let runtime = act.ports.runtime(plan.server.runtime());
    for reference in specs.map(InstanceSpec::reference) {
        let stopped = async { runtime.clone()?.stop(act.app(), &reference.name, &reference.stop).await };
        if let Err(error) = stopped.await {
            tracing::warn!(%error, instance = %reference.name, "the way back stops it");
        }
    }
    Err(error)
}

/// A server whose disk is full takes the live database with it.
async fn filled_up(act: &Act<'_>, plan: &ScratchRehearsal) -> Failure {
    let data: Option<PathBuf> = match act.ports.runtime(plan.server.runtime()) {
        Ok(runtime) => runtime.data_folder().await,
        Err(_) => None,
    };
    backup::filled_up(data.as_deref(), files::free, REHEARSAL).await
}

/// Fills the scratch server and migrates what is in it.
async fn tried(act: &Act<'_>, plan: &ScratchRehearsal, place: &ServerPlace) -> Result<Findings, StageError> {
    let runtime = act.ports.runtime(plan.server.runtime()).map_err(Trouble::from);
    let runtime =
        runtime.map_err(|trouble| told::not_rehearsed(act, plan, Exit::Failed, &trouble.message))?;
    let way =
        Way::Inside { runtime: runtime.clone(), app: act.app().clone(), instance: plan.server.name.clone() };
    let name = there_from_the_first(place.kind).map(str::to_owned);
    let scratch = Server { kind: place.kind, name, way, client: layout::OWN_CLIENT, password: None };
    answers(act, plan, &scratch).await?;
    match filled_and_migrated(act, plan, place, scratch).await {
        Ok(Ok(findings)) => Ok(findings),
        Ok(Err(failure)) => Err(failure.into()),
        Err(_) if scratch_memory::ran_out(act, &plan.server).await => {
            Err(told::out_of_memory(act, plan, &plan.server).into())
        }
        Err(trouble) => Err(told::not_rehearsed(act, plan, Exit::Failed, &trouble.message).into()),
    }
}

/// `Ok(Err)`: what is told of a migration that did not end well.
async fn filled_and_migrated(
    act: &Act<'_>,
    plan: &ScratchRehearsal,
    place: &ServerPlace,
    scratch: Server,
) -> Result<Result<Findings, Failure>, Trouble> {
    let (database, migration) = (&act.ports.database, &plan.migration);
    let live = server(act, place).await?;
    let restored = database.fill(&scratch, &act.layout.snapshot(&plan.snapshot), &live).await?;
    // Its roles have the live ones' passwords from here on.
    let name = Some(database.look(&live).await?.database);
    let scratch = Server { name, password: live.password.clone(), ..scratch };
    let (before, was) = (database.look(&scratch).await?, database.schema(&scratch).await?);
    let findings = Findings {
        snapshot: layout::snapshot_name(&plan.snapshot).to_owned(),
        bytes: before.bytes,
        restored_ms: millis(restored),
        ..Findings::default()
    };
    if is_nothing_pending(act, migration).await? {
        let schema = SchemaChange { before: before.schema.clone(), after: before.schema };
        return Ok(Ok(Findings { schema, ..findings }));
    }
    let Migrated { ran, took, locks } = migrated(act, plan, &scratch).await?;
    if let Err((spec, ended)) = ran {
        // That says nothing of the migration.
        if ended.out_of_memory {
            return Ok(Err(told::out_of_memory(act, plan, spec)));
        }
        if scratch_memory::ran_out(act, &plan.server).await {
            return Ok(Err(told::out_of_memory(act, plan, &plan.server)));
        }
        return Ok(Err(failed(act, plan, &scratch, &ended, &before).await?));
    }
    let (after, is) = (database.look(&scratch).await?, database.schema(&scratch).await?);
    Ok(Ok(Findings {
        migrated_ms: Some(millis(took)),
        locks,
        schema: SchemaChange { before: before.schema, after: after.schema },
        differences: differences(&was, &is),
        ..findings
    }))
}

/// Whether each of its commands can be asked, and says so.
async fn is_nothing_pending(act: &Act<'_>, migration: &Migration) -> Result<bool, Trouble> {
    let questions = migration.questions();
    let mut nothing = !questions.is_empty();
    for (spec, timeout) in questions {
        nothing = nothing && run_once(act, spec, timeout).await?.is_ok();
    }
    Ok(nothing)
}

/// By what a server is asked whether it answers, where its image need not have been told of a database.
fn there_from_the_first(kind: ServerKind) -> Option<&'static str> {
    match kind {
        ServerKind::Postgres => None,
        ServerKind::Mysql | ServerKind::Mariadb => Some("information_schema"),
    }
}

/// Waits until the server takes connections as it will go on to: while it makes its first database it takes none from a network.
async fn answers(act: &Act<'_>, plan: &ScratchRehearsal, scratch: &Server) -> Result<(), Failure> {
    let end = Instant::now() + plan.within;
    loop {
        let why = match answered(act, plan, scratch).await {
            Ok(None) => return Ok(()),
            Ok(Some(why)) if Instant::now() < end => why,
            Ok(Some(why)) => return Err(silent(act, plan, &format!("does not answer: {why}")).await),
            Err(ended) => return Err(silent(act, plan, &ended).await),
        };
        tracing::debug!(why, "the scratch server does not answer yet");
        tokio::time::sleep(AGAIN).await;
    }
}

/// `None`: it answers; `Some`: why it does not yet; an error: it will not.
async fn answered(
    act: &Act<'_>,
    plan: &ScratchRehearsal,
    scratch: &Server,
) -> Result<Option<String>, String> {
    let (app, name) = (act.app(), &plan.server.name);
    let runtime = act.ports.runtime(plan.server.runtime()).map_err(|error| error.to_string())?;
    let listens = runtime.listening(app, name).await.is_ok_and(|found| !found.is_empty());
    let why = match act.ports.database.look(scratch).await {
        Ok(_) if listens => return Ok(None),
        Ok(_) => "it takes no connections from a network".to_owned(),
        Err(error) => error.message,
    };
    let found = runtime.inspect(app, name).await.map_err(|error| error.to_string())?;
    let runs = found.is_some_and(|found| found.is_running());
    if runs { Ok(Some(why)) } else { Err("has ended by itself".to_owned()) }
}

/// What is told of a server that is of no use, with the end of what it wrote.
async fn silent(act: &Act<'_>, plan: &ScratchRehearsal, how: &str) -> Failure {
    let name = &plan.server.service;
    if scratch_memory::ran_out(act, &plan.server).await {
        return told::out_of_memory(act, plan, &plan.server);
    }
    let what = format!("the scratch server, made like `{name}`, {how}");
    let mut failure = told::not_rehearsed(act, plan, Exit::Failed, &what);
    let query = LogQuery { tail: Some(LOG_TAIL), ..LogQuery::default() };
    if let Ok(runtime) = act.ports.runtime(plan.server.runtime())
        && let Ok(lines) = runtime.logs(act.app(), &plan.server.name, &query).await
    {
        failure.log = lines.iter().map(|line| told::without_values(act, plan, &line.text)).collect();
    }
    failure.next(format!(
        "of the host it has its plain files only, and no folder: what `{name}` needs of one is not there"
    ))
}

/// How a migration on its scratch database ended.
struct Migrated<'a> {
    ran: Result<(), (&'a InstanceSpec, Ended)>,
    took: Duration,
    locks: Option<Vec<TableLock>>,
}

/// Migrates, and looks at the locks meanwhile.
async fn migrated<'a>(
    act: &Act<'_>,
    plan: &'a ScratchRehearsal,
    scratch: &Server,
) -> Result<Migrated<'a>, Trouble> {
    let mut tally = LockTally::default();
    let mut samples = looking(act, scratch, &mut tally).await;
    let begun = Instant::now();
    let running = async {
        for (spec, timeout) in plan.migration.commands() {
            if let Err(mut ended) = run_once(act, spec, timeout).await? {
                told::of_several(&mut ended, &plan.migration, spec);
                return Ok::<_, Trouble>(Err((spec, ended)));
            }
        }
        Ok(Ok(()))
    };
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
    Ok(Migrated { ran, took: begun.elapsed(), locks })
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
    Ok(told::failed_on_scratch(act, &plan.migration, ended, (&left, scratch.kind)))
}

fn millis(took: Duration) -> u64 {
    u64::try_from(took.as_millis()).unwrap_or(u64::MAX)
}

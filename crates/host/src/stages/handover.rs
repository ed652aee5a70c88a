//! Handover: replacing what may never run twice. Hold, drain, stop old and see it gone, databases, start new, gate; the switch ends the
//! hold (S13).

use std::time::Duration;

use cutover_core::config::settings::SnapshotPolicy;
use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::journal::{Step, StepResult, What};
use cutover_core::names::{DatabaseName, ServiceName};
use cutover_core::plan::{DatabasePlace, HandoverPlan, HeldDatabase, Planned, Stage};
use cutover_core::state::Role;
use cutover_routes::{Entry, Hold, RouteState};
use jiff::Timestamp;
use tokio::time::Instant;

use super::check::{Healthy, admit_to_restarts, gate};
use super::migrate::carry_out;
use super::start::{run, stop};
use super::{Act, alone, at_once, located, password, snapshot, switch};
use crate::files;
use crate::journal::{StageError, Trouble};
use crate::ports::{Located, NotAlone};

/// Nothing runs twice, and what was handed over is healthy.
pub(crate) struct HandedOver {
    /// What passed gates, here and before.
    pub(super) healthy: Healthy,
}

pub(crate) async fn handover(
    act: &Act<'_>,
    plan: &Planned<HandoverPlan>,
    healthy: Healthy,
) -> Result<HandedOver, StageError> {
    let Planned::Do(plan) = plan else { return Ok(HandedOver { healthy }) };
    hold(act, plan).await?;
    switch::still_as_found(act).await?;
    quiet(act, plan).await?;
    let down = Instant::now();
    at_once(plan.outgoing.iter().map(|instance| stop(act, Stage::Handover, instance)).collect()).await?;
    for held in &plan.databases {
        database(act, held).await?;
    }
    at_once(plan.incoming.iter().map(|instance| run(act, Stage::Handover, &instance.spec)).collect()).await?;
    gate(act, Stage::Handover, &plan.incoming).await?;
    if act.plan.verb.is_of_backing() {
        was_down(act, plan, down.elapsed())?;
    }
    admit_to_restarts(act, Stage::Handover, &plan.incoming).await?;
    gate(act, Stage::Handover, &plan.afterwards).await?;
    admit_to_restarts(act, Stage::Handover, &plan.afterwards).await?;
    let mut instances = healthy.instances;
    instances.extend(plan.incoming.iter().chain(&plan.afterwards).cloned());
    Ok(HandedOver { healthy: Healthy { instances } })
}

/// What uses a backing service waits for nothing: how long it met nobody is told.
fn was_down(act: &Act<'_>, plan: &HandoverPlan, down: Duration) -> Result<(), StageError> {
    for instance in plan.incoming.iter().filter(|instance| instance.spec.role == Role::Backing) {
        let service = &instance.spec.service;
        act.journal.note(Stage::Handover, format!("`{service}` was down for {:.1} s", down.as_secs_f32()))?;
    }
    Ok(())
}

/// Written in the table with deadline and bounds, so that a proxy that restarts still holds.
async fn hold(act: &Act<'_>, plan: &HandoverPlan) -> Result<(), StageError> {
    if plan.hold.is_empty() {
        return Ok(());
    }
    let budget = i64::try_from(plan.bounds.budget.as_millis()).unwrap_or(i64::MAX);
    let until = u64::try_from(Timestamp::now().as_millisecond().saturating_add(budget)).unwrap_or(u64::MAX);
    let hold = Hold {
        until,
        requests: plan.bounds.requests,
        bytes: plan.bounds.bytes,
        reason: format!("{} is being replaced", list(&plan.hold)),
    };
    let held = |entry: &Entry| {
        let mut entry = entry.clone();
        for route in &mut entry.routes {
            if plan.hold.iter().any(|service| service.as_str() == route.name)
                && matches!(route.state, RouteState::Serving { .. } | RouteState::Held { .. })
            {
                route.state = RouteState::Held { hold: hold.clone() };
            }
        }
        Some(entry)
    };
    let effect = async { switch::change(act, held).await.map(|()| ((), StepResult::Done)) };
    act.journal.act(Stage::Handover, Step::Hold { services: plan.hold.clone() }, effect).await
}

fn list(services: &[ServiceName]) -> String {
    services.iter().map(ServiceName::as_str).collect::<Vec<_>>().join(", ")
}

/// Requests in flight finish; upgraded connections and event streams close. Not within half the budget: nothing was stopped, the deploy fails (S14).
async fn quiet(act: &Act<'_>, plan: &HandoverPlan) -> Result<(), StageError> {
    if plan.hold.is_empty() {
        return Ok(());
    }
    let instances: Vec<_> = plan.outgoing.iter().map(|instance| instance.name.clone()).collect();
    let targets: Vec<_> = instances.iter().map(ToString::to_string).collect();
    let half = plan.bounds.budget / 2;
    let spread = (half / 4).min(Duration::from_millis(500));
    // On the way back what is left is cut: the old release must serve again.
    let cut = act.goes_back();
    let drain = async {
        let drained = act.ports.router.drain(&targets, spread, half, cut).await?;
        Ok::<_, Trouble>((drained, StepResult::Quiet { left: drained.left, closed: drained.closed }))
    };
    let drained = act.journal.act(Stage::Handover, Step::Quiet { instances }, drain).await?;
    if drained.left > 0 && !cut {
        let what = format!("{} could not be handed over: requests did not end", list(&plan.hold));
        return Err(Failure::new(Exit::NotHealthy, what)
            .because(format!(
                "{} were still in flight after {} s, half the hold's budget",
                drained.left,
                half.as_secs_f32()
            ))
            .next("raise `hold: { budget: … }` of the service, or end its long requests sooner")
            .into());
    }
    Ok(())
}

async fn database(act: &Act<'_>, held: &HeldDatabase) -> Result<(), StageError> {
    match held {
        HeldDatabase::Migrate { migration } => {
            let Some(place) = &migration.place else { return Ok(()) };
            let found = located(act, place).await?;
            alone::for_migration(act, Stage::Handover, migration).await?;
            nobody_has_open(act, &migration.database, &found, "migrated").await?;
            let wanted = migration.snapshot == SnapshotPolicy::BeforeMigration;
            let before = match &found {
                Located::Server(_) => snapshot::take_before(act, Stage::Handover, migration, wanted).await?,
                Located::File(file) => {
                    if wanted && file.exists() {
                        let to = &migration.snapshot_file;
                        snapshot::take(act, Stage::Handover, &migration.database, &found, to).await?;
                    }
                    snapshot::Before::default()
                }
            };
            carry_out(act, Stage::Handover, migration, &before).await
        }
        HeldDatabase::Restore { database, place, snapshot: from, present } => {
            let found = located(act, place).await?;
            let exists = !matches!(&found, Located::File(file) if !file.exists());
            if let Some(present) = present.as_ref().filter(|_| exists) {
                // Where it was lost since, whoever had it meanwhile is through.
                alone::for_asked(act, Stage::Handover, database, place, &found).await?;
                nobody_has_open(act, database, &found, "put back").await?;
                snapshot::take(act, Stage::Handover, database, &found, present).await?;
                alone::refuse_lost(act, database, "put back")?;
            }
            let step = Step::Restore { database: database.clone(), file: from.clone().unwrap_or_default() };
            let restore = async {
                match present {
                    Some(_) if act.locks.has_lost(database) => {
                        return Err(Trouble::plain("the lock of its migrations was lost"));
                    }
                    Some(_) => {}
                    None => undisturbing(act, database, place, &found).await?,
                }
                let kept = match (from, &found) {
                    (Some(from), _) if present.is_some() => {
                        act.ports.database.restore(&act.layout.snapshot(from), &found).await?
                    }
                    (Some(from), _) => {
                        act.ports.database.restore_keeping(&act.layout.snapshot(from), &found).await?
                    }
                    (None, Located::File(file)) => {
                        absent(file)?;
                        None
                    }
                    (None, Located::Server(_)) => {
                        return Err(Trouble::plain("there is no snapshot to put back"));
                    }
                };
                Ok::<_, Trouble>((kept, StepResult::Done))
            };
            let kept = act.journal.act(Stage::Handover, step, restore).await?;
            alone::tell_lost(act, Stage::Handover, database, "put back")?;
            let told = kept.map(|kept| What::Warning {
                stage: Stage::Handover,
                text: format!(
                    "what `{database}` was before it was put back is kept beside it, as the database `{kept}`, until a deploy that migrates goes well: what somebody else wrote meanwhile is in it"
                ),
            });
            told.map_or(Ok(()), |told| act.journal.write(told).map(drop))
        }
        HeldDatabase::Password { change } => password::change(act, change).await,
        HeldDatabase::Settle { database, place } => {
            let step = Step::Inspect { database: database.clone() };
            let ended = async {
                if let DatabasePlace::Server(place) = place {
                    let server = located::server(act, place).await?;
                    match alone::take(act, database, place, &server).await {
                        // Somebody else migrates it since: the sessions are his.
                        Err(NotAlone::Theirs) => {}
                        Err(NotAlone::Failed(error)) => return Err(error.into()),
                        Ok(()) | Err(NotAlone::Closed) => {
                            act.ports.database.end_sessions(&server).await?;
                        }
                    }
                }
                Ok::<_, Trouble>(((), StepResult::Done))
            };
            // The old release serves also where the server cannot be asked.
            act.journal.best_effort(Stage::Handover, step, ended).await;
            Ok(())
        }
    }
}

/// A database that somebody else migrates is not taken from under him. Where the lock cannot be asked for, what has to be put back is.
async fn undisturbing(
    act: &Act<'_>,
    database: &DatabaseName,
    place: &DatabasePlace,
    found: &Located,
) -> Result<(), Trouble> {
    let (DatabasePlace::Server(place), Located::Server(server)) = (place, found) else { return Ok(()) };
    match alone::take(act, database, place, server).await {
        Ok(()) | Err(NotAlone::Closed) => Ok(()),
        Err(NotAlone::Theirs) => {
            Err(Trouble::plain("somebody else, who reaches the same database, is migrating it"))
        }
        Err(NotAlone::Failed(error)) => {
            tracing::warn!(%error, "the lock of migrations cannot be taken");
            Ok(())
        }
    }
}

/// What is not an instance (a console, a script of an operator) may have the file open, too: what it wrote after the snapshot would be lost.
async fn nobody_has_open(
    act: &Act<'_>,
    database: &DatabaseName,
    found: &Located,
    done: &str,
) -> Result<(), StageError> {
    let closed = async {
        if let Located::Server(server) = found {
            // What an earlier run left there is nobody.
            act.ports.database.end_sessions(server).await?;
        }
        act.ports.database.closed(found).await
    };
    closed.await.map_err(|error| {
        Failure::new(Exit::Migration, format!("`{database}` was not {done}: somebody has it open"))
            .because(error.message)
            .next("end what has it open (a `cutover exec`, a console, a script), then do the same again")
            .into()
    })
}

/// There was no file before, and none stays.
fn absent(file: &std::path::Path) -> Result<(), Trouble> {
    for suffix in ["-wal", "-shm", "-journal", ""] {
        let mut name = file.as_os_str().to_owned();
        name.push(suffix);
        files::remove(std::path::Path::new(&name))?;
    }
    Ok(())
}

async fn located(act: &Act<'_>, place: &DatabasePlace) -> Result<Located, StageError> {
    let trouble =
        |trouble: Trouble| Failure::new(Exit::Migration, "a database is not there").because(trouble.message);
    located::located(act, place).await.map_err(|error| trouble(error).into())
}

//! A plan carried out: the stages as a list, each taking the last proof and giving its own, so that a wrong order does not compile.

use cutover_core::journal::What;
use cutover_core::plan::{HostPlan, Planned, Stage, WhyNot};
use futures_util::future::BoxFuture;
use tokio::time::Instant;

use crate::journal::StageError;
use crate::stages::{
    Act, EnvChange, backing, bake, check, drain, handover, migrate, preflight, record, snapshot, start,
    switch, verify,
};
use crate::within::within;

/// Carries a plan out to its end.
///
/// # Errors
/// The stage that failed, with what failed. Nothing is handed back: what is so is found by a fresh look.
pub async fn deploy(act: &Act<'_>, env: &EnvChange) -> Result<(), (Stage, StageError)> {
    let plan = act.plan;
    act.journal.obey_cancel(!act.goes_back() && may_turn_around(act));
    let admitted =
        stage(act, Stage::Preflight, why(&plan.preflight), preflight::preflight(act, &plan.preflight, env))
            .await?;
    let mut backed = stage(act, Stage::Backing, why(&plan.backing), backing::backing(act, admitted)).await?;
    // A network that is elsewhere than was planned takes the whole plan with it.
    let moved = backed.instead.take();
    let act = &Act { plan: moved.as_ref().unwrap_or(plan), ..*act };
    let plan = act.plan;
    let taken = snapshot::snapshot(act, &plan.snapshot, backed);
    let taken = stage(act, Stage::Snapshot, why(&plan.snapshot), taken).await?;
    let migrated =
        stage(act, Stage::Migrate, why(&plan.migrate), migrate::migrate(act, &plan.migrate, &taken)).await?;
    drop(taken);
    if !has_databases(migrated.instead.as_ref().unwrap_or(plan)) {
        act.locks.let_go();
    }
    // A rehearsal that found something pending puts the plan with the handover in this one's place.
    let Some(instead) = migrated.instead else { return go_live(act, env).await };
    let written = act.journal.write(What::Planned { plan: Box::new(instead.clone()) });
    written.map_err(|error| (Stage::Migrate, error))?;
    let handed_over = Act { plan: &instead, ..*act };
    go_live(&handed_over, env).await
}

/// Whether something is done to databases while requests wait.
fn has_databases(plan: &HostPlan) -> bool {
    plan.handover.todo().is_some_and(|handover| !handover.databases.is_empty())
}

/// Whether a cancel may still be obeyed (S21): not by what goes on after a failure, or once the drain had begun. There it would fail every
/// way on from the same request, until a person is asked for nothing.
fn may_turn_around(act: &Act<'_>) -> bool {
    let is_bound = |what: &What| matches!(what, What::Failed { .. } | What::Entered { stage: Stage::Drain });
    act.journal.entries().is_ok_and(|entries| !entries.iter().any(|entry| is_bound(&entry.what)))
}

async fn go_live(act: &Act<'_>, env: &EnvChange) -> Result<(), (Stage, StageError)> {
    let plan: &HostPlan = act.plan;
    let started = stage(act, Stage::Start, why(&plan.start), start::start(act, &plan.start)).await?;
    let healthy = stage(act, Stage::Check, why(&plan.check), check::check(act, &plan.check, started)).await?;
    let handed =
        stage(act, Stage::Handover, why(&plan.handover), handover::handover(act, &plan.handover, healthy))
            .await?;
    let switched =
        stage(act, Stage::Switch, why(&plan.switch), switch::switch(act, &plan.switch, handed)).await?;
    // The hold has ended: nothing is put back any more by itself (S18).
    act.locks.let_go();
    let verified =
        stage(act, Stage::Verify, why(&plan.verify), verify::verify(act, &plan.verify, switched)).await?;
    let baked = stage(act, Stage::Bake, why(&plan.bake), bake::bake(act, &plan.bake, verified)).await?;
    let drained = stage(act, Stage::Drain, why(&plan.drain), drain::drain(act, &plan.drain, baked)).await?;
    stage(act, Stage::Record, None, record::record(act, &plan.record, env, drained)).await.map(drop)
}

fn why<T>(planned: &Planned<T>) -> Option<WhyNot> {
    if let Planned::NotNeeded(why) = planned { Some(*why) } else { None }
}

fn skip(act: &Act<'_>, stage: Stage, why: Option<WhyNot>) -> Result<(), (Stage, StageError)> {
    let Some(why) = why else { return Ok(()) };
    act.journal
        .write(What::Skipped { stage, why: why.text().to_owned() })
        .map(drop)
        .map_err(|error| (stage, error))
}

/// Enters, works within its deadline, leaves; or says why there was nothing to do. Boxed, because all stages together are large.
fn stage<'a, T: Send + 'a>(
    act: &'a Act<'_>,
    stage: Stage,
    why: Option<WhyNot>,
    work: impl Future<Output = Result<T, StageError>> + Send + 'a,
) -> BoxFuture<'a, Result<T, (Stage, StageError)>> {
    let work = Box::pin(work);
    let at = move |error| (stage, error);
    Box::pin(async move {
        act.journal.check_cancel().map_err(at)?;
        if why.is_some() {
            skip(act, stage, why)?;
            return within(act, stage, work).await.map_err(at);
        }
        act.journal.write(What::Entered { stage }).map_err(at)?;
        let begun = Instant::now();
        let proof = within(act, stage, work).await.map_err(at)?;
        let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        act.journal.write(What::Left { stage, took_ms }).map_err(at)?;
        Ok(proof)
    })
}

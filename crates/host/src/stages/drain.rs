//! Drain: requests in flight on what was replaced finish; then it is stopped and goes, or stays warm for a while.

use std::time::Duration;

use cutover_core::journal::{Step, StepResult};
use cutover_core::plan::{DrainPlan, InstanceRef, Planned, Stage, leaving};
use jiff::{SignedDuration, Timestamp};

use super::bake::Baked;
use super::start::{end, loosen, remove};
use super::{Act, at_once};
use crate::journal::{StageError, Trouble};

/// Over so long the closing of WebSockets and event streams is spread.
const SPREAD: Duration = Duration::from_secs(1);

/// What was replaced is out of traffic, and gone or warm.
pub(crate) struct Drained(());

pub(crate) async fn drain(act: &Act<'_>, plan: &Planned<DrainPlan>, _: Baked) -> Result<Drained, StageError> {
    // From here on what was replaced is no longer whole: there is no way back to take.
    act.journal.obey_cancel(false);
    let Planned::Do(plan) = plan else { return Ok(Drained(())) };
    if !plan.keep_warm.is_zero() && !act.goes_back() {
        return keep_warm(act, plan);
    }
    // One that dies with its last requests need not come back for them.
    let loosened =
        at_once(plan.outgoing.iter().map(|instance| loosen(act, Stage::Drain, instance)).collect());
    let (quiet, loosened) = tokio::join!(quiet(act, plan), loosened);
    quiet.and(loosened)?;
    at_once(plan.outgoing.iter().map(|instance| let_go(act, plan, instance)).collect()).await?;
    for leaving in &plan.leaves {
        let step =
            Step::Leave { instance: leaving.instance.clone(), network: leaving.network.network.clone() };
        let runtime = act.ports.runtime(cutover_core::release::RuntimeKind::Container);
        let leave = async {
            runtime?
                .leave(act.app(), &leaving.instance, &leaving.network.network)
                .await
                .map(|()| ((), StepResult::Done))
        };
        act.journal.act(Stage::Drain, step, leave).await?;
    }
    Ok(Drained(()))
}

/// Its processes end here; what is left of it goes now, or once the verdict has been told.
async fn let_go(act: &Act<'_>, plan: &DrainPlan, instance: &InstanceRef) -> Result<(), StageError> {
    end(act, Stage::Drain, instance).await?;
    if plan.kept_candidates.contains(&instance.name) {
        return Ok(());
    }
    if leaving(act.plan).contains(instance) {
        return act.journal.intend(Stage::Drain, Step::Remove { instance: instance.name.clone() });
    }
    remove(act, Stage::Drain, instance).await
}

fn keep_warm(act: &Act<'_>, plan: &DrainPlan) -> Result<Drained, StageError> {
    let seconds = i64::try_from(plan.keep_warm.as_secs()).unwrap_or(i64::MAX);
    let until = Timestamp::now().checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX);
    if let Some(live) = &act.plan.live {
        let warm = act.store.set_warm(act.app(), &live.release, Some(until));
        warm.map_err(|error| {
            StageError::from(
                cutover_core::failure::Failure::new(
                    cutover_core::exit::Exit::Failed,
                    "the records cannot be written",
                )
                .because(error.to_string()),
            )
        })?;
    }
    act.journal.note(Stage::Drain, format!("what was replaced keeps running until {until}"))?;
    Ok(Drained(()))
}

/// What is left at the deadline is cut, and told.
async fn quiet(act: &Act<'_>, plan: &DrainPlan) -> Result<(), StageError> {
    let instances: Vec<_> = plan.outgoing.iter().map(|instance| instance.name.clone()).collect();
    let targets: Vec<_> = instances.iter().map(ToString::to_string).collect();
    let routed = act
        .plan
        .switch
        .todo()
        .is_some_and(|switch| matches!(switch, cutover_core::plan::SwitchPlan::Table { .. }));
    if targets.is_empty() || !routed {
        return Ok(());
    }
    let spread = SPREAD.min(plan.deadline / 4);
    let drain = async {
        let drained = act.ports.router.drain(&targets, spread, plan.deadline, true).await?;
        Ok::<_, Trouble>((drained, StepResult::Quiet { left: drained.left, closed: drained.closed }))
    };
    // A proxy that does not answer has no requests in flight that could still be counted.
    if let Some(drained) = act.journal.best_effort(Stage::Drain, Step::Quiet { instances }, drain).await
        && drained.left > 0
    {
        act.journal
            .note(Stage::Drain, format!("{} requests were cut at the drain's deadline", drained.left))?;
    }
    Ok(())
}

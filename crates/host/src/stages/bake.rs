//! Bake: watching the new release after the switch while the old one is still warm.

use std::time::Duration;

use cutover_core::bake::{Counted, judge};
use cutover_core::diagnosis::diagnose;
use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::plan::{BakePlan, InstanceRef, Planned, Stage};
use cutover_core::state::ExitStatus;
use cutover_routes::figures::Figures;
use futures_util::future::select_all;
use tokio::time::Instant;

use super::Act;
use super::verify::Verified;
use crate::journal::StageError;
use crate::ports::RuntimeError;
use crate::probe::facts;

/// How often figures are read.
const PACE: Duration = Duration::from_millis(100);

/// A proxy that restarts answers again long before.
const SILENCE: Duration = Duration::from_secs(10);

/// The new release did no worse than the old one.
pub(crate) struct Baked(());

pub(crate) async fn bake(act: &Act<'_>, plan: &Planned<BakePlan>, _: Verified) -> Result<Baked, StageError> {
    let Planned::Do(plan) = plan else { return Ok(Baked(())) };
    let exits: Vec<_> = plan
        .watched
        .iter()
        .map(|instance| {
            Box::pin(async move {
                match act.ports.runtime(instance.runtime) {
                    Ok(runtime) => (instance, runtime.exited(act.app(), &instance.name).await),
                    Err(error) => (instance, Err(error)),
                }
            })
        })
        .collect();
    tokio::select! {
        judged = watch(act, plan) => judged?,
        ((instance, exit), _, _) = select_all(exits) => {
            return Err(ended(act, instance, exit).await.into());
        }
    }
    Ok(Baked(()))
}

/// Ends only on fresh figures: a proxy that tells nothing tells nothing for the release either, and serves nobody.
async fn watch(act: &Act<'_>, plan: &BakePlan) -> Result<(), StageError> {
    let mut first: Option<Figures> = None;
    let mut heard = Instant::now();
    let mut until = heard + plan.duration;
    loop {
        act.journal.check_cancel()?;
        let figures = act.ports.router.figures().await;
        match (figures, &first) {
            (Ok(now), Some(begun)) if begun.started == now.started => {
                if let Some(why) = judge_between(plan, begun, &now) {
                    return Err(worse(act, why).into());
                }
                heard = Instant::now();
                if heard >= until {
                    return Ok(());
                }
            }
            (Ok(now), begun) => {
                if begun.is_some() {
                    // A bake that saw the proxy restart starts over (S20).
                    act.journal.note(Stage::Bake, "the proxy restarted: the bake starts over")?;
                }
                heard = Instant::now();
                until = heard + plan.duration;
                first = Some(now);
            }
            // One that does not answer for a moment tells nothing against the release.
            (Err(error), _) if heard.elapsed() >= SILENCE => {
                let silent = format!("the proxy told nothing for {} s: {error}", SILENCE.as_secs());
                return Err(worse(act, silent).into());
            }
            (Err(_), _) => {}
        }
        tokio::time::sleep(PACE).await;
    }
}

fn judge_between(plan: &BakePlan, begun: &Figures, now: &Figures) -> Option<String> {
    let new = |figures| Counted::of(figures, plan.watched.iter().map(|instance| &instance.name));
    // The old one hardly gets requests any more: all it did since the proxy's start is what to compare with.
    let old = Counted::of(now, &plan.compared);
    judge(new(now).since(new(begun)), old)
}

/// An exit fails the bake at once, with all that can be told of it.
async fn ended(act: &Act<'_>, instance: &InstanceRef, exit: Result<ExitStatus, RuntimeError>) -> Failure {
    let mut failure = switched_back(act).because(format!("`{}` ended during the bake", instance.service));
    let (exit, runtime, release) = match (exit, act.ports.runtime(instance.runtime), &act.plan.release) {
        (Ok(exit), Ok(runtime), Some(release)) => (exit, runtime, &release.id),
        (Ok(exit), ..) => return failure.because(format!("it {exit}")),
        (Err(error), ..) => return failure.because(error.to_string()),
    };
    let values = act.values(release).unwrap_or_default();
    let facts = facts::of_exit(runtime.as_ref(), (act.app(), release), instance, exit, &values).await;
    let diagnosis = diagnose(&facts);
    failure.cause.extend(diagnosis.cause);
    failure.next.extend(diagnosis.next);
    failure.log = diagnosis.log;
    failure
}

fn worse(act: &Act<'_>, why: String) -> Failure {
    let failure = switched_back(act).because(why);
    match &act.plan.release {
        Some(release) => failure.next(format!("see `cutover logs --release {}`", release.id)),
        None => failure,
    }
}

fn switched_back(act: &Act<'_>) -> Failure {
    let release = act.plan.release.as_ref().map(|release| release.id.to_string()).unwrap_or_default();
    Failure::new(Exit::NotHealthy, format!("release {release} was switched back during its bake"))
}

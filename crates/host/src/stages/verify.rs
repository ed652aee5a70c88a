//! Verify: the public route answers with the new release; then services without routes change.

use std::time::Duration;

use cutover_core::config::settings::{Strategy, Verify};
use cutover_core::defaults;
use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::gate::{Finding, Probe};
use cutover_core::journal::{Entry, What};
use cutover_core::plan::{Follow, Planned, RouteCheck, Stage, VerifyPlan};
use cutover_core::release::RuntimeKind;
use cutover_routes::figures::Figures;
use tokio::time::Instant;

use super::check::{admit_to_restarts, gate};
use super::start::{retire, run, stop};
use super::switch::Switched;
use super::{Act, at_once};
use crate::journal::{StageError, Trouble};
use crate::ports::ProbeTarget;
use crate::probe::facts::redacted;

/// The public route answers with what is live, and everything behind it is the new release's.
pub(crate) struct Verified(());

pub(crate) async fn verify(
    act: &Act<'_>,
    plan: &Planned<VerifyPlan>,
    _: Switched,
) -> Result<Verified, StageError> {
    let Planned::Do(plan) = plan else { return Ok(Verified(())) };
    for route in &plan.routes {
        answers(act, route).await?;
    }
    for follow in &plan.follow {
        replace(act, follow).await?;
    }
    Ok(Verified(()))
}

/// Asks until the route answers as it should, one of the new instances has answered, and the author's own wishes are met.
async fn answers(act: &Act<'_>, route: &RouteCheck) -> Result<(), StageError> {
    let deadline = Instant::now() + defaults::VERIFY;
    let mut tries = 0_u32;
    loop {
        act.journal.check_cancel()?;
        tries += 1;
        let found = once(act, route).await;
        let Some(finding) = found else { return Ok(()) };
        if Instant::now() >= deadline {
            return Err(unanswered(act, route, &finding, tries).into());
        }
        tokio::time::sleep(cutover_core::gate::pause(tries, Duration::from_secs(1))).await;
    }
}

/// What one look at a route found wrong.
struct Wrong {
    /// What was asked.
    asked: String,
    /// What came instead.
    found: String,
    /// The author's own wish was not met, while the route answers.
    is_wish: bool,
}

/// One look at a route; what was wrong, if anything.
async fn once(act: &Act<'_>, route: &RouteCheck) -> Option<Wrong> {
    let host = route.host.as_deref().unwrap_or("any host");
    let wrong = |found| Some(Wrong { asked: format!("GET {} on {host}", route.path), found, is_wish: false });
    // What cannot be counted is not taken for an answer: the release is not called live on a guess.
    let before = match answered(act, route).await {
        Ok(before) => before,
        Err(error) => return wrong(error.message),
    };
    if let Probe::Failed(finding) = act.ports.prober.route(route, defaults::PROBE_TIMEOUT).await {
        return wrong(told(act, finding));
    }
    match answered(act, route).await {
        Ok(now) if now > before => {}
        Ok(_) => return wrong("the route answered, but not from an instance of the new release".to_owned()),
        Err(error) => return wrong(error.message),
    }
    let target = ProbeTarget {
        app: act.app().clone(),
        instance: route.targets.first()?.clone(),
        runtime: runtime(act, route),
        address: None,
    };
    for expect in &route.expect {
        if let Probe::Failed(finding) = act.ports.prober.verify(route, expect, &target).await {
            let asked = match expect {
                Verify::Http { path, .. } => format!("GET {path} on {host}"),
                Verify::Command { words, .. } => format!("the command `{}`", words.join(" ")),
            };
            return Some(Wrong { asked, found: told(act, finding), is_wish: true });
        }
    }
    None
}

/// What was found, in words without the values that the release was given (P6).
fn told(act: &Act<'_>, finding: Finding) -> String {
    let release = act.plan.release.as_ref();
    let values = release.and_then(|release| act.values(&release.id).ok()).unwrap_or_default();
    describe(&redacted(finding, &values))
}

fn runtime(act: &Act<'_>, route: &RouteCheck) -> RuntimeKind {
    let service = act.plan.release.as_ref().and_then(|release| release.services.get(&route.service));
    service.map_or(RuntimeKind::Process, |service| service.content.runtime())
}

/// Answers that the route's new targets have given so far.
async fn answered(act: &Act<'_>, route: &RouteCheck) -> Result<u64, Trouble> {
    let figures: Figures = act.ports.router.figures().await?;
    let of = |name: &cutover_core::names::InstanceName| {
        figures.targets.get(name.as_str()).map_or(0, |target| target.answers.values().sum::<u64>())
    };
    Ok(route.targets.iter().map(of).sum())
}

/// What was found, in words.
pub(super) fn describe(finding: &Finding) -> String {
    match finding {
        Finding::Refused => "nobody answers".to_owned(),
        Finding::NoAnswer => "no answer in time".to_owned(),
        Finding::Status { status, body } if body.is_empty() => format!("answered {status}"),
        Finding::Status { status, body } => format!("answered {status}: {body}"),
        Finding::Body { detail } | Finding::Other { detail } => detail.clone(),
        Finding::Exit { code, output } => format!("exited with {code}: {output}"),
        Finding::NotYet => "not yet".to_owned(),
    }
}

fn unanswered(act: &Act<'_>, route: &RouteCheck, wrong: &Wrong, tries: u32) -> Failure {
    let what = format!("the public route of `{}` did not answer with the new release", route.service);
    let cause = format!(
        "{}: {} ({} in {}s)",
        wrong.asked,
        wrong.found,
        cutover_core::diagnosis::times(tries),
        defaults::VERIFY.as_secs()
    );
    let mut failure = Failure::new(Exit::NotHealthy, what).because(cause);
    if wrong.is_wish {
        failure =
            failure.next(format!("mend what answers there, or what `verify:` of `{}` wants", route.service));
    }
    match &act.plan.release {
        Some(release) => {
            failure.next(format!("see `cutover logs {} --release {}`", route.service, release.id))
        }
        None => failure,
    }
}

/// A service without a route: old stopped and gone before new where it may never run twice, else new gated before the old goes in the drain.
async fn replace(act: &Act<'_>, follow: &Follow) -> Result<(), StageError> {
    if follow.strategy == Strategy::Handover {
        at_once(follow.outgoing.iter().map(|instance| stop(act, Stage::Verify, instance)).collect()).await?;
    }
    at_once(follow.incoming.iter().map(|instance| run(act, Stage::Verify, &instance.spec)).collect()).await?;
    match gate(act, Stage::Verify, &follow.incoming).await {
        Err(StageError::Failed(failure)) if failure.exit == Exit::NotHealthy && was_begun_before(act) => {
            for instance in &follow.incoming {
                retire(act, Stage::Verify, &instance.spec.reference()).await?;
                run(act, Stage::Verify, &instance.spec).await?;
            }
            gate(act, Stage::Verify, &follow.incoming).await?;
        }
        gated => gated?,
    }
    admit_to_restarts(act, Stage::Verify, &follow.incoming).await
}

/// Whether a recovery goes over what the run had begun. What an instance said then may be lost, with the room for it or with the host, and it
/// does not say it again: it begins anew, once.
fn was_begun_before(act: &Act<'_>) -> bool {
    let is_resumed = |entry: &Entry| matches!(entry.what, What::Resumed { .. });
    act.journal.entries().is_ok_and(|entries| entries.iter().any(is_resumed))
}

//! Check: the gate. Probed by us, quickly at first; an exit is heard and fails at once, it is not waited for.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cutover_core::diagnosis::diagnose;
use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::gate::{Finding, GateCheck, Probe, Tally, pause};
use cutover_core::journal::{Step, StepResult};
use cutover_core::plan::{CheckPlan, GatedInstance, InstanceSpec, Planned, Stage, Verb};
use cutover_core::state::RestartPolicy;
use futures_util::future::{join_all, select_all};
use tokio::time::Instant;

use super::start::Started;
use super::{Act, at_once};
use crate::journal::StageError;
use crate::ports::ProbeTarget;
use crate::probe::facts::{self, Seen};

/// The candidates passed their gates; goes stale by itself, so the switch probes again (S5).
pub(crate) struct Healthy {
    /// What passed.
    pub(super) instances: Vec<GatedInstance>,
}

pub(crate) async fn check(
    act: &Act<'_>,
    plan: &Planned<CheckPlan>,
    _: Started,
) -> Result<Healthy, StageError> {
    let Planned::Do(plan) = plan else { return Ok(Healthy { instances: Vec::new() }) };
    gate(act, Stage::Check, &plan.instances).await?;
    admit_to_restarts(act, Stage::Check, &plan.instances).await?;
    Ok(Healthy { instances: plan.instances.clone() })
}

/// "Restart unless stopped": after the gate and before the switch (S4).
pub(super) async fn admit_to_restarts(
    act: &Act<'_>,
    stage: Stage,
    instances: &[GatedInstance],
) -> Result<(), StageError> {
    let policy = RestartPolicy::UnlessStopped;
    let admit = |instance: &GatedInstance| {
        let (name, runtime) = (instance.spec.name.clone(), instance.spec.runtime());
        async move {
            let set = async {
                act.ports
                    .runtime(runtime)?
                    .set_restart(act.app(), &name, policy)
                    .await
                    .map(|()| ((), StepResult::Done))
            };
            act.journal.act(stage, Step::Restart { instance: name.clone(), policy }, set).await
        }
    };
    at_once(instances.iter().map(admit).collect()).await
}

/// Waits until all have passed their gates; the first that cannot fails all.
pub(super) async fn gate(act: &Act<'_>, stage: Stage, instances: &[GatedInstance]) -> Result<(), StageError> {
    if instances.is_empty() {
        return Ok(());
    }
    let mut open: Vec<_> = instances.iter().map(|instance| Box::pin(pass(act, instance))).collect();
    while !open.is_empty() {
        let cancelled = Box::pin(cancelled(act));
        let (passed, rest) = tokio::select! {
            (passed, _, rest) = select_all(open) => (passed, rest),
            error = cancelled => return Err(error),
        };
        if let Err(fault) = passed {
            return Err(failure(act, stage, *fault).await.into());
        }
        open = rest;
    }
    Ok(())
}

/// Ends when somebody asked for a cancel that can be obeyed.
pub(super) async fn cancelled(act: &Act<'_>) -> StageError {
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        if let Err(error) = act.journal.check_cancel() {
            return error;
        }
    }
}

/// Works, unless somebody asks for a cancel: then it is dropped as by a deadline.
pub(super) async fn unless_cancelled<T>(
    act: &Act<'_>,
    work: impl Future<Output = Result<T, StageError>>,
) -> Result<T, StageError> {
    tokio::select! {
        done = work => done,
        error = cancelled(act) => Err(error),
    }
}

/// How a candidate failed its gate.
struct Fault<'a> {
    instance: &'a GatedInstance,
    seen: Seen,
    /// It could not even be looked at.
    trouble: Option<String>,
}

async fn pass<'a>(act: &Act<'_>, instance: &'a GatedInstance) -> Result<(), Box<Fault<'a>>> {
    let begun = Instant::now();
    let tallies: Vec<Mutex<Tally>> = instance.gate.checks.iter().map(|_| Mutex::default()).collect();
    let fault = |trouble: Option<String>| {
        let tallies =
            tallies.iter().map(|tally| tally.lock().unwrap_or_else(PoisonError::into_inner).clone());
        let open = instance.gate.checks.iter().zip(tallies).find(|(check, tally)| !tally.passed(check));
        let (check, tally) =
            open.map_or((None, Tally::default()), |(check, tally)| (Some(check.check.clone()), tally));
        let seen = Seen { check, last: tally.last, tries: tally.tries, elapsed: begun.elapsed() };
        Box::new(Fault { instance, seen, trouble })
    };
    let runtime = match act.ports.runtime(instance.spec.runtime()) {
        Ok(runtime) => runtime,
        Err(error) => return Err(fault(Some(error.to_string()))),
    };
    let target = target(instance);
    let checks = join_all(
        instance.gate.checks.iter().zip(&tallies).map(|(check, tally)| rise(act, &target, check, tally)),
    );
    // An exit is looked for first: a probe that passes at the same moment was answered by something that is no more.
    tokio::select! {
        biased;
        exited = runtime.exited(act.app(), &instance.spec.name) => Err(fault(exited.err().map(|error| error.to_string()))),
        _ = checks => Ok(()),
        () = tokio::time::sleep(instance.gate.within) => Err(fault(None)),
    }
}

/// Where and how an instance is probed.
pub(super) fn target(instance: &GatedInstance) -> ProbeTarget {
    ProbeTarget {
        app: instance.spec.app.clone(),
        instance: instance.spec.name.clone(),
        runtime: instance.spec.runtime(),
        address: instance.spec.address,
    }
}

/// Tries one check until it has risen.
async fn rise(act: &Act<'_>, target: &ProbeTarget, check: &GateCheck, tally: &Mutex<Tally>) {
    let counted = || tally.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let wait = pause(counted().tries, check.interval);
        tokio::time::sleep(wait).await;
        let probe = act.ports.prober.probe(target, &check.check, check.timeout).await;
        let mut tally = counted();
        tally.count(probe);
        if tally.passed(check) {
            return;
        }
    }
}

/// The four answers about a candidate that did not become healthy; what is serving is filled in by the verdict.
async fn failure(act: &Act<'_>, stage: Stage, fault: Fault<'_>) -> Failure {
    let spec = &fault.instance.spec;
    let mut failure = Failure::new(Exit::NotHealthy, format!("{} did not become healthy", failed(act, spec)));
    if let Some(trouble) = fault.trouble {
        failure.cause.push(format!("stage {stage}: {trouble}"));
    }
    let values = act.values(&spec.release).unwrap_or_default();
    if let Ok(runtime) = act.ports.runtime(spec.runtime()) {
        let facts = facts::collect(runtime.as_ref(), spec, fault.seen, &values).await;
        let diagnosis = diagnose(&facts);
        failure.cause.extend(diagnosis.cause);
        failure.next.extend(diagnosis.next);
        failure.log = diagnosis.log;
    }
    failure
}

/// What did not come about, and which service it is because of.
pub(super) fn failed(act: &Act<'_>, spec: &InstanceSpec) -> String {
    let service = &spec.service;
    match act.plan.verb {
        Verb::BackingApply => format!("backing service `{service}` was not made anew: it"),
        Verb::BackingRestart => format!("backing service `{service}` was not restarted: it"),
        Verb::SecretsRotate => {
            format!("the password was not changed: service `{service}`, which is told the new one,")
        }
        _ => format!("release {} was not put live: service `{service}`", spec.release),
    }
}

/// Looks again, once, at what passed: `Healthy` goes stale (S5).
pub(super) async fn look_again(act: &Act<'_>, healthy: &Healthy) -> Result<(), StageError> {
    for instance in &healthy.instances {
        let target = target(instance);
        for check in &instance.gate.checks {
            let probe = act.ports.prober.probe(&target, &check.check, check.timeout).await;
            if let Probe::Failed(finding) = probe {
                // One more try tells a hiccup from an end.
                let again = act.ports.prober.probe(&target, &check.check, check.timeout).await;
                if again != Probe::Passed {
                    return Err(stale(act, instance, check, finding).await.into());
                }
            }
        }
    }
    Ok(())
}

async fn stale(act: &Act<'_>, instance: &GatedInstance, check: &GateCheck, finding: Finding) -> Failure {
    let seen =
        Seen { check: Some(check.check.clone()), last: Some(finding), tries: 2, elapsed: Duration::ZERO };
    failure(
        act,
        Stage::Switch,
        Fault { instance, seen, trouble: Some("it was healthy, and is no longer".to_owned()) },
    )
    .await
}

//! Start: new instances beside the old, in the idle colour. Candidates run without restart policy (S4).

use cutover_core::diagnosis;
use cutover_core::exit::Exit;
use cutover_core::journal::{Step, StepResult, What};
use cutover_core::plan::{InstanceRef, InstanceSpec, Planned, Stage, StartPlan};
use cutover_core::state::{RestartPolicy, Role};

use super::check::{failed, gate};
use super::{Act, at_once};
use crate::journal::StageError;
use crate::ports::RuntimeErrorKind;

/// The candidates beside the old run.
pub(crate) struct Started(());

pub(crate) async fn start(act: &Act<'_>, plan: &Planned<StartPlan>) -> Result<Started, StageError> {
    let Planned::Do(plan) = plan else { return Ok(Started(())) };
    at_once(plan.retire.iter().map(|instance| out_of_the_way(act, instance)).collect()).await?;
    for joining in &plan.joins {
        let step =
            Step::Join { instance: joining.instance.clone(), network: joining.network.network.clone() };
        let runtime = act.ports.runtime(cutover_core::release::RuntimeKind::Container);
        let join = async {
            runtime?
                .join(act.app(), &joining.instance, &joining.network)
                .await
                .map(|()| ((), StepResult::Done))
        };
        act.journal.act(Stage::Start, step, join).await?;
    }
    let last = plan.waves.len().saturating_sub(1);
    for (number, wave) in plan.waves.iter().enumerate() {
        at_once(wave.iter().map(|instance| run(act, Stage::Start, &instance.spec)).collect()).await?;
        // The stage after this one gates the last wave; a later wave waits for the health of those before.
        if number < last {
            gate(act, Stage::Start, wave).await?;
        }
    }
    Ok(Started(()))
}

/// Stops what an earlier run left where the candidates go. What is stopped is in nobody's way; the next deploy tries again to remove it.
async fn out_of_the_way(act: &Act<'_>, instance: &InstanceRef) -> Result<(), StageError> {
    stop(act, Stage::Start, instance).await?;
    if let Err(error) = remove(act, Stage::Start, instance).await {
        act.journal.write(What::Warning { stage: Stage::Start, text: error.failure().to_string() })?;
    }
    Ok(())
}

/// Makes and starts an instance; both look first, so that they can be repeated.
pub(super) async fn run(act: &Act<'_>, stage: Stage, spec: &InstanceSpec) -> Result<(), StageError> {
    let values = act.values(&spec.release)?;
    let instance = || spec.name.clone();
    let runtime = || act.ports.runtime(spec.runtime());
    let create = async {
        let runtime = runtime()?;
        match runtime.create(spec, &values).await {
            Err(error) if error.kind == RuntimeErrorKind::Exists && spec.role == Role::Backing => {
                // A backing service that is there runs on as it was made.
                let found = runtime.inspect(&spec.app, &spec.name).await?;
                let is_it = found.is_some_and(|found| found.ours && found.role == Role::Backing);
                if is_it { Ok(((), StepResult::Already)) } else { Err(error) }
            }
            made => made.map(|()| ((), StepResult::Done)),
        }
    };
    let made = act.journal.act(stage, Step::Create { instance: instance() }, create).await;
    made.map_err(|error| not_started(act, spec, error))?;
    let start = async { runtime()?.start(act.app(), &spec.name).await.map(|()| ((), StepResult::Done)) };
    let started = act.journal.act(stage, Step::Start { instance: instance() }, start).await;
    started.map_err(|error| not_started(act, spec, error))
}

/// Which service of which release it is, and what helps, where an instance's own fault kept it from being started.
fn not_started(act: &Act<'_>, spec: &InstanceSpec, error: StageError) -> StageError {
    match error {
        StageError::Failed(mut failure) if failure.exit == Exit::NotHealthy => {
            let causes = std::mem::take(&mut failure.cause);
            failure.what = format!("{} could not be started", failed(act, spec));
            failure.next.extend(
                causes.iter().filter_map(|cause| diagnosis::remedy_of_start(cause)).map(str::to_owned),
            );
            failure.cause = causes;
            StageError::Failed(failure)
        }
        other => other,
    }
}

/// Takes an instance out of its policy, stops it and sees it gone.
pub(super) async fn stop(act: &Act<'_>, stage: Stage, instance: &InstanceRef) -> Result<(), StageError> {
    loosen(act, stage, instance).await?;
    let stop = async {
        act.ports
            .runtime(instance.runtime)?
            .stop(act.app(), &instance.name, &instance.stop)
            .await
            .map(|()| ((), StepResult::Done))
    };
    act.journal.act(stage, Step::Stop { instance: instance.name.clone() }, stop).await
}

/// What was replaced loses its policy before it is stopped (S4).
pub(super) async fn loosen(act: &Act<'_>, stage: Stage, instance: &InstanceRef) -> Result<(), StageError> {
    let runtime = || act.ports.runtime(instance.runtime);
    let policy = RestartPolicy::No;
    let step = Step::Restart { instance: instance.name.clone(), policy };
    let loosen = async {
        match runtime()?.set_restart(act.app(), &instance.name, policy).await {
            Ok(()) => Ok(((), StepResult::Done)),
            // A recovery goes over what a run that died had removed already.
            Err(error) if error.kind == RuntimeErrorKind::Gone => Ok(((), StepResult::Already)),
            Err(error) => Err(error),
        }
    };
    act.journal.act(stage, step, loosen).await
}

/// Stops one that is out of its policy, and sees its processes gone.
pub(super) async fn end(act: &Act<'_>, stage: Stage, instance: &InstanceRef) -> Result<(), StageError> {
    let end = async {
        act.ports
            .runtime(instance.runtime)?
            .end(act.app(), &instance.name, &instance.stop)
            .await
            .map(|()| ((), StepResult::Done))
    };
    act.journal.act(stage, Step::Stop { instance: instance.name.clone() }, end).await
}

/// Stops an instance and removes what is left of it.
pub(super) async fn retire(act: &Act<'_>, stage: Stage, instance: &InstanceRef) -> Result<(), StageError> {
    stop(act, stage, instance).await?;
    remove(act, stage, instance).await
}

/// Removes what is left of a stopped instance.
pub(super) async fn remove(act: &Act<'_>, stage: Stage, instance: &InstanceRef) -> Result<(), StageError> {
    let remove = async {
        act.ports
            .runtime(instance.runtime)?
            .remove(act.app(), &instance.name)
            .await
            .map(|()| ((), StepResult::Done))
    };
    act.journal.act(stage, Step::Remove { instance: instance.name.clone() }, remove).await
}

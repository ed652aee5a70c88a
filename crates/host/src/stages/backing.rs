//! Backing: networks, volumes and backing services that are absent; started and healthy before anything else. A deploy never replaces one.

use cutover_core::journal::{Step, StepResult};
use cutover_core::plan::{BackingPlan, Planned, Stage};
use cutover_core::release::RuntimeKind;

use super::Act;
use super::check::{admit_to_restarts, gate};
use super::preflight::Admitted;
use super::start::run;
use crate::journal::StageError;

/// What the release stands on is there.
pub(crate) struct Backed(());

pub(crate) async fn backing(
    act: &Act<'_>,
    plan: &Planned<BackingPlan>,
    _: Admitted,
) -> Result<Backed, StageError> {
    let Planned::Do(plan) = plan else { return Ok(Backed(())) };
    for network in &plan.networks {
        let runtime = act.ports.runtime(RuntimeKind::Container);
        let make = async { runtime?.ensure_network(network).await.map(|()| ((), StepResult::Done)) };
        act.journal.act(Stage::Backing, Step::Network { name: network.name.clone() }, make).await?;
    }
    for volume in &plan.volumes {
        let runtime = act.ports.runtime(volume.runtime);
        let make = async { runtime?.ensure_volume(act.app(), volume).await.map(|()| ((), StepResult::Done)) };
        act.journal.act(Stage::Backing, Step::Volume { name: volume.name.clone() }, make).await?;
    }
    for instance in &plan.instances {
        run(act, Stage::Backing, &instance.spec).await?;
        gate(act, Stage::Backing, std::slice::from_ref(instance)).await?;
        admit_to_restarts(act, Stage::Backing, std::slice::from_ref(instance)).await?;
    }
    Ok(Backed(()))
}

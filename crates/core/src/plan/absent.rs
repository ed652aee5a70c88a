//! Backing services on a deploy's way: what is absent is made; what is down, or died with its run before its gate, is started and gated as it was
//! made. What an earlier deploy made otherwise is made anew only while no release that went live has it; its volumes stay.

use crate::layout;
use crate::names::{ServiceName, Slot};
use crate::plan::assemble::{Parts, in_order, networks, todo, volumes};
use crate::plan::drift::{differences, may_be_made_anew};
use crate::plan::specify::{Ground, Identity, reference, respecify};
use crate::plan::transition::{Allocation, NoTransition};
use crate::plan::{BackingPlan, GatedInstance, Migration, Planned, VolumeSpec, WhyNot};
use crate::release::{Release, RuntimeKind};
use crate::state::{FoundInstance, HostState, RestartPolicy, Role};

/// What is done about a backing service before anything stands on it.
enum Need<'a> {
    Make,
    MakeAnew(&'a FoundInstance),
    Start(&'a FoundInstance),
}

/// `None`: it runs, and has passed its gate, which is when it was admitted to restarts (S4).
fn need<'a>(state: &'a HostState, release: &Release, name: &ServiceName) -> Option<Need<'a>> {
    let there = state.instances.iter().filter(|found| found.role == Role::Backing && found.service == *name);
    let Some(found) = there.min_by_key(|found| (!found.ours, !found.is_running())) else {
        return Some(Need::Make);
    };
    let wanted = release.backing.get(name)?;
    // A release may be deployed again with other values: its record is not what an instance was made from, then.
    let is_of_its_record = respecify(state, found).is_none_or(|again| again.spec.hash() == found.spec);
    let differs = !is_of_its_record || !differences(state, release, wanted, found).is_empty();
    if differs && may_be_made_anew(state, found) {
        return Some(Need::MakeAnew(found));
    }
    let is_admitted = !found.ours || found.restart == RestartPolicy::UnlessStopped;
    (!(found.is_running() && is_admitted)).then_some(Need::Start(found))
}

/// The stage: networks and volumes of all that the plan makes, and the backing services it needs.
pub(crate) fn backing(
    parts: &Parts<'_>,
    incoming: &[&GatedInstance],
) -> Result<Planned<BackingPlan>, NoTransition> {
    let Parts { state, release, stamp, .. } = parts;
    let ground = Ground { state, release, urls: parts.transition.urls.clone() };
    // Addresses the transition gave are not given again.
    let mut allocation = parts.transition.allocation.clone();
    let (mut retire, mut instances) = (Vec::new(), Vec::new());
    for (name, _) in in_order(&release.backing, |backing| backing.settings.run.depends_on.keys().collect()) {
        let Some(need) = need(state, release, name) else { continue };
        let mut anew = |existing| {
            let address = backing_address(state, release, name, existing, &mut allocation)?;
            let identity = Identity {
                name: name.as_str().parse()?,
                slot: Slot::Blue,
                replica: 1,
                run: stamp.run,
                address,
            };
            Ok::<_, NoTransition>(ground.backing(name, &identity))
        };
        let instance = match need {
            Need::Make => anew(None)?,
            Need::MakeAnew(found) => {
                retire.push(reference(state, found));
                anew(Some(found))?
            }
            Need::Start(found) => respecify(state, found).or_else(|| {
                let FoundInstance { name: own, slot, replica, run, address, .. } = found.clone();
                ground.backing(name, &Identity { name: own, slot, replica, run, address })
            }),
        };
        instances.extend(instance);
    }
    let specs = || {
        incoming
            .iter()
            .map(|instance| &instance.spec)
            .chain(instances.iter().map(|i| &i.spec))
            .chain(parts.migrations.iter().flat_map(Migration::instances))
    };
    let networks = networks(state, specs(), &mut allocation)?;
    let volumes: Vec<VolumeSpec> = volumes(&ground, specs());
    let needed = !(networks.is_empty() && volumes.is_empty() && instances.is_empty());
    let why = if release.backing.is_empty() { WhyNot::None } else { WhyNot::Present };
    Ok(todo(needed, why, || BackingPlan { networks, volumes, retire, instances }))
}

/// Where a backing service that is made is reached, where it is reached at all: where the one before it was.
pub(crate) fn backing_address(
    state: &HostState,
    release: &Release,
    name: &ServiceName,
    before: Option<&FoundInstance>,
    allocation: &mut Allocation,
) -> Result<Option<std::net::SocketAddr>, NoTransition> {
    let Some(backing) = release.backing.get(name) else { return Ok(None) };
    let runtime = backing.content.runtime();
    let was = before.filter(|found| found.runtime == runtime).and_then(|found| found.address);
    match (was, backing.settings.port, runtime) {
        (Some(mut address), Some(port), RuntimeKind::Container) if !address.ip().is_loopback() => {
            address.set_port(port);
            Ok(Some(address))
        }
        (Some(address), _, _) => Ok(Some(address)),
        (None, Some(port), RuntimeKind::Container) => {
            allocation.container(state, &layout::backing_network(&release.app), 24, port, name).map(Some)
        }
        (None, Some(_), RuntimeKind::Process) => allocation.loopback(state, name).map(Some),
        (None, None, _) => Ok(None),
    }
}

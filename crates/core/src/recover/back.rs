//! The way back: what was live before is live again, and what was to come is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cutover_routes::Entry as RouteEntry;

use crate::config::settings::Strategy;
use crate::exit::Exit;
use crate::gate::Check;
use crate::journal::{Entry, Step, What};
use crate::names::{InstanceName, ServiceName};
use crate::plan::specify::{reference, respecify};
use crate::plan::{
    CheckPlan, Direction, DrainPlan, Follow, GatedInstance, HandoverPlan, HostPlan, InstanceRef, Planned,
    RecordPlan, ServicePlan, SwitchPlan, VerifyPlan, WhyNot,
};
use crate::request::Stamp;
use crate::state::{HostState, Role};

use super::databases::restores;
use super::journalled::intended;
use super::standing::{coming, standing};

/// The way back: the new goes, databases are put back while nothing has them open, what was live is started where it was stopped, gated,
/// and gets its routes back; the switch ends the hold.
pub(super) fn back(goal: &HostPlan, journal: &[Entry], found: &HostState, stamp: Stamp) -> HostPlan {
    let live = goal.live.as_ref();
    let coming = coming(goal);
    let here: Vec<_> = found
        .instances
        .iter()
        .filter(|instance| {
            instance.ours
                && coming.contains(&instance.name)
                && !live.is_some_and(|live| live.has(&instance.name))
        })
        .collect();
    let one_off = found.instances.iter().filter(|instance| instance.ours && instance.role == Role::OneOff);
    let mut outgoing: Vec<_> = here.iter().map(|instance| reference(found, instance)).collect();
    let databases = restores(goal, journal, found);
    let (handed, following) = (handed(goal), following(goal));
    let among = |set: &BTreeSet<InstanceName>| {
        outgoing.iter().filter(|instance| set.contains(&instance.name)).cloned().collect::<Vec<_>>()
    };
    // Where nothing was live, nobody waits for the place: the routes go first, then what they point at.
    let in_place = if live.is_none() && databases.is_empty() { BTreeSet::new() } else { handed };
    let stopped_first: Vec<_> =
        one_off.clone().map(|instance| reference(found, instance)).chain(among(&in_place)).collect();
    let followed = among(&following);
    outgoing.extend(one_off.map(|instance| reference(found, instance)));
    let old: Vec<GatedInstance> = live
        .into_iter()
        .flat_map(|live| live.members.values().flatten())
        .filter_map(|name| found.instances.iter().find(|instance| instance.name == *name))
        .filter_map(|instance| respecify(found, instance))
        .collect();
    let runs =
        |name: &InstanceName| found.instances.iter().any(|other| other.name == *name && other.is_running());
    let (running, resting): (Vec<_>, Vec<_>) =
        old.into_iter().partition(|instance| runs(&instance.spec.name));
    let running: Vec<_> = running.into_iter().map(|instance| gated_as_it_stands(instance, journal)).collect();
    // What follows the routes forward follows them back: routes go back at once, a polling bot after them.
    let follows = |instance: &GatedInstance| {
        goal.verify
            .todo()
            .is_some_and(|verify| verify.follow.iter().any(|f| f.service == instance.spec.service))
    };
    let (back_after, back_first): (Vec<_>, Vec<_>) = resting.into_iter().partition(follows);
    let switched = standing(journal, goal, found).switched;
    // A table change that may still land is fenced off by another one: it compares before it swaps (S9).
    let hold = if switched || intended(journal, &Step::Switch) {
        goal.handover.todo().map(|handover| handover.hold.clone()).unwrap_or_default()
    } else {
        Vec::new()
    };
    let handover_needed = !(stopped_first.is_empty() && databases.is_empty() && back_first.is_empty());
    // What runs may need what is handed back, to pass its gate.
    let (at_once, afterwards) = if handover_needed { (Vec::new(), running) } else { (running, Vec::new()) };
    let follow = follow_back(goal, &followed, &back_after);
    let switch = match goal.switch.todo() {
        Some(SwitchPlan::Table { before, .. }) => {
            let now =
                found.table.as_ref().and_then(|table| table.table.owners.get(&goal.app.owner())).cloned();
            Planned::Do(SwitchPlan::Table { before: now, after: Some(fenced(before.as_ref(), goal)) })
        }
        Some(SwitchPlan::LiveFile) => Planned::Do(SwitchPlan::LiveFile),
        None => Planned::NotNeeded(WhyNot::Unchanged),
    };
    let joined = goal.start.todo().map(|start| start.joins.clone()).unwrap_or_default();
    let kept_candidates = kept_candidates(journal, goal, found, &coming);
    outgoing.extend(superseded(goal, found, &kept_candidates));
    HostPlan {
        direction: Direction::Back,
        made: stamp.now,
        fingerprint: found.fingerprint(),
        release: live
            .and_then(|live| found.releases.iter().find(|r| r.release.id == live.release))
            .map(|r| r.release.clone()),
        becomes: goal.live.clone(),
        services: BTreeMap::<ServiceName, ServicePlan>::new(),
        preflight: Planned::NotNeeded(WhyNot::NotInThisVerb),
        backing: Planned::NotNeeded(WhyNot::NotInThisVerb),
        snapshot: Planned::NotNeeded(WhyNot::NotInThisVerb),
        migrate: Planned::NotNeeded(WhyNot::NotInThisVerb),
        start: Planned::NotNeeded(WhyNot::NotInThisVerb),
        check: if at_once.is_empty() {
            Planned::NotNeeded(if live.is_none() { WhyNot::FirstDeploy } else { WhyNot::InHandover })
        } else {
            Planned::Do(CheckPlan { instances: at_once })
        },
        handover: if handover_needed {
            Planned::Do(HandoverPlan {
                hold,
                bounds: goal
                    .handover
                    .todo()
                    .map_or_else(crate::plan::default_hold, |handover| handover.bounds.clone()),
                outgoing: stopped_first,
                databases,
                incoming: back_first,
                afterwards,
            })
        } else {
            Planned::NotNeeded(WhyNot::None)
        },
        switch,
        verify: if follow.is_empty() {
            Planned::NotNeeded(WhyNot::NotInThisVerb)
        } else {
            Planned::Do(VerifyPlan { routes: Vec::new(), follow })
        },
        bake: Planned::NotNeeded(WhyNot::NotInThisVerb),
        drain: Planned::Do(DrainPlan {
            outgoing,
            deadline: goal.drain.todo().map_or(crate::defaults::DRAIN, |drain| drain.deadline),
            keep_warm: Duration::ZERO,
            leaves: joined,
            kept_candidates,
        }),
        record: RecordPlan {
            forget: Vec::new(),
            candidates: Vec::new(),
            networks: Vec::new(),
            volumes: Vec::new(),
            forget_app: false,
        },
        ..goal.clone()
    }
}

/// What was never stopped is asked, and no more: the log lines of its start may have been rotated away since.
fn gated_as_it_stands(mut instance: GatedInstance, journal: &[Entry]) -> GatedInstance {
    let name = &instance.spec.name;
    let stopped = journal.iter().any(
        |entry| matches!(&entry.what, What::Intent { step: Step::Stop { instance }, .. } if instance == name),
    );
    if !stopped {
        instance.gate.checks.retain(|gated| matches!(gated.check, Check::Http { .. } | Check::Tcp { .. }));
    }
    instance
}

/// The entry as it was, marked with the run that was taken back: other bytes than before, so that a change of that run which still hangs
/// somewhere finds another table than it expects.
fn fenced(before: Option<&RouteEntry>, goal: &HostPlan) -> RouteEntry {
    let mut entry = before.cloned().unwrap_or_default();
    entry.facts.insert("settled".to_owned(), goal.run.to_string());
    entry
}

/// Instances that a goal starts inside its handover: gone before what was live may start again.
fn handed(goal: &HostPlan) -> BTreeSet<InstanceName> {
    let handed = goal.handover.todo().into_iter().flat_map(|handover| &handover.incoming);
    handed.map(|instance| instance.spec.name.clone()).collect()
}

/// Instances that a goal starts after its routes were verified.
fn following(goal: &HostPlan) -> BTreeSet<InstanceName> {
    let following = goal
        .verify
        .todo()
        .into_iter()
        .flat_map(|verify| verify.follow.iter().flat_map(|follow| &follow.incoming));
    following.map(|instance| instance.spec.name.clone()).collect()
}

/// Services without routes on their way back: the new one stopped and gone, then the old one started and gated.
fn follow_back(goal: &HostPlan, outgoing: &[InstanceRef], incoming: &[GatedInstance]) -> Vec<Follow> {
    let services =
        goal.verify.todo().into_iter().flat_map(|verify| verify.follow.iter().map(|follow| &follow.service));
    services
        .map(|service| Follow {
            service: service.clone(),
            strategy: Strategy::Handover,
            outgoing: outgoing.iter().filter(|instance| instance.service == *service).cloned().collect(),
            incoming: incoming.iter().filter(|instance| instance.spec.service == *service).cloned().collect(),
        })
        .filter(|follow| !(follow.outgoing.is_empty() && follow.incoming.is_empty()))
        .collect()
}

/// At most one failed candidate a service is kept, stopped, for a look: the first of those that a failing gate was about.
fn kept_candidates(
    journal: &[Entry],
    goal: &HostPlan,
    found: &HostState,
    coming: &BTreeSet<InstanceName>,
) -> Vec<InstanceName> {
    let failed_gate = journal
        .iter()
        .any(|entry| matches!(&entry.what, What::Failed { failure, .. } if failure.exit == Exit::NotHealthy));
    let mut kept: BTreeMap<ServiceName, InstanceName> = BTreeMap::new();
    if failed_gate {
        for instance in &found.instances {
            let candidate = coming.contains(&instance.name)
                && !goal.live.as_ref().is_some_and(|live| live.has(&instance.name));
            if candidate && instance.role == Role::Service {
                kept.entry(instance.service.clone()).or_insert_with(|| instance.name.clone());
            }
        }
    }
    kept.into_values().collect()
}

/// Failed candidates of earlier deploys that could not be removed before this one's started: one of this run is kept in their place.
fn superseded(goal: &HostPlan, found: &HostState, kept: &[InstanceName]) -> Vec<InstanceRef> {
    let still = |name: &InstanceName| found.instances.iter().find(|other| other.name == *name);
    let services: BTreeSet<&ServiceName> =
        kept.iter().filter_map(still).map(|found| &found.service).collect();
    let earlier = goal.start.todo().into_iter().flat_map(|start| &start.retire);
    earlier.filter(|old| services.contains(&old.service) && still(&old.name).is_some()).cloned().collect()
}

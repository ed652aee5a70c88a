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
    RecordPlan, ServicePlan, SwitchPlan, VerifyPlan, WhyNot, todo,
};
use crate::request::Stamp;
use crate::state::{FoundInstance, HostState, Role};

use super::databases::{passwords, restores, unsettled};
use super::journalled::intended;
use super::standing::{coming, handed_out, is_its_one_off, is_rehearsal, standing};

/// The way back: the new goes, databases are put back while nothing has them open, what was live is started where it was stopped, gated,
/// and gets its routes back; the switch ends the hold.
pub(super) fn back(goal: &HostPlan, journal: &[Entry], found: &HostState, stamp: Stamp) -> HostPlan {
    let live = goal.live.as_ref();
    let mut databases = restores(goal, journal, found);
    let passwords = passwords(goal, journal);
    let mut in_place = in_place(goal, databases.is_empty());
    if !passwords.is_empty() {
        // Whoever is told the new password goes before it does.
        in_place.extend(following(goal));
    }
    databases.extend(passwords);
    let Leaving { first, followed, mut all } = leaving(goal, found, &in_place);
    databases.extend(unsettled(journal));
    let Returning { running, first: incoming, after } = returning(goal, journal, found);
    let handed_back = !(first.is_empty() && databases.is_empty() && incoming.is_empty());
    // What runs may need what is handed back, to pass its gate.
    let (at_once, afterwards) = if handed_back { (Vec::new(), running) } else { (running, Vec::new()) };
    let follow = follow_back(goal, &followed, &after);
    let kept_candidates = kept_candidates(journal, goal, found, &coming(goal));
    all.extend(superseded(goal, found, &kept_candidates));
    let handover = || HandoverPlan {
        hold: held_again(goal, journal, found),
        bounds: goal
            .handover
            .todo()
            .map_or_else(crate::plan::default_hold, |handover| handover.bounds.clone()),
        outgoing: first,
        databases,
        incoming,
        afterwards,
    };
    let unchecked = if live.is_none() { WhyNot::FirstDeploy } else { WhyNot::InHandover };
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
        check: todo(!at_once.is_empty(), unchecked, || CheckPlan { instances: at_once }),
        handover: todo(handed_back, WhyNot::None, handover),
        switch: switch_back(goal, found),
        verify: todo(!follow.is_empty(), WhyNot::NotInThisVerb, || VerifyPlan { routes: Vec::new(), follow }),
        bake: Planned::NotNeeded(WhyNot::NotInThisVerb),
        drain: Planned::Do(DrainPlan {
            outgoing: all,
            deadline: goal.drain.todo().map_or(crate::defaults::DRAIN, |drain| drain.deadline),
            keep_warm: Duration::ZERO,
            leaves: goal.start.todo().map(|start| start.joins.clone()).unwrap_or_default(),
            kept_candidates,
        }),
        // Of a rehearsal its release goes, too, whatever became of it.
        record: if is_rehearsal(goal) { goal.record.clone() } else { RecordPlan::default() },
        ..goal.clone()
    }
}

/// What came with the goal and is here: it goes.
struct Leaving {
    /// Before anything is put back or started again.
    first: Vec<InstanceRef>,
    /// After the routes, as it came.
    followed: Vec<InstanceRef>,
    all: Vec<InstanceRef>,
}

fn leaving(goal: &HostPlan, found: &HostState, in_place: &BTreeSet<InstanceName>) -> Leaving {
    let (coming, live) = (coming(goal), goal.live.as_ref());
    let is_ours = |instance: &&FoundInstance| instance.ours;
    let came = found.instances.iter().filter(is_ours).filter(|instance| {
        coming.contains(&instance.name) && !live.is_some_and(|live| live.has(&instance.name))
    });
    let mut all: Vec<_> = came.map(|instance| reference(found, instance)).collect();
    let one_off = found.instances.iter().filter(is_ours).filter(|instance| is_its_one_off(goal, instance));
    let mut one_off: Vec<_> = one_off.map(|instance| reference(found, instance)).collect();
    if is_rehearsal(goal) {
        // What it holds is thrown away, and nobody waits until that is in order.
        for instance in &mut one_off {
            instance.stop.grace = Duration::ZERO;
        }
    }
    let among = |set: &BTreeSet<InstanceName>| {
        all.iter().filter(|instance| set.contains(&instance.name)).cloned().collect::<Vec<_>>()
    };
    let first = one_off.iter().cloned().chain(among(in_place)).collect();
    let followed = among(&following(goal).difference(in_place).cloned().collect());
    all.extend(one_off);
    Leaving { first, followed, all }
}

/// What goes before anything is put back. Where nothing was live, nobody waits for the place: the routes go first, then what they point at.
fn in_place(goal: &HostPlan, no_databases: bool) -> BTreeSet<InstanceName> {
    if goal.live.is_none() && no_databases { BTreeSet::new() } else { handed(goal) }
}

/// What was live and is here: it is live again.
struct Returning {
    /// Was never stopped, or runs again.
    running: Vec<GatedInstance>,
    /// Is started again before the routes go back.
    first: Vec<GatedInstance>,
    /// Follows the routes back as it follows them forward: those go back at once, a polling bot after them.
    after: Vec<GatedInstance>,
}

fn returning(goal: &HostPlan, journal: &[Entry], found: &HostState) -> Returning {
    let mut returning = Returning { running: Vec::new(), first: Vec::new(), after: Vec::new() };
    if is_rehearsal(goal) {
        return returning;
    }
    let members = goal.live.iter().flat_map(|live| live.members.values().flatten());
    // What others stand on comes first.
    let out = handed_out(goal);
    let is_backing = |found: &&FoundInstance| found.role == Role::Backing && out.contains(&found.name);
    let backing = found.instances.iter().filter(is_backing).map(|found| &found.name);
    for name in backing.chain(members) {
        let Some(here) = found.instances.iter().find(|instance| instance.name == *name) else { continue };
        let Some(gated) = respecify(found, here) else { continue };
        let follows = goal
            .verify
            .todo()
            .is_some_and(|verify| verify.follow.iter().any(|follow| follow.service == gated.spec.service));
        if here.is_running() {
            returning.running.push(gated_as_it_stands(gated, journal));
        } else if follows {
            returning.after.push(gated);
        } else {
            returning.first.push(gated);
        }
    }
    returning
}

/// Held on the way back is what was held forward, once the routes may have been switched.
fn held_again(goal: &HostPlan, journal: &[Entry], found: &HostState) -> Vec<ServiceName> {
    if !standing(journal, goal, found).switched && !intended(journal, &Step::Switch) {
        return Vec::new();
    }
    goal.handover.todo().map(|handover| handover.hold.clone()).unwrap_or_default()
}

/// A table change that may still land is fenced off by another one: it compares before it swaps (S9).
fn switch_back(goal: &HostPlan, found: &HostState) -> Planned<SwitchPlan> {
    match goal.switch.todo() {
        Some(SwitchPlan::Table { before, .. }) => {
            let now =
                found.table.as_ref().and_then(|table| table.table.owners.get(&goal.app.owner())).cloned();
            Planned::Do(SwitchPlan::Table { before: now, after: Some(fenced(before.as_ref(), goal)) })
        }
        Some(SwitchPlan::LiveFile) => Planned::Do(SwitchPlan::LiveFile),
        None => Planned::NotNeeded(WhyNot::Unchanged),
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

//! Where a run stands, from its journal and the host as found.

use std::collections::BTreeSet;

use cutover_routes::Entry as RouteEntry;

use crate::config::settings::Compatible;
use crate::failure::Failure;
use crate::journal::{Entry, Step, What};
use crate::layout;
use crate::names::InstanceName;
use crate::plan::{Direction, HostPlan, Stage, SwitchPlan, Verb};
use crate::release::Live;
use crate::state::{FoundInstance, HostState, Role};

use super::journalled::{failure, finished, journal_switched, migrated, plans, restored};

/// Where a run stands, read from its journal and the host as found.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// The commit point was passed: what was asked is live.
    pub switched: bool,
    /// The failure that turned the run around, or stopped it.
    pub failed: Option<(Stage, Failure)>,
    /// A breaking migration was carried out, or a database put back, and its hold has ended: no way back by itself (S18).
    pub past_return: bool,
    /// What was replaced is no longer whole: no way back either.
    pub drained: bool,
}

/// Nothing live is touched by it: what is live is neither asked how it is nor started.
pub(super) fn is_rehearsal(goal: &HostPlan) -> bool {
    goal.verb == Verb::MigrateRehearse
}

/// Where the run stands.
pub fn standing(journal: &[Entry], goal: &HostPlan, found: &HostState) -> Standing {
    // A rehearsal is of no use by halves: what was begun of it is taken away.
    let is_whole = !is_rehearsal(goal) || finished(journal) == Some(Direction::Forward);
    let switched = is_whole && is_switched(goal, found.live.as_ref());
    let failed = failure(journal);
    let switched_before = switched || journal_switched(journal);
    let migrated = migrated(journal, goal);
    // What was put back is a schema from before, too: what was live cannot run on it.
    let breaking = migrated.iter().any(|migration| migration.compatible == Compatible::Breaking)
        || !restored(journal, goal).is_empty();
    let drained = drained(journal, goal, found);
    Standing { switched, failed, past_return: breaking && switched_before, drained }
}

/// Whether what was asked is what is live.
pub(super) fn is_switched(goal: &HostPlan, live: Option<&Live>) -> bool {
    match &goal.becomes {
        // Where nothing is switched, what is live stays what it was.
        Some(_) if goal.switch.todo().is_none() => live == goal.live.as_ref(),
        Some(_) => live.is_some_and(|live| live.run == goal.run),
        None => live.is_none(),
    }
}

pub(super) fn wants_back(standing: &Standing) -> bool {
    standing.failed.as_ref().is_some_and(|(stage, _)| *stage < Stage::Drain)
        && !standing.past_return
        && !standing.drained
}

/// Whether something that what was live before needs is gone or going.
fn drained(journal: &[Entry], goal: &HostPlan, found: &HostState) -> bool {
    let began = journal.iter().any(|entry| match &entry.what {
        What::Intent { stage: Stage::Drain, step } => matches!(step, Step::Stop { .. } | Step::Remove { .. }),
        _ => false,
    });
    let Some(live) = &goal.live else { return goal.verb != Verb::Deploy || began };
    began
        || live
            .members
            .values()
            .flatten()
            .any(|name| !found.instances.iter().any(|instance| instance.name == *name))
}

/// Instances that a goal starts.
pub(super) fn coming(goal: &HostPlan) -> BTreeSet<InstanceName> {
    let beside = goal.start.todo().into_iter().flat_map(|start| start.waves.iter().flatten());
    let handed = goal.handover.todo().into_iter().flat_map(|handover| &handover.incoming);
    let following = goal
        .verify
        .todo()
        .into_iter()
        .flat_map(|verify| verify.follow.iter().flat_map(|follow| &follow.incoming));
    // What is stopped and started again was there before: it does not go on the way back.
    let was = handed_out(goal);
    beside
        .chain(handed)
        .chain(following)
        .map(|instance| instance.spec.name.clone())
        .filter(|name| !was.contains(name))
        .collect()
}

/// Instances that a goal stops inside its handover.
pub(super) fn handed_out(goal: &HostPlan) -> BTreeSet<InstanceName> {
    let handover = goal.handover.todo().into_iter();
    handover.flat_map(|handover| &handover.outgoing).map(|instance| instance.name.clone()).collect()
}

/// Whether this look, or that of an earlier way back, found the goal live: requests have been served by it since the hold.
pub(super) fn seen_switched(journal: &[Entry], goal: &HostPlan, found: &HostState) -> bool {
    let by_goal =
        |entry: &RouteEntry| Live::from_facts(&entry.facts).is_some_and(|live| live.run == goal.run);
    let earlier = plans(journal).filter(|plan| plan.direction == Direction::Back).any(|plan| {
        match plan.switch.todo() {
            Some(SwitchPlan::Table { before: Some(before), .. }) => by_goal(before),
            _ => false,
        }
    });
    earlier || found.live.as_ref().is_some_and(|live| live.run == goal.run)
}

/// Whether a one-off instance may be one of the run's. One that a rehearsal has not made works on what is live, and is none of its concern; nor is a
/// scratch server, which a rehearsal left, of anybody else's: it may be one that does not end.
pub(super) fn is_its_one_off(goal: &HostPlan, found: &FoundInstance) -> bool {
    let is_strangers = is_rehearsal(goal) || layout::is_scratch(&found.name);
    found.role == Role::OneOff && (found.run == goal.run || !is_strangers)
}

/// Whether nothing of the goal is left but kept candidates, stopped.
pub(super) fn clean(goal: &HostPlan, found: &HostState) -> bool {
    let coming = coming(goal);
    !found.instances.iter().any(|instance| {
        instance.ours
            && (coming.contains(&instance.name) || is_its_one_off(goal, instance))
            && !goal.live.as_ref().is_some_and(|live| live.has(&instance.name))
            && instance.is_running()
    })
}

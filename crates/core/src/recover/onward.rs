//! The way on: what was asked is live, and the rest of it is done.

use crate::journal::{Entry, Step, What};
use crate::plan::{CheckPlan, GatedInstance, HostPlan, Planned, SnapshotPlan, Stage, StartPlan, WhyNot};

use super::journalled::{intended, outcomes};
use super::standing::Standing;

/// Those that somebody asked for and that are not there yet: nothing is switched for them, so that they are all that is to be done.
fn asked_snapshots(goal: &HostPlan, journal: &[Entry]) -> Planned<SnapshotPlan> {
    let mut left = goal.snapshot.todo().cloned().unwrap_or_default();
    let is_done = |wanted: &str| {
        outcomes(journal).any(|(step, _)| {
            matches!(step, Step::Snapshot { file, .. } | Step::Restore { file, .. } if file == wanted)
        })
    };
    left.asked.retain(|asked| !is_done(&asked.file));
    left.beside = left.beside.filter(|beside| !is_done(&beside.file));
    if let Some(beside) = &mut left.beside {
        let step = Step::Restore { database: beside.database.clone(), file: beside.file.clone() };
        beside.begun = intended(journal, &step);
    }
    if left.asked.is_empty() && left.beside.is_none() {
        return Planned::NotNeeded(WhyNot::AlreadyDone);
    }
    Planned::Do(SnapshotPlan { databases: [].into(), ..left })
}

/// The rest of the way forward: what is done is not done again, the public route is verified and the bake begins anew (S20).
pub(super) fn onward(goal: &HostPlan, standing: &Standing, journal: &[Entry]) -> HostPlan {
    let mut plan = goal.clone();
    plan.preflight = Planned::NotNeeded(WhyNot::AlreadyDone);
    plan.backing = Planned::NotNeeded(WhyNot::AlreadyDone);
    plan.snapshot = asked_snapshots(goal, journal);
    plan.migrate = Planned::NotNeeded(WhyNot::AlreadyDone);
    plan.handover = Planned::NotNeeded(WhyNot::AlreadyDone);
    // The new instances are looked at again: started where a crash of the host took them, and gated.
    let mut instances: Vec<GatedInstance> =
        goal.check.todo().map(|check| check.instances.clone()).unwrap_or_default();
    instances.extend(goal.handover.todo().into_iter().flat_map(|handover| handover.incoming.iter().cloned()));
    if instances.is_empty() {
        plan.start = Planned::NotNeeded(WhyNot::AlreadyDone);
        plan.check = Planned::NotNeeded(WhyNot::AlreadyDone);
    } else {
        let joins = goal.start.todo().map(|start| start.joins.clone()).unwrap_or_default();
        plan.start = Planned::Do(StartPlan { retire: Vec::new(), waves: vec![instances.clone()], joins });
        plan.check = Planned::Do(CheckPlan { instances });
    }
    let broken = standing.failed.is_some();
    let baked = journal.iter().any(|entry| matches!(entry.what, What::Left { stage: Stage::Bake, .. }));
    if standing.drained || broken {
        // There is no way back to take: neither would tell anything that could be acted upon.
        plan.bake = Planned::NotNeeded(WhyNot::AlreadyDone);
    }
    if (broken || (standing.drained && baked))
        && let Planned::Do(verify) = &mut plan.verify
    {
        verify.routes.clear();
    }
    if broken && !standing.drained {
        // The gate has been passed once; what failed since is told to a person, not tried again and again.
        plan.start = Planned::NotNeeded(WhyNot::AlreadyDone);
        plan.check = Planned::NotNeeded(WhyNot::AlreadyDone);
    }
    plan
}

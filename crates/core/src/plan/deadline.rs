//! How long a plan may take: each stage by itself, and the whole of it. Far above what is usual: past it a stage counts as hung and is dropped,
//! and a run whose process hangs is ended from outside (S9).
//!
//! A stage gets what its plan says (gates, drains, migrations, graces), something for each act, and [`defaults::STAGE`] besides, so that one
//! call that does not answer runs into its own limit first and is told in its own words.

use std::time::Duration;

use super::{
    BackingPlan, BakePlan, DatabasePlace, DrainPlan, Follow, GatedInstance, HandoverPlan, HeldDatabase,
    HostPlan, InstanceRef, InstanceSpec, MigratePlan, Migration, PreflightPlan, RecordPlan, RouteCheck,
    ScratchRehearsal, SnapshotPlan, Stage, StartPlan, VerifyPlan,
};
use crate::config::settings::{Database, DatabaseEngine, Verify};
use crate::defaults::{self, ACT, DATABASE, DUMP, LOOK, PROBE_TIMEOUT, STAGE, VERIFY};

/// A bake starts over when the proxy restarts; so often it may.
const BAKES: u32 = 3;

/// The longest one stage of a plan may take.
pub fn of(plan: &HostPlan, stage: Stage) -> Duration {
    let wanted = match stage {
        // A wait for the lock has a limit of its own.
        Stage::Lock => None,
        Stage::Snapshot => Some(
            read_back(plan)
                + plan.migrate.todo().map(snapshots).unwrap_or_default()
                + plan.snapshot.todo().map(asked_snapshots).unwrap_or_default(),
        ),
        Stage::Preflight => plan.preflight.todo().map(|found| preflight(found) + read_back(plan)),
        Stage::Backing => Some(plan.backing.todo().map(backing).unwrap_or_default() + returning(plan)),
        Stage::Migrate => plan.migrate.todo().map(migrate),
        Stage::Start => plan.start.todo().map(start),
        Stage::Check => plan.check.todo().map(|check| gate(&check.instances)),
        Stage::Handover => plan.handover.todo().map(handover),
        Stage::Switch => plan.switch.todo().map(|_| look_again(plan)),
        Stage::Verify => plan.verify.todo().map(verify),
        Stage::Bake => plan.bake.todo().map(bake),
        Stage::Drain => plan.drain.todo().map(drain),
        Stage::Record => Some(record(&plan.record)),
    };
    STAGE + wanted.unwrap_or_default()
}

/// The longest a whole plan may take: its stages, or those of the plan a pending migration puts in its place, and the look that follows.
pub fn whole(plan: &HostPlan) -> Duration {
    let stages = |plan: &HostPlan| Stage::ALL.into_iter().map(|stage| of(plan, stage)).sum::<Duration>();
    let migrate = plan.migrate.todo();
    let instead = migrate.and_then(|migrate| migrate.if_pending.as_deref()).map(stages);
    stages(plan) + instead.unwrap_or_default() + LOOK
}

fn acts(count: usize) -> Duration {
    ACT.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX))
}

fn preflight(plan: &PreflightPlan) -> Duration {
    acts(plan.artifacts.len() + plan.images.len() + plan.ports.len())
}

fn backing(plan: &BackingPlan) -> Duration {
    let instances: Duration = plan
        .instances
        .iter()
        .map(|one| run(std::slice::from_ref(one)) + gate(std::slice::from_ref(one)))
        .sum();
    acts(plan.networks.len() + plan.volumes.len() + plan.retire.len()) + stops(&plan.retire) + instances
}

/// A first deploy may bring back what a backup has of servers' databases.
fn returning(plan: &HostPlan) -> Duration {
    let of_server = |database: &Database| matches!(database.engine, DatabaseEngine::Server { .. });
    let has_server = plan.release.as_ref().is_some_and(|release| release.databases.values().any(of_server));
    if plan.live.is_none() && has_server { DUMP } else { Duration::ZERO }
}

/// Made and started.
fn run(instances: &[GatedInstance]) -> Duration {
    acts(2 * instances.len())
}

/// Gated side by side, then admitted one by one. A try that has begun at the deadline may end after it.
fn gate(instances: &[GatedInstance]) -> Duration {
    let longest = instances.iter().map(|instance| instance.gate.within).max();
    longest.unwrap_or_default() + acts(instances.len())
}

/// One after another: the policy, the signal, the grace, the kill.
fn stops(instances: &[InstanceRef]) -> Duration {
    instances.iter().map(|instance| instance.stop.grace + 3 * ACT).sum()
}

fn migrate(plan: &MigratePlan) -> Duration {
    let rehearsed: Duration = plan.rehearse.iter().map(|one| migration(one) + copy(one.place.as_ref())).sum();
    rehearsed
        + plan.direct.iter().map(migration).sum::<Duration>()
        + plan.scratch.iter().map(scratch).sum::<Duration>()
}

/// Its server is started, filled, asked and migrated, and taken away again.
fn scratch(one: &ScratchRehearsal) -> Duration {
    let stops = 2 * one.server.settings.stop.grace;
    one.within + 2 * DUMP + asked(&one.migration) + migration(&one.migration) + stops + acts(12)
}

/// Those that find nothing pending take none.
fn snapshots(plan: &MigratePlan) -> Duration {
    plan.direct.iter().map(|one| asked(one) + DUMP).sum()
}

fn asked_snapshots(plan: &SnapshotPlan) -> Duration {
    let taken: Duration = plan.asked.iter().map(|one| copy(Some(&one.place))).sum();
    taken + plan.beside.iter().map(|one| 2 * copy(Some(&one.place))).sum::<Duration>()
}

/// Snapshots that are to be put back are read whole before anybody is held for them.
fn read_back(plan: &HostPlan) -> Duration {
    let held = plan.handover.todo().into_iter().flat_map(|handover| &handover.databases);
    held.map(|held| match held {
        HeldDatabase::Restore { place, present: Some(_), .. } => copy(Some(place)),
        HeldDatabase::Restore { .. }
        | HeldDatabase::Migrate { .. }
        | HeldDatabase::Password { .. }
        | HeldDatabase::Settle { .. } => Duration::ZERO,
    })
    .sum()
}

/// Whether something is pending.
fn asked(one: &Migration) -> Duration {
    one.questions().into_iter().map(one_off).sum()
}

fn migration(migration: &Migration) -> Duration {
    migration.commands().map(one_off).sum()
}

/// A one-off instance to its end; what an earlier one left is stopped first, and the late one afterwards.
fn one_off((spec, timeout): (&InstanceSpec, Duration)) -> Duration {
    timeout + 2 * spec.settings.stop.grace + acts(6)
}

fn start(plan: &StartPlan) -> Duration {
    let waves: Duration = plan.waves.iter().map(|wave| run(wave) + gate(wave)).sum();
    stops(&plan.retire) + acts(plan.retire.len() + plan.joins.len()) + waves
}

fn handover(plan: &HandoverPlan) -> Duration {
    let databases: Duration = plan.databases.iter().map(database).sum();
    plan.bounds.budget + stops(&plan.outgoing) + databases + run(&plan.incoming) + gate(&plan.incoming)
}

fn database(held: &HeldDatabase) -> Duration {
    match held {
        HeldDatabase::Migrate { migration: one } => migration(one) + copy(one.place.as_ref()),
        HeldDatabase::Restore { place, .. } => 2 * copy(Some(place)),
        HeldDatabase::Password { .. } => acts(6),
        HeldDatabase::Settle { .. } => acts(3),
    }
}

/// A database from one place to another.
fn copy(place: Option<&DatabasePlace>) -> Duration {
    match place {
        Some(DatabasePlace::Server(_)) => DUMP,
        Some(DatabasePlace::File(_)) | None => DATABASE,
    }
}

/// What passed its gate is probed again, each check twice at most.
fn look_again(plan: &HostPlan) -> Duration {
    let beside = plan.check.todo().into_iter().flat_map(|check| &check.instances);
    let handed = plan.handover.todo().into_iter().flat_map(|handover| &handover.incoming);
    let checks = beside.chain(handed).flat_map(|instance| &instance.gate.checks);
    checks.map(|check| 2 * check.timeout).sum()
}

fn verify(plan: &VerifyPlan) -> Duration {
    let routes: Duration = plan.routes.iter().map(route).sum();
    routes + plan.follow.iter().map(follow).sum::<Duration>()
}

/// A round that has begun at the deadline goes on to its end.
fn route(route: &RouteCheck) -> Duration {
    let expected = route.expect.iter().map(|expect| match expect {
        Verify::Http { .. } => PROBE_TIMEOUT,
        Verify::Command { timeout, .. } => *timeout,
    });
    VERIFY + 2 * (PROBE_TIMEOUT + expected.sum::<Duration>())
}

fn follow(follow: &Follow) -> Duration {
    stops(&follow.outgoing) + run(&follow.incoming) + gate(&follow.incoming)
}

fn bake(plan: &BakePlan) -> Duration {
    BAKES * plan.duration
}

fn drain(plan: &DrainPlan) -> Duration {
    plan.deadline + stops(&plan.outgoing) + acts(plan.outgoing.len() + plan.leaves.len())
}

fn record(plan: &RecordPlan) -> Duration {
    let discarded = plan.forget.len() + plan.networks.len() + plan.volumes.len() + plan.leftovers.len();
    stops(&plan.candidates) + acts(plan.candidates.len() + discarded) + defaults::RECORD
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::ContentHash;
    use crate::plan::{Direction, Planned, Verb, WhyNot};

    /// A plan with nothing to do.
    fn idle() -> HostPlan {
        let nothing = WhyNot::NotInThisVerb;
        HostPlan {
            version: super::super::PLAN_VERSION,
            run: "00000000-0000-0000-0000-000000000001".parse().unwrap(),
            app: "shop/local".parse().unwrap(),
            verb: Verb::Deploy,
            by: "ann".to_owned(),
            made: jiff::Timestamp::UNIX_EPOCH,
            fingerprint: ContentHash::of(b"world"),
            allowed: [].into(),
            direction: Direction::Forward,
            release: None,
            live: None,
            becomes: None,
            services: [].into(),
            variables: [].into(),
            preflight: Planned::NotNeeded(nothing),
            backing: Planned::NotNeeded(nothing),
            snapshot: Planned::NotNeeded(nothing),
            migrate: Planned::NotNeeded(nothing),
            start: Planned::NotNeeded(nothing),
            check: Planned::NotNeeded(nothing),
            handover: Planned::NotNeeded(nothing),
            switch: Planned::NotNeeded(nothing),
            verify: Planned::NotNeeded(nothing),
            bake: Planned::NotNeeded(nothing),
            drain: Planned::NotNeeded(nothing),
            record: RecordPlan::default(),
            notes: vec![],
        }
    }

    #[test]
    fn a_stage_gets_what_its_plan_says_and_something_besides() {
        let ten_minutes = Duration::from_mins(10);
        let bake = BakePlan { duration: ten_minutes, watched: vec![], compared: vec![] };
        let plan = HostPlan { bake: Planned::Do(bake), ..idle() };

        assert_eq!(of(&plan, Stage::Bake), STAGE + 3 * ten_minutes);
        assert_eq!(of(&plan, Stage::Switch), STAGE);
        assert!(of(&plan, Stage::Switch) > defaults::ENGINE_CALL, "a call's own limit comes first");
    }

    #[test]
    fn the_whole_is_longer_than_all_its_stages_and_than_those_of_its_alternative() {
        let drain = |seconds| DrainPlan {
            outgoing: vec![],
            deadline: Duration::from_secs(seconds),
            keep_warm: Duration::ZERO,
            leaves: vec![],
            kept_candidates: vec![],
        };
        let instead = HostPlan { drain: Planned::Do(drain(5_000)), ..idle() };
        let plan = HostPlan {
            drain: Planned::Do(drain(100)),
            migrate: Planned::Do(MigratePlan {
                rehearse: vec![],
                direct: vec![],
                if_pending: Some(Box::new(instead)),
                scratch: vec![],
            }),
            ..idle()
        };

        let stages: Duration = Stage::ALL.into_iter().map(|stage| of(&plan, stage)).sum();

        assert!(whole(&plan) > stages + Duration::from_secs(5_000));
        assert!(whole(&idle()) < whole(&plan));
    }
}

//! What is to be done about an app, from one look and what is remembered. Pure; each act is small, and the next look decides the next
//! one, so that a crash between two acts leaves nothing that is not seen again.

use std::collections::BTreeSet;
use std::time::Duration;

use cutover_core::config::settings::{DependsOn, StopSettings, Strategy};
use cutover_core::defaults;
use cutover_core::layout;
use cutover_core::names::{InstanceName, ReleaseId, ServiceName};
use cutover_core::state::{FoundInstance, InstanceState, RestartPolicy, Role};
use cutover_routes::Entry;
use jiff::Timestamp;

use super::memory::{Memory, Now};
use super::routes;
use super::seen::Seen;

/// A one-off instance without a run belongs to somebody's `exec --once`, until it is this old.
const ONE_OFF_MOST: Duration = Duration::from_hours(12);
/// For requests in flight on an instance that is restarted while another serves.
const QUIET_MOST: Duration = Duration::from_secs(10);

/// One act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Act {
    /// A live instance without the restart policy of one gets it.
    Admit { instance: InstanceName },
    /// The app's entry in the table becomes this: other targets, a hold, the end of one.
    Routes { entry: Entry },
    /// Requests in flight on it end, at most so long.
    Quiet { instance: InstanceName, limit: Duration },
    /// It is down and is started.
    Start { instance: InstanceName },
    /// It runs, but unhealthy or without a keeper: it is stopped and started.
    Restart { instance: InstanceName, stop: StopSettings },
    /// Nobody wants it: it is stopped and removed.
    Retire { instance: InstanceName, stop: StopSettings },
    /// A release is no longer kept warm.
    Cool { release: ReleaseId },
}

/// Decides. In the order of the result the acts are carried out; the first that fails ends them, and the next look decides anew.
pub(super) fn decide(seen: &Seen, memory: &Memory, now: Now) -> Vec<Act> {
    if !seen.told || !memory.complete || seen.unfinished {
        return Vec::new();
    }
    if seen.remembered {
        return starts(seen, memory, now)
            .map(|instance| Act::Start { instance: instance.name.clone() })
            .collect();
    }
    let restarts = restarts(seen, memory, now);
    let leaving: BTreeSet<InstanceName> = restarts.iter().map(|instance| instance.name.clone()).collect();
    let mut acts = Vec::new();
    acts.extend(unadmitted(seen).map(|instance| Act::Admit { instance: instance.name.clone() }));
    acts.extend(routes::wanted(seen, memory, &leaving, now).map(|entry| Act::Routes { entry }));
    for instance in restarts {
        acts.extend(quiet(seen, instance));
        acts.push(Act::Restart { instance: instance.name.clone(), stop: seen.stop(instance) });
    }
    acts.extend(starts(seen, memory, now).map(|instance| Act::Start { instance: instance.name.clone() }));
    acts.extend(retirements(seen, memory, now));
    acts.extend(cooled(seen, now.wall));
    acts
}

/// Members that run, or will, without being started again after an exit: a run died between switch and admission (S4).
fn unadmitted(seen: &Seen) -> impl Iterator<Item = &FoundInstance> {
    seen.wanted().filter(|instance| instance.restart == RestartPolicy::No)
}

/// Whether an instance that should run is down for good: nothing but watch starts it again.
pub(super) fn wants_start(seen: &Seen, name: &InstanceName) -> bool {
    seen.instances
        .get(name)
        .is_some_and(|found| matches!(found.state, InstanceState::Created | InstanceState::Exited { .. }))
}

fn starts<'a>(seen: &'a Seen, memory: &'a Memory, now: Now) -> impl Iterator<Item = &'a FoundInstance> {
    seen.wanted().filter(move |instance| {
        wants_start(seen, &instance.name)
            && !meets_its_like(seen, instance)
            && memory.is_due(&instance.name, now)
            && (instance.role == Role::Backing || is_ready(seen, memory, &instance.service, now))
    })
}

/// A service that may never run twice is not started while any other instance of it runs, of whatever release (P8).
fn meets_its_like(seen: &Seen, instance: &FoundInstance) -> bool {
    let is_single = seen.service(&instance.service).is_some_and(|of| of.strategy == Strategy::Handover);
    let runs = |other: &FoundInstance| {
        matches!(other.state, InstanceState::Running { .. } | InstanceState::Restarting { .. })
    };
    is_single
        && seen.instances.values().any(|other| {
            other.service == instance.service
                && other.role == Role::Service
                && other.name != instance.name
                && runs(other)
        })
}

/// What a service depends on is up, or was waited for long enough: half an app is better than none.
fn is_ready(seen: &Seen, memory: &Memory, service: &ServiceName, now: Now) -> bool {
    if memory.waits(service, now) >= defaults::GATE {
        return true;
    }
    let is_up = |instance: &FoundInstance| instance.is_running() && memory.is_proved(&instance.name);
    let backing = seen.backing().all(is_up);
    let depends = seen.service(service).map(|service| &service.run.depends_on);
    backing
        && depends.into_iter().flatten().all(|(on, condition)| {
            let mut members = seen.wanted().filter(|instance| instance.service == *on);
            match condition {
                DependsOn::Started => members.all(FoundInstance::is_running),
                DependsOn::Healthy => members.all(is_up),
            }
        })
}

/// At most one instance of a service: that lost its keeper, or turned unhealthy while another serves.
fn restarts<'a>(seen: &'a Seen, memory: &Memory, now: Now) -> Vec<&'a FoundInstance> {
    let mut chosen = Vec::new();
    for (service, names) in seen.members() {
        let found: Vec<&FoundInstance> = names.iter().filter_map(|name| seen.instances.get(name)).collect();
        let is_fit = |instance: &FoundInstance| is_fit(seen, memory, instance);
        let unfit = |but: &InstanceName| found.iter().any(|other| other.name != *but && !is_fit(other));
        let another = |but: &InstanceName| found.iter().any(|other| other.name != *but && is_fit(other));
        let last_too = seen.service(service).is_some_and(|service| service.restart_unhealthy);
        let candidate = found.iter().find(|instance| {
            let name = &instance.name;
            let unkept = seen.unkept.contains(name) && !unfit(name);
            let sick = memory.fell(name) && (another(name) || last_too);
            instance.is_running() && memory.is_due(name, now) && (unkept || sick)
        });
        chosen.extend(candidate.copied());
    }
    chosen
}

/// Up, proved and not fallen: requests may go there.
pub(super) fn is_fit(seen: &Seen, memory: &Memory, instance: &FoundInstance) -> bool {
    let unseen = seen.blind.contains(&instance.runtime);
    unseen || (instance.is_running() && memory.is_proved(&instance.name) && !memory.fell(&instance.name))
}

/// Neither live nor kept for a reason.
pub(super) fn is_unwanted(seen: &Seen, instance: &FoundInstance, now: Timestamp) -> bool {
    if !seen.told || seen.remembered || seen.live.as_ref().is_some_and(|live| live.has(&instance.name)) {
        return false;
    }
    let until = seen.warm.get(&instance.release);
    let warm = until.is_some_and(|until| *until > now);
    match (instance.role, &instance.state) {
        (Role::Backing, _) => false,
        // It was kept warm, and its time is over, whatever became of it meanwhile.
        (Role::Service, _) if until.is_some() => !warm,
        // The failed candidate of the last deploy, for a look at it.
        (Role::Service, InstanceState::Exited { .. }) if instance.restart == RestartPolicy::No => {
            !warm && seen.live.is_some() && seen.left.contains(&instance.name)
        }
        (Role::Service, _) => !warm,
        (Role::OneOff, InstanceState::Running { since, .. }) => {
            layout::is_scratch(&instance.name) || now.duration_since(*since).unsigned_abs() >= ONE_OFF_MOST
        }
        (Role::OneOff, _) => true,
    }
}

fn retirements(seen: &Seen, memory: &Memory, now: Now) -> impl Iterator<Item = Act> {
    let unwanted = seen
        .instances
        .values()
        .filter(move |instance| is_unwanted(seen, instance, now.wall) && memory.may_go(&instance.name, now));
    unwanted.flat_map(|instance| {
        let quiet = quiet(seen, instance);
        quiet.into_iter().chain([Act::Retire { instance: instance.name.clone(), stop: seen.stop(instance) }])
    })
}

/// Requests in flight on an instance that goes: of a release kept warm, say, which has no route any more and may have a long answer to give.
fn quiet(seen: &Seen, instance: &FoundInstance) -> Option<Act> {
    let service = seen.service(&instance.service).filter(|service| service.route.is_some())?;
    if !instance.is_running() {
        return None;
    }
    let limit = service.drain.min(service.hold.budget / 2).min(QUIET_MOST);
    Some(Act::Quiet { instance: instance.name.clone(), limit })
}

/// Releases whose time is over and of which nothing is left.
fn cooled(seen: &Seen, now: Timestamp) -> impl Iterator<Item = Act> {
    let is_left = move |release: &ReleaseId| {
        let of_it = seen.instances.values().filter(|instance| instance.release == *release);
        of_it.into_iter().any(move |instance| is_unwanted(seen, instance, now))
    };
    let over = seen.warm.iter().filter(move |(_, until)| **until <= now).map(|(release, _)| release);
    over.filter(move |release| seen.blind.is_empty() && !is_left(release))
        .map(|release| Act::Cool { release: release.clone() })
}

//! How an app's services are, for `status`: from the last look and what is remembered.

use std::collections::BTreeMap;

use cutover_core::names::{InstanceName, ServiceName};
use cutover_core::state::{ExitStatus, FoundInstance, InstanceState};
use cutover_core::wire::{InstanceHealth, ServiceHealth};

use super::memory::{Memory, Now};
use super::seen::Seen;

/// By service; backing services among them.
pub(super) fn of(seen: &Seen, memory: &Memory, now: Now) -> BTreeMap<ServiceName, ServiceHealth> {
    let one = |name: &InstanceName| instance(seen, memory, name, now);
    let mut services = BTreeMap::new();
    for (service, names) in seen.live.iter().flat_map(|live| &live.members) {
        let stopped = seen.live.as_ref().is_some_and(|live| live.stopped.contains(service));
        let replicas =
            seen.service(service).map_or(u32::try_from(names.len()).unwrap_or(u32::MAX), |s| s.replicas);
        let health = ServiceHealth { instances: names.iter().map(one).collect(), stopped, wanted: replicas };
        services.insert(service.clone(), health);
    }
    for backing in seen.backing() {
        let health = ServiceHealth { instances: vec![one(&backing.name)], stopped: false, wanted: 1 };
        services.insert(backing.service.clone(), health);
    }
    services
}

fn instance(seen: &Seen, memory: &Memory, name: &InstanceName, now: Now) -> InstanceHealth {
    let found = seen.instances.get(name);
    let is_probed = found.and_then(|found| seen.gate(found)).is_some();
    let healthy = match found {
        Some(found) if found.is_running() => is_probed.then(|| memory.is_proved(name) && !memory.fell(name)),
        Some(_) | None => Some(false),
    };
    InstanceHealth {
        name: name.clone(),
        state: found.map_or_else(gone, |found: &FoundInstance| found.state.clone()),
        healthy,
        crash_loop: memory.is_in_crash_loop(name, now),
        finding: memory.finding(name),
    }
}

/// Somebody removed it: only a deploy makes it again.
fn gone() -> InstanceState {
    let error = Some("the instance is gone: deploy again".to_owned());
    InstanceState::Exited {
        exit: ExitStatus { code: None, signal: None, out_of_memory: false, error, at: None },
    }
}

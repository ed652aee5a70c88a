//! Which instances requests may go to: the app's entry in the table, kept true. Only targets and holds change; hosts, paths and facts are
//! the deploy's.

use std::collections::BTreeSet;

use cutover_core::config::settings::HoldSettings;
use cutover_core::defaults;
use cutover_core::names::InstanceName;
use cutover_core::state::{FoundInstance, InstanceState};
use cutover_routes::{Address, Entry, Hold, RouteState, Target};

use super::decide::{is_fit, wants_start};
use super::memory::{Memory, Now};
use super::seen::Seen;

/// The entry as it should be; `None`: as it is. `leaving` are instances about to be restarted.
pub(super) fn wanted(
    seen: &Seen,
    memory: &Memory,
    leaving: &BTreeSet<InstanceName>,
    now: Now,
) -> Option<Entry> {
    let found = seen.entry.as_ref()?;
    let mut entry = found.clone();
    for route in &mut entry.routes {
        let Some((service, names)) = seen.members().find(|(service, _)| service.as_str() == route.name)
        else {
            continue;
        };
        let members: Vec<&FoundInstance> = names.iter().filter_map(|name| seen.instances.get(name)).collect();
        if members.len() < names.len() && !seen.blind.is_empty() {
            // Some of them cannot be seen: what is served stays (S4a).
            continue;
        }
        let place = Place { seen, memory, leaving, now, members };
        let hold = seen.service(service).map_or_else(default_hold, |service| service.hold.clone());
        if let Some(state) = place.state(&route.state, &hold) {
            route.state = state;
        }
    }
    (entry != *found).then_some(entry)
}

/// One route's service.
struct Place<'a> {
    seen: &'a Seen,
    memory: &'a Memory,
    leaving: &'a BTreeSet<InstanceName>,
    now: Now,
    members: Vec<&'a FoundInstance>,
}

impl Place<'_> {
    fn state(&self, found: &RouteState, hold: &HoldSettings) -> Option<RouteState> {
        if matches!(found, RouteState::Closed { .. }) {
            return None;
        }
        let fit = self.targets(|instance| {
            is_fit(self.seen, self.memory, instance) && !self.leaving.contains(&instance.name)
        });
        if !fit.is_empty() {
            return Some(RouteState::Serving { targets: fit });
        }
        match found {
            RouteState::Serving { .. } if self.is_coming_back() => Some(self.held(hold)),
            RouteState::Held { hold }
                if i64::try_from(hold.until).is_ok_and(|until| until <= self.wall()) =>
            {
                let up = self.targets(FoundInstance::is_running);
                (!up.is_empty()).then_some(RouteState::Serving { targets: up })
            }
            RouteState::Serving { .. } | RouteState::Held { .. } | RouteState::Closed { .. } => None,
        }
    }

    /// Something of it will soon serve, and does not end again and again: requests wait for it.
    fn is_coming_back(&self) -> bool {
        self.members.iter().any(|instance| {
            let name = &instance.name;
            let comes = match instance.state {
                InstanceState::Restarting { .. } => true,
                InstanceState::Running { .. } => self.leaving.contains(name) || !self.memory.is_proved(name),
                InstanceState::Created | InstanceState::Exited { .. } => wants_start(self.seen, name),
            };
            comes && !self.memory.is_in_crash_loop(name, self.now)
        })
    }

    fn targets(&self, may: impl Fn(&FoundInstance) -> bool) -> Vec<Target> {
        let chosen = self.members.iter().filter(|instance| may(instance));
        chosen
            .filter_map(|instance| {
                Some(Target { id: instance.name.to_string(), address: Address::Tcp(instance.address?) })
            })
            .collect()
    }

    fn held(&self, hold: &HoldSettings) -> RouteState {
        let budget = i64::try_from(hold.budget.as_millis()).unwrap_or(i64::MAX);
        let until = u64::try_from(self.wall().saturating_add(budget)).unwrap_or(0);
        RouteState::Held {
            hold: Hold {
                until,
                requests: hold.requests,
                bytes: hold.bytes,
                reason: "the app is being started again".to_owned(),
            },
        }
    }

    fn wall(&self) -> i64 {
        self.now.wall.as_millisecond()
    }
}

fn default_hold() -> HoldSettings {
    HoldSettings {
        budget: defaults::HOLD_BUDGET,
        requests: defaults::HOLD_REQUESTS,
        bytes: defaults::HOLD_BYTES,
    }
}

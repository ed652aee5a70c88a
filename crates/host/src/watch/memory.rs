//! What watch remembers of an app between looks: who has proved itself, who fell, when it was last started. Lost with the process, and
//! learned again: no promise hangs on it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use cutover_core::defaults::{
    CRASH_LOOP, CRASH_LOOP_WINDOW, RESTART_FIRST, RESTART_MOST, RESTART_STEADY, WATCH,
};
use cutover_core::gate::Finding;
use cutover_core::names::{InstanceName, ServiceName};
use cutover_core::state::{FoundInstance, InstanceState};
use cutover_routes::RouteState;
use jiff::Timestamp;
use tokio::time::Instant;

use super::decide::{is_unwanted, wants_start};
use super::seen::Seen;

/// Longest pause before what could not be put away is tried again.
const STAYS_MOST: Duration = Duration::from_mins(10);

/// The moment of a look, by both clocks: the wall's for what is written down, the other for waiting.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    pub(super) wall: Timestamp,
    pub(super) steady: Instant,
}

/// What is remembered.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// All that the live release needs has been seen once since the start (S4a).
    pub(super) complete: bool,
    instances: BTreeMap<InstanceName, Known>,
    /// Services that wait for what they depend on, and since when.
    waiting: BTreeMap<ServiceName, Instant>,
    /// Instances nobody wants.
    suspects: BTreeMap<InstanceName, Suspect>,
}

/// What is remembered of an instance that nobody wants.
#[derive(Debug, Clone, Copy)]
struct Suspect {
    /// Tries to put it away that failed.
    tries: u32,
    not_before: Instant,
}

/// What is remembered of one instance.
#[derive(Debug, Default)]
struct Known {
    /// The start of which everything below is told.
    since: Option<Timestamp>,
    restarts: u32,
    /// It passed its gate since that start.
    proved: bool,
    /// It fell since that start; what was found.
    fell: Option<Finding>,
    /// Why its last start failed.
    trouble: Option<String>,
    /// Starts by watch without a steady time between.
    starts: u32,
    not_before: Option<Instant>,
    /// When it ended lately.
    ends: VecDeque<Instant>,
}

impl Memory {
    /// Takes in a look. What serves when watch first sees it, at its own start or after a deploy, was proved by who made it so.
    pub(super) fn take_in(&mut self, seen: &Seen, now: Now) {
        let first = !self.complete;
        self.complete |= seen.is_complete();
        for instance in seen.wanted() {
            let is_new = first || !self.instances.contains_key(&instance.name);
            let adopted = is_new && self.complete && serves(seen, instance);
            self.instances.entry(instance.name.clone()).or_default().take_in(instance, adopted, now.steady);
        }
        if seen.blind.is_empty() {
            self.instances.retain(|name, _| seen.instances.contains_key(name));
        }
        let unwanted = seen.instances.values().filter(|instance| is_unwanted(seen, instance, now.wall));
        let unwanted: BTreeMap<_, _> = unwanted
            .map(|instance| {
                // Seen twice, with time between: what a run has just made belongs to it.
                let new = Suspect { tries: 0, not_before: now.steady + WATCH };
                (instance.name.clone(), self.suspects.get(&instance.name).copied().unwrap_or(new))
            })
            .collect();
        self.suspects = unwanted;
        let waits = |service: &ServiceName| {
            seen.members()
                .any(|(of, names)| of == service && names.iter().any(|name| wants_start(seen, name)))
        };
        self.waiting.retain(|service, _| waits(service));
        for (service, _) in seen.members().filter(|(service, _)| waits(service)) {
            self.waiting.entry(service.clone()).or_insert(now.steady);
        }
    }

    fn of(&self, name: &InstanceName) -> Option<&Known> {
        self.instances.get(name)
    }

    /// It passed its gate since its newest start.
    pub(super) fn is_proved(&self, name: &InstanceName) -> bool {
        self.of(name).is_some_and(|known| known.proved)
    }

    /// It turned unhealthy since its newest start.
    pub(super) fn fell(&self, name: &InstanceName) -> bool {
        self.of(name).is_some_and(|known| known.fell.is_some())
    }

    /// What was found when it fell, or why it did not start.
    pub(super) fn finding(&self, name: &InstanceName) -> Option<Finding> {
        let known = self.of(name)?;
        let trouble = || known.trouble.clone().map(|detail| Finding::Other { detail });
        known.fell.clone().or_else(trouble)
    }

    /// Whether it may be started now.
    pub(super) fn is_due(&self, name: &InstanceName, now: Now) -> bool {
        self.of(name).and_then(|known| known.not_before).is_none_or(|moment| moment <= now.steady)
    }

    /// It ends again and again.
    pub(super) fn is_in_crash_loop(&self, name: &InstanceName, now: Now) -> bool {
        let recent = |known: &Known| {
            known.ends.iter().filter(|end| now.steady.duration_since(**end) <= CRASH_LOOP_WINDOW).count()
        };
        self.of(name).map_or(0, recent) >= CRASH_LOOP as usize
    }

    /// How long a service has been waiting to be started.
    pub(super) fn waits(&self, service: &ServiceName, now: Now) -> Duration {
        self.waiting.get(service).map_or(Duration::ZERO, |since| now.steady.duration_since(*since))
    }

    /// Whether an instance that nobody wants may be put away now.
    pub(super) fn may_go(&self, name: &InstanceName, now: Now) -> bool {
        self.suspects.get(name).is_some_and(|suspect| suspect.not_before <= now.steady)
    }

    /// It could not be put away; the next try waits longer.
    pub(super) fn stays(&mut self, name: &InstanceName, now: Now) {
        if let Some(suspect) = self.suspects.get_mut(name) {
            suspect.tries += 1;
            suspect.not_before =
                now.steady + WATCH.saturating_mul(1 << suspect.tries.min(16)).min(STAYS_MOST);
        }
    }

    /// Its gate was passed, for the start at `since`.
    pub(super) fn prove(&mut self, name: &InstanceName, since: Timestamp) {
        self.change(name, since, |known| known.proved = true);
    }

    /// It fell or rose.
    pub(super) fn judge(&mut self, name: &InstanceName, since: Timestamp, fell: Option<Finding>) {
        self.change(name, since, |known| known.fell = fell);
    }

    fn change(&mut self, name: &InstanceName, since: Timestamp, change: impl FnOnce(&mut Known)) {
        if let Some(known) = self.instances.get_mut(name).filter(|known| known.since == Some(since)) {
            change(known);
        }
    }

    /// Watch started it; the next start waits longer.
    pub(super) fn started(&mut self, name: &InstanceName, now: Now, trouble: Option<String>) {
        let known = self.instances.entry(name.clone()).or_default();
        let pause = RESTART_FIRST.saturating_mul(1 << known.starts.min(16)).min(RESTART_MOST);
        known.starts += 1;
        known.not_before = Some(now.steady + pause);
        known.trouble = trouble;
    }

    /// The nearest moment at which something that waits may be started.
    pub(super) fn next_due(&self, now: Now) -> Option<Instant> {
        self.instances
            .values()
            .filter_map(|known| known.not_before)
            .filter(|moment| *moment > now.steady)
            .min()
    }
}

impl Known {
    fn take_in(&mut self, instance: &FoundInstance, adopted: bool, now: Instant) {
        match &instance.state {
            InstanceState::Running { since, restarts } => {
                if self.since.is_some_and(|before| before != *since) || *restarts > self.restarts {
                    self.note_ends(restarts.saturating_sub(self.restarts).max(1), now);
                }
                if self.since != Some(*since) {
                    self.since = Some(*since);
                    self.proved = adopted;
                    self.fell = None;
                }
                self.trouble = None;
                self.restarts = *restarts;
                let up = self.ends.back().is_none_or(|end| now.duration_since(*end) >= RESTART_STEADY);
                if up && self.not_before.is_none_or(|moment| now >= moment + RESTART_STEADY) {
                    self.starts = 0;
                    self.not_before = None;
                }
            }
            InstanceState::Restarting { restarts, .. } => {
                if *restarts > self.restarts {
                    self.note_ends(*restarts - self.restarts, now);
                }
                self.restarts = *restarts;
            }
            InstanceState::Created | InstanceState::Exited { .. } => self.restarts = 0,
        }
    }

    fn note_ends(&mut self, times: u32, now: Instant) {
        for _ in 0..times.min(CRASH_LOOP) {
            self.ends.push_back(now);
        }
        while self.ends.len() > CRASH_LOOP as usize {
            self.ends.pop_front();
        }
    }
}

/// Whether requests go to it now, or it is none to which requests go.
fn serves(seen: &Seen, instance: &FoundInstance) -> bool {
    let Some(entry) = &seen.entry else { return true };
    let route = entry.routes.iter().find(|route| route.name == instance.service.as_str());
    match route.map(|route| &route.state) {
        None => true,
        Some(RouteState::Serving { targets }) => {
            targets.iter().any(|target| target.id == instance.name.as_str())
        }
        Some(RouteState::Held { .. } | RouteState::Closed { .. }) => false,
    }
}

//! Where all workers count. Cheap enough to be asked in the middle of the traffic.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use super::outcome::{Kind, Outcome};
use super::report::{Acknowledged, Report};

#[derive(Debug)]
pub(super) struct Tally {
    /// What happened since the last lap; the laps before it.
    counts: Mutex<(Report, Report)>,
}

impl Tally {
    pub(super) fn new() -> Self {
        let now = SystemTime::now();
        Self { counts: Mutex::new((Report::starting(now), Report::starting(now))) }
    }

    pub(super) fn request(&self, kind: Kind, connection: &'static str, outcome: &Outcome, took: Duration) {
        self.now(|lap| lap.count(kind, connection, outcome, took, SystemTime::now()));
    }

    pub(super) fn retried(&self, kind: Kind, times: u64) {
        if times > 0 {
            self.now(|lap| lap.kind(kind).retried += times);
        }
    }

    pub(super) fn message(&self, kind: Kind) {
        self.now(|lap| lap.kind(kind).messages += 1);
    }

    /// A stream ended that was not ours to end; `politely` with a goodbye.
    pub(super) fn closed(&self, kind: Kind, politely: bool) {
        self.now(|lap| {
            lap.kind(kind).closed += 1;
            lap.kind(kind).closed_abruptly += u64::from(!politely);
        });
    }

    pub(super) fn acknowledged(&self, entry: Acknowledged) {
        self.now(|lap| lap.acknowledged.push(entry));
    }

    /// What happened since the last lap, or since the start; the next lap begins.
    pub(super) fn lap(&self) -> Report {
        let mut counts = self.lock();
        let (before, lap) = &mut *counts;
        let now = SystemTime::now();
        lap.ended = now;
        let finished = std::mem::replace(lap, Report::starting(now));
        before.merge(finished.clone());
        finished
    }

    pub(super) fn so_far(&self) -> Report {
        let counts = self.lock();
        let mut all = counts.0.clone();
        let mut lap = counts.1.clone();
        lap.ended = SystemTime::now();
        all.merge(lap);
        all
    }

    fn now(&self, count: impl FnOnce(&mut Report)) {
        count(&mut self.lock().1);
    }

    fn lock(&self) -> MutexGuard<'_, (Report, Report)> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! Attending one running instance: its end is heard at once, its gate is passed after a start, then its checks go on at their pace.

use std::sync::Arc;
use std::time::Duration;

use cutover_core::defaults;
use cutover_core::gate::{Check, Finding, Gate, GateCheck, Probe, Tally, pause};
use cutover_core::layout::Layout;
use cutover_core::names::{AppId, InstanceName};
use cutover_core::state::FoundInstance;
use futures_util::future::join_all;
use jiff::Timestamp;
use tokio::sync::mpsc::UnboundedSender;

use crate::backup;
use crate::ports::{Ports, ProbeTarget, Prober, Runtime};

/// What is heard of an instance, for its start at `since`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct News {
    pub(super) instance: InstanceName,
    pub(super) since: Timestamp,
    pub(super) what: What,
}

/// What is heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    /// It, or what keeps it, has ended.
    Ended,
    /// It passed its gate.
    Proved,
    /// It failed a check as often as it may.
    Fell(Finding),
    /// It fell, and passes its checks again.
    Rose,
}

/// Whom to attend.
#[derive(Clone)]
pub(super) struct Attendance {
    pub(super) ports: Ports,
    pub(super) layout: Layout,
    pub(super) app: AppId,
    pub(super) instance: FoundInstance,
    pub(super) since: Timestamp,
    pub(super) gate: Option<Gate>,
    pub(super) proved: bool,
    /// Something supervises it, whose end is worth hearing.
    pub(super) kept: bool,
    pub(super) tell: UnboundedSender<News>,
}

impl Attendance {
    /// Attends until the instance ends. Ends early, without a word, when it cannot be listened to; a later look begins anew.
    pub(super) async fn attend(self) {
        let Ok(runtime) = self.ports.runtime(self.instance.runtime).map(Arc::clone) else { return };
        let ended = tokio::select! {
            ended = self.ended(runtime.as_ref()) => ended,
            () = self.probe() => true,
        };
        if ended {
            self.say(What::Ended);
        } else {
            tokio::time::sleep(defaults::WATCH).await;
        }
    }

    /// Returns `true` when the instance or its keeper is gone, `false` when that cannot be heard.
    async fn ended(&self, runtime: &dyn Runtime) -> bool {
        let (app, name) = (&self.app, &self.instance.name);
        tokio::select! {
            exited = runtime.exited(app, name) => exited.is_ok(),
            unkept = runtime.unkept(app, name), if self.kept => unkept.is_ok(),
        }
    }

    fn say(&self, what: What) {
        let news = News { instance: self.instance.name.clone(), since: self.since, what };
        // Nobody listens any more: watch is about to end.
        drop(self.tell.send(news));
    }

    /// Passes the gate, then looks on. Never ends.
    async fn probe(&self) {
        let Some(gate) = &self.gate else {
            if !self.proved {
                self.say(What::Proved);
            }
            return std::future::pending().await;
        };
        let target = ProbeTarget {
            app: self.app.clone(),
            instance: self.instance.name.clone(),
            runtime: self.instance.runtime,
            address: self.instance.address,
        };
        let prober = self.ports.prober.as_ref();
        if !self.proved {
            join_all(gate.checks.iter().map(|check| rise(prober, &target, check))).await;
            self.say(What::Proved);
        }
        let lasting: Vec<&GateCheck> = gate.checks.iter().filter(|check| is_cheap(&check.check)).collect();
        if lasting.is_empty() {
            return std::future::pending().await;
        }
        self.look_on(prober, &target, &lasting).await;
    }

    async fn look_on(&self, prober: &dyn Prober, target: &ProbeTarget, checks: &[&GateCheck]) {
        let interval = checks.iter().map(|check| check.interval).min().unwrap_or(defaults::PROBE_INTERVAL);
        let mut tallies = vec![Tally::default(); checks.len()];
        let mut has_fallen = false;
        loop {
            tokio::time::sleep(interval.max(Duration::from_millis(100))).await;
            for (check, tally) in checks.iter().zip(&mut tallies) {
                let probe = prober.probe(target, &check.check, check.timeout).await;
                // It is no fault of its own that it does not answer.
                if backup::is_paused(&self.layout, &self.app, &self.instance.name) {
                    *tally = Tally::default();
                } else {
                    tally.count(probe);
                }
            }
            let mut each = checks.iter().zip(&tallies);
            let failed = each.clone().find(|(check, tally)| tally.failed(check));
            match failed {
                Some((_, tally)) if !has_fallen => {
                    has_fallen = true;
                    self.say(What::Fell(tally.last.clone().unwrap_or(Finding::NoAnswer)));
                }
                None if has_fallen && each.all(|(check, tally)| tally.passed(check)) => {
                    has_fallen = false;
                    self.say(What::Rose);
                }
                Some(_) | None => {}
            }
        }
    }
}

/// Tries one check until it has risen.
async fn rise(prober: &dyn Prober, target: &ProbeTarget, check: &GateCheck) {
    let mut tally = Tally::default();
    while !tally.passed(check) {
        tokio::time::sleep(pause(tally.tries, check.interval)).await;
        let probe: Probe = prober.probe(target, &check.check, check.timeout).await;
        tally.count(probe);
    }
}

/// What may be tried every second for as long as an app lives.
fn is_cheap(check: &Check) -> bool {
    match check {
        Check::Http { .. } | Check::Tcp { .. } => true,
        Check::Command { .. }
        | Check::Log { .. }
        | Check::File { .. }
        | Check::Container
        | Check::Steady { .. } => false,
    }
}

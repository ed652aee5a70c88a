//! One app, kept true: look, decide, act under its lock, wait for news. Everything that is learned comes from a look; news only say when.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cutover_core::defaults;
use cutover_core::exit::Exit;
use cutover_core::gate::Finding;
use cutover_core::journal::LockHolder;
use cutover_core::names::{AppId, InstanceName, RunId, ServiceName};
use cutover_core::plan::Verb;
use cutover_core::release::{Live, RuntimeKind};
use cutover_core::state::{InstanceState, ReleaseRecord};
use cutover_core::wire::ServiceHealth;
use jiff::Timestamp;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::Shared;
use super::act::Hands;
use super::attend::{Attendance, News, What};
use super::decide::{decide, is_fit};
use super::health;
use super::memory::{Memory, Now};
use super::seen::Seen;
use crate::lock::AppLock;
use crate::redact;

/// Between two looks at least, whatever the news.
const FLOOR: Duration = Duration::from_millis(20);
/// Our own letting go of the lock is heard, too, and means nothing.
const OWN_ECHO: Duration = Duration::from_millis(200);
/// Records and health are read and written anew after so long, changed or not.
const REFRESH: Duration = Duration::from_mins(1);

/// Who holds an app's lock when watch does: for moments, and longest while an instance is stopped. Others may wait for it.
pub const HOLDER: &str = "cutover-host watch";

/// The watch over one app.
pub(super) struct AppWatch {
    shared: Arc<Shared>,
    app: AppId,
    memory: Memory,
    attended: BTreeMap<InstanceName, Attended>,
    tell: mpsc::UnboundedSender<News>,
    news: mpsc::UnboundedReceiver<News>,
    records: Records,
    sampled: Option<(Instant, BTreeMap<ServiceName, ServiceHealth>)>,
    let_go: Option<Instant>,
    /// What was live when that was last told.
    live: Option<Live>,
}

/// The app's releases as last read.
#[derive(Default)]
struct Records {
    releases: Vec<ReleaseRecord>,
    /// The run that made live what they were read for.
    of: Option<RunId>,
    read: Option<Instant>,
}

/// An instance somebody listens to.
struct Attended {
    since: Timestamp,
    task: JoinHandle<()>,
}

impl Drop for Attended {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a pass came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// All is as it should be.
    Settled,
    /// Something is on its way, or waits for a lock.
    Unsettled,
    /// There is nothing of the app here.
    Gone,
}

impl AppWatch {
    pub(super) fn new(shared: Arc<Shared>, app: AppId) -> Self {
        let (tell, news) = mpsc::unbounded_channel();
        Self {
            shared,
            app,
            memory: Memory::default(),
            attended: BTreeMap::new(),
            tell,
            news,
            records: Records::default(),
            sampled: None,
            let_go: None,
            live: None,
        }
    }

    /// Watches until the app is gone. `wake` is rung when its lock was let go.
    pub(super) async fn run(mut self, wake: Arc<Notify>) {
        let mut pause = FLOOR;
        loop {
            match self.pass().await {
                Outcome::Gone if self.is_forgotten() => return,
                Outcome::Gone | Outcome::Settled => pause = defaults::WATCH,
                Outcome::Unsettled => pause = (pause * 2).clamp(FLOOR, defaults::WATCH),
            }
            tokio::time::sleep(FLOOR).await;
            let due = self.memory.next_due(Now::look()).map(|due| due.duration_since(Instant::now()));
            if self.wait(pause.min(due.unwrap_or(pause)), &wake).await {
                pause = FLOOR;
            }
        }
    }

    /// Not on record either: the watch over all apps will not find it again.
    fn is_forgotten(&self) -> bool {
        self.shared.store.apps().is_ok_and(|apps| !apps.contains(&self.app))
    }

    /// Waits for the next reason to look; `true`: there were news.
    async fn wait(&mut self, pause: Duration, wake: &Notify) -> bool {
        let sleep = tokio::time::sleep(pause);
        tokio::pin!(sleep);
        let news = loop {
            tokio::select! {
                () = &mut sleep => break None,
                news = self.news.recv() => break news,
                () = wake.notified() => {
                    let is_echo = self.let_go.is_some_and(|moment| moment.elapsed() < OWN_ECHO);
                    if !is_echo {
                        self.records.read = None;
                        return true;
                    }
                }
            }
        };
        let heard = news.is_some();
        self.hear(news);
        while let Ok(more) = self.news.try_recv() {
            self.hear(Some(more));
        }
        heard
    }

    fn hear(&mut self, news: Option<News>) {
        let Some(News { instance, since, what }) = news else { return };
        match what {
            What::Ended => {}
            What::Proved => self.memory.prove(&instance, since),
            What::Fell(finding) => {
                let finding = self.without_secrets(finding);
                self.memory.judge(&instance, since, Some(finding));
            }
            What::Rose => self.memory.judge(&instance, since, None),
        }
    }

    /// What an app says of itself goes into samples, and to people, without the values it was given (P6).
    fn without_secrets(&self, finding: Finding) -> Finding {
        let releases = self.records.releases.iter().map(|record| &record.release.id);
        let values = redact::values(&self.shared.layout, &self.app, releases);
        redact::finding(&values, finding)
    }

    /// One look and what follows from it.
    pub(super) async fn pass(&mut self) -> Outcome {
        let now = Now::look();
        let mut seen = self.look().await;
        self.memory.take_in(&seen, now);
        let mut acted = false;
        if !decide(&seen, &self.memory, now).is_empty() {
            acted = true;
            if let Some(after) = self.act().await {
                seen = after;
                self.memory.take_in(&seen, Now::look());
            }
        }
        self.attend(&seen);
        self.sample(&seen);
        let is_fit = |instance| is_fit(&seen, &self.memory, instance);
        if seen.told && seen.live.is_none() && seen.instances.is_empty() && seen.blind.is_empty() {
            Outcome::Gone
        } else if acted || !self.memory.complete || !seen.wanted().all(is_fit) {
            Outcome::Unsettled
        } else {
            Outcome::Settled
        }
    }

    /// Acts under the lock, after a look under the lock; gives the look that follows. `None`: somebody else has the lock, and the right to act.
    async fn act(&mut self) -> Option<Seen> {
        if AppLock::peek(&self.shared.layout, &self.app).is_some() {
            return None;
        }
        let lock = AppLock::take(&self.shared.layout, &self.app, &self.holder()).ok()?;
        self.records.read = None;
        let mut seen = self.look().await;
        // What cannot be read counts as unfinished: then nothing is done.
        seen.unfinished = !matches!(self.shared.store.unfinished(&self.app), Ok(None));
        let now = Now::look();
        self.memory.take_in(&seen, now);
        let acts = decide(&seen, &self.memory, now);
        let ports = self.shared.ports();
        let hands =
            Hands { ports: &ports, store: &self.shared.store, layout: &self.shared.layout, app: &self.app };
        if let Err(error) = hands.carry_out(&acts, &seen, &mut self.memory, now).await {
            tracing::warn!(app = %self.app, %error, "watch could not do all it wanted");
        }
        self.let_go = Some(Instant::now());
        drop(lock);
        Some(self.look().await)
    }

    fn holder(&self) -> LockHolder {
        LockHolder {
            app: self.app.clone(),
            run: RunId::new(uuid::Uuid::now_v7()),
            by: HOLDER.to_owned(),
            verb: Verb::Restart,
            since: Timestamp::now(),
            pid: std::process::id(),
        }
    }

    async fn look(&mut self) -> Seen {
        if self.records.read.is_none_or(|read| read.elapsed() >= REFRESH) {
            self.read_records();
        }
        let mut seen = self.look_once().await;
        let run = seen.live.as_ref().map(|live| live.run);
        if seen.told && run != self.records.of {
            self.records.of = run;
            self.read_records();
            seen = self.look_once().await;
        }
        let needs_engine = seen.release.is_some() && !seen.is_complete();
        if needs_engine && seen.blind.contains(&RuntimeKind::Container) && self.shared.reconnect().await {
            seen = self.look_once().await;
        }
        if seen.told {
            self.live.clone_from(&seen.live);
        } else if let Some(live) = self.live.clone() {
            seen.remember(live, &self.records.releases);
        }
        seen
    }

    async fn look_once(&self) -> Seen {
        let releases = &self.records.releases;
        let mut seen = Seen::look(&self.shared.ports(), &self.shared.layout, &self.app, releases).await;
        // Without a verdict that says so it may be the candidate that somebody wants to look at.
        let was_live = |run| {
            let verdict = self.shared.store.verdict(run).unwrap_or_default();
            verdict.is_some_and(|verdict| verdict.exit() == Exit::Done)
        };
        seen.left =
            seen.ended().filter(|ended| was_live(ended.run)).map(|ended| ended.name.clone()).collect();
        seen
    }

    fn read_records(&mut self) {
        match self.shared.store.releases(&self.app) {
            Ok(releases) => self.records.releases = releases,
            Err(error) => tracing::warn!(app = %self.app, %error, "the records of releases cannot be read"),
        }
        self.records.read = Some(Instant::now());
    }

    /// Listens to what runs and should; to nothing else.
    fn attend(&mut self, seen: &Seen) {
        let mut running = BTreeMap::new();
        for instance in seen.wanted() {
            if let InstanceState::Running { since, .. } = instance.state {
                running.insert(instance.name.clone(), (instance, since));
            }
        }
        self.attended.retain(|name, attended| {
            let same = running.get(name).is_some_and(|(_, since)| *since == attended.since);
            same && !attended.task.is_finished()
        });
        for (name, (instance, since)) in running {
            if self.attended.contains_key(&name) {
                continue;
            }
            let attendance = Attendance {
                ports: self.shared.ports(),
                layout: self.shared.layout.clone(),
                app: self.app.clone(),
                instance: instance.clone(),
                since,
                gate: seen.gate(instance).cloned(),
                proved: self.memory.is_proved(&name),
                kept: !seen.unkept.contains(&name),
                tell: self.tell.clone(),
            };
            self.attended.insert(name, Attended { since, task: tokio::spawn(attendance.attend()) });
        }
    }

    /// Keeps a sample when something changed, or the last one is old.
    fn sample(&mut self, seen: &Seen) {
        if !seen.told || seen.remembered {
            return;
        }
        let health = health::of(seen, &self.memory, Now::look());
        let is_known =
            self.sampled.as_ref().is_some_and(|(at, last)| *last == health && at.elapsed() < REFRESH);
        if is_known {
            return;
        }
        if let Err(error) = self.shared.samples.put(&self.app, Timestamp::now(), &health) {
            tracing::warn!(app = %self.app, %error, "a sample of health was not kept");
        }
        self.sampled = Some((Instant::now(), health));
    }
}

//! Runs that died: settled by a process of their own, as soon as the kernel tells that their lock is free. Runs that take far too long:
//! ended, and then settled (S9).

use std::collections::BTreeMap;
use std::io;
use std::process::Stdio;
use std::time::Duration;

use cutover_core::defaults;
use cutover_core::layout::Layout;
use cutover_core::names::{AppId, RunId};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::time::Instant;

use crate::lock::{AppLock, RunLock};
use crate::program;
use crate::setup;
use crate::store::Store;
use crate::within::Allowance;

/// Starts what settles an app's run.
pub(super) type Settler = Box<dyn Fn(&AppId) -> io::Result<()> + Send + Sync>;

/// Longest pause between two processes for the same run, be it one that a person was told of.
const PAUSE_MOST: Duration = Duration::from_mins(5);

/// Which runs were given to a process, how often, and when next.
#[derive(Default)]
pub(super) struct Settling {
    given: BTreeMap<RunId, (u32, Instant)>,
    /// What each run that works was allowed last, and when that was first seen.
    allowed: BTreeMap<RunId, (Allowance, Instant)>,
    /// Runs without a word and without a process, and since when.
    still: BTreeMap<RunId, Instant>,
}

impl Settling {
    /// One look at all unfinished runs; says when to look again, if not told otherwise before.
    pub(super) fn pass(&mut self, layout: &Layout, store: &Store, settler: &Settler) -> Duration {
        let unfinished = match store.all_unfinished() {
            Ok(unfinished) => unfinished,
            Err(error) => {
                tracing::warn!(%error, "unfinished runs cannot be looked for");
                return defaults::WATCH;
            }
        };
        self.given.retain(|run, _| unfinished.iter().any(|(_, unfinished)| unfinished == run));
        self.allowed.retain(|run, _| unfinished.iter().any(|(_, unfinished)| unfinished == run));
        self.still.retain(|run, _| unfinished.iter().any(|(_, unfinished)| unfinished == run));
        for (app, run) in &unfinished {
            match AppLock::peek(layout, app) {
                Some(holder) if holder.run == *run && self.is_late(layout, *run) => {
                    end(layout, app, *run, holder.pid);
                }
                None if has_begun(store, *run) || self.is_abandoned(layout, *run) => {
                    self.give(app, *run, settler);
                }
                Some(_) | None => {}
            }
        }
        if unfinished.is_empty() { defaults::WATCH } else { defaults::SETTLE }
    }

    /// Whether a run that has written nothing has no process either, for so long that none is coming to life.
    fn is_abandoned(&mut self, layout: &Layout, run: RunId) -> bool {
        if RunLock::is_held(layout, run) {
            self.still.remove(&run);
            return false;
        }
        let now = Instant::now();
        now.duration_since(*self.still.entry(run).or_insert(now)) >= defaults::WATCH
    }

    /// Whether a run that works is past its plan's whole deadline. Counted from when we first saw it: no clock that jumps makes it late.
    fn is_late(&mut self, layout: &Layout, run: RunId) -> bool {
        let Some(allowance) = Allowance::read(layout, run) else {
            self.allowed.remove(&run);
            return false;
        };
        let now = Instant::now();
        let (known, since) = self.allowed.entry(run).or_insert_with(|| (allowance.clone(), now));
        if *known != allowance {
            (*known, *since) = (allowance, now);
        }
        now.duration_since(*since) >= known.limit
    }

    fn give(&mut self, app: &AppId, run: RunId, settler: &Settler) {
        let now = Instant::now();
        let (times, next) = self.given.get(&run).copied().unwrap_or((0, now));
        if next > now {
            return;
        }
        tracing::info!(%app, %run, "a run died: it is settled");
        if let Err(error) = settler(app) {
            tracing::warn!(%app, %run, %error, "nothing could be started to settle it");
        }
        let pause = defaults::WATCH.saturating_mul(1 << times.min(8)).min(PAUSE_MOST);
        self.given.insert(run, (times + 1, now + pause));
    }
}

/// One that only waits for the lock has written nothing, and there is nothing to settle.
fn has_begun(store: &Store, run: RunId) -> bool {
    store.has_begun(run).unwrap_or_else(|error| {
        tracing::warn!(%run, %error, "whether a run has begun cannot be read");
        false
    })
}

/// Ends a run that is late. What it held is settled by another process once the kernel has freed the lock.
fn end(layout: &Layout, app: &AppId, run: RunId, pid: u32) {
    let Some(number) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return };
    let Ok(handle) = pidfd_open(number, PidfdFlags::empty()) else { return };
    // Looked at again now that the handle cannot come to mean another process.
    if AppLock::peek(layout, app).is_some_and(|holder| holder.run == run && holder.pid == pid) {
        tracing::warn!(%app, %run, pid, "a run is past its whole deadline and is ended");
        if let Err(error) = pidfd_send_signal(&handle, Signal::KILL) {
            tracing::warn!(%run, %error, "it could not be ended");
        }
    }
}

/// Starts `cutover-host run --settle`, which takes a session of its own. It outlives watch, and is reaped by it as long as both live.
pub(super) fn spawn(layout: &Layout, app: &AppId) -> io::Result<()> {
    std::fs::create_dir_all(layout.logs())?;
    let log = std::fs::OpenOptions::new().create(true).append(true).open(layout.process_log("run"))?;
    let unit = format!("cutover-settle-{}", uuid::Uuid::now_v7());
    let mut command = tokio::process::Command::from(setup::scope(layout, &unit, &program::own()));
    command.args(["run", "--settle", &app.to_string()]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command.spawn().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cutover_core::journal::{LockHolder, What};
    use cutover_core::plan::{Stage, Verb};
    use jiff::Timestamp;
    use std::sync::{Arc, Mutex};

    fn app() -> AppId {
        "shop/local".parse().unwrap()
    }

    /// A run that has written something, and then nothing more.
    struct Dead {
        _folder: tempfile::TempDir,
        layout: Layout,
        store: Store,
        run: RunId,
        asked: Arc<Mutex<Vec<AppId>>>,
    }

    impl Dead {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let layout = Layout::under(folder.path());
            let store = Store::in_memory().unwrap();
            let run = RunId::new(uuid::Uuid::now_v7());
            store.begin_run(run, &app(), Verb::Deploy, "ann", Timestamp::UNIX_EPOCH).unwrap();
            Self { _folder: folder, layout, store, run, asked: Arc::default() }
        }

        fn writes(&self) {
            let what = What::Entered { stage: Stage::Start };
            self.store.append(self.run, Timestamp::UNIX_EPOCH, &what).unwrap();
        }

        fn settler(&self) -> Settler {
            let asked = Arc::clone(&self.asked);
            Box::new(move |app| {
                asked.lock().unwrap().push(app.clone());
                Ok(())
            })
        }

        fn asked(&self) -> usize {
            self.asked.lock().unwrap().len()
        }

        fn lock(&self, pid: u32) -> AppLock {
            let holder = LockHolder {
                app: app(),
                run: self.run,
                by: "ann".into(),
                verb: Verb::Deploy,
                since: Timestamp::UNIX_EPOCH,
                pid,
            };
            AppLock::take(&self.layout, &app(), &holder).unwrap()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_run_is_given_to_a_process_and_again_only_later() {
        let dead = Dead::new();
        let (mut settling, settler) = (Settling::default(), dead.settler());
        assert_eq!(settling.pass(&dead.layout, &dead.store, &settler), defaults::SETTLE);
        assert_eq!(dead.asked(), 0, "it waits for the lock, and has nothing to settle");

        dead.writes();
        settling.pass(&dead.layout, &dead.store, &settler);
        settling.pass(&dead.layout, &dead.store, &settler);
        assert_eq!(dead.asked(), 1);
        tokio::time::advance(defaults::WATCH).await;
        settling.pass(&dead.layout, &dead.store, &settler);
        assert_eq!(dead.asked(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_that_never_came_to_life_is_given_to_a_process_and_one_that_waits_is_not() {
        let dead = Dead::new();
        let (mut settling, settler) = (Settling::default(), dead.settler());
        let alive = RunLock::take(&dead.layout, dead.run).unwrap();
        for _ in 0..3 {
            settling.pass(&dead.layout, &dead.store, &settler);
            tokio::time::advance(defaults::WATCH).await;
        }
        assert_eq!(dead.asked(), 0, "its process waits for the lock");

        drop(alive);
        settling.pass(&dead.layout, &dead.store, &settler);
        assert_eq!(dead.asked(), 0, "its process may be starting");
        tokio::time::advance(defaults::WATCH).await;
        settling.pass(&dead.layout, &dead.store, &settler);

        assert_eq!(dead.asked(), 1);
    }

    #[tokio::test]
    async fn a_run_at_work_is_left_alone_until_it_is_past_its_deadline() {
        let dead = Dead::new();
        dead.writes();
        let mut run = tokio::process::Command::new("sleep").arg("600").kill_on_drop(true).spawn().unwrap();
        let lock = dead.lock(run.id().unwrap());
        let (mut settling, settler) = (Settling::default(), dead.settler());
        let mut pass = || settling.pass(&dead.layout, &dead.store, &settler);
        pass();
        Allowance::grant(&dead.layout, dead.run, Duration::from_hours(1)).unwrap();
        pass();
        pass();
        assert!(run.try_wait().unwrap().is_none());

        Allowance::grant(&dead.layout, dead.run, Duration::ZERO).unwrap();
        pass();

        let ended = tokio::time::timeout(Duration::from_secs(5), run.wait()).await.unwrap().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&ended), Some(9));
        assert_eq!(dead.asked(), 0, "it holds the lock as long as it lives");
        drop(lock);
        pass();
        assert_eq!(dead.asked(), 1);
    }
}

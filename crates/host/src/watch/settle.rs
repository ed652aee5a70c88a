//! Runs that died: settled by a process of their own, as soon as the kernel tells that their lock is free. Runs that take far too long:
//! ended, and then settled (S9).

use std::collections::BTreeMap;
use std::io;
use std::process::Stdio;
use std::time::Duration;

use cutover_core::defaults;
use cutover_core::layout::Layout;
use cutover_core::names::{AppId, RunId};
use jiff::Timestamp;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::time::Instant;

use crate::lock::AppLock;
use crate::store::Store;

/// Starts what settles an app's run.
pub(super) type Settler = Box<dyn Fn(&AppId) -> io::Result<()> + Send + Sync>;

/// Longest pause between two processes for the same run.
const PAUSE_MOST: Duration = Duration::from_mins(1);

/// Which runs were given to a process, how often, and when next.
#[derive(Default)]
pub(super) struct Settling {
    given: BTreeMap<RunId, (u32, Instant)>,
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
        for (app, run) in &unfinished {
            match AppLock::peek(layout, app) {
                Some(holder) if holder.run == *run => end_if_late(layout, app, *run, holder.pid),
                None if has_begun(store, *run) => self.give(app, *run, settler),
                Some(_) | None => {}
            }
        }
        if unfinished.is_empty() { defaults::WATCH } else { defaults::SETTLE }
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
    store.entries(run, 1).is_ok_and(|entries| !entries.is_empty())
}

/// Ends a run that is past its plan's whole deadline, which it wrote into its folder when it began.
fn end_if_late(layout: &Layout, app: &AppId, run: RunId, pid: u32) {
    let Ok(text) = std::fs::read_to_string(layout.run_folder(run).join("deadline")) else { return };
    let Ok(deadline) = text.trim().parse::<Timestamp>() else { return };
    if Timestamp::now() < deadline {
        return;
    }
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

/// Starts `cutover-host run --settle` as a process group of its own. It outlives watch, and is reaped by it as long as both live.
pub(super) fn spawn(layout: &Layout, app: &AppId) -> io::Result<()> {
    std::fs::create_dir_all(layout.logs())?;
    let log = std::fs::OpenOptions::new().create(true).append(true).open(layout.process_log("run"))?;
    let mut command = tokio::process::Command::new(std::env::current_exe()?);
    command.args(["run", "--settle", &app.to_string()]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0);
    command.spawn().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cutover_core::journal::{LockHolder, What};
    use cutover_core::plan::{Stage, Verb};
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

    #[tokio::test]
    async fn a_run_at_work_is_left_alone_until_it_is_past_its_deadline() {
        let dead = Dead::new();
        dead.writes();
        let mut run = tokio::process::Command::new("sleep").arg("600").kill_on_drop(true).spawn().unwrap();
        let lock = dead.lock(run.id().unwrap());
        let folder = dead.layout.run_folder(dead.run);
        std::fs::create_dir_all(&folder).unwrap();
        let (mut settling, settler) = (Settling::default(), dead.settler());

        std::fs::write(folder.join("deadline"), "9000-01-01T00:00:00Z").unwrap();
        settling.pass(&dead.layout, &dead.store, &settler);
        assert!(run.try_wait().unwrap().is_none());
        std::fs::write(folder.join("deadline"), "2000-01-01T00:00:00Z").unwrap();
        settling.pass(&dead.layout, &dead.store, &settler);

        let ended = tokio::time::timeout(Duration::from_secs(5), run.wait()).await.unwrap().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&ended), Some(9));
        assert_eq!(dead.asked(), 0, "it holds the lock as long as it lives");
        drop(lock);
        settling.pass(&dead.layout, &dead.store, &settler);
        assert_eq!(dead.asked(), 1);
    }
}

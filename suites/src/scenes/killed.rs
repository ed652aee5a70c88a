//! `run` killed with -9 at a step of its journal, under traffic. Watch settles what it left, without being asked: one live release, the lock
//! free, no request failed, nothing that was written lost, no bot twice.

use std::time::Duration;

use cutover_core::exit::Exit;
use cutover_core::journal::{Entry, What};
use cutover_core::layout::label;
use cutover_core::verdict::Verdict;
use cutover_host::lock::AppLock;
use cutover_host::store::Store;
use cutover_testkit::probe::{Ledger, Probe, fetch_entries};
use cutover_testkit::site::{App, Process, Site};
use cutover_testkit::wait_until;
use rustix::process::{Pid, Signal, kill_process};

use super::applications::running;
use crate::{KILL_AT, VERDICT};

/// How long watch may take to settle a run that died.
const SETTLED: Duration = Duration::from_mins(1);

/// The run that is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Killed {
    Deploy,
    Rollback,
    /// A deploy whose migration of `SQLite` holds requests.
    Migration,
}

/// A number from `CUTOVER_SEED`, else of this moment; it is said, so that the same can be had again.
pub fn seed() -> u64 {
    let given = std::env::var("CUTOVER_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(|| u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(1));
    println!("CUTOVER_SEED={seed}");
    seed
}

/// So many steps of the run, drawn by `seed`, in order; never the same twice.
pub async fn some_steps_killed(site: &Site, killed: Killed, count: usize, seed: u64) {
    let mut matrix = Matrix::begin(site, killed).await;
    let length = matrix.length().await;
    let steps = draw(seed, count, length);
    println!("{killed:?}: steps {steps:?} of {length}");
    let mut killed = 0;
    for step in steps {
        // One run may have a few entries less than another: the last step may come after its end.
        killed += usize::from(matrix.kill(step).await);
    }
    assert!(2 * killed > count, "only {killed} of {count} runs were killed");
    matrix.end(killed).await;
}

/// Every `every`-th step from the `first` on, to the run's end.
pub async fn steps_killed(site: &Site, killed: Killed, first: u64, every: usize) {
    let mut matrix = Matrix::begin(site, killed).await;
    let mut count = 0;
    for step in (first..).step_by(every) {
        if !matrix.kill(step).await {
            break;
        }
        count += 1;
    }
    assert!(count > 3, "a run has more steps than {count} times {every}");
    matrix.end(count).await;
}

/// A deploy of containers, killed when it has told that it is done: what it replaced has ended, and is removed without anybody.
pub async fn killed_when_told(site: &Site) {
    let matrix = Matrix::begin(site, Killed::Deploy).await;
    let containers = async || {
        let labels = [(label::APP.to_owned(), matrix.app.id().to_string())];
        site.docker().unwrap().engine().list(&labels.into()).await.unwrap()
    };
    let before: Vec<String> = containers().await.into_iter().map(|container| container.id).collect();
    matrix.prepare("told");

    let (verdict, journal) = matrix.killed_at(VERDICT).await;

    assert_eq!(verdict.exit(), Exit::Done, "{verdict:?}");
    assert!(matches!(journal.last().unwrap().what, What::Verdict { .. }), "{journal:?}");
    assert_eq!(matrix.converged(VERDICT).await, matrix.app.serving().await.unwrap());
    wait_until("what was replaced is removed", SETTLED, async || {
        let is_old = containers().await.iter().any(|container| before.contains(&container.id));
        let is_over = matrix.store.is_over(verdict.run).unwrap();
        (!is_old && is_over).then_some(())
    })
    .await
    .unwrap();
    matrix.end(1).await;
}

/// A deploy that was killed when it had told that it is done, and another before anybody has settled it: that one does, and is not refused for
/// what it found there.
pub async fn deployed_after_one_killed_when_told(site: &Site) {
    let matrix = Matrix::begin(site, Killed::Deploy).await;
    let watch = site.processes().into_iter().find(|found| found.process == Process::Watch).unwrap();
    let watch = Pid::from_raw(watch.pid.cast_signed()).unwrap();
    let signal = |signal| kill_process(watch, signal).unwrap();

    // Given nobody who settles it.
    signal(Signal::STOP);
    matrix.prepare("killed");
    let mut command = matrix.app.command(matrix.words());
    command.env(KILL_AT, VERDICT);
    site.run(command).await.unwrap().expect(0).unwrap();
    let killed = matrix.newest().unwrap().run;
    assert!(!matrix.store.is_over(killed).unwrap(), "it died before it had put anything away");

    matrix.prepare("after it");
    matrix.app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();

    assert!(matrix.store.is_over(killed).unwrap());
    signal(Signal::CONT);
    matrix.converged("after it").await;
    matrix.end(1).await;
}

/// Numbers of 1 to `length`, in order.
pub fn draw(seed: u64, count: usize, length: u64) -> Vec<u64> {
    let mut state = seed;
    let mut drawn = std::collections::BTreeSet::new();
    while drawn.len() < count.min(usize::try_from(length).unwrap_or(usize::MAX)) {
        // Steele, Lea and Flood's SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        drawn.insert(1 + (mixed ^ (mixed >> 31)) % length);
    }
    drawn.into_iter().collect()
}

/// One application whose runs are killed, one after another.
struct Matrix<'a> {
    app: App<'a>,
    killed: Killed,
    store: Store,
    /// Ended and begun anew where entries are given up with a restored database.
    probe: Option<Probe>,
}

impl<'a> Matrix<'a> {
    /// With what the first of these runs needs.
    async fn begin(site: &'a Site, killed: Killed) -> Self {
        let app = site.app("guestbook", "guestbook.localhost").unwrap();
        commit(&app, "v2", "first");
        app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
        if killed == Killed::Rollback {
            commit(&app, "v2", "second");
            app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
        }
        let store = Store::open(&site.layout()).unwrap();
        let probe = Some(traffic(&app));
        Self { app, killed, store, probe }
    }

    fn words(&self) -> &'static [&'static str] {
        match self.killed {
            Killed::Deploy | Killed::Migration => &["deploy"],
            // To the other one of two: each is taken back by the next.
            Killed::Rollback => &["rollback", "--yes"],
        }
    }

    fn prepare(&self, name: &str) {
        match self.killed {
            Killed::Deploy => commit(&self.app, "v2", name),
            Killed::Migration => commit(&self.app, "v3", name),
            Killed::Rollback => {}
        }
    }

    /// How many entries the journal of such a run has when nobody kills it.
    async fn length(&mut self) -> u64 {
        self.prepare("whole");
        self.app.cutover(self.words()).await.unwrap().expect(0).unwrap();
        let run = self.newest().unwrap().run;
        let length = self.app.site().journal(run).unwrap().last().unwrap().seq;
        self.take_back().await;
        length
    }

    /// One run, killed at this step; `false`: it had ended before.
    async fn kill(&mut self, step: u64) -> bool {
        let before = self.app.serving().await.unwrap();
        let name = step.to_string();
        self.prepare(&name);
        let (verdict, journal) = self.killed_at(&name).await;
        let serving = self.converged(&name).await;
        let was_killed = was_killed(&journal, step);
        if was_killed && self.killed != Killed::Rollback {
            assert!(serving == before || serving.ends_with(&format!(" {name}")), "{serving} serves");
        }
        if !was_killed {
            assert_eq!(verdict.exit().code(), 0, "{verdict:?}");
        }
        let lap = self.probe.as_ref().unwrap().lap();
        println!(
            "{:?} killed at step {step}: exit {}, `{serving}` serves; {} requests, {} failed, slowest {:?}",
            self.killed,
            verdict.exit().code(),
            lap.sent(),
            lap.failed(),
            lap.slowest()
        );
        assert_eq!(lap.failed(), 0, "{:?} killed at step {step}: {lap}", self.killed);
        self.take_back().await;
        was_killed
    }

    /// What is settled of a command whose run dies at this entry.
    async fn killed_at(&self, step: &str) -> (Verdict, Vec<Entry>) {
        let before = self.newest().map(|verdict| verdict.run);
        let mut command = self.app.command(self.words());
        command.env(KILL_AT, step);
        self.app.site().run(command).await.unwrap();
        let layout = self.app.site().layout();
        let verdict = wait_until(&format!("the run killed at step {step} is settled"), SETTLED, async || {
            let verdict = self.newest().filter(|verdict| Some(verdict.run) != before)?;
            AppLock::peek(&layout, self.app.id()).is_none().then_some(verdict)
        })
        .await
        .unwrap();
        assert_ne!(verdict.exit(), Exit::Person, "nobody is needed after step {step}: {verdict:?}");
        let journal = self.app.site().journal(verdict.run).unwrap();
        (verdict, journal)
    }

    /// The newest run's verdict.
    fn newest(&self) -> Option<Verdict> {
        self.store.verdicts(self.app.id(), 1).unwrap().pop()
    }

    /// One live release, of which alone instances run; gives its name.
    async fn converged(&self, step: &str) -> String {
        for service in ["web", "bot"] {
            wait_until(&format!("one {service} runs after step {step}"), SETTLED, async || {
                (running(self.app.site(), service).len() == 1).then_some(())
            })
            .await
            .unwrap();
        }
        self.app.serving().await.unwrap()
    }

    /// A migration that went through is undone with its database, so that the next has one to do.
    async fn take_back(&mut self) {
        if self.killed == Killed::Migration && self.app.serving().await.unwrap().starts_with("v3") {
            self.kept_promises("until the database is put back").await;
            self.app.cutover(&["rollback", "--restore-db", "--yes"]).await.unwrap().expect(0).unwrap();
            self.probe = Some(traffic(&self.app));
        }
    }

    async fn end(mut self, count: usize) {
        let what = format!("{:?} killed {count} times", self.killed);
        self.kept_promises(&what).await;
    }

    /// Ends the traffic: no request failed, no entry is missing, never two bots.
    async fn kept_promises(&mut self, what: &str) {
        let report = self.probe.take().unwrap().stop().await;
        let entries = fetch_entries(&self.app.traffic().unwrap()).await.unwrap();
        let found = report.verify_entries(&entries);
        let ledger = Ledger::read(&self.app.ledger()).unwrap();
        println!(
            "{what}: {} requests, {} failed; {} entries, {} missing; bots at once {}",
            report.sent(),
            report.failed(),
            found.acknowledged,
            found.missing.len(),
            ledger.overlaps().len()
        );
        assert_eq!(report.failed(), 0, "{what}: {report}");
        assert!(found.is_complete(), "{what}: {:?} {:?}", found.missing, found.twice);
        assert!(ledger.overlaps().is_empty(), "{what}: {:?}", ledger.overlaps());
    }
}

/// A demonstration's bake, shorter still.
fn quick(config: &str) -> String {
    config.replace("bake: 1s", "bake: 200ms")
}

/// A release in which every service differs from the one before; `name` tells it from others.
fn commit(app: &App<'_>, version: &str, name: &str) {
    app.commit(version, quick).unwrap();
    std::fs::write(app.repository().join("web/pages/about.html"), format!("<p>{name}</p>")).unwrap();
    std::fs::write(app.repository().join("bot/greeting.txt"), format!("hello {name}")).unwrap();
    app.record(&format!("{version} {name}")).unwrap();
}

/// Traffic that is short of streams, which drains wait for.
fn traffic(app: &App<'_>) -> Probe {
    let mut options = app.traffic().unwrap();
    options.mix.sse = 0;
    options.mix.websocket = 0;
    Probe::start(options)
}

/// Whether a run was killed at this entry of its journal: it was taken over by another process, or nothing comes after.
pub fn was_killed(journal: &[Entry], step: u64) -> bool {
    let resumed = journal.iter().any(|entry| matches!(entry.what, What::Resumed { .. }));
    resumed || journal.last().is_some_and(|last| last.seq == step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_a_seed_then_the_same_steps_are_drawn_and_none_twice() {
        let drawn = draw(7, 8, 40);
        assert_eq!(drawn, draw(7, 8, 40));
        assert_ne!(drawn, draw(8, 8, 40));
        assert_eq!(drawn.len(), 8);
        assert!(drawn.iter().all(|step| (1..=40).contains(step)));
        assert_eq!(draw(1, 8, 3), [1, 2, 3]);
    }
}

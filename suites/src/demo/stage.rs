//! What all steps of the story share: the application, the traffic, and the times of the runs so far.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use cutover_core::journal::{Step, What};
use cutover_core::verdict::{Outcome, Verdict};
use cutover_testkit::probe::{Probe, Report};
use cutover_testkit::site::{App, Process, Told};

use super::telling;

/// The application, the traffic, and the times of the runs so far.
pub(super) struct Stage<'a> {
    pub(super) app: App<'a>,
    /// From the first release on.
    probe: Option<Probe>,
    /// What was done, and how long it took.
    pub(super) times: Vec<(String, String)>,
    /// A restore that was asked for: entries of this time are no longer looked for.
    pub(super) set_aside: Option<(jiff::Timestamp, jiff::Timestamp)>,
}

/// One command, and what it left behind.
pub(super) struct Ran {
    pub(super) told: Told,
    pub(super) verdict: Verdict,
    /// The traffic meanwhile.
    pub(super) traffic: Report,
}

impl<'a> Stage<'a> {
    pub(super) fn new(app: App<'a>) -> Self {
        Self { app, probe: None, times: Vec::new(), set_aside: None }
    }

    /// From now on there is traffic.
    pub(super) fn start_traffic(&mut self) -> anyhow::Result<()> {
        self.probe = Some(Probe::start(self.app.traffic()?));
        Ok(())
    }

    /// The traffic's end.
    pub(super) async fn stop_traffic(&mut self) -> anyhow::Result<Report> {
        Ok(self.probe.take().context("there is no traffic")?.stop().await)
    }

    /// What the traffic saw since this was last asked; none of it failed.
    pub(super) fn lap(&self) -> anyhow::Result<Report> {
        let lap = self.probe.as_ref().context("there is no traffic")?.lap();
        ensure!(lap.failed() == 0, "requests failed:\n{lap}");
        Ok(lap)
    }

    /// Commits a release of the example.
    pub(super) fn commit(&self, version: &str) -> anyhow::Result<()> {
        self.app.commit(version, str::to_owned)
    }

    /// A command that makes a run, its exit code as expected, under traffic.
    pub(super) async fn run(&mut self, name: &str, words: &[&str], exit: i32) -> anyhow::Result<Ran> {
        self.lap()?;
        let (told, verdict) = self.run_alone(name, words, exit).await?;
        Ok(Ran { told, verdict, traffic: self.lap()? })
    }

    /// The same without looking at the traffic.
    pub(super) async fn run_alone(
        &mut self,
        name: &str,
        words: &[&str],
        exit: i32,
    ) -> anyhow::Result<(Told, Verdict)> {
        telling::command(words);
        let told = self.app.cutover(words).await?.expect(exit)?;
        let verdict = self.app.status().await?.last.context("no verdict was recorded")?;
        let code = i32::from(verdict.exit().code());
        ensure!(Some(code) == told.exit, "the command and the record disagree: {:?}, {code}", told.exit);
        self.time(name, &verdict);
        Ok((told, verdict))
    }

    /// Notes how long a run took.
    pub(super) fn time(&mut self, name: &str, verdict: &Verdict) {
        let all = telling::seconds(verdict.took());
        let text = match (&verdict.outcome, verdict.switched_ms) {
            (Outcome::Done, Some(switched)) => {
                format!("{all} in all, switched after {}", telling::seconds(Duration::from_millis(switched)))
            }
            _ => all,
        };
        self.times.push((name.to_owned(), text));
    }

    /// The release that serves, by the words of its commit.
    pub(super) async fn serves(&self, version: &str) -> anyhow::Result<()> {
        let serving = self.app.serving().await?;
        ensure!(serving == version, "{version} should serve, {serving} does");
        Ok(())
    }

    /// The bot's process.
    pub(super) fn bot(&self) -> anyhow::Result<u32> {
        let all = self.app.site().processes();
        let bots: Vec<_> = all.iter().filter(|found| found.process.is_instance_of("bot")).collect();
        ensure!(bots.len() == 1, "one bot should run, {} do: {all:?}", bots.len());
        Ok(bots[0].pid)
    }

    /// When a run began, and ended, an act.
    pub(super) fn moments(
        &self,
        verdict: &Verdict,
        is: impl Fn(&Step) -> bool,
    ) -> anyhow::Result<(jiff::Timestamp, jiff::Timestamp)> {
        let entries = self.app.site().journal(verdict.run)?;
        let intent =
            entries.iter().find(|entry| matches!(&entry.what, What::Intent { step, .. } if is(step)));
        let intent = intent.context("the act is not in the journal")?;
        let outcome = entries
            .iter()
            .find(|entry| matches!(&entry.what, What::Outcome { intent: of, .. } if *of == intent.seq));
        Ok((intent.at, outcome.context("the act has no outcome")?.at))
    }

    /// Kills the `run` of this site with -9.
    pub(super) fn kill_run(&self) -> anyhow::Result<u32> {
        Ok(self.app.site().kill(|process| *process == Process::Run)?.pid)
    }
}

//! A candidate that exits fails its deploy at once, though it would be probed only once an hour: from its end to the failed gate in the
//! journal.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use cutover_core::journal::What;
use cutover_core::verdict::Outcome;
use cutover_testkit::site::{App, Site};
use jiff::Timestamp;

use super::figures::between;
use super::sample::{self, HOST};
use super::sheet::Section;

/// Milliseconds.
pub(super) const GOAL: f64 = 300.0;
pub(super) const ROUNDS: usize = 10;

/// Lives for a moment, says when it ends, and does.
const SCRIPT: &str = "sleep 0.3\ndate +%s%N\nexit 3\n";

pub(super) async fn measure() -> anyhow::Result<Section> {
    let mut section = Section::new("A candidate exits, and is probed once an hour");
    section.row("plain process: exit to failed gate", "ms", &processes().await?).goal(GOAL);
    Ok(section)
}

async fn processes() -> anyhow::Result<Vec<f64>> {
    let site = Site::new()?;
    let app = site.app("sample", HOST)?;
    let config = sample::processes(&app, "")
        .replace("./guestbook serve", "sh run.sh")
        .replace("path: /health", "path: /health, interval: 1h, within: 2h");
    let mut delays = Vec::new();
    for number in 0..ROUNDS {
        sample::commit(&app, &config, number)?;
        std::fs::write(app.repository().join("web/run.sh"), SCRIPT)?;
        app.record("it exits")?;
        app.cutover(&["deploy"]).await?.expect(4)?;
        let failed = failed_gate(&app).await?;
        delays.push(between(own_end(&failed.log)?, failed.at));
    }
    Ok(delays)
}

/// A gate that failed.
pub(super) struct FailedGate {
    /// When the journal has it.
    pub(super) at: Timestamp,
    /// The instance's last lines.
    pub(super) log: Vec<String>,
}

/// The newest run's.
pub(super) async fn failed_gate(app: &App<'_>) -> anyhow::Result<FailedGate> {
    let verdict = sample::verdict(app).await?;
    let took = verdict.took();
    let Outcome::Failed { failure } = verdict.outcome else { anyhow::bail!("it did not fail") };
    let entries = app.site().journal(verdict.run)?;
    let failed = entries.iter().find(|entry| matches!(entry.what, What::Failed { .. }));
    let at = failed.context("no gate failed in the journal")?.at;
    ensure!(took < Duration::from_mins(1), "the next probe was waited for: {took:?}");
    Ok(FailedGate { at, log: failure.log })
}

/// What the script said last: nanoseconds since 1970.
fn own_end(log: &[String]) -> anyhow::Result<Timestamp> {
    let said = log.iter().rev().find_map(|line| line.trim().parse::<i128>().ok());
    Ok(Timestamp::from_nanosecond(said.with_context(|| format!("it did not say when it ended: {log:?}"))?)?)
}

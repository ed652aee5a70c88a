//! The application that is deployed here: one routed service of the guestbook, its entries in memory, so that what is measured is the deploy
//! and not the application's database. And a run, taken apart by its journal.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use cutover_core::journal::{Entry, Step, What};
use cutover_core::plan::Stage;
use cutover_core::verdict::Verdict;
use cutover_host::lock::AppLock;
use cutover_testkit::site::App;
use cutover_testkit::wait_until;
use jiff::Timestamp;

use super::figures::{between, milliseconds};

/// Its host.
pub(crate) const HOST: &str = "sample.localhost";

/// Its entries are gone with it.
pub(crate) const IN_MEMORY: &str = r#"{ "database": "memory" }"#;
/// For a container to be taken apart and removed.
const PUT_AWAY: Duration = Duration::from_secs(30);
/// The port it listens on in a container.
pub(crate) const PORT: u16 = 8000;

/// Its configuration as plain processes; `more` is added at the end.
pub(crate) fn processes(app: &App<'_>, more: &str) -> String {
    format!(
        "app: {}
services:
  web:
    artifact: web
    command: ./guestbook serve
    environment: {{ HOST: 127.0.0.1 }}
    route: {{ host: {HOST} }}
    health: {{ path: /health }}
bake: 0
{more}",
        app.id().app
    )
}

/// Its configuration as a container; `health` is added to the probe.
pub(crate) fn containers(app: &App<'_>, image: &str, health: &str) -> String {
    format!(
        "app: {}
services:
  web:
    image: {image}
    port: {PORT}
    route: {{ host: {HOST} }}
    health: {{ path: /health{health} }}
bake: 0
",
        app.id().app
    )
}

/// Commits a release that differs from the one before by a page.
pub(crate) fn commit(app: &App<'_>, config: &str, number: usize) -> anyhow::Result<()> {
    app.commit("v1", |_| config.to_owned())?;
    let web = app.repository().join("web");
    std::fs::write(web.join("behaviour.json"), IN_MEMORY)?;
    std::fs::write(web.join("pages/about.html"), format!("<p>{number}</p>"))?;
    app.record(&format!("v{number}"))
}

/// A command that made a run, in milliseconds.
pub(crate) struct Ran {
    /// From before the command's start until it had ended.
    pub(crate) whole: f64,
    /// From before the command's start until the new table was served.
    pub(crate) to_switched: f64,
    /// From the journal's first line to the verdict.
    pub(crate) run: f64,
    /// From the journal's first line until the new table was served.
    pub(crate) switched: f64,
    /// What each stage took.
    pub(crate) stages: BTreeMap<Stage, f64>,
}

/// Runs a command that makes a run, and takes it apart.
pub(crate) async fn run(app: &App<'_>, words: &[&str]) -> anyhow::Result<Ran> {
    let began = SystemTime::now();
    let told = app.cutover(words).await?.expect(0)?;
    let verdict = verdict(app).await?;
    let entries = app.site().journal(verdict.run)?;
    let began = Timestamp::try_from(began)?;
    let switched = moment_of_switch(&entries).context("it never switched")?;
    Ok(Ran {
        whole: milliseconds(told.took),
        to_switched: between(began, switched),
        run: between(verdict.started, verdict.finished),
        switched: between(verdict.started, switched),
        stages: stages(&entries),
    })
}

/// Until what the newest run replaced has been removed: that goes on after the verdict, and is not to slow down what is measured next.
pub(crate) async fn put_away(app: &App<'_>) -> anyhow::Result<()> {
    let is_free = async || AppLock::peek(&app.site().layout(), app.id()).is_none().then_some(());
    Ok(wait_until("what was replaced is removed", PUT_AWAY, is_free).await?)
}

/// The newest run's verdict.
pub(crate) async fn verdict(app: &App<'_>) -> anyhow::Result<Verdict> {
    app.status().await?.last.context("no verdict was recorded")
}

fn moment_of_switch(entries: &[Entry]) -> Option<Timestamp> {
    let is_switch = |entry: &&Entry| {
        matches!(entry.what, What::Intent { step: Step::Switch, .. } | What::Intent { step: Step::Live, .. })
    };
    let intent = entries.iter().find(is_switch)?.seq;
    let outcome = |entry: &&Entry| matches!(entry.what, What::Outcome { intent: of, .. } if of == intent);
    entries.iter().find(outcome).map(|entry| entry.at)
}

fn stages(entries: &[Entry]) -> BTreeMap<Stage, f64> {
    let mut begun = BTreeMap::new();
    let mut took = BTreeMap::new();
    for entry in entries {
        match entry.what {
            What::Entered { stage } => drop(begun.insert(stage, entry.at)),
            What::Left { stage, .. } => {
                took.extend(begun.get(&stage).map(|from| (stage, between(*from, entry.at))));
            }
            _ => {}
        }
    }
    took
}

/// The medians of what each stage took in many runs, in order, as a sentence.
pub(crate) fn stages_text(runs: &[Ran]) -> String {
    let mut all: BTreeMap<Stage, Vec<f64>> = BTreeMap::new();
    for (stage, took) in runs.iter().flat_map(|ran| &ran.stages) {
        all.entry(*stage).or_default().push(*took);
    }
    let medians = all.iter().filter_map(|(stage, took)| {
        let median = super::figures::Figure::of(took)?.median;
        (median >= 0.5).then(|| format!("{stage} {median:.1}"))
    });
    format!("stages, in ms: {}", medians.collect::<Vec<_>>().join(" · "))
}

/// One figure of each run.
pub(crate) fn each(runs: &[Ran], figure: impl Fn(&Ran) -> f64) -> Vec<f64> {
    runs.iter().map(figure).collect()
}

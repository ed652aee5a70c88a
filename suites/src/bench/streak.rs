//! Many deploys in a row under load: what fails, and what grows.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use cutover_core::layout::label;
use cutover_engine::Engine;
use cutover_host::installation::Installation;
use cutover_testkit::probe::{Probe, Report};
use cutover_testkit::site::{App, Binaries, Process, Site};
use cutover_testkit::wait_until;
use serde::Serialize;
use tokio::process::Command;

use crate::engine;

use super::docker::Images;
use super::figures::milliseconds;
use super::idle::megabytes;
use super::kernel::{self, Look};
use super::sample;
use super::sheet::Section;

/// For what the last deploy set in motion to be over.
const SETTLED: Duration = Duration::from_secs(30);
/// What the table has: deploys until as many releases are kept as will be, then those that are looked at.
const SHORT: Row = Row { warm_up: 7, count: 30 };

/// How many deploys.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Before it is looked what they take.
    pub warm_up: usize,
    /// Under traffic, between two looks.
    pub count: usize,
}

/// What an installation takes.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Upkeep {
    pub proxy: Look,
    pub watch: Look,
    pub up: Look,
    /// Those of the installation.
    pub processes: usize,
    /// Containers and networks of the installation; 0 where it has no engine.
    pub on_engine: usize,
    /// Below its root.
    pub files: usize,
    /// Of those files.
    pub bytes: u64,
}

/// Deploys in a row.
#[derive(Debug)]
pub struct Streak {
    /// The traffic meanwhile.
    pub traffic: Report,
    pub before: Upkeep,
    pub after: Upkeep,
    /// Of all of them.
    pub took: Duration,
}

/// The sample as plain processes, each release another page.
///
/// # Errors
/// When a deploy fails, or a request during one.
pub async fn of_processes(row: Row) -> anyhow::Result<Streak> {
    let site = Site::new()?;
    let app = site.app("sample", sample::HOST)?;
    let config = sample::processes(&app, "");
    deploys(&app, row, |number| {
        sample::commit(&app, &config, number)?;
        Ok(app.command(&["deploy"]))
    })
    .await
}

/// The sample as a container on this engine, its image's label another one each time.
///
/// # Errors
/// As [`of_processes`].
pub async fn of_containers(binaries: Binaries, engine: Engine, row: Row) -> anyhow::Result<Streak> {
    let site = Site::on_engine(binaries, engine).await?;
    let app = site.app("sample", sample::HOST)?;
    let images = Images::build(&app).await?;
    app.commit("v1", |_| images.config(&app))?;
    deploys(&app, row, |number| Ok(app.command(&Images::deploy(number)))).await
}

/// Deploys releases one after another under traffic; `next` gives the command for each.
async fn deploys(
    app: &App<'_>,
    row: Row,
    mut next: impl FnMut(usize) -> anyhow::Result<Command>,
) -> anyhow::Result<Streak> {
    for number in 0..row.warm_up {
        app.site().run(next(number)?).await?.expect(0).with_context(|| format!("deploy {number}"))?;
    }
    let probe = Probe::start(app.traffic()?);
    let before = settled(app.site()).await?;
    let began = Instant::now();
    for number in row.warm_up..row.warm_up + row.count {
        app.site().run(next(number)?).await?.expect(0).with_context(|| format!("deploy {number}"))?;
        let lap = probe.lap();
        ensure!(lap.failed() == 0, "requests failed during deploy {number}:\n{lap}");
    }
    let took = began.elapsed();
    let after = settled(app.site()).await?;
    Ok(Streak { traffic: probe.stop().await, before, after, took })
}

/// The short form, for the table; `make soak` has the long one.
pub(super) async fn measure(binaries: &Binaries) -> anyhow::Result<Section> {
    let mut section = Section::new("Deploys in a row under load (`make soak` does 200)");
    of_processes(SHORT).await?.report(&mut section, "plain processes", SHORT.count);
    match engine::usable().await {
        Ok(engine) => of_containers(binaries.clone(), engine, SHORT).await?.report(
            &mut section,
            "containers",
            SHORT.count,
        ),
        Err(why) => section.not_run(format!("containers: {why}")),
    }
    Ok(section)
}

impl Streak {
    /// Rows of a table.
    #[expect(clippy::cast_precision_loss, reason = "counts of files, bytes and requests are far below 2⁵²")]
    fn report(&self, section: &mut Section, what: &str, count: usize) {
        let Self { traffic, before, after, took } = self;
        section
            .row(format!("{what}: failed requests during {count} deploys"), "", &[traffic.failed() as f64])
            .goal(0.0)
            .note(format!("of {} sent; slowest {:?}", traffic.sent(), traffic.slowest()));
        section.row("  a deploy under this load, on average", "ms", &[milliseconds(*took) / count as f64]);
        let grown = |of: fn(&Upkeep) -> f64| of(after) - of(before);
        for (name, unit, of) in GROWTHS {
            section.row(format!("  growth: {name}"), unit, &[grown(of)]);
        }
    }
}

/// What may grow, and how to read it.
type Growth = (&'static str, &'static str, fn(&Upkeep) -> f64);

#[expect(clippy::cast_precision_loss, reason = "counts of files, bytes and processes are far below 2⁵²")]
const GROWTHS: [Growth; 6] = [
    ("memory of proxy, watch and up, own and shared", "MB", |upkeep| megabytes(upkeep.all().pss)),
    ("descriptors of proxy, watch and up", "", |upkeep| upkeep.all().descriptors as f64),
    ("processes", "", |upkeep| upkeep.processes as f64),
    ("containers and networks", "", |upkeep| upkeep.on_engine as f64),
    ("files below the root (100 runs are kept)", "", |upkeep| upkeep.files as f64),
    ("bytes below the root (100 runs are kept)", "MB", |upkeep| megabytes(upkeep.bytes)),
];

/// Looks once only what shall run does, twice the same.
async fn settled(site: &Site) -> anyhow::Result<Upkeep> {
    let mut last = None;
    let same = wait_until("what a deploy set in motion is over", SETTLED, async || {
        let all = site.processes();
        let passing = all
            .iter()
            .any(|found| matches!(found.process, Process::Session | Process::Run | Process::Other(_)));
        let now = all.len();
        let same = !passing && last.replace(now) == Some(now);
        same.then_some(())
    });
    same.await?;
    Upkeep::of(site).await
}

impl Upkeep {
    /// The processes that always run, as one.
    pub fn all(&self) -> Look {
        self.proxy.and(self.watch).and(self.up)
    }

    async fn of(site: &Site) -> anyhow::Result<Self> {
        let all = site.processes();
        let of = |is: Process| {
            let found = all.iter().find(|found| found.process == is);
            found.and_then(|found| kernel::look(found.pid)).with_context(|| format!("no {is:?} runs"))
        };
        let (mut files, mut bytes) = (0, 0);
        count(&site.root(), &mut files, &mut bytes)?;
        Ok(Self {
            proxy: of(Process::Proxy)?,
            watch: of(Process::Watch)?,
            up: of(Process::Up)?,
            processes: all.len(),
            on_engine: on_engine(site).await?,
            files,
            bytes,
        })
    }
}

async fn on_engine(site: &Site) -> anyhow::Result<usize> {
    let Some(docker) = site.docker() else { return Ok(0) };
    let id = Installation::open(&site.layout())?.id;
    let labels = BTreeMap::from([(label::INSTALLATION.to_owned(), id)]);
    let (engine, networks) = (docker.engine(), docker.engine().list_networks(&labels));
    Ok(engine.list(&labels).await?.len() + networks.await?.len())
}

/// What goes in this moment is not counted.
fn count(folder: &Path, files: &mut usize, bytes: &mut u64) -> std::io::Result<()> {
    for item in std::fs::read_dir(folder)?.flatten() {
        let Ok(metadata) = item.metadata() else { continue };
        *files += 1;
        if metadata.is_dir() {
            count(&item.path(), files, bytes)?;
        } else {
            *bytes += metadata.len();
        }
    }
    Ok(())
}

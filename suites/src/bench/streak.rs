//! Many deploys in a row under load: what fails, and what grows.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use cutover_testkit::probe::{Probe, Report};
use cutover_testkit::site::{App, Process, Site};
use cutover_testkit::wait_until;
use serde::Serialize;

use super::figures::milliseconds;
use super::idle::megabytes;
use super::kernel::{self, Look};
use super::sample;
use super::sheet::Section;

/// For what the last deploy set in motion to be over.
const SETTLED: Duration = Duration::from_secs(30);
/// Deploys until as many releases are kept as will be.
const WARM_UP: usize = 7;

/// What an installation takes.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Upkeep {
    pub proxy: Look,
    pub watch: Look,
    pub up: Look,
    /// Those of the installation.
    pub processes: usize,
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

/// Deploys `count` changed releases of an application that is live already, one after another, under traffic; `next` commits each.
pub async fn deploys(
    app: &App<'_>,
    count: usize,
    mut next: impl FnMut(usize) -> anyhow::Result<tokio::process::Command>,
) -> anyhow::Result<Streak> {
    let probe = Probe::start(app.traffic()?);
    let before = settled(app.site()).await?;
    let began = Instant::now();
    for number in 0..count {
        let command = next(number)?;
        app.site().run(command).await?.expect(0).with_context(|| format!("deploy {number}"))?;
        let lap = probe.lap();
        ensure!(lap.failed() == 0, "requests failed during deploy {number}:\n{lap}");
    }
    let took = began.elapsed();
    let after = settled(app.site()).await?;
    Ok(Streak { traffic: probe.stop().await, before, after, took })
}

/// The sample as plain processes: a command that deploys the next release.
pub fn next_of_processes(app: &App<'_>, number: usize) -> anyhow::Result<tokio::process::Command> {
    sample::commit(app, &sample::processes(app, ""), number)?;
    Ok(app.command(&["deploy"]))
}

/// The short form, for the table; `make soak` has the long one.
pub(super) async fn measure() -> anyhow::Result<Section> {
    const COUNT: usize = 20;
    let site = Site::new()?;
    let app = site.app("sample", sample::HOST)?;
    // Until releases are as many as are kept.
    for number in 0..WARM_UP {
        site.run(next_of_processes(&app, number)?).await?.expect(0)?;
    }
    let streak = deploys(&app, COUNT, |number| next_of_processes(&app, WARM_UP + number)).await?;
    let mut section = Section::new("Deploys in a row under load (plain processes; `make soak` does 200)");
    streak.report(&mut section, COUNT);
    Ok(section)
}

impl Streak {
    /// Rows of a table.
    #[expect(clippy::cast_precision_loss, reason = "counts of files, bytes and requests are far below 2⁵²")]
    pub(super) fn report(&self, section: &mut Section, count: usize) {
        let Self { traffic, before, after, took } = self;
        section
            .row(format!("failed requests during {count} deploys"), "", &[traffic.failed() as f64])
            .goal(0.0)
            .note(format!("of {} sent; slowest {:?}", traffic.sent(), traffic.slowest()));
        section.row("a deploy under this load, on average", "ms", &[milliseconds(*took) / count as f64]);
        let grown = |of: fn(&Upkeep) -> f64| of(after) - of(before);
        for (name, unit, of) in GROWTHS {
            section.row(format!("  growth: {name}"), unit, &[grown(of)]);
        }
    }
}

/// What may grow, and how to read it.
type Growth = (&'static str, &'static str, fn(&Upkeep) -> f64);

#[expect(clippy::cast_precision_loss, reason = "counts of files, bytes and processes are far below 2⁵²")]
const GROWTHS: [Growth; 5] = [
    ("memory of proxy, watch and up, own and shared", "MB", |upkeep| megabytes(upkeep.all().pss)),
    ("descriptors of proxy, watch and up", "", |upkeep| upkeep.all().descriptors as f64),
    ("processes", "", |upkeep| upkeep.processes as f64),
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
    Upkeep::of(site)
}

impl Upkeep {
    /// The processes that always run, as one.
    pub fn all(&self) -> Look {
        self.proxy.and(self.watch).and(self.up)
    }

    fn of(site: &Site) -> anyhow::Result<Self> {
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
            files,
            bytes,
        })
    }
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

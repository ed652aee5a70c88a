//! What proxy and watch take while one app is live and nobody asks anything.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use cutover_testkit::site::{Process, Site};

use super::kernel::{self, Look};
use super::sample::{self, HOST};
use super::sheet::Section;

/// After a deploy, until what it set in motion is over.
const SETTLED: Duration = Duration::from_secs(3);
const WATCHED: Duration = Duration::from_secs(60);

pub(super) async fn measure() -> anyhow::Result<Section> {
    let site = Site::new()?;
    let app = site.app("sample", HOST)?;
    sample::commit(&app, &sample::processes(&app, ""), 0)?;
    sample::run(&app, &["deploy"]).await?;
    tokio::time::sleep(SETTLED).await;

    let before = Looks::at(&site)?;
    let began = Instant::now();
    tokio::time::sleep(WATCHED).await;
    let after = Looks::at(&site)?;
    let watched = began.elapsed();

    let mut section = Section::new("Idle: one app of one service live, no requests, for 60 s");
    let both = after.proxy.and(after.watch);
    section.row("proxy + watch: resident memory", "MB", &[megabytes(both.rss)]).goal(25.0);
    let processor = share(before.proxy.and(before.watch), both, watched);
    section.row("proxy + watch: processor", "%", &[processor]).goal(0.1);
    for (name, before, after) in [
        ("proxy", before.proxy, after.proxy),
        ("watch", before.watch, after.watch),
        ("up (where no init system supervises)", before.up, after.up),
        ("keeper of the instance", before.keeper, after.keeper),
    ] {
        section.row(format!("  {name}: resident memory"), "MB", &[megabytes(after.rss)]).note(format!(
            "{:.1} MB in its share of common pages; {:.4} % of a processor; {:.2} wake-ups a second; {} descriptors",
            megabytes(after.pss),
            share(before, after, watched),
            wakes(before, after, watched),
            after.descriptors
        ));
    }
    Ok(section)
}

struct Looks {
    proxy: Look,
    watch: Look,
    up: Look,
    keeper: Look,
}

impl Looks {
    fn at(site: &Site) -> anyhow::Result<Self> {
        let all = site.processes();
        let of = |name: &'static str, is: &dyn Fn(&Process) -> bool| {
            let found = all.iter().find(|found| is(&found.process));
            found.and_then(|found| kernel::look(found.pid)).with_context(|| format!("no {name} runs"))
        };
        Ok(Self {
            proxy: of("proxy", &|process| *process == Process::Proxy)?,
            watch: of("watch", &|process| *process == Process::Watch)?,
            up: of("up", &|process| *process == Process::Up)?,
            keeper: of("keeper", &|process| process.is_keeper_of("web"))?,
        })
    }
}

/// In percent of one processor.
fn share(before: Look, after: Look, time: Duration) -> f64 {
    after.processor.saturating_sub(before.processor).as_secs_f64() / time.as_secs_f64() * 100.0
}

fn wakes(before: Look, after: Look, time: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a count of a minute")]
    let woken = after.wakes.saturating_sub(before.wakes) as f64;
    woken / time.as_secs_f64()
}

pub(super) fn megabytes(bytes: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "bytes of memory are far below 2⁵²")]
    let bytes = bytes as f64;
    bytes / 1024.0 / 1024.0
}

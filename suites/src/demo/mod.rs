//! The demonstration: six releases of the guestbook, one after another, under constant traffic. It asserts what it shows.

mod figures;
mod stage;
mod story;
pub mod telling;

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use cutover_testkit::guestbook::Kind;
use cutover_testkit::site::{Binaries, Site};
use cutover_testkit::wait_until;

use crate::engine;
use stage::Stage;

/// It ends, whatever happens.
const LONGEST: Duration = Duration::from_mins(4);
const HOST: &str = "guestbook.localhost";

/// How it ended, when nothing was wrong.
pub enum Ending {
    Shown,
    /// There is no container engine, say.
    Impossible {
        why: String,
    },
}

/// All of it; an error says what was not as it should be.
pub fn run(kind: Kind) -> anyhow::Result<Ending> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let began = Instant::now();
    runtime.block_on(async {
        let binaries = Binaries::beside_this_program()?;
        let site = match kind {
            Kind::Processes => Site::with(binaries)?,
            Kind::Containers => match engine::usable().await {
                Ok(engine) => Site::on_engine(binaries, engine).await?,
                Err(why) => return Ok(Ending::Impossible { why }),
            },
        };
        let shown = tokio::select! {
            shown = show(&site) => shown,
            _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
            () = tokio::time::sleep(LONGEST) => Err(anyhow::anyhow!("no end within {LONGEST:?}")),
        };
        let left = site.kill_all()?;
        shown?;
        ensure!(left == 0, "{left} processes were left running");
        telling::end(began.elapsed());
        Ok(Ending::Shown)
    })
}

async fn show(site: &Site) -> anyhow::Result<()> {
    telling::title(site.kind());
    let app = site.app("guestbook", HOST)?;
    let mut stage = Stage::new(app);
    story::first_release(&mut stage).await?;
    story::a_page_changes(&mut stage).await?;
    story::a_breaking_migration(&mut stage).await?;
    story::an_unhealthy_release(&mut stage).await?;
    story::a_migration_that_fails(&mut stage).await?;
    story::a_release_that_fails_later(&mut stage).await?;
    story::back_across_the_migration(&mut stage).await?;
    story::a_run_that_is_killed(&mut stage).await?;
    let app = figures::conclude(stage).await?;
    if site.kind() == Kind::Containers {
        // Containers are the engine's to keep: with cutover down they would serve on.
        let words = ["remove", "--volumes", "--yes"];
        telling::command(&words);
        app.cutover(&words).await?.expect(0)?;
    }
    let stopped = site.down().await?.expect(0).context("cutover-host down")?;
    telling::fact(stopped.talk.trim());
    wait_until("nothing of the demonstration runs", Duration::from_secs(10), async || {
        site.processes().is_empty().then_some(())
    })
    .await?;
    telling::good("nothing is left running");
    Ok(())
}

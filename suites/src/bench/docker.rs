//! Deploys on a container engine over the floor, in turns; and a container's exit.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use cutover_core::layout::label;
use cutover_engine::{BaseImages, BuildCache, BuildSpec, Context, ContextSource, Engine, Phase};
use cutover_testkit::guestbook::{Kind, lay_out};
use cutover_testkit::site::{App, Binaries, Site};
use jiff::Timestamp;

use crate::engine;

use super::exits::{self, failed_gate};
use super::figures::{between, ratios};
use super::floor::{Floor, Swap};
use super::sample::{self, HOST, Ran, each};
use super::sheet::Section;

const ROUNDS: usize = 15;
/// In turns: each differs from the one before by a page.
const TAGS: [&str; 2] = ["one", "two"];
const BROKEN: &str = "broken";
const EXITS: &str = r#"{ "database": "memory", "start_delay_ms": 300, "exit_at_start": 3 }"#;

pub(super) async fn deploys(binaries: &Binaries) -> anyhow::Result<Section> {
    let mut section = Section::new("Docker: one service with a route, its image there, bake off");
    let engine = match engine::usable().await {
        Ok(engine) => engine,
        Err(why) => {
            section.not_run(why);
            return Ok(section);
        }
    };
    let site = Site::on_engine(binaries.clone(), engine).await?;
    let app = site.app("sample", HOST)?;
    let images = Images::build(&app).await?;
    let mut floor = Floor::new(images.engine.address(), &images.name(TAGS[0])).await?;
    let measured = in_turns(&app, &images, &mut floor).await;
    floor.clear().await?;
    report(&mut section, &measured?);
    section
        .row("a container exits: exit to failed gate", "ms", &exits(&app, &images).await?)
        .goal(exits::GOAL);
    Ok(section)
}

/// The sample as images.
pub(super) struct Images {
    engine: Engine,
    repository: String,
}

impl Images {
    pub(super) async fn build(app: &App<'_>) -> anyhow::Result<Self> {
        let docker = app.site().docker().context("this site has no engine")?;
        // By such a name the site finds and removes them.
        let images =
            Self { engine: docker.engine().clone(), repository: format!("cutover/{}/sample", app.id()) };
        let good = lay_out_image(app, "good", sample::IN_MEMORY)?;
        for tag in TAGS {
            std::fs::write(good.join("pages/about.html"), format!("<p>{tag}</p>"))?;
            images.build_one(&good, tag, docker.base()).await?;
        }
        let broken = lay_out_image(app, BROKEN, EXITS)?;
        images.build_one(&broken, BROKEN, docker.base()).await?;
        Ok(images)
    }

    async fn build_one(&self, folder: &Path, tag: &str, base: &str) -> anyhow::Result<()> {
        let context = Context::open(ContextSource::WorkTree, folder, ".", "Dockerfile", &[]).await?;
        let spec = BuildSpec {
            context,
            target: None,
            arguments: BTreeMap::from([("BASE".to_owned(), base.to_owned())]),
            labels: BTreeMap::new(),
            tag: Some(self.name(tag)),
            platform: None,
            cache: BuildCache::Use,
            bases: BaseImages::Here,
            network: None,
            logins: Vec::new(),
        };
        self.engine.build(&spec, &mut |_| ()).await.with_context(|| format!("image `{tag}`"))?;
        Ok(())
    }

    fn name(&self, tag: &str) -> String {
        format!("{}:{tag}", self.repository)
    }

    /// A configuration that runs them.
    pub(super) fn config(&self, app: &App<'_>) -> String {
        sample::containers(app, &self.repository, "")
    }

    /// The words that deploy the next of them.
    pub(super) fn deploy(number: usize) -> [&'static str; 3] {
        ["deploy", "--version", TAGS[number % TAGS.len()]]
    }
}

/// The folder that the image is made of.
fn lay_out_image(app: &App<'_>, name: &str, behaviour: &str) -> anyhow::Result<PathBuf> {
    let folder = app.site().folder().join(format!("image-{name}"));
    std::fs::create_dir(&folder)?;
    lay_out("v1", Kind::Containers, &app.site().binaries().guestbook, &folder)?;
    let web = folder.join("web");
    std::fs::write(web.join("behaviour.json"), behaviour)?;
    Ok(web)
}

struct Measured {
    swaps: Vec<Swap>,
    default: Vec<f64>,
    runs: Vec<Ran>,
}

async fn in_turns(app: &App<'_>, images: &Images, floor: &mut Floor) -> anyhow::Result<Measured> {
    let mut measured = Measured { swaps: Vec::new(), default: Vec::new(), runs: Vec::new() };
    app.commit("v1", |_| images.config(app))?;
    // What is made once (networks, the first release, proxy and watch) is no part of a swap.
    floor.swap().await?;
    sample::run(app, &Images::deploy(1)).await?;
    for number in 0..ROUNDS {
        measured.swaps.push(floor.swap().await?);
        measured.runs.push(sample::run(app, &Images::deploy(number)).await?);
        measured.default.push(floor.on_the_default_bridge().await?);
    }
    Ok(measured)
}

fn report(section: &mut Section, measured: &Measured) {
    let Measured { swaps, default, runs } = measured;
    let whole = each(runs, |ran| ran.whole);
    let swap: Vec<f64> = swaps.iter().map(|swap| swap.whole).collect();
    let up: Vec<f64> = swaps.iter().map(|swap| swap.up).collect();
    section.row("deploy, the whole command, over the floor's swap", "×", &ratios(&whole, &swap)).goal(1.2).note(
        "the floor: create, join, start, first answer, stop old, remove old, by the engine's API and nothing else; a deploy \
         is told when the old one's processes have ended, and removes it after that",
    );
    section.row("  over one container up on the default bridge", "×", &ratios(&whole, default));
    section.row("  the whole command", "ms", &whole);
    section.row("  the run on the host", "ms", &each(runs, |ran| ran.run)).note(sample::stages_text(runs));
    section.row("  the run's begin to switched", "ms", &each(runs, |ran| ran.switched));
    section.row("floor: whole swap", "ms", &swap);
    section.row("  floor: create to first answer", "ms", &up);
    section.row("  one container up on the default bridge", "ms", default);
}

/// By the engine's own account of when it ended: the failed candidate is kept.
async fn exits(app: &App<'_>, images: &Images) -> anyhow::Result<Vec<f64>> {
    app.commit("v1", |_| sample::containers(app, &images.repository, ", interval: 1h, within: 2h"))?;
    let mut delays = Vec::new();
    for _ in 0..exits::ROUNDS {
        app.cutover(&["deploy", "--all", "--version", BROKEN]).await?.expect(4)?;
        let failed = failed_gate(app).await?;
        delays.push(between(end_of_candidate(app, images).await?, failed.at));
    }
    Ok(delays)
}

async fn end_of_candidate(app: &App<'_>, images: &Images) -> anyhow::Result<Timestamp> {
    let labels = BTreeMap::from([(label::APP.to_owned(), app.id().to_string())]);
    let mut ends = Vec::new();
    for listed in images.engine.list(&labels).await? {
        if listed.phase != Phase::Running {
            ends.extend(images.engine.inspect(&listed.id).await?.finished_at);
        }
    }
    // One that is kept of an earlier deploy ended earlier.
    ends.into_iter().max().context("no candidate is kept")
}

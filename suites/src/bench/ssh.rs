//! A deploy over SSH beside the same deploy on this machine and beside `ssh HOST true`, through one relay that makes the round trip longer; in
//! turns.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use cutover_engine::Engine;
use cutover_testkit::site::{App, Binaries, Site};

use crate::engine;

use super::docker::Images;
use super::figures::{differences, milliseconds};
use super::sample::{self, HOST};
use super::sheet::Section;

const ROUNDS: usize = 7;
/// Round trips, in milliseconds.
const ROUND_TRIPS: [u32; 3] = [0, 50, 150];
/// At which the whole command has a goal.
const USUAL: u32 = 50;

pub(super) async fn measure(binaries: &Binaries) -> anyhow::Result<Section> {
    let mut section = Section::new("Over SSH: one changed service, bake off, the same relay for all");
    let far = match Site::over_ssh(binaries.clone())? {
        Ok(site) => site,
        Err(why) => {
            section.not_run(why);
            return Ok(section);
        }
    };
    let near = Site::new()?;
    let (far, near) = (far.app("sample", HOST)?, near.app("sample", HOST)?);
    let next = |app: &App<'_>, number| {
        commit(app, number)?;
        Ok(vec!["deploy"])
    };
    in_turns(&mut section, "plain processes", &far, &near, next).await?;
    rollbacks(&mut section, "plain processes", &far).await?;
    match engine::usable().await {
        Ok(engine) => containers(&mut section, binaries, &engine).await?,
        Err(why) => section.not_run(format!("containers: {why}")),
    }
    Ok(section)
}

/// The same as containers, their images there.
async fn containers(section: &mut Section, binaries: &Binaries, engine: &Engine) -> anyhow::Result<()> {
    let far = match Site::over_ssh_on_engine(binaries.clone(), engine.clone()).await? {
        Ok(site) => site,
        Err(why) => {
            section.not_run(format!("containers: {why}"));
            return Ok(());
        }
    };
    let near = Site::on_engine(binaries.clone(), engine.clone()).await?;
    let (far, near) = (far.app("sample", HOST)?, near.app("sample", HOST)?);
    for app in [&far, &near] {
        let images = Images::build(app).await?;
        app.commit("v1", |_| app.own(&images.config(app)))?;
    }
    in_turns(section, "containers", &far, &near, |_, number| Ok(Images::deploy(number).to_vec())).await?;
    rollbacks(section, "containers", &far).await
}

/// Deploys over SSH and here, in turns; `next` makes the next release and gives the words that deploy it.
async fn in_turns(
    section: &mut Section,
    what: &str,
    far: &App<'_>,
    near: &App<'_>,
    next: impl Fn(&App<'_>, usize) -> anyhow::Result<Vec<&'static str>>,
) -> anyhow::Result<()> {
    let mut number = 0;
    for app in [far, near] {
        whole(app, &next(app, number)?).await?;
    }
    for time in ROUND_TRIPS {
        far.site().remote().round_trip(Duration::from_millis(u64::from(time)));
        let (mut over, mut here, mut nothing) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            number += 1;
            nothing.push(ssh_true(far).await?);
            over.push(once(far, &next(far, number)?).await?);
            here.push(whole(near, &next(near, number)?).await?);
        }
        let row =
            section.row(format!("{what}: deploy over SSH at {time} ms, the whole command"), "ms", &over);
        if time == USUAL {
            row.goal(1000.0);
        }
        section.row("  the same deploy on this machine", "ms", &here);
        section.row("  `ssh HOST true`", "ms", &nothing);
        let beyond = differences(&differences(&over, &here), &nothing);
        section.row("  over SSH less both", "ms", &beyond);
        if time > 0 {
            let trips: Vec<f64> = beyond.iter().map(|beyond| beyond / f64::from(time)).collect();
            section.row("  the same in round trips", "", &trips).goal(6.0);
        }
    }
    Ok(())
}

/// Back and forth between the last two, of which nothing runs warm.
async fn rollbacks(section: &mut Section, what: &str, far: &App<'_>) -> anyhow::Result<()> {
    far.site().remote().round_trip(Duration::from_millis(u64::from(USUAL)));
    let mut cold = Vec::new();
    for _ in 0..ROUNDS {
        cold.push(once(far, &["rollback", "--yes"]).await?);
    }
    let row = format!("{what}: cold rollback over SSH at {USUAL} ms, the whole command");
    section.row(row, "ms", &cold).goal(1000.0);
    Ok(())
}

/// A release that differs by a page.
fn commit(app: &App<'_>, number: usize) -> anyhow::Result<()> {
    sample::commit(app, &app.own(&sample::processes(app, "")), number)
}

/// The whole command, in milliseconds.
async fn whole(app: &App<'_>, words: &[&str]) -> anyhow::Result<f64> {
    let took = app.cutover(words).await?.expect(0)?.took;
    sample::put_away(app).await?;
    Ok(milliseconds(took))
}

/// The same on the server, where it executes ssh once.
async fn once(app: &App<'_>, words: &[&str]) -> anyhow::Result<f64> {
    let client = &app.site().remote().client;
    let before = client.executions();
    let took = whole(app, words).await?;
    let count = client.executions() - before;
    ensure!(count == 1, "{count} executions of ssh for {words:?}");
    Ok(took)
}

/// In milliseconds.
async fn ssh_true(app: &App<'_>) -> anyhow::Result<f64> {
    let remote = app.site().remote();
    let address = remote.relay.address();
    let mut command = tokio::process::Command::new(remote.client.program());
    command.args(["-T", "-p", &address.port().to_string(), &format!("root@{}", address.ip()), "true"]);
    let began = Instant::now();
    let status = command.stdin(Stdio::null()).stderr(Stdio::null()).status().await.context("ssh")?;
    ensure!(status.success(), "`ssh HOST true` ended with {status}");
    Ok(milliseconds(began.elapsed()))
}

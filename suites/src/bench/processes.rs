//! Plain processes: a deploy beside the application's own start by hand, and rollbacks, warm and cold.

use std::net::{SocketAddr, TcpListener};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use cutover_testkit::site::{App, Site};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::figures::{differences, milliseconds};
use super::sample::{self, HOST, Ran, each};
use super::sheet::Section;

const ROUNDS: usize = 20;
const START: Duration = Duration::from_secs(20);

pub(super) async fn deploys() -> anyhow::Result<Section> {
    let site = Site::new()?;
    let app = site.app("sample", HOST)?;
    let config = sample::processes(&app, "");
    let mut number = 0;
    let mut release = || {
        number += 1;
        sample::commit(&app, &config, number)
    };
    release()?;
    sample::run(&app, &["deploy"]).await?;
    let (mut starts, mut runs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        release()?;
        starts.push(own_start(&app).await?);
        runs.push(sample::run(&app, &["deploy"]).await?);
    }
    let mut section = Section::new("Plain processes: one changed service, bake off");
    let whole = each(&runs, |ran| ran.whole);
    section
        .row("deploy, the whole command less the app's own start", "ms", &differences(&whole, &starts))
        .goal(150.0);
    section.row("  the whole command", "ms", &whole);
    section.row("  the app's own start, by hand", "ms", &starts);
    section.row("  the run on the host", "ms", &each(&runs, |ran| ran.run)).note(sample::stages_text(&runs));
    section.row("  the run's begin to switched", "ms", &each(&runs, |ran| ran.switched));
    Ok(section)
}

/// Starts the application as a person would, until its first good answer, in milliseconds.
async fn own_start(app: &App<'_>) -> anyhow::Result<f64> {
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let folder = app.repository().join("web");
    let mut command = tokio::process::Command::new(folder.join("guestbook"));
    command.arg("serve").current_dir(&folder).kill_on_drop(true).stdin(Stdio::null()).stdout(Stdio::null());
    command.env("HOST", address.ip().to_string()).env("PORT", address.port().to_string());
    let began = Instant::now();
    let mut child = command.spawn().context("the application")?;
    first_answer(address).await?;
    let took = began.elapsed();
    child.kill().await?;
    Ok(milliseconds(took))
}

/// Asks until it answers, as closely as makes a difference.
pub(super) async fn first_answer(address: SocketAddr) -> anyhow::Result<()> {
    let asking = async {
        while !is_healthy(address).await {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(START, asking).await.context("the application does not answer")
}

/// Whether `/health` is answered with 200.
async fn is_healthy(address: SocketAddr) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"GET /health HTTP/1.1\r\nhost: sample\r\nconnection: close\r\n\r\n").await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        std::io::Result::Ok(answer.starts_with(b"HTTP/1.1 200"))
    };
    ask.await.unwrap_or(false)
}

pub(super) async fn rollbacks() -> anyhow::Result<Section> {
    let warm = there_and_back("keep_warm: 10m\n").await?;
    let cold = there_and_back("").await?;
    let mut section = Section::new("Plain processes: rollback");
    section.row("warm: command to switched", "ms", &each(&warm, |ran| ran.to_switched)).goal(100.0);
    section.row("  the whole command", "ms", &each(&warm, |ran| ran.whole));
    section
        .row("  the run's begin to switched", "ms", &each(&warm, |ran| ran.switched))
        .note(sample::stages_text(&warm));
    section.row("cold: command to switched", "ms", &each(&cold, |ran| ran.to_switched));
    section.row("  the whole command", "ms", &each(&cold, |ran| ran.whole)).note(sample::stages_text(&cold));
    Ok(section)
}

/// Rollbacks from one release to another and back again.
async fn there_and_back(more: &str) -> anyhow::Result<Vec<Ran>> {
    let site = Site::new()?;
    let app = site.app("sample", HOST)?;
    let config = sample::processes(&app, more);
    for number in 0..2 {
        sample::commit(&app, &config, number)?;
        sample::run(&app, &["deploy"]).await?;
    }
    let mut runs = Vec::new();
    for _ in 0..ROUNDS {
        runs.push(sample::run(&app, &["rollback", "--yes"]).await?);
    }
    Ok(runs)
}

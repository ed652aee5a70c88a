//! A line more in an artifact of 100 MB, on its way to a server: by cutover and by `rsync -z`, which only copies, through the link of
//! [`super::ship`].

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use cutover_testkit::site::{App, Binaries, Site};

use super::figures::{milliseconds, ratios};
use super::sheet::Section;
use super::ship::{LINK, ROUNDS, as_figure, files_below};

/// Of this machine's own programs and libraries.
const BYTES: u64 = 100_000_000;
const KILOBYTE: f64 = 1_000.0;

/// Adds its rows.
pub(super) async fn measure(section: &mut Section, binaries: &Binaries) -> anyhow::Result<()> {
    let site = match Site::over_ssh(binaries.clone())? {
        Ok(site) => site,
        Err(why) => {
            section.not_run(why);
            return Ok(());
        }
    };
    let app = site.app("guestbook", "guestbook.localhost")?;
    app.commit("v1", |text| text.replace("bake: 1s", "bake: 0"))?;
    let file = app.repository().join("web/data");
    fill(&file)?;
    app.cutover(&["deploy"]).await?.expect(0)?;
    site.remote().relay.becomes(LINK);
    let ours = by_cutover(&app, &file).await?;
    section.row("a line more in an artifact of 100 MB: the step that ships", "ms", &ours.step);
    section.row("  the whole deploy, ssh and all", "ms", &ours.whole);
    section.row("  bytes of the chunks that changed, compressed", "kB", &ours.chunks);
    section
        .row("  bytes of the whole deploy", "kB", &ours.carried)
        .note("both directions, with the list of all chunks and the run's events");
    match by_rsync(&app, &file).await {
        Ok(theirs) => {
            section.row("  rsync -z of the same", "ms", &theirs.whole);
            section.row("  bytes of rsync -z", "kB", &theirs.carried);
            section.row("  the whole deploy over rsync -z", "×", &ratios(&ours.whole, &theirs.whole));
            section.row(
                "  bytes of the whole deploy over those of rsync -z",
                "×",
                &ratios(&ours.carried, &theirs.carried),
            );
        }
        Err(why) => section.not_run(format!("rsync: {why}")),
    }
    Ok(())
}

/// What it took, round by round.
#[derive(Default)]
struct Took {
    step: Vec<f64>,
    whole: Vec<f64>,
    chunks: Vec<f64>,
    carried: Vec<f64>,
}

/// What this machine has, one file behind the other.
fn fill(file: &Path) -> anyhow::Result<()> {
    let mut out = std::io::BufWriter::new(std::fs::File::create(file)?);
    let mut left = BYTES;
    for (path, _) in files_below(&["/usr/lib", "/usr/bin"]) {
        let Ok(from) = std::fs::File::open(path) else { continue };
        left -= std::io::copy(&mut from.take(left), &mut out)?;
        if left == 0 {
            return Ok(out.flush()?);
        }
    }
    anyhow::bail!("this machine has too few files")
}

/// Puts a line into the middle.
fn change(file: &Path, round: usize) -> anyhow::Result<()> {
    let mut content = std::fs::read(file)?;
    let middle = content.len() / 2;
    content.splice(middle..middle, format!("line {round}\n").into_bytes());
    Ok(std::fs::write(file, content)?)
}

async fn by_cutover(app: &App<'_>, file: &Path) -> anyhow::Result<Took> {
    let (relay, mut took) = (&app.site().remote().relay, Took::default());
    for round in 0..ROUNDS {
        change(file, round)?;
        let (before, began) = (relay.carried(), Instant::now());
        let told = app.cutover(&["deploy", "--json"]).await?.expect(0)?;
        took.whole.push(milliseconds(began.elapsed()));
        took.carried.push(as_figure(relay.carried() - before) / KILOBYTE);
        let lines =
            told.output.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let mut shipped = lines.filter(|line| line["kind"] == "shipped_files");
        let shipped = shipped.next().with_context(|| told.output.clone())?;
        took.step.extend(shipped["millis"].as_f64());
        took.chunks.extend(shipped["bytes"].as_f64().map(|bytes| bytes / KILOBYTE));
    }
    Ok(took)
}

async fn by_rsync(app: &App<'_>, file: &Path) -> anyhow::Result<Took> {
    let remote = app.site().remote();
    let (address, there) = (remote.relay.address(), app.site().folder().join("rsync"));
    std::fs::create_dir(&there)?;
    std::fs::copy(file, there.join("data"))?;
    let shell = format!("{} -p {}", remote.client.program().display(), address.port());
    let mut took = Took::default();
    for round in 0..ROUNDS {
        change(file, round)?;
        let (before, began) = (remote.relay.carried(), Instant::now());
        let mut command = tokio::process::Command::new("rsync");
        command.args(["--compress", "--checksum", "--rsh", &shell]).arg(file);
        command.arg(format!("root@{}:{}/", address.ip(), there.display())).kill_on_drop(true);
        let output = command.output().await?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        took.whole.push(milliseconds(began.elapsed()));
        took.carried.push(as_figure(remote.relay.carried() - before) / KILOBYTE);
    }
    Ok(took)
}

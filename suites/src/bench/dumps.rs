//! A snapshot of a `PostgreSQL` of a million rows, beside `pg_dump | zstd` of the same by hand, in turns; and the memory that it takes.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, ensure};
use cutover_core::journal::{Step, What};
use cutover_testkit::site::{App, Binaries, Site};

use crate::engine::{self, containers};
use crate::kept;
use crate::memory::{MOST, peaks_while};

use super::figures::{between, milliseconds, ratios};
use super::sample;
use super::sheet::Section;

const ROWS: u32 = 1_000_000;
const ROUNDS: usize = 5;
/// At least 0.95 × the speed by hand.
const SLOWEST: f64 = 1.0 / 0.95;

pub(super) async fn measure(binaries: &Binaries) -> anyhow::Result<Section> {
    let mut section = Section::new("Dumps: a snapshot of PostgreSQL, 1,000,000 rows");
    if Command::new("zstd").arg("--version").stdout(Stdio::null()).status().is_err() {
        section.not_run("zstd is not installed, the peer of this section");
        return Ok(section);
    }
    let usable = engine::usable().await;
    let engine = match usable.and_then(|engine| engine::databases_image(&engine).map(|()| engine)) {
        Ok(engine) => engine,
        Err(why) => {
            section.not_run(why);
            return Ok(section);
        }
    };
    let site = Site::on_engine(binaries.clone(), engine).await?;
    let app = site.app("kept", kept::HOST)?;
    kept::commit(&app, "");
    app.cutover(&["deploy"]).await?.expect(0)?;
    let fill = format!(
        "create table entries as select n as id, md5(n::text) as name, md5((n * 7)::text) as message, \
         now() as written from generate_series(1, {ROWS}) n"
    );
    kept::query(&app, &fill).await;
    kept::query(&app, "alter table entries add primary key (id)").await;
    let file = site.folder().join("by-hand.zst");
    // The first of each finds what the database has to read from disk.
    by_hand(&app, &file)?;
    let (mut hands, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        hands.push(by_hand(&app, &file)?);
        ours.push(by_cutover(&app).await?);
    }
    report(&mut section, &hands, &ours, fs::metadata(&file)?.len());
    Ok(section)
}

/// One snapshot.
struct Taken {
    /// The whole command, in milliseconds.
    whole: f64,
    /// The dump, read back and known by its hash, in milliseconds.
    step: f64,
    /// Of the run, at its peak, in megabytes.
    memory: f64,
    bytes: u64,
}

fn report(section: &mut Section, hands: &[f64], ours: &[Taken], by_hand: u64) {
    let each = |figure: fn(&Taken) -> f64| ours.iter().map(figure).collect::<Vec<f64>>();
    let steps = each(|taken| taken.step);
    let bytes = ours.last().map_or(0, |taken| taken.bytes);
    section
        .row("pg_dump | zstd, into a file", "ms", hands)
        .note(format!("{:.1} MB; neither read back nor flushed to disk", megabytes(by_hand)));
    section
        .row("the snapshot: dumped, flushed to disk, read back, hashed", "ms", &steps)
        .note(format!("{:.1} MB", megabytes(bytes)));
    section.row("the snapshot over pg_dump | zstd", "×", &ratios(&steps, hands)).goal(SLOWEST);
    section.row("the whole command", "ms", &each(|taken| taken.whole));
    section.row("memory of the run, at its peak", "MB", &each(|taken| taken.memory)).goal(megabytes(MOST));
}

/// By the client in the database's own container, as a script would.
fn by_hand(app: &App<'_>, file: &Path) -> anyhow::Result<f64> {
    let container = containers(app, "postgres");
    let line = format!(
        "docker exec {container} sh -c 'PGPASSWORD=$POSTGRES_PASSWORD exec pg_dump -h 127.0.0.1 -U kept kept' | zstd -q -f -o '{}'",
        file.display()
    );
    let address = app.site().docker().context("a site on an engine")?.address();
    let began = Instant::now();
    let status = Command::new("sh").args(["-c", &line]).env("DOCKER_HOST", address).status()?;
    ensure!(status.success(), "`{line}` ended with {status}");
    Ok(milliseconds(began.elapsed()))
}

async fn by_cutover(app: &App<'_>) -> anyhow::Result<Taken> {
    let (peaks, told) = peaks_while(app.site(), app.cutover(&["snapshot", "create"])).await;
    let told = told?.expect(0)?;
    let memory = *peaks.get("run").context("the run was never seen")?;
    let run = sample::verdict(app).await?.run;
    let entries = app.site().journal(run)?;
    let is_snapshot = |what: &What| matches!(what, What::Intent { step: Step::Snapshot { .. }, .. });
    let begun = entries.iter().find(|entry| is_snapshot(&entry.what)).context("no snapshot was begun")?;
    let is_its_end = |what: &What| matches!(what, What::Outcome { intent, .. } if *intent == begun.seq);
    let ended = entries.iter().find(|entry| is_its_end(&entry.what)).context("it did not end")?;
    let folder = app.site().layout().snapshots(app.id());
    let newest = fs::read_dir(&folder)?.flatten().filter_map(|file| file.metadata().ok());
    let bytes = newest.max_by_key(|file| file.modified().ok()).map_or(0, |file| file.len());
    let step = between(begun.at, ended.at);
    Ok(Taken { whole: milliseconds(told.took), step, memory: megabytes(memory), bytes })
}

#[expect(clippy::cast_precision_loss, reason = "of no figure here so much is told")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

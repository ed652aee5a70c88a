//! The benchmark: what the promises of speed come to on this machine. Sections are measured one after another, what is compared within one
//! takes turns, and no figure fails it: only what cannot be measured does.

mod commands;
mod docker;
mod dumps;
mod exits;
mod figures;
mod files;
mod floor;
mod idle;
pub mod kernel;
mod processes;
mod sample;
mod sheet;
mod ship;
mod ssh;
pub mod streak;
pub mod telling;
mod throughput;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use cutover_testkit::site::Binaries;

use sheet::{Machine, Section, Sheet};

/// It ends, whatever happens.
const LONGEST: Duration = Duration::from_mins(20);

/// What can be asked for, in the order in which it is measured.
const SECTIONS: [&str; 11] =
    ["commands", "deploys", "rollbacks", "exits", "docker", "row", "idle", "ship", "ssh", "proxy", "dumps"];

/// Measures these sections, all where none is named; an error says what could not be measured.
pub fn run(asked: &[String]) -> anyhow::Result<()> {
    for name in asked {
        ensure!(SECTIONS.contains(&name.as_str()), "no section `{name}`: there are {}", SECTIONS.join(", "));
    }
    let binaries = Binaries::beside_this_program()?;
    let file = sheet_file()?;
    let began = Instant::now();
    let mut sheet = Sheet::new(Machine::look());
    telling::title(&sheet.machine);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let measured = runtime.block_on(async {
        let all = async {
            for name in SECTIONS.iter().filter(|name| is_asked(asked, name)) {
                telling::now(name);
                let section = measure(name, &binaries).await.with_context(|| format!("section `{name}`"))?;
                sheet.add(section);
            }
            anyhow::Ok(())
        };
        tokio::select! {
            measured = all => measured,
            _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
            () = tokio::time::sleep(LONGEST) => Err(anyhow::anyhow!("no end within {LONGEST:?}")),
        }
    });
    // What was measured so far is worth keeping.
    sheet.write(&file, began.elapsed())?;
    measured?;
    telling::end(&sheet, &file, began.elapsed());
    Ok(())
}

fn is_asked(asked: &[String], name: &str) -> bool {
    asked.is_empty() || asked.iter().any(|asked| asked == name)
}

async fn measure(name: &str, binaries: &Binaries) -> anyhow::Result<Section> {
    match name {
        "commands" => commands::measure(binaries),
        "deploys" => processes::deploys().await,
        "rollbacks" => processes::rollbacks().await,
        "docker" => docker::deploys(binaries).await,
        "exits" => exits::measure().await,
        "idle" => idle::measure().await,
        "ship" => ship::measure(binaries).await,
        "ssh" => ssh::measure(binaries).await,
        "dumps" => dumps::measure(binaries).await,
        "row" => streak::measure(binaries).await,
        _ => throughput::measure().await,
    }
}

/// `bench.json` in cargo's target folder.
fn sheet_file() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("this program does not know where it lies")?;
    let target = own.parent().and_then(|profile| profile.parent());
    Ok(target.context("this program lies in no target folder")?.join("bench.json"))
}

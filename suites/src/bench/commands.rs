//! What the command line takes for itself: `--help`, and `check` on the documented model configuration.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::ensure;
use cutover_testkit::site::Binaries;

use super::figures::milliseconds;
use super::sheet::Section;

const ROUNDS: usize = 60;

/// CONFIG.md's model, as the core's tests read it.
const MODEL: &str = include_str!("../../../crates/core/fixtures/config/model.yml");

pub(super) fn measure(binaries: &Binaries) -> anyhow::Result<Section> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("cutover.yml"), MODEL)?;
    let (mut nothing, mut help, mut check) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        nothing.push(time(Path::new("/bin/true"), &[], folder.path())?);
        help.push(time(&binaries.cutover, &["--help"], folder.path())?);
        check.push(time(&binaries.cutover, &["check", "-e", "production"], folder.path())?);
    }
    let mut section = Section::new("The command line");
    section.row("`cutover --help`", "ms", &help).goal(10.0);
    section.row("`cutover check -e production` of the model configuration", "ms", &check).goal(20.0);
    section.row("for comparison: `/bin/true`", "ms", &nothing);
    Ok(section)
}

/// In milliseconds, from before its start until it was waited for.
fn time(program: &Path, words: &[&str], folder: &Path) -> anyhow::Result<f64> {
    let mut command = Command::new(program);
    command.args(words).current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let began = Instant::now();
    let status = command.status()?;
    let took = milliseconds(began.elapsed());
    ensure!(status.success(), "`{}` {words:?} ended with {status}", program.display());
    Ok(took)
}

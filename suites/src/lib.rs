//! What the suites of the real thing share: the demonstration's story, the benchmark, scenes that are tried with plain processes and with containers,
//! bad input, and runs that are killed at a chosen step. Never shipped.

use anyhow::ensure;
use cutover_testkit::site::Binaries;

pub mod bench;
pub mod built_there;
pub mod demo;
pub mod disk;
pub mod engine;
pub mod hardships;
pub mod input;
pub mod kept;
pub mod loads;
pub mod matrix;
pub mod memory;
pub mod neighbours;
pub mod on_the_way;
pub mod pages;
pub mod registry;
pub mod rehearsed;
pub mod rows;
pub mod scenes;
pub mod servers;
pub mod stopped;
pub mod terminal;
mod troubleshooting;

/// The number of the journal's entry at which a run of `suite-host` ends itself with -9. Read there only.
pub const KILL_AT: &str = "CUTOVER_SUITE_KILL_AT";
/// In the place of an entry's number: the verdict.
pub const VERDICT: &str = "verdict";
/// The number of the journal's entry at which a run of `suite-host` stops itself, as a process that hangs. Read there only.
pub const STOP_AT: &str = "CUTOVER_SUITE_STOP_AT";

/// The file that names a stage in which a run of `suite-host` stops itself, as its first entry is written. On servers of the tests' own only.
pub const STOP_IN: &str = "/run/cutover-suite-stop-in";

/// The programs of a site whose runs can be killed, or hang, at a chosen step.
pub fn killing_binaries() -> anyhow::Result<Binaries> {
    let binaries = Binaries::beside_this_program()?;
    let host = binaries.host.with_file_name("suite-host");
    ensure!(host.is_file(), "run `cargo build -p cutover-suites --bins` first");
    Ok(binaries.with_host(host))
}

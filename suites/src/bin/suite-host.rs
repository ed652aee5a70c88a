//! `cutover-host` as it ships, whose run ends itself with -9 at one entry of its journal: the one whose number stands in
//! `CUTOVER_SUITE_KILL_AT`. The product knows nothing of this variable.

use std::process::ExitCode;
use std::sync::Arc;

use cutover_host::run::Also;
use rustix::process::{Signal, getpid, kill_process};

fn main() -> ExitCode {
    cutover_host_bin::main_heard_by(killer())
}

fn killer() -> Option<Also> {
    let at: u64 = std::env::var(cutover_suites::KILL_AT).ok()?.parse().ok()?;
    Some(Arc::new(move |entry| {
        if entry.seq == at {
            // It does not come back from here.
            kill_process(getpid(), Signal::KILL).unwrap_or_default();
        }
    }))
}

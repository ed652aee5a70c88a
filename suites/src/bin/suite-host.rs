//! `cutover-host` as it ships, whose run ends itself with -9, or stops itself, at one entry of its journal: the one whose number stands in
//! `CUTOVER_SUITE_KILL_AT` or `CUTOVER_SUITE_STOP_AT`. The product knows nothing of these variables.

use std::process::ExitCode;
use std::sync::Arc;

use cutover_host::run::Also;
use rustix::process::{Signal, getpid, kill_process};

fn main() -> ExitCode {
    let signalled = signal_at(cutover_suites::KILL_AT, Signal::KILL)
        .or_else(|| signal_at(cutover_suites::STOP_AT, Signal::STOP));
    cutover_host_bin::main_heard_by(signalled)
}

fn signal_at(variable: &str, signal: Signal) -> Option<Also> {
    let at: u64 = std::env::var(variable).ok()?.parse().ok()?;
    Some(Arc::new(move |entry| {
        if entry.seq == at {
            // It does not come back from here by itself.
            kill_process(getpid(), signal).unwrap_or_default();
        }
    }))
}

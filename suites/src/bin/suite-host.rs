//! `cutover-host` as it ships, whose run ends itself with -9, or stops itself, at one entry of its journal: the one whose number stands in
//! `CUTOVER_SUITE_KILL_AT` or `CUTOVER_SUITE_STOP_AT` (or its verdict), or the first of the stage that a file names. The product knows nothing of these.

use std::process::ExitCode;
use std::sync::Arc;

use cutover_core::journal::What;
use cutover_host::run::Also;
use rustix::process::{Signal, getpid, kill_process};

fn main() -> ExitCode {
    let signalled = signal_at(cutover_suites::KILL_AT, Signal::KILL)
        .or_else(|| signal_at(cutover_suites::STOP_AT, Signal::STOP))
        .unwrap_or_else(stop_in);
    cutover_host_bin::main_heard_by(Some(signalled))
}

fn signal_at(variable: &str, signal: Signal) -> Option<Also> {
    let at = std::env::var(variable).ok()?;
    let number: Option<u64> = at.parse().ok();
    let is_verdict = at == cutover_suites::VERDICT;
    Some(Arc::new(move |entry| {
        if Some(entry.seq) == number || (is_verdict && matches!(entry.what, What::Verdict { .. })) {
            send_myself(signal);
        }
    }))
}

/// Once: the file goes first.
fn stop_in() -> Also {
    Arc::new(|entry| {
        let (What::Entered { stage } | What::Skipped { stage, .. }) = &entry.what else { return };
        let named = std::fs::read_to_string(cutover_suites::STOP_IN).unwrap_or_default();
        if named.trim() == stage.as_str() && std::fs::remove_file(cutover_suites::STOP_IN).is_ok() {
            send_myself(Signal::STOP);
        }
    })
}

/// It does not come back from here by itself.
fn send_myself(signal: Signal) {
    kill_process(getpid(), signal).unwrap_or_default();
}

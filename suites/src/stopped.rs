//! Runs that stop themselves at a step of their journal ([`STOP_AT`](crate::STOP_AT)), so that something can happen to their host there.
#![allow(clippy::unwrap_used, reason = "a part of tests: it stops where it fails")]

use std::time::Duration;

use cutover_core::journal::{Entry, What};
use cutover_testkit::site::{App, Process, Site};
use cutover_testkit::wait_until;
use rustix::process::{Pid, Signal, kill_process};

/// On every wait.
const DEADLINE: Duration = Duration::from_secs(60);

/// The process of a run, once the kernel has stopped it.
pub async fn stopped_run(site: &Site) -> u32 {
    wait_until("a run that is stopped", DEADLINE, async || {
        let all = site.processes();
        let run = all.iter().find(|found| found.process == Process::Run)?;
        (state(run.pid)? == 'T').then_some(run.pid)
    })
    .await
    .unwrap()
}

/// The kernel's letter for a process; none where there is none.
pub fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// Lets it go on.
pub fn go_on(pid: u32) {
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::CONT).unwrap();
}

/// The journal of the run that ended last.
pub async fn last_journal(app: &App<'_>) -> Vec<Entry> {
    let last = app.status().await.unwrap().last.expect("a run has ended");
    app.site().journal(last.run).unwrap()
}

/// The number of the first entry of which this is so.
pub fn step_of(journal: &[Entry], is: impl Fn(&What) -> bool) -> u64 {
    journal.iter().find(|entry| is(&entry.what)).expect("the run has no such entry").seq
}

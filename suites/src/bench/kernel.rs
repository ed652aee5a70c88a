//! What the kernel says of a process: memory, processor time, wake-ups, open files.

use std::fs;
use std::time::Duration;

use serde::Serialize;

/// Clock ticks in a second, as `/proc` counts them on every Linux.
const TICKS: u64 = 100;

/// One look at a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Look {
    /// Resident bytes; pages that several processes share count in each.
    pub rss: u64,
    /// Resident bytes; shared pages count in part.
    pub pss: u64,
    /// Processor time so far, of threads that have ended too; in ticks of 10 ms.
    pub processor: Duration,
    /// Times a thread gave the processor up and was woken again.
    pub wakes: u64,
    /// Open file descriptors.
    pub descriptors: u64,
}

/// Looks at a process; `None`: it is gone.
pub fn look(pid: u32) -> Option<Look> {
    let text = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).ok();
    let status = text("status")?;
    let rollup = text("smaps_rollup").unwrap_or_default();
    Some(Look {
        rss: kilobytes(&status, "VmRSS:"),
        pss: kilobytes(&rollup, "Pss:"),
        processor: ticks(&text("stat").unwrap_or_default()),
        wakes: statuses(pid).map(|status| field(&status, "voluntary_ctxt_switches:")).sum(),
        descriptors: fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |all| all.count() as u64),
    })
}

/// The most resident bytes that a process has had; `None`: it is gone.
pub fn peak(pid: u32) -> Option<u64> {
    Some(kilobytes(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?, "VmHWM:"))
}

/// The processes that this one started.
pub(super) fn children(parent: u32) -> Vec<u32> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = all.filter_map(|item| item.file_name().to_str()?.parse().ok());
    let of = |pid: &u32| {
        fs::read_to_string(format!("/proc/{pid}/status"))
            .is_ok_and(|status| field(&status, "PPid:") == u64::from(parent))
    };
    pids.filter(of).collect()
}

impl Look {
    /// Several processes as one.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            rss: self.rss + other.rss,
            pss: self.pss + other.pss,
            processor: self.processor + other.processor,
            wakes: self.wakes + other.wakes,
            descriptors: self.descriptors + other.descriptors,
        }
    }
}

/// Of each thread.
fn statuses(pid: u32) -> impl Iterator<Item = String> {
    let all = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    all.filter_map(|thread| fs::read_to_string(thread.path().join("status")).ok())
}

fn ticks(stat: &str) -> Duration {
    // The name in parentheses may have spaces in it.
    let after = stat.rsplit(')').next().unwrap_or_default();
    let used = after.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok());
    Duration::from_millis(used.sum::<u64>() * 1_000 / TICKS)
}

fn kilobytes(text: &str, name: &str) -> u64 {
    field(text, name) * 1024
}

fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_a_name_with_spaces_then_the_ticks_are_still_found() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 0 0 0 0 0 12 30 0 0 20 0 1 0 5";
        assert_eq!(ticks(stat), Duration::from_millis(420));
    }

    #[test]
    fn given_this_very_process_then_it_has_memory_and_files() {
        let found = look(std::process::id());
        assert!(found.is_some_and(|found| found.rss > 0 && found.descriptors > 2), "{found:?}");
    }
}

//! Processes as the kernel shows them. A process is known by boot, pid and start time (S6): a pid alone is given away again.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal};
use serde::{Deserialize, Serialize};

use crate::readiness::readable;

/// A process of this boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct ProcessId {
    /// Its number.
    pub(super) pid: i32,
    /// When it began, in clock ticks since the boot.
    pub(crate) start: u64,
}

/// What the kernel tells of a process in one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) id: ProcessId,
    pub(super) parent: i32,
    pub(super) session: i32,
    /// It has ended and waits for its parent to hear of it.
    pub(crate) ended: bool,
    /// It was stopped where it is, and goes on when it is told.
    pub(super) stopped: bool,
    /// It waits for the kernel: for a disk, or for a child that shares its memory to become another program.
    pub(super) waits: bool,
}

/// The id of this boot; empty where the kernel tells none.
pub(super) fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

impl ProcessId {
    /// The process that has this pid now.
    pub(super) fn of(pid: i32) -> Option<Self> {
        stat(pid).map(|stat| stat.id)
    }

    /// Whether it is there and has not ended.
    pub(super) fn is_alive(self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.id == self && !stat.ended)
    }

    /// A handle that stays with this process whatever becomes of its pid; `None`: it is gone.
    pub(super) fn open(self) -> io::Result<Option<Handle>> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(None) };
        match rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK) {
            // The pid was looked up anew: only when the start time agrees afterwards is it the one that was meant.
            Ok(descriptor) if self.is_alive() => Ok(Some(Handle { id: self, descriptor })),
            Ok(_) | Err(rustix::io::Errno::SRCH) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// A process held by a descriptor of the kernel's.
#[derive(Debug)]
pub(super) struct Handle {
    id: ProcessId,
    descriptor: OwnedFd,
}

impl Handle {
    /// Which it is.
    pub(super) fn id(&self) -> ProcessId {
        self.id
    }

    /// Sends it a signal; one that has ended is no error.
    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        match rustix::process::pidfd_send_signal(&self.descriptor, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for its end, which the kernel tells on the descriptor.
    pub(super) async fn ended(&self) -> io::Result<()> {
        readable(self.descriptor.try_clone()?)?.readable().await.map(drop)
    }

    /// Waits for its end, at most so long; tells whether it ended.
    pub(super) async fn ended_within(&self, patience: Duration) -> io::Result<bool> {
        match tokio::time::timeout(patience, self.ended()).await {
            Ok(ended) => ended.map(|()| true),
            Err(_) => Ok(false),
        }
    }
}

/// What the kernel tells of one process; `None`: there is none of this pid.
pub(crate) fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// All processes that can be seen.
pub(super) fn all() -> Vec<Stat> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(stat)
        .collect()
}

/// Whether a process was started with all of these variables. One that may not be looked into has none.
pub(super) fn has_environment(pid: i32, wanted: &[(&str, &str)]) -> bool {
    let Ok(bytes) = fs::read(Path::new("/proc").join(pid.to_string()).join("environ")) else { return false };
    let pairs: Vec<&[u8]> = bytes.split(|byte| *byte == 0).collect();
    wanted.iter().all(|(name, value)| pairs.contains(&format!("{name}={value}").as_bytes()))
}

/// Reads a line of `/proc/PID/stat`. The command's name stands in parentheses and may itself have any character.
fn parse_stat(text: &str) -> Option<Stat> {
    let pid = text.split(' ').next()?.parse().ok()?;
    let rest: Vec<&str> = text.get(text.rfind(')')? + 2..)?.split(' ').collect();
    // Counted from the state, which is field 3 of proc(5).
    let field = |number: usize| rest.get(number - 3).copied();
    Some(Stat {
        id: ProcessId { pid, start: field(22)?.parse().ok()? },
        parent: field(4)?.parse().ok()?,
        session: field(6)?.parse().ok()?,
        ended: matches!(field(3)?, "Z" | "X" | "x"),
        stopped: field(3)? == "T",
        waits: field(3)? == "D",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_with_parentheses_and_spaces_is_read() {
        let line = "42 (a) b (c) S 7 40 39 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 98765 1 2 3\n";
        let stat = parse_stat(line).unwrap();
        assert_eq!(stat.id, ProcessId { pid: 42, start: 98765 });
        assert_eq!((stat.parent, stat.session, stat.ended), (7, 39, false));
    }

    #[test]
    fn this_process_is_found_alive_and_another_of_its_pid_is_not_taken_for_it() {
        let own = ProcessId::of(std::process::id().cast_signed()).unwrap();
        assert!(own.is_alive());
        assert!(own.open().unwrap().is_some());
        let earlier = ProcessId { start: own.start - 1, ..own };
        assert!(!earlier.is_alive());
        assert!(earlier.open().unwrap().is_none());
        assert!(all().iter().any(|stat| stat.id == own));
    }
}

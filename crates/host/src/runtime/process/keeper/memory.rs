//! Whether the kernel killed a process for want of memory. It counts such kills for the whole machine, and names the victim in its log: the
//! count says whether to look, the log says whom.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;

use rustix::fs::OFlags;

/// Kills for want of memory since the boot.
pub(super) fn kills() -> u64 {
    kills_in(&fs::read_to_string("/proc/vmstat").unwrap_or_default())
}

/// Whether the kernel's log names the process as a victim. A log that may not be read leaves it at the count, which has risen.
pub(super) fn was_victim(pid: i32) -> bool {
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    match OpenOptions::new().read(true).custom_flags(flags).open("/dev/kmsg") {
        Ok(log) => names(log, pid),
        Err(_) => true,
    }
}

/// Each read of the log gives one record, and an error where there is none left. One that was overwritten meanwhile is an error, too: the
/// next read goes on behind it.
fn names(mut log: File, pid: i32) -> bool {
    let mut record = [0; 8 * 1024];
    loop {
        match log.read(&mut record) {
            Ok(0) => return false,
            Ok(count) if is_victim(&String::from_utf8_lossy(&record[..count]), pid) => return true,
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::PIPE.raw_os_error()) => {}
            Err(_) => return false,
        }
    }
}

fn kills_in(vmstat: &str) -> u64 {
    let count = vmstat.lines().find_map(|line| line.strip_prefix("oom_kill "));
    count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

/// The kernel's words have been these since Linux 2.6.
fn is_victim(record: &str, pid: i32) -> bool {
    record.contains(&format!("Killed process {pid} (")) || record.contains(&format!("Killed process {pid},"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_and_the_victim_are_read() {
        assert_eq!(kills_in("pgfault 5\noom_kill 3\nother 1\n"), 3);
        assert_eq!(kills_in(""), 0);
        let record = "3,1042,5104,-;Out of memory: Killed process 4711 (server) total-vm:1kB, anon-rss:1kB";
        assert!(is_victim(record, 4711));
        assert!(!is_victim(record, 471));
        let group = "3,1,1,-;Memory cgroup out of memory: Killed process 12 (web) total-vm:1kB";
        assert!(is_victim(group, 12));
    }
}

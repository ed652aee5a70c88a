//! Whether the kernel killed a process for want of memory. It counts such kills for the whole machine, and names the victim in its log: the
//! count says whether to look, the log says whom.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use jiff::Timestamp;
use rustix::fs::OFlags;

/// What the log's clock may be off by, besides a part of the time since the boot: nobody sets it.
const CLOCKS: Duration = Duration::from_secs(2);
/// That part: 200 in a million, twice what the worst quartz does.
const DRIFT: u32 = 5_000;
/// From the kill to the end of what was killed, and of a shell that started it. A container whose child was killed long before ended for another reason.
const DYING: Duration = Duration::from_secs(10);

/// Kills for want of memory since the boot.
pub(super) fn kills() -> u64 {
    kills_in(&fs::read_to_string("/proc/vmstat").unwrap_or_default())
}

/// Whether the kernel's log names the process as a victim. A log that may not be read leaves it at the count, which has risen.
pub(super) fn was_victim(pid: i32) -> bool {
    log().map_or(true, |log| records(log).any(|record| is_victim(&record, pid)))
}

/// Whether the kernel's log names a victim in a container, by its id, not long before it ended; whenever, where its end is not known. A log that may not be
/// read names nobody.
pub(super) fn had_victim(container: &str, ended_at: Option<Timestamp>) -> bool {
    if kills() == 0 {
        return false;
    }
    let ended = ended_at.map_or(Ok(Duration::ZERO), uptime_at);
    let Ok(since) = ended.map(|ended| ended.saturating_sub(DYING + CLOCKS + ended / DRIFT)) else {
        return false;
    };
    log().is_ok_and(|log| records(log).any(|record| is_victim_in(&record, container, since)))
}

fn log() -> io::Result<File> {
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    OpenOptions::new().read(true).custom_flags(flags).open("/dev/kmsg")
}

/// Each read of the log gives one record, and an error where there is none left. One that was overwritten meanwhile is an error, too: the
/// next read goes on behind it.
fn records(mut log: File) -> impl Iterator<Item = String> {
    let mut record = [0; 8 * 1024];
    std::iter::from_fn(move || {
        loop {
            match log.read(&mut record) {
                Ok(0) => return None,
                Ok(count) => return Some(String::from_utf8_lossy(&record[..count]).into_owned()),
                Err(error) if error.raw_os_error() == Some(rustix::io::Errno::PIPE.raw_os_error()) => {}
                Err(_) => return None,
            }
        }
    })
}

fn kills_in(vmstat: &str) -> u64 {
    let count = vmstat.lines().find_map(|line| line.strip_prefix("oom_kill "));
    count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

/// How long the machine had been up at a moment; before its boot it is nothing.
fn uptime_at(moment: Timestamp) -> io::Result<Duration> {
    let text = fs::read_to_string("/proc/uptime")?;
    let up = text.split_whitespace().next().and_then(|seconds| seconds.parse().ok());
    let up = Duration::from_secs_f64(up.ok_or(io::ErrorKind::InvalidData)?);
    let ago = Timestamp::now().duration_since(moment).try_into().unwrap_or_default();
    Ok(up.saturating_sub(ago))
}

/// The kernel's words have been these since Linux 2.6.
fn is_victim(record: &str, pid: i32) -> bool {
    record.contains(&format!("Killed process {pid} (")) || record.contains(&format!("Killed process {pid},"))
}

/// Engines name a container's control group by its id. `priority,number,microseconds since the boot,flags;text`; the words are those of
/// Linux 5.0 and later.
fn is_victim_in(record: &str, container: &str, since: Duration) -> bool {
    let Some((head, text)) = record.split_once(';') else { return false };
    let at = head.split(',').nth(2).and_then(|at| at.parse().ok()).map(Duration::from_micros);
    let group = text.split_once(",task_memcg=").map(|(_, rest)| rest.split(',').next().unwrap_or(rest));
    text.starts_with("oom-kill:")
        && at.is_some_and(|at| at >= since)
        && group.is_some_and(|group| group.contains(container))
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

    #[test]
    fn a_victim_in_a_container_is_told_by_the_containers_group() {
        let groups =
            ["/docker/74a8", "/system.slice/docker-74a8.scope", "/user.slice/libpod-74a8.scope/container"];
        for group in groups {
            let record = format!(
                "6,2210,5000000,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=beef,mems_allowed=0,oom_memcg=/cafe,task_memcg={group},task=sh,pid=19,uid=0"
            );
            assert!(is_victim_in(&record, "74a8", Duration::from_secs(5)), "{group}");
            assert!(!is_victim_in(&record, "74a8", Duration::from_secs(6)), "long before its end");
            assert!(
                !is_victim_in(&record, "beef", Duration::ZERO)
                    && !is_victim_in(&record, "cafe", Duration::ZERO)
            );
        }
        assert!(!is_victim_in("6,1,5000000,-;web: task_memcg=/docker/74a8,", "74a8", Duration::ZERO));
    }

    #[test]
    fn a_moment_before_the_boot_is_none_of_the_uptime() {
        assert_eq!(uptime_at(Timestamp::UNIX_EPOCH).unwrap(), Duration::ZERO);
        assert!(uptime_at(Timestamp::now()).unwrap() > Duration::ZERO);
    }
}

//! Locks in a repository, and whether who holds one still works. restic's own look at them is not enough: where nobody takes back the numbers of
//! ended processes it counts them as alive, and it asks by a signal (SIGHUP) that ends a stranger who has got the number since. So it is never
//! asked to tell which are left, only to take them all away once all of them are.

use std::fmt;
use std::fs;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use super::prose::Trouble;
use super::restic::{Restic, ResticError};
use super::work::doing;
use crate::runtime::process::stat;

/// For another process to let go of the repository: its backup may take hours, and ours is not worth less for it.
pub(super) const LET_GO: Duration = Duration::from_hours(12);
/// Between two looks.
const AGAIN: Duration = Duration::from_secs(2);
/// Whoever works says so anew every five minutes; restic itself takes an older lock for left.
const OLD: SignedDuration = SignedDuration::from_mins(30);
/// Ticks of the kernel in a second, as it tells them to programs.
const TICKS: u64 = 100;

/// A lock, as restic writes it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Lock {
    time: Timestamp,
    hostname: String,
    pid: i32,
}

impl fmt::Display for Lock {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "process {} of host {}, which said so at {:.0}", self.pid, self.hostname, self.time)
    }
}

/// A process of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Process {
    name: String,
    began: Timestamp,
}

impl Lock {
    /// Whether nobody works under it any more: `process` finds one of this host that has not ended.
    fn is_left(&self, now: Timestamp, host: &str, process: impl Fn(i32) -> Option<Process>) -> bool {
        if now.duration_since(self.time) > OLD {
            return true;
        }
        if self.hostname != host {
            return false;
        }
        // A number that was given away again: it began after it is said to have written this, and is another program.
        process(self.pid).is_none_or(|found| found.began > self.time && !found.name.contains("restic"))
    }
}

/// What a look at the locks came to.
#[derive(Debug, PartialEq, Eq)]
enum Looked {
    /// There was none.
    Clear,
    /// What was left is gone.
    Swept,
    /// Somebody works.
    Works(Lock),
}

impl Restic {
    /// Takes away what ended processes have left, where nobody works; whether there was something.
    pub(super) async fn sweep(&self) -> Result<bool, ResticError> {
        self.look().await.map(|looked| looked == Looked::Swept)
    }

    /// Returns once nobody else holds a lock, and none is left.
    pub(super) async fn alone(&self) -> Result<(), ResticError> {
        let end = Instant::now() + LET_GO;
        let mut told = None;
        while let Looked::Works(lock) = self.look().await? {
            let who = lock.to_string();
            if Instant::now() >= end {
                return Err(ResticError { trouble: Trouble::Locked, words: who });
            }
            if told.as_ref() != Some(&who) {
                doing(format!("waits for {who}"));
                told = Some(who);
            }
            sleep(AGAIN).await;
        }
        Ok(())
    }

    async fn look(&self) -> Result<Looked, ResticError> {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        loop {
            let ids = self.lock_ids().await?;
            let locks = self.locks(&ids).await?;
            if let Some(lock) = locks.iter().find(|lock| !lock.is_left(Timestamp::now(), &host, process)) {
                return Ok(Looked::Works(lock.clone()));
            }
            if ids.is_empty() {
                return Ok(Looked::Clear);
            }
            // Who has begun since is not to lose his.
            if self.lock_ids().await? == ids {
                return self.run(&["unlock", "--remove-all"]).await.map(|_| Looked::Swept);
            }
        }
    }

    /// Those that can be read: of others restic takes no notice.
    async fn locks(&self, ids: &[String]) -> Result<Vec<Lock>, ResticError> {
        let mut locks = Vec::new();
        for id in ids {
            match self.run(&["cat", "--no-lock", "lock", id]).await {
                Ok(text) => locks.extend(serde_json::from_str::<Lock>(&text)),
                // It may be gone by now.
                Err(error) if error.trouble != Trouble::Damaged && self.lock_ids().await?.contains(id) => {
                    return Err(error);
                }
                Err(_) => {}
            }
        }
        Ok(locks)
    }

    async fn lock_ids(&self) -> Result<Vec<String>, ResticError> {
        let text = self.run(&["list", "--no-lock", "locks"]).await?;
        Ok(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect())
    }
}

/// A process that has not ended.
fn process(pid: i32) -> Option<Process> {
    let stat = stat(pid).filter(|stat| !stat.ended)?;
    let up: f64 = fs::read_to_string("/proc/uptime").ok()?.split(' ').next()?.parse().ok()?;
    let since = Duration::from_secs_f64(up).saturating_sub(Duration::from_secs(stat.id.start / TICKS));
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim().to_owned();
    Some(Process { name, began: Timestamp::now() - since })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::constant(1_790_000_000, 0);

    fn ago(minutes: i64) -> Timestamp {
        NOW - SignedDuration::from_mins(minutes)
    }

    fn lock(minutes: i64) -> Lock {
        Lock { time: ago(minutes), hostname: "here".to_owned(), pid: 7 }
    }

    fn runs(name: &str, minutes: i64) -> impl Fn(i32) -> Option<Process> {
        let found = Process { name: name.to_owned(), began: ago(minutes) };
        move |_| Some(found.clone())
    }

    #[test]
    fn a_lock_is_left_once_its_process_of_this_host_has_ended_or_is_another() {
        assert!(lock(1).is_left(NOW, "here", |_| None));
        assert!(!lock(1).is_left(NOW, "here", runs("restic", 2)));
        assert!(!lock(1).is_left(NOW, "here", runs("backup-tool", 2)), "restic by another name");
        assert!(lock(2).is_left(NOW, "here", runs("nginx", 1)), "its number was given away again");
        assert!(!lock(2).is_left(NOW, "here", runs("restic", 1)), "a clock that was put on");
    }

    #[test]
    fn a_lock_of_another_host_is_left_when_it_is_old() {
        assert!(!lock(29).is_left(NOW, "there", |_| None));
        assert!(lock(31).is_left(NOW, "there", |_| None));
    }

    #[test]
    fn what_restic_writes_is_read() {
        let text = "{\n  \"time\": \"2026-11-26T10:41:38.123456789+01:00\",\n  \"exclusive\": false,\n  \"hostname\": \"web\",\n  \"username\": \"root\",\n  \"pid\": 4711\n}";
        let lock: Lock = serde_json::from_str(text).unwrap();
        assert_eq!(lock.to_string(), "process 4711 of host web, which said so at 2026-11-26T09:41:38Z");
    }

    #[test]
    fn this_process_is_there_and_began_before_now() {
        let own = process(std::process::id().cast_signed()).unwrap();
        assert!(own.began <= Timestamp::now());
    }
}

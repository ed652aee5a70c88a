//! Locks in a repository, and whether who holds one still works. restic's own look at them is not enough: where nobody takes back the numbers of
//! ended processes it counts them as alive, and it asks by a signal (SIGHUP) that ends a stranger who has got the number since. So it is never
//! asked to tell which are left, only to take them all away once all of them are. A host's name does not tell whose a lock is either: servers made
//! from one image have the same. Our own processes are written down while they work.

use std::fmt;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use cutover_core::backup::Target;
use cutover_core::hash::ContentHash;
use cutover_core::layout::Layout;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use super::prose::Trouble;
use super::restic::{Restic, ResticError};
use super::work::doing;
use crate::files;
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
    /// Whether nobody works under it any more: `began` knows when one of ours did, `process` finds one of this host that has not ended.
    fn is_left(
        &self,
        now: Timestamp,
        host: &str,
        began: impl Fn(i32) -> Option<Timestamp>,
        process: impl Fn(i32) -> Option<Process>,
    ) -> bool {
        if now.duration_since(self.time) > OLD {
            return true;
        }
        let is_ours = self.hostname == host && began(self.pid).is_some_and(|began| began <= self.time);
        if !is_ours {
            return false;
        }
        // A number that was given away again: it began after it is said to have written this, and is another program.
        process(self.pid).is_none_or(|found| found.began > self.time && !found.name.contains("restic"))
    }
}

/// Our own processes in a repository. One that did not end well stays written down until a look finds no lock that could be its.
#[derive(Debug, Clone)]
pub(super) struct Own {
    folder: PathBuf,
}

impl Own {
    pub(super) fn of(layout: &Layout, to: &Target) -> Self {
        let hash = ContentHash::of(to.as_str().as_bytes());
        Self { folder: layout.restics().join(&hash.as_str()[..16]) }
    }

    /// Writes one down that was just begun. Where that cannot be done, its lock counts as another's.
    pub(super) fn begins(&self, pid: u32) {
        let text = Timestamp::now().to_string();
        let written = files::ensure_folder(&self.folder, 0o700)
            .and_then(|()| files::replace(&self.folder.join(pid.to_string()), text.as_bytes(), 0o600));
        if let Err(error) = written {
            tracing::warn!(%error, "a lock that restic leaves is in the way for half an hour");
        }
    }

    /// It ended without a lock.
    pub(super) fn ended(&self, pid: u32) {
        files::discard(&self.folder.join(pid.to_string()));
    }

    fn began(&self, pid: i32) -> Option<Timestamp> {
        fs::read_to_string(self.folder.join(pid.to_string())).ok()?.parse().ok()
    }

    /// Nobody has a lock: those that have ended are not looked for any more.
    fn forget_ended(&self) -> io::Result<()> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let path = entry?.path();
            let pid = path.file_name().and_then(|name| name.to_str()?.parse().ok());
            if pid.and_then(process).is_none() {
                files::discard(&path);
            }
        }
        Ok(())
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
            let began = |pid| self.own.began(pid);
            let is_left = |lock: &&Lock| lock.is_left(Timestamp::now(), &host, began, process);
            if let Some(lock) = locks.iter().find(|lock| !is_left(lock)) {
                return Ok(Looked::Works(lock.clone()));
            }
            let looked = if ids.is_empty() {
                Looked::Clear
            } else if self.lock_ids().await? == ids {
                self.run(&["unlock", "--remove-all"]).await?;
                Looked::Swept
            } else {
                // Who has begun since is not to lose his.
                continue;
            };
            if let Err(error) = self.own.forget_ended() {
                tracing::warn!(%error, "which processes of restic have ended stays written down");
            }
            return Ok(looked);
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

    /// One of ours, which began so many minutes ago.
    fn ours(minutes: i64) -> impl Fn(i32) -> Option<Timestamp> {
        move |_| Some(ago(minutes))
    }

    #[test]
    fn a_lock_of_ours_is_left_once_its_process_has_ended_or_is_another() {
        assert!(lock(1).is_left(NOW, "here", ours(2), |_| None));
        assert!(!lock(1).is_left(NOW, "here", ours(2), runs("restic", 2)));
        assert!(!lock(1).is_left(NOW, "here", ours(2), runs("backup-tool", 2)), "restic by another name");
        assert!(lock(2).is_left(NOW, "here", ours(3), runs("nginx", 1)), "its number was given away again");
        assert!(!lock(2).is_left(NOW, "here", ours(3), runs("restic", 1)), "a clock that was put on");
    }

    #[test]
    fn a_lock_of_another_is_left_when_it_is_old_also_where_his_host_is_called_as_ours() {
        for host in ["here", "there"] {
            assert!(!lock(29).is_left(NOW, host, |_| None, |_| None));
            assert!(lock(31).is_left(NOW, host, |_| None, |_| None));
        }
        assert!(!lock(2).is_left(NOW, "here", ours(1), |_| None), "ours of this number began later");
        assert!(!lock(2).is_left(NOW, "there", ours(3), |_| None), "not even the name is ours");
    }

    #[test]
    fn what_did_not_end_well_stays_written_down_until_there_is_no_lock() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::under(folder.path());
        let own = Own::of(&layout, &"/srv/backups".parse().unwrap());
        let (here, nobody) = (std::process::id(), u32::MAX >> 1);
        own.forget_ended().unwrap();
        for pid in [here, nobody, 1] {
            own.begins(pid);
        }
        own.ended(1);

        let began = |pid: u32| own.began(pid.cast_signed());
        assert!(began(1).is_none() && began(nobody).is_some_and(|began| began <= Timestamp::now()));
        assert!(Own::of(&layout, &"/srv/others".parse().unwrap()).began(nobody.cast_signed()).is_none());
        own.forget_ended().unwrap();
        assert!(began(nobody).is_none() && began(here).is_some());
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

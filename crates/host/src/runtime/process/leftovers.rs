//! What an earlier start of an instance left running once its keeper is gone: found by the session its keeper began, and by the instance's id
//! in the environment for what left that session; then ended, and seen gone (S10).

use std::io;
use std::time::Duration;

use cutover_core::variables::given;
use rustix::process::Signal;
use tokio::time::Instant;

use super::folder::{Phase, Record, State};
use super::launch::instance_id;
use super::processes::{self, Handle, ProcessId, Stat};

/// For the kernel to end what was killed.
const KILLED: Duration = Duration::from_secs(5);

/// For the kernel to stop what was told to, or to let it go on: one that waits for a disk does neither.
const STOPPED: Duration = Duration::from_secs(5);

/// For what waits for a disk to be done with that. It does nothing more once it is.
const WAITED: Duration = Duration::from_millis(200);

/// Between two looks at whether it has.
const BETWEEN: Duration = Duration::from_millis(2);

/// What was left may start others while it ends: so many looks until we give up.
const ROUNDS: usize = 10;

/// Why leftovers are still there.
#[derive(Debug, thiserror::Error)]
pub(super) enum LeftoverError {
    #[error("process {0} was killed and does not end")]
    Stuck(i32),
    #[error("process {0} neither stops nor goes on")]
    Deaf(i32),
    #[error("it starts new processes faster than they can be ended")]
    Endless,
    #[error("process {pid} cannot be ended: {error}")]
    System { pid: i32, error: io::Error },
}

/// What tells an instance's processes from others.
#[derive(Debug)]
pub(super) struct Search {
    instance: String,
    installation: String,
    keeper: Option<ProcessId>,
}

impl Search {
    /// By what its keeper last said, as far as that was said in this boot.
    pub(super) fn new(record: &Record, state: Option<&State>, boot: &str) -> Self {
        let keeper = state.filter(|state| state.boot == boot).map(|state| state.keeper);
        let instance = instance_id(&record.spec.app, &record.spec.name);
        Self { instance, installation: record.installation.clone(), keeper }
    }

    /// All that is there of it.
    pub(super) fn find(&self) -> Vec<ProcessId> {
        self.look().into_iter().map(|stat| stat.id).collect()
    }

    fn look(&self) -> Vec<Stat> {
        let all = processes::all();
        let own = std::process::id().cast_signed();
        let is_of_it = |stat: &Stat| self.in_session(stat, &all) || self.by_environment(stat);
        let there = all.iter().filter(|stat| stat.id.pid != own && !stat.ended);
        there.filter(|stat| is_of_it(stat)).copied().collect()
    }

    /// Stops all of it where it is, but its keeper: one that does not answer would be taken for hung. Returns when all has stopped.
    pub(super) async fn pause(&self) -> Result<(), LeftoverError> {
        let began = Instant::now();
        // What waits for a child that was stopped in between goes nowhere, and the kernel does not call that stopped.
        let is_still = |stat: &Stat| stat.stopped || (stat.waits && began.elapsed() > WAITED);
        // One that began while the others were looked at is seen by the second look at the latest.
        for _ in 0..2 {
            self.signal_until(Signal::STOP, is_still).await?;
        }
        Ok(())
    }

    /// Lets it go on from there: also what has not stopped yet, and would.
    pub(super) async fn resume(&self) -> Result<(), LeftoverError> {
        for handle in open(&self.without_keeper(|_| true))? {
            send(&handle, Signal::CONT)?;
        }
        self.signal_until(Signal::CONT, |stat| !stat.stopped).await
    }

    fn without_keeper(&self, wanted: impl Fn(&Stat) -> bool) -> Vec<ProcessId> {
        let all = self.look().into_iter().filter(|stat| Some(stat.id) != self.keeper && wanted(stat));
        all.map(|stat| stat.id).collect()
    }

    async fn signal_until(
        &self,
        signal: Signal,
        is_done: impl Fn(&Stat) -> bool,
    ) -> Result<(), LeftoverError> {
        let end = Instant::now() + STOPPED;
        loop {
            let left = self.without_keeper(|stat| !is_done(stat));
            let Some(first) = left.first() else { return Ok(()) };
            if Instant::now() >= end {
                return Err(LeftoverError::Deaf(first.pid));
            }
            for handle in open(&left)? {
                send(&handle, signal)?;
            }
            tokio::time::sleep(BETWEEN).await;
        }
    }

    /// The number of a session stays taken while it has members; once it had none, another process may wear it.
    fn in_session(&self, stat: &Stat, all: &[Stat]) -> bool {
        let Some(keeper) = self.keeper else { return false };
        let taken = all.iter().any(|other| other.id.pid == keeper.pid && other.id != keeper);
        stat.session == keeper.pid && stat.id.start >= keeper.start && !taken
    }

    fn by_environment(&self, stat: &Stat) -> bool {
        let marks =
            [(given::INSTANCE, self.instance.as_str()), (given::INSTALLATION, self.installation.as_str())];
        processes::has_environment(stat.id.pid, &marks)
    }

    /// Ends all of it: the signal, the grace, the kill. Tells whether there was anything.
    pub(super) async fn end(&self, signal: Signal, grace: Duration) -> Result<bool, LeftoverError> {
        let (mut signal, mut patience) = (signal, grace);
        for round in 0..ROUNDS {
            let found = open(&self.find())?;
            if found.is_empty() {
                return Ok(round > 0);
            }
            end_all(&found, signal, patience).await?;
            (signal, patience) = (Signal::KILL, KILLED);
        }
        Err(LeftoverError::Endless)
    }
}

/// The process that an instance's last keeper started, where it lives.
pub(super) fn orphan(state: &State, boot: &str) -> Option<ProcessId> {
    match &state.phase {
        Phase::Running { child, .. } | Phase::Ending { child, .. } => {
            Some(*child).filter(|child| state.boot == boot && child.is_alive())
        }
        Phase::Starting | Phase::Restarting { .. } | Phase::Exited { .. } => None,
    }
}

fn open(found: &[ProcessId]) -> Result<Vec<Handle>, LeftoverError> {
    let opened =
        found.iter().map(|id| id.open().map_err(|error| LeftoverError::System { pid: id.pid, error }));
    Ok(opened.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

async fn end_all(handles: &[Handle], signal: Signal, patience: Duration) -> Result<(), LeftoverError> {
    let kill_at = Instant::now() + patience;
    for handle in handles {
        send(handle, signal)?;
    }
    for handle in handles {
        let left = kill_at.saturating_duration_since(Instant::now());
        if wait(handle, left).await? {
            continue;
        }
        send(handle, Signal::KILL)?;
        if !wait(handle, KILLED).await? {
            return Err(LeftoverError::Stuck(handle.id().pid));
        }
    }
    Ok(())
}

fn send(handle: &Handle, signal: Signal) -> Result<(), LeftoverError> {
    handle.signal(signal).map_err(|error| LeftoverError::System { pid: handle.id().pid, error })
}

async fn wait(handle: &Handle, patience: Duration) -> Result<bool, LeftoverError> {
    let ended = handle.ended_within(patience).await;
    ended.map_err(|error| LeftoverError::System { pid: handle.id().pid, error })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(pid: i32, start: u64, session: i32) -> Stat {
        Stat { id: ProcessId { pid, start }, parent: 1, session, ended: false, stopped: false, waits: false }
    }

    #[test]
    fn a_session_whose_number_was_given_away_is_not_taken_for_ours() {
        let search = Search {
            instance: String::new(),
            installation: String::new(),
            keeper: Some(ProcessId { pid: 50, start: 100 }),
        };
        let orphan = stat(51, 101, 50);
        assert!(search.in_session(&orphan, &[orphan]), "its keeper is gone");
        assert!(search.in_session(&orphan, &[orphan, stat(50, 100, 50)]), "its keeper is just ending");
        let (stranger, member) = (stat(50, 900, 50), stat(60, 901, 50));
        assert!(!search.in_session(&member, &[stranger, member]), "another leads this session");
        assert!(!search.in_session(&stat(51, 99, 50), &[]), "older than the keeper");
        assert!(!search.in_session(&stat(51, 101, 7), &[]), "another session");
    }
}

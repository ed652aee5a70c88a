//! Deadlines, for all stages. They never enter a stage: they drop it from outside. A drop equals a crash, and recovery handles it, after what
//! the stage had begun on the disk has ended; what it had running beside it (commands in instances, keepers not yet begun) ends with the drop.
//!
//! The whole of a plan has a deadline, too, for a process that hangs: it lies in the run's folder, and watch ends who is past it (S9).

use std::time::Duration;

use cutover_core::layout::Layout;
use cutover_core::names::RunId;
use cutover_core::plan::{Stage, deadline};

use crate::blocking;
use crate::files::{self, FileError};
use crate::journal::StageError;
use crate::stages::Act;

/// Carries a stage's work out, at most as long as its plan allows.
///
/// # Errors
/// The stage's own failure, or that it hung.
pub(crate) async fn within<T>(
    act: &Act<'_>,
    stage: Stage,
    work: impl Future<Output = Result<T, StageError>>,
) -> Result<T, StageError> {
    let limit = deadline::of(act.plan, stage);
    match in_time(limit, work).await {
        Some(Ok(proof)) => Ok(proof),
        Some(Err(error)) => {
            blocking::ended().await;
            Err(error)
        }
        None => Err(act.journal.hung(stage, limit).into()),
    }
}

/// What came of the work; `None`: it was dropped. Work on the disk cannot be dropped, so as long as some is under way, nothing is.
async fn in_time<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    let mut work = std::pin::pin!(work);
    let mut patience = limit;
    loop {
        if let Ok(done) = tokio::time::timeout(patience, &mut work).await {
            return Some(done);
        }
        if !blocking::is_under_way() {
            return None;
        }
        tokio::select! {
            done = &mut work => return Some(done),
            () = blocking::ended() => patience = cutover_core::defaults::ACT,
        }
    }
}

/// How long the process that works on a run may take, as watch reads it: counted by watch from when it first sees it, so that a clock that
/// jumps ends nobody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowance {
    /// Tells one allowance from the next.
    pub id: String,
    /// How long.
    pub limit: Duration,
}

impl Allowance {
    /// Allows a run so much from now on. It need not outlast a loss of power, since the process does not. Where there is no room for it, the earlier allowance goes: it speaks of what is over.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn grant(layout: &Layout, run: RunId, limit: Duration) -> Result<(), FileError> {
        let path = layout.run_deadline(run);
        let text = format!("{} {}", uuid::Uuid::now_v7(), limit.as_millis());
        let written = files::ensure_folder(files::folder_of(&path), 0o700)
            .and_then(|()| files::swap(&path, text.as_bytes()));
        if written.is_err() {
            files::discard(&path);
        }
        written
    }

    /// What a run was allowed last; `None`: nothing that can be read, and it may take its time.
    pub fn read(layout: &Layout, run: RunId) -> Option<Self> {
        let text = std::fs::read_to_string(layout.run_deadline(run)).ok()?;
        let (id, limit) = text.trim().split_once(' ')?;
        Some(Self { id: id.to_owned(), limit: Duration::from_millis(limit.parse().ok()?) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[tokio::test(start_paused = true)]
    async fn work_that_ends_in_time_is_not_touched_and_work_that_hangs_is_dropped() {
        let minute = Duration::from_mins(1);

        assert_eq!(in_time(minute, async { 5 }).await, Some(5));
        assert_eq!(in_time(minute, std::future::pending::<u32>()).await, None);
    }

    #[tokio::test]
    async fn work_on_the_disk_is_waited_out_before_anything_is_dropped() {
        let (go_on, wait) = mpsc::channel::<()>();
        let work = async {
            blocking::blocking(move || wait.recv_timeout(Duration::from_secs(10)).is_ok()).await.unwrap()
        };
        let waited = in_time(Duration::from_millis(1), work);
        let late = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            go_on.send(()).unwrap();
        };

        let (done, ()) = tokio::join!(waited, late);

        assert_eq!(done, Some(true));
    }

    #[test]
    fn an_allowance_is_read_as_it_was_granted_and_each_is_another() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::under(folder.path());
        let run = RunId::new(uuid::Uuid::now_v7());
        assert_eq!(Allowance::read(&layout, run), None);

        Allowance::grant(&layout, run, Duration::from_secs(5)).unwrap();
        let first = Allowance::read(&layout, run).unwrap();
        Allowance::grant(&layout, run, Duration::from_secs(5)).unwrap();
        let second = Allowance::read(&layout, run).unwrap();

        assert_eq!((first.limit, second.limit), (Duration::from_secs(5), Duration::from_secs(5)));
        assert_ne!(first.id, second.id);
    }
}

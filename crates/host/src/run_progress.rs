//! How far a run's long act is, for whoever follows the run: a small file in its folder, which goes with it. It is no part of the journal. Nothing
//! depends on it, and a thread of its own writes it: a disk that is full or hangs is in nobody's way.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};

use cutover_core::layout::Layout;
use cutover_core::names::RunId;
use cutover_core::wire::Progress;
use serde::{Deserialize, Serialize};

use crate::files;
use crate::meter::{LOOK, Meter};

/// What the file holds. A build that does not understand another's knows nothing of how far it is, and goes on.
#[derive(Debug, Serialize, Deserialize)]
struct Told {
    /// It goes on since this entry of the journal, or an earlier one.
    after: u64,
    progress: Progress,
}

/// Tells for as long as it lives.
pub(crate) struct Telling {
    /// The last entry of the journal.
    last: Arc<AtomicU64>,
    ends: Option<Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Telling {
    /// Begins to look at the meter. What an earlier process has told of the run is void.
    pub(crate) fn begin(meter: Meter, layout: &Layout, run: RunId) -> Self {
        let (path, last) = (layout.run_progress(run), Arc::new(AtomicU64::new(0)));
        let (ends, end) = channel();
        let teller = Teller { path, last: Arc::clone(&last), meter, end };
        let thread = std::thread::Builder::new().name("progress".to_owned()).spawn(move || teller.tell());
        let thread = thread.inspect_err(|error| tracing::warn!(%error, "how far the run is, is not told"));
        Self { last, ends: Some(ends), thread: thread.ok() }
    }

    /// Where the number of each entry of the journal goes.
    pub(crate) fn last(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.last)
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        drop(self.ends.take());
        // It does not panic; if it did, nothing would depend on it.
        self.thread.take().map(|thread| thread.join().unwrap_or_default()).unwrap_or_default();
    }
}

struct Teller {
    path: PathBuf,
    last: Arc<AtomicU64>,
    meter: Meter,
    end: Receiver<()>,
}

impl Teller {
    fn tell(self) {
        let mut is_there = true;
        let mut warned = false;
        while self.end.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
            // Before the look: what goes on then has gone on since that entry.
            let after = self.last.load(Ordering::Relaxed);
            match self.meter.now() {
                Some(progress) => {
                    is_there = true;
                    let told = serde_json::to_vec(&Told { after, progress }).unwrap_or_default();
                    if let Err(error) = files::swap(&self.path, &told)
                        && !std::mem::replace(&mut warned, true)
                    {
                        tracing::warn!(%error, "how far the run is, is not told");
                    }
                }
                None if is_there => {
                    files::discard(&self.path);
                    is_there = false;
                }
                None => {}
            }
        }
        files::discard(&self.path);
    }
}

/// How far the run's act is that follows the entry `after`; `None`: not known, or it takes no bytes.
pub(crate) fn read(path: &Path, after: u64) -> Option<Progress> {
    let text = std::fs::read(path).ok()?;
    let told: Told = serde_json::from_slice(&text).ok()?;
    (told.after >= after).then_some(told.progress)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use cutover_core::wire::Extent;

    use super::*;

    fn until(what: &str, holds: impl Fn() -> bool) {
        let end = Instant::now() + Duration::from_secs(10);
        while !holds() {
            assert!(Instant::now() < end, "{what}");
            std::thread::yield_now();
        }
    }

    fn place() -> (tempfile::TempDir, Layout, RunId) {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::under(folder.path());
        (folder, layout, RunId::new(uuid::Uuid::now_v7()))
    }

    #[test]
    fn given_bytes_that_pass_then_whoever_follows_reads_how_many_and_nothing_stays() {
        let (_folder, layout, run) = place();
        let (path, meter) = (layout.run_progress(run), Meter::default());
        std::fs::create_dir_all(layout.run_folder(run)).unwrap();
        std::fs::write(&path, "what a process that was killed has told").unwrap();
        let telling = Telling::begin(meter.clone(), &layout, run);
        until("what is void goes", || !path.exists());

        telling.last().store(7, Ordering::Relaxed);
        let passing = meter.begin("dumped", Extent::Not);
        passing.add(5);
        until("it is told", || read(&path, 7).is_some_and(|progress| progress.bytes == 5));
        assert_eq!(read(&path, 8), None, "the act that it was of is over");
        passing.add(5);
        until("it grows", || read(&path, 7).is_some_and(|progress| progress.bytes == 10));

        drop(passing);
        until("it is over", || !path.exists());
        let _again = meter.begin("read back", Extent::Not);
        until("another is told", || path.exists());
        drop(telling);
        assert_eq!(std::fs::read_dir(layout.run_folder(run)).unwrap().count(), 0);
    }

    #[test]
    fn given_a_file_that_cannot_be_written_then_work_goes_on_and_ends() {
        let (_folder, layout, run) = place();
        let meter = Meter::default();
        // Its folder is a file.
        std::fs::create_dir_all(layout.run_folders()).unwrap();
        std::fs::write(layout.run_folder(run), "").unwrap();
        let telling = Telling::begin(meter.clone(), &layout, run);
        let passing = meter.begin("dumped", Extent::Not);
        passing.add(1);
        let twice = u64::try_from(LOOK.as_millis() * 2).unwrap();
        until("it was tried", || meter.now().is_some_and(|progress| progress.millis > twice));
        assert_eq!(read(&layout.run_progress(run), 0), None);
        drop(telling);
        assert_eq!(meter.now().unwrap().bytes, 1);
    }
}

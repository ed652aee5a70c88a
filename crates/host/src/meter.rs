//! Bytes are counted where they pass, at the cost of an addition; whoever wants to know looks. Nothing here waits, writes or fails.

use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cutover_core::wire::{Extent, Progress};
use tokio::time::{Interval, MissedTickBehavior, interval_at};

/// Between two looks.
pub(crate) const LOOK: Duration = Duration::from_millis(500);

/// What passes in this process.
#[derive(Debug, Clone, Default)]
pub struct Meter(Arc<Mutex<Vec<Arc<Count>>>>);

#[derive(Debug)]
struct Count {
    what: &'static str,
    of: Mutex<Extent>,
    bytes: AtomicU64,
    since: Instant,
}

impl Meter {
    /// Begins to count what passes, until the count is dropped; `what` becomes of it: `dumped`.
    pub(crate) fn begin(&self, what: &'static str, of: Extent) -> Passing {
        let of = Mutex::new(of);
        let count = Arc::new(Count { what, of, bytes: AtomicU64::new(0), since: Instant::now() });
        locked(&self.0).push(Arc::clone(&count));
        Passing { meter: self.clone(), count }
    }

    /// The same, of a file's bytes.
    pub(crate) fn begin_file(&self, what: &'static str, file: &Path) -> Passing {
        let of = fs::metadata(file).map_or(Extent::Not, |found| Extent::Exactly { bytes: found.len() });
        self.begin(what, of)
    }

    /// How far that is which was begun last and has not ended; none goes on, if `None`.
    pub(crate) fn now(&self) -> Option<Progress> {
        let count = locked(&self.0).last().cloned()?;
        Some(Progress {
            what: count.what.to_owned(),
            bytes: count.bytes.load(Ordering::Relaxed),
            of: *locked(&count.of),
            millis: u64::try_from(count.since.elapsed().as_millis()).unwrap_or(u64::MAX),
        })
    }
}

/// A count that goes on.
#[derive(Debug)]
pub(crate) struct Passing {
    meter: Meter,
    count: Arc<Count>,
}

impl Passing {
    /// So many more have passed.
    pub(crate) fn add(&self, bytes: u64) {
        self.count.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// It will be so many in all.
    pub(crate) fn will_be(&self, of: Extent) {
        *locked(&self.count.of) = of;
    }

    /// So many have passed in all, of so many: by somebody else's count.
    pub(crate) fn set(&self, bytes: u64, of: Extent) {
        self.count.bytes.store(bytes, Ordering::Relaxed);
        self.will_be(of);
    }

    /// What is read or written through it passes.
    pub(crate) fn through<T>(&self, inner: T) -> Through<'_, T> {
        Through { inner, passing: self }
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        locked(&self.meter.0).retain(|count| !Arc::ptr_eq(count, &self.count));
    }
}

/// Counts what is read of it, or written to it.
pub(crate) struct Through<'a, T> {
    inner: T,
    passing: &'a Passing,
}

impl<T: Read> Read for Through<'_, T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.passing.add(read as u64);
        Ok(read)
    }
}

impl<T: Write> Write for Through<'_, T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.passing.add(written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// When to look, while something is waited for.
pub(crate) fn looks() -> Interval {
    let mut looks = interval_at(tokio::time::Instant::now() + LOOK, LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    looks
}

/// Does the work, and tells how far it is.
pub(crate) async fn telling<T>(meter: &Meter, tell: impl Fn(Progress), work: impl Future<Output = T>) -> T {
    tokio::pin!(work);
    let mut looks = looks();
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            _ = looks.tick() => meter.now().into_iter().for_each(&tell),
        }
    }
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn what_was_begun_last_is_told_until_it_ends() {
        let meter = Meter::default();
        assert_eq!(meter.now(), None);
        let dump = meter.begin("dumped", Extent::About { bytes: 10 });
        dump.add(3);
        dump.add(4);
        let told = |meter: &Meter| meter.now().map(|now| (now.what, now.bytes, now.of));
        assert_eq!(told(&meter), Some(("dumped".to_owned(), 7, Extent::About { bytes: 10 })));

        let read = meter.begin("read back", Extent::Not);
        let copied = io::copy(&mut read.through(&b"rows"[..]), &mut io::sink()).unwrap();
        assert_eq!((copied, told(&meter)), (4, Some(("read back".to_owned(), 4, Extent::Not))));
        io::copy(&mut &b"rows"[..], &mut read.through(io::sink())).unwrap();
        assert_eq!(told(&meter).unwrap().1, 8);

        drop(read);
        assert_eq!(told(&meter).unwrap().0, "dumped");
        drop(dump);
        assert_eq!(meter.now(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn work_is_told_of_twice_a_second_and_only_while_bytes_pass() {
        let (meter, told) = (Meter::default(), RefCell::new(Vec::new()));
        let work = async {
            tokio::time::sleep(Duration::from_millis(1_150)).await;
            let passing = meter.begin("read", Extent::Not);
            for _ in 0..10 {
                passing.add(1);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            drop(passing);
            tokio::time::sleep(Duration::from_secs(2)).await;
            "done"
        };
        let done = telling(&meter, |now| told.borrow_mut().push(now.bytes), work).await;
        assert_eq!((done, told.into_inner()), ("done", vec![4, 9]));
    }
}

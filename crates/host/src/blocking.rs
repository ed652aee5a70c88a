//! Work that waits for the disk, off the threads of the event loop. Given up by its caller it still goes on to its end; whoever comes next can
//! wait for that.

use std::io::{self, Read};
use std::sync::{Arc, LazyLock, Weak};

use tokio::sync::watch;
use tokio::task::JoinError;

/// How much is under way in this process. A run is a process of its own, so this is what the run left behind.
static UNDER_WAY: LazyLock<watch::Sender<usize>> = LazyLock::new(|| watch::Sender::new(0));

/// Counts one piece of work as long as it lives.
struct Counted;

impl Counted {
    fn begin() -> Self {
        UNDER_WAY.send_modify(|count| *count += 1);
        Self
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        UNDER_WAY.send_modify(|count| *count -= 1);
    }
}

/// Does it. Dropped, it is still carried to its end, so every such work can be repeated.
///
/// # Errors
/// When the work panicked.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    let counted = Counted::begin();
    tokio::task::spawn_blocking(move || {
        let value = work();
        drop(counted);
        value
    })
    .await
}

/// Does it, and lets it read no further once its caller has given it up: work on the disk cannot be dropped, and all of a run's is waited for.
///
/// # Errors
/// When the work panicked.
pub(crate) async fn while_waited<T: Send + 'static>(
    work: impl FnOnce(&Waiting) -> T + Send + 'static,
) -> Result<T, JoinError> {
    let waits = Arc::new(());
    let waiting = Waiting(Arc::downgrade(&waits));
    let done = blocking(move || work(&waiting)).await;
    drop(waits);
    done
}

/// Whoever waits for what comes of it, if anybody does still.
pub(crate) struct Waiting(Weak<()>);

impl Waiting {
    /// The same, as long as somebody waits.
    pub(crate) fn reads<T: Read>(&self, inner: T) -> impl Read {
        Waited { inner, by: self.0.clone() }
    }
}

/// Can be read as long as somebody waits.
struct Waited<T> {
    inner: T,
    by: Weak<()>,
}

impl<T: Read> Read for Waited<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.by.strong_count() == 0 {
            return Err(io::Error::other("nobody waits for it any more"));
        }
        self.inner.read(buffer)
    }
}

/// Whether any is under way.
pub(crate) fn is_under_way() -> bool {
    *UNDER_WAY.borrow() > 0
}

/// Returns when none is under way.
pub(crate) async fn ended() {
    let waited = UNDER_WAY.subscribe().wait_for(|count| *count == 0).await.map(drop);
    // Its sender lives as long as the process.
    waited.unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn given_that_nobody_waits_any_more_then_no_more_is_read() {
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        let (done, came) = tokio::sync::oneshot::channel();
        let work = while_waited(move |by| {
            begun.send(()).unwrap();
            // Without an end of its own.
            done.send(io::copy(&mut by.reads(io::repeat(b'x')), &mut io::sink())).unwrap();
        });
        let work = tokio::spawn(work);
        has_begun.await.unwrap();

        work.abort();

        assert!(came.await.unwrap().is_err());
    }
}

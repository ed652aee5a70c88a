//! Work that waits for the disk, off the threads of the event loop. Given up by its caller it still goes on to its end; whoever comes next can
//! wait for that.

use std::sync::LazyLock;

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

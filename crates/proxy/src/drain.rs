//! Emptying targets: wait until nothing is in flight on them, tell what never ends by itself to end, cut what is left if asked to.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::plane::Plane;
use crate::target::Target;

/// How often to look for streams that began after the drain did.
const LATECOMERS: Duration = Duration::from_millis(20);

/// What a drain is to do.
#[derive(Debug)]
pub(crate) struct Drain {
    pub(crate) targets: Vec<String>,
    /// Over how long the closing of long-lived answers is spread, so that their clients do not all come back at once.
    pub(crate) spread: Duration,
    pub(crate) limit: Duration,
    pub(crate) cut: bool,
}

/// How it ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Drained {
    pub(crate) left: u64,
    pub(crate) closed: u64,
    pub(crate) cut: u64,
}

impl Drain {
    /// Drains. Given up when dropped; what was told to close by then closes.
    pub(crate) async fn run(self, plane: &Plane) -> Drained {
        let targets = plane.table.targets(&self.targets);
        let end = Instant::now() + self.limit;
        // Where nothing may be cut, one client that fell asleep would have a say in whether an app can be handed over.
        let _hurry: Vec<_> = targets.iter().filter(|_| !self.cut).map(Target::hurry).collect();
        let closed = AtomicU64::new(0);
        let spread = self.spread.min(self.limit);
        let drained = tokio::select! {
            biased;
            () = empty(&targets) => true,
            () = close_streams(&targets, spread, &closed) => false,
            () = tokio::time::sleep_until(end.into()) => false,
        };
        let (left, cut) = if drained {
            (0, 0)
        } else if self.cut {
            (0, cut(&targets, plane.limits.goodbye).await)
        } else {
            (in_flight(&targets), 0)
        };
        // Nothing is to come on them; what is still open would only keep a target from ending.
        for target in &targets {
            target.pool.clear();
        }
        Drained { left, closed: closed.into_inner(), cut }
    }
}

/// Returns when each target was empty at some moment. Where no table names them any more nothing comes back.
async fn empty(targets: &[Arc<Target>]) {
    for target in targets {
        target.in_flight.empty().await;
    }
}

/// Tells event streams and upgraded connections to close, one after another over the spread; then those that came late. Never ends.
async fn close_streams(targets: &[Arc<Target>], spread: Duration, closed: &AtomicU64) {
    let mut spread = spread;
    loop {
        let begun = Instant::now();
        let streams: Vec<_> = targets.iter().flat_map(|target| target.streams.take()).collect();
        let pause = spread / u32::try_from(streams.len()).unwrap_or(u32::MAX).max(1);
        for (number, stream) in (0..).zip(streams) {
            // Each at its own moment: a timer rings a little late, and a thousand of them would ring very late.
            let moment = begun + pause * number;
            if moment > Instant::now() {
                tokio::time::sleep_until(moment.into()).await;
            }
            drop(stream);
            closed.fetch_add(1, Ordering::Relaxed);
        }
        spread = Duration::ZERO;
        tokio::time::sleep(LATECOMERS).await;
    }
}

/// Closes every connection to the targets, tunnels too: nothing is left on them. Says how many requests that cut.
///
/// A client that takes nothing may sit on a cut answer for a while yet, and count as in flight until it is let go; its request is
/// nevertheless gone from the target.
async fn cut(targets: &[Arc<Target>], moment: Duration) -> u64 {
    let before = in_flight(targets);
    for target in targets {
        target.cut();
    }
    if tokio::time::timeout(moment, empty(targets)).await.is_err() {
        tracing::debug!("clients still sit on answers that were cut");
    }
    before
}

fn in_flight(targets: &[Arc<Target>]) -> u64 {
    targets.iter().map(|target| target.in_flight.get()).sum()
}

//! Requests in flight on a target: counted so that a drain may trust the number.
//!
//! A request counts itself first and looks second whether its table is still the one served; a change of the table is stored
//! first and the count read second. With a full fence between the two steps on both sides, at least one of them sees the other:
//! either the request starts over, or the drain waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use tokio::sync::Notify;

use crate::target::Target;

/// The counter of one target.
#[derive(Debug, Default)]
pub(crate) struct Counter {
    inside: AtomicU64,
    empty: Notify,
}

impl Counter {
    pub(crate) fn get(&self) -> u64 {
        fence(Ordering::SeqCst);
        self.inside.load(Ordering::SeqCst)
    }

    pub(crate) fn enter(&self) {
        self.inside.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    pub(crate) fn leave(&self) {
        if self.inside.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.empty.notify_waiters();
        }
    }

    /// Roughly: to compare, where nothing hangs on it.
    pub(crate) fn glance(&self) -> u64 {
        self.inside.load(Ordering::Relaxed)
    }

    /// Returns at a moment when nothing was in flight.
    pub(crate) async fn empty(&self) {
        loop {
            let mut empty = std::pin::pin!(self.empty.notified());
            empty.as_mut().enable();
            if self.get() == 0 {
                return;
            }
            empty.await;
        }
    }
}

/// One request in flight, until dropped.
#[derive(Debug)]
pub(crate) struct InFlight {
    target: Arc<Target>,
}

impl InFlight {
    pub(crate) fn enter(target: &Arc<Target>) -> Self {
        target.in_flight.enter();
        Self { target: Arc::clone(target) }
    }

    pub(crate) fn target(&self) -> &Arc<Target> {
        &self.target
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.target.in_flight.leave();
    }
}

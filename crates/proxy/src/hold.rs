//! Waiting in a held route: so many requests, so many bytes of bodies, so long; then on to the new target, or 503.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use cutover_routes::Hold;
use tokio::sync::watch;

use crate::body::{ClientFault, PIECE, RequestBody};
use crate::figures::RouteCounters;
use crate::refuse::{Reason, Refusal};
use crate::route::LiveHold;

/// Room for what one read of a body may bring is taken before the read.
const ROOM: u64 = PIECE as u64;

/// A request's place among those that wait. Kept over changes of the table that leave the route held; free when dropped, be it that
/// the client went away.
#[derive(Debug)]
pub(crate) struct Place {
    counters: Arc<RouteCounters>,
    since: Instant,
    /// Reserved: for what is kept and what is being read.
    bytes: u64,
    /// Of bodies that were read ahead.
    kept: u64,
}

impl Place {
    pub(crate) fn take(counters: &Arc<RouteCounters>, hold: &Hold) -> Result<Self, Refusal> {
        let taken = counters.held.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |held| {
            (held < hold.requests).then_some(held + 1)
        });
        match taken {
            Ok(_) => Ok(Self { counters: Arc::clone(counters), since: Instant::now(), bytes: 0, kept: 0 }),
            Err(_) => Err(Refusal::new(Reason::HoldFull, hold.reason.clone())),
        }
    }

    /// Waits until the table changes. Meanwhile the body is read ahead within the bounds: only a connection that is read from tells
    /// that its client left. Past the bounds the body stays where it is, which holds the client back and costs nothing.
    pub(crate) async fn wait(
        &mut self,
        live: &LiveHold,
        body: &mut RequestBody,
        changes: &mut watch::Receiver<u64>,
    ) -> Result<(), Refusal> {
        let waited = tokio::select! {
            biased;
            told = changes.changed() => told.map_err(|_| Refusal::new(Reason::Stopping, "the proxy is about to end")),
            () = tokio::time::sleep_until(live.end.into()) => Err(Refusal::new(Reason::HoldExpired, live.hold.reason.clone())),
            fault = self.read_ahead(body, live.hold.bytes) => Err(fault.into()),
        };
        // A read that was given up had taken room for what it did not bring.
        self.settle();
        waited
    }

    /// Returns only when the client breaks its body off.
    async fn read_ahead(&mut self, body: &mut RequestBody, limit: u64) -> ClientFault {
        while self.reserve(ROOM, limit) {
            match body.read_ahead().await {
                Ok(got) => {
                    self.kept += got.unwrap_or(0);
                    self.settle();
                    if got.is_none() {
                        break;
                    }
                }
                Err(fault) => return fault,
            }
        }
        std::future::pending().await
    }

    fn reserve(&mut self, bytes: u64, limit: u64) -> bool {
        let fits = |kept: u64| kept.checked_add(bytes).filter(|sum| *sum <= limit);
        let fitted =
            self.counters.held_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok();
        if fitted {
            self.bytes += bytes;
        }
        fitted
    }

    /// Room for what is kept, and no more.
    fn settle(&mut self) {
        self.counters.held_bytes.fetch_add(self.kept, Ordering::Relaxed);
        self.release(self.bytes);
        self.bytes = self.kept;
    }

    fn release(&mut self, bytes: u64) {
        self.bytes -= bytes;
        self.counters.held_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.release(self.bytes);
        self.counters.waited(self.since.elapsed());
        self.counters.held.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold(requests: u32) -> Hold {
        Hold { until: 0, requests, bytes: 100_000, reason: "soon".into() }
    }

    #[test]
    fn no_more_wait_than_may() {
        let counters = Arc::default();
        let first = Place::take(&counters, &hold(2)).unwrap();
        let _second = Place::take(&counters, &hold(2)).unwrap();

        assert_eq!(Place::take(&counters, &hold(2)).unwrap_err().reason, Reason::HoldFull);
        drop(first);
        assert!(Place::take(&counters, &hold(2)).is_ok());
    }

    #[test]
    fn no_more_bytes_are_kept_than_may_and_all_are_given_back() {
        let counters: Arc<RouteCounters> = Arc::default();
        let mut first = Place::take(&counters, &hold(2)).unwrap();
        let mut second = Place::take(&counters, &hold(2)).unwrap();

        assert!(first.reserve(ROOM, 100_000));
        assert!(!second.reserve(ROOM, 100_000));
        first.release(ROOM - 10);
        assert!(second.reserve(ROOM, 100_000));
        drop((first, second));
        assert_eq!(counters.held_bytes.load(Ordering::SeqCst), 0);
    }
}

//! Counters and latencies, and the answer made of them. All bounded: a histogram has a fixed size, names come from the table.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cutover_routes::figures::{Latency, RouteFigures, TargetFigures};
use hdrhistogram::Histogram;
use http::StatusCode;

use crate::refuse::Reason;

/// Latencies past this are counted as this, in microseconds.
const LONGEST: u64 = 10 * 60 * 1_000_000;

/// What one target did.
#[derive(Debug)]
pub(crate) struct TargetCounters {
    whole: [AtomicU64; 5],
    broken: AtomicU64,
    latency: Mutex<Histogram<u32>>,
}

impl Default for TargetCounters {
    fn default() -> Self {
        // Two digits: a percentile is off by at most one in a hundred, and the histogram takes some 10 kB.
        let latency =
            Histogram::new_with_bounds(1, LONGEST, 2).expect("the bounds are constants that it takes");
        Self { whole: Default::default(), broken: AtomicU64::new(0), latency: Mutex::new(latency) }
    }
}

impl TargetCounters {
    pub(crate) fn head(&self, after: Duration) {
        let after = u64::try_from(after.as_micros()).unwrap_or(LONGEST);
        self.latency.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(after);
    }

    pub(crate) fn whole(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).clamp(1, 5) - 1;
        self.whole[class].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn broken(&self) {
        self.broken.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn figures(&self, in_flight: u64) -> TargetFigures {
        let classes = ["1xx", "2xx", "3xx", "4xx", "5xx"];
        let counted = classes
            .iter()
            .zip(&self.whole)
            .map(|(class, count)| ((*class).to_owned(), count.load(Ordering::Relaxed)));
        let latency = self.latency.lock().unwrap_or_else(PoisonError::into_inner);
        TargetFigures {
            in_flight,
            answers: counted.filter(|(_, count)| *count > 0).collect(),
            broken: self.broken.load(Ordering::Relaxed),
            latency: Latency {
                count: latency.len(),
                p50_us: latency.value_at_quantile(0.50),
                p90_us: latency.value_at_quantile(0.90),
                p99_us: latency.value_at_quantile(0.99),
                max_us: latency.max(),
            },
        }
    }
}

/// What one route did, and what waits on it.
#[derive(Debug, Default)]
pub(crate) struct RouteCounters {
    requests: AtomicU64,
    refused: [AtomicU64; Reason::ALL.len()],
    /// Requests that wait in a hold.
    pub(crate) held: AtomicU32,
    /// Bytes of bodies read ahead for them.
    pub(crate) held_bytes: AtomicU64,
    longest_hold_ms: AtomicU64,
}

impl RouteCounters {
    pub(crate) fn taken_in(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn refused(&self, reason: Reason) {
        self.refused[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn waited(&self, how_long: Duration) {
        let milliseconds = u64::try_from(how_long.as_millis()).unwrap_or(u64::MAX);
        self.longest_hold_ms.fetch_max(milliseconds, Ordering::Relaxed);
    }

    pub(crate) fn figures(&self) -> RouteFigures {
        let refused: BTreeMap<String, u64> = Reason::ALL
            .iter()
            .zip(&self.refused)
            .map(|(reason, count)| (reason.as_str().to_owned(), count.load(Ordering::Relaxed)))
            .filter(|(_, count)| *count > 0)
            .collect();
        RouteFigures {
            requests: self.requests.load(Ordering::Relaxed),
            refused,
            held: u64::from(self.held.load(Ordering::Relaxed)),
            longest_hold_ms: self.longest_hold_ms.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_counts_by_class_and_keeps_latency_in_bounds() {
        let counters = TargetCounters::default();
        for status in [200, 204, 503] {
            counters.whole(StatusCode::from_u16(status).unwrap());
        }
        counters.broken();
        for milliseconds in 1..=100 {
            counters.head(Duration::from_millis(milliseconds));
        }
        counters.head(Duration::from_hours(10));

        let figures = counters.figures(3);

        assert_eq!(figures.answers, BTreeMap::from([("2xx".into(), 2), ("5xx".into(), 1)]));
        assert_eq!((figures.in_flight, figures.broken, figures.latency.count), (3, 1, 101));
        assert!((50_000..=51_500).contains(&figures.latency.p50_us), "{:?}", figures.latency);
        assert!(figures.latency.max_us <= 2 * LONGEST);
    }
}

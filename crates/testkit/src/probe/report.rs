//! What a probe saw: figures for each kind, the first failures with time and reason, releases in the order in which
//! they were seen, entries that the app acknowledged.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;

use super::outcome::{Kind, Outcome};

/// So many failures are kept with their reasons; all are counted.
const FAILURES_KEPT: usize = 20;
/// The histogram's last microsecond; a longer wait counts as this one.
const LONGEST_WAIT: u64 = 120_000_000;

/// Counts of one kind of request.
#[derive(Clone, Debug)]
pub struct Figures {
    /// The sum of the five outcomes.
    pub sent: u64,
    pub answered: u64,
    pub app_errors: u64,
    pub told: u64,
    pub cut: u64,
    pub failed: u64,
    /// Sent a second time, as any client would unseen.
    pub retried: u64,
    /// WebSocket messages that came back, events that arrived.
    pub messages: u64,
    /// Sockets and event streams that the other side ended, and those of them that had no goodbye.
    pub closed: u64,
    pub closed_abruptly: u64,
    /// Longest wait of a request that was answered. What a slow answer was asked to take is not in it.
    pub slowest: Duration,
    /// Waits in microseconds.
    pub latencies: Histogram<u64>,
}

impl Default for Figures {
    fn default() -> Self {
        let latencies = Histogram::new_with_bounds(1, LONGEST_WAIT, 2)
            .unwrap_or_else(|_| unreachable!("the bounds are valid"));
        Self {
            sent: 0,
            answered: 0,
            app_errors: 0,
            told: 0,
            cut: 0,
            failed: 0,
            retried: 0,
            messages: 0,
            closed: 0,
            closed_abruptly: 0,
            slowest: Duration::ZERO,
            latencies,
        }
    }
}

impl Figures {
    fn answered_after(&mut self, took: Duration) {
        self.slowest = self.slowest.max(took);
        self.latencies.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.answered += other.answered;
        self.app_errors += other.app_errors;
        self.told += other.told;
        self.cut += other.cut;
        self.failed += other.failed;
        self.retried += other.retried;
        self.messages += other.messages;
        self.closed += other.closed;
        self.closed_abruptly += other.closed_abruptly;
        self.slowest = self.slowest.max(other.slowest);
        self.latencies.add(&other.latencies).unwrap_or_else(|_| unreachable!("all have the same bounds"));
    }
}

/// One request that failed.
#[derive(Clone, Debug)]
pub struct FailedRequest {
    pub at: SystemTime,
    /// From its beginning to that moment.
    pub took: Duration,
    pub kind: Kind,
    /// `fresh` or `kept alive`.
    pub connection: &'static str,
    pub why: String,
}

/// A release that answered, by its mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReleaseSeen {
    pub release: String,
    pub first: SystemTime,
    pub last: SystemTime,
    pub answers: u64,
    /// Answers of 400 and above, not among `answers`.
    pub errors: u64,
}

/// An entry that the app said it has: from here on it may not be lost.
#[derive(Clone, Debug)]
pub struct Acknowledged {
    /// Which probe posted it, and the number that is in its message.
    pub writer: Arc<str>,
    pub number: u64,
    /// The id that the app gave it.
    pub id: i64,
    pub sent: SystemTime,
    pub acknowledged: SystemTime,
}

#[derive(Clone, Debug)]
pub struct Report {
    pub started: SystemTime,
    pub ended: SystemTime,
    pub kinds: BTreeMap<Kind, Figures>,
    /// The first failures; [`Report::failed`] counts all.
    pub failures: Vec<FailedRequest>,
    /// In the order of their first answer.
    pub releases: Vec<ReleaseSeen>,
    pub acknowledged: Vec<Acknowledged>,
    /// Acknowledged entries that a restore somebody asked for may have dropped.
    pub set_aside: u64,
}

impl Report {
    pub(super) fn starting(now: SystemTime) -> Self {
        Self {
            started: now,
            ended: now,
            kinds: BTreeMap::new(),
            failures: Vec::new(),
            releases: Vec::new(),
            acknowledged: Vec::new(),
            set_aside: 0,
        }
    }

    /// All kinds in one.
    pub fn total(&self) -> Figures {
        let mut total = Figures::default();
        for figures in self.kinds.values() {
            total.add(figures);
        }
        total
    }

    pub fn sent(&self) -> u64 {
        self.kinds.values().map(|figures| figures.sent).sum()
    }

    pub fn failed(&self) -> u64 {
        self.kinds.values().map(|figures| figures.failed).sum()
    }

    /// How many of the failed ones that are kept had begun before this moment.
    pub fn failed_begun_before(&self, moment: SystemTime) -> u64 {
        let begun =
            |failure: &&FailedRequest| failure.at.checked_sub(failure.took).is_some_and(|at| at < moment);
        self.failures.iter().filter(begun).count() as u64
    }

    /// The longest wait of all, and of which kind it was.
    pub fn slowest(&self) -> Option<(Kind, Duration)> {
        self.kinds.iter().map(|(kind, figures)| (*kind, figures.slowest)).max_by_key(|(_, slowest)| *slowest)
    }

    /// Releases in the order in which they were first seen.
    pub fn releases_in_order(&self) -> Vec<&str> {
        self.releases.iter().map(|seen| seen.release.as_str()).collect()
    }

    /// A person decided on a restore: entries sent or acknowledged within this time are no longer looked for.
    pub fn set_aside(&mut self, from: SystemTime, to: SystemTime) -> u64 {
        let before = self.acknowledged.len();
        self.acknowledged.retain(|entry| entry.acknowledged < from || entry.sent > to);
        let dropped = (before - self.acknowledged.len()) as u64;
        self.set_aside += dropped;
        dropped
    }

    /// Adds what another probe, or another lap, saw.
    pub fn merge(&mut self, other: Self) {
        self.started = self.started.min(other.started);
        self.ended = self.ended.max(other.ended);
        for (kind, figures) in &other.kinds {
            self.kind(*kind).add(figures);
        }
        self.failures.extend(other.failures);
        self.failures.sort_by_key(|failure| failure.at);
        self.failures.truncate(FAILURES_KEPT);
        for seen in other.releases {
            self.add_release(seen);
        }
        self.releases.sort_by_key(|seen| seen.first);
        self.acknowledged.extend(other.acknowledged);
        self.set_aside += other.set_aside;
    }

    pub(super) fn kind(&mut self, kind: Kind) -> &mut Figures {
        self.kinds.entry(kind).or_default()
    }

    pub(super) fn count(
        &mut self,
        kind: Kind,
        connection: &'static str,
        outcome: &Outcome,
        took: Duration,
        at: SystemTime,
    ) {
        let figures = self.kind(kind);
        figures.sent += 1;
        match outcome {
            Outcome::Answered { .. } => figures.answered += 1,
            Outcome::AppError { .. } => figures.app_errors += 1,
            Outcome::Told { .. } => figures.told += 1,
            Outcome::Cut => figures.cut += 1,
            Outcome::Failed { .. } => figures.failed += 1,
        }
        match outcome {
            Outcome::Answered { release } => {
                figures.answered_after(took);
                self.seen(release, at, 1, 0);
            }
            Outcome::AppError { release, .. } => {
                figures.answered_after(took);
                self.seen(release, at, 0, 1);
            }
            Outcome::Failed { why } if self.failures.len() < FAILURES_KEPT => {
                self.failures.push(FailedRequest { at, took, kind, connection, why: why.clone() });
            }
            Outcome::Told { .. } | Outcome::Cut | Outcome::Failed { .. } => {}
        }
    }

    fn seen(&mut self, release: &str, at: SystemTime, answers: u64, errors: u64) {
        self.add_release(ReleaseSeen { release: release.to_owned(), first: at, last: at, answers, errors });
    }

    fn add_release(&mut self, seen: ReleaseSeen) {
        match self.releases.iter_mut().find(|known| known.release == seen.release) {
            Some(known) => {
                known.first = known.first.min(seen.first);
                known.last = known.last.max(seen.last);
                known.answers += seen.answers;
                known.errors += seen.errors;
            }
            None => self.releases.push(seen),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(milliseconds)
    }

    fn answered(release: &str) -> Outcome {
        Outcome::Answered { release: release.to_owned() }
    }

    #[test]
    fn given_each_outcome_then_each_request_is_counted_once() {
        let mut report = Report::starting(at(0));
        let outcomes = [
            answered("r1"),
            Outcome::AppError { release: "r2".into(), status: 500 },
            Outcome::Told { reason: "hold-full".into() },
            Outcome::Cut,
            Outcome::failed("reset"),
        ];
        for (outcome, took) in outcomes.iter().zip(1..) {
            report.count(Kind::Get, "fresh", outcome, Duration::from_millis(took), at(took));
        }
        let figures = report.total();
        assert_eq!(figures.sent, 5);
        assert_eq!([figures.answered, figures.app_errors, figures.told, figures.cut, figures.failed], [1; 5]);
        assert_eq!(report.slowest(), Some((Kind::Get, Duration::from_millis(2))));
        assert_eq!(report.releases_in_order(), ["r1", "r2"]);
        assert_eq!(report.failures[0].why, "reset");
        assert_eq!([report.failed_begun_before(at(0)), report.failed_begun_before(at(1))], [0, 1]);
    }

    #[test]
    fn given_two_reports_then_the_merged_one_has_both_in_order_of_time() {
        let mut first = Report::starting(at(100));
        first.count(Kind::Get, "fresh", &answered("r2"), Duration::from_millis(9), at(150));
        first.count(Kind::Post, "fresh", &Outcome::failed("later"), Duration::ZERO, at(160));
        let mut second = Report::starting(at(0));
        second.count(Kind::Get, "fresh", &answered("r1"), Duration::from_millis(3), at(10));
        second.count(Kind::Get, "fresh", &Outcome::failed("sooner"), Duration::ZERO, at(20));
        first.merge(second);
        assert_eq!((first.sent(), first.failed()), (4, 2));
        assert_eq!(first.started, at(0));
        assert_eq!(first.releases_in_order(), ["r1", "r2"]);
        let reasons: Vec<_> = first.failures.iter().map(|failure| failure.why.as_str()).collect();
        assert_eq!(reasons, ["sooner", "later"]);
        let latencies = first.total().latencies;
        assert_eq!(latencies.len(), 2);
        assert!(latencies.equivalent(latencies.value_at_quantile(0.5), 3_000));
        assert!(latencies.equivalent(latencies.max(), 9_000));
    }

    #[test]
    fn given_many_failures_then_the_first_are_kept_and_all_counted() {
        let mut report = Report::starting(at(0));
        for number in 0..100 {
            report.count(Kind::Get, "fresh", &Outcome::failed(number), Duration::ZERO, at(number));
        }
        assert_eq!((report.failed(), report.failures.len()), (100, FAILURES_KEPT));
        assert_eq!(report.failures[0].why, "0");
    }
}

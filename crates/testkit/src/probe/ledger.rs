//! The ledger in which a singleton's instances leave a line at each start, poll and stop: were there two at once, and
//! how long was there none?

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error("the ledger {} cannot be read: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("line {number} of the ledger is not understood: {source}")]
    Line { number: usize, source: serde_json::Error },
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Event {
    Start,
    Poll,
    Stop,
}

#[derive(Clone, Debug, Deserialize)]
struct Line {
    instance: String,
    #[serde(default)]
    release: String,
    event: Event,
    /// Microseconds of the machine's monotonic clock.
    at_us: u64,
}

/// Two instances that were at work at the same time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlap {
    pub first: String,
    pub second: String,
    pub lasted: Duration,
}

/// All that the instances wrote, in the order of time.
#[derive(Clone, Debug)]
pub struct Ledger {
    lines: Vec<Line>,
}

#[derive(Debug)]
struct Span<'a> {
    instance: &'a str,
    from: u64,
    to: u64,
}

impl Ledger {
    pub fn read(path: &Path) -> Result<Self, LedgerError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| LedgerError::Read { path: path.to_owned(), source })?;
        Self::parse(&text)
    }

    /// Lines may be in any order. A last line without its end is one that is being written, or whose writer was killed.
    pub fn parse(text: &str) -> Result<Self, LedgerError> {
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let mut lines = whole
            .lines()
            .enumerate()
            .map(|(index, line)| {
                serde_json::from_str(line).map_err(|source| LedgerError::Line { number: index + 1, source })
            })
            .collect::<Result<Vec<Line>, _>>()?;
        lines.sort_by_key(|line| line.at_us);
        Ok(Self { lines })
    }

    pub fn polls(&self) -> usize {
        self.lines.iter().filter(|line| line.event == Event::Poll).count()
    }

    /// Instances in the order of their start.
    pub fn instances(&self) -> Vec<&str> {
        let mut spans = self.spans();
        spans.sort_by_key(|span| span.from);
        spans.into_iter().map(|span| span.instance).collect()
    }

    /// Releases in the order in which their instances first wrote.
    pub fn releases(&self) -> Vec<&str> {
        let mut releases: Vec<&str> = Vec::new();
        for line in &self.lines {
            if !releases.contains(&line.release.as_str()) {
                releases.push(&line.release);
            }
        }
        releases
    }

    /// Pairs of instances at work at once. An instance is at work from its first line to its last: for one that was
    /// killed that is its last poll, so that what is found here is certain, and at most a poll's period too short.
    pub fn overlaps(&self) -> Vec<Overlap> {
        let spans = self.spans();
        let mut overlaps = Vec::new();
        for (index, one) in spans.iter().enumerate() {
            for other in &spans[index + 1..] {
                let (from, to) = (one.from.max(other.from), one.to.min(other.to));
                if from < to {
                    let (first, second) = if one.from <= other.from { (one, other) } else { (other, one) };
                    overlaps.push(Overlap {
                        first: first.instance.to_owned(),
                        second: second.instance.to_owned(),
                        lasted: Duration::from_micros(to - from),
                    });
                }
            }
        }
        overlaps
    }

    /// The longest time between two polls, whoever polled; nothing with fewer than two.
    pub fn longest_gap(&self) -> Option<Duration> {
        let polls: Vec<u64> =
            self.lines.iter().filter(|line| line.event == Event::Poll).map(|line| line.at_us).collect();
        polls.windows(2).map(|pair| Duration::from_micros(pair[1] - pair[0])).max()
    }

    fn spans(&self) -> Vec<Span<'_>> {
        let mut spans: BTreeMap<&str, Span<'_>> = BTreeMap::new();
        for line in &self.lines {
            spans.entry(&line.instance).and_modify(|span| span.to = line.at_us).or_insert_with(|| Span {
                instance: &line.instance,
                from: line.at_us,
                to: line.at_us,
            });
        }
        spans.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(lines: &[(&str, &str, u64)]) -> Ledger {
        let mut text = String::new();
        for (instance, event, at_us) in lines {
            let release = format!("r-{instance}");
            let line = serde_json::json!({ "instance": instance, "release": release, "event": event, "at_us": at_us });
            text.push_str(&line.to_string());
            text.push('\n');
        }
        Ledger::parse(&text).unwrap()
    }

    #[test]
    fn given_a_clean_handover_then_there_is_no_overlap_and_the_gap_is_known() {
        let ledger = ledger(&[
            ("a", "start", 0),
            ("a", "poll", 10),
            ("a", "poll", 60),
            ("a", "stop", 70),
            ("b", "start", 70),
            ("b", "poll", 260),
            ("b", "poll", 310),
        ]);
        assert!(ledger.overlaps().is_empty());
        assert_eq!(ledger.longest_gap(), Some(Duration::from_micros(200)));
        assert_eq!(ledger.instances(), ["a", "b"]);
        assert_eq!(ledger.releases(), ["r-a", "r-b"]);
        assert_eq!(ledger.polls(), 4);
    }

    #[test]
    fn given_two_at_work_then_each_pair_is_found_with_its_time() {
        let ledger = ledger(&[
            ("a", "start", 0),
            ("b", "start", 50),
            ("c", "start", 90),
            ("a", "stop", 60),
            ("b", "poll", 100),
            ("c", "poll", 200),
        ]);
        let found: Vec<_> = ledger
            .overlaps()
            .into_iter()
            .map(|overlap| (overlap.first, overlap.second, overlap.lasted.as_micros()))
            .collect();
        assert_eq!(found, [("a".into(), "b".into(), 10), ("b".into(), "c".into(), 10)]);
    }

    #[test]
    fn given_an_instance_within_anothers_time_then_it_is_an_overlap() {
        let ledger = ledger(&[("b", "start", 40), ("b", "stop", 50), ("a", "start", 0), ("a", "stop", 100)]);
        assert_eq!(ledger.overlaps()[0].first, "a");
    }

    #[test]
    fn given_a_line_cut_short_by_a_kill_then_only_the_last_may_be() {
        let whole = r#"{"instance":"a","event":"poll","at_us":5}"#;
        assert_eq!(Ledger::parse(&format!("{whole}\n{{\"inst")).unwrap().polls(), 1);
        let error = Ledger::parse(&format!("{{\"inst\n{whole}\n")).unwrap_err();
        assert!(matches!(error, LedgerError::Line { number: 1, .. }));
        assert_eq!(Ledger::parse("").unwrap().polls(), 0);
    }
}

//! Whether what the app acknowledged is there: nothing lost, nothing twice.

use std::collections::HashMap;

use anyhow::{Context as _, bail};
use serde::Deserialize;

use super::client::{Asked, Client, Connections};
use super::options::ProbeOptions;
use super::report::{Acknowledged, Report};

/// An entry as `/entries.json` gives it.
#[derive(Clone, Debug, Deserialize)]
pub struct Entry {
    pub id: i64,
    pub name: String,
    pub message: String,
}

/// What a look into the entries found.
#[derive(Clone, Debug, Default)]
pub struct Verification {
    pub acknowledged: u64,
    pub found: u64,
    /// Acknowledged and not there.
    pub missing: Vec<Acknowledged>,
    /// There more than once although each was posted once: writer and number.
    pub twice: Vec<(String, u64)>,
    /// There although never acknowledged: the answer was lost on its way. No fault.
    pub unacknowledged: u64,
}

impl Verification {
    /// Nothing lost, nothing twice.
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty() && self.twice.is_empty()
    }
}

#[derive(Deserialize)]
struct Answered {
    entries: Vec<Entry>,
}

impl Report {
    /// Looks for each acknowledged entry by writer and number. One that failed or was not acknowledged is not missed,
    /// but even that may not be there twice. Entries of other writers are left alone.
    pub fn verify_entries(&self, entries: &[Entry]) -> Verification {
        let mut times: HashMap<(&str, u64), u64> = HashMap::new();
        for entry in entries {
            if let Ok(number) = entry.message.parse() {
                *times.entry((entry.name.as_str(), number)).or_default() += 1;
            }
        }
        let mut verification = Verification::default();
        let mut writers: Vec<&str> = Vec::new();
        for entry in &self.acknowledged {
            verification.acknowledged += 1;
            match times.get(&(&*entry.writer, entry.number)) {
                Some(_) => verification.found += 1,
                None => verification.missing.push(entry.clone()),
            }
            if !writers.contains(&&*entry.writer) {
                writers.push(&entry.writer);
            }
        }
        let ours = times.iter().filter(|((writer, _), _)| writers.contains(writer));
        let mut there = 0;
        for ((writer, number), count) in ours {
            there += 1;
            if *count > 1 {
                verification.twice.push(((*writer).to_owned(), *number));
            }
        }
        verification.twice.sort();
        verification.unacknowledged = there - verification.found;
        verification
    }
}

/// All entries of the guestbook that answers there, page by page.
pub async fn fetch_entries(options: &ProbeOptions) -> anyhow::Result<Vec<Entry>> {
    tokio::time::timeout(options.deadline, fetch(options))
        .await
        .context("the entries did not come in time")?
}

async fn fetch(options: &ProbeOptions) -> anyhow::Result<Vec<Entry>> {
    let mut client = Client::new(options, Connections::KeptAlive);
    let mut entries: Vec<Entry> = Vec::new();
    loop {
        let after = entries.last().map_or(0, |entry| entry.id);
        let answer = client.exchange(&Asked::get(format!("/entries.json?after={after}"))).await?;
        if !answer.status.is_success() {
            bail!("/entries.json answered {}: {}", answer.status, String::from_utf8_lossy(&answer.body));
        }
        let page: Answered =
            serde_json::from_slice(&answer.body).context("/entries.json is not understood")?;
        if page.entries.is_empty() {
            return Ok(entries);
        }
        entries.extend(page.entries);
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn acknowledged(writer: &str, numbers: &[u64]) -> Report {
        let now = SystemTime::UNIX_EPOCH;
        let mut report = Report::starting(now);
        report.acknowledged = numbers
            .iter()
            .map(|number| Acknowledged {
                writer: writer.into(),
                number: *number,
                id: 1,
                sent: now,
                acknowledged: now,
            })
            .collect();
        report
    }

    fn entries(of: &[(&str, &str)]) -> Vec<Entry> {
        of.iter()
            .map(|(name, message)| Entry { id: 1, name: (*name).into(), message: (*message).into() })
            .collect()
    }

    #[test]
    fn given_an_acknowledged_entry_that_is_not_there_then_it_is_missing() {
        let found = acknowledged("p", &[1, 2]).verify_entries(&entries(&[("p", "1"), ("q", "2")]));
        assert_eq!((found.acknowledged, found.found), (2, 1));
        assert_eq!(found.missing[0].number, 2);
        assert!(!found.is_complete());
    }

    #[test]
    fn given_an_entry_twice_then_it_is_a_fault_even_if_it_was_never_acknowledged() {
        let there = entries(&[("p", "1"), ("p", "2"), ("p", "2"), ("someone", "hi"), ("someone", "hi")]);
        let found = acknowledged("p", &[1]).verify_entries(&there);
        assert_eq!(found.twice, [("p".to_owned(), 2)]);
        assert_eq!(found.unacknowledged, 1);
        assert!(!found.is_complete());
    }

    #[test]
    fn given_a_restore_that_was_asked_for_then_its_time_is_set_aside() {
        let at = |seconds| SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        let mut report = acknowledged("p", &[1, 2, 3]);
        for (entry, second) in report.acknowledged.iter_mut().zip([10, 20, 30]) {
            entry.sent = at(second);
            entry.acknowledged = at(second + 1);
        }
        assert_eq!(report.set_aside(at(15), at(25)), 1);
        let found = report.verify_entries(&entries(&[("p", "1"), ("p", "3")]));
        assert!(found.is_complete());
        assert_eq!((found.acknowledged, report.set_aside), (2, 1));
    }
}

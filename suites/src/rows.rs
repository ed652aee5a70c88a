//! Numbered rows that are written by requests while something is done to their database. None of the requests fails, and which were answered well is
//! known, so that each row can be looked for afterwards.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test stops where it fails, and says its numbers"
)]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use cutover_testkit::site::{App, Site};
use cutover_testkit::{SOON, ask};

/// Where the application of these suites is reached.
pub const HOST: &str = "ledger.localhost";

/// Writes rows called `name` and a number until `acts` is over. Gives those that were answered well, and what `acts` gave.
///
/// # Panics
/// When a request failed, or none was made.
pub async fn written_while<T>(
    site: &Site,
    name: &str,
    acts: impl Future<Output = T>,
) -> (BTreeSet<String>, T) {
    let over = AtomicBool::new(false);
    let acting = async {
        let given = acts.await;
        over.store(true, Ordering::Relaxed);
        given
    };
    let ((good, bad), given) = tokio::join!(write(site, &over, name), acting);
    println!("{name}: {} rows acknowledged, {} requests failed", good.len(), bad.len());
    assert!(bad.is_empty() && !good.is_empty(), "{name}: {bad:?}");
    (good, given)
}

/// Whether every row that was acknowledged is among those that are there, one a line.
///
/// # Panics
/// When one is missing.
pub fn none_is_missing(name: &str, acknowledged: &BTreeSet<String>, there: &str) {
    let there: BTreeSet<&str> = there.lines().collect();
    let missing: Vec<&String> = acknowledged.iter().filter(|row| !there.contains(row.as_str())).collect();
    assert!(missing.is_empty(), "{name}: {missing:?} of {} rows", acknowledged.len());
}

/// Whether the application of this version answers.
///
/// # Panics
/// When it does not, or another does.
pub async fn serves(app: &App<'_>, version: &str) {
    let answer = ask(app.site().http().unwrap(), HOST, "/cgi-bin/health").await.unwrap();
    assert!(answer.status == 200 && answer.body.contains(version), "{answer:?}");
}

/// Those that were answered well, and what the others were answered.
async fn write(site: &Site, over: &AtomicBool, name: &str) -> (BTreeSet<String>, Vec<String>) {
    let (mut good, mut bad) = (BTreeSet::new(), Vec::new());
    for number in 1.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let row = format!("{name}{number}");
        let path = format!("/cgi-bin/add?{row}");
        match tokio::time::timeout(SOON, ask(site.http().unwrap(), HOST, &path)).await.unwrap() {
            Ok(answer) if answer.status == 200 => drop(good.insert(row)),
            Ok(answer) => bad.push(format!("{path}: {} {}", answer.status, answer.body)),
            Err(error) => bad.push(format!("{path}: {error}")),
        }
    }
    (good, bad)
}

//! The end of the story: everything that was counted, and whether all of it is as promised.

use std::time::SystemTime;

use anyhow::{Context as _, ensure};
use cutover_testkit::probe::{Ledger, Report, Verification, fetch_entries};
use cutover_testkit::site::App;

use super::stage::Stage;
use super::telling::{self, seconds};

/// Ends the traffic, looks for every entry, and shows the table; gives the application back.
pub(super) async fn conclude(mut stage: Stage<'_>) -> anyhow::Result<App<'_>> {
    telling::step("9. What was counted.");
    let mut report = stage.stop_traffic().await?;
    if let Some((from, to)) = stage.set_aside {
        report.set_aside(SystemTime::from(from), SystemTime::from(to));
    }
    let entries = fetch_entries(&stage.app.traffic()?).await.context("the entries")?;
    let found = report.verify_entries(&entries);
    let ledger = Ledger::read(&stage.app.ledger())?;
    telling::table(&rows(&report, &found, &ledger));
    telling::step("Times, as recorded on the host:");
    telling::table(&stage.times);
    telling::step("So:");
    ensure!(report.failed() == 0, "requests failed:\n{report}");
    ensure!(found.is_complete(), "entries are missing or there twice: {:?} {:?}", found.missing, found.twice);
    ensure!(ledger.overlaps().is_empty(), "two bots ran at once: {:?}", ledger.overlaps());
    telling::good("no request failed, no entry is missing, never two bots at once");
    Ok(stage.app)
}

fn rows(report: &Report, found: &Verification, ledger: &Ledger) -> Vec<(String, String)> {
    let total = report.total();
    let slowest =
        report.slowest().map_or_else(String::new, |(kind, wait)| format!("{} ({kind})", seconds(wait)));
    let gap = ledger.longest_gap().map(seconds).unwrap_or_default();
    let rows = [
        ("requests sent", report.sent().to_string()),
        ("  failed", report.failed().to_string()),
        ("  500 by v6 itself", total.app_errors.to_string()),
        ("  slowest", slowest),
        ("entries posted and acknowledged", (found.acknowledged + report.set_aside).to_string()),
        ("  found", found.found.to_string()),
        ("  set aside by --restore-db", report.set_aside.to_string()),
        ("  missing", found.missing.len().to_string()),
        ("bot: two at once", ledger.overlaps().len().to_string()),
        ("  longest gap between polls", gap),
    ];
    rows.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

//! Traffic during a scene: what of it is counted, said, and asserted.

use std::time::{Duration, SystemTime};

use cutover_testkit::probe::{FailedRequest, Ledger, Probe, Report, fetch_entries};
use cutover_testkit::site::App;
use cutover_testkit::{SOON, wait_until};

/// After a kill: so long may a request that was in flight take to fail.
const IN_FLIGHT: Duration = Duration::from_secs(1);

pub(super) fn traffic(app: &App<'_>) -> Probe {
    Probe::start(app.traffic().unwrap())
}

pub(super) fn told(what: &str, report: &Report) {
    println!(
        "{what}: {} requests, {} failed, slowest {:?}\n{report}",
        report.sent(),
        report.failed(),
        report.slowest()
    );
}

pub(super) fn none_failed(what: &str, report: &Report) {
    told(what, report);
    assert_eq!(report.failed(), 0, "{what}: {report}");
    assert!(report.sent() > 50, "{what}: that was hardly traffic: {report}");
}

/// All failures lie in the moment of a kill; gives them.
pub(super) fn failed_only_at(what: &str, report: &Report, at: SystemTime) -> Vec<FailedRequest> {
    told(what, report);
    for failure in &report.failures {
        let after = failure.at.duration_since(at).unwrap_or_default();
        assert!(failure.at >= at && after < IN_FLIGHT, "{what}: {failure:?}, {after:?} after the kill");
    }
    assert!(report.failed() < 20, "{what}: more than were in flight: {report}");
    report.failures.clone()
}

pub(super) async fn nothing_lost(app: &App<'_>, report: &Report) {
    let found = report.verify_entries(&fetch_entries(&app.traffic().unwrap()).await.unwrap());
    println!("entries: {} acknowledged, {} found", found.acknowledged, found.found);
    assert!(found.is_complete(), "{:?} {:?}", found.missing, found.twice);
}

pub fn one_bot_at_a_time(app: &App<'_>) {
    let ledger = Ledger::read(&app.ledger()).unwrap();
    println!("bot: {} instances, longest gap {:?}", ledger.instances().len(), ledger.longest_gap());
    assert!(ledger.overlaps().is_empty(), "{:?}", ledger.overlaps());
}

/// Traffic goes on for a while after something happened.
pub(super) async fn more_traffic(probe: &Probe, requests: u64) {
    let before = probe.so_far().sent();
    let there = async || (probe.so_far().sent() > before + requests).then_some(());
    wait_until("more traffic", SOON, there).await.unwrap();
}

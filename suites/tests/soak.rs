//! Hundreds of deploys in a row under traffic: none fails a request, and nothing grows. Counts are asserted, times never.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test stops where it fails, and says its numbers"
)]

use cutover_suites::bench::streak::{deploys, next_of_processes};
use cutover_testkit::site::Site;

/// Until as many runs are on record as are kept.
const WARM_UP: usize = 110;
const COUNT: usize = 200;
/// Bytes: what an allocator may keep, and a log gain.
const SLACK: u64 = 4 * 1024 * 1024;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn two_hundred_deploys_in_a_row_fail_no_request_and_leave_nothing_behind() {
    let site = Site::new().unwrap();
    let app = site.app("sample", "sample.localhost").unwrap();
    for number in 0..WARM_UP {
        site.run(next_of_processes(&app, number).unwrap()).await.unwrap().expect(0).unwrap();
    }

    let streak = deploys(&app, COUNT, |number| next_of_processes(&app, WARM_UP + number)).await.unwrap();

    let (before, after) = (streak.before, streak.after);
    println!(
        "{COUNT} deploys in {:?}\n{}\nbefore: {before:?}\nafter: {after:?}",
        streak.took, streak.traffic
    );
    assert_eq!(streak.traffic.failed(), 0);
    assert_eq!(after.processes, before.processes);
    assert!(after.all().descriptors <= before.all().descriptors, "descriptors grew");
    // A write-ahead log and its index come and go.
    assert!(after.files <= before.files + 4, "files grew");
    assert!(after.bytes <= before.bytes + SLACK, "the root grew");
    assert!(after.all().pss <= before.all().pss + SLACK, "memory grew");
}

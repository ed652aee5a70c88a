//! Hundreds of deploys in a row under traffic: none fails a request, and nothing grows. Counts are asserted, times never.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test stops where it fails, and says its numbers"
)]

use cutover_suites::bench::streak::{Row, Streak, of_containers, of_processes};
use cutover_suites::engine;
use cutover_testkit::site::Binaries;

/// Before the first look: until as many runs are on record as are kept, which are a hundred.
const ROW: Row = Row { warm_up: 110, count: 200 };
/// Connections that are kept alive to what is live come and go; what stayed after each deploy would be hundreds.
const CONNECTIONS: u64 = 8;
/// Bytes: what an allocator may keep, and a log gain.
const SLACK: u64 = 4 * 1024 * 1024;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn two_hundred_deploys_of_processes_in_a_row_fail_no_request_and_leave_nothing_behind() {
    leaves_nothing_behind(&of_processes(ROW).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn two_hundred_deploys_of_containers_in_a_row_fail_no_request_and_leave_nothing_behind() {
    match engine::usable().await {
        Err(why) => println!("not run: two hundred deploys of containers: {why}"),
        Ok(engine) => {
            let binaries = Binaries::beside_this_program().unwrap();
            leaves_nothing_behind(&of_containers(binaries, engine, ROW).await.unwrap());
        }
    }
}

fn leaves_nothing_behind(streak: &Streak) {
    let Streak { traffic, before, after, took } = streak;
    println!("{} deploys in {took:?}\n{traffic}\nbefore: {before:?}\nafter: {after:?}", ROW.count);
    assert_eq!(traffic.failed(), 0);
    assert_eq!(after.processes, before.processes, "processes");
    assert_eq!(after.on_engine, before.on_engine, "containers and networks");
    assert!(after.all().descriptors <= before.all().descriptors + CONNECTIONS, "descriptors grew");
    // A write-ahead log and its index come and go.
    assert!(after.files <= before.files + 4, "files grew");
    assert!(after.bytes <= before.bytes + SLACK, "the root grew");
    assert!(after.all().pss <= before.all().pss + SLACK, "memory grew");
}

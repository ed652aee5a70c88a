//! Servers of the tests' own: what happens to servers happens to them, and what is deployed to them serves.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test stops where it fails, and says its numbers"
)]

use std::time::{Duration, Instant};

use cutover_suites::servers::on_server;
use cutover_testkit::machine::{Cut, Image, ServerApp, User};
use cutover_testkit::probe::{Probe, fetch_entries};
use cutover_testkit::site::Binaries;
use cutover_testkit::wait_until;

/// On every wait.
const SOON: Duration = Duration::from_mins(1);

/// In which one that lets in would have answered.
const A_WHILE: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_to_servers_happens_to_those_of_the_tests() {
    let name = "what_happens_to_servers_happens_to_those_of_the_tests";
    on_server(name, Image::Engine20, async |machine| {
        assert_eq!(machine.ssh(User::Admin, "sudo -n id -u").await.unwrap(), "0");
        machine.ssh(User::Guest, "sudo -n true").await.unwrap_err();
        let boot = machine.boots().await.unwrap();

        machine.reboot().await.unwrap();
        machine.lose_power().await.unwrap();
        machine.power_on().await.unwrap();
        assert_eq!(machine.boots().await.unwrap(), boot + 2);

        for what in [Cut::Ssh, Cut::All] {
            machine.cut(what).await.unwrap();
            // Dropped: whoever knocks waits.
            tokio::time::timeout(A_WHILE, machine.ssh(User::Root, "true")).await.unwrap_err();
            machine.mend(what).await.unwrap();
            machine.ssh(User::Root, "true").await.unwrap();
        }
        machine.hang().await.unwrap();
        tokio::time::timeout(A_WHILE, machine.ssh(User::Root, "true")).await.unwrap_err();
        machine.resume().await.unwrap();
        machine.ssh(User::Root, "true").await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deployed_over_ssh_serves_also_after_a_reboot() {
    on_server("what_is_deployed_over_ssh_serves_also_after_a_reboot", Image::Debian13, async |machine| {
        let binaries = Binaries::beside_this_program().unwrap();
        machine.install(&binaries).await.unwrap();
        let app = ServerApp::of_processes(machine, &binaries, "shop").unwrap();
        app.commit("v1", "first", str::to_owned).unwrap();
        app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
        let probe = Probe::start(app.traffic());
        app.commit("v2", "second", str::to_owned).unwrap();
        app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
        let report = probe.stop().await;
        assert_eq!(report.failed(), 0, "{report}");

        let began = Instant::now();
        machine.reboot().await.unwrap();
        let answers = async || app.ask("/version").await.ok().filter(|answer| answer.status == 200);
        let answer = wait_until("it serves again", SOON, answers).await.unwrap();
        println!(
            "serving {:?} after the reboot began; before it {} requests",
            began.elapsed(),
            report.sent()
        );
        let live = app.status().await.unwrap().live.unwrap();
        assert_eq!(live.subject.as_deref(), Some("second"));
        assert_eq!(answer.release.as_deref(), Some(live.release.as_str()));
        let found = report.verify_entries(&fetch_entries(&app.traffic()).await.unwrap());
        assert!(found.is_complete(), "{:?} {:?}", found.missing, found.twice);
    })
    .await;
}

//! Servers of the tests' own: what happens to servers happens to them.
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

use std::time::Duration;

use cutover_suites::servers::on_server;
use cutover_testkit::machine::{Cut, Image, User};

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
async fn trial() {
    on_server("trial", Image::Engine20, async |machine| {
        let binaries = cutover_testkit::site::Binaries::beside_this_program().unwrap();
        machine.install(&binaries).await.unwrap();
        let app = cutover_testkit::machine::ServerApp::of_processes(machine, &binaries, "shop").unwrap();
        app.commit("v1", "first", str::to_owned).unwrap();
        let told = app.cutover(&["deploy", "--json"]).await.unwrap();
        println!("{told:?}");
        told.expect(0).unwrap();
        println!("{:?}", app.ask("/version").await);
        println!("{:?}", app.status().await);
        println!("{:?}", app.history().await);
        for process in machine.processes().await.unwrap() {
            println!("{process}");
        }
    })
    .await;
}

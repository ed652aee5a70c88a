//! An image whose layers the server's engine says it has, and cannot make it from: it is loaded whole then.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a part of tests: it stops where it fails, and says its numbers"
)]

use std::process::Stdio;

use cutover_testkit::machine::{Machine, ServerApp, User};
use cutover_testkit::site::Binaries;
use cutover_testkit::{SOON, wait_until};
use tokio::process::{Child, Command};

use crate::built_there::Keeps;
use crate::engine;
use crate::hardships::{WITH_ENGINE, says, serves};
use crate::on_the_way::Way;
use crate::registry::{PASSWORD, Registry, USER};

/// More than a release's own files are, and less than what all releases have.
const MUCH: u64 = 1_000_000;

/// The registry, at the same address on the server.
async fn tunnel(machine: &Machine, registry: &Registry) -> Child {
    let (ssh, server) = (machine.ssh_program(), registry.server());
    let mut command = Command::new(ssh);
    command.args([
        "-N",
        "-o",
        "ExitOnForwardFailure=yes",
        "-R",
        &format!("{server}:{server}"),
        &machine.target(User::Root),
    ]);
    let child = command.stdin(Stdio::null()).kill_on_drop(true).spawn().unwrap();
    let (address, port) = server.split_once(':').unwrap();
    let line = format!("exec 3<>/dev/tcp/{address}/{port}");
    let open = async || machine.exec(&["bash", "-c", &line]).await.ok();
    wait_until("the registry is reached there", SOON, open).await.unwrap();
    child
}

/// All that was unpacked of images: the one above another goes before it.
const UNPACKED_GOES: &str = r#"all() { ctr -n moby snapshots --snapshotter overlayfs ls | awk 'NR > 1 { print $1 }'; }
for round in 1 2 3 4 5 6 7 8; do all | while read -r one; do ctr -n moby snapshots --snapshotter overlayfs rm "$one" 2>/dev/null; done; done
all | wc -l"#;

/// Containerd's store has layers that a registry gave as they came, compressed, and once more, unpacked. An archive names them as they are unpacked:
/// where only the first is left, the engine names the layers its own and does not find them.
pub async fn after_a_refused_one(machine: &Machine) {
    Keeps::InContainerd.begin(machine).await;
    let (binaries, engine) = (Binaries::beside_this_program().unwrap(), engine::usable().await.unwrap());
    let shop = ServerApp::of_containers(machine, &binaries, &engine, "shop").await.unwrap();
    let shop = shop.set_up_with(WITH_ENGINE);
    let registry = Registry::start(&engine).await.unwrap();
    let (server, base) = (registry.server(), shop.base().unwrap());
    let there = format!("{server}/base:1");
    registry.docker(&["tag", base, &there]).unwrap();
    registry.docker(&["push", &there]).unwrap();
    registry.docker(&["rmi", &there]).unwrap();
    let through = tunnel(machine, &registry).await;
    says(
        machine,
        &format!("docker login --username {USER} --password {PASSWORD} {server} && docker pull {there}"),
    )
    .await;
    drop(through);
    assert_eq!(says(machine, UNPACKED_GOES).await.lines().last(), Some("0"));
    assert!(says(machine, "docker images").await.contains("base"), "it is an image all the same");

    let way = Way::new(machine);
    shop.commit("v1", "first", str::to_owned).unwrap();
    shop.cutover(&["setup"]).await.unwrap().expect(0).unwrap();
    let mut sent = Vec::new();
    for subject in ["first", "second"] {
        shop.commit("v1", subject, str::to_owned).unwrap();
        way.stops_after(usize::MAX);
        let mut command = shop.command(&["deploy"]);
        let output = command.env("CUTOVER_SSH", way.program()).output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serves(&shop, subject).await;
        sent.push(way.sent());
    }
    println!("sent: with layers that only seemed to be there {}, with layers that are {}", sent[0], sent[1]);
    assert!(sent[0] > MUCH && sent[1] < MUCH, "{sent:?}");
}

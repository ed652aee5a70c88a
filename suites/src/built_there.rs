//! Images that a server builds itself, from what changed, on the engines of today's distributions: with images as layers of the engine's own, and in
//! containerd's store.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a part of tests: it stops where it fails, and says its numbers"
)]

use cutover_testkit::machine::{Machine, ServerApp};
use cutover_testkit::probe::{Probe, fetch_entries};
use cutover_testkit::site::Binaries;

use crate::engine;
use crate::hardships::{WITH_ENGINE, failed, says, serves};
use crate::on_the_way::built_there;

/// Where a server's engine keeps its images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeps {
    /// As it does by itself.
    Usually,
    /// In containerd's store.
    InContainerd,
}

impl Keeps {
    /// From here on it is so; what it had is not there any more.
    pub async fn begin(self, machine: &Machine) {
        if self == Self::InContainerd {
            let features = r#"{"features": {"containerd-snapshotter": true}}"#;
            let line = format!(
                "mkdir -p /etc/docker && echo '{features}' >/etc/docker/daemon.json && systemctl restart docker"
            );
            says(machine, &line).await;
        }
        println!(
            "{}",
            says(machine, "docker info --format '{{.ServerVersion}} {{.Driver}} {{.DriverStatus}}'").await
        );
    }
}

/// Whatever the engine keeps, a deploy builds there, a build that fails touches nothing, and what it was built from goes when nothing needs it.
pub async fn all(machine: &Machine, keeps: Keeps) {
    keeps.begin(machine).await;
    let (binaries, engine) = (Binaries::beside_this_program().unwrap(), engine::usable().await.unwrap());
    let shop = ServerApp::of_containers(machine, &binaries, &engine, "shop").await.unwrap();
    let shop = shop.set_up_with(WITH_ENGINE);
    shop.base_to_server().await.unwrap();
    let few = |text: &str| format!("{}keep: 1\n", built_there(text).replace("bake: 1s ", "bake: 200ms "));
    shop.commit("v1", "first", few).unwrap();
    shop.cutover(&["setup"]).await.unwrap().expect(0).unwrap();
    let told = shop.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
    assert!(told.talk.contains("was built on"), "{}", told.talk);
    serves(&shop, "first").await;

    let probe = Probe::start(shop.traffic());
    shop.commit("v2", "second", few).unwrap();
    let told = shop.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
    println!("a deploy that is built on the server took {:?}", told.took);
    serves(&shop, "second").await;
    let broken = "ARG BASE=scratch\nFROM ${BASE}\nCOPY not-there /app\n";
    shop.commit_with("v2", "broken", few, &[("web/Dockerfile", broken)]).unwrap();
    let text = failed(&shop, &["deploy"]).await;
    assert!(text.contains("was not built on the host") && text.contains("not-there"), "{text}");
    // A migration runs in what was built there.
    shop.commit("v3", "third", few).unwrap();
    shop.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
    serves(&shop, "third").await;

    // What is built there again stays, for the next time only what changed is to cross.
    let contexts = async || {
        says(machine, "ls /var/lib/cutover/contexts | sed 's/^[^.]*[.]//' | sort | tr '\\n' ' '").await
    };
    let both = "production.bot production.bot.list production.web production.web.list";
    shop.cutover(&["prune", "--yes"]).await.unwrap().expect(0).unwrap();
    assert_eq!(contexts().await, both);
    // What is built no more goes when no release is left that was.
    let of_image = |text: &str| few(text).replace("build: { on: host, context: bot,", "image: own/bot:1 # ");
    let bot = says(
        machine,
        "docker images --format '{{.Repository}}:{{.Tag}}' 'cutover/*/production/bot' | tail -n 1",
    )
    .await;
    says(machine, &format!("docker tag {bot} own/bot:1")).await;
    for subject in ["fourth", "fifth"] {
        shop.commit("v3", subject, of_image).unwrap();
        shop.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
    }
    assert_eq!(contexts().await, "production.web production.web.list", "with the last release that built it");

    let report = probe.stop().await;
    println!("{} requests, {} failed", report.sent(), report.failed());
    assert_eq!(report.failed(), 0, "{report}");
    let found = report.verify_entries(&fetch_entries(&shop.traffic()).await.unwrap());
    assert!(found.is_complete(), "{:?} {:?}", found.missing, found.twice);
}

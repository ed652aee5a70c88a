//! Two environments of one app, and another app, on one server: what happens to one of them the others do not notice (S2).
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a part of tests: it stops where it fails, and says its numbers"
)]

use cutover_testkit::machine::{Machine, ServerApp};
use cutover_testkit::probe::{Probe, fetch_entries};
use cutover_testkit::site::{Binaries, Told};

use crate::engine;
use crate::hardships::serves;

const SETUP: &str = "logs: false, upgrades: false, time: false, firewall: false, ssh_hardening: false";

async fn done(app: &ServerApp<'_>, words: &[&str]) -> Told {
    app.cutover(words).await.unwrap().expect(0).unwrap()
}

/// Of containers, and of plain processes.
pub async fn all(machine: &Machine) {
    let (binaries, engine) = (Binaries::beside_this_program().unwrap(), engine::usable().await.unwrap());
    let shop = ServerApp::of_containers(machine, &binaries, &engine, "shop").await.unwrap();
    let blog = ServerApp::of_processes(machine, &binaries, "blog").unwrap();
    let (shop, blog) = (shop.set_up_with(SETUP), blog.set_up_with(SETUP));
    shop.commit("v1", "first", str::to_owned).unwrap();
    blog.commit("v1", "first", str::to_owned).unwrap();
    done(&shop, &["setup"]).await;
    for app in [&shop, &blog] {
        let staging = app.staging().unwrap();
        done(&staging, &["setup"]).await;
        done(app, &["deploy"]).await;
        done(&staging, &["deploy"]).await;
    }
    for (app, other) in [(&shop, &blog), (&blog, &shop)] {
        one_environment_changes(app, other).await;
    }
}

/// All that can happen to one environment happens to it. Neither the other environment nor the other app loses a request, or is another
/// instance afterwards.
async fn one_environment_changes(app: &ServerApp<'_>, other: &ServerApp<'_>) {
    let staging = app.staging().unwrap();
    let before = instances(app).await;
    let probes = [Probe::start(app.traffic()), Probe::start(other.traffic())];
    let staged = Probe::start(staging.traffic());

    app.commit("v2", "second", str::to_owned).unwrap();
    done(&staging, &["deploy"]).await;
    serves(&staging, "second").await;
    serves(app, "first").await;
    done(&staging, &["rollback", "--yes"]).await;
    serves(&staging, "first").await;
    done(&staging, &["env", "set", "ONLY_STAGED=1"]).await;
    assert!(!done(app, &["env", "list"]).await.output.contains("ONLY_STAGED"));
    // Requests wait, of this environment only.
    let change = "ALTER TABLE entries ADD COLUMN staged TEXT;";
    app.commit_with("v2", "third", str::to_owned, &[("web/migrations/101_staged.sql", change)]).unwrap();
    done(&staging, &["deploy"]).await;
    done(&staging, &["stop"]).await;
    done(&staging, &["start"]).await;
    let report = staged.lap();
    println!("{}: {} requests, {} failed while it was stopped", staging.id(), report.sent(), report.failed());
    drop(staged);
    done(&staging, &["remove", "--yes"]).await;
    assert_eq!(staging.ask("/version").await.unwrap().status, 404);
    assert_eq!(instances(app).await, before, "an instance of the other environment was replaced");

    // Each has a lock of its own: both at once.
    app.commit("v2", "both at once", |text| text.replace("bake: 1s", "bake: 3s")).unwrap();
    let (one, two) = tokio::join!(app.cutover(&["deploy"]), staging.cutover(&["deploy"]));
    for told in [one, two] {
        told.unwrap().expect(0).unwrap();
    }
    serves(app, "both at once").await;
    serves(&staging, "both at once").await;
    for (app, probe) in [app, other].into_iter().zip(probes) {
        let report = probe.stop().await;
        println!(
            "{}: {} requests, {} failed, slowest {:?}",
            app.id(),
            report.sent(),
            report.failed(),
            report.slowest()
        );
        assert_eq!(report.failed(), 0, "{report}");
        let found = report.verify_entries(&fetch_entries(&app.traffic()).await.unwrap());
        assert!(found.is_complete(), "{:?} {:?}", found.missing, found.twice);
    }
}

/// The processes of its instances.
async fn instances(app: &ServerApp<'_>) -> Vec<u32> {
    let all = app.machine().processes().await.unwrap();
    let mut ours: Vec<u32> =
        all.iter().filter(|one| one.is_instance_of(app.id())).map(|one| one.pid).collect();
    ours.sort_unstable();
    ours
}

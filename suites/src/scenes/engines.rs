//! An engine that restarts, dies with everything on it, or cannot be reached by its bridge. Each time it is one that the test itself started.

use std::time::Instant;

use cutover_testkit::probe::fetch_entries;
use cutover_testkit::site::{Docker, OwnEngine, Site};
use cutover_testkit::{SOON, wait_until};

use super::applications::{as_it_is, deploy, deployed, running};
use super::counted::{more_traffic, none_failed, nothing_lost, one_bot_at_a_time, told, traffic};
use super::deploys::{blue_green_with_replicas_and_its_rollback, serves};

/// What fails meanwhile is told, not counted; afterwards all is as before, without being asked.
pub async fn a_restarted_engine_brings_all_back(site: &Site, engine: &OwnEngine) {
    let app = deployed(site, "shop", as_it_is).await;
    let probe = traffic(&app);
    more_traffic(&probe, 100).await;
    let began = Instant::now();
    tokio::task::block_in_place(|| engine.restart()).unwrap();
    let options = app.traffic().unwrap();
    wait_until("it answers again", SOON, async || fetch_entries(&options).await.ok()).await.unwrap();
    println!("serving {:?} after the restart began", began.elapsed());
    let during = probe.stop().await;
    told("the engine restarted", &during);
    nothing_lost(&app, &during).await;
    wait_until("the bot runs", SOON, async || (running(site, "bot").len() == 1).then_some(())).await.unwrap();
    serves(&app, "v1").await;
    let probe = traffic(&app);
    deploy(&app, "v2", as_it_is).await;
    none_failed("a deploy after the engine's restart", &probe.stop().await);
    one_bot_at_a_time(&app);
}

/// Engine, containers and all of cutover's own end at once, and start again as after a reboot.
pub async fn after_a_loss_of_power_the_same_release_serves(site: &Site, engine: &OwnEngine) {
    let app = deployed(site, "shop", as_it_is).await;
    deploy(&app, "v2", as_it_is).await;
    let probe = traffic(&app);
    more_traffic(&probe, 100).await;
    let written = probe.stop().await;
    let count = site.kill_own().unwrap();
    tokio::task::block_in_place(|| engine.kill()).unwrap();
    assert!(site.processes().is_empty(), "{:?}", site.processes());
    let began = Instant::now();
    tokio::task::block_in_place(|| engine.again()).unwrap();
    site.boot().await.unwrap();
    let options = app.traffic().unwrap();
    wait_until("it answers again", SOON, async || fetch_entries(&options).await.ok()).await.unwrap();
    println!("{count} processes and the engine killed; serving {:?} after the start", began.elapsed());
    serves(&app, "v2").await;
    nothing_lost(&app, &written).await;
    wait_until("the bot runs", SOON, async || (running(site, "bot").len() == 1).then_some(())).await.unwrap();
    one_bot_at_a_time(&app);
}

/// Where the host cannot reach the engine's bridge, ports published on loopback take its place, and nothing else changes.
pub async fn without_a_bridge_ports_on_loopback_take_its_place(site: &Site) {
    blue_green_with_replicas_and_its_rollback(site).await;
    let published = published(site.docker().unwrap()).await;
    assert_eq!(published.len(), 3, "{published:?}");
    assert!(published.iter().all(|port| port.starts_with("127.0.0.1:")), "{published:?}");
}

/// Where containers are published on this host.
async fn published(docker: &Docker) -> Vec<String> {
    let all = docker.engine().list(&std::collections::BTreeMap::new()).await.unwrap();
    let ports = all.into_iter().flat_map(|container| container.ports);
    ports.map(|port| format!("{}:{}", port.address, port.host)).collect()
}

//! Real binaries, real processes, constant traffic: deploys of every shape, and every process killed. Each test prints how many requests it
//! sent and how many failed.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test stops where it fails, and says its numbers"
)]

use std::time::{Duration, Instant, SystemTime};

use cutover_testkit::probe::{Ledger, Probe, ProbeOptions, Report, fetch_entries};
use cutover_testkit::site::{App, Process, Site};
use cutover_testkit::{get, wait_until};

const SOON: Duration = Duration::from_secs(30);
/// After a kill: so long may a request that was in flight take to fail.
const IN_FLIGHT: Duration = Duration::from_secs(1);

fn told(what: &str, report: &Report) {
    println!(
        "{what}: {} requests, {} failed, slowest {:?}\n{report}",
        report.sent(),
        report.failed(),
        report.slowest()
    );
}

fn none_failed(what: &str, report: &Report) {
    told(what, report);
    assert_eq!(report.failed(), 0, "{report}");
    assert!(report.sent() > 50, "that was hardly traffic: {report}");
}

async fn nothing_lost(app: &App<'_>, report: &Report) {
    let found = report.verify_entries(&fetch_entries(&app.traffic().unwrap()).await.unwrap());
    println!("entries: {} acknowledged, {} found", found.acknowledged, found.found);
    assert!(found.is_complete(), "{:?} {:?}", found.missing, found.twice);
}

fn one_bot_at_a_time(app: &App<'_>) {
    let ledger = Ledger::read(&app.ledger()).unwrap();
    println!("bot: {} instances, longest gap {:?}", ledger.instances().len(), ledger.longest_gap());
    assert!(ledger.overlaps().is_empty(), "{:?}", ledger.overlaps());
}

async fn deployed<'a>(site: &'a Site, name: &str, edit: fn(&str) -> String) -> App<'a> {
    let app = site.app(name, &format!("{name}.localhost")).unwrap();
    deploy(&app, "v1", edit).await;
    app
}

async fn deploy(app: &App<'_>, version: &str, edit: fn(&str) -> String) {
    app.commit(version, edit).unwrap();
    app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
    assert_eq!(app.serving().await.unwrap(), version);
}

fn as_it_is(config: &str) -> String {
    config.to_owned()
}

fn with_replicas(config: &str) -> String {
    config.replace("    route: {", "    replicas: 3\n    route: {")
}

fn as_singleton(config: &str) -> String {
    config.replace("    route: {", "    strategy: handover\n    route: {")
}

#[tokio::test(flavor = "multi_thread")]
async fn blue_green_with_replicas_and_its_rollback_fail_no_request() {
    let site = Site::new().unwrap();
    let app = deployed(&site, "shop", with_replicas).await;
    let probe = Probe::start(app.traffic().unwrap());
    deploy(&app, "v2", with_replicas).await;
    app.cutover(&["rollback", "--yes"]).await.unwrap().expect(0).unwrap();
    assert_eq!(app.serving().await.unwrap(), "v1");
    let report = probe.stop().await;
    none_failed("three replicas, deploy and rollback", &report);
    nothing_lost(&app, &report).await;
    one_bot_at_a_time(&app);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_singleton_with_a_route_is_handed_over_under_a_hold() {
    let site = Site::new().unwrap();
    let app = deployed(&site, "single", as_singleton).await;
    let probe = Probe::start(app.traffic().unwrap());
    deploy(&app, "v2", as_singleton).await;
    let report = probe.stop().await;
    none_failed("handover of a routed singleton", &report);
    nothing_lost(&app, &report).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_apps_deploy_at_once_and_one_goes_without_the_other_noticing() {
    let site = Site::new().unwrap();
    let one = deployed(&site, "one", as_it_is).await;
    let two = deployed(&site, "two", as_it_is).await;
    let (of_one, of_two) = (Probe::start(one.traffic().unwrap()), Probe::start(two.traffic().unwrap()));
    tokio::join!(deploy(&one, "v2", as_it_is), deploy(&two, "v2", as_it_is));
    none_failed("the second app, deployed beside the first", &of_two.stop().await);
    two.cutover(&["remove", "--yes"]).await.unwrap().expect(0).unwrap();
    let report = of_one.stop().await;
    none_failed("the first app, deployed beside the second, which then goes", &report);
    nothing_lost(&one, &report).await;
    assert_eq!(one.serving().await.unwrap(), "v2");
    assert!(two.status().await.is_ok_and(|status| status.live.is_none()));
}

/// Two services of one artifact, without a database; the front asks the back.
const PAIR: &str = r#"app: pair
services:
  front:
    artifact: web
    command: ./guestbook serve
    environment: { HOST: 127.0.0.1, PEER_URL: "${services.back.url}" }
    route: { host: pair.localhost }
    health: { path: /health }
  back:
    artifact: web
    command: ./guestbook serve
    environment: { HOST: 127.0.0.1 }
    strategy: blue-green
    port: 8000
    health: { path: /health }
bake: 1s
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_call_between_services_reaches_its_own_release() {
    let site = Site::new().unwrap();
    let app = site.app("pair", "pair.localhost").unwrap();
    let lay = |version: &str| {
        app.commit(version, |_| PAIR.to_owned()).unwrap();
        std::fs::write(app.repository().join("web/behaviour.json"), r#"{ "database": "memory" }"#).unwrap();
        app.record(version).unwrap();
    };
    lay("v1");
    app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
    let http = site.http().unwrap();
    let calls = tokio::spawn(async move {
        let mut seen: Vec<String> = Vec::new();
        let mut count = 0;
        while seen.len() < 2 {
            let answer = get(http, "pair.localhost", "/peer").await.unwrap();
            let said: serde_json::Value =
                serde_json::from_str(&answer).unwrap_or_else(|_| panic!("{answer}"));
            let release = |who: &str| said[who]["release"].as_str().unwrap().to_owned();
            assert_eq!(release("own"), release("peer"), "{said}");
            if !seen.contains(&release("own")) {
                seen.push(release("own"));
            }
            count += 1;
        }
        count
    });
    let probe = Probe::start(app.traffic().unwrap());
    lay("v2");
    app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
    let count = tokio::time::timeout(SOON, calls).await.unwrap().unwrap();
    none_failed(&format!("{count} calls from service to service"), &probe.stop().await);
}

/// Without what lasts: nothing of it is in flight for long.
fn short(options: ProbeOptions) -> ProbeOptions {
    let mut options = options;
    options.mix.slow = cutover_testkit::probe::Load::default();
    options.mix.websocket = 0;
    options.mix.sse = 0;
    options
}

/// Kills a process and waits until another of its kind is there; when it was killed, and how long that took.
async fn killed(site: &Site, what: &str, is: impl Fn(&Process) -> bool) -> (SystemTime, Duration) {
    let at = SystemTime::now();
    let began = Instant::now();
    let gone = site.kill(&is).unwrap();
    wait_until(&format!("{what} is back"), SOON, async || {
        site.processes().iter().any(|found| is(&found.process) && found.pid != gone.pid).then_some(())
    })
    .await
    .unwrap();
    println!("{what} killed, and back after {:?}", began.elapsed());
    (at, began.elapsed())
}

/// Traffic goes on for a while after something happened.
async fn more_traffic(probe: &Probe, requests: u64) {
    let before = probe.so_far().sent();
    let there = async || (probe.so_far().sent() > before + requests).then_some(());
    wait_until("more traffic", SOON, there).await.unwrap();
}

/// All failures lie in the moment of the kill.
fn failed_only_at(what: &str, report: &Report, at: SystemTime) {
    told(what, report);
    for failure in &report.failures {
        let after = failure.at.duration_since(at).unwrap_or_default();
        assert!(failure.at >= at && after < IN_FLIGHT, "{failure:?}, {after:?} after the kill");
    }
    assert!(report.failed() < 20, "more than were in flight: {report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_proxy_is_back_within_a_second() {
    let site = Site::new().unwrap();
    let app = deployed(&site, "shop", as_it_is).await;
    let probe = Probe::start(app.traffic().unwrap());
    more_traffic(&probe, 100).await;
    let (at, took) = killed(&site, "the proxy", |process| *process == Process::Proxy).await;
    more_traffic(&probe, 200).await;
    failed_only_at("the proxy killed", &probe.stop().await, at);
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_watch_or_keeper_is_back_and_nobody_notices() {
    let site = Site::new().unwrap();
    let app = deployed(&site, "shop", as_it_is).await;
    let probe = Probe::start(short(app.traffic().unwrap()));
    more_traffic(&probe, 100).await;
    killed(&site, "watch", |process| *process == Process::Watch).await;
    more_traffic(&probe, 100).await;
    killed(&site, "the keeper of web", |process| process.is_keeper_of("web")).await;
    more_traffic(&probe, 200).await;
    let report = probe.stop().await;
    none_failed("watch and a keeper killed", &report);
    nothing_lost(&app, &report).await;
    deploy(&app, "v2", as_it_is).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_three_replicas_one_is_killed_by_hand() {
    let site = Site::new().unwrap();
    let app = deployed(&site, "shop", with_replicas).await;
    let probe = Probe::start(short(app.traffic().unwrap()));
    more_traffic(&probe, 100).await;
    let before = site.processes().iter().filter(|found| found.process.is_instance_of("web")).count();
    let at = SystemTime::now();
    let began = Instant::now();
    let gone = site.kill(|process| process.is_instance_of("web")).unwrap();
    wait_until("the instance is back", SOON, async || {
        let all = site.processes();
        let webs: Vec<_> = all.iter().filter(|found| found.process.is_instance_of("web")).collect();
        (webs.len() == before && webs.iter().all(|found| found.pid != gone.pid)).then_some(())
    })
    .await
    .unwrap();
    let took = began.elapsed();
    more_traffic(&probe, 200).await;
    println!("back after {took:?}");
    failed_only_at("one of three killed", &probe.stop().await, at);
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_all_was_killed_at_once_the_same_release_serves() {
    let site = Site::new().unwrap();
    let app = deployed(&site, "shop", as_it_is).await;
    deploy(&app, "v2", as_it_is).await;
    let probe = Probe::start(app.traffic().unwrap());
    more_traffic(&probe, 100).await;
    let written = probe.stop().await;
    let count = site.kill_all().unwrap();
    let began = Instant::now();
    site.boot().await.unwrap();
    let options = app.traffic().unwrap();
    wait_until("it answers again", SOON, async || fetch_entries(&options).await.ok()).await.unwrap();
    println!("{count} processes killed; serving {:?} after the start", began.elapsed());
    assert_eq!(app.serving().await.unwrap(), "v2");
    nothing_lost(&app, &written).await;
    one_bot_at_a_time(&app);
    let stopped = site.down().await.unwrap().expect(0).unwrap();
    println!("{}", stopped.talk.trim());
    assert!(site.processes().is_empty(), "{:?}", site.processes());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_somebody_has_open_is_not_migrated() {
    let site = Site::new().unwrap();
    let app = deployed(&site, "shop", as_it_is).await;
    let file = site.root().join("lib/apps/shop/local/volumes/data/guestbook.db");
    let console = std::fs::File::open(&file).unwrap();
    let probe = Probe::start(short(app.traffic().unwrap()));

    app.commit("v3", as_it_is).unwrap();
    let refused = app.cutover(&["deploy"]).await.unwrap().expect(5).unwrap();

    assert!(refused.failure().contains("has it open"), "{}", refused.talk);
    assert_eq!(app.serving().await.unwrap(), "v1");
    drop(console);
    deploy(&app, "v3", as_it_is).await;
    let report = probe.stop().await;
    none_failed("a migration that was refused, then done", &report);
    nothing_lost(&app, &report).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_run_beside_a_deploy_that_may_migrate() {
    let site = Site::new().unwrap();
    let app = deployed(&site, "shop", |config| config.replace("bake: 1s", "bake: 5m")).await;
    app.commit("v2", |config| config.replace("bake: 1s", "bake: 5m")).unwrap();
    let deploying = app.cutover(&["deploy", "--detach"]).await.unwrap().expect(0).unwrap();
    assert!(deploying.failure().is_empty());
    wait_until("the bake begins", SOON, async || {
        app.serving().await.is_ok_and(|it| it == "v2").then_some(())
    })
    .await
    .unwrap();

    let refused = app.cutover(&["exec", "web", "--", "true"]).await.unwrap().expect(3).unwrap();

    assert!(refused.failure().contains("a run works on shop/local"), "{}", refused.talk);
    app.cutover(&["cancel"]).await.unwrap().expect(0).unwrap();
    wait_until("v1 serves again", SOON, async || {
        let status = app.status().await.ok()?;
        (status.lock.is_none() && app.serving().await.is_ok_and(|it| it == "v1")).then_some(())
    })
    .await
    .unwrap();
    app.cutover(&["exec", "web", "--", "true"]).await.unwrap().expect(0).unwrap();
}

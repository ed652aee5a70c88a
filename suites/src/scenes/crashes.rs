//! Processes, containers and whole machines that die under traffic, and are back.

use std::time::{Duration, Instant, SystemTime};

use cutover_testkit::guestbook::Kind;
use cutover_testkit::probe::{Kind as Request, Load, Probe, ProbeOptions, fetch_entries};
use cutover_testkit::site::{Process, Site};
use cutover_testkit::{SOON, wait_until};

use super::applications::{as_it_is, deploy, deployed, is_web, running, with_two};
use super::counted::{failed_only_at, more_traffic, none_failed, nothing_lost, one_bot_at_a_time, traffic};
use super::deploys::serves;

/// What was killed is back after so long, what the engine takes for a start aside.
const BACK: Duration = Duration::from_secs(1);

/// How an instance is killed.
#[derive(Clone, Copy, Debug)]
pub enum By {
    /// Its process, with -9.
    Process,
    /// `docker kill` of its container, which cancels the engine's own restart.
    Container,
}

/// Without what lasts: nothing of it is in flight for long.
fn short(options: ProbeOptions) -> ProbeOptions {
    let mut options = options;
    options.mix.slow = Load::default();
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

/// Only requests inside it fail, and connections wait for the next one.
pub async fn a_killed_proxy_is_back_within_a_second(site: &Site) {
    let app = deployed(site, "shop", as_it_is).await;
    let probe = traffic(&app);
    more_traffic(&probe, 100).await;
    let (at, took) = killed(site, "the proxy", |process| *process == Process::Proxy).await;
    more_traffic(&probe, 200).await;
    failed_only_at("the proxy killed", &probe.stop().await, at);
    assert!(took < BACK, "{took:?}");
}

/// Nobody notices; the next deploy is as any other.
pub async fn a_killed_watch_is_back(site: &Site) {
    let app = deployed(site, "shop", as_it_is).await;
    let probe = traffic(&app);
    more_traffic(&probe, 100).await;
    killed(site, "watch", |process| *process == Process::Watch).await;
    more_traffic(&probe, 200).await;
    let report = probe.stop().await;
    none_failed("watch killed", &report);
    nothing_lost(&app, &report).await;
    deploy(&app, "v2", as_it_is).await;
}

/// Its orphan is ended under a hold, and started anew.
pub async fn a_killed_keeper_is_back(site: &Site) {
    let app = deployed(site, "shop", as_it_is).await;
    let probe = Probe::start(short(app.traffic().unwrap()));
    more_traffic(&probe, 100).await;
    killed(site, "the keeper of web", |process| process.is_keeper_of("web")).await;
    more_traffic(&probe, 200).await;
    let report = probe.stop().await;
    none_failed("a keeper killed", &report);
    nothing_lost(&app, &report).await;
    deploy(&app, "v2", as_it_is).await;
}

/// Of two replicas one dies, then the other: what was inside is counted, and nothing else fails; a GET that got no answer is sent to the one that lives.
pub async fn of_two_replicas_one_is_killed(site: &Site, by: By) {
    let app = deployed(site, "shop", with_two).await;
    let mut late = Vec::new();
    for _ in 0..2 {
        let own = match site.docker() {
            None => Duration::ZERO,
            Some(docker) => docker.time_of_a_start().await.unwrap(),
        };
        let probe = traffic(&app);
        more_traffic(&probe, 100).await;
        let (at, took) = killed_and_back(site, by).await;
        more_traffic(&probe, 200).await;
        println!("back after {took:?}, of which a start takes the engine {own:?}");
        // An engine that takes long itself tells how much else this machine does now.
        if took.saturating_sub(own) > BACK.max(own * 4) {
            late.push(took);
        }
        let report = probe.stop().await;
        let inside = failed_only_at(&format!("one of two killed ({by:?})"), &report, at);
        let gets = inside.iter().filter(|failure| failure.kind == Request::Get).count();
        assert_eq!(gets, 0, "a GET without an answer goes to the other replica: {report}");
        nothing_lost(&app, &report).await;
    }
    assert!(late.len() < 2, "both were back late: {late:?}");
}

/// When it was killed, and after how long as many run as before.
async fn killed_and_back(site: &Site, by: By) -> (SystemTime, Duration) {
    let before = running(site, "web");
    let (at, began) = (SystemTime::now(), Instant::now());
    let gone = match by {
        By::Process => site.kill(is_web).unwrap(),
        By::Container => site.kill_container(is_web).await.unwrap(),
    };
    wait_until("the instance is back", SOON, async || {
        let webs = running(site, "web");
        (webs.len() == before.len() && !webs.contains(&gone.pid)).then_some(())
    })
    .await
    .unwrap();
    (at, began.elapsed())
}

/// As after a loss of power: all starts again, and the same release serves.
pub async fn after_all_was_killed_at_once_the_same_release_serves(site: &Site) {
    let app = deployed(site, "shop", as_it_is).await;
    deploy(&app, "v2", as_it_is).await;
    let probe = traffic(&app);
    more_traffic(&probe, 100).await;
    let written = probe.stop().await;
    let count = site.kill_all().unwrap();
    let began = Instant::now();
    site.boot().await.unwrap();
    let options = app.traffic().unwrap();
    wait_until("it answers again", SOON, async || fetch_entries(&options).await.ok()).await.unwrap();
    println!("{count} processes killed; serving {:?} after the start", began.elapsed());
    serves(&app, "v2").await;
    nothing_lost(&app, &written).await;
    wait_until("the bot runs", SOON, async || (running(site, "bot").len() == 1).then_some(())).await.unwrap();
    one_bot_at_a_time(&app);
    if site.kind() == Kind::Processes {
        let stopped = site.down().await.unwrap().expect(0).unwrap();
        println!("{}", stopped.talk.trim());
        assert!(site.processes().is_empty(), "{:?}", site.processes());
    }
}

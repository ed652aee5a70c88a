//! Deploys of every shape, and their way back, under traffic that sees nothing of it.

use std::net::SocketAddr;

use cutover_testkit::SOON;
use cutover_testkit::get;
use cutover_testkit::site::{App, Site};

use super::applications::{
    as_it_is, as_singleton, deploy, deployed, pair, running, with_another_bot, with_replicas,
};
use super::counted::{none_failed, nothing_lost, one_bot_at_a_time, traffic};

/// Three replicas beside three, and back.
pub async fn blue_green_with_replicas_and_its_rollback(site: &Site) {
    let app = deployed(site, "shop", with_replicas).await;
    let probe = traffic(&app);
    deploy(&app, "v2", with_replicas).await;
    app.cutover(&["rollback", "--yes"]).await.unwrap().expect(0).unwrap();
    assert_eq!(app.serving().await.unwrap(), "v1");
    let report = probe.stop().await;
    none_failed("three replicas, deploy and rollback", &report);
    nothing_lost(&app, &report).await;
    one_bot_at_a_time(&app);
}

/// Old and new never run at once; requests wait.
pub async fn a_singleton_with_a_route_is_handed_over(site: &Site) {
    let app = deployed(site, "single", as_singleton).await;
    let probe = traffic(&app);
    deploy(&app, "v2", as_singleton).await;
    let report = probe.stop().await;
    none_failed("handover of a routed singleton", &report);
    nothing_lost(&app, &report).await;
}

/// A bot that nothing changed for is left alone; one that changed is never there twice.
pub async fn a_bot_is_kept_then_handed_over(site: &Site) {
    let app = deployed(site, "chat", as_it_is).await;
    let probe = traffic(&app);
    let bot = running(site, "bot");
    deploy(&app, "v2", as_it_is).await;
    assert_eq!(running(site, "bot"), bot, "a bot that did not change was touched");
    for greeting in ["good morning", "good evening"] {
        let before = running(site, "bot");
        with_another_bot(&app, "v2", greeting);
        app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
        let after = running(site, "bot");
        assert_eq!((before.len(), after.len()), (1, 1));
        assert_ne!(before, after, "the bot was not replaced");
    }
    none_failed("a bot kept, then handed over twice", &probe.stop().await);
    one_bot_at_a_time(&app);
}

/// Two apps on one machine, deployed at the same time; one is then removed.
pub async fn two_apps_deploy_at_once_and_one_goes(site: &Site) {
    let one = deployed(site, "one", as_it_is).await;
    let two = deployed(site, "two", as_it_is).await;
    let (of_one, of_two) = (traffic(&one), traffic(&two));
    tokio::join!(deploy(&one, "v2", as_it_is), deploy(&two, "v2", as_it_is));
    none_failed("the second app, deployed beside the first", &of_two.stop().await);
    two.cutover(&["remove", "--yes"]).await.unwrap().expect(0).unwrap();
    let report = of_one.stop().await;
    none_failed("the first app, deployed beside the second, which then goes", &report);
    nothing_lost(&one, &report).await;
    assert_eq!(one.serving().await.unwrap(), "v2");
    assert!(two.status().await.is_ok_and(|status| status.live.is_none()));
}

/// Whoever answers asks only services of its own release.
pub async fn a_call_between_services_reaches_its_own_release(site: &Site) {
    let app = site.app("pair", "pair.localhost").unwrap();
    pair(&app, "v1");
    app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
    let http = site.http().unwrap();
    let calls = tokio::spawn(call_until_two_releases_answered(http));
    let probe = traffic(&app);
    pair(&app, "v2");
    app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
    let count = tokio::time::timeout(SOON, calls).await.unwrap().unwrap();
    none_failed(&format!("{count} calls from service to service"), &probe.stop().await);
}

async fn call_until_two_releases_answered(http: SocketAddr) -> usize {
    let mut seen: Vec<String> = Vec::new();
    let mut count = 0;
    while seen.len() < 2 {
        let answer = get(http, "pair.localhost", "/peer").await.unwrap();
        let said: serde_json::Value = serde_json::from_str(&answer).unwrap_or_else(|_| panic!("{answer}"));
        let release = |who: &str| said[who]["release"].as_str().unwrap().to_owned();
        assert_eq!(release("own"), release("peer"), "{said}");
        if !seen.contains(&release("own")) {
            seen.push(release("own"));
        }
        count += 1;
    }
    count
}

/// What the release under `app` is called, for those who look in other ways.
pub(super) async fn serves(app: &App<'_>, version: &str) {
    assert_eq!(app.serving().await.unwrap(), version);
}

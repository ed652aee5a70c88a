//! Releases that do not become healthy: the diagnosis names the true cause, and the release before goes on serving.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use cutover_testkit::site::Site;

use cutover_suites::input::{GOOD, Golden, Shop};

/// Probes so far apart, and a gate so long, that only the exit can end it.
const PATIENT: &str = "health: { path: /health, interval: 1h, within: 2h }";
/// Far below the gate, far above what a machine under load needs.
const AT_ONCE: Duration = Duration::from_secs(30);

fn gated(gate: &str) -> String {
    let gated = GOOD.replace("health: { path: /health, within: 3s }", gate);
    gated.replace("HOST: 127.0.0.1", "HOST: 127.0.0.1, PAYMENT_TOKEN: ")
}

/// A program in place of the guestbook.
fn script(shop: &Shop<'_>, text: &str) {
    let file = shop.app.repository().join("web/run");
    std::fs::write(&file, text).unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).unwrap();
}

async fn exits(shop: &Shop<'_>, golden: &mut Golden, case: &str) {
    let told = shop.fails(golden, case, &["deploy"], 4).await;
    assert!(told.took < AT_ONCE, "{case}: {:?}", told.took);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exit_alone_fails_a_deploy_at_once() {
    let site = Site::new().unwrap();
    let mut shop = Shop::serving(&site).await;
    let mut golden = Golden::new("exits");
    shop.configured(&gated(PATIENT));
    shop.secret("PAYMENT_TOKEN", "tok-5ecret-value");
    for (case, knobs) in [
        (
            "exits with a code",
            r#""start_delay_ms": 200, "exit_at_start": 3, "log_at_start": "paying with tok-5ecret-value""#,
        ),
        ("exits without an error", r#""exit_at_start": 0"#),
        ("lacks a variable", r#""requires": ["STRIPE_KEY"]"#),
    ] {
        shop.behaves(knobs);
        exits(&shop, &mut golden, case).await;
    }
    shop.behaves("");
    shop.configured(&gated(PATIENT).replace("./guestbook serve", "./run"));
    for (case, text) in [
        ("ended by a signal", "#!/bin/sh\necho about to crash\nkill -SEGV $$\n"),
        ("killed", "#!/bin/sh\nkill -KILL $$\n"),
        ("says nothing", "#!/bin/sh\nexit 1\n"),
        ("starts what is not there", "#!/bin/sh\nexec gunicorn app:app\n"),
        ("lacks a variable, in Python", "#!/usr/bin/env python3\nimport os\nos.environ['STRIPE_KEY']\n"),
        ("has no interpreter", "#!/opt/none/python\n"),
        ("is no program", "this is no program\n"),
    ] {
        script(&shop, text);
        exits(&shop, &mut golden, case).await;
    }
    std::fs::set_permissions(shop.app.repository().join("web/run"), PermissionsExt::from_mode(0o644))
        .unwrap();
    exits(&shop, &mut golden, "may not be executed").await;
    shop.configured(&gated(PATIENT).replace("./guestbook serve", "./server"));
    exits(&shop, &mut golden, "its command is not there").await;
    shop.configured(&gated(PATIENT).replace("./guestbook serve", "gunicorn app:app"));
    exits(&shop, &mut golden, "its command is not in the PATH").await;
    shop.recovers("exits").await;
    golden.compare();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_and_is_not_healthy_is_diagnosed() {
    let site = Site::new().unwrap();
    let mut shop = Shop::serving(&site).await;
    let mut golden = Golden::new("gates");
    shop.secret("PAYMENT_TOKEN", "tok-5ecret-value");
    for (case, gate, knobs) in [
        ("health answers 500", "health: { path: /health, within: 1s }", r#""health_status": 500"#),
        ("health path is not there", "health: { path: /healthz, within: 1s }", ""),
        ("listens on another port", "health: { path: /health, within: 1s }", r#""port": 0"#),
        ("listens on the other loopback", "health: { path: /health, within: 1s }", r#""listen": "::1""#),
        ("never listens", "health: { path: /health, within: 1s }", r#""start_delay_ms": 3600000"#),
        ("never answers", "health: { path: /health, within: 1s, timeout: 300ms }", r#""silent": true"#),
        (
            "refuses the Host header",
            "health: { path: /health, within: 1s }",
            r#""hosts": ["shop.example.com"]"#,
        ),
        ("never says that it is ready", "ready: { log: polling started, within: 1s }", ""),
        ("a command that never passes", "health: { command: test -e nothing, within: 1s }", ""),
        (
            "a json body that says otherwise",
            "health: { path: /version, json: { service: api }, within: 1s }",
            "",
        ),
    ] {
        shop.configured(&gated(gate));
        shop.behaves(knobs);
        shop.fails(&mut golden, case, &["deploy"], 4).await;
    }
    shop.recovers("gates").await;
    golden.compare();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_after_the_switch_is_switched_back() {
    let site = Site::new().unwrap();
    let mut shop = Shop::serving(&site).await;
    let mut golden = Golden::new("after_the_switch");
    shop.behaves(r#""log_at_start": "another one""#);
    shop.configured(&GOOD.replace("bake", "    verify: { path: /version, contains: another release }\nbake"));
    shop.fails(&mut golden, "the public route says otherwise", &["deploy"], 4).await;
    shop.configured(&GOOD.replace("bake: 0", "bake: 10m"));
    shop.behaves(r#""exit_after_ms": 600"#);
    shop.fails(&mut golden, "exits during its bake", &["deploy"], 4).await;
    shop.recovers("bad ends").await;
    golden.compare();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_migrates_by_itself_when_it_starts_is_told_in_the_plan() {
    let site = Site::new().unwrap();
    let shop = Shop::serving(&site).await;
    script(&shop, "#!/bin/sh\nset -e\nalembic upgrade head\nexec ./guestbook serve\n");
    shop.configured(&GOOD.replace("command: ./guestbook serve", "command: ./run"));

    let told = shop.app.cutover(&["plan"]).await.unwrap().expect(0).unwrap();

    let note =
        "service `web` seems to migrate its database by itself when it starts (`alembic upgrade` in web/run)";
    assert!(told.output.contains(note), "{}{}", told.talk, told.output);
}

//! Bad input with containers: what is wrong inside of one, images that cannot be had, and an engine that is gone. The texts are golden, and lie
//! beside those of plain processes.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test stops where it fails, and says its numbers"
)]

use std::time::Duration;

use cutover_core::journal::{Step, What};
use cutover_host::lock::AppLock;
use cutover_suites::engine::{self, SHELL_IMAGE, shell_image};
use cutover_suites::input::{Golden, Shop};
use cutover_suites::stopped::{go_on, last_journal, step_of, stopped_run};
use cutover_suites::{STOP_AT, killing_binaries};
use cutover_testkit::site::{Binaries, OwnEngine, Site, Told};
use cutover_testkit::{SOON, wait_until};

/// Probes so far apart, and a gate so long, that only the exit can end it.
const PATIENT: &str = "health: { path: /health, interval: 1h, within: 2h }";
/// Far below the gate, far above what a machine under load needs.
const AT_ONCE: Duration = Duration::from_secs(30);
/// Images are built of what was committed, unless told.
const DEPLOY: &[&str] = &["deploy", "--dirty"];
const PORT: &str = "    port: 8000\n";

async fn on_engine(name: &str, test: impl AsyncFnOnce(&Site)) {
    engine::on_engine(name, Binaries::beside_this_program().unwrap(), test).await;
}

/// The good configuration with another gate, a secret, and these lines more for the service.
fn gated(shop: &Shop<'_>, gate: &str, more: &str) -> String {
    let good = shop.good.replace("health: { path: /health, within: 3s }", gate);
    good.replace(PORT, &format!("{PORT}    environment: {{ PAYMENT_TOKEN: }}\n{more}"))
}

/// The same as another image, one that is nobody's here or one with a shell, that runs `words`.
fn of_image(shop: &Shop<'_>, gate: &str, image: &str, words: &str) -> String {
    let text = gated(shop, gate, &format!("    init: true\n    command: {words}\n"));
    let build = text.lines().find(|line| line.contains("build:")).unwrap();
    text.replace(build, &format!("    image: \"{image}\""))
}

async fn exits(shop: &Shop<'_>, golden: &mut Golden, case: &str) {
    let told = shop.fails(golden, case, DEPLOY, 4).await;
    assert!(told.took < AT_ONCE, "{case}: {:?}", told.took);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exit_of_a_container_alone_fails_a_deploy_at_once() {
    let name = "an_exit_of_a_container_alone_fails_a_deploy_at_once";
    on_engine(name, async |site| {
        if let Err(why) = shell_image(site.docker().unwrap().engine()) {
            return println!("not run: {name}: {why}");
        }
        let mut shop = Shop::serving(site).await;
        let mut golden = Golden::new("container_exits");
        shop.secret("PAYMENT_TOKEN", "tok-5ecret-value");
        shop.configured(&gated(&shop, PATIENT, ""));
        for (case, knobs) in [
            ("exits with a code", r#""exit_at_start": 3, "log_at_start": "paying with tok-5ecret-value""#),
            ("exits without an error", r#""exit_at_start": 0"#),
            ("lacks a variable", r#""requires": ["STRIPE_KEY"]"#),
        ] {
            shop.behaves(knobs);
            exits(&shop, &mut golden, case).await;
        }
        shop.behaves("");
        for (case, words) in [
            ("ended by a signal", r#"[sh, -c, "echo about to crash; kill -SEGV $$$$"]"#),
            ("killed", r#"[sh, -c, "kill -KILL $$$$"]"#),
            ("starts what is not there", r#"[sh, -c, "exec gunicorn app:app"]"#),
        ] {
            shop.configured(&of_image(&shop, PATIENT, SHELL_IMAGE, words));
            exits(&shop, &mut golden, case).await;
        }
        for (case, command) in [
            ("its command is not there", "[gunicorn, \"app:app\"]"),
            ("its command is a file that may not be executed", "[/app/pages/index.html]"),
        ] {
            shop.configured(&gated(&shop, PATIENT, &format!("    command: {command}\n")));
            exits(&shop, &mut golden, case).await;
        }
        shop.recovers("exits").await;
        golden.compare();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_takes_more_memory_than_it_may_is_told_so() {
    let name = "a_container_that_takes_more_memory_than_it_may_is_told_so";
    on_engine(name, async |site| {
        if !site.docker().unwrap().engine().info().await.unwrap().limits_memory {
            return println!("not run: {name}: the engine cannot limit memory here");
        }
        let mut shop = Shop::serving(site).await;
        let mut golden = Golden::new("container_memory");
        shop.secret("PAYMENT_TOKEN", "tok-5ecret-value");
        shop.configured(&gated(&shop, PATIENT, "    mem_limit: 32m\n"));
        shop.behaves(r#""allocate_mib": 256"#);
        exits(&shop, &mut golden, "more memory than it may have").await;
        shop.recovers("memory").await;
        golden.compare();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_runs_and_is_not_healthy_is_diagnosed() {
    on_engine("a_container_that_runs_and_is_not_healthy_is_diagnosed", async |site| {
        let mut shop = Shop::serving(site).await;
        let mut golden = Golden::new("container_gates");
        shop.secret("PAYMENT_TOKEN", "tok-5ecret-value");
        let gate = "health: { path: /health, within: 1s }";
        for (case, gate, knobs) in [
            ("listens on 127.0.0.1 only", gate, r#""listen": "127.0.0.1""#),
            ("listens on another port", gate, r#""port": 3000"#),
            ("listens on another port of the loopback", gate, r#""listen": "127.0.0.1", "port": 3000"#),
            ("never listens", gate, r#""start_delay_ms": 3600000"#),
            ("never answers", "health: { path: /health, within: 1s, timeout: 300ms }", r#""silent": true"#),
            ("health answers 500", gate, r#""health_status": 500"#),
            ("health path is not there", "health: { path: /healthz, within: 1s }", ""),
            ("refuses the Host header", gate, r#""hosts": ["shop.example.com"]"#),
            ("a command that is not in the image", "health: { command: curl -f localhost, within: 1s }", ""),
        ] {
            shop.configured(&gated(&shop, gate, ""));
            shop.behaves(knobs);
            shop.fails(&mut golden, case, DEPLOY, 4).await;
        }
        shop.recovers("gates").await;
        golden.compare();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_cannot_be_had_touches_nothing() {
    let name = "an_image_that_cannot_be_had_touches_nothing";
    on_engine(name, async |site| {
        if let Err(why) = shell_image(site.docker().unwrap().engine()) {
            return println!("not run: {name}: {why}");
        }
        let mut shop = Shop::serving(site).await;
        let mut golden = Golden::new("images");
        // Nobody listens there, and nothing is asked outside of this machine.
        shop.configured(&of_image(&shop, PATIENT, "127.0.0.1:1/shop/web:9", "[serve]"));
        shop.secret("PAYMENT_TOKEN", "tok-5ecret-value");
        shop.fails(&mut golden, "its registry does not answer", DEPLOY, 7).await;
        shop.configured(&shop.good);
        let dockerfile = shop.app.repository().join("web/Dockerfile");
        for (case, text) in [
            ("a step of the build fails", format!("FROM {SHELL_IMAGE}\nRUN echo compiling; exit 7\n")),
            ("the base is not there", "FROM 127.0.0.1:1/base:1\n".to_owned()),
            ("what is copied is not there", format!("FROM {SHELL_IMAGE}\nCOPY dist /app\n")),
            ("an instruction that there is not", "FROM scratch\nRUNN something\n".to_owned()),
        ] {
            std::fs::write(&dockerfile, text).unwrap();
            shop.fails(&mut golden, case, DEPLOY, 1).await;
        }
        std::fs::remove_file(&dockerfile).unwrap();
        shop.fails(&mut golden, "the Dockerfile is not there", DEPLOY, 10).await;
        std::fs::write(
            &dockerfile,
            "ARG BASE\nFROM ${BASE}\nWORKDIR /app\nCOPY . /app\nCMD [\"/app/guestbook\", \"serve\"]\n",
        )
        .unwrap();
        shop.recovers("images").await;
        golden.compare();
    })
    .await;
}

/// The engine is gone before a command, and in the middle of a deploy; what serves goes on, and all goes on when it is back.
#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_gone_is_told_and_what_serves_goes_on() {
    let name = "an_engine_that_is_gone_is_told_and_what_serves_goes_on";
    engine::on_own_engine(name, killing_binaries().unwrap(), async |site, engine| {
        let mut shop = Shop::serving(site).await;
        let mut golden = Golden::new("engine");
        shop.recovers("a second release").await;
        let start = step_of(&last_journal(&shop.app).await, |what| {
            matches!(what, What::Intent { step: Step::Start { .. }, .. })
        });

        engine.lose().unwrap();
        for words in [DEPLOY, &["rollback", "--yes"], &["status"]] {
            let told = shop.app.cutover(words).await.unwrap();
            golden.failure(site, &format!("gone, {}", words.join(" ")), 1, &told);
            assert_eq!(shop.get().await.status, 200);
        }
        is_back(&shop, engine).await;
        shop.still_serves("the engine is back").await;

        shop.behaves(r#""log_at_start": "another one""#);
        let told = lost_at(&shop, engine, start).await;
        golden.failure(site, "gone while an instance is started", 4, &told);
        shop.still_serves("the engine is back again").await;
        shop.recovers("engines").await;
        golden.compare();
    })
    .await;
}

/// Containers end with the start of an engine that had left them: until they are back nothing is asked.
async fn is_back(shop: &Shop<'_>, engine: &OwnEngine) {
    tokio::task::block_in_place(|| engine.again()).unwrap();
    wait_until("it is served again", SOON, async || shop.get_soon().await).await.unwrap();
}

/// A deploy whose engine goes at this step, and comes back once that was noticed.
async fn lost_at(shop: &Shop<'_>, engine: &OwnEngine, step: u64) -> Told {
    let mut command = shop.app.command(DEPLOY);
    command.env(STOP_AT, step.to_string());
    let deploy = shop.site.run(command);
    let lose = async {
        let run = stopped_run(shop.site).await;
        engine.lose().unwrap();
        assert_eq!(shop.get().await.status, 200);
        go_on(run);
        wait_until("the stage has failed", SOON, async || has_failed(shop).then_some(())).await.unwrap();
        assert_eq!(shop.get().await.status, 200);
        is_back(shop, engine).await;
    };
    tokio::join!(deploy, lose).0.unwrap()
}

/// Whether a stage of the run that holds the lock has failed.
fn has_failed(shop: &Shop<'_>) -> bool {
    let holder = AppLock::peek(&shop.site.layout(), shop.app.id());
    let journal = holder.and_then(|holder| shop.site.journal(holder.run).ok()).unwrap_or_default();
    journal.iter().any(|entry| matches!(entry.what, What::Failed { .. }))
}

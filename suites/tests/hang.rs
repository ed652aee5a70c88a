//! A run that hangs: nothing in it can act upon its deadline any more. Watch ends it and settles what it left, under traffic (S9).
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test stops where it fails, and says its numbers"
)]

use std::time::Duration;

use cutover_core::journal::What;
use cutover_core::names::RunId;
use cutover_host::within::Allowance;
use cutover_suites::stopped::{state, stopped_run};
use cutover_suites::{STOP_AT, killing_binaries};
use cutover_testkit::probe::Probe;
use cutover_testkit::site::{App, Site};
use cutover_testkit::wait_until;

/// On every wait.
const DEADLINE: Duration = Duration::from_secs(60);

fn site() -> Site {
    Site::with(killing_binaries().unwrap()).unwrap()
}

async fn newest_run(app: &App<'_>) -> RunId {
    app.status().await.unwrap().lock.expect("the stopped run holds the lock").run
}

/// Behind a switch that the run made just before it hung: what it began is finished. Before it: taken back.
async fn hangs_at(step: u64, what: &str) {
    let site = site();
    let app = site.app("guestbook", "guestbook.localhost").unwrap();
    let quick = |config: &str| config.replace("bake: 1s", "bake: 200ms");
    app.commit("v1", quick).unwrap();
    app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
    let mut options = app.traffic().unwrap();
    options.mix.sse = 0;
    options.mix.websocket = 0;
    let probe = Probe::start(options);

    app.commit("v2", quick).unwrap();
    let mut command = app.command(&["deploy", "--detach"]);
    command.env(STOP_AT, step.to_string());
    site.run(command).await.unwrap();
    let hung = stopped_run(&site).await;
    let run = newest_run(&app).await;
    let allowed = Allowance::read(&site.layout(), run).expect("a run says how long it may take");
    assert!(allowed.limit > Duration::from_mins(5), "{allowed:?} is more than a deploy ever takes");
    // Its own is too long for a test.
    Allowance::grant(&site.layout(), run, Duration::from_millis(1)).unwrap();

    let verdict = wait_until("the run that hung is settled", DEADLINE, async || {
        let status = app.status().await.ok()?;
        let verdict = status.last.filter(|verdict| verdict.run == run)?;
        status.lock.is_none().then_some(verdict)
    })
    .await
    .unwrap();
    let report = probe.stop().await;
    let serving = app.serving().await.unwrap();
    println!(
        "run hung {what}: exit {}, `{serving}` serves; {} requests, {} failed",
        verdict.exit().code(),
        report.sent(),
        report.failed()
    );
    assert!(matches!(state(hung), None | Some('Z')), "what hung was ended");
    let journal = site.journal(run).unwrap();
    assert!(journal.iter().any(|entry| matches!(entry.what, What::Resumed { .. })));
    assert_eq!(serving, if verdict.exit().code() == 0 { "v2" } else { "v1" });
    assert_eq!(report.failed(), 0, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_hangs_before_its_switch_is_ended_and_taken_back() {
    hangs_at(6, "before its switch").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_hangs_late_is_ended_and_finished_or_taken_back() {
    hangs_at(40, "late").await;
}

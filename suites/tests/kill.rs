//! `run` is killed with -9 at every journalled step, under traffic. Watch settles what it left, without being asked: one live release, the
//! lock free, no request failed, no bot twice.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test stops where it fails, and says its numbers"
)]

use std::time::Duration;

use cutover_core::exit::Exit;
use cutover_core::journal::{Entry, What};
use cutover_core::verdict::Verdict;
use cutover_suites::KILL_AT;
use cutover_testkit::probe::{Ledger, Probe, Report, fetch_entries};
use cutover_testkit::site::{App, Binaries, Site};
use cutover_testkit::wait_until;

/// How long watch may take to settle a run that died.
const SETTLED: Duration = Duration::from_secs(60);
/// So many sites at once share the steps of a matrix.
const SITES: u64 = 3;
/// Every n-th step of a matrix that is walked in full only by the soak.
const SOME: u64 = 7;

fn site() -> Site {
    let binaries = Binaries::beside_this_program().unwrap();
    let host = binaries.host.with_file_name("suite-host");
    assert!(host.is_file(), "run `cargo build -p cutover-suites --bins` first");
    Site::with(binaries.with_host(host)).unwrap()
}

/// A demonstration's bake, shorter still.
fn quick(config: &str) -> String {
    config.replace("bake: 1s", "bake: 200ms")
}

/// A release in which every service differs from the one before; `number` names it.
fn commit(app: &App<'_>, version: &str, number: u64) {
    app.commit(version, quick).unwrap();
    std::fs::write(app.repository().join("web/pages/about.html"), format!("<p>{number}</p>")).unwrap();
    std::fs::write(app.repository().join("bot/greeting.txt"), format!("hello {number}")).unwrap();
    app.record(&format!("{version} {number}")).unwrap();
}

/// Traffic that is short of streams, which drains wait for.
fn traffic(app: &App<'_>) -> Probe {
    let mut options = app.traffic().unwrap();
    options.mix.sse = 0;
    options.mix.websocket = 0;
    Probe::start(options)
}

/// A command whose run dies at entry `step`; what is settled afterwards.
async fn killed_at(app: &App<'_>, words: &[&str], step: u64) -> (Verdict, Vec<Entry>) {
    let before = app.status().await.unwrap().last.map(|verdict| verdict.run);
    let mut command = app.command(words);
    command.env(KILL_AT, step.to_string());
    app.site().run(command).await.unwrap();
    let verdict = wait_until(&format!("the run killed at step {step} is settled"), SETTLED, async || {
        let status = app.status().await.ok()?;
        let verdict = status.last.filter(|verdict| Some(verdict.run) != before)?;
        status.lock.is_none().then_some(verdict)
    })
    .await
    .unwrap();
    assert_ne!(verdict.exit(), Exit::Person, "nobody is needed after step {step}: {verdict:?}");
    let journal = app.site().journal(verdict.run).unwrap();
    (verdict, journal)
}

/// One live release, whose instances alone run, and nothing else does.
async fn converged(app: &App<'_>, step: u64) -> String {
    let serving = app.serving().await.unwrap();
    for service in ["web", "bot"] {
        wait_until(&format!("one {service} runs after step {step}"), SETTLED, async || {
            let all = app.site().processes();
            (all.iter().filter(|found| found.process.is_instance_of(service)).count() == 1).then_some(())
        })
        .await
        .unwrap();
    }
    serving
}

async fn kept_promises(app: &App<'_>, what: &str, report: &Report) {
    let entries = fetch_entries(&app.traffic().unwrap()).await.unwrap();
    let found = report.verify_entries(&entries);
    let ledger = Ledger::read(&app.ledger()).unwrap();
    println!(
        "{what}: {} requests, {} failed, slowest {:?}; {} entries, {} missing; bots at once {}",
        report.sent(),
        report.failed(),
        report.slowest(),
        found.acknowledged,
        found.missing.len(),
        ledger.overlaps().len()
    );
    assert_eq!(report.failed(), 0, "{report}");
    assert!(found.is_complete(), "{:?} {:?}", found.missing, found.twice);
    assert!(ledger.overlaps().is_empty(), "{:?}", ledger.overlaps());
}

fn was_killed(journal: &[Entry], step: u64) -> bool {
    let resumed = journal.iter().any(|entry| matches!(entry.what, What::Resumed { .. }));
    resumed || journal.last().is_some_and(|last| last.seq == step)
}

/// Every `every`-th step of a deploy, from the `first` on.
async fn deploys_killed(first: u64, every: u64) {
    let site = site();
    let app = site.app("guestbook", "guestbook.localhost").unwrap();
    commit(&app, "v1", 0);
    app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
    let probe = traffic(&app);
    let mut step = first;
    let mut killed = 0;
    loop {
        let before = app.serving().await.unwrap();
        commit(&app, "v2", step);
        let (verdict, journal) = killed_at(&app, &["deploy"], step).await;
        let serving = converged(&app, step).await;
        let failed = probe.lap().failed();
        assert_eq!(failed, 0, "requests failed at step {step}: {}", probe.so_far());
        if !was_killed(&journal, step) {
            assert_eq!(verdict.exit().code(), 0, "{verdict:?}");
            break;
        }
        killed += 1;
        println!("deploy killed at step {step}: exit {}, `{serving}` serves", verdict.exit().code());
        assert!(serving == before || serving == format!("v2 {step}"), "{serving} serves at step {step}");
        step += every;
    }
    let report = probe.stop().await;
    kept_promises(&app, &format!("{killed} deploys killed"), &report).await;
    assert!(killed > 5, "a deploy has more steps than {killed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deploy_killed_at_every_step_is_settled_first_third() {
    deploys_killed(1, SITES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deploy_killed_at_every_step_is_settled_second_third() {
    deploys_killed(2, SITES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deploy_killed_at_every_step_is_settled_last_third() {
    deploys_killed(3, SITES).await;
}

/// A migration of `SQLite` with requests held; where it went through, it is taken back with its database.
async fn migrations_killed(first: u64, every: u64) {
    let site = site();
    let app = site.app("guestbook", "guestbook.localhost").unwrap();
    commit(&app, "v2", 0);
    app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
    let mut step = first;
    let mut killed = 0;
    loop {
        let probe = traffic(&app);
        commit(&app, "v3", step);
        let (verdict, journal) = killed_at(&app, &["deploy"], step).await;
        let serving = converged(&app, step).await;
        let report = probe.stop().await;
        let what =
            format!("migration killed at step {step}, exit {}, `{serving}` serves", verdict.exit().code());
        kept_promises(&app, &what, &report).await;
        if serving.starts_with("v3") {
            app.cutover(&["rollback", "--restore-db", "--yes"]).await.unwrap().expect(0).unwrap();
        }
        if !was_killed(&journal, step) {
            break;
        }
        killed += 1;
        step += every;
    }
    assert!(killed > 1, "a migration has more steps than {killed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_killed_at_some_steps_loses_nothing() {
    migrations_killed(4, SOME).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn a_migration_killed_at_every_step_loses_nothing() {
    migrations_killed(1, 1).await;
}

/// A rollback is a deploy of a recorded release; each one that goes through is taken back by the next.
async fn rollbacks_killed(first: u64, every: u64) {
    let site = site();
    let app = site.app("guestbook", "guestbook.localhost").unwrap();
    for number in 0..2 {
        commit(&app, "v2", number);
        app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
    }
    let probe = traffic(&app);
    let mut step = first;
    let mut killed = 0;
    loop {
        let (verdict, journal) = killed_at(&app, &["rollback", "--yes"], step).await;
        let serving = converged(&app, step).await;
        assert_eq!(probe.lap().failed(), 0, "requests failed at step {step}: {}", probe.so_far());
        if !was_killed(&journal, step) {
            break;
        }
        killed += 1;
        println!("rollback killed at step {step}: exit {}, `{serving}` serves", verdict.exit().code());
        if serving == "v2 0" {
            commit(&app, "v2", 1 + step);
            app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
        }
        step += every;
    }
    let report = probe.stop().await;
    kept_promises(&app, &format!("{killed} rollbacks killed"), &report).await;
    assert!(killed > 1, "a rollback has more steps than {killed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_killed_at_some_steps_is_settled() {
    rollbacks_killed(3, SOME).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn a_rollback_killed_at_every_step_is_settled() {
    rollbacks_killed(1, 1).await;
}

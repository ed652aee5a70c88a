//! A connection that is lost in the middle of a deploy: the client says so soon, and the deploy ends by itself.

use std::process::Stdio;
use std::time::{Duration, Instant};

use cutover_testkit::probe::Probe;
use cutover_testkit::site::{App, Process, Site, Told};
use cutover_testkit::{SOON, wait_until};
use tokio::io::{AsyncBufReadExt, BufReader};

use super::{once, server};

/// Over a dead link it is noticed within 15 s; the rest is what a busy machine adds.
const NOTICED: Duration = Duration::from_secs(25);

/// The app with its first release live, and a second one committed.
async fn serving(site: &Site) -> App<'_> {
    let app = site.app("guestbook", "guestbook.localhost").unwrap();
    app.commit("v1", str::to_owned).unwrap();
    app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
    app.commit("v2", str::to_owned).unwrap();
    app
}

/// A deploy whose run is at work.
async fn deploying(app: &App<'_>) -> tokio::process::Child {
    let is_run = |process: &Process| *process == Process::Run;
    // One that has told its verdict may still put away what it replaced.
    let over = async || (!app.site().processes().iter().any(|found| is_run(&found.process))).then_some(());
    wait_until("the run before it has ended", SOON, over).await.unwrap();
    let mut command = app.command(&["deploy"]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    app.site().await_process("the run", is_run).await.unwrap();
    child
}

async fn told(child: tokio::process::Child) -> (Option<i32>, String, Duration) {
    let began = Instant::now();
    let output = tokio::time::timeout(SOON, child.wait_with_output()).await.unwrap().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned(), began.elapsed())
}

/// The run ended, nothing is left of the lost conversation, and whoever attaches is told all of it with the verdict's exit code.
async fn it_ended_by_itself(app: &App<'_>) -> Told {
    let free = async || {
        let status = app.status().await.ok()?;
        (status.lock.is_none() && status.last.is_some()).then_some(())
    };
    wait_until("the lock is free", SOON, free).await.unwrap();
    let gone = async || {
        (!app.site().processes().iter().any(|found| found.process == Process::Session)).then_some(())
    };
    wait_until("no session lingers", SOON, gone).await.unwrap();
    assert_eq!(app.serving().await.unwrap(), "v2");
    let attached = once(app, &["attach"], 0).await;
    assert!(attached.talk.contains("switch"), "{}", attached.talk);
    attached
}

#[tokio::test(flavor = "multi_thread")]
async fn given_a_network_that_is_cut_in_the_middle_then_the_deploy_ends_by_itself() {
    let Some(site) = server("given_a_network_that_is_cut_in_the_middle_then_the_deploy_ends_by_itself")
    else {
        return;
    };
    let app = serving(&site).await;
    let probe = Probe::start(app.traffic().unwrap());
    let child = deploying(&app).await;
    site.remote().relay.cut();
    let (exit, talk, took) = told(child).await;
    site.remote().relay.heal();
    assert_eq!(exit, Some(6), "{talk}");
    assert!(took < NOTICED, "{took:?}");
    for part in [
        "error: the connection was lost",
        "cause: ",
        "state: ",
        "goes on by itself on root@",
        "`cutover attach`",
    ] {
        assert!(talk.contains(part), "{part}: {talk}");
    }
    it_ended_by_itself(&app).await;
    let report = probe.stop().await;
    println!("network cut: noticed after {took:?}; {} requests, {} failed", report.sent(), report.failed());
    assert_eq!(report.failed(), 0, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn given_a_reset_or_a_client_that_is_killed_then_the_deploy_ends_by_itself() {
    let Some(site) = server("given_a_reset_or_a_client_that_is_killed_then_the_deploy_ends_by_itself") else {
        return;
    };
    let app = serving(&site).await;
    let child = deploying(&app).await;
    site.remote().relay.reset();
    let (exit, talk, _) = told(child).await;
    site.remote().relay.heal();
    assert_eq!(exit, Some(6), "{talk}");
    it_ended_by_itself(&app).await;

    app.cutover(&["rollback", "--yes"]).await.unwrap().expect(0).unwrap();
    let mut child = deploying(&app).await;
    child.kill().await.unwrap();
    it_ended_by_itself(&app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn given_a_network_that_is_cut_then_how_a_command_ended_is_not_known() {
    let Some(site) = server("given_a_network_that_is_cut_then_how_a_command_ended_is_not_known") else {
        return;
    };
    let app = serving(&site).await;
    let mut command = app.command(&["exec", "web", "--", "sh", "-c", "echo begun; sleep 600"]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = tokio::time::timeout(SOON, lines.next_line()).await.unwrap().unwrap();
    assert_eq!(line.as_deref(), Some("begun"));
    site.remote().relay.cut();
    let (exit, talk, _) = told(child).await;
    site.remote().relay.heal();
    assert_eq!(exit, Some(6), "{talk}");
    for part in
        ["error: the connection was lost; how the command ended is not known", "cause: ", "state: ", "next: "]
    {
        assert!(talk.contains(part), "{part}: {talk}");
    }
}

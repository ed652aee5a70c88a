//! The client is expendable: a deploy goes on when the command that began it is gone, and can be followed again.

use std::process::Stdio;

use cutover_core::journal::{Entry, What};
use cutover_core::names::RunId;
use cutover_testkit::site::{App, Process, Site};
use cutover_testkit::{SOON, wait_until};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::applications::{as_it_is, deployed};
use super::counted::{none_failed, nothing_lost, traffic};
use super::deploys::serves;

/// Killed with -9 in the middle: the deploy ends by itself, and `attach` tells all of it.
pub async fn a_client_killed_in_the_middle_changes_nothing(site: &Site) {
    let app = deployed(site, "left", as_it_is).await;
    let probe = traffic(&app);
    app.commit("v2", as_it_is).unwrap();
    let run = killed_once_something_is_done(&app).await;
    wait_until("the session ends with its client", SOON, async || {
        site.processes().iter().all(|found| found.process != Process::Session).then_some(())
    })
    .await
    .unwrap();
    let verdict = wait_until("the deploy ends by itself", SOON, async || {
        app.status().await.ok()?.last.filter(|verdict| verdict.run == run)
    })
    .await
    .unwrap();
    assert_eq!(verdict.exit().code(), 0, "{verdict:?}");
    serves(&app, "v2").await;
    for words in [vec!["attach"], vec!["attach", &run.to_string()]] {
        let told = app.cutover(&words).await.unwrap().expect(0).unwrap();
        assert!(told.talk.contains("switch the routes") && told.talk.contains("is live"), "{}", told.talk);
    }
    let report = probe.stop().await;
    none_failed("the client killed in the middle of a deploy", &report);
    nothing_lost(&app, &report).await;
}

/// Begins a deploy, and kills the command at the first act of its run; gives the run.
async fn killed_once_something_is_done(app: &App<'_>) -> RunId {
    let mut command = app.command(&["deploy", "--json"]);
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first_act = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if let Some(entry) = entry(&line)
                && matches!(entry.what, What::Intent { .. })
            {
                return entry.run;
            }
        }
        panic!("the deploy ended without an act");
    };
    let run = tokio::time::timeout(SOON, first_act).await.unwrap();
    child.kill().await.unwrap();
    run
}

/// The journal's entry in a line of `--json`.
fn entry(line: &str) -> Option<Entry> {
    #[derive(Deserialize)]
    struct Line {
        entry: Option<Entry>,
    }
    serde_json::from_str::<Line>(line).ok()?.entry
}

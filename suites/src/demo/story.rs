//! The steps, in the order in which they happen. Each asserts what it shows.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use cutover_core::journal::{Entry, Step, What};
use cutover_testkit::probe::Report;
use cutover_testkit::wait_until;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::stage::{Ran, Stage};
use super::telling::{self, seconds};

/// For what should come at once.
const SOON: Duration = Duration::from_secs(20);

/// v1.
pub(super) async fn first_release(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    telling::step("1. The first release. Nothing runs yet: the first deploy starts what is needed.");
    stage.commit("v1")?;
    let (told, _) = stage.run_alone("v1, first deploy", &["deploy"], 0).await?;
    stage.serves("v1").await?;
    stage.start_traffic()?;
    let address = stage.app.site().http()?;
    telling::good(&format!("v1 serves, {} after the command", seconds(told.took)));
    telling::fact(&format!(
        "http://guestbook.localhost:{}/ now has constant traffic: pages, posted entries, slow answers,",
        address.port()
    ));
    telling::fact("a WebSocket and an event stream, over new and kept connections. It goes on to the end.");
    Ok(())
}

/// v2: the bot is kept.
pub(super) async fn a_page_changes(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    telling::step("2. v2 changes a page. The bot beside it is unchanged.");
    let bot = stage.bot()?;
    stage.commit("v2")?;
    let ran = stage.run("v2, a page", &["deploy"], 0).await?;
    stage.serves("v2").await?;
    telling::good(&format!("v2 serves; {}", traffic(&ran.traffic)));
    ensure!(stage.bot()? == bot, "the bot is another process than before");
    telling::good(&format!("the bot was left alone: it is process {bot} as before"));
    Ok(())
}

/// v3: held requests.
pub(super) async fn a_breaking_migration(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    telling::step(
        "3. v3 migrates the database in a way that v2 cannot live with. Requests are held meanwhile.",
    );
    stage.commit("v3")?;
    let ran = stage.run("v3, a breaking migration", &["deploy"], 0).await?;
    stage.serves("v3").await?;
    let slowest = ran.traffic.slowest().map(|(_, wait)| wait).unwrap_or_default();
    telling::good(&format!("v3 serves; {}", traffic(&ran.traffic)));
    telling::good(&format!("the longest that anybody waited was {}", seconds(slowest)));
    let snapshot = stage.moments(&ran.verdict, |step| matches!(step, Step::Snapshot { .. }))?;
    stage.set_aside = Some(snapshot);
    Ok(())
}

/// v4: refused by its gate.
pub(super) async fn an_unhealthy_release(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    telling::step("4. v4 is broken: its health answers 500.");
    stage.commit("v4")?;
    let ran = stage.run("v4, refused", &["deploy"], 4).await?;
    stage.serves("v3").await?;
    ensure!(ran.told.talk.contains("answered 500"), "the diagnosis does not name the 500");
    ensure!(saw_only_one_release(&ran.traffic), "somebody saw v4:\n{}", ran.traffic);
    refused(&ran, "v4 was refused, v3 serves; nobody saw v4");
    Ok(())
}

/// v5: found in the rehearsal.
pub(super) async fn a_migration_that_fails(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    telling::step("5. v5 has a migration that fails half-way.");
    stage.commit("v5")?;
    let ran = stage.run("v5, refused in the rehearsal", &["deploy"], 5).await?;
    stage.serves("v3").await?;
    ensure!(
        !ran.told.talk.contains("hold new requests"),
        "requests were held for a migration that cannot work"
    );
    ensure!(saw_only_one_release(&ran.traffic), "somebody saw v5:\n{}", ran.traffic);
    refused(&ran, "the rehearsal on a copy found it: nothing was interrupted, v3 serves");
    Ok(())
}

/// v6: switched back.
pub(super) async fn a_release_that_fails_later(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    telling::step("6. v6 passes its gate, and answers 500 once it has traffic.");
    stage.commit("v6")?;
    let ran = stage.run("v6, switched back", &["deploy"], 4).await?;
    stage.serves("v3").await?;
    let errors = ran.traffic.total().app_errors;
    ensure!(errors > 0, "v6 never answered 500: it was not tried");
    refused(&ran, &format!("traffic was switched back to v3 after {errors} answers of 500 by v6 itself"));
    Ok(())
}

/// A rollback that a rule refuses, then the decision spelled out.
pub(super) async fn back_across_the_migration(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    telling::step("7. Back to v2, which cannot read the database as v3 made it.");
    let words = ["rollback", "--yes"];
    telling::command(&words);
    let refusal = stage.app.cutover(&words).await?.expect(7)?;
    stage.serves("v3").await?;
    telling::failure(refusal.failure());
    telling::good("refused, nothing was touched");
    let ran =
        stage.run("rollback to v2, database restored", &["rollback", "--restore-db", "--yes"], 0).await?;
    stage.serves("v2").await?;
    let (_, restored) = stage.moments(&ran.verdict, |step| matches!(step, Step::Restore { .. }))?;
    let (from, _) = stage.set_aside.context("no snapshot was taken")?;
    stage.set_aside = Some((from, restored));
    telling::good(&format!("v2 serves, with the database as it was before v3; {}", traffic(&ran.traffic)));
    Ok(())
}

/// `run` is killed with requests held and the database under way; watch settles it.
pub(super) async fn a_run_that_is_killed(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    telling::step(
        "8. v3 again; its run is killed with -9 in the middle of the migration, with requests held.",
    );
    stage.commit("v3")?;
    stage.lap()?;
    telling::command(&["deploy"]);
    let mut command = stage.app.command(&["deploy", "--json"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let output = child.stdout.take().context("no output of it")?;
    let mut lines = BufReader::new(output).lines();
    let run = tokio::time::timeout(SOON, async {
        while let Some(line) = lines.next_line().await? {
            if let Some(entry) = event(&line)
                && matches!(entry.what, What::Intent { step: Step::Migrate { .. }, .. })
            {
                return Ok(entry.run);
            }
        }
        bail!("the deploy ended before its migration");
    })
    .await
    .context("no migration began")??;
    let pid = stage.kill_run()?;
    telling::fact(&format!("run {pid} is dead"));
    // The command is only a listener: what it says of a run that died is shown by other tests.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    let settled = wait_until("the killed run is settled", SOON, async || {
        let status = stage.app.status().await.ok()?;
        let verdict = status.last.filter(|verdict| verdict.run == run)?;
        status.lock.is_none().then_some(verdict)
    })
    .await?;
    child.kill().await.ok();
    let serving = stage.app.serving().await?;
    let lap = stage.lap()?;
    ensure!(["v2", "v3"].contains(&serving.as_str()), "{serving} serves");
    stage.bot()?;
    stage.time(&format!("v3, killed and settled: {serving} serves"), &settled);
    telling::good(&format!(
        "watch settled it without being asked: {serving} serves, the lock is free; {}",
        traffic(&lap)
    ));
    Ok(())
}

fn event(line: &str) -> Option<Entry> {
    #[derive(Deserialize)]
    struct Line {
        entry: Option<Entry>,
    }
    serde_json::from_str::<Line>(line).ok()?.entry
}

fn refused(ran: &Ran, what: &str) {
    telling::failure(ran.told.failure());
    telling::good(&format!("{what}; {}", traffic(&ran.traffic)));
}

fn traffic(lap: &Report) -> String {
    let slowest = lap.slowest().map(|(_, wait)| wait).unwrap_or_default();
    format!("{} requests meanwhile, {} failed, slowest {}", lap.sent(), lap.failed(), seconds(slowest))
}

fn saw_only_one_release(lap: &Report) -> bool {
    lap.releases.len() == 1
}

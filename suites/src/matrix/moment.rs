//! When something happens to a deploy.

use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, bail};
use cutover_core::journal::{Entry, What};
use cutover_core::names::RunId;
use cutover_core::plan::{Plan, Stage};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout};

/// For a deploy to come to its moment: it builds an image, brings it there and rehearses a migration, beside other suites.
const SOON: Duration = Duration::from_mins(3);

/// A moment of a deploy, as its client hears of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The plan is made; what it needs is brought to the server next.
    Planned,
    /// The run is in this stage, and goes on when what happens has happened.
    In(Stage),
}

impl Moment {
    /// All, in their order.
    pub fn all() -> impl Iterator<Item = Self> {
        let stages = Stage::ALL.into_iter().filter(|stage| *stage != Stage::Lock);
        [Self::Planned].into_iter().chain(stages.map(Self::In))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Planned => formatter.pad("planned"),
            Self::In(stage) => formatter.pad(stage.as_str()),
        }
    }
}

#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    plan: Option<Plan>,
    #[serde(default)]
    entry: Option<Entry>,
}

/// A deploy that is followed.
pub(super) struct Followed {
    pub(super) client: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// What was heard so far, for a person who asks why it did not come.
    heard: String,
    /// Known from its plan on.
    pub(super) run: Option<RunId>,
}

impl Followed {
    pub(super) fn begin(mut command: tokio::process::Command) -> anyhow::Result<Self> {
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let mut client = command.spawn()?;
        let lines = BufReader::new(client.stdout.take().context("no output")?).lines();
        Ok(Self { client, lines, heard: String::new(), run: None })
    }

    /// Waits for the moment; `false`: the deploy ended without it.
    pub(super) async fn until(&mut self, moment: Moment) -> anyhow::Result<bool> {
        let came = tokio::time::timeout(SOON, self.read_until(moment)).await;
        came.with_context(|| format!("it never came to {moment}; heard: {}", self.heard))?
    }

    async fn read_until(&mut self, moment: Moment) -> anyhow::Result<bool> {
        while let Some(text) = self.lines.next_line().await? {
            self.heard.push_str(&text);
            self.heard.push('\n');
            let line: Line =
                serde_json::from_str(&text).with_context(|| format!("not understood: {text}"))?;
            if let Some(plan) = line.plan {
                self.run = plan.hosts.values().next().map(|host| host.run);
                if moment == Moment::Planned {
                    return Ok(true);
                }
            }
            let Some(What::Entered { stage } | What::Skipped { stage, .. }) =
                line.entry.map(|entry| entry.what)
            else {
                continue;
            };
            if moment == Moment::In(stage) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Its exit code, once it has ended; what it said on its error stream. A signal ended it: none.
    pub(super) async fn end(self, within: Duration) -> anyhow::Result<(Option<i32>, String)> {
        let Self { client, mut lines, .. } = self;
        // It waits for whoever reads.
        let reading = tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let ended = tokio::time::timeout(within, client.wait_with_output()).await;
        reading.abort();
        let Ok(output) = ended else { bail!("the client did not end within {within:?}") };
        let output = output?;
        Ok((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
    }
}

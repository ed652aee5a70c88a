//! `status`: what is live, and how it is; with `--check` the exit code tells, and with `--wait` it is given time.

use crate::arguments::duration;
use crate::asked::Command;
use clap::Args;
use std::collections::BTreeSet;
use std::time::Duration;

use cutover_core::exit::Exit;
use cutover_core::names::AppId;
use cutover_core::wire::{Ask, HostFacts, Reply};
use tokio::time::{Instant, sleep};

use super::diff::facts;
use super::{Desk, Ended, Stop, observe, reach};
use crate::hosts::{Channel, unexpected};
use crate::render::{self, HostLine, Line, Status};

#[derive(Debug, Args)]
pub(crate) struct StatusArguments {
    /// Exit with 4 when not everything is healthy
    #[arg(long)]
    check: bool,
    /// Wait so long for it to become healthy
    #[arg(long, value_name = "TIME", value_parser = duration, requires = "check")]
    wait: Option<Duration>,
}

impl StatusArguments {
    pub(crate) fn into_command(self) -> Command {
        Command::Status { check: self.check.then(|| self.wait.unwrap_or_default()) }
    }
}

/// Between two looks while waiting.
const PAUSE: Duration = Duration::from_millis(250);

pub(super) async fn status(desk: &Desk, check: Option<Duration>) -> Ended {
    let (app, mut channel) = reach(desk).await?;
    let until = check.map(|wait| Instant::now() + wait);
    let found = loop {
        let found = look(&mut channel, &app).await?;
        let waiting = until.is_some_and(|until| Instant::now() + PAUSE <= until);
        if render::is_healthy(&found) || !waiting {
            break found;
        }
        sleep(PAUSE).await;
    };
    let healthy = render::is_healthy(&found);
    desk.output.answer(&Line::Status { healthy, status: &found }, || render::status(&found))?;
    Ok(if check.is_some() && !healthy { Exit::NotHealthy } else { Exit::Done }.code())
}

async fn look(channel: &mut Channel, app: &AppId) -> Result<Status, Stop> {
    let state = observe(channel, app, BTreeSet::new()).await?;
    let services = match channel.answer(&Ask::Health { app: app.clone() }).await? {
        Reply::Health { services } => services,
        other => return Err(unexpected("health", &other).into()),
    };
    let facts = facts(channel, app).await?;
    let backups = match channel.answer(&Ask::Backups { app: app.clone() }).await? {
        Reply::Backups { state } => *state,
        other => return Err(unexpected("backups", &other).into()),
    };
    Ok(Status::new(&state, host_line(channel, &facts), services, backups))
}

fn host_line(channel: &Channel, facts: &HostFacts) -> HostLine {
    let greeting = channel.greeting();
    let state = facts.folders.first();
    HostLine {
        name: channel.target().shown().to_owned(),
        system: facts.system.clone(),
        version: greeting.package.clone(),
        platform: greeting.platform.clone(),
        ahead_ms: i64::try_from(greeting.ahead.as_millis()).unwrap_or(i64::MAX),
        engine: facts.engine.as_ref().map(|engine| format!("{} {}", engine.name, engine.version)),
        disk_free: state.map_or(0, |folder| folder.free),
        disk_size: state.map_or(0, |folder| folder.size),
    }
}

//! What was, and who is at it: `history`, `releases`, `lock`. They look only.

use crate::asked::Command;
use clap::Args;
use std::collections::BTreeSet;

use cutover_core::exit::Exit;
use cutover_core::names::AppId;
use cutover_core::wire::{Ask, Reply};

use super::{Desk, Ended, reach_asking, seen};
use crate::hosts::unexpected;
use crate::render::{self, Line};

#[derive(Debug, Args)]
pub(crate) struct HistoryArguments {
    /// At most so many
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 20)]
    limit: u32,
}

impl HistoryArguments {
    pub(crate) fn into_command(self) -> Command {
        Command::History { limit: self.limit }
    }
}

pub(super) async fn history(desk: &Desk, limit: u32) -> Ended {
    let (app, mut channel) = reach_asking(desk, |app| Ask::History { app: app.clone(), limit }).await?;
    let verdicts = match channel.reply().await? {
        Reply::History { verdicts } => verdicts,
        other => return Err(unexpected("history", &other).into()),
    };
    if verdicts.is_empty() {
        desk.output.talk(&format!("nothing was done with {app} yet; `cutover deploy` puts a release live"));
    }
    for verdict in &verdicts {
        desk.output.answer(&Line::Run { verdict }, || render::history(verdict))?;
    }
    Ok(Exit::Done.code())
}

pub(super) async fn releases(desk: &Desk) -> Ended {
    let observe = |app: &AppId| Ask::Observe { app: app.clone(), images: BTreeSet::new() };
    let (app, mut channel) = reach_asking(desk, observe).await?;
    let state = seen(&mut channel).await?;
    let releases = render::releases(&state);
    if releases.is_empty() {
        desk.output.talk(&format!("no release of {app} was live yet; `cutover deploy` puts one live"));
    }
    for release in &releases {
        desk.output.answer(&Line::Release { release }, || release.text())?;
    }
    Ok(Exit::Done.code())
}

pub(super) async fn lock(desk: &Desk) -> Ended {
    let (app, mut channel) = reach_asking(desk, |app| Ask::Lock { app: app.clone() }).await?;
    let now = channel.greeting().now;
    let holder = match channel.reply().await? {
        Reply::Lock { holder } => holder,
        other => return Err(unexpected("lock", &other).into()),
    };
    let holder = holder.as_ref();
    desk.output.answer(&Line::Lock { holder }, || render::lock(&app, holder, now))?;
    Ok(Exit::Done.code())
}

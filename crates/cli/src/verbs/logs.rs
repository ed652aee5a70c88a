//! `logs`: the output of instances, each line with the instance it comes from.

use crate::arguments::{Since, since};
use crate::asked::Command;
use clap::Args;
use cutover_core::exit::Exit;
use cutover_core::names::{AppId, ReleaseId, ServiceName};
use cutover_core::wire::{Ask, Reply};
use jiff::Timestamp;

use super::{Desk, Ended, reach_asking};
use crate::asked::LogsAsked;
use crate::hosts::unexpected;
use crate::render::{self, Line};

#[derive(Debug, Args)]
pub(crate) struct LogsArguments {
    /// The services; without one, all
    #[arg(value_name = "SERVICE")]
    services: Vec<ServiceName>,
    /// Go on as lines come
    #[arg(short, long)]
    follow: bool,
    /// From then on: `10m` ago, or a time such as 2026-11-21T14:00:00Z
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Since>,
    /// Of this release instead of the live one
    #[arg(long, value_name = "RELEASE")]
    release: Option<ReleaseId>,
    /// At most so many lines of the past from each instance
    #[arg(long, value_name = "LINES")]
    tail: Option<u32>,
}

impl LogsArguments {
    pub(crate) fn into_command(self, now: Timestamp) -> Command {
        let since = self.since.map(|since| match since {
            Since::At(moment) => moment,
            Since::Ago(ago) => now.checked_sub(ago).unwrap_or(Timestamp::MIN),
        });
        Command::Logs(LogsAsked {
            services: self.services.into_iter().collect(),
            follow: self.follow,
            since,
            release: self.release,
            tail: self.tail,
        })
    }
}

pub(super) async fn logs(desk: &Desk, asked: LogsAsked) -> Ended {
    let LogsAsked { services, follow, since, release, tail } = asked;
    let ask = |app: &AppId| Ask::Logs { app: app.clone(), services, release, since, tail, follow };
    let (_, mut channel) = reach_asking(desk, ask).await?;
    loop {
        match channel.reply().await? {
            Reply::Line { instance, at, error, text } => {
                let line = Line::Log { instance: &instance, at, error, text: &text };
                desk.output.answer(&line, || render::log_line(&instance, &text))?;
            }
            Reply::Done => return Ok(Exit::Done.code()),
            other => return Err(unexpected("line", &other).into()),
        }
    }
}

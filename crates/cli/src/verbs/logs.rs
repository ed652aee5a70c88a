//! `logs`: the output of instances, each line with the instance it comes from.

use cutover_core::exit::Exit;
use cutover_core::wire::{Ask, Reply};

use super::{Desk, Ended, reach};
use crate::asked::LogsAsked;
use crate::hosts::unexpected;
use crate::render::{self, Line};

pub(super) async fn logs(desk: &Desk, asked: LogsAsked) -> Ended {
    let (app, mut channel) = reach(desk).await?;
    let LogsAsked { services, follow, since, release, tail } = asked;
    channel.ask(&Ask::Logs { app, services, release, since, tail, follow }).await?;
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

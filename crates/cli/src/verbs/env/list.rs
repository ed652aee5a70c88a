//! `env list`: the names in the host's env file.

use cutover_core::exit::Exit;
use cutover_core::wire::{Ask, Reply};

use crate::hosts::unexpected;
use crate::render::{self, Line};
use crate::verbs::{Desk, Ended, reach};

pub(in crate::verbs) async fn list(desk: &Desk) -> Ended {
    let (app, mut channel) = reach(desk).await?;
    let masked = match channel.answer(&Ask::EnvList { app }).await? {
        Reply::Variables { masked } => masked,
        other => return Err(unexpected("variables", &other).into()),
    };
    desk.output.answer(&Line::Variables { masked: &masked }, || render::variables(&masked))?;
    Ok(Exit::Done.code())
}

//! `attach` follows or replays a run; `cancel` asks the one that goes on to stop.

use crate::asked::Command;
use clap::Args;
use cutover_core::exit::Exit;
use cutover_core::names::RunId;
use cutover_core::wire::Ask;

use super::{Desk, Ended, reach, run};
use crate::render::Line;

#[derive(Debug, Args)]
pub(crate) struct AttachArguments {
    /// The run; without one, the app's newest
    #[arg(value_name = "RUN")]
    run: Option<RunId>,
}

impl AttachArguments {
    pub(crate) fn into_command(self) -> Command {
        Command::Attach { run: self.run }
    }
}

/// The first line of a run's journal.
const FROM_THE_START: u64 = 1;

pub(super) async fn attach(desk: &Desk, of: Option<RunId>) -> Ended {
    let (app, mut channel) = reach(desk).await?;
    channel.ask(&Ask::Attach { run: of, app, from: FROM_THE_START }).await?;
    run::follow(desk, &mut channel, of).await
}

pub(super) async fn cancel(desk: &Desk, by: String) -> Ended {
    let (app, mut channel) = reach(desk).await?;
    channel.ask(&Ask::Cancel { app, by }).await?;
    channel.done().await?;
    desk.output.talk("the run was asked to cancel; `cutover attach` tells how it ends");
    desk.output.answer_json(&Line::Done)?;
    Ok(Exit::Done.code())
}

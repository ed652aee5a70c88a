//! `attach` follows or replays a run; `cancel` asks the one that goes on to stop.

use crate::asked::Command;
use clap::Args;
use cutover_core::exit::Exit;
use cutover_core::names::{AppId, RunId};
use cutover_core::wire::Ask;

use super::{Desk, Ended, reach_asking, run};
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
    let ask = |app: &AppId| Ask::Attach { run: of, app: app.clone(), from: FROM_THE_START };
    let (_, mut channel) = reach_asking(desk, ask).await?;
    run::follow(desk, &mut channel, of).await
}

pub(super) async fn cancel(desk: &Desk, by: String) -> Ended {
    let (_, mut channel) = reach_asking(desk, |app| Ask::Cancel { app: app.clone(), by }).await?;
    channel.done().await?;
    desk.output.talk("the run was asked to cancel; `cutover attach` tells how it ends");
    desk.output.answer_json(&Line::Done)?;
    Ok(Exit::Done.code())
}

//! `prune`: what nothing on the host needs any more goes. A run like those of the other verbs that work on what is recorded; but its plan is made
//! from one more look.

use clap::Args;
use cutover_core::plan::Verb;
use cutover_core::state::HostState;
use cutover_core::wire::{Ask, Reply};

use super::Stop;
use crate::arguments::{RunArguments, request};
use crate::asked::{Asked, Brings, Command};
use crate::hosts::{Channel, unexpected};

#[derive(Debug, Args)]
pub(crate) struct PruneArguments {
    #[command(flatten)]
    run: RunArguments,
}

impl PruneArguments {
    pub(crate) fn into_command(self, by: &str) -> Command {
        let (request, conduct) = (request(Verb::Prune, by), self.run.into_conduct());
        Command::Change(Box::new(Asked { request, brings: Brings::default(), conduct }))
    }
}

/// Looks for what nothing needs.
pub(super) async fn look(host: &mut Channel, state: &mut HostState) -> Result<(), Stop> {
    match host.answer(&Ask::Leftovers { app: state.app.clone() }).await? {
        Reply::Leftovers { leftovers } => {
            state.leftovers = Some(leftovers);
            Ok(())
        }
        other => Err(unexpected("leftovers", &other).into()),
    }
}

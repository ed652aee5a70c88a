//! What makes this server a host, asked for by `setup`, `teardown` and `key`. Not for the deploy user: its keys lie with CI.

use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::setup::{Wanted, place};
use cutover_core::wire::{Reply, SetupAsk, SetupReply};
use tokio::io::{AsyncRead, AsyncWrite};

use super::frames::Stop;
use super::serve::Session;
use crate::setup::{self, Setup, SetupEvent};

impl<R, W> Session<R, W>
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    pub(super) async fn setup(&mut self, ask: SetupAsk) -> Result<(), Stop> {
        refuse_deploy_user()?;
        let reply = match ask {
            SetupAsk::Look { wanted } => {
                let decision = Setup::new(&self.layout, &wanted)?.decide().await?;
                SetupReply::Decision { changes: decision.changes, warnings: decision.warnings }
            }
            SetupAsk::Change { wanted } => return self.change(&wanted).await,
            SetupAsk::Upgrade { program } => {
                self.host().await?;
                SetupReply::Told { lines: setup::upgrade(&self.layout, &program).await? }
            }
            SetupAsk::Confirm { token } => {
                return self.done(setup::confirm(&self.layout, &token).await).await;
            }
            SetupAsk::TakeBack { token } => {
                return self.done(setup::take_back(&self.layout, &token).await).await;
            }
            SetupAsk::LookUndo { app } => SetupReply::Told { lines: setup::look_undo(&self.layout, &app)? },
            SetupAsk::Undo { app } => SetupReply::Told { lines: setup::undo(&self.layout, &app).await? },
            SetupAsk::Keys => SetupReply::Keys { keys: setup::list_keys() },
            SetupAsk::AddKey { key } => return self.done(setup::add_key(&self.layout, &key).await).await,
            SetupAsk::RevokeKey { key } => {
                SetupReply::Told { lines: setup::revoke_key(&self.layout, &key).await? }
            }
        };
        Ok(self.outgoing.send(&Reply::Setup(reply)).await?)
    }

    async fn change(&mut self, wanted: &Wanted) -> Result<(), Stop> {
        let layout = self.layout.clone();
        // The folders and the installation's id, before anything lies in them.
        self.host().await?;
        let mut on_trial = false;
        let outgoing = &mut self.outgoing;
        Setup::new(&layout, wanted)?
            .carry_out(async |event| {
                let reply = match event {
                    SetupEvent::Changed(change) => SetupReply::Changed { change: Box::new(change) },
                    SetupEvent::Trial { token, seconds, changes } => {
                        on_trial = true;
                        SetupReply::Trial { token, seconds, changes }
                    }
                };
                outgoing.send(&Reply::Setup(reply)).await
            })
            .await?;
        if on_trial { Ok(()) } else { Ok(self.outgoing.send(&Reply::Done).await?) }
    }

    async fn done(&mut self, outcome: Result<(), Failure>) -> Result<(), Stop> {
        outcome?;
        Ok(self.outgoing.send(&Reply::Done).await?)
    }
}

/// sudo tells who called it.
fn refuse_deploy_user() -> Result<(), Failure> {
    if std::env::var("SUDO_USER").as_deref() != Ok(place::USER) {
        return Ok(());
    }
    Err(Failure::new(Exit::Refused, "a deploy key does not change the server itself")
        .because(format!("the session is of the user `{}`, whose keys are for deploys", place::USER))
        .next("do it as the user that set the server up"))
}

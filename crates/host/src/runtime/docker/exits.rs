//! Waiting for an instance's end: heard from the engine's events, and looked up besides, because events get lost (S22).

use std::collections::BTreeMap;

use cutover_core::defaults;
use cutover_core::layout::label;
use cutover_core::names::{AppId, InstanceName};
use cutover_core::state::ExitStatus;
use cutover_engine::{Container, Exit, Happening, Heard, State};
use futures_util::StreamExt;
use jiff::Timestamp;

use super::DockerRuntime;
use super::found::exit_status;
use crate::ports::{RuntimeError, RuntimeErrorKind};

impl DockerRuntime {
    /// Until the engine tells that this container's processes have ended. Only from now on: what was before is not heard.
    pub(super) async fn death_of(&self, container: &Container, app: &AppId, name: &InstanceName) {
        let mut events = std::pin::pin!(self.engine.events(&self.labels_of(app, name)));
        while let Some(heard) = events.next().await {
            if let Heard::Happened(event) = heard
                && event.id == container.id
                && matches!(event.what, Happening::Died { .. })
            {
                return;
            }
        }
        std::future::pending::<()>().await;
    }

    fn labels_of(&self, app: &AppId, name: &InstanceName) -> BTreeMap<String, String> {
        BTreeMap::from([
            (label::INSTALLATION.to_owned(), self.installation.clone()),
            (label::APP.to_owned(), app.to_string()),
            (label::INSTANCE.to_owned(), name.to_string()),
        ])
    }

    /// While the engine does not answer, nobody knows how its containers are: it goes on listening, and looks again when it answers.
    pub(super) async fn end_of_instance(
        &self,
        app: &AppId,
        name: &InstanceName,
    ) -> Result<ExitStatus, RuntimeError> {
        let mut events = std::pin::pin!(self.engine.events(&self.labels_of(app, name)));
        let mut again = tokio::time::interval(defaults::WATCH);
        again.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // The first tick comes at once; the first look comes when the engine listens.
        again.tick().await;
        let mut watched = Watched::default();
        loop {
            let heard = tokio::select! {
                heard = events.next() => heard,
                _ = again.tick() => None,
            };
            if let Some(Heard::Lost(error)) = &heard {
                tracing::warn!(%error, instance = %name, "the engine cannot be heard; an exit is looked for when it answers again");
                continue;
            }
            watched.hear(heard.as_ref());
            match self.existing(app, name).await {
                Ok(container) => {
                    if let Some(exit) = watched.see(&container) {
                        return Ok(exit);
                    }
                }
                Err(error) if error.kind == RuntimeErrorKind::Unreachable => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// What was heard and seen of one container so far.
#[derive(Default)]
struct Watched {
    /// The start whose end is waited for.
    start: Option<Timestamp>,
    died: Option<Exit>,
    out_of_memory: bool,
}

impl Watched {
    fn hear(&mut self, heard: Option<&Heard>) {
        let Some(Heard::Happened(event)) = heard else { return };
        match event.what {
            Happening::Died { code } => {
                let code = code.unwrap_or(0);
                self.died = Some(Exit { code, finished_at: event.at, ..Exit::default() });
            }
            Happening::OutOfMemory => self.out_of_memory = true,
            Happening::Started | Happening::Health { .. } | Happening::Removed => {}
        }
    }

    /// The end of the start that is waited for, if it has come.
    fn see(&mut self, container: &Container) -> Option<ExitStatus> {
        if let State::Exited(exit) | State::Dead(exit) | State::Restarting(exit) = &container.state {
            return Some(exit_status(exit, &container.id));
        }
        if let Some(exit) = &self.died {
            // The state lags behind the event, or it runs again by its policy.
            let exit = Exit { out_of_memory: self.out_of_memory, ..exit.clone() };
            return Some(exit_status(&exit, &container.id));
        }
        let start = *self.start.get_or_insert(container.started_at?);
        if container.started_at == Some(start) {
            return None;
        }
        // It ended and runs again, and nobody heard how.
        let at = container.finished_at;
        Some(ExitStatus { code: None, signal: None, out_of_memory: self.out_of_memory, error: None, at })
    }
}

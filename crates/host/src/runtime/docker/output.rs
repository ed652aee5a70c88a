//! What an instance wrote, from the engine's own record of it.

use cutover_core::names::{AppId, InstanceName};
use cutover_engine::{Container, LogQuery as EngineQuery, OutputStream, State};
use futures_util::TryStreamExt;
use jiff::{SignedDuration, Timestamp};

use super::DockerRuntime;
use super::error::failed;
use crate::ports::{LogLine, LogQuery, RuntimeError, Scope};

/// A process can write before the engine notes that it has started.
const EARLY: SignedDuration = SignedDuration::from_millis(200);

impl DockerRuntime {
    pub(super) async fn instance_output(
        &self,
        app: &AppId,
        name: &InstanceName,
        query: &LogQuery,
    ) -> Result<Vec<LogLine>, RuntimeError> {
        let container = self.existing(app, name).await?;
        let begin = match query.scope {
            Scope::All => None,
            Scope::ThisStart => beginning(&container),
        };
        let query = EngineQuery {
            follow: false,
            tail: query.tail.map(|lines| u32::try_from(lines).unwrap_or(u32::MAX)),
            since: query.since.max(begin),
        };
        let lines = self.engine.logs(&container.id, query);
        lines
            .map_ok(|line| LogLine {
                at: line.at,
                error: line.stream == OutputStream::Error,
                text: line.text,
            })
            .try_collect()
            .await
            .map_err(failed)
    }
}

/// From when on output is of the newest start; `None`: all of it is.
fn beginning(container: &Container) -> Option<Timestamp> {
    let started = container.started_at?;
    match container.state {
        // The end before this start is known: all that comes after it is new.
        State::Running | State::Paused => container.finished_at.filter(|end| *end <= started),
        // Only the end of this very start is known.
        _ => started.checked_sub(EARLY).ok(),
    }
}

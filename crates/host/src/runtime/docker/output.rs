//! What an instance wrote, from the engine's own record of it.

use std::time::Duration;

use cutover_core::defaults;
use cutover_core::names::{AppId, InstanceName};
use cutover_engine::{Container, LogQuery as EngineQuery, OutputStream, State};
use futures_util::{Stream, TryStreamExt};
use jiff::{SignedDuration, Timestamp};

use super::DockerRuntime;
use super::error::failed;
use crate::ports::{Certainty, LogLine, LogQuery, RuntimeError, RuntimeErrorKind, Scope};

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
        let lines = self.engine.logs(&container.id, query).map_err(failed).map_ok(|line| LogLine {
            at: line.at,
            error: line.stream == OutputStream::Error,
            text: line.text,
        });
        all_of(lines, defaults::ENGINE_CALL).await
    }
}

/// What is recorded comes without a pause, however much it is: an engine that is silent for so long hangs.
async fn all_of(
    lines: impl Stream<Item = Result<LogLine, RuntimeError>>,
    silence: Duration,
) -> Result<Vec<LogLine>, RuntimeError> {
    let mut lines = std::pin::pin!(lines);
    let mut all = Vec::new();
    loop {
        match tokio::time::timeout(silence, lines.try_next()).await {
            Ok(Ok(Some(line))) => all.push(line),
            Ok(Ok(None)) => return Ok(all),
            Ok(Err(error)) => return Err(error),
            Err(_) => {
                let message = format!("the container engine sent nothing of the output for {silence:?}");
                return Err(RuntimeError::new(RuntimeErrorKind::Late, Certainty::NotDone, message));
            }
        }
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

#[cfg(test)]
mod tests {
    use futures_util::stream::{self, StreamExt};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_engine_that_falls_silent_is_given_up_and_one_that_is_slow_is_not() {
        let line = |text: &str| LogLine { at: None, error: false, text: text.to_owned() };
        let slow = stream::iter(["a", "b", "c"]).then(async |text| {
            tokio::time::sleep(Duration::from_secs(50)).await;
            Ok(line(text))
        });
        assert_eq!(all_of(slow, Duration::from_mins(1)).await.unwrap().len(), 3);

        let hanging = stream::iter([Ok(line("a"))]).chain(stream::pending());
        let error = all_of(hanging, Duration::from_mins(1)).await.unwrap_err();

        assert_eq!(error.kind, RuntimeErrorKind::Late, "{error}");
    }
}

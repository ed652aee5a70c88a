//! A container that runs once to its end: migrations, rehearsals, checks.
//!
//! Dropping the call at any point is safe and leaves at most one container, known by its name and labels; whoever
//! recovers ends it (S9). It is removed here only after its outcome is known.

use futures_util::StreamExt;

use super::found::{Exit, Phase};
use super::life::RemoveVolumes;
use super::logs::{LogLine, LogQuery};
use super::spec::ContainerSpec;
use crate::connect::Engine;
use crate::error::{Certainty, EngineError, Kind};

/// How a one-off container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnceOutcome {
    /// Its exit.
    pub exit: Exit,
    /// Why it could not be removed afterwards: no failure of the act, but a container left over.
    pub left_behind: Option<EngineError>,
}

impl Engine {
    /// Creates, starts, follows, waits for and removes a container. Each line of its output goes to `on_line` as it
    /// comes. A container of that name that has been started before is refused as `Exists`: it may have done its work.
    pub async fn run_once(
        &self,
        spec: &ContainerSpec,
        on_line: &mut (dyn FnMut(LogLine) + Send),
    ) -> Result<OnceOutcome, EngineError> {
        let created = self.create(spec).await?;
        if created.found {
            self.refuse_started(&created.id, &spec.name).await?;
        }
        if let Err(error) = self.start(&created.id).await {
            return Err(self.without_leftover(&created.id, error).await);
        }
        self.follow_to_end(&created.id, on_line).await?;
        let exit = self.wait(&created.id).await?;
        let left_behind = self.kill_and_remove(&created.id, RemoveVolumes::Unnamed).await.err();
        Ok(OnceOutcome { exit, left_behind })
    }

    async fn refuse_started(&self, container: &str, name: &str) -> Result<(), EngineError> {
        let phase = self.inspect(container).await?.state.phase();
        if phase == Phase::Created {
            return Ok(());
        }
        Err(EngineError {
            kind: Kind::Exists,
            certainty: Certainty::NotDone,
            act: format!("run container {name} once"),
            message: format!("it was started before and is {phase:?}; it has to be removed first"),
        })
    }

    async fn follow_to_end(
        &self,
        container: &str,
        on_line: &mut (dyn FnMut(LogLine) + Send),
    ) -> Result<(), EngineError> {
        let mut lines =
            std::pin::pin!(self.logs(container, LogQuery { follow: true, ..LogQuery::default() }));
        while let Some(line) = lines.next().await {
            match line {
                Ok(line) => on_line(line),
                // A logging driver that cannot be read back: the exit code is still to be had.
                Err(error) if matches!(error.kind, Kind::Refused | Kind::Other) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn without_leftover(&self, container: &str, error: EngineError) -> EngineError {
        match self.kill_and_remove(container, RemoveVolumes::Unnamed).await {
            Ok(()) => error,
            Err(left) => EngineError { message: format!("{} (and then: {left})", error.message), ..error },
        }
    }
}

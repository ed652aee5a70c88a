//! The one outcome of a run: it drives the exit code, the JSON, the history and the notifications (P4).

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::names::{AppId, ReleaseId, RunId};
use crate::plan::{Rule, Verb};

/// The one outcome of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Of which run.
    pub run: RunId,
    /// Whose.
    pub app: AppId,
    /// What was asked.
    pub verb: Verb,
    /// The release it was about.
    pub release: Option<ReleaseId>,
    /// What is live after it.
    pub serving: Option<ReleaseId>,
    /// How it ended.
    pub outcome: Outcome,
    /// Rules that were let pass.
    pub allowed: Vec<Rule>,
    /// Who asked.
    pub by: String,
    /// When the run began.
    pub started: Timestamp,
    /// When it ended.
    pub finished: Timestamp,
    /// From the start to the switch; `None`: never switched.
    #[serde(default)]
    pub switched_ms: Option<u64>,
    /// Bytes that `prune` freed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub freed: Option<u64>,
    /// What went less than well without changing the outcome.
    pub warnings: Vec<String>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// As planned.
    Done,
    /// Not as planned; what is serving stands in the failure.
    Failed {
        /// The four answers.
        failure: Failure,
    },
}

impl Verdict {
    /// What the command exits with.
    pub fn exit(&self) -> Exit {
        match &self.outcome {
            Outcome::Done => Exit::Done,
            Outcome::Failed { failure } => failure.exit,
        }
    }

    /// From start to end.
    pub fn took(&self) -> Duration {
        Duration::try_from(self.finished.duration_since(self.started)).unwrap_or_default()
    }
}

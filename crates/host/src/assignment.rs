//! What a session hands to a run: the plan, and what the client sent for the env file. Durable before the run starts; secrets lie in the
//! 0600 env file only, and go when the run has come to its end.

use std::collections::BTreeSet;

use cutover_core::env_file;
use cutover_core::layout::Layout;
use cutover_core::names::{RunId, VariableName};
use cutover_core::plan::{HostPlan, PLAN_VERSION};
use cutover_core::secret::Secrets;
use serde::{Deserialize, Serialize};

use crate::files::{self, FileError};

/// What a run is to carry out.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Assignment {
    /// The plan.
    pub plan: HostPlan,
    /// Names that go out of the host's env file.
    pub unset: BTreeSet<VariableName>,
    /// What was sent is also kept in the host's env file.
    pub keep_env: bool,
    /// Wait for the lock.
    pub wait: bool,
    /// Images that were not on this host before they were fetched for this run, by name.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub fetched: BTreeSet<String>,
}

/// Why an assignment cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum AssignmentError {
    /// The disk.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is not one, or of a newer version.
    #[error("run {run} has no readable plan: {problem}")]
    Unreadable {
        /// Of which run.
        run: RunId,
        /// What is wrong.
        problem: String,
    },
}

impl Assignment {
    /// Lays it into the run's folder, with what was sent for the env file.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn save(&self, layout: &Layout, sent: &Secrets) -> Result<(), AssignmentError> {
        let folder = layout.run_folder(self.plan.run);
        files::ensure_folder(&folder, 0o700)?;
        if !sent.is_empty() {
            files::replace(&folder.join("env"), sent.to_env_file().as_bytes(), 0o600)?;
        }
        let text = serde_json::to_vec(self).map_err(|error| unreadable(self.plan.run, &error))?;
        files::replace(&folder.join("plan.json"), &text, 0o600)?;
        Ok(())
    }

    /// Reads it back.
    ///
    /// # Errors
    /// When it is not there, cut, or of a newer version.
    pub fn load(layout: &Layout, run: RunId) -> Result<Self, AssignmentError> {
        let path = layout.run_folder(run).join("plan.json");
        let text = std::fs::read(&path).map_err(|error| unreadable(run, &error))?;
        let assignment: Self = serde_json::from_slice(&text).map_err(|error| unreadable(run, &error))?;
        if assignment.plan.version > PLAN_VERSION {
            return Err(unreadable(
                run,
                &format!("it has version {}, this build knows {PLAN_VERSION}", assignment.plan.version),
            ));
        }
        Ok(assignment)
    }
}

/// What the client sent for the env file; nothing, where the run is over.
pub fn sent(layout: &Layout, run: RunId) -> Secrets {
    let text = std::fs::read_to_string(layout.run_folder(run).join("env")).unwrap_or_default();
    env_file::parse(&text).unwrap_or_default()
}

fn unreadable(run: RunId, problem: &dyn std::fmt::Display) -> AssignmentError {
    AssignmentError::Unreadable { run, problem: problem.to_string() }
}

//! Hears the end of an instance: from its keeper, or, where the keeper was killed, from the kernel. Nothing is asked twice on a clock.

use cutover_core::state::ExitStatus;

use super::folder::{Folder, FolderError, Phase, Record, State};
use super::leftovers::orphan;
use super::protocol::{self, Answer, Ask};

/// Waits for the end of an instance; at once, where it has ended or was never started.
pub(super) async fn wait(folder: &Folder, record: &Record, boot: &str) -> Result<ExitStatus, FolderError> {
    loop {
        if let Some(keeper) = folder.keeper()? {
            if let Ok(Answer::Exit { exit }) = protocol::ask(keeper, &record.socket, Ask::Wait).await {
                return Ok(exit);
            }
            // It ended before it answered. Gone for good, its last words are in the folder.
            if let Ok(Some(handle)) = keeper.open()
                && let Err(error) = handle.ended().await
            {
                tracing::warn!(%error, "the end of a keeper cannot be heard");
            }
            continue;
        }
        let state = folder.state();
        if let Some(handle) = state.as_ref().and_then(|state| orphan(state, boot)?.open().ok()?)
            && handle.ended().await.is_ok()
        {
            return Ok(unknown());
        }
        return Ok(state.map_or_else(unknown, last_exit));
    }
}

/// The end of a process of which nobody heard how it ended.
pub(super) fn unknown() -> ExitStatus {
    ExitStatus { code: None, signal: None, out_of_memory: false, error: None, at: None }
}

/// The end that a keeper that is gone told last.
pub(super) fn last_exit(state: State) -> ExitStatus {
    match state.phase {
        Phase::Exited { exit } | Phase::Restarting { exit } => exit,
        Phase::Starting | Phase::Running { .. } | Phase::Ending { .. } => unknown(),
    }
}

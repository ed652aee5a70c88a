//! Instances as they are: what a keeper says while one lives, else what the folder says, held against the processes themselves.

use std::fs;
use std::io;
use std::time::Duration;

use cutover_core::names::{AppId, InstanceName};
use cutover_core::state::{FoundInstance, InstanceState};
use jiff::Timestamp;

use super::exits::{last_exit, unknown};
use super::folder::{Folder, FolderError, Phase, Record, State};
use super::leftovers::{Search, orphan};
use super::protocol::{self, Answer, Ask};
use super::runtime::ProcessRuntime;
use crate::files::FileError;
use crate::ports::RuntimeError;

/// For a keeper to say how its instance does, which takes it no time.
const ANSWER: Duration = Duration::from_secs(2);

/// Every instance of an app. A folder that cannot be read is an error that names it, never a gap.
pub(super) async fn list(runtime: &ProcessRuntime, app: &AppId) -> Result<Vec<FoundInstance>, RuntimeError> {
    let mut found = Vec::new();
    for name in names(runtime, app)? {
        found.extend(inspect(runtime, &runtime.folder(app, &name)).await?);
    }
    Ok(found)
}

/// One instance; `None`: there is none, or it has just gone.
pub(super) async fn inspect(
    runtime: &ProcessRuntime,
    folder: &Folder,
) -> Result<Option<FoundInstance>, RuntimeError> {
    if !folder.exists() {
        return Ok(None);
    }
    match look(runtime, folder).await {
        Ok(found) => Ok(Some(found)),
        Err(_) if !folder.exists() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn look(runtime: &ProcessRuntime, folder: &Folder) -> Result<FoundInstance, FolderError> {
    let record = folder.record()?;
    let state = state(runtime, folder, &record).await?;
    let restart = folder.restart()?.effective();
    let hash = record.spec.hash();
    let Record { spec, installation, .. } = record;
    Ok(FoundInstance {
        name: spec.name,
        service: spec.service,
        role: spec.role,
        release: spec.release,
        slot: spec.slot,
        replica: spec.replica,
        run: spec.run,
        runtime: spec.content.runtime(),
        spec: hash,
        address: spec.address,
        state,
        restart,
        ours: installation == runtime.installation,
    })
}

async fn state(
    runtime: &ProcessRuntime,
    folder: &Folder,
    record: &Record,
) -> Result<InstanceState, FolderError> {
    if let Some(keeper) = folder.keeper()? {
        match protocol::ask_within(keeper, &record.socket, Ask::Status, ANSWER).await {
            Ok(Answer::State { state }) => return Ok(shown(state)),
            Ok(Answer::Exit { .. } | Answer::Refused { .. }) | Err(_) => {}
        }
    }
    // No keeper, or one that has just ended or hangs: its last words, held against what is there.
    let Some(state) = folder.state() else { return without_words(runtime, folder, record) };
    if state.phase == Phase::Starting && started(runtime, record, Some(&state)) {
        return Ok(InstanceState::Running { since: Timestamp::now(), restarts: state.restarts });
    }
    let gone = orphan(&state, &runtime.boot).is_none();
    Ok(if gone { InstanceState::Exited { exit: last_exit(state) } } else { shown(state) })
}

/// A keeper that could not even note that it began (a full disk) may have left something all the same.
fn without_words(
    runtime: &ProcessRuntime,
    folder: &Folder,
    record: &Record,
) -> Result<InstanceState, FolderError> {
    if !folder.was_started()? {
        return Ok(InstanceState::Created);
    }
    Ok(if started(runtime, record, None) {
        InstanceState::Running { since: Timestamp::now(), restarts: 0 }
    } else {
        InstanceState::Exited { exit: unknown() }
    })
}

fn started(runtime: &ProcessRuntime, record: &Record, state: Option<&State>) -> bool {
    !Search::new(record, state, &runtime.boot).find().is_empty()
}

fn shown(state: State) -> InstanceState {
    let restarts = state.restarts;
    match state.phase {
        Phase::Starting => InstanceState::Created,
        Phase::Running { since, .. } | Phase::Ending { since, .. } => {
            InstanceState::Running { since, restarts }
        }
        Phase::Restarting { exit } => InstanceState::Restarting { exit, restarts },
        Phase::Exited { exit } => InstanceState::Exited { exit },
    }
}

/// Names of instances, in order. Names that begin with a dot are folders on their way in or out.
fn names(runtime: &ProcessRuntime, app: &AppId) -> Result<Vec<InstanceName>, RuntimeError> {
    let path = runtime.layout.instances(app);
    let unreadable = |error: io::Error| FileError::new("read", &path, &error);
    let entries = match fs::read_dir(&path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(error).into()),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(unreadable)?.file_name();
        match name.to_string_lossy().parse() {
            Ok(name) => names.push(name),
            Err(_) if name.to_string_lossy().starts_with('.') => {}
            Err(error) => tracing::warn!(folder = %path.display(), %error, "a folder of no instance"),
        }
    }
    names.sort();
    Ok(names)
}

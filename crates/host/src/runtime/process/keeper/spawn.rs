//! Starts the first process of an instance.

use std::io;
use std::process::Stdio;

use jiff::Timestamp;
use rustix::process::Pid;
use tokio::time::Instant;

use super::super::folder::{Folder, FolderError, Record};
use super::super::launch::{Launch, LaunchError};
use super::super::output::{self, STREAMS};
use super::super::processes::ProcessId;
use super::limits;
use crate::runtime::memory;

/// The first process of an instance.
#[derive(Clone, Copy)]
pub(super) struct Child {
    pub(super) pid: Pid,
    pub(super) id: ProcessId,
    pub(super) since: Timestamp,
    pub(super) begun: Instant,
    /// What the machine had killed for want of memory before it was started.
    pub(super) kills: u64,
}

/// Why a process could not be started.
#[derive(Debug, thiserror::Error)]
pub(super) enum SpawnError {
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error(transparent)]
    Launch(#[from] LaunchError),
    #[error("its output cannot be opened: {0}")]
    Output(#[from] io::Error),
}

/// Starts it. It begins with the streams, the limits and the variables of the instance, and with nothing of ours.
pub(super) fn spawn(folder: &Folder, record: &Record) -> Result<Child, SpawnError> {
    let launch = Launch::new(record, &folder.values()?, None)?;
    let mut command = launch.command();
    command.stdin(Stdio::null());
    let [output, errors] = STREAMS.map(|(name, _)| output::writer(&folder.fifo(name)));
    command.stdout(output?).stderr(errors?);
    let kills = memory::kills();
    let lowered = limits::lower(&record.spec.settings.ulimits);
    let spawned = command.spawn();
    drop(lowered);
    // Its end is heard by signal and taken in with all other children; the handle would add nothing.
    let pid = spawned.map_err(|error| launch.refused(&error))?.id().cast_signed();
    let id = ProcessId::of(pid).unwrap_or(ProcessId { pid, start: 0 });
    let pid = Pid::from_raw(pid).ok_or(io::Error::from(io::ErrorKind::NotFound))?;
    limits::settle(pid, &record.spec.settings.ulimits);
    Ok(Child { pid, id, since: Timestamp::now(), begun: Instant::now(), kills })
}

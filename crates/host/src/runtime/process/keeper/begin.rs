//! How a keeper begins: alone, in a session of its own, with its ears open before the process starts; then it reports how that went.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::super::folder::{Folder, FolderError};
use super::super::launch::{self, LaunchError};
use super::super::output::{self, STREAMS, Stream};
use super::super::processes::{self, ProcessId};
use super::super::protocol::{Message, Report};
use super::ears::Ears;
use super::serve::Server;
use super::supervise::{Parts, Supervisor};

/// What came of it.
pub(super) enum Beginning {
    /// The process was started, or its start failed in a way its policy deals with.
    Supervise(Box<Supervisor>),
    /// Another keeper lives.
    Taken,
    /// Whoever wanted the instance started is gone, or gave it up.
    Unwanted,
}

/// Why a keeper could not begin.
#[derive(Debug, thiserror::Error)]
pub(super) enum BeginError {
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error(transparent)]
    Launch(#[from] LaunchError),
    #[error("cannot {0}: {1}")]
    System(&'static str, io::Error),
}

/// Begins, starts the process, and reports.
pub(super) fn begin(path: &Path) -> Result<Beginning, BeginError> {
    let folder = Folder::new(path.to_owned());
    let record = folder.record()?;
    // From the moment the lock tells of us, we may be signalled.
    let ears = Ears::open().map_err(|error| BeginError::System("hear signals", error))?;
    let Some(lock) = lock(&folder)? else {
        report(&Report::Taken);
        return Ok(Beginning::Taken);
    };
    // We hold the lock: who looks from now on finds us. Who looked before found nothing, and may be starting another in our place.
    if nobody_waits() {
        return Ok(Beginning::Unwanted);
    }
    stand_alone()?;
    let owner = launch::user(&record.spec)?.map(|user| (user.uid, user.gid));
    let mut streams = Vec::new();
    for (name, kind) in STREAMS {
        let fifo = folder.fifo(name);
        let opened = output::make_fifo(&fifo, owner).and_then(|()| Stream::open(&fifo, kind));
        streams.push(opened.map_err(|error| BeginError::System("open the FIFO of its output", error))?);
    }
    let (server, asked) = Server::bind(&record.socket)
        .map_err(|error| BeginError::System("bind the keeper's socket", error))?;
    let keeper = ProcessId::of(std::process::id().cast_signed())
        .ok_or_else(|| BeginError::System("read /proc", io::ErrorKind::NotFound.into()))?;
    let policy = folder.restart()?.effective();
    let parts =
        Parts { folder, record, ears, lock, streams, server, asked, policy, boot: processes::boot(), keeper };
    let mut supervisor = Supervisor::new(parts);
    report(&supervisor.start());
    Ok(Beginning::Supervise(Box::new(supervisor)))
}

/// Reports that nothing was begun.
pub(super) fn refuse(error: &str) -> ExitCode {
    report(&Report::Failed { error: error.to_owned() });
    ExitCode::FAILURE
}

/// The lock that tells that a keeper lives. It is a lock of this process, given up by the kernel at its end and by no child.
fn lock(folder: &Folder) -> Result<Option<File>, BeginError> {
    let file = folder.open_lock()?;
    match rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(Errno::AGAIN | Errno::ACCESS) => Ok(None),
        Err(error) => Err(BeginError::System("lock the instance", error.into())),
    }
}

/// Whether the other end of the pipe for our report is closed: its holder was killed, or dropped the start at a deadline.
fn nobody_waits() -> bool {
    let output = io::stdout();
    let mut asked = [PollFd::new(&output, PollFlags::empty())];
    // POLLERR comes unasked, for a pipe without a reader.
    rustix::event::poll(&mut asked, Some(&Timespec::default())).is_ok()
        && asked[0].revents().contains(PollFlags::ERR)
}

/// A session of its own, by which its descendants are found (S10), and the adoption of those whose parents end.
fn stand_alone() -> Result<(), BeginError> {
    rustix::process::setsid().map_err(|error| BeginError::System("begin a session", error.into()))?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|error| BeginError::System("adopt descendants", error.into()))
}

fn report(report: &Report) {
    let line = Message::line(report);
    let mut output = io::stdout();
    if let Err(error) = output.write_all(line.as_bytes()).and_then(|()| output.flush()) {
        tracing::debug!(%error, "nobody waits for the report");
    }
}

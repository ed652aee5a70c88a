//! The event file of a run: what its journal says, as lines of JSON for whoever follows. It lies apart from the journal, so that a full
//! disk of logs is in nobody's way (S24), and the journal stays the authority: what a follower misses in the file it takes from there.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cutover_core::defaults::LOG_BYTES;
use cutover_core::exit::Exit;
use cutover_core::journal::{Entry, What};
use cutover_core::layout::Layout;
use cutover_core::names::RunId;
use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;

use crate::files::{self, FileError};
use crate::readiness::readable;
use crate::store::{Store, StoreError};

/// A follower looks into the journal this often even when nothing moves: the file may have missed the end.
const LOOK: Duration = Duration::from_millis(500);

/// The file a run writes its events to. Nothing depends on it: what cannot be written is warned of once.
#[derive(Debug)]
pub struct EventFile {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    file: Option<File>,
    /// The last line may be half there.
    torn: bool,
    warned: bool,
}

impl EventFile {
    /// Opens the event file of a run; made at the first entry, where it is absent.
    pub fn open(layout: &Layout, run: RunId) -> Self {
        let state = State { file: None, torn: true, warned: false };
        Self { path: layout.events(run), state: Mutex::new(state) }
    }

    /// Writes an entry behind the others. Output beyond the bound of a log is left out.
    pub fn append(&self, entry: &Entry) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = state.append(&self.path, entry) {
            state.torn = true;
            if !std::mem::replace(&mut state.warned, true) {
                tracing::warn!(file = %self.path.display(), %error, "events cannot be written; the journal has them");
            }
        }
    }
}

impl State {
    fn append(&mut self, path: &PathBuf, entry: &Entry) -> io::Result<()> {
        if self.file.is_none() {
            files::ensure_folder(files::folder_of(path), 0o700).map_err(io::Error::other)?;
            let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
            self.file = Some(file);
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        let length = file.metadata()?.len();
        if length > LOG_BYTES && matches!(entry.what, What::Output { .. }) {
            return Ok(());
        }
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        if self.torn && length > 0 && last_byte(file)? != b'\n' {
            line.insert(0, b'\n');
        }
        file.write_all(&line)?;
        self.torn = false;
        Ok(())
    }
}

pub(crate) fn last_byte(file: &mut File) -> io::Result<u8> {
    let mut byte = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut byte)?;
    Ok(byte[0])
}

/// Takes the event file of a run away; absent: nothing.
///
/// # Errors
/// When it is still there.
pub fn forget(layout: &Layout, run: RunId) -> Result<(), FileError> {
    files::remove(&layout.events(run))
}

/// Why a run cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The event file or its folder.
    #[error(transparent)]
    File(#[from] FileError),
    /// The journal.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A run, entry by entry: first what was, then what comes, to its verdict. A run whose process died is waited for, since it is settled.
#[derive(Debug)]
pub struct Follow {
    run: RunId,
    path: PathBuf,
    file: Option<File>,
    /// Read, and not yet a whole line.
    rest: Vec<u8>,
    ready: std::collections::VecDeque<Entry>,
    /// The `seq` up to which everything was given.
    given: u64,
    ended: bool,
    changes: AsyncFd<std::os::fd::OwnedFd>,
}

impl Follow {
    /// Begins at entry `from`.
    ///
    /// # Errors
    /// When changes cannot be heard of.
    pub fn new(layout: &Layout, run: RunId, from: u64) -> Result<Self, FollowError> {
        let path = layout.events(run);
        let folder = files::folder_of(&path).to_owned();
        files::ensure_folder(&folder, 0o700)?;
        let failed = |error: io::Error| FileError::new("watch", &folder, &error);
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let changes = inotify::init(flags).map_err(|error| failed(error.into()))?;
        let wanted = inotify::WatchFlags::CREATE | inotify::WatchFlags::MODIFY;
        inotify::add_watch(&changes, &folder, wanted).map_err(|error| failed(error.into()))?;
        Ok(Self {
            run,
            path,
            file: None,
            rest: Vec::new(),
            ready: std::collections::VecDeque::new(),
            given: from.saturating_sub(1),
            ended: false,
            changes: readable(changes).map_err(failed)?,
        })
    }

    /// The next entry; none after the verdict. May be given up and asked again.
    ///
    /// # Errors
    /// When neither the file nor the journal can be read.
    pub async fn next(&mut self, store: &Store) -> Result<Option<Entry>, FollowError> {
        let mut look = true;
        loop {
            if let Some(entry) = self.ready.pop_front() {
                self.ended = matches!(entry.what, What::Verdict { .. });
                if self.ended && self.goes_on(&entry, store)? {
                    continue;
                }
                return Ok(Some(entry));
            }
            if self.ended {
                return Ok(None);
            }
            self.read_file(store)?;
            if self.ready.is_empty() && look {
                self.read_journal(store)?;
            }
            if self.ready.is_empty() {
                look = self.wait().await?;
            }
        }
    }

    /// Whether a verdict was only what a person was told, and the run has been taken up again since.
    fn goes_on(&mut self, entry: &Entry, store: &Store) -> Result<bool, FollowError> {
        let told = matches!(&entry.what, What::Verdict { verdict } if verdict.exit() == Exit::Person);
        if told && self.ready.is_empty() {
            self.read_file(store)?;
            self.take_entries(store)?;
        }
        self.ended = !told || self.ready.is_empty();
        Ok(!self.ended)
    }

    /// What the file has beyond what was read.
    fn read_file(&mut self, store: &Store) -> Result<(), FollowError> {
        let failed = |path: &PathBuf, error: io::Error| FileError::new("read", path, &error);
        if self.file.is_none() {
            match File::open(&self.path) {
                Ok(file) => self.file = Some(file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(failed(&self.path, error).into()),
            }
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        file.read_to_end(&mut self.rest).map_err(|error| failed(&self.path, error))?;
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else { return Ok(()) };
        let lines: Vec<u8> = self.rest.drain(..=end).collect();
        for line in lines.split(|byte| *byte == b'\n') {
            // A torn line is left out here, and found missing by its number.
            if let Ok(entry) = serde_json::from_slice::<Entry>(line) {
                self.take(entry, store)?;
            }
        }
        Ok(())
    }

    /// An entry of the file, with those before it that the file missed. One that the journal could not take has no number.
    fn take(&mut self, entry: Entry, store: &Store) -> Result<(), FollowError> {
        if entry.seq == 0 {
            self.ready.push_back(entry);
        } else if entry.seq > self.given {
            if entry.seq > self.given + 1 {
                let missed = store.entries(self.run, self.given + 1)?;
                self.ready.extend(missed.into_iter().filter(|missed| missed.seq < entry.seq));
            }
            self.given = entry.seq;
            self.ready.push_back(entry);
        }
        Ok(())
    }

    /// What the journal has beyond what was given; the file may be gone, or the disk of the logs full.
    fn read_journal(&mut self, store: &Store) -> Result<(), FollowError> {
        self.take_entries(store)?;
        if self.ready.is_empty()
            && store.is_over(self.run)?
            && let Some(verdict) = store.verdict(self.run)?
        {
            // Its entry was never written, or is not kept any more; the verdict is.
            let (run, at) = (self.run, verdict.finished);
            self.ready.push_back(Entry {
                run,
                seq: 0,
                at,
                what: What::Verdict { verdict: Box::new(verdict) },
            });
        }
        Ok(())
    }

    fn take_entries(&mut self, store: &Store) -> Result<(), FollowError> {
        for entry in store.entries(self.run, self.given + 1)? {
            self.given = entry.seq;
            self.ready.push_back(entry);
        }
        Ok(())
    }

    /// Until something moves in the folder (false), or it is time to look into the journal (true).
    async fn wait(&self) -> Result<bool, FollowError> {
        let moved = async {
            let mut guard = self.changes.readable().await?;
            let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
            let mut reader = inotify::Reader::new(self.changes.get_ref(), &mut buffer);
            // What moved is found by reading the file; here they are only taken away.
            while reader.next().is_ok() {}
            guard.clear_ready();
            io::Result::Ok(())
        };
        match tokio::time::timeout(LOOK, moved).await {
            Ok(moved) => {
                moved.map_err(|error| FileError::new("watch", files::folder_of(&self.path), &error))?;
                Ok(false)
            }
            Err(_) => Ok(true),
        }
    }
}

#[cfg(test)]
#[path = "events_tests.rs"]
mod tests;

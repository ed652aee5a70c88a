//! What a host remembers: runs with their journals, verdicts, releases. SQLite in WAL mode with `synchronous=FULL`, so that what a method
//! returned from is there after the power is lost (S3); only of a journal's entries some wait for the next ([`journal`]).
//!
//! It records and answers; it decides nothing, and what is live it does not know (S1: the table and the live file say that). Figures that
//! may be lost lie in a file of their own ([`samples`]).

mod backups;
mod damage;
mod error;
mod format;
mod journal;
mod releases;
pub mod samples;
mod schema;
mod snapshots;
mod verdicts;

use std::ffi::c_int;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cutover_core::layout::Layout;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

pub use damage::untold;
pub(crate) use damage::{apps_on_disk, told};
pub use error::StoreError;
pub(crate) use error::is_full;
pub use journal::RunRow;

use crate::files::{self, Ballast};

/// For another process that writes.
const BUSY: Duration = Duration::from_secs(5);
/// Room for the rest of a journal, a recovery and a verdict (S24).
const BALLAST: u64 = 1024 * 1024;

/// The records of one installation. Several processes have it open at once.
#[derive(Debug)]
pub struct Store {
    connection: Mutex<Connection>,
    ballast: Option<Ballast>,
    /// The file that it is, where it is one.
    file: Option<FileId>,
    /// Where it is noted that this file was found whole.
    noted: Option<PathBuf>,
}

/// Tells a file from another that has taken its place: device and number.
type FileId = (u64, u64);

impl Store {
    /// Opens the installation's store; makes it where there is none. One that is damaged or lost is set aside and made anew (S25). On a
    /// read-only file system it can be read only.
    ///
    /// # Errors
    /// When a newer build wrote it ([`StoreError::newer`]), or it cannot be read or made.
    pub fn open(layout: &Layout) -> Result<Self, StoreError> {
        if files::is_read_only(layout.state()) {
            let connection = Mutex::new(read_only(&layout.store())?);
            return Ok(Self { connection, ballast: None, file: file_id(&layout.store()), noted: None });
        }
        files::ensure_folder(layout.state(), 0o700)?;
        let ballast = Ballast::new(layout.ballast(), BALLAST);
        let connection = match damage::sound(layout) {
            Err(error) if error.full && ballast.give_up() => damage::sound(layout),
            opened => opened,
        };
        let connection = connection.map_err(|error| error.at(&layout.store()))?;
        if let Err(error) = ballast.lay() {
            tracing::warn!(%error, "there is no ballast for a full disk");
        }
        let file = file_id(&layout.store());
        let noted = Some(damage::noted(layout));
        Ok(Self { connection: Mutex::new(connection), ballast: Some(ballast), file, noted })
    }

    /// Whether what lies in the store's place is still what was opened, and can be read.
    pub fn is_current(&self, layout: &Layout) -> bool {
        let is_damaged = matches!(self.all_unfinished(), Err(error) if error.damaged);
        self.file == file_id(&layout.store()) && !is_damaged
    }

    /// A store that is gone when dropped, for tests.
    ///
    /// # Errors
    /// None that is known.
    pub fn in_memory() -> Result<Self, StoreError> {
        let mut connection = Connection::open_in_memory()?;
        schema::upgrade(&mut connection)?;
        Ok(Self { connection: Mutex::new(connection), ballast: None, file: None, noted: None })
    }

    /// A copy in memory, for tests that begin at the same moment again and again.
    ///
    /// # Errors
    /// When this one cannot be read.
    pub fn duplicate(&self) -> Result<Self, StoreError> {
        let mut connection = Connection::open_in_memory()?;
        self.read(|from| {
            let copying = rusqlite::backup::Backup::new(from, &mut connection)?;
            Ok(copying.run_to_completion(c_int::MAX, Duration::ZERO, None)?)
        })?;
        Ok(Self { connection: Mutex::new(connection), ballast: None, file: None, noted: None })
    }

    /// Reads.
    fn read<T>(&self, read: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        read(&self.connection.lock().unwrap_or_else(PoisonError::into_inner))
            .inspect_err(|error| self.distrust(error))
    }

    /// What turned out to be damaged while it was used is checked by whoever opens it next, however unchanged its file looks.
    fn distrust(&self, error: &StoreError) {
        if let Some(noted) = self.noted.as_deref().filter(|_| error.damaged) {
            files::discard(noted);
        }
    }

    /// Writes in one transaction, which a loss of power finds done.
    fn write<T>(&self, write: impl Fn(&Transaction<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.write_lasting(Lasting::AtOnce, write)
    }

    /// Writes in one transaction. On a full disk the ballast is given up, and it is tried once more (S24).
    fn write_lasting<T>(
        &self,
        lasting: Lasting,
        write: impl Fn(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        match transact(&mut connection, lasting, &write) {
            Err(error) if error.full && self.ballast.as_ref().is_some_and(Ballast::give_up) => {
                transact(&mut connection, lasting, &write)
            }
            outcome => outcome,
        }
        .inspect_err(|error| self.distrust(error))
        .map_err(|error| match connection.path() {
            Some(file) => error.at(Path::new(file)),
            None => error,
        })
    }
}

/// When what was written is there after a loss of power; every other process sees it at once, and keeps it over a crash of the writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lasting {
    /// When the call returns.
    AtOnce,
    /// With the next that lasts at once: the log is synced as a whole, so that nothing earlier can be missing.
    WithTheNext,
}

fn transact<T>(
    connection: &mut Connection,
    lasting: Lasting,
    write: impl Fn(&Transaction<'_>) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let level = match lasting {
        Lasting::AtOnce => "FULL",
        Lasting::WithTheNext => "NORMAL",
    };
    connection.pragma_update(None, "synchronous", level)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let value = write(&transaction)?;
    transaction.commit()?;
    Ok(value)
}

fn file_id(path: &Path) -> Option<FileId> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

/// Where nothing can be written. What another process has in its log is read where its shared memory can be, else left out.
fn read_only(path: &Path) -> Result<Connection, StoreError> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = |how: &str| {
        let name = path.display().to_string().replace('%', "%25").replace('?', "%3f").replace('#', "%23");
        let connection = Connection::open_with_flags(format!("file:{name}?{how}"), flags)?;
        schema::refuse_other(&connection)?;
        Ok::<_, StoreError>(connection)
    };
    open("mode=ro").or_else(|_| open("immutable=1"))
}

fn open_file(path: &Path) -> Result<Connection, StoreError> {
    // Made by us first: SQLite would make it readable for others, and its -wal and -shm take their rights from it.
    let private = std::fs::OpenOptions::new();
    make_private(private, path)?;
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(BUSY)?;
    schema::upgrade(&mut connection)?;
    Ok(connection)
}

fn make_private(mut options: std::fs::OpenOptions, path: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::OpenOptionsExt;
    let made = options.write(true).create(true).truncate(false).mode(0o600).open(path);
    made.map(drop).map_err(|error| files::FileError::new("open the state database", path, &error).into())
}

#[cfg(test)]
mod tests;

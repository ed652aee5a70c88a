//! What a host remembers: runs with their journals, verdicts, releases. SQLite in WAL mode with `synchronous=FULL`, so that what a method
//! returned from is there after the power is lost (S3); only of a journal's entries some wait for the next ([`journal`]).
//!
//! It records and answers; it decides nothing, and what is live it does not know (S1: the table and the live file say that). Figures that
//! may be lost lie in a file of their own ([`samples`]).

mod error;
mod format;
mod journal;
mod releases;
pub mod samples;
mod schema;
mod snapshots;
mod verdicts;

use std::ffi::c_int;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cutover_core::layout::Layout;
use rusqlite::{Connection, Transaction, TransactionBehavior};

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
}

impl Store {
    /// Opens the installation's store; makes it where there is none.
    ///
    /// # Errors
    /// When a newer build wrote it ([`StoreError::newer`]), or it cannot be read or made.
    pub fn open(layout: &Layout) -> Result<Self, StoreError> {
        files::ensure_folder(layout.state(), 0o700)?;
        let ballast = Ballast::new(layout.ballast(), BALLAST);
        let connection = match open_file(&layout.store()) {
            Err(error) if error.full && ballast.give_up() => open_file(&layout.store()),
            opened => opened,
        };
        let connection = connection.map_err(|error| error.at(&layout.store()))?;
        if let Err(error) = ballast.lay() {
            tracing::warn!(%error, "there is no ballast for a full disk");
        }
        Ok(Self { connection: Mutex::new(connection), ballast: Some(ballast) })
    }

    /// A store that is gone when dropped, for tests.
    ///
    /// # Errors
    /// None that is known.
    pub fn in_memory() -> Result<Self, StoreError> {
        let mut connection = Connection::open_in_memory()?;
        schema::upgrade(&mut connection)?;
        Ok(Self { connection: Mutex::new(connection), ballast: None })
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
        Ok(Self { connection: Mutex::new(connection), ballast: None })
    }

    /// Reads.
    fn read<T>(&self, read: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        read(&self.connection.lock().unwrap_or_else(PoisonError::into_inner))
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

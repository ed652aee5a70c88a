//! Why the store did not answer or record.

use std::path::Path;

use crate::files::{self, FileError};

/// Why the store did not answer or record.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct StoreError {
    /// The disk is full, and there was no ballast left to give up.
    pub full: bool,
    /// A newer build wrote it: its version, and the newest known here.
    pub newer: Option<(u32, u32)>,
    /// What is there is no whole database.
    pub damaged: bool,
    /// What happened.
    pub message: String,
}

impl StoreError {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { full: false, newer: None, damaged: false, message: message.into() }
    }

    pub(super) fn damaged(message: impl Into<String>) -> Self {
        Self { damaged: true, ..Self::new(message) }
    }

    /// What helps.
    pub fn next(&self) -> Vec<String> {
        if self.newer.is_some() {
            vec!["install the newer cutover and cutover-host again".to_owned()]
        } else if self.damaged {
            vec!["it is set aside and made anew by the next command, once no run goes on".to_owned()]
        } else if self.full {
            vec!["make room on the disk where the state lies, then try again".to_owned()]
        } else {
            vec![
                "see that this user may read and write it, and that its disk is well; then try again"
                    .to_owned(),
            ]
        }
    }

    /// Where a full disk is, and how much is free there.
    pub(super) fn at(mut self, file: &Path) -> Self {
        if self.full {
            self.message = format!("{}: {}{}", self.message, file.display(), files::room(file));
        }
        self
    }

    pub(super) fn newer(found: u32, known: u32) -> Self {
        Self {
            newer: Some((found, known)),
            ..Self::new(format!("the state database is of version {found}, this cutover-host knows {known}"))
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self {
            full: is_full(&error),
            damaged: is_damaged(&error),
            ..Self::new(format!("the state database: {error}"))
        }
    }
}

impl From<FileError> for StoreError {
    fn from(error: FileError) -> Self {
        Self { full: error.full, ..Self::new(error.message) }
    }
}

/// Whether something else was found than was written. A file that was cut gives too few bytes, a page that is none any more gives text that is none.
fn is_damaged(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    match error {
        rusqlite::Error::SqliteFailure(code, _) => {
            matches!(code.code, DatabaseCorrupt | NotADatabase)
                || code.extended_code == rusqlite::ffi::SQLITE_IOERR_SHORT_READ
        }
        rusqlite::Error::Utf8Error(..) => true,
        _ => false,
    }
}

/// Whether `SQLite` found no room. The shared memory of WAL cannot grow on a full disk either; it calls that an I/O error.
pub(crate) fn is_full(error: &rusqlite::Error) -> bool {
    matches!(error, rusqlite::Error::SqliteFailure(code, _)
        if code.code == rusqlite::ErrorCode::DiskFull || code.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE)
}

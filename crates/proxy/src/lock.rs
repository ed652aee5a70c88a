//! The right to replace the table: a kernel lock, gone with its holder, that says who holds it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use crate::store::{StoreError, failed};

/// Takes the lock; it is held as long as the file is open.
pub(crate) fn take(path: &Path) -> Result<File, StoreError> {
    let io_failed = |error| failed("lock", path, error);
    loop {
        let open =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
        let mut file = open.map_err(io_failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let read = file.read_to_string(&mut holder);
                let holder = read.ok().and_then(|_| holder.trim().parse().ok());
                return Err(StoreError::Held { path: path.to_owned(), holder });
            }
            Err(TryLockError::Error(error)) => return Err(io_failed(error)),
        }
        // Somebody may have removed the file between opening and locking it: then the lock locks nothing.
        let (ours, theirs) = (file.metadata().map_err(io_failed)?, fs::metadata(path));
        if theirs.is_ok_and(|theirs| theirs.ino() == ours.ino()) {
            file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(io_failed)?;
            return Ok(file);
        }
    }
}

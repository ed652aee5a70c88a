//! The last good table on disk, and the right to replace it.
//!
//! `table.json` is what is served, `table.previous.json` what was served before it until that has become a copy of what is; both carry a
//! checksum in their first line. A replacement is written beside them, made durable, and renamed: at no moment is there no good table. The
//! copy is for a disk that loses what it said was durable: instances of an older table are gone, and serving it would serve nothing.
//! `control.lock` is held by the one proxy that may replace it. `ballast` is space kept for the day the disk is full: without it a switch back would fail
//! when it is needed most.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use cutover_routes::{RouteTable, TableError, TableHash};

use crate::{ballast, lock};

const TABLE: &str = "table.json";
const PREVIOUS: &str = "table.previous.json";
const NEXT: &str = "table.next.json";
/// Where a table goes that could not be read, for a person to look at.
const BAD: &str = "table.bad.json";
const LOCK: &str = "control.lock";

/// The folder of the table, held by this proxy.
#[derive(Debug)]
pub(crate) struct Store {
    folder: PathBuf,
    /// The folder itself, open from the start: what makes a rename durable must not fail for want of a descriptor.
    entries: File,
    /// Open as long as the store lives: closing it gives the right away.
    _lock: File,
}

/// Why the table's folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file or the folder could not be read, written or replaced.
    #[error("{action} {}: {error}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A replacement failed at its end, and so did taking it back.
    #[error("{error}; and {} could not be put back ({undo}): a restart may find the one table or the other", path.display())]
    Apart {
        /// The table's file.
        path: PathBuf,
        /// Why the replacement failed.
        error: Box<StoreError>,
        /// Why it could not be taken back.
        undo: io::Error,
    },
    /// Another proxy may replace the table.
    #[error("another proxy{} holds {}; stop that one first, or give this one a folder of its own", process(*holder), path.display())]
    Held {
        /// The lock file.
        path: PathBuf,
        /// The process that wrote its number into it.
        holder: Option<u32>,
    },
    /// A newer build wrote the table.
    #[error(
        "{} was written by a newer build ({error}); start that build, or move the file away to begin with an empty table",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// What was found in it.
        error: TableError,
    },
    /// Neither the table nor the one before it can be read.
    #[error(
        "neither {} ({reason}) nor {PREVIOUS} beside it ({previous}) holds a route table; put a good copy of one of them there, or \
         remove both to begin with an empty table and deploy each app again",
        path.display()
    )]
    Unreadable {
        /// The file that should hold the table.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
        /// What is wrong with the one before it.
        previous: String,
    },
}

fn process(holder: Option<u32>) -> String {
    holder.map(|number| format!(" (process {number})")).unwrap_or_default()
}

/// What a file was found to hold.
enum Found {
    Nothing,
    Table(RouteTable),
    Newer(TableError),
    Bad(String),
}

impl Store {
    /// Takes the right to replace the table in `folder`, which is made where there is none.
    pub(crate) fn open(folder: &Path) -> Result<Self, StoreError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|error| failed("make the folder", folder, error))?;
        let lock = lock::take(&folder.join(LOCK))?;
        let entries = File::open(folder).map_err(|error| failed("open", folder, error))?;
        Ok(Self { folder: folder.to_owned(), entries, _lock: lock })
    }

    /// The table to serve: the last one, else the one before it. Where there never was one it is empty.
    pub(crate) fn load(&self) -> Result<RouteTable, StoreError> {
        let path = self.folder.join(TABLE);
        let reason = match self.read(TABLE)? {
            Found::Table(table) => return Ok(table),
            Found::Newer(error) => return Err(StoreError::Newer { path, error }),
            Found::Nothing => None,
            Found::Bad(reason) => Some(reason),
        };
        match (reason, self.read(PREVIOUS)?) {
            (None, Found::Nothing) => Ok(RouteTable::default()),
            // Between its two renames a replacement leaves no table but the one before; nobody was told of the new one.
            (None, Found::Table(table)) => Ok(table),
            (Some(reason), Found::Table(table)) => {
                tracing::error!(file = %path.display(), %reason, "the route table cannot be read: the one before it is served");
                self.set_aside(&path)?;
                Ok(table)
            }
            (_, Found::Newer(error)) => Err(StoreError::Newer { path: self.folder.join(PREVIOUS), error }),
            (reason, Found::Nothing) => Err(unreadable(path, reason, "it is not there".to_owned())),
            (reason, Found::Bad(previous)) => Err(unreadable(path, reason, previous)),
        }
    }

    /// What a file holds. That it cannot be read says nothing of that: it is an error, for somebody to try again.
    fn read(&self, name: &str) -> Result<Found, StoreError> {
        let path = self.folder.join(name);
        match fs::read(&path) {
            Ok(bytes) => Ok(found(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Found::Nothing),
            Err(error) => Err(failed("read", &path, error)),
        }
    }

    /// A bad table must not become the one before the next, in a good one's place.
    fn set_aside(&self, path: &Path) -> Result<(), StoreError> {
        fs::rename(path, self.folder.join(BAD)).map_err(|error| failed("set aside", path, error))
    }

    /// Makes a table durable: after this returns, a restart finds it. On a full disk the ballast is given up once.
    pub(crate) fn write(&self, table: &[u8]) -> Result<(), StoreError> {
        let outcome = match self.try_write(table) {
            Err(error) if error.is_full() && ballast::give_up(&self.folder) => self.try_write(table),
            outcome => outcome,
        };
        if outcome.is_err() {
            remove(&self.folder.join(NEXT));
        }
        outcome
    }

    fn try_write(&self, table: &[u8]) -> Result<(), StoreError> {
        let (path, next) = (self.folder.join(TABLE), self.folder.join(NEXT));
        let text = [checksum(table).as_bytes(), b"\n", table, b"\n"].concat();
        write_durably(&next, &text)?;
        let kept = match fs::rename(&path, self.folder.join(PREVIOUS)) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(failed("keep", &path, error)),
        };
        let replaced = fs::rename(&next, &path)
            .map_err(|error| failed("replace", &path, error))
            .and_then(|()| self.sync_folder());
        replaced.map_err(|error| self.put_back(&path, kept, error))
    }

    fn sync_folder(&self) -> Result<(), StoreError> {
        self.entries.sync_all().map_err(|error| failed("make durable", &self.folder, error))
    }

    /// What could not be made durable must not be what a restart finds while another table is served. Gives the error, or another one
    /// where the two stay apart.
    fn put_back(&self, path: &Path, kept: bool, error: StoreError) -> StoreError {
        let undone = if kept {
            fs::rename(self.folder.join(PREVIOUS), path)
        } else {
            fs::remove_file(path).or_else(|error| match error.kind() {
                io::ErrorKind::NotFound => Ok(()),
                _ => Err(error),
            })
        };
        match undone {
            Ok(()) => error,
            Err(undo) => {
                tracing::error!(file = %path.display(), %error, %undo, "which table a restart finds is not known");
                StoreError::Apart { path: path.to_owned(), error: Box::new(error), undo }
            }
        }
    }

    /// What can wait until a replacement was acknowledged, and is best effort: the ballast, where it was given up and there is room, and the
    /// copy of what is served.
    pub(crate) fn settle(&self) {
        ballast::lay(&self.folder);
        if let Err(error) = self.keep_copy() {
            remove(&self.folder.join(NEXT));
            tracing::warn!(%error, "there is no copy of the route table");
        }
    }

    fn keep_copy(&self) -> Result<(), StoreError> {
        // A bad one never becomes the copy; one that was set aside is replaced by it.
        let (from, to) = match (self.read(TABLE)?, self.read(PREVIOUS)?) {
            (Found::Table(_), _) => (TABLE, PREVIOUS),
            (Found::Nothing, Found::Table(_)) => (PREVIOUS, TABLE),
            _ => return Ok(()),
        };
        let (path, next, copy) = (self.folder.join(from), self.folder.join(NEXT), self.folder.join(to));
        let text = fs::read(&path).map_err(|error| failed("read", &path, error))?;
        if fs::read(&copy).is_ok_and(|there| there == text) {
            return Ok(());
        }
        write_durably(&next, &text)?;
        fs::rename(&next, &copy).map_err(|error| failed("replace", &copy, error))?;
        self.sync_folder()
    }
}

fn write_durably(path: &Path, text: &[u8]) -> Result<(), StoreError> {
    let write = || -> io::Result<()> {
        let mut file = private(path)?;
        file.write_all(text)?;
        file.sync_all()
    };
    write().map_err(|error| failed("write", path, error))
}

fn found(bytes: &[u8]) -> Found {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
        return Found::Bad("it is cut short".to_owned());
    };
    let (checksum, rest) = (&bytes[..end], &bytes[end + 1..]);
    let text = rest.strip_suffix(b"\n").unwrap_or(rest);
    if checksum != self::checksum(text).as_bytes() {
        return Found::Bad("it is cut or changed: its checksum is another".to_owned());
    }
    match RouteTable::from_json(text) {
        Ok(table) => match table.check() {
            Ok(()) => Found::Table(table),
            Err(problems) => {
                Found::Bad(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
            }
        },
        Err(error @ TableError::Newer { .. }) => Found::Newer(error),
        Err(error) => Found::Bad(error.to_string()),
    }
}

/// The first line of a stored table.
fn checksum(table: &[u8]) -> String {
    format!("sha256 {}", TableHash::of_bytes(table))
}

fn unreadable(path: PathBuf, reason: Option<String>, previous: String) -> StoreError {
    let reason = reason.unwrap_or_else(|| "it is not there".to_owned());
    StoreError::Unreadable { path, reason, previous }
}

pub(crate) fn failed(action: &'static str, path: &Path, error: io::Error) -> StoreError {
    StoreError::Io { action, path: path.to_owned(), error }
}

impl StoreError {
    /// Whether there was no room on the disk.
    pub(crate) fn is_full(&self) -> bool {
        let Self::Io { error, .. } = self else { return false };
        matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

/// Removes what a failed write left; the next write replaces it anyway.
pub(crate) fn remove(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(file = %path.display(), %error, "a left-over could not be removed");
        }
        Ok(()) | Err(_) => {}
    }
}

/// An empty file that only its owner may read.
pub(crate) fn private(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn table(live: &str) -> RouteTable {
        let mut table = RouteTable::default();
        table.owners.entry("a".into()).or_default().facts.insert("live".into(), live.into());
        table
    }

    fn written(tables: &[&str]) -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        for live in tables {
            store.write(&table(live).to_json()).unwrap();
        }
        (folder, store)
    }

    fn cut(folder: &Path, name: &str) {
        let path = folder.join(name);
        let length = fs::metadata(&path).unwrap().len();
        OpenOptions::new().write(true).open(path).unwrap().set_len(length / 2).unwrap();
    }

    #[test]
    fn a_fresh_folder_holds_the_empty_table() {
        let (_folder, store) = written(&[]);

        assert_eq!(store.load().unwrap(), RouteTable::default());
    }

    #[test]
    fn the_last_table_written_is_loaded_and_private() {
        let (folder, store) = written(&["v1", "v2"]);

        assert_eq!(store.load().unwrap(), table("v2"));
        for name in [TABLE, PREVIOUS, LOCK] {
            assert_eq!(fs::metadata(folder.path().join(name)).unwrap().mode() & 0o777, 0o600, "{name}");
        }
        assert!(!folder.path().join(NEXT).exists());
    }

    #[test]
    fn a_cut_table_is_set_aside_and_the_one_before_it_loaded_until_the_next_is_written() {
        let (folder, store) = written(&["v1", "v2"]);
        cut(folder.path(), TABLE);

        assert_eq!(store.load().unwrap(), table("v1"));
        assert!(folder.path().join(BAD).exists());
        store.write(&table("v3").to_json()).unwrap();
        assert_eq!(store.load().unwrap(), table("v3"));
        cut(folder.path(), TABLE);
        assert_eq!(store.load().unwrap(), table("v1"), "the cut table did not push the good one out");
    }

    #[test]
    fn once_settled_either_of_the_two_files_may_be_lost() {
        for name in [TABLE, PREVIOUS] {
            let (folder, store) = written(&["v1", "v2"]);
            store.settle();
            cut(folder.path(), name);

            assert_eq!(store.load().unwrap(), table("v2"), "without {name}");
        }
    }

    #[test]
    fn a_table_that_was_set_aside_is_there_again_once_settled() {
        let (folder, store) = written(&["v1", "v2"]);
        store.settle();
        cut(folder.path(), TABLE);
        store.load().unwrap();

        store.settle();

        cut(folder.path(), PREVIOUS);
        assert_eq!(store.load().unwrap(), table("v2"));
    }

    #[test]
    fn a_cut_table_does_not_become_the_copy() {
        let (folder, store) = written(&["v1", "v2"]);
        cut(folder.path(), TABLE);

        store.settle();

        assert_eq!(store.load().unwrap(), table("v1"));
        assert!(!folder.path().join(NEXT).exists());
    }

    #[test]
    fn one_changed_byte_is_noticed() {
        let (folder, store) = written(&["v1", "v2"]);
        let path = folder.path().join(TABLE);
        let text = fs::read_to_string(&path).unwrap().replace("v2", "v9");
        fs::write(&path, text).unwrap();

        assert_eq!(store.load().unwrap(), table("v1"));
    }

    #[test]
    fn a_crash_between_the_two_renames_loses_nothing() {
        let (folder, store) = written(&["v1", "v2"]);
        fs::rename(folder.path().join(TABLE), folder.path().join(PREVIOUS)).unwrap();

        assert_eq!(store.load().unwrap(), table("v2"));
    }

    #[test]
    fn what_could_not_be_made_durable_is_not_what_a_restart_finds() {
        for before in [&[][..], &["v1"], &["v1", "v2"]] {
            let (_folder, mut store) = written(before);
            let found = store.load().unwrap();
            // Nothing that can be synced.
            store.entries = File::open("/dev/null").unwrap();

            let error = store.write(&table("v9").to_json()).unwrap_err();

            assert!(error.to_string().starts_with("make durable"), "{error}");
            assert_eq!(store.load().unwrap(), found);
        }
    }

    #[test]
    fn a_table_that_cannot_be_read_just_now_is_not_set_aside() {
        let (folder, store) = written(&["v1", "v2"]);
        let path = folder.path().join(TABLE);
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();

        let error = store.load().unwrap_err();

        assert!(error.to_string().starts_with("read "), "{error}");
        assert!(path.exists() && !folder.path().join(BAD).exists());
    }

    #[test]
    fn two_bad_tables_are_told_with_the_remedy() {
        let (folder, store) = written(&["v1", "v2"]);
        cut(folder.path(), TABLE);
        cut(folder.path(), PREVIOUS);

        let text = store.load().unwrap_err().to_string();

        assert!(text.contains("table.json (it is cut short)"), "{text}");
        assert!(text.contains("remove both to begin with an empty table"), "{text}");
    }

    #[test]
    fn a_newer_table_is_refused_and_stays() {
        let (folder, store) = written(&["v1"]);
        store.write(br#"{"version":2,"owners":{}}"#).unwrap();

        let error = store.load().unwrap_err();

        assert!(matches!(error, StoreError::Newer { .. }), "{error}");
        assert!(folder.path().join(TABLE).exists());
    }

    #[test]
    fn a_second_proxy_is_told_who_holds_the_folder() {
        let (folder, store) = written(&[]);

        let error = Store::open(folder.path()).unwrap_err();

        let expected = format!("another proxy (process {}) holds", std::process::id());
        assert!(error.to_string().starts_with(&expected), "{error}");
        drop(store);
        Store::open(folder.path()).unwrap();
    }
}

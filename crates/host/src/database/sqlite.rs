//! SQLite files: copied while they are used, compared by content, snapshot, put back (S16).
//!
//! A database's own file is opened by SQLite alone as long as a connection of this process may have it: its locks belong to the process,
//! and closing any other descriptor of the file would drop them. Nothing here decides when.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cutover_core::defaults::{COMPARED, ROWS_CHANGED};
use cutover_core::hash::ContentHash;
use cutover_core::wire::Extent;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags};

use super::content;
use super::openers::openers;
use crate::blocking;
use crate::files::{self, FileError};
use crate::meter::{self, Meter};
use crate::ports::{Certainty, Content, DatabaseError};
use crate::store::is_full;

/// For another connection that writes.
const BUSY: Duration = Duration::from_secs(5);
/// For a process that is ending to let go of a file.
const LET_GO: Duration = Duration::from_secs(2);
/// All pages in one step.
const WHOLE: i32 = -1;
/// Pages in one step where writers wait for it: some milliseconds.
const PIECE: i32 = 1_000;
/// So many times a copy may start over because somebody wrote meanwhile.
const STARTS: u32 = 5;
/// What may lie beside a database file and belongs to its present content.
const BESIDE: [&str; 3] = ["-wal", "-shm", "-journal"];

/// SQLite files of this host.
pub(super) struct Sqlite;

impl Sqlite {
    /// An absent file, too, has a copy: an empty database.
    pub(super) async fn copy(from: &Path, to: &Path, meter: &Meter) -> Result<u64, DatabaseError> {
        copy_counted(from, to, Check::No, meter).await
    }

    pub(super) async fn content(file: &Path) -> Result<Content, DatabaseError> {
        let file = file.to_owned();
        blocking(move || {
            if is_absent(&file)? {
                return Ok(Content::default());
            }
            content::of(&open(&file)?).map_err(|error| failed("read", &file, &error))
        })
        .await
    }

    pub(super) async fn snapshot(file: &Path, to: &Path, meter: &Meter) -> Result<u64, DatabaseError> {
        copy_counted(file, to, Check::Integrity, meter).await
    }

    pub(super) async fn closed(file: &Path) -> Result<(), DatabaseError> {
        let file = file.to_owned();
        blocking(move || refuse_while_open(&file, "migrate")).await
    }

    pub(super) async fn check(snapshot: &Path) -> Result<Vec<String>, DatabaseError> {
        let snapshot = snapshot.to_owned();
        blocking(move || verify(&snapshot).map(|()| vec!["its integrity check is good".to_owned()])).await
    }

    pub(super) async fn differing(snapshot: &Path, file: &Path) -> Result<u64, DatabaseError> {
        let (snapshot, file) = (snapshot.to_owned(), file.to_owned());
        blocking(move || differing(&snapshot, &file)).await
    }

    /// See [`crate::ports::Database::answer`].
    pub(super) async fn answer(file: &Path, query: &str) -> Result<String, DatabaseError> {
        let (file, query) = (file.to_owned(), query.to_owned());
        blocking(move || {
            let value = open(&file)?.query_row(&query, [], |row| row.get::<_, Value>(0));
            match value.map_err(|error| failed("ask", &file, &error))? {
                Value::Null => Ok(String::new()),
                Value::Integer(number) => Ok(number.to_string()),
                Value::Real(number) => Ok(number.to_string()),
                Value::Text(text) => Ok(text),
                Value::Blob(bytes) => Ok(format!("{} bytes", bytes.len())),
            }
        })
        .await
    }

    /// Beside the database: whoever is asked for a file that is there is refused.
    pub(super) async fn restore_beside(snapshot: &Path, to: &Path) -> Result<(), DatabaseError> {
        let (snapshot, to) = (snapshot.to_owned(), to.to_owned());
        blocking(move || restore_beside(&snapshot, &to)).await
    }

    pub(super) async fn restore(snapshot: &Path, file: &Path) -> Result<(), DatabaseError> {
        let (snapshot, file) = (snapshot.to_owned(), file.to_owned());
        blocking(move || restore(&snapshot, &file)).await
    }
}

/// Long work, off the runtime's own threads. Given up, it goes on to its end.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DatabaseError> + Send + 'static,
) -> Result<T, DatabaseError> {
    let joined = blocking::blocking(work).await;
    joined.unwrap_or_else(|error| {
        Err(DatabaseError {
            full: false,
            certainty: Certainty::Unknown,
            message: format!("the work on the database broke off: {error}"),
        })
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Check {
    No,
    Integrity,
}

async fn copy_counted(from: &Path, to: &Path, check: Check, meter: &Meter) -> Result<u64, DatabaseError> {
    let (from, to, next) = (from.to_owned(), to.to_owned(), files::beside(to));
    // It may be larger than what it holds, or have much of that in its log.
    let of = length(&from).map_or(Extent::Not, |bytes| Extent::About { bytes });
    let grows = next.clone();
    counted(meter, &grows, of, blocking(move || copy(&from, &next, &to, check))).await
}

/// SQLite copies in one go and tells nobody how far it is: what there is of the copy is looked at meanwhile.
async fn counted<T>(meter: &Meter, grows: &Path, of: Extent, work: impl Future<Output = T>) -> T {
    let passing = meter.begin("copied", of);
    tokio::pin!(work);
    let mut looks = meter::looks();
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            _ = looks.tick() => length(grows).into_iter().for_each(|bytes| passing.set(bytes, of)),
        }
    }
}

fn length(file: &Path) -> Option<u64> {
    fs::metadata(file).ok().map(|found| found.len())
}

fn copy(from: &Path, next: &Path, to: &Path, check: Check) -> Result<u64, DatabaseError> {
    files::ensure_folder(files::folder_of(to), 0o700)?;
    let copied = copy_beside(from, next, check).and_then(|bytes| {
        put_in_place(next, to)?;
        Ok(bytes)
    });
    if copied.is_err() {
        files::discard(next);
    }
    copied
}

fn copy_beside(from: &Path, next: &Path, check: Check) -> Result<u64, DatabaseError> {
    files::private(next).map_err(|error| FileError::new("make", next, &error))?;
    if !is_absent(from)? {
        back_up(from, next)?;
    }
    if check == Check::Integrity {
        verify(next)?;
    }
    // Closed by SQLite by now: this descriptor drops nobody's locks.
    let durable = File::open(next).and_then(|file| {
        file.sync_all()?;
        Ok(file.metadata()?.len())
    });
    Ok(durable.map_err(|error| FileError::new("make durable", next, &error))?)
}

fn back_up(from: &Path, to: &Path) -> Result<(), DatabaseError> {
    let mut target = Connection::open(to).map_err(|error| failed("write", to, &error))?;
    target
        .execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF")
        .map_err(|error| failed("write", to, &error))?;
    back_up_into(from, &mut target)?;
    target.close().map_err(|(_, error)| failed("write", to, &error))
}

/// The online backup. In WAL mode in one go: nobody waits for it, and a busy writer cannot make it start over.
fn back_up_into(from: &Path, target: &mut Connection) -> Result<(), DatabaseError> {
    let copy_failed = |error: rusqlite::Error| failed("copy", from, &error);
    let source = open(from)?;
    let mode: String = source.query_row("PRAGMA journal_mode", [], |row| row.get(0)).map_err(copy_failed)?;
    {
        let backup = Backup::new(&source, target).map_err(copy_failed)?;
        let piece = if mode == "wal" { WHOLE } else { PIECE };
        step_through(&backup, from, piece, &mut || ())?;
    }
    source.close().map_err(|(_, error)| failed("close", from, &error))
}

/// Copies piece by piece. Without WAL a step keeps writers out; a writer who waits comes in between two steps, for SQLite lets no reader past
/// him. What he writes makes the copy start over: after [`STARTS`] of them the rest is copied in one go, for which he has to wait once.
/// `between` is called after each piece that is not the last.
fn step_through(
    backup: &Backup<'_, '_>,
    from: &Path,
    piece: i32,
    between: &mut dyn FnMut(),
) -> Result<(), DatabaseError> {
    let (mut piece, mut starts, mut left) = (piece, 0, i32::MAX);
    let mut end = Instant::now() + BUSY;
    loop {
        match backup.step(piece).map_err(|error| failed("copy", from, &error))? {
            StepResult::Done => return Ok(()),
            StepResult::More => {
                end = Instant::now() + BUSY;
                let now = backup.progress().remaining;
                starts += u32::from(now >= left);
                if starts >= STARTS {
                    piece = WHOLE;
                }
                left = now;
                between();
            }
            // A writer is at work.
            _ if Instant::now() < end => std::thread::sleep(Duration::from_millis(10)),
            _ => return Err(other(from, "copy", "another process keeps it locked")),
        }
    }
}

fn restore_beside(snapshot: &Path, to: &Path) -> Result<(), DatabaseError> {
    verify(snapshot)?;
    let is_there = || DatabaseError::plain(format!("{} is there already", to.display()));
    if fs::symlink_metadata(to).is_ok() {
        return Err(is_there());
    }
    let next = part(snapshot, to);
    // Of a copy of this snapshot that was killed.
    files::discard(&next);
    let copied = copy_for(snapshot, &next, to).map_err(DatabaseError::from);
    // A link and not a rename: what came there meanwhile is somebody's.
    let placed = copied.and_then(|()| match fs::hard_link(&next, to) {
        Ok(()) => Ok(files::sync_folder(files::folder_of(to))?),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(is_there()),
        Err(error) => Err(FileError::new("make", to, &error).into()),
    });
    files::discard(&next);
    placed
}

/// What a snapshot is called while it is copied beside: the same in each try, so that nothing of one that was killed stays; another for each app.
fn part(snapshot: &Path, to: &Path) -> PathBuf {
    let name = to.file_name().unwrap_or_default().to_string_lossy();
    let of = ContentHash::of(snapshot.as_os_str().as_encoded_bytes());
    to.with_file_name(format!(".{name}.{}.part", of.short()))
}

fn restore(snapshot: &Path, file: &Path) -> Result<(), DatabaseError> {
    verify(snapshot)?;
    refuse_while_open(file, "restore")?;
    let next = files::beside(file);
    let ready = copy_for(snapshot, &next, file);
    if let Err(error) = ready {
        files::discard(&next);
        return Err(error.into());
    }
    swap_in(&next, file).map_err(|error| DatabaseError {
        full: error.full,
        certainty: Certainty::Unknown,
        message: error.message,
    })
}

/// The log goes first, durably. The other way round a power cut between the two would leave the restored file with the log of the one it
/// replaced: SQLite would play it into the restored file and corrupt it, for nothing in a log says which file it is for. This way a power
/// cut leaves the old file without its log: content that was to be dropped anyway, and the restore is repeated before anything opens it.
fn swap_in(next: &Path, file: &Path) -> Result<(), FileError> {
    for ending in BESIDE {
        files::remove(&with_ending(file, ending))?;
    }
    fs::rename(next, file).map_err(|error| FileError::new("replace", file, &error))?;
    files::sync_folder(files::folder_of(file))
}

/// What lies beside a database's file.
fn with_ending(file: &Path, ending: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// A durable copy with the owner and mode of the file whose place it will take; where that is absent, for its folder's owner alone.
fn copy_for(snapshot: &Path, next: &Path, file: &Path) -> Result<(), FileError> {
    let failed = |error: io::Error| FileError::new("copy the snapshot to", next, &error);
    let (like, mode) = match fs::metadata(file) {
        Ok(there) => (there.clone(), there.permissions().mode() & 0o7777),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            (fs::metadata(files::folder_of(file)).map_err(failed)?, 0o600)
        }
        Err(error) => return Err(FileError::new("look at", file, &error)),
    };
    // By its descriptor all the way: whoever may write into the folder could put a link to another file in its place.
    let mut target = files::new(next).map_err(failed)?;
    io::copy(&mut File::open(snapshot).map_err(failed)?, &mut target).map_err(failed)?;
    let copy = target.metadata().map_err(failed)?;
    if (copy.uid(), copy.gid()) != (like.uid(), like.gid()) {
        fchown(&target, Some(like.uid()), Some(like.gid())).map_err(failed)?;
    }
    target.set_permissions(fs::Permissions::from_mode(mode)).map_err(failed)?;
    target.sync_all().map_err(failed)
}

/// Whoever has the file open would go on writing into what was replaced (P8).
fn refuse_while_open(file: &Path, act: &str) -> Result<(), DatabaseError> {
    let end = Instant::now() + LET_GO;
    loop {
        let found = openers(file);
        if found.is_empty() {
            return Ok(());
        }
        if Instant::now() >= end {
            return Err(other(file, act, &format!("{} has it open", found.join(", "))));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A copy in memory is compared: whoever writes meanwhile waits for no more than one of its pieces.
fn differing(snapshot: &Path, file: &Path) -> Result<u64, DatabaseError> {
    let log = with_ending(file, "-wal");
    if [snapshot, file, &log].into_iter().filter_map(length).any(|bytes| bytes > COMPARED) {
        let most = cutover_core::rules::size(COMPARED);
        return Err(other(file, "compare", &format!("it, its log or its snapshot is larger than {most}")));
    }
    if is_absent(file)? {
        return Err(other(file, "compare", "it is not there"));
    }
    let failed = |error: rusqlite::Error| failed("compare", file, &error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_URI;
    let mut now = Connection::open_in_memory_with_flags(flags).map_err(failed)?;
    back_up_into(file, &mut now)?;
    now.execute("ATTACH ?1 AS earlier", [unwritten(snapshot)]).map_err(failed)?;
    // Nobody waits for longer, and what goes on would take a core from the app.
    let end = now.get_interrupt_handle();
    std::thread::spawn(move || {
        std::thread::sleep(ROWS_CHANGED);
        end.interrupt();
    });
    content::differing(&now, "earlier").map_err(failed)
}

/// Every page and index of a file that nobody writes; nothing is left beside it.
pub(crate) fn verify(file: &Path) -> Result<(), DatabaseError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let check = || -> rusqlite::Result<String> {
        let connection = Connection::open_with_flags(unwritten(file), flags)?;
        connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
    };
    match check() {
        Ok(found) if found == "ok" => Ok(()),
        Ok(found) => Err(other(file, "trust", &format!("integrity_check says: {found}"))),
        Err(error) => Err(failed("check", file, &error)),
    }
}

/// What a file that nobody writes is opened by, for reading.
fn unwritten(file: &Path) -> String {
    let mut uri = String::from("file:");
    for character in file.to_string_lossy().chars() {
        match character {
            '%' => uri.push_str("%25"),
            '?' => uri.push_str("%3f"),
            '#' => uri.push_str("%23"),
            other => uri.push(other),
        }
    }
    uri.push_str("?immutable=1&mode=ro");
    uri
}

/// For reading; it may write all the same, because what a crash left half-done is finished by whoever opens the file next.
fn open(file: &Path) -> Result<Connection, DatabaseError> {
    let open = || {
        let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        connection.busy_timeout(BUSY)?;
        Ok(connection)
    };
    open().map_err(|error| failed("open", file, &error))
}

fn is_absent(file: &Path) -> Result<bool, DatabaseError> {
    let exists = file.try_exists().map_err(|error| FileError::new("look at", file, &error))?;
    Ok(!exists)
}

fn put_in_place(next: &Path, to: &Path) -> Result<(), DatabaseError> {
    let placed = fs::rename(next, to).map_err(|error| FileError::new("replace", to, &error));
    Ok(placed.and_then(|()| files::sync_folder(files::folder_of(to)))?)
}

fn failed(action: &str, file: &Path, error: &rusqlite::Error) -> DatabaseError {
    let full = is_full(error);
    let room = if full { files::room(file) } else { String::new() };
    DatabaseError { full, ..other(file, action, &format!("{error}{room}")) }
}

fn other(file: &Path, action: &str, why: &str) -> DatabaseError {
    DatabaseError {
        full: false,
        certainty: Certainty::NotDone,
        message: format!("cannot {action} the database {}: {why}", file.display()),
    }
}

#[cfg(test)]
#[path = "sqlite_tests.rs"]
mod tests;

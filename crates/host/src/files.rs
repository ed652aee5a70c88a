//! Files that must be there after the power is lost: replaced whole, never edited (S3). The one place that knows how; what lies in them
//! is its callers' affair.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};

use cutover_core::rules;

/// So many files are made durable at the same time.
const AT_ONCE: usize = 16;

/// Why a file could not be read, written, replaced or removed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct FileError {
    /// Which.
    pub path: PathBuf,
    /// The disk, or the user's share of it, is full.
    pub full: bool,
    /// What was tried on what, and what the system said.
    pub message: String,
}

impl FileError {
    /// An error of the system, with what was tried.
    pub fn new(action: &str, path: &Path, error: &io::Error) -> Self {
        let full = is_full(error);
        let room = if full { room(path) } else { String::new() };
        let message = format!("cannot {action} {}: {error}{room}", path.display());
        Self { path: path.to_owned(), full, message }
    }
}

/// Whether the system said that there is no room.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Puts `bytes` in the file's place, durably: after this returns, a restart finds them; before, it finds what was there.
///
/// # Errors
/// When there is no room, no such folder, or no right; the old file is still there.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    let next = beside(path);
    let write = || -> io::Result<()> {
        let mut file = private(&next)?;
        file.write_all(bytes)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.sync_all()?;
        fs::rename(&next, path)
    };
    write().map_err(|error| {
        discard(&next);
        FileError::new("replace", path, &error)
    })?;
    sync_folder(folder_of(path))
}

/// Puts `bytes` in the file's place at once and whole for every other process, but not over a loss of power: for what is void by then.
///
/// # Errors
/// When there is no room, no such folder, or no right; the old file is still there.
pub fn swap(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let next = beside(path);
    let written =
        private(&next).and_then(|mut file| file.write_all(bytes)).and_then(|()| fs::rename(&next, path));
    written.map_err(|error| {
        discard(&next);
        FileError::new("replace", path, &error)
    })
}

/// Removes a file, durably; one that is not there is no error.
///
/// # Errors
/// When it is still there.
pub fn remove(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Ok(()) => sync_folder(folder_of(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(FileError::new("remove", path, &error)),
    }
}

/// Makes a folder and those above it, durably; those it makes get `mode`. One that is there is left as it is.
///
/// # Errors
/// When it cannot be made, or something else has its name.
pub fn ensure_folder(path: &Path, mode: u32) -> Result<(), FileError> {
    if path.is_dir() {
        return Ok(());
    }
    let above = folder_of(path);
    ensure_folder(above, mode)?;
    match DirBuilder::new().mode(mode).create(path) {
        Ok(()) => sync_folder(above),
        // Made by another process in between.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(FileError::new("make the folder", path, &error)),
    }
}

/// Gives a file or folder the owner and the mode of another.
///
/// # Errors
/// When the other cannot be looked at, or we may not.
pub fn like(path: &Path, model: &Path) -> Result<(), FileError> {
    let failed = |error: io::Error| FileError::new("give the owner of another to", path, &error);
    let wanted = fs::metadata(model).map_err(failed)?;
    let found = fs::metadata(path).map_err(failed)?;
    if (found.uid(), found.gid()) != (wanted.uid(), wanted.gid()) {
        chown(path, Some(wanted.uid()), Some(wanted.gid())).map_err(failed)?;
    }
    fs::set_permissions(path, wanted.permissions()).map_err(failed)
}

/// Lets other users pass through the folders from `top` on to what lies at `path`. What is in them stays as unreadable as it was.
///
/// # Errors
/// When a folder's mode cannot be changed.
pub fn let_through(top: &Path, path: &Path) -> Result<(), FileError> {
    for folder in path.ancestors().skip(1).take_while(|folder| folder.starts_with(top)) {
        let failed = |error: io::Error| FileError::new("let others through", folder, &error);
        let mode = fs::metadata(folder).map_err(failed)?.permissions().mode();
        if mode & 0o011 != 0o011 {
            fs::set_permissions(folder, fs::Permissions::from_mode(mode | 0o011)).map_err(failed)?;
        }
    }
    Ok(())
}

/// Makes durable what was made, renamed or removed in a folder.
///
/// # Errors
/// When the system cannot say that it is.
pub fn sync_folder(folder: &Path) -> Result<(), FileError> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|error| FileError::new("make durable", folder, &error))
}

/// Makes what lies in many files and folders durable. One after another each would wait for a commit of the file system's own; those that
/// wait at the same time share one.
///
/// # Errors
/// When the system cannot say that all of it is.
pub(crate) fn sync_together(paths: &[PathBuf]) -> Result<(), FileError> {
    let sync = |path: &PathBuf| {
        let synced = File::open(path).and_then(|file| file.sync_all());
        synced.map_err(|error| FileError::new("make durable", path, &error))
    };
    let share = paths.len().div_ceil(AT_ONCE).max(1);
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            paths.chunks(share).map(|paths| scope.spawn(move || paths.iter().try_for_each(sync))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

/// The folder a path lies in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A name in the same folder that no other writer uses now.
pub(crate) fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}", uuid::Uuid::now_v7().simple()))
}

/// An empty file that only its owner may read.
pub(crate) fn private(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// The same that is not there yet, where others may make links in the folder, too.
pub(crate) fn new(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}

/// Takes away what a failed write left beside a file.
pub(crate) fn discard(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(file = %path.display(), %error, "a left-over could not be removed");
        }
        Ok(()) | Err(_) => {}
    }
}

/// Space kept for the day the disk is full: given up, it lets a switch back, a recovery and a verdict be written (S24).
#[derive(Debug, Clone)]
pub struct Ballast {
    path: PathBuf,
    bytes: u64,
}

impl Ballast {
    /// A ballast of so many bytes, not laid yet.
    pub fn new(path: PathBuf, bytes: u64) -> Self {
        Self { path, bytes }
    }

    /// Lays it where it is absent and the disk has room for four of it; a disk that is nearly full is left alone.
    ///
    /// # Errors
    /// When it could not be written; what was written of it is gone again.
    pub fn lay(&self) -> Result<(), FileError> {
        let whole = fs::metadata(&self.path).is_ok_and(|metadata| metadata.len() == self.bytes);
        if whole || free(&self.path)? < self.bytes.saturating_mul(4) {
            return Ok(());
        }
        let next = beside(&self.path);
        let laid = private(&next)
            .and_then(|mut file| {
                io::copy(&mut Noise(1).take(self.bytes), &mut file)?;
                file.sync_all()
            })
            .and_then(|()| fs::rename(&next, &self.path));
        laid.map_err(|error| {
            discard(&next);
            FileError::new("lay the ballast", &self.path, &error)
        })
    }

    /// Gives it up; tells whether there was one to give.
    pub fn give_up(&self) -> bool {
        let given = fs::remove_file(&self.path).is_ok();
        if given {
            tracing::error!(file = %self.path.display(), "the disk is full: the ballast was given up");
        }
        given
    }
}

/// Whether a path lies on a file system to which nobody can write, root neither.
pub(crate) fn is_read_only(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::WRITE_OK) == Err(rustix::io::Errno::ROFS)
}

/// Free bytes for us on the file system where a path lies, or would lie.
///
/// # Errors
/// When neither the path nor its folder can be asked.
pub fn free(path: &Path) -> Result<u64, FileError> {
    let folder = if path.is_dir() { path } else { folder_of(path) };
    rustix::fs::statvfs(folder)
        .map(|figures| figures.f_bavail.saturating_mul(figures.f_frsize))
        .map_err(|error| FileError::new("ask the free space of", folder, &error.into()))
}

/// How much is free there, for the message about a disk that is full; nothing where that is not known.
pub(crate) fn room(path: &Path) -> String {
    free(path).map_or_else(|_| String::new(), |free| format!("; {} are free there", rules::size(free)))
}

/// Bytes that no file system squeezes.
struct Noise(u64);

impl Read for Noise {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        for byte in buffer.iter_mut() {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            *byte = self.0.to_le_bytes()[3];
        }
        Ok(buffer.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn names(folder: &Path) -> Vec<String> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_file_is_replaced_whole_with_its_mode_and_nothing_is_left_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("env");

        replace(&path, b"one, and longer", 0o644).unwrap();
        replace(&path, b"two", 0o600).unwrap();

        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(mode(&path), 0o600);
        assert_eq!(names(folder.path()), ["env"]);
    }

    #[test]
    fn a_replacement_that_fails_leaves_the_old_file_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("taken");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("inside"), b"x").unwrap();

        let error = replace(&path, b"two", 0o600).unwrap_err();

        assert!(error.to_string().starts_with("cannot replace "), "{error}");
        assert!(!error.full);
        assert_eq!(names(folder.path()), ["taken"]);
    }

    #[test]
    fn folders_are_made_with_their_mode_and_those_that_are_there_keep_theirs() {
        let root = tempfile::tempdir().unwrap();
        let there = root.path().join("there");
        fs::create_dir(&there).unwrap();
        fs::set_permissions(&there, fs::Permissions::from_mode(0o755)).unwrap();

        ensure_folder(&there.join("a/b"), 0o700).unwrap();
        ensure_folder(&there.join("a/b"), 0o750).unwrap();

        assert_eq!([mode(&there), mode(&there.join("a")), mode(&there.join("a/b"))], [0o755, 0o700, 0o700]);
    }

    #[test]
    fn many_files_are_made_durable_and_one_that_is_not_there_is_told() {
        let root = tempfile::tempdir().unwrap();
        let mut paths: Vec<_> = (0..40).map(|number| root.path().join(number.to_string())).collect();
        for path in &paths {
            fs::write(path, b"x").unwrap();
        }
        paths.push(root.path().to_owned());

        sync_together(&[]).unwrap();
        sync_together(&paths).unwrap();
        paths.push(root.path().join("absent"));

        assert!(sync_together(&paths).unwrap_err().to_string().contains("make durable"));
    }

    #[test]
    fn a_file_in_the_place_of_a_folder_is_told() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a");
        fs::write(&path, b"").unwrap();

        let error = ensure_folder(&path, 0o700).unwrap_err();

        assert!(error.to_string().contains("make the folder"), "{error}");
    }

    #[test]
    fn the_way_to_a_folder_lets_others_through_and_shows_them_nothing() {
        let root = tempfile::tempdir().unwrap();
        let (top, deep) = (root.path().join("top"), root.path().join("top/apps/shop"));
        ensure_folder(&deep, 0o700).unwrap();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o700)).unwrap();

        let_through(&top, &deep).unwrap();

        assert_eq!([mode(&top), mode(&top.join("apps")), mode(&deep)], [0o711, 0o711, 0o700]);
        assert_eq!(mode(root.path()), 0o700, "above it nothing is ours to open");
        let copy = top.join("copy");
        fs::write(&copy, b"").unwrap();
        like(&copy, &top).unwrap();
        assert_eq!(mode(&copy), 0o711);
    }

    #[test]
    fn removing_what_is_not_there_is_no_error() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a");
        fs::write(&path, b"").unwrap();

        remove(&path).unwrap();
        remove(&path).unwrap();

        assert!(!path.exists());
    }

    #[test]
    fn a_ballast_is_laid_once_and_given_up_once() {
        let root = tempfile::tempdir().unwrap();
        let ballast = Ballast::new(root.path().join("ballast"), 64 * 1024);

        ballast.lay().unwrap();
        ballast.lay().unwrap();

        assert_eq!(fs::metadata(root.path().join("ballast")).unwrap().len(), 64 * 1024);
        assert!(ballast.give_up());
        assert!(!ballast.give_up());
    }
}

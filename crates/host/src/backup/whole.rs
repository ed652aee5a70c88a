//! All of a folder, copied as it is: owners, modes, times, links, attributes. Where the file system can, copies share their bytes with what they are
//! copies of. Given up, it ends at the next piece.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cutover_core::wire::Extent;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, Timespec, Timestamps, XattrFlags, ioctl_ficlone, lgetxattr,
    llistxattr, lsetxattr, mknodat, utimensat,
};
use rustix::io::Errno;

use crate::blocking::blocking;
use crate::files::{self, FileError};
use crate::meter::{Meter, Passing};

/// Between two looks at whether it was given up.
const PIECE: u64 = 8 * 1024 * 1024;
/// The longest list of attributes, and the longest attribute, of Linux.
const ATTRIBUTES: usize = 64 * 1024;

/// Copies a folder to a place that is not there yet, without the files in `left`.
///
/// # Errors
/// When something cannot be read or written. What went away meanwhile is not there.
pub(super) async fn copy(
    from: &Path,
    to: &Path,
    left: &BTreeSet<PathBuf>,
    meter: &Meter,
) -> Result<(), FileError> {
    let given_up = Given(Arc::default());
    let mut copying = Copying {
        left: left.clone(),
        links: BTreeMap::new(),
        given_up: Arc::clone(&given_up.0),
        passing: meter.begin("copied", Extent::Not),
    };
    let (from, to, top) = (from.to_owned(), to.to_owned(), to.to_owned());
    let copied = blocking(move || {
        files::ensure_folder(files::folder_of(&to), 0o700)?;
        copying.folder(&from, &to)
    });
    let broken = |error| FileError::new("copy to", &top, &io::Error::other(error));
    copied.await.map_err(broken).flatten()
}

/// What a copy of this folder, without the files in `left`, will take in `room`; nothing where they share their bytes.
///
/// # Errors
/// When a folder cannot be looked into.
pub(super) fn needed(folder: &Path, room: &Path, left: &BTreeSet<PathBuf>) -> Result<u64, FileError> {
    let (mut bytes, mut folders, mut shares) = (0_u64, vec![folder.to_owned()], None);
    while let Some(folder) = folders.pop() {
        let failed = |error: io::Error| FileError::new("look into", &folder, &error);
        for entry in entries(&folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let Ok(about) = fs::symlink_metadata(&path) else { continue };
            if about.is_dir() {
                folders.push(path);
            } else if about.is_file() && about.len() > 0 && !left.contains(&path) {
                if *shares.get_or_insert_with(|| is_shared(&path, room)) {
                    return Ok(0);
                }
                // Holes stay holes.
                bytes = bytes.saturating_add(about.len().min(about.blocks().saturating_mul(512)));
            }
        }
    }
    Ok(bytes)
}

/// Whether a copy of the file in `room` would share its bytes.
fn is_shared(file: &Path, room: &Path) -> bool {
    let probe = files::beside(&room.join("shared"));
    let shared = open(file).and_then(|from| Ok(ioctl_ficlone(files::private(&probe)?, from)?));
    files::discard(&probe);
    shared.is_ok()
}

/// Dropped, nobody waits for the copy any more.
struct Given(Arc<AtomicBool>);

impl Drop for Given {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Copying {
    left: BTreeSet<PathBuf>,
    /// Where the first of several names of a file came to.
    links: BTreeMap<(u64, u64), PathBuf>,
    given_up: Arc<AtomicBool>,
    passing: Passing,
}

impl Copying {
    fn folder(&mut self, from: &Path, to: &Path) -> Result<(), FileError> {
        let failed = |error: io::Error| FileError::new("copy", from, &error);
        let Some(about) = there(fs::symlink_metadata(from)).map_err(failed)? else { return Ok(()) };
        files::ensure_folder(to, 0o700)?;
        for entry in entries(from).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let (path, to) = (entry.path(), to.join(entry.file_name()));
            if self.left.contains(&path) {
                continue;
            }
            let failed = |error: io::Error| FileError::new("copy", &path, &error);
            let Some(about) = there(fs::symlink_metadata(&path)).map_err(failed)? else { continue };
            if about.is_dir() {
                self.folder(&path, &to)?;
            } else {
                self.entry(&path, &to, &about).map_err(failed)?;
            }
        }
        alike(from, to, &about).map_err(failed)
    }

    /// Whatever is no folder. Sockets are nobody's data.
    fn entry(&mut self, from: &Path, to: &Path, about: &Metadata) -> io::Result<()> {
        self.go_on()?;
        let kind = about.file_type();
        if kind.is_socket() {
            return Ok(());
        }
        if about.nlink() > 1 {
            let id = (about.dev(), about.ino());
            if let Some(first) = self.links.get(&id) {
                return fs::hard_link(first, to);
            }
            self.links.insert(id, to.to_owned());
        }
        let made = if kind.is_symlink() {
            fs::read_link(from).and_then(|target| symlink(target, to))
        } else if kind.is_file() {
            self.file(from, to)
        } else {
            let kind = FileType::from_raw_mode(about.mode());
            Ok(mknodat(CWD, to, kind, Mode::RUSR | Mode::WUSR, about.rdev())?)
        };
        if there(made)?.is_some() {
            return alike(from, to, about);
        }
        self.links.remove(&(about.dev(), about.ino()));
        Ok(())
    }

    fn file(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (mut from, mut to) = (open(from)?, files::new(to)?);
        if ioctl_ficlone(&to, &from).is_ok() {
            return Ok(());
        }
        let mut at = 0;
        while let Some((begin, end)) = data(&from, at)? {
            from.seek(SeekFrom::Start(begin))?;
            to.seek(SeekFrom::Start(begin))?;
            let mut left = end - begin;
            while left > 0 {
                self.go_on()?;
                match io::copy(&mut (&mut from).take(left.min(PIECE)), &mut to)? {
                    0 => break,
                    bytes => {
                        self.passing.add(bytes);
                        left = left.saturating_sub(bytes);
                    }
                }
            }
            at = end;
        }
        // A hole at its end.
        to.set_len(from.metadata()?.len())
    }

    fn go_on(&self) -> io::Result<()> {
        if self.given_up.load(Ordering::Relaxed) {
            return Err(io::Error::other("it was given up"));
        }
        Ok(())
    }
}

/// Where the next piece with something in it begins from `at` on, and ends; `None`: there is none.
fn data(file: &File, at: u64) -> io::Result<Option<(u64, u64)>> {
    let begin = match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(at)) {
        Ok(begin) => begin,
        Err(Errno::NXIO) => return Ok(None),
        // A file system that tells nothing of holes.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => {
            let length = file.metadata()?.len();
            return Ok((at < length).then_some((at, length)));
        }
        Err(error) => return Err(error.into()),
    };
    Ok(Some((begin, rustix::fs::seek(file, rustix::fs::SeekFrom::Hole(begin))?)))
}

/// `None`: it went away meanwhile.
fn there<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        found => found.map(Some),
    }
}

fn entries(folder: &Path) -> io::Result<Vec<io::Result<fs::DirEntry>>> {
    Ok(there(fs::read_dir(folder))?.into_iter().flatten().collect())
}

/// The file itself: not what a link in its place leads to, nor what would wait for somebody at the other end.
fn open(file: &Path) -> io::Result<File> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    OpenOptions::new().read(true).custom_flags(flags.cast_signed()).open(file)
}

/// Owner, attributes, mode and times: the owner first, which takes away what a mode grants.
fn alike(from: &Path, to: &Path, about: &Metadata) -> io::Result<()> {
    let found = fs::symlink_metadata(to)?;
    if (found.uid(), found.gid()) != (about.uid(), about.gid()) {
        lchown(to, Some(about.uid()), Some(about.gid()))?;
    }
    attributes(from, to)?;
    if !about.is_symlink() {
        fs::set_permissions(to, fs::Permissions::from_mode(about.mode() & 0o7777))?;
    }
    let time = |seconds, nanoseconds| Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps {
        last_access: time(about.atime(), about.atime_nsec()),
        last_modification: time(about.mtime(), about.mtime_nsec()),
    };
    Ok(utimensat(CWD, to, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Those that may be read and set here.
fn attributes(from: &Path, to: &Path) -> io::Result<()> {
    let may_not = |error: Errno| {
        matches!(error, Errno::NOTSUP | Errno::PERM | Errno::ACCESS | Errno::NODATA | Errno::NOENT)
    };
    let mut names = vec![0_u8; ATTRIBUTES];
    let length = match llistxattr(from, names.as_mut_slice()) {
        Err(error) if may_not(error) => return Ok(()),
        length => length?,
    };
    let mut value = vec![0_u8; if length > 0 { ATTRIBUTES } else { 0 }];
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let set = lgetxattr(from, name, value.as_mut_slice())
            .and_then(|length| lsetxattr(to, name, &value[..length], XattrFlags::empty()));
        match set {
            Err(error) if !may_not(error) => return Err(error.into()),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(folder: &Path) -> PathBuf {
        let volume = folder.join("volume");
        fs::create_dir_all(volume.join("deep/er")).unwrap();
        fs::write(volume.join("deep/er/large"), vec![7; 9 << 20]).unwrap();
        fs::write(volume.join("deep/empty"), "").unwrap();
        let sparse = File::create(volume.join("deep/sparse")).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&sparse, &[7; 5], 8 << 20).unwrap();
        sparse.set_len(1 << 30).unwrap();
        fs::write(volume.join("app.db"), "copied by SQLite").unwrap();
        fs::hard_link(volume.join("deep/empty"), volume.join("again")).unwrap();
        symlink("/etc/passwd", volume.join("link")).unwrap();
        fs::set_permissions(volume.join("deep/er/large"), fs::Permissions::from_mode(0o4750)).unwrap();
        fs::set_permissions(volume.join("deep"), fs::Permissions::from_mode(0o1777)).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(volume.join("socket")).unwrap();
        volume
    }

    #[tokio::test]
    async fn a_folder_is_copied_as_it_is_less_what_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let (volume, to) = (volume(folder.path()), folder.path().join("room/copy"));
        let left = BTreeSet::from([volume.join("app.db")]);

        copy(&volume, &to, &left, &Meter::default()).await.unwrap();

        for name in ["", "deep", "deep/er", "deep/er/large", "deep/empty", "again", "link"] {
            let about = |folder: &Path| {
                let about = fs::symlink_metadata(folder.join(name)).unwrap();
                (about.mode(), about.uid(), about.gid(), about.mtime(), about.mtime_nsec())
            };
            assert_eq!(about(&to), about(&volume), "{name}");
        }
        assert_eq!(fs::read(to.join("deep/er/large")).unwrap(), vec![7; 9 << 20]);
        let sparse = fs::metadata(to.join("deep/sparse")).unwrap();
        assert_eq!(sparse.len(), 1 << 30);
        assert!(sparse.blocks() < 1 << 10, "its holes are holes: {}", sparse.blocks());
        let mut there = [0; 5];
        let copied = File::open(to.join("deep/sparse")).unwrap();
        std::os::unix::fs::FileExt::read_exact_at(&copied, &mut there, 8 << 20).unwrap();
        assert_eq!(there, [7; 5]);
        assert_eq!(fs::read_link(to.join("link")).unwrap(), Path::new("/etc/passwd"));
        let inode = |name: &str| fs::metadata(to.join(name)).unwrap().ino();
        assert_eq!(inode("again"), inode("deep/empty"));
        assert!(!to.join("app.db").exists() && !to.join("socket").exists());
    }

    #[tokio::test]
    async fn one_that_is_given_up_ends() {
        let folder = tempfile::tempdir().unwrap();
        let (volume, to) = (volume(folder.path()), folder.path().join("copy"));
        let mut copying = Copying {
            left: BTreeSet::new(),
            links: BTreeMap::new(),
            given_up: Arc::default(),
            passing: Meter::default().begin("copied", Extent::Not),
        };
        drop(Given(Arc::clone(&copying.given_up)));

        let ended = copying.folder(&volume, &to).unwrap_err();

        assert!(ended.message.contains("given up"), "{ended}");
    }

    #[test]
    fn room_is_wanted_for_all_of_it_where_bytes_are_not_shared() {
        let folder = tempfile::tempdir().unwrap();
        let volume = volume(folder.path());
        let shares = is_shared(&volume.join("app.db"), folder.path());
        let sparse = (8 << 20) + 5;
        let wanted = |more: u64| if shares { 0 } else { (9 << 20) + more };
        let needed = |left: &[&str]| {
            let left = left.iter().map(|name| volume.join(name)).collect();
            needed(&volume, folder.path(), &left).unwrap()
        };
        assert_eq!(needed(&["deep/sparse"]), wanted(16));
        assert_eq!(needed(&["deep/sparse", "app.db"]), wanted(0), "SQLite copies that one");
        assert!(needed(&[]) < (9 << 20) + sparse, "holes take none");
        let names: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["volume"], "the probe is gone");
    }
}

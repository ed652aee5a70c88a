//! Space kept for the day the disk is full: given up for a table that must be written then.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use crate::store::{private, remove};

const NAME: &str = "ballast";
const NEXT: &str = "ballast.next";
const BYTES: u64 = 256 * 1024;

/// Gives the ballast up; says whether there was one.
pub(crate) fn give_up(folder: &Path) -> bool {
    let given = fs::remove_file(folder.join(NAME)).is_ok();
    if given {
        tracing::error!(folder = %folder.display(), "the disk is full: the ballast was given up for the route table");
    }
    given
}

/// Lays the ballast where there is none and room enough; a disk that is nearly full is left alone.
pub(crate) fn lay(folder: &Path) {
    let path = folder.join(NAME);
    let whole = fs::metadata(&path).is_ok_and(|metadata| metadata.len() == BYTES);
    if whole || !has_room(folder, 4 * BYTES) {
        return;
    }
    let next = folder.join(NEXT);
    let laid = private(&next)
        .and_then(|mut file| io::copy(&mut Noise(1).take(BYTES), &mut file).and_then(|_| file.sync_all()))
        .and_then(|()| fs::rename(&next, &path));
    if let Err(error) = laid {
        tracing::warn!(folder = %folder.display(), %error, "the ballast could not be laid");
        remove(&next);
    }
}

fn has_room(folder: &Path, bytes: u64) -> bool {
    rustix::fs::statvfs(folder)
        .is_ok_and(|figures| figures.f_bavail.saturating_mul(figures.f_frsize) >= bytes)
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
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn the_ballast_is_laid_once_and_takes_room() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NAME);

        lay(folder.path());
        let first = fs::metadata(&path).unwrap();
        lay(folder.path());

        assert_eq!(first.len(), BYTES);
        assert!(first.blocks() * 512 >= BYTES);
        assert_eq!(fs::metadata(&path).unwrap().ino(), first.ino());
        assert!(give_up(folder.path()));
        assert!(!give_up(folder.path()));
    }
}

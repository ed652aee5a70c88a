//! A file that is read while it is written: whoever reads it waits for what comes, until its writer has ended.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};

pub(super) struct Following {
    path: PathBuf,
    file: File,
    coming: Receiver<usize>,
    /// What has come and is not read yet, in bytes.
    ready: usize,
}

impl Following {
    /// Of a file that is there; besides, whom its writer tells of each piece how many bytes it has. Dropped, the writer has ended.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub(super) fn of(path: &Path) -> io::Result<(Self, Sender<usize>)> {
        let (told, coming) = channel();
        Ok((Self { path: path.to_owned(), file: File::open(path)?, coming, ready: 0 }, told))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Read for Following {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.ready == 0 {
            match self.coming.recv() {
                Ok(count) => self.ready = count,
                Err(_) => return Ok(0),
            }
        }
        let most = self.ready.min(buffer.len());
        let count = self.file.read(&mut buffer[..most])?;
        if count == 0 && most > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "what was written is not there"));
        }
        self.ready -= count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn what_was_told_of_is_read_and_no_more_until_the_writer_has_ended() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let (mut following, told) = Following::of(file.path()).unwrap();
        let mut writer = file.reopen().unwrap();
        writer.write_all(b"one, two").unwrap();
        told.send(3).unwrap();
        let mut buffer = [0; 16];
        assert_eq!(following.read(&mut buffer).unwrap(), 3);
        told.send(5).unwrap();
        drop(told);
        let mut rest = String::new();
        following.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, ", two");
    }

    #[test]
    fn what_was_told_of_and_is_not_there_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let (mut following, told) = Following::of(file.path()).unwrap();
        told.send(1).unwrap();
        assert_eq!(following.read(&mut [0; 16]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}

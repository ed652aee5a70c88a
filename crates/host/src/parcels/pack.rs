//! Chunks that came and are not yet files: one behind the other in a file of their session, each under a line with its hash and its length. What
//! came before a connection was lost, or a session was killed, is found there by the next one. Nothing of it need be durable, since all is held
//! against its hash when it is read.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use cutover_core::hash::ContentHash;
use cutover_core::layout::Layout;
use cutover_core::wire::{Chunk, MOST_CHUNK};

use crate::files::{self, FileError};

/// How long chunks wait for whoever sends the rest.
const KEPT: Duration = Duration::from_hours(24);
const BUFFER: usize = 1024 * 1024;
/// A line is no longer than this: a hash, a space, a number and its end.
const LONGEST_LINE: u64 = 80;

/// What one session brings.
#[derive(Debug)]
pub(super) struct Pack {
    pub(super) path: PathBuf,
    file: BufWriter<File>,
    end: u64,
}

impl Pack {
    /// An empty one. It is locked as long as its session lasts.
    pub(super) fn begin(layout: &Layout) -> Result<Self, FileError> {
        files::ensure_folder(&layout.parcels(), 0o700)?;
        let path = files::beside(&layout.parcels().join("pack"));
        let begin = || {
            let file = files::private(&path)?;
            file.lock()?;
            Ok(BufWriter::with_capacity(BUFFER, file))
        };
        let file = begin().map_err(|error: io::Error| FileError::new("write", &path, &error))?;
        Ok(Self { path, file, end: 0 })
    }

    /// Adds a chunk; gives the byte from which on it lies.
    pub(super) fn add(&mut self, chunk: &Chunk, bytes: &[u8]) -> Result<u64, FileError> {
        let line = format!("{} {}\n", chunk.0, chunk.1);
        let written = self.file.write_all(line.as_bytes()).and_then(|()| self.file.write_all(bytes));
        written.map_err(|error| self.failed(&error))?;
        let from = self.end + line.len() as u64;
        self.end = from + bytes.len() as u64;
        Ok(from)
    }

    /// All that was added can be read.
    pub(super) fn flush(&mut self) -> Result<(), FileError> {
        self.file.flush().map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &io::Error) -> FileError {
        FileError::new("write", &self.path, error)
    }
}

/// The chunks of a pack that was left, each with the byte from which on it lies; up to where it is torn.
pub(super) fn read(path: &Path) -> io::Result<Vec<(Chunk, u64)>> {
    let file = File::open(path)?;
    let bytes = file.metadata()?.len();
    let mut file = BufReader::new(file);
    let (mut chunks, mut at, mut line) = (Vec::new(), 0, String::new());
    loop {
        line.clear();
        at += io::Read::take(&mut file, LONGEST_LINE).read_line(&mut line)? as u64;
        let Some(chunk) = chunk(&line).filter(|chunk| at + u64::from(chunk.1) <= bytes) else {
            return Ok(chunks);
        };
        chunks.push((chunk.clone(), at));
        at += u64::from(chunk.1);
        file.seek(SeekFrom::Start(at))?;
    }
}

fn chunk(line: &str) -> Option<Chunk> {
    let (hash, bytes) = line.strip_suffix('\n')?.split_once(' ')?;
    let bytes = bytes.parse().ok().filter(|bytes| *bytes <= MOST_CHUNK)?;
    Some(Chunk(ContentHash::from_hex(hash)?, bytes))
}

/// The packs that sessions left which are over. Those nobody came back for go.
pub(super) fn left(layout: &Layout) -> Vec<PathBuf> {
    // Nothing was left, or nothing that can be read: then it is sent again.
    let Ok(entries) = fs::read_dir(layout.parcels()) else { return Vec::new() };
    let mut left = Vec::new();
    for entry in entries.flatten().filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b".pack."))
    {
        let path = entry.path();
        if is_written(&path) {
            continue;
        }
        if entry.metadata().and_then(|found| found.modified()).is_ok_and(is_old) {
            files::discard(&path);
        } else {
            left.push(path);
        }
    }
    left
}

/// Whether a session writes it: that holds it locked. What cannot be looked at counts as such.
pub(crate) fn is_written(path: &Path) -> bool {
    !File::open(path).is_ok_and(|file| file.try_lock_shared().is_ok())
}

/// What seems to come from the future is new: a clock may have jumped.
fn is_old(modified: SystemTime) -> bool {
    SystemTime::now().duration_since(modified).is_ok_and(|age| age > KEPT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk_of(content: &[u8]) -> Chunk {
        Chunk(ContentHash::of(content), u32::try_from(content.len()).unwrap())
    }

    #[test]
    fn what_came_before_the_end_is_found_and_a_torn_chunk_is_not() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::under(root.path());
        let contents = [&b"one\n\n"[..], b"two", b""];
        let mut pack = Pack::begin(&layout).unwrap();
        let from: Vec<u64> =
            contents.iter().map(|bytes| pack.add(&chunk_of(bytes), bytes).unwrap()).collect();
        pack.flush().unwrap();
        assert!(left(&layout).is_empty(), "its session goes on");
        let path = pack.path.clone();
        drop(pack);

        assert_eq!(left(&layout), std::slice::from_ref(&path));
        let expected: Vec<_> = contents.iter().map(|bytes| chunk_of(bytes)).zip(from).collect();
        assert_eq!(read(&path).unwrap(), expected);

        let file = File::options().write(true).open(&path).unwrap();
        file.set_len(expected[1].1 + 1).unwrap();
        assert_eq!(read(&path).unwrap(), expected[..1]);
        file.set_modified(SystemTime::now() - KEPT - Duration::from_secs(60)).unwrap();
        assert!(left(&layout).is_empty());
        assert!(!path.exists());
    }

    #[test]
    fn what_is_no_pack_has_no_chunks() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pack");
        for content in [
            &b""[..],
            b"\n\n\n",
            b"x 5\nhello",
            &[7; 10_000],
            format!("{} 99999999999\n", ContentHash::of(b"")).as_bytes(),
        ] {
            fs::write(&path, content).unwrap();
            assert_eq!(read(&path).unwrap_or_default(), []);
        }
    }
}

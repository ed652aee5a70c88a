//! A parcel as an archive: made while it is read, of chunks wherever they lie.

use std::io::{self, Read};

use cutover_core::artifact::EntryKind;
use cutover_core::wire::{Chunk, ParcelEntry};
use tar::{EntryType, Header};

use super::index::Index;

const BLOCK: u64 = 512;

/// What is still to be read.
enum Next {
    Entry(usize),
    /// A chunk of an entry.
    Chunk(usize, usize),
    Nothing,
}

/// The archive.
pub(super) struct Archive<'a> {
    entries: &'a [ParcelEntry],
    index: &'a mut Index,
    next: Next,
    piece: io::Cursor<Vec<u8>>,
    /// Bytes made so far.
    made: u64,
    /// From which byte on the content of each entry lies, as far as it was made.
    pub(super) places: Vec<u64>,
    /// A chunk was not there, or not what it was.
    pub(super) lacks: bool,
}

impl<'a> Archive<'a> {
    pub(super) fn new(entries: &'a [ParcelEntry], index: &'a mut Index) -> Self {
        let (next, piece, places) = (Next::Entry(0), io::Cursor::default(), Vec::new());
        Self { entries, index, next, piece, made: 0, places, lacks: false }
    }

    /// The next piece; an empty one is the end.
    fn piece(&mut self) -> io::Result<Vec<u8>> {
        match self.next {
            Next::Nothing => Ok(Vec::new()),
            Next::Entry(number) => {
                let Some(entry) = self.entries.get(number) else {
                    self.next = Next::Nothing;
                    return Ok(vec![0; 1024]);
                };
                let begins = begin(entry)?;
                self.places.push(self.made + begins.len() as u64);
                self.next = Next::Chunk(number, 0);
                Ok(begins)
            }
            Next::Chunk(number, chunk) => {
                let entry = &self.entries[number];
                if let Some(chunk_there) = entry.chunks.get(chunk) {
                    self.next = Next::Chunk(number, chunk + 1);
                    return self.chunk(chunk_there);
                }
                self.next = Next::Entry(number + 1);
                let past = entry.bytes() % BLOCK;
                match usize::try_from((BLOCK - past) % BLOCK) {
                    Ok(0) | Err(_) => self.piece(),
                    Ok(padding) => Ok(vec![0; padding]),
                }
            }
        }
    }

    fn chunk(&mut self, chunk: &Chunk) -> io::Result<Vec<u8>> {
        self.index.read(chunk).ok_or_else(|| {
            self.lacks = true;
            io::Error::other("a chunk of it lacks")
        })
    }
}

impl Read for Archive<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.piece.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            let ended = matches!(self.next, Next::Nothing);
            let piece = self.piece()?;
            if ended {
                return Ok(0);
            }
            self.made += piece.len() as u64;
            self.piece = io::Cursor::new(piece);
        }
    }
}

/// What stands in an archive before the content of an entry.
fn begin(entry: &ParcelEntry) -> io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_mtime(entry.modified);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
    match (entry.kind, &entry.target) {
        (Some(EntryKind::Symlink), target) => {
            header.set_entry_type(EntryType::Symlink);
            header.set_mode(0o777);
            archive.append_link(&mut header, &entry.path, target.as_deref().unwrap_or_default())?;
        }
        (Some(kind @ (EntryKind::File | EntryKind::Executable)), _) => {
            header.set_entry_type(EntryType::Regular);
            header.set_mode(if kind == EntryKind::Executable { 0o755 } else { 0o644 });
            header.set_size(entry.bytes());
            // Its content is not copied from here, but comes behind it.
            archive.append_data(&mut header, &entry.path, io::empty())?;
        }
        (None, _) => {
            header.set_entry_type(EntryType::Directory);
            header.set_mode(0o755);
            archive.append_data(&mut header, format!("{}/", entry.path), io::empty())?;
        }
    }
    Ok(std::mem::take(archive.get_mut()))
}

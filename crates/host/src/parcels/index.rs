//! Where chunks lie on this host: by their hash, in which file, from which byte on.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use cutover_core::hash::ContentHash;
use cutover_core::wire::Chunk;

/// The chunks that there are.
#[derive(Debug, Default)]
pub(super) struct Index {
    places: HashMap<ContentHash, Place>,
    /// The file that was read from last: the next chunk mostly lies in it, too.
    open: Option<(Arc<Path>, File)>,
}

#[derive(Debug, Clone)]
struct Place {
    file: Arc<Path>,
    from: u64,
}

impl Index {
    /// A file has these chunks, one behind the other, from a byte on.
    pub(super) fn add<'a>(&mut self, file: &Path, from: u64, chunks: impl IntoIterator<Item = &'a Chunk>) {
        let file: Arc<Path> = file.into();
        let mut from = from;
        for Chunk(hash, bytes) in chunks {
            self.places.insert(hash.clone(), Place { file: Arc::clone(&file), from });
            from += u64::from(*bytes);
        }
    }

    /// Whether a chunk seems to be there.
    pub(super) fn has(&self, chunk: &Chunk) -> bool {
        self.places.contains_key(&chunk.0)
    }

    /// Whether a file gives a chunk.
    pub(super) fn gives(&self, file: &Path, chunk: &Chunk) -> bool {
        self.places.get(&chunk.0).is_some_and(|place| *place.file == *file)
    }

    /// A chunk; `None`: it is not there, or what is there is something else by now, and no longer counts.
    pub(super) fn read(&mut self, chunk: &Chunk) -> Option<Vec<u8>> {
        let place = self.places.get(&chunk.0)?.clone();
        let read = self.read_at(&place, chunk.1).filter(|bytes| ContentHash::of(bytes) == chunk.0);
        if read.is_none() {
            tracing::info!(file = %place.file.display(), "has other content than it had when it came");
            self.places.remove(&chunk.0);
        }
        read
    }

    fn read_at(&mut self, place: &Place, bytes: u32) -> Option<Vec<u8>> {
        if self.open.as_ref().is_none_or(|(path, _)| *path != place.file) {
            self.open = Some((Arc::clone(&place.file), File::open(&place.file).ok()?));
        }
        let (_, file) = self.open.as_ref()?;
        let mut chunk = vec![0; usize::try_from(bytes).ok()?];
        file.read_exact_at(&mut chunk, place.from).ok()?;
        Some(chunk)
    }
}

//! What one session was told will come, and what of it came.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;

use cutover_core::hash::ContentHash;
use cutover_core::layout::Layout;
use cutover_core::wire::{Chunk, Destination, MOST_CHUNK, Parcel, distinct_chunks, in_ranges};

use super::archive::Archive;
use super::index::Index;
use super::pack::{self, Pack};
use super::{ParcelError, kept};
use crate::files::{self, FileError};
use crate::runtime::process::artifact::{ArtifactError, Artifacts};

/// Parcels of one session. Its methods block: they read and write files.
#[derive(Debug)]
pub(crate) struct Incoming {
    layout: Layout,
    parcels: Vec<Parcel>,
    index: Index,
    /// Each chunk once, in the order in which both sides count them.
    chunks: Vec<Chunk>,
    /// What the client was told that it lacks and has not come yet.
    due: VecDeque<Chunk>,
    /// What comes.
    pack: Option<Pack>,
    /// What sessions brought that are over.
    left: Vec<PathBuf>,
    /// Contexts that are whole, by their hash.
    contexts: BTreeMap<ContentHash, Arc<File>>,
}

impl Incoming {
    /// Reads what a client announces: lists as JSON, compressed.
    ///
    /// # Errors
    /// What is no such list.
    pub(crate) fn announced(packed: impl Read) -> Result<Vec<Parcel>, ParcelError> {
        let mut text = Vec::new();
        let packed = zstd::Decoder::new(packed).map_err(ParcelError::Packed)?;
        packed.take(kept::MOST_LIST).read_to_end(&mut text).map_err(ParcelError::Packed)?;
        let parcels: Vec<Parcel> =
            serde_json::from_slice(&text).map_err(|error| ParcelError::List(error.to_string()))?;
        if parcels.iter().flat_map(Parcel::chunks).any(|chunk| chunk.1 > MOST_CHUNK) {
            return Err(ParcelError::List(format!("a chunk has more than {MOST_CHUNK} bytes")));
        }
        Ok(parcels)
    }

    /// Looks what of these there is.
    pub(crate) fn begin(layout: Layout, parcels: Vec<Parcel>) -> Self {
        let chunks = distinct_chunks(&parcels).into_iter().cloned().collect();
        let mut index = Index::default();
        kept::add_all(&layout, &mut index);
        let left = pack::left(&layout);
        for path in &left {
            for (chunk, from) in pack::read(path).unwrap_or_default() {
                index.add(path, from, [&chunk]);
            }
        }
        let (due, pack, contexts) = (VecDeque::new(), None, BTreeMap::new());
        Self { layout, parcels, index, chunks, due, pack, left, contexts }
    }

    /// What lacks now, as a client is told; it is due from here on.
    pub(crate) fn lacking(&mut self) -> Vec<(u32, u32)> {
        let wanted: BTreeSet<&ContentHash> =
            self.absent().flat_map(Parcel::chunks).map(|chunk| &chunk.0).collect();
        let lack = |chunk: &Chunk| wanted.contains(&chunk.0) && !self.index.has(chunk);
        let numbered = (0_u32..).zip(&self.chunks).filter(|(_, chunk)| lack(chunk));
        let (numbers, due): (Vec<u32>, VecDeque<Chunk>) =
            numbered.map(|(number, chunk)| (number, chunk.clone())).unzip();
        self.due = due;
        in_ranges(numbers)
    }

    /// Bytes that come.
    pub(crate) fn to_come(&self) -> u64 {
        self.due.iter().map(|chunk| u64::from(chunk.1)).sum()
    }

    /// Bytes of the files that are made.
    pub(crate) fn to_make(&self) -> u64 {
        self.absent().map(Parcel::bytes).sum()
    }

    /// Those that are not there as a whole.
    fn absent(&self) -> impl Iterator<Item = &Parcel> {
        self.parcels.iter().filter(|parcel| !self.is_there(parcel))
    }

    fn is_there(&self, parcel: &Parcel) -> bool {
        match &parcel.to {
            Destination::Artifact { hash } => Artifacts::new(self.layout.clone()).has(hash),
            Destination::Context { .. } => self.contexts.contains_key(&parcel.hash()),
        }
    }

    /// A context that came whole.
    pub(crate) fn context(&self, hash: &ContentHash) -> Option<Arc<File>> {
        self.contexts.get(hash).cloned()
    }

    /// Takes in the next `count` chunks that are due.
    ///
    /// # Errors
    /// Others than announced; a full disk. Those before stay.
    pub(crate) fn take(&mut self, packed: impl Read, count: u32) -> Result<(), ParcelError> {
        let taken = self.take_chunks(packed, count);
        let flushed = self.pack.as_mut().map_or(Ok(()), Pack::flush);
        taken?;
        Ok(flushed?)
    }

    fn take_chunks(&mut self, packed: impl Read, count: u32) -> Result<(), ParcelError> {
        let mut content = zstd::Decoder::new(packed).map_err(ParcelError::Packed)?;
        for _ in 0..count {
            let chunk = self
                .due
                .pop_front()
                .ok_or_else(|| ParcelError::List("more came than was asked for".to_owned()))?;
            let mut bytes = vec![0; usize::try_from(chunk.1).unwrap_or_default()];
            content.read_exact(&mut bytes).map_err(ParcelError::Packed)?;
            let found = ContentHash::of(&bytes);
            if found != chunk.0 {
                return Err(ParcelError::Other { announced: chunk.0, found });
            }
            let pack = match &mut self.pack {
                Some(pack) => pack,
                none => none.insert(Pack::begin(&self.layout)?),
            };
            let from = pack.add(&chunk, &bytes)?;
            self.index.add(&pack.path, from, [&chunk]);
        }
        Ok(())
    }

    /// Makes the files; gives what lacks after all, nothing once all are there.
    ///
    /// # Errors
    /// A full disk, and an artifact that is not what it was announced as.
    pub(crate) fn unpack(&mut self) -> Result<Vec<(u32, u32)>, ParcelError> {
        for parcel in self.parcels.clone() {
            if self.is_there(&parcel) {
                continue;
            }
            let whole = match &parcel.to {
                Destination::Artifact { hash } => self.artifact(&parcel, hash)?,
                Destination::Context { app, service } => {
                    let place = self.layout.context(app, service);
                    self.make_context(&parcel, &place)?
                }
            };
            if !whole {
                // One lacks: then all are looked at, so that they can be asked for at once.
                parcel.chunks().for_each(|chunk| drop(self.index.read(chunk)));
            }
        }
        let lacking = self.lacking();
        if lacking.is_empty() {
            self.end();
        }
        Ok(lacking)
    }

    /// Whether it is there.
    fn artifact(&mut self, parcel: &Parcel, hash: &ContentHash) -> Result<bool, ParcelError> {
        let mut archive = Archive::new(&parcel.entries, &mut self.index);
        match Artifacts::new(self.layout.clone()).receive(&mut archive, hash) {
            Ok(()) => {}
            Err(ArtifactError::Archive(_)) if archive.lacks => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        files::ensure_folder(&self.layout.parcels(), 0o700)?;
        kept::save(&self.layout.chunks(hash), &parcel.entries, Vec::new())?;
        Ok(true)
    }

    /// Whether it is there. What was there before is replaced: it was the last one of this service.
    fn make_context(&mut self, parcel: &Parcel, place: &std::path::Path) -> Result<bool, ParcelError> {
        files::ensure_folder(&self.layout.contexts(), 0o700)?;
        let next = files::beside(place);
        let failed = |error: &io::Error| FileError::new("write the build's context", &next, error);
        let mut file = files::private(&next).map_err(|error| failed(&error))?;
        let mut archive = Archive::new(&parcel.entries, &mut self.index);
        let copied = io::copy(&mut archive, &mut file).and_then(|_| fs::rename(&next, place));
        let (lacks, places) = (archive.lacks, std::mem::take(&mut archive.places));
        if let Err(error) = copied {
            files::discard(&next);
            return if lacks { Ok(false) } else { Err(failed(&error).into()) };
        }
        let mut list = place.as_os_str().to_owned();
        list.push(".list");
        kept::save(&PathBuf::from(list), &parcel.entries, places)?;
        self.contexts.insert(parcel.hash(), Arc::new(file));
        Ok(true)
    }

    /// Nothing waits any more: what came goes, and what came before of the same.
    fn end(&mut self) {
        self.left.retain(|path| {
            let given = self.chunks.iter().any(|chunk| self.index.gives(path, chunk));
            if given {
                files::discard(path);
            }
            !given
        });
        if let Some(pack) = self.pack.take() {
            files::discard(&pack.path);
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

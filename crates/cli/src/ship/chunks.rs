//! Cutting an archive into chunks. Where a file is cut depends on what stands there, so that what is inserted or taken out moves the cuts around
//! it and no others.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};

use cutover_core::artifact::EntryKind;
use cutover_core::hash::ContentHash;
use cutover_core::wire::{Chunk, Destination, MOST_CHUNK, Parcel, ParcelEntry};
use fastcdc::v2020::StreamCDC;
use tar::EntryType;

/// Files that are no larger are one chunk.
const LEAST: usize = 16 * 1024;
const USUAL: usize = 64 * 1024;

/// An archive, cut.
#[derive(Debug)]
pub(super) struct Cut {
    pub(super) parcel: Parcel,
    archive: File,
    /// Where each chunk lies in it.
    places: HashMap<ContentHash, u64>,
}

impl Cut {
    /// Cuts an archive; it blocks.
    pub(super) fn of(archive: File, to: Destination) -> io::Result<Self> {
        let (mut entries, mut places) = (Vec::new(), HashMap::new());
        (&archive).seek(SeekFrom::Start(0))?;
        let mut read = tar::Archive::new(io::BufReader::with_capacity(USUAL, &archive));
        for entry in read.entries()? {
            entries.extend(cut_entry(entry?, &mut places)?);
        }
        drop(read);
        Ok(Self { parcel: Parcel { to, entries }, archive, places })
    }

    /// A chunk of it.
    pub(super) fn read(&self, chunk: &Chunk) -> Option<io::Result<Vec<u8>>> {
        let from = *self.places.get(&chunk.0)?;
        let mut bytes = vec![0; usize::try_from(chunk.1).unwrap_or_default()];
        Some(self.archive.read_exact_at(&mut bytes, from).map(|()| bytes))
    }
}

/// `None`: what says nothing of files.
fn cut_entry(
    mut entry: tar::Entry<'_, impl Read>,
    places: &mut HashMap<ContentHash, u64>,
) -> io::Result<Option<ParcelEntry>> {
    let path = String::from_utf8_lossy(&entry.path_bytes()).trim_end_matches('/').to_owned();
    let (mode, modified) = (entry.header().mode()?, entry.header().mtime()?);
    let of_kind = |kind| ParcelEntry { path, kind, target: None, modified, chunks: Vec::new() };
    Ok(match entry.header().entry_type() {
        EntryType::Directory => Some(of_kind(None)),
        EntryType::Symlink => {
            let target = entry.link_name_bytes().unwrap_or_default();
            let target = Some(String::from_utf8_lossy(&target).into_owned());
            Some(ParcelEntry { target, ..of_kind(Some(EntryKind::Symlink)) })
        }
        EntryType::Regular => {
            let kind = if mode & 0o100 == 0 { EntryKind::File } else { EntryKind::Executable };
            let chunks = cut_file(&mut entry, places)?;
            Some(ParcelEntry { chunks, ..of_kind(Some(kind)) })
        }
        _ => None,
    })
}

fn cut_file(
    entry: &mut tar::Entry<'_, impl Read>,
    places: &mut HashMap<ContentHash, u64>,
) -> io::Result<Vec<Chunk>> {
    let (from, size) = (entry.raw_file_position(), entry.size());
    let mut chunks = Vec::new();
    let mut add = |from: u64, bytes: &[u8]| {
        let hash = ContentHash::of(bytes);
        places.insert(hash.clone(), from);
        chunks.push(Chunk(hash, u32::try_from(bytes.len()).unwrap_or(MOST_CHUNK)));
    };
    if size <= LEAST as u64 {
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes)?;
        if !bytes.is_empty() {
            add(from, &bytes);
        }
        return Ok(chunks);
    }
    for cut in StreamCDC::new(entry, LEAST, USUAL, MOST_CHUNK as usize) {
        let cut = cut.map_err(io::Error::other)?;
        add(from + cut.offset, &cut.data);
    }
    Ok(chunks)
}

/// Bytes of an archive.
pub(super) fn size(archive: &File) -> io::Result<u64> {
    Ok(archive.metadata()?.size())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(files: &[(&str, &[u8])]) -> File {
        let mut archive = tar::Builder::new(tempfile::tempfile().unwrap());
        for (path, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            header.set_mtime(7);
            archive.append_data(&mut header, path, *content).unwrap();
        }
        archive.into_inner().unwrap()
    }

    /// Bytes that repeat themselves nowhere.
    fn noise(mut seed: u64, bytes: usize) -> Vec<u8> {
        let mut next = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33).to_le_bytes()[0]
        };
        (0..bytes).map(|_| next()).collect()
    }

    fn cut(files: &[(&str, &[u8])]) -> Cut {
        let to = Destination::Artifact { hash: ContentHash::of(b"tree") };
        Cut::of(archive(files), to).unwrap()
    }

    #[test]
    fn the_chunks_of_a_file_are_the_file() {
        let (large, long) = (noise(1, 1_000_000), "long/".repeat(40) + "name");
        let given = cut(&[("large", &large), (&long, b"small"), ("empty", b"")]);
        let contents: Vec<Vec<u8>> = given
            .parcel
            .entries
            .iter()
            .map(|entry| entry.chunks.iter().flat_map(|chunk| given.read(chunk).unwrap().unwrap()).collect())
            .collect();
        assert_eq!(contents, [large, b"small".to_vec(), Vec::new()]);
        assert_eq!(given.parcel.entries[1].path, long);
        assert!(given.parcel.entries[0].chunks.len() > 5);
        assert!(given.parcel.entries.iter().all(|entry| entry.modified == 7));
    }

    #[test]
    fn what_is_inserted_changes_the_chunks_around_it_only() {
        let before = noise(2, 2_000_000);
        let mut after = before.clone();
        after.splice(1_000_000..1_000_000, *b"one line more");
        let (before, after) = (cut(&[("a", &before)]), cut(&[("a", &after)]));
        let new = after.parcel.chunks().filter(|chunk| before.read(chunk).is_none()).count();
        assert!((1..=3).contains(&new), "{new} of {}", after.parcel.chunks().count());
    }
}

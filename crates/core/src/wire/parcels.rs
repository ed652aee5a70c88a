//! Files that travel by this channel: an artifact, or what an image is built from. A parcel is a list, file by file and chunk by chunk; of the
//! chunks only those cross that the host has in nothing else.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::artifact::EntryKind;
use crate::hash::ContentHash;
use crate::names::{AppId, ServiceName};

/// No chunk is larger, in bytes.
pub const MOST_CHUNK: u32 = 256 * 1024;

/// One artifact, or one context of a build, by its files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parcel {
    /// What becomes of it.
    pub to: Destination,
    /// What lies in it, in order.
    pub entries: Vec<ParcelEntry>,
}

/// What becomes of a parcel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "as", rename_all = "snake_case")]
pub enum Destination {
    /// It is kept as an artifact.
    Artifact {
        /// The hash of its tree.
        hash: ContentHash,
    },
    /// An image is going to be built from it; it is kept beside the next one, until that has come.
    Context {
        /// For which app.
        app: AppId,
        /// For which of its services.
        service: ServiceName,
    },
}

/// A file, a link or an empty folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParcelEntry {
    /// Relative, parts joined by `/`.
    pub path: String,
    /// What it is; `None`: a folder with nothing in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<EntryKind>,
    /// Where a link leads, as written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Seconds since 1970; 0 where it means nothing.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub modified: u64,
    /// What is in a file, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chunks: Vec<Chunk>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde asks it")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A piece of a file: its hash, and how many bytes it has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Chunk(pub ContentHash, pub u32);

impl ParcelEntry {
    /// Bytes of the file.
    pub fn bytes(&self) -> u64 {
        self.chunks.iter().map(|chunk| u64::from(chunk.1)).sum()
    }
}

impl Parcel {
    /// Bytes of all its files.
    pub fn bytes(&self) -> u64 {
        self.entries.iter().map(ParcelEntry::bytes).sum()
    }

    /// Its name as a whole.
    pub fn hash(&self) -> ContentHash {
        match &self.to {
            Destination::Artifact { hash } => hash.clone(),
            Destination::Context { .. } => ContentHash::of_value(&self.entries),
        }
    }

    /// All its chunks, in order, with repetitions.
    pub fn chunks(&self) -> impl Iterator<Item = &Chunk> {
        self.entries.iter().flat_map(|entry| &entry.chunks)
    }
}

/// The chunks of several parcels in the order in which both sides count them: each once, where it first occurs.
pub fn distinct_chunks(parcels: &[Parcel]) -> Vec<&Chunk> {
    let mut seen = BTreeSet::new();
    parcels.iter().flat_map(Parcel::chunks).filter(|chunk| seen.insert(&chunk.0)).collect()
}

/// Numbers that follow each other, as `(first, how many)`.
pub fn in_ranges(numbers: impl IntoIterator<Item = u32>) -> Vec<(u32, u32)> {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((first, count)) if *first + *count == number => *count += 1,
            _ => ranges.push((number, 1)),
        }
    }
    ranges
}

/// The numbers in such ranges.
pub fn of_ranges(ranges: &[(u32, u32)]) -> impl Iterator<Item = u32> {
    ranges.iter().flat_map(|(first, count)| *first..first.saturating_add(*count))
}

/// What the host's engine is to build, from a context that was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildOrder {
    /// Whose.
    pub app: AppId,
    /// For which service.
    pub service: ServiceName,
    /// Hash of the context.
    pub context: ContentHash,
    /// The Dockerfile's path in it.
    pub dockerfile: String,
    /// Stage to stop at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Build-time variables; public.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub args: BTreeMap<String, String>,
    /// Labels of the image.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What the image is called.
    pub tag: String,
    /// `os/architecture`; `None`: the host's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_the_numbers_they_were_made_of() {
        let numbers = [0, 1, 2, 7, 9, 10];
        assert_eq!(in_ranges(numbers), [(0, 3), (7, 1), (9, 2)]);
        assert_eq!(of_ranges(&in_ranges(numbers)).collect::<Vec<_>>(), numbers);
        assert_eq!(in_ranges([]), []);
    }

    #[test]
    fn a_chunk_that_occurs_twice_is_counted_once() {
        let chunk = |content: &[u8]| Chunk(ContentHash::of(content), 1);
        let parcel = |chunks: Vec<Chunk>| Parcel {
            to: Destination::Artifact { hash: ContentHash::of(b"tree") },
            entries: vec![ParcelEntry {
                path: "a".to_owned(),
                kind: Some(EntryKind::File),
                target: None,
                modified: 0,
                chunks,
            }],
        };
        let parcels =
            [parcel(vec![chunk(b"1"), chunk(b"2"), chunk(b"1")]), parcel(vec![chunk(b"2"), chunk(b"3")])];
        let expected = [chunk(b"1"), chunk(b"2"), chunk(b"3")];
        assert_eq!(distinct_chunks(&parcels), expected.iter().collect::<Vec<_>>());
    }
}

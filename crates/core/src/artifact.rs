//! The identity of an artifact: a hash of its tree. The client computes it before shipping, the host computes it again from what arrived, so
//! both use this one function. Neither reads files here; what is in them comes in as hashes.

use serde::{Deserialize, Serialize};

use crate::hash::ContentHash;

/// One file or symbolic link of a tree. Folders have no entry: an empty one is not part of an artifact, as it is not part of a commit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Entry {
    /// Relative, parts joined by `/`; an artifact that is a single file has its file name here.
    pub path: String,
    /// What it is.
    pub kind: EntryKind,
    /// Of the file's bytes, or of the link's target as written.
    pub content: ContentHash,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    /// A file.
    File,
    /// A file that its owner may execute.
    Executable,
    /// A symbolic link.
    Symlink,
}

impl EntryKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Executable => "executable",
            Self::Symlink => "symlink",
        }
    }
}

/// The hash of a tree; the order of `entries` means nothing.
pub fn tree_hash(entries: &[Entry]) -> ContentHash {
    let mut ordered: Vec<&Entry> = entries.iter().collect();
    ordered.sort();
    let mut parts = vec!["cutover artifact 1"];
    for entry in ordered {
        parts.extend([entry.path.as_str(), entry.kind.as_str(), entry.content.as_str()]);
    }
    ContentHash::of_parts(&parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, kind: EntryKind, content: &[u8]) -> Entry {
        Entry { path: path.to_owned(), kind, content: ContentHash::of(content) }
    }

    #[test]
    fn the_order_of_entries_means_nothing_and_all_else_does() {
        let (one, two) = (entry("a", EntryKind::File, b"1"), entry("b/c", EntryKind::Executable, b"2"));
        let hash = tree_hash(&[one.clone(), two.clone()]);
        assert_eq!(hash, tree_hash(&[two.clone(), one.clone()]));
        assert_ne!(hash, tree_hash(&[one.clone(), entry("b/c", EntryKind::File, b"2")]));
        assert_ne!(hash, tree_hash(&[one.clone(), entry("b/d", EntryKind::Executable, b"2")]));
        assert_ne!(hash, tree_hash(&[one.clone(), entry("b/c", EntryKind::Executable, b"3")]));
        assert_ne!(hash, tree_hash(&[one]));
    }
}

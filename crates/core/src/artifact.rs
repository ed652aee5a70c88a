//! The identity of an artifact: a hash of its tree. The client computes it before shipping, the host computes it again from what arrived, so
//! both use this one function. Neither reads files here; what is in them comes in as hashes.

use std::collections::BTreeMap;

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

/// Links followed until they count as a circle, which leads nowhere; as many as Linux follows.
const MOST_LINKS: usize = 40;

/// Whether whoever follows the link at `path` leaves its tree. `links` has every link of the tree, by its path, with its target as written:
/// words alone do not tell, since a step through another link may be a step up.
pub fn leads_out(path: &str, links: &BTreeMap<String, String>) -> bool {
    let mut place: Vec<&str> = Vec::new();
    let mut todo: Vec<&str> = path.rsplit('/').collect();
    let mut followed = 0;
    while let Some(part) = todo.pop() {
        if part == ".." && place.pop().is_none() {
            return true;
        }
        if matches!(part, "" | "." | "..") {
            continue;
        }
        place.push(part);
        let Some(target) = links.get(&place.join("/")) else { continue };
        followed += 1;
        if followed > MOST_LINKS {
            return false;
        }
        if target.starts_with('/') || target.is_empty() {
            return true;
        }
        place.pop();
        todo.extend(target.rsplit('/'));
    }
    false
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
    fn links_are_followed_as_the_system_follows_them() {
        let out = |links: &[(&str, &str)]| {
            let all = links.iter().map(|(path, target)| ((*path).to_owned(), (*target).to_owned())).collect();
            links.iter().any(|(path, _)| leads_out(path, &all))
        };
        for inside in [
            &[("current", "bin/server")][..],
            &[("a/b", "../c")],
            &[("a/up", "..")],
            &[("deep", "x/y"), ("b", "deep/../../c")],
            &[("x/y", ".."), ("z", "x/y/etc")],
            &[("round", "about"), ("about", "round")],
            &[("gone", "not/there/../..")],
        ] {
            assert!(!out(inside), "{inside:?}");
        }
        for outside in [
            &[("a", "/etc")][..],
            &[("a/b", "../../etc")],
            &[("x/y", ".."), ("z", "x/y/../etc")],
            &[("up", "."), ("a/b", "../up/../etc")],
            &[("empty", "")],
        ] {
            assert!(out(outside), "{outside:?}");
        }
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

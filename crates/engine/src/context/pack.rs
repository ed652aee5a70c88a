//! Files into tar, in a form that depends on their content only, hashed on the way.

use std::collections::BTreeMap;
use std::io::{Read, Write};

use sha2::{Digest, Sha256};
use tar::{EntryType, Header};

use super::ContextError;
use crate::identity::hex;

/// What went into a context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// Over all of it; see `Context::hash`.
    pub hash: String,
    /// How many files and links.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
}

pub(super) struct Packer<W: Write> {
    archive: tar::Builder<W>,
    /// By path: the order in which files come does not matter to the hash.
    digests: BTreeMap<String, String>,
    bytes: u64,
}

/// What a file is besides its content.
#[derive(Clone, Copy)]
pub(super) struct Facts {
    pub(super) executable: bool,
    /// Seconds since 1970. Not part of the hash, and the builder's cache does not heed it; but servers make
    /// `Last-Modified` of it, so it is a true one.
    pub(super) modified: u64,
    pub(super) size: u64,
}

impl<W: Write> Packer<W> {
    pub(super) fn new(writer: W) -> Self {
        Self { archive: tar::Builder::new(writer), digests: BTreeMap::new(), bytes: 0 }
    }

    pub(super) fn file(
        &mut self,
        path: &str,
        facts: Facts,
        content: &mut dyn Read,
    ) -> Result<(), ContextError> {
        let mut header =
            header(EntryType::Regular, if facts.executable { 0o755 } else { 0o644 }, facts.modified);
        header.set_size(facts.size);
        let mut content =
            Hashed { content: content.take(facts.size), hash: Sha256::new(), bytes: 0, failed: None };
        let written = self.archive.append_data(&mut header, path, &mut content);
        if let Some(source) = content.failed {
            return Err(ContextError::Read { path: path.to_owned(), source });
        }
        written.map_err(|_| ContextError::CutOff)?;
        if content.bytes != facts.size {
            return Err(ContextError::Changed(path.to_owned()));
        }
        let kind = if facts.executable { "program" } else { "file" };
        self.bytes += facts.size;
        self.digests.insert(path.to_owned(), format!("{kind} {}", hex(&content.hash.finalize())));
        Ok(())
    }

    pub(super) fn link(&mut self, path: &str, target: &str, modified: u64) -> Result<(), ContextError> {
        let mut header = header(EntryType::Symlink, 0o777, modified);
        header.set_size(0);
        self.archive.append_link(&mut header, path, target).map_err(|_| ContextError::CutOff)?;
        self.digests.insert(path.to_owned(), format!("link {}", hex(&Sha256::digest(target))));
        Ok(())
    }

    /// A folder with nothing in it; others come into being with what they hold.
    pub(super) fn empty_folder(&mut self, path: &str, modified: u64) -> Result<(), ContextError> {
        let mut header = header(EntryType::Directory, 0o755, modified);
        header.set_size(0);
        let slashed = format!("{path}/");
        self.archive.append_data(&mut header, slashed, std::io::empty()).map_err(|_| ContextError::CutOff)?;
        self.digests.insert(path.to_owned(), "folder".to_owned());
        Ok(())
    }

    pub(super) fn finish(self) -> Result<Packed, ContextError> {
        let mut writer = self.archive.into_inner().map_err(|_| ContextError::CutOff)?;
        writer.flush().map_err(|_| ContextError::CutOff)?;
        let mut hash = Sha256::new();
        hash.update("context 1\n");
        for (path, digest) in &self.digests {
            hash.update(format!("{} {path} {digest}\n", path.len()));
        }
        Ok(Packed {
            hash: format!("sha256:{}", hex(&hash.finalize())),
            files: u64::try_from(self.digests.len()).unwrap_or(u64::MAX),
            bytes: self.bytes,
        })
    }
}

fn header(kind: EntryType, mode: u32, modified: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(modified);
    header
}

/// Reads, hashes, counts, and keeps a read error apart from a write error, which `append_data` mixes.
struct Hashed<'content> {
    content: std::io::Take<&'content mut dyn Read>,
    hash: Sha256,
    bytes: u64,
    failed: Option<std::io::Error>,
}

impl Read for Hashed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self.content.read(buffer) {
            Ok(count) => {
                self.hash.update(&buffer[..count]);
                self.bytes += u64::try_from(count).unwrap_or(0);
                Ok(count)
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let kind = error.kind();
                self.failed = Some(error);
                Err(kind.into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACTS: Facts = Facts { executable: false, modified: 1_700_000_000, size: 5 };

    fn packed(fill: impl FnOnce(&mut Packer<std::io::Sink>)) -> Packed {
        let mut packer = Packer::new(std::io::sink());
        fill(&mut packer);
        packer.finish().unwrap()
    }

    fn add(packer: &mut Packer<std::io::Sink>, path: &str, facts: Facts, mut content: &[u8]) {
        packer.file(path, facts, &mut content).unwrap();
    }

    #[test]
    fn the_hash_knows_content_and_not_order_or_dates() {
        let one = packed(|packer| {
            add(packer, "a", FACTS, b"hello");
            add(packer, "b", FACTS, b"world");
        });
        let other = packed(|packer| {
            add(packer, "b", Facts { modified: 5, ..FACTS }, b"world");
            add(packer, "a", FACTS, b"hello");
        });
        assert_eq!(one, other);
        assert_eq!((one.files, one.bytes), (2, 10));
    }

    #[test]
    fn the_hash_changes_with_path_content_right_and_kind() {
        let base = packed(|packer| add(packer, "a", FACTS, b"hello")).hash;
        let others = [
            packed(|packer| add(packer, "b", FACTS, b"hello")),
            packed(|packer| add(packer, "a", FACTS, b"hallo")),
            packed(|packer| add(packer, "a", Facts { executable: true, ..FACTS }, b"hello")),
            packed(|packer| packer.link("a", "hello", 0).unwrap()),
            packed(|_| ()),
        ];
        for other in others {
            assert_ne!(base, other.hash);
        }
    }

    #[test]
    fn a_file_that_shrinks_is_noticed_and_one_that_grows_is_cut() {
        let mut packer = Packer::new(std::io::sink());
        let shrunk = packer.file("a", FACTS, &mut &b"hi"[..]);
        assert!(matches!(shrunk, Err(ContextError::Changed(path)) if path == "a"));
        let mut packer = Packer::new(Vec::new());
        packer.file("a", FACTS, &mut &b"hello and more"[..]).unwrap();
        assert_eq!(packer.bytes, 5);
    }
}

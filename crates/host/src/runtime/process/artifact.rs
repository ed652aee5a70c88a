//! The store of artifacts: a folder for each, named by the hash of its tree, shared and read-only. What arrives is unpacked beside it, held
//! against the hash it was announced with, made durable, and then renamed into its place.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use cutover_core::artifact::{Entry, EntryKind, leads_out, tree_hash};
use cutover_core::hash::ContentHash;
use cutover_core::layout::Layout;
use sha2::{Digest, Sha256};
use tar::{Archive, EntryType};

use crate::files::{self, FileError};

/// Why an artifact was not taken in or not removed.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// The system refused.
    #[error(transparent)]
    File(#[from] FileError),
    /// What arrived cannot be read as an archive.
    #[error("the archive of the artifact cannot be read: {0}")]
    Archive(io::Error),
    /// Something in it has no place in an artifact.
    #[error("`{path}` in the archive of the artifact {problem}")]
    Entry {
        /// Its path as written.
        path: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Something else arrived than was announced.
    #[error("the artifact that arrived is {found}, not {announced}")]
    Other {
        /// Hash of what was meant.
        announced: ContentHash,
        /// Hash of what arrived.
        found: ContentHash,
    },
}

impl ArtifactError {
    /// Whether the disk is full.
    pub fn is_full(&self) -> bool {
        match self {
            Self::File(error) => error.full,
            Self::Archive(error) => files::is_full(error),
            Self::Entry { .. } | Self::Other { .. } => false,
        }
    }
}

/// Somebody may write.
const WRITE: u32 = 0o222;
/// What is made anew by itself.
const CACHES: [&str; 1] = ["__pycache__"];

/// The artifacts of one installation. Its methods block: they read and write files.
#[derive(Debug, Clone)]
pub struct Artifacts {
    layout: Layout,
}

impl Artifacts {
    /// The store below a layout's folder of state.
    pub fn new(layout: Layout) -> Self {
        Self { layout }
    }

    /// Whether an artifact is there.
    pub fn has(&self, hash: &ContentHash) -> bool {
        self.layout.artifact(hash).is_dir()
    }

    /// All that are there, in order.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn list(&self) -> Result<Vec<ContentHash>, ArtifactError> {
        let folder = self.layout.artifacts();
        let unreadable = |error: io::Error| FileError::new("read", &folder, &error);
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(unreadable(error).into()),
        };
        let mut found = Vec::new();
        for entry in entries {
            let name = entry.map_err(unreadable)?.file_name();
            found.extend(name.to_str().and_then(ContentHash::from_hex));
        }
        found.sort();
        Ok(found)
    }

    /// Takes in a tar stream and keeps it as `hash`, durably. One that is there is left as it is, and the stream is not read.
    ///
    /// # Errors
    /// An archive that would leave its folder, holds what is no file or link, or is not what was announced; a full disk. Nothing of it stays.
    pub fn receive(&self, archive: impl Read, hash: &ContentHash) -> Result<(), ArtifactError> {
        if self.has(hash) {
            return Ok(());
        }
        let place = self.layout.artifact(hash);
        files::ensure_folder(&self.layout.artifacts(), 0o755)?;
        let next = files::beside(&place);
        let received = unpack(archive, &next, hash).and_then(|()| put(&next, &place));
        if received.is_err() {
            discard(&next);
        }
        match received {
            // Another session brought the same one meanwhile.
            Err(_) if self.has(hash) => Ok(()),
            received => received,
        }
    }

    /// Names of what was written into an artifact since it came: all of it was sealed then, but for the root, where an app may write. What
    /// cannot be looked at counts as not written.
    pub(crate) fn written(&self, hash: &ContentHash) -> BTreeSet<String> {
        let listed = fs::read_dir(self.layout.artifact(hash)).into_iter().flatten().flatten();
        let is_new = |entry: &fs::DirEntry| {
            entry.metadata().is_ok_and(|found| !found.is_symlink() && found.mode() & WRITE != 0)
        };
        listed
            .filter(is_new)
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| !CACHES.contains(&name.as_str()))
            .collect()
    }

    /// Removes an artifact; absent: nothing. It is out of its place at once, before its files go.
    ///
    /// # Errors
    /// When it is still there.
    pub fn remove(&self, hash: &ContentHash) -> Result<(), ArtifactError> {
        let place = self.layout.artifact(hash);
        let gone = files::beside(&place);
        match fs::rename(&place, &gone) {
            Ok(()) => files::sync_folder(files::folder_of(&place))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(FileError::new("remove", &place, &error).into()),
        }
        discard(&gone);
        Ok(())
    }
}

fn unpack(archive: impl Read, next: &Path, announced: &ContentHash) -> Result<(), ArtifactError> {
    make_folder(next)?;
    let mut tree =
        Tree { root: next, entries: Vec::new(), folders: vec![next.to_owned()], links: BTreeMap::new() };
    let mut archive = Archive::new(archive);
    for entry in archive.entries().map_err(ArtifactError::Archive)? {
        tree.add(entry.map_err(ArtifactError::Archive)?)?;
    }
    tree.refuse_outside()?;
    let found = tree_hash(&tree.entries);
    if found != *announced {
        return Err(ArtifactError::Other { announced: announced.clone(), found });
    }
    tree.seal()
}

/// A tree that is being unpacked.
struct Tree<'a> {
    root: &'a Path,
    entries: Vec<Entry>,
    folders: Vec<PathBuf>,
    /// The links among the entries, and where they lead.
    links: BTreeMap<String, String>,
}

impl Tree<'_> {
    fn add<R: Read>(&mut self, mut entry: tar::Entry<'_, R>) -> Result<(), ArtifactError> {
        let shown = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let wrong = |problem| ArtifactError::Entry { path: shown.clone(), problem };
        let kind = entry.header().entry_type();
        let path = entry.path().map_err(ArtifactError::Archive)?.into_owned();
        let Some(parts) = parts(&path) else { return Err(wrong("has a path that leaves it")) };
        if kind == EntryType::Directory || matches!(kind, EntryType::XGlobalHeader) {
            // A folder is made when something lies in it.
            return Ok(());
        }
        let (Some((_, above)), false) = (parts.split_last(), self.is_known(&parts)) else {
            return Err(wrong("is there twice"));
        };
        self.make_above(above).map_err(|error| match error {
            Above::System(error) => error.into(),
            Above::NoFolder => wrong("lies below something that is no folder"),
        })?;
        let target = self.root.join(parts.join("/"));
        let (kind, content) = match kind {
            EntryType::Regular | EntryType::Continuous => file(&mut entry, &target)?,
            EntryType::Symlink => {
                let link = entry.link_name().map_err(ArtifactError::Archive)?.unwrap_or_default();
                std::os::unix::fs::symlink(&link, &target)
                    .map_err(|error| FileError::new("make", &target, &error))?;
                self.links.insert(parts.join("/"), link.to_string_lossy().into_owned());
                (EntryKind::Symlink, ContentHash::of(link.as_os_str().as_encoded_bytes()))
            }
            _ => return Err(wrong("is neither a file nor a symbolic link")),
        };
        self.entries.push(Entry { path: parts.join("/"), kind, content });
        Ok(())
    }

    /// Only the whole tree tells where a link leads.
    fn refuse_outside(&self) -> Result<(), ArtifactError> {
        match self.links.keys().find(|path| leads_out(path, &self.links)) {
            Some(path) => {
                Err(ArtifactError::Entry { path: path.clone(), problem: "is a symbolic link that leaves it" })
            }
            None => Ok(()),
        }
    }

    fn is_known(&self, parts: &[String]) -> bool {
        fs::symlink_metadata(self.root.join(parts.join("/"))).is_ok()
    }

    /// Makes the folders above an entry; nothing is ever written through a link.
    fn make_above(&mut self, above: &[String]) -> Result<(), Above> {
        let mut folder = self.root.to_owned();
        for part in above {
            folder.push(part);
            match fs::symlink_metadata(&folder) {
                Ok(metadata) if metadata.is_dir() => {}
                Ok(_) => return Err(Above::NoFolder),
                Err(_) => {
                    make_folder(&folder).map_err(Above::System)?;
                    self.folders.push(folder.clone());
                }
            }
        }
        Ok(())
    }

    /// Read-only and durable.
    fn seal(&self) -> Result<(), ArtifactError> {
        for folder in &self.folders {
            // The root itself can be sealed only where a rename needs no right on it, which is for its owner everywhere but on itself.
            let mode = if folder == self.root { 0o755 } else { 0o555 };
            fs::set_permissions(folder, Permissions::from_mode(mode))
                .map_err(|error| FileError::new("seal", folder, &error))?;
        }
        // A link has no content of its own: it lasts with its folder.
        let files = self.entries.iter().filter(|entry| entry.kind != EntryKind::Symlink);
        let all: Vec<_> = files.map(|entry| self.root.join(&entry.path)).collect();
        Ok(files::sync_together(&[all.as_slice(), &self.folders].concat())?)
    }
}

enum Above {
    System(FileError),
    NoFolder,
}

fn file<R: Read>(
    entry: &mut tar::Entry<'_, R>,
    target: &Path,
) -> Result<(EntryKind, ContentHash), ArtifactError> {
    let executable = entry.header().mode().map_err(ArtifactError::Archive)? & 0o100 != 0;
    let unwritten = |error: io::Error| FileError::new("write", target, &error);
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(target).map_err(unwritten)?;
    let (mut hasher, mut buffer) = (Sha256::new(), vec![0; 64 * 1024]);
    loop {
        let count = entry.read(&mut buffer).map_err(ArtifactError::Archive)?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
        file.write_all(&buffer[..count]).map_err(unwritten)?;
    }
    let mode = if executable { 0o555 } else { 0o444 };
    file.set_permissions(Permissions::from_mode(mode)).map_err(unwritten)?;
    let content = ContentHash::from_digest(hasher.finalize().as_slice());
    Ok((if executable { EntryKind::Executable } else { EntryKind::File }, content))
}

fn make_folder(folder: &Path) -> Result<(), FileError> {
    let made = DirBuilder::new().mode(0o755).create(folder);
    made.map_err(|error| FileError::new("make the folder", folder, &error))
}

fn put(next: &Path, place: &Path) -> Result<(), ArtifactError> {
    fs::rename(next, place).map_err(|error| FileError::new("rename", next, &error))?;
    Ok(files::sync_folder(files::folder_of(place))?)
}

/// The names a path is made of; `None`: it is not below where it is unpacked.
fn parts(path: &Path) -> Option<Vec<String>> {
    let mut parts = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => parts.push(name.to_str()?.to_owned()),
            Component::CurDir => {}
            Component::RootDir | Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(parts)
}

/// Removes a tree whose folders may be read-only.
fn discard(folder: &Path) {
    if let Err(error) = open_up(folder).and_then(|()| fs::remove_dir_all(folder))
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(folder = %folder.display(), %error, "a left-over could not be removed");
    }
}

pub(crate) fn open_up(folder: &Path) -> io::Result<()> {
    fs::set_permissions(folder, Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_up(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Given {
        path: &'static str,
        kind: EntryType,
        content: &'static str,
        mode: u32,
    }

    fn file(path: &'static str, content: &'static str) -> Given {
        Given { path, kind: EntryType::Regular, content, mode: 0o644 }
    }

    fn link(path: &'static str, to: &'static str) -> Given {
        Given { path, kind: EntryType::Symlink, content: to, mode: 0o777 }
    }

    /// Written by hand, because the library refuses to write what must be refused when read.
    fn archive(given: &[Given]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for Given { path, kind, content, mode } in given {
            let mut header = tar::Header::new_ustar();
            header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
            header.set_mode(*mode);
            header.set_entry_type(*kind);
            if *kind == EntryType::Symlink || *kind == EntryType::Link {
                header.as_mut_bytes()[157..157 + content.len()].copy_from_slice(content.as_bytes());
                header.set_size(0);
                header.set_cksum();
                bytes.extend_from_slice(header.as_bytes());
            } else {
                header.set_size(content.len() as u64);
                header.set_cksum();
                bytes.extend_from_slice(header.as_bytes());
                bytes.extend_from_slice(content.as_bytes());
                bytes.resize(bytes.len().next_multiple_of(512), 0);
            }
        }
        bytes.resize(bytes.len() + 1024, 0);
        bytes
    }

    fn hash_of(given: &[Given]) -> ContentHash {
        let entries: Vec<Entry> = given
            .iter()
            .map(|Given { path, kind, content, mode }| Entry {
                path: (*path).to_owned(),
                kind: match kind {
                    EntryType::Symlink => EntryKind::Symlink,
                    _ if mode & 0o100 != 0 => EntryKind::Executable,
                    _ => EntryKind::File,
                },
                content: ContentHash::of(content.as_bytes()),
            })
            .collect();
        tree_hash(&entries)
    }

    fn store() -> (tempfile::TempDir, Artifacts) {
        let root = tempfile::tempdir().unwrap();
        let artifacts = Artifacts::new(Layout::under(root.path()));
        (root, artifacts)
    }

    #[test]
    fn an_artifact_is_received_listed_and_removed() {
        let (_root, artifacts) = store();
        let given = [
            Given { mode: 0o755, ..file("bin/server", "#!/bin/sh\n") },
            file("templates/index.html", "hello"),
            link("current", "bin/server"),
        ];
        let hash = hash_of(&given);

        artifacts.receive(archive(&given).as_slice(), &hash).unwrap();
        artifacts.receive(io::empty(), &hash).unwrap();

        let folder = artifacts.layout.artifact(&hash);
        assert_eq!(fs::read_to_string(folder.join("templates/index.html")).unwrap(), "hello");
        assert_eq!(fs::metadata(folder.join("current")).unwrap().permissions().mode() & 0o777, 0o555);
        assert_eq!(artifacts.list().unwrap(), std::slice::from_ref(&hash));
        assert_eq!(artifacts.written(&hash), BTreeSet::new());
        fs::create_dir(folder.join("__pycache__")).unwrap();
        fs::write(folder.join("app.db"), "written by the app").unwrap();
        assert_eq!(artifacts.written(&hash), BTreeSet::from(["app.db".to_owned()]));
        artifacts.remove(&hash).unwrap();
        artifacts.remove(&hash).unwrap();
        assert_eq!(fs::read_dir(artifacts.layout.artifacts()).unwrap().count(), 0);
    }

    #[test]
    fn what_would_leave_its_folder_is_refused_and_nothing_stays() {
        let (root, artifacts) = store();
        let bad: [(&str, Vec<Given>); 9] = [
            ("leaves", vec![file("../out", "x")]),
            ("leaves", vec![file("/etc/out", "x")]),
            ("leaves", vec![link("a", "/etc")]),
            ("leaves", vec![link("a/b", "../../etc")]),
            ("leaves", vec![link("x/y", ".."), link("z", "x/y/../etc")]),
            ("no folder", vec![link("a", "b"), file("a/c", "x")]),
            ("twice", vec![file("a", "x"), file("a", "y")]),
            ("neither", vec![Given { kind: EntryType::Link, ..link("a", "b") }]),
            ("neither", vec![Given { kind: EntryType::Fifo, ..file("a", "") }]),
        ];
        for (problem, given) in bad {
            let error = artifacts.receive(archive(&given).as_slice(), &hash_of(&given)).unwrap_err();
            assert!(error.to_string().contains(problem), "{error} is not `{problem}`");
        }
        assert_eq!(fs::read_dir(artifacts.layout.artifacts()).unwrap().count(), 0);
        assert!(!root.path().join("out").exists());
    }

    #[test]
    fn another_content_than_announced_is_refused() {
        let (_root, artifacts) = store();
        let announced = hash_of(&[file("a", "meant")]);
        let error = artifacts.receive(archive(&[file("a", "sent")]).as_slice(), &announced).unwrap_err();
        assert!(matches!(error, ArtifactError::Other { .. }), "{error}");
        let mut cut = archive(&[file("a", "meant")]);
        cut.truncate(514);
        assert!(artifacts.receive(cut.as_slice(), &announced).is_err());
        assert_eq!(artifacts.list().unwrap(), []);
    }
}

//! An artifact: a file or folder of the work tree, known by the hash of its tree and shipped as a tar archive.
//!
//! The archive is deterministic: names in order, no dates, no owners. Links that lead out of the artifact are refused, since on the host
//! they would lead to something else.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use cutover_core::artifact::{Entry, EntryKind, leads_out, tree_hash};
use cutover_core::hash::ContentHash;
use sha2::{Digest, Sha256};

const PIECE: usize = 128 * 1024;

/// An artifact that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Artifact {
    /// The folder its entries' paths begin at.
    folder: PathBuf,
    entries: Vec<Entry>,
    /// The hash of its tree.
    pub(crate) hash: ContentHash,
}

/// Why there is no artifact.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArtifactError {
    /// Nothing is there.
    #[error("{0} is not there")]
    Missing(String),
    /// It has no files.
    #[error("{0} has no files in it")]
    Empty(String),
    /// Neither file nor folder nor link.
    #[error("{0} is neither a file, a folder nor a symbolic link")]
    Kind(String),
    /// A link where a file or folder of the repository was meant.
    #[error("{0} is a symbolic link")]
    Link(String),
    /// It is one of those that never leave.
    #[error("{0} holds secrets, or the repository itself")]
    Never(String),
    /// A link that leads somewhere else.
    #[error("the symbolic link {link} leads out of the artifact, to {target}")]
    Outside { link: String, target: String },
    /// It could not be read.
    #[error("{path}: {error}")]
    Read { path: String, error: std::io::Error },
}

impl Artifact {
    /// Looks at `path` below `folder`, and hashes what is there, less what `never` names: paths below `folder`, too.
    pub(crate) fn look(folder: &Path, path: &str, never: &BTreeSet<String>) -> Result<Self, ArtifactError> {
        let place = folder.join(path);
        if never.contains(path) || Path::new(path).file_name().is_some_and(is_env_file) {
            return Err(ArtifactError::Never(path.to_owned()));
        }
        let found = fs::metadata(&place).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => ArtifactError::Missing(path.to_owned()),
            _ => ArtifactError::Read { path: path.to_owned(), error },
        })?;
        let (folder, names) = if found.is_dir() {
            let mut names = Vec::new();
            let never: BTreeSet<PathBuf> =
                never.iter().filter_map(|one| below(path, one)).map(PathBuf::from).collect();
            gather(&place, Path::new(""), &never, &mut names)?;
            (place, names)
        } else if place.is_symlink() {
            return Err(ArtifactError::Link(path.to_owned()));
        } else {
            let name = place.file_name().ok_or_else(|| ArtifactError::Kind(path.to_owned()))?;
            (place.parent().unwrap_or(folder).to_owned(), vec![PathBuf::from(name)])
        };
        if names.is_empty() {
            return Err(ArtifactError::Empty(path.to_owned()));
        }
        let entries = names.iter().map(|name| entry(&folder, name)).collect::<Result<Vec<_>, _>>()?;
        refuse_outside(&folder, &entries)?;
        Ok(Self { hash: tree_hash(&entries), folder, entries })
    }

    /// Its file's name, when it is a single file.
    pub(crate) fn single(&self, place: &Path) -> Option<String> {
        let [only] = self.entries.as_slice() else { return None };
        (!place.is_dir()).then(|| only.path.clone())
    }

    /// The artifact as a tar archive in a file without a name. The host hashes what arrives: a file that changed since the look is found there.
    pub(crate) fn pack(&self) -> std::io::Result<File> {
        let mut archive = tar::Builder::new(tempfile::tempfile()?);
        archive.mode(tar::HeaderMode::Deterministic);
        archive.follow_symlinks(false);
        for entry in &self.entries {
            self.append(&mut archive, entry)?;
        }
        let mut file = archive.into_inner()?;
        file.seek(SeekFrom::Start(0))?;
        Ok(file)
    }

    fn append(&self, archive: &mut tar::Builder<File>, entry: &Entry) -> std::io::Result<()> {
        let path = self.folder.join(&entry.path);
        let mut header = tar::Header::new_gnu();
        header.set_mtime(0);
        match entry.kind {
            EntryKind::Symlink => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_size(0);
                header.set_mode(0o777);
                archive.append_link(&mut header, &entry.path, fs::read_link(path)?)
            }
            EntryKind::File | EntryKind::Executable => {
                let file = File::open(path)?;
                let bytes = file.metadata()?.len();
                header.set_entry_type(tar::EntryType::Regular);
                header.set_size(bytes);
                header.set_mode(if entry.kind == EntryKind::Executable { 0o755 } else { 0o644 });
                archive.append_data(&mut header, &entry.path, file.take(bytes))
            }
        }
    }
}

/// What env files are called, whoever reads them: they hold secrets (P6).
pub(super) const ENV_FILES: [&str; 2] = [".env", ".env.*"];
/// Of those the ones that are written for people, without a secret.
pub(super) const ENV_SAMPLES: [&str; 4] = [".env.example", ".env.sample", ".env.template", ".env.dist"];

/// Whether a file of that name is one of [`ENV_FILES`] and none of [`ENV_SAMPLES`].
fn is_env_file(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    let is_env = name.strip_prefix(".env").is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    is_env && !ENV_SAMPLES.contains(&name.as_ref())
}

/// A path as seen from the folder `of`; `None`: it does not lie below it.
pub(super) fn below<'path>(of: &str, path: &'path str) -> Option<&'path str> {
    if of == "." { Some(path) } else { path.strip_prefix(of)?.strip_prefix('/') }
}

/// The names of all files and links below `folder`, in order.
fn gather(
    folder: &Path,
    below: &Path,
    never: &BTreeSet<PathBuf>,
    names: &mut Vec<PathBuf>,
) -> Result<(), ArtifactError> {
    let here = folder.join(below);
    let read_error = |error| ArtifactError::Read { path: here.display().to_string(), error };
    let listed = fs::read_dir(&here).map_err(read_error)?.collect::<Result<Vec<_>, _>>();
    let mut found = listed.map_err(read_error)?;
    found.sort_by_key(fs::DirEntry::file_name);
    for one in found {
        let name = below.join(one.file_name());
        if never.contains(&name) || is_env_file(&one.file_name()) {
            continue;
        }
        if one.file_type().map_err(read_error)?.is_dir() {
            gather(folder, &name, never, names)?;
        } else {
            names.push(name);
        }
    }
    Ok(())
}

fn entry(folder: &Path, name: &Path) -> Result<Entry, ArtifactError> {
    let path = folder.join(name);
    let shown = name.display().to_string();
    let read_error = |error| ArtifactError::Read { path: shown.clone(), error };
    let found = fs::symlink_metadata(&path).map_err(read_error)?;
    let (kind, content) = if found.is_symlink() {
        let target = fs::read_link(&path).map_err(read_error)?;
        (EntryKind::Symlink, ContentHash::of(target.as_os_str().as_encoded_bytes()))
    } else if found.is_file() {
        let executable = found.permissions().mode() & 0o100 != 0;
        let kind = if executable { EntryKind::Executable } else { EntryKind::File };
        (kind, hash_of(&path).map_err(read_error)?)
    } else {
        return Err(ArtifactError::Kind(shown));
    };
    let parts: Vec<String> =
        name.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
    Ok(Entry { path: parts.join("/"), kind, content })
}

/// Refuses a link that leads out of the tree, by itself or by others that it leads through.
fn refuse_outside(folder: &Path, entries: &[Entry]) -> Result<(), ArtifactError> {
    let mut links = BTreeMap::new();
    for entry in entries.iter().filter(|entry| entry.kind == EntryKind::Symlink) {
        let target = fs::read_link(folder.join(&entry.path))
            .map_err(|error| ArtifactError::Read { path: entry.path.clone(), error })?;
        links.insert(entry.path.clone(), target.to_string_lossy().into_owned());
    }
    match links.iter().find(|(path, _)| leads_out(path, &links)) {
        Some((link, target)) => Err(ArtifactError::Outside { link: link.clone(), target: target.clone() }),
        None => Ok(()),
    }
}

fn hash_of(path: &Path) -> std::io::Result<ContentHash> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut piece = vec![0; PIECE];
    loop {
        match file.read(&mut piece)? {
            0 => break,
            read => hasher.update(&piece[..read]),
        }
    }
    let digits = hasher.finalize().iter().fold(String::new(), |digits, byte| digits + &format!("{byte:02x}"));
    ContentHash::from_hex(&digits).ok_or_else(|| std::io::Error::other("a hash has 64 digits"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn write(folder: &Path, name: &str, content: &str, mode: u32) {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn sample() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "web/app", "binary", 0o755);
        write(folder.path(), "web/pages/index.html", "hello", 0o644);
        symlink("pages/index.html", folder.path().join("web/start")).unwrap();
        folder
    }

    fn look(folder: &Path, path: &str) -> Result<Artifact, ArtifactError> {
        Artifact::look(folder, path, &BTreeSet::new())
    }

    #[test]
    fn the_archive_has_what_the_hash_was_made_from() {
        let folder = sample();
        let artifact = look(folder.path(), "web").unwrap();
        let file = artifact.pack().unwrap();
        let target = tempfile::tempdir().unwrap();
        tar::Archive::new(file).unpack(target.path().join("web")).unwrap();
        assert_eq!(look(target.path(), "web").unwrap().hash, artifact.hash);
    }

    #[test]
    fn contents_rights_and_links_are_told_apart() {
        let folder = sample();
        let first = look(folder.path(), "web").unwrap().hash;
        write(folder.path(), "web/pages/index.html", "hello!", 0o644);
        let second = look(folder.path(), "web").unwrap().hash;
        write(folder.path(), "web/pages/index.html", "hello!", 0o744);
        let third = look(folder.path(), "web").unwrap().hash;
        assert!(first != second && second != third);
    }

    #[test]
    fn a_single_file_is_an_artifact_under_its_own_name() {
        let folder = sample();
        let artifact = look(folder.path(), "web/app").unwrap();
        assert_eq!(artifact.entries.iter().map(|entry| entry.path.as_str()).collect::<Vec<_>>(), ["app"]);
    }

    #[test]
    fn what_cannot_be_shipped_is_refused_by_name() {
        let folder = sample();
        let error = |path: &str| look(folder.path(), path).unwrap_err().to_string();
        assert_eq!(error("absent"), "absent is not there");
        fs::create_dir(folder.path().join("empty")).unwrap();
        assert_eq!(error("empty"), "empty has no files in it");
        symlink("../../etc/passwd", folder.path().join("web/pages/out")).unwrap();
        assert!(error("web").starts_with("the symbolic link pages/out leads out"));
        assert_eq!(error("web/start"), "web/start is a symbolic link");
    }

    #[test]
    fn secrets_and_the_repository_itself_stay_here() {
        let folder = sample();
        write(folder.path(), ".env", "TOKEN=secret", 0o600);
        write(folder.path(), ".git/config", "", 0o644);
        write(folder.path(), "web/private/app.env", "KEY=secret", 0o600);
        for path in ["web/.env.production", "web/pages/.env", "web/pages/.env.bak"] {
            write(folder.path(), path, "TOKEN=secret", 0o600);
        }
        write(folder.path(), "web/.env.example", "TOKEN=", 0o644);
        write(folder.path(), "web/.environment", "", 0o644);
        let never = BTreeSet::from([".env", ".git", "web/private/app.env"].map(str::to_owned));
        let names = |path: &str| {
            let artifact = Artifact::look(folder.path(), path, &never).unwrap();
            artifact.entries.into_iter().map(|entry| entry.path).collect::<Vec<_>>()
        };
        let all = ["web/.env.example", "web/.environment", "web/app", "web/pages/index.html", "web/start"];
        assert_eq!(names("."), all);
        assert_eq!(names("web"), all.map(|path| &path["web/".len()..]));
        for path in [".env", "web/.env.production"] {
            let error = Artifact::look(folder.path(), path, &never).unwrap_err();
            assert!(matches!(error, ArtifactError::Never(_)), "{error}");
        }
    }
}

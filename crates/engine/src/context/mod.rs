//! What a build gets to see: a clean export of a commit, or the work tree, less what `.dockerignore` leaves out, as a
//! stream of tar. Nothing is unpacked to disk and nothing is held whole in memory.
//!
//! Limits: the content of git submodules is not exported, and files kept by git-lfs are what git's own filters make of
//! them. Attributes `export-ignore` and `export-subst` act as in `git archive`.

mod commit;
mod ignore;
mod pack;
mod stream;
mod work_tree;

use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

pub use commit::Commit;
pub use pack::Packed;
pub use stream::ContextStream;

use ignore::Rules;
use pack::Packer;

/// Where the files of a context come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContextSource {
    /// A commit, whatever the work tree looks like.
    Commit(Commit),
    /// The files as they lie there, less those git ignores.
    WorkTree,
}

/// A build's context, looked at but not yet read.
#[derive(Debug, Clone)]
pub struct Context {
    files: Files,
    dockerfile: String,
}

#[derive(Debug, Clone)]
enum Files {
    /// Those of a place that the rules do not leave out.
    Of(Origin, Rules),
    /// All of an archive that was made of a context elsewhere.
    Archive(Arc<std::fs::File>),
}

#[derive(Debug, Clone)]
enum Origin {
    Commit { commit: Commit, folder: String },
    Folder(PathBuf),
}

/// Why a context cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// Git said no, or is not there.
    #[error("git {command}: {message}")]
    Git {
        /// What it was asked.
        command: String,
        /// Its words.
        message: String,
    },
    /// The folder is not there.
    #[error("the build context {0} is not a folder")]
    NoFolder(String),
    /// A path that leads out of the repository or the context.
    #[error("{0} leads out of {1}")]
    Outside(String, &'static str),
    /// There is nothing to build by.
    #[error("there is no {dockerfile} in {place}")]
    NoDockerfile {
        /// Its path in the context.
        dockerfile: String,
        /// The folder or commit looked at.
        place: String,
    },
    /// A line of the ignore file makes no sense.
    #[error("{file} line {line}: {problem}")]
    Ignore {
        /// Which file.
        file: String,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// A file could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A file changed while it was read.
    #[error("{0} changed while it was read; try again")]
    Changed(String),
    /// Whoever read the stream stopped reading.
    #[error("the reader of the build context went away")]
    CutOff,
}

impl Context {
    /// Looks at a context: `path` is relative to `folder`, which is where the app's configuration lies; `dockerfile` is
    /// relative to the context. `never` holds further patterns, in the form of `.dockerignore`, that no line of that
    /// file can bring back: env files above all.
    pub async fn open(
        source: ContextSource,
        folder: &Path,
        path: &str,
        dockerfile: &str,
        never: &[String],
    ) -> Result<Self, ContextError> {
        let (folder, path, never) = (folder.to_owned(), path.to_owned(), never.to_vec());
        let dockerfile = inside("", dockerfile)
            .filter(|dockerfile| !dockerfile.is_empty())
            .ok_or_else(|| ContextError::Outside(dockerfile.to_owned(), "the build context"))?;
        let opened =
            tokio::task::spawn_blocking(move || Self::look(source, &folder, &path, dockerfile, &never));
        opened.await.unwrap_or(Err(ContextError::CutOff))
    }

    fn look(
        source: ContextSource,
        folder: &Path,
        path: &str,
        dockerfile: String,
        never: &[String],
    ) -> Result<Self, ContextError> {
        let origin = match source {
            ContextSource::Commit(commit) => Origin::Commit { folder: commit::folder(folder, path)?, commit },
            ContextSource::WorkTree => {
                let context = folder.join(path);
                if !context.is_dir() {
                    return Err(ContextError::NoFolder(context.display().to_string()));
                }
                Origin::Folder(context)
            }
        };
        if !origin.has(&dockerfile)? {
            return Err(ContextError::NoDockerfile { dockerfile, place: origin.place() });
        }
        let rules = origin.rules(&dockerfile, never)?;
        Ok(Self { files: Files::Of(origin, rules), dockerfile })
    }

    /// A context that was made elsewhere, and came as an archive: all of it is part of the build.
    pub fn archive(archive: Arc<std::fs::File>, dockerfile: &str) -> Self {
        Self { files: Files::Archive(archive), dockerfile: dockerfile.to_owned() }
    }

    /// Writes the context as tar into a file.
    pub async fn write_into(&self, file: std::fs::File) -> Result<Packed, ContextError> {
        let context = self.clone();
        let written = tokio::task::spawn_blocking(move || context.write(std::io::BufWriter::new(file)));
        written.await.unwrap_or(Err(ContextError::CutOff))
    }

    /// Path of the Dockerfile in the context.
    pub fn dockerfile(&self) -> &str {
        &self.dockerfile
    }

    /// Hash of all that is sent: paths, contents, which files can be run, where links lead; no dates and no owners, so
    /// that the same content has the same hash, from a commit as from a work tree.
    pub async fn hash(&self) -> Result<Packed, ContextError> {
        let context = self.clone();
        let hashed = tokio::task::spawn_blocking(move || context.write(std::io::sink()));
        hashed.await.unwrap_or(Err(ContextError::CutOff))
    }

    /// The context as tar, made as it is read.
    pub fn stream(&self) -> ContextStream {
        let context = self.clone();
        ContextStream::start(move |writer| context.write(writer))
    }

    fn write(&self, mut writer: impl std::io::Write) -> Result<Packed, ContextError> {
        let (origin, rules) = match &self.files {
            Files::Archive(archive) => return copy(archive, &mut writer),
            Files::Of(origin, rules) => (origin, rules),
        };
        let mut packer = Packer::new(writer);
        match origin {
            Origin::Commit { commit, folder } => commit::export(commit, folder, rules, &mut packer)?,
            Origin::Folder(folder) => work_tree::export(folder, rules, &mut packer)?,
        }
        packer.finish()
    }
}

/// An archive as it is; what of it is hashed was hashed when it came.
fn copy(mut archive: &std::fs::File, writer: &mut impl std::io::Write) -> Result<Packed, ContextError> {
    let unread = |source| ContextError::Read { path: "the archive that was sent".to_owned(), source };
    archive.seek(SeekFrom::Start(0)).map_err(unread)?;
    let mut bytes = 0;
    let mut piece = vec![0; 256 * 1024];
    loop {
        let read = archive.read(&mut piece).map_err(unread)?;
        if read == 0 {
            break;
        }
        writer.write_all(&piece[..read]).map_err(|_| ContextError::CutOff)?;
        bytes += read as u64;
    }
    writer.flush().map_err(|_| ContextError::CutOff)?;
    Ok(Packed { hash: String::new(), files: 0, bytes })
}

impl Origin {
    fn has(&self, file: &str) -> Result<bool, ContextError> {
        match self {
            Self::Commit { commit, folder } => commit::has(commit, &joined(folder, file)),
            Self::Folder(context) => Ok(context.join(file).is_file()),
        }
    }

    fn read(&self, file: &str) -> Result<Vec<u8>, ContextError> {
        match self {
            Self::Commit { commit, folder } => commit::read(commit, &joined(folder, file)),
            Self::Folder(context) => std::fs::read(context.join(file))
                .map_err(|source| ContextError::Read { path: file.to_owned(), source }),
        }
    }

    fn place(&self) -> String {
        match self {
            Self::Commit { commit, folder } if folder.is_empty() => format!("commit {}", commit.hash),
            Self::Commit { commit, folder } => format!("{folder} at commit {}", commit.hash),
            Self::Folder(context) => context.display().to_string(),
        }
    }

    /// An ignore file of the Dockerfile's own goes before the folder's.
    fn rules(&self, dockerfile: &str, never: &[String]) -> Result<Rules, ContextError> {
        let mut rules = Rules::default();
        for file in [format!("{dockerfile}.dockerignore"), ".dockerignore".to_owned()] {
            if self.has(&file)? {
                let text = self.read(&file)?;
                rules = Rules::parse(&String::from_utf8_lossy(&text))
                    .map_err(|(line, problem)| ContextError::Ignore { file: file.clone(), line, problem })?;
                // The builder reads these two itself, so they are sent even if they are ignored.
                rules.keep(&[dockerfile, &file]);
                break;
            }
        }
        rules.never(never).map_err(|(line, problem)| ContextError::Ignore {
            file: "the patterns never sent".to_owned(),
            line,
            problem,
        })?;
        Ok(rules)
    }
}

/// `base/path` with its dots resolved and `/` between names; `None` where it leads out of the root, or is absolute.
fn inside(base: &str, path: &str) -> Option<String> {
    let mut names: Vec<String> = Vec::new();
    for component in Path::new(base).components().chain(Path::new(path).components()) {
        match component {
            Component::Normal(name) => names.push(name.to_string_lossy().into_owned()),
            Component::CurDir => {}
            Component::ParentDir => drop(names.pop()?),
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(names.join("/"))
}

fn joined(folder: &str, file: &str) -> String {
    if folder.is_empty() { file.to_owned() } else { format!("{folder}/{file}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside() {
        let cases = [
            ("", ".", Some("")),
            ("app", "frontend", Some("app/frontend")),
            ("app", "../shared/./x", Some("shared/x")),
            ("", "..", None),
            ("app", "../..", None),
            ("app", "/etc", None),
        ];
        for (base, path, expected) in cases {
            assert_eq!(inside(base, path).as_deref(), expected, "{base} {path}");
        }
    }
}

//! A clean export of a commit, by the system's git: whatever the work tree looks like, the build sees the commit.

use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tar::EntryType;

use super::ignore::Rules;
use super::pack::{Facts, Packer};
use super::{ContextError, inside};

/// A commit of a repository that is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// In full.
    pub hash: String,
    /// When it was made, in seconds since 1970.
    pub time: i64,
    /// Top folder of its repository.
    pub repository: PathBuf,
}

impl Commit {
    /// The commit that `reference` (`HEAD`, a tag, a branch, a hash) means in the repository around `folder`.
    pub async fn find(folder: &Path, reference: &str) -> Result<Self, ContextError> {
        let (folder, reference) = (folder.to_owned(), reference.to_owned());
        let found = tokio::task::spawn_blocking(move || Self::look(&folder, &reference));
        found.await.unwrap_or(Err(ContextError::CutOff))
    }

    fn look(folder: &Path, reference: &str) -> Result<Self, ContextError> {
        let repository = PathBuf::from(line(folder, &["rev-parse", "--show-toplevel"])?);
        // What people write must not be read as an option.
        let wanted = format!("{reference}^{{commit}}");
        let hash = line(folder, &["rev-parse", "--verify", "--end-of-options", &wanted])?;
        let time = line(folder, &["show", "--no-patch", "--format=%ct", &hash])?;
        Ok(Self { time: time.parse().unwrap_or(0), hash, repository })
    }
}

/// The context's path from the top of the repository that `folder` lies in.
pub(super) fn folder(folder: &Path, path: &str) -> Result<String, ContextError> {
    let prefix = line(folder, &["rev-parse", "--show-prefix"])?;
    inside(&prefix, path).ok_or_else(|| ContextError::Outside(path.to_owned(), "the repository"))
}

/// Whether the commit has a file at that path.
pub(super) fn has(commit: &Commit, path: &str) -> Result<bool, ContextError> {
    let listed =
        output(&commit.repository, &["--literal-pathspecs", "ls-tree", "-z", &commit.hash, "--", path])?;
    Ok(String::from_utf8_lossy(&listed).split('\0').any(|entry| entry.split(' ').nth(1) == Some("blob")))
}

pub(super) fn read(commit: &Commit, path: &str) -> Result<Vec<u8>, ContextError> {
    output(&commit.repository, &["cat-file", "blob", &format!("{}:{path}", commit.hash)])
}

/// Sends every file below `folder` that the rules do not leave out.
pub(super) fn export(
    commit: &Commit,
    folder: &str,
    rules: &Rules,
    packer: &mut Packer<impl Write>,
) -> Result<(), ContextError> {
    let mut words = vec!["--literal-pathspecs", "archive", "--format=tar", commit.hash.as_str()];
    if !folder.is_empty() {
        words.extend(["--", folder]);
    }
    let mut archive = Archive::start(&commit.repository, &words)?;
    let entries = archive.entries(folder, rules, packer);
    // Git's own words come first: a cut archive is what a failed git looks like.
    let ended = archive.end(entries.is_ok());
    ended.and(entries)
}

/// A running `git archive`; ended also when it is dropped half-way.
struct Archive {
    git: Child,
    command: String,
    done: bool,
}

impl Archive {
    fn start(repository: &Path, words: &[&str]) -> Result<Self, ContextError> {
        let git = git(repository, words)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| failed(words, error.to_string()))?;
        Ok(Self { git, command: words.join(" "), done: false })
    }

    fn entries(
        &mut self,
        folder: &str,
        rules: &Rules,
        packer: &mut Packer<impl Write>,
    ) -> Result<(), ContextError> {
        let Some(output) = self.git.stdout.take() else { return Ok(()) };
        let mut archive = tar::Archive::new(BufReader::with_capacity(256 * 1024, output));
        let broken = |source| ContextError::Read { path: "the archive git makes".to_owned(), source };
        for entry in archive.entries().map_err(broken)? {
            let mut entry = entry.map_err(broken)?;
            let full = entry.path().map_err(broken)?.to_string_lossy().replace('\\', "/");
            let Some(path) = below(folder, full.trim_end_matches('/')).map(str::to_owned) else { continue };
            if rules.leave_out(&path) {
                continue;
            }
            let header = entry.header();
            let modified = header.mtime().unwrap_or(0);
            match header.entry_type() {
                EntryType::Regular => {
                    let executable = header.mode().unwrap_or(0) & 0o100 != 0;
                    let facts = Facts { executable, modified, size: entry.size() };
                    packer.file(&path, facts, &mut entry)?;
                }
                EntryType::Symlink => {
                    let target = entry.link_name().map_err(broken)?.unwrap_or_default();
                    packer.link(&path, &target.to_string_lossy(), modified)?;
                }
                // Folders come into being with what they hold; the header with the commit's hash holds no file.
                _ => {}
            }
        }
        // What follows the last entry is padding. Left unread, it would end git by a broken pipe before its own end.
        std::io::copy(&mut archive.into_inner(), &mut std::io::sink()).map_err(broken)?;
        Ok(())
    }

    fn end(&mut self, whole: bool) -> Result<(), ContextError> {
        if !whole {
            // Not read to its end, it would wait for a reader for ever. It may have ended by itself.
            self.git.kill().ok();
        }
        self.done = true;
        let mut words = String::new();
        if let Some(mut errors) = self.git.stderr.take() {
            // Only for the message.
            errors.read_to_string(&mut words).ok();
        }
        let failed = |message: String| ContextError::Git { command: self.command.clone(), message };
        let status = self.git.wait().map_err(|error| failed(error.to_string()))?;
        // Killed by us, it has no code of its own.
        if status.success() || (!whole && status.code().is_none()) {
            return Ok(());
        }
        Err(failed(words.trim().to_owned()))
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        if !self.done {
            self.git.kill().ok();
            self.git.wait().ok();
        }
    }
}

/// The path as seen from the context's folder.
fn below<'path>(folder: &str, path: &'path str) -> Option<&'path str> {
    let rest = if folder.is_empty() { path } else { path.strip_prefix(folder)?.strip_prefix('/')? };
    (!rest.is_empty()).then_some(rest)
}

fn git(folder: &Path, words: &[&str]) -> Command {
    let mut command = Command::new("git");
    // No prompt, and its words are the same everywhere.
    command
        .arg("-C")
        .arg(folder)
        .args(words)
        .env("LC_ALL", "C")
        .env("GIT_TERMINAL_PROMPT", "0")
        .stdin(Stdio::null());
    command
}

pub(super) fn output(folder: &Path, words: &[&str]) -> Result<Vec<u8>, ContextError> {
    let output = git(folder, words).output().map_err(|error| failed(words, error.to_string()))?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(failed(words, String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }
}

fn line(folder: &Path, words: &[&str]) -> Result<String, ContextError> {
    let output = output(folder, words)?;
    Ok(String::from_utf8_lossy(&output).trim_end_matches(['\n', '\r']).to_owned())
}

fn failed(words: &[&str], message: String) -> ContextError {
    ContextError::Git { command: words.join(" "), message }
}

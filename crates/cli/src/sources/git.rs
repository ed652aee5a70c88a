//! Facts of the repository, by the system's own git. Decided by exit codes and by formats made for programs, never by prose.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::release::Provenance;
use cutover_core::request::Ancestry;

/// A commit, and how it stands to the work tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Git {
    folder: PathBuf,
    /// The full id.
    pub(crate) commit: String,
    /// It is what the work tree was made from.
    pub(crate) is_head: bool,
    /// Files that git follows differ from HEAD in the work tree.
    pub(crate) dirty: bool,
    subject: String,
    repository: Option<String>,
    shallow: bool,
}

/// Why the commit that was asked for cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GitError {
    /// A commit was named, and there is no repository (or no git).
    #[error("`--commit {reference}` was asked for, and {folder} is in no git repository")]
    NoRepository { reference: String, folder: String },
    /// It is not known here.
    #[error("`{reference}` is not a commit of this repository")]
    NoCommit { reference: String },
}

impl GitError {
    /// The four answers.
    pub(crate) fn failure(&self) -> Failure {
        let failure = Failure::new(Exit::Usage, self.to_string());
        match self {
            Self::NoRepository { .. } => failure
                .because("without git there are no commits to choose from")
                .next("leave `--commit` out: what lies in the folder is deployed, and named by its content")
                .next("or go to the app's repository"),
            Self::NoCommit { .. } => failure
                .because("git knows no commit, branch or tag of that name here")
                .next("`git log --oneline --all` shows the commits there are; one of another clone is fetched first (`git fetch`)"),
        }
    }
}

impl Git {
    /// The facts of `reference` (else HEAD) in the repository around `folder`; `None` where there is none, or no commit yet.
    pub(crate) fn look(folder: &Path, reference: Option<&str>) -> Result<Option<Self>, GitError> {
        // `--end-of-options`: what people write is never read as an option.
        let named = format!("{}^{{commit}}", reference.unwrap_or("HEAD"));
        // All at once: each is a process, whose start takes longer than its answer.
        let is_repository = ask(folder, &["rev-parse", "--is-shallow-repository"]);
        let found = ask(
            folder,
            &["log", "-1", "--no-show-signature", "--format=%H%x00%s", "--end-of-options", &named, "--"],
        );
        // With a headline of what the work tree was made from.
        let status = ask(
            folder,
            &["status", "--porcelain=v2", "--branch", "--no-ahead-behind", "--untracked-files=no"],
        );
        let remote = ask(folder, &["remote", "get-url", "origin"]);
        let [is_repository, found, status, remote] = [is_repository, found, status, remote].map(answer);
        let Some(shallow) = is_repository else {
            return match reference {
                None => Ok(None),
                Some(reference) => Err(GitError::NoRepository {
                    reference: reference.to_owned(),
                    folder: folder.display().to_string(),
                }),
            };
        };
        let Some((commit, subject)) = found.as_deref().and_then(|line| line.split_once('\0')) else {
            return match reference {
                None => Ok(None),
                Some(reference) => Err(GitError::NoCommit { reference: reference.to_owned() }),
            };
        };
        let lines = || status.iter().flat_map(|status| status.lines());
        Ok(Some(Self {
            folder: folder.to_owned(),
            is_head: lines().any(|line| line.strip_prefix("# branch.oid ") == Some(commit)),
            dirty: lines().any(|line| !line.starts_with('#')),
            commit: commit.to_owned(),
            subject: subject.to_owned(),
            repository: remote.as_deref().map(normalised),
            shallow: shallow == "true",
        }))
    }

    /// What the release says of where it comes from; `used_work_tree`: a part of it is not from the commit, and differs from it as far as
    /// the work tree does, or was made from another one.
    pub(crate) fn provenance(&self, version: Option<String>, used_work_tree: bool) -> Provenance {
        Provenance {
            commit: Some(self.commit.clone()),
            subject: Some(self.subject.clone()),
            dirty: used_work_tree && (self.dirty || !self.is_head),
            version,
            repository: self.repository.clone(),
        }
    }

    /// How the commit stands to the one that is live (S27).
    pub(crate) fn ancestry(&self, live: Option<&str>) -> Ancestry {
        let Some(live) = live else { return Ancestry::NotOlder };
        if live == self.commit {
            return Ancestry::NotOlder;
        }
        // An unknown live commit gives neither 0 nor 1; in a shallow clone a "no" may only mean that the history is cut.
        let asked = run(&self.folder, &["merge-base", "--is-ancestor", &self.commit, live]);
        match asked.and_then(|output| output.status.code()) {
            Some(0) => Ancestry::Older,
            Some(1) if !self.shallow => Ancestry::NotOlder,
            _ => Ancestry::Unknown,
        }
    }
}

/// Unpacks into `target` what a commit has at `paths`, which are relative to `folder`. What it has not is not there afterwards.
pub(super) fn export(
    folder: &Path,
    commit: &str,
    paths: &BTreeSet<&str>,
    target: &Path,
) -> std::io::Result<()> {
    let has = |path: &&&str| {
        let object = if **path == "." { format!("{commit}:./") } else { format!("{commit}:./{path}") };
        run(folder, &["cat-file", "-e", &object]).is_some_and(|output| output.status.success())
    };
    let present: Vec<&str> = paths.iter().filter(has).copied().collect();
    if present.is_empty() {
        return Ok(());
    }
    let mut words = vec!["--literal-pathspecs", "archive", "--format=tar", commit, "--"];
    words.extend(present);
    let output = run(folder, &words).ok_or_else(|| std::io::Error::other("git cannot be started"))?;
    if !output.status.success() {
        return Err(std::io::Error::other("`git archive` failed"));
    }
    tar::Archive::new(output.stdout.as_slice()).unpack(target)
}

/// The text of a file of a commit, relative to `folder`; `None`: it has none there.
pub(super) fn text(folder: &Path, commit: &str, path: &str) -> Option<String> {
    answer(ask(folder, &["cat-file", "blob", &format!("{commit}:./{path}")]))
}

/// A question that git thinks about; `None`: there is no git.
fn ask(folder: &Path, words: &[&str]) -> Option<Child> {
    Command::new("git")
        .arg("-C")
        .arg(folder)
        // Looking must not write: `status` would refresh the index under a lock that others may want.
        .env("GIT_OPTIONAL_LOCKS", "0")
        .env("GIT_TERMINAL_PROMPT", "0")
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()
}

fn run(folder: &Path, words: &[&str]) -> Option<Output> {
    ask(folder, words)?.wait_with_output().ok()
}

/// What it says; `None`: it has no answer.
fn answer(asked: Option<Child>) -> Option<String> {
    let output = asked?.wait_with_output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

/// A remote as one name, however it is reached: `github.com/acme/app` (S2). Credentials in it are left out.
fn normalised(remote: &str) -> String {
    let (rest, has_scheme) = match remote.split_once("://") {
        Some((_, rest)) => (rest, true),
        None => (remote, false),
    };
    let slash = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = match rest.find(':').filter(|colon| !has_scheme && *colon < slash) {
        Some(colon) => (&rest[..colon], &rest[colon + 1..]),
        None => rest.split_at(slash),
    };
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = host.split_once(':').map_or(host, |(host, _)| host);
    let path = path.trim_matches('/');
    let path = path.strip_suffix(".git").unwrap_or(path);
    if host.is_empty() { format!("/{path}") } else { format!("{}/{path}", host.to_ascii_lowercase()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn git(folder: &Path, words: &[&str]) {
        let done = Command::new("git")
            .arg("-C")
            .arg(folder)
            .args(["-c", "user.name=Ada", "-c", "user.email=ada@example.com", "-c", "commit.gpgsign=false"])
            .args(words)
            .output()
            .unwrap();
        assert!(done.status.success(), "{words:?}: {}", String::from_utf8_lossy(&done.stderr));
    }

    fn repository() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        git(folder.path(), &["init", "-q", "-b", "main"]);
        std::fs::write(folder.path().join("file"), "one").unwrap();
        git(folder.path(), &["add", "."]);
        git(folder.path(), &["commit", "-q", "-m", "First"]);
        folder
    }

    #[test]
    fn https_and_ssh_name_the_same_repository() {
        for remote in [
            "https://github.com/acme/app.git",
            "https://token@GitHub.com/acme/app",
            "git@github.com:acme/app.git",
            "ssh://git@github.com:22/acme/app.git/",
            "git://github.com/acme/app",
        ] {
            assert_eq!(normalised(remote), "github.com/acme/app", "{remote}");
        }
        assert_eq!(normalised("/srv/git/app.git"), "/srv/git/app");
        assert_eq!(normalised("file:///srv/git/app.git"), "/srv/git/app");
    }

    #[test]
    fn a_folder_without_git_has_no_facts_and_a_named_commit_there_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Git::look(folder.path(), None).unwrap(), None);
        assert!(matches!(Git::look(folder.path(), Some("main")), Err(GitError::NoRepository { .. })));
    }

    #[test]
    fn a_changed_file_makes_the_work_tree_dirty_and_an_unfollowed_one_does_not() {
        let folder = repository();
        std::fs::write(folder.path().join("built"), "x").unwrap();
        let clean = Git::look(folder.path(), None).unwrap().unwrap();
        assert!(!clean.dirty && clean.is_head);
        std::fs::write(folder.path().join("file"), "two").unwrap();
        let dirty = Git::look(folder.path(), None).unwrap().unwrap();
        assert!(dirty.dirty);
        assert!(dirty.provenance(None, true).dirty && !dirty.provenance(None, false).dirty);
        assert_eq!(dirty.provenance(None, true).subject.as_deref(), Some("First"));
    }

    #[test]
    fn a_part_from_the_work_tree_of_another_commit_makes_the_release_dirty() {
        let folder = repository();
        git(folder.path(), &["commit", "-q", "--allow-empty", "-m", "Second"]);
        let first = Git::look(folder.path(), Some("HEAD~1")).unwrap().unwrap();
        assert!(!first.is_head && !first.dirty);
        assert!(first.provenance(None, true).dirty && !first.provenance(None, false).dirty);
    }

    #[test]
    fn what_a_commit_has_is_exported_whatever_the_work_tree_looks_like() {
        let folder = repository();
        let app = folder.path().join("app");
        std::fs::create_dir_all(app.join("conf.d")).unwrap();
        std::fs::write(app.join("conf.d/a.conf"), "committed").unwrap();
        git(folder.path(), &["add", "."]);
        git(folder.path(), &["commit", "-q", "-m", "Second"]);
        std::fs::write(app.join("conf.d/a.conf"), "changed").unwrap();
        std::fs::write(app.join("new"), "not committed").unwrap();
        let commit = Git::look(&app, None).unwrap().unwrap().commit;
        let target = tempfile::tempdir().unwrap();
        export(&app, &commit, &BTreeSet::from(["conf.d", "new"]), target.path()).unwrap();
        assert_eq!(std::fs::read_to_string(target.path().join("conf.d/a.conf")).unwrap(), "committed");
        assert!(!target.path().join("new").exists());
    }

    #[test]
    fn an_older_commit_is_told_from_a_newer_and_an_unknown_one() {
        let folder = repository();
        let first = Git::look(folder.path(), None).unwrap().unwrap();
        git(folder.path(), &["commit", "-q", "--allow-empty", "-m", "Second"]);
        let second = Git::look(folder.path(), None).unwrap().unwrap();
        assert_eq!(first.ancestry(Some(&second.commit)), Ancestry::Older);
        assert_eq!(second.ancestry(Some(&first.commit)), Ancestry::NotOlder);
        assert_eq!(second.ancestry(Some(&second.commit)), Ancestry::NotOlder);
        assert_eq!(second.ancestry(Some(&"0".repeat(40))), Ancestry::Unknown);
        assert!(matches!(Git::look(folder.path(), Some("--help")), Err(GitError::NoCommit { .. })));
    }
}

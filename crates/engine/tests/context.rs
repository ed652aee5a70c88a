//! What a build gets to see, from real git repositories and folders.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::process::Command;

use cutover_engine::{Commit, Context, ContextError, ContextSource};
use futures_util::StreamExt;

fn git(folder: &Path, words: &[&str]) {
    let settings = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false"];
    let output = Command::new("git").arg("-C").arg(folder).args(settings).args(words).output().unwrap();
    assert!(output.status.success(), "git {words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn write(folder: &Path, path: &str, text: &str) {
    let path = folder.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// A repository with an app in a folder of its own.
fn repository() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let top = folder.path();
    git(top, &["init", "-q", "-b", "main"]);
    write(top, "README.md", "outside");
    write(top, "app/Dockerfile", "FROM scratch");
    write(top, "app/run.sh", "#!/bin/sh");
    write(top, "app/src/deep/ä b.txt", "text");
    write(top, "app/docs/big.md", "left out");
    write(top, "app/.dockerignore", "docs\nDockerfile\n");
    write(top, ".gitignore", ".env\ntarget\n");
    git(top, &["add", "."]);
    git(top, &["update-index", "--chmod=+x", "app/run.sh"]);
    make_executable(&top.join("app/run.sh"));
    std::os::unix::fs::symlink("src/deep", top.join("app/link")).unwrap();
    git(top, &["add", "app/link"]);
    git(top, &["commit", "-q", "-m", "first"]);
    folder
}

fn make_executable(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

async fn at_commit(folder: &Path, path: &str, dockerfile: &str) -> Result<Context, ContextError> {
    let commit = Commit::find(folder, "HEAD").await?;
    Context::open(ContextSource::Commit(commit), folder, path, dockerfile, &[]).await
}

async fn as_it_lies(folder: &Path, never: &[String]) -> Context {
    Context::open(ContextSource::WorkTree, folder, ".", "Dockerfile", never).await.unwrap()
}

/// Path → mode and content (or where a link leads).
async fn unpacked(context: &Context) -> BTreeMap<String, (u32, String)> {
    let mut stream = context.stream();
    let outcome = stream.outcome();
    let mut bytes = Vec::new();
    while let Some(piece) = stream.next().await {
        bytes.extend_from_slice(&piece.unwrap());
    }
    let packed = outcome.await.unwrap();
    assert_eq!(packed, context.hash().await.unwrap());
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(bytes.as_slice()).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        if let Some(target) = entry.link_name().unwrap() {
            text = format!("-> {}", target.display());
        }
        let path = entry.path().unwrap().display().to_string();
        files.insert(path, (entry.header().mode().unwrap(), text));
    }
    files
}

fn names(files: &BTreeMap<String, (u32, String)>) -> Vec<&str> {
    files.keys().map(String::as_str).collect()
}

#[tokio::test]
async fn a_commit_is_exported_whatever_the_work_tree_looks_like() {
    let repository = repository();
    let app = repository.path().join("app");
    write(&app, "run.sh", "changed");
    write(&app, "untracked", "new");
    std::fs::remove_file(app.join("src/deep/ä b.txt")).unwrap();
    let files = unpacked(&at_commit(&app, ".", "Dockerfile").await.unwrap()).await;
    assert_eq!(names(&files), [".dockerignore", "Dockerfile", "link", "run.sh", "src/deep/ä b.txt"]);
    assert_eq!(files["run.sh"], (0o755, "#!/bin/sh".to_owned()));
    assert_eq!(files["Dockerfile"], (0o644, "FROM scratch".to_owned()));
    assert_eq!(files["link"].1, "-> src/deep");
}

#[tokio::test]
async fn the_work_tree_is_what_git_does_not_ignore() {
    let repository = repository();
    let app = repository.path().join("app");
    write(&app, "run.sh", "changed");
    write(&app, "untracked", "new");
    write(&app, ".env", "SECRET=hunter2");
    write(&app, "target/huge", "build");
    std::fs::remove_file(app.join("src/deep/ä b.txt")).unwrap();
    let files = unpacked(&as_it_lies(&app, &[]).await).await;
    assert_eq!(names(&files), [".dockerignore", "Dockerfile", "link", "run.sh", "untracked"]);
    assert_eq!(files["run.sh"], (0o755, "changed".to_owned()));
}

#[tokio::test]
async fn the_same_content_has_the_same_hash_from_commit_and_work_tree() {
    let repository = repository();
    let app = repository.path().join("app");
    let commit = at_commit(&app, ".", "Dockerfile").await.unwrap().hash().await.unwrap();
    let clean = as_it_lies(&app, &[]).await.hash().await.unwrap();
    assert_eq!(commit, clean);
    write(&app, "docs/big.md", "changed, but left out");
    assert_eq!(as_it_lies(&app, &[]).await.hash().await.unwrap(), clean);
    write(&app, "run.sh", "#!/bin/sh ");
    assert_ne!(as_it_lies(&app, &[]).await.hash().await.unwrap().hash, clean.hash);
}

#[tokio::test]
async fn a_folder_without_git_is_walked() {
    let folder = tempfile::tempdir().unwrap();
    let top = folder.path();
    write(top, "Dockerfile", "FROM scratch");
    write(top, "web/a.txt", "a");
    write(top, ".env", "SECRET=hunter2");
    std::fs::create_dir(top.join("empty")).unwrap();
    std::os::unix::fs::symlink("/etc", top.join("away")).unwrap();
    let files = unpacked(&as_it_lies(top, &[".env".to_owned()]).await).await;
    assert_eq!(names(&files), ["Dockerfile", "away", "empty/", "web/a.txt"]);
    assert_eq!(files["away"].1, "-> /etc");
}

#[tokio::test]
async fn a_context_may_be_another_folder_of_the_repository_and_no_other() {
    let repository = repository();
    let app = repository.path().join("app");
    write(repository.path(), "Dockerfile", "FROM scratch");
    git(repository.path(), &["add", "."]);
    git(repository.path(), &["commit", "-q", "-m", "second"]);
    let files = unpacked(&at_commit(&app, "..", "Dockerfile").await.unwrap()).await;
    assert!(files.contains_key("README.md") && files.contains_key("app/run.sh"));
    assert!(matches!(at_commit(&app, "../..", "Dockerfile").await, Err(ContextError::Outside(..))));
    assert!(matches!(at_commit(&app, ".", "../Dockerfile").await, Err(ContextError::Outside(..))));
}

#[tokio::test]
async fn what_is_missing_is_named() {
    let repository = repository();
    let app = repository.path().join("app");
    let error = at_commit(&app, ".", "Dockerfile.prod").await.unwrap_err().to_string();
    assert!(error.starts_with("there is no Dockerfile.prod in app at commit "), "{error}");
    let error = Commit::find(&app, "no-such-branch").await.unwrap_err().to_string();
    assert!(error.starts_with("git rev-parse"), "{error}");
    let error = Commit::find(&app, "--all").await.unwrap_err();
    assert!(matches!(error, ContextError::Git { .. }));
    let error = Context::open(ContextSource::WorkTree, &app, "nowhere", "Dockerfile", &[]).await.unwrap_err();
    assert!(matches!(error, ContextError::NoFolder(_)), "{error}");
    write(&app, ".dockerignore", "fine\n!\n");
    let error =
        Context::open(ContextSource::WorkTree, &app, ".", "Dockerfile", &[]).await.unwrap_err().to_string();
    assert!(error.starts_with(".dockerignore line 2:"), "{error}");
}

#[tokio::test]
async fn a_reader_that_goes_away_ends_the_packing() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "Dockerfile", "FROM scratch");
    std::fs::write(folder.path().join("big"), vec![7_u8; 8 << 20]).unwrap();
    let mut stream = as_it_lies(folder.path(), &[]).await.stream();
    let outcome = stream.outcome();
    stream.next().await.unwrap().unwrap();
    drop(stream);
    let ended = tokio::time::timeout(std::time::Duration::from_secs(20), outcome).await.unwrap();
    assert!(matches!(ended, Err(ContextError::CutOff)), "{ended:?}");
}

//! The files as they lie there. In a git repository that is what git tracks, with uncommitted changes, and what it
//! neither tracks nor ignores: ignored files (builds, env files) are no more part of it than of a commit.

use std::fs::{File, Metadata};
use std::io::Write;
use std::path::Path;
use std::time::UNIX_EPOCH;

use super::ignore::Rules;
use super::pack::{Facts, Packer};
use super::{ContextError, commit};

/// Sends every file below `folder` that neither git nor the rules leave out, in order of path.
pub(super) fn export(
    folder: &Path,
    rules: &Rules,
    packer: &mut Packer<impl Write>,
) -> Result<(), ContextError> {
    if in_repository(folder) { export_listed(folder, rules, packer) } else { walk(folder, "", rules, packer) }
}

/// By looking for `.git`, not by asking git: where git refuses to work, ignored files must not slip in.
fn in_repository(folder: &Path) -> bool {
    let Ok(folder) = folder.canonicalize() else { return false };
    folder.ancestors().any(|ancestor| ancestor.join(".git").exists())
}

fn export_listed(folder: &Path, rules: &Rules, packer: &mut Packer<impl Write>) -> Result<(), ContextError> {
    let listed = commit::output(folder, &["ls-files", "-z", "--cached", "--others", "--exclude-standard"])?;
    let listed = String::from_utf8_lossy(&listed);
    let mut paths: Vec<&str> = listed.split('\0').filter(|path| !path.is_empty()).collect();
    paths.sort_unstable();
    // An unmerged file is listed once for each side.
    paths.dedup();
    for path in paths {
        if rules.leave_out(path) {
            continue;
        }
        match folder.join(path).symlink_metadata() {
            Ok(metadata) => send(folder, path, &metadata, packer)?,
            // Removed but not yet committed as such.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(unreadable(path, source)),
        }
    }
    Ok(())
}

fn walk(top: &Path, below: &str, rules: &Rules, packer: &mut Packer<impl Write>) -> Result<(), ContextError> {
    let folder = top.join(below);
    let unlisted = |source| unreadable(if below.is_empty() { "." } else { below }, source);
    let mut names = Vec::new();
    for entry in folder.read_dir().map_err(unlisted)? {
        names.push(entry.map_err(unlisted)?.file_name().to_string_lossy().into_owned());
    }
    names.sort_unstable();
    if names.is_empty() && !below.is_empty() && !rules.leave_out(below) {
        let metadata = folder.symlink_metadata().map_err(unlisted)?;
        return packer.empty_folder(below, modified(&metadata));
    }
    for name in names {
        let path = super::joined(below, &name);
        let metadata = top.join(&path).symlink_metadata().map_err(|source| unreadable(&path, source))?;
        if metadata.is_dir() {
            if !rules.leave_out_folder(&path) {
                walk(top, &path, rules, packer)?;
            }
        } else if !rules.leave_out(&path) {
            send(top, &path, &metadata, packer)?;
        }
    }
    Ok(())
}

/// Links are sent as links and never followed; sockets, pipes and devices are no part of a build.
fn send(
    top: &Path,
    path: &str,
    metadata: &Metadata,
    packer: &mut Packer<impl Write>,
) -> Result<(), ContextError> {
    let full = top.join(path);
    if metadata.is_symlink() {
        let target = full.read_link().map_err(|source| unreadable(path, source))?;
        packer.link(path, &target.to_string_lossy(), modified(metadata))
    } else if metadata.is_file() {
        let mut file = File::open(&full).map_err(|source| unreadable(path, source))?;
        // Of the file that was opened, should another one have taken its name meanwhile.
        let metadata = file.metadata().map_err(|source| unreadable(path, source))?;
        let facts =
            Facts { executable: executable(&metadata), modified: modified(&metadata), size: metadata.len() };
        packer.file(path, facts, &mut file)
    } else {
        Ok(())
    }
}

fn unreadable(path: &str, source: std::io::Error) -> ContextError {
    ContextError::Read { path: path.to_owned(), source }
}

fn modified(metadata: &Metadata) -> u64 {
    let since = metadata.modified().ok().and_then(|moment| moment.duration_since(UNIX_EPOCH).ok());
    since.map_or(0, |since| since.as_secs())
}

#[cfg(unix)]
fn executable(metadata: &Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    metadata.permissions().mode() & 0o100 != 0
}

#[cfg(not(unix))]
fn executable(_: &Metadata) -> bool {
    false
}

//! A backup counts once it was read back: all of it comes out of the repository once more, its pieces told by their hashes; it has as many files
//! and bytes as went in, and of what was made for it every byte is the same. Nothing of it is kept.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use cutover_core::wire::Extent;
use sha2::{Digest, Sha256};

use super::prose::Trouble;
use super::restic::{Ended, Restic, ResticError};
use crate::blocking::blocking;
use crate::meter::Passing;

/// What went in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) files: u64,
    pub(super) bytes: u64,
}

/// Reads a backup back.
pub(super) async fn prove(
    restic: &Restic,
    id: &str,
    amount: Amount,
    hashes: &BTreeMap<PathBuf, [u8; 32]>,
) -> Result<(), ResticError> {
    let mut command = restic.command();
    command
        .args(["dump", "--no-lock", "--archive", "tar", id, "/"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let hashes = hashes.clone();
    // An archive has some of its own around each file.
    let passing = restic.meter.begin("read back", Extent::About { bytes: amount.bytes });
    let read = blocking(move || read_back(command, amount, &hashes, &passing)).await;
    match read {
        Ok(read) => read.map_err(|error| restic.without_secrets(&error)),
        Err(error) => Err(damaged(format!("reading it back broke off: {error}"))),
    }
}

fn read_back(
    mut command: std::process::Command,
    amount: Amount,
    hashes: &BTreeMap<PathBuf, [u8; 32]>,
    passing: &Passing,
) -> Result<(), ResticError> {
    let mut child = command.spawn().map_err(|error| damaged(error.to_string()))?;
    let complaints = child.stderr.take().map(|mut stream| {
        std::thread::spawn(move || {
            let mut said = Vec::new();
            stream.read_to_end(&mut said).map(|_| said).unwrap_or_default()
        })
    });
    let found = child.stdout.take().map(|stream| count(passing.through(stream), hashes));
    let status = child.wait().map_err(|error| damaged(error.to_string()))?;
    let said = complaints.and_then(|thread| thread.join().ok()).unwrap_or_default();
    let ended = Ended { code: status.code(), said: String::from_utf8_lossy(&said).into_owned() };
    ended.good()?;
    let found = found.ok_or_else(|| damaged("nothing came out".to_owned()))?;
    let (found, found_hashes) = found.map_err(|error| damaged(error.to_string()))?;
    if found != amount {
        return Err(damaged(format!(
            "{} files with {} bytes went in, {} with {} came out",
            amount.files, amount.bytes, found.files, found.bytes
        )));
    }
    for (path, hash) in hashes {
        match found_hashes.get(path) {
            Some(found) if found == hash => {}
            Some(_) => return Err(damaged(format!("{} came out otherwise than it went in", path.display()))),
            None => return Err(damaged(format!("{} did not come out", path.display()))),
        }
    }
    Ok(())
}

/// How much an archive has, and the hash of each file that was made for the backup: whose pieces are good was told by the repository.
fn count(
    stream: impl Read,
    made: &BTreeMap<PathBuf, [u8; 32]>,
) -> std::io::Result<(Amount, BTreeMap<PathBuf, [u8; 32]>)> {
    let mut archive = tar::Archive::new(stream);
    let mut amount = Amount { files: 0, bytes: 0 };
    let mut hashes = BTreeMap::new();
    let mut piece = vec![0_u8; 64 * 1024];
    for entry in archive.entries()? {
        let mut entry = entry?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let path = Path::new("/").join(entry.path()?);
        amount.files += 1;
        amount.bytes += entry.size();
        let is_made = made.contains_key(&path);
        let mut hasher = Sha256::new();
        loop {
            match entry.read(&mut piece)? {
                0 => break,
                read if is_made => hasher.update(&piece[..read]),
                _ => {}
            }
        }
        if is_made {
            hashes.insert(path, hasher.finalize().into());
        }
    }
    // What fills up behind the end of an archive is read, too: whoever writes it would die of a reader that has gone.
    std::io::copy(&mut archive.into_inner(), &mut std::io::sink())?;
    Ok((amount, hashes))
}

fn damaged(words: String) -> ResticError {
    ResticError { trouble: Trouble::Damaged, words }
}

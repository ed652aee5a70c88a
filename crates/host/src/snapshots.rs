//! Snapshots as they lie on this host: which there are, who needs them, and whether one can be trusted before a database is given for it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use cutover_core::hash::ContentHash;
use cutover_core::layout::{self, Layout};
use cutover_core::names::{AppId, ReleaseId};
use cutover_core::retention::KnownSnapshot;
use cutover_core::state::ReleaseRecord;
use sha2::{Digest, Sha256};

use crate::blocking::while_waited;
use crate::journal::Trouble;
use crate::leftovers::names;
use crate::meter::Meter;
use crate::store::Store;

/// Those of an app, the newest first. It blocks: it looks at each file.
///
/// # Errors
/// When the records or the folder cannot be read.
pub(crate) fn known(layout: &Layout, store: &Store, app: &AppId) -> Result<Vec<KnownSnapshot>, Trouble> {
    let places = store.snapshots(app)?;
    let mut hashes = store.snapshot_hashes(app)?;
    let records = store.releases(app)?;
    let needed = needed_by(&records);
    let mut moments = store.snapshot_moments(app)?;
    // Taken before a migration: when that went live is known also where it is not when the snapshot was taken.
    for migration in records.iter().flat_map(|record| &record.migrations) {
        moments.extend(migration.done.snapshot.clone().map(|file| (file, migration.at.saturating_sub(1))));
    }
    let folder = layout.snapshots(app);
    let mut found: Vec<KnownSnapshot> = names(&folder)?
        .into_iter()
        .filter_map(|name| {
            let (database, taken, release) = layout::parts_of_snapshot(&name)?;
            let file = layout::in_snapshots(app, &name);
            let looked = sound(&folder.join(&name));
            Some(KnownSnapshot {
                database,
                taken,
                release,
                bytes: looked.as_ref().map_or(0, |bytes| *bytes),
                sequence: places.get(&file).copied(),
                hash: hashes.remove(&file),
                moment: moments.get(&file).copied(),
                needed_by: needed.get(&file).cloned().unwrap_or_default(),
                problem: looked.err(),
                name,
            })
        })
        .collect();
    found.sort_by_key(|one| Reverse((one.sequence, one.taken)));
    Ok(found)
}

/// The releases whose migration is taken back with each.
fn needed_by(records: &[ReleaseRecord]) -> BTreeMap<String, BTreeSet<ReleaseId>> {
    let mut needed: BTreeMap<String, BTreeSet<ReleaseId>> = BTreeMap::new();
    for record in records {
        for file in record.migrations.iter().filter_map(|migration| migration.done.snapshot.clone()) {
            needed.entry(file).or_default().insert(record.release.id.clone());
        }
    }
    needed
}

/// How large the file is, where it is one that may be a snapshot; else why not.
fn sound(path: &Path) -> Result<u64, String> {
    let found = fs::symlink_metadata(path).map_err(|error| format!("it cannot be looked at: {error}"))?;
    if found.is_symlink() {
        return Err("it is a link: whoever made it could lead to another file".to_owned());
    }
    if !found.is_file() {
        return Err("it is no file".to_owned());
    }
    if found.len() == 0 {
        return Err("it is empty: 0 bytes".to_owned());
    }
    Ok(found.len())
}

/// Whether a snapshot's file is what was recorded; what was found good, a line each. All of it is read, and nothing is touched.
///
/// # Errors
/// Why it cannot be trusted.
pub(crate) async fn unchanged(
    path: &Path,
    recorded: Option<ContentHash>,
    meter: &Meter,
) -> Result<Vec<String>, Trouble> {
    let bytes = sound(path).map_err(Trouble::plain)?;
    let mut lines = vec![format!("all of its {} were read", cutover_core::rules::size(bytes))];
    let read = hash_counted(path, meter).await;
    let is = read.map_err(|error| Trouble::plain(format!("it cannot be read: {error}")))?;
    match recorded {
        Some(was) if was != is => {
            return Err(Trouble::plain(format!(
                "it was changed since it was taken: SHA-256 {} is on record, and its file has {}",
                was.short(),
                is.short()
            )));
        }
        Some(was) => lines.push(format!("its SHA-256 is the one on record ({})", was.short())),
        None => lines.push("its SHA-256 is on no record: it could not be compared".to_owned()),
    }
    Ok(lines)
}

/// The SHA-256 of a file that is read off the event loop, and counted. Dropped, it reads no further.
///
/// # Errors
/// When it cannot be read.
pub(crate) async fn hash_counted(path: &Path, meter: &Meter) -> io::Result<ContentHash> {
    let (file, passing) = (path.to_owned(), meter.begin_file("read", path));
    let read = while_waited(move |by| hash_of(by.reads(passing.through(File::open(file)?)))).await;
    read.map_err(io::Error::other)?
}

/// The SHA-256 of a file.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn hash(path: &Path) -> io::Result<ContentHash> {
    hash_of(File::open(path)?)
}

fn hash_of(mut file: impl Read) -> io::Result<ContentHash> {
    let mut hasher = Sha256::new();
    let mut piece = vec![0_u8; 256 * 1024];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(ContentHash::from_digest(&hasher.finalize())),
            read => hasher.update(&piece[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_a_folder_and_an_empty_file_are_no_snapshots() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("good"), "rows").unwrap();
        fs::write(path("empty"), "").unwrap();
        fs::create_dir(path("folder")).unwrap();
        std::os::unix::fs::symlink(path("good"), path("link")).unwrap();

        assert_eq!(sound(&path("good")), Ok(4));
        assert!(sound(&path("link")).unwrap_err().contains("a link"));
        assert!(sound(&path("empty")).unwrap_err().contains("0 bytes"));
        assert!(sound(&path("folder")).is_err());
        assert!(sound(&path("gone")).is_err());
    }
}

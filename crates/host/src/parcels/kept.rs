//! What chunks the files have that are kept: a list beside each artifact and context that came in chunks. A list that is lost costs that these are
//! sent again, and nothing else.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use cutover_core::hash::ContentHash;
use cutover_core::layout::Layout;
use cutover_core::names::AppId;
use cutover_core::wire::ParcelEntry;
use serde::{Deserialize, Serialize};

use super::ParcelError;
use super::index::Index;
use crate::files::{self, FileError};

/// How hard lists are packed.
const LEVEL: i32 = 3;
/// No list is larger, in bytes.
pub(super) const MOST_LIST: u64 = 256 * 1024 * 1024;

/// A list as it is stored.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    entries: Vec<ParcelEntry>,
    /// Of a context, which is one archive: from which byte on the content of each entry lies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    places: Vec<u64>,
}

/// Keeps the list of a file or folder.
pub(super) fn save(list: &Path, entries: &[ParcelEntry], places: Vec<u64>) -> Result<(), ParcelError> {
    let kept = Kept { entries: entries.to_vec(), places };
    let packed = serde_json::to_vec(&kept)
        .map_err(io::Error::other)
        .and_then(|text| zstd::encode_all(text.as_slice(), LEVEL));
    let packed = packed.map_err(|error| FileError::new("write", list, &error))?;
    Ok(files::replace(list, &packed, 0o600)?)
}

fn load(list: &Path) -> Option<Kept> {
    let packed = zstd::Decoder::new(fs::File::open(list).ok()?).ok()?;
    serde_json::from_reader(io::BufReader::new(packed.take(MOST_LIST))).ok()
}

/// Adds what all kept files have. Lists of artifacts that are gone go, too.
pub(super) fn add_all(layout: &Layout, index: &mut Index) {
    for list in lists(&layout.parcels()) {
        let artifact = list.file_stem().and_then(|name| ContentHash::from_hex(name.to_str()?));
        let Some(folder) = artifact.map(|hash| layout.artifact(&hash)).filter(|folder| folder.is_dir())
        else {
            files::discard(&list);
            continue;
        };
        for entry in load(&list).into_iter().flat_map(|kept| kept.entries) {
            index.add(&folder.join(&entry.path), 0, &entry.chunks);
        }
    }
    for list in lists(&layout.contexts()) {
        let Some(kept) = load(&list) else { continue };
        let archive = list.with_extension("");
        for (entry, place) in kept.entries.iter().zip(kept.places) {
            index.add(&archive, place, &entry.chunks);
        }
    }
}

/// Lists in a folder; one that is not there, or cannot be read, has none.
fn lists(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries
        .filter(|path| {
            let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            !hidden && path.extension().is_some_and(|extension| extension == "list")
        })
        .collect()
}

/// Takes away what was kept of an app's builds.
pub(crate) fn forget_app(layout: &Layout, app: &AppId) -> io::Result<()> {
    let of_app = format!("{}.{}.", app.app, app.environment);
    let entries = match fs::read_dir(layout.contexts()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        if name
            .as_encoded_bytes()
            .strip_prefix(b".")
            .unwrap_or(name.as_encoded_bytes())
            .starts_with(of_app.as_bytes())
        {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

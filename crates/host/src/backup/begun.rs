//! Marks of what began and whose end is not known yet, written under a lock before anything is done: what a mark tells of at whose lock nobody works
//! any more was killed.

use std::fs;
use std::path::Path;

use cutover_core::failure::Failure;
use cutover_core::layout::Layout;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::gather::trouble;
use crate::files;
use crate::lock::ProcessLock;

/// Why it has failed.
pub(super) const KILLED: &str = "it did not come to its end, or that could not be recorded: it was killed, the host went down, or its disk was full";

/// Marks that it begins, under its lock. Without that nothing does: nobody would know how often it is tried.
pub(super) fn begin(mark: &Path, begun: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_vec_pretty(begun).unwrap_or_default();
    files::ensure_folder(files::folder_of(mark), 0o700)
        .and_then(|()| files::replace(mark, &text, 0o600))
        .map_err(|error| trouble(&error))
}

/// What a mark tells. One that cannot be read tells nothing.
pub(super) fn read<T: DeserializeOwned>(mark: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(mark).ok()?).ok()
}

/// What a mark tells of one that was killed; `None`: there is none, or it goes on under its lock.
pub(super) fn killed<T: DeserializeOwned + PartialEq>(layout: &Layout, mark: &Path, lock: &str) -> Option<T> {
    let begun = read::<T>(mark)?;
    // Its mark goes before its lock does.
    let is_over = !ProcessLock::is_held(layout, lock) && read(mark).as_ref() == Some(&begun);
    is_over.then_some(begun)
}

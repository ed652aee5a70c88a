//! Files of the system that setup writes or reads: by paths from the system's root.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use cutover_core::failure::Failure;

use super::system::failed;
use crate::files;

/// What is in it; `None`: it is not there, or is no text.
pub(super) fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// Its rights; `None`: it is not there.
pub(super) fn mode(path: &str) -> Option<u32> {
    Some(std::fs::metadata(path).ok()?.permissions().mode() & 0o7777)
}

pub(super) fn write(path: &str, text: &str, mode: u32) -> Result<(), Failure> {
    let path = Path::new(path);
    files::ensure_folder(files::folder_of(path), 0o755)
        .and_then(|()| files::replace(path, text.as_bytes(), mode))
        .map_err(|error| failed(&format!("write {}", path.display())).because(error.to_string()))
}

pub(super) fn remove(path: &str) -> Result<(), Failure> {
    files::remove(Path::new(path))
        .map_err(|error| failed(&format!("remove {path}")).because(error.to_string()))
}

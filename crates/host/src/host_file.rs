//! The host's own configuration, `host.yml` in the folder of its state; absent: it says nothing.

use cutover_core::config::{HostFile, host_file};
use cutover_core::layout::Layout;

/// Why it cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HostFileError {
    /// The disk, or the rights.
    #[error("{file}: {error}")]
    Unreadable {
        /// Where it lies.
        file: String,
        /// What the system said.
        error: std::io::Error,
    },
    /// What it says.
    #[error("{0}")]
    Wrong(Box<cutover_core::config::Problems>),
}

/// What it says, for looking; one that cannot be used keeps nobody from that: it is told before something is changed.
pub fn of(layout: &Layout) -> HostFile {
    read(layout).unwrap_or_else(|error| {
        tracing::warn!(%error, "the host's own configuration is wrong");
        HostFile::default()
    })
}

/// Reads it.
///
/// # Errors
/// When it is there and cannot be read or understood; all that is wrong with it.
pub fn read(layout: &Layout) -> Result<HostFile, HostFileError> {
    let path = layout.host_file();
    let file = path.display().to_string();
    match std::fs::read_to_string(&path) {
        Ok(text) => host_file(&file, &text).map_err(|problems| HostFileError::Wrong(Box::new(problems))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(HostFile::default()),
        Err(error) => Err(HostFileError::Unreadable { file, error }),
    }
}

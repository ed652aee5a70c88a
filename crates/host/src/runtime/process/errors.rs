//! What the parts of this runtime say when they fail, as the port says it.

use super::folder::FolderError;
use super::launch::LaunchError;
use super::leftovers::LeftoverError;
use super::volumes::VolumeError;
use crate::files::FileError;
use crate::ports::{Certainty, RuntimeError, RuntimeErrorKind};

impl From<FileError> for RuntimeError {
    fn from(error: FileError) -> Self {
        let kind = if error.full { RuntimeErrorKind::Full } else { RuntimeErrorKind::Other };
        Self::new(kind, Certainty::NotDone, error.message)
    }
}

impl From<FolderError> for RuntimeError {
    fn from(error: FolderError) -> Self {
        let kind = match error {
            FolderError::File(error) => return error.into(),
            FolderError::Newer { .. } => RuntimeErrorKind::Refused,
            FolderError::Unseen { .. } => RuntimeErrorKind::Unreachable,
            FolderError::Format { .. } => RuntimeErrorKind::Other,
        };
        Self::new(kind, Certainty::NotDone, error.to_string())
    }
}

impl From<LaunchError> for RuntimeError {
    fn from(error: LaunchError) -> Self {
        Self::new(RuntimeErrorKind::Content, Certainty::NotDone, error.to_string())
    }
}

impl From<LeftoverError> for RuntimeError {
    fn from(error: LeftoverError) -> Self {
        let kind = match error {
            LeftoverError::Stuck(_) | LeftoverError::Deaf(_) | LeftoverError::Endless => {
                RuntimeErrorKind::Late
            }
            LeftoverError::System { .. } => RuntimeErrorKind::Other,
        };
        Self::new(kind, Certainty::Unknown, error.to_string())
    }
}

impl From<VolumeError> for RuntimeError {
    fn from(error: VolumeError) -> Self {
        let kind = match error {
            VolumeError::File(error) => return error.into(),
            VolumeError::Absent(_) => RuntimeErrorKind::Gone,
            VolumeError::Foreign(_) => RuntimeErrorKind::Refused,
        };
        Self::new(kind, Certainty::NotDone, error.to_string())
    }
}

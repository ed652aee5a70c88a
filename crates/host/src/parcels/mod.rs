//! Files that come from a client: artifacts, and what images are built from. A client says file by file of which chunks they consist; what lacks
//! is what lies in no artifact that is kept, in no context that came before, and in nothing that came before a connection was lost.
//! Every chunk is held against its hash whenever it is read, so that a file that somebody changed is found, and what it should have been is sent.

mod archive;
mod incoming;
mod index;
mod kept;
mod pack;

use std::io;

use cutover_core::hash::ContentHash;

use crate::files::{self, FileError};
use crate::runtime::process::artifact::ArtifactError;

pub(crate) use incoming::Incoming;
pub(crate) use kept::forget_app;
pub(crate) use pack::is_written;

/// Why files were not taken in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ParcelError {
    /// The system refused.
    #[error(transparent)]
    File(#[from] FileError),
    /// What was made of them is no artifact.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// What arrived cannot be unpacked.
    #[error("what arrived cannot be unpacked: {0}")]
    Packed(io::Error),
    /// Something else arrived than was announced.
    #[error("what arrived is {found}, not {announced}")]
    Other {
        /// Hash of what was meant.
        announced: ContentHash,
        /// Hash of what arrived.
        found: ContentHash,
    },
    /// The lists, or what came, make no sense.
    #[error("what was announced makes no sense: {0}")]
    List(String),
}

impl ParcelError {
    /// Whether the disk is full.
    pub(crate) fn is_full(&self) -> bool {
        match self {
            Self::File(error) => error.full,
            Self::Artifact(error) => error.is_full(),
            Self::Packed(error) => files::is_full(error),
            Self::Other { .. } | Self::List(_) => false,
        }
    }
}

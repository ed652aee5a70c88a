//! What a client and a host say to each other about images that travel by this channel: which layers of them the host lacks.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::hash::ContentHash;
use crate::state::FoundImage;

/// An image that a client has, and a host is to have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageParts {
    /// What it is called on the host.
    pub name: String,
    /// The id that the client's engine knows it by: the host's may be the same engine.
    pub id: String,
    /// Content identity (S6).
    pub identity: ContentHash,
    /// Hashes of its unpacked layers (diff ids), lowest first.
    pub layers: Vec<ContentHash>,
    /// Bytes of each layer unpacked, as far as the client's engine tells; empty: not known. For a look at the room, and for bars.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sizes: Vec<u64>,
}

impl ImageParts {
    /// Bytes of one of its layers unpacked; 0 where that is not known.
    pub fn size_of(&self, layer: &ContentHash) -> u64 {
        let known = self.sizes.len() == self.layers.len();
        let place = self.layers.iter().position(|one| one == layer);
        place.filter(|_| known).and_then(|place| self.sizes.get(place)).copied().unwrap_or_default()
    }
}

/// What a host has of images, and what it lacks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lacking {
    /// Images that are there as a whole, by name.
    pub found: BTreeMap<String, FoundImage>,
    /// Layers that are to be sent for the others, by name. None: all that came before is enough.
    pub layers: BTreeMap<String, BTreeSet<ContentHash>>,
    /// Artifacts that are not there.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub artifacts: BTreeSet<ContentHash>,
}

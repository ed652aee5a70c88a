//! The identity of a table: canonical bytes and their hash.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::RouteTable;

/// SHA-256 of a table's canonical bytes, in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TableHash(String);

impl TableHash {
    /// The hash of a table. Maps are ordered and fields have a fixed order, so equal tables give equal bytes.
    pub fn of(table: &RouteTable) -> Self {
        let bytes = serde_json::to_vec(table).unwrap_or_default();
        Self(Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TableHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

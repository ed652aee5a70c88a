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
    ///
    /// A table that cannot be written as text (a socket path that is not UTF-8) has the hash of nothing;
    /// [`RouteTable::check`] refuses it.
    pub fn of(table: &RouteTable) -> Self {
        Self::of_bytes(&table.to_json())
    }

    /// The hash of bytes as they lie on a disk.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        let nibbles = Sha256::digest(bytes).into_iter().flat_map(|byte| [byte >> 4, byte & 15]);
        Self(nibbles.filter_map(|nibble| char::from_digit(u32::from(nibble), 16)).collect())
    }

    /// The hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TableHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The hash is compared between a proxy and a host of different builds: it must not change with either.
    #[test]
    fn the_hash_of_the_fixture_is_what_it_always_was() {
        let table = RouteTable::from_json(include_bytes!("../fixtures/v1.json")).unwrap();

        assert_eq!(
            TableHash::of(&table).as_str(),
            "98f2003088836815aed651c7bbc872b617dd9619382d2ef3f719fad49ced0802"
        );
        assert_eq!(
            TableHash::of(&RouteTable::default()).as_str(),
            "eb664bcc144d907dc3454a61cd01b7c13374b3fe18ed8e76547a95d077f29465"
        );
    }

    #[test]
    fn a_changed_fact_changes_the_hash() {
        let mut table = RouteTable::default();
        let before = TableHash::of(&table);
        table.owners.entry("shop".into()).or_default().facts.insert("live".into(), "7f3c9e1".into());

        assert_ne!(before, TableHash::of(&table));
    }
}

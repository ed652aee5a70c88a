//! A table as bytes: written in one form, read from every version there ever was.

use serde_json::Value;

use crate::{RouteTable, TABLE_VERSION, TableError};

impl RouteTable {
    /// The canonical bytes: what is hashed, sent and stored. Empty when a socket path is not UTF-8, which
    /// [`RouteTable::check`] refuses.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads a table of this version or an older one; a newer one is refused.
    pub fn from_json(bytes: &[u8]) -> Result<Self, TableError> {
        let malformed = |error: serde_json::Error| TableError::Malformed(error.to_string());
        let value: Value = serde_json::from_slice(bytes).map_err(malformed)?;
        let found = value
            .get("version")
            .and_then(Value::as_u64)
            .ok_or_else(|| TableError::Malformed("it has no version".to_owned()))?;
        if found > u64::from(TABLE_VERSION) {
            return Err(TableError::Newer { found: u32::try_from(found).unwrap_or(u32::MAX) });
        }
        serde_json::from_value(upgrade(value, found)?).map_err(malformed)
    }
}

/// Brings an older table to [`TABLE_VERSION`], one version at a time: the one place that knows older forms.
fn upgrade(value: Value, version: u64) -> Result<Value, TableError> {
    match version {
        1 => Ok(value),
        other => Err(TableError::Malformed(format!("no build ever wrote version {other}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &[u8] = include_bytes!("../fixtures/v1.json");

    #[test]
    fn version_one_is_read_and_passes_the_check() {
        let table = RouteTable::from_json(V1).unwrap();

        assert_eq!(table.version, TABLE_VERSION);
        assert_eq!(table.owners.keys().collect::<Vec<_>>(), ["guestbook.local", "shop.production"]);
        assert_eq!(table.targets().count(), 2);
        assert_eq!(table.check(), Ok(()));
    }

    #[test]
    fn what_is_written_is_read_back() {
        let table = RouteTable::from_json(V1).unwrap();

        assert_eq!(RouteTable::from_json(&table.to_json()), Ok(table));
    }

    #[test]
    fn a_newer_version_is_refused_whatever_else_it_holds() {
        let newer = br#"{"version": 2, "owners": [], "zones": {}}"#;

        assert_eq!(RouteTable::from_json(newer), Err(TableError::Newer { found: 2 }));
    }

    #[test]
    fn a_cut_file_and_a_file_without_version_are_malformed() {
        for bytes in [&V1[..V1.len() / 2], b"", b"{}", br#"{"version": 0, "owners": {}}"#, b"null"] {
            assert!(matches!(RouteTable::from_json(bytes), Err(TableError::Malformed(_))));
        }
    }
}

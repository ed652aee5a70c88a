//! Values in rows: JSON with the version of its format beside it. Written in one form, read from every version there ever was.

use std::cmp::Ordering;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::StoreError;

/// The version of the values' format that this build writes.
pub(super) const FORMAT: u32 = 1;

/// A value as it is stored.
pub(super) fn write<T: Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value)
        .map_err(|error| StoreError::new(format!("a record cannot be written: {error}")))
}

/// A stored value of version `format`. The first version is still the newest: nothing older is brought to it here, one version at a time.
pub(super) fn read<T: DeserializeOwned>(format: u32, text: &str) -> Result<T, StoreError> {
    match format.cmp(&FORMAT) {
        Ordering::Greater => Err(StoreError::newer(format, FORMAT)),
        Ordering::Less => Err(StoreError::new(format!("no build ever wrote a record of version {format}"))),
        Ordering::Equal => serde_json::from_str(text)
            .map_err(|error| StoreError::new(format!("a record cannot be read: {error}"))),
    }
}

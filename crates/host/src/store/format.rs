//! Values in rows: JSON with the version of its format beside it. Written in one form, read from every version there ever was.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::StoreError;

/// The version of the values' format that this build writes.
pub(super) const FORMAT: u32 = 1;

/// A value as it is stored.
pub(super) fn write<T: Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value)
        .map_err(|error| StoreError::new(format!("a record cannot be written: {error}")))
}

/// A stored value of version `format`.
pub(super) fn read<T: DeserializeOwned>(format: u32, text: &str) -> Result<T, StoreError> {
    if format > FORMAT {
        return Err(StoreError::newer(format, FORMAT));
    }
    let bad = |error: serde_json::Error| StoreError::new(format!("a record cannot be read: {error}"));
    let value: Value = serde_json::from_str(text).map_err(bad)?;
    serde_json::from_value(upgrade(value, format)?).map_err(bad)
}

/// Brings an older value to [`FORMAT`], one version at a time: the one place that knows older forms.
fn upgrade(value: Value, format: u32) -> Result<Value, StoreError> {
    match format {
        1 => Ok(value),
        other => Err(StoreError::new(format!("no build ever wrote a record of version {other}"))),
    }
}

//! Values that are printed nowhere (P6). Secret is every value from an env file, the process environment, generation, or a registry password.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize, Serializer};
use zeroize::Zeroize;

use crate::hash::ContentHash;
use crate::names::VariableName;

/// What stands in the place of a value.
pub const REDACTED: &str = "[redacted]";

/// A value that prints and serialises as `[redacted]`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a value in.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself: for the one place that hands it to a process, an engine or a 0600 file.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The value's salted hash: tells whether it changed, and no more (S28).
    pub fn fingerprint(&self, salt: &str) -> ContentHash {
        ContentHash::of_parts(&["variable", salt, &self.0])
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(REDACTED)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(REDACTED)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(REDACTED)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

/// Values by name. It has no `Serialize` of its own that shows them: [`Secrets::to_env_file`] is the only way out, for 0600 files and
/// the one binary frame that carries them to a host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Secrets(BTreeMap<VariableName, Secret>);

impl Secrets {
    /// No values.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets one value and gives back what stood there.
    pub fn insert(&mut self, name: VariableName, value: Secret) -> Option<Secret> {
        self.0.insert(name, value)
    }

    /// Takes one value away.
    pub fn remove(&mut self, name: &VariableName) -> Option<Secret> {
        self.0.remove(name)
    }

    /// One value.
    pub fn get(&self, name: &VariableName) -> Option<&Secret> {
        self.0.get(name)
    }

    /// All, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&VariableName, &Secret)> {
        self.0.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The salted hash of each.
    pub fn fingerprints(&self, salt: &str) -> BTreeMap<VariableName, ContentHash> {
        self.0.iter().map(|(name, value)| (name.clone(), value.fingerprint(salt))).collect()
    }

    /// These, with those of `over` in their place where both have one.
    #[must_use]
    pub fn overlaid(&self, over: &Self) -> Self {
        let mut all = self.0.clone();
        all.extend(over.0.iter().map(|(name, value)| (name.clone(), value.clone())));
        Self(all)
    }

    /// The text of an env file that [`crate::env_file::parse`] reads back.
    pub fn to_env_file(&self) -> String {
        self.0
            .iter()
            .map(|(name, value)| format!("{name}={}\n", crate::env_file::quote(value.expose())))
            .collect()
    }

    /// `text` with every value of four characters or more replaced: for log lines and errors that come from elsewhere. Of a value of
    /// several lines (a key) each longer line is, too: logs are read line by line.
    pub fn redact(&self, text: &str) -> String {
        const LINE: usize = 8;
        let whole = self.0.values().map(Secret::expose).filter(|value| value.len() >= 4);
        let lines = self.0.values().map(Secret::expose).filter(|value| value.contains('\n'));
        let lines = lines.flat_map(str::lines).map(str::trim).filter(|line| line.len() >= LINE);
        let mut values: Vec<&str> = whole.chain(lines).collect();
        // The longest first: a value that contains another is covered as a whole.
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        values.into_iter().fold(text.to_owned(), |text, value| text.replace(value, REDACTED))
    }
}

impl FromIterator<(VariableName, Secret)> for Secrets {
    fn from_iter<T: IntoIterator<Item = (VariableName, Secret)>>(pairs: T) -> Self {
        Self(pairs.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_a_value_of_several_lines_then_a_log_that_is_read_line_by_line_shows_none_of_them() {
        let key = "-----BEGIN KEY-----\nMIIEvQIBADANBgkq\nab\n-----END KEY-----\n";
        let secrets: Secrets =
            [("KEY".parse().unwrap(), Secret::new(key)), ("PIN".parse().unwrap(), Secret::new("123"))]
                .into_iter()
                .collect();
        assert_eq!(secrets.redact("read MIIEvQIBADANBgkq ab 123"), "read [redacted] ab 123");
        assert_eq!(secrets.redact(key), REDACTED);
    }
}

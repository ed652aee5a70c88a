//! Hashes of content: artifacts, images, specifications, fingerprints.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// SHA-256 in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ContentHash(String);

impl ContentHash {
    /// The hash of bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(hex(&Sha256::digest(bytes)))
    }

    /// The hash of several texts, each with its length, so that no two lists give the same bytes.
    pub fn of_parts<T: AsRef<str>>(parts: &[T]) -> Self {
        let mut hasher = Sha256::new();
        for part in parts {
            hasher.update((part.as_ref().len() as u64).to_be_bytes());
            hasher.update(part.as_ref().as_bytes());
        }
        Self(hex(&hasher.finalize()))
    }

    /// The hash of a value's canonical JSON: maps are ordered, fields have a fixed order.
    pub fn of_value<T: Serialize>(value: &T) -> Self {
        Self::of(serde_json::to_string(value).unwrap_or_default().as_bytes())
    }

    /// Takes the bytes of a SHA-256 digest that was made piece by piece.
    pub fn from_digest(digest: &[u8]) -> Self {
        Self(hex(digest))
    }

    /// Takes a digest made elsewhere (`sha256:` in front is taken off).
    pub fn from_hex(text: &str) -> Option<Self> {
        let text = text.strip_prefix("sha256:").unwrap_or(text);
        let good = text.len() == 64
            && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        good.then(|| Self(text.to_owned()))
    }

    /// All 64 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A number made of it, below 2^48: for a place to begin at.
    pub fn number(&self) -> u64 {
        self.0.get(..12).and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or_default()
    }

    /// The first seven digits, for people.
    pub fn short(&self) -> &str {
        &self.0[..7.min(self.0.len())]
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl fmt::Display for ContentHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

//! How far something is that takes long, for people who wait.

use serde::{Deserialize, Serialize};

/// Bytes on their way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What becomes of them, in a word or two that fit before a size: `dumped`, `read back`.
    pub what: String,
    /// How many have passed, as they cross: a dump's before it is packed, a file's as it lies there.
    pub bytes: u64,
    /// Of how many.
    pub of: Extent,
    /// Since the first of them was waited for, in milliseconds.
    pub millis: u64,
}

/// How many bytes there are in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "known", rename_all = "snake_case")]
pub enum Extent {
    /// Nobody knows.
    Not,
    /// About so many: what a server says of a database, which is not all in a dump of it.
    About {
        /// Bytes.
        bytes: u64,
    },
    /// So many.
    Exactly {
        /// Bytes.
        bytes: u64,
    },
}

impl Progress {
    /// Bytes in a second, since the first of them was waited for.
    pub fn rate(&self) -> u64 {
        let rate = u128::from(self.bytes) * 1_000 / u128::from(self.millis.max(1));
        u64::try_from(rate).unwrap_or(u64::MAX)
    }

    /// How many there are in all. An estimate that was passed is none any more.
    pub fn all(&self) -> Option<u64> {
        match self.of {
            Extent::About { bytes } | Extent::Exactly { bytes } => {
                Some(bytes).filter(|all| *all >= self.bytes)
            }
            Extent::Not => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimate_that_was_passed_is_none_and_a_rate_has_no_moment_of_nothing() {
        let at = |bytes, millis| Progress {
            what: "dumped".to_owned(),
            bytes,
            of: Extent::About { bytes: 100 },
            millis,
        };
        assert_eq!([at(100, 0).all(), at(101, 0).all()], [Some(100), None]);
        assert_eq!(
            [at(100, 2_000).rate(), at(100, 0).rate(), at(u64::MAX, 1).rate()],
            [50, 100_000, u64::MAX]
        );
    }
}

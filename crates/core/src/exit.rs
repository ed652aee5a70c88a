//! Exit codes: one table for the code, the docs and `--help`.

use serde::{Deserialize, Serialize};

/// How a command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// Done.
    Done,
    /// Failed for another reason.
    Failed,
    /// Wrong usage.
    Usage,
    /// Another deploy holds the lock.
    Locked,
    /// Not healthy; what served before serves.
    NotHealthy,
    /// Snapshot or migration failed; what served before serves.
    Migration,
    /// Connection lost, outcome not known.
    Unknown,
    /// Refused by a safety rule; nothing touched.
    Refused,
    /// A person is needed.
    Person,
    /// Cancelled; what served before serves.
    Cancelled,
    /// Configuration wrong.
    Configuration,
}

/// Every exit, its code, and what it says.
pub const TABLE: [(Exit, u8, &str); 11] = [
    (Exit::Done, 0, "done"),
    (Exit::Failed, 1, "failed for another reason"),
    (Exit::Usage, 2, "wrong usage"),
    (Exit::Locked, 3, "another deploy holds the lock"),
    (Exit::NotHealthy, 4, "not healthy; what served before serves (first deploy: nothing)"),
    (Exit::Migration, 5, "snapshot or migration failed; what served before serves"),
    (Exit::Unknown, 6, "connection lost, outcome not known; the run goes on: `cutover attach`"),
    (Exit::Refused, 7, "refused by a safety rule; nothing touched"),
    (Exit::Person, 8, "a person is needed; the message says what is serving"),
    (Exit::Cancelled, 9, "cancelled; what served before serves"),
    (Exit::Configuration, 10, "configuration wrong"),
];

impl Exit {
    /// The process's exit code.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Locked => 3,
            Self::NotHealthy => 4,
            Self::Migration => 5,
            Self::Unknown => 6,
            Self::Refused => 7,
            Self::Person => 8,
            Self::Cancelled => 9,
            Self::Configuration => 10,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_and_the_codes_agree() {
        for (index, (exit, code, _)) in TABLE.iter().enumerate() {
            assert_eq!((usize::from(*code), exit.code()), (index, *code));
        }
    }
}

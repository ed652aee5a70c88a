//! The four answers of every failure, as data: what failed, why, what is serving now, what to do next.

use serde::{Deserialize, Serialize};

use crate::exit::Exit;

/// A failure as people read it. Rendered in one place, by the command line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What the command exits with.
    pub exit: Exit,
    /// What failed, one sentence without a full stop.
    pub what: String,
    /// Why: facts, most telling first.
    pub cause: Vec<String>,
    /// What is serving now.
    pub state: String,
    /// What to do, commands included.
    pub next: Vec<String>,
    /// The end of the log that tells why, redacted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<String>,
}

/// What stands for the state until somebody says what serves.
const UNTOUCHED: &str = "nothing was touched";

impl Failure {
    /// A failure that touched nothing, to be filled by the builder methods below.
    pub fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self {
            exit,
            what: what.into(),
            cause: Vec::new(),
            state: UNTOUCHED.to_owned(),
            next: Vec::new(),
            log: Vec::new(),
        }
    }

    /// Adds a cause.
    #[must_use]
    pub fn because(mut self, cause: impl Into<String>) -> Self {
        self.cause.push(cause.into());
        self
    }

    /// Says what is serving.
    #[must_use]
    pub fn while_serving(mut self, state: impl Into<String>) -> Self {
        self.state = state.into();
        self
    }

    /// Says what is serving, if nobody has yet.
    #[must_use]
    pub fn untouched(mut self, serving: &str) -> Self {
        if self.state == UNTOUCHED {
            self.state = format!("{UNTOUCHED}: {serving}");
        }
        self
    }

    /// Adds what to do.
    #[must_use]
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next.push(next.into());
        self
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.what)?;
        self.cause.first().map_or(Ok(()), |cause| write!(formatter, ": {cause}"))
    }
}

impl std::error::Error for Failure {}

//! The engine's errors in the runtime's terms. What a kind means can depend on the act, so acts that know better say so.

use cutover_engine::{EngineError, Kind};

use crate::ports::{Certainty, RuntimeError, RuntimeErrorKind};

/// The usual meaning of the engine's error.
pub(super) fn failed(error: EngineError) -> RuntimeError {
    let kind = match error.kind {
        Kind::Gone => RuntimeErrorKind::Gone,
        Kind::Exists => RuntimeErrorKind::Exists,
        Kind::Full => RuntimeErrorKind::Full,
        Kind::Unreachable => RuntimeErrorKind::Unreachable,
        Kind::Conflict | Kind::Refused => RuntimeErrorKind::Refused,
        Kind::NotFoundImage => RuntimeErrorKind::Content,
        Kind::Other => RuntimeErrorKind::Other,
    };
    as_kind(kind, error)
}

/// The engine's error, of a kind that the act knows.
#[expect(clippy::needless_pass_by_value, reason = "it is used up by becoming another error")]
pub(super) fn as_kind(kind: RuntimeErrorKind, error: EngineError) -> RuntimeError {
    let certainty = match error.certainty {
        cutover_engine::Certainty::NotDone => Certainty::NotDone,
        cutover_engine::Certainty::Unknown => Certainty::Unknown,
    };
    RuntimeError::new(kind, certainty, error.to_string())
}

/// Ours, before the engine was asked to do anything.
pub(super) fn refused(message: impl Into<String>) -> RuntimeError {
    RuntimeError::new(RuntimeErrorKind::Refused, Certainty::NotDone, message)
}

/// There is no such thing.
pub(super) fn gone(message: impl Into<String>) -> RuntimeError {
    RuntimeError::new(RuntimeErrorKind::Gone, Certainty::NotDone, message)
}

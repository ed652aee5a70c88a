//! The hosts a verb speaks with. One path, near or far: a `cutover-host session` at the other end of two pipes.

mod channel;
mod error;
mod local;

pub(crate) use channel::{Channel, Hearing, Speaking, unexpected};
pub(crate) use error::HostError;
pub(crate) use local::{begin, open};

//! The hosts a verb speaks with. One path, near or far: a `cutover-host session` at the other end of two pipes; what starts it differs in its
//! words only.

mod bootstrap;
mod channel;
mod error;
mod far;
mod frames;
mod keys;
mod local;
mod opening;
mod program;
mod prose;
mod ssh;
mod target;
mod words;

pub(crate) use bootstrap::bootstrap;
pub(crate) use channel::{Channel, Hearing, Speaking, unexpected};
pub(crate) use error::HostError;
pub(crate) use keys::{ShownKey, keep, shown_by};
pub(crate) use opening::{Opening, begin, open, open_anew};
pub(crate) use target::{Server, Target};

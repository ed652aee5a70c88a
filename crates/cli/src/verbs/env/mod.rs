//! `env`: the host's env file, looked at and changed.

mod arguments;
mod diff;
mod list;
mod set;

pub(crate) use arguments::EnvWord;
pub(super) use diff::diff;
pub(super) use list::list;
pub(super) use set::{change, release, values};

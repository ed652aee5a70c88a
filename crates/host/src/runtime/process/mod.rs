//! Plain processes: an artifact of the host's store, run by a keeper that outlives runs and `watch`, with its output in rotated files.
//! Nothing here decides what runs; the plan does.

pub mod artifact;
mod attached;
mod create;
mod errors;
mod exec;
mod exits;
mod folder;
mod keeper;
mod launch;
mod leftovers;
mod life;
mod listening;
mod logs;
mod look;
mod output;
mod processes;
mod protocol;
mod runtime;
mod signals;
mod volumes;

pub use attached::become_at_terminal;
pub(crate) use attached::piped;
pub use keeper::keep;
pub(crate) use processes::stat;
pub use runtime::ProcessRuntime;

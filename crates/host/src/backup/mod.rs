//! Backups: a copy of every database and volume of what is live, in a repository that restic reads. The work is done by a process of its own
//! (`cutover-host backup`), one at a time for an app, and a drill beside it; sessions and watch only start it.

mod begun;
mod condition;
mod drill;
mod drill_record;
mod drill_room;
mod dumps;
mod gather;
mod job;
mod locks;
mod manifest;
mod proof;
mod prose;
mod prune;
mod recalled;
mod record;
mod redis;
mod restic;
mod restore;
mod returning;
mod still;
mod store;
mod undated;
mod whole;
mod work;

pub(crate) use condition::condition;
pub use drill_record::drill_lock_name;
pub(crate) use drill_record::newest as newest_drill;
pub(crate) use drill_room::{filled_up, needed as room_beside};
pub(crate) use job::{Heard, Job, begin, values};
pub use record::lock_name;
pub(crate) use returning::{bring_back, half};
pub(crate) use still::{is_left, is_paused, let_go};
pub use work::main;
pub(crate) use work::{has_one, last, settings, state};

/// The lock of whoever asks an app's servers for dumps: a migration waits for it.
pub(crate) fn dump_lock(app: &cutover_core::names::AppId) -> String {
    format!("dump.{}.{}", app.app, app.environment)
}

/// Who holds an app's lock while its `SQLite` files are copied: for moments. Others may wait for it.
pub const HOLDER: &str = "cutover-host backup";

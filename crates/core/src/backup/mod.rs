//! Backups: what people want of them, what belongs into one, when one is due, and what is known of those that were made.

mod items;
mod record;
mod schedule;
mod settings;

pub use items::{DatabaseItem, Items, ServerItem, VolumeItem, items};
pub use record::{
    BackupOutcome, BackupRecord, BackupState, DrillOutcome, DrillRecord, DumpInBackup, KnownBackup,
    MANIFEST_VERSION, Manifest, VolumeInBackup,
};
pub use schedule::{Attempt, condition, is_drill_due, is_due, is_stale};
pub use settings::{Access, BackupSettings, Drill, Keep, Still, Target};

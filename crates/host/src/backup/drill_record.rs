//! What is known of the newest drill.

use std::fs;

use cutover_core::backup::{DrillOutcome, DrillRecord};
use cutover_core::failure::Failure;
use cutover_core::layout::Layout;
use cutover_core::names::AppId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::begun::{self, KILLED};
use super::gather::trouble;
use crate::files;

/// A drill whose end is not known yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Begun {
    by: String,
    started: Timestamp,
}

impl Begun {
    /// Whether that is its record: then its end is known, and only the mark is there still.
    fn is(&self, record: Option<&DrillRecord>) -> bool {
        record.is_some_and(|record| record.started == self.started && record.by == self.by)
    }

    fn failed(self) -> DrillRecord {
        let Self { by, started } = self;
        let outcome = DrillOutcome::Failed { why: KILLED.to_owned() };
        DrillRecord { by, started, finished: started, outcome }
    }
}

/// The lock of whoever drills: everything else that is done with an app's backups goes on beside it.
pub fn drill_lock_name(app: &AppId) -> String {
    format!("drill.{}.{}", app.app, app.environment)
}

/// The newest whose end is known: one that was killed has ended badly. One that cannot be read is none: the next is due.
pub(crate) fn newest(layout: &Layout, app: &AppId) -> Option<DrillRecord> {
    let killed: Option<Begun> = begun::killed(layout, &layout.drill_begun(app), &drill_lock_name(app));
    let on_record = on_record(layout, app);
    match killed.filter(|killed| !killed.is(on_record.as_ref())) {
        Some(killed) => Some(killed.failed()),
        None => on_record,
    }
}

fn on_record(layout: &Layout, app: &AppId) -> Option<DrillRecord> {
    serde_json::from_slice(&fs::read(layout.drill(app)).ok()?).ok()
}

/// Marks that one begins, under its lock. One before it that was killed is put on record first: this one's mark takes the place of its.
pub(super) fn begin(layout: &Layout, app: &AppId, by: &str, started: Timestamp) -> Result<(), Failure> {
    let killed = begun::read::<Begun>(&layout.drill_begun(app));
    if let Some(killed) = killed.filter(|killed| !killed.is(on_record(layout, app).as_ref())) {
        put(layout, app, &killed.failed())?;
    }
    begun::begin(&layout.drill_begun(app), &Begun { by: by.to_owned(), started })
}

/// Puts on record how the one that began has ended.
pub(super) fn put(layout: &Layout, app: &AppId, record: &DrillRecord) -> Result<(), Failure> {
    let text = serde_json::to_vec_pretty(record).unwrap_or_default();
    files::replace(&layout.drill(app), &text, 0o600).map_err(|error| trouble(&error))?;
    files::discard(&layout.drill_begun(app));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::ProcessLock;

    #[test]
    fn given_a_drill_that_was_killed_then_it_has_failed_and_one_that_goes_on_has_not() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::under(folder.path());
        let app: AppId = "shop/production".parse().unwrap();
        let at = Timestamp::constant(1_790_000_000, 0);
        let good = DrillRecord {
            by: "ada".to_owned(),
            started: at,
            finished: at,
            outcome: DrillOutcome::Good { id: "1a2b3c4d".to_owned(), lines: Vec::new() },
        };
        let lock = ProcessLock::take(&layout, &drill_lock_name(&app)).unwrap();
        begin(&layout, &app, "ada", at).unwrap();
        put(&layout, &app, &good).unwrap();
        assert_eq!(newest(&layout, &app), Some(good.clone()));

        begin(&layout, &app, "schedule", at).unwrap();
        assert_eq!(newest(&layout, &app), Some(good), "it goes on");
        drop(lock);

        let killed = newest(&layout, &app).unwrap();
        assert!(!killed.is_good() && killed.by == "schedule", "{killed:?}");

        let _lock = ProcessLock::take(&layout, &drill_lock_name(&app)).unwrap();
        begin(&layout, &app, "schedule", at).unwrap();
        assert_eq!(newest(&layout, &app), Some(killed), "the next one goes on: it says nothing yet");
    }
}

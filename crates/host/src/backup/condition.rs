//! How an app's backups and drills are, by what is on record.

use cutover_core::backup::{self, BackupOutcome, BackupSettings, DrillOutcome};
use cutover_core::event::{Condition, Event, Subject};
use cutover_core::failure::Failure;
use cutover_core::layout::Layout;
use cutover_core::names::AppId;
use jiff::Timestamp;

use super::{drill_record, record};
use crate::store::Store;

/// How they are, of an app of which what is live wants these; `told` is what was said of them last.
pub(crate) fn condition(
    layout: &Layout,
    store: &Store,
    app: &AppId,
    settings: Option<&BackupSettings>,
    about: Subject,
    told: Option<&Event>,
    now: Timestamp,
) -> Result<Condition, Failure> {
    let Some(settings) = settings else { return Ok(Condition::Unwanted) };
    match about {
        Subject::Backup => {
            let records = record::all(layout, store, app)?;
            let good = records.iter().find(|record| record.is_verified()).map(|record| record.started);
            let failure = records.first().and_then(|record| match &record.outcome {
                BackupOutcome::Failed { why } => Some(why.as_str()),
                BackupOutcome::Verified { .. } => None,
            });
            Ok(backup::condition(settings.every, good, failure, told, now))
        }
        Subject::Drill => {
            let every = settings.drill.as_ref().and_then(|drill| drill.every);
            let Some(every) = every else { return Ok(Condition::Unwanted) };
            let newest = drill_record::newest(layout, app);
            let (good, failure) = match newest.as_ref().map(|drill| (drill.started, &drill.outcome)) {
                None => (None, None),
                Some((started, DrillOutcome::Good { .. })) => (Some(started), None),
                Some((_, DrillOutcome::Failed { why })) => (None, Some(why.as_str())),
            };
            Ok(backup::condition(every, good, failure, told, now))
        }
    }
}

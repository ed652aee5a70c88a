//! How an app's backups and drills are, by what is on record.

use cutover_core::backup::{self, BackupOutcome, BackupSettings, DrillOutcome};
use cutover_core::event::{Condition, Event, Subject};
use cutover_core::failure::Failure;
use cutover_core::layout::Layout;
use cutover_core::names::AppId;
use jiff::Timestamp;

use super::{drill_record, record};
use crate::lock::ProcessLock;
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
    let lock = match about {
        Subject::Backup => record::lock_name(app),
        Subject::Drill => drill_record::drill_lock_name(app),
    };
    // While somebody works on them it is not known yet how it will be, nor whether it is on record how it was: nothing gets better by that, nor is it missed.
    if ProcessLock::is_held(layout, &lock)
        && let Some(Event { condition, .. }) = told
        && (condition.is_bad() || *condition == Condition::Awaited)
    {
        return Ok(condition.clone());
    }
    let records = record::all(layout, store, app)?;
    let good = records.iter().find(|record| record.is_verified()).map(|record| record.started);
    match about {
        Subject::Backup => {
            let failure = records.first().and_then(|record| match &record.outcome {
                BackupOutcome::Failed { why } => Some((record.started, why.as_str())),
                BackupOutcome::Verified { .. } => None,
            });
            Ok(backup::condition(settings.every, good, failure, told, now))
        }
        Subject::Drill => {
            let every = settings.drill.as_ref().and_then(|drill| drill.every);
            let Some(every) = every else { return Ok(Condition::Unwanted) };
            let newest = drill_record::newest(layout, app);
            if newest.is_none() && good.is_none() {
                // There is nothing yet that could be drilled, and that is told of the backups.
                return Ok(Condition::Awaited);
            }
            let (good, failure) = match newest.as_ref().map(|drill| (drill.started, &drill.outcome)) {
                None => (None, None),
                Some((started, DrillOutcome::Good { .. })) => (Some(started), None),
                Some((started, DrillOutcome::Failed { why })) => (None, Some((started, why.as_str()))),
            };
            Ok(backup::condition(every, good, failure, told, now))
        }
    }
}

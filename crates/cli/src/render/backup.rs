//! Backups, as people read them.

use cutover_core::backup::{BackupOutcome, BackupRecord, BackupState, DrillOutcome, KnownBackup};
use cutover_core::wire::BackupTold;
use jiff::Timestamp;

use super::event::size;
use super::paint::{self, Text};
use super::time::{ago, moment};

/// What became of work on backups.
pub(crate) fn backup(told: &BackupTold) -> String {
    let mut text = Text::default();
    match told {
        BackupTold::Made { record, .. } => text.line(made(record)),
        BackupTold::Listed { backups } if backups.is_empty() => {
            text.line("there is none yet; `cutover backup run` makes one");
        }
        BackupTold::Listed { backups } => {
            for backup in backups {
                text.line(known(backup));
            }
        }
        BackupTold::Verified { id, lines } => {
            text.line(format!("backup {} is good", paint::name(id)));
            indented(&mut text, lines);
        }
        BackupTold::Drilled { id, lines } => {
            text.line(format!(
                "backup {} passed its drill: all of it came back, and is taken away again",
                paint::name(id)
            ));
            indented(&mut text, lines);
        }
        BackupTold::Restored { id, lines } => {
            text.line(format!("backup {} was put back", paint::name(id)));
            indented(&mut text, lines);
        }
        BackupTold::Recalled { id, lines } => {
            text.line(format!(
                "the databases of backup {} are here; nothing was replaced yet",
                paint::name(id)
            ));
            indented(&mut text, lines);
        }
        BackupTold::Pruned { gone, stay } => {
            for backup in gone {
                text.line(format!("gone: {}", known(backup)));
            }
            text.line(format!("{} gone, {stay} stay", gone.len()));
        }
    }
    text.finish()
}

fn indented(text: &mut Text, lines: &[String]) {
    for line in lines {
        text.line(format!("  {line}"));
    }
}

fn known(backup: &KnownBackup) -> String {
    let counts = if backup.verified { "read back" } else { "not read back: does not count" };
    format!("{}  {}  {counts}", paint::name(&backup.id), moment(backup.at))
}

fn made(record: &BackupRecord) -> String {
    match &record.outcome {
        BackupOutcome::Verified { id, items, bytes, added, .. } => format!(
            "backup {} was made and read back: {} ({}; {} of it new)",
            paint::name(id),
            items.join(", "),
            size(*bytes),
            size(*added)
        ),
        BackupOutcome::Failed { why } => format!("no backup: {why}"),
    }
}

/// A line of `status`; `None` where nothing is wanted and nothing was made.
pub(super) fn state(state: &BackupState, now: Timestamp) -> Option<String> {
    let verified = match &state.verified {
        Some(record) => format!("last backup {} ago to {}", ago(record.started, now), record.to.as_str()),
        None if state.every_ms.is_some() || state.last.is_some() => "there is no backup".to_owned(),
        None => return None,
    };
    let failed = state.last.as_ref().filter(|last| state.verified.as_ref() != Some(last));
    let failed = failed.map(|last| match &last.outcome {
        BackupOutcome::Failed { why } => format!("; the one {} ago failed: {why}", ago(last.started, now)),
        BackupOutcome::Verified { .. } => String::new(),
    });
    let mark = if state.stale { format!("{} ", paint::bad("!")) } else { String::new() };
    let drill = state.drill.as_ref().map(|drill| match &drill.outcome {
        DrillOutcome::Good { .. } => format!("; last drill {} ago", ago(drill.started, now)),
        DrillOutcome::Failed { why } => format!("; the drill {} ago failed: {why}", ago(drill.started, now)),
    });
    Some(format!("{mark}{verified}{}{}", failed.unwrap_or_default(), drill.unwrap_or_default()))
}

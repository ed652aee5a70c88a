//! Snapshots, as people read them.

use cutover_core::names::ReleaseId;
use cutover_core::retention::KnownSnapshot;
use cutover_core::wire::RowsChanged;
use jiff::Timestamp;

use super::event::size;
use super::paint::{self, Text};
use super::time::{ago, moment};

/// One of a list.
pub(crate) fn snapshot(snapshot: &KnownSnapshot, now: Timestamp) -> String {
    let needed: Vec<&str> = snapshot.needed_by.iter().map(ReleaseId::as_str).collect();
    let needed = if needed.is_empty() {
        "needed by nothing".to_owned()
    } else {
        format!("rollback across {} needs it", needed.join(", "))
    };
    let facts = match (&snapshot.problem, snapshot.sequence) {
        (Some(problem), _) => paint::bad(format!("cannot be put back: {problem}")),
        (None, None) => format!("{needed}; on no record"),
        (None, Some(_)) => needed,
    };
    format!(
        "{}\n    {} of release {}, {} ({} ago), {}; {facts}",
        paint::name(&snapshot.name),
        paint::strong(&snapshot.database),
        snapshot.release,
        moment(snapshot.taken),
        ago(snapshot.taken, now),
        size(snapshot.bytes),
    )
}

/// What its database goes back by where it is put in its place; `migrated`: migrations were carried out since.
pub(crate) fn loss(
    of: &KnownSnapshot,
    now: Timestamp,
    changed: Option<&RowsChanged>,
    migrated: bool,
) -> String {
    // A clock may have been set back.
    let since = if of.taken > now { String::new() } else { format!(", {} ago", ago(of.taken, now)) };
    let migrations = if migrated { ", those that migrations changed among them" } else { "" };
    let changed = match changed {
        Some(RowsChanged { rows: Some(1), how }) => format!("1 row was changed since{migrations} ({how})"),
        Some(RowsChanged { rows: Some(rows), how }) => {
            format!("{rows} rows were changed since{migrations} ({how})")
        }
        Some(RowsChanged { rows: None, how }) => {
            format!("how many rows were changed since is not known ({how})")
        }
        None => "how many rows were changed since is not known".to_owned(),
    };
    format!(
        "`{}` goes back to what it was at {}{since} ({}): {changed}",
        of.database,
        moment(of.taken),
        of.name
    )
}

/// One that was read whole.
pub(crate) fn verified(snapshot: &KnownSnapshot, lines: &[String]) -> String {
    let mut text = Text::default();
    text.line(format!("snapshot {} is good", paint::name(&snapshot.name)));
    for line in lines {
        text.line(format!("  {line}"));
    }
    text.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_is_told_as_far_as_it_is_known() {
        let of = KnownSnapshot {
            name: "main_20261126T040506007Z_7f3c9e1.sqlite".to_owned(),
            database: "main".parse().unwrap(),
            taken: "2026-11-26T04:05:06.007Z".parse().unwrap(),
            release: "7f3c9e1".parse().unwrap(),
            bytes: 4096,
            sequence: Some(7),
            hash: None,
            moment: Some(3),
            needed_by: [].into(),
            problem: None,
        };
        let told = |now: &str, rows, migrated| {
            let changed = RowsChanged { rows, how: "so".to_owned() };
            let told = loss(&of, now.parse().unwrap(), Some(&changed), migrated);
            told.strip_prefix("`main` goes back to what it was at 2026-11-26 04:05:06Z").unwrap().to_owned()
        };
        let (name, later) = (&of.name, "2026-11-26T07:17:06.007Z");
        assert_eq!(
            told(later, Some(42), false),
            format!(", 3 h 12 min ago ({name}): 42 rows were changed since (so)")
        );
        assert!(
            told(later, Some(1), true)
                .ends_with("1 row was changed since, those that migrations changed among them (so)")
        );
        assert!(told(later, None, true).ends_with(": how many rows were changed since is not known (so)"));
        let before = told("2026-11-26T03:00:00Z", Some(0), false);
        assert_eq!(before, format!(" ({name}): 0 rows were changed since (so)"), "a clock was set back");
    }
}

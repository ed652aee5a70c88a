//! Snapshots, as people read them.

use cutover_core::names::ReleaseId;
use cutover_core::retention::KnownSnapshot;
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

/// One that was read whole.
pub(crate) fn verified(snapshot: &KnownSnapshot, lines: &[String]) -> String {
    let mut text = Text::default();
    text.line(format!("snapshot {} is good", paint::name(&snapshot.name)));
    for line in lines {
        text.line(format!("  {line}"));
    }
    text.finish()
}

//! Reads back what a keeper wrote of an instance's output: the newest lines, over rotated files.

use std::fs;
use std::io;
use std::path::Path;

use cutover_core::defaults::LOG_FILES;
use jiff::Timestamp;

use super::output::{Kind, rotated};
use crate::ports::{LogLine, LogQuery, Scope};

/// The lines a query asks for, oldest first. No file is no lines.
///
/// # Errors
/// A file that is there and cannot be read.
pub(super) fn read(path: &Path, query: &LogQuery) -> io::Result<Vec<LogLine>> {
    let mut newest_first = Vec::new();
    for number in 0..=LOG_FILES {
        let text = match fs::read(rotated(path, number)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if take(&String::from_utf8_lossy(&text), query, &mut newest_first) == More::No {
            break;
        }
    }
    newest_first.reverse();
    Ok(newest_first)
}

/// Whether older lines are wanted.
#[derive(PartialEq, Eq)]
enum More {
    Yes,
    No,
}

fn take(text: &str, query: &LogQuery, newest_first: &mut Vec<LogLine>) -> More {
    for line in text.lines().rev() {
        if query.tail.is_some_and(|tail| newest_first.len() >= tail) {
            return More::No;
        }
        let Some((at, kind, text)) = parse(line) else { continue };
        if query.since.is_some_and(|since| at < since) {
            return More::No;
        }
        match kind {
            Kind::Start if query.scope == Scope::ThisStart => return More::No,
            Kind::Start => {}
            Kind::Output | Kind::Error | Kind::Keeper => {
                let error = kind != Kind::Output;
                newest_first.push(LogLine { at: Some(at), error, text: text.to_owned() });
            }
        }
    }
    More::Yes
}

fn parse(line: &str) -> Option<(Timestamp, Kind, &str)> {
    let mut parts = line.splitn(3, ' ');
    let (at, kind) = (parts.next()?.parse().ok()?, Kind::of_letter(parts.next()?)?);
    Some((at, kind, parts.next().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "2026-11-01T10:00:00.000000Z S start\n2026-11-01T10:00:01.000000Z O one\n";
    const NEW: &str = "2026-11-01T10:00:02.000000Z E two words\n2026-11-01T10:00:03.000000Z S start\n\
        2026-11-01T10:00:04.000000Z O three\ncut off";

    fn texts(query: &LogQuery) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web.log");
        fs::write(rotated(&path, 1), OLD).unwrap();
        fs::write(&path, NEW).unwrap();
        read(&path, query).unwrap().into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn lines_come_oldest_first_over_rotated_files() {
        assert_eq!(texts(&LogQuery::default()), ["one", "two words", "three"]);
    }

    #[test]
    fn a_query_bounds_by_time_count_and_start() {
        assert_eq!(texts(&LogQuery { tail: Some(2), ..LogQuery::default() }), ["two words", "three"]);
        let since = Some("2026-11-01T10:00:02Z".parse().unwrap());
        assert_eq!(texts(&LogQuery { since, ..LogQuery::default() }), ["two words", "three"]);
        assert_eq!(texts(&LogQuery { scope: Scope::ThisStart, ..LogQuery::default() }), ["three"]);
    }

    #[test]
    fn no_file_is_no_lines() {
        assert_eq!(read(Path::new("/nowhere/at/all.log"), &LogQuery::default()).unwrap(), []);
    }
}

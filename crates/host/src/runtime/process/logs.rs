//! Reads back what a keeper wrote of an instance's output: the newest lines, over rotated files.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use cutover_core::defaults::LOG_FILES;
use cutover_core::layout::rotated;
use jiff::Timestamp;

use super::output::Kind;
use crate::ports::{LogLine, LogQuery, Scope};

/// Read at once, from the end of a file.
const BLOCK: usize = 64 * 1024;

/// The lines a query asks for, oldest first. No file is no lines. Only as much is read as the query reaches back.
///
/// # Errors
/// A file that is there and cannot be read.
pub(super) fn read(path: &Path, query: &LogQuery) -> io::Result<Vec<LogLine>> {
    let mut newest_first = Vec::new();
    for file in open(path)? {
        let mut lines = Backwards::new(file)?;
        while let Some(line) = lines.next()? {
            if !take(&String::from_utf8_lossy(&line), query, &mut newest_first) {
                newest_first.reverse();
                return Ok(newest_first);
            }
        }
    }
    newest_first.reverse();
    Ok(newest_first)
}

/// The files there are, the newest first. All are opened before any is read; one that was rotated in between is there once.
fn open(path: &Path) -> io::Result<Vec<File>> {
    let (mut files, mut seen) = (Vec::new(), Vec::new());
    for number in 0..=LOG_FILES {
        match File::open(rotated(path, number)) {
            Ok(file) => {
                let id = file.metadata()?.ino();
                if !seen.contains(&id) {
                    seen.push(id);
                    files.push(file);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(files)
}

/// Takes a line in; tells whether older ones are wanted.
fn take(line: &str, query: &LogQuery, newest_first: &mut Vec<LogLine>) -> bool {
    if query.tail.is_some_and(|tail| newest_first.len() >= tail) {
        return false;
    }
    let Some((at, kind, text)) = parse(line) else { return true };
    if query.since.is_some_and(|since| at < since) {
        return false;
    }
    match kind {
        Kind::Start => return query.scope == Scope::All,
        Kind::Output | Kind::Error | Kind::Keeper => {
            let error = kind != Kind::Output;
            newest_first.push(LogLine { at: Some(at), error, text: text.to_owned() });
        }
    }
    true
}

/// The lines of a file, the last one first.
struct Backwards {
    file: File,
    /// Where what was read begins.
    position: u64,
    /// What was read and not given yet.
    read: Vec<u8>,
}

impl Backwards {
    fn new(file: File) -> io::Result<Self> {
        let position = file.metadata()?.len();
        Ok(Self { file, position, read: Vec::new() })
    }

    /// The next line towards the beginning, without its end.
    fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            // The last byte read is the end of the line to be given.
            let before = self.read.len().saturating_sub(1);
            if let Some(at) = self.read[..before].iter().rposition(|byte| *byte == b'\n') {
                return Ok(Some(ended(self.read.split_off(at + 1))));
            }
            if self.position == 0 {
                let first = std::mem::take(&mut self.read);
                return Ok(if first.is_empty() { None } else { Some(ended(first)) });
            }
            self.read_more()?;
        }
    }

    fn read_more(&mut self) -> io::Result<()> {
        let size = usize::try_from(self.position).unwrap_or(BLOCK).min(BLOCK);
        self.position -= size as u64;
        let mut block = vec![0; size];
        self.file.read_exact_at(&mut block, self.position)?;
        block.append(&mut self.read);
        self.read = block;
        Ok(())
    }
}

fn ended(mut line: Vec<u8>) -> Vec<u8> {
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    line
}

fn parse(line: &str) -> Option<(Timestamp, Kind, &str)> {
    let mut parts = line.splitn(3, ' ');
    let (at, kind) = (parts.next()?.parse().ok()?, Kind::of_letter(parts.next()?)?);
    Some((at, kind, parts.next().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

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
    fn a_file_of_many_blocks_is_read_backwards() {
        let mut file = tempfile::tempfile().unwrap();
        let lines: Vec<String> = (0..20_000).map(|number| format!("line {number}")).collect();
        io::Write::write_all(&mut file, lines.join("\n").as_bytes()).unwrap();
        let mut lines = Backwards::new(file).unwrap();
        for number in (0..20_000).rev() {
            assert_eq!(lines.next().unwrap().unwrap(), format!("line {number}").as_bytes());
        }
        assert_eq!(lines.next().unwrap(), None);
    }

    #[test]
    fn no_file_is_no_lines() {
        assert_eq!(read(Path::new("/nowhere/at/all.log"), &LogQuery::default()).unwrap(), []);
    }
}

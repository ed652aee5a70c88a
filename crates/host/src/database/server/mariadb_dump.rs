//! A dump of `MariaDB` or `MySQL`: rows, definitions and events, a frame each. Whoever unpacks all of it has one text for the client program; who puts it back
//! beside the live database takes the rows first, and events not at all: the server would begin to run them.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use cutover_core::layout::is_for_a_drill;

use super::client::badly;
use super::dump::{self, Form, Frame, Source};
use super::following::Following;
use super::mariadb::Maria;
use super::mariadb_catalogue::Found;
use super::mariadb_login::DATABASE;
use super::mariadb_version::Version;
use crate::blocking::blocking;
use crate::meter::Meter;
use crate::ports::DatabaseError;

/// The frames of a dump.
pub(super) const ROWS: usize = 0;
pub(super) const DEFINITIONS: usize = 1;
pub(super) const EVENTS: usize = 2;

pub(super) const FORM: Form = Form {
    magic: &[b"/*M!999999\\- enable the sandbox mode", b"-- MariaDB dump", b"-- MySQL dump"],
    of: "mariadb-dump",
};

/// What the program writes last, when it came to its end.
const END_MARK: &[u8] = b"-- Dump completed";
/// So much of a frame's beginning is read for what it says of itself, and of its end for the mark.
const HEAD: usize = 4 * 1024;

/// What a program takes and gives at once: as much as any can. Their own limit is below that of a server.
const BIG: &str = "--max-allowed-packet=1G";
/// What a session is told whose rows are not to come into the server's binary log, nor to its replicas. Not every user may.
const UNLOGGED: &str = "set session sql_log_bin = 0";
/// What a statement has besides its longest line.
const AROUND: u64 = 4 * 1024;
/// What a server counts statements in.
const MIB: u64 = 1024 * 1024;

/// `MariaDB` from this version on dumps what system-versioned tables keep of the past.
const HISTORY_FROM: (u32, u32) = (10, 11);

/// What every program is told.
const ALWAYS: [&str; 6] = [
    "--default-character-set=utf8mb4",
    "--hex-blob",
    BIG,
    // Equal databases give equal dumps.
    "--skip-dump-date",
    "--no-tablespaces",
    "--skip-triggers",
];

impl Maria<'_> {
    pub(super) fn dumper(&self) -> &'static str {
        if self.is_mariadb() { "mariadb-dump" } else { "mysqldump" }
    }

    /// What is dumped, and by which programs.
    pub(super) fn frames(&self, found: &Found) -> Vec<Frame> {
        let (views, database) = (&found.views, &found.database);
        let not_views: Vec<String> =
            views.iter().map(|view| format!("--ignore-table={database}.{view}")).collect();
        let not_views: Vec<&str> = not_views.iter().map(String::as_str).collect();
        let only = ["--no-data", "--no-create-info", "--skip-lock-tables"];
        // One transaction: all rows are of one moment, and nobody waits.
        let history: &[&str] = if found.versioned.is_empty() { &[] } else { &["--dump-history"] };
        let rows = self.dump(&[&["--single-transaction", "--quick"], history, &not_views[..], &[DATABASE]]);
        let routines = self.dump(&[&only, &["--routines", "--triggers"], &not_views[..], &[DATABASE]]);
        let events = self.dump(&[&only, &["--events"], &not_views[..], &[DATABASE]]);
        let mut definitions = vec![routines];
        if !views.is_empty() {
            let views: Vec<&str> = views.iter().map(String::as_str).collect();
            definitions.push(self.dump(&[&["--no-data", "--skip-lock-tables", DATABASE], &views[..]]));
        }
        vec![vec![rows], definitions, vec![events]]
    }

    /// What tables keep of the past comes along, or nothing does.
    pub(super) fn refuse_lost_history(found: &Found) -> Result<(), DatabaseError> {
        let version = &found.version;
        if found.versioned.is_empty() || (version.major, version.minor) >= HISTORY_FROM {
            return Ok(());
        }
        Err(DatabaseError::plain(format!(
            "the server is {version}, whose programs dump no history of system-versioned tables ({}): from {}.{} on they do",
            found.versioned.join(", "),
            HISTORY_FROM.0,
            HISTORY_FROM.1
        )))
    }

    fn dump(&self, more: &[&[&str]]) -> Vec<String> {
        let own: &[&str] = if self.is_mariadb() { &[] } else { &["--set-gtid-purged=OFF"] };
        let words = [&[self.dumper()], &ALWAYS[..], own].concat();
        words.iter().chain(more.iter().copied().flatten()).map(|word| (*word).to_owned()).collect()
    }

    /// Gives one frame of a dump to a database.
    pub(super) async fn fill(
        &self,
        database: &str,
        snapshot: &Path,
        frame: usize,
    ) -> Result<(), DatabaseError> {
        let unlogged = is_for_a_drill(database) && self.ask_server(UNLOGGED).await.is_ok();
        let words = fill_words(self.talker(), unlogged);
        let source = Source { dump: snapshot, form: FORM, frame: Some(frame), what: "put back" };
        let said = dump::feed(&self.client, Some(database), &words, source, None).await?;
        if said.exit.code == Some(0) {
            return Ok(());
        }
        Err(badly(&words, &said.exit, &said.errors))
    }
}

fn fill_words(talker: &str, unlogged: bool) -> Vec<String> {
    let mut words = vec![talker, "--batch", "--default-character-set=utf8mb4", BIG];
    let first = format!("--init-command={UNLOGGED}");
    if unlogged {
        words.push(&first);
    }
    words.push(DATABASE);
    words.into_iter().map(str::to_owned).collect()
}

/// Reads all of a dump: every frame is there and has its end mark, it is of this database and a server that is not newer, and the server takes each of
/// its statements.
pub(super) async fn proven(dump: &Path, found: &Found, meter: &Meter) -> Result<(), DatabaseError> {
    let (passing, path) = (meter.begin_file("read back", dump), dump.to_owned());
    let read = move || examined(passing.through(File::open(path)?));
    fits(proven_of(dump, &found.database, &found.version, read).await?, found)
}

/// The same of one that is still written.
pub(super) async fn proven_as_it_comes(dump: Following, found: &Found) -> Result<(), DatabaseError> {
    let path = dump.path().to_owned();
    let read = move || examined(dump);
    fits(proven_of(&path, &found.database, &found.version, read).await?, found)
}

/// Whether the server takes a statement so long.
fn fits(longest: u64, found: &Found) -> Result<(), DatabaseError> {
    if longest <= found.packet {
        return Ok(());
    }
    let enough = longest.div_ceil(MIB) * MIB;
    Err(DatabaseError::plain(format!(
        "a row is too long to be put back: it takes a statement of {longest} bytes, and the server takes {}: `set global max_allowed_packet = {enough}`, and the same in the server's configuration",
        found.packet
    )))
}

/// The same, whatever the server takes; gives the length of the longest statement.
async fn proven_of(
    dump: &Path,
    database: &str,
    server: &Version,
    read: impl FnOnce() -> io::Result<Vec<Examined>> + Send + 'static,
) -> Result<u64, DatabaseError> {
    let frames = blocking(read)
        .await
        .map_err(|error| DatabaseError::plain(format!("reading the dump broke off: {error}")))?
        .map_err(|error| {
            DatabaseError::plain(format!("the dump {} cannot be trusted: {error}", dump.display()))
        })?;
    if frames.len() != EVENTS + 1 || !frames.iter().all(Examined::is_whole) {
        return Err(DatabaseError::plain(format!(
            "the dump {} cannot be trusted: it does not end with the mark of a dump that was completed",
            dump.display()
        )));
    }
    refuse_foreign(&String::from_utf8_lossy(&frames[ROWS].head), database, server)?;
    Ok(frames.iter().map(|frame| frame.longest).max().unwrap_or_default() + AROUND)
}

/// The two ends of a frame, and its longest line.
#[derive(Default)]
struct Examined {
    head: Vec<u8>,
    tail: Vec<u8>,
    longest: u64,
    /// The line that has not ended yet.
    line: u64,
}

impl Examined {
    fn count_lines(&mut self, piece: &[u8]) {
        let mut parts = piece.split(|byte| *byte == b'\n');
        self.line += parts.next().unwrap_or_default().len() as u64;
        self.longest = self.longest.max(self.line);
        for part in parts {
            self.line = part.len() as u64;
            self.longest = self.longest.max(self.line);
        }
    }

    fn is_whole(&self) -> bool {
        let end = self.tail.trim_ascii_end();
        let last = end.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
        last.starts_with(END_MARK)
    }
}

fn examined(dump: impl Read) -> io::Result<Vec<Examined>> {
    let mut frames: Vec<Examined> = Vec::new();
    dump::each_frame(dump, FORM, |place, piece| {
        frames.resize_with(frames.len().max(place + 1), Examined::default);
        let frame = &mut frames[place];
        let room = HEAD.saturating_sub(frame.head.len()).min(piece.len());
        frame.head.extend_from_slice(&piece[..room]);
        frame.count_lines(piece);
        frame.tail.extend_from_slice(&piece[piece.len().saturating_sub(HEAD)..]);
        let over = frame.tail.len().saturating_sub(HEAD);
        frame.tail.drain(..over);
    })?;
    Ok(frames)
}

/// A dump of another database, engine, or of a newer server, is not put in this one's place.
fn refuse_foreign(head: &str, database: &str, server: &Version) -> Result<(), DatabaseError> {
    let of = head.lines().find_map(|line| line.strip_prefix("-- Host: ")?.split_once("Database: "));
    let of = of.map(|(_, name)| name.trim()).unwrap_or_default();
    if of != database {
        let what = format!("the dump is of database `{of}`, and this one is `{database}`");
        return Err(DatabaseError::plain(what));
    }
    let from =
        head.lines().find_map(|line| Version::of_server(line.strip_prefix("-- Server version")?.trim()));
    match from {
        Some(from) if server.reads(&from) => Ok(()),
        Some(from) => Err(DatabaseError::plain(format!(
            "the dump is of a server of {from}, and this one is of {server}"
        ))),
        None => Err(DatabaseError::plain("the dump does not say of which version its server was")),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const SERVER: Version = Version { mariadb: true, major: 10, minor: 11 };

    fn frame(database: &str, end: &str) -> String {
        format!(
            "-- MariaDB dump 10.19  Distrib 10.11.18-MariaDB, for debian-linux-gnu (x86_64)\n--\n-- Host: localhost    Database: {database}\n\
             -- ------\n-- Server version\t10.11.18-MariaDB-0+deb12u1\n\nselect 1;\n{end}\n"
        )
    }

    fn written(frames: &[String]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        for frame in frames {
            file.write_all(&zstd::encode_all(frame.as_bytes(), 3).unwrap()).unwrap();
        }
        file
    }

    async fn told(frames: &[String]) -> Result<(), String> {
        let file = written(frames);
        let dump = file.reopen().unwrap();
        proven_of(file.path(), "shop", &SERVER, move || examined(dump))
            .await
            .map(drop)
            .map_err(|error| error.message)
    }

    #[tokio::test]
    async fn only_a_whole_dump_of_this_database_counts() {
        let whole = || frame("shop", "-- Dump completed");
        assert_eq!(told(&[whole(), whole(), whole()]).await, Ok(()));
        for frames in [
            vec![whole(), whole()],
            vec![whole(), whole(), frame("shop", "")],
            vec![frame("shop", "insert into t values ('-- Dump completed"), whole(), whole()],
        ] {
            assert!(told(&frames).await.unwrap_err().contains("cannot be trusted"));
        }
        assert!(
            told(&[frame("other", "-- Dump completed"), whole(), whole()])
                .await
                .unwrap_err()
                .contains("`other`")
        );
        assert!(told(&[]).await.unwrap_err().contains("cannot be trusted"));
        assert!(told(&["hello".to_owned()]).await.unwrap_err().contains("no archive"));
    }

    #[test]
    fn what_fills_a_database_of_a_drill_writes_no_binary_log_where_that_is_allowed() {
        let words = fill_words("mysql", true);
        assert!(words.contains(&"--init-command=set session sql_log_bin = 0".to_owned()), "{words:?}");
        assert_eq!(words.last().unwrap(), DATABASE);
        assert!(!fill_words("mysql", false).iter().any(|word| word.contains("sql_log_bin")));
    }

    #[test]
    fn the_longest_line_is_counted_over_all_pieces() {
        let mut frame = Examined::default();
        for piece in ["ab", "cd\nefg\n\nh", "ijklm", "\nn"] {
            frame.count_lines(piece.as_bytes());
        }
        assert_eq!((frame.longest, frame.line), (6, 1));
    }

    #[test]
    fn a_dump_of_a_newer_server_or_another_engine_is_refused() {
        let head =
            |version: &str| format!("-- Host: localhost    Database: shop\n-- Server version\t{version}\n");
        let told =
            |version: &str| refuse_foreign(&head(version), "shop", &SERVER).map_err(|error| error.message);
        assert_eq!(told("10.6.2-MariaDB"), Ok(()));
        assert!(told("11.4.1-MariaDB").unwrap_err().contains("of MariaDB 11.4"));
        assert!(told("8.0.36").unwrap_err().contains("of MySQL 8.0"));
    }
}

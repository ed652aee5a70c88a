//! What an instance writes: through a FIFO that reader and writer both hold open in both directions, so that a writer whose keeper was
//! killed gets no SIGPIPE (S10), into a bounded file of lines. A full disk loses lines and counts them; it never stops the instance.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use cutover_core::defaults::{LOG_BYTES, LOG_FILES};
use cutover_core::layout::rotated;
use jiff::Timestamp;
use rustix::fs::{CWD, FileType, Mode};
use tokio::net::unix::pipe;

/// A longer line is cut into pieces.
const LINE: usize = 16 * 1024;

/// The streams of an instance by the names of their FIFOs.
pub(super) const STREAMS: [(&str, Kind); 2] = [("out", Kind::Output), ("err", Kind::Error)];

/// What a line of the file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Written on the standard output.
    Output,
    /// Written on the standard error stream.
    Error,
    /// A start begins here.
    Start,
    /// Said by the keeper.
    Keeper,
}

impl Kind {
    pub(super) fn letter(self) -> char {
        match self {
            Self::Output => 'O',
            Self::Error => 'E',
            Self::Start => 'S',
            Self::Keeper => 'K',
        }
    }

    pub(super) fn of_letter(letter: &str) -> Option<Self> {
        [Self::Output, Self::Error, Self::Start, Self::Keeper]
            .into_iter()
            .find(|kind| letter.chars().eq([kind.letter()]))
    }
}

/// The log file of an instance, open for writing.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    limit: u64,
    file: Option<File>,
    size: u64,
    lost: u64,
}

impl LogFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, limit: LOG_BYTES, file: None, size: 0, lost: 0 }
    }

    /// Writes lines of one kind with the time of now.
    pub(super) fn write<'a>(&mut self, kind: Kind, lines: impl IntoIterator<Item = &'a [u8]>) {
        let at = format!("{:.6} {} ", Timestamp::now(), kind.letter());
        let (mut text, mut count) = (self.told_losses(), 0);
        for line in lines {
            text.extend_from_slice(at.as_bytes());
            text.extend_from_slice(line.strip_suffix(b"\r").unwrap_or(line));
            text.push(b'\n');
            count += 1;
        }
        if count == 0 {
            return;
        }
        match self.append(&text) {
            Ok(()) => self.lost = 0,
            Err(error) => {
                if self.lost == 0 {
                    tracing::warn!(file = %self.path.display(), %error, "log lines are lost");
                }
                self.lost += count;
                self.forget_half_lines();
            }
        }
    }

    fn told_losses(&self) -> Vec<u8> {
        if self.lost == 0 {
            return Vec::new();
        }
        let kind = Kind::Keeper.letter();
        format!("{:.6} {kind} {} lines could not be written and are lost\n", Timestamp::now(), self.lost)
            .into_bytes()
    }

    fn append(&mut self, text: &[u8]) -> io::Result<()> {
        if self.size > 0 && self.size + text.len() as u64 > self.limit {
            self.rotate();
        }
        let file = if let Some(file) = &mut self.file {
            file
        } else {
            let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)?;
            self.size = file.metadata()?.len();
            self.file.insert(file)
        };
        file.write_all(text)?;
        self.size += text.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) {
        self.file = None;
        self.size = 0;
        for number in (0..LOG_FILES).rev() {
            let (from, to) = (rotated(&self.path, number), rotated(&self.path, number + 1));
            if let Err(error) = fs::rename(&from, &to)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(file = %from.display(), %error, "a log file could not be rotated");
            }
        }
    }

    /// After a failed write, what was written of it goes, so that the next line begins at the beginning of one.
    fn forget_half_lines(&mut self) {
        if let Some(file) = self.file.take()
            && let Err(error) = file.set_len(self.size)
        {
            tracing::warn!(file = %self.path.display(), %error, "a half-written log line stays");
        }
    }
}

/// One stream of an instance, as the keeper reads it.
#[derive(Debug)]
pub(super) struct Stream {
    receiver: pipe::Receiver,
    kind: Kind,
    begun: Vec<u8>,
}

impl Stream {
    /// Opens the reading side of a FIFO that is there.
    pub(super) fn open(fifo: &Path, kind: Kind) -> io::Result<Self> {
        // With the writing side open, too, the FIFO never ends and survives every writer.
        let receiver = pipe::OpenOptions::new().read_write(true).open_receiver(fifo)?;
        Ok(Self { receiver, kind, begun: Vec::new() })
    }

    /// Waits for something to take; may be dropped at any time.
    pub(super) async fn readable(&self) -> io::Result<()> {
        self.receiver.readable().await
    }

    /// Takes one portion of what is there; tells whether there was any.
    pub(super) fn take(&mut self, log: &mut LogFile) -> bool {
        let mut buffer = [0; 16 * 1024];
        let Ok(count) = self.receiver.try_read(&mut buffer) else { return false };
        self.begun.extend_from_slice(&buffer[..count]);
        let complete = whole_lines(&self.begun);
        log.write(self.kind, lines_of(&self.begun[..complete]));
        self.begun.drain(..complete);
        count > 0
    }

    /// Takes all that is there, a last line without an end included: nobody writes any more.
    pub(super) fn finish(&mut self, log: &mut LogFile) {
        while self.take(log) {}
        if !self.begun.is_empty() {
            log.write(self.kind, [self.begun.as_slice()]);
            self.begun.clear();
        }
    }
}

/// Makes the FIFOs of an instance where they are absent; `owner` may open them anew by `/dev/stdout`.
pub(super) fn make_fifo(path: &Path, owner: Option<(u32, u32)>) -> io::Result<()> {
    match rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    match owner {
        Some((uid, gid)) => std::os::unix::fs::chown(path, Some(uid), Some(gid)),
        None => Ok(()),
    }
}

/// The writing side of a FIFO, for a child: it holds the reading side open, too.
pub(super) fn writer(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

/// How many of the bytes are whole lines, or pieces of lines that are too long.
fn whole_lines(bytes: &[u8]) -> usize {
    let ended = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let open = bytes.len() - ended;
    ended + open / LINE * LINE
}

fn lines_of(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let bytes = bytes.strip_suffix(b"\n").map_or(bytes, |rest| rest);
    let nothing = bytes.is_empty();
    bytes.split(|byte| *byte == b'\n').filter(move |_| !nothing).flat_map(|line| {
        // An empty line has no pieces but is a line.
        let empty = line.is_empty().then_some(line);
        line.chunks(LINE).chain(empty)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_where_they_end_or_are_too_long() {
        assert_eq!(whole_lines(b"one\ntwo"), 4);
        let long = vec![b'x'; LINE + 5];
        assert_eq!(whole_lines(&long), LINE);
        let pieces: Vec<usize> = lines_of(&long).map(<[u8]>::len).collect();
        assert_eq!(pieces, [LINE, 5]);
        let lines: Vec<&[u8]> = lines_of(b"a\n\nb\n").collect();
        assert_eq!(lines, [b"a".as_slice(), b"", b"b"]);
        assert_eq!(lines_of(b"").count(), 0);
    }

    #[test]
    fn a_log_is_rotated_and_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web.log");
        let mut log = LogFile { limit: 200, ..LogFile::new(path.clone()) };
        for number in 0..100 {
            log.write(Kind::Output, [format!("line {number}").as_bytes()]);
        }
        let sizes: Vec<u64> =
            (0..=LOG_FILES).map(|number| fs::metadata(rotated(&path, number)).unwrap().len()).collect();
        assert!(sizes.iter().all(|size| *size <= 200), "{sizes:?}");
        assert!(!rotated(&path, LOG_FILES + 1).exists());
        assert!(fs::read_to_string(&path).unwrap().ends_with(" O line 99\n"));
    }

    #[test]
    fn lines_that_could_not_be_written_are_counted_and_told_later() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("later/web.log");
        let mut log = LogFile::new(path.clone());
        log.write(Kind::Output, [b"lost".as_slice(), b"lost too"]);
        fs::create_dir(folder.path().join("later")).unwrap();
        log.write(Kind::Error, [b"kept".as_slice()]);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(" K 2 lines could not be written and are lost\n"), "{text}");
        assert!(text.ends_with(" E kept\n"), "{text}");
    }
}

//! A dump on its way from a server's own program into a file: packed as it comes, in bounded memory, counted as taken only when it came whole and was read
//! back. It is read back behind its writer, thus from memory: what a disk that took it says of its own trouble is an error of the write or the flush, and
//! what it lost without a word is found by the hash, at each use.

use std::fs::File;
use std::io::{self, BufRead as _, Read, Write};
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use cutover_core::defaults;
use cutover_core::hash::ContentHash;
use cutover_core::wire::Extent;
use futures_util::StreamExt;
use futures_util::future::{Either, select};
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;
use tokio::sync::{mpsc, oneshot};

use super::client::{self, Carried, Client, Output, WHOLE, badly, program};
use super::following::Following;
use crate::blocking::blocking;
use crate::files::{self, FileError};
use crate::meter::Passing;
use crate::ports::{Attached, DatabaseError, Taken};

/// Pieces that may wait for the disk.
const WAITING: usize = 16;
/// Bytes that are unpacked at once.
const PIECE: usize = 256 * 1024;
/// Of zstd: quicker than its usual 3 by a third, for a tenth more bytes. In a breaking migration requests wait for it, and a backup is packed anew.
const LEVEL: i32 = 2;

/// What tells a dump of an engine from other files.
#[derive(Debug, Clone, Copy)]
pub(super) struct Form {
    /// What each frame of every one begins with, one of these.
    pub(super) magic: &'static [&'static [u8]],
    /// Whose.
    pub(super) of: &'static str,
}

/// What goes to the file.
enum Part {
    Bytes(Bytes),
    /// A frame came whole.
    Frame,
    /// All came whole.
    End,
}

/// Programs whose output, one after the other, makes one frame of a dump: what can be unpacked without the frames before it. To whoever unpacks all of
/// them they are one text.
pub(super) type Frame = Vec<Vec<String>>;

/// What a dump is made of.
pub(super) struct Making<'a, Of> {
    pub(super) frames: &'a [Frame],
    /// How much it will be, before it is packed; where that fails the dump is not wanted.
    pub(super) of: Of,
    /// Who is shown what comes, from its beginning, for as long as they listen.
    pub(super) shown: Option<mpsc::Sender<Bytes>>,
}

/// Writes what programs put out into `to`, durably, once `proof` has read it back; where that does not work, nothing stays.
pub(super) async fn take(
    client: &Client<'_>,
    making: Making<'_, impl Future<Output = Result<Extent, DatabaseError>>>,
    to: &Path,
    proof: impl AsyncFnOnce(Following) -> Result<(), DatabaseError>,
) -> Result<Taken, DatabaseError> {
    files::ensure_folder(files::folder_of(to), 0o700)?;
    let next = files::beside(to);
    let taken = async {
        let failed = |error: io::Error| DatabaseError::from(FileError::new("write", &next, &error));
        let file = files::private(&next).map_err(failed)?;
        let (following, told) = Following::of(&next).map_err(failed)?;
        let into = Counted { file, hash: Sha256::new(), bytes: 0, told };
        let flushed = async {
            let (taken, file) = into_file(client, making, into, &next).await?;
            let flushed = blocking(move || file.sync_all()).await;
            flushed.map_err(|error| broken_off(&error))?.map_err(failed)?;
            Ok::<_, DatabaseError>(taken)
        };
        // It is read back from memory, while more of it comes and the disk takes it.
        let (taken, proved) = tokio::join!(flushed, proof(following));
        // What did not come whole could not be read back, either.
        let taken = taken?;
        proved?;
        Ok(taken)
    };
    match taken.await {
        Ok(taken) => {
            put_in_place(&next, to)?;
            Ok(taken)
        }
        Err(error) => {
            files::discard(&next);
            Err(error)
        }
    }
}

fn broken_off(error: &tokio::task::JoinError) -> DatabaseError {
    DatabaseError::plain(format!("the dump broke off: {error}"))
}

fn put_in_place(next: &Path, to: &Path) -> Result<(), DatabaseError> {
    std::fs::rename(next, to).map_err(|error| FileError::new("replace", to, &error))?;
    Ok(files::sync_folder(files::folder_of(to))?)
}

async fn into_file(
    client: &Client<'_>,
    making: Making<'_, impl Future<Output = Result<Extent, DatabaseError>>>,
    into: Counted,
    next: &Path,
) -> Result<(Taken, File), DatabaseError> {
    let Making { frames, of, shown } = making;
    let (parts, coming) = mpsc::channel(WAITING);
    let passing = client.meter.begin("dumped", Extent::Not);
    let mut pouring = Pouring { client, passing: &passing, parts, shown };
    let path = next.to_owned();
    let writing =
        blocking(move || write(into, coming).map_err(|error| FileError::new("write", &path, &error)));
    let known = async {
        passing.will_be(of.await?);
        Ok(())
    };
    let pouring = async move { pouring.all(frames).await };
    let (poured, written) = tokio::join!(wanted(known, pouring), writing);
    let written = written.map_err(|error| broken_off(&error))?;
    // A disk that is full is why the pouring stopped.
    let taken = written?;
    poured?;
    taken.ok_or_else(|| DatabaseError::plain("the dump did not come whole"))
}

/// A dump that is begun before it is known whether it is wanted: one that is not ends at once. Where both fail, why it is not wanted says more.
async fn wanted(
    known: impl Future<Output = Result<(), DatabaseError>>,
    pouring: impl Future<Output = Result<(), DatabaseError>>,
) -> Result<(), DatabaseError> {
    match select(pin!(known), pin!(pouring)).await {
        Either::Left((known, pouring)) => {
            known?;
            pouring.await
        }
        Either::Right((poured, known)) => {
            known.await?;
            poured
        }
    }
}

/// From programs to the writer.
struct Pouring<'a> {
    client: &'a Client<'a>,
    passing: &'a Passing,
    parts: mpsc::Sender<Part>,
    shown: Option<mpsc::Sender<Bytes>>,
}

impl Pouring<'_> {
    async fn all(&mut self, frames: &[Frame]) -> Result<(), DatabaseError> {
        for (place, frame) in frames.iter().enumerate() {
            if place > 0 && self.parts.send(Part::Frame).await.is_err() {
                return Ok(());
            }
            for words in frame {
                if !self.one(words).await? {
                    // The writer has ended, and says why.
                    return Ok(());
                }
            }
        }
        // The writer may have ended, and says why.
        drop(self.parts.send(Part::End).await);
        Ok(())
    }

    /// Hands on what one program puts out, and sees it end well. `false`: nobody takes it any more.
    async fn one(&mut self, words: &[String]) -> Result<bool, DatabaseError> {
        let Attached { output, input, exit, .. } = self.client.start(None, words, Carried::Guarded).await?;
        let poured = self.pour(output, words).await;
        // Its input ends now: a program that still runs is ended by that.
        drop(input);
        let (came, errors) = poured?;
        if came == Came::Unwanted {
            return Ok(false);
        }
        let exit = tokio::time::timeout(defaults::ACT, exit).await;
        let exit = exit.map_err(|_| DatabaseError::plain(format!("`{}` did not end", program(words))))?;
        let exit = exit.map_err(|error| DatabaseError::plain(error.message))?;
        if exit.code != Some(0) {
            return Err(badly(words, &exit, &errors));
        }
        if came == Came::CutOff {
            return Err(DatabaseError::plain(format!(
                "the dump did not come whole: the output of `{}` was cut off",
                program(words)
            )));
        }
        Ok(true)
    }

    /// Hands on what comes, but for the mark at its end; gives what the program said besides.
    async fn pour(&mut self, mut output: Output, words: &[String]) -> Result<(Came, String), DatabaseError> {
        let (mut held, mut errors) = (Bytes::new(), Vec::new());
        loop {
            let next = tokio::time::timeout(defaults::DUMP_SILENCE, output.next()).await;
            let Ok(next) = next else {
                let (program, seconds) = (program(words), defaults::DUMP_SILENCE.as_secs());
                return Err(DatabaseError::plain(format!("`{program}` wrote nothing for {seconds} s")));
            };
            let Some(piece) = next else { break };
            if piece.error {
                errors.extend_from_slice(&piece.bytes);
                let over = errors.len().saturating_sub(8 * 1024);
                errors.drain(..over);
                continue;
            }
            let (ready, rest) = but_the_end(held, piece.bytes);
            held = rest;
            for ready in ready.into_iter().filter(|ready| !ready.is_empty()) {
                self.passing.add(ready.len() as u64);
                self.show(&ready).await?;
                if self.parts.send(Part::Bytes(ready)).await.is_err() {
                    return Ok((Came::Unwanted, String::new()));
                }
            }
        }
        let came = if held == WHOLE { Came::Whole } else { Came::CutOff };
        Ok((came, String::from_utf8_lossy(&errors).trim().to_owned()))
    }

    async fn show(&mut self, ready: &Bytes) -> Result<(), DatabaseError> {
        let Some(shown) = &self.shown else { return Ok(()) };
        let taken = tokio::time::timeout(defaults::DUMP_SILENCE, shown.send(ready.clone())).await;
        let taken = taken.map_err(|_| {
            DatabaseError::plain("the program that lists what is in the dump does not read it")
        })?;
        if taken.is_err() {
            // They have seen enough.
            self.shown = None;
        }
        Ok(())
    }
}

/// What was held back and a piece that came after it: all but so many bytes of their end as may be the mark, and those.
fn but_the_end(held: Bytes, mut piece: Bytes) -> ([Bytes; 2], Bytes) {
    if piece.len() >= WHOLE.len() {
        let end = piece.split_off(piece.len() - WHOLE.len());
        return ([held, piece], end);
    }
    let mut both = Bytes::from([held, piece].concat());
    let end = both.split_off(both.len().saturating_sub(WHOLE.len()));
    ([both, Bytes::new()], end)
}

/// How a program's output came.
#[derive(PartialEq, Eq)]
enum Came {
    Whole,
    CutOff,
    /// Nobody took it any more.
    Unwanted,
}

/// `None`: it did not come whole.
fn write(into: Counted, mut coming: mpsc::Receiver<Part>) -> io::Result<Option<(Taken, File)>> {
    let mut packed = frame(into)?;
    while let Some(part) = coming.blocking_recv() {
        match part {
            Part::Bytes(bytes) => packed.write_all(&bytes)?,
            Part::Frame => packed = packed.finish().and_then(frame)?,
            Part::End => {
                let written = packed.finish()?;
                let hash = ContentHash::from_digest(&written.hash.finalize());
                let taken = Taken { bytes: written.bytes, hash: Some(hash), counts: None, loose: Vec::new() };
                return Ok(Some((taken, written.file)));
            }
        }
    }
    Ok(None)
}

fn frame(into: Counted) -> io::Result<zstd::Encoder<'static, Counted>> {
    let mut packed = zstd::Encoder::new(into, LEVEL)?;
    packed.include_checksum(true)?;
    Ok(packed)
}

/// A file, with the size and the hash of what was written.
struct Counted {
    file: File,
    hash: Sha256,
    bytes: u64,
    /// Who is told of each piece.
    told: std::sync::mpsc::Sender<usize>,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hash.update(&bytes[..count]);
        self.bytes += count as u64;
        // Whoever reads it back may have found that it cannot be.
        self.told.send(count).unwrap_or_default();
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A dump that is read.
pub(super) struct Source<'a> {
    pub(super) dump: &'a Path,
    pub(super) form: Form,
    /// The only frame that is wanted.
    pub(super) frame: Option<usize>,
    /// What becomes of it: `put back`.
    pub(super) what: &'static str,
}

/// Runs a program that reads a dump, or one frame of it; a program that needs no more of it than its beginning gets no more, and all of it is checked.
pub(super) async fn feed(
    client: &Client<'_>,
    database: Option<&str>,
    words: &[String],
    source: Source<'_>,
    patience: Option<Duration>,
) -> Result<client::Said, DatabaseError> {
    let Source { dump, form, frame, what } = source;
    let passing = client.meter.begin_file(what, dump);
    let attached = client.start(database, words, Carried::Plain).await?;
    let (pieces, coming) = mpsc::channel::<Bytes>(WAITING);
    let path = dump.to_owned();
    let reading = blocking(move || read(&path, form, frame, &passing, &pieces));
    let (said, read) = tokio::join!(fed(attached, words, coming, patience), reading);
    let read = read.map_err(|error| DatabaseError::plain(format!("reading the dump broke off: {error}")))?;
    read.map_err(|error| distrusted(dump, &error))?;
    said
}

/// All of a dump is read while it comes and compared with its checksums, for nobody else.
pub(super) async fn whole(dump: Following, form: Form) -> Result<(), DatabaseError> {
    let path = dump.path().to_owned();
    let read = blocking(move || each_frame(dump, form, |_, _| {})).await;
    let read = read.map_err(|error| DatabaseError::plain(format!("reading the dump broke off: {error}")))?;
    read.map_err(|error| distrusted(&path, &error))
}

fn distrusted(dump: &Path, error: &io::Error) -> DatabaseError {
    DatabaseError::plain(format!("the dump {} cannot be trusted: {error}", dump.display()))
}

/// What a program says that is shown a dump as it comes, for as long as it reads.
pub(super) async fn shown(
    client: &Client<'_>,
    words: &[String],
    coming: mpsc::Receiver<Bytes>,
) -> Result<client::Said, DatabaseError> {
    fed(client.start(None, words, Carried::Plain).await?, words, coming, None).await
}

/// Gives a program its input, piece by piece, until it has ended; what it said.
async fn fed(
    attached: Attached,
    words: &[String],
    mut coming: mpsc::Receiver<Bytes>,
    patience: Option<Duration>,
) -> Result<client::Said, DatabaseError> {
    let Attached { output, mut input, exit, .. } = attached;
    let (over, ended) = oneshot::channel();
    let saying = async {
        let said = within(patience, words, client::said(output, exit)).await;
        // Nobody may wait for it any more.
        over.send(()).unwrap_or_default();
        said
    };
    let writing = async {
        let all = async {
            while let Some(piece) = coming.recv().await {
                let written = async {
                    input.write_all(&piece).await?;
                    input.flush().await
                };
                if written.await.is_err() {
                    break;
                }
            }
            // It may have ended, and its input with it.
            input.shutdown().await.unwrap_or_default();
        };
        tokio::select! {
            () = all => {}
            _ = ended => {}
        }
        // Whoever gives it goes on without it.
        drop(input);
        drop(coming);
    };
    let (said, ()) = tokio::join!(saying, writing);
    said
}

/// `None`: for as long as it takes.
async fn within(
    patience: Option<Duration>,
    words: &[String],
    said: impl Future<Output = Result<client::Said, DatabaseError>>,
) -> Result<client::Said, DatabaseError> {
    let Some(patience) = patience else { return said.await };
    let late =
        |_| DatabaseError::plain(format!("`{}` did not end within {} s", program(words), patience.as_secs()));
    tokio::time::timeout(patience, said).await.map_err(late)?
}

/// All of a dump, unpacked and compared with its checksums; what is wanted of it is handed on. Who takes no more of it keeps nobody from the rest.
fn read(
    path: &Path,
    form: Form,
    wanted: Option<usize>,
    passing: &Passing,
    pieces: &mpsc::Sender<Bytes>,
) -> io::Result<()> {
    each_frame(passing.through(File::open(path)?), form, |place, piece| {
        if wanted.is_none_or(|wanted| wanted == place) && !pieces.is_closed() {
            // Closed meanwhile: the rest is only checked.
            drop(pieces.blocking_send(Bytes::copy_from_slice(piece)));
        }
    })
}

/// Unpacks a dump piece by piece, each with the number of its frame.
pub(super) fn each_frame(dump: impl Read, form: Form, mut takes: impl FnMut(usize, &[u8])) -> io::Result<()> {
    let mut source = io::BufReader::new(dump);
    let mut buffer = vec![0; PIECE];
    for place in 0.. {
        if place > 0 && source.fill_buf()?.is_empty() {
            break;
        }
        let mut packed = zstd::Decoder::with_buffer(&mut source)?.single_frame();
        let mut first = true;
        loop {
            let count = fill(&mut packed, &mut buffer)?;
            let piece = &buffer[..count];
            if first && !form.magic.iter().any(|magic| piece.starts_with(magic)) {
                let what = format!("it is no archive of `{}`", form.of);
                return Err(io::Error::new(io::ErrorKind::InvalidData, what));
            }
            first = false;
            if count == 0 {
                break;
            }
            takes(place, piece);
        }
    }
    Ok(())
}

/// As much as the buffer takes.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut count = 0;
    while count < buffer.len() {
        match from.read(&mut buffer[count..])? {
            0 => break,
            more => count += more,
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test]
    async fn a_dump_that_is_not_wanted_ends_at_once_and_says_why() {
        let failed = |why: &str| ready(Err(DatabaseError::plain(why)));

        assert_eq!(
            wanted(failed("another database"), pending()).await.unwrap_err().message,
            "another database"
        );
        let late = async {
            tokio::task::yield_now().await;
            Err(DatabaseError::plain("the server is gone"))
        };
        let both = wanted(late, failed("`pg_dump` ended with 1")).await;
        assert_eq!(both.unwrap_err().message, "the server is gone");
        assert!(wanted(ready(Ok(())), ready(Ok(()))).await.is_ok());
        assert_eq!(wanted(ready(Ok(())), failed("cut off")).await.unwrap_err().message, "cut off");
    }

    #[test]
    fn a_mark_at_the_end_is_held_back_however_it_comes() {
        let text = [b"a row\n".repeat(7), WHOLE.to_vec()].concat();
        for size in 1..=text.len() {
            let (mut came, mut held) = (Vec::new(), Bytes::new());
            for piece in text.chunks(size) {
                let (ready, rest) = but_the_end(held, Bytes::copy_from_slice(piece));
                came.extend(ready.concat());
                held = rest;
            }
            assert_eq!(held, WHOLE, "in pieces of {size} bytes");
            assert_eq!(came, b"a row\n".repeat(7));
        }
    }

    #[test]
    fn a_dump_is_read_back_while_it_is_written_and_one_that_broke_off_is_not_trusted() {
        let folder = tempfile::tempdir().unwrap();
        let text: Vec<u8> =
            (0..400_000_u32).flat_map(|number| format!("{}\n", number * 7).into_bytes()).collect();
        let read = |end: fn(mpsc::Sender<Part>)| {
            let path = folder.path().join("dump");
            let file = files::private(&path).unwrap();
            let (following, told) = Following::of(&path).unwrap();
            let (parts, coming) = mpsc::channel(WAITING);
            let into = Counted { file, hash: Sha256::new(), bytes: 0, told };
            let writing = std::thread::spawn(move || write(into, coming));
            let reading = std::thread::spawn(move || {
                let (mut read, form) = (Vec::new(), Form { magic: &[b"0\n7\n"], of: "nobody" });
                each_frame(following, form, |_, piece| read.extend_from_slice(piece)).map(|()| read)
            });
            for piece in text.chunks(10_000) {
                parts.blocking_send(Part::Bytes(Bytes::copy_from_slice(piece))).unwrap();
            }
            end(parts);
            (writing.join().unwrap().unwrap(), reading.join().unwrap(), path)
        };

        let (taken, back, path) = read(|parts| parts.blocking_send(Part::End).unwrap());
        assert!(back.unwrap() == text, "all of it came back");
        let (taken, _) = taken.unwrap();
        let packed = std::fs::read(&path).unwrap();
        assert_eq!((taken.bytes, taken.hash), (packed.len() as u64, Some(ContentHash::of(&packed))));

        std::fs::remove_file(path).unwrap();
        let (taken, back, _) = read(drop);
        assert!(taken.is_none(), "it did not come whole");
        assert_eq!(back.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}

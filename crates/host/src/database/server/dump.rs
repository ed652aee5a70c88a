//! A dump on its way from a server's own program into a file: packed as it comes, in bounded memory, counted as taken only when it came whole and was read back.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use cutover_core::defaults;
use cutover_core::hash::ContentHash;
use futures_util::StreamExt;
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;
use tokio::sync::{mpsc, oneshot};

use super::client::{self, Carried, Client, WHOLE, badly, program};
use crate::blocking::blocking;
use crate::files::{self, FileError};
use crate::ports::{Attached, Certainty, DatabaseError, Taken};

/// Pieces that may wait for the disk.
const WAITING: usize = 16;
/// Bytes that are unpacked at once.
const PIECE: usize = 256 * 1024;
/// zstd's usual level: what `zstd` itself does.
const LEVEL: i32 = 3;

/// What tells a dump of an engine from other files.
#[derive(Debug, Clone, Copy)]
pub(super) struct Form {
    /// What every one begins with.
    pub(super) magic: &'static [u8],
    /// Whose.
    pub(super) of: &'static str,
}

/// What goes to the file.
enum Part {
    Bytes(Bytes),
    /// It came whole.
    End,
}

/// Writes what a program puts out into `to`, durably, once `proof` has read it back; where that does not work, nothing stays.
pub(super) async fn take(
    client: &Client<'_>,
    words: &[String],
    to: &Path,
    proof: impl AsyncFnOnce(&Path) -> Result<(), DatabaseError>,
) -> Result<Taken, DatabaseError> {
    files::ensure_folder(files::folder_of(to), 0o700).map_err(|error| from_file(&error))?;
    let next = files::beside(to);
    let taken = async {
        let taken = into_file(client, words, &next).await?;
        proof(&next).await?;
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

fn put_in_place(next: &Path, to: &Path) -> Result<(), DatabaseError> {
    std::fs::rename(next, to).map_err(|error| from_file(&FileError::new("replace", to, &error)))?;
    files::sync_folder(files::folder_of(to)).map_err(|error| from_file(&error))
}

async fn into_file(client: &Client<'_>, words: &[String], next: &Path) -> Result<Taken, DatabaseError> {
    let Attached { output, input, exit, .. } = client.start(None, words, Carried::Guarded).await?;
    let (parts, coming) = mpsc::channel(WAITING);
    let path = next.to_owned();
    let writing = blocking(move || write(&path, coming));
    let (pouring, written) = tokio::join!(pour(output, parts, words), writing);
    // Its input ends now: a program that still runs is ended by that.
    drop(input);
    let written = written.map_err(|error| DatabaseError::plain(format!("the dump broke off: {error}")))?;
    // A disk that is full is why the pouring stopped.
    let taken = written.map_err(|error| from_file(&error))?;
    let errors = pouring?;
    let exit = tokio::time::timeout(defaults::ACT, exit).await;
    let exit = exit.map_err(|_| DatabaseError::plain(format!("`{}` did not end", program(words))))?;
    let exit = exit.map_err(|error| DatabaseError::plain(error.message))?;
    if exit.code != Some(0) {
        return Err(badly(words, &exit, &errors));
    }
    taken.ok_or_else(|| {
        DatabaseError::plain(format!(
            "the dump did not come whole: the output of `{}` was cut off",
            program(words)
        ))
    })
}

/// Hands on what comes, but for the mark at its end; gives what the program said besides.
async fn pour(
    mut output: std::pin::Pin<Box<dyn futures_util::Stream<Item = crate::ports::Written> + Send>>,
    parts: mpsc::Sender<Part>,
    words: &[String],
) -> Result<String, DatabaseError> {
    let (mut held, mut errors) = (Vec::new(), Vec::new());
    loop {
        let next = tokio::time::timeout(defaults::DUMP_SILENCE, output.next()).await;
        let Ok(next) = next else {
            return Err(DatabaseError {
                full: false,
                certainty: Certainty::NotDone,
                message: format!(
                    "`{}` wrote nothing for {} s",
                    program(words),
                    defaults::DUMP_SILENCE.as_secs()
                ),
            });
        };
        let Some(piece) = next else { break };
        if piece.error {
            errors.extend_from_slice(&piece.bytes);
            let over = errors.len().saturating_sub(8 * 1024);
            errors.drain(..over);
            continue;
        }
        held.extend_from_slice(&piece.bytes);
        let ready = held.len().saturating_sub(WHOLE.len());
        if ready > 0 {
            let ready = Bytes::from(held.drain(..ready).collect::<Vec<u8>>());
            if parts.send(Part::Bytes(ready)).await.is_err() {
                // The writer has ended, and says why.
                return Ok(String::new());
            }
        }
    }
    if held == WHOLE && parts.send(Part::End).await.is_err() {
        return Ok(String::new());
    }
    Ok(String::from_utf8_lossy(&errors).trim().to_owned())
}

/// `None`: it did not come whole.
fn write(path: &Path, mut coming: mpsc::Receiver<Part>) -> Result<Option<Taken>, FileError> {
    let failed = |error: io::Error| FileError::new("write", path, &error);
    let file = files::private(path).map_err(failed)?;
    let mut packed =
        zstd::Encoder::new(Counted { file, hash: Sha256::new(), bytes: 0 }, LEVEL).map_err(failed)?;
    packed.include_checksum(true).map_err(failed)?;
    while let Some(part) = coming.blocking_recv() {
        match part {
            Part::Bytes(bytes) => packed.write_all(&bytes).map_err(failed)?,
            Part::End => {
                let written = packed.finish().map_err(failed)?;
                written.file.sync_all().map_err(failed)?;
                let hash = ContentHash::from_digest(&written.hash.finalize());
                return Ok(Some(Taken { bytes: written.bytes, hash: Some(hash) }));
            }
        }
    }
    Ok(None)
}

/// A file, with the size and the hash of what was written.
struct Counted {
    file: File,
    hash: Sha256,
    bytes: u64,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hash.update(&bytes[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Runs a program that reads a dump; a program that needs no more of it than its beginning gets no more, and all of it is checked.
pub(super) async fn feed(
    client: &Client<'_>,
    database: Option<&str>,
    words: &[String],
    dump: &Path,
    form: Form,
) -> Result<client::Said, DatabaseError> {
    let Attached { output, mut input, exit, .. } = client.start(database, words, Carried::Plain).await?;
    let (pieces, mut coming) = mpsc::channel::<Bytes>(WAITING);
    let path = dump.to_owned();
    let reading = blocking(move || read(&path, form, &pieces));
    let (over, ended) = oneshot::channel();
    let saying = async {
        let said = client::said(output, exit).await;
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
        // The rest is checked without it.
        drop(input);
        drop(coming);
    };
    let (said, read, ()) = tokio::join!(saying, reading, writing);
    let read = read.map_err(|error| DatabaseError::plain(format!("reading the dump broke off: {error}")))?;
    read.map_err(|error| {
        DatabaseError::plain(format!("the dump {} cannot be trusted: {error}", dump.display()))
    })?;
    said
}

/// All of a dump, unpacked and compared with its checksum. Who takes no more of it keeps nobody from the rest.
fn read(path: &PathBuf, form: Form, pieces: &mpsc::Sender<Bytes>) -> io::Result<()> {
    let mut packed = zstd::Decoder::new(File::open(path)?)?;
    let (mut buffer, mut first) = (vec![0; PIECE], true);
    loop {
        let count = fill(&mut packed, &mut buffer)?;
        if first && !buffer[..count].starts_with(form.magic) {
            let what = format!("it is no archive of `{}`", form.of);
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        first = false;
        if count == 0 {
            return Ok(());
        }
        if !pieces.is_closed() {
            // Closed meanwhile: the rest is only checked.
            drop(pieces.blocking_send(Bytes::copy_from_slice(&buffer[..count])));
        }
    }
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

fn from_file(error: &FileError) -> DatabaseError {
    DatabaseError { full: error.full, certainty: Certainty::NotDone, message: error.message.clone() }
}

//! Frames as they come from a session: a JSON object on a line, and the bulk that follows some of them. Nothing here knows who sends them.

use std::io;

use cutover_core::wire::Reply;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};

/// A line longer than this is no message of ours.
const LONGEST_LINE: u64 = 64 * 1024 * 1024;
/// Bulk is read in pieces of at most this size.
const PIECE: u64 = 64 * 1024;
/// So many characters of a line tell what it is.
const SHOWN: usize = 120;

/// What came in.
pub(super) enum Frame {
    Reply(Box<Reply>),
    /// No message, or none that is known here: as much of it as tells what it is.
    Bad(String),
    /// It ended in the middle of a message.
    Cut,
    End,
}

/// From a session.
pub(super) struct Incoming<R> {
    reader: R,
}

impl<R: AsyncBufRead + Unpin> Incoming<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader }
    }

    /// The next message.
    pub(super) async fn next(&mut self) -> io::Result<Frame> {
        let mut line = Vec::new();
        (&mut self.reader).take(LONGEST_LINE).read_until(b'\n', &mut line).await?;
        Ok(match line.last() {
            None => Frame::End,
            Some(b'\n') => serde_json::from_slice(&line)
                .map_or_else(|_| Frame::Bad(beginning(&line)), |reply| Frame::Reply(Box::new(reply))),
            Some(_) => Frame::Cut,
        })
    }

    /// The next piece of bulk of which `left` bytes are still to come.
    pub(super) async fn piece(&mut self, left: u64) -> io::Result<Vec<u8>> {
        let mut piece = vec![0; usize::try_from(left.min(PIECE)).unwrap_or_default()];
        self.reader.read_exact(&mut piece).await?;
        Ok(piece)
    }
}

/// As much of a line as tells what it is.
fn beginning(line: &[u8]) -> String {
    let line = String::from_utf8_lossy(line);
    let line = line.trim_end();
    let shown: String = line.chars().take(SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if shown.len() < line.len() { format!("{shown}…") } else { shown }
}

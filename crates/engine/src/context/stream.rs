//! From the thread that packs to whoever sends: a few pieces ahead, never the whole.

use std::io::Write;
use std::pin::Pin;
use std::task::{Context as Poller, Poll};

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::{mpsc, oneshot};

use super::{ContextError, Packed};

const PIECE: usize = 256 * 1024;
const PIECES_AHEAD: usize = 4;

/// A context as tar, in pieces. Dropping it ends the packing.
#[derive(Debug)]
pub struct ContextStream {
    pieces: mpsc::Receiver<std::io::Result<Bytes>>,
    outcome: Option<oneshot::Receiver<Result<Packed, ContextError>>>,
}

impl ContextStream {
    pub(super) fn start(
        pack: impl FnOnce(&mut dyn Write) -> Result<Packed, ContextError> + Send + 'static,
    ) -> Self {
        let (sender, pieces) = mpsc::channel(PIECES_AHEAD);
        let (tell, outcome) = oneshot::channel();
        tokio::task::spawn_blocking(move || {
            let mut writer = Writer { sender, buffer: Vec::with_capacity(PIECE) };
            let packed = pack(&mut writer);
            if let Err(error) = &packed {
                // A stream that merely ended would look like a whole context. Nobody there to hear it is fine.
                writer.sender.blocking_send(Err(std::io::Error::other(error.to_string()))).ok();
            }
            tell.send(packed).ok();
        });
        Self { pieces, outcome: Some(outcome) }
    }

    /// What came of the packing; to be awaited when the stream has ended or was given away.
    pub fn outcome(&mut self) -> impl Future<Output = Result<Packed, ContextError>> + Send + use<> {
        let outcome = self.outcome.take();
        async move {
            match outcome {
                Some(outcome) => outcome.await.unwrap_or(Err(ContextError::CutOff)),
                None => Err(ContextError::CutOff),
            }
        }
    }
}

impl Stream for ContextStream {
    type Item = std::io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, poller: &mut Poller<'_>) -> Poll<Option<Self::Item>> {
        self.pieces.poll_recv(poller)
    }
}

struct Writer {
    sender: mpsc::Sender<std::io::Result<Bytes>>,
    buffer: Vec<u8>,
}

impl Writer {
    fn send(&mut self) -> std::io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.buffer, Vec::with_capacity(PIECE));
        self.sender.blocking_send(Ok(piece.into())).map_err(|_| std::io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.buffer.len() + bytes.len() > PIECE {
            self.send()?;
        }
        self.buffer.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.send()
    }
}

//! Receiving bulk: it goes from the client to whoever takes it as it comes, no faster than he does.

use std::io::{self, Read};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use super::frames::Stop;
use super::serve::Session;

/// Pieces on their way between client and disk.
const UNDER_WAY: usize = 8;

impl<R, W> Session<R, W>
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    /// Hands the next `bytes` to `take`, which blocks and need not read them all. Its outcome comes once all were read.
    pub(super) async fn receive<T: Send + 'static>(
        &mut self,
        bytes: u64,
        take: impl FnOnce(Pieces) -> T + Send + 'static,
    ) -> Result<T, Stop> {
        let (send, receive) = mpsc::channel(UNDER_WAY);
        let work =
            tokio::task::spawn_blocking(move || take(Pieces { receive, piece: io::Cursor::default() }));
        let mut left = bytes;
        let mut over = Ok(());
        while left > 0 {
            let piece = match self.incoming.piece(left).await {
                Ok(piece) => piece,
                Err(error) => {
                    over = Err(error);
                    break;
                }
            };
            left -= piece.len() as u64;
            // Whoever wants no more has it already, or failed: the rest is read all the same, to find the next message.
            if send.send(piece).await.is_err() {
                over = self.incoming.skip(left).await;
                break;
            }
        }
        drop(send);
        let taken = work.await;
        // A client that left: what has come of it is away by now.
        over?;
        taken.map_err(|error| io::Error::other(error).into())
    }
}

/// What comes in, for a reader that blocks. It ends when the client leaves; what then lacks is found by its hash.
pub(super) struct Pieces {
    receive: mpsc::Receiver<Vec<u8>>,
    piece: io::Cursor<Vec<u8>>,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.piece.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            match self.receive.blocking_recv() {
                Some(piece) => self.piece = io::Cursor::new(piece),
                None => return Ok(0),
            }
        }
    }
}

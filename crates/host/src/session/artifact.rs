//! Receiving an artifact: its bytes go from the client to the store as they come, no faster than the disk takes them.

use std::io::{self, Read};

use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::hash::ContentHash;
use cutover_core::wire::Reply;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use super::frames::Stop;
use super::serve::Session;
use crate::runtime::process::artifact::{ArtifactError, Artifacts};

/// Pieces on their way between client and disk.
const UNDER_WAY: usize = 8;

impl<R, W> Session<R, W>
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    pub(super) async fn artifact(&mut self, hash: &ContentHash, bytes: u64) -> Result<(), Stop> {
        let (send, receive) = mpsc::channel(UNDER_WAY);
        let (artifacts, wanted) = (Artifacts::new(self.layout.clone()), hash.clone());
        let work = tokio::task::spawn_blocking(move || {
            artifacts.receive(Pieces { receive, piece: io::Cursor::default() }, &wanted)
        });
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
        match taken {
            Ok(Ok(())) => Ok(self.outgoing.send(&Reply::Done).await?),
            Ok(Err(error)) => Err(not_taken(&error).into()),
            Err(error) => Err(io::Error::other(error).into()),
        }
    }
}

fn not_taken(error: &ArtifactError) -> Failure {
    let failure = Failure::new(Exit::Failed, "the artifact was not taken in").because(error.to_string());
    if error.is_full() {
        failure.next("make room on the host, then try again")
    } else {
        failure.next("try again; what arrived of it is gone")
    }
}

/// What comes in, for a reader that blocks. It ends when the client leaves; what then lacks is found by its hash.
struct Pieces {
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

//! Frames: a JSON object on a line, and the bulk that follows some of them. What waits to be written waits for the client: nothing is kept
//! beyond what is being sent.

use std::io;

use cutover_core::failure::Failure;
use cutover_core::wire::{Ask, Reply, Through};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};

/// A line longer than this is no message of ours.
const LONGEST_LINE: u64 = 64 * 1024 * 1024;
/// Bulk is passed on in pieces of at most this size.
const PIECE: u64 = 64 * 1024;

/// Why an answer ended early.
pub(super) enum Stop {
    /// It is told to the client, who may go on asking.
    Failed(Box<Failure>),
    /// The client is gone, or says what cannot be understood: there is nobody to talk to any more.
    Over(io::Error),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(Box::new(failure))
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Over(error)
    }
}

/// What came in.
pub(super) enum Frame {
    Ask(Box<Ask>),
    /// No message, or one of a version that is not known here.
    Bad(String),
    End,
}

/// From the client.
pub(super) struct Incoming<R> {
    reader: BufReader<R>,
    /// A line as far as it has come: kept here, so that waiting for it can be given up.
    line: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Incoming<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader: BufReader::with_capacity(64 * 1024, reader), line: Vec::new() }
    }

    /// The next message. May be given up and asked again. An empty line is a sign of life only.
    pub(super) async fn next(&mut self) -> io::Result<Frame> {
        let line = loop {
            let left = LONGEST_LINE.saturating_sub(self.line.len() as u64);
            (&mut self.reader).take(left).read_until(b'\n', &mut self.line).await?;
            let line = std::mem::take(&mut self.line);
            if line != b"\n" {
                break line;
            }
        };
        match line.split_last() {
            None => Ok(Frame::End),
            Some((b'\n', text)) => Ok(match serde_json::from_slice(text) {
                Ok(ask) => Frame::Ask(Box::new(ask)),
                Err(error) => Frame::Bad(error.to_string()),
            }),
            Some(_) => Ok(Frame::Bad("a message is cut, or longer than any of ours".to_owned())),
        }
    }

    /// Exactly so many bytes, in one piece; for what is small.
    pub(super) async fn bulk(&mut self, bytes: u64) -> io::Result<Vec<u8>> {
        let mut bulk = Vec::new();
        (&mut self.reader).take(bytes).read_to_end(&mut bulk).await?;
        if bulk.len() as u64 == bytes { Ok(bulk) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// The next piece of bulk of which `left` bytes are still to come.
    pub(super) async fn piece(&mut self, left: u64) -> io::Result<Vec<u8>> {
        let wanted = left.min(PIECE);
        // Reading fills what room there is: an empty one grows by 64 bytes only.
        let mut piece = Vec::with_capacity(usize::try_from(wanted).unwrap_or_default());
        let read = (&mut self.reader).take(wanted).read_buf(&mut piece).await?;
        if read == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(piece) }
    }

    /// Reads bulk that nobody wants, so that the next message is found.
    pub(super) async fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let mut left = bytes;
        while left > 0 {
            left -= self.piece(left).await?.len() as u64;
        }
        Ok(())
    }

    /// Returns when the client is gone. One that asks on is still there, and heard later.
    pub(super) async fn left(&mut self) -> io::Error {
        loop {
            let signs = match self.reader.fill_buf().await {
                Ok([]) => return io::ErrorKind::UnexpectedEof.into(),
                Ok(bytes) => bytes.iter().take_while(|byte| **byte == b'\n').count(),
                Err(error) => return error,
            };
            if signs == 0 {
                return std::future::pending().await;
            }
            self.reader.consume(signs);
        }
    }
}

/// To the client.
pub(super) struct Outgoing<W> {
    writer: W,
}

impl<W: AsyncWrite + Unpin> Outgoing<W> {
    pub(super) fn new(writer: W) -> Self {
        Self { writer }
    }

    pub(super) async fn send(&mut self, reply: &Reply) -> io::Result<()> {
        let mut line = serde_json::to_vec(reply)?;
        line.push(b'\n');
        self.writer.write_all(&line).await?;
        self.writer.flush().await
    }

    pub(super) async fn through(&mut self, connection: u32, what: Through, bytes: &[u8]) -> io::Result<()> {
        let mut frame = serde_json::to_vec(&Reply::Through { connection, what })?;
        frame.push(b'\n');
        frame.extend_from_slice(bytes);
        self.writer.write_all(&frame).await?;
        self.writer.flush().await
    }

    pub(super) async fn data(&mut self, error: bool, bytes: &[u8]) -> io::Result<()> {
        let mut line = serde_json::to_vec(&Reply::Data { error, bytes: bytes.len() as u64 })?;
        line.push(b'\n');
        self.writer.write_all(&line).await?;
        self.writer.write_all(bytes).await?;
        self.writer.flush().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Reads as a session does, to the end: messages, what is none, and bulk of whatever size comes.
    async fn read_all(bytes: &[u8]) -> usize {
        let mut incoming = Incoming::new(bytes);
        let mut messages = 0;
        loop {
            match incoming.next().await {
                Ok(Frame::Ask(ask)) => {
                    messages += 1;
                    if let Ask::Input { bytes } = *ask {
                        // Bulk that is cut is an end, too.
                        if incoming.skip(bytes).await.is_err() {
                            return messages;
                        }
                    }
                }
                Ok(Frame::Bad(_) | Frame::End) | Err(_) => return messages,
            }
        }
    }

    fn any_frames() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..40),
            Just(b"\n".to_vec()),
            Just(b"{\"ask\":\"up\"}\n".to_vec()),
            any::<u64>().prop_map(|bytes| format!("{{\"ask\":\"input\",\"bytes\":{bytes}}}\n").into_bytes()),
            Just(b"{\"ask\":\"alive\",\"silence_ms\":-1}\n".to_vec()),
        ];
        proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_bytes_are_messages_or_the_end(bytes in any_frames()) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let messages = runtime.block_on(read_all(&bytes));
            prop_assert!(messages <= bytes.len());
        }
    }

    #[tokio::test]
    async fn given_signs_of_life_then_they_are_no_messages_and_the_next_one_is_found() {
        let mut incoming = Incoming::new(&b"\n\n{\"ask\":\"up\"}\n\n"[..]);
        assert!(matches!(incoming.next().await, Ok(Frame::Ask(ask)) if *ask == Ask::Up));
        assert_eq!(incoming.left().await.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn given_an_artifact_then_it_comes_in_large_pieces_and_to_its_end() {
        let bytes = vec![7_u8; 200_000];
        let mut incoming = Incoming::new(bytes.as_slice());
        let (mut left, mut pieces) = (200_000_u64, 0);
        while left > 0 {
            left -= incoming.piece(left).await.unwrap().len() as u64;
            pieces += 1;
        }
        assert!(pieces <= 8, "{pieces}");
        assert_eq!(incoming.piece(1).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}

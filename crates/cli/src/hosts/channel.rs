//! The conversation with a `cutover-host session`: frames over two pipes, whoever holds their other ends.
//!
//! A frame is one JSON object on a line; bulk data follows its line at once, as many bytes as the line says. Nothing here knows what
//! is asked, or how the pipes came to be.

use cutover_core::defaults::GREETING;
use cutover_core::wire::{Ask, Reply, WIRE_VERSION};
use jiff::Timestamp;
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader,
};

use super::error::HostError;

/// A line longer than this is no message of ours.
const LONGEST_LINE: u64 = 64 * 1024 * 1024;
/// Bulk data is read in pieces of at most this size.
const PIECE: u64 = 64 * 1024;
/// And sent in pieces of this size.
const BULK: usize = 256 * 1024;

type Reader = Box<dyn AsyncBufRead + Send + Unpin>;
type Writer = Box<dyn AsyncWrite + Send + Unpin>;
/// What keeps the other end there: dropping it ends the conversation.
type Peer = Option<Box<dyn Send>>;

/// An open conversation.
pub(crate) struct Channel {
    reader: Reader,
    writer: Writer,
    greeting: Greeting,
    peer: Peer,
}

/// What the host said of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Greeting {
    /// Its clock.
    pub(crate) now: Timestamp,
}

impl Channel {
    /// Begins the conversation: each side says its version first.
    pub(crate) async fn open(
        reader: impl AsyncRead + Send + Unpin + 'static,
        writer: impl AsyncWrite + Send + Unpin + 'static,
    ) -> Result<Self, HostError> {
        let mut channel = Self {
            reader: Box::new(BufReader::new(reader)),
            writer: Box::new(writer),
            greeting: Greeting { now: Timestamp::UNIX_EPOCH },
            peer: None,
        };
        let package = env!("CARGO_PKG_VERSION").to_owned();
        let hello = Ask::Hello { version: WIRE_VERSION, package: package.clone() };
        let greeted = tokio::time::timeout(GREETING, channel.greet(&hello)).await;
        match greeted.map_err(|_| HostError::Silent { seconds: GREETING.as_secs() })?? {
            Reply::Hello { version: WIRE_VERSION, now, .. } => channel.greeting = Greeting { now },
            Reply::Hello { version, package: theirs, .. } => {
                return Err(HostError::Version {
                    ours: format!("{package} (protocol {WIRE_VERSION})"),
                    theirs: format!("{theirs} (protocol {version})"),
                });
            }
            other => return Err(unexpected("hello", &other)),
        }
        Ok(channel)
    }

    /// Who refuses every conversation says why and ends, maybe before it could be greeted.
    async fn greet(&mut self, hello: &Ask) -> Result<Reply, HostError> {
        match self.ask(hello).await {
            Ok(()) => self.reply().await,
            Err(gone) => match self.reply().await {
                Err(HostError::Failed(failure)) => Err(HostError::Failed(failure)),
                _ => Err(gone),
            },
        }
    }

    /// Keeps the other end there for as long as the conversation lasts.
    pub(crate) fn kept_by(self, peer: impl Send + 'static) -> Self {
        Self { peer: Some(Box::new(peer)), ..self }
    }

    /// What the host said of itself.
    pub(crate) fn greeting(&self) -> &Greeting {
        &self.greeting
    }

    /// Asks, and sends `bulk` behind it; the message must say how many bytes that is.
    pub(crate) async fn ask_with(&mut self, ask: &Ask, bulk: &[u8]) -> Result<(), HostError> {
        self.send(ask).await?;
        self.writer.write_all(bulk).await.map_err(|error| lost(&error))?;
        self.writer.flush().await.map_err(|error| lost(&error))
    }

    /// Asks, and sends what `bulk` holds behind it: exactly `bytes`.
    pub(crate) async fn ask_from(
        &mut self,
        ask: &Ask,
        bulk: impl AsyncRead + Unpin,
        bytes: u64,
    ) -> Result<(), HostError> {
        self.send(ask).await?;
        // A file is read by another thread: few large pieces, not many small ones.
        let mut bulk = BufReader::with_capacity(BULK, bulk.take(bytes));
        let sent = tokio::io::copy_buf(&mut bulk, &mut self.writer).await.map_err(|error| lost(&error))?;
        if sent != bytes {
            return Err(HostError::Protocol(format!("{sent} of {bytes} bytes could be sent")));
        }
        self.writer.flush().await.map_err(|error| lost(&error))
    }

    /// Asks without bulk.
    pub(crate) async fn ask(&mut self, ask: &Ask) -> Result<(), HostError> {
        self.ask_with(ask, &[]).await
    }

    /// Asks without bulk, and hears the one reply.
    pub(crate) async fn answer(&mut self, ask: &Ask) -> Result<Reply, HostError> {
        self.ask(ask).await?;
        self.reply().await
    }

    /// The next reply. A refusal comes as an error; so does the end of the conversation, since every question has an answer.
    pub(crate) async fn reply(&mut self) -> Result<Reply, HostError> {
        let mut line = String::new();
        let read =
            (&mut self.reader).take(LONGEST_LINE).read_line(&mut line).await.map_err(|error| lost(&error))?;
        if read == 0 {
            return Err(HostError::Lost { why: "its output was closed".to_owned() });
        }
        if !line.ends_with('\n') {
            return Err(HostError::Lost { why: "its output was cut in the middle of a message".to_owned() });
        }
        match serde_json::from_str(&line)
            .map_err(|_| HostError::Protocol(format!("it said `{}`", beginning(&line))))?
        {
            Reply::Failed { failure } => Err(HostError::Failed(failure)),
            reply => Ok(reply),
        }
    }

    /// Hears [`Reply::Done`].
    pub(crate) async fn done(&mut self) -> Result<(), HostError> {
        match self.reply().await? {
            Reply::Done => Ok(()),
            other => Err(unexpected("done", &other)),
        }
    }

    /// Reads `bytes` of bulk that follow a reply, in pieces.
    pub(crate) async fn data(
        &mut self,
        bytes: u64,
        mut piece: impl FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<(), HostError> {
        let mut left = bytes;
        while left > 0 {
            let length = usize::try_from(left.min(PIECE)).unwrap_or(1);
            let mut buffer = vec![0; length];
            self.reader.read_exact(&mut buffer).await.map_err(|error| lost(&error))?;
            left -= length as u64;
            piece(&buffer).map_err(|error| HostError::Lost { why: error.to_string() })?;
        }
        Ok(())
    }

    /// The two directions apart: for a conversation in which input and output go on at once.
    pub(crate) fn halves(self) -> (Hearing, Speaking) {
        let Self { reader, writer, greeting, peer } = self;
        (Hearing(Self { reader, writer: Box::new(tokio::io::sink()), greeting, peer }), Speaking { writer })
    }

    async fn send(&mut self, ask: &Ask) -> Result<(), HostError> {
        send(&mut self.writer, ask).await
    }
}

/// The direction from the host.
pub(crate) struct Hearing(Channel);

impl Hearing {
    /// As [`Channel::reply`].
    pub(crate) async fn reply(&mut self) -> Result<Reply, HostError> {
        self.0.reply().await
    }

    /// As [`Channel::data`].
    pub(crate) async fn data(
        &mut self,
        bytes: u64,
        piece: impl FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<(), HostError> {
        self.0.data(bytes, piece).await
    }
}

/// The direction to the host.
pub(crate) struct Speaking {
    writer: Writer,
}

impl Speaking {
    /// As [`Channel::ask_with`].
    pub(crate) async fn ask_with(&mut self, ask: &Ask, bulk: &[u8]) -> Result<(), HostError> {
        send(&mut self.writer, ask).await?;
        self.writer.write_all(bulk).await.map_err(|error| lost(&error))?;
        self.writer.flush().await.map_err(|error| lost(&error))
    }
}

/// As much of a line as tells what it is.
fn beginning(line: &str) -> String {
    const SHOWN: usize = 120;
    let line = line.trim_end();
    let shown: String = line.chars().take(SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if shown.len() < line.len() { format!("{shown}…") } else { shown }
}

/// The reply that came is not the one that was due.
pub(crate) fn unexpected(wanted: &str, got: &Reply) -> HostError {
    let name =
        serde_json::to_value(got).ok().and_then(|value| Some(value.get("reply")?.as_str()?.to_owned()));
    HostError::Protocol(format!("`{wanted}` was due, `{}` came", name.unwrap_or_default()))
}

async fn send(writer: &mut Writer, ask: &Ask) -> Result<(), HostError> {
    let mut line = serde_json::to_vec(ask).map_err(|error| HostError::Protocol(error.to_string()))?;
    line.push(b'\n');
    writer.write_all(&line).await.map_err(|error| lost(&error))?;
    writer.flush().await.map_err(|error| lost(&error))
}

fn lost(error: &std::io::Error) -> HostError {
    HostError::Lost { why: error.to_string() }
}

#[cfg(test)]
#[path = "channel_tests.rs"]
mod tests;

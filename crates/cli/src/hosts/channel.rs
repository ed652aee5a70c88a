//! The conversation with a `cutover-host session`: frames over two pipes, whoever holds their other ends.
//!
//! A frame is one JSON object on a line; bulk data follows its line at once, as many bytes as the line says. Nothing here knows what
//! is asked, or how the pipes came to be.

use cutover_core::defaults::{SIGN_OF_LIFE, SILENCE};
use cutover_core::wire::{Ask, Reply, WIRE_VERSION};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use super::error::{Behind, HostError, Trouble};
use super::frames::{Frame, Incoming};
use super::opening::Peer;
use super::target::Target;

/// Clocks that differ by fewer seconds are as good as equal.
const SAME_TIME: u64 = 60;
/// Bulk data is sent in pieces of this size.
const BULK: usize = 256 * 1024;

type Reader = Box<dyn AsyncBufRead + Send + Unpin>;
/// Signs of life go out between messages, and never in the middle of one.
type Writer = Arc<Mutex<Box<dyn AsyncWrite + Send + Unpin>>>;

/// An open conversation.
pub(crate) struct Channel {
    incoming: Incoming<Reader>,
    writer: Writer,
    greeting: Greeting,
    target: Target,
    /// Who holds the other ends: asked how it ended, when it did.
    peer: Option<Peer>,
    /// On a network that is gone nobody is told that we are.
    signs: Option<Signs>,
}

/// What the host said of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Greeting {
    /// Its clock.
    pub(crate) now: Timestamp,
    /// By how much it is ahead of ours, or behind where negative. Half a round trip may be in it.
    pub(crate) ahead: SignedDuration,
    /// Its package version.
    pub(crate) package: String,
    /// `x86_64-linux` …
    pub(crate) platform: String,
}

impl Greeting {
    fn nothing_yet() -> Self {
        let ahead = SignedDuration::ZERO;
        Self { now: Timestamp::UNIX_EPOCH, ahead, package: String::new(), platform: String::new() }
    }
}

impl Channel {
    /// Begins the conversation: each side says its version first.
    pub(super) async fn open(
        target: Target,
        reader: impl AsyncRead + Send + Unpin + 'static,
        writer: impl AsyncWrite + Send + Unpin + 'static,
        peer: Option<Peer>,
    ) -> Result<Self, HostError> {
        Self::open_asking(target, reader, writer, peer, None).await
    }

    /// Begins the conversation, and asks at once: the answer comes with the next reply, and no round trip is spent on the greeting.
    pub(super) async fn open_asking(
        target: Target,
        reader: impl AsyncRead + Send + Unpin + 'static,
        writer: impl AsyncWrite + Send + Unpin + 'static,
        peer: Option<Peer>,
        ask: Option<&Ask>,
    ) -> Result<Self, HostError> {
        let greeting = Greeting::nothing_yet();
        let writer: Writer = Arc::new(Mutex::new(Box::new(writer)));
        let incoming = Incoming::new(Box::new(BufReader::new(reader)) as Reader);
        let mut channel = Self { incoming, writer, greeting, target, peer, signs: None };
        match channel.begin(ask).await {
            Ok(greeting) => {
                if let Some(peer) = &channel.peer {
                    peer.has_greeted();
                }
                channel.signs =
                    matches!(channel.target, Target::Server(_)).then(|| Signs::of(&channel.writer));
                Ok(Self { greeting, ..channel })
            }
            Err(Trouble::Lost { why }) => {
                let trouble = match channel.peer.take() {
                    Some(peer) => Trouble::before_greeting(&channel.target, &why, &peer.ended().await),
                    None => Trouble::Lost { why },
                };
                Err(channel.error(trouble))
            }
            Err(trouble) => {
                if let Some(peer) = &mut channel.peer {
                    peer.end();
                }
                Err(channel.error(trouble))
            }
        }
    }

    async fn begin(&mut self, ask: Option<&Ask>) -> Result<Greeting, Trouble> {
        let package = env!("CARGO_PKG_VERSION").to_owned();
        let hello = Ask::Hello { version: WIRE_VERSION, package: package.clone(), progress: true };
        let mut frames = Frames::default();
        frames.push(&hello);
        if let Target::Server(_) = self.target {
            frames.push(&Ask::Alive { silence_ms: milliseconds(SILENCE) });
        }
        if let Some(ask) = ask {
            frames.push(ask);
        }
        let deadline = self.target.greeting();
        let greeted = tokio::time::timeout(deadline, self.greet(&frames)).await;
        match greeted.map_err(|_| Trouble::Silent { seconds: deadline.as_secs() })?? {
            Reply::Hello { version: WIRE_VERSION, now, package, platform } => {
                let ahead = now.duration_since(Timestamp::now());
                Ok(Greeting { now, ahead, package, platform })
            }
            Reply::Hello { version, package: theirs, .. } => Err(Trouble::Version {
                ours: format!("{package} (protocol {WIRE_VERSION})"),
                theirs: format!("{theirs} (protocol {version})"),
                behind: if version < WIRE_VERSION { Behind::There } else { Behind::Here },
            }),
            other => Err(Trouble::Protocol(not_due("hello", &other))),
        }
    }

    /// Who refuses every conversation says why and ends, maybe before it could be greeted.
    async fn greet(&mut self, frames: &Frames) -> Result<Reply, Trouble> {
        match frames.send(&self.writer).await {
            Ok(()) => self.hear().await,
            Err(gone) => match self.hear().await {
                Err(Trouble::Failed(failure)) => Err(Trouble::Failed(failure)),
                _ => Err(lost(&gone)),
            },
        }
    }

    /// A word for the plan where the clocks differ: nothing depends on them, but people compare times.
    pub(crate) fn note_of_clocks(&self) -> Option<String> {
        let seconds = self.greeting.ahead.as_secs();
        let which = if seconds > 0 { "ahead of" } else { "behind" };
        (seconds.unsigned_abs() >= SAME_TIME).then(|| {
            format!(
                "the clock of {} is {} {which} this machine's: nothing depends on it, but times in logs and of certificates will look odd",
                self.target.shown(),
                for_people(seconds.unsigned_abs()),
            )
        })
    }

    /// With whom it is.
    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// What the host said of itself.
    pub(crate) fn greeting(&self) -> &Greeting {
        &self.greeting
    }

    /// Asks, and sends `bulk` behind it; the message must say how many bytes that is.
    pub(crate) async fn ask_with(&mut self, ask: &Ask, bulk: &[u8]) -> Result<(), HostError> {
        match send(&self.writer, ask, bulk).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.broken(lost(&error)).await),
        }
    }

    /// Asks, and sends what `bulk` holds behind it: exactly `bytes`.
    pub(crate) async fn ask_from(
        &mut self,
        ask: &Ask,
        bulk: impl AsyncRead + Unpin,
        bytes: u64,
    ) -> Result<(), HostError> {
        match send_from(&self.writer, ask, bulk, bytes).await {
            Ok(()) => Ok(()),
            Err(trouble) => Err(self.broken(trouble).await),
        }
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
        match self.hear().await {
            Ok(reply) => Ok(reply),
            Err(trouble) => Err(self.broken(trouble).await),
        }
    }

    /// Hears [`Reply::Done`].
    pub(crate) async fn done(&mut self) -> Result<(), HostError> {
        match self.reply().await? {
            Reply::Done => Ok(()),
            other => Err(self.error(Trouble::Protocol(not_due("done", &other)))),
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
            let next = match self.incoming.piece(left).await {
                Ok(next) => next,
                Err(error) => return Err(self.broken(lost(&error)).await),
            };
            left -= next.len() as u64;
            piece(&next).map_err(|error| self.error(lost(&error)))?;
        }
        Ok(())
    }

    /// The two directions apart: for a conversation in which input and output go on at once.
    pub(crate) fn halves(self) -> (Hearing, Speaking) {
        let target = self.target.clone();
        let writer = Arc::clone(&self.writer);
        (Hearing(self), Speaking { writer, target })
    }

    async fn hear(&mut self) -> Result<Reply, Trouble> {
        let lost_by = |why: &str| Err(Trouble::Lost { why: why.to_owned() });
        match self.incoming.next().await.map_err(|error| lost(&error))? {
            Frame::Reply(reply) => match *reply {
                Reply::Failed { failure } => Err(Trouble::Failed(failure)),
                reply => Ok(reply),
            },
            Frame::Bad(beginning) => Err(Trouble::Protocol(format!("it said `{beginning}`"))),
            Frame::Cut => lost_by("its output was cut in the middle of a message"),
            Frame::End => lost_by("its output was closed"),
        }
    }

    fn error(&self, trouble: Trouble) -> HostError {
        HostError::new(self.target.clone(), trouble)
    }

    /// The error of a conversation that broke off, with what the other end said of it.
    async fn broken(&mut self, trouble: Trouble) -> HostError {
        let trouble = match (trouble, self.peer.take()) {
            (Trouble::Lost { why }, Some(peer)) => {
                Trouble::in_the_middle(&self.target, why, &peer.ended().await)
            }
            (trouble, peer) => {
                self.peer = peer;
                trouble
            }
        };
        self.error(trouble)
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
    target: Target,
}

impl Speaking {
    /// As [`Channel::ask_with`].
    pub(crate) async fn ask_with(&mut self, ask: &Ask, bulk: &[u8]) -> Result<(), HostError> {
        let sent = send(&self.writer, ask, bulk).await;
        sent.map_err(|error| HostError::new(self.target.clone(), lost(&error)))
    }
}

/// The largest two units that a time has, to the nearest minute.
fn for_people(seconds: u64) -> String {
    let seconds = seconds + 30;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes} min"),
        (0, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

/// The reply that came is not the one that was due.
pub(crate) fn unexpected(wanted: &str, got: &Reply) -> HostError {
    HostError::unexpected(not_due(wanted, got))
}

fn not_due(wanted: &str, got: &Reply) -> String {
    let name =
        serde_json::to_value(got).ok().and_then(|value| Some(value.get("reply")?.as_str()?.to_owned()));
    format!("`{wanted}` was due, `{}` came", name.unwrap_or_default())
}

/// Messages that leave in one piece: each flush may become a packet of its own.
#[derive(Default)]
struct Frames(Vec<u8>);

impl Frames {
    fn push(&mut self, ask: &Ask) {
        // What is made of names, numbers and texts always has a form.
        self.0.extend(serde_json::to_vec(ask).unwrap_or_default());
        self.0.push(b'\n');
    }

    async fn send(&self, writer: &Writer) -> std::io::Result<()> {
        let mut writer = writer.lock().await;
        writer.write_all(&self.0).await?;
        writer.flush().await
    }
}

async fn send(writer: &Writer, ask: &Ask, bulk: &[u8]) -> std::io::Result<()> {
    let mut frames = Frames::default();
    frames.push(ask);
    frames.0.extend_from_slice(bulk);
    frames.send(writer).await
}

async fn send_from(
    writer: &Writer,
    ask: &Ask,
    bulk: impl AsyncRead + Unpin,
    bytes: u64,
) -> Result<(), Trouble> {
    let mut frames = Frames::default();
    frames.push(ask);
    let mut writer = writer.lock().await;
    writer.write_all(&frames.0).await.map_err(|error| lost(&error))?;
    // A file is read by another thread: few large pieces, not many small ones.
    let mut bulk = BufReader::with_capacity(BULK, bulk.take(bytes));
    let sent = tokio::io::copy_buf(&mut bulk, &mut *writer).await.map_err(|error| lost(&error))?;
    if sent != bytes {
        return Err(Trouble::Protocol(format!("{sent} of {bytes} bytes could be sent")));
    }
    writer.flush().await.map_err(|error| lost(&error))
}

/// Signs of life, for as long as the conversation lasts.
struct Signs(JoinHandle<()>);

impl Signs {
    fn of(writer: &Writer) -> Self {
        let writer = Arc::clone(writer);
        Self(tokio::spawn(async move {
            loop {
                tokio::time::sleep(SIGN_OF_LIFE).await;
                let mut writer = writer.lock().await;
                // Who waits for a reply hears of the end.
                if writer.write_all(b"\n").await.is_err() || writer.flush().await.is_err() {
                    return;
                }
            }
        }))
    }
}

impl Drop for Signs {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn milliseconds(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn lost(error: &std::io::Error) -> Trouble {
    Trouble::Lost { why: error.to_string() }
}

#[cfg(test)]
#[path = "channel_tests.rs"]
mod tests;

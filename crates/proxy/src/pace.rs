//! A client's connection that is watched for slowness: while a head comes in, while nothing does, while nothing is taken.
//!
//! The service says when a request is inside (see [`Busy`]); bodies have their own patience. Timers are armed only when the socket
//! makes us wait, and left running when it did not wait long, so that a fast request touches none.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use crate::deadline::Limits;
use crate::serve::Client;

/// What a connection is at, as told by the service.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    requests: AtomicU32,
    inside: AtomicU32,
    tunnel: AtomicBool,
}

impl Pace {
    pub(crate) fn had_requests(&self) -> bool {
        self.requests.load(Ordering::Relaxed) > 0
    }
}

/// A request is inside, from its head to the end of its answer.
#[derive(Debug)]
pub(crate) struct Busy(Arc<Client>);

impl Busy {
    pub(crate) fn begin(client: &Arc<Client>) -> Self {
        client.pace.requests.fetch_add(1, Ordering::Relaxed);
        client.pace.inside.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(client))
    }

    /// The connection will carry another protocol, with its own idea of idle.
    pub(crate) fn becomes_tunnel(&self) {
        self.0.pace.tunnel.store(true, Ordering::Relaxed);
    }

    pub(crate) fn client(&self) -> &Arc<Client> {
        &self.0
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.pace.inside.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What the reading side waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waiting {
    Head,
    Request,
}

/// The socket of a client.
#[derive(Debug)]
pub(crate) struct PacedStream {
    stream: TcpStream,
    client: Arc<Client>,
    head: Duration,
    idle: Duration,
    write: Duration,
    /// The number of the request after which `begun` and `reading` are meant.
    after: u32,
    /// Bytes of the next head have come.
    begun: bool,
    reading: Option<(Waiting, Instant)>,
    writing: Option<Instant>,
    read_alarm: Alarm,
    write_alarm: Alarm,
}

impl PacedStream {
    pub(crate) fn new(stream: TcpStream, client: Arc<Client>, limits: &Limits) -> Self {
        Self {
            stream,
            client,
            head: limits.request_head,
            idle: limits.idle,
            write: limits.response_write,
            after: 0,
            // A connection is opened to send a request: its first head is awaited from the start.
            begun: true,
            reading: None,
            writing: None,
            read_alarm: Alarm::default(),
            write_alarm: Alarm::default(),
        }
    }

    fn poll_read_limit(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let pace = &self.client.pace;
        if pace.inside.load(Ordering::Relaxed) > 0 || pace.tunnel.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        let requests = pace.requests.load(Ordering::Relaxed);
        if requests != self.after {
            (self.after, self.begun, self.reading) = (requests, false, None);
        }
        let waiting = if self.begun { Waiting::Head } else { Waiting::Request };
        let limit = match self.reading {
            Some((same, limit)) if same == waiting => limit,
            Some(_) | None => Instant::now() + if self.begun { self.head } else { self.idle },
        };
        self.reading = Some((waiting, limit));
        ready!(self.read_alarm.poll(limit, context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Passes a result of writing on, unless the socket has not taken a byte for too long.
    fn watch_write<T>(
        &mut self,
        result: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.writing = None;
            return result;
        }
        let limit = *self.writing.get_or_insert_with(|| Instant::now() + self.write);
        ready!(self.write_alarm.poll(limit, context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for PacedStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match Pin::new(&mut this.stream).poll_read(context, buffer) {
            Poll::Ready(result) => {
                this.begun = true;
                Poll::Ready(result)
            }
            Poll::Pending => this.poll_read_limit(context),
        }
    }
}

impl AsyncWrite for PacedStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.watch_write(result, context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_write_vectored(context, slices);
        this.watch_write(result, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

/// A timer that is set anew only when it rings too early or would ring too late.
#[derive(Debug, Default)]
struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    fn poll(&mut self, limit: Instant, context: &mut Context<'_>) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(limit.into())));
        if sleep.deadline() > limit.into() {
            sleep.as_mut().reset(limit.into());
        }
        loop {
            ready!(sleep.as_mut().poll(context));
            if tokio::time::Instant::now() >= limit.into() {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(limit.into());
        }
    }
}

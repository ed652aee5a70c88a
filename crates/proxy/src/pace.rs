//! A client's connection that is watched for slowness: while a head comes in, while nothing does, while nothing is taken.
//!
//! The service says when a request is inside (see [`Busy`]); bodies have their own patience. Timers are armed only when the socket
//! makes us wait, and left running when it did not wait long, so that a fast request touches none.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use crate::deadline::Limits;
use crate::serve::Client;
use crate::target::Target;

/// What a connection is at, as told by the service.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    requests: AtomicU32,
    inside: AtomicU32,
    tunnel: AtomicBool,
    /// The last request had a body.
    upload: AtomicBool,
    /// Bytes of a request have come that is not inside yet.
    mid_head: AtomicBool,
    idle_since: Mutex<Option<Instant>>,
    /// Of the last answer.
    target: Mutex<Option<Arc<Target>>>,
}

impl Pace {
    pub(crate) fn had_requests(&self) -> bool {
        self.requests.load(Ordering::Relaxed) > 0
    }

    /// Whether a request is on its way in: to close now would lose it.
    pub(crate) fn is_mid_head(&self) -> bool {
        self.mid_head.load(Ordering::Relaxed)
    }

    /// Since when nothing was on the connection; none while there is something.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        let busy = self.inside.load(Ordering::Relaxed) > 0
            || self.tunnel.load(Ordering::Relaxed)
            || self.mid_head.load(Ordering::Relaxed);
        if busy { None } else { *lock(&self.idle_since) }
    }

    /// Whose answer the client is about to take.
    pub(crate) fn answers_from(&self, target: &Arc<Target>) {
        let mut last = lock(&self.target);
        if !last.as_ref().is_some_and(|last| Arc::ptr_eq(last, target)) {
            *last = Some(Arc::clone(target));
        }
    }

    fn is_hurried(&self) -> bool {
        lock(&self.target).as_ref().is_some_and(|target| target.is_hurried())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A request is inside, from its head to the end of its answer.
#[derive(Debug)]
pub(crate) struct Busy {
    client: Arc<Client>,
    /// Counted among those that the end of the proxy waits for.
    awaited: bool,
}

impl Busy {
    pub(crate) fn begin(client: &Arc<Client>, has_body: bool) -> Self {
        let pace = &client.pace;
        pace.requests.fetch_add(1, Ordering::Relaxed);
        pace.inside.fetch_add(1, Ordering::Relaxed);
        pace.upload.store(has_body, Ordering::Relaxed);
        pace.mid_head.store(false, Ordering::Relaxed);
        Self { client: Arc::clone(client), awaited: client.stop.request_begins() }
    }

    /// The connection will carry another protocol, with its own idea of idle.
    pub(crate) fn becomes_tunnel(&self) {
        self.client.pace.tunnel.store(true, Ordering::Relaxed);
    }

    /// The answer ends only when told to: nobody waits for that.
    pub(crate) fn goes_on(&mut self) {
        if std::mem::take(&mut self.awaited) {
            self.client.stop.request_ends();
        }
    }

    pub(crate) fn client(&self) -> &Arc<Client> {
        &self.client
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.client.pace.inside.fetch_sub(1, Ordering::Relaxed);
        self.goes_on();
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
    hurry: Duration,
    linger: Duration,
    /// Bytes that may still be read after the end.
    linger_bytes: usize,
    /// Since when only the client's end is awaited.
    lingering: Option<Instant>,
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
            hurry: limits.hurry,
            linger: limits.linger,
            linger_bytes: limits.linger_bytes,
            lingering: None,
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
            Some(_) | None => {
                let now = Instant::now();
                *lock(&pace.idle_since) = Some(now);
                now + if self.begun { self.head } else { self.idle }
            }
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
        let since = *self.writing.get_or_insert_with(Instant::now);
        let hurried = self.client.pace.is_hurried();
        ready!(self.write_alarm.poll_patience(since, self.write, self.hurry, hurried, context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Reads what a client still sends, for a while and to no end: a socket that is closed with unread bytes in it tells the client of
    /// a broken connection, and the answer before that is lost.
    fn poll_linger(&mut self, since: Instant, context: &mut Context<'_>) -> Poll<()> {
        let mut bytes = [0; 8 * 1024];
        while self.linger_bytes > 0 {
            let mut buffer = ReadBuf::new(&mut bytes);
            match Pin::new(&mut self.stream).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    self.linger_bytes = self.linger_bytes.saturating_sub(buffer.filled().len());
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return self.read_alarm.poll(since + self.linger, context),
            }
        }
        Poll::Ready(())
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
                if this.client.pace.inside.load(Ordering::Relaxed) == 0 && !buffer.filled().is_empty() {
                    this.client.pace.mid_head.store(true, Ordering::Relaxed);
                }
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
        let this = self.get_mut();
        let since = if let Some(since) = this.lingering {
            since
        } else {
            ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
            *this.lingering.insert(Instant::now())
        };
        if this.client.pace.upload.load(Ordering::Relaxed) {
            ready!(this.poll_linger(since, context));
        }
        Poll::Ready(Ok(()))
    }
}

/// A timer that is set anew only when it rings too early or would ring too late.
#[derive(Debug, Default)]
pub(crate) struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Rings when nothing has happened for as long as `patience` after `since`, or `hurry` once it is `hurried`: whether it is can
    /// change without a word, so that it wakes now and then to be asked.
    pub(crate) fn poll_patience(
        &mut self,
        since: Instant,
        patience: Duration,
        hurry: Duration,
        hurried: bool,
        context: &mut Context<'_>,
    ) -> Poll<()> {
        let hurry = hurry.min(patience);
        let limit = since + if hurried { hurry } else { patience };
        let now = Instant::now();
        if now >= limit {
            return Poll::Ready(());
        }
        self.poll(limit.min(now + hurry), context)
    }

    pub(crate) fn poll(&mut self, limit: Instant, context: &mut Context<'_>) -> Poll<()> {
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

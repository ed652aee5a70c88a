//! Bodies on their way through: a request's, watched for a client that stops sending, and an answer's, which ends the exchange.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::Sleep;

use crate::inflight::InFlight;
use crate::pace::Busy;
use crate::pool::{self, Sender};
use crate::streams::Stream;

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the connection broke: {0}")]
    Connection(#[from] hyper::Error),
    #[error("the client stopped sending")]
    ClientStopped,
}

/// A client's body on its way to a target.
#[derive(Debug)]
pub(crate) struct RequestBody {
    /// Read while the request waited in a hold.
    early: VecDeque<Frame<Bytes>>,
    rest: Option<Incoming>,
    /// None for a request without a body.
    upload: Option<Arc<Upload>>,
    patience: Duration,
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
}

/// How a body's way to the target goes, as seen by who waits for the answer.
#[derive(Debug)]
pub(crate) struct Upload {
    since: Instant,
    /// Milliseconds from `since` to the last piece.
    last: AtomicU64,
    done: AtomicBool,
    /// Not the target's fault.
    client: Mutex<Option<ClientFault>>,
}

/// What a client did to its own body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientFault {
    /// It stopped sending.
    Stopped,
    /// It sent what is no body, or broke off.
    Broke,
}

impl RequestBody {
    pub(crate) fn new(body: Incoming, patience: Duration) -> Self {
        let upload = (!body.is_end_stream()).then(|| {
            Arc::new(Upload {
                since: Instant::now(),
                last: AtomicU64::new(0),
                done: AtomicBool::new(false),
                client: Mutex::new(None),
            })
        });
        let rest = upload.is_some().then_some(body);
        Self { early: VecDeque::new(), rest, upload, patience, waiting: None }
    }

    /// No body at all.
    pub(crate) fn none() -> Self {
        Self { early: VecDeque::new(), rest: None, upload: None, patience: Duration::ZERO, waiting: None }
    }

    /// None for a request without a body.
    pub(crate) fn upload(&self) -> Option<Arc<Upload>> {
        self.upload.clone()
    }

    /// Reads one piece to be sent later and says its length; none when there is no more to read ahead.
    pub(crate) async fn read_ahead(&mut self) -> Option<u64> {
        let frame = self.rest.as_mut()?.frame().await?.ok()?;
        let length = frame.data_ref().map_or(0, Bytes::len);
        self.early.push_back(frame);
        Some(length as u64)
    }

    fn poll_rest(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(rest) = self.rest.as_mut() else { return Poll::Ready(None) };
        match Pin::new(rest).poll_frame(context) {
            Poll::Ready(frame) => {
                self.waiting = None;
                if let (Some(Err(_)), Some(upload)) = (&frame, &self.upload) {
                    upload.fails(ClientFault::Broke);
                }
                Poll::Ready(frame.map(|frame| frame.map_err(BodyError::from)))
            }
            Poll::Pending => {
                ready!(self.poll_patience(context));
                if let Some(upload) = &self.upload {
                    upload.fails(ClientFault::Stopped);
                }
                Poll::Ready(Some(Err(BodyError::ClientStopped)))
            }
        }
    }

    fn poll_patience(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let patience = self.patience;
        let (_, end) = self.waiting.get_or_insert_with(|| {
            let now = Instant::now();
            (now, Box::pin(tokio::time::sleep_until((now + patience).into())))
        });
        end.as_mut().poll(context)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let frame = match this.early.pop_front() {
            Some(frame) => Some(Ok(frame)),
            None => ready!(this.poll_rest(context)),
        };
        let end = frame.is_none() || this.is_end_stream();
        if let Some(upload) = &this.upload {
            upload.moved(end);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.early.is_empty() && self.rest.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let early: u64 = self.early.iter().filter_map(Frame::data_ref).map(|data| data.len() as u64).sum();
        let rest = self.rest.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint);
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + early);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + early);
        }
        hint
    }
}

impl Upload {
    fn moved(&self, end: bool) {
        let now = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
        if end {
            self.done.store(true, Ordering::Relaxed);
        }
    }

    /// When the last piece of the body went on its way.
    pub(crate) fn last(&self) -> Instant {
        self.since + Duration::from_millis(self.last.load(Ordering::Relaxed))
    }

    pub(crate) fn is_done(&self) -> bool {
        self.done.load(Ordering::Relaxed)
    }

    fn fails(&self, fault: ClientFault) {
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault);
    }

    pub(crate) fn client_fault(&self) -> Option<ClientFault> {
        *self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a client gets: an answer of a target, or one of the proxy's own. Its end makes the client's connection idle.
#[derive(Debug)]
pub(crate) struct AnswerBody {
    content: Content,
    _busy: Busy,
}

#[derive(Debug)]
enum Content {
    Own(Full<Bytes>),
    Forwarded(Forwarded),
}

/// A target's answer on its way to the client.
#[derive(Debug)]
pub(crate) struct Forwarded {
    body: Incoming,
    /// Taken when the answer has ended, in whatever way.
    exchange: Option<Exchange>,
    /// Event streams go on until told to end.
    stream: Option<Stream>,
}

/// What is given back at an answer's end: the place in flight, and the connection, if it can carry another request.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) in_flight: InFlight,
    pub(crate) sender: Sender,
    pub(crate) status: StatusCode,
    pub(crate) upload: Option<Arc<Upload>>,
    pub(crate) idle_limit: Duration,
}

impl AnswerBody {
    pub(crate) fn own(text: Bytes, busy: Busy) -> Self {
        Self { content: Content::Own(Full::new(text)), _busy: busy }
    }

    pub(crate) fn forwarded(body: Incoming, exchange: Exchange, stream: Option<Stream>, busy: Busy) -> Self {
        Self {
            content: Content::Forwarded(Forwarded { body, exchange: Some(exchange), stream }),
            _busy: busy,
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.get_mut().content {
            Content::Own(text) => Pin::new(text).poll_frame(context).map_err(|never| match never {}),
            Content::Forwarded(forwarded) => forwarded.poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Own(text) => text.is_end_stream(),
            Content::Forwarded(forwarded) => forwarded.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Own(text) => text.size_hint(),
            Content::Forwarded(forwarded) => forwarded.body.size_hint(),
        }
    }
}

impl Forwarded {
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(stream) = &mut self.stream
            && stream.poll_told(context).is_ready()
        {
            self.close_stream();
            return Poll::Ready(None);
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        match &frame {
            None => self.whole(),
            Some(Err(_)) => self.broken(),
            Some(Ok(_)) => {}
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::from)))
    }

    /// The answer is whole, and its connection may carry the next request, unless it still carries this one's body.
    fn whole(&mut self) {
        let Some(exchange) = self.exchange.take() else { return };
        let target = exchange.in_flight.target();
        target.counters.whole(exchange.status);
        if exchange.upload.is_none_or(|upload| upload.is_done()) {
            pool::put(target, exchange.sender, exchange.idle_limit);
        }
    }

    fn broken(&mut self) {
        if let Some(exchange) = self.exchange.take() {
            exchange.in_flight.target().counters.broken();
        }
    }

    /// A stream that was told to end ends properly for the client; the target sees its connection close.
    fn close_stream(&mut self) {
        if let Some(exchange) = self.exchange.take() {
            exchange.in_flight.target().counters.whole(exchange.status);
        }
    }
}

impl Drop for Forwarded {
    fn drop(&mut self) {
        // The server asks for no more once it has the announced length. An answer dropped earlier was left by its client: its
        // connection goes down with the exchange.
        if self.body.is_end_stream() {
            self.whole();
        }
    }
}

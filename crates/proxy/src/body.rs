//! Bodies on their way through: a request's, watched for a client that stops sending, and an answer's, which ends the exchange.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};

use crate::deadline::Limits;
use crate::inflight::InFlight;
use crate::pace::{Alarm, Busy};
use crate::pool::{self, Sender};
use crate::streams::Stream;
use crate::target::Target;

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the connection broke: {0}")]
    Connection(#[from] hyper::Error),
    #[error("the client stopped sending")]
    ClientStopped,
}

/// What one piece of a body brings at most.
pub(crate) const PIECE: usize = 64 * 1024;

/// A client's body on its way to a target.
#[derive(Debug)]
pub(crate) struct RequestBody {
    early: Early,
    rest: Option<Incoming>,
    /// None for a request without a body.
    upload: Option<Arc<Upload>>,
    patience: Duration,
    hurry: Duration,
    /// Where it goes; none while that is not decided.
    target: Option<Arc<Target>>,
    /// Since when a piece is awaited.
    waiting: Option<Instant>,
    alarm: Alarm,
}

/// What was read of a body while its request waited in a hold. In one piece: each of a client's chunks, which may be of one byte,
/// would cost a hundred bytes of its own.
#[derive(Debug, Default)]
struct Early {
    data: BytesMut,
    trailers: Option<Box<HeaderMap>>,
}

impl Early {
    fn push(&mut self, frame: Frame<Bytes>) -> u64 {
        let length = match frame.into_data() {
            Ok(data) => {
                self.data.extend_from_slice(&data);
                data.len()
            }
            Err(frame) => {
                self.trailers = frame.into_trailers().ok().map(Box::new);
                self.trailers
                    .iter()
                    .flat_map(|trailers| trailers.iter())
                    .map(|(_, value)| value.len() + PER_TRAILER)
                    .sum()
            }
        };
        length as u64
    }

    fn pop(&mut self) -> Option<Frame<Bytes>> {
        if self.data.is_empty() {
            return self.trailers.take().map(|trailers| Frame::trailers(*trailers));
        }
        let length = self.data.len().min(PIECE);
        Some(Frame::data(self.data.split_to(length).freeze()))
    }

    fn is_empty(&self) -> bool {
        self.data.is_empty() && self.trailers.is_none()
    }
}

/// What a trailer takes beside its value, roughly.
const PER_TRAILER: usize = 128;

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
    pub(crate) fn new(body: Incoming, limits: &Limits) -> Self {
        let upload = (!body.is_end_stream()).then(|| {
            Arc::new(Upload {
                since: Instant::now(),
                last: AtomicU64::new(0),
                done: AtomicBool::new(false),
                client: Mutex::new(None),
            })
        });
        let rest = upload.is_some().then_some(body);
        Self { rest, upload, patience: limits.request_body, hurry: limits.hurry, ..Self::none() }
    }

    /// No body at all.
    pub(crate) fn none() -> Self {
        Self {
            early: Early::default(),
            rest: None,
            upload: None,
            patience: Duration::ZERO,
            hurry: Duration::ZERO,
            target: None,
            waiting: None,
            alarm: Alarm::default(),
        }
    }

    /// Says to which target it is about to go.
    pub(crate) fn goes_to(&mut self, target: &Arc<Target>) {
        if self.upload.is_some() {
            self.target = Some(Arc::clone(target));
        }
    }

    /// None for a request without a body.
    pub(crate) fn upload(&self) -> Option<Arc<Upload>> {
        self.upload.clone()
    }

    /// Reads one piece to be sent later and says what it takes; none when there is no more to read ahead.
    pub(crate) async fn read_ahead(&mut self) -> Result<Option<u64>, ClientFault> {
        let Some(rest) = self.rest.as_mut() else { return Ok(None) };
        match rest.frame().await {
            None => Ok(None),
            Some(Ok(frame)) => Ok(Some(self.early.push(frame))),
            Some(Err(error)) => {
                tracing::debug!(%error, "a body broke off while its request was held");
                if let Some(upload) = &self.upload {
                    upload.fails(ClientFault::Broke);
                }
                Err(ClientFault::Broke)
            }
        }
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
        let since = *self.waiting.get_or_insert_with(Instant::now);
        let hurried = self.target.as_ref().is_some_and(|target| target.is_hurried());
        self.alarm.poll_patience(since, self.patience, self.hurry, hurried, context)
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
        let frame = match this.early.pop() {
            Some(frame) => Some(Ok(frame)),
            None => ready!(this.poll_rest(context)),
        };
        let end = frame.as_ref().is_none_or(is_last) || this.is_end_stream();
        if let Some(upload) = &this.upload {
            upload.moved(end);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.early.is_empty() && self.rest.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let early = self.early.data.len() as u64;
        let rest = self.rest.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint);
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + early);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + early);
        }
        hint
    }
}

/// After trailers nobody asks for more.
fn is_last<E>(frame: &Result<Frame<Bytes>, E>) -> bool {
    frame.as_ref().is_ok_and(Frame::is_trailers)
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
            Some(last) if is_last(last) => self.whole(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_pieces_read_early_become_large_ones_and_trailers_come_last() {
        let mut early = Early::default();
        for _ in 0..=PIECE {
            assert_eq!(early.push(Frame::data(Bytes::from_static(b"x"))), 1);
        }
        let trailers = HeaderMap::from_iter([(http::header::ETAG, http::HeaderValue::from_static("sum"))]);
        assert_eq!(early.push(Frame::trailers(trailers)), 131);

        let lengths: Vec<_> =
            std::iter::from_fn(|| early.pop()).map(|frame| frame.data_ref().map(Bytes::len)).collect();

        assert_eq!(lengths, [Some(PIECE), Some(1), None]);
        assert!(early.is_empty());
    }
}

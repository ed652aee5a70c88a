//! Upgraded connections, mostly WebSockets: carried both ways until one side ends, or until a drain wants them to.
//!
//! A WebSocket is closed with a goodbye (1001) to both sides, between two frames. It stays in flight on its target until then.

use std::sync::Arc;
use std::time::Duration;

use http::header::{CONNECTION, UPGRADE};
use http::{HeaderValue, Response};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::watch;

use crate::body::{AnswerBody, Exchange};
use crate::deadline::Limits;
use crate::headers;
use crate::pace::Busy;
use crate::serve::Client;
use crate::streams::Stream;
use crate::websocket::{self, Frames, Side};

/// What one direction of an upgraded connection buffers.
const BUFFER: usize = 8 * 1024;

type Io = TokioIo<Upgraded>;

/// Passes a target's 101 on and joins the two connections once the client has it.
pub(crate) fn join(
    mut response: Response<Incoming>,
    exchange: Exchange,
    on_client: OnUpgrade,
    busy: Busy,
    limits: &Limits,
) -> Response<AnswerBody> {
    busy.becomes_tunnel();
    let on_target = hyper::upgrade::on(&mut response);
    let protocol = response.headers().get(UPGRADE).cloned();
    let is_websocket =
        protocol.as_ref().is_some_and(|name| name.as_bytes().eq_ignore_ascii_case(b"websocket"));
    headers::prepare_answer(response.headers_mut());
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    if let Some(protocol) = protocol {
        response.headers_mut().insert(UPGRADE, protocol);
    }

    let target = Arc::clone(exchange.in_flight.target());
    let stream = target.streams.enter();
    let tunnel = Tunnel { is_websocket, goodbye: limits.goodbye, stream, _client: Arc::clone(busy.client()) };
    target.drive(async move {
        match tokio::try_join!(on_client, on_target) {
            Ok((client, target)) => tunnel.carry(TokioIo::new(client), TokioIo::new(target)).await,
            Err(error) => tracing::debug!(%error, "an upgrade came to nothing"),
        }
        exchange.in_flight.target().counters.whole(exchange.status);
    });
    response.map(|_empty| AnswerBody::own(bytes::Bytes::new(), busy))
}

/// Two connections joined.
struct Tunnel {
    is_websocket: bool,
    goodbye: Duration,
    stream: Stream,
    /// Keeps the client's place among the open connections.
    _client: Arc<Client>,
}

impl Tunnel {
    async fn carry(mut self, client: Io, target: Io) {
        let (from_client, to_client) = tokio::io::split(client);
        let (from_target, to_target) = tokio::io::split(target);
        let (tell, _) = watch::channel(());
        let direction = |from, to, side| Direction {
            from,
            to,
            side,
            frames: self.is_websocket.then(Frames::default),
            told: tell.subscribe(),
        };
        let down = direction(from_target, to_client, Side::Server);
        let up = direction(from_client, to_target, Side::Client);
        let mut down = std::pin::pin!(down.carry());
        let mut up = std::pin::pin!(up.carry());
        // One end is the end of both, save for a moment to let the other side finish its word.
        let (rest_down, rest_up) = tokio::select! {
            () = &mut down => (false, true),
            () = &mut up => (true, false),
            () = self.stream.told() => {
                tell.send_replace(());
                (true, true)
            }
        };
        let rest = async {
            tokio::join!(when(rest_down, down), when(rest_up, up));
        };
        if tokio::time::timeout(self.goodbye, rest).await.is_err() {
            tracing::debug!("an upgraded connection was closed without a last word");
        }
    }
}

async fn when(wanted: bool, rest: impl Future<Output = ()>) {
    if wanted {
        rest.await;
    }
}

/// One way through a tunnel.
struct Direction {
    from: ReadHalf<Io>,
    to: WriteHalf<Io>,
    side: Side,
    /// None where the protocol is not known: then there is no good moment, and no goodbye.
    frames: Option<Frames>,
    told: watch::Receiver<()>,
}

impl Direction {
    /// Carries until the sender ends or, once told, until the next place between two frames.
    async fn carry(mut self) {
        let mut buffer = vec![0; BUFFER];
        let mut closing = false;
        loop {
            if closing && self.frames.as_ref().is_none_or(Frames::between) {
                self.close(&mut buffer).await;
                return;
            }
            let length = tokio::select! {
                read = self.from.read(&mut buffer) => match read {
                    Ok(length) if length > 0 => length,
                    Ok(_) | Err(_) => break,
                },
                _ = self.told.changed(), if !closing => {
                    closing = true;
                    continue;
                }
            };
            let end = self.follow(&buffer[..length], closing);
            if self.to.write_all(&buffer[..end]).await.is_err() {
                break;
            }
        }
        self.shut_down().await;
    }

    /// How much of what was read goes on: all of it, or when closing what belongs to the current frame.
    fn follow(&mut self, bytes: &[u8], closing: bool) -> usize {
        let Some(frames) = &mut self.frames else { return bytes.len() };
        let mut end = 0;
        while end < bytes.len() {
            end += frames.follow(&bytes[end..]);
            if closing && frames.between() {
                break;
            }
        }
        end
    }

    /// Says goodbye, then listens until the sender ends too: closing with unread bytes would take the goodbye back.
    async fn close(&mut self, buffer: &mut [u8]) {
        if self.frames.is_some()
            && let Err(error) = self.to.write_all(&websocket::goodbye(self.side)).await
        {
            tracing::debug!(%error, "a WebSocket was gone before its goodbye");
        }
        self.shut_down().await;
        while self.from.read(buffer).await.is_ok_and(|length| length > 0) {}
    }

    async fn shut_down(&mut self) {
        if let Err(error) = self.to.shutdown().await {
            tracing::debug!(%error, "one side of an upgraded connection was gone before the other");
        }
    }
}

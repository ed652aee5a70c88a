//! Answers that last: a slow download, the stream of events, the WebSocket. All of them end when the instance is told
//! to stop, save the slow download, which is a request in flight and is finished.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _, stream};
use http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_TYPE, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, interval, sleep_until};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};

use crate::answer::{App, Body};
use crate::store::Row;

/// A slow answer comes in so many parts, and takes no longer than this.
const SLOW_PARTS: u32 = 10;
const LONGEST_SLOW: Duration = Duration::from_mins(1);
/// How often a stream of events looks for entries that another instance added, and says that it is alive.
const LOOK: Duration = Duration::from_millis(250);
const EVENTS_AT_ONCE: i64 = 100;
const LARGEST_MESSAGE: usize = 1024 * 1024;

/// A text that takes `milliseconds` to come, evenly spread.
pub(crate) fn slow(milliseconds: u64) -> Response<Body> {
    let pause = Duration::from_millis(milliseconds).min(LONGEST_SLOW) / SLOW_PARTS;
    let start = Instant::now();
    let parts = stream::unfold(0, move |part| async move {
        if part == SLOW_PARTS {
            return None;
        }
        sleep_until(start + pause * (part + 1)).await;
        let last = if part + 1 == SLOW_PARTS { "done\n" } else { "" };
        Some((Ok(Frame::data(Bytes::from(format!("part {}\n{last}", part + 1)))), part + 1))
    });
    streamed("text/plain", StreamBody::new(parts).boxed_unsync())
}

/// The entries after `after`, and from then on each new one, whichever instance adds it.
pub(crate) fn events(app: &Arc<App>, after: i64) -> Response<Body> {
    let (sender, mut receiver) = mpsc::channel(16);
    app.tasks.spawn(tell_events(Arc::clone(app), after, sender));
    let frames = stream::poll_fn(move |context| receiver.poll_recv(context))
        .map(|text: String| Ok::<_, Infallible>(Frame::data(Bytes::from(text))));
    streamed("text/event-stream", StreamBody::new(frames).boxed_unsync())
}

async fn tell_events(app: Arc<App>, mut after: i64, listener: mpsc::Sender<String>) {
    let mut stopping = app.stopping.clone();
    let mut newest = app.newest.subscribe();
    let mut look = interval(LOOK);
    let hello = format!("event: hello\ndata: {}\n\n", serde_json::json!(app.identity));
    if listener.send(hello).await.is_err() {
        return;
    }
    loop {
        tokio::select! {
            () = asked_to_stop(&mut stopping) => return,
            () = listener.closed() => return,
            changed = newest.changed() => if changed.is_err() { return },
            _ = look.tick() => {}
        }
        let Ok(rows) = app.with_store(move |store| store.after(after, EVENTS_AT_ONCE)).await else {
            // The client reconnects, and asks from where it was.
            return;
        };
        let mut text = String::from(": alive\n\n");
        for row in rows {
            after = row.get("id").and_then(serde_json::Value::as_i64).unwrap_or(after);
            text.push_str(&entry_event(after, row));
        }
        if listener.send(text).await.is_err() {
            return;
        }
    }
}

fn entry_event(id: i64, row: Row) -> String {
    format!("id: {id}\nevent: entry\ndata: {}\n\n", serde_json::Value::Object(row))
}

/// A WebSocket that says back what it is told; `None` when the request is no handshake.
pub(crate) fn socket(app: &Arc<App>, mut request: Request<Incoming>) -> Option<Response<Body>> {
    let accept = accept_key(request.headers())?;
    let upgrade = hyper::upgrade::on(&mut request);
    let stopping = app.stopping.clone();
    app.tasks.spawn(async move {
        // A client that goes away between handshake and upgrade is no error of ours.
        if let Ok(upgraded) = upgrade.await {
            let config = WebSocketConfig::default().max_message_size(Some(LARGEST_MESSAGE));
            let io = TokioIo::new(upgraded);
            echo(WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await, stopping).await;
        }
    });
    let mut response = Response::new(http_body_util::Empty::new().boxed_unsync());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
    response.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, accept);
    Some(response)
}

fn accept_key(headers: &HeaderMap) -> Option<HeaderValue> {
    let says = |name, word: &str| {
        headers
            .get(name)
            .and_then(|value: &HeaderValue| value.to_str().ok())
            .is_some_and(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(word)))
    };
    let is_handshake =
        says(CONNECTION, "upgrade") && says(UPGRADE, "websocket") && says(SEC_WEBSOCKET_VERSION, "13");
    let key = headers.get(SEC_WEBSOCKET_KEY)?;
    is_handshake.then(|| HeaderValue::from_str(&derive_accept_key(key.as_bytes())).ok()).flatten()
}

async fn echo<S>(mut socket: WebSocketStream<S>, mut stopping: watch::Receiver<bool>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    loop {
        let message = tokio::select! {
            message = socket.next() => message,
            () = asked_to_stop(&mut stopping) => break,
        };
        let said = match message {
            Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => socket.send(message).await,
            Some(Ok(_)) => Ok(()),
            Some(Err(_)) | None => return,
        };
        if said.is_err() {
            return;
        }
    }
    let goodbye = CloseFrame { code: CloseCode::Away, reason: "the instance stops".into() };
    // Best effort: who is gone already needs no goodbye.
    if socket.close(Some(goodbye)).await.is_ok() {
        while let Some(Ok(_)) = socket.next().await {}
    }
}

/// Ends when the instance is told to stop, or when nobody is left who could tell it.
pub(crate) async fn asked_to_stop(stopping: &mut watch::Receiver<bool>) {
    stopping.wait_for(|stop| *stop).await.ok();
}

fn streamed(kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

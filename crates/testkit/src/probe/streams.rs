//! Workers whose requests last: sockets that echo, streams of events. An end that is not ours is counted as closed,
//! and connecting again is a request like any other.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::header::{
    ACCEPT, CONNECTION, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::{Message, protocol::Role};

use super::client::{Asked, Client, Connection, Connections};
use super::outcome::{Kind, Outcome};
use super::run::Worker;

type Socket = WebSocketStream<TokioIo<Upgraded>>;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// How a stream that was open came to its end.
enum End {
    /// By us, because the probe stops.
    Ours,
    /// By the other side, with a goodbye.
    Goodbye,
    /// By the other side, without one.
    Abrupt,
    /// It was open and nothing came: a failure of the request that opened it.
    Silent,
}

pub(super) async fn talk(mut worker: Worker) {
    while !worker.is_stopping() {
        if let Some((connection, socket)) = connect_socket(&worker).await {
            let end = echo(&mut worker, socket).await;
            drop(connection);
            settle(&worker, Kind::WebSocket, &end);
        }
        worker.pause().await;
    }
}

pub(super) async fn listen(mut worker: Worker) {
    let mut last_event = None;
    while !worker.is_stopping() {
        if let Some((connection, events)) = connect_events(&worker, last_event.as_deref()).await {
            let end = hear(&mut worker, events, &mut last_event).await;
            drop(connection);
            settle(&worker, Kind::Sse, &end);
        }
        worker.pause().await;
    }
}

fn settle(worker: &Worker, kind: Kind, end: &End) {
    let tally = &worker.probe.tally;
    match end {
        End::Ours => {}
        End::Goodbye => tally.closed(kind, true),
        End::Abrupt => tally.closed(kind, false),
        End::Silent => {
            let why =
                Outcome::failed(format_args!("open, and silent for {:?}", worker.probe.options.deadline));
            tally.request(kind, "open", &why, worker.probe.options.deadline);
        }
    }
}

/// Sends the opening request and counts it; `None` unless `expected` came, signed by the app.
async fn open(
    worker: &Worker,
    kind: Kind,
    asked: Asked,
    expected: impl Fn(&Response<Incoming>) -> Result<(), String>,
) -> Option<(Connection, Response<Incoming>)> {
    let options = &worker.probe.options;
    let mut client = Client::new(options, Connections::Fresh);
    let start = Instant::now();
    let sent = timeout(options.deadline, client.send(&asked)).await;
    let took = start.elapsed();
    let (outcome, opened) = match sent {
        Ok(Ok((connection, response))) => {
            let outcome = Outcome::of_answer(response.status(), response.headers(), &options.mark);
            match (&outcome, expected(&response)) {
                (Outcome::Answered { .. }, Err(why)) => (Outcome::failed(why), None),
                (Outcome::Answered { .. }, Ok(())) => (outcome, Some((connection, response))),
                _ => (outcome, None),
            }
        }
        Ok(Err(error)) => (Outcome::failed(error), None),
        Err(_late) => (Outcome::failed(format_args!("no answer within {:?}", options.deadline)), None),
    };
    worker.probe.tally.request(kind, "fresh", &outcome, took);
    opened
}

async fn connect_socket(worker: &Worker) -> Option<(Connection, Socket)> {
    let key = generate_key();
    let accept = derive_accept_key(key.as_bytes());
    let expected = |response: &Response<Incoming>| {
        let accepted =
            response.headers().get(SEC_WEBSOCKET_ACCEPT).is_some_and(|given| given == accept.as_str());
        match response.status() {
            StatusCode::SWITCHING_PROTOCOLS if accepted => Ok(()),
            status => Err(format!("{status} instead of a WebSocket")),
        }
    };
    let (connection, response) = open(worker, Kind::WebSocket, handshake(&key), expected).await?;
    let Ok(upgraded) = hyper::upgrade::on(response).await else {
        // The 101 came and counts as an answer; the connection ended right behind it.
        worker.probe.tally.closed(Kind::WebSocket, false);
        return None;
    };
    let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, None).await;
    Some((connection, socket))
}

fn handshake(key: &str) -> Asked {
    let mut asked = Asked::get("/socket");
    asked.headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    asked.headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    asked.headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    if let Ok(key) = HeaderValue::from_str(key) {
        asked.headers.insert(SEC_WEBSOCKET_KEY, key);
    }
    asked
}

/// Says a number, hears it back, and again.
async fn echo(worker: &mut Worker, mut socket: Socket) -> End {
    let deadline = worker.probe.options.deadline;
    loop {
        let number = worker.probe.next_number().to_string();
        if socket.send(Message::text(number.clone())).await.is_err() {
            return End::Abrupt;
        }
        match timeout(deadline, next_text(&mut socket)).await {
            Err(_late) => return End::Silent,
            Ok(Err(end)) => return end,
            Ok(Ok(text)) if text == number => worker.probe.tally.message(Kind::WebSocket),
            Ok(Ok(text)) => {
                let why = Outcome::failed(format_args!("said {number}, heard {text}"));
                worker.probe.tally.request(Kind::WebSocket, "open", &why, Duration::ZERO);
            }
        }
        worker.pause().await;
        if worker.is_stopping() {
            // Who is gone already needs no goodbye.
            socket.close(None).await.ok();
            return End::Ours;
        }
    }
}

async fn next_text(socket: &mut Socket) -> Result<String, End> {
    loop {
        match socket.next().await {
            Some(Ok(Message::Text(text))) => return Ok(text.to_string()),
            Some(Ok(Message::Close(_))) => {
                // Reading on sends the answer to the goodbye.
                while let Some(Ok(_)) = socket.next().await {}
                return Err(End::Goodbye);
            }
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return Err(End::Abrupt),
        }
    }
}

async fn connect_events(worker: &Worker, last_event: Option<&str>) -> Option<(Connection, Incoming)> {
    let mut asked = Asked::get("/events");
    asked.headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
    if let Some(id) = last_event.and_then(|id| HeaderValue::from_str(id).ok()) {
        asked.headers.insert(LAST_EVENT_ID, id);
    }
    let (connection, response) = open(worker, Kind::Sse, asked, |response| {
        is_event_stream(response.headers()).then_some(()).ok_or_else(|| "no event stream".to_owned())
    })
    .await?;
    Some((connection, response.into_body()))
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    headers
        .get(http::header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}

async fn hear(worker: &mut Worker, mut events: Incoming, last_event: &mut Option<String>) -> End {
    let deadline = worker.probe.options.deadline;
    let mut unread = Vec::new();
    loop {
        let frame = tokio::select! {
            frame = timeout(deadline, events.frame()) => frame,
            () = worker.stopped() => return End::Ours,
        };
        match frame {
            Err(_late) => return End::Silent,
            Ok(None) => return End::Goodbye,
            Ok(Some(Err(_))) => return End::Abrupt,
            Ok(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    read_events(worker, data, &mut unread, last_event);
                }
            }
        }
    }
}

/// Counts the events whose end has come, and remembers the last id.
fn read_events(worker: &Worker, data: &Bytes, unread: &mut Vec<u8>, last_event: &mut Option<String>) {
    unread.extend_from_slice(data);
    while let Some(end) = unread.iter().position(|byte| *byte == b'\n') {
        let line: Vec<u8> = unread.drain(..=end).collect();
        let line = String::from_utf8_lossy(&line);
        if let Some(id) = line.strip_prefix("id:") {
            *last_event = Some(id.trim().to_owned());
        } else if line.starts_with("data:") {
            worker.probe.tally.message(Kind::Sse);
        }
    }
}

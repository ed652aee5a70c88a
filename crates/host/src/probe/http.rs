//! One GET on an open connection. Redirects are answers, not instructions; no more of a body is read than anybody could want.

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use cutover_core::gate::Finding;
use http::header::{ACCEPT, CONNECTION, HOST, USER_AGENT};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::other;

/// Bytes of a body that are read.
const BODY: usize = 64 * 1024;
/// Characters of a body that a finding shows.
const SHOWN: usize = 200;

/// What is asked.
#[derive(Debug)]
pub(crate) struct Get<'a> {
    /// Who is asked; stands in `Host` where no host is named.
    pub(crate) address: SocketAddr,
    /// Sent as `Host`.
    pub(crate) host: Option<&'a str>,
    /// Sent as `X-Forwarded-Proto`.
    pub(crate) scheme: &'a str,
    /// Path and query.
    pub(crate) path: &'a str,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    /// The beginning of it, at most 64 KiB.
    pub(crate) body: Bytes,
}

impl Answer {
    /// Says whether the status lies within.
    pub(crate) fn with_status(&self, (from, to): (u16, u16)) -> Result<(), Finding> {
        if (from..=to).contains(&self.status) {
            Ok(())
        } else {
            Err(Finding::Status { status: self.status, body: self.shown() })
        }
    }

    /// The beginning of the body, for people.
    pub(crate) fn shown(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        let text = text.trim().chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c });
        text.take(SHOWN).collect()
    }
}

/// Asks and reads the answer. The connection is used for this alone.
pub(crate) async fn get(stream: TcpStream, ask: &Get<'_>) -> Result<Answer, Finding> {
    let request = request(ask)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| broken(&e))?;
    let exchange = async {
        let (head, body) = sender.send_request(request).await.map_err(|e| broken(&e))?.into_parts();
        let body = beginning(body).await?;
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
    };
    let mut exchange = std::pin::pin!(exchange);
    // The connection moves the bytes of the exchange; its own end, good or bad, shows in what the exchange finds.
    tokio::select! {
        answer = &mut exchange => answer,
        _ended = connection => exchange.await,
    }
}

fn request(ask: &Get<'_>) -> Result<Request<Empty<Bytes>>, Finding> {
    let host = ask.host.map_or_else(|| ask.address.to_string(), str::to_owned);
    Request::get(ask.path)
        .header(HOST, host)
        .header("x-forwarded-proto", ask.scheme)
        .header(USER_AGENT, concat!("cutover-probe/", env!("CARGO_PKG_VERSION")))
        .header(ACCEPT, "*/*")
        .header(CONNECTION, "close")
        .body(Empty::new())
        .map_err(|error| other(format!("no request can be made of it: {error}")))
}

async fn beginning(mut body: Incoming) -> Result<Bytes, Finding> {
    let mut read = BytesMut::new();
    while read.len() < BODY {
        match body.frame().await {
            None => break,
            Some(frame) => {
                if let Ok(data) = frame.map_err(|error| broken(&error))?.into_data() {
                    read.extend_from_slice(&data[..data.len().min(BODY - read.len())]);
                }
            }
        }
    }
    Ok(read.freeze())
}

fn broken(error: &hyper::Error) -> Finding {
    if error.is_parse() {
        other("what listens there does not answer in HTTP")
    } else {
        other("the connection was closed before the answer was complete")
    }
}

//! One client: a connection, made for each request or kept, and nothing that hides a failure.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

use super::options::ProbeOptions;

/// Which connections a client uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Connections {
    Fresh,
    KeptAlive,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum ExchangeError {
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    #[error("no answer: {}", whole(.0))]
    NoAnswer(#[source] hyper::Error),
    #[error("{status}, whose body was cut short: {}", whole(.source))]
    Truncated { status: StatusCode, source: hyper::Error },
}

/// hyper says the cause only in the chain.
fn whole(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(deeper) = cause {
        text = format!("{text}: {deeper}");
        cause = deeper.source();
    }
    text
}

/// A request that can be built again.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Asked {
    pub(super) fn get(path: impl Into<String>) -> Self {
        Self { method: Method::GET, path: path.into(), headers: HeaderMap::new(), body: Bytes::new() }
    }
}

/// An answer whose body has come in full.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

pub(super) struct Client<'a> {
    options: &'a ProbeOptions,
    connections: Connections,
    kept: Option<Connection>,
    retried: u64,
}

impl<'a> Client<'a> {
    pub(super) fn new(options: &'a ProbeOptions, connections: Connections) -> Self {
        Self { options, connections, kept: None, retried: 0 }
    }

    /// How often a request was sent again since this was last asked.
    pub(super) fn take_retried(&mut self) -> u64 {
        std::mem::take(&mut self.retried)
    }

    /// The whole answer. The caller sets the deadline; a dropped exchange drops its connection.
    pub(super) async fn exchange(&mut self, asked: &Asked) -> Result<Answer, ExchangeError> {
        let (mut connection, response) = self.send(asked).await?;
        let (head, body) = response.into_parts();
        let body = body
            .collect()
            .await
            .map_err(|source| ExchangeError::Truncated { status: head.status, source })?
            .to_bytes();
        // Ready again means kept by the server too; else the next request makes a new connection.
        if self.connections == Connections::KeptAlive && connection.sender.ready().await.is_ok() {
            self.kept = Some(connection);
        }
        Ok(Answer { status: head.status, headers: head.headers, body })
    }

    /// The head of the answer, and the connection that its body comes on.
    pub(super) async fn send(
        &mut self,
        asked: &Asked,
    ) -> Result<(Connection, Response<Incoming>), ExchangeError> {
        if let Some(mut connection) = self.kept.take() {
            match connection.send(self.options, asked).await {
                Ok(response) => return Ok((connection, response)),
                Err(refused) if refused.may_be_sent_again(asked, &connection) => self.retried += 1,
                Err(refused) => return Err(ExchangeError::NoAnswer(refused.error)),
            }
        }
        let mut connection = Connection::open(self.options).await?;
        match connection.send(self.options, asked).await {
            Ok(response) => Ok((connection, response)),
            Err(refused) => Err(ExchangeError::NoAnswer(refused.error)),
        }
    }
}

/// A connection and the task that drives it; both end together.
pub(super) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    received: Arc<AtomicU64>,
    received_before: u64,
    driver: AbortHandle,
}

struct Refused {
    error: hyper::Error,
    was_sent: bool,
}

impl Refused {
    fn may_be_sent_again(&self, asked: &Asked, connection: &Connection) -> bool {
        let nothing_came = connection.received.load(Ordering::Acquire) == connection.received_before;
        !self.was_sent || (asked.method == Method::GET && nothing_came)
    }
}

impl Connection {
    async fn open(options: &ProbeOptions) -> Result<Self, ExchangeError> {
        let stream = TcpStream::connect(options.address).await.map_err(ExchangeError::Connect)?;
        stream.set_nodelay(true).map_err(ExchangeError::Connect)?;
        let received = Arc::new(AtomicU64::new(0));
        let counted = Counted { stream, received: Arc::clone(&received) };
        let (sender, connection) =
            http1::handshake(TokioIo::new(counted)).await.map_err(ExchangeError::NoAnswer)?;
        // Its end is seen by the sender.
        let driver = tokio::spawn(connection.with_upgrades()).abort_handle();
        Ok(Self { sender, received, received_before: 0, driver })
    }

    async fn send(&mut self, options: &ProbeOptions, asked: &Asked) -> Result<Response<Incoming>, Refused> {
        self.received_before = self.received.load(Ordering::Acquire);
        self.sender.try_send_request(request(options, asked)).await.map_err(|mut refused| {
            let was_sent = refused.take_message().is_none();
            Refused { error: refused.into_error(), was_sent }
        })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

fn request(options: &ProbeOptions, asked: &Asked) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(asked.body.clone()));
    *request.method_mut() = asked.method.clone();
    *request.uri_mut() = asked.path.parse().unwrap_or_default();
    *request.headers_mut() = asked.headers.clone();
    if let Ok(host) = options.host.parse() {
        request.headers_mut().insert(HOST, host);
    }
    request
}

/// Counts the bytes that came back: whether there were any decides if a GET may be sent again.
struct Counted {
    stream: TcpStream,
    received: Arc<AtomicU64>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        let came = buffer.filled().len() - before;
        self.received.fetch_add(came as u64, Ordering::Release);
        polled
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

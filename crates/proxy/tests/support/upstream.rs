//! An upstream in the test's process: real sockets, behaviour by path.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

type Body = BoxBody<Bytes, Infallible>;

/// What an upstream has seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) connections: AtomicU64,
    pub(crate) requests: AtomicU64,
    pub(crate) inside: AtomicU64,
}

pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    pub(crate) name: &'static str,
    pub(crate) seen: Arc<Seen>,
    stop: watch::Sender<bool>,
    accepting: JoinHandle<JoinSet<()>>,
}

impl Upstream {
    pub(crate) async fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(name, listener)
    }

    /// One at an address that another may have had before.
    pub(crate) async fn at(name: &'static str, address: SocketAddr) -> Self {
        Self::on(name, TcpListener::bind(address).await.unwrap())
    }

    pub(crate) fn on(name: &'static str, listener: TcpListener) -> Self {
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let (stop, mut stopped) = watch::channel(false);
        let accepting = tokio::spawn({
            let seen = Arc::clone(&seen);
            async move {
                let mut connections = JoinSet::new();
                loop {
                    let stream = tokio::select! {
                        accepted = listener.accept() => accepted.unwrap().0,
                        _ = stopped.changed() => return connections,
                    };
                    stream.set_nodelay(true).unwrap();
                    connections.spawn(converse(name, stream, Arc::clone(&seen), stopped.clone()));
                }
            }
        });
        Self { address, name, seen, stop, accepting }
    }

    pub(crate) fn requests(&self) -> u64 {
        self.seen.requests.load(Ordering::SeqCst)
    }

    /// Ends as a well-behaved app does on SIGTERM: accepts nobody, finishes what is inside.
    pub(crate) async fn terminate(self) {
        self.stop.send_replace(true);
        let mut connections = self.accepting.await.unwrap();
        super::in_time("the upstream's end", async { while connections.join_next().await.is_some() {} })
            .await;
    }

    /// Ends as on SIGKILL: everything open is closed at once.
    pub(crate) async fn kill(self) {
        self.stop.send_replace(true);
        drop(self.accepting.await.unwrap());
    }
}

/// Serves one connection, TCP or Unix.
pub(crate) async fn converse<S>(
    name: &'static str,
    stream: S,
    seen: Arc<Seen>,
    mut stopped: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    seen.connections.fetch_add(1, Ordering::SeqCst);
    let service = service_fn(move |request| {
        let seen = Arc::clone(&seen);
        async move {
            seen.requests.fetch_add(1, Ordering::SeqCst);
            seen.inside.fetch_add(1, Ordering::SeqCst);
            let response = answer(name, request).await;
            seen.inside.fetch_sub(1, Ordering::SeqCst);
            Ok::<_, Infallible>(response)
        }
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let mut told = *stopped.borrow();
    loop {
        tokio::select! {
            _ended = connection.as_mut() => return,
            _ = stopped.changed(), if !told => {
                told = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

async fn answer(name: &'static str, mut request: Request<Incoming>) -> Response<Body> {
    let query: u64 = request.uri().query().and_then(|query| query.parse().ok()).unwrap_or(0);
    match request.uri().path() {
        "/slow" => {
            tokio::time::sleep(Duration::from_millis(query)).await;
            text(name)
        }
        "/echo" => {
            let body = request.body_mut().collect().await;
            body.map_or_else(|_| text("cut"), |body| Response::new(Full::new(body.to_bytes()).boxed()))
        }
        "/head" => text(&head(&request)),
        "/status" => {
            let mut response = text(name);
            *response.status_mut() = u16::try_from(query)
                .ok()
                .and_then(|code| StatusCode::from_u16(code).ok())
                .unwrap_or_default();
            response
        }
        "/hop" => {
            let mut response = text(name);
            let headers = response.headers_mut();
            headers.insert("connection", "x-inner".parse().unwrap());
            headers.insert("x-inner", "1".parse().unwrap());
            headers.insert("keep-alive", "timeout=5".parse().unwrap());
            headers.append("set-cookie", "a=1".parse().unwrap());
            headers.append("set-cookie", "b=2".parse().unwrap());
            response
        }
        "/large" => chunks(usize::try_from(query).unwrap(), Duration::ZERO, "application/octet-stream"),
        "/drip" => chunks(usize::try_from(query).unwrap(), Duration::from_millis(20), "text/plain"),
        "/events" => chunks(usize::MAX, Duration::from_millis(10), "text/event-stream; charset=utf-8"),
        "/ws" => upgrade(request),
        _ => text(name),
    }
}

fn text(text: &str) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(text.to_owned())).boxed());
    response.headers_mut().insert("content-type", "text/plain".parse().unwrap());
    response
}

fn head<B>(request: &Request<B>) -> String {
    let mut lines = vec![format!("{} {} {:?}", request.method(), request.uri(), request.version())];
    let headers: &HeaderMap = request.headers();
    lines.extend(headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())));
    lines.join("\n")
}

fn chunks(count: usize, pause: Duration, content: &str) -> Response<Body> {
    let stream = futures_util::stream::unfold(0, move |number| async move {
        if number >= count {
            return None;
        }
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        let chunk = if pause.is_zero() {
            Bytes::from(vec![b'x'; 1024])
        } else {
            Bytes::from(format!("data: {number}\n\n"))
        };
        Some((Ok::<_, Infallible>(Frame::data(chunk)), number + 1))
    });
    let mut response = Response::new(StreamBody::new(Box::pin(stream)).boxed_sync_free());
    response.headers_mut().insert("content-type", content.parse().unwrap());
    response
}

/// A `BoxBody` wants `Sync`, which a stream of futures is not: a channel is.
trait Boxed {
    fn boxed_sync_free(self) -> Body;
}

impl<S> Boxed for StreamBody<S>
where
    S: futures_util::Stream<Item = Result<Frame<Bytes>, Infallible>> + Send + Unpin + 'static,
{
    fn boxed_sync_free(mut self) -> Body {
        let (give, take) = tokio::sync::mpsc::channel(1);
        tokio::spawn(async move {
            while let Some(frame) = self.frame().await {
                if give.send(frame).await.is_err() {
                    return;
                }
            }
        });
        let stream =
            futures_util::stream::unfold(take, |mut take| async move { Some((take.recv().await?, take)) });
        StreamBody::new(SyncStream(std::sync::Mutex::new(Box::pin(stream)))).boxed()
    }
}

type FrameStream =
    std::pin::Pin<Box<dyn futures_util::Stream<Item = Result<Frame<Bytes>, Infallible>> + Send>>;

struct SyncStream(std::sync::Mutex<FrameStream>);

impl futures_util::Stream for SyncStream {
    type Item = Result<Frame<Bytes>, Infallible>;

    fn poll_next(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.get_mut().0.get_mut().unwrap().as_mut().poll_next(context)
    }
}

/// A WebSocket that sends every byte back, so that frames come back as they were sent.
fn upgrade(mut request: Request<Incoming>) -> Response<Body> {
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgraded.await else { return };
        let mut io = TokioIo::new(upgraded);
        let mut buffer = [0; 4096];
        while let Ok(length) = io.read(&mut buffer).await {
            if length == 0 || io.write_all(&buffer[..length]).await.is_err() {
                return;
            }
        }
    });
    let mut response = text("");
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.body_mut() = Full::new(Bytes::new()).boxed();
    response.headers_mut().insert("connection", "Upgrade".parse().unwrap());
    response.headers_mut().insert("upgrade", "websocket".parse().unwrap());
    response
}

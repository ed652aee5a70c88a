//! Asks another service of the same app who it is (`PEER_URL`), to show that a call from one service to another
//! reaches its own release.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Uri, header::HOST};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub(crate) enum PeerError {
    #[error("PEER_URL is not set: this service has no peer")]
    None,
    #[error("PEER_URL `{0}` is not an http address")]
    Address(String),
    #[error("the peer cannot be reached: {0}")]
    Connect(#[from] std::io::Error),
    #[error("the peer did not answer: {0}")]
    Http(#[from] hyper::Error),
    #[error("the peer did not answer within {} s", DEADLINE.as_secs())]
    TooLate,
    #[error("the peer said what is not understood: {0}")]
    Parse(#[from] serde_json::Error),
    #[error("the request to the peer cannot be made: {0}")]
    Request(#[from] http::Error),
}

/// What the peer's `/version` says.
pub(crate) async fn version(peer_url: Option<&str>) -> Result<serde_json::Value, PeerError> {
    let url = peer_url.ok_or(PeerError::None)?;
    timeout(DEADLINE, ask(url)).await.map_err(|_| PeerError::TooLate)?
}

async fn ask(url: &str) -> Result<serde_json::Value, PeerError> {
    let wrong = || PeerError::Address(url.to_owned());
    let uri: Uri = url.parse().map_err(|_| wrong())?;
    let host = uri.host().ok_or_else(wrong)?;
    let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(80))).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let authority = uri.authority().map_or(host, http::uri::Authority::as_str);
    let path = format!("{}/version", uri.path().trim_end_matches('/'));
    let request = Request::get(path).header(HOST, authority).body(Empty::<Bytes>::new())?;
    let exchange = async { sender.send_request(request).await?.into_body().collect().await };
    let body = tokio::select! {
        body = exchange => body?.to_bytes(),
        Err(error) = connection => return Err(error.into()),
    };
    Ok(serde_json::from_slice(&body)?)
}

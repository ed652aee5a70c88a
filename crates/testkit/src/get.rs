//! One request and its answer.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// What a GET was answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// The release that answered, by its own word; none where it was not the app that answered.
    pub release: Option<String>,
    pub body: String,
}

/// What a GET on a path of a host is answered with.
pub async fn ask(address: SocketAddr, host: &str, path: &str) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(address).await?;
    let asked = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(asked.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(parsed(&answer))
}

/// The same, less the head.
pub async fn get(address: SocketAddr, host: &str, path: &str) -> std::io::Result<String> {
    Ok(ask(address, host, path).await?.body)
}

fn parsed(answer: &str) -> Answer {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    let release = head.lines().find_map(|line| line.strip_prefix("x-app-release: ")).map(str::to_owned);
    Answer { status, release, body: body.to_owned() }
}

//! The engine's first words: which API it speaks, and which product it is. `GET /_ping` answers both in its head, and at once; for `/version`
//! the engine asks each of its parts first, which takes it some 5 ms. The client library keeps heads to itself, so it is asked by hand.

use std::io;
use std::path::Path;

use bollard::ClientVersion;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::connect::Product;

const ASK: &[u8] = b"GET /_ping HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n\r\n";
/// An answer is shorter.
const LONGEST: u64 = 16 * 1024;

/// What it says of itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Greeting {
    /// The newest API it speaks.
    pub(crate) api: ClientVersion,
    pub(crate) product: Product,
}

/// Asks the engine behind a socket.
///
/// # Errors
/// When nobody answers, or something that is no engine does.
pub(crate) async fn hear(socket: &Path) -> io::Result<Greeting> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(ASK).await?;
    let mut answer = Vec::new();
    stream.take(LONGEST).read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    read(&answer).ok_or_else(|| {
        let first = answer.lines().next().unwrap_or_default();
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("it does not answer as a container engine: {first:?}"),
        )
    })
}

fn read(answer: &str) -> Option<Greeting> {
    let head = answer.split("\r\n\r\n").next()?;
    if head.split_whitespace().nth(1) != Some("200") {
        return None;
    }
    let field = |name: &str| {
        let mut fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
        fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    };
    let (major, minor) = field("api-version")?.split_once('.')?;
    let api = ClientVersion { major_version: major.parse().ok()?, minor_version: minor.parse().ok()? };
    let product = if field("libpod-api-version").is_some() { Product::Podman } else { Product::Docker };
    Some(Greeting { api, product })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_products_are_known_by_their_heads() {
        // As Docker 20.10.24 says it, and as Podman documents it.
        let docker =
            "HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nServer: Docker/20.10.24+dfsg1 (linux)\r\n\r\nOK";
        let podman = "HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nLibpod-Api-Version: 4.3.1\r\n\r\nOK";
        let greeting = |text| read(text).map(|greeting| (greeting.api.minor_version, greeting.product));

        assert_eq!(greeting(docker), Some((41, Product::Docker)));
        assert_eq!(greeting(podman), Some((41, Product::Podman)));
    }

    #[test]
    fn what_is_no_engine_is_told_from_one() {
        assert_eq!(read("HTTP/1.1 200 OK\r\nServer: nginx\r\n\r\nApi-Version: 1.41"), None);
        assert_eq!(read("HTTP/1.1 500 Internal Server Error\r\nApi-Version: 1.41\r\n\r\n"), None);
        assert_eq!(read("HTTP/1.1 200 OK\r\nApi-Version: new\r\n\r\n"), None);
        assert_eq!(read(""), None);
    }
}

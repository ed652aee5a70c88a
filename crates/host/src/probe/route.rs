//! The public route, asked through the proxy: an answer of the app's own, as a visitor would get it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use cutover_core::gate::Finding;
use cutover_core::plan::RouteCheck;
use tokio::net::TcpStream;

use super::{http, json, other};

/// The header by which the proxy marks answers it made itself.
const MADE_BY_PROXY: &str = "x-cutover-error";
/// What a body to be read must come with.
const SUCCESS: (u16, u16) = (200, 299);

/// Passes when the app answers with an accepted status. Which instance answered, the caller learns from the proxy's figures.
pub(crate) async fn answers(proxy: &[SocketAddr], check: &RouteCheck) -> Result<(), Finding> {
    ask(proxy, check, &check.path).await?.with_status(check.status)
}

/// Passes when the body at `path` on the route's host is as expected.
pub(crate) async fn shows(
    proxy: &[SocketAddr],
    check: &RouteCheck,
    path: &str,
    contains: Option<&str>,
    json: &BTreeMap<String, String>,
) -> Result<(), Finding> {
    let answer = ask(proxy, check, path).await?;
    answer.with_status(SUCCESS)?;
    if let Some(text) = contains
        && !String::from_utf8_lossy(&answer.body).contains(text)
    {
        return Err(Finding::Body {
            detail: format!("`{text}` is not in it; it begins: {}", answer.shown()),
        });
    }
    json::matches(&answer.body, json)
}

async fn ask(proxy: &[SocketAddr], check: &RouteCheck, path: &str) -> Result<http::Answer, Finding> {
    let listener = *proxy.first().ok_or_else(|| other("the proxy listens nowhere"))?;
    let (stream, address) = connect(listener).await?;
    let host = check.host.as_deref();
    let answer = http::get(stream, &http::Get { address, host, scheme: "http", path }).await?;
    match answer.headers.get(MADE_BY_PROXY) {
        None => Ok(answer),
        Some(reason) => Err(other(format!(
            "the proxy answered in the app's place: {} ({})",
            reason.to_str().unwrap_or("unknown"),
            answer.status
        ))),
    }
}

async fn connect(listener: SocketAddr) -> Result<(TcpStream, SocketAddr), Finding> {
    let mut last = other("the proxy listens nowhere");
    for address in reachable(listener) {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok((stream, address)),
            Err(error) => last = other(format!("the proxy does not answer on {address}: {error}")),
        }
    }
    Err(last)
}

/// Where to connect to for a listener on every address, in this order. IPv6's takes IPv4 too, and where IPv6 is switched off there is no other.
fn reachable(listener: SocketAddr) -> Vec<SocketAddr> {
    let four = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let ips = match listener.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => vec![four],
        IpAddr::V6(ip) if ip.is_unspecified() => vec![IpAddr::V6(Ipv6Addr::LOCALHOST), four],
        ip => vec![ip],
    };
    ips.into_iter().map(|ip| SocketAddr::new(ip, listener.port())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_every_address_is_asked_on_this_machine() {
        let shown = |listener: &str| {
            let addresses = reachable(listener.parse().unwrap());
            addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(shown("[::]:80"), "[::1]:80 127.0.0.1:80");
        assert_eq!(shown("0.0.0.0:80"), "127.0.0.1:80");
        assert_eq!(shown("192.0.2.7:80"), "192.0.2.7:80");
    }
}

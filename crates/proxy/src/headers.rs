//! What changes in a head on its way through: headers for one hop only go, the way it came is told.

use std::borrow::Cow;

use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};

use crate::address::Asked;
use crate::serve::Client;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");

/// Makes a client's head fit for the target. Gives the protocol the client wants to change to, if that may pass.
pub(crate) fn prepare_request(
    headers: &mut HeaderMap,
    client: &Client,
    asked: &Asked,
    has_body: bool,
) -> Option<HeaderValue> {
    let upgrade = wanted_upgrade(headers);
    remove_hop_by_hop(headers);
    // Said again for the next hop: of a GET without a word on it everybody thinks that it has no body.
    if has_body && !headers.contains_key(CONTENT_LENGTH) {
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    // The 100 was ours to give: reading the body gives it.
    headers.remove(EXPECT);
    headers.remove(HTTP2_SETTINGS);
    tell_the_way(headers, client, asked);
    if let Some(protocol) = &upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol.clone());
    }
    upgrade
}

/// Makes a target's head fit for the client.
pub(crate) fn prepare_answer(headers: &mut HeaderMap) {
    // The length that does not count must not become the one that does.
    if headers.contains_key(TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
    }
    remove_hop_by_hop(headers);
}

/// Tells the target what was taken off the path, and that alone: a client's word on it is nobody's.
pub(crate) fn tell_prefix(headers: &mut HeaderMap, prefix: Option<&str>) {
    headers.remove(FORWARDED_PREFIX);
    if let Some(value) = prefix.and_then(|prefix| HeaderValue::from_str(prefix).ok()) {
        headers.insert(FORWARDED_PREFIX, value);
    }
}

/// The protocol of an `Upgrade` that stands in `Connection` too. Never HTTP/2 in plain text: behind that the target would read
/// requests that nobody here has seen.
fn wanted_upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let protocol = headers.get(UPGRADE)?;
    let listed = tokens(headers, &CONNECTION).any(|token| token.eq_ignore_ascii_case(b"upgrade"));
    let http2 = tokens(headers, &UPGRADE)
        .any(|token| token.get(..2).is_some_and(|start| start.eq_ignore_ascii_case(b"h2")));
    (listed && !http2).then(|| protocol.clone())
}

fn tokens<'headers>(headers: &'headers HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'headers [u8]> {
    let values = headers.get_all(name).into_iter().map(HeaderValue::as_bytes);
    values.flat_map(|value| value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii))
}

/// Removes what is meant for one hop: the usual names, and those that `Connection` lists.
fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let listed: Vec<HeaderName> = tokens(headers, &CONNECTION)
            .filter(|token| {
                !token.eq_ignore_ascii_case(b"close") && !token.eq_ignore_ascii_case(b"keep-alive")
            })
            .filter_map(|token| HeaderName::from_bytes(token).ok())
            // A client may not talk us into dropping what says where a message goes and where it ends.
            .filter(|name| *name != HOST && *name != CONTENT_LENGTH)
            .collect();
        for name in listed {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    for name in [KEEP_ALIVE, PROXY_CONNECTION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
}

/// `X-Forwarded-*`. The address is always added at the end, where a target that counts hops finds it. The rest is the client's word
/// only if the client is on this machine: then it is a proxy in front of this one, which saw the real ones.
fn tell_the_way(headers: &mut HeaderMap, client: &Client, asked: &Asked) {
    if !client.is_local {
        remove_word_on_the_way(headers);
    }
    let came_by = match headers.get(FORWARDED_FOR) {
        None => client.address.clone(),
        Some(_) => appended(headers, client),
    };
    headers.insert(FORWARDED_FOR, came_by);
    if !headers.contains_key(FORWARDED_PROTO) {
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
    }
    if !headers.contains_key(FORWARDED_HOST) {
        headers.insert(FORWARDED_HOST, asked.host_header().clone());
    }
    // HTTP/1.1 to the target wants a Host, also where an older client gave none.
    headers.insert(HOST, asked.host_header().clone());
}

/// Removes everything by which apps learn how a request came, save for the chain of addresses, which is added to.
fn remove_word_on_the_way(headers: &mut HeaderMap) {
    let tells = |name: &&HeaderName| **name != FORWARDED_FOR && tells_the_way(name.as_str());
    let words: Vec<HeaderName> = headers.keys().filter(tells).cloned().collect();
    for word in words {
        headers.remove(word);
    }
}

/// Many an app's server does not tell `_` from `-`.
fn tells_the_way(name: &str) -> bool {
    let name = if name.contains('_') { Cow::from(name.replace('_', "-")) } else { Cow::from(name) };
    matches!(name.as_ref(), "forwarded" | "x-real-ip" | "front-end-https" | "x-url-scheme")
        || name.starts_with("x-forwarded-")
}

fn appended(headers: &HeaderMap, client: &Client) -> HeaderValue {
    let mut chain = String::new();
    for before in headers.get_all(FORWARDED_FOR) {
        if let Ok(before) = before.to_str() {
            chain.push_str(before);
            chain.push_str(", ");
        }
    }
    chain.push_str(client.address.to_str().unwrap_or_default());
    HeaderValue::try_from(chain).unwrap_or_else(|_| client.address.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn prepared(client: &Client, given: &[(&'static str, &'static str)]) -> (HeaderMap, Option<HeaderValue>) {
        let mut request = Request::builder().uri("/").body(()).unwrap();
        request.headers_mut().insert(HOST, HeaderValue::from_static("x.test"));
        for (name, value) in given {
            request.headers_mut().append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let asked = Asked::read(&request).unwrap();
        let upgrade = prepare_request(request.headers_mut(), client, &asked, false);
        (request.into_parts().0.headers, upgrade)
    }

    fn client(address: &str) -> Client {
        Client::new(address.parse().unwrap())
    }

    #[test]
    fn headers_of_one_hop_go_with_those_that_connection_lists() {
        let (headers, _) = prepared(
            &client("192.0.2.1"),
            &[
                ("connection", "close, X-Secret , host"),
                ("connection", "content-length"),
                ("x-secret", "1"),
                ("keep-alive", "timeout=5"),
                ("te", "trailers"),
                ("proxy-connection", "keep-alive"),
                ("content-length", "3"),
                ("expect", "100-continue"),
                ("cookie", "a=b"),
            ],
        );

        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            ["content-length", "cookie", "host", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"]
        );
    }

    #[test]
    fn the_way_is_told_and_a_strangers_word_on_it_replaced() {
        let (headers, _) = prepared(
            &client("192.0.2.1"),
            &[
                ("x-forwarded-for", "198.51.100.7"),
                ("x-forwarded-for", "203.0.113.9"),
                ("x-forwarded-proto", "https"),
                ("x-forwarded-host", "evil.test"),
                ("x-real-ip", "203.0.113.9"),
                ("forwarded", "for=203.0.113.9;proto=https"),
                ("x-forwarded-port", "443"),
                ("x-forwarded-ssl", "on"),
                ("x-forwarded-scheme", "https"),
                ("x_forwarded_for", "203.0.113.9"),
                ("x_real-ip", "203.0.113.9"),
                ("x_own", "kept"),
            ],
        );

        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["host", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x_own"]);
        assert_eq!(headers["x-forwarded-for"], "198.51.100.7, 203.0.113.9, 192.0.2.1");
        assert_eq!(headers.get_all("x-forwarded-for").iter().count(), 1);
        assert_eq!(headers["x-forwarded-proto"], "http");
        assert_eq!(headers["x-forwarded-host"], "x.test");
    }

    #[test]
    fn a_proxy_on_this_machine_is_believed() {
        let (headers, _) =
            prepared(&client("127.0.0.1"), &[("x-forwarded-proto", "https"), ("x-forwarded-host", "y.test")]);

        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["x-forwarded-host"], "y.test");
    }

    #[test]
    fn a_websocket_may_pass_and_plain_http2_may_not() {
        let (headers, upgrade) =
            prepared(&client("192.0.2.1"), &[("connection", "Upgrade"), ("upgrade", "websocket")]);
        assert_eq!(upgrade.unwrap(), "websocket");
        assert_eq!(
            (&headers["connection"], &headers["upgrade"]),
            (&"upgrade".parse().unwrap(), &"websocket".parse().unwrap())
        );

        for given in [
            &[("connection", "upgrade, http2-settings"), ("upgrade", "h2c"), ("http2-settings", "x")][..],
            &[("connection", "upgrade"), ("upgrade", "websocket, H2C")],
            &[("upgrade", "websocket")],
            &[("connection", "upgrade"), ("upgrade", "websocket, \u{fc}, h2c")],
        ] {
            let (headers, upgrade) = prepared(&client("192.0.2.1"), given);
            assert_eq!(upgrade, None);
            assert!(
                !headers.contains_key(UPGRADE)
                    && !headers.contains_key(CONNECTION)
                    && !headers.contains_key(HTTP2_SETTINGS)
            );
        }
    }
}

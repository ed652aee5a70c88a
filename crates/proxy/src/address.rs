//! What a request asks for: host and path, read the same way by everybody behind this line, or refused.
//!
//! Paths with dot segments (plain or escaped, also behind a backslash) are refused with 400 and not tidied: browsers and tools
//! tidy them before they send, so what arrives is a probe for a way around a prefix, and an app would read the rest of the path
//! from what *it* believes is the start. Escapes of letters, digits and `-._~` are undone, which RFC 3986 calls the same path, so
//! that `/%61dmin` cannot walk past a route for `/admin`. Everything else, `%2f` and doubled slashes too, is the app's to read.

use std::borrow::Cow;

use http::header::{HOST, HeaderValue};
use http::uri::{Authority, PathAndQuery};
use http::{Method, Request, Version};

use crate::refuse::{Reason, Refusal};

/// Where a request wants to go. Cheap to keep: both parts share the bytes that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    /// As the client named it, maybe with a port; empty when an HTTP/1.0 client named none.
    host: HeaderValue,
    /// Path, with harmless escapes undone, and query.
    wanted: PathAndQuery,
}

impl Asked {
    /// Reads where a request wants to go.
    pub(crate) fn read<B>(request: &Request<B>) -> Result<Self, Refusal> {
        if request.method() == Method::CONNECT {
            return Err(Refusal::new(Reason::Method, "CONNECT is not served here"));
        }
        let host = host(request)?;
        let wanted =
            request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        let wanted = match path(wanted.path())? {
            Cow::Borrowed(_) => wanted,
            Cow::Owned(tidy) => with_query(tidy, wanted.query())?,
        };
        Ok(Self { host, wanted })
    }

    pub(crate) fn host(&self) -> &str {
        self.host.to_str().unwrap_or_default()
    }

    pub(crate) fn host_header(&self) -> &HeaderValue {
        &self.host
    }

    /// The path to match; the form `*`, which asks about the server as a whole, is at home at its root.
    pub(crate) fn path(&self) -> &str {
        match self.wanted.path() {
            "*" => "/",
            path => path,
        }
    }

    pub(crate) fn wanted(&self) -> &PathAndQuery {
        &self.wanted
    }

    /// Path and query without a route's prefix.
    pub(crate) fn stripped(&self, prefix: &str) -> PathAndQuery {
        let rest = self.wanted.path().strip_prefix(prefix).unwrap_or_default();
        let path = if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") };
        with_query(path, self.wanted.query()).unwrap_or_else(|_| self.wanted.clone())
    }
}

fn with_query(mut path: String, query: Option<&str>) -> Result<PathAndQuery, Refusal> {
    if let Some(query) = query {
        path.push('?');
        path.push_str(query);
    }
    PathAndQuery::try_from(path).map_err(|_| Refusal::new(Reason::BadRequest, "the path is no path"))
}

/// The host: of the request line if that has one (then the header does not count: RFC 9112), else of the one `Host` header.
fn host<B>(request: &Request<B>) -> Result<HeaderValue, Refusal> {
    let bad = |text: &'static str| Refusal::new(Reason::BadRequest, text);
    let mut headers = request.headers().get_all(HOST).iter();
    let (first, second) = (headers.next(), headers.next());
    if second.is_some() {
        return Err(bad("the request has several Host headers"));
    }
    if let Some(authority) = request.uri().authority() {
        return HeaderValue::from_str(without_user(authority))
            .map_err(|_| bad("the request line names no host"));
    }
    let Some(first) = first else {
        return if request.version() == Version::HTTP_11 {
            Err(bad("the request has no Host header"))
        } else {
            Ok(HeaderValue::from_static(""))
        };
    };
    if first.as_bytes().iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(byte)) {
        Ok(first.clone())
    } else {
        Err(bad("the Host header names no host"))
    }
}

fn without_user(authority: &Authority) -> &str {
    let text = authority.as_str();
    text.rsplit_once('@').map_or(text, |(_, host)| host)
}

/// The path as it is matched and sent on.
fn path(raw: &str) -> Result<Cow<'_, str>, Refusal> {
    if raw == "*" || !raw.bytes().any(|byte| matches!(byte, b'%' | b'\\' | b'.')) {
        return Ok(Cow::Borrowed(raw));
    }
    let tidy = undo_harmless_escapes(raw);
    // Some apps read a backslash as a slash, and some undo escaped slashes early: for this question both are slashes.
    let laxest =
        ["%5c", "%5C", "%2f", "%2F"].iter().fold(tidy.clone(), |path, escape| path.replace(escape, "/"));
    if laxest.split(['/', '\\']).any(|segment| segment == "." || segment == "..") {
        return Err(Refusal::new(Reason::BadRequest, "the path has dot segments"));
    }
    // Where a `%` stands for itself, undoing what follows it could make an escape that nobody wrote.
    let changed = tidy != raw && escapes_are_whole(raw);
    Ok(if changed { Cow::Owned(tidy) } else { Cow::Borrowed(raw) })
}

fn escapes_are_whole(raw: &str) -> bool {
    raw.split('%').skip(1).all(|piece| code(piece).is_some())
}

/// The byte that the two digits at the start of a piece stand for.
fn code(piece: &str) -> Option<u8> {
    piece
        .get(..2)
        .filter(|digits| !digits.starts_with('+'))
        .and_then(|digits| u8::from_str_radix(digits, 16).ok())
}

/// Undoes `%XX` where it stands for a character that never needs it.
fn undo_harmless_escapes(raw: &str) -> String {
    let mut pieces = raw.split('%');
    let mut tidy = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        match code(piece) {
            Some(byte) if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => {
                tidy.push(char::from(byte));
                tidy.push_str(&piece[2..]);
            }
            Some(_) | None => {
                tidy.push('%');
                tidy.push_str(piece);
            }
        }
    }
    tidy
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(uri: &str, hosts: &[&str]) -> Request<()> {
        let mut request = Request::builder().uri(uri).body(()).unwrap();
        for host in hosts {
            request.headers_mut().append(HOST, host.parse().unwrap());
        }
        request
    }

    fn asked(uri: &str, hosts: &[&str]) -> Result<(String, String), &'static str> {
        Asked::read(&request(uri, hosts))
            .map(|asked| (asked.host().to_owned(), asked.path().to_owned()))
            .map_err(|refusal| refusal.reason.as_str())
    }

    #[test]
    fn the_host_is_the_request_lines_before_the_headers() {
        assert_eq!(asked("/a", &["x.test"]), Ok(("x.test".into(), "/a".into())));
        assert_eq!(asked("http://y.test/a", &["x.test"]), Ok(("y.test".into(), "/a".into())));
        assert_eq!(asked("http://me@y.test", &[]), Ok(("y.test".into(), "/".into())));
    }

    #[test]
    fn a_request_without_a_host_or_with_two_is_refused() {
        assert_eq!(asked("/", &[]), Err("bad-request"));
        assert_eq!(asked("/", &["x.test", "y.test"]), Err("bad-request"));
        assert_eq!(asked("/", &["x.test/../y"]), Err("bad-request"));
        let mut old = request("/", &[]);
        *old.version_mut() = Version::HTTP_10;
        assert_eq!(Asked::read(&old).unwrap().host(), "");
    }

    #[test]
    fn dot_segments_are_refused_in_every_disguise() {
        for path in [
            "/../a",
            "/a/..",
            "/a/./b",
            "/.",
            "/a/%2e%2e/b",
            "/a/%2E./b",
            "/a/.%2e",
            "/a/..%2fb",
            "/a/..%5Cb",
            "/a/..\\b",
            "/a%2f../b",
        ] {
            assert_eq!(super::path(path).unwrap_err().reason, Reason::BadRequest, "{path}");
        }
    }

    #[test]
    fn other_dots_and_escapes_pass() {
        for path in [
            "/a/..b",
            "/a.b/.well-known/x",
            "/...",
            "/a%2fb",
            "/a%20b",
            "//a//b",
            "/%",
            "/%zz",
            "/%2",
            "/%C3%A9",
        ] {
            assert_eq!(super::path(path).unwrap(), path);
        }
        assert_eq!(super::path("/%61dmin/%7Eme").unwrap(), "/admin/~me");
        assert_eq!(super::path("/%%361").unwrap(), "/%%361");
    }

    #[test]
    fn a_prefix_is_taken_off_and_the_query_stays() {
        let stripped =
            |uri: &str, prefix| Asked::read(&request(uri, &["x"])).unwrap().stripped(prefix).to_string();

        assert_eq!(stripped("/api/users?page=2", "/api"), "/users?page=2");
        assert_eq!(stripped("/api?page=2", "/api"), "/?page=2");
        assert_eq!(stripped("/%61pi/%20", "/api"), "/%20");
        assert_eq!(stripped("/users", ""), "/users");
    }

    proptest! {
        #[test]
        fn no_path_panics_and_none_that_passes_has_dot_segments(raw in "/[a-e0-9%./\\\\]{0,24}") {
            if let Ok(path) = path(&raw) {
                prop_assert!(path.starts_with('/'));
                prop_assert!(!path.split('/').any(|segment| segment == ".." || segment == "."));
                if escapes_are_whole(&raw) {
                    prop_assert_eq!(undo_harmless_escapes(&path), path.as_ref(), "a path is tidied once and for all");
                }
            }
        }
    }
}

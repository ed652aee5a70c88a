//! Answers the proxy makes itself. All carry [`ERROR_HEADER`], so that nobody takes them for the app's.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Response, StatusCode};

/// The header that marks an answer as the proxy's own; its value is [`Reason::as_str`].
pub const ERROR_HEADER: HeaderName = HeaderName::from_static("x-cutover-error");

/// Why the proxy answered in the app's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// No route for this host and path.
    NoRoute,
    /// The route has no target.
    NoTarget,
    /// The route is held and as many requests wait as may.
    HoldFull,
    /// The request waited until the hold's end.
    HoldExpired,
    /// The route is closed.
    Closed,
    /// No target could be connected to.
    UpstreamUnreachable,
    /// The target broke the connection before it answered.
    UpstreamBroken,
    /// The target did not answer in time.
    UpstreamTimeout,
    /// The target was drained and the request cut at the deadline.
    Cut,
    /// The request breaks a rule of HTTP, or one of ours.
    BadRequest,
    /// A method that a reverse proxy does not serve.
    Method,
    /// The client stopped sending in the middle of a request.
    ClientTimeout,
    /// The proxy is about to end.
    Stopping,
}

impl Reason {
    /// All reasons, in the order of their counters.
    pub const ALL: [Self; 13] = [
        Self::NoRoute,
        Self::NoTarget,
        Self::HoldFull,
        Self::HoldExpired,
        Self::Closed,
        Self::UpstreamUnreachable,
        Self::UpstreamBroken,
        Self::UpstreamTimeout,
        Self::Cut,
        Self::BadRequest,
        Self::Method,
        Self::ClientTimeout,
        Self::Stopping,
    ];

    /// The value of [`ERROR_HEADER`], and the name in the figures.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoRoute => "no-route",
            Self::NoTarget => "no-target",
            Self::HoldFull => "hold-full",
            Self::HoldExpired => "hold-expired",
            Self::Closed => "closed",
            Self::UpstreamUnreachable => "upstream-unreachable",
            Self::UpstreamBroken => "upstream-broken",
            Self::UpstreamTimeout => "upstream-timeout",
            Self::Cut => "cut",
            Self::BadRequest => "bad-request",
            Self::Method => "method",
            Self::ClientTimeout => "client-timeout",
            Self::Stopping => "stopping",
        }
    }

    /// The status that goes with it.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::UpstreamUnreachable | Self::UpstreamBroken => StatusCode::BAD_GATEWAY,
            Self::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::ClientTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::NoTarget
            | Self::HoldFull
            | Self::HoldExpired
            | Self::Closed
            | Self::Cut
            | Self::Stopping => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Seconds after which it makes sense to come back; none where coming back changes nothing.
    const fn retry_after(self) -> Option<&'static str> {
        match self {
            Self::NoTarget | Self::HoldFull | Self::HoldExpired | Self::Cut | Self::Stopping => Some("1"),
            Self::Closed => Some("10"),
            Self::NoRoute
            | Self::UpstreamUnreachable
            | Self::UpstreamBroken
            | Self::UpstreamTimeout
            | Self::BadRequest
            | Self::Method
            | Self::ClientTimeout => None,
        }
    }
}

/// An answer in the app's place, before it is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: Reason,
    text: Cow<'static, str>,
}

impl Refusal {
    pub(crate) fn new(reason: Reason, text: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, text: text.into() }
    }

    /// The answer. The text goes to strangers: it names no address and no file.
    pub(crate) fn into_response(self) -> Response<Bytes> {
        let mut response = Response::new(Bytes::from(format!("{}\n", self.text)));
        *response.status_mut() = self.reason.status();
        let headers = response.headers_mut();
        headers.insert(ERROR_HEADER, HeaderValue::from_static(self.reason.as_str()));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        if let Some(seconds) = self.reason.retry_after() {
            headers.insert(RETRY_AFTER, HeaderValue::from_static(seconds));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_own_name_and_place() {
        let names: std::collections::BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();

        assert_eq!(names.len(), Reason::ALL.len());
        for (place, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(place, *reason as usize);
        }
    }

    #[test]
    fn a_refusal_says_what_and_when_to_come_back() {
        let response = Refusal::new(Reason::HoldFull, "try again").into_response();

        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[ERROR_HEADER], "hold-full");
        assert_eq!(response.headers()[RETRY_AFTER], "1");
        assert_eq!(response.body(), "try again\n");
    }
}

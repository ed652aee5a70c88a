//! What became of a request: the one place that says what counts as failed.

use std::fmt;

use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderName, StatusCode};

use super::options::Mark;

/// The header by which the proxy marks the answers it makes itself; its value is the reason.
pub(super) const ERROR_HEADER: HeaderName = HeaderName::from_static("x-cutover-error");
/// The reasons that stand for a hold whose bounds were passed.
const HOLD_PASSED: [&str; 2] = ["hold-full", "hold-expired"];
/// The reason of a request that met its drain's deadline.
const CUT: &str = "cut";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Get,
    Post,
    Slow,
    WebSocket,
    Sse,
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Slow => "slow",
            Self::WebSocket => "WebSocket",
            Self::Sse => "SSE",
        })
    }
}

/// What a client saw. `release` is what the app's mark says, empty where the app has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Answered { release: String },
    AppError { release: String, status: u16 },
    Told { reason: String },
    Cut,
    Failed { why: String },
}

impl Outcome {
    pub(super) fn failed(why: impl fmt::Display) -> Self {
        Self::Failed { why: why.to_string() }
    }

    /// Of an answer whose body has come in full.
    pub(super) fn of_answer(status: StatusCode, headers: &HeaderMap, mark: &Mark) -> Self {
        if let Some(reason) = text(headers, &ERROR_HEADER) {
            return Self::of_proxy_error(status, headers, reason);
        }
        let release = match mark {
            Mark::None => String::new(),
            Mark::Header(name) => match text(headers, name) {
                Some(release) => release,
                None => return Self::failed(format_args!("{status} that the app did not sign")),
            },
        };
        if status.as_u16() < 400 {
            Self::Answered { release }
        } else {
            Self::AppError { release, status: status.as_u16() }
        }
    }

    fn of_proxy_error(status: StatusCode, headers: &HeaderMap, reason: String) -> Self {
        let may_come_back = status == StatusCode::SERVICE_UNAVAILABLE && headers.contains_key(RETRY_AFTER);
        if may_come_back && HOLD_PASSED.contains(&reason.as_str()) {
            Self::Told { reason }
        } else if may_come_back && reason == CUT {
            Self::Cut
        } else {
            Self::failed(format_args!("{status} from the proxy: {reason}"))
        }
    }
}

fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn outcome(status: u16, headers: &[(&'static str, &'static str)]) -> Outcome {
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        let mark = Mark::Header(HeaderName::from_static("x-app-release"));
        Outcome::of_answer(StatusCode::from_u16(status).unwrap(), &headers, &mark)
    }

    #[test]
    fn given_an_answer_then_who_signed_it_decides() {
        let release = "r1".to_owned();
        let signed = ("x-app-release", "r1");
        assert_eq!(outcome(303, &[signed]), Outcome::Answered { release: release.clone() });
        assert_eq!(outcome(500, &[signed]), Outcome::AppError { release, status: 500 });
        assert!(matches!(outcome(200, &[]), Outcome::Failed { .. }));
        assert!(matches!(outcome(502, &[("x-cutover-error", "upstream-broken")]), Outcome::Failed { .. }));
    }

    #[test]
    fn given_a_503_of_the_proxy_then_only_a_hold_past_its_bounds_is_told_apart() {
        let again = ("retry-after", "1");
        let told = Outcome::Told { reason: "hold-full".into() };
        assert_eq!(outcome(503, &[("x-cutover-error", "hold-full"), again]), told);
        assert_eq!(outcome(503, &[("x-cutover-error", "cut"), again]), Outcome::Cut);
        assert!(matches!(outcome(503, &[("x-cutover-error", "hold-full")]), Outcome::Failed { .. }));
        assert!(matches!(outcome(503, &[("x-cutover-error", "no-target"), again]), Outcome::Failed { .. }));
        // Signed by both: the proxy touched it, so it is not the app's own.
        assert!(matches!(
            outcome(200, &[("x-cutover-error", "stopping"), ("x-app-release", "r1")]),
            Outcome::Failed { .. }
        ));
    }
}

//! Traffic that counts every failed request, as SAFETY's "P1 in full" says what a failure is.
//!
//! [`Probe::start`] sends GETs, posted entries, slow downloads, sockets and event streams, over connections made for
//! one request and over connections kept alive, until [`Probe::stop`] gives the [`Report`].
//!
//! What counts, each request exactly once:
//!
//! | outcome | means |
//! |---|---|
//! | answered | a complete answer of the app's own, below 400 |
//! | app error | a complete answer of the app's own, 400 or above: reported, not failed |
//! | told | the proxy's 503 with `Retry-After` because a hold's bounds were passed: reported, not failed |
//! | cut | the proxy's 503 because the request met its drain's deadline: reported, not failed |
//! | failed | all else: refused, reset, truncated, too late, an answer of the proxy's, one that nobody signed |
//!
//! The app signs its answers with `x-app-release` ([`Mark`]); the proxy signs those it makes with `x-cutover-error`.
//! A WebSocket or event stream that ends is `closed`, and its reconnect is a request like any other. One that
//! stays open and falls silent, or says back something else than it was told, is a failed request of its own.
//!
//! A request is sent a second time in two cases only, as RFC 9110 §9.2.2 lets a client do unseen, and this is counted as
//! `retried`: it was not sent at all because the kept connection had been closed before; or it is a GET, the kept
//! connection was closed, and not one byte came back. A POST that may have been sent is never sent again.

mod client;
mod entries;
mod ledger;
mod options;
mod outcome;
mod report;
mod run;
mod streams;
mod table;
mod tally;
mod visits;

pub use entries::{Entry, Verification, fetch_entries};
pub use ledger::{Ledger, LedgerError, Overlap};
pub use options::{Load, Mark, Mix, ProbeOptions};
pub use outcome::{Kind, Outcome};
pub use report::{Acknowledged, FailedRequest, Figures, ReleaseSeen, Report};
pub use run::Probe;

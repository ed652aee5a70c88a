//! What can be learned about an instance that did not become healthy, for [`cutover_core::diagnosis`]: its state, its sockets, the end of its log.

use std::time::Duration;

use cutover_core::defaults::LOG_READ;
use cutover_core::diagnosis::Facts;
use cutover_core::gate::{Check, Finding};
use cutover_core::names::{AppId, ReleaseId};
use cutover_core::plan::{InstanceRef, InstanceSpec};
use cutover_core::secret::Secrets;
use cutover_core::state::{ExitStatus, InstanceState};

use crate::ports::{LogQuery, Runtime, Scope};

/// What the gate saw of it.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// The check that did not pass.
    pub check: Option<Check>,
    /// What its last try found.
    pub last: Option<Finding>,
    /// Tries of it.
    pub tries: u32,
    /// From the start of the instance.
    pub elapsed: Duration,
}

/// Collects the facts. What cannot be learned is left out: a diagnosis from less is better than none. Log lines and findings are redacted
/// by `values`.
pub async fn collect(runtime: &dyn Runtime, spec: &InstanceSpec, seen: Seen, values: &Secrets) -> Facts {
    let (app, name) = (&spec.app, &spec.name);
    let query = LogQuery { tail: Some(LOG_READ), scope: Scope::ThisStart, since: None };
    let (state, listening, log) = tokio::join!(
        runtime.inspect(app, name),
        runtime.listening(app, name),
        runtime.logs(app, name, &query)
    );
    let log = log.unwrap_or_default().into_iter().map(|line| values.redact(&line.text)).collect();
    Facts {
        service: spec.service.clone(),
        release: spec.release.clone(),
        runtime: spec.runtime(),
        state: state.ok().flatten().map(|found| found.state),
        listening: listening.ok(),
        port: expected_port(seen.check.as_ref(), spec.port),
        check: seen.check,
        last: seen.last.map(|finding| redacted(finding, values)),
        tries: seen.tries,
        elapsed: seen.elapsed,
        log,
    }
}

/// The facts of an instance that had passed its gate, and then ended with `exit`. It may have been started again since.
pub async fn of_exit(
    runtime: &dyn Runtime,
    (app, release): (&AppId, &ReleaseId),
    instance: &InstanceRef,
    exit: ExitStatus,
    values: &Secrets,
) -> Facts {
    let query = LogQuery { tail: Some(LOG_READ), ..LogQuery::default() };
    let log = runtime.logs(app, &instance.name, &query).await.unwrap_or_default();
    // It may have been started again already: what that start says is about something else.
    let before = exit.at;
    let log = log.into_iter().filter(|line| !matches!((line.at, before), (Some(at), Some(end)) if at > end));
    Facts {
        service: instance.service.clone(),
        release: release.clone(),
        runtime: instance.runtime,
        state: Some(InstanceState::Exited { exit }),
        listening: None,
        port: None,
        check: None,
        last: None,
        tries: 0,
        elapsed: Duration::ZERO,
        log: log.map(|line| values.redact(&line.text)).collect(),
    }
}

fn expected_port(check: Option<&Check>, service: Option<u16>) -> Option<u16> {
    match check {
        Some(Check::Http { port: Some(port), .. } | Check::Tcp { port: Some(port), .. }) => Some(*port),
        _ => service,
    }
}

/// A finding without secret values.
pub fn redacted(finding: Finding, values: &Secrets) -> Finding {
    match finding {
        Finding::Status { status, body } => Finding::Status { status, body: values.redact(&body) },
        Finding::Body { detail } => Finding::Body { detail: values.redact(&detail) },
        Finding::Exit { code, output } => Finding::Exit { code, output: values.redact(&output) },
        Finding::Other { detail } => Finding::Other { detail: values.redact(&detail) },
        Finding::Refused | Finding::NoAnswer | Finding::NotYet => finding,
    }
}

//! Checks that run a command in the instance: the author's own, `test -e`, the container's HEALTHCHECK.

use std::time::Duration;

use cutover_core::gate::Finding;

use super::{failed, other};
use crate::ports::{Exec, ProbeTarget, Runtime, RuntimeErrorKind};

/// The lines of output a finding shows, the last ones.
const SHOWN: usize = 5;

/// Passes when the command exits 0.
pub(crate) async fn command(
    runtime: &dyn Runtime,
    target: &ProbeTarget,
    words: Vec<String>,
    timeout: Duration,
) -> Result<(), Finding> {
    match runtime.exec(&target.app, &target.instance, &Exec { words, timeout }).await {
        Ok(finished) if finished.exit.code == Some(0) => Ok(()),
        Ok(finished) => {
            // As a shell counts them.
            let signalled = finished.exit.signal.map_or(-1, |signal| 128 + i64::from(signal));
            let code = finished.exit.code.map_or(signalled, i64::from);
            let tail = finished.output.len().saturating_sub(SHOWN);
            Err(Finding::Exit { code, output: finished.output[tail..].join("\n") })
        }
        Err(error) if error.kind == RuntimeErrorKind::Late => Err(Finding::NoAnswer),
        Err(error) => Err(failed(&error)),
    }
}

/// Passes when the file is there.
pub(crate) async fn file(
    runtime: &dyn Runtime,
    target: &ProbeTarget,
    path: &str,
    timeout: Duration,
) -> Result<(), Finding> {
    let words = vec!["test".to_owned(), "-e".to_owned(), path.to_owned()];
    match command(runtime, target, words, timeout).await {
        Err(Finding::Exit { code: 1, .. }) => Err(Finding::NotYet),
        Err(Finding::Exit { code, output }) => Err(other(format!(
            "`test -e {path}` cannot be run in the instance (exit {code}: {output}); use `ready: {{ log: … }}` or a command it has"
        ))),
        otherwise => otherwise,
    }
}

/// Passes when the container's own HEALTHCHECK command does.
pub(crate) async fn container(
    runtime: &dyn Runtime,
    target: &ProbeTarget,
    timeout: Duration,
) -> Result<(), Finding> {
    match runtime.health_command(&target.app, &target.instance).await {
        Ok(Some(words)) => command(runtime, target, words, timeout).await,
        Ok(None) => Err(other("the container has no HEALTHCHECK")),
        Err(error) => Err(failed(&error)),
    }
}

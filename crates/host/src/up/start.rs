//! Seeing to it that proxy and watch are there: the first deploy on a machine starts them, detached.

use std::path::Path;
use std::process::Stdio;

use cutover_core::layout::Layout;
use cutover_core::variables;
use tokio::net::UnixStream;

use super::UpError;
use super::report::{self, Said};
use super::supervise::{self, READY};
use crate::files;
use crate::host_file;
use crate::lock::ProcessLock;
use crate::setup;

/// Whether somebody keeps proxy and watch. Both may be at work all the same: left by a supervisor that was killed.
pub fn is_up(layout: &Layout) -> bool {
    ProcessLock::peek(layout, "up").is_some()
}

/// The `CUTOVER_HTTP` that whoever keeps proxy and watch was started with.
pub fn http_variable(layout: &Layout) -> Option<String> {
    let pid = ProcessLock::peek(layout, "up")?;
    let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
    let mut all = environment.split(|byte| *byte == 0).filter_map(|entry| std::str::from_utf8(entry).ok());
    all.find_map(|entry| entry.strip_prefix(variables::HTTP)?.strip_prefix('=').map(str::to_owned))
}

/// Starts `up` detached where nobody keeps proxy and watch, and returns when the proxy answers; `false`: they were there. `http`: its
/// `CUTOVER_HTTP`, where that is another than ours.
///
/// # Errors
/// When `host.yml` cannot be used; when the proxy cannot listen, with who has its port; when it does not answer in time.
pub async fn ensure_up(layout: &Layout, host_binary: &Path, http: Option<&str>) -> Result<bool, UpError> {
    // Also where they are there: a fault in it is told now, and not to whoever starts them next.
    host_file::read(layout)?;
    if is_up(layout) {
        return answers(layout).await.map(|()| false);
    }
    if setup::units_are_installed(layout) {
        return start_units(layout).await;
    }
    files::ensure_folder(layout.state(), 0o700)?;
    let (ours, theirs) = report::pair()?;
    let log = supervise::open_log(layout, "up")?;
    // It outlives the session that starts it, and the login that this one belongs to (S11).
    let unit = format!("cutover-up-{}", uuid::Uuid::now_v7());
    let mut child = setup::scope(layout, &unit, host_binary)
        .arg("up")
        .envs(http.map(|http| (variables::HTTP, http)))
        .current_dir("/")
        .stdin(Stdio::from(theirs))
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .map_err(|error| UpError::Spawn { binary: host_binary.to_owned(), error })?;
    let heard = report::hear(ours, READY).await;
    let not_ready = |reason: String, next| UpError::NotReady { reason, log: layout.process_log("up"), next };
    match heard {
        Ok(Some(Said::Ready)) => Ok(true),
        Ok(Some(Said::Taken { address, by })) => {
            reap(&mut child);
            Err(UpError::Taken { address, by })
        }
        // Two starters at once: the other one's is as good.
        Ok(Some(Said::Failed { .. }) | None) if ProcessLock::peek(layout, "up").is_some() => {
            reap(&mut child);
            answers(layout).await.map(|()| false)
        }
        Ok(Some(Said::Failed { reason, next })) => {
            reap(&mut child);
            Err(not_ready(reason, next))
        }
        Ok(None) => {
            reap(&mut child);
            Err(not_ready("it ended without a word".to_owned(), Vec::new()))
        }
        Err(_) => Err(unanswered(layout)),
    }
}

/// Where they are units, the init system starts them.
async fn start_units(layout: &Layout) -> Result<bool, UpError> {
    if ["proxy", "watch"].iter().all(|process| ProcessLock::peek(layout, process).is_some()) {
        return answers(layout).await.map(|()| false);
    }
    setup::start_units().await.map_err(|failure| UpError::NotReady {
        reason: failure.to_string(),
        log: layout.process_log("proxy"),
        next: failure.next,
    })?;
    answers(layout).await.map(|()| true)
}

/// One that said it failed is about to end.
fn reap(child: &mut std::process::Child) {
    if let Err(error) = child.wait() {
        tracing::debug!(%error, "the supervisor was gone already");
    }
}

async fn answers(layout: &Layout) -> Result<(), UpError> {
    let socket = layout.proxy_socket();
    let connects = async {
        while UnixStream::connect(&socket).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(READY, connects).await.map_err(|_| unanswered(layout))
}

/// The proxy is not there; what it said before it ended is the reason.
fn unanswered(layout: &Layout) -> UpError {
    let log = layout.process_log("proxy");
    let reason = last_words(&log).map_or_else(
        || format!("the proxy does not answer on {}", layout.proxy_socket().display()),
        |words| format!("the proxy does not start: {words}"),
    );
    UpError::NotReady { reason, log, next: Vec::new() }
}

/// The cause of the last error in a log; none where it has nothing of the kind.
fn last_words(log: &Path) -> Option<String> {
    const CAUSE: &str = "  cause: ";
    const MOST: usize = 4096;
    let text = std::fs::read(log).ok()?;
    let text = String::from_utf8_lossy(&text[text.len().saturating_sub(MOST)..]).into_owned();
    let (_, last) = text.rsplit_once("error: ")?;
    last.lines().find_map(|line| line.strip_prefix(CAUSE)).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_in_a_log_tells_why() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("proxy.log");
        assert_eq!(last_words(&log), None);
        let text = "error: the proxy does not serve\n  cause: old\n  state: none\nINFO began\nerror: the proxy does not serve\n  cause: the table is cut\n";
        std::fs::write(&log, text).unwrap();

        assert_eq!(last_words(&log).as_deref(), Some("the table is cut"));
    }
}

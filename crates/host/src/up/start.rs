//! Seeing to it that proxy and watch are there: the first deploy on a machine starts them, detached.

use std::path::Path;
use std::process::{Command, Stdio};

use cutover_core::layout::Layout;
use tokio::net::UnixStream;

use super::UpError;
use super::report::{self, Said};
use super::supervise::{self, READY};
use crate::files;
use crate::lock::ProcessLock;

/// Whether somebody keeps proxy and watch. Both may be at work all the same: left by a supervisor that was killed.
pub fn is_up(layout: &Layout) -> bool {
    ProcessLock::peek(layout, "up").is_some()
}

/// Starts `up` detached where nobody keeps proxy and watch, and returns when the proxy answers; `false`: they were there.
///
/// # Errors
/// When the proxy cannot listen, with who has its port; when it does not answer in time.
pub async fn ensure_up(layout: &Layout, host_binary: &Path) -> Result<bool, UpError> {
    if is_up(layout) {
        return answers(layout).await.map(|()| false);
    }
    files::ensure_folder(layout.state(), 0o700)?;
    let (ours, theirs) = report::pair()?;
    let log = supervise::open_log(layout, "up")?;
    let mut child = Command::new(host_binary)
        .arg("up")
        .current_dir("/")
        .stdin(Stdio::from(theirs))
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .map_err(|error| UpError::Spawn { binary: host_binary.to_owned(), error })?;
    let heard = report::hear(ours, READY).await;
    let not_ready = |reason: String| UpError::NotReady { reason, log: layout.process_log("up") };
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
        Ok(Some(Said::Failed { reason })) => {
            reap(&mut child);
            Err(not_ready(reason))
        }
        Ok(None) => {
            reap(&mut child);
            Err(not_ready("it ended without a word".to_owned()))
        }
        Err(error) => Err(not_ready(format!("no word from it within {} s ({error})", READY.as_secs()))),
    }
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
    tokio::time::timeout(READY, connects).await.map_err(|_| UpError::NotReady {
        reason: format!("the proxy does not answer on {}", socket.display()),
        log: layout.process_log("proxy"),
    })
}

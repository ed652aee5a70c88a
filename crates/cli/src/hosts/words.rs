//! What a session says on its error stream: its end is kept for the diagnosis, and it is shown while ssh may want something of a person.
//!
//! Where there is a terminal, ssh gets one of ours for it: on anything else it does not say that a hardware key waits to be touched.

use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::{Mode, OFlags, fcntl_getfl, fcntl_setfl};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::net::unix::pipe;
use tokio::task::JoinHandle;

/// The end of what it says is kept, for the case that it ends.
const KEPT_LINES: usize = 20;

/// A terminal for the error stream of one who may ask a person: our end, and theirs.
pub(super) fn terminal() -> io::Result<(pipe::Receiver, Stdio)> {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
    grantpt(&ours)?;
    unlockpt(&ours)?;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let theirs: OwnedFd = rustix::fs::open(ptsname(&ours, Vec::new())?, flags, Mode::empty())?;
    rustix::io::fcntl_setfd(&ours, rustix::io::FdFlags::CLOEXEC)?;
    fcntl_setfl(&ours, fcntl_getfl(&ours)? | OFlags::NONBLOCK)?;
    Ok((pipe::Receiver::from_owned_fd_unchecked(ours)?, theirs.into()))
}

/// What was said, line by line.
pub(super) struct Words {
    said: Arc<Mutex<Vec<String>>>,
    shown: Arc<AtomicBool>,
    listener: JoinHandle<()>,
}

impl Words {
    /// Kept only.
    pub(super) fn kept(errors: impl AsyncRead + Send + Unpin + 'static) -> Self {
        Self::heard(errors, false)
    }

    /// Kept, and shown until [`Self::hush`].
    pub(super) fn shown(errors: impl AsyncRead + Send + Unpin + 'static) -> Self {
        Self::heard(errors, true)
    }

    fn heard(errors: impl AsyncRead + Send + Unpin + 'static, shown: bool) -> Self {
        let (said, shown) = (Arc::default(), Arc::new(AtomicBool::new(shown)));
        let listener = tokio::spawn(listen(errors, Arc::clone(&said), Arc::clone(&shown)));
        Self { said, shown, listener }
    }

    /// Whoever speaks now is no longer ssh: it is kept, and not shown.
    pub(super) fn hush(&self) {
        self.shown.store(false, Ordering::Relaxed);
    }

    /// All that is kept, once no more comes or the time is over.
    pub(super) async fn last(mut self, within: Duration) -> Vec<String> {
        tokio::time::timeout(within, &mut self.listener).await.ok();
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

async fn listen(errors: impl AsyncRead + Unpin, said: Arc<Mutex<Vec<String>>>, shown: Arc<AtomicBool>) {
    let mut lines = BufReader::new(errors).lines();
    // A terminal whose other end is gone says so by an error.
    while let Ok(Some(line)) = lines.next_line().await {
        let line = line.trim_matches('\r').to_owned();
        if shown.load(Ordering::Relaxed) {
            // A terminal that is gone is told nothing.
            writeln!(io::stderr(), "{line}").unwrap_or_default();
        }
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.len() == KEPT_LINES {
            said.remove(0);
        }
        said.push(line);
    }
}

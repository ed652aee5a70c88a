//! Processes that are not children: seen, waited for, told to end, by a descriptor that cannot come to mean another process.

use std::os::fd::OwnedFd;
use std::time::Duration;

use cutover_core::layout::Layout;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::unix::AsyncFd;

use crate::lock::ProcessLock;
use crate::readiness::readable;

/// A process that holds one of the locks of which there is one a root.
#[derive(Debug)]
pub(super) struct Other {
    pub(super) pid: u32,
    handle: AsyncFd<OwnedFd>,
}

impl Other {
    /// The process that is `process` of this root now; `None`: there is none.
    pub(super) fn find(layout: &Layout, process: &str) -> std::io::Result<Option<Self>> {
        let Some(pid) = ProcessLock::peek(layout, process) else { return Ok(None) };
        let Some(number) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
        let handle = match pidfd_open(number, PidfdFlags::empty()) {
            Ok(handle) => handle,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // Looked at again now that the handle cannot change its meaning: it is still the one that holds the lock.
        if ProcessLock::peek(layout, process) != Some(pid) {
            return Ok(None);
        }
        Ok(Some(Self { pid, handle: readable(handle)? }))
    }

    /// Returns when it has ended.
    pub(super) async fn ended(&self) {
        // An error would mean that there is no reactor any more.
        drop(self.handle.readable().await);
    }

    /// Sends a signal; one that has ended hears nothing.
    pub(super) fn signal(&self, signal: Signal) {
        if let Err(error) = pidfd_send_signal(self.handle.get_ref(), signal) {
            tracing::debug!(pid = self.pid, %error, "no signal was sent");
        }
    }

    /// Asks it to end, and waits at most so long; `false`: it is still there.
    pub(super) async fn end(&self, grace: Duration) -> bool {
        self.signal(Signal::TERM);
        tokio::time::timeout(grace, self.ended()).await.is_ok()
    }
}

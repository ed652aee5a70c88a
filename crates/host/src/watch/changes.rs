//! Hearing that a lock was let go: its file is closed when its holder ends, however that ends, and the kernel tells.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use cutover_core::layout::Layout;
use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
use tokio::io::unix::AsyncFd;

use crate::files;
use crate::readiness::readable;

/// The folder of locks, listened to.
#[derive(Debug)]
pub(super) struct LockChanges {
    descriptor: AsyncFd<OwnedFd>,
}

impl LockChanges {
    /// Begins to listen.
    pub(super) fn new(layout: &Layout) -> io::Result<Self> {
        files::ensure_folder(&layout.locks(), 0o700).map_err(io::Error::other)?;
        let descriptor = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        // Looking at a lock opens its file for reading; only those who hold one have it open for writing.
        inotify::add_watch(&descriptor, layout.locks(), WatchFlags::CLOSE_WRITE)?;
        Ok(Self { descriptor: readable(descriptor)? })
    }

    /// Waits; then the names of the lock files that were let go. Some may be lost under load: whoever listens looks by himself, too (S22).
    pub(super) async fn next(&self) -> io::Result<Vec<String>> {
        loop {
            let mut guard = self.descriptor.readable().await?;
            match guard.try_io(|descriptor| read(descriptor.get_ref())) {
                Ok(names) => return names,
                Err(_would_block) => {}
            }
        }
    }
}

fn read(descriptor: &OwnedFd) -> io::Result<Vec<String>> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = Reader::new(descriptor, &mut buffer);
    let mut names = Vec::new();
    loop {
        match reader.next() {
            Ok(event) => names.extend(event.file_name().map(|name| name.to_string_lossy().into_owned())),
            Err(rustix::io::Errno::WOULDBLOCK) if !names.is_empty() => return Ok(names),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::ProcessLock;
    use std::time::Duration;

    #[tokio::test]
    async fn a_lock_that_is_let_go_is_heard_and_one_that_is_looked_at_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::under(folder.path());
        let lock = ProcessLock::take(&layout, "some").unwrap();
        let changes = LockChanges::new(&layout).unwrap();

        ProcessLock::peek(&layout, "some");
        let nothing = tokio::time::timeout(Duration::from_millis(50), changes.next()).await;
        drop(lock);
        let heard = tokio::time::timeout(Duration::from_secs(5), changes.next()).await;

        assert!(nothing.is_err());
        assert_eq!(heard.unwrap().unwrap(), ["some.lock"]);
    }
}

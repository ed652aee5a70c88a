//! Waiting for what the kernel tells by a descriptor: the end of a process, changes of a folder. Nothing is polled.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A descriptor that can be waited on until it is readable.
pub(crate) fn readable(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    #[expect(
        deprecated,
        reason = "what replaces it is an unsafe function; an owned descriptor keeps its number for its whole life"
    )]
    AsyncFd::with_interest(descriptor, Interest::READABLE)
}

//! The signals a keeper hears. Those that mean nothing to it are heard, too: an ignored signal would stay ignored in its child.

use std::io;

use tokio::signal::unix::{self, SignalKind};

/// One ear for each signal.
pub(super) struct Ears {
    pub(super) child: unix::Signal,
    pub(super) terminate: unix::Signal,
    pub(super) hangup: unix::Signal,
    pub(super) interrupt: unix::Signal,
    pub(super) quit: unix::Signal,
}

impl Ears {
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self {
            child: unix::signal(SignalKind::child())?,
            terminate: unix::signal(SignalKind::terminate())?,
            hangup: unix::signal(SignalKind::hangup())?,
            interrupt: unix::signal(SignalKind::interrupt())?,
            quit: unix::signal(SignalKind::quit())?,
        })
    }
}

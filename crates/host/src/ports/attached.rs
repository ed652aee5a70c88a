//! A command whose streams somebody carries: a person at a terminal, or a pipe.

use std::pin::Pin;

use bytes::Bytes;
use cutover_core::state::ExitStatus;
use futures_util::Stream;
use futures_util::future::BoxFuture;
use tokio::io::AsyncWrite;

use super::RuntimeError;

/// Size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    /// Characters in a line.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
}

/// A piece of what a command wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// On the standard error stream; never with a terminal, which has one stream.
    pub error: bool,
    /// Itself.
    pub bytes: Bytes,
}

/// A command in progress. Dropped, it is ended as far as its runtime can.
pub struct Attached {
    /// What it writes.
    pub output: Pin<Box<dyn Stream<Item = Written> + Send>>,
    /// What it reads; dropped, its input has ended.
    pub input: Pin<Box<dyn AsyncWrite + Send>>,
    /// Tells it its terminal's new size.
    pub resize: Box<dyn Fn(TerminalSize) -> BoxFuture<'static, ()> + Send>,
    /// Its end.
    pub exit: BoxFuture<'static, Result<ExitStatus, RuntimeError>>,
}

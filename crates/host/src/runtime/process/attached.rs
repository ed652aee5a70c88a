//! Commands that a person or a pipe is at, beside an instance: with its folder and variables, and a terminal of their own where one is wanted.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::pin::Pin;
use std::process::Stdio;

use bytes::BytesMut;
use futures_util::stream::{BoxStream, select};
use futures_util::{FutureExt, StreamExt};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::Pid;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};

use super::exec::{Group, exit};
use super::launch::Launch;
use crate::ports::{Attached, Certainty, RuntimeError, RuntimeErrorKind, TerminalSize, Written};

/// Output is passed on in pieces of at most so many bytes.
const PIECE: usize = 16 * 1024;

/// Starts it. Dropped, all of its process group is ended.
pub(super) fn start(
    launch: &Launch,
    host_binary: &Path,
    terminal: Option<TerminalSize>,
) -> io::Result<Attached> {
    match terminal {
        None => {
            let mut command = Command::from(launch.command());
            command.stdin(Stdio::piped());
            piped(command)
        }
        Some(size) => at_terminal(launch, host_binary, size),
    }
}

/// Starts a command, the leader of a process group of its own, with its output in pipes. Dropped, all of its group is ended.
pub(crate) fn piped(mut command: Command) -> io::Result<Attached> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let input: Pin<Box<dyn AsyncWrite + Send>> = match child.stdin.take() {
        Some(input) => Box::pin(input),
        None => Box::pin(tokio::io::sink()),
    };
    let output = select(pieces(child.stdout.take(), false), pieces(child.stderr.take(), true)).boxed();
    let resize = Box::new(|_| std::future::ready(()).boxed());
    Ok(Attached { output, input, resize, exit: end(child) })
}

/// The program is started by `cutover-host terminal`, which makes the terminal the one that its session is controlled by.
fn at_terminal(launch: &Launch, host_binary: &Path, size: TerminalSize) -> io::Result<Attached> {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&ours)?;
    unlockpt(&ours)?;
    let name = ptsname(&ours, Vec::new())?;
    let theirs: OwnedFd =
        rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, rustix::fs::Mode::empty())?;
    tcsetwinsize(&theirs, window(size))?;
    let mut command = Command::from(launch.command_by(host_binary, "terminal"));
    command.stdin(theirs.try_clone()?).stdout(theirs.try_clone()?).stderr(theirs);
    let child = command.spawn()?;
    // It keeps copies of the other end until it is dropped, and ours would never see it closed.
    drop(command);
    fcntl_setfl(&ours, fcntl_getfl(&ours)? | OFlags::NONBLOCK)?;
    let reader = pipe::Receiver::from_owned_fd_unchecked(ours.try_clone()?)?;
    let writer = pipe::Sender::from_owned_fd_unchecked(ours.try_clone()?)?;
    let control = File::from(ours);
    let resize = move |to| {
        if let Err(error) = tcsetwinsize(&control, window(to)) {
            tracing::debug!(%error, "the terminal's size could not be told");
        }
        std::future::ready(()).boxed()
    };
    let output = pieces(Some(reader), false);
    Ok(Attached { output, input: Box::pin(writer), resize: Box::new(resize), exit: end(child) })
}

fn window(size: TerminalSize) -> Winsize {
    Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 }
}

/// A terminal whose other end is closed gives an error: that is its end.
fn pieces(
    stream: Option<impl AsyncRead + Send + Unpin + 'static>,
    error: bool,
) -> BoxStream<'static, Written> {
    let next = move |mut stream: Option<_>| async move {
        let mut bytes = BytesMut::with_capacity(PIECE);
        let count = AsyncReadExt::read_buf(stream.as_mut()?, &mut bytes).await.ok()?;
        (count > 0).then(|| (Written { error, bytes: bytes.freeze() }, stream))
    };
    futures_util::stream::unfold(stream, next).boxed()
}

fn end(
    mut child: Child,
) -> futures_util::future::BoxFuture<'static, Result<cutover_core::state::ExitStatus, RuntimeError>> {
    let group = Group(child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())));
    async move {
        let ended = child.wait().await;
        drop(group);
        ended.map(exit).map_err(|error| {
            RuntimeError::new(RuntimeErrorKind::Other, Certainty::Unknown, error.to_string())
        })
    }
    .boxed()
}

/// What `cutover-host terminal` does: a session of its own, controlled by the terminal on its standard input, and then the program in its
/// place. Gives why it could not.
pub fn become_at_terminal(program: &Path, words: &[std::ffi::OsString]) -> io::Error {
    use std::os::unix::process::CommandExt;
    let Some((name, rest)) = words.split_first() else { return io::ErrorKind::InvalidInput.into() };
    let ready = rustix::process::setsid().and_then(|_| rustix::process::ioctl_tiocsctty(io::stdin()));
    match ready {
        Ok(()) => std::process::Command::new(program).arg0(name).args(rest).exec(),
        Err(error) => error.into(),
    }
}

//! What the runtime and a keeper say to each other: a line of JSON each way over a unix socket, versioned, because a keeper outlives the
//! binary it began with (S23).

use std::io;
use std::path::Path;
use std::time::Duration;

use cutover_core::state::{ExitStatus, RestartPolicy};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::Instant;

use super::folder::State;
use super::processes::ProcessId;

/// The version of the messages.
pub(super) const VERSION: u32 = 1;

/// Tells a keeper to see to its socket.
pub(super) const REBIND: Signal = Signal::HUP;

/// For a keeper to have bound its socket anew.
const REBOUND: Duration = Duration::from_secs(1);

/// The longest path of a unix socket that every system takes.
const SOCKET_PATH: usize = 100;

/// A message with its version.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Message<T> {
    pub(super) version: u32,
    #[serde(flatten)]
    pub(super) body: T,
}

impl<T: Serialize> Message<T> {
    /// A line that says it.
    pub(super) fn line(body: T) -> String {
        let mut line = serde_json::to_string(&Self { version: VERSION, body }).unwrap_or_default();
        line.push('\n');
        line
    }
}

/// What a keeper is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub(super) enum Ask {
    /// What is true now.
    Status,
    /// Run it now, where it waits to be started again.
    Start,
    /// Signal, grace, kill; answered when all of it is gone.
    Stop { signal: i32, grace_ms: u64 },
    /// From now on.
    Policy { policy: RestartPolicy },
    /// Answered at the next end; at once where it has ended.
    Wait,
}

/// What a keeper answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub(super) enum Answer {
    /// What is true now.
    State { state: State },
    /// How it ended.
    Exit { exit: ExitStatus },
    /// It will not.
    Refused { why: String },
}

/// What a keeper reports on its standard output, once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "snake_case")]
pub(super) enum Report {
    /// The process was started.
    Started,
    /// It could not be executed.
    NotExecuted { error: String },
    /// Another keeper lives.
    Taken,
    /// The keeper itself could not begin.
    Failed { error: String },
}

/// Asks a keeper and waits for its answer, without a deadline: the caller drops it.
pub(super) async fn ask(keeper: ProcessId, socket: &Path, ask: Ask) -> io::Result<Answer> {
    let mut stream = reach(keeper, socket).await?;
    stream.write_all(Message::line(ask).as_bytes()).await?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).await?;
    if line.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let message: Message<Answer> = serde_json::from_str(&line)?;
    Ok(message.body)
}

/// As [`ask`], for answers that are given at once.
pub(super) async fn ask_within(
    keeper: ProcessId,
    socket: &Path,
    question: Ask,
    patience: Duration,
) -> io::Result<Answer> {
    let answer = tokio::time::timeout(patience, ask(keeper, socket, question)).await;
    answer.unwrap_or(Err(io::ErrorKind::TimedOut.into()))
}

/// Connects to a keeper that lives. Its socket may be gone with all of `/run`: then the keeper is told to bind it anew.
async fn reach(keeper: ProcessId, socket: &Path) -> io::Result<UnixStream> {
    let first = UnixStream::connect(socket).await;
    if !first.as_ref().is_err_and(is_unbound) {
        return first;
    }
    if let Some(handle) = keeper.open()? {
        handle.signal(REBIND)?;
    }
    let deadline = Instant::now() + REBOUND;
    loop {
        tokio::time::sleep(Duration::from_millis(2)).await;
        match UnixStream::connect(socket).await {
            Err(error) if is_unbound(&error) && keeper.is_alive() && Instant::now() < deadline => {}
            connected => return connected,
        }
    }
}

fn is_unbound(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// Refuses a path that the kernel would cut or refuse in its own words.
///
/// # Errors
/// What to do about it.
pub(super) fn check_socket(path: &Path) -> Result<(), String> {
    let found = path.as_os_str().len();
    if found <= SOCKET_PATH {
        return Ok(());
    }
    Err(format!(
        "the path of the keeper's socket has {found} bytes, at most {SOCKET_PATH} work: choose a shorter CUTOVER_ROOT ({})",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_stay_as_they_are_on_the_wire() {
        let stop = Ask::Stop { signal: 15, grace_ms: 10_000 };
        assert_eq!(
            Message::line(stop),
            "{\"version\":1,\"ask\":\"stop\",\"signal\":15,\"grace_ms\":10000}\n"
        );
        let policy = Ask::Policy { policy: RestartPolicy::UnlessStopped };
        assert_eq!(
            Message::line(policy),
            "{\"version\":1,\"ask\":\"policy\",\"policy\":\"unless_stopped\"}\n"
        );
        let read: Message<Ask> = serde_json::from_str(&Message::line(stop)).unwrap();
        assert_eq!((read.version, read.body), (1, stop));
    }

    #[test]
    fn a_socket_path_that_is_too_long_is_told() {
        assert!(check_socket(Path::new("/run/cutover/k0123456789ab")).is_ok());
        let long = format!("/{}/k", "x".repeat(100));
        assert!(check_socket(Path::new(&long)).unwrap_err().contains("103 bytes"));
    }
}

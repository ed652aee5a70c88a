//! A session as a child process, here or through ssh: started, spoken with, and listened to when it ends.

use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use cutover_core::wire::Ask;
use tokio::process::{Child, ChildStdin, ChildStdout};

use super::channel::Channel;
use super::error::{HostError, Trouble};
use super::target::{Server, Target};
use super::words::{self, Words};
use super::{local, ssh};

/// For the end of a session, and what it said, to arrive.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Opens a conversation with a host.
pub(crate) async fn open(target: &Target) -> Result<Channel, HostError> {
    begin(target)?.open().await
}

/// Starts a session; other work may go on before it is spoken with.
pub(crate) fn begin(target: &Target) -> Result<Opening, HostError> {
    let command = match target {
        Target::Here => local::command(),
        Target::Server(server) => Ok(ssh::command(server)),
    };
    command.and_then(|command| start(command, target)).map_err(|why| HostError::new(target.clone(), why))
}

/// The same on a server, by a connection that no other shares.
pub(crate) async fn open_anew(server: &Server) -> Result<Channel, HostError> {
    let target = Target::Server(Box::new(server.clone()));
    let begun = start(ssh::command_anew(server), &target);
    begun.map_err(|why| HostError::new(target, why))?.open().await
}

pub(super) fn start(mut command: Command, target: &Target) -> Result<Opening, Trouble> {
    use std::os::unix::process::CommandExt as _;
    let asks = matches!(target, Target::Server(server) if server.asks);
    if !asks {
        // Ctrl-C on the terminal is for us: the session ends when its input does, and it is given the time it needs for that. Who asks on the
        // terminal stays in the group that the terminal listens to.
        command.process_group(0);
    }
    let program = command.get_program().to_string_lossy().into_owned();
    let mut command = tokio::process::Command::from(command);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    // Where no terminal can be had, it does without.
    let terminal = if asks { words::terminal().ok() } else { None };
    let (terminal, errors) = terminal.map_or((None, Stdio::piped()), |(ours, theirs)| (Some(ours), theirs));
    command.stderr(errors);
    let start_error = |error: std::io::Error| match target {
        Target::Server(_) if error.kind() == std::io::ErrorKind::NotFound => {
            Trouble::NoSsh { program: program.clone() }
        }
        _ => Trouble::Start { binary: program.clone(), error },
    };
    let mut child = command.spawn().map_err(start_error)?;
    let words = terminal.map(Words::shown).or_else(|| child.stderr.take().map(Words::kept));
    match (child.stdin.take(), child.stdout.take(), words) {
        (Some(input), Some(output), Some(words)) => {
            Ok(Opening { target: target.clone(), peer: Peer { child, words }, input, output })
        }
        _ => Err(start_error(std::io::Error::other("no pipes to it"))),
    }
}

/// A session that was started and not spoken with yet. Dropped, it ends.
pub(crate) struct Opening {
    pub(super) target: Target,
    pub(super) peer: Peer,
    pub(super) input: ChildStdin,
    pub(super) output: ChildStdout,
}

impl Opening {
    /// Begins the conversation.
    pub(crate) async fn open(self) -> Result<Channel, HostError> {
        let Self { target, peer, input, output } = self;
        Channel::open(target, output, input, Some(peer)).await
    }

    /// The same, and asks in the same breath.
    pub(crate) async fn open_asking(self, ask: &Ask) -> Result<Channel, HostError> {
        let Self { target, peer, input, output } = self;
        Channel::open_asking(target, output, input, Some(peer), Some(ask)).await
    }
}

/// The process at the other end of our pipes.
pub(crate) struct Peer {
    child: Child,
    words: Words,
}

/// How a session ended.
pub(super) struct Ended {
    /// `None`: it did not, and was made to.
    pub(super) status: Option<ExitStatus>,
    pub(super) said: Vec<String>,
}

impl Peer {
    /// It has greeted: whoever speaks now is no longer ssh.
    pub(super) fn has_greeted(&self) {
        self.words.hush();
    }

    /// How it ended, once its output was closed: its end and its words take moments to arrive.
    pub(super) async fn ended(mut self) -> Ended {
        let status = tokio::time::timeout(LAST_WORDS, self.child.wait()).await;
        let status = status.ok().and_then(Result::ok);
        if status.is_none() {
            self.end();
        }
        Ended { status, said: self.words.last(LAST_WORDS).await }
    }

    /// Nobody will speak with it. One that is over already is as good.
    pub(super) fn end(&mut self) {
        self.child.start_kill().ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_session_said_before_it_ended_is_in_the_error() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo no libraries >&2; exit 3"]);
        let opening = start(command, &Target::Here).ok().unwrap();
        let failure = opening.open().await.err().unwrap().failure();
        assert!(failure.cause[0].contains("exit status: 3; it said: no libraries"), "{failure:?}");
    }
}

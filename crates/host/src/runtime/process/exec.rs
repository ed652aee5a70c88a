//! Runs a command beside an instance, in its folder and with its variables, and sees to it that nothing of it is left afterwards.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use cutover_core::state::ExitStatus;
use jiff::Timestamp;
use rustix::process::{Pid, Signal};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::task::JoinSet;

use super::exits::unknown;
use super::launch::Launch;
use crate::ports::Finished;

/// The end of a command's output that is kept.
const OUTPUT: usize = 64 * 1024;

/// For output of something that left the command's group and holds its streams open.
const STREAMS: Duration = Duration::from_secs(1);

/// How a command ended; `None`: not in time, and it was killed.
pub(super) async fn run(launch: &Launch, timeout: Duration) -> io::Result<Option<Finished>> {
    let mut command = Command::from(launch.command());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let group = Group(child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())));
    let mut streams = JoinSet::new();
    streams.spawn(tail(child.stdout.take(), 0));
    streams.spawn(tail(child.stderr.take(), 1));
    let ended = tokio::time::timeout(timeout, child.wait()).await;
    drop(group);
    let Ok(status) = ended else {
        child.wait().await?;
        return Ok(None);
    };
    Ok(Some(Finished { exit: exit(status?), output: lines(streams).await }))
}

/// The command's process group, killed when it is dropped: at its end, at its deadline, and when its caller goes.
pub(super) struct Group(pub(super) Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        let killed =
            self.0.map_or(Ok(()), |leader| rustix::process::kill_process_group(leader, Signal::KILL));
        match killed {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => tracing::warn!(%error, "what a command left could not be killed"),
        }
    }
}

/// The end of what comes through a stream, with the stream's number.
async fn tail<R: AsyncRead + Unpin>(stream: Option<R>, number: u8) -> (u8, Vec<u8>) {
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; 8 * 1024]);
    let Some(mut stream) = stream else { return (number, bytes) };
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        bytes.extend_from_slice(&buffer[..count]);
        let over = bytes.len().saturating_sub(OUTPUT);
        bytes.drain(..over);
    }
    (number, bytes)
}

/// The lines of all streams that end in time, in the order of their numbers.
async fn lines(mut streams: JoinSet<(u8, Vec<u8>)>) -> Vec<String> {
    let mut ended = Vec::new();
    let all = async {
        while let Some(stream) = streams.join_next().await {
            ended.extend(stream.ok());
        }
    };
    if tokio::time::timeout(STREAMS, all).await.is_err() {
        tracing::debug!("something that a command started holds its output open");
    }
    ended.sort_unstable();
    let texts = ended.iter().map(|(_, bytes)| String::from_utf8_lossy(bytes));
    texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect()
}

pub(super) fn exit(status: std::process::ExitStatus) -> ExitStatus {
    use std::os::unix::process::ExitStatusExt;
    ExitStatus { code: status.code(), signal: status.signal(), at: Some(Timestamp::now()), ..unknown() }
}

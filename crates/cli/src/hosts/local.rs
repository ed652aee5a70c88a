//! This machine as a host: `cutover-host session` as a child process.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cutover_core::variables;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;

use super::channel::Channel;
use super::error::HostError;

const BINARY: &str = "cutover-host";
/// The end of what a session says on its error stream, kept for the case that it ends.
const KEPT_LINES: usize = 10;
/// For the end of a session, and what it said, to arrive.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Opens a conversation with this machine.
pub(crate) async fn open() -> Result<Channel, HostError> {
    begin()?.open().await
}

/// Starts a session on this machine; other work may go on before it is spoken with.
pub(crate) fn begin() -> Result<Opening, HostError> {
    begin_with(&find(&Surroundings::of_this_process())?)
}

fn begin_with(binary: &Path) -> Result<Opening, HostError> {
    let start_error = |error| HostError::Start { binary: binary.display().to_string(), error };
    let mut child = Command::new(binary)
        .arg("session")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Ctrl-C on the terminal is for us: the session ends when its input does, and it is given the time it needs for that.
        .process_group(0)
        .spawn()
        .map_err(start_error)?;
    match (child.stdin.take(), child.stdout.take(), child.stderr.take()) {
        (Some(input), Some(output), Some(errors)) => Ok(Opening { child, input, output, errors }),
        _ => Err(start_error(std::io::Error::other("no pipes to it"))),
    }
}

/// A session that was started and not spoken with yet. Dropped, it ends.
pub(crate) struct Opening {
    child: Child,
    input: ChildStdin,
    output: ChildStdout,
    errors: ChildStderr,
}

impl Opening {
    /// Begins the conversation.
    pub(crate) async fn open(self) -> Result<Channel, HostError> {
        let Self { mut child, input, output, errors } = self;
        let said = Arc::new(Mutex::new(Vec::new()));
        let listener = tokio::spawn(listen(errors, Arc::clone(&said)));
        match Channel::open(output, input).await {
            Ok(channel) => Ok(channel.kept_by(Listening(listener))),
            Err(HostError::Lost { why }) => {
                Err(HostError::Lost { why: last_words(why, child, listener, &said).await })
            }
            Err(error) => {
                // Nobody will speak with it. One that is over already is as good.
                child.start_kill().ok();
                Err(error)
            }
        }
    }
}

/// How a session ended that nobody could speak with, and what it said before: both take moments to arrive.
async fn last_words(
    why: String,
    mut child: Child,
    listener: JoinHandle<()>,
    said: &Mutex<Vec<String>>,
) -> String {
    let ended = tokio::time::timeout(LAST_WORDS, child.wait()).await;
    let why = if let Ok(Ok(status)) = ended {
        status.to_string()
    } else {
        child.start_kill().ok();
        why
    };
    tokio::time::timeout(LAST_WORDS, listener).await.ok();
    let said = said.lock().unwrap_or_else(PoisonError::into_inner);
    if said.is_empty() { why } else { format!("{why}; it said: {}", said.join(" · ")) }
}

/// What listens to the child's error stream, for as long as the conversation lasts.
struct Listening(JoinHandle<()>);

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn listen(errors: ChildStderr, said: Arc<Mutex<Vec<String>>>) {
    let mut lines = BufReader::new(errors).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.len() == KEPT_LINES {
            said.remove(0);
        }
        said.push(line);
    }
}

/// What the search for the binary looks at.
struct Surroundings {
    named: Option<PathBuf>,
    beside: Option<PathBuf>,
    path: Vec<PathBuf>,
}

impl Surroundings {
    fn of_this_process() -> Self {
        let named = std::env::var_os(variables::HOST_BINARY).filter(|value| !value.is_empty());
        let beside = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join(BINARY)));
        let path = std::env::var_os("PATH");
        let path = path.iter().flat_map(std::env::split_paths).map(|folder| folder.join(BINARY)).collect();
        Self { named: named.map(PathBuf::from), beside, path }
    }
}

/// The one that is named, else the one beside this program, else the first of `PATH`. A named one that is not there is an error, and
/// no reason to take another.
fn find(surroundings: &Surroundings) -> Result<PathBuf, HostError> {
    if let Some(named) = &surroundings.named {
        let looked = vec![format!("{} ({})", named.display(), variables::HOST_BINARY)];
        return if named.is_file() { Ok(named.clone()) } else { Err(HostError::NoBinary { looked }) };
    }
    let candidates = surroundings.beside.iter().chain(&surroundings.path);
    candidates.into_iter().find(|candidate| candidate.is_file()).cloned().ok_or_else(|| {
        let beside = surroundings.beside.iter().map(|path| path.display().to_string());
        HostError::NoBinary { looked: beside.chain(["the folders of PATH".to_owned()]).collect() }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_named_one_wins_then_the_one_beside_then_the_path() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, "").unwrap();
            path
        };
        let (named, beside, on_path) = (file("named"), file("beside"), file("path"));
        let all = Surroundings {
            named: Some(named.clone()),
            beside: Some(beside.clone()),
            path: vec![on_path.clone()],
        };
        assert_eq!(find(&all).unwrap(), named);
        assert_eq!(find(&Surroundings { named: None, ..all }).unwrap(), beside);
        let only_path = Surroundings { named: None, beside: None, path: vec![on_path.clone()] };
        assert_eq!(find(&only_path).unwrap(), on_path);
    }

    #[test]
    fn a_named_one_that_is_not_there_is_told_and_no_other_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let beside = folder.path().join("beside");
        std::fs::write(&beside, "").unwrap();
        let surroundings =
            Surroundings { named: Some("/nowhere/host".into()), beside: Some(beside), path: Vec::new() };
        let failure = find(&surroundings).unwrap_err().failure();
        assert_eq!(failure.cause, ["not at /nowhere/host (CUTOVER_HOST_BINARY)"]);
    }

    #[tokio::test]
    async fn what_a_session_said_before_it_ended_is_in_the_error() {
        let error = begin_with(Path::new("/bin/false")).unwrap().open().await.err().unwrap();
        assert!(matches!(error, HostError::Lost { .. }), "{error}");
    }
}

//! The keeper's socket: one question a connection, one answer. What the answer is, the supervisor says.

use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::super::protocol::{Answer, Ask, Message, VERSION};
use crate::files;

/// For a client to say what it wants.
const QUESTION: Duration = Duration::from_secs(5);

/// For the last answers to be taken.
const FAREWELL: Duration = Duration::from_secs(2);

/// The longest question.
const QUESTION_BYTES: u64 = 4096;

/// A question, and where its answer goes.
pub(super) type Question = (Ask, oneshot::Sender<Answer>);

/// The listening socket with the conversations that are under way.
#[derive(Debug)]
pub(super) struct Server {
    listener: UnixListener,
    /// Device and inode of the socket's file.
    file: (u64, u64),
    questions: mpsc::Sender<Question>,
    conversations: TaskTracker,
    closing: CancellationToken,
}

impl Server {
    /// Binds the socket, for our own user only. A file of that name is left of an earlier keeper: the lock, which we hold, says so.
    pub(super) fn bind(path: &Path) -> io::Result<(Self, mpsc::Receiver<Question>)> {
        let (listener, file) = listen_at(path)?;
        let (questions, asked) = mpsc::channel(16);
        let (conversations, closing) = (TaskTracker::new(), CancellationToken::new());
        Ok((Self { listener, file, questions, conversations, closing }, asked))
    }

    /// Binds the socket anew where its file is gone or another's: `/run` may be emptied under us.
    pub(super) fn rebind(&mut self, path: &Path) -> io::Result<()> {
        if id_of(path).is_ok_and(|file| file == self.file) {
            return Ok(());
        }
        (self.listener, self.file) = listen_at(path)?;
        Ok(())
    }

    /// Takes in the next client; may be dropped at any time.
    pub(super) async fn accept(&self) {
        match self.listener.accept().await {
            Ok((stream, _)) => {
                let (questions, closing) = (self.questions.clone(), self.closing.clone());
                self.conversations.spawn(converse(stream, questions, closing));
            }
            Err(error) => {
                tracing::warn!(%error, "a client could not be taken in");
                // Out of descriptors, say: not to be asked again at once.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }

    /// Lets the answers that were given reach their clients.
    pub(super) async fn close(self) {
        self.closing.cancel();
        self.conversations.close();
        if tokio::time::timeout(FAREWELL, self.conversations.wait()).await.is_err() {
            tracing::warn!("a client did not take its answer");
        }
    }
}

fn listen_at(path: &Path) -> io::Result<(UnixListener, (u64, u64))> {
    files::ensure_folder(files::folder_of(path), 0o700).map_err(io::Error::other)?;
    files::discard(path);
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok((listener, id_of(path)?))
}

fn id_of(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

async fn converse(stream: UnixStream, questions: mpsc::Sender<Question>, closing: CancellationToken) {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader.take(QUESTION_BYTES));
    let question = tokio::select! {
        question = tokio::time::timeout(QUESTION, listen(&mut reader)) => question,
        () = closing.cancelled() => return,
    };
    let answer = match question {
        Ok(Ok(ask)) => {
            let (sender, answer) = oneshot::channel();
            if questions.send((ask, sender)).await.is_err() {
                return;
            }
            // A client that goes is not answered; one that waits may wait for days.
            let mut rest = [0; 1];
            tokio::select! {
                answer = answer => answer.ok(),
                _ = reader.read(&mut rest) => None,
            }
        }
        Ok(Err(why)) => Some(Answer::Refused { why }),
        Err(_) => None,
    };
    if let Some(answer) = answer
        && let Err(error) = writer.write_all(Message::line(answer).as_bytes()).await
    {
        tracing::debug!(%error, "an answer was not taken");
    }
}

async fn listen<R: tokio::io::AsyncBufRead + Unpin>(reader: &mut R) -> Result<Ask, String> {
    let mut line = String::new();
    reader.read_line(&mut line).await.map_err(|error| error.to_string())?;
    let newer = |found| format!("this keeper speaks version {VERSION} of its protocol, not {found}");
    match serde_json::from_str::<Message<serde_json::Value>>(&line) {
        Ok(message) if message.version > VERSION => Err(newer(message.version)),
        Ok(message) => serde_json::from_value(message.body).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

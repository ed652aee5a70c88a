//! The lock of migrations that a database has in its server: of two installations, or two hosts, that share a database only one migrates it. It is
//! held by a session that does nothing else, and goes with it: whoever is killed holds nobody up.

use std::time::Duration;

use futures_util::StreamExt;
use tokio::io::AsyncWriteExt;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::client::{Carried, Client};
use super::port::{AGAIN, ANSWER, LET_GO};
use crate::ports::{Alone, Attached, DatabaseError};

/// A session that holds it.
pub(super) struct Holder<'a> {
    pub(super) client: &'a Client<'a>,
    /// Which it is in: not the one that is migrated, which somebody may have to rename.
    pub(super) database: &'static str,
    pub(super) words: Vec<String>,
    /// Try to take it, and answer with one line.
    pub(super) statements: String,
    /// The line that says that it was taken.
    pub(super) taken: &'static str,
}

impl Holder<'_> {
    /// `None`: somebody else has it, and still after a while, in which one that was killed would have let go.
    pub(super) async fn take(&self) -> Result<Option<Alone>, DatabaseError> {
        let end = Instant::now() + LET_GO;
        loop {
            if let Some(alone) = self.try_to_take().await? {
                return Ok(Some(alone));
            }
            if Instant::now() >= end {
                return Ok(None);
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn try_to_take(&self) -> Result<Option<Alone>, DatabaseError> {
        let asked = async {
            let mut session = self.client.start(Some(self.database), &self.words, Carried::Plain).await?;
            // Where it has ended already, what it said tells why.
            session.input.write_all(self.statements.as_bytes()).await.unwrap_or_default();
            session.input.flush().await.unwrap_or_default();
            Ok::<_, DatabaseError>((answer(&mut session).await?, session))
        };
        let late =
            |_| DatabaseError::plain(format!("the server did not answer within {} s", ANSWER.as_secs()));
        let (line, session) = tokio::time::timeout(ANSWER, asked).await.map_err(late)??;
        Ok((line == self.taken).then(|| held(session)))
    }
}

/// The first line of its output.
async fn answer(session: &mut Attached) -> Result<String, DatabaseError> {
    let (mut said, mut errors) = (Vec::new(), Vec::new());
    while let Some(piece) = session.output.next().await {
        if piece.error {
            errors.extend_from_slice(&piece.bytes);
            continue;
        }
        said.extend_from_slice(&piece.bytes);
        if let Some(end) = said.iter().position(|byte| *byte == b'\n') {
            return Ok(String::from_utf8_lossy(&said[..end]).trim().to_owned());
        }
    }
    Err(DatabaseError::plain(String::from_utf8_lossy(&errors).trim().to_owned()))
}

/// The session goes on until what is given is dropped.
fn held(session: Attached) -> Alone {
    let (alone, dropped) = oneshot::channel::<std::convert::Infallible>();
    tokio::spawn(async move {
        let Attached { mut output, input, exit, .. } = session;
        let over = async { while output.next().await.is_some() {} };
        tokio::select! {
            _ = dropped => {}
            () = over => tracing::warn!("the session that holds the lock of migrations has ended"),
        }
        // Its input has ended, and so does it.
        drop(input);
        let ended = async {
            while output.next().await.is_some() {}
            exit.await
        };
        if tokio::time::timeout(GONE, ended).await.is_err() {
            tracing::warn!("the session that held the lock of migrations goes on");
        }
    });
    Alone::while_held(alone)
}

/// For a session to end.
const GONE: Duration = Duration::from_secs(10);

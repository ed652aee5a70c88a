//! The lock of migrations that a database has in its server: of two installations, or two hosts, that share a database only one migrates it. It is
//! held by a session that does nothing else, and goes with it: whoever is killed holds nobody up. The server may end that session, too: it is asked
//! all the while whether it has the lock still.

use std::time::Duration;

use futures_util::StreamExt;
use tokio::io::AsyncWriteExt;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::client::{Carried, Client};
use super::port::{AGAIN, ANSWER, LET_GO};
use crate::ports::{Alone, Attached, DatabaseError, NotAlone};

/// The line that says that it is where the role may not come in.
pub(super) const CLOSED: &str = "closed";

/// A session that holds it.
pub(super) struct Holder<'a> {
    pub(super) client: &'a Client<'a>,
    pub(super) words: Vec<String>,
    /// Go from the database that is migrated, which somebody may have to rename, to another one; try to take it there, and answer with one line.
    pub(super) statements: String,
    /// Whether it has it still; answered with one line.
    pub(super) again: &'static str,
    /// The line that says that it was taken, and that it is had still.
    pub(super) taken: &'static str,
}

impl Holder<'_> {
    /// Where somebody else has it, he has it still after a while, in which one that was killed would have let go.
    pub(super) async fn take(&self) -> Result<Alone, NotAlone> {
        let end = Instant::now() + LET_GO;
        loop {
            match self.try_to_take().await {
                Err(NotAlone::Theirs) if Instant::now() < end => tokio::time::sleep(AGAIN).await,
                taken => return taken,
            }
        }
    }

    async fn try_to_take(&self) -> Result<Alone, NotAlone> {
        let asked = async {
            let mut session = self.client.start(None, &self.words, Carried::Plain).await?;
            Ok::<_, DatabaseError>((answer(&mut session, &self.statements).await?, session))
        };
        let late =
            |_| DatabaseError::plain(format!("the server did not answer within {} s", ANSWER.as_secs()));
        let (line, session) = tokio::time::timeout(ANSWER, asked).await.map_err(late)??;
        match line.as_str() {
            line if line == self.taken => Ok(held(session, self.again, self.taken)),
            CLOSED => Err(NotAlone::Closed),
            _ => Err(NotAlone::Theirs),
        }
    }
}

/// The first line that it says to these statements.
pub(super) async fn answer(session: &mut Attached, statements: &str) -> Result<String, DatabaseError> {
    // Where it has ended already, what it said tells why.
    session.input.write_all(statements.as_bytes()).await.unwrap_or_default();
    session.input.flush().await.unwrap_or_default();
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

/// The session goes on until what is given is dropped, or it is lost.
fn held(mut session: Attached, again: &'static str, taken: &'static str) -> Alone {
    let (alone, mut dropped) = oneshot::channel::<std::convert::Infallible>();
    tokio::spawn(async move {
        tokio::select! {
            _ = &mut dropped => {}
            () = until_lost(&mut session, again, taken) => tracing::warn!("the lock of migrations is lost"),
        }
        drop(dropped);
        let Attached { mut output, input, exit, .. } = session;
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

/// Between two questions: a server that is told to end what says nothing has heard of it.
const BEAT: Duration = Duration::from_secs(10);

/// A client that says nothing for so long, in seconds, is none any more: a host that has lost its power says no farewell.
pub(super) const SILENCE: u64 = 60;

/// Returns once the session has ended, has the lock no more, or does not say so.
async fn until_lost(session: &mut Attached, again: &str, taken: &str) {
    loop {
        let over = async { while session.output.next().await.is_some() {} };
        if tokio::time::timeout(BEAT, over).await.is_ok() {
            return;
        }
        match tokio::time::timeout(ANSWER, answer(session, again)).await {
            Ok(Ok(line)) if line == taken => {}
            _ => return,
        }
    }
}

/// For a session to end.
const GONE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use cutover_core::state::ExitStatus;
    use futures_util::stream;
    use tokio::io::{AsyncBufReadExt as _, BufReader, DuplexStream, Lines};
    use tokio::sync::mpsc::{self, UnboundedSender};

    use super::*;
    use crate::ports::Written;

    /// The server's side of a session.
    struct Other {
        reads: Lines<BufReader<DuplexStream>>,
        says: UnboundedSender<Written>,
    }

    impl Other {
        /// Answers one question.
        async fn answer(&mut self, line: &'static str) {
            assert_eq!(self.reads.next_line().await.unwrap().unwrap(), "mine?");
            self.says.send(Written { error: false, bytes: Bytes::from_static(line.as_bytes()) }).unwrap();
        }
    }

    /// A session that has the lock.
    fn session() -> (Alone, Other) {
        let (input, reads) = tokio::io::duplex(1024);
        let (says, output) = mpsc::unbounded_channel();
        let session = Attached {
            output: Box::pin(stream::unfold(output, async |mut output: mpsc::UnboundedReceiver<_>| {
                output.recv().await.map(|piece| (piece, output))
            })),
            input: Box::pin(input),
            resize: Box::new(|_| Box::pin(async {})),
            exit: Box::pin(async {
                Ok(ExitStatus { code: Some(0), signal: None, out_of_memory: false, error: None, at: None })
            }),
        };
        let reads = BufReader::new(reads).lines();
        (held(session, "mine?\n", "t"), Other { reads, says })
    }

    /// Whether it is known to be lost after some time.
    async fn is_lost_after(alone: &Alone, time: Duration) -> bool {
        tokio::time::sleep(time).await;
        alone.is_lost()
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_says_so_has_the_lock_until_it_is_let_go() {
        let (alone, mut other) = session();
        for _ in 0..360 {
            other.answer("t\n").await;
        }
        assert!(!alone.is_lost(), "an hour later");

        drop(alone);

        assert_eq!(other.reads.next_line().await.unwrap(), None, "its input has ended");
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_ends_or_has_the_lock_no_more_has_lost_it() {
        let (ended, other) = session();
        drop(other);
        assert!(is_lost_after(&ended, Duration::from_millis(1)).await);

        let (answered, mut other) = session();
        other.answer("f\n").await;
        assert!(is_lost_after(&answered, Duration::from_millis(1)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_does_not_answer_has_lost_it_in_the_end() {
        let (alone, mut other) = session();
        other.answer("t\n").await;
        assert!(!is_lost_after(&alone, ANSWER).await, "it may be slow");
        assert!(is_lost_after(&alone, BEAT + Duration::from_secs(1)).await);
    }
}

//! Our own proxy, by its control socket: a line asks, a line answers. Each question has a connection of its own, so that an answer that
//! was given up never stands where the next one is expected.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use cutover_core::defaults;
use cutover_core::layout::Layout;
use cutover_core::state::FoundTable;
use cutover_routes::control::{Answer, Ask, CONTROL_VERSION, Envelope};
use cutover_routes::figures::Figures;
use cutover_routes::{RouteTable, TableHash};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout_at};

use crate::lock::ProcessLock;
use crate::ports::{Certainty, Drained, Router, RouterError, RouterErrorKind};

/// A proxy that is being started again is back within this.
const RESTART: Duration = Duration::from_secs(2);
/// Between two tries to reach it.
const AGAIN: Duration = Duration::from_millis(20);
/// While one of these runs, a proxy that does not answer may be on its way.
const KEEPERS: [&str; 3] = ["up", "proxy", "watch"];

/// The proxy behind a control socket.
#[derive(Debug, Clone)]
pub struct ProxyRouter {
    layout: Layout,
    socket: PathBuf,
    /// For one that is being started again to be back.
    restart: Duration,
    /// For an answer, drains apart.
    call: Duration,
}

impl ProxyRouter {
    /// The proxy of this installation, now or later.
    pub fn new(layout: Layout) -> Self {
        let socket = layout.proxy_socket();
        Self { layout, socket, restart: RESTART, call: defaults::CONTROL_CALL }
    }

    /// Asks, and gives the answer if it comes within `limit`.
    async fn ask(&self, ask: Ask, limit: Duration) -> Result<Answer, RouterError> {
        let changes = matches!(ask, Ask::Replace { .. } | Ask::Drain { .. });
        let mut line = serde_json::to_vec(&Envelope { version: CONTROL_VERSION, ask })
            .map_err(|error| refused(format!("the question cannot be written: {error}")))?;
        line.push(b'\n');

        let end = Instant::now() + self.restart.min(limit);
        loop {
            let stream = self.connect(end).await?;
            match timeout_at(Instant::now() + limit, converse(stream, &line)).await {
                Ok(Ok(answer)) => return Ok(answer),
                // It went away with the question; what only looks is asked again.
                Ok(Err(_)) if !changes && Instant::now() < end => sleep(AGAIN).await,
                Ok(Err(error)) => return Err(lost(changes, &error.to_string())),
                Err(_) => return Err(lost(changes, &format!("no answer in {limit:?}"))),
            }
        }
    }

    async fn connect(&self, end: Instant) -> Result<UnixStream, RouterError> {
        loop {
            let error = match timeout_at(end, UnixStream::connect(&self.socket)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => error,
                Err(_) => io::Error::from(io::ErrorKind::TimedOut),
            };
            if Instant::now() >= end || !self.is_kept() {
                return Err(RouterError {
                    kind: RouterErrorKind::Unreachable,
                    certainty: Certainty::NotDone,
                    message: format!("the proxy does not answer on {}: {error}", self.socket.display()),
                });
            }
            sleep(AGAIN).await;
        }
    }

    /// Whether anything runs that has, or starts, a proxy: where nothing does, nobody is waited for.
    fn is_kept(&self) -> bool {
        KEEPERS.iter().any(|process| ProcessLock::peek(&self.layout, process).is_some())
    }
}

async fn converse(stream: UnixStream, line: &[u8]) -> io::Result<Answer> {
    let mut stream = BufReader::new(stream);
    stream.write_all(line).await?;
    let mut answer = Vec::new();
    stream.read_until(b'\n', &mut answer).await?;
    if answer.last() != Some(&b'\n') {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the proxy left before it had answered"));
    }
    Ok(serde_json::from_slice(&answer)?)
}

#[async_trait]
impl Router for ProxyRouter {
    async fn read(&self) -> Result<FoundTable, RouterError> {
        match self.ask(Ask::Read, self.call).await? {
            Answer::Table { hash, table } => Ok(FoundTable { hash, table }),
            other => Err(unexpected(other)),
        }
    }

    async fn replace(&self, expect: &TableHash, table: &RouteTable) -> Result<TableHash, RouterError> {
        let ask = Ask::Replace { expect: expect.clone(), table: table.clone() };
        match self.ask(ask, self.call).await? {
            Answer::Replaced { hash } => Ok(hash),
            Answer::Moved { hash, .. } => Err(RouterError {
                kind: RouterErrorKind::Moved,
                certainty: Certainty::NotDone,
                message: format!("another route table is served ({hash}) than was looked at ({expect})"),
            }),
            other => Err(unexpected(other)),
        }
    }

    async fn drain(
        &self,
        targets: &[String],
        spread: Duration,
        deadline: Duration,
        cut: bool,
    ) -> Result<Drained, RouterError> {
        let ask = Ask::Drain {
            targets: targets.to_vec(),
            spread_ms: millis(spread),
            deadline_ms: millis(deadline),
            cut,
        };
        match self.ask(ask, deadline + self.call).await? {
            Answer::Drained { left, closed, cut } => Ok(Drained { left: left + cut, closed }),
            other => Err(unexpected(other)),
        }
    }

    async fn figures(&self) -> Result<Figures, RouterError> {
        match self.ask(Ask::Figures, self.call).await? {
            Answer::Figures(figures) => Ok(figures),
            other => Err(unexpected(other)),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// An asker that got no answer knows nothing of what it asked for.
fn lost(changes: bool, why: &str) -> RouterError {
    RouterError {
        kind: RouterErrorKind::Unreachable,
        certainty: if changes { Certainty::Unknown } else { Certainty::NotDone },
        message: format!("the proxy's answer was lost: {why}"),
    }
}

fn unexpected(answer: Answer) -> RouterError {
    match answer {
        Answer::Refused { reason, full } => {
            let kind = if full { RouterErrorKind::Full } else { RouterErrorKind::Refused };
            RouterError { kind, ..refused(reason) }
        }
        other => refused(format!("the proxy answered something else: {other:?}")),
    }
}

fn refused(reason: String) -> RouterError {
    RouterError { kind: RouterErrorKind::Refused, certainty: Certainty::NotDone, message: reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::UnixListener;

    /// What a proxy of the test does with one connection.
    enum Play {
        Answer(Answer),
        Leave,
        Silence,
    }

    struct Stage {
        layout: Layout,
        /// Something keeps the proxy.
        kept: Option<ProcessLock>,
        _folder: tempfile::TempDir,
    }

    impl Stage {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let layout = Layout::under(folder.path());
            std::fs::create_dir_all(layout.proxy_socket().parent().unwrap()).unwrap();
            let kept = Some(ProcessLock::take(&layout, "up").unwrap());
            Self { layout, kept, _folder: folder }
        }

        fn router(&self) -> ProxyRouter {
            ProxyRouter::new(self.layout.clone())
        }

        /// Plays on the socket, a connection each; gives the questions heard.
        fn plays(&self, plays: Vec<Play>) -> tokio::task::JoinHandle<Vec<Ask>> {
            let listener = UnixListener::bind(self.layout.proxy_socket()).unwrap();
            tokio::spawn(async move {
                let mut heard = Vec::new();
                for play in plays {
                    let mut stream = BufReader::new(listener.accept().await.unwrap().0);
                    let mut line = String::new();
                    stream.read_line(&mut line).await.unwrap();
                    heard.push(serde_json::from_str::<Envelope>(&line).unwrap().ask);
                    match play {
                        Play::Answer(answer) => {
                            let mut line = serde_json::to_vec(&answer).unwrap();
                            line.push(b'\n');
                            stream.write_all(&line).await.unwrap();
                        }
                        Play::Leave => {}
                        // Until the asker leaves.
                        Play::Silence => {
                            let _left = stream.read_line(&mut line).await;
                        }
                    }
                }
                heard
            })
        }
    }

    async fn soon<T>(future: impl Future<Output = T>) -> T {
        tokio::time::timeout(Duration::from_secs(20), future).await.unwrap()
    }

    fn table() -> (TableHash, RouteTable) {
        (TableHash::of(&RouteTable::default()), RouteTable::default())
    }

    #[tokio::test]
    async fn a_table_is_read_and_replaced() {
        let stage = Stage::new();
        let (hash, table) = table();
        let heard = stage.plays(vec![
            Play::Answer(Answer::Table { hash: hash.clone(), table: table.clone() }),
            Play::Answer(Answer::Replaced { hash: hash.clone() }),
        ]);

        let found = soon(stage.router().read()).await.unwrap();
        let now = soon(stage.router().replace(&found.hash, &found.table)).await.unwrap();

        assert_eq!((found.hash, now), (hash.clone(), hash.clone()));
        assert_eq!(soon(heard).await.unwrap()[1], Ask::Replace { expect: hash, table });
    }

    #[tokio::test]
    async fn another_table_a_full_disk_and_a_refusal_are_told_apart_and_nothing_was_done() {
        let stage = Stage::new();
        let (hash, table) = table();
        let refused = |full| Play::Answer(Answer::Refused { reason: "no".to_owned(), full });
        stage.plays(vec![
            Play::Answer(Answer::Moved { hash: hash.clone(), table: table.clone() }),
            refused(true),
            refused(false),
        ]);

        for kind in [RouterErrorKind::Moved, RouterErrorKind::Full, RouterErrorKind::Refused] {
            let error = soon(stage.router().replace(&hash, &table)).await.unwrap_err();
            assert_eq!((error.kind, error.certainty), (kind, Certainty::NotDone), "{error}");
        }
    }

    #[tokio::test]
    async fn a_lost_answer_to_a_replacement_is_unknown_and_it_is_not_sent_twice() {
        let stage = Stage::new();
        let (hash, table) = table();
        let heard = stage.plays(vec![Play::Leave]);

        let error = soon(stage.router().replace(&hash, &table)).await.unwrap_err();

        assert_eq!((error.kind, error.certainty), (RouterErrorKind::Unreachable, Certainty::Unknown));
        assert_eq!(soon(heard).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_look_survives_a_proxy_that_goes_and_comes_back() {
        let stage = Stage::new();
        let (hash, table) = table();
        let router = stage.router();
        let read = tokio::spawn(async move { router.read().await });
        tokio::task::yield_now().await;
        let heard = stage.plays(vec![Play::Leave, Play::Answer(Answer::Table { hash: hash.clone(), table })]);

        let found = soon(read).await.unwrap().unwrap();

        assert_eq!(found.hash, hash);
        assert_eq!(soon(heard).await.unwrap(), [Ask::Read, Ask::Read]);
    }

    #[tokio::test]
    async fn no_proxy_and_a_silent_one_are_unreachable() {
        let stage = Stage::new();
        let (hash, table) = table();
        let moment = Duration::from_millis(50);
        let router = ProxyRouter { restart: moment, call: moment, ..stage.router() };

        let absent = router.replace(&hash, &table).await.unwrap_err();
        assert_eq!((absent.kind, absent.certainty), (RouterErrorKind::Unreachable, Certainty::NotDone));
        assert!(absent.message.contains("proxy.sock"), "{absent}");

        stage.plays(vec![Play::Silence]);
        let silent = router.replace(&hash, &table).await.unwrap_err();
        assert_eq!((silent.kind, silent.certainty), (RouterErrorKind::Unreachable, Certainty::Unknown));
    }

    #[tokio::test(start_paused = true)]
    async fn where_nothing_keeps_a_proxy_none_is_waited_for() {
        let mut stage = Stage::new();
        let began = Instant::now();
        assert!(stage.router().read().await.is_err());
        assert!(began.elapsed() >= RESTART, "one that is kept may be on its way");

        stage.kept = None;
        let began = Instant::now();
        let absent = stage.router().read().await.unwrap_err();
        assert_eq!((absent.kind, began.elapsed()), (RouterErrorKind::Unreachable, Duration::ZERO));
    }

    #[tokio::test]
    async fn a_drain_tells_what_was_left_or_cut() {
        let stage = Stage::new();
        let heard = stage.plays(vec![Play::Answer(Answer::Drained { left: 0, closed: 4, cut: 3 })]);

        let targets = ["web-blue-1".to_owned()];
        let (spread, deadline) = (Duration::from_millis(5), Duration::from_secs(1));
        let drained = soon(stage.router().drain(&targets, spread, deadline, true)).await.unwrap();

        assert_eq!(drained, Drained { left: 3, closed: 4 });
        let ask = Ask::Drain { targets: targets.to_vec(), spread_ms: 5, deadline_ms: 1000, cut: true };
        assert_eq!(soon(heard).await.unwrap(), [ask]);
    }
}

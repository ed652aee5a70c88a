//! The control socket: one JSON object a line, a request and then its answer. Whoever may open it (0600) may ask.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cutover_routes::control::{Answer, Ask, CONTROL_VERSION, Envelope};
use cutover_routes::figures::Figures;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

use crate::drain::Drain;
use crate::plane::Plane;
use crate::table::Replaced;

/// The socket while it exists: removed when dropped, which its maker does while it holds the table's folder.
#[derive(Debug)]
pub(crate) struct Socket {
    path: PathBuf,
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(%error, "the control socket was gone already");
        }
    }
}

/// Makes the socket in the place of whatever lies there: its maker holds the table's folder, so what lies there is stale. It appears
/// under its name with its rights in place.
pub(crate) fn bind(path: &Path) -> io::Result<(UnixListener, Socket)> {
    let next = path.with_extension("next");
    match std::fs::remove_file(&next) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&next)?;
    std::fs::set_permissions(&next, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&next, path)?;
    Ok((listener, Socket { path: path.to_owned() }))
}

/// Answers everybody who connects. Conversations end with it.
pub(crate) async fn answer_all(plane: Arc<Plane>, listener: UnixListener) {
    let mut conversations = JoinSet::new();
    loop {
        while conversations.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let plane = Arc::clone(&plane);
                conversations.spawn(async move {
                    if let Err(error) = converse(&plane, stream).await {
                        tracing::debug!(%error, "a control connection broke");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "no control connection can be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn converse(plane: &Arc<Plane>, stream: UnixStream) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    while let Some(line) = read_line(&mut reader, plane.limits.control_line).await? {
        let Some(answer) = answer(plane, &line, &mut reader).await else { return Ok(()) };
        write_line(&mut writer, &answer).await?;
    }
    Ok(())
}

/// A line without its end; none when the asker has no more to ask.
async fn read_line(reader: &mut BufReader<OwnedReadHalf>, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    reader.take(limit).read_until(b'\n', &mut line).await?;
    match line.pop() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(line)),
        Some(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "a line without an end")),
    }
}

async fn write_line(writer: &mut OwnedWriteHalf, answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    writer.write_all(&line).await
}

/// What every version of a question has.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

/// The answer to a line; none when the asker left before it was there, or when there is nothing to be sure of.
async fn answer(plane: &Arc<Plane>, line: &[u8], asker: &mut BufReader<OwnedReadHalf>) -> Option<Answer> {
    let refused = |reason: String| Some(Answer::Refused { reason, full: false });
    match serde_json::from_slice(line) {
        Ok(Version { version }) if version > CONTROL_VERSION => {
            return refused(format!(
                "the question has version {version}, this proxy speaks up to {CONTROL_VERSION}: upgrade the proxy"
            ));
        }
        Ok(Version { .. }) => {}
        Err(error) => return refused(format!("not a question: {error}")),
    }
    let ask = match serde_json::from_slice::<Envelope>(line) {
        Ok(envelope) => envelope.ask,
        Err(error) => return refused(format!("not a question: {error}")),
    };
    match ask {
        Ask::Read => {
            let served = plane.table.load_full();
            Some(Answer::Table { hash: served.hash.clone(), table: served.table.clone() })
        }
        Ask::Replace { expect, table } => {
            // Once begun it goes through, even when the asker leaves: what is durable must be what is served.
            let plane = Arc::clone(plane);
            match tokio::spawn(async move { plane.table.replace(expect, table).await }).await {
                Ok(Replaced::Done(hash)) => Some(Answer::Replaced { hash }),
                Ok(Replaced::Moved(served)) => {
                    Some(Answer::Moved { hash: served.hash.clone(), table: served.table.clone() })
                }
                Ok(Replaced::Refused(reason)) => refused(reason),
                Ok(Replaced::Full(reason)) => Some(Answer::Refused { reason, full: true }),
                // No answer is the answer of which an asker learns nothing: it looks again.
                Ok(Replaced::Unknown) => None,
                Err(error) => refused(format!("the table was not replaced: {error}")),
            }
        }
        Ask::Drain { targets, spread_ms, deadline_ms, cut } => {
            let (spread, limit) = (Duration::from_millis(spread_ms), Duration::from_millis(deadline_ms));
            let drain = Drain { targets, spread, limit, cut }.run(plane);
            tokio::select! {
                drained = drain => Some(Answer::Drained { left: drained.left, closed: drained.closed, cut: drained.cut }),
                () = left(asker) => None,
            }
        }
        Ask::Figures => {
            let (targets, routes) = plane.table.figures();
            Some(Answer::Figures(Figures {
                started: plane.started.clone(),
                targets: targets.collect(),
                routes: routes.collect(),
            }))
        }
    }
}

/// Returns when the asker has closed its end. One that asks on instead of closing is still there.
async fn left(asker: &mut BufReader<OwnedReadHalf>) {
    match asker.fill_buf().await {
        Ok([]) | Err(_) => {}
        Ok(_) => std::future::pending().await,
    }
}

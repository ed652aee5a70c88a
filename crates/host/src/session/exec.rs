//! A command in a live instance, or in a fresh one of the live release that is gone afterwards. Its streams are the client's: what it reads
//! and writes goes through as it comes, with a terminal where the client has one.
//!
//! Output is the operator's own and is not redacted: who may speak with this session may read the env file.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use cutover_core::config::settings::DatabaseEngine;
use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::names::{AppId, RunId, ServiceName};
use cutover_core::plan::{InstanceSpec, Verb, one_off};
use cutover_core::recover::serving_text;
use cutover_core::state::{ExitStatus, HostState, Role};
use cutover_core::wire::{Ask, Reply};
use futures_util::StreamExt;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

use super::frames::{Frame, Stop};
use super::serve::Session;
use crate::host::Host;
use crate::lock::AppLock;
use crate::observe::{observe, observe_again};
use crate::ports::{Attached, RuntimeError, TerminalSize};
use crate::settle::until_put_away;

/// For output that is still on its way once the command has ended.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// One piece of input has at most so many bytes.
const MOST_INPUT: u64 = 64 * 1024;

/// What is to be run.
pub(super) struct Asked {
    pub(super) service: ServiceName,
    pub(super) command: Vec<String>,
    pub(super) once: bool,
    pub(super) terminal: Option<(u16, u16)>,
}

impl Asked {
    fn terminal(&self) -> Option<TerminalSize> {
        self.terminal.map(|(columns, rows)| TerminalSize { columns, rows })
    }
}

/// A run may migrate a `SQLite` file, or put it back: a command that begins meanwhile could open it (P8).
fn in_the_way(host: &Host, state: &HostState) -> Option<Failure> {
    let live = state.live.as_ref()?;
    let release = &state.releases.iter().find(|record| record.release.id == live.release)?.release;
    let in_file =
        release.databases.values().any(|database| matches!(database.engine, DatabaseEngine::Sqlite { .. }));
    // A rehearsal closes no file.
    let holder = AppLock::peek(&host.layout, &state.app)
        .filter(|holder| holder.by != crate::watch::HOLDER && holder.verb != Verb::MigrateRehearse)?;
    in_file.then(|| {
        Failure::new(Exit::Locked, format!("a run works on {}", state.app))
            .because(format!(
                "the {} of {} may have a SQLite file closed for its migration",
                holder.verb.as_str(),
                holder.by
            ))
            .while_serving(serving_text(Some(live)))
            .next("`cutover attach` follows it; run the command again once it has ended")
    })
}

/// What comes from the client while a command goes on.
enum Typed {
    Bytes(Vec<u8>),
    End,
    Size(TerminalSize),
}

impl<R, W> Session<R, W>
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    pub(super) async fn exec(&mut self, app: &AppId, asked: Asked) -> Result<(), Stop> {
        let host = self.host().await?;
        until_put_away(&host.layout, &host.store, app).await;
        // What is fresh is put where the engine has a network for it.
        let state = if asked.once {
            observe(&host, app, &BTreeSet::new()).await?
        } else {
            observe_again(&host, app).await?
        };
        if let Some(failure) = in_the_way(&host, &state) {
            return Err(failure.into());
        }
        if asked.once {
            self.exec_once(&host, &state, &asked).await
        } else {
            self.exec_inside(&host, &state, &asked).await
        }
    }

    async fn exec_inside(&mut self, host: &Arc<Host>, state: &HostState, asked: &Asked) -> Result<(), Stop> {
        let members = state.live.as_ref().and_then(|live| live.members.get(&asked.service));
        let found = state.instances.iter().find(|found| {
            let live = members.is_some_and(|members| members.contains(&found.name));
            let backing = found.role == Role::Backing && found.ours && found.service == asked.service;
            found.is_running() && (live || backing)
        });
        let Some(found) = found else { return Err(not_there(state, asked).into()) };
        let runtime = host.ports.runtime(found.runtime).map_err(|error| broken(&error))?;
        let attached = runtime.attach(&state.app, &found.name, &asked.command, asked.terminal()).await;
        let exit = self.carry(attached.map_err(|error| broken(&error))?).await?;
        Ok(self.outgoing.send(&Reply::Exit { code: code(&exit) }).await?)
    }

    async fn exec_once(&mut self, host: &Arc<Host>, state: &HostState, asked: &Asked) -> Result<(), Stop> {
        let run = RunId::new(uuid::Uuid::now_v7());
        let spec = one_off(state, &asked.service, &asked.command, run);
        let Some(spec) = spec else { return Err(not_there(state, asked).into()) };
        let outcome = self.carry_fresh(host, &spec, asked).await;
        let gone = take_away(host, &spec).await;
        let exit = outcome?;
        if let Err(error) = gone {
            tracing::warn!(%error, instance = %spec.name, "a fresh instance is not gone; watch takes it away");
        }
        Ok(self.outgoing.send(&Reply::Exit { code: code(&exit) }).await?)
    }

    async fn carry_fresh(
        &mut self,
        host: &Arc<Host>,
        spec: &InstanceSpec,
        asked: &Asked,
    ) -> Result<ExitStatus, Stop> {
        let runtime = host.ports.runtime(spec.runtime()).map_err(|error| broken(&error))?;
        let own = self.layout.release_env(&spec.app, &spec.release);
        let values = std::fs::read_to_string(own).unwrap_or_default();
        let values = cutover_core::env_file::parse(&values).unwrap_or_default();
        let attached = runtime.attach_fresh(spec, &values, asked.terminal()).await;
        self.carry(attached.map_err(|error| broken(&error))?).await
    }

    /// Carries the streams until the command has ended. What is typed and not yet read holds the client back, never the output.
    async fn carry(&mut self, attached: Attached) -> Result<ExitStatus, Stop> {
        let Attached { output, input, resize, mut exit } = attached;
        // It often ends before the command does, and is asked once more after it.
        let mut output = output.fuse();
        let (mut input, mut typed) = (Some(input), Vec::new());
        let mut writes = true;
        let exit = loop {
            tokio::select! {
                ended = &mut exit => break ended.map_err(|error| broken(&error))?,
                piece = output.next(), if writes => match piece {
                    Some(piece) => self.outgoing.data(piece.error, &piece.bytes).await?,
                    None => writes = false,
                },
                written = write(&mut input, &typed), if !typed.is_empty() => {
                    let count = written.unwrap_or_else(|| {
                        // It reads no more.
                        input = None;
                        typed.len()
                    });
                    drop(typed.drain(..count));
                }
                heard = self.incoming.next(), if typed.is_empty() => match self.typed(heard).await? {
                    Typed::Bytes(bytes) if input.is_some() => typed = bytes,
                    Typed::Bytes(_) => {}
                    Typed::End => end_input(&mut input).await,
                    Typed::Size(size) => resize(size).await,
                },
            }
        };
        let last = Instant::now() + LAST_WORDS;
        while let Ok(Some(piece)) = timeout_at(last, output.next()).await {
            self.outgoing.data(piece.error, &piece.bytes).await?;
        }
        Ok(exit)
    }

    async fn typed(&mut self, heard: std::io::Result<Frame>) -> Result<Typed, Stop> {
        let invalid = || Stop::Over(std::io::ErrorKind::InvalidData.into());
        match heard? {
            Frame::Ask(ask) => match *ask {
                Ask::Input { bytes: 0 } => Ok(Typed::End),
                Ask::Input { bytes } if bytes <= MOST_INPUT => {
                    Ok(Typed::Bytes(self.incoming.bulk(bytes).await?))
                }
                Ask::Resize { columns, rows } => Ok(Typed::Size(TerminalSize { columns, rows })),
                _ => Err(invalid()),
            },
            Frame::End => Err(Stop::Over(std::io::ErrorKind::UnexpectedEof.into())),
            Frame::Bad(problem) => Err(Stop::Over(std::io::Error::other(problem))),
        }
    }
}

type Input = std::pin::Pin<Box<dyn AsyncWrite + Send>>;

/// How much of it was taken; `None`: the command reads no more.
async fn write(input: &mut Option<Input>, bytes: &[u8]) -> Option<usize> {
    let input = input.as_mut()?;
    let count = input.write(bytes).await.ok().filter(|count| *count > 0)?;
    input.flush().await.ok()?;
    Some(count)
}

async fn end_input(input: &mut Option<Input>) {
    if let Some(mut input) = input.take() {
        // It may have ended, and its input with it.
        input.shutdown().await.unwrap_or_default();
    }
}

async fn take_away(host: &Arc<Host>, spec: &InstanceSpec) -> Result<(), RuntimeError> {
    let runtime = host.ports.runtime(spec.runtime())?;
    runtime.stop(&spec.app, &spec.name, &spec.settings.stop).await?;
    runtime.remove(&spec.app, &spec.name).await
}

fn not_there(state: &HostState, asked: &Asked) -> Failure {
    let Asked { service, .. } = asked;
    let failure = Failure::new(
        Exit::Failed,
        format!("service `{service}` of {} has no instance to run it in", state.app),
    );
    match &state.live {
        None => failure.because("nothing is live").next("`cutover deploy` puts a release live"),
        Some(live) => {
            let known: Vec<_> = live.members.keys().map(ToString::to_string).collect();
            let failure = failure.because(format!("live services: {}", known.join(", ")));
            failure.next("`cutover status` shows what runs")
        }
    }
}

fn broken(error: &RuntimeError) -> Failure {
    Failure::new(Exit::Failed, "the command could not be run")
        .because(error.to_string())
        .while_serving("the services go on")
}

/// As a shell tells it: 128 and the signal's number, where one ended it.
fn code(exit: &ExitStatus) -> i32 {
    exit.code.or(exit.signal.map(|signal| 128 + signal)).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_told_as_a_shell_does() {
        let ended = |code, signal| ExitStatus { code, signal, out_of_memory: false, error: None, at: None };
        assert_eq!(code(&ended(Some(3), None)), 3);
        assert_eq!(code(&ended(None, Some(9))), 137);
        assert_eq!(code(&ended(None, None)), 1);
    }
}

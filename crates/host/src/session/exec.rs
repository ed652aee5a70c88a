//! A command in a live instance, or in a fresh one of the live release that is gone afterwards.
//!
//! What it writes comes as lines; it gets no input, and where a terminal was asked for, none either: its lines only end as a terminal wants
//! them, and Ctrl-C gives it up. Output is the operator's own and is not redacted: who may speak with this session may read the env file.

use std::sync::Arc;
use std::time::Duration;

use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::names::{AppId, RunId, ServiceName};
use cutover_core::plan::{InstanceSpec, one_off};
use cutover_core::state::{ExitStatus, HostState};
use cutover_core::wire::{Ask, Reply};
use tokio::io::{AsyncRead, AsyncWrite};

use super::frames::{Frame, Stop};
use super::logs::Tail;
use super::serve::Session;
use crate::host::Host;
use crate::observe::observe;
use crate::ports::{Exec, RuntimeError};

/// The longest a command may take.
const MOST: Duration = Duration::from_hours(12);
/// Between two looks for what a fresh instance has written.
const AGAIN: Duration = Duration::from_millis(50);

/// What a terminal in raw mode sends for Ctrl-C.
const CTRL_C: u8 = 3;
/// More than this is not typed, and ends the conversation.
const MOST_INPUT: u64 = 64 * 1024;

/// What is to be run.
pub(super) struct Asked {
    pub(super) service: ServiceName,
    pub(super) command: Vec<String>,
    pub(super) once: bool,
    pub(super) terminal: bool,
}

impl Asked {
    /// A terminal in raw mode does not go back to the first column by itself.
    fn line_end(&self) -> &'static str {
        if self.terminal { "\r\n" } else { "\n" }
    }
}

impl<R, W> Session<R, W>
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    pub(super) async fn exec(&mut self, app: &AppId, asked: Asked) -> Result<(), Stop> {
        let host = self.host().await?;
        let state = observe(&host, app, &[].into()).await?;
        if asked.once {
            self.exec_once(&host, &state, &asked).await
        } else {
            self.exec_inside(&host, &state, &asked).await
        }
    }

    async fn exec_inside(&mut self, host: &Arc<Host>, state: &HostState, asked: &Asked) -> Result<(), Stop> {
        let members = state.live.as_ref().and_then(|live| live.members.get(&asked.service));
        let found = state
            .instances
            .iter()
            .find(|found| found.is_running() && members.is_some_and(|members| members.contains(&found.name)));
        let Some(found) = found else { return Err(not_there(state, asked).into()) };
        let runtime = host.ports.runtime(found.runtime).map_err(|error| broken(&error))?;
        let exec = Exec { words: asked.command.clone(), timeout: MOST };
        let finished = tokio::select! {
            finished = runtime.exec(&state.app, &found.name, &exec) => finished.map_err(|error| broken(&error))?,
            stop = self.no_input() => return Err(stop),
        };
        for line in &finished.output {
            self.outgoing.data(false, format!("{line}{}", asked.line_end()).as_bytes()).await?;
        }
        Ok(self.outgoing.send(&Reply::Exit { code: code(&finished.exit) }).await?)
    }

    async fn exec_once(&mut self, host: &Arc<Host>, state: &HostState, asked: &Asked) -> Result<(), Stop> {
        let run = RunId::new(uuid::Uuid::now_v7());
        let spec = one_off(state, &asked.service, &asked.command, run);
        let Some(spec) = spec else { return Err(not_there(state, asked).into()) };
        let outcome = self.carry_once(host, &spec, asked).await;
        let gone = take_away(host, &spec).await;
        let exit = outcome?;
        if let Err(error) = gone {
            tracing::warn!(%error, instance = %spec.name, "a fresh instance is not gone; watch takes it away");
        }
        Ok(self.outgoing.send(&Reply::Exit { code: code(&exit) }).await?)
    }

    async fn carry_once(
        &mut self,
        host: &Arc<Host>,
        spec: &InstanceSpec,
        asked: &Asked,
    ) -> Result<ExitStatus, Stop> {
        let runtime = host.ports.runtime(spec.runtime()).map_err(|error| broken(&error))?;
        let own = self.layout.release_env(&spec.app, &spec.release);
        let values = std::fs::read_to_string(own).unwrap_or_default();
        let values = cutover_core::env_file::parse(&values).unwrap_or_default();
        runtime.create(spec, &values).await.map_err(|error| broken(&error))?;
        runtime.start(&spec.app, &spec.name).await.map_err(|error| broken(&error))?;
        let mut tail = Tail::whole();
        let mut exited = runtime.exited(&spec.app, &spec.name);
        loop {
            let exit = tokio::select! {
                exit = &mut exited => Some(exit.map_err(|error| broken(&error))?),
                () = tokio::time::sleep(AGAIN) => None,
                stop = self.no_input() => return Err(stop),
            };
            let lines = tail.read(host, &spec.app, &spec.name, spec.runtime()).await;
            for line in lines.map_err(|error| broken(&error))? {
                self.outgoing
                    .data(line.error, format!("{}{}", line.text, asked.line_end()).as_bytes())
                    .await?;
            }
            if let Some(exit) = exit {
                return Ok(exit);
            }
        }
    }

    /// Returns when the client is gone. An input that ends at once is none; any other is refused.
    async fn no_input(&mut self) -> Stop {
        loop {
            match self.incoming.next().await {
                Ok(Frame::Ask(ask)) => match *ask {
                    Ask::Input { bytes: 0 } => {}
                    Ask::Input { bytes } => match self.incoming.bulk(bytes.min(MOST_INPUT)).await {
                        Ok(typed) if typed.contains(&CTRL_C) => return given_up().into(),
                        Ok(_) => return no_input().into(),
                        Err(error) => return error.into(),
                    },
                    _ => return Stop::Over(std::io::ErrorKind::InvalidData.into()),
                },
                Ok(Frame::End) => return Stop::Over(std::io::ErrorKind::UnexpectedEof.into()),
                Ok(Frame::Bad(problem)) => return Stop::Over(std::io::Error::other(problem)),
                Err(error) => return Stop::Over(error),
            }
        }
    }
}

fn no_input() -> Failure {
    Failure::new(Exit::Usage, "this cutover-host gives commands neither a terminal nor input")
        .while_serving("the command was given up; the services go on")
        .next("put what it needs into its arguments, or into a file of the release")
}

fn given_up() -> Failure {
    Failure::new(Exit::Cancelled, "the command was given up")
        .because("Ctrl-C")
        .while_serving("the services go on")
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

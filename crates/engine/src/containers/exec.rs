//! Commands run inside a running container: to their end with their output (probes), or at a terminal.
//!
//! The engine has no call that ends such a command: dropping one of these lets it go on inside the container until the
//! container ends.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::exec::{ResizeExecOptions, StartExecOptions, StartExecResults};
use bollard::models::ExecConfig;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use tokio::io::AsyncWrite;

use super::body;
use super::logs::OutputStream;
use super::spec::Environment;
use crate::connect::Engine;
use crate::error::{EngineError, Subject, explain};

/// Of each stream, this much is kept: the end, where the reason stands.
const KEPT_OUTPUT: usize = 64 * 1024;

/// The exit code is recorded a moment after the output ends.
const CODE_DELAY: Duration = Duration::from_secs(5);

/// A command to be run inside a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecCommand {
    /// Program and arguments; no shell in between.
    pub words: Vec<String>,
    /// Added to the container's variables.
    pub environment: Environment,
    /// `user[:group]`; `None` is the container's.
    pub user: Option<String>,
    /// `None` is the container's.
    pub working_folder: Option<String>,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecOutcome {
    /// Its exit code; 126 and 127 where it could not be run.
    pub code: i64,
    /// End of its standard output.
    pub output: String,
    /// End of its standard error.
    pub errors: String,
}

/// Size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    /// Characters in a line.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
}

/// What a command writes, in pieces as they come.
pub type ExecOutput = Pin<Box<dyn Stream<Item = Result<(OutputStream, Bytes), EngineError>> + Send>>;

/// A command in progress whose streams the caller carries.
pub struct ExecSession {
    engine: Engine,
    id: String,
    /// What it writes; with a terminal all of it is `Output`.
    pub output: ExecOutput,
    /// What it reads. Dropping or shutting it down closes its input.
    pub input: Pin<Box<dyn AsyncWrite + Send>>,
}

impl fmt::Debug for ExecSession {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ExecSession").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Engine {
    /// Runs a command to its end, without input. `Conflict` where the container does not run.
    pub async fn exec(&self, container: &str, command: &ExecCommand) -> Result<ExecOutcome, EngineError> {
        let config = config(container, command, None, Input::None)?;
        let ExecSession { engine, id, mut output, input } = self.attach(container, config, None).await?;
        drop(input);
        let (mut kept_output, mut kept_errors) = (Vec::new(), Vec::new());
        while let Some(piece) = output.next().await {
            let (stream, bytes) = piece?;
            keep_end(if stream == OutputStream::Error { &mut kept_errors } else { &mut kept_output }, &bytes);
        }
        let code = engine.exit_code(&id).await?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(ExecOutcome { code, output: text(kept_output), errors: text(kept_errors) })
    }

    /// Starts a command and hands over its streams; with a `terminal` it gets one of that size.
    pub async fn exec_attached(
        &self,
        container: &str,
        command: &ExecCommand,
        terminal: Option<TerminalSize>,
    ) -> Result<ExecSession, EngineError> {
        let config = config(container, command, terminal, Input::Open)?;
        self.attach(container, config, terminal).await
    }

    async fn attach(
        &self,
        container: &str,
        config: ExecConfig,
        terminal: Option<TerminalSize>,
    ) -> Result<ExecSession, EngineError> {
        let act = || act(container);
        let id = self.docker().create_exec(container, config).await.map_err(explain(Subject::Thing, act))?.id;
        let options = StartExecOptions { detach: false, tty: terminal.is_some(), output_capacity: None };
        let started =
            self.docker_long().start_exec(&id, Some(options)).await.map_err(explain(Subject::Thing, act))?;
        let StartExecResults::Attached { output, input } = started else {
            return Err(EngineError::unexpected(act(), "the engine did not attach"));
        };
        let what = act();
        let output = output
            .map(move |piece| piece.map(sorted).map_err(explain(Subject::Thing, || what.clone())))
            .boxed();
        if let Some(size) = terminal {
            self.resize_exec(&id, size).await?;
        }
        Ok(ExecSession { engine: self.clone(), id, output, input })
    }

    async fn resize_exec(&self, exec: &str, size: TerminalSize) -> Result<(), EngineError> {
        let options = ResizeExecOptions { height: size.rows, width: size.columns };
        let resized = self.docker().resize_exec(exec, options).await;
        resized.map_err(explain(Subject::Thing, || "resize a terminal".to_owned()))
    }

    async fn exit_code(&self, exec: &str) -> Result<i64, EngineError> {
        let act = || "ask for the exit code of a command".to_owned();
        let mut pause = Duration::from_millis(1);
        let mut waited = Duration::ZERO;
        loop {
            let state = self.docker().inspect_exec(exec).await.map_err(explain(Subject::Thing, act))?;
            match state.exit_code {
                Some(code) if state.running != Some(true) => return Ok(code),
                _ if waited >= CODE_DELAY => {
                    return Err(EngineError::unexpected(act(), "its output ended, but it is said to run on"));
                }
                _ => {}
            }
            tokio::time::sleep(pause).await;
            waited += pause;
            pause = (pause * 2).min(Duration::from_millis(100));
        }
    }
}

impl ExecSession {
    /// Tells the command its terminal's new size.
    pub fn resize(&self, size: TerminalSize) -> impl Future<Output = Result<(), EngineError>> + Send + use<> {
        // The future holds no reference to the session: its streams cannot be shared between threads.
        let (engine, exec) = (self.engine.clone(), self.id.clone());
        async move { engine.resize_exec(&exec, size).await }
    }

    /// The exit code, once `output` has ended.
    pub fn code(&self) -> impl Future<Output = Result<i64, EngineError>> + Send + use<> {
        let (engine, exec) = (self.engine.clone(), self.id.clone());
        async move { engine.exit_code(&exec).await }
    }
}

#[derive(Clone, Copy)]
enum Input {
    None,
    Open,
}

fn act(container: &str) -> String {
    format!("run a command in container {container}")
}

fn config(
    container: &str,
    command: &ExecCommand,
    terminal: Option<TerminalSize>,
    input: Input,
) -> Result<ExecConfig, EngineError> {
    let variables = body::environment(&command.environment)
        .map_err(|problem| EngineError::refused(act(container), problem))?;
    Ok(ExecConfig {
        attach_stdin: Some(matches!(input, Input::Open)),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        tty: Some(terminal.is_some()),
        env: (!variables.is_empty()).then_some(variables),
        cmd: Some(command.words.clone()),
        user: command.user.clone(),
        working_dir: command.working_folder.clone(),
        ..ExecConfig::default()
    })
}

pub(super) fn sorted(piece: LogOutput) -> (OutputStream, Bytes) {
    let stream =
        if matches!(piece, LogOutput::StdErr { .. }) { OutputStream::Error } else { OutputStream::Output };
    (stream, piece.into_bytes())
}

fn keep_end(kept: &mut Vec<u8>, bytes: &[u8]) {
    kept.extend_from_slice(bytes);
    if kept.len() > 2 * KEPT_OUTPUT {
        kept.drain(..kept.len() - KEPT_OUTPUT);
    }
}

//! Commands that a person or a pipe is at: beside a running instance, or as a fresh one.

use cutover_core::names::{AppId, InstanceName};
use cutover_core::plan::InstanceSpec;
use cutover_core::secret::Secrets;
use cutover_engine::{ExecCommand, ExecOutput, Kind, OutputStream};
use futures_util::{FutureExt, StreamExt};
use tokio::sync::oneshot;

use super::DockerRuntime;
use super::error::{as_kind, failed};
use super::inside::by_itself;
use crate::ports::{Attached, Runtime, RuntimeError, RuntimeErrorKind, TerminalSize, Written};

impl DockerRuntime {
    /// The engine has no call that ends such a command: one whose client leaves sees its input end.
    pub(super) async fn attach_inside(
        &self,
        app: &AppId,
        name: &InstanceName,
        words: &[String],
        terminal: Option<TerminalSize>,
    ) -> Result<Attached, RuntimeError> {
        let container = self.existing(app, name).await?;
        let command = ExecCommand { words: words.to_vec(), ..ExecCommand::default() };
        let started = self.engine.exec_attached(&container.id, &command, terminal.map(size)).await;
        let mut session = started.map_err(|error| match error.kind {
            // It does not run.
            Kind::Conflict => as_kind(RuntimeErrorKind::Gone, error),
            _ => failed(error),
        })?;
        let input = std::mem::replace(&mut session.input, Box::pin(tokio::io::sink()));
        let (output, ended) =
            watched(std::mem::replace(&mut session.output, futures_util::stream::empty().boxed()));
        let code = session.code();
        let exit = async move {
            // The code is known once the output has ended.
            ended.await.unwrap_or_default();
            Ok(by_itself(code.await.map_err(failed)?))
        };
        let resize = move |to| session.resize(size(to)).map(drop).boxed();
        Ok(Attached { output, input, resize: Box::new(resize), exit: exit.boxed() })
    }

    /// A fresh instance with its streams; whoever asked for it takes it away.
    pub(super) async fn attach_fresh(
        &self,
        spec: &InstanceSpec,
        values: &Secrets,
        terminal: Option<TerminalSize>,
    ) -> Result<Attached, RuntimeError> {
        self.create_attached(spec, values, terminal.is_some()).await?;
        let container = self.existing(&spec.app, &spec.name).await?;
        let streams = self.engine.attach_to(&container.id).await.map_err(failed)?;
        self.start_instance(&spec.app, &spec.name).await?;
        let (engine, id) = (self.engine.clone(), container.id);
        let resize = move |to| {
            let (engine, id) = (engine.clone(), id.clone());
            // One that has ended meanwhile has no terminal any more.
            async move { engine.resize(&id, size(to)).await.unwrap_or_default() }.boxed()
        };
        if let Some(terminal) = terminal {
            resize(terminal).await;
        }
        let (runtime, app, name) = (self.clone(), spec.app.clone(), spec.name.clone());
        let exit = async move { runtime.exited(&app, &name).await };
        let (output, _) = watched(streams.output);
        Ok(Attached { output, input: streams.input, resize: Box::new(resize), exit: exit.boxed() })
    }
}

fn size(size: TerminalSize) -> cutover_engine::TerminalSize {
    cutover_engine::TerminalSize { columns: size.columns, rows: size.rows }
}

/// The output, and a sign of its end. A stream that breaks has ended.
fn watched(output: ExecOutput) -> (futures_util::stream::BoxStream<'static, Written>, oneshot::Receiver<()>) {
    let (over, ended) = oneshot::channel();
    let pieces = output.map(|piece| {
        let (stream, bytes) = piece.ok()?;
        Some(Written { error: stream == OutputStream::Error, bytes })
    });
    let pieces = pieces.take_while(|piece| std::future::ready(piece.is_some()));
    let end = futures_util::stream::once(async move {
        // Nobody may wait for it any more.
        over.send(()).unwrap_or_default();
        None
    });
    let output = pieces.chain(end).filter_map(std::future::ready).boxed();
    (output, ended)
}

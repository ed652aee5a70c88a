//! The streams of a container's own first process: for one that a person works in.

use std::pin::Pin;

use bollard::container::AttachContainerResults;
use bollard::query_parameters::{AttachContainerOptions, ResizeContainerTTYOptions};
use futures_util::StreamExt;
use tokio::io::AsyncWrite;

use super::exec::{ExecOutput, TerminalSize, sorted};
use crate::connect::Engine;
use crate::error::{EngineError, Subject, explain};

/// The streams of a container's own process.
pub struct ContainerStreams {
    /// What it writes; with a terminal all of it is `Output`.
    pub output: ExecOutput,
    /// What it reads. Dropping or shutting it down closes its input.
    pub input: Pin<Box<dyn AsyncWrite + Send>>,
}

impl std::fmt::Debug for ContainerStreams {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ContainerStreams").finish_non_exhaustive()
    }
}

impl Engine {
    /// Takes the streams of a container; before its start, so that nothing it writes is missed.
    pub async fn attach_to(&self, container: &str) -> Result<ContainerStreams, EngineError> {
        let act = format!("attach to container {container}");
        let options = AttachContainerOptions {
            stream: true,
            stdin: true,
            stdout: true,
            stderr: true,
            ..AttachContainerOptions::default()
        };
        let AttachContainerResults { output, input } = self
            .docker_long()
            .attach_container(container, Some(options))
            .await
            .map_err(explain(Subject::Thing, || act.clone()))?;
        let output = output
            .map(move |piece| piece.map(sorted).map_err(explain(Subject::Thing, || act.clone())))
            .boxed();
        Ok(ContainerStreams { output, input })
    }

    /// Tells a container's terminal its size.
    pub async fn resize(&self, container: &str, size: TerminalSize) -> Result<(), EngineError> {
        let options = ResizeContainerTTYOptions { h: size.rows.into(), w: size.columns.into() };
        let resized = self.docker().resize_container_tty(container, options).await;
        resized.map_err(explain(Subject::Thing, || format!("resize the terminal of container {container}")))
    }
}

//! Looking into a running instance: commands, its own health command, its sockets, its network namespace.

use std::net::SocketAddr;
use std::path::PathBuf;

use cutover_core::defaults;
use cutover_core::names::{AppId, InstanceName};
use cutover_core::state::ExitStatus;
use cutover_engine::{Container, ExecCommand, Kind, Phase};

use super::DockerRuntime;
use super::error::{as_kind, failed};
use super::sockets;
use crate::ports::{Certainty, Exec, Finished, RuntimeError, RuntimeErrorKind};

impl DockerRuntime {
    /// The engine has no call that ends such a command: one that took too long goes on inside, until its container ends.
    pub(super) async fn exec_inside(
        &self,
        app: &AppId,
        name: &InstanceName,
        exec: &Exec,
    ) -> Result<Finished, RuntimeError> {
        let container = self.existing(app, name).await?;
        let command = ExecCommand { words: exec.words.clone(), ..ExecCommand::default() };
        let ended = tokio::time::timeout(exec.timeout, self.engine.exec(&container.id, &command))
            .await
            .map_err(|_| {
                let message =
                    format!("a command in {name} did not end within {:?}; it goes on there", exec.timeout);
                RuntimeError::new(RuntimeErrorKind::Late, Certainty::Unknown, message)
            })?
            .map_err(|error| match error.kind {
                // It does not run.
                Kind::Conflict => as_kind(RuntimeErrorKind::Gone, error),
                _ => failed(error),
            })?;
        let lines = ended.output.lines().chain(ended.errors.lines());
        Ok(Finished { exit: by_itself(ended.code), output: lines.map(str::to_owned).collect() })
    }

    pub(super) async fn own_health_command(
        &self,
        app: &AppId,
        name: &InstanceName,
    ) -> Result<Option<Vec<String>>, RuntimeError> {
        let container = self.existing(app, name).await?;
        Ok(match container.health_test.split_first() {
            Some((kind, words)) if kind == "CMD" => Some(words.to_vec()),
            Some((kind, [line])) if kind == "CMD-SHELL" => {
                Some(vec!["/bin/sh".to_owned(), "-c".to_owned(), line.clone()])
            }
            _ => None,
        })
    }

    pub(super) async fn listening_inside(
        &self,
        app: &AppId,
        name: &InstanceName,
    ) -> Result<Vec<SocketAddr>, RuntimeError> {
        let container = self.existing(app, name).await?;
        if container.state.phase() != Phase::Running {
            return Ok(Vec::new());
        }
        let tables = match read_tables(&container) {
            Some(tables) => tables,
            None => self.tables_from_inside(&container).await?,
        };
        Ok(sockets::listening(&tables))
    }

    /// Where its processes cannot be seen from here (another user's, or a virtual machine's), the image has to bring a `cat`.
    async fn tables_from_inside(&self, container: &Container) -> Result<String, RuntimeError> {
        let words = ["cat", "/proc/net/tcp", "/proc/net/tcp6"];
        let command = ExecCommand { words: words.map(str::to_owned).to_vec(), ..ExecCommand::default() };
        let late = |_| {
            let message = format!("`cat` in {} did not end", container.name);
            RuntimeError::new(RuntimeErrorKind::Late, Certainty::NotDone, message)
        };
        let reading = self.engine.exec(&container.id, &command);
        let ended =
            tokio::time::timeout(defaults::ENGINE_CALL, reading).await.map_err(late)?.map_err(failed)?;
        // Without IPv6 the second file is missing, and the first one is there nevertheless.
        if ended.output.contains("local_address") {
            return Ok(ended.output);
        }
        Err(RuntimeError::new(
            RuntimeErrorKind::Other,
            Certainty::NotDone,
            format!("the sockets in {} cannot be seen (exit {} of cat)", container.name, ended.code),
        ))
    }

    pub(super) async fn own_network_namespace(
        &self,
        app: &AppId,
        name: &InstanceName,
    ) -> Result<Option<PathBuf>, RuntimeError> {
        let container = self.existing(app, name).await?;
        let file = seen_process(&container).map(|folder| folder.join("ns/net"));
        let own = std::fs::read_link("/proc/self/ns/net").ok();
        // A file that cannot be read is of no use either.
        Ok(file.filter(|file| std::fs::read_link(file).ok().is_some_and(|other| Some(other) != own)))
    }
}

/// The folder of the container's first process under `/proc`, if that is really the one that is seen from here: an engine in a virtual machine
/// numbers its processes without knowing ours.
fn seen_process(container: &Container) -> Option<PathBuf> {
    let folder = PathBuf::from(format!("/proc/{}", container.pid?));
    let groups = std::fs::read_to_string(folder.join("cgroup")).ok()?;
    groups.contains(&container.id).then_some(folder)
}

fn read_tables(container: &Container) -> Option<String> {
    let folder = seen_process(container)?;
    let four = std::fs::read_to_string(folder.join("net/tcp")).ok()?;
    let six = std::fs::read_to_string(folder.join("net/tcp6")).unwrap_or_default();
    Some(four + &six)
}

pub(super) fn by_itself(code: i64) -> ExitStatus {
    ExitStatus { code: i32::try_from(code).ok(), signal: None, out_of_memory: false, error: None, at: None }
}

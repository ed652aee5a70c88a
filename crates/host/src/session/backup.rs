//! Work on backups: a process of its own does it, and goes on when the client leaves.

use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::names::AppId;
use cutover_core::wire::{BackupOrder, Reply};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, BufReader};

use super::frames::Stop;
use super::serve::Session;
use crate::backup::{self, Heard, Job};
use crate::observe;

impl<R, W> Session<R, W>
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    pub(super) async fn backup(&mut self, order: BackupOrder, env: u64) -> Result<(), Stop> {
        let sent = self.sent_env(env).await?;
        self.host().await?;
        let values = backup::values(&self.layout, &order.app)?.overlaid(&sent?);
        let begun = backup::begin(&self.layout, &Job::new(order, &values), Heard::ByUs);
        let mut child = begun.map_err(|error| not_begun(&error))?;
        let Some(out) = child.stdout.take() else { return Err(silent().into()) };
        let out = tokio::process::ChildStdout::from_std(out).map_err(|error| not_begun(&error))?;
        let mut lines = BufReader::new(out).lines();
        loop {
            let line = tokio::select! {
                line = lines.next_line() => line.map_err(|error| not_begun(&error))?,
                error = self.incoming.left() => return Err(error.into()),
            };
            let Some(line) = line else { return Err(silent().into()) };
            match serde_json::from_str::<Reply>(&line) {
                Ok(reply @ Reply::Doing { .. }) => self.outgoing.send(&reply).await?,
                Ok(Reply::Progress { progress }) => self.progress(progress).await?,
                Ok(reply) => {
                    // It ends now; nobody else would take its number back.
                    crate::blocking::blocking(move || child.wait()).await.ok();
                    return Ok(self.outgoing.send(&reply).await?);
                }
                Err(error) => tracing::warn!(%error, "what the work on backups said is not understood"),
            }
        }
    }

    pub(super) async fn backups(&mut self, app: &AppId) -> Result<(), Stop> {
        let host = self.host().await?;
        // A proxy that serves knows what is live, whatever became of its files.
        let table = host.ports.router.read().await.ok();
        let live = observe::live(&host, app, table.as_ref())?;
        let state = Box::new(backup::state(&host.layout, &host.store, app, live.as_ref())?);
        Ok(self.outgoing.send(&Reply::Backups { state }).await?)
    }
}

fn not_begun(error: &std::io::Error) -> Failure {
    Failure::new(Exit::Failed, "the work on backups could not begin")
        .because(error.to_string())
        .while_serving("what was serving goes on")
        .next("see that the host's disk is well, then try again")
}

/// It was killed, most likely.
fn silent() -> Failure {
    Failure::new(Exit::Failed, "the work on backups ended without a word")
        .because("its process is gone; `backup.log` among cutover's logs on the host may say why")
        .while_serving("what was serving goes on")
        .next("try again: what it left is taken away")
}

//! The host's env file: its names with what may be shown of their values, and changes to it without a release.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use cutover_core::env_file;
use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::journal::LockHolder;
use cutover_core::layout::Layout;
use cutover_core::names::{AppId, RunId, VariableName};
use cutover_core::plan::Verb;
use cutover_core::secret::{Secret, Secrets};
use cutover_core::wire::Reply;
use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncWrite};

use super::frames::Stop;
use super::serve::Session;
use crate::files;
use crate::lock::{AppLock, LockError};
use crate::settle::until_put_away;

impl<R, W> Session<R, W>
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    pub(super) async fn env_list(&mut self, app: &AppId) -> Result<(), Stop> {
        let values = read(&self.layout, app)?;
        let masked: BTreeMap<VariableName, String> =
            values.iter().map(|(name, value)| (name.clone(), mask(value).to_owned())).collect();
        Ok(self.outgoing.send(&Reply::Variables { masked }).await?)
    }

    /// Under the app's lock: a run reads the file, and may write generated values into it.
    pub(super) async fn env_stage(
        &mut self,
        app: &AppId,
        bytes: u64,
        unset: &BTreeSet<VariableName>,
    ) -> Result<(), Stop> {
        let sent = self.sent_env(bytes).await?;
        let host = self.host().await?;
        until_put_away(&host.layout, &host.store, app).await;
        change(&self.layout, app, &sent?, unset, "env set")?;
        Ok(self.outgoing.send(&Reply::Done).await?)
    }
}

pub(crate) fn change(
    layout: &Layout,
    app: &AppId,
    sent: &Secrets,
    unset: &BTreeSet<VariableName>,
    by: &str,
) -> Result<(), Failure> {
    let holder = LockHolder {
        app: app.clone(),
        run: RunId::new(uuid::Uuid::now_v7()),
        by: by.to_owned(),
        verb: Verb::Environment,
        since: Timestamp::now(),
        pid: std::process::id(),
    };
    let _lock = AppLock::take(layout, app, &holder).map_err(|error| match error {
        LockError::Busy { .. } => {
            Failure::new(Exit::Locked, format!("the variables of {app} were not changed"))
                .because(error.to_string())
                .next("wait for its end (`cutover attach`), then try again")
        }
        other => not_written(app, &other.to_string()),
    })?;
    let mut values = read(layout, app)?.overlaid(sent);
    for name in unset {
        values.remove(name);
    }
    let path = layout.env_file(app);
    files::ensure_folder(files::folder_of(&path), 0o700)
        .and_then(|()| files::replace(&path, values.to_env_file().as_bytes(), 0o600))
        .map_err(|error| not_written(app, &error.to_string()))
}

fn not_written(app: &AppId, why: &str) -> Failure {
    Failure::new(Exit::Failed, format!("the env file of {app} was not written")).because(why)
}

/// The host's env file; absent: no values.
pub(super) fn read(layout: &Layout, app: &AppId) -> Result<Secrets, Failure> {
    let path = layout.env_file(app);
    let failure =
        || Failure::new(Exit::Configuration, format!("the host's env file of {app} cannot be read"));
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Secrets::new()),
        Err(error) => return Err(failure().because(format!("{}: {error}", path.display()))),
    };
    env_file::parse(&text).map_err(|errors| {
        let told = errors.iter().map(|error| format!("{}: {error}", path.display()));
        told.fold(failure(), Failure::because).next("mend the lines named above")
    })
}

/// Whether there is a value, and nothing of it: neither its first letters nor how many there are.
fn mask(value: &Secret) -> &'static str {
    if value.expose().is_empty() { "" } else { "***" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_value_is_shown_that_there_is_one_and_nothing_else() {
        let shown = |value: &str| mask(&Secret::new(value));
        assert_eq!(["", "x", "correct horse battery staple"].map(shown), ["", "***", "***"]);
    }
}

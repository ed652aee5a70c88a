//! Where a database of a plan lies on this host: its file, or the way to its server.

use std::path::{Path, PathBuf};

use cutover_core::layout::{self, Layout};
use cutover_core::names::{AppId, ReleaseId, ServiceName};
use cutover_core::plan::{DatabasePlace, FilePlace, Reached, ServerPlace};
use cutover_core::release::RuntimeKind;
use cutover_core::secret::Secret;
use cutover_core::state::{FoundInstance, HostState, Role};
use cutover_core::template::Template;

use super::{Act, told, values};
use crate::images::Values;
use crate::journal::Trouble;
use crate::ports::{Located, Ports, Server, Way};

/// Where databases are looked for, and whose they are.
#[derive(Clone, Copy)]
pub(crate) struct Whereabouts<'a> {
    pub(crate) ports: &'a Ports,
    pub(crate) layout: &'a Layout,
    pub(crate) app: &'a AppId,
    /// What we are called in a server's list of its clients.
    pub(crate) client: &'static str,
}

impl Whereabouts<'_> {
    /// Finds it.
    ///
    /// # Errors
    /// There is no such volume, or its server does not run.
    pub(crate) async fn find(self, place: &DatabasePlace) -> Result<Located, Trouble> {
        match place {
            DatabasePlace::File(place) => Ok(Located::File(self.path(place).await?)),
            DatabasePlace::Server(place) => Ok(Located::Server(self.server(place).await?)),
        }
    }

    /// What a client program said, without the values of the release that is live.
    pub(crate) fn redacted(self, state: &HostState, text: &str) -> String {
        let live = state.live.as_ref().map(|live| values(self.layout, self.app, &live.release));
        match live {
            Some(Ok(values)) => values.redact(text),
            Some(Err(_)) | None => told::NOT_SHOWN.to_owned(),
        }
    }

    async fn path(self, place: &FilePlace) -> Result<PathBuf, Trouble> {
        let runtime = self.ports.runtime(place.volume.runtime)?;
        below(&runtime.volume_path(&place.volume).await?, &place.file)
    }

    /// The way to a server.
    ///
    /// # Errors
    /// It does not run, or its url has no value.
    pub(crate) async fn server(self, place: &ServerPlace) -> Result<Server, Trouble> {
        let mut own = None;
        let way = match &place.reached {
            Reached::Backing { service, runtime, password } => {
                let found = backing(self.ports, self.app, service, *runtime).await?;
                own = password.as_ref().and_then(|password| self.own(&found.release, password));
                let runtime = self.ports.runtime(*runtime)?.clone();
                Way::Inside { runtime, app: self.app.clone(), instance: found.name }
            }
            Reached::Url { url, release } => {
                let values = values(self.layout, self.app, release)
                    .map_err(|failure| Trouble::plain(failure.to_string()))?;
                let url = url
                    .resolve(&Values(&values))
                    .map_err(|open| Trouble::plain(format!("the database's url: {open}")))?;
                Way::Outside { url: Secret::new(url) }
            }
        };
        Ok(Server { kind: place.kind, name: place.name.clone(), way, client: self.client, password: own })
    }

    /// The password of who we come as: what the release that made the instance says. That one is kept up when it is rotated, the instance is not.
    fn own(self, release: &ReleaseId, password: &Template) -> Option<Secret> {
        let values = values(self.layout, self.app, release).ok()?;
        let said = password.resolve(&Values(&values)).ok()?;
        // It is read as a line.
        let is_line = !said.is_empty() && !said.contains(['\n', '\r']);
        is_line.then(|| Secret::new(said))
    }
}

/// The same for a run.
pub(super) async fn located(act: &Act<'_>, place: &DatabasePlace) -> Result<Located, Trouble> {
    of(act).find(place).await
}

/// The absolute path of a database's file.
pub(super) async fn path(act: &Act<'_>, place: &FilePlace) -> Result<PathBuf, Trouble> {
    of(act).path(place).await
}

/// The way to a server.
pub(super) async fn server(act: &Act<'_>, place: &ServerPlace) -> Result<Server, Trouble> {
    of(act).server(place).await
}

fn of<'a>(act: &'a Act<'_>) -> Whereabouts<'a> {
    Whereabouts { ports: act.ports, layout: act.layout, app: act.app(), client: layout::OWN_CLIENT }
}

/// The path of a file in its volume, and nowhere else. The app writes there: by a link it could lead us, who may do more, to another app's files (S2).
fn below(volume: &Path, file: &str) -> Result<PathBuf, Trouble> {
    let path = volume.join(file);
    let folders = path.ancestors().skip(1).take_while(|folder| *folder != volume).map(Path::to_owned);
    let with_logs = ["", "-wal", "-shm", "-journal"].map(|ending| {
        let mut name = path.clone().into_os_string();
        name.push(ending);
        PathBuf::from(name)
    });
    match folders.chain(with_logs).find(|path| path.is_symlink()) {
        Some(link) => Err(Trouble {
            remedy: Some("put the file itself in the volume, in the place of the link"),
            ..Trouble::plain(format!(
                "{} is a link, which may lead out of the database's volume",
                link.display()
            ))
        }),
        None => Ok(path),
    }
}

/// The instance of a backing service that runs.
///
/// # Errors
/// None does.
pub(crate) async fn backing(
    ports: &Ports,
    app: &AppId,
    service: &ServiceName,
    runtime: RuntimeKind,
) -> Result<FoundInstance, Trouble> {
    let found = ports.runtime(runtime)?.list(app).await?;
    let found = found.into_iter().find(|found| {
        found.role == Role::Backing && found.service == *service && found.ours && found.is_running()
    });
    found.ok_or_else(|| Trouble::plain(format!("backing service `{service}` does not run")))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn given_a_link_on_the_way_or_beside_the_file_then_nobody_follows_it() {
        let (volume, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::create_dir(volume.path().join("data")).unwrap();
        std::fs::write(other.path().join("app.db"), "another app's").unwrap();
        assert_eq!(below(volume.path(), "data/app.db").unwrap(), volume.path().join("data/app.db"));

        for name in ["data/app.db", "data/app.db-wal", "data/app.db-journal"] {
            let link = volume.path().join(name);
            symlink(other.path().join("app.db"), &link).unwrap();
            let trouble = below(volume.path(), "data/app.db").unwrap_err();
            assert!(trouble.message.starts_with(&link.display().to_string()), "{trouble}");
            std::fs::remove_file(link).unwrap();
        }
        symlink(other.path(), volume.path().join("elsewhere")).unwrap();
        assert!(below(volume.path(), "elsewhere/app.db").is_err());
    }

    #[test]
    fn given_a_volume_that_lies_behind_a_link_of_the_hosts_own_then_its_files_are_found() {
        let (volume, above) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let link = above.path().join("volume");
        symlink(volume.path(), &link).unwrap();

        assert_eq!(below(&link, "app.db").unwrap(), link.join("app.db"));
    }
}

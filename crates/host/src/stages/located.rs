//! Where a database of a plan lies on this host: its file, or the way to its server.

use std::path::{Path, PathBuf};

use cutover_core::layout;
use cutover_core::names::{AppId, InstanceName, ReleaseId, ServiceName};
use cutover_core::plan::{DatabasePlace, FilePlace, Reached, ServerPlace};
use cutover_core::release::RuntimeKind;
use cutover_core::secret::{Secret, Secrets};
use cutover_core::state::Role;

use super::Act;
use crate::images::Values;
use crate::journal::Trouble;
use crate::ports::{Located, Ports, Server, Way};

/// Finds it.
///
/// # Errors
/// There is no such volume, or its server does not run.
pub(super) async fn located(act: &Act<'_>, place: &DatabasePlace) -> Result<Located, Trouble> {
    match place {
        DatabasePlace::File(place) => Ok(Located::File(path(act, place).await?)),
        DatabasePlace::Server(place) => Ok(Located::Server(server(act, place).await?)),
    }
}

/// The absolute path of a database's file.
pub(super) async fn path(act: &Act<'_>, place: &FilePlace) -> Result<PathBuf, Trouble> {
    let runtime = act.ports.runtime(place.volume.runtime)?;
    below(&runtime.volume_path(&place.volume).await?, &place.file)
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

/// The way to a server.
pub(super) async fn server(act: &Act<'_>, place: &ServerPlace) -> Result<Server, Trouble> {
    let values = |release: &ReleaseId| {
        act.values(release).map_err(|error| Trouble::plain(error.failure().to_string()))
    };
    reach(act.ports, act.app(), place, values, layout::OWN_CLIENT).await
}

/// The way to a server, outside a deploy too: `values` are those of a release, `client` is what we are called there.
///
/// # Errors
/// It does not run, or its url has no value.
pub(crate) async fn reach(
    ports: &Ports,
    app: &AppId,
    place: &ServerPlace,
    values: impl Fn(&ReleaseId) -> Result<Secrets, Trouble>,
    client: &'static str,
) -> Result<Server, Trouble> {
    let way = match &place.reached {
        Reached::Backing { service, runtime } => {
            let instance = backing(ports, app, service, *runtime).await?;
            Way::Inside { runtime: ports.runtime(*runtime)?.clone(), app: app.clone(), instance }
        }
        Reached::Url { url, release } => {
            let values = values(release)?;
            let url = url
                .resolve(&Values(&values))
                .map_err(|open| Trouble::plain(format!("the database's url: {open}")))?;
            Way::Outside { url: Secret::new(url) }
        }
    };
    Ok(Server { kind: place.kind, name: place.name.clone(), way, client })
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
) -> Result<InstanceName, Trouble> {
    let found = ports.runtime(runtime)?.list(app).await?;
    let found = found.into_iter().find(|found| {
        found.role == Role::Backing && found.service == *service && found.ours && found.is_running()
    });
    found
        .map(|found| found.name)
        .ok_or_else(|| Trouble::plain(format!("backing service `{service}` does not run")))
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

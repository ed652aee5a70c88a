//! Where a database of a plan lies on this host: its file, or the way to its server.

use std::path::PathBuf;

use cutover_core::names::{DatabaseName, ServiceName, VariableName};
use cutover_core::plan::{DatabasePlace, FilePlace, Reached, ServerPlace};
use cutover_core::secret::{Secret, Secrets};
use cutover_core::state::Role;
use cutover_core::template::Lookup;

use super::Act;
use crate::journal::Trouble;
use crate::ports::{Located, Server, Way};

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
    Ok(runtime.volume_path(&place.volume).await?.join(&place.file))
}

/// The way to a server.
pub(super) async fn server(act: &Act<'_>, place: &ServerPlace) -> Result<Server, Trouble> {
    let way = match &place.reached {
        Reached::Backing { service, runtime } => {
            let runtime = act.ports.runtime(*runtime)?;
            let found = runtime.list(act.app()).await?;
            let found = found.into_iter().find(|found| {
                found.role == Role::Backing && found.service == *service && found.ours && found.is_running()
            });
            let instance = found
                .ok_or_else(|| Trouble::plain(format!("backing service `{service}` does not run")))?
                .name;
            Way::Inside { runtime: runtime.clone(), app: act.app().clone(), instance }
        }
        Reached::Url { url, release } => {
            let values = act.values(release).map_err(|error| Trouble::plain(error.failure().to_string()))?;
            let url = url
                .resolve(&Known(&values))
                .map_err(|open| Trouble::plain(format!("the database's url: {open}")))?;
            Way::Outside { url: Secret::new(url) }
        }
    };
    Ok(Server { kind: place.kind, name: place.name.clone(), way })
}

/// The values of an env file, and nothing else.
struct Known<'a>(&'a Secrets);

impl Lookup for Known<'_> {
    fn variable(&self, name: &VariableName) -> Option<String> {
        Some(self.0.get(name)?.expose().to_owned())
    }

    fn service_url(&self, _: &ServiceName) -> Option<String> {
        None
    }

    fn database_file(&self, _: &DatabaseName) -> Option<String> {
        None
    }
}

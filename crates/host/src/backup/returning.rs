//! A host that was lost: what was on it comes to a new one. Volumes come into their places, which must be empty; dumps wait for the servers that the
//! first deploy starts, and are put into their empty databases before anything uses them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use cutover_core::backup::items;
use cutover_core::config::settings::ServerKind;
use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::layout::{self, BACKUP_CLIENT, Layout};
use cutover_core::names::AppId;
use cutover_core::plan::{Stage, VolumeSpec};
use cutover_core::release::RuntimeKind;

use super::dumps::{self, Fetched};
use super::gather::{failed, trouble, volume_path};
use super::manifest::{self, Found, VOLUMES};
use super::restic::{Listed, Restic};
use super::restore;
use super::work::doing;
use crate::blocking::blocking;
use crate::files::{self, FileError};
use crate::host::Host;
use crate::journal::StageError;
use crate::observe;
use crate::ports::Located;
use crate::stages::Act;
use crate::stages::located::Whereabouts;

/// Says which backup is on its way, from before anything of it is in its place until the first deploy has used it.
const BEGUN: &str = "backup";
/// Says that all of it is there.
const READY: &str = "ready";
/// Where dumps wait.
const DUMPS: &str = "dumps";
/// What stands behind the name of a volume that is in its place, and of a database that is being put back.
const PLACED: &str = "placed";
const BEGINS: &str = "begins";
/// Behind a database's name: the roles of its server that its dump names.
const ROLES: &str = "roles";

/// Brings all of a backup to a host that has nothing of the app; what lies where, a line each. Broken off, it goes on where it was when it is done
/// again.
pub(super) async fn all(
    host: &Host,
    app: &AppId,
    restic: &Restic,
    backup: &Listed,
    room: &Path,
) -> Result<Vec<String>, Failure> {
    refuse_live(host, app)?;
    let what = "the backup was not brought back";
    let because = |error: super::restic::ResticError| error.failure(what, restic.target());
    let found = manifest::read(restic, backup).await.map_err(because)?;
    let waiting = host.layout.returning(app);
    let goes_on = fs::read_to_string(waiting.join(BEGUN)).is_ok_and(|id| id == backup.id);
    let bytes = restore::refuse_without_room(restic, backup, &found, room).await?;
    let places = places(host, app, &found, goes_on).await?;
    let begun = || {
        files::ensure_folder(&waiting, 0o700)?;
        if !goes_on {
            clear(&waiting)?;
        }
        files::replace(&waiting.join(BEGUN), backup.id.as_bytes(), 0o600)
    };
    begun().map_err(|error| trouble(&error))?;
    let scratch = room.join("scratch");
    if places.iter().any(|place| !place.is_done) {
        restore::volumes(restic, backup, &found, bytes, &scratch).await?;
    }
    let mut lines = Vec::new();
    for place in places {
        lines.push(format!("volume {}: {}", place.name, place.path.display()));
        if !place.is_done {
            let from = scratch.join(VOLUMES).join(&place.name);
            let placed = marker(&waiting, &place.name, PLACED);
            let moved = blocking(move || put(&from, &place.path, &placed)).await;
            let moved = moved.map_err(|error| failed(what).because(error.to_string()))?;
            moved.map_err(|error| trouble(&error))?;
        }
    }
    let dumps = waiting.join(DUMPS);
    files::ensure_folder(&dumps, 0o700).map_err(|error| trouble(&error))?;
    for (name, dump) in &found.manifest.dumps {
        doing(format!("the dump of database {name} comes"));
        let to = dumps.join(name.as_str());
        let next = files::beside(&to);
        dumps::fetch(restic, app, dump, Fetched::Packed(dump.parts.clone()), &next).await.map_err(because)?;
        let roles = serde_json::to_vec(&dump.roles).unwrap_or_default();
        let placed = files::replace(&marker(&waiting, name.as_str(), ROLES), &roles, 0o600);
        placed.map_err(|error| trouble(&error))?;
        fs::rename(&next, &to).map_err(|error| trouble(&FileError::new("replace", &to, &error)))?;
        files::sync_folder(&dumps).map_err(|error| trouble(&error))?;
        lines.push(format!("database {name}: waits for its server, which `cutover deploy` starts"));
    }
    files::replace(&waiting.join(READY), backup.id.as_bytes(), 0o600).map_err(|error| trouble(&error))?;
    Ok(lines)
}

/// Takes away what another return left: it says nothing of this one. Killed meanwhile, there is a beginning with which no backup goes on, and on
/// which nothing goes live.
fn clear(waiting: &Path) -> Result<(), FileError> {
    files::remove(&waiting.join(READY))?;
    files::replace(&waiting.join(BEGUN), b"", 0o600)?;
    let failed = |error: io::Error| FileError::new("empty", waiting, &error);
    for entry in fs::read_dir(waiting).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let gone = if path.is_dir() {
            fs::remove_dir_all(&path)
        } else if path.file_name().is_some_and(|name| name == BEGUN) {
            Ok(())
        } else {
            fs::remove_file(&path)
        };
        gone.map_err(failed)?;
    }
    files::sync_folder(waiting)
}

fn marker(waiting: &Path, name: &str, word: &str) -> PathBuf {
    waiting.join(format!("{name}.{word}"))
}

/// Why nothing may go live here: only a part of a backup is there. `None`: nothing is on its way, or all of it is there.
pub(crate) fn half(layout: &Layout, app: &AppId) -> Option<Failure> {
    let waiting = layout.returning(app);
    if !waiting.join(BEGUN).exists() || waiting.join(READY).exists() {
        return None;
    }
    Some(
        Failure::new(Exit::Refused, "a backup is only partly back on this host")
            .because("`cutover backup restore --all` began and did not come to its end")
            .next("`cutover backup restore --all` once more: it goes on where it was")
            .next(format!(
                "or go without it: remove {} on the host, and look at what is in the volumes",
                waiting.display()
            )),
    )
}

fn refuse_live(host: &Host, app: &AppId) -> Result<(), Failure> {
    let Some(live) = observe::live_on_disk(&host.layout, app)? else { return Ok(()) };
    Err(Failure::new(Exit::Refused, "the backup was not brought back")
        .because(format!("release {} of {app} is live on this host: its data would be gone", live.release))
        .while_serving("what was serving goes on")
        .next("`cutover backup restore --to /srv/scratch` puts it beside"))
}

/// Where a volume comes to.
struct Place {
    name: String,
    path: PathBuf,
    /// It came there before this was broken off.
    is_done: bool,
}

/// Makes the volumes that are not there; one that has something in it is nobody's to replace.
async fn places(host: &Host, app: &AppId, found: &Found, goes_on: bool) -> Result<Vec<Place>, Failure> {
    let mut places = Vec::new();
    for (name, volume) in &found.manifest.volumes {
        let folder = host.layout.volume(app, name).display().to_string();
        let spec = match &volume.spec {
            // Whoever can write to the repository names no volume of another app.
            Some(spec) if spec.runtime == RuntimeKind::Container => {
                let own = layout::engine_volume(app, name);
                if !spec.external && spec.name != own {
                    return Err(Failure::new(Exit::Refused, "the backup was not brought back")
                        .because(format!(
                            "it says that volume `{name}` is the engine's `{}`; of {app} that is `{own}`",
                            spec.name
                        ))
                        .next("`cutover backup restore --to /srv/scratch` puts it beside"));
                }
                spec.clone()
            }
            Some(_) => VolumeSpec { runtime: RuntimeKind::Process, name: folder, external: false },
            None => {
                return Err(failed("the backup was not brought back")
                    .because(format!("it does not say what carried volume `{name}`"))
                    .next("`cutover backup restore --to /srv/scratch` puts it beside"));
            }
        };
        let made = async { host.ports.runtime(spec.runtime)?.ensure_volume(app, &spec).await };
        made.await.map_err(|error| {
            failed("the backup was not brought back")
                .because(format!("volume `{name}`: {error}"))
                .next("see that the container engine answers (`cutover doctor`), then try again")
        })?;
        let path = volume_path(host, name, &spec).await?;
        let is_empty = fs::read_dir(&path).is_ok_and(|mut entries| entries.next().is_none());
        if !is_empty && !goes_on {
            return Err(Failure::new(Exit::Refused, "the backup was not brought back")
                .because(format!("volume `{name}` has something in it: {}", path.display()))
                .while_serving("what was serving goes on")
                .next("this is for a host that has nothing of the app; `--to /srv/scratch` puts the backup beside")
                .next(format!("or take it away: `cutover remove --volumes -e {}`", app.environment)));
        }
        let is_done = marker(&host.layout.returning(app), name.as_str(), PLACED).exists();
        places.push(Place { name: name.to_string(), path, is_done: goes_on && is_done });
    }
    Ok(places)
}

/// Puts a folder in the place of one that is empty, at once, all of it on the disk; then that is on record.
fn put(from: &Path, to: &Path, placed: &Path) -> Result<(), FileError> {
    rustix::fs::sync();
    // What broke off before it was on record is no better than nothing.
    if fs::read_dir(to).is_ok_and(|mut entries| entries.next().is_some()) {
        let failed = |error: io::Error| FileError::new("empty", to, &error);
        fs::remove_dir_all(to).map_err(failed)?;
        fs::create_dir(to).map_err(failed)?;
    }
    move_to(from, to)?;
    files::sync_folder(files::folder_of(to))?;
    files::replace(placed, b"", 0o600)
}

fn move_to(from: &Path, to: &Path) -> Result<(), FileError> {
    let failed = |error: io::Error| FileError::new("move to", to, &error);
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {}
        moved => return moved.map_err(failed),
    }
    let beside = to.with_extension("cutover-restored");
    if beside.exists() {
        fs::remove_dir_all(&beside).map_err(failed)?;
    }
    let copied = Command::new("cp").arg("-a").arg("--").arg(from).arg(&beside).output().map_err(failed)?;
    if !copied.status.success() {
        let said = String::from_utf8_lossy(&copied.stderr).trim().to_owned();
        return Err(failed(io::Error::other(said)));
    }
    rustix::fs::sync();
    fs::rename(&beside, to).map_err(failed)
}

/// What waits for the servers of a release comes into their databases. Nothing of the app is live, so nobody uses them yet.
///
/// # Errors
/// A dump does not come back: the deploy ends, and it waits on.
pub(crate) async fn bring_back(act: &Act<'_>) -> Result<(), StageError> {
    let waiting = act.layout.returning(act.app());
    let Some(release) =
        act.plan.release.as_ref().filter(|_| waiting.join(READY).exists() && !act.goes_back())
    else {
        return Ok(());
    };
    let servers = items(release, &act.layout.state().display().to_string()).servers;
    for dump in files_of(&waiting.join(DUMPS)).map_err(|error| stays(&error.message, &waiting))? {
        let name = dump.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(item) = servers.iter().find(|item| item.name.as_str() == name) else {
            return Err(refused(&name, "this release has no such database", &dump));
        };
        let begins = marker(&waiting, &name, BEGINS);
        let brought = async {
            let whereabouts =
                Whereabouts { ports: act.ports, layout: act.layout, app: act.app(), client: BACKUP_CLIENT };
            let server = whereabouts.server(&item.place).await?;
            let tables = act.ports.database.look(&server).await?.tables;
            let has_begun = begins.exists();
            match item.place.kind {
                // Nobody uses it yet: with tables, before it began, it is somebody's.
                _ if tables > 0 && !has_begun => return Ok(false),
                // It is renamed at once: with tables, it is the one that came back.
                ServerKind::Postgres if tables > 0 => return Ok(true),
                // Definitions come after the tables: all of it is done again.
                ServerKind::Postgres | ServerKind::Mysql | ServerKind::Mariadb => {}
            }
            files::replace(&begins, b"", 0o600)?;
            // A new server has none of them, and what is theirs cannot be made without.
            let roles = fs::read(marker(&waiting, &name, ROLES)).unwrap_or_default();
            let roles: Vec<String> = serde_json::from_slice(&roles).unwrap_or_default();
            act.ports.database.make_roles(&server, &roles).await?;
            act.ports.database.restore(&dump, &Located::Server(server)).await?;
            Ok::<_, crate::journal::Trouble>(true)
        };
        let is_back = brought.await.map_err(|error| {
            let failure = Failure::new(Exit::Failed, format!("database `{name}` did not come back from its backup"))
                .because(error.to_string());
            failure
                .next("a role that is named above and is not there is made by hand in the server (`create role NAME`)")
                .next(format!("then deploy again: the dump waits at {}", dump.display()))
        })?;
        if !is_back {
            return Err(refused(&name, "the database has tables: nothing is put over them", &dump));
        }
        act.journal.note(Stage::Backing, format!("database `{name}` is back from its backup"))?;
        fs::remove_file(&dump).map_err(|error| stays(&error.to_string(), &dump))?;
    }
    fs::remove_dir_all(&waiting).map_err(|error| stays(&error.to_string(), &waiting).into())
}

fn files_of(folder: &Path) -> Result<Vec<PathBuf>, FileError> {
    let failed = |error: io::Error| FileError::new("look into", folder, &error);
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        // What came only in part is none.
        let is_hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        found.extend((!is_hidden).then_some(path));
    }
    found.sort();
    Ok(found)
}

fn refused(name: &str, why: &str, dump: &Path) -> StageError {
    Failure::new(Exit::Refused, format!("database `{name}` cannot come back from its backup"))
        .because(why)
        .next(format!(
            "the dump waits at {}; take away what is in the way, then deploy again",
            dump.display()
        ))
        .next("or remove that file to go without it; the backup stays as it is")
        .into()
}

fn stays(why: &str, path: &Path) -> Failure {
    Failure::new(Exit::Failed, "what came out of a backup cannot be taken away")
        .because(format!("{}: {why}", path.display()))
        .next("see that the host's disk is well, then deploy again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_return_left_is_gone_and_nothing_goes_live_meanwhile() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::under(folder.path());
        let app: AppId = "shop/local".parse().unwrap();
        let waiting = layout.returning(&app);
        fs::create_dir_all(waiting.join(DUMPS)).unwrap();
        fs::write(waiting.join(DUMPS).join("main"), "of the other").unwrap();
        for name in [BEGUN, READY, "main.begins", "main.roles", "data.placed"] {
            fs::write(waiting.join(name), "other").unwrap();
        }

        clear(&waiting).unwrap();

        let left: Vec<_> = fs::read_dir(&waiting).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, [BEGUN]);
        assert_eq!(fs::read_to_string(waiting.join(BEGUN)).unwrap(), "", "no backup goes on with it");
        assert!(half(&layout, &app).is_some());
    }
}

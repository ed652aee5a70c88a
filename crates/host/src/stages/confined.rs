//! What of the host stays within a rehearsal's reach: copies of its plain files, read only. A folder may hold a socket, and a socket leads to who listens
//! there, also by a mount that cannot be written and by whatever name; so each path is asked on the host what it is. A file is a copy,
//! since locks are taken on what can only be read, too, and the live app would wait for them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use cutover_core::config::settings::Mount;
use cutover_core::defaults::DISK_FREE;
use cutover_core::names::VolumeName;
use cutover_core::plan::InstanceSpec;

use crate::blocking::{Waiting, while_waited};
use crate::files::{self, FileError};
use crate::journal::Trouble;

/// Where files are no plain ones, whatever they call themselves: windows on processes, devices, and memory that others share.
const NO_FILES: [&str; 3] = ["/proc", "/sys", "/dev"];

/// The instance with the host's plain files, each as a copy in `folder`; in the place of every other path of the host is an empty volume of its own.
/// Where the engine keeps its data out of sight, its paths are not the ones that are seen from here, and none stays. Dropped, it copies no further.
///
/// # Errors
/// The paths could not be asked, or a file has no room for a copy of it, or cannot be read.
pub(super) async fn confined(
    spec: &InstanceSpec,
    engine: Option<&Path>,
    folder: PathBuf,
) -> Result<InstanceSpec, Unconfined> {
    let (mut spec, is_seen) = (spec.clone(), engine.is_some());
    let asked = while_waited(move |by| {
        let copy = |number: usize, path: &Path| match if is_seen { plain_file(path)? } else { None } {
            Some(file) => copy(&file, &folder, number, by).map(Some),
            None => Ok(None),
        };
        confine(&mut spec.settings.mounts, &mut spec.volumes, copy)?;
        Ok(spec)
    });
    asked.await.map_err(|error| {
        Unconfined::Trouble(Trouble::plain(format!("the paths that are mounted were not asked: {error}")))
    })?
}

/// What keeps an instance from being confined.
#[derive(Debug)]
pub(super) enum Unconfined {
    /// The engine may read a file, or look at a path, and who cutover runs as may not.
    Forbidden {
        /// Which.
        path: PathBuf,
        /// What was tried, and what the system said.
        error: FileError,
    },
    /// Anything else.
    Trouble(Trouble),
}

impl Unconfined {
    fn new(action: &str, path: &Path, error: &io::Error) -> Self {
        let told = FileError::new(action, path, error);
        match error.kind() {
            io::ErrorKind::PermissionDenied => Self::Forbidden { path: path.to_owned(), error: told },
            _ => told.into(),
        }
    }
}

impl From<FileError> for Unconfined {
    fn from(error: FileError) -> Self {
        Self::Trouble(error.into())
    }
}

fn confine(
    mounts: &mut [Mount],
    volumes: &mut BTreeMap<VolumeName, String>,
    copy: impl Fn(usize, &Path) -> Result<Option<PathBuf>, Unconfined>,
) -> Result<(), Unconfined> {
    for (number, mount) in (1..).zip(mounts) {
        let Mount::Host { source, target, read_only } = mount else { continue };
        let file = copy(number, Path::new(source))?.and_then(|file| file.into_os_string().into_string().ok());
        if let Some(file) = file {
            (*source, *read_only) = (file, true);
            continue;
        }
        // One that the author calls so would be an empty one of its own, too.
        let Ok(volume) = format!("confined-{number}").parse::<VolumeName>() else { continue };
        volumes.insert(volume.clone(), String::new());
        *mount = Mount::Volume { volume, target: std::mem::take(target), read_only: false };
    }
    Ok(())
}

const COPY: &str = "copy for the rehearsal";

/// A copy with the same rights. It goes with the run's folder, however the run ends.
fn copy(file: &Path, folder: &Path, number: usize, by: &Waiting) -> Result<PathBuf, Unconfined> {
    files::ensure_folder(folder, 0o700)?;
    let to = folder.join(number.to_string());
    let failed = |error: io::Error| FileError::new(COPY, file, &error);
    let from = File::open(file).map_err(|error| Unconfined::new(COPY, file, &error))?;
    let found = from.metadata().map_err(failed)?;
    if files::free(folder)?.saturating_sub(DISK_FREE) < found.len() {
        return Err(failed(io::ErrorKind::StorageFull.into()).into());
    }
    let mut target = files::private(&to).map_err(failed)?;
    // No more than there was when it was asked: it may be a log that grows.
    io::copy(&mut by.reads(from.take(found.len())), &mut target).map_err(failed)?;
    if let Err(error) = fchown(&target, Some(found.uid()), Some(found.gid())) {
        tracing::debug!(%error, file = %file.display(), "its copy is this user's");
    }
    target.set_permissions(fs::Permissions::from_mode(found.mode() & 0o777)).map_err(failed)?;
    Ok(to)
}

/// Where a plain file lies in truth; `None`: it is none, or is not there.
fn plain_file(path: &Path) -> Result<Option<PathBuf>, Unconfined> {
    let is_window = |place: &Path| NO_FILES.iter().any(|folder| place.starts_with(folder));
    let looked =
        fs::canonicalize(path).and_then(|place| Ok((fs::symlink_metadata(&place)?.is_file(), place)));
    match looked {
        Ok((is_file, place)) => Ok((is_file && !is_window(&place)).then_some(place)),
        // An empty volume in the place of a file would fail the migration, and not say why.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && !is_window(path) => {
            Err(Unconfined::new("look at", path, &error))
        }
        Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn given_paths_of_the_host_then_only_plain_files_stay_and_each_by_its_own_path() {
        let here = tempfile::tempdir().unwrap();
        let at = |name: &str| here.path().join(name);
        fs::create_dir(at("sockets")).unwrap();
        fs::write(at("tuning.conf"), "").unwrap();
        let _listens = UnixListener::bind(at("sockets/s")).unwrap();
        symlink(at("sockets"), at("by-link")).unwrap();
        symlink(at("sockets/s"), at("socket-by-link")).unwrap();
        symlink(at("tuning.conf"), at("file-by-link")).unwrap();
        let fifo = std::process::Command::new("mkfifo").arg(at("fifo")).status().unwrap();
        assert!(fifo.success());

        let file = fs::canonicalize(at("tuning.conf")).unwrap();
        let plain_file = |path: &Path| plain_file(path).unwrap();
        assert_eq!(plain_file(&at("tuning.conf")).as_ref(), Some(&file));
        assert_eq!(plain_file(&at("file-by-link")).as_ref(), Some(&file));
        assert_eq!(plain_file(&at("sockets/../tuning.conf")), Some(file));
        for none in
            ["sockets", "sockets/s", "by-link", "by-link/s", "socket-by-link", "sockets/..", "fifo", "absent"]
        {
            assert_eq!(plain_file(&at(none)), None, "{none}");
        }
        for none in ["/", "/proc/self/environ", "/proc/1/root/etc/hostname/..", "/dev/null", "/sys/kernel/mm"]
        {
            assert_eq!(plain_file(Path::new(none)), None, "{none}");
        }
    }

    #[test]
    fn given_what_is_mounted_then_what_does_not_stay_is_an_empty_volume_at_the_same_place() {
        let host = |source: &str, target: &str, read_only| Mount::Host {
            source: source.to_owned(),
            target: target.to_owned(),
            read_only,
        };
        let mut mounts = [
            host("/srv/link.conf", "/etc/tuning.conf", false),
            host("/srv/sockets", "/run/postgresql", true),
        ];
        let mut volumes = BTreeMap::new();

        confine(&mut mounts, &mut volumes, |number, path| {
            Ok(path.ends_with("link.conf").then(|| format!("/run/{number}").into()))
        })
        .unwrap();

        assert_eq!(mounts[0], host("/run/1", "/etc/tuning.conf", true));
        let Mount::Volume { volume, target, read_only: false } = &mounts[1] else { panic!("{mounts:?}") };
        assert_eq!((target.as_str(), volumes[volume].as_str()), ("/run/postgresql", ""));
    }

    #[tokio::test]
    async fn given_a_plain_file_then_its_copy_has_its_rights_and_neither_its_locks_nor_its_writes() {
        let (here, room) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let live = here.path().join("leader.lock");
        fs::write(&live, "live").unwrap();
        fs::set_permissions(&live, fs::Permissions::from_mode(0o664)).unwrap();

        let (file, files) = (live.clone(), room.path().join("files"));
        let copied = while_waited(move |by| copy(&file, &files, 3, by)).await.unwrap().unwrap();

        assert_eq!(copied, room.path().join("files/3"));
        assert_eq!(fs::metadata(&copied).unwrap().mode() & 0o7777, 0o664);
        let held = File::open(&copied).unwrap();
        held.lock().unwrap();
        File::open(&live).unwrap().try_lock().unwrap();
        fs::write(&copied, "rehearsed").unwrap();
        assert_eq!(fs::read_to_string(&live).unwrap(), "live");
    }

    #[test]
    fn given_what_this_user_may_not_read_then_that_is_told_from_other_trouble() {
        let of = |kind: io::ErrorKind| Unconfined::new(COPY, Path::new("/srv/db.key"), &kind.into());

        let forbidden = of(io::ErrorKind::PermissionDenied);

        assert!(matches!(&forbidden, Unconfined::Forbidden { path, .. } if path.ends_with("db.key")));
        assert!(matches!(of(io::ErrorKind::NotFound), Unconfined::Trouble(_)));
    }

    #[tokio::test]
    async fn given_that_nobody_waits_for_a_copy_any_more_then_it_does_not_go_on() {
        const LONG: u64 = 1 << 30;
        let (here, room) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (long, to) = (here.path().join("long"), room.path().join("1"));
        File::create(&long).unwrap().set_len(LONG).unwrap();
        let (done, came) = tokio::sync::oneshot::channel();
        let folder = room.path().to_owned();
        let copying = tokio::spawn(while_waited(move |by| done.send(copy(&long, &folder, 1, by)).is_ok()));
        while !to.exists() {
            tokio::task::yield_now().await;
        }

        copying.abort();

        let given_up = came.await.unwrap().unwrap_err();
        let Unconfined::Trouble(given_up) = given_up else { panic!("{given_up:?}") };
        assert!(given_up.message.contains("nobody waits"), "{given_up:?}");
        assert!(fs::metadata(&to).unwrap().len() < LONG);
    }

    #[tokio::test]
    async fn given_a_file_that_has_no_room_beside_itself_then_it_is_refused_before_it_fills_the_disk() {
        let (here, room) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let huge = here.path().join("huge");
        File::create(&huge).unwrap().set_len(1 << 42).unwrap();

        let folder = room.path().to_owned();
        let refused = while_waited(move |by| copy(&huge, &folder, 1, by)).await.unwrap().unwrap_err();

        let Unconfined::Trouble(refused) = refused else { panic!("{refused:?}") };
        assert!(
            refused.message.contains("huge") && refused.message.contains("no storage space"),
            "{refused:?}"
        );
        assert_eq!(fs::read_dir(room.path()).unwrap().count(), 0);
    }
}

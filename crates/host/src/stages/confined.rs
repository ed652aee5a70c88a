//! What of the host stays within a rehearsal's reach: its plain files, read only. A folder may hold a socket, and a socket leads to who listens there,
//! also by a mount that cannot be written and by whatever name; so each path is asked on the host what it is, and where in truth it lies.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use cutover_core::config::settings::Mount;
use cutover_core::names::VolumeName;
use cutover_core::plan::InstanceSpec;

use crate::blocking::blocking;
use crate::journal::Trouble;

/// Where files are no plain ones, whatever they call themselves: windows on processes, devices, and memory that others share.
const NO_FILES: [&str; 3] = ["/proc", "/sys", "/dev"];

/// The instance with the host's plain files, each by the path where it lies; in the place of every other path of the host is an empty volume of its own.
/// Where the engine keeps its data out of sight, its paths are not the ones that are seen from here, and none stays.
///
/// # Errors
/// The paths could not be asked.
pub(super) async fn confined(spec: &InstanceSpec, engine: Option<&Path>) -> Result<InstanceSpec, Trouble> {
    let (mut spec, is_seen) = (spec.clone(), engine.is_some());
    let asked = blocking(move || {
        let plain = |path: &Path| if is_seen { plain_file(path) } else { None };
        confine(&mut spec.settings.mounts, &mut spec.volumes, plain);
        spec
    });
    asked.await.map_err(|error| Trouble::plain(format!("the paths that are mounted were not asked: {error}")))
}

fn confine(
    mounts: &mut [Mount],
    volumes: &mut BTreeMap<VolumeName, String>,
    plain: impl Fn(&Path) -> Option<PathBuf>,
) {
    for (number, mount) in (1..).zip(mounts) {
        let Mount::Host { source, target, read_only } = mount else { continue };
        let file = plain(Path::new(source)).and_then(|file| file.into_os_string().into_string().ok());
        if let Some(file) = file {
            (*source, *read_only) = (file, true);
            continue;
        }
        // One that the author calls so would be an empty one of its own, too.
        let Ok(volume) = format!("confined-{number}").parse::<VolumeName>() else { continue };
        volumes.insert(volume.clone(), String::new());
        *mount = Mount::Volume { volume, target: std::mem::take(target), read_only: false };
    }
}

/// Where a plain file lies in truth; `None`: it is none, or is not there.
fn plain_file(path: &Path) -> Option<PathBuf> {
    let place = fs::canonicalize(path).ok()?;
    let is_file = fs::symlink_metadata(&place).is_ok_and(|found| found.is_file());
    (is_file && !NO_FILES.iter().any(|folder| place.starts_with(folder))).then_some(place)
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

        confine(&mut mounts, &mut volumes, |path| {
            path.ends_with("link.conf").then(|| "/srv/tuning.conf".into())
        });

        assert_eq!(mounts[0], host("/srv/tuning.conf", "/etc/tuning.conf", true));
        let Mount::Volume { volume, target, read_only: false } = &mounts[1] else { panic!("{mounts:?}") };
        assert_eq!((target.as_str(), volumes[volume].as_str()), ("/run/postgresql", ""));
    }
}

//! One `CUTOVER_ROOT` on one host: where it lies, its id, its salt. Made once, then only read.

use std::fs;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use cutover_core::layout::Layout;
use cutover_core::variables;
use serde::{Deserialize, Serialize};

use crate::file_system::network_file_system;
use crate::files::{self, FileError};
use crate::up;

/// The version of the file that this build writes.
const VERSION: u32 = 1;
/// A socket's path has at most so many bytes.
const SOCKET_PATH: usize = 107;
/// The longest name of a socket below the folder of sockets, with its slash.
const SOCKET_NAME: usize = "/k0123456789ab".len();

/// Who this installation is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installation {
    version: u32,
    /// Tells what is ours from what another installation made (S6).
    pub id: String,
    /// For hashes of variables (S28): without it a hash of a short value could be guessed.
    pub salt: String,
}

/// Why an installation cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InstallationError {
    /// Its files lie on another machine.
    #[error("{} lies on a network file system ({kind}), where locks cannot be trusted", path.display())]
    Network {
        /// Which folder.
        path: PathBuf,
        /// Which kind.
        kind: String,
    },
    /// No socket can be made in its folder.
    #[error("the path {} is too long for sockets: it may have {} bytes", path.display(), SOCKET_PATH - SOCKET_NAME)]
    Long {
        /// The folder of sockets.
        path: PathBuf,
    },
    /// The folder that should hold it is not there: a disk that is not mounted, or a typing error. What lies on the disk would be missed,
    /// and another installation begun in its place.
    #[error("{} is not there, and CUTOVER_ROOT lies below it", parent.display())]
    NoParent {
        /// The folder that should hold it.
        parent: PathBuf,
    },
    /// A newer build made it.
    #[error("the installation is of version {found}, this cutover-host knows {VERSION}")]
    Newer {
        /// Its version.
        found: u32,
    },
    /// Its file says nothing that makes sense.
    #[error("{} cannot be read: {problem}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A folder or file of it cannot be made.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is no folder for this user's state.
    #[error(
        "there is no folder for the state of this user: neither CUTOVER_ROOT, XDG_STATE_HOME nor HOME is set"
    )]
    NoHome,
}

impl InstallationError {
    /// What helps.
    pub fn next(&self) -> Vec<String> {
        match self {
            Self::Network { .. } => vec!["set CUTOVER_ROOT to a folder on a disk of this machine".to_owned()],
            Self::NoParent { .. } => {
                vec!["mount or make that folder, or set CUTOVER_ROOT to another one".to_owned()]
            }
            Self::Long { .. } => vec!["set CUTOVER_ROOT to a shorter path".to_owned()],
            Self::Newer { .. } => vec!["install the newer cutover and cutover-host again".to_owned()],
            Self::Unreadable { path, .. } => vec![format!(
                "put a copy of {} back; without it, nothing that runs would be known as ours",
                path.display()
            )],
            Self::File(_) => vec!["see that the folder can be written by this user, and has room".to_owned()],
            Self::NoHome => vec!["set CUTOVER_ROOT to a folder".to_owned()],
        }
    }
}

impl Installation {
    /// The installation that lies there; made where there is none, with its folders.
    ///
    /// # Errors
    /// When it lies where it cannot be trusted, cannot be read, or cannot be made.
    pub fn open(layout: &Layout) -> Result<Self, InstallationError> {
        let path = layout.run().to_owned();
        if path.as_os_str().len() + SOCKET_NAME > SOCKET_PATH {
            return Err(InstallationError::Long { path });
        }
        if let Some(kind) = network_file_system(layout.state()) {
            return Err(InstallationError::Network { path: layout.state().to_owned(), kind });
        }
        for folder in folders(layout) {
            files::ensure_folder(&folder, 0o700)?;
        }
        let path = layout.installation();
        match read(&path)? {
            Some(found) => Ok(found),
            None => make(&path),
        }
    }
}

/// The salt of the installation that lies there.
pub(crate) fn salt(layout: &Layout) -> Result<String, InstallationError> {
    let path = layout.installation();
    let problem = "it is not there".to_owned();
    Ok(read(&path)?.ok_or(InstallationError::Unreadable { path, problem })?.salt)
}

/// Nobody but their owner looks into them: env files, sockets and logs lie there.
fn folders(layout: &Layout) -> [PathBuf; 6] {
    [
        layout.state().to_owned(),
        layout.locks(),
        layout.proxy(),
        layout.backups().to_owned(),
        layout.logs().to_owned(),
        layout.run().to_owned(),
    ]
}

fn read(path: &Path) -> Result<Option<Installation>, InstallationError> {
    let unreadable = |problem: String| InstallationError::Unreadable { path: path.to_owned(), problem };
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error.to_string())),
    };
    let value: serde_json::Value =
        serde_json::from_slice(&text).map_err(|error| unreadable(error.to_string()))?;
    let found = value.get("version").and_then(serde_json::Value::as_u64).unwrap_or_default();
    if found > u64::from(VERSION) {
        return Err(InstallationError::Newer { found: u32::try_from(found).unwrap_or(u32::MAX) });
    }
    serde_json::from_value(value).map(Some).map_err(|error| unreadable(error.to_string()))
}

/// Two processes may come first at once: the file appears whole and is never replaced, so one of them wins and both read the same.
fn make(path: &Path) -> Result<Installation, InstallationError> {
    let failed = |error: io::Error| FileError::new("make", path, &error);
    let made = Installation {
        version: VERSION,
        id: uuid::Uuid::now_v7().to_string(),
        salt: random().map_err(failed)?,
    };
    let next = files::beside(path);
    let text = serde_json::to_vec(&made).map_err(|error| failed(error.into()))?;
    let linked = files::private(&next)
        .and_then(|mut file| {
            file.write_all(&text)?;
            file.sync_all()
        })
        .and_then(|()| fs::hard_link(&next, path));
    files::discard(&next);
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error).into()),
        Ok(()) | Err(_) => {}
    }
    files::sync_folder(files::folder_of(path))?;
    let problem = "it was made and is gone".to_owned();
    read(path)?.ok_or_else(|| InstallationError::Unreadable { path: path.to_owned(), problem })
}

/// 32 digits from the kernel's random numbers.
fn random() -> io::Result<String> {
    let mut bytes = [0_u8; 16];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat())
}

/// Where this process's installation lies: under `CUTOVER_ROOT`; else in the system's own places for root, in the user's own for others.
///
/// # Errors
/// When nothing says where a user's state lies.
pub fn layout_from_environment() -> Result<Layout, InstallationError> {
    let given = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let root = given(variables::ROOT);
    let is_root = rustix::process::geteuid().is_root();
    layout_of(root, is_root, given("XDG_STATE_HOME"), given("HOME"))
}

fn layout_of(
    root: Option<PathBuf>,
    is_root: bool,
    state: Option<PathBuf>,
    home: Option<PathBuf>,
) -> Result<Layout, InstallationError> {
    if let Some(root) = root {
        // What is started from here runs in other folders.
        let whole = std::path::absolute(&root).map_err(|error| FileError::new("find", &root, &error))?;
        return match whole.parent() {
            Some(parent) if !parent.is_dir() => {
                Err(InstallationError::NoParent { parent: parent.to_owned() })
            }
            _ => Ok(Layout::under(&whole)),
        };
    }
    if is_root {
        return Ok(Layout::system());
    }
    let state =
        state.filter(|path| path.is_absolute()).or_else(|| home.map(|home| home.join(".local/state")));
    state.map(|state| Layout::under(&state.join("cutover"))).ok_or(InstallationError::NoHome)
}

/// Where the proxy takes plain HTTP: where it listens, or where it would.
pub fn http_listener_address(layout: &Layout) -> Option<SocketAddr> {
    let listening = up::listeners(layout).first().copied();
    listening.or_else(|| up::http_addresses(layout).ok()?.first().copied())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn root() -> (tempfile::TempDir, Layout) {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::under(&folder.path().join("root"));
        (folder, layout)
    }

    #[test]
    fn it_is_made_once_and_nobody_else_may_look_into_it() {
        let (folder, layout) = root();

        let first = Installation::open(&layout).unwrap();

        assert_eq!(Installation::open(&layout).unwrap(), first);
        assert_eq!((first.id.len(), first.salt.len()), (36, 32));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert!(folders(&layout).iter().all(|path| mode(path) == 0o700));
        assert_eq!(mode(&layout.installation()), 0o600);
        let beside = fs::read_dir(layout.state()).unwrap().count();
        assert_eq!(beside, 3, "locks, proxy, and the file");
        drop(folder);
    }

    #[test]
    fn many_who_come_first_at_once_are_one_installation() {
        let (_folder, layout) = root();
        let found = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..8).map(|_| scope.spawn(|| Installation::open(&layout).unwrap())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });

        assert!(found.iter().all(|installation| *installation == found[0]));
    }

    #[test]
    fn a_newer_or_broken_one_is_refused_and_stays() {
        let (_folder, layout) = root();
        Installation::open(&layout).unwrap();
        for (text, message) in [
            (r#"{"version":2,"id":"x","salt":"y"}"#, "the installation is of version 2"),
            ("", "installation.json cannot be read"),
        ] {
            fs::write(layout.installation(), text).unwrap();
            let error = Installation::open(&layout).unwrap_err();
            assert!(error.to_string().contains(message), "{error}");
            assert!(!error.next().is_empty());
            assert_eq!(fs::read_to_string(layout.installation()).unwrap(), text);
        }
    }

    #[test]
    fn the_file_of_version_one_is_read() {
        let (_folder, layout) = root();
        files::ensure_folder(layout.state(), 0o700).unwrap();
        fs::write(layout.installation(), include_bytes!("../fixtures/installation_v1.json")).unwrap();

        let found = Installation::open(&layout).unwrap();

        assert_eq!(found.id, "019a9f3e-0000-7000-8000-000000000000");
        assert_eq!(found.salt, "00112233445566778899aabbccddeeff");
    }

    #[test]
    fn a_path_too_long_for_sockets_is_refused_before_anything_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("x".repeat(100));

        let error = Installation::open(&Layout::under(&root)).unwrap_err();

        assert!(matches!(error, InstallationError::Long { .. }), "{error}");
        assert!(!root.exists());
    }

    #[test]
    fn the_longest_socket_is_a_keepers() {
        let layout = Layout::under(Path::new("/r"));
        let app = "shop/production".parse().unwrap();
        let keeper = layout.keeper_socket(&app, &"web-blue-1-00000001".parse().unwrap());

        assert_eq!(keeper.as_os_str().len(), layout.run().as_os_str().len() + SOCKET_NAME);
        assert!(layout.proxy_socket().as_os_str().len() <= keeper.as_os_str().len());
    }

    #[test]
    fn the_root_wins_then_rights_then_the_users_own_folders() {
        let path = |text: &str| Some(PathBuf::from(text));
        let state = |root, is_root, state, home| {
            layout_of(root, is_root, state, home).map(|layout| layout.state().display().to_string()).ok()
        };
        assert_eq!(state(path("/r"), true, None, None).as_deref(), Some("/r/lib"));
        assert_eq!(state(None, true, path("/s"), path("/h")).as_deref(), Some("/var/lib/cutover"));
        assert_eq!(state(None, false, path("/s"), path("/h")).as_deref(), Some("/s/cutover/lib"));
        assert_eq!(state(None, false, path("s"), path("/h")).as_deref(), Some("/h/.local/state/cutover/lib"));
        assert_eq!(state(None, false, None, None), None);
        assert!(state(path("r"), false, None, None).unwrap().starts_with('/'));
        assert_eq!(state(path("/not/there/r"), true, None, None), None);
    }
}

//! The folder of one instance: what it was made from, its values, its restart policy, what its keeper last said. The keeper and the runtime
//! both go through here; which of them writes what is said beside each file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use cutover_core::env_file;
use cutover_core::plan::InstanceSpec;
use cutover_core::secret::Secrets;
use cutover_core::state::{ExitStatus, RestartPolicy};
use jiff::Timestamp;
use rustix::process::{Flock, FlockType};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::processes::ProcessId;
use crate::files::{self, FileError};

/// The version of the three files of JSON.
pub(super) const VERSION: u32 = 1;

const SPEC: &str = "spec.json";
const VALUES: &str = "env";
const POLICY: &str = "policy.json";
const STATE: &str = "state.json";
const LOCK: &str = "keeper.lock";

/// Why a file of an instance could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum FolderError {
    /// The system refused.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is not what it should be. The text never shows values.
    #[error("{} cannot be read: {problem}", path.display())]
    Format { path: PathBuf, problem: String },
    /// A newer cutover wrote it.
    #[error("{} has version {found}, this cutover knows {VERSION}", path.display())]
    Newer { path: PathBuf, found: u32 },
    /// Something outside of what we can see holds the keeper's lock.
    #[error("{} is locked by a process that cannot be seen from here", path.display())]
    Unseen { path: PathBuf },
}

/// What an instance was made from: written once, by `create`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) version: u32,
    /// The installation it belongs to (S6).
    pub(super) installation: String,
    /// Where its keeper answers.
    pub(super) socket: PathBuf,
    /// Where its output goes.
    pub(super) log: PathBuf,
    /// The folder of its artifact.
    pub(super) artifact: PathBuf,
    pub(super) spec: InstanceSpec,
}

/// Whether it is started again: written by the runtime. Absent: never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Restart {
    pub(super) version: u32,
    pub(super) policy: RestartPolicy,
    /// Stopped through cutover: until it is started through cutover, the policy sleeps.
    pub(super) stopped: bool,
}

impl Restart {
    /// What holds now.
    pub(super) fn effective(self) -> RestartPolicy {
        if self.stopped { RestartPolicy::No } else { self.policy }
    }
}

/// What the keeper last said: written by the keeper, and by the runtime once no keeper lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) version: u32,
    /// The boot it speaks of.
    pub(super) boot: String,
    /// The keeper, whose pid is also the session of all it started.
    pub(super) keeper: ProcessId,
    /// Times the policy started it again.
    pub(super) restarts: u32,
    pub(super) phase: Phase,
}

/// What an instance does, as its keeper sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub(super) enum Phase {
    /// The keeper lives, the process not yet.
    Starting,
    /// The process is there.
    Running { child: ProcessId, since: Timestamp },
    /// It is being stopped, or what it left behind is.
    Ending { child: ProcessId, since: Timestamp },
    /// It ended and will be started again.
    Restarting { exit: ExitStatus },
    /// It ended for good.
    Exited { exit: ExitStatus },
}

/// One instance's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Folder {
    path: PathBuf,
}

impl Folder {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn exists(&self) -> bool {
        self.path.is_dir()
    }

    pub(super) fn keeper_log(&self) -> PathBuf {
        self.path.join("keeper.log")
    }

    /// The FIFO of one stream.
    pub(super) fn fifo(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Fills a folder that is not yet in its place; all of it is durable, the folder's own name is the caller's.
    pub(super) fn fill(&self, record: &Record, values: &Secrets) -> Result<(), FolderError> {
        let spec = serde_json::to_vec(record).unwrap_or_default();
        let values = values.to_env_file();
        for (name, bytes) in [(SPEC, spec.as_slice()), (VALUES, values.as_bytes())] {
            let path = self.path.join(name);
            let written = files::private(&path).and_then(|mut file| {
                file.write_all(bytes)?;
                file.sync_all()
            });
            written.map_err(|error| FileError::new("write", &path, &error))?;
        }
        Ok(files::sync_folder(&self.path)?)
    }

    pub(super) fn record(&self) -> Result<Record, FolderError> {
        let path = self.path.join(SPEC);
        self.read(SPEC)?
            .ok_or_else(|| FolderError::Format { path, problem: "there is no such file".to_owned() })
    }

    /// The variables of the instance with their values.
    pub(super) fn values(&self) -> Result<Secrets, FolderError> {
        let path = self.path.join(VALUES);
        let text = fs::read_to_string(&path).map_err(|error| FileError::new("read", &path, &error))?;
        env_file::parse(&text).map_err(|errors| FolderError::Format {
            path,
            problem: errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
        })
    }

    pub(super) fn restart(&self) -> Result<Restart, FolderError> {
        let absent = Restart { version: VERSION, policy: RestartPolicy::No, stopped: false };
        Ok(self.read(POLICY)?.unwrap_or(absent))
    }

    pub(super) fn set_restart(&self, policy: RestartPolicy) -> Result<(), FolderError> {
        let before = self.restart()?;
        self.change_restart(before, Restart { policy, ..before })
    }

    /// Notes durably that it was stopped, or started, through cutover. A disk without room does not keep a stop from being noted: the policy
    /// is taken away instead.
    pub(super) fn set_stopped(&self, stopped: bool) -> Result<(), FolderError> {
        let before = self.restart()?;
        if stopped && before.policy == RestartPolicy::No {
            return Ok(());
        }
        match self.change_restart(before, Restart { stopped, ..before }) {
            Err(FolderError::File(error)) if error.full && stopped => {
                Ok(files::remove(&self.path.join(POLICY))?)
            }
            changed => changed,
        }
    }

    fn change_restart(&self, before: Restart, after: Restart) -> Result<(), FolderError> {
        if before == after { Ok(()) } else { self.write(POLICY, &after) }
    }

    /// What the keeper last said; nothing where it never spoke or a power loss cut it: then the processes themselves are asked.
    pub(super) fn state(&self) -> Option<State> {
        self.read(STATE).unwrap_or_else(|error| {
            tracing::warn!(%error, "what a keeper last said is lost");
            None
        })
    }

    /// Keeps what is true now over a crash of the keeper; a reboot makes it void anyway.
    pub(super) fn note_state(&self, state: &State) -> Result<(), FolderError> {
        let text = serde_json::to_vec(state).unwrap_or_default();
        Ok(files::swap(&self.path.join(STATE), &text)?)
    }

    /// Keeps an end over a power loss, too.
    pub(super) fn record_state(&self, state: &State) -> Result<(), FolderError> {
        self.write(STATE, state)
    }

    /// Makes the lock file of the keeper; tells whether it is new, which it is only before the first start.
    pub(super) fn make_lock(&self) -> Result<bool, FolderError> {
        let path = self.path.join(LOCK);
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(FileError::new("make", &path, &error).into()),
        }
    }

    /// Whether anybody ever tried to start it.
    pub(super) fn was_started(&self) -> Result<bool, FolderError> {
        let path = self.path.join(LOCK);
        path.try_exists().map_err(|error| FileError::new("look for", &path, &error).into())
    }

    /// Opens the lock file. It carries two locks that do not see each other: the keeper's, which belongs to its process and is given up by
    /// closing any descriptor of the file, and that of whoever starts the instance, which belongs to the descriptor.
    pub(super) fn open_lock(&self) -> Result<File, FolderError> {
        let path = self.path.join(LOCK);
        let opened = OpenOptions::new().read(true).write(true).open(&path);
        opened.map_err(|error| FileError::new("open", &path, &error).into())
    }

    /// The keeper that lives, told by the kernel from the lock it holds; asking does not touch the lock.
    pub(super) fn keeper(&self) -> Result<Option<ProcessId>, FolderError> {
        let path = self.path.join(LOCK);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(FileError::new("open", &path, &error).into()),
        };
        let held = rustix::process::fcntl_getlk(&file, &Flock::from(FlockType::WriteLock))
            .map_err(|error| FileError::new("ask the lock of", &path, &error.into()))?;
        match held {
            None => Ok(None),
            Some(Flock { pid: Some(pid), .. }) => Ok(ProcessId::of(pid.as_raw_nonzero().get())),
            Some(Flock { pid: None, .. }) => Err(FolderError::Unseen { path }),
        }
    }

    fn write<T: Serialize>(&self, name: &str, value: &T) -> Result<(), FolderError> {
        let text = serde_json::to_vec(value).unwrap_or_default();
        Ok(files::replace(&self.path.join(name), &text, 0o600)?)
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, FolderError> {
        let path = self.path.join(name);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(FileError::new("read", &path, &error).into()),
        };
        let format =
            |error: serde_json::Error| FolderError::Format { path: path.clone(), problem: error.to_string() };
        let Versioned { version } = serde_json::from_slice(&text).map_err(format)?;
        if version > VERSION {
            return Err(FolderError::Newer { path, found: version });
        }
        serde_json::from_slice(&text).map(Some).map_err(format)
    }
}

/// What every file has, whatever its version.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

//! Makes the folder of an instance, and takes it away. Made means durable and inert: nothing runs, nothing will run after a reboot (S4).

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown};
use std::path::{Path, PathBuf};

use cutover_core::layout::rotated;
use cutover_core::names::{AppId, InstanceName};
use cutover_core::plan::InstanceSpec;
use cutover_core::release::Content;
use cutover_core::secret::Secrets;

use super::folder::{Folder, Record, VERSION};
use super::launch::User;
use super::output::{self, STREAMS};
use super::runtime::ProcessRuntime;
use super::{launch, protocol, signals};
use crate::files::{self, FileError};
use crate::ports::{Certainty, RuntimeError, RuntimeErrorKind};

/// Makes an instance; one that was made from the same specification is left as it is.
pub(super) fn create(
    runtime: &ProcessRuntime,
    spec: &InstanceSpec,
    values: &Secrets,
) -> Result<(), RuntimeError> {
    let folder = runtime.folder(&spec.app, &spec.name);
    if folder.exists() {
        return same(&folder, runtime, spec);
    }
    let record = record(runtime, spec)?;
    if let Some(user) = launch::user(spec)? {
        open_ways(runtime, &record, &user)?;
    }
    let filled = launch::fill(spec, &runtime.installation, values)?;
    files::ensure_folder(files::folder_of(&record.log), 0o700)?;
    let instances = runtime.layout.instances(&spec.app);
    files::ensure_folder(&instances, 0o700)?;
    sweep(&instances, &spec.name);
    let next = passing(&instances, "new", &spec.name);
    let placed = fill(&next, &record, &filled).and_then(|()| place(&next, folder.path()));
    if placed.is_err() {
        sweep(&instances, &spec.name);
    }
    match placed {
        // Another came first; ours is as good only when it is the same.
        Err(_) if folder.exists() => same(&folder, runtime, spec),
        placed => placed,
    }
}

/// Removes what is left of an instance, its log included. It is out of its place at once, before its files go.
pub(super) fn remove(runtime: &ProcessRuntime, app: &AppId, name: &InstanceName) -> Result<(), RuntimeError> {
    let instances = runtime.layout.instances(app);
    let folder = runtime.folder(app, name);
    if folder.exists() {
        let gone = passing(&instances, "gone", name);
        place(folder.path(), &gone)?;
    }
    sweep(&instances, name);
    files::discard(&runtime.layout.keeper_socket(app, name));
    let log = runtime.layout.instance_log(app, name);
    for number in 0..=cutover_core::defaults::LOG_FILES {
        files::discard(&rotated(&log, number));
    }
    Ok(())
}

/// What will stand in the folder, after everything that can be found wrong beforehand.
fn record(runtime: &ProcessRuntime, spec: &InstanceSpec) -> Result<Record, RuntimeError> {
    let refused = |message| RuntimeError::new(RuntimeErrorKind::Refused, Certainty::NotDone, message);
    let Content::Artifact { hash } = &spec.content else {
        return Err(refused(format!("instance `{}` is made of an image: it needs an engine", spec.name)));
    };
    let artifact = runtime.layout.artifact(hash);
    if !artifact.is_dir() {
        return Err(launch::LaunchError::NoArtifact(artifact).into());
    }
    if let Some(signal) = spec.settings.stop.signal.as_deref()
        && signals::parse(signal).is_none()
    {
        return Err(refused(format!("`{signal}` is no signal that stops a process")));
    }
    launch::user(spec)?;
    let socket = runtime.layout.keeper_socket(&spec.app, &spec.name);
    protocol::check_socket(&socket).map_err(refused)?;
    Ok(Record {
        version: VERSION,
        installation: runtime.installation.clone(),
        socket,
        log: runtime.layout.instance_log(&spec.app, &spec.name),
        artifact,
        spec: spec.clone(),
    })
}

/// Another user comes to the artifact and the volumes of the instance; a volume that is still ours alone becomes that user's.
fn open_ways(runtime: &ProcessRuntime, record: &Record, user: &User) -> Result<(), RuntimeError> {
    let state = runtime.layout.state();
    files::let_through(state, &record.artifact)?;
    for volume in record.spec.volumes.values().map(Path::new).filter(|volume| volume.is_dir()) {
        files::let_through(state, volume)?;
        let failed = |error: io::Error| FileError::new("give a user the volume", volume, &error);
        if fs::metadata(volume).map_err(failed)?.uid() == rustix::process::geteuid().as_raw() {
            chown(volume, Some(user.uid), Some(user.gid)).map_err(failed)?;
        }
    }
    Ok(())
}

fn same(folder: &Folder, runtime: &ProcessRuntime, spec: &InstanceSpec) -> Result<(), RuntimeError> {
    let record = folder.record()?;
    if record.installation == runtime.installation && record.spec.hash() == spec.hash() {
        return Ok(());
    }
    Err(RuntimeError::new(
        RuntimeErrorKind::Exists,
        Certainty::NotDone,
        format!("instance `{}` of {} is there, made from another specification", spec.name, spec.app),
    ))
}

fn fill(next: &Path, record: &Record, values: &Secrets) -> Result<(), RuntimeError> {
    DirBuilder::new()
        .mode(0o700)
        .create(next)
        .map_err(|error| FileError::new("make the folder", next, &error))?;
    let folder = Folder::new(next.to_owned());
    for (name, _) in STREAMS {
        let fifo = folder.fifo(name);
        output::make_fifo(&fifo, None).map_err(|error| FileError::new("make", &fifo, &error))?;
    }
    Ok(folder.fill(record, values)?)
}

fn place(from: &Path, to: &Path) -> Result<(), RuntimeError> {
    fs::rename(from, to).map_err(|error| FileError::new("rename", from, &error))?;
    Ok(files::sync_folder(files::folder_of(to))?)
}

/// The name of a folder on its way in or out.
fn passing(instances: &Path, way: &str, name: &InstanceName) -> PathBuf {
    instances.join(format!(".{way}-{name}-{}", uuid::Uuid::now_v7().simple()))
}

/// Takes away what earlier tries left on their way in or out.
fn sweep(instances: &Path, name: &InstanceName) {
    let prefixes = [format!(".new-{name}-"), format!(".gone-{name}-")];
    let Ok(entries) = fs::read_dir(instances) else { return };
    for entry in entries.filter_map(Result::ok) {
        let passing = entry.file_name();
        let ours = prefixes.iter().any(|prefix| passing.to_string_lossy().starts_with(prefix.as_str()));
        if ours
            && let Err(error) = fs::remove_dir_all(entry.path())
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(folder = %entry.path().display(), %error, "a left-over could not be removed");
        }
    }
}

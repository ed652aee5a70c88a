//! Instances: made, started, stopped, looked at. Every act looks first, so that it can be repeated.

use std::time::Duration;

use async_trait::async_trait;
use cutover_core::config::settings::StopSettings;
use cutover_core::names::{AppId, InstanceName};
use cutover_core::plan::{InstanceSpec, NetworkSpec, NetworkUse, VolumeSpec};
use cutover_core::release::{BuiltImage, RuntimeKind};
use cutover_core::retention::HeldImage;
use cutover_core::secret::{Secret, Secrets};
use cutover_core::state::{ExitStatus, FoundEngine, FoundImage, FoundInstance, RestartPolicy};
use jiff::Timestamp;

use super::{Attached, Certainty, TerminalSize};

/// What carries instances.
#[async_trait]
pub trait Runtime: Send + Sync {
    /// Which kind it is.
    fn kind(&self) -> RuntimeKind;

    /// Every instance of the app, whatever its state and role. An engine that does not answer is an error, never an empty list (S4a).
    async fn list(&self, app: &AppId) -> Result<Vec<FoundInstance>, RuntimeError>;

    /// One instance; `None`: there is none of this name.
    async fn inspect(&self, app: &AppId, name: &InstanceName) -> Result<Option<FoundInstance>, RuntimeError>;

    /// Makes an instance, inert and without restart policy (S4). One of this name with the same specification is left as it is; one with
    /// another is an error of kind [`RuntimeErrorKind::Exists`]. `values` fill its open references.
    async fn create(&self, spec: &InstanceSpec, values: &Secrets) -> Result<(), RuntimeError>;

    /// Starts it; what is left of an earlier start is ended first (S10). Already running: nothing.
    async fn start(&self, app: &AppId, name: &InstanceName) -> Result<(), RuntimeError>;

    /// Stops it: signal, grace, kill of all of it; returns when it is gone. No such instance, or not running: nothing.
    async fn stop(&self, app: &AppId, name: &InstanceName, stop: &StopSettings) -> Result<(), RuntimeError>;

    /// Stops it as [`Runtime::stop`] does, and returns when its processes have ended. What the runtime takes apart after that (its networks, its
    /// mounts) may still be under way; [`Runtime::remove`] waits for it.
    async fn end(&self, app: &AppId, name: &InstanceName, stop: &StopSettings) -> Result<(), RuntimeError> {
        self.stop(app, name, stop).await
    }

    /// Stops all of it where it is; returns when it has. Paused already: nothing.
    async fn pause(&self, _app: &AppId, name: &InstanceName) -> Result<(), RuntimeError> {
        let message = format!("{name} cannot be paused");
        Err(RuntimeError::new(RuntimeErrorKind::Refused, Certainty::NotDone, message))
    }

    /// Lets it go on from there. No such instance, or not paused: nothing.
    async fn resume(&self, _app: &AppId, _name: &InstanceName) -> Result<(), RuntimeError> {
        Ok(())
    }

    /// Removes what a stopped one left. No such instance: nothing. One that runs is an error.
    async fn remove(&self, app: &AppId, name: &InstanceName) -> Result<(), RuntimeError>;

    /// Says durably whether it is started again after an exit and a reboot.
    async fn set_restart(
        &self,
        app: &AppId,
        name: &InstanceName,
        policy: RestartPolicy,
    ) -> Result<(), RuntimeError>;

    /// Waits for its end and tells it; at once, where it has ended. Heard from the engine's events or the keeper, not found by polling.
    async fn exited(&self, app: &AppId, name: &InstanceName) -> Result<ExitStatus, RuntimeError>;

    /// Whether something supervises the instance and would start it again. An engine supervises all it runs.
    async fn is_kept(&self, _app: &AppId, _name: &InstanceName) -> Result<bool, RuntimeError> {
        Ok(true)
    }

    /// Waits until nothing supervises it any more.
    async fn unkept(&self, _app: &AppId, _name: &InstanceName) -> Result<(), RuntimeError> {
        std::future::pending().await
    }

    /// Log lines, oldest first.
    async fn logs(
        &self,
        app: &AppId,
        name: &InstanceName,
        query: &LogQuery,
    ) -> Result<Vec<LogLine>, RuntimeError>;

    /// Runs a command in it and waits for its end, at most `timeout`.
    async fn exec(&self, app: &AppId, name: &InstanceName, exec: &Exec) -> Result<Finished, RuntimeError>;

    /// Starts a command in it, whose streams the caller carries; with a `terminal` it gets one of that size.
    async fn attach(
        &self,
        _app: &AppId,
        name: &InstanceName,
        _words: &[String],
        _terminal: Option<TerminalSize>,
    ) -> Result<Attached, RuntimeError> {
        Err(RuntimeError::new(
            RuntimeErrorKind::Refused,
            Certainty::NotDone,
            format!("{name} takes no input"),
        ))
    }

    /// Makes and starts a fresh instance whose streams the caller carries, and who takes it away afterwards, too.
    async fn attach_fresh(
        &self,
        spec: &InstanceSpec,
        _values: &Secrets,
        _terminal: Option<TerminalSize>,
    ) -> Result<Attached, RuntimeError> {
        let message = format!("{} takes no input", spec.name);
        Err(RuntimeError::new(RuntimeErrorKind::Refused, Certainty::NotDone, message))
    }

    /// TCP ports on which anything in it listens, with the address (to tell "loopback only" and "another port" apart).
    async fn listening(
        &self,
        app: &AppId,
        name: &InstanceName,
    ) -> Result<Vec<std::net::SocketAddr>, RuntimeError>;

    /// The command of the instance's own health check, as words; `None`: it has none.
    async fn health_command(
        &self,
        _app: &AppId,
        _name: &InstanceName,
    ) -> Result<Option<Vec<String>>, RuntimeError> {
        Ok(None)
    }

    /// The file of the network namespace the running instance has for itself (`/proc/…/ns/net`); `None`: it shares the host's.
    async fn network_namespace(
        &self,
        _app: &AppId,
        _name: &InstanceName,
    ) -> Result<Option<std::path::PathBuf>, RuntimeError> {
        Ok(None)
    }

    /// An image by reference or id; `None`: it is not on this host. Plain processes have none.
    async fn image(&self, _reference: &str) -> Result<Option<FoundImage>, RuntimeError> {
        Ok(None)
    }

    /// Fetches an image from its registry, and tells what came. `doing` hears what is going on. Kind [`RuntimeErrorKind::Content`] where
    /// the registry has none such.
    async fn fetch_image(
        &self,
        request: &ImageRequest,
        _doing: &mut Doing<'_>,
    ) -> Result<FoundImage, RuntimeError> {
        let message = format!("image {}: plain processes have no images", request.reference);
        Err(RuntimeError::new(RuntimeErrorKind::Refused, Certainty::NotDone, message))
    }

    /// Takes its name from an image that we built, and removes it where it has no other and no container uses it; absent: nothing.
    async fn remove_image(&self, _image: &BuiltImage) -> Result<(), RuntimeError> {
        Ok(())
    }

    /// Every image it has, with the containers that use it; none of the app's own where another installation has that app here, too (S6). Plain
    /// processes have none.
    async fn images(&self, _app: &AppId) -> Result<Vec<HeldImage>, RuntimeError> {
        Ok(Vec::new())
    }

    /// Where on this host it keeps images and volumes of its own; `None`: nowhere, or out of sight.
    async fn data_folder(&self) -> Option<std::path::PathBuf> {
        None
    }

    /// What the engine is and has, as one app sees it; `None` where there is no engine.
    async fn engine(&self, _app: &AppId) -> Result<Option<FoundEngine>, RuntimeError> {
        Ok(None)
    }

    /// Makes a network where it is absent. One with another subnet, and a subnet that somebody else uses, is `Exists`.
    async fn ensure_network(&self, network: &NetworkSpec) -> Result<(), RuntimeError>;

    /// Lets a running instance join a network; already there: nothing.
    async fn join(&self, app: &AppId, name: &InstanceName, network: &NetworkUse) -> Result<(), RuntimeError>;

    /// Lets it leave; not there: nothing.
    async fn leave(&self, app: &AppId, name: &InstanceName, network: &str) -> Result<(), RuntimeError>;

    /// Removes a network of ours; absent: nothing.
    async fn remove_network(&self, name: &str) -> Result<(), RuntimeError>;

    /// Makes a volume where it is absent (an external one must be there).
    async fn ensure_volume(&self, app: &AppId, volume: &VolumeSpec) -> Result<(), RuntimeError>;

    /// Removes a volume of ours and what is in it; absent: nothing.
    async fn remove_volume(&self, volume: &VolumeSpec) -> Result<(), RuntimeError>;

    /// The folder on this host where a volume's files lie.
    async fn volume_path(&self, volume: &VolumeSpec) -> Result<std::path::PathBuf, RuntimeError>;
}

/// Hears what is going on while something takes long.
pub type Doing<'a> = dyn FnMut(&str) + Send + 'a;

/// An image to be fetched.
#[derive(Debug, Clone)]
pub struct ImageRequest {
    /// Registry, name, and tag or digest.
    pub reference: String,
    /// `linux/amd64` …; `None`: the engine's own.
    pub platform: Option<String>,
    /// Who asks; used only where the image is of that registry.
    pub login: Option<Login>,
}

/// Who asks a registry.
#[derive(Debug, Clone, PartialEq)]
pub struct Login {
    /// The registry.
    pub server: String,
    /// The account.
    pub username: String,
    /// Its password or token.
    pub password: Secret,
}

/// Which log lines.
#[derive(Debug, Clone, Default)]
pub struct LogQuery {
    /// Not older.
    pub since: Option<Timestamp>,
    /// At most so many, the newest.
    pub tail: Option<usize>,
    /// Only of the instance's newest start.
    pub scope: Scope,
}

/// Which starts of an instance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Scope {
    /// All.
    #[default]
    All,
    /// The newest one.
    ThisStart,
}

/// A line an instance wrote. Not redacted yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// When.
    pub at: Option<Timestamp>,
    /// On the standard error stream.
    pub error: bool,
    /// Itself, without its end.
    pub text: String,
}

/// A command to run in an instance.
#[derive(Debug, Clone)]
pub struct Exec {
    /// Words.
    pub words: Vec<String>,
    /// How long it may take.
    pub timeout: Duration,
}

/// How a command ended.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Its end.
    pub exit: ExitStatus,
    /// The end of what it wrote, both streams. Not redacted yet.
    pub output: Vec<String>,
}

/// Why a runtime did not do it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct RuntimeError {
    /// What kind of trouble.
    pub kind: RuntimeErrorKind,
    /// Whether it may have happened all the same.
    pub certainty: Certainty,
    /// In the runtime's words, without secrets.
    pub message: String,
}

/// Kinds of trouble that decide what is done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuntimeErrorKind {
    /// There is no such thing.
    Gone,
    /// Something else has that name or address.
    Exists,
    /// The disk is full.
    Full,
    /// The runtime does not answer.
    Unreachable,
    /// The content (image, artifact, command) is not there or cannot run.
    Content,
    /// It took too long.
    Late,
    /// The runtime will not do this.
    Refused,
    /// Anything else.
    Other,
}

impl RuntimeError {
    /// An error from its parts.
    pub fn new(kind: RuntimeErrorKind, certainty: Certainty, message: impl Into<String>) -> Self {
        Self { kind, certainty, message: message.into() }
    }
}

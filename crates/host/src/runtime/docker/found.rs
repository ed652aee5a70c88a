//! What the engine shows of a container, as an instance: who it is from its labels, how it is from its state.

use cutover_core::hash::ContentHash;
use cutover_core::layout::{self, label};
use cutover_core::names::AppId;
use cutover_core::release::RuntimeKind;
use cutover_core::state::{ExitStatus, FoundInstance, InstanceState, RestartPolicy, Role};
use cutover_engine::{Container, Exit, RestartPolicy as EnginePolicy, State};

use super::error::refused;
use crate::ports::RuntimeError;
use crate::runtime::memory;

/// The container as an instance; `None`: it is none, whatever labels it has. One made from an image that was committed from an instance carries
/// that instance's labels, but not its name.
///
/// # Errors
/// When it is ours and its labels cannot be read: then a look is not complete (S4a).
pub(super) fn instance(
    container: &Container,
    installation: &str,
) -> Result<Option<FoundInstance>, RuntimeError> {
    let ours = belongs(container, installation);
    match read(container, ours) {
        Some(found) => {
            let named =
                owner(container).is_some_and(|app| layout::container(&app, &found.name) == container.name);
            Ok(named.then_some(found))
        }
        None if ours && container.name.starts_with("cutover-") => Err(refused(format!(
            "container {} carries this installation's labels, but they cannot be read: it was made by another version of cutover, or by hand",
            container.name
        ))),
        None => Ok(None),
    }
}

/// Whether this installation made it (S6).
pub(super) fn belongs(container: &Container, installation: &str) -> bool {
    container.labels.get(label::INSTALLATION).is_some_and(|found| found == installation)
}

fn owner(container: &Container) -> Option<AppId> {
    container.labels.get(label::APP)?.parse().ok()
}

fn read(container: &Container, ours: bool) -> Option<FoundInstance> {
    let text = |name: &str| container.labels.get(name).map(String::as_str);
    Some(FoundInstance {
        name: text(label::INSTANCE)?.parse().ok()?,
        service: text(label::SERVICE)?.parse().ok()?,
        role: role(text(label::ROLE)?)?,
        release: text(label::RELEASE)?.parse().ok()?,
        slot: text(label::SLOT)?.parse().ok()?,
        replica: text(label::REPLICA)?.parse().ok()?,
        run: text(label::RUN)?.parse().ok()?,
        runtime: RuntimeKind::Container,
        spec: ContentHash::from_hex(text(label::SPEC)?)?,
        address: text(label::ADDRESS).and_then(|address| address.parse().ok()),
        state: state(container),
        restart: restart(container.restart),
        ours,
    })
}

/// What a container is for.
pub(super) fn role(text: &str) -> Option<Role> {
    [Role::Service, Role::Backing, Role::OneOff].into_iter().find(|role| layout::role_text(*role) == text)
}

fn state(container: &Container) -> InstanceState {
    let restarts = u32::try_from(container.restarts).unwrap_or(u32::MAX);
    let ended = |exit| exit_status(exit, &container.id);
    match &container.state {
        State::Created => InstanceState::Created,
        // Frozen by somebody: its process is there all the same.
        State::Running | State::Paused => {
            InstanceState::Running { since: container.started_at.unwrap_or_default(), restarts }
        }
        State::Restarting(exit) => InstanceState::Restarting { exit: ended(exit), restarts },
        State::Exited(exit) | State::Dead(exit) => InstanceState::Exited { exit: ended(exit) },
        // Its name is still taken, so it is still there.
        State::Removing => InstanceState::Exited { exit: ended(&Exit::default()) },
    }
}

/// How a container ended. The engine tells a signal as 128 and its number. That memory was wanted it is told by the kernel,
/// and at times nobody tells it (containerd's issue 8893): the kernel's log has it all the same.
pub(super) fn exit_status(exit: &Exit, id: &str) -> ExitStatus {
    let signal = exit.signal().and_then(|signal| i32::try_from(signal).ok());
    let in_kernels_log =
        || signal == Some(rustix::process::Signal::KILL.as_raw()) && memory::had_victim(id, exit.finished_at);
    ExitStatus {
        code: if signal.is_some() { None } else { i32::try_from(exit.code).ok() },
        signal,
        out_of_memory: exit.out_of_memory || in_kernels_log(),
        error: (!exit.error.is_empty()).then(|| exit.error.clone()),
        at: exit.finished_at,
    }
}

fn restart(policy: EnginePolicy) -> RestartPolicy {
    match policy {
        EnginePolicy::No => RestartPolicy::No,
        EnginePolicy::Always | EnginePolicy::UnlessStopped | EnginePolicy::OnFailure { .. } => {
            RestartPolicy::UnlessStopped
        }
    }
}

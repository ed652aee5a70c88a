//! Starts and stops instances, and says whether they are started again. Always in this order: stopped, seen gone, then started (S9, S10).

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::process::Stdio;
use std::time::Duration;

use cutover_core::config::settings::StopSettings;
use cutover_core::names::{AppId, InstanceName};
use cutover_core::state::RestartPolicy;
use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use super::exits::unknown;
use super::folder::{Folder, Phase, Record, State};
use super::launch::INHERITED;
use super::leftovers::Search;
use super::processes::ProcessId;
use super::protocol::{self, Answer, Ask, Message, Report};
use super::runtime::ProcessRuntime;
use super::signals;
use crate::ports::{Certainty, RuntimeError, RuntimeErrorKind};
use crate::setup;

/// For a new keeper to report.
const REPORT: Duration = Duration::from_secs(10);

/// For a keeper to answer what takes it no time; one that does not is taken for hung.
const ANSWER: Duration = Duration::from_secs(5);

/// For a keeper that hung up to be gone: it waits two seconds at most for those whom it answered last.
const FAREWELL: Duration = Duration::from_secs(5);

/// For the kernel to end what was killed, beyond the grace.
const KILL: Duration = Duration::from_secs(10);

/// The longest grace for what an earlier start left, when the same instance is to start again: requests may be held meanwhile.
const LEFTOVER_GRACE: Duration = Duration::from_secs(5);

/// So many times something else may come in between.
const TRIES: usize = 5;

/// Starts an instance under a keeper of its own; already running: nothing.
pub(super) async fn start(
    runtime: &ProcessRuntime,
    app: &AppId,
    name: &InstanceName,
) -> Result<(), RuntimeError> {
    let (folder, record) = runtime.existing(app, name)?;
    folder.set_stopped(false)?;
    let first = folder.make_lock()?;
    let _alone = alone(&folder).await?;
    for attempt in 0..TRIES {
        if let Some(keeper) = folder.keeper()? {
            match protocol::ask_within(keeper, &record.socket, Ask::Start, ANSWER).await {
                Ok(Answer::State { state }) => return began(&state.phase),
                Ok(Answer::Exit { .. } | Answer::Refused { .. }) => gone(keeper).await?,
                Err(_) => dismiss(keeper).await?,
            }
        }
        if !first || attempt > 0 {
            let settings = &record.spec.settings.stop;
            let grace = settings.grace.min(LEFTOVER_GRACE);
            search(runtime, &folder, &record).end(signal(settings), grace).await?;
        }
        match keep(runtime, &folder).await? {
            Report::Started => return Ok(()),
            Report::Taken => {}
            Report::NotExecuted { error } => return Err(content(error)),
            Report::Failed { error } => {
                return Err(other(format!("the keeper of `{name}` could not begin: {error}")));
            }
        }
    }
    Err(other(format!("instance `{name}` of {app} is started and stopped by somebody else at the same time")))
}

/// Stops an instance and all that it started; returns when it is gone. Its policy sleeps until it is started again.
pub(super) async fn stop(
    runtime: &ProcessRuntime,
    app: &AppId,
    name: &InstanceName,
    settings: &StopSettings,
) -> Result<(), RuntimeError> {
    if !runtime.folder(app, name).exists() {
        return Ok(());
    }
    let (folder, record) = runtime.existing(app, name)?;
    folder.set_stopped(true)?;
    ask_to_stop(&folder, &record, settings).await?;
    if !folder.was_started()? {
        return Ok(());
    }
    let _alone = alone(&folder).await?;
    // Somebody may have started it until we were alone.
    ask_to_stop(&folder, &record, settings).await?;
    end_orphan(runtime, &folder, &record, settings).await
}

/// Stops it by its keeper, where one lives, and waits for the keeper's end.
async fn ask_to_stop(folder: &Folder, record: &Record, settings: &StopSettings) -> Result<(), RuntimeError> {
    let Some(keeper) = folder.keeper()? else { return Ok(()) };
    let grace_ms = u64::try_from(settings.grace.as_millis()).unwrap_or(u64::MAX);
    let ask = Ask::Stop { signal: signal(settings).as_raw(), grace_ms };
    match protocol::ask_within(keeper, &record.socket, ask, settings.grace.saturating_add(KILL)).await {
        Ok(_) => gone(keeper).await,
        Err(_) => dismiss(keeper).await,
    }
}

/// Ends what a killed keeper left: it could end neither the instance nor its record. A keeper that ended in order left nothing of its own;
/// what a killed run had begun beside the instance, a command of its gate say, ends with the instance, too.
async fn end_orphan(
    runtime: &ProcessRuntime,
    folder: &Folder,
    record: &Record,
    settings: &StopSettings,
) -> Result<(), RuntimeError> {
    let state = folder.state();
    let left = search(runtime, folder, record);
    if matches!(&state, Some(State { phase: Phase::Exited { .. }, .. })) {
        return Ok(left.end(Signal::KILL, Duration::ZERO).await.map(drop)?);
    }
    left.end(signal(settings), settings.grace).await?;
    // It is gone, whether or not there is room to say so: a look finds its process gone, too.
    if let Some(state) = state
        && let Err(error) = folder.record_state(&State { phase: Phase::Exited { exit: unknown() }, ..state })
    {
        tracing::warn!(%error, "the end of an instance could not be recorded");
    }
    Ok(())
}

/// Waits until nobody else starts the instance or ends what is left of it. A keeper that has just been started is not to be taken for a
/// left-over by another start.
async fn alone(folder: &Folder) -> Result<File, RuntimeError> {
    let file = folder.open_lock()?;
    let locked = tokio::task::spawn_blocking(move || file.lock().map(|()| file)).await;
    match locked {
        Ok(Ok(file)) => Ok(file),
        Ok(Err(error)) => Err(other(format!("the start of an instance cannot be locked: {error}"))),
        Err(error) => Err(other(error.to_string())),
    }
}

/// Says durably whether it is started again, to its folder and to its keeper.
pub(super) async fn set_restart(
    runtime: &ProcessRuntime,
    app: &AppId,
    name: &InstanceName,
    policy: RestartPolicy,
) -> Result<(), RuntimeError> {
    let (folder, record) = runtime.existing(app, name)?;
    folder.set_restart(policy)?;
    let Some(keeper) = folder.keeper()? else { return Ok(()) };
    let told = protocol::ask_within(keeper, &record.socket, Ask::Policy { policy }, ANSWER).await;
    let problem = match told {
        Ok(Answer::State { .. }) => return Ok(()),
        Ok(answer) => format!("the keeper of `{name}` answered {answer:?}"),
        Err(error) => format!("the keeper of `{name}` does not answer: {error}"),
    };
    // One that is ending with its instance hangs up first and is gone a moment later; then the folder says it all.
    match tokio::time::timeout(FAREWELL, gone(keeper)).await {
        Ok(gone) => gone,
        Err(_) => Err(unreachable(problem)),
    }
}

/// Waits until a keeper has ended.
pub(super) async fn gone(keeper: ProcessId) -> Result<(), RuntimeError> {
    let unheard = |error| other(format!("the end of keeper {} cannot be heard: {error}", keeper.pid));
    match keeper.open().map_err(unheard)? {
        Some(handle) => handle.ended().await.map_err(unheard),
        None => Ok(()),
    }
}

/// Ends a keeper that does not answer; what it kept is then a left-over like any other.
async fn dismiss(keeper: ProcessId) -> Result<(), RuntimeError> {
    let failed = |error| other(format!("keeper {} cannot be ended: {error}", keeper.pid));
    let Some(handle) = keeper.open().map_err(failed)? else { return Ok(()) };
    tracing::warn!(pid = keeper.pid, "a keeper does not answer and is ended");
    handle.signal(Signal::KILL).map_err(failed)?;
    if handle.ended_within(KILL).await.map_err(failed)? {
        return Ok(());
    }
    let text = format!("keeper {} was killed and does not end", keeper.pid);
    Err(RuntimeError::new(RuntimeErrorKind::Late, Certainty::Unknown, text))
}

/// Starts a keeper and waits for its report. It leaves our session by itself, first thing.
async fn keep(runtime: &ProcessRuntime, folder: &Folder) -> Result<Report, RuntimeError> {
    let log = folder.keeper_log();
    let errors = OpenOptions::new().create(true).append(true).mode(0o600).open(&log);
    let errors = errors.map_or_else(
        |error| {
            tracing::warn!(file = %log.display(), %error, "a keeper speaks to nobody");
            Stdio::null()
        },
        Stdio::from,
    );
    // A name of its own each time: the unit of a keeper that was killed is not gone yet when the next one begins.
    let unit = format!("cutover-keep-{}", uuid::Uuid::now_v7());
    let mut command = Command::from(setup::scope(&runtime.layout, &unit, &runtime.host_binary));
    command.arg("keep").arg(folder.path()).current_dir("/").env_clear();
    command.envs(INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors);
    let mut keeper = command.spawn().map_err(|error| {
        other(format!("the keeper {} cannot be executed: {error}", runtime.host_binary.display()))
    })?;
    let mut line = String::new();
    if let Some(output) = keeper.stdout.take() {
        let reading = tokio::time::timeout(REPORT, BufReader::new(output).read_line(&mut line)).await;
        match reading {
            Ok(read) => {
                read.map_err(|error| unreachable(format!("a new keeper cannot be heard: {error}")))?
            }
            Err(_) => return Err(unreachable("a new keeper did not report in time".to_owned())),
        };
    }
    match serde_json::from_str::<Message<Report>>(&line) {
        Ok(message) => Ok(message.body),
        Err(_) => Err(unreachable(format!("a new keeper ended before it reported; see {}", log.display()))),
    }
}

/// Whether what a keeper was asked to start is there now.
fn began(phase: &Phase) -> Result<(), RuntimeError> {
    match phase {
        Phase::Restarting { exit } | Phase::Exited { exit } => match &exit.error {
            Some(error) => Err(content(error.clone())),
            None => Ok(()),
        },
        Phase::Starting | Phase::Running { .. } | Phase::Ending { .. } => Ok(()),
    }
}

fn search(runtime: &ProcessRuntime, folder: &Folder, record: &Record) -> Search {
    Search::new(record, folder.state().as_ref(), &runtime.boot)
}

fn signal(settings: &StopSettings) -> Signal {
    signals::stop(settings.signal.as_deref())
}

fn content(error: String) -> RuntimeError {
    RuntimeError::new(RuntimeErrorKind::Content, Certainty::NotDone, error)
}

fn other(message: String) -> RuntimeError {
    RuntimeError::new(RuntimeErrorKind::Other, Certainty::Unknown, message)
}

fn unreachable(message: String) -> RuntimeError {
    RuntimeError::new(RuntimeErrorKind::Unreachable, Certainty::Unknown, message)
}

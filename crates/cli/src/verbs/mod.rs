//! The verbs, a file each. Every one reads as a list of steps: what is looked at, decided, asked, sent, followed.

mod approval;
mod attach;
mod backing;
mod backup;
mod check;
mod completion;
mod deploy;
mod diff;
mod doctor;
mod env;
mod exec;
mod key;
mod lifecycle;
mod logs;
mod migrate;
mod prune;
mod records;
mod run;
mod secrets;
mod setup;
mod snapshot;
mod status;
mod stop;
mod trust;
mod tunnel;

use std::collections::{BTreeMap, BTreeSet};

use cutover_core::exit::Exit;
use cutover_core::names::{AppId, RunId};
use cutover_core::plan::Verb;
use cutover_core::request::Stamp;
use cutover_core::state::{HostState, World};
use cutover_core::wire::{Ask, Reply};

use crate::asked::{Command, Conduct, Place};
use crate::hosts::{self, Channel, HostError, Opening, Target, unexpected};
use crate::render::Output;
use crate::sources::{Identity, Project};

pub(crate) use attach::AttachArguments;
pub(crate) use backing::BackingWord;
pub(crate) use backup::BackupWord;
pub(crate) use check::CheckArguments;
pub(crate) use completion::{CompletionArguments, ManArguments};
pub(crate) use doctor::{Finding, Level};
pub(crate) use env::EnvWord;
pub(crate) use exec::ExecArguments;
pub(crate) use key::KeyWord;
pub(crate) use logs::LogsArguments;
pub(crate) use migrate::MigrateWord;
pub(crate) use prune::PruneArguments;
pub(crate) use records::HistoryArguments;
pub(crate) use secrets::SecretsWord;
pub(crate) use setup::{ServerArguments, SetupArguments};
pub(crate) use snapshot::{SnapshotAsked, SnapshotWord};
pub(crate) use status::StatusArguments;
pub(crate) use stop::Stop;
pub(crate) use tunnel::TunnelArguments;

/// What every verb needs: which app and environment it is about, and where its answer goes.
#[derive(Debug, Clone)]
pub(crate) struct Desk {
    pub(crate) place: Place,
    pub(crate) output: Output,
}

/// How a verb ended: what the process exits with.
pub(crate) type Ended = Result<u8, Stop>;

/// Does what was asked.
pub(crate) fn carry_out(desk: &Desk, command: Command) -> Ended {
    // Verbs that need no host need no runtime either: they answer at once.
    match command {
        Command::Check { variables } => check::check(desk, &variables),
        Command::Schema => check::schema(desk),
        Command::Completion { shell } => completion::completion(desk, shell),
        Command::Man { out } => completion::man(desk, out.as_deref()),
        other => {
            let runtime = runtime()?;
            let ended = runtime.block_on(with_host(desk, other));
            // A thread that waits for standard input does not keep us.
            runtime.shutdown_background();
            ended
        }
    }
}

async fn with_host(desk: &Desk, command: Command) -> Ended {
    match command {
        Command::Check { .. } | Command::Schema | Command::Completion { .. } | Command::Man { .. } => {
            Ok(Exit::Failed.code())
        }
        Command::Change(asked) => match asked.request.verb {
            Verb::Deploy | Verb::MigrateRehearse => deploy::deploy(desk, *asked).await,
            Verb::Environment => env::change(desk, *asked).await,
            Verb::SecretsRotate => secrets::rotate(desk, *asked).await,
            Verb::Rollback
            | Verb::Restart
            | Verb::Start
            | Verb::Stop
            | Verb::Remove
            | Verb::BackingApply
            | Verb::BackingRestart
            | Verb::Prune
            | Verb::SnapshotCreate
            | Verb::SnapshotRestore
            | Verb::SnapshotPrune => lifecycle::lifecycle(desk, *asked).await,
        },
        Command::Status { check } => status::status(desk, check).await,
        Command::History { limit } => records::history(desk, limit).await,
        Command::Releases => records::releases(desk).await,
        Command::Lock => records::lock(desk).await,
        Command::Logs(asked) => logs::logs(desk, asked).await,
        Command::Exec(asked) => exec::exec(desk, asked).await,
        Command::Tunnel(asked) => tunnel::tunnel(desk, asked).await,
        Command::Doctor => doctor::doctor(desk).await,
        Command::Diff => diff::diff(desk).await,
        Command::EnvDiff => env::diff(desk).await,
        Command::EnvList => env::list(desk).await,
        Command::Attach { run } => attach::attach(desk, run).await,
        Command::Cancel { by } => attach::cancel(desk, by).await,
        Command::Server(asked) => setup::server(desk, asked).await,
        Command::Backup(asked) => backup::backup(desk, *asked).await,
        Command::Snapshot(asked) => snapshot::snapshot(desk, asked).await,
        Command::Key(asked) => key::key(desk, asked).await,
    }
}

/// Two threads are plenty: one waits for a session, or for a person; the other gives signs of life meanwhile.
fn runtime() -> Result<tokio::runtime::Runtime, Stop> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?)
}

/// The app a verb is about, and a conversation with the host it runs on.
async fn reach(desk: &Desk) -> Result<(AppId, Channel), Stop> {
    let project = Project::open(&desk.place)?;
    let identity = project.identity(&desk.place)?;
    Ok((identity.id, hosts::open(&identity.target).await?))
}

/// The same, and asks in the same breath.
async fn reach_asking(desk: &Desk, ask: impl FnOnce(&AppId) -> Ask) -> Result<(AppId, Channel), Stop> {
    let project = Project::open(&desk.place)?;
    let Identity { id, target, .. } = project.identity(&desk.place)?;
    let channel = hosts::begin(&target)?.open_asking(&ask(&id)).await?;
    Ok((id, channel))
}

/// Begins the conversation and looks at the host: in one breath, unless the lock is to be waited for in between.
async fn look(
    desk: &Desk,
    opening: Opening,
    app: &AppId,
    images: BTreeSet<String>,
    conduct: Conduct,
) -> Result<(Channel, HostState), Stop> {
    let ask = Ask::Observe { app: app.clone(), images };
    let mut host = if conduct.wait {
        let mut host = opening.open().await?;
        run::wait_for_lock(desk, &mut host, app).await?;
        host.ask(&ask).await?;
        host
    } else {
        opening.open_asking(&ask).await?
    };
    let state = seen(&mut host).await?;
    for remark in &state.remarks {
        desk.output.talk(&format!("warning: {remark}"));
    }
    Ok((host, state))
}

/// Looks at the host again.
async fn observe(channel: &mut Channel, app: &AppId, images: BTreeSet<String>) -> Result<HostState, Stop> {
    channel.ask(&Ask::Observe { app: app.clone(), images }).await?;
    seen(channel).await
}

/// What a look that was asked for has found.
async fn seen(channel: &mut Channel) -> Result<HostState, Stop> {
    match channel.reply().await? {
        Reply::State { state } => Ok(*state),
        other => Err(unexpected("state", &other).into()),
    }
}

/// One host is all the world there is, until there are several.
fn world(target: &Target, state: &HostState) -> World {
    World { hosts: BTreeMap::from([(target.name(), state.clone())]) }
}

/// The plan's time, which is the host's, and its run's id, which is made here (S12).
fn stamp(state: &HostState) -> Stamp {
    Stamp { now: state.now, run: new_run() }
}

fn new_run() -> RunId {
    RunId::new(uuid::Uuid::now_v7())
}

impl From<HostError> for Stop {
    fn from(error: HostError) -> Self {
        Self::from(error.failure())
    }
}

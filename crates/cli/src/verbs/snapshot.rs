//! `snapshot create|list|restore|verify|prune`: copies of databases on their host, taken before a migration or when somebody asks. What changes
//! something is a run like any other; a list and a look at one are not.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use cutover_core::exit::Exit;
use cutover_core::layout;
use cutover_core::names::DatabaseName;
use cutover_core::plan::{HeldDatabase, Plan, Verb};
use cutover_core::request::{Request, SnapshotRequest};
use cutover_core::retention::KnownSnapshot;
use cutover_core::state::HostState;
use cutover_core::wire::{Ask, PutBack, Reply, RowsChanged, SnapshotAsk, SnapshotReply};

use super::{Desk, Ended, Stop, reach_asking};
use crate::arguments::{AllowArguments, RunArguments, request};
use crate::asked::{Asked, Brings, Command};
use crate::hosts::{Channel, unexpected};
use crate::render::{self, Line, Progress};

#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotWord {
    /// Take one of each database now, while it is used
    Create(CreateArguments),
    /// Show those that there are, the newest first, and which releases need them
    List,
    /// Put one in its database's place, after a snapshot of the present
    Restore(RestoreArguments),
    /// Read one whole: its checksum, and what is in it
    Verify(VerifyArguments),
    /// Take away those that nothing needs
    Prune(PruneArguments),
}

#[derive(Debug, Args)]
pub(crate) struct CreateArguments {
    /// Databases, as cutover.yml names them; without one, all
    #[arg(value_name = "DATABASE")]
    databases: Vec<DatabaseName>,
    #[command(flatten)]
    allow: AllowArguments,
    #[command(flatten)]
    run: RunArguments,
}

#[derive(Debug, Args)]
pub(crate) struct RestoreArguments {
    /// Which, as `cutover snapshot list` shows it
    #[arg(value_name = "NAME")]
    name: String,
    /// Beside the database, which goes on as it is: a database of the same server, or a file where it is one; not there yet
    #[arg(long, value_name = "SCRATCH")]
    to: Option<String>,
    /// Do not watch the release after the switch
    #[arg(long, conflicts_with = "to")]
    no_bake: bool,
    #[command(flatten)]
    allow: AllowArguments,
    #[command(flatten)]
    run: RunArguments,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArguments {
    /// Which, as `cutover snapshot list` shows it
    #[arg(value_name = "NAME")]
    name: String,
}

#[derive(Debug, Args)]
pub(crate) struct PruneArguments {
    #[command(flatten)]
    run: RunArguments,
}

/// What only looks at snapshots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SnapshotAsked {
    List,
    Verify(String),
}

impl SnapshotWord {
    pub(crate) fn into_command(self, by: &str) -> Command {
        let (request, run) = match self {
            Self::List => return Command::Snapshot(SnapshotAsked::List),
            Self::Verify(words) => return Command::Snapshot(SnapshotAsked::Verify(words.name)),
            Self::Create(words) => {
                let databases = words.databases.into_iter().collect();
                let snapshot = SnapshotRequest { databases, ..SnapshotRequest::default() };
                let allow = words.allow.rules.into_iter().collect();
                (Request { snapshot, allow, ..request(Verb::SnapshotCreate, by) }, words.run)
            }
            Self::Restore(words) => {
                let RestoreArguments { name, to, no_bake, allow, run } = words;
                let snapshot = SnapshotRequest { name: Some(name), to, ..SnapshotRequest::default() };
                let allow = allow.rules.into_iter().collect();
                (Request { snapshot, no_bake, allow, ..request(Verb::SnapshotRestore, by) }, run)
            }
            Self::Prune(words) => (request(Verb::SnapshotPrune, by), words.run),
        };
        Command::Change(Box::new(Asked { request, brings: Brings::default(), conduct: run.into_conduct() }))
    }
}

pub(super) async fn snapshot(desk: &Desk, asked: SnapshotAsked) -> Ended {
    match asked {
        SnapshotAsked::List => list(desk).await,
        SnapshotAsked::Verify(name) => verify(desk, name).await,
    }
}

async fn list(desk: &Desk) -> Ended {
    let ask = |app: &cutover_core::names::AppId| {
        Ask::Snapshots(SnapshotAsk::List { app: app.clone(), since: Vec::new() })
    };
    let (app, mut channel) = reach_asking(desk, ask).await?;
    let now = channel.greeting().now;
    let (snapshots, _) = listed(channel.reply().await?)?;
    if snapshots.is_empty() {
        desk.output.talk(&format!("{app} has no snapshot; `cutover snapshot create` takes one now"));
    }
    for snapshot in &snapshots {
        desk.output.answer(&Line::Snapshot { snapshot }, || render::snapshot(snapshot, now))?;
    }
    Ok(Exit::Done.code())
}

async fn verify(desk: &Desk, name: String) -> Ended {
    let ask = |app: &cutover_core::names::AppId| {
        Ask::Snapshots(SnapshotAsk::Verify { app: app.clone(), name: name.clone() })
    };
    let (_, mut channel) = reach_asking(desk, ask).await?;
    let mut progress = Progress::new(desk.output);
    let ended = loop {
        match channel.reply().await {
            Ok(Reply::Doing { what }) => progress.doing("snapshot", &what),
            Ok(Reply::Progress { progress: now }) => progress.passed(&now)?,
            Ok(Reply::Snapshots(SnapshotReply::Verified { found, lines })) => break Ok((found, lines)),
            Ok(other) => break Err(Stop::from(unexpected("snapshot", &other))),
            Err(error) => break Err(error.into()),
        }
    };
    progress.end();
    let (found, lines) = ended?;
    desk.output.answer(&Line::Snapshot { snapshot: &found }, || render::verified(&found, &lines))?;
    Ok(Exit::Done.code())
}

/// Those that there are, and how much was changed since, of the databases that this was asked of.
type Listed = (Vec<KnownSnapshot>, BTreeMap<DatabaseName, RowsChanged>);

fn listed(reply: Reply) -> Result<Listed, Stop> {
    match reply {
        Reply::Snapshots(SnapshotReply::Listed { snapshots, since }) => Ok((snapshots, since)),
        other => Err(unexpected("snapshots", &other).into()),
    }
}

/// Looks for those that one can be chosen from.
pub(super) async fn look(host: &mut Channel, state: &mut HostState) -> Result<(), Stop> {
    let ask = Ask::Snapshots(SnapshotAsk::List { app: state.app.clone(), since: Vec::new() });
    let (snapshots, _) = listed(host.answer(&ask).await?)?;
    state.snapshots = Some(snapshots);
    Ok(())
}

/// What is lost where a plan puts databases back, as far as that is known; a line each.
pub(super) async fn losses(host: &mut Channel, state: &HostState, plan: &Plan) -> Result<Vec<String>, Stop> {
    let held = plan.hosts.values().filter_map(|host| host.handover.todo()).flat_map(|plan| &plan.databases);
    let since: Vec<PutBack> = held.filter_map(put_back).collect();
    if since.is_empty() {
        return Ok(Vec::new());
    }
    let ask = Ask::Snapshots(SnapshotAsk::List { app: state.app.clone(), since: since.clone() });
    let (known, changed) = listed(host.answer(&ask).await?)?;
    let lines = since.iter().filter_map(|asked| {
        let of = known.iter().find(|one| one.name == asked.name)?;
        // Which migrations are in it may be on no record: then nothing is said of them.
        let mut migrations = state.releases.iter().flat_map(|record| &record.migrations);
        let migrated = migrations.any(|one| {
            one.done.database == of.database
                && of.moment.is_some_and(|moment| one.at > moment)
                && !one.is_empty()
        });
        Some(render::loss(of, state.now, changed.get(&of.database), migrated))
    });
    Ok(lines.collect())
}

/// What somebody asked for: what a run puts back by itself nobody but candidates has written to.
fn put_back(held: &HeldDatabase) -> Option<PutBack> {
    let HeldDatabase::Restore { database, place, snapshot: Some(file), present: Some(_) } = held else {
        return None;
    };
    let name = layout::snapshot_name(file).to_owned();
    Some(PutBack { database: database.clone(), place: place.clone(), name })
}

/// Looks for those that nothing needs.
pub(super) async fn look_for_unneeded(host: &mut Channel, state: &mut HostState) -> Result<(), Stop> {
    let ask = Ask::Snapshots(SnapshotAsk::Unneeded { app: state.app.clone() });
    match host.answer(&ask).await? {
        Reply::Snapshots(SnapshotReply::Unneeded { leftovers }) => {
            state.leftovers = Some(leftovers);
            Ok(())
        }
        other => Err(unexpected("unneeded snapshots", &other).into()),
    }
}

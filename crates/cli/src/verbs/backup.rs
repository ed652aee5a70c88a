//! `backup run|list|verify|drill|restore|prune`: copies of all data off the host. What is wanted of them stands in cutover.yml; a host that was lost
//! knows nothing, so that it goes along with each ask.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use cutover_core::backup::{BackupOutcome, BackupRecord};
use cutover_core::config::Selection;
use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::wire::{Ask, BackupOrder, BackupTold, BackupWork, Reply};

use super::{Desk, Ended, Stop, approval};
use crate::asked::{BackupAsked, Command};
use crate::effects::{self, Question};
use crate::hosts::{self, Channel, unexpected};
use crate::render::{self, Line, Progress};
use crate::sources::{ProcessEnvironment, Project, overlay};

#[derive(Debug, Subcommand)]
pub(crate) enum BackupWord {
    /// Make one now, and read it back
    Run,
    /// Show those that there are
    List,
    /// Read every piece in the repository, and put the newest back for a moment
    Verify(WhichArguments),
    /// Put the newest back beside everything for a trial, ask its databases what cutover.yml says, and take it away again
    Drill(WhichArguments),
    /// Put one back, beside what is there or on a new host
    Restore(RestoreArguments),
    /// Take away those beyond `keep`
    Prune(YesArguments),
}

#[derive(Debug, Args)]
pub(crate) struct WhichArguments {
    /// Which, as `cutover backup list` shows it; else the newest that was read back
    #[arg(value_name = "ID")]
    id: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct RestoreArguments {
    /// Which, as `cutover backup list` shows it; else the newest that was read back
    #[arg(value_name = "ID")]
    id: Option<String>,
    /// Beside what is there, into a folder of the host that is not there yet. Without it databases come among the snapshots: `cutover snapshot
    /// restore` puts them in place
    #[arg(long, value_name = "FOLDER")]
    to: Option<PathBuf>,
    /// To a host that has nothing of the app, each thing to its place; `cutover deploy` goes on from there
    #[arg(long, conflicts_with = "to")]
    all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct YesArguments {
    /// Answer every question with yes
    #[arg(short, long)]
    yes: bool,
}

impl BackupWord {
    pub(crate) fn into_command(self, by: &str) -> Command {
        let (work, yes) = match self {
            Self::Run => (BackupWork::Run, false),
            Self::List => (BackupWork::List, false),
            Self::Verify(WhichArguments { id }) => (BackupWork::Verify { id }, false),
            Self::Drill(WhichArguments { id }) => (BackupWork::Drill { id }, false),
            Self::Restore(RestoreArguments { id, to: Some(to), .. }) => {
                (BackupWork::Beside { id, folder: to.display().to_string() }, false)
            }
            Self::Restore(RestoreArguments { id, all: true, .. }) => (BackupWork::All { id }, false),
            Self::Restore(RestoreArguments { id, .. }) => (BackupWork::Recall { id }, false),
            Self::Prune(YesArguments { yes }) => (BackupWork::Prune, yes),
        };
        Command::Backup(Box::new(BackupAsked { work, by: by.to_owned(), yes }))
    }
}

pub(super) async fn backup(desk: &Desk, asked: BackupAsked) -> Ended {
    let project = Project::open(&desk.place)?;
    let selection = Selection { environment: desk.place.environment.clone(), ..Selection::default() };
    let config = project.config(&selection)?;
    let Some(settings) = config.backup.clone() else { return Err(not_configured().into()) };
    let from = if config.protected { ProcessEnvironment::Leave } else { ProcessEnvironment::Use };
    let overlay = overlay(&config, &project, from, &[].into(), |name| std::env::var(name).ok())?;
    if asked.work == BackupWork::Prune && !asked.yes {
        let question = if config.protected {
            effects::of_protected("backup prune", &config.id)
        } else {
            Question::Yes(format!("this takes backups of {} beyond `keep` away for good", config.id))
        };
        approval::answer(desk, &question)?;
    }
    let mut host = hosts::open(&project.target(&config)).await?;
    let order = BackupOrder { app: config.id.clone(), settings, by: asked.by, work: asked.work };
    let env = overlay.values.to_env_file();
    let ask = Ask::Backup { order: Box::new(order), env: env.len() as u64 };
    host.ask_with(&ask, env.as_bytes()).await?;
    let told = followed(desk, &mut host).await?;
    tell(desk, &told)
}

async fn followed(desk: &Desk, host: &mut Channel) -> Result<BackupTold, Stop> {
    let mut progress = Progress::new(desk.output);
    let ended = loop {
        match host.reply().await {
            Ok(Reply::Doing { what }) => progress.doing("backup", &what),
            Ok(Reply::Progress { progress: now }) => progress.passed(&now)?,
            Ok(Reply::Backup { told }) => break Ok(*told),
            Ok(other) => break Err(unexpected("backup", &other).into()),
            Err(error) => break Err(error.into()),
        }
    };
    progress.end();
    ended
}

fn tell(desk: &Desk, told: &BackupTold) -> Ended {
    desk.output.answer(&Line::Backup { told }, || render::backup(told))?;
    if let BackupTold::Made { record, remarks } = told {
        for remark in remarks.iter().chain(left_out(record)) {
            desk.output.talk(&format!("note: {remark}"));
        }
    }
    Ok(Exit::Done.code())
}

fn left_out(record: &BackupRecord) -> &[String] {
    match &record.outcome {
        BackupOutcome::Verified { left_out, .. } => left_out,
        BackupOutcome::Failed { .. } => &[],
    }
}

fn not_configured() -> Failure {
    Failure::new(Exit::Configuration, "cutover.yml says nothing of backups")
        .because("`backup:` is neither in it nor in this environment")
        .next("backup: { to: \"sftp:user@host:/backups\", password: \"${BACKUP_PASSWORD}\" }")
        .next("`docs/backups.md` says where the password is kept")
}

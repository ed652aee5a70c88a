//! The command line as people type it: the list of the verbs. The words of each lie in its own file below `verbs`; those of the verbs that
//! make a plan in `change`. Clap's types end here: each verb becomes plain data at once ([`Command`], and for all that changes a host a
//! request); nothing deeper knows that clap exists.

mod change;
mod values;

use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Parser, Subcommand};
use cutover_core::names::EnvironmentName;
use cutover_core::plan::Verb;
use jiff::Timestamp;

use crate::asked::{Command, Place, ServerVerb};
use crate::verbs::{
    AttachArguments, BackingWord, BackupWord, CheckArguments, CompletionArguments, EnvWord, ExecArguments,
    HistoryArguments, KeyWord, LogsArguments, ManArguments, MigrateWord, PruneArguments, SecretsWord,
    ServerArguments, SetupArguments, SnapshotWord, StatusArguments, TunnelArguments,
};

pub(crate) use change::{
    AllowArguments, DeployArguments, ReleaseArguments, RemoveArguments, RollbackArguments, RunArguments,
    ServicesArguments, SourceArguments, VariableArguments, request,
};
pub(crate) use values::{Since, assignment, duration, since};

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

/// One file in the repository, one command, and a release is live with nobody noticing.
#[derive(Debug, Parser)]
#[command(name = "cutover", version, styles = STYLES, max_term_width = 100, after_help = after_help())]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    everywhere: Everywhere,
    #[command(subcommand)]
    verb: Word,
}

#[derive(Debug, Args)]
struct Everywhere {
    /// The environment the verb is about; else that of `CUTOVER_ENV`
    #[arg(short, long, global = true, value_name = "ENV")]
    environment: Option<EnvironmentName>,
    /// The configuration; else cutover.yml of this folder or of one above it
    #[arg(long, global = true, value_name = "PATH")]
    file: Option<PathBuf>,
    /// Print JSON lines on standard output
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Word {
    /// Check cutover.yml: all problems at once, with line and remedy
    Check(CheckArguments),
    /// Show what a deploy would do, and do nothing (deploy --dry-run)
    Plan(ReleaseArguments),
    /// Put a release live
    Deploy(DeployArguments),
    /// Put an earlier release live again
    Rollback(RollbackArguments),
    /// Show what is live, and how it is
    Status(StatusArguments),
    /// Show what happened: every run and its verdict
    History(HistoryArguments),
    /// Show the releases that rollback can reach
    Releases,
    /// Look at all that is needed here and on the host, and say what helps
    Doctor,
    /// Show what is otherwise on the host than it was recorded, and what mends it
    Diff,
    /// Show the output of instances
    Logs(LogsArguments),
    /// Run a command in a live instance, or with --once in a fresh one
    Exec(ExecArguments),
    /// Lead a port of this machine to a service or backing service on the host
    Tunnel(TunnelArguments),
    /// Show or change the variables on the host
    #[command(subcommand)]
    Env(EnvWord),
    /// Passwords that a server and its services must agree on
    #[command(subcommand)]
    Secrets(SecretsWord),
    /// Follow a run, or replay one that has ended; exits with its verdict
    Attach(AttachArguments),
    /// Cancel the run that is going on
    Cancel,
    /// Show who holds the lock, since when, doing what
    Lock,
    /// Stop services until they are started again
    Stop(ServicesArguments),
    /// Start services that were stopped
    Start(ServicesArguments),
    /// Replace instances of the live release by new ones
    Restart(ServicesArguments),
    /// Take the app off the host
    Remove(RemoveArguments),
    /// Backing services: make one anew as the live release wants it, or restart it
    #[command(subcommand)]
    Backing(BackingWord),
    /// Copies of all data off the host, in a repository that restic reads
    #[command(subcommand)]
    Backup(BackupWord),
    /// Copies of databases on their host: taken before a migration, or now
    #[command(subcommand)]
    Snapshot(SnapshotWord),
    /// Migrations: see what they would do before a deploy does it
    #[command(subcommand)]
    Migrate(MigrateWord),
    /// Take away what nothing on the host needs any more
    Prune(PruneArguments),
    /// Turn a fresh server into a host; a second time it changes nothing
    Setup(SetupArguments),
    /// Put this release's cutover-host on the server, without dropping traffic
    Upgrade(ServerArguments),
    /// Undo what setup did on the server; data stays
    Teardown(ServerArguments),
    /// Who may deploy from CI
    #[command(subcommand)]
    Key(KeyWord),
    /// Print the JSON Schema of cutover.yml
    Schema,
    /// Print what a shell needs to complete this command line
    Completion(CompletionArguments),
    /// Print the manual page, or write those of all verbs
    Man(ManArguments),
}

impl Arguments {
    /// What was asked, by whom, as plain data. `now` turns "10m ago" into a moment.
    ///
    /// # Errors
    /// Where two words contradict each other, in a way clap cannot see.
    pub(crate) fn into_command(self, by: &str, now: Timestamp) -> Result<(Place, Command), clap::Error> {
        let Everywhere { environment, file, json } = self.everywhere;
        let mut place = Place { environment, file, json };
        let command = match self.verb {
            Word::Check(words) => words.into_command(&mut place)?,
            Word::Plan(words) => words.into_plan(&mut place, by)?,
            Word::Deploy(words) => words.into_command(&mut place, by)?,
            Word::Rollback(words) => words.into_command(&mut place, by)?,
            Word::Status(words) => words.into_command(),
            Word::History(words) => words.into_command(),
            Word::Releases => Command::Releases,
            Word::Doctor => Command::Doctor,
            Word::Diff => Command::Diff,
            Word::Logs(words) => words.into_command(now),
            Word::Exec(words) => words.into_command(),
            Word::Tunnel(words) => words.into_command(),
            Word::Env(words) => words.into_command(by),
            Word::Secrets(words) => words.into_command(by),
            Word::Attach(words) => words.into_command(),
            Word::Cancel => Command::Cancel { by: by.to_owned() },
            Word::Lock => Command::Lock,
            Word::Stop(words) => words.into_command(Verb::Stop, by),
            Word::Start(words) => words.into_command(Verb::Start, by),
            Word::Restart(words) => words.into_command(Verb::Restart, by),
            Word::Remove(words) => words.into_command(by),
            Word::Backing(words) => words.into_command(by),
            Word::Backup(words) => words.into_command(by),
            Word::Snapshot(words) => words.into_command(by),
            Word::Migrate(words) => words.into_command(&mut place, by)?,
            Word::Prune(words) => words.into_command(by),
            Word::Setup(words) => words.into_command(&mut place)?,
            Word::Upgrade(words) => words.into_command(ServerVerb::Upgrade, &mut place)?,
            Word::Teardown(words) => words.into_command(ServerVerb::Teardown, &mut place)?,
            Word::Key(words) => words.into_command(),
            Word::Schema => Command::Schema,
            Word::Completion(words) => words.into_command(),
            Word::Man(words) => words.into_command(),
        };
        Ok((place, command))
    }
}

impl Place {
    /// The environment as a word, beside `-e`: both may be given when they agree.
    pub(crate) fn also(&mut self, word: Option<EnvironmentName>) -> Result<(), clap::Error> {
        match (&self.environment, word) {
            (Some(named), Some(word)) if *named != word => Err(clap::Error::raw(
                clap::error::ErrorKind::ArgumentConflict,
                format!("two environments are named: `{word}` as a word, `{named}` by -e\n"),
            )),
            (_, Some(word)) => {
                self.environment = Some(word);
                Ok(())
            }
            (_, None) => Ok(()),
        }
    }
}

/// The table of exit codes and of the variables that are read, below `--help`.
fn after_help() -> String {
    let exits = cutover_core::exit::TABLE.map(|(_, code, meaning)| format!("  {code:>2}  {meaning}\n"));
    let variables = cutover_core::variables::READ.map(|(name, meaning)| format!("  {name:<20}  {meaning}\n"));
    format!("Exit codes:\n{}\nEnvironment variables:\n{}", exits.concat(), variables.concat())
}

#[cfg(test)]
#[path = "arguments_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "arguments_pages_tests.rs"]
mod pages_tests;

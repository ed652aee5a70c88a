//! The command line as people type it. Clap's types end here: each verb becomes plain data at once ([`Command`], and for all that
//! changes a host a [`Request`]); nothing below this file knows that clap exists.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Parser, Subcommand};
use cutover_core::names::{EnvironmentName, ReleaseId, RunId, ServiceName, VariableName};
use cutover_core::plan::{Rule, Verb};
use cutover_core::release::Provenance;
use cutover_core::request::{Ancestry, Request};
use jiff::{SignedDuration, Timestamp};

use crate::asked::{Asked, Brings, Command, Conduct, EnvironmentChange, ExecAsked, LogsAsked, Place};

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
    /// Show the output of instances
    Logs(LogsArguments),
    /// Run a command in a live instance, or with --once in a fresh one
    Exec(ExecArguments),
    /// Show or change the variables on the host
    #[command(subcommand)]
    Env(EnvWord),
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
    /// Print the JSON Schema of cutover.yml
    Schema,
}

#[derive(Debug, Subcommand)]
enum EnvWord {
    /// Show the names on the host, values masked
    List,
    /// Set variables and make a release of the same images with them
    Set(EnvSetArguments),
    /// Remove variables and make a release of the same images without them
    Unset(EnvUnsetArguments),
}

#[derive(Debug, Args)]
struct CheckArguments {
    #[command(flatten)]
    variables: VariableArguments,
    /// The environment; without one, all are checked
    #[arg(value_name = "ENV")]
    word: Option<EnvironmentName>,
}

#[derive(Debug, Args)]
struct VariableArguments {
    /// A public variable; takes precedence over every other source
    #[arg(short = 'v', long = "variable", value_name = "NAME=VALUE", value_parser = variable)]
    variables: Vec<(VariableName, String)>,
}

#[derive(Debug, Args)]
struct ReleaseArguments {
    /// The environment
    #[arg(value_name = "ENV")]
    word: Option<EnvironmentName>,
    /// Build this commit instead of HEAD
    #[arg(long, value_name = "REF")]
    commit: Option<String>,
    /// Take this tag of `image:` and build nothing
    #[arg(long, value_name = "TAG", conflicts_with_all = ["commit", "dirty"])]
    version: Option<String>,
    /// Take this image for a service
    #[arg(long = "image", value_name = "SERVICE=REF", value_parser = image)]
    images: Vec<(ServiceName, String)>,
    /// Run no migration
    #[arg(long)]
    skip_migrations: bool,
    /// Build the work tree as it is, and not the commit
    #[arg(long, conflicts_with = "commit")]
    dirty: bool,
    /// Do not watch the release after the switch
    #[arg(long)]
    no_bake: bool,
    /// Replace services that did not change, too
    #[arg(long)]
    all: bool,
    /// Take required variables of a protected environment from this process's environment
    #[arg(long)]
    from_env: bool,
    #[command(flatten)]
    variables: VariableArguments,
    #[command(flatten)]
    allow: AllowArguments,
}

#[derive(Debug, Args)]
struct AllowArguments {
    /// Let one safety rule pass; it is recorded
    #[arg(long = "allow", value_name = "RULE", value_parser = rule)]
    rules: Vec<Rule>,
}

#[derive(Debug, Args)]
struct RunArguments {
    /// Wait for the lock when another run holds it
    #[arg(long)]
    wait: bool,
    /// Do not follow the run
    #[arg(long)]
    detach: bool,
    /// Answer every question with yes
    #[arg(short, long)]
    yes: bool,
    /// Show the plan and do nothing
    #[arg(long, conflicts_with_all = ["wait", "detach"])]
    dry_run: bool,
}

#[derive(Debug, Args)]
struct DeployArguments {
    #[command(flatten)]
    release: ReleaseArguments,
    #[command(flatten)]
    run: RunArguments,
}

#[derive(Debug, Args)]
struct RollbackArguments {
    /// The environment
    #[arg(value_name = "ENV")]
    word: Option<EnvironmentName>,
    /// To this release instead of the one before
    #[arg(long, value_name = "RELEASE")]
    to: Option<ReleaseId>,
    /// Put the databases back to the snapshot before the migration; what was written since is lost
    #[arg(long)]
    restore_db: bool,
    /// Do not watch the release after the switch
    #[arg(long)]
    no_bake: bool,
    #[command(flatten)]
    allow: AllowArguments,
    #[command(flatten)]
    run: RunArguments,
}

#[derive(Debug, Args)]
struct StatusArguments {
    /// Exit with 4 when not everything is healthy
    #[arg(long)]
    check: bool,
    /// Wait so long for it to become healthy
    #[arg(long, value_name = "TIME", value_parser = duration, requires = "check")]
    wait: Option<Duration>,
}

#[derive(Debug, Args)]
struct HistoryArguments {
    /// At most so many
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 20)]
    limit: u32,
}

#[derive(Debug, Args)]
struct LogsArguments {
    /// The services; without one, all
    #[arg(value_name = "SERVICE")]
    services: Vec<ServiceName>,
    /// Go on as lines come
    #[arg(short, long)]
    follow: bool,
    /// From then on: `10m` ago, or a time such as 2026-11-21T14:00:00Z
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Since>,
    /// Of this release instead of the live one
    #[arg(long, value_name = "RELEASE")]
    release: Option<ReleaseId>,
    /// At most so many lines of the past from each instance
    #[arg(long, value_name = "LINES")]
    tail: Option<u32>,
}

#[derive(Debug, Args)]
struct ExecArguments {
    /// In a fresh instance of the live release, removed afterwards
    #[arg(long)]
    once: bool,
    /// The service
    #[arg(value_name = "SERVICE")]
    service: ServiceName,
    /// The command and its words; a shell, if none is given
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

#[derive(Debug, Args)]
struct EnvSetArguments {
    /// NAME: its value is asked for, or read from standard input. NAME=VALUE: for what is not secret
    #[arg(value_name = "NAME[=VALUE]", required = true, value_parser = assignment)]
    variables: Vec<(VariableName, Option<String>)>,
    #[command(flatten)]
    change: EnvChangeArguments,
}

#[derive(Debug, Args)]
struct EnvUnsetArguments {
    /// The names
    #[arg(value_name = "NAME", required = true)]
    names: Vec<VariableName>,
    #[command(flatten)]
    change: EnvChangeArguments,
}

#[derive(Debug, Args)]
struct EnvChangeArguments {
    /// Only change the host's file; the next deploy takes it
    #[arg(long)]
    no_deploy: bool,
    #[command(flatten)]
    allow: AllowArguments,
    #[command(flatten)]
    run: RunArguments,
}

#[derive(Debug, Args)]
struct AttachArguments {
    /// The run; without one, the app's newest
    #[arg(value_name = "RUN")]
    run: Option<RunId>,
}

#[derive(Debug, Args)]
struct ServicesArguments {
    /// The services; without one, all
    #[arg(value_name = "SERVICE")]
    services: Vec<ServiceName>,
    #[command(flatten)]
    allow: AllowArguments,
    #[command(flatten)]
    run: RunArguments,
}

#[derive(Debug, Args)]
struct RemoveArguments {
    /// Remove the volumes, too: the app's data
    #[arg(long)]
    volumes: bool,
    #[command(flatten)]
    run: RunArguments,
}

/// A moment, or a time ago.
#[derive(Debug, Clone, Copy)]
enum Since {
    At(Timestamp),
    Ago(SignedDuration),
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
            Word::Check(check) => {
                place.also(check.word)?;
                Command::Check { variables: check.variables.into_map() }
            }
            Word::Plan(release) => deploy(&mut place, release, Conduct::dry_run(), by)?,
            Word::Deploy(deploying) => {
                let conduct = deploying.run.into_conduct();
                deploy(&mut place, deploying.release, conduct, by)?
            }
            Word::Rollback(rollback) => {
                place.also(rollback.word.clone())?;
                Command::Change(Box::new(rollback.into_asked(by)))
            }
            Word::Status(status) => {
                Command::Status { check: status.check.then(|| status.wait.unwrap_or_default()) }
            }
            Word::History(history) => Command::History { limit: history.limit },
            Word::Releases => Command::Releases,
            Word::Logs(logs) => Command::Logs(logs.into_asked(now)),
            Word::Exec(exec) => {
                let shell = || vec!["sh".to_owned()];
                let command = if exec.command.is_empty() { shell() } else { exec.command };
                Command::Exec(ExecAsked { once: exec.once, service: exec.service, command })
            }
            Word::Env(EnvWord::List) => Command::EnvList,
            Word::Env(EnvWord::Set(set)) => {
                let change =
                    EnvironmentChange { set: set.variables.into_iter().collect(), unset: BTreeSet::new() };
                set.change.into_command(change, by)
            }
            Word::Env(EnvWord::Unset(unset)) => {
                let change =
                    EnvironmentChange { set: BTreeMap::new(), unset: unset.names.into_iter().collect() };
                unset.change.into_command(change, by)
            }
            Word::Attach(attach) => Command::Attach { run: attach.run },
            Word::Cancel => Command::Cancel { by: by.to_owned() },
            Word::Lock => Command::Lock,
            Word::Stop(services) => services.into_command(Verb::Stop, by),
            Word::Start(services) => services.into_command(Verb::Start, by),
            Word::Restart(services) => services.into_command(Verb::Restart, by),
            Word::Remove(remove) => {
                let conduct = remove.run.into_conduct();
                let request = Request { volumes: remove.volumes, ..request(Verb::Remove, by) };
                Command::Change(Box::new(Asked { request, brings: Brings::default(), conduct }))
            }
            Word::Schema => Command::Schema,
        };
        Ok((place, command))
    }
}

impl Place {
    /// The environment as a word, beside `-e`: both may be given when they agree.
    fn also(&mut self, word: Option<EnvironmentName>) -> Result<(), clap::Error> {
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

fn deploy(
    place: &mut Place,
    release: ReleaseArguments,
    conduct: Conduct,
    by: &str,
) -> Result<Command, clap::Error> {
    place.also(release.word.clone())?;
    Ok(Command::Change(Box::new(release.into_asked(conduct, by))))
}

/// A request of a verb and nothing else; what was asked besides is filled in.
pub(crate) fn request(verb: Verb, by: &str) -> Request {
    Request {
        verb,
        by: by.to_owned(),
        services: BTreeSet::new(),
        source: Provenance::default(),
        contents: BTreeMap::new(),
        shipped: BTreeMap::new(),
        ancestry: Ancestry::Unknown,
        overlay: BTreeMap::new(),
        unset: BTreeSet::new(),
        to: None,
        restore_databases: false,
        skip_migrations: false,
        no_bake: false,
        all: false,
        volumes: false,
        allow: BTreeSet::new(),
    }
}

impl VariableArguments {
    fn into_map(self) -> BTreeMap<VariableName, String> {
        self.variables.into_iter().collect()
    }
}

impl RunArguments {
    fn into_conduct(self) -> Conduct {
        Conduct {
            dry_run: self.dry_run,
            wait: self.wait,
            detach: self.detach,
            yes: self.yes,
            stage_only: false,
        }
    }
}

impl ReleaseArguments {
    fn into_asked(self, conduct: Conduct, by: &str) -> Asked {
        let request = Request {
            source: Provenance { version: self.version.clone(), ..Provenance::default() },
            skip_migrations: self.skip_migrations,
            no_bake: self.no_bake,
            all: self.all,
            allow: self.allow.rules.into_iter().collect(),
            ..request(Verb::Deploy, by)
        };
        let brings = Brings {
            commit: self.commit,
            version: self.version,
            images: self.images.into_iter().collect(),
            dirty: self.dirty,
            variables: self.variables.into_map(),
            from_env: self.from_env,
            change: EnvironmentChange::default(),
        };
        Asked { request, brings, conduct }
    }
}

impl RollbackArguments {
    fn into_asked(self, by: &str) -> Asked {
        let request = Request {
            to: self.to,
            restore_databases: self.restore_db,
            no_bake: self.no_bake,
            allow: self.allow.rules.into_iter().collect(),
            ..request(Verb::Rollback, by)
        };
        Asked { request, brings: Brings::default(), conduct: self.run.into_conduct() }
    }
}

impl ServicesArguments {
    fn into_command(self, verb: Verb, by: &str) -> Command {
        let request = Request {
            services: self.services.into_iter().collect(),
            allow: self.allow.rules.into_iter().collect(),
            ..request(verb, by)
        };
        let conduct = self.run.into_conduct();
        Command::Change(Box::new(Asked { request, brings: Brings::default(), conduct }))
    }
}

impl EnvChangeArguments {
    fn into_command(self, change: EnvironmentChange, by: &str) -> Command {
        let request = Request {
            unset: change.unset.clone(),
            allow: self.allow.rules.into_iter().collect(),
            ..request(Verb::Environment, by)
        };
        let conduct = Conduct { stage_only: self.no_deploy, ..self.run.into_conduct() };
        Command::Change(Box::new(Asked { request, brings: Brings { change, ..Brings::default() }, conduct }))
    }
}

impl LogsArguments {
    fn into_asked(self, now: Timestamp) -> LogsAsked {
        let since = self.since.map(|since| match since {
            Since::At(moment) => moment,
            Since::Ago(ago) => now.checked_sub(ago).unwrap_or(Timestamp::MIN),
        });
        LogsAsked {
            services: self.services.into_iter().collect(),
            follow: self.follow,
            since,
            release: self.release,
            tail: self.tail,
        }
    }
}

fn variable(text: &str) -> Result<(VariableName, String), String> {
    let (name, value) = text.split_once('=').ok_or("NAME=VALUE is expected")?;
    Ok((name.parse().map_err(|_| "what stands before `=` is not a variable's name")?, value.to_owned()))
}

fn assignment(text: &str) -> Result<(VariableName, Option<String>), String> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text, None),
    };
    Ok((name.parse().map_err(|_| "a variable's name is letters, digits and `_`")?, value))
}

fn image(text: &str) -> Result<(ServiceName, String), String> {
    let (service, reference) = text.split_once('=').ok_or("SERVICE=REF is expected")?;
    if reference.is_empty() {
        return Err("the image's reference is missing after `=`".to_owned());
    }
    Ok((service.parse().map_err(|error| format!("{error}"))?, reference.to_owned()))
}

fn rule(text: &str) -> Result<Rule, String> {
    let known = Rule::ALL.into_iter().find(|rule| rule.as_str() == text);
    match known {
        Some(rule) if rule.can_be_allowed() => Ok(rule),
        Some(rule) => Err(format!("`{}` cannot be let pass", rule.as_str())),
        None => {
            let names: Vec<&str> =
                Rule::ALL.into_iter().filter(|rule| rule.can_be_allowed()).map(Rule::as_str).collect();
            Err(format!("the rules are: {}", names.join(", ")))
        }
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed: SignedDuration = text.parse().map_err(|_| "a time such as 30s, 5m or 1h is expected")?;
    Duration::try_from(parsed).map_err(|_| "a time is not negative".to_owned())
}

fn since(text: &str) -> Result<Since, String> {
    if let Ok(moment) = text.parse::<Timestamp>() {
        return Ok(Since::At(moment));
    }
    let ago =
        duration(text).map_err(|_| "a time ago such as 10m, or a moment such as 2026-11-21T14:00:00Z")?;
    SignedDuration::try_from(ago).map(Since::Ago).map_err(|_| "too long ago".to_owned())
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

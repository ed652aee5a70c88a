//! The words of `env`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use cutover_core::names::VariableName;
use cutover_core::plan::Verb;
use cutover_core::request::Request;

use crate::arguments::{AllowArguments, RunArguments, assignment, request};
use crate::asked::{Asked, Brings, Command, Conduct, EnvironmentChange};

#[derive(Debug, Subcommand)]
pub(crate) enum EnvWord {
    /// Show the names on the host, values masked
    List,
    /// Set variables and make a release of the same images with them
    Set(EnvSetArguments),
    /// Lay a whole env file over the host's, and make a release of the same images with it
    Push(EnvPushArguments),
    /// Compare the local env file with the host's: added, missing, differs, same; never a value
    Diff,
    /// Remove variables and make a release of the same images without them
    Unset(EnvUnsetArguments),
}

#[derive(Debug, Args)]
pub(crate) struct EnvSetArguments {
    /// NAME: its value is asked for, or read from standard input. NAME=VALUE: for what is not secret
    #[arg(value_name = "NAME[=VALUE]", required = true, value_parser = assignment)]
    variables: Vec<(VariableName, Option<String>)>,
    #[command(flatten)]
    change: EnvChangeArguments,
}

#[derive(Debug, Args)]
pub(crate) struct EnvUnsetArguments {
    /// The names
    #[arg(value_name = "NAME", required = true)]
    names: Vec<VariableName>,
    #[command(flatten)]
    change: EnvChangeArguments,
}

#[derive(Debug, Args)]
pub(crate) struct EnvPushArguments {
    /// An env file that only its owner may read
    #[arg(value_name = "FILE")]
    from: PathBuf,
    #[command(flatten)]
    change: EnvChangeArguments,
}

#[derive(Debug, Args)]
pub(crate) struct EnvChangeArguments {
    /// Only change the host's file; the next deploy takes it
    #[arg(long)]
    no_deploy: bool,
    #[command(flatten)]
    allow: AllowArguments,
    #[command(flatten)]
    run: RunArguments,
}

impl EnvWord {
    pub(crate) fn into_command(self, by: &str) -> Command {
        match self {
            Self::List => Command::EnvList,
            Self::Diff => Command::EnvDiff,
            Self::Push(words) => {
                let push = Some(words.from);
                words.change.into_command(EnvironmentChange { push, ..EnvironmentChange::default() }, by)
            }
            Self::Set(words) => {
                let set = words.variables.into_iter().collect();
                words.change.into_command(EnvironmentChange { set, ..EnvironmentChange::default() }, by)
            }
            Self::Unset(words) => {
                let unset = words.names.into_iter().collect();
                words.change.into_command(EnvironmentChange { unset, ..EnvironmentChange::default() }, by)
            }
        }
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

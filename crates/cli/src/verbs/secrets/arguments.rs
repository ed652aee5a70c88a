//! The words of `secrets`.

use clap::{Args, Subcommand};
use cutover_core::names::VariableName;
use cutover_core::plan::Verb;
use cutover_core::request::Request;

use crate::arguments::{AllowArguments, RunArguments, request};
use crate::asked::{Asked, Brings, Command, EnvironmentChange};

#[derive(Debug, Subcommand)]
pub(crate) enum SecretsWord {
    /// Change the password of a backing service's database: in its server, and in every service that is told it
    Rotate(RotateArguments),
}

#[derive(Debug, Args)]
pub(crate) struct RotateArguments {
    /// The variable that says the password: `POSTGRES_PASSWORD`, say
    #[arg(value_name = "NAME")]
    name: VariableName,
    /// Ask for the new password, or read it from standard input; else one is made
    #[arg(long)]
    ask: bool,
    #[command(flatten)]
    allow: AllowArguments,
    #[command(flatten)]
    run: RunArguments,
}

impl SecretsWord {
    pub(crate) fn into_command(self, by: &str) -> Command {
        let Self::Rotate(RotateArguments { name, ask, allow, run }) = self;
        let change = if ask {
            EnvironmentChange { set: [(name, None)].into(), ..EnvironmentChange::default() }
        } else {
            EnvironmentChange { made: Some(name), ..EnvironmentChange::default() }
        };
        let allow = allow.rules.into_iter().collect();
        let request = Request { allow, ..request(Verb::SecretsRotate, by) };
        let (brings, conduct) = (Brings { change, ..Brings::default() }, run.into_conduct());
        Command::Change(Box::new(Asked { request, brings, conduct }))
    }
}

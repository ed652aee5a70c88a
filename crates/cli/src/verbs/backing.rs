//! The words of `backing`. What they ask for is carried out like any other verb that works on the live release.

use clap::{Args, Subcommand};
use cutover_core::names::ServiceName;
use cutover_core::plan::Verb;
use cutover_core::request::Request;

use crate::arguments::{AllowArguments, RunArguments, request};
use crate::asked::{Asked, Brings, Command};

#[derive(Debug, Subcommand)]
pub(crate) enum BackingWord {
    /// Make a backing service anew, as the live release wants it; volumes stay
    Apply(BackingArguments),
    /// Stop a backing service and start it again, as it is
    Restart(BackingArguments),
}

#[derive(Debug, Args)]
pub(crate) struct BackingArguments {
    /// The backing service
    #[arg(value_name = "NAME")]
    service: ServiceName,
    #[command(flatten)]
    allow: AllowArguments,
    #[command(flatten)]
    run: RunArguments,
}

impl BackingWord {
    pub(crate) fn into_command(self, by: &str) -> Command {
        let (verb, words) = match self {
            Self::Apply(words) => (Verb::BackingApply, words),
            Self::Restart(words) => (Verb::BackingRestart, words),
        };
        let request = Request {
            services: [words.service].into(),
            allow: words.allow.rules.into_iter().collect(),
            ..request(verb, by)
        };
        let conduct = words.run.into_conduct();
        Command::Change(Box::new(Asked { request, brings: Brings::default(), conduct }))
    }
}

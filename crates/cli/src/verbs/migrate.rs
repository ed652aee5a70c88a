//! `migrate rehearse`: what a release's migrations would do, tried on a scratch database. A run like any other, of the release that a deploy would take.

use clap::{Args, Subcommand};
use cutover_core::names::DatabaseName;
use cutover_core::plan::Verb;
use cutover_core::request::{Request, SnapshotRequest};

use crate::arguments::{RunArguments, SourceArguments};
use crate::asked::{Asked, Command, Place};

#[derive(Debug, Subcommand)]
pub(crate) enum MigrateWord {
    /// Try the migrations of a release on a scratch database made of the newest snapshot: how long they take, which locks, what they change
    Rehearse(RehearseArguments),
}

#[derive(Debug, Args)]
pub(crate) struct RehearseArguments {
    #[command(flatten)]
    source: SourceArguments,
    /// Only this database's, as cutover.yml names it
    #[arg(long = "database", value_name = "DATABASE")]
    databases: Vec<DatabaseName>,
    #[command(flatten)]
    run: RunArguments,
}

impl MigrateWord {
    pub(crate) fn into_command(self, place: &mut Place, by: &str) -> Result<Command, clap::Error> {
        let Self::Rehearse(RehearseArguments { source, databases, run }) = self;
        let (request, brings) = source.into_request(place, Verb::MigrateRehearse, by)?;
        let databases = databases.into_iter().collect();
        let request =
            Request { snapshot: SnapshotRequest { databases, ..SnapshotRequest::default() }, ..request };
        Ok(Command::Change(Box::new(Asked { request, brings, conduct: run.into_conduct() })))
    }
}

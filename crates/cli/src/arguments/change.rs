//! The words of the verbs that make a plan. Each becomes a [`Request`] at once, with what the client brings and how its run is treated.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use cutover_core::names::{EnvironmentName, ReleaseId, ServiceName, VariableName};
use cutover_core::plan::{Rule, Verb};
use cutover_core::release::Provenance;
use cutover_core::request::{Ancestry, Request, SnapshotRequest};

use super::values::{image, rule, variable};
use crate::asked::{Asked, Brings, Command, Conduct, EnvironmentChange, Place};

#[derive(Debug, Args)]
pub(crate) struct VariableArguments {
    /// A public variable; takes precedence over every other source
    #[arg(short = 'v', long = "variable", value_name = "NAME=VALUE", value_parser = variable)]
    variables: Vec<(VariableName, String)>,
}

/// Where a release comes from.
#[derive(Debug, Args)]
pub(crate) struct SourceArguments {
    /// The environment
    #[arg(value_name = "ENV")]
    word: Option<EnvironmentName>,
    /// Build images of this commit instead of HEAD; an `artifact:` always comes from the work tree
    #[arg(long, value_name = "REF")]
    commit: Option<String>,
    /// Take this tag of `image:` and build nothing
    #[arg(long, value_name = "TAG", conflicts_with_all = ["commit", "dirty"])]
    version: Option<String>,
    /// Take this image for a service
    #[arg(long = "image", value_name = "SERVICE=REF", value_parser = image)]
    images: Vec<(ServiceName, String)>,
    /// Build images of the work tree as it is, and not of the commit
    #[arg(long, conflicts_with = "commit")]
    dirty: bool,
    /// Take required variables of a protected environment from this process's environment
    #[arg(long)]
    from_env: bool,
    #[command(flatten)]
    variables: VariableArguments,
    #[command(flatten)]
    allow: AllowArguments,
}

#[derive(Debug, Args)]
pub(crate) struct ReleaseArguments {
    #[command(flatten)]
    source: SourceArguments,
    /// Run no migration
    #[arg(long)]
    skip_migrations: bool,
    /// Do not watch the release after the switch
    #[arg(long)]
    no_bake: bool,
    /// Replace services that did not change, too
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct AllowArguments {
    /// Let one safety rule pass; it is recorded
    #[arg(long = "allow", value_name = "RULE", value_parser = rule)]
    pub(crate) rules: Vec<Rule>,
}

#[derive(Debug, Args)]
pub(crate) struct RunArguments {
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
pub(crate) struct DeployArguments {
    #[command(flatten)]
    release: ReleaseArguments,
    #[command(flatten)]
    run: RunArguments,
}

#[derive(Debug, Args)]
pub(crate) struct RollbackArguments {
    /// The environment
    #[arg(value_name = "ENV")]
    word: Option<EnvironmentName>,
    /// To this release instead of the one before
    #[arg(long, value_name = "RELEASE")]
    to: Option<ReleaseId>,
    /// Put the databases back to the snapshot before the migration; what was written since is kept in a snapshot, and not served
    #[arg(long)]
    restore_db: bool,
    /// Take the migrations since then back by the `down` commands that are recorded with them, after a snapshot
    #[arg(long, conflicts_with = "restore_db")]
    migrate_down: bool,
    /// Do not watch the release after the switch
    #[arg(long)]
    no_bake: bool,
    #[command(flatten)]
    allow: AllowArguments,
    #[command(flatten)]
    run: RunArguments,
}

#[derive(Debug, Args)]
pub(crate) struct ServicesArguments {
    /// The services; without one, all
    #[arg(value_name = "SERVICE")]
    services: Vec<ServiceName>,
    #[command(flatten)]
    allow: AllowArguments,
    #[command(flatten)]
    run: RunArguments,
}

#[derive(Debug, Args)]
pub(crate) struct RemoveArguments {
    /// Remove the volumes, too: the app's data
    #[arg(long)]
    volumes: bool,
    #[command(flatten)]
    run: RunArguments,
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
        migrate_down: false,
        skip_migrations: false,
        no_bake: false,
        all: false,
        volumes: false,
        allow: BTreeSet::new(),
        snapshot: SnapshotRequest::default(),
    }
}

impl VariableArguments {
    pub(crate) fn into_map(self) -> BTreeMap<VariableName, String> {
        self.variables.into_iter().collect()
    }
}

impl RunArguments {
    pub(crate) fn into_conduct(self) -> Conduct {
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
    /// A deploy of it whose plan is only shown.
    pub(crate) fn into_plan(self, place: &mut Place, by: &str) -> Result<Command, clap::Error> {
        self.into_command(place, Conduct::dry_run(), by)
    }

    fn into_command(self, place: &mut Place, conduct: Conduct, by: &str) -> Result<Command, clap::Error> {
        let (request, brings) = self.source.into_request(place, Verb::Deploy, by)?;
        let request = Request {
            skip_migrations: self.skip_migrations,
            no_bake: self.no_bake,
            all: self.all,
            ..request
        };
        Ok(Command::Change(Box::new(Asked { request, brings, conduct })))
    }
}

impl SourceArguments {
    /// A request about that release, and what the client brings for it.
    pub(crate) fn into_request(
        self,
        place: &mut Place,
        verb: Verb,
        by: &str,
    ) -> Result<(Request, Brings), clap::Error> {
        place.also(self.word)?;
        let request = Request {
            source: Provenance { version: self.version.clone(), ..Provenance::default() },
            allow: self.allow.rules.into_iter().collect(),
            ..request(verb, by)
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
        Ok((request, brings))
    }
}

impl DeployArguments {
    pub(crate) fn into_command(self, place: &mut Place, by: &str) -> Result<Command, clap::Error> {
        let conduct = self.run.into_conduct();
        self.release.into_command(place, conduct, by)
    }
}

impl RollbackArguments {
    pub(crate) fn into_command(self, place: &mut Place, by: &str) -> Result<Command, clap::Error> {
        place.also(self.word)?;
        let request = Request {
            to: self.to,
            restore_databases: self.restore_db,
            migrate_down: self.migrate_down,
            no_bake: self.no_bake,
            allow: self.allow.rules.into_iter().collect(),
            ..request(Verb::Rollback, by)
        };
        let conduct = self.run.into_conduct();
        Ok(Command::Change(Box::new(Asked { request, brings: Brings::default(), conduct })))
    }
}

impl ServicesArguments {
    pub(crate) fn into_command(self, verb: Verb, by: &str) -> Command {
        let request = Request {
            services: self.services.into_iter().collect(),
            allow: self.allow.rules.into_iter().collect(),
            ..request(verb, by)
        };
        let conduct = self.run.into_conduct();
        Command::Change(Box::new(Asked { request, brings: Brings::default(), conduct }))
    }
}

impl RemoveArguments {
    pub(crate) fn into_command(self, by: &str) -> Command {
        let conduct = self.run.into_conduct();
        let request = Request { volumes: self.volumes, ..request(Verb::Remove, by) };
        Command::Change(Box::new(Asked { request, brings: Brings::default(), conduct }))
    }
}

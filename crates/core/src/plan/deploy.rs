//! The plan of a deploy: a release made from the configuration, and the way from what is live to it; or only a rehearsal of its migrations.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::backup::BackupSettings;
use crate::config::settings::{Compatible, Config, Origin, RunSettings, SnapshotPolicy, Source};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::hash::ContentHash;
use crate::names::{NameError, ReleaseId, ServiceName, Slot, VariableName};
use crate::plan::assemble::{Parts, assemble};
use crate::plan::lifecycle::{record, without_number};
use crate::plan::rehearse::rehearse;
use crate::plan::specify::Ground;
use crate::plan::transition::{Anew, NoTransition, transition};
use crate::plan::{EnvSource, HostPlan, Plan, Refusals, Verb, databases, drift, passwords};
use crate::release::{BackingRelease, Content, OneOffRelease, Release, ServiceRelease, Shipped};
use crate::request::{Request, Stamp};
use crate::rules;
use crate::state::{HostState, ReleaseRecord, World};

/// Plans a deploy, or the rehearsal of one's migrations.
///
/// # Errors
/// Every safety rule that refuses it and was not let pass, and content that is not there.
pub fn plan(config: &Config, world: &World, request: &Request, stamp: Stamp) -> Result<Plan, Refusals> {
    let mut hosts = BTreeMap::new();
    for (name, state) in &world.hosts {
        let plan = host_plan(config, state, request, stamp)?;
        rules::check(&plan, state, request).map_err(Refusals)?;
        hosts.insert(name.clone(), plan);
    }
    Ok(Plan { hosts })
}

fn host_plan(
    config: &Config,
    state: &HostState,
    request: &Request,
    stamp: Stamp,
) -> Result<HostPlan, Refusals> {
    let release = release(config, state, request, stamp)?;
    if request.verb == Verb::MigrateRehearse {
        let mut plan = rehearse(config, &release, state, request, stamp)?;
        plan.variables = variables_of(config);
        return Ok(plan);
    }
    let anew = if request.all { Anew::Asked(BTreeSet::new()) } else { Anew::OnlyChanged };
    let moved =
        transition(state, &release, &BTreeSet::new(), &anew, stamp).map_err(|error| no_transition(&error))?;
    let was = state
        .live
        .as_ref()
        .and_then(|live| state.releases.iter().find(|r| r.release.id == live.release))
        .map(|r| &r.release);
    let ground = Ground { state, release: &release, urls: moved.urls.clone() };
    let migrations = if request.skip_migrations {
        Vec::new()
    } else {
        databases::migrations(&ground, was, Slot::Blue, stamp)
    };
    let parts = Parts {
        state,
        request,
        stamp,
        release: &release,
        stopped: BTreeSet::new(),
        transition: moved,
        migrations,
        held: Vec::new(),
        env: EnvSource::HostFile,
        generate: config.generate.clone(),
        required: config.required.keys().cloned().collect(),
        notes: notes(config, request)
            .into_iter()
            .chain(passwords::unheeded(state, &release))
            .chain(drift::drift(state, &release))
            .collect(),
    };
    let mut plan = assemble(&parts).map_err(|error| no_transition(&error))?;
    plan.variables = variables_of(config);
    Ok(plan)
}

/// Where each variable comes from.
fn variables_of(config: &Config) -> BTreeMap<VariableName, Origin> {
    config.variables.iter().chain(&config.required).map(|(name, origin)| (name.clone(), *origin)).collect()
}

fn notes(config: &Config, request: &Request) -> Vec<String> {
    let mut notes = config.notes.clone();
    for (name, database) in &config.databases {
        if !database.migrate.is_empty() && database.compatible() == Compatible::Undeclared {
            notes.push(format!("database `{name}`: `compatible` is not declared; migrations count as `expand`, and are recorded as undeclared"));
        }
        if database.snapshot == SnapshotPolicy::None {
            notes.push(format!(
                "database `{name}`: `snapshot: none` is recorded; a migration that fails is not undone"
            ));
        }
    }
    if request.skip_migrations && config.databases.values().any(|database| !database.migrate.is_empty()) {
        notes.push("migrations are skipped: the schema may not match the release".to_owned());
    }
    notes
}

/// The release that the configuration and the contents make.
fn release(config: &Config, state: &HostState, request: &Request, stamp: Stamp) -> Result<Release, Refusals> {
    let mut absent = Vec::new();
    let mut content = |name: &ServiceName, source: &Source| -> Option<Content> {
        let found = request.contents.get(name).cloned();
        if found.is_none() {
            absent.push(absent_content(name, source));
        }
        found
    };
    let mut services = BTreeMap::new();
    for (name, settings) in &config.services {
        let Some(content) = content(name, &settings.source) else { continue };
        let shipped = shipped(&settings.run, request);
        services.insert(name.clone(), ServiceRelease { settings: settings.clone(), content, shipped });
    }
    let mut one_offs = BTreeMap::new();
    for (name, settings) in &config.one_offs {
        let Some(content) = content(name, &settings.source) else { continue };
        let shipped = shipped(&settings.run, request);
        one_offs.insert(name.clone(), OneOffRelease { settings: settings.clone(), content, shipped });
    }
    let mut backing = BTreeMap::new();
    for (name, settings) in &config.backing {
        let Some(content) = content(name, &settings.source) else { continue };
        let shipped = shipped(&settings.run, request);
        backing.insert(name.clone(), BackingRelease { settings: settings.clone(), content, shipped });
    }
    absent.extend(config.shipped().filter(|path| !request.shipped.contains_key(*path)).map(absent_file));
    if !absent.is_empty() {
        return Err(Refusals(absent));
    }
    let variables = variables(state, request);
    let content = (&services, &backing, &config.databases, &config.volumes, &variables);
    let id = release_id(state, request, &identity_of(content, &one_offs, config.backup.as_ref()))
        .map_err(|error| Failure::new(Exit::Failed, "the release has no name").because(error.to_string()))?;
    Ok(Release {
        id,
        app: config.id.clone(),
        source: request.source.clone(),
        services,
        one_offs,
        backing,
        databases: config.databases.clone(),
        volumes: config.volumes.clone(),
        backup: config.backup.clone(),
        registry: config.registry.clone(),
        variables,
        bake: config.bake,
        keep_warm: config.keep_warm,
        keep: config.keep,
        created: stamp.now,
    })
}

fn absent_content(name: &ServiceName, source: &Source) -> Failure {
    let what = match source {
        Source::Image { reference } => format!("image `{reference}` of `{name}` is not there"),
        Source::Build(build) => format!("the image of `{name}` was not built from `{}`", build.context),
        Source::Artifact { path } => format!("artifact `{path}` of `{name}` is not there"),
    };
    let next = match source {
        Source::Image { reference } => {
            format!("check the name; `docker pull {reference}` on the host shows whether it can be had")
        }
        Source::Build(_) => "see the build's output above".to_owned(),
        Source::Artifact { path } => {
            format!("build it, or correct `artifact:`; it is looked for at `{path}` beside cutover.yml")
        }
    };
    let why = match source {
        Source::Image { .. } => "the host's engine does not have it",
        Source::Build(_) | Source::Artifact { .. } => "nothing was made of it for this release",
    };
    Failure::new(Exit::Refused, what).because(why).next(next)
}

/// What of the repository is mounted into an instance with these settings.
fn shipped(run: &RunSettings, request: &Request) -> BTreeMap<String, Shipped> {
    let found = |path: &str| Some((path.to_owned(), request.shipped.get(path)?.clone()));
    run.shipped().filter_map(found).collect()
}

fn absent_file(path: &str) -> Failure {
    Failure::new(Exit::Refused, format!("`{path}`, which is mounted, is not there"))
        .next("it is looked for beside cutover.yml: create it, or correct `volumes:`, or the `files:` of a migration")
}

/// Salted hashes of what the release's env file will hold.
pub(crate) fn variables(state: &HostState, request: &Request) -> BTreeMap<VariableName, ContentHash> {
    let mut variables = state.variables.clone().unwrap_or_default();
    variables.retain(|name, _| !request.unset.contains(name));
    variables.extend(request.overlay.iter().map(|(name, hash)| (name.clone(), hash.clone())));
    variables
}

/// The commit's first seven characters, else the content's; with `-2`, `-3` … where that names another release already.
fn release_id(state: &HostState, request: &Request, identity: &ContentHash) -> Result<ReleaseId, NameError> {
    let source = &request.source;
    let base = match &source.commit {
        Some(commit) if !source.dirty => commit.get(..7).unwrap_or(commit).to_ascii_lowercase(),
        Some(commit) => format!("{}-dirty", commit.get(..7).unwrap_or(commit).to_ascii_lowercase()),
        None => identity.short().to_owned(),
    };
    free_id(state, &base, identity)
}

/// The first of `base`, `base-2`, `base-3` … that no other release has. What is live goes before those that came to be the same as it: a password
/// that is rotated is put into earlier releases, too.
pub(crate) fn free_id(state: &HostState, base: &str, identity: &ContentHash) -> Result<ReleaseId, NameError> {
    let live = state.live.as_ref().and_then(|live| record(state, &live.release));
    // Without a commit a release is called after its content, whatever that was when it was new.
    let is_it = |live: &&ReleaseRecord| {
        let id = live.release.id.as_str();
        (id == base || without_number(id) == base || base == identity.short())
            && content_identity(&live.release) == *identity
    };
    if let Some(live) = live.filter(is_it) {
        return Ok(live.release.id.clone());
    }
    let mut number = 1_u32;
    loop {
        let id: ReleaseId = if number == 1 { base.parse()? } else { format!("{base}-{number}").parse()? };
        match state.releases.iter().find(|record| record.release.id == id) {
            Some(record) if content_identity(&record.release) != *identity => number += 1,
            _ => return Ok(id),
        }
    }
}

/// What tells a release from another: all that runs, without when and whence.
pub(crate) fn content_identity(release: &Release) -> ContentHash {
    let content =
        (&release.services, &release.backing, &release.databases, &release.volumes, &release.variables);
    identity_of(content, &release.one_offs, release.backup.as_ref())
}

/// A schedule of backups that changes is something to put live, too.
fn identity_of(
    content: impl Serialize,
    one_offs: &BTreeMap<ServiceName, OneOffRelease>,
    backup: Option<&BackupSettings>,
) -> ContentHash {
    let mut identity = ContentHash::of_value(&content);
    if !one_offs.is_empty() {
        identity = ContentHash::of_value(&(&identity, one_offs));
    }
    match backup {
        Some(backup) => ContentHash::of_value(&(&identity, backup)),
        None => identity,
    }
}

pub(crate) fn no_transition(error: &NoTransition) -> Refusals {
    let next = match error {
        NoTransition::NoSubnet(_) => {
            "remove networks nobody uses (`docker network prune`), or name another range as `subnets` in the host's host.yml"
        }
        NoTransition::NoAddress(_) => "remove apps that are no longer used: `cutover remove`",
        NoTransition::NoPort(_) => {
            "remove apps that are no longer used (`cutover remove`), or name a larger range as `ports` in the host's host.yml"
        }
        NoTransition::Name(_) => "give the service a shorter name",
    };
    Failure::new(Exit::Refused, "the plan finds no place for the new instances")
        .because(error.to_string())
        .next(next)
        .into()
}

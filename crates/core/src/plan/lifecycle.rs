//! Plans of the verbs that need no configuration: rollback, env change, restart, start, stop, remove, prune. All work on recorded releases.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::config::settings::Compatible;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::layout;
use crate::names::{AppId, ReleaseId, ServiceName, Slot, VariableName};
use crate::plan::assemble::{Parts, assemble};
use crate::plan::deploy::{content_identity, free_id, no_transition, variables};
use crate::plan::idle::idle;
use crate::plan::prune::prune;
use crate::plan::specify::{Ground, reference};
use crate::plan::transition::{Anew, transition};
use crate::plan::{
    DrainPlan, EnvSource, HeldDatabase, HostPlan, Plan, Planned, RecordPlan, Refusals, ServicePlan,
    SwitchPlan, Verb, VolumeSpec, WhyNot, backing, downs, passwords, snapshots,
};
use crate::release::{Live, Release, RuntimeKind};
use crate::request::{Request, Stamp};
use crate::rules;
use crate::state::{HostState, MigrationRecord, ReleaseRecord, World};
use crate::template::Template;
use crate::verdict::Outcome;

/// Plans a verb that needs no configuration.
///
/// # Errors
/// Every safety rule that refuses it, and what is asked of something that is not there.
pub fn lifecycle(id: &AppId, world: &World, request: &Request, stamp: Stamp) -> Result<Plan, Refusals> {
    let mut hosts = BTreeMap::new();
    for (name, state) in &world.hosts {
        let plan = match request.verb {
            Verb::Remove => remove(id, state, request, stamp)?,
            Verb::BackingApply | Verb::BackingRestart => backing::backing(id, state, request, stamp)?,
            Verb::Prune | Verb::SnapshotPrune => prune(id, state, request, stamp),
            Verb::SnapshotCreate => snapshots::create(id, state, request, stamp)?,
            Verb::SnapshotRestore if request.snapshot.to.is_some() => {
                snapshots::beside(id, state, request, stamp)?
            }
            _ => of_release(id, state, request, stamp)?,
        };
        rules::check(&plan, state, request).map_err(Refusals)?;
        hosts.insert(name.clone(), plan);
    }
    Ok(Plan { hosts })
}

pub(crate) fn nothing_live(id: &AppId) -> Failure {
    Failure::new(Exit::Refused, format!("nothing of {id} is live here"))
        .because("it was never deployed to this host, or was removed")
        .while_serving("nothing is serving")
        .next("`cutover deploy` puts a release live")
}

fn of_release(id: &AppId, state: &HostState, request: &Request, stamp: Stamp) -> Result<HostPlan, Refusals> {
    let live = state.live.as_ref().ok_or_else(|| nothing_live(id))?;
    let current = record(state, &live.release).ok_or_else(|| unknown_release(state, &live.release))?;
    known_services(&current.release, &request.services)?;
    let all: BTreeSet<ServiceName> = current.release.services.keys().cloned().collect();
    let named = |set: &BTreeSet<ServiceName>| if set.is_empty() { all.clone() } else { set.clone() };
    let (release, stopped, anew, env) = match request.verb {
        Verb::Rollback => (
            target(state, live, request)?.release.clone(),
            BTreeSet::new(),
            Anew::OnlyChanged,
            EnvSource::Recorded,
        ),
        Verb::Environment | Verb::SecretsRotate => (
            with_variables(state, &current.release, request, stamp)?,
            live.stopped.clone(),
            Anew::OnlyChanged,
            EnvSource::Release { base: live.release.clone() },
        ),
        Verb::Restart => (
            current.release.clone(),
            live.stopped.clone(),
            Anew::Asked(request.services.clone()),
            EnvSource::Recorded,
        ),
        Verb::Stop => {
            let stopped = live.stopped.union(&named(&request.services)).cloned().collect();
            (current.release.clone(), stopped, Anew::OnlyChanged, EnvSource::Recorded)
        }
        Verb::Start => {
            let started = named(&request.services);
            let stopped = live.stopped.difference(&started).cloned().collect();
            (current.release.clone(), stopped, Anew::OnlyChanged, EnvSource::Recorded)
        }
        Verb::SnapshotRestore => {
            (current.release.clone(), live.stopped.clone(), Anew::OnlyChanged, EnvSource::Recorded)
        }
        Verb::Deploy
        | Verb::Remove
        | Verb::BackingApply
        | Verb::BackingRestart
        | Verb::Prune
        | Verb::SnapshotCreate
        | Verb::SnapshotPrune
        | Verb::MigrateRehearse => {
            return Err(Failure::new(Exit::Failed, "this verb needs another plan").into());
        }
    };
    let moved = transition(state, &release, &stopped, &anew, stamp).map_err(|error| no_transition(&error))?;
    let ground = Ground { state, release: &release, urls: moved.urls.clone() };
    let held = match request.verb {
        Verb::Rollback if request.restore_databases => restores(state, live, &release, &ground, stamp)?,
        Verb::SnapshotRestore => vec![snapshots::restore(&ground, request, stamp)?],
        Verb::SecretsRotate => vec![passwords::change(state, live, &release, request)?],
        _ => Vec::new(),
    };
    let notes = held.iter().flat_map(|held| passwords::notes(&release, held)).collect();
    let migrations = match request.verb {
        Verb::Rollback if request.migrate_down => downs::downs(live, &ground, &moved.urls, stamp)?,
        _ => Vec::new(),
    };
    let parts = Parts {
        state,
        request,
        stamp,
        release: &release,
        stopped,
        transition: moved,
        migrations,
        held,
        env,
        generate: BTreeSet::new(),
        required: BTreeSet::new(),
        notes,
    };
    let mut plan = assemble(&parts).map_err(|error| no_transition(&error))?;
    match request.verb {
        Verb::Environment => {
            plan.notes.extend(unasked(&release, request));
            plan.notes.extend(passwords::unheeded(state, &release));
        }
        Verb::SnapshotRestore => plan.notes.extend(snapshots::restore_notes(state, request)),
        Verb::Rollback => {
            plan.notes.extend(of_databases(state, request, &release));
            plan.notes.extend(back_again(state, live, &release).filter(|_| request.to.is_none()));
        }
        _ => {}
    }
    if request.verb == Verb::Stop {
        plan.verify = Planned::NotNeeded(WhyNot::NotInThisVerb);
        if let Planned::Do(drain) = &mut plan.drain {
            drain.keep_warm = Duration::ZERO;
        }
    }
    Ok(plan)
}

pub(crate) fn record<'a>(state: &'a HostState, id: &ReleaseId) -> Option<&'a ReleaseRecord> {
    state.releases.iter().find(|record| record.release.id == *id)
}

pub(crate) fn unknown_release(state: &HostState, id: &ReleaseId) -> Failure {
    let known: Vec<_> = state
        .releases
        .iter()
        .filter(|record| record.lived)
        .map(|record| record.release.id.to_string())
        .collect();
    Failure::new(Exit::Refused, format!("release {id} is not on record here"))
        .because(if known.is_empty() {
            "no release is on record".to_owned()
        } else {
            format!("on record: {}", known.join(", "))
        })
        .next("`cutover releases` lists what rollback can reach")
}

fn known_services(release: &Release, asked: &BTreeSet<ServiceName>) -> Result<(), Refusals> {
    let unknown: Vec<_> =
        asked.iter().filter(|name| !release.services.contains_key(*name)).map(ToString::to_string).collect();
    if unknown.is_empty() {
        return Ok(());
    }
    let known: Vec<_> = release.services.keys().map(ToString::to_string).collect();
    Err(Failure::new(Exit::Usage, format!("the live release has no service {}", unknown.join(", ")))
        .because(format!("it has: {}", known.join(", ")))
        .next("name one of these, or none for all of them")
        .into())
}

/// The release to go back to: the one asked for, else the newest other one that was live before.
fn target<'a>(state: &'a HostState, live: &Live, request: &Request) -> Result<&'a ReleaseRecord, Refusals> {
    let now = record(state, &live.release);
    let current = now.map_or(u64::MAX, |record| record.sequence);
    // A password that was rotated is in the releases from before, too, and a schedule of backups runs nowhere: what differed by nothing else leads
    // nowhere.
    let runs = |release: &Release| content_identity(&Release { backup: None, ..release.clone() });
    let is_same = |record: &ReleaseRecord| now.is_some_and(|now| runs(&now.release) == runs(&record.release));
    match &request.to {
        Some(id) => match record(state, id) {
            Some(found) if found.lived => Ok(found),
            Some(_) => Err(Failure::new(Exit::Refused, format!("release {id} was never live"))
                .because("its deploy failed, or was cancelled: nobody knows that it works")
                .next("`cutover releases` lists what rollback can reach")
                .into()),
            None => Err(unknown_release(state, id).into()),
        },
        None => state
            .releases
            .iter()
            .filter(|record| record.lived && record.release.id != live.release && record.sequence < current)
            .filter(|record| !is_same(record))
            .max_by_key(|record| record.sequence)
            .ok_or_else(|| {
                Failure::new(Exit::Refused, "there is no earlier release to go back to")
                    .because(format!(
                        "of the releases on record, none was live before release {}",
                        live.release
                    ))
                    .next("`cutover releases` lists what rollback can reach")
                    .into()
            }),
    }
}

/// Whoever asks for more than a rollback is told what that finds to do, as far as it is not what he expects.
fn of_databases(state: &HostState, request: &Request, target: &Release) -> Vec<String> {
    if !(request.restore_databases || request.migrate_down) {
        return Vec::new();
    }
    if !crossed(state, target).iter().any(|one| one.how == Crossing::Since) {
        return vec![format!(
            "no database is changed: nothing was migrated that release {} cannot live with, so this is a rollback and no more",
            target.id
        )];
    }
    if request.migrate_down { downs::notes(state, target) } else { Vec::new() }
}

/// Whoever goes back twice is told that the second time leads to where he came from.
fn back_again(state: &HostState, live: &Live, target: &Release) -> Option<String> {
    let last = state.verdicts.iter().find(|verdict| {
        verdict.outcome == Outcome::Done
            && matches!(verdict.verb, Verb::Deploy | Verb::Rollback | Verb::Environment | Verb::SecretsRotate)
    });
    let was_rollback =
        last.is_some_and(|last| last.verb == Verb::Rollback && last.serving.as_ref() == Some(&live.release));
    was_rollback.then(|| {
        format!(
            "release {} is live by a rollback: this leads back to release {}, which was live before it; `--to` names another (`cutover releases`)",
            live.release, target.id
        )
    })
}

/// Names that are set, and that nothing of the release gets.
fn unasked(release: &Release, request: &Request) -> Option<String> {
    let told = release.parts().flat_map(|part| part.run.environment.values());
    let asked: BTreeSet<_> = told.flat_map(Template::variables).collect();
    let names: Vec<&str> =
        request.overlay.keys().filter(|name| !asked.contains(name)).map(VariableName::as_str).collect();
    (!names.is_empty()).then(|| {
        format!(
            "no service asks for {}: name it under `environment:` without a value, and deploy",
            names.join(", ")
        )
    })
}

fn with_variables(
    state: &HostState,
    current: &Release,
    request: &Request,
    stamp: Stamp,
) -> Result<Release, Refusals> {
    // What a local file brought is in the release only.
    let mut now = current.variables.clone();
    now.retain(|name, _| !request.unset.contains(name));
    now.extend(variables(state, request));
    let mut release = Release { variables: now, created: stamp.now, ..current.clone() };
    let identity = content_identity(&release);
    if identity != content_identity(current) {
        release.id = free_id(state, without_number(current.id.as_str()), &identity).map_err(|error| {
            Failure::new(Exit::Failed, "the release has no name").because(error.to_string())
        })?;
    }
    Ok(release)
}

/// A release's name as it was before [`free_id`] made it another's: `7f3c9e1-dirty-2` was `7f3c9e1-dirty`.
pub(crate) fn without_number(id: &str) -> &str {
    let is_number = |word: &str| !word.is_empty() && word.bytes().all(|digit| digit.is_ascii_digit());
    id.rsplit_once('-').filter(|(_, last)| is_number(last)).map_or(id, |(base, _)| base)
}

/// A migration that stands between a release and the schema of today.
pub(crate) struct Crossed<'a> {
    /// The release that was migrated.
    pub(crate) record: &'a ReleaseRecord,
    pub(crate) migration: &'a MigrationRecord,
    pub(crate) how: Crossing,
}

/// How it stands there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Crossing {
    /// Carried out since the release was live last, and breaking.
    Since,
    /// The release was live with it, and a restore has undone it.
    Undone,
}

/// What a rollback to `release` crosses, in the order in which it was carried out. What counts is which migrations the schema had when the
/// release went live last, and which it has now; not when their releases went live, which a rollback changes.
pub(crate) fn crossed<'a>(state: &'a HostState, release: &Release) -> Vec<Crossed<'a>> {
    let Some(then) = record(state, &release.id).map(|record| record.sequence) else { return Vec::new() };
    let mut crossed = Vec::new();
    for record in &state.releases {
        let databases: BTreeSet<_> = record.migrations.iter().map(|one| &one.done.database).collect();
        for database in databases {
            let of_it = record.migrations.iter().filter(|one| one.done.database == *database);
            let mut of_it = of_it.filter(|one| !is_empty(state, one));
            let had = of_it.clone().find(|one| one.held_at(then));
            let has = of_it.find(|one| one.undone.is_none());
            let found = match (had, has) {
                (None, Some(one)) if one.done.compatible == Compatible::Breaking => (one, Crossing::Since),
                (Some(one), None) => (one, Crossing::Undone),
                _ => continue,
            };
            crossed.push(Crossed { record, migration: found.0, how: found.1 });
        }
    }
    crossed.sort_by_key(|crossed| crossed.migration.at);
    crossed
}

/// Whether a migration is known to have changed nothing since one that is on record: what a run that failed had left was no longer pending, and is
/// on no other record.
pub(crate) fn is_empty(state: &HostState, one: &MigrationRecord) -> bool {
    let Some(schema) = &one.done.schema else { return one.is_empty() };
    let before = one.at.saturating_sub(1);
    let left_so = |other: &MigrationRecord| {
        other.done.database == one.done.database
            && other.held_at(before)
            && other.done.schema.as_ref().is_some_and(|left| left.after == schema.before)
    };
    one.is_empty() && state.releases.iter().flat_map(|record| &record.migrations).any(left_so)
}

/// The snapshots taken before the oldest breaking migration that is crossed, by database.
fn restores(
    state: &HostState,
    live: &Live,
    release: &Release,
    ground: &Ground<'_>,
    stamp: Stamp,
) -> Result<Vec<HeldDatabase>, Refusals> {
    let mut held: BTreeMap<_, HeldDatabase> = BTreeMap::new();
    for Crossed { record, migration, .. } in
        crossed(state, release).into_iter().filter(|crossed| crossed.how == Crossing::Since)
    {
        let migration = &migration.done;
        let Some(database) = release.databases.get(&migration.database) else { continue };
        let Some(snapshot) = migration.snapshot.clone() else {
            let failure =
                Failure::new(Exit::Refused, format!("database `{}` cannot be put back", migration.database))
                    .because(format!("release {} was migrated without a snapshot", record.release.id));
            return Err(failure.next(other_way_back(state, release)).into());
        };
        let Some(place) = snapshots::place(ground, database) else { continue };
        let present = Some(snapshots::file(&release.app, &migration.database, &place, &live.release, stamp));
        let restore = HeldDatabase::Restore {
            database: migration.database.clone(),
            place,
            snapshot: Some(snapshot),
            present,
        };
        // The oldest one counts: it is the state before all of them.
        held.entry(migration.database.clone()).or_insert(restore);
    }
    Ok(held.into_values().collect())
}

/// Without a snapshot.
fn other_way_back(state: &HostState, release: &Release) -> String {
    if downs::are_recorded(state, release) {
        format!(
            "`cutover rollback --to {} --migrate-down` takes the migrations back by the `down` commands that are recorded with them",
            release.id
        )
    } else {
        "go forward with a new release".to_owned()
    }
}

/// Takes the app off the host: routes first, then instances, networks, state; volumes only when asked.
fn remove(id: &AppId, state: &HostState, request: &Request, stamp: Stamp) -> Result<HostPlan, Refusals> {
    let before = state.table.as_ref().and_then(|found| found.table.owners.get(&id.owner())).cloned();
    let nothing =
        state.live.is_none() && state.instances.is_empty() && state.releases.is_empty() && before.is_none();
    // Data that an earlier one left is on no record.
    if nothing && !request.volumes {
        return Err(nothing_live(id).next("`cutover remove --volumes` takes data that was kept").into());
    }
    let outgoing: Vec<_> =
        state.instances.iter().filter(|found| found.ours).map(|found| reference(state, found)).collect();
    let services = state.live.iter().flat_map(|live| &live.members);
    let volumes = if request.volumes { removed_volumes(state) } else { Vec::new() };
    let mut notes = Vec::new();
    if request.volumes {
        notes.push("snapshots are kept".to_owned());
    } else {
        notes.push(
            "volumes and snapshots are kept, and with volumes the host's env file; `--volumes` removes volumes and env file, too"
                .to_owned(),
        );
    }
    let there =
        |name: &String| state.engine.as_ref().is_some_and(|engine| engine.networks.contains_key(name));
    // The engine's are those of every app of this installation.
    let own = [
        layout::slot_network(id, Slot::Blue),
        layout::slot_network(id, Slot::Green),
        layout::backing_network(id),
    ];
    Ok(HostPlan {
        becomes: None,
        services: services
            .map(|(name, members)| (name.clone(), ServicePlan::Stopped { outgoing: members.clone() }))
            .collect(),
        switch: Planned::Do(if before.is_some() {
            SwitchPlan::Table { before, after: None }
        } else {
            SwitchPlan::LiveFile
        }),
        drain: Planned::Do(DrainPlan {
            outgoing,
            deadline: crate::defaults::DRAIN,
            keep_warm: Duration::ZERO,
            leaves: Vec::new(),
            kept_candidates: Vec::new(),
        }),
        record: RecordPlan {
            forget: state.releases.iter().map(|record| record.release.id.clone()).collect(),
            networks: own.into_iter().filter(there).collect(),
            volumes,
            forget_app: true,
            data: request.volumes,
            env_stays: !request.volumes && state.engine.iter().any(|engine| !engine.volumes.is_empty()),
            ..RecordPlan::default()
        },
        notes,
        ..idle(id, state, request, stamp)
    })
}

fn removed_volumes(state: &HostState) -> Vec<VolumeSpec> {
    let mut volumes = BTreeMap::new();
    for record in &state.releases {
        let ground = Ground { state, release: &record.release, urls: BTreeMap::new() };
        for name in record.release.volumes.keys() {
            for runtime in [RuntimeKind::Process, RuntimeKind::Container] {
                let volume = ground.volume(runtime, name);
                let there = runtime == RuntimeKind::Process
                    || state.engine.as_ref().is_some_and(|e| e.volumes.contains(&volume.name));
                if !volume.external && there {
                    volumes.insert(volume.name.clone(), volume);
                }
            }
        }
    }
    // Those that earlier releases left: the engine knows whose they are.
    for name in state.engine.iter().flat_map(|engine| &engine.volumes) {
        let left = VolumeSpec { runtime: RuntimeKind::Container, name: name.clone(), external: false };
        volumes.entry(name.clone()).or_insert(left);
    }
    volumes.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_with_other_variables_keeps_the_name_it_had_without_its_number() {
        for (id, base) in [
            ("2e3ccf0", "2e3ccf0"),
            ("2e3ccf0-12", "2e3ccf0"),
            ("2e3ccf0-dirty", "2e3ccf0-dirty"),
            ("2e3ccf0-dirty-2", "2e3ccf0-dirty"),
        ] {
            assert_eq!(without_number(id), base);
        }
    }
}

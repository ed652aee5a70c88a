//! The plan of a rehearsal: the migrations of a release, each tried on a database that is made of a snapshot, in a server of its own. That has the
//! live one's image, settings and variables and nothing of its volumes, and no network but itself, in which the migration runs: so it is tried with the
//! release's own variables, by which it reaches nothing that is live.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use crate::config::settings::{Mount, RunSettings, ServerKind};
use crate::defaults::{DISK_FREE, GATE};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::layout;
use crate::names::{DatabaseName, InstanceName, ServiceName, Slot, VariableName, VolumeName};
use crate::plan::assemble::wanted_image;
use crate::plan::idle::idle;
use crate::plan::lifecycle::{nothing_live, record, unknown_release};
use crate::plan::snapshots::{Apart, Differs, apart};
use crate::plan::specify::{Ground, respecify, urls};
use crate::plan::{
    DatabasePlace, EnvSource, HostPlan, InstanceSpec, MigratePlan, Migration, Planned, PreflightPlan,
    Reached, Refusals, ScratchRehearsal, databases,
};
use crate::release::{Release, RuntimeKind};
use crate::request::{Request, Stamp};
use crate::retention::KnownSnapshot;
use crate::state::{HostState, Role};

/// Rehearses the migrations of a release's databases, or of those that are named.
pub(super) fn rehearse(
    release: &Release,
    state: &HostState,
    request: &Request,
    stamp: Stamp,
    required: BTreeSet<VariableName>,
) -> Result<HostPlan, Refusals> {
    let id = &release.app;
    let live = state.live.as_ref().ok_or_else(|| nothing_live(id))?;
    let live = record(state, &live.release).ok_or_else(|| unknown_release(state, &live.release))?;
    let wanted = &request.snapshot.databases;
    refuse_unmigrated(release, wanted)?;
    let ground = Ground { state, release, urls: urls(release, |_| None) };
    let (mut scratch, mut notes) = (Vec::new(), Vec::new());
    for (name, database) in &release.databases {
        let Some(migrate) = &database.migrate else { continue };
        if !(wanted.is_empty() || wanted.contains(name)) {
            continue;
        }
        let migration = databases::migration(&ground, name, database, migrate, Slot::Blue, stamp);
        let migration = migration.ok_or_else(|| unfit(name, "nothing says where it lies"))?;
        let service = in_server(name, &migration)?.clone();
        let snapshot = newest(state, name)?;
        notes.extend(told(state, snapshot, &live.release));
        scratch.push(on_scratch(state, migration, &service, snapshot, stamp)?);
    }
    if scratch.is_empty() {
        return Err(Failure::new(Exit::Refused, "there is nothing to rehearse")
            .because(format!("no database of {id} has a `migrate:`"))
            .next("name its command in cutover.yml: `databases: { main: { migrate: … } }`")
            .into());
    }
    let made = || scratch.iter().flat_map(|one| [&one.server, &one.migration.spec]);
    let preflight = PreflightPlan {
        disk: DISK_FREE,
        artifacts: made().flat_map(InstanceSpec::artifacts).cloned().collect(),
        images: made()
            .filter_map(|spec| wanted_image(&spec.content, spec.settings.platform.as_ref()))
            .collect(),
        engine: true,
        proxy: false,
        env: EnvSource::HostFile,
        required,
        generate: BTreeSet::new(),
        ports: BTreeSet::new(),
    };
    let migrate = MigratePlan { rehearse: Vec::new(), direct: Vec::new(), if_pending: None, scratch };
    Ok(HostPlan {
        release: Some(release.clone()),
        preflight: Planned::Do(preflight),
        migrate: Planned::Do(migrate),
        notes,
        ..idle(id, state, request, stamp)
    })
}

fn refuse_unmigrated(release: &Release, wanted: &BTreeSet<DatabaseName>) -> Result<(), Refusals> {
    let has =
        |name: &DatabaseName| release.databases.get(name).is_some_and(|database| database.migrate.is_some());
    let Some(name) = wanted.iter().find(|name| !has(name)) else { return Ok(()) };
    let known: Vec<_> = release.databases.keys().filter(|name| has(name)).map(ToString::to_string).collect();
    Err(Failure::new(Exit::Usage, format!("there is no migration of `{name}` to rehearse"))
        .because(if known.is_empty() {
            "no database of the release has a `migrate:`".to_owned()
        } else {
            format!("databases with a `migrate:`: {}", known.join(", "))
        })
        .next("name one of these, or none for all of them")
        .into())
}

fn unfit(name: &DatabaseName, why: &str) -> Failure {
    Failure::new(Exit::Refused, format!("the migration of `{name}` cannot be rehearsed"))
        .because(why)
        .next("a rehearsal needs PostgreSQL in a container that cutover runs (`backing:`), and a migration from an image")
        .next("`--database NAME` rehearses others alone")
}

/// The backing service of a database that can be had a second time.
fn in_server<'a>(name: &DatabaseName, migration: &'a Migration) -> Result<&'a ServiceName, Failure> {
    let place = match &migration.place {
        Some(DatabasePlace::Server(place)) => place,
        Some(DatabasePlace::File(_)) => {
            return Err(unfit(
                name,
                "it is a file of SQLite, whose migrations each deploy rehearses on a copy by itself",
            ));
        }
        None => return Err(unfit(name, "nothing says where it lies")),
    };
    if place.kind != ServerKind::Postgres {
        return Err(unfit(name, "its server is not PostgreSQL"));
    }
    let Reached::Backing { service, runtime: RuntimeKind::Container } = &place.reached else {
        return Err(unfit(
            name,
            "its server is no container of cutover's, so that there is none to make like it",
        ));
    };
    if migration.spec.runtime() != RuntimeKind::Container {
        return Err(unfit(
            name,
            "its migration is a plain process, which nothing keeps away from the live database",
        ));
    }
    Ok(service)
}

/// The newest that was read back when it was taken, and whose checksum is recorded.
fn newest<'a>(state: &'a HostState, name: &DatabaseName) -> Result<&'a KnownSnapshot, Failure> {
    let all = state.snapshots.iter().flatten().filter(|one| one.database == *name);
    let good = |one: &&KnownSnapshot| {
        one.problem.is_none() && one.hash.is_some() && one.name.ends_with(layout::DUMP)
    };
    all.filter(good).max_by_key(|one| one.sequence).ok_or_else(|| {
        Failure::new(Exit::Refused, format!("there is no snapshot of `{name}` to rehearse on"))
            .because("a rehearsal is done on what the newest snapshot holds, and none on this host is whole and on record")
            .next("`cutover snapshot create` takes one now, while the database is used; then rehearse again")
    })
}

/// Which state of the database it is, seen from what is live.
fn told(state: &HostState, snapshot: &KnownSnapshot, live: &Release) -> Vec<String> {
    let KnownSnapshot { name, database, release, .. } = snapshot;
    let mut notes = Vec::new();
    if *release != live.id {
        notes.push(format!("{name} is of release {release}, and {} is live", live.id));
    }
    notes.extend(apart(state, snapshot).iter().map(|Apart { record, how, .. }| {
        let migrated = &record.release.id;
        match how {
            Differs::Lacking => format!(
                "it was taken before release {migrated} migrated `{database}`: that migration is in the rehearsal, too (`cutover snapshot create` takes one of the present)"
            ),
            Differs::Added => format!(
                "release {migrated} had migrated `{database}` when it was taken, and what is live went live without that"
            ),
        }
    }));
    notes
}

/// The server beside the live one, and the migration in it.
fn on_scratch(
    state: &HostState,
    mut migration: Migration,
    service: &ServiceName,
    snapshot: &KnownSnapshot,
    stamp: Stamp,
) -> Result<ScratchRehearsal, Refusals> {
    let name = &migration.database;
    let all = state.instances.iter();
    let found = all
        .filter(|found| found.role == Role::Backing && found.ours && found.service == *service)
        .find(|found| found.is_running());
    let made = found.and_then(|found| respecify(state, found)).ok_or_else(|| {
        Failure::new(Exit::Refused, format!("the migration of `{name}` cannot be rehearsed"))
            .because(format!(
                "backing service `{service}` does not run, or nobody knows any more how it was made"
            ))
            .next(format!("`cutover backing apply {service}` makes it anew; then rehearse again"))
    })?;
    let within = made.gate.within.max(GATE);
    let scratch: InstanceName = format!("scratch-{name}-{}", stamp.run.short()).parse().map_err(|error| {
        Failure::new(Exit::Failed, "the scratch server has no name").because(format!("{error}"))
    })?;
    let live = made.spec.settings.mounts.clone();
    let mut server = InstanceSpec {
        name: scratch.clone(),
        role: Role::OneOff,
        run: stamp.run,
        address: None,
        published: None,
        networks: Vec::new(),
        isolated: true,
        ..made.spec
    };
    apart_from(&mut server, |_, read_only| read_only);
    // What it holds is thrown away: it is not waited for until it has put that in order.
    server.settings.stop.grace = Duration::ZERO;
    // The name by which the release knows its server leads to this one.
    server.settings.extra_hosts = vec![format!("{service}:127.0.0.1")];
    for spec in std::iter::once(&mut migration.spec).chain(migration.pending.as_deref_mut()) {
        spec.networks.clear();
        spec.network_of = Some(scratch.clone());
        spec.settings.extra_hosts.clear();
        spec.settings.dns.clear();
        spec.settings.hostname = None;
        // Where the live server has its sockets or its data there is a way to it.
        apart_from(spec, |source, _| !live.iter().any(|mount| is_shared(mount, source)));
    }
    Ok(ScratchRehearsal {
        migration,
        snapshot: layout::in_snapshots(&server.app, &snapshot.name),
        server,
        within,
    })
}

/// Whether a path of the host is one of a mount, or lies in it, or has it in itself.
fn is_shared(mount: &Mount, path: &str) -> bool {
    match mount {
        Mount::Host { source, .. } => {
            let (one, other) = (Path::new(source), Path::new(path));
            one.starts_with(other) || other.starts_with(one)
        }
        Mount::Volume { .. } | Mount::Shipped { .. } | Mount::Tmpfs { .. } => false,
    }
}

/// Nothing of what is live is written, and nobody who watches labels takes it for what is live: volumes are its own and empty, and so are the paths
/// of the host that do not stay; those are read only. `stays` is asked with the path and whether it is read only already.
fn apart_from(spec: &mut InstanceSpec, stays: impl Fn(&str, bool) -> bool) {
    let InstanceSpec { settings, volumes, .. } = spec;
    let RunSettings { mounts, labels, ports, .. } = settings;
    labels.clear();
    ports.clear();
    let mut own: BTreeMap<VolumeName, String> = BTreeMap::new();
    for (number, mount) in (1..).zip(mounts.iter_mut()) {
        match mount {
            Mount::Host { source, read_only, .. } if stays(source, *read_only) => *read_only = true,
            Mount::Host { target, .. } | Mount::Volume { target, .. } => {
                let Ok(volume) = format!("scratch-{number}").parse::<VolumeName>() else { continue };
                own.insert(volume.clone(), String::new());
                *mount = Mount::Volume { volume, target: std::mem::take(target), read_only: false };
            }
            Mount::Shipped { .. } | Mount::Tmpfs { .. } => {}
        }
    }
    *volumes = own;
}

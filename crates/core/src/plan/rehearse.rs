//! The plan of a rehearsal: the migrations of a release, each tried on a database that is made of a snapshot, in a server of its own. That has the
//! live one's image, settings and variables and nothing of its volumes, and no network but itself, in which the migration runs: so it is tried with the
//! release's own variables, by which it reaches nothing that is live. What of the host's paths stays is asked on the host: plain files.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::config::settings::{Config, Logging, Mount, RunSettings};
use crate::defaults::{self, DISK_FREE, GATE};
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
    Reached, RecordPlan, Refusals, ScratchRehearsal, databases,
};
use crate::release::{Release, RuntimeKind};
use crate::request::{Request, Stamp};
use crate::retention::KnownSnapshot;
use crate::state::{HostState, Role};
use crate::template::Template;

/// For what a server's image puts in by itself when it first starts: it is thrown away, and comes before the server answers.
const SEEDS: Duration = Duration::from_mins(10);

/// Rehearses the migrations of a release's databases, or of those that are named.
pub(super) fn rehearse(
    config: &Config,
    release: &Release,
    state: &HostState,
    request: &Request,
    stamp: Stamp,
) -> Result<HostPlan, Refusals> {
    let id = &release.app;
    let live = state.live.as_ref().ok_or_else(|| nothing_live(id))?;
    let live = record(state, &live.release).ok_or_else(|| unknown_release(state, &live.release))?;
    let wanted = &request.snapshot.databases;
    refuse_unmigrated(release, wanted)?;
    let ground = Ground { state, release, urls: urls(release, |_| None) };
    let (mut scratch, mut notes) = (Vec::new(), Vec::new());
    for (name, database) in &release.databases {
        if database.migrate.is_empty() || !(wanted.is_empty() || wanted.contains(name)) {
            continue;
        }
        let migration = databases::migration(&ground, name, database, &database.migrate, Slot::Blue, stamp);
        let migration = migration.ok_or_else(|| unfit(name, "nothing says where it lies"))?;
        let service = in_server(name, &migration)?.clone();
        refuse_podman(state, name)?;
        refuse_ungenerated(config, release, &migration)?;
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
    // What a deploy makes a value for has none yet, and is asked for only by whoever refers to it.
    let required = config.required.keys().filter(|name| !config.generate.contains(*name)).cloned().collect();
    let is_on_record = state.releases.iter().any(|record| record.release.id == release.id);
    let forget = if is_on_record { Vec::new() } else { vec![release.id.clone()] };
    let made =
        || scratch.iter().flat_map(|one| std::iter::once(&one.server).chain(one.migration.instances()));
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
        record: RecordPlan { forget, ..RecordPlan::default() },
        notes,
        ..idle(id, state, request, stamp)
    })
}

fn refuse_unmigrated(release: &Release, wanted: &BTreeSet<DatabaseName>) -> Result<(), Refusals> {
    let has = |name: &DatabaseName| {
        release.databases.get(name).is_some_and(|database| !database.migrate.is_empty())
    };
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
        .next("a rehearsal needs PostgreSQL, MariaDB or MySQL in a container that cutover runs with Docker (`backing:`), and a migration from an image")
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
    let Reached::Backing { service, runtime: RuntimeKind::Container, .. } = &place.reached else {
        return Err(unfit(
            name,
            "its server is no container of cutover's, so that there is none to make like it",
        ));
    };
    if migration.instances().any(|spec| spec.runtime() != RuntimeKind::Container) {
        return Err(unfit(
            name,
            "its migration is a plain process, which nothing keeps away from the live database",
        ));
    }
    Ok(service)
}

/// The name of the backing service leads to the scratch server by a file of hosts that Docker shares within a network, and Podman does not.
fn refuse_podman(state: &HostState, name: &DatabaseName) -> Result<(), Failure> {
    match &state.engine {
        Some(engine) if engine.name != "Docker" => Err(unfit(
            name,
            &format!("the engine is {}, in which a network without others gives nobody a name", engine.name),
        )),
        _ => Ok(()),
    }
}

/// A value that only a deploy makes is not there for its migration.
fn refuse_ungenerated(config: &Config, release: &Release, migration: &Migration) -> Result<(), Failure> {
    let questions = migration.questions().into_iter().map(|(spec, _)| spec);
    let specs = migration.instances().chain(questions);
    let mut named = specs.flat_map(|spec| spec.settings.environment.values()).flat_map(Template::variables);
    let is_absent =
        |name: &&VariableName| config.generate.contains(*name) && !release.variables.contains_key(*name);
    match named.find(is_absent) {
        Some(variable) => {
            let why = format!("it is told {variable}, which has no value before a deploy makes one");
            let mut failure = unfit(&migration.database, &why);
            let environment = &release.app.environment;
            failure.next = vec![format!(
                "`cutover env set -e {environment} {variable}` gives it one; then rehearse again"
            )];
            Err(failure)
        }
        None => Ok(()),
    }
}

/// The newest that was read back when it was taken, and whose checksum is recorded.
fn newest<'a>(state: &'a HostState, name: &DatabaseName) -> Result<&'a KnownSnapshot, Failure> {
    let all = state.snapshots.iter().flatten().filter(|one| one.database == *name);
    let good = |one: &&KnownSnapshot| {
        one.problem.is_none() && one.hash.is_some() && one.name.ends_with(layout::DUMP)
    };
    // One that came out of a backup is younger on record than what is in it.
    all.filter(good).max_by_key(|one| (one.moment, one.sequence)).ok_or_else(|| {
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
    let within = made.gate.within.max(GATE) + SEEDS;
    let scratch: InstanceName = layout::scratch(name, stamp.run).parse().map_err(|error| {
        Failure::new(Exit::Failed, "the scratch server has no name").because(format!("{error}"))
    })?;
    // By which the live server is found in its networks: here they lead to this one.
    let aliases = made.spec.networks.iter().flat_map(|network| network.aliases.iter().cloned());
    let names: BTreeSet<String> =
        aliases.chain([service.to_string(), layout::container(&made.spec.app, &made.spec.name)]).collect();
    let mut server = InstanceSpec {
        name: scratch.clone(),
        role: Role::OneOff,
        run: stamp.run,
        address: None,
        networks: Vec::new(),
        isolated: true,
        ..made.spec
    };
    apart_from_live(&mut server);
    server.settings.extra_hosts = names.iter().map(|name| format!("{name}:127.0.0.1")).collect();
    for spec in migration.specs_mut() {
        apart_from_live(spec);
        spec.networks.clear();
        spec.network_of = Some(scratch.clone());
        // These are the server's, with its network.
        spec.settings.extra_hosts.clear();
        spec.settings.dns.clear();
        spec.settings.hostname = None;
        spec.settings.sysctls.retain(|name, _| !name.starts_with("net."));
    }
    Ok(ScratchRehearsal {
        migration,
        snapshot: layout::in_snapshots(&server.app, &snapshot.name),
        server,
        names,
        within,
    })
}

/// Nothing of what is live is reached or written, and nobody who watches labels takes it for what is live. Volumes are its own and empty. Of the
/// host's paths, all of them read only, the host keeps the plain files. No device and no right beyond an engine's usual ones leads out of it, and what
/// it writes goes into no log of the live ones. It is stopped at once: what it holds is thrown away.
fn apart_from_live(spec: &mut InstanceSpec) {
    let InstanceSpec { settings, volumes, published, .. } = spec;
    let RunSettings { mounts, labels, ports, devices, cap_add, security_opt, logging, stop, .. } = settings;
    *published = None;
    labels.clear();
    ports.clear();
    devices.clear();
    cap_add.clear();
    security_opt.retain(|option| option.starts_with("no-new-privileges"));
    *logging = Some(Logging {
        driver: "json-file".to_owned(),
        options: [
            ("max-size", defaults::LOG_BYTES.to_string()),
            ("max-file", defaults::LOG_FILES.to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into(),
    });
    stop.grace = Duration::ZERO;
    let mut own: BTreeMap<VolumeName, String> = BTreeMap::new();
    for mount in mounts.iter_mut() {
        match mount {
            Mount::Host { read_only, .. } => *read_only = true,
            Mount::Volume { volume, read_only, .. } => {
                own.insert(volume.clone(), String::new());
                *read_only = false;
            }
            Mount::Shipped { .. } | Mount::Tmpfs { .. } => {}
        }
    }
    *volumes = own;
}

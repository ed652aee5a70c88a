//! From a transition to the plan: which instance moves in which stage.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cutover_routes::{Address, Entry, Route, RouteState, Target};

use crate::addresses::Subnet;
use crate::config::settings::{DependsOn, HoldSettings, Service, Strategy, Verify};
use crate::defaults::SNAPSHOTS;
use crate::gate::Check;
use crate::hash::ContentHash;
use crate::layout;
use crate::names::{InstanceName, ServiceName, VariableName};
use crate::plan::specify::{Ground, Identity, reference};
use crate::plan::transition::{Allocation, Moved, NoTransition, Transition};
use crate::plan::{
    BackingPlan, BakePlan, CheckPlan, Direction, DrainPlan, EnvSource, Follow, GatedInstance, HandoverPlan,
    HeldDatabase, HostPlan, InstanceRef, MigratePlan, Migration, NetworkMove, NetworkSpec, NetworkUse,
    PLAN_VERSION, Planned, PreflightPlan, RecordPlan, RouteCheck, ServicePlan, StartPlan, SwitchPlan, Verb,
    VerifyPlan, VolumeSpec, WantedImage, WhyNot, absent, databases, passwords,
};
use crate::release::{Content, Live, Release, RuntimeKind, ServiceRelease};
use crate::request::{Request, Stamp};
use crate::retention::forgotten;
use crate::state::{HostState, InstanceState, Role};

/// All that a plan is assembled from.
pub(crate) struct Parts<'a> {
    pub(crate) state: &'a HostState,
    pub(crate) request: &'a Request,
    pub(crate) stamp: Stamp,
    pub(crate) release: &'a Release,
    pub(crate) stopped: BTreeSet<ServiceName>,
    pub(crate) transition: Transition,
    /// Migrations that may be pending.
    pub(crate) migrations: Vec<Migration>,
    /// What happens to databases for no migration's sake: put back to a snapshot (rollback --restore-db), a password changed.
    pub(crate) held: Vec<HeldDatabase>,
    pub(crate) env: EnvSource,
    pub(crate) generate: BTreeSet<VariableName>,
    pub(crate) required: BTreeSet<VariableName>,
    pub(crate) notes: Vec<String>,
}

/// The plan, with its alternative for a pending migration inside that must be held.
pub(crate) fn assemble(parts: &Parts<'_>) -> Result<HostPlan, NoTransition> {
    let has_live = parts.state.live.as_ref().is_some_and(|live| !live.members.is_empty());
    let (held, direct): (Vec<_>, Vec<_>) =
        parts.migrations.iter().cloned().partition(|migration| databases::is_held(migration, has_live));
    let restored = held_group(parts);
    let mut plan = base(parts, &restored, &parts.held)?;
    if held.is_empty() && direct.is_empty() {
        plan.migrate = Planned::NotNeeded(if parts.request.skip_migrations {
            WhyNot::SkipMigrations
        } else {
            no_migration(parts)
        });
        return Ok(plan);
    }
    let if_pending = if held.is_empty() {
        None
    } else {
        let migrated = held.iter().map(|migration| &migration.database);
        let mut group = databases::group(migrated, parts.release, was(parts.state));
        group.extend(restored);
        let migrate =
            held.iter().map(|migration| HeldDatabase::Migrate { migration: Box::new(migration.clone()) });
        let mut pending = base(parts, &group, &migrate.collect::<Vec<_>>())?;
        pending.migrate = Planned::NotNeeded(WhyNot::InHandover);
        pending.snapshot = Planned::NotNeeded(WhyNot::InHandover);
        Some(Box::new(pending))
    };
    plan.snapshot = databases::snapshots(&parts.migrations, &direct);
    plan.migrate = Planned::Do(MigratePlan { rehearse: held, direct, if_pending, scratch: Vec::new() });
    Ok(plan)
}

fn no_migration(parts: &Parts<'_>) -> WhyNot {
    match parts.request.verb {
        Verb::Deploy if parts.release.databases.values().any(|database| !database.migrate.is_empty()) => {
            WhyNot::Unchanged
        }
        Verb::Deploy => WhyNot::None,
        _ => WhyNot::NotInThisVerb,
    }
}

/// Whoever has a database open that is put back, or is told a password that changes.
fn held_group(parts: &Parts<'_>) -> BTreeSet<ServiceName> {
    let restored = parts.held.iter().filter_map(|held| match held {
        HeldDatabase::Restore { database, .. } => Some(database),
        HeldDatabase::Migrate { .. } | HeldDatabase::Password { .. } | HeldDatabase::Settle { .. } => None,
    });
    let mut group = databases::group(restored, parts.release, was(parts.state));
    let changed = parts.held.iter().filter_map(|held| match held {
        HeldDatabase::Password { change } => Some(&change.variable),
        HeldDatabase::Restore { .. } | HeldDatabase::Migrate { .. } | HeldDatabase::Settle { .. } => None,
    });
    group.extend(changed.flat_map(|variable| passwords::users(parts.release, variable)).cloned());
    group
}

/// The release that is live.
fn was(state: &HostState) -> Option<&Release> {
    let live = state.live.as_ref()?;
    state.releases.iter().find(|record| record.release.id == live.release).map(|record| &record.release)
}

/// How each service moves.
struct Ways<'a> {
    beside: Vec<(&'a ServiceName, &'a Moved)>,
    handed: Vec<(&'a ServiceName, Moved)>,
    follow: Vec<(&'a ServiceName, Moved, bool)>,
    gone: Vec<&'a Moved>,
}

fn base(
    parts: &Parts<'_>,
    group: &BTreeSet<ServiceName>,
    held: &[HeldDatabase],
) -> Result<HostPlan, NoTransition> {
    let Parts { state, request, stamp, release, .. } = parts;
    let ways = ways(parts, group);
    let becomes = becomes(parts, &ways);
    let switch = switch(parts, &ways, &becomes);
    let routed = matches!(switch, SwitchPlan::Table { .. });
    let incoming: Vec<&GatedInstance> = ways
        .beside
        .iter()
        .flat_map(|(_, moved)| &moved.incoming)
        .chain(ways.handed.iter().flat_map(|(_, moved)| &moved.incoming))
        .chain(ways.follow.iter().flat_map(|(_, moved, _)| &moved.incoming))
        .collect();
    let outgoing: Vec<InstanceRef> = ways
        .beside
        .iter()
        .flat_map(|(_, moved)| &moved.outgoing)
        .chain(ways.handed.iter().flat_map(|(_, moved)| &moved.outgoing))
        .chain(ways.follow.iter().flat_map(|(_, moved, _)| &moved.outgoing))
        .chain(ways.gone.iter().flat_map(|moved| &moved.outgoing))
        .cloned()
        .collect();
    let unchanged = incoming.is_empty() && outgoing.is_empty() && held.is_empty();
    let backing = absent::backing(parts, &incoming)?;
    let (joins, leaves) = moves(parts, &incoming);
    // Where the new ones start, and not at the end: a deploy that fails keeps a candidate of its own, and they would heap up.
    let (early, late) =
        candidates(state, &becomes).into_iter().partition::<Vec<_>, _>(|_| !incoming.is_empty());
    let retire = warm_leftovers(state, &becomes, &incoming).into_iter().chain(early).collect::<Vec<_>>();
    let first = state.live.is_none();
    let same = state
        .live
        .as_ref()
        .is_some_and(|live| live.release == release.id && unchanged && live.stopped == becomes.stopped);
    let start = !(ways.beside.is_empty() && joins.is_empty() && retire.is_empty());
    let mut plan = HostPlan {
        version: PLAN_VERSION,
        run: stamp.run,
        app: release.app.clone(),
        verb: request.verb,
        by: request.by.clone(),
        made: stamp.now,
        fingerprint: state.fingerprint(),
        allowed: request.allow.clone(),
        direction: Direction::Forward,
        release: Some((*release).clone()),
        live: state.live.clone(),
        services: parts
            .transition
            .services
            .iter()
            .map(|(name, moved)| (name.clone(), shown(name, moved, &ways)))
            .collect(),
        variables: BTreeMap::new(),
        preflight: Planned::Do(preflight(parts, &incoming, &backing, routed)),
        backing,
        snapshot: Planned::NotNeeded(WhyNot::NothingPending),
        migrate: Planned::NotNeeded(WhyNot::None),
        start: todo(start, WhyNot::Unchanged, || StartPlan {
            retire,
            waves: waves(release, &ways.beside),
            joins,
        }),
        check: todo(!ways.beside.is_empty(), WhyNot::Unchanged, || CheckPlan {
            instances: ways.beside.iter().flat_map(|(_, moved)| moved.incoming.clone()).collect(),
        }),
        handover: todo(!(ways.handed.is_empty() && held.is_empty()), WhyNot::None, || {
            handover(parts, &ways, held)
        }),
        verify: todo(!same && (routed || !ways.follow.is_empty()), WhyNot::None, || {
            verify(parts, &ways, &becomes)
        }),
        bake: bake(parts, &incoming, &outgoing, first),
        drain: todo(!outgoing.is_empty() || !leaves.is_empty(), WhyNot::None, || DrainPlan {
            deadline: drain_deadline(release, state),
            // Warmth belongs to a release: one that replaces its own instances has none to keep.
            keep_warm: if held.is_empty() && !is_live(state, release) {
                release.keep_warm
            } else {
                Duration::ZERO
            },
            outgoing,
            leaves,
            kept_candidates: Vec::new(),
        }),
        record: record(parts, &becomes, late),
        switch: if same { Planned::NotNeeded(WhyNot::Unchanged) } else { Planned::Do(switch) },
        becomes: Some(becomes),
        notes: parts
            .notes
            .iter()
            .cloned()
            .chain(crate::drift::written(parts.state, Some(parts.release)))
            .collect(),
    };
    if same {
        plan.preflight = Planned::NotNeeded(WhyNot::Unchanged);
        plan.backing =
            if plan.backing.todo().is_some() { plan.backing } else { Planned::NotNeeded(WhyNot::Unchanged) };
    }
    Ok(plan)
}

fn is_live(state: &HostState, release: &Release) -> bool {
    state.live.as_ref().is_some_and(|live| live.release == release.id)
}

pub(crate) fn todo<T>(needed: bool, why: WhyNot, plan: impl FnOnce() -> T) -> Planned<T> {
    if needed { Planned::Do(plan()) } else { Planned::NotNeeded(why) }
}

/// Which way each service goes: beside the old, by handover, or after verify.
fn ways<'a>(parts: &'a Parts<'_>, group: &BTreeSet<ServiceName>) -> Ways<'a> {
    let mut ways = Ways { beside: Vec::new(), handed: Vec::new(), follow: Vec::new(), gone: Vec::new() };
    let routed_app = parts.release.services.values().any(|service| service.settings.route.is_some());
    let needed = needed_by_routed(parts.release);
    for (name, moved) in &parts.transition.services {
        let held = group.contains(name);
        let stays = !matches!(moved.plan, ServicePlan::Stopped { .. });
        let Some(service) = parts.release.services.get(name).filter(|_| stays) else {
            // What goes has the file open as any other of its group: it is stopped before it is touched, not in the drain.
            if held {
                ways.handed.push((name, moved.clone_moved()));
            } else {
                ways.gone.push(moved);
            }
            continue;
        };
        let kept = matches!(moved.plan, ServicePlan::Kept);
        // An unchanged member of a group has the file open as any other: it is made anew, too.
        let moved_anew = (kept && held).then(|| anew(parts, name, service)).flatten();
        // What a routed one depends on is there before it, where two of it may be there at once.
        let needed_beside = service.settings.strategy == Strategy::BlueGreen && needed.contains(name);
        let waits = routed_app
            && service.settings.route.is_none()
            && (service.settings.port.is_none() || service.settings.strategy == Strategy::Handover)
            && !needed_beside;
        match (held, moved_anew, kept) {
            (true, anew, _) => {
                let moved = anew.unwrap_or_else(|| moved.clone_moved());
                if waits {
                    let first = Moved { incoming: Vec::new(), ..moved.clone_moved() };
                    ways.handed.push((name, first));
                    ways.follow.push((name, Moved { outgoing: Vec::new(), ..moved }, true));
                } else {
                    ways.handed.push((name, moved));
                }
            }
            (false, _, true) => {}
            (false, _, false) if waits => {
                ways.follow.push((
                    name,
                    moved.clone_moved(),
                    service.settings.strategy == Strategy::Handover,
                ));
            }
            (false, _, false)
                if service.settings.strategy == Strategy::Handover && !moved.outgoing.is_empty() =>
            {
                ways.handed.push((name, moved.clone_moved()));
            }
            (false, _, false) => ways.beside.push((name, moved)),
        }
    }
    ways
}

/// What services with routes depend on, and what those depend on.
fn needed_by_routed(release: &Release) -> BTreeSet<&ServiceName> {
    let depends =
        |service: &'_ ServiceRelease| service.settings.run.depends_on.keys().cloned().collect::<Vec<_>>();
    let routed = release.services.values().filter(|service| service.settings.route.is_some());
    let mut open: Vec<ServiceName> = routed.flat_map(depends).collect();
    let mut needed = BTreeSet::new();
    while let Some(name) = open.pop() {
        let Some((name, service)) = release.services.get_key_value(&name) else { continue };
        if needed.insert(name) {
            open.extend(depends(service));
        }
    }
    needed
}

fn anew(parts: &Parts<'_>, name: &ServiceName, service: &ServiceRelease) -> Option<Moved> {
    let ground = Ground { state: parts.state, release: parts.release, urls: parts.transition.urls.clone() };
    let live = parts.state.live.as_ref();
    let found = crate::plan::transition::live_members(parts.state, live, name);
    let mut incoming = Vec::new();
    for replica in 1..=service.settings.replicas {
        // Old and new never run at once here, so the new one may have the old one's address.
        let address = found.iter().find(|found| found.replica == replica).and_then(|found| found.address);
        let slot = parts.transition.slot;
        let instance = crate::names::instance_name(name, slot, replica, parts.stamp.run).ok()?;
        incoming.push(
            ground
                .service(name, &Identity { name: instance, slot, replica, run: parts.stamp.run, address })?,
        );
    }
    let outgoing: Vec<_> = found.into_iter().map(|found| reference(parts.state, found)).collect();
    let members =
        incoming.iter().map(|instance| (instance.spec.name.clone(), instance.spec.address)).collect();
    let plan = ServicePlan::Replaced {
        why: vec![crate::plan::Change::Asked],
        strategy: Strategy::Handover,
        outgoing: outgoing.iter().map(|instance| instance.name.clone()).collect(),
        incoming: incoming.iter().map(|instance| instance.spec.name.clone()).collect(),
    };
    Some(Moved { plan, outgoing, incoming, members })
}

/// A service's line in the plan, with the way it really goes.
fn shown(name: &ServiceName, moved: &Moved, ways: &Ways<'_>) -> ServicePlan {
    let handed = ways.handed.iter().find(|(handed, _)| *handed == name).map(|(_, moved)| &moved.plan);
    match (handed, &moved.plan) {
        (Some(ServicePlan::Replaced { why, outgoing, incoming, .. }), _) => ServicePlan::Replaced {
            why: why.clone(),
            strategy: Strategy::Handover,
            outgoing: outgoing.clone(),
            incoming: incoming.clone(),
        },
        (_, plan) => plan.clone(),
    }
}

fn becomes(parts: &Parts<'_>, ways: &Ways<'_>) -> Live {
    let mut members: BTreeMap<ServiceName, Vec<InstanceName>> = BTreeMap::new();
    for name in parts.release.services.keys() {
        if let Some((moved, _)) = members_of(parts, ways, name) {
            members.insert(name.clone(), moved.iter().map(|(name, _)| name.clone()).collect());
        }
    }
    members.retain(|_, instances| !instances.is_empty());
    let repository = parts.release.source.repository.clone();
    Live {
        release: parts.release.id.clone(),
        slot: parts.transition.slot,
        run: parts.stamp.run,
        members,
        stopped: parts.stopped.clone(),
        repository: repository.or_else(|| parts.state.live.as_ref().and_then(|live| live.repository.clone())),
    }
}

type Members = Vec<(InstanceName, Option<std::net::SocketAddr>)>;

fn members_of<'a>(
    parts: &'a Parts<'_>,
    ways: &'a Ways<'_>,
    name: &ServiceName,
) -> Option<(&'a Members, bool)> {
    let moved = ways.handed.iter().find(|(handed, _)| *handed == name).map(|(_, moved)| moved);
    moved.or_else(|| parts.transition.services.get(name)).map(|moved| (&moved.members, true))
}

fn switch(parts: &Parts<'_>, ways: &Ways<'_>, becomes: &Live) -> SwitchPlan {
    let before = parts
        .state
        .table
        .as_ref()
        .and_then(|found| found.table.owners.get(&parts.release.app.owner()))
        .cloned();
    let mut routes = Vec::new();
    for (name, service) in &parts.release.services {
        let Some(route) = &service.settings.route else { continue };
        let targets: Vec<Target> = members_of(parts, ways, name)
            .into_iter()
            .flat_map(|(members, _)| members)
            .filter_map(|(name, address)| {
                Some(Target { id: name.to_string(), address: Address::Tcp((*address)?) })
            })
            .collect();
        let state = if parts.stopped.contains(name) || targets.is_empty() {
            RouteState::Closed { reason: format!("{name} is stopped") }
        } else {
            RouteState::Serving { targets }
        };
        routes.push(Route {
            name: name.to_string(),
            hosts: route.hosts.clone(),
            path: route.path.clone(),
            strip: route.strip,
            state,
        });
    }
    if routes.is_empty() && before.is_none() {
        return SwitchPlan::LiveFile;
    }
    SwitchPlan::Table { before, after: Some(Entry { facts: becomes.to_facts(), routes }) }
}

fn preflight(
    parts: &Parts<'_>,
    incoming: &[&GatedInstance],
    backing: &Planned<BackingPlan>,
    routed: bool,
) -> PreflightPlan {
    let made = || {
        let backing = backing.todo().into_iter().flat_map(|backing| &backing.instances);
        // What is only started was made by an earlier run, of what may be gone.
        let backing = backing.filter(|instance| instance.spec.run == parts.stamp.run);
        let specs = incoming.iter().copied().chain(backing).map(|instance| &instance.spec);
        let specs = specs.chain(parts.migrations.iter().flat_map(Migration::instances));
        specs.map(|spec| (&spec.content, &spec.shipped, &spec.settings.platform))
    };
    let size =
        |name: &crate::names::DatabaseName| parts.state.databases.get(name).map_or(0, |found| found.bytes);
    // Where state lies: its copy, and of those beside it one. The host adds what goes elsewhere, its snapshot and its growth.
    let of =
        |migration: &Migration| size(&migration.database) + migration.beside.keys().map(size).sum::<u64>();
    let databases: u64 = parts.migrations.iter().map(of).sum();
    let taken_by_us: BTreeSet<_> =
        parts.state.instances.iter().filter(|found| found.is_running()).map(|found| &found.service).collect();
    let ports = incoming.iter().filter(|instance| !taken_by_us.contains(&instance.spec.service));
    PreflightPlan {
        disk: crate::defaults::DISK_FREE + databases,
        artifacts: made().flat_map(|(content, shipped, _)| content.artifacts(shipped)).cloned().collect(),
        images: made()
            .filter_map(|(content, _, platform)| wanted_image(content, platform.as_ref()))
            .collect(),
        engine: made().any(|(content, _, _)| content.runtime() == RuntimeKind::Container),
        proxy: routed,
        env: parts.env.clone(),
        required: parts.required.clone(),
        generate: parts.generate.clone(),
        ports: ports
            .flat_map(|i| &i.spec.settings.ports)
            .map(|port| (port.address, port.host).into())
            .collect(),
    }
}

/// What the host must have of an image, by what the engine is asked for.
pub(crate) fn wanted_image(content: &Content, platform: Option<&String>) -> Option<(String, WantedImage)> {
    match content {
        Content::Image { reference, identity, name, origin } => {
            let (identity, name, origin) = (identity.clone(), name.clone(), origin.clone());
            let wanted = WantedImage { identity, name, origin, platform: platform.cloned() };
            Some((reference.clone(), wanted))
        }
        Content::Artifact { .. } => None,
    }
}

/// The networks of instances that are not there yet.
pub(crate) fn networks<'a>(
    state: &HostState,
    specs: impl Iterator<Item = &'a crate::plan::InstanceSpec>,
    allocation: &mut Allocation,
) -> Result<Vec<NetworkSpec>, NoTransition> {
    let present: BTreeSet<&String> = state.engine.iter().flat_map(|engine| engine.networks.keys()).collect();
    let wanted: BTreeSet<&String> =
        specs.flat_map(|spec| &spec.networks).map(|network| &network.network).collect();
    let mut networks = Vec::new();
    for name in wanted.into_iter().filter(|name| !present.contains(*name)) {
        let subnet: Subnet = allocation.network(name, 24)?;
        networks.push(NetworkSpec {
            name: name.clone(),
            subnet: subnet.to_string(),
            range: subnet.engine_half().to_string(),
        });
    }
    Ok(networks)
}

/// The volumes of instances that are not there yet.
pub(crate) fn volumes<'a>(
    ground: &Ground<'_>,
    specs: impl Iterator<Item = &'a crate::plan::InstanceSpec>,
) -> Vec<VolumeSpec> {
    let engine = ground.state.engine.as_ref();
    let mut volumes: BTreeMap<String, VolumeSpec> = BTreeMap::new();
    for spec in specs {
        for name in spec.volumes.keys() {
            let volume = ground.volume(spec.runtime(), name);
            let present = volume.runtime == RuntimeKind::Container
                && engine.is_some_and(|engine| engine.volumes.contains(&volume.name));
            if !present {
                volumes.insert(volume.name.clone(), volume);
            }
        }
    }
    volumes.into_values().collect()
}

/// Names in the order of what they depend on; where there is a cycle (the configuration refuses one) the rest in the order of names.
pub(crate) fn in_order<'a, T>(
    all: &'a BTreeMap<ServiceName, T>,
    needs: impl Fn(&'a T) -> Vec<&'a ServiceName>,
) -> Vec<(&'a ServiceName, &'a T)> {
    let mut ordered: Vec<(&ServiceName, &T)> = Vec::new();
    while ordered.len() < all.len() {
        let done: BTreeSet<&ServiceName> = ordered.iter().map(|(name, _)| *name).collect();
        let open = || all.iter().filter(|(name, _)| !done.contains(name));
        let ready = open()
            .find(|(_, of)| needs(of).iter().all(|need| done.contains(need) || !all.contains_key(*need)));
        match ready.or_else(|| open().next()) {
            Some(next) => ordered.push(next),
            None => break,
        }
    }
    ordered
}

/// Waves: a service whose `depends_on` asks for the health of another starts in a later wave.
fn waves(release: &Release, beside: &[(&ServiceName, &Moved)]) -> Vec<Vec<GatedInstance>> {
    let starting: BTreeMap<&ServiceName, &Moved> =
        beside.iter().map(|(name, moved)| (*name, *moved)).collect();
    let mut wave_of: BTreeMap<&ServiceName, usize> = BTreeMap::new();
    for (name, service) in
        in_order(&release.services, |service| service.settings.run.depends_on.keys().collect())
    {
        let needs = service.settings.run.depends_on.iter().filter_map(|(need, condition)| {
            let wave = wave_of.get(need)?;
            Some(if *condition == DependsOn::Healthy { wave + 1 } else { *wave })
        });
        let wave = needs.max().unwrap_or(0);
        if starting.contains_key(name) {
            wave_of.insert(name, wave);
        }
    }
    let count = wave_of.values().max().map_or(0, |last| last + 1);
    let mut waves: Vec<Vec<GatedInstance>> = vec![Vec::new(); count];
    for (name, _) in in_order(&release.services, |service| service.settings.run.depends_on.keys().collect()) {
        if let (Some(wave), Some(moved)) = (wave_of.get(name), starting.get(name)) {
            waves[*wave].extend(moved.incoming.iter().cloned());
        }
    }
    waves.retain(|wave| !wave.is_empty());
    waves
}

fn handover(parts: &Parts<'_>, ways: &Ways<'_>, held: &[HeldDatabase]) -> HandoverPlan {
    let of = |name: &ServiceName| {
        let coming = parts.release.services.get(name);
        coming.or_else(|| was(parts.state)?.services.get(name))
    };
    let routed = |name: &ServiceName| of(name).is_some_and(|service| service.settings.route.is_some());
    let serving =
        |name: &ServiceName| parts.state.live.as_ref().is_some_and(|live| live.members.contains_key(name));
    let hold: Vec<_> = ways
        .handed
        .iter()
        .map(|(name, _)| (*name).clone())
        .filter(|name| routed(name) && serving(name))
        .collect();
    let bounds = ways
        .handed
        .iter()
        .filter_map(|(name, _)| parts.release.services.get(*name))
        .map(|service| &service.settings.hold);
    HandoverPlan {
        bounds: bounds.min_by_key(|hold| hold.budget).cloned().unwrap_or_else(default_hold),
        hold,
        outgoing: ways.handed.iter().flat_map(|(_, moved)| moved.outgoing.clone()).collect(),
        databases: held.to_vec(),
        incoming: ways.handed.iter().flat_map(|(_, moved)| moved.incoming.clone()).collect(),
        afterwards: Vec::new(),
    }
}

pub(crate) fn default_hold() -> HoldSettings {
    HoldSettings {
        budget: crate::defaults::HOLD_BUDGET,
        requests: crate::defaults::HOLD_REQUESTS,
        bytes: crate::defaults::HOLD_BYTES,
    }
}

fn verify(parts: &Parts<'_>, ways: &Ways<'_>, becomes: &Live) -> VerifyPlan {
    let mut routes = Vec::new();
    for (name, service) in &parts.release.services {
        let targets = becomes.members.get(name).cloned().unwrap_or_default();
        if let (Some(check), false) =
            (route_check(name, &service.settings, targets.clone()), targets.is_empty())
        {
            routes.push(RouteCheck { expect: expectations(parts, name, service, &targets), ..check });
        }
    }
    let follow = ways.follow.iter().map(|(name, moved, handover)| Follow {
        service: (*name).clone(),
        strategy: if *handover { Strategy::Handover } else { Strategy::BlueGreen },
        outgoing: moved.outgoing.clone(),
        incoming: moved.incoming.clone(),
    });
    VerifyPlan { routes, follow: follow.collect() }
}

/// What the author wants to see of a service: of kept instances what was wanted when they were made. They know the commit of that release, not of this.
fn expectations(
    parts: &Parts<'_>,
    name: &ServiceName,
    service: &ServiceRelease,
    targets: &[InstanceName],
) -> Vec<Verify> {
    let kept = parts.state.instances.iter().find(|found| targets.contains(&found.name));
    let Some(kept) = kept else { return service.settings.verify.clone() };
    let record = parts.state.releases.iter().find(|record| record.release.id == kept.release);
    record
        .and_then(|record| record.release.services.get(name))
        .map(|made| made.settings.verify.clone())
        .unwrap_or_default()
}

/// What is asked of a route after the switch: the gate's own path where it lies on the route, else the route itself.
pub(crate) fn route_check(
    name: &ServiceName,
    service: &Service,
    targets: Vec<InstanceName>,
) -> Option<RouteCheck> {
    let route = service.route.as_ref()?;
    let gate = service.gate.checks.iter().find_map(|check| match &check.check {
        Check::Http { path, status, port: None, .. } => Some((path.clone(), *status)),
        _ => None,
    });
    let prefix = route.path.trim_end_matches('/');
    let below = |path: &str| route.path == "/" || path == prefix || path.starts_with(&format!("{prefix}/"));
    let (path, status) = match gate {
        Some((path, status)) if route.strip => (format!("{prefix}{path}"), status),
        Some((path, status)) if below(&path) => (path, status),
        // The app's own answer of whatever kind shows that the route leads to it.
        _ => (route.path.clone(), (100, 499)),
    };
    Some(RouteCheck {
        service: name.clone(),
        host: route.hosts.first().cloned(),
        path,
        status,
        targets,
        expect: service.verify.clone(),
    })
}

fn bake(
    parts: &Parts<'_>,
    incoming: &[&GatedInstance],
    outgoing: &[InstanceRef],
    first: bool,
) -> Planned<BakePlan> {
    let duration = parts.release.bake;
    if incoming.is_empty() {
        return Planned::NotNeeded(WhyNot::Unchanged);
    }
    if first {
        return Planned::NotNeeded(WhyNot::FirstDeploy);
    }
    if duration.is_zero() || parts.request.no_bake {
        return Planned::NotNeeded(WhyNot::SwitchedOff);
    }
    let watched = incoming.iter().map(|instance| instance.spec.reference());
    Planned::Do(BakePlan {
        duration,
        watched: watched.collect(),
        compared: outgoing.iter().map(|i| i.name.clone()).collect(),
    })
}

fn drain_deadline(release: &Release, state: &HostState) -> Duration {
    let old = was(state).into_iter().flat_map(|release| release.services.values());
    old.chain(release.services.values())
        .map(|service| service.settings.drain)
        .max()
        .unwrap_or(crate::defaults::DRAIN)
}

/// Kept containers join the new colour's network, and leave the old one's at the drain.
fn moves(parts: &Parts<'_>, incoming: &[&GatedInstance]) -> (Vec<NetworkMove>, Vec<NetworkMove>) {
    let release = parts.release;
    let joining: BTreeSet<&String> =
        incoming.iter().flat_map(|i| &i.spec.networks).map(|network| &network.network).collect();
    let network = layout::slot_network(&release.app, parts.transition.slot);
    let (mut joins, mut leaves) = (Vec::new(), Vec::new());
    if !joining.contains(&network) {
        return (joins, leaves);
    }
    for (name, moved) in &parts.transition.services {
        let container =
            release.services.get(name).is_some_and(|s| s.content.runtime() == RuntimeKind::Container);
        if !container || !matches!(moved.plan, ServicePlan::Kept) {
            continue;
        }
        for (instance, _) in &moved.members {
            let of = |network: String| NetworkMove {
                instance: instance.clone(),
                network: NetworkUse { network, aliases: vec![name.to_string()], address: None },
            };
            joins.push(of(network.clone()));
            leaves.push(of(layout::slot_network(&release.app, parts.transition.slot.idle())));
        }
    }
    (joins, leaves)
}

/// Instances of earlier releases that still run warm and are not part of what comes.
fn warm_leftovers(state: &HostState, becomes: &Live, incoming: &[&GatedInstance]) -> Vec<InstanceRef> {
    let leftover = state.instances.iter().filter(|found| {
        found.ours
            && found.role == Role::Service
            && matches!(found.state, InstanceState::Running { .. } | InstanceState::Restarting { .. })
            && !state.live.as_ref().is_some_and(|live| live.has(&found.name))
            && !becomes.has(&found.name)
            && !incoming.iter().any(|instance| instance.spec.name == found.name)
    });
    leftover.map(|found| reference(state, found)).collect()
}

/// Failed candidates of earlier deploys, stopped and kept for a look until this one.
pub(crate) fn candidates(state: &HostState, becomes: &Live) -> Vec<InstanceRef> {
    let candidates = state.instances.iter().filter(|found| {
        found.ours
            && found.role == Role::Service
            && matches!(found.state, InstanceState::Exited { .. } | InstanceState::Created)
            && !becomes.has(&found.name)
            && !state.live.as_ref().is_some_and(|live| live.has(&found.name))
    });
    candidates.map(|found| reference(state, found)).collect()
}

fn record(parts: &Parts<'_>, becomes: &Live, candidates: Vec<InstanceRef>) -> RecordPlan {
    RecordPlan {
        forget: forgotten(parts.state, parts.release, becomes),
        candidates,
        snapshots: Some(SNAPSHOTS),
        ..RecordPlan::default()
    }
}

impl Moved {
    fn clone_moved(&self) -> Self {
        Self {
            plan: self.plan.clone(),
            outgoing: self.outgoing.clone(),
            incoming: self.incoming.clone(),
            members: self.members.clone(),
        }
    }
}

impl HostState {
    /// Of what a plan depends on: what is live, what is in the table for the app, which instances there are, releases
    /// and variables. Not of what moves by itself.
    pub fn fingerprint(&self) -> ContentHash {
        let entry = self.table.as_ref().and_then(|found| found.table.owners.get(&self.app.owner()));
        // The facts, not the routes: watch holds a route and starts an instance again without changing what is live.
        let facts = entry.map(|entry| &entry.facts);
        let instances: Vec<_> = self
            .instances
            .iter()
            .filter(|found| found.role != Role::OneOff)
            .map(|found| (&found.name, &found.spec))
            .collect();
        let releases: Vec<_> =
            self.releases.iter().map(|record| (&record.release.id, record.lived)).collect();
        ContentHash::of_value(&(&self.live, facts, instances, releases, &self.variables))
    }
}

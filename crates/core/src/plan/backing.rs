//! Plans about one backing service: made anew as the live release wants it, or stopped and started. Both are a handover: two of it never
//! have its volumes open at once. The commit point is the table's (or the live file's) next entry: the same release and members, by this
//! run; until then the way back starts what ran before.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cutover_routes::Entry;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::names::{AppId, InstanceName, ServiceName, Slot};
use crate::plan::absent::backing_address;
use crate::plan::assemble::{networks, route_check, todo, volumes, wanted_image};
use crate::plan::deploy::no_transition;
use crate::plan::idle::idle;
use crate::plan::lifecycle::{nothing_live, record, unknown_release};
use crate::plan::specify::{Ground, Identity, reference, respecify, urls};
use crate::plan::transition::{Allocation, NoTransition};
use crate::plan::{
    BackingPlan, Change, DrainPlan, EnvSource, GatedInstance, HandoverPlan, HostPlan, Planned, PreflightPlan,
    Refusals, ServicePlan, SwitchPlan, Verb, VerifyPlan, WhyNot, default_hold, drift,
};
use crate::release::{Live, Release, RuntimeKind};
use crate::request::{Request, Stamp};
use crate::state::{FoundInstance, HostState, Role};

/// What is stopped, what is started, and why.
struct Moving<'a> {
    found: Option<&'a FoundInstance>,
    incoming: GatedInstance,
    why: Vec<Change>,
    surroundings: BackingPlan,
}

/// Plans `backing apply` and `backing restart`.
pub(crate) fn backing(
    id: &AppId,
    state: &HostState,
    request: &Request,
    stamp: Stamp,
) -> Result<HostPlan, Refusals> {
    let live = state.live.as_ref().ok_or_else(|| nothing_live(id))?;
    let release = &record(state, &live.release).ok_or_else(|| unknown_release(state, &live.release))?.release;
    let name = named(release, request)?;
    let found = found(state, name);
    let moving = if request.verb == Verb::BackingRestart {
        again(state, name, found)?
    } else {
        anew(state, release, name, found, stamp).map_err(|error| no_transition(&error))?
    };
    Ok(match moving {
        Some(moving) => plan(state, request, stamp, live, release, &moving),
        None => unchanged(state, request, stamp, live, release, name),
    })
}

/// The one that is asked for.
fn named<'a>(release: &'a Release, request: &Request) -> Result<&'a ServiceName, Refusals> {
    let asked = request.services.first();
    let known = asked.and_then(|name| release.backing.get_key_value(name)).map(|(name, _)| name);
    known.ok_or_else(|| {
        let name = asked.map_or_else(String::new, ToString::to_string);
        let failure = Failure::new(Exit::Usage, format!("the live release has no backing service `{name}`"));
        let known: Vec<_> = release.backing.keys().map(ToString::to_string).collect();
        let (why, next) = if known.is_empty() {
            ("it has none".to_owned(), "`cutover restart` is for services")
        } else {
            (format!("it has: {}", known.join(", ")), "name one of these")
        };
        failure.because(why).next(next).into()
    })
}

/// The instance of a backing service: the one that runs, where there are more.
fn found<'a>(state: &'a HostState, name: &ServiceName) -> Option<&'a FoundInstance> {
    let all = state.instances.iter();
    all.filter(|found| found.role == Role::Backing && found.ours && found.service == *name)
        .min_by_key(|found| !found.is_running())
}

/// The very same instance, stopped and started.
fn again<'a>(
    state: &HostState,
    name: &ServiceName,
    found: Option<&'a FoundInstance>,
) -> Result<Option<Moving<'a>>, Refusals> {
    let gated = found.and_then(|found| respecify(state, found));
    let Some(incoming) = gated else {
        let failure = Failure::new(Exit::Refused, format!("backing service `{name}` is not there"));
        let failure = failure.because("nothing on this host was made for it, or nobody knows any more how");
        return Err(failure.next(format!("`cutover backing apply {name}` makes it")).into());
    };
    let surroundings = BackingPlan::default();
    Ok(Some(Moving { found, incoming, why: vec![Change::Asked], surroundings }))
}

/// Another instance, made as the release wants it; `None`: it runs so already.
fn anew<'a>(
    state: &HostState,
    release: &Release,
    name: &ServiceName,
    found: Option<&'a FoundInstance>,
    stamp: Stamp,
) -> Result<Option<Moving<'a>>, NoTransition> {
    let Some(wanted) = release.backing.get(name) else { return Ok(None) };
    let mut why = found.map_or_else(Vec::new, |found| drift::differences(state, release, wanted, found));
    if !found.is_some_and(FoundInstance::is_running) {
        why.push(Change::Missing);
    }
    if why.is_empty() {
        return Ok(None);
    }
    let mut allocation = Allocation::new(state);
    let address = backing_address(state, release, name, found, &mut allocation)?;
    let identity = Identity {
        name: instance_name(name, found, stamp)?,
        slot: Slot::Blue,
        replica: 1,
        run: stamp.run,
        address,
    };
    let members = |service: &ServiceName| {
        let mut members = state.live.as_ref()?.members.get(service)?.iter();
        members.find_map(|name| state.instances.iter().find(|found| found.name == *name)?.address)
    };
    let ground = Ground { state, release, urls: urls(release, members) };
    let Some(incoming) = ground.backing(name, &identity) else { return Ok(None) };
    let spec = || std::iter::once(&incoming.spec);
    let surroundings = BackingPlan {
        networks: networks(state, spec(), &mut allocation)?,
        volumes: volumes(&ground, spec()),
        ..BackingPlan::default()
    };
    Ok(Some(Moving { found, incoming, why, surroundings }))
}

/// Its own name where nothing has that, else with the run's: the old one is kept until the new one has shown itself.
fn instance_name(
    name: &ServiceName,
    found: Option<&FoundInstance>,
    stamp: Stamp,
) -> Result<InstanceName, NoTransition> {
    let own = if found.is_none() { name.to_string() } else { format!("{name}-{}", stamp.run.short()) };
    Ok(own.parse()?)
}

fn plan(
    state: &HostState,
    request: &Request,
    stamp: Stamp,
    live: &Live,
    release: &Release,
    moving: &Moving<'_>,
) -> HostPlan {
    let Moving { found, incoming, why, surroundings } = moving;
    let outgoing: Vec<_> = found.iter().map(|found| reference(state, found)).collect();
    let name = &incoming.spec.service;
    let same = outgoing.iter().any(|old| old.name == incoming.spec.name);
    let becomes = Live { run: stamp.run, ..live.clone() };
    let is_needed = !(surroundings.networks.is_empty() && surroundings.volumes.is_empty());
    let switch = switch(state, &becomes);
    let routes: Vec<_> = release
        .services
        .iter()
        .filter_map(|(name, service)| {
            let targets = live.members.get(name).filter(|members| !members.is_empty())?;
            route_check(name, &service.settings, targets.clone())
        })
        .map(|check| crate::plan::RouteCheck { expect: Vec::new(), ..check })
        .collect();
    HostPlan {
        services: BTreeMap::from([(name.clone(), shown(&outgoing, moving))]),
        preflight: Planned::Do(preflight(state, moving, &switch)),
        backing: todo(is_needed, WhyNot::Present, || surroundings.clone()),
        handover: Planned::Do(HandoverPlan {
            hold: Vec::new(),
            bounds: default_hold(),
            outgoing: outgoing.clone(),
            databases: Vec::new(),
            incoming: vec![incoming.clone()],
            afterwards: Vec::new(),
        }),
        switch: Planned::Do(switch),
        verify: todo(!routes.is_empty(), WhyNot::None, || VerifyPlan { routes, follow: Vec::new() }),
        drain: todo(!same && !outgoing.is_empty(), WhyNot::None, || DrainPlan {
            outgoing: outgoing.clone(),
            deadline: crate::defaults::DRAIN,
            keep_warm: Duration::ZERO,
            leaves: Vec::new(),
            kept_candidates: Vec::new(),
        }),
        becomes: Some(becomes),
        notes: notes(moving, why, &outgoing),
        ..bare(state, request, stamp, live, release)
    }
}

/// It runs as the release wants it already.
fn unchanged(
    state: &HostState,
    request: &Request,
    stamp: Stamp,
    live: &Live,
    release: &Release,
    name: &ServiceName,
) -> HostPlan {
    HostPlan {
        services: BTreeMap::from([(name.clone(), ServicePlan::Kept)]),
        ..bare(state, request, stamp, live, release)
    }
}

/// The parts that every such plan has alike.
fn bare(state: &HostState, request: &Request, stamp: Stamp, live: &Live, release: &Release) -> HostPlan {
    HostPlan {
        release: Some(release.clone()),
        live: Some(live.clone()),
        becomes: Some(live.clone()),
        preflight: Planned::NotNeeded(WhyNot::Unchanged),
        backing: Planned::NotNeeded(WhyNot::Unchanged),
        handover: Planned::NotNeeded(WhyNot::Unchanged),
        switch: Planned::NotNeeded(WhyNot::Unchanged),
        verify: Planned::NotNeeded(WhyNot::Unchanged),
        drain: Planned::NotNeeded(WhyNot::Unchanged),
        ..idle(&release.app, state, request, stamp)
    }
}

/// The same routes and members, by this run.
fn switch(state: &HostState, becomes: &Live) -> SwitchPlan {
    let found = state.table.as_ref();
    let before = found.and_then(|found| found.table.owners.get(&state.app.owner())).cloned();
    match before {
        Some(before) => {
            let after = Some(Entry { facts: becomes.to_facts(), ..before.clone() });
            SwitchPlan::Table { before: Some(before), after }
        }
        None => SwitchPlan::LiveFile,
    }
}

fn shown(outgoing: &[crate::plan::InstanceRef], moving: &Moving<'_>) -> ServicePlan {
    let incoming = vec![moving.incoming.spec.name.clone()];
    let old: Vec<_> = outgoing.iter().map(|instance| instance.name.clone()).collect();
    if old.is_empty() {
        ServicePlan::Started { incoming }
    } else if old == incoming {
        ServicePlan::Restarted { instances: incoming }
    } else {
        let strategy = crate::config::settings::Strategy::Handover;
        ServicePlan::Replaced { why: moving.why.clone(), strategy, outgoing: old, incoming }
    }
}

fn preflight(state: &HostState, moving: &Moving<'_>, switch: &SwitchPlan) -> PreflightPlan {
    let spec = &moving.incoming.spec;
    let had = moving.found.and_then(|found| respecify(state, found));
    let had: Vec<_> = had.iter().flat_map(|had| &had.spec.settings.ports).collect();
    PreflightPlan {
        disk: crate::defaults::DISK_FREE,
        artifacts: spec.artifacts().cloned().collect(),
        images: wanted_image(&spec.content, spec.settings.platform.as_ref()).into_iter().collect(),
        engine: spec.runtime() == RuntimeKind::Container,
        proxy: matches!(switch, SwitchPlan::Table { .. }),
        env: EnvSource::Recorded,
        required: BTreeSet::new(),
        generate: BTreeSet::new(),
        ports: spec
            .settings
            .ports
            .iter()
            .filter(|port| !had.contains(port))
            .map(|port| (port.address, port.host).into())
            .collect(),
    }
}

/// That it is down meanwhile, for how long at most, and what becomes of its data.
fn notes(moving: &Moving<'_>, why: &[Change], outgoing: &[crate::plan::InstanceRef]) -> Vec<String> {
    let (name, gate) = (&moving.incoming.spec.service, moving.incoming.gate.within);
    let Some(old) = outgoing.first() else { return Vec::new() };
    let grace = old.stop.grace;
    let mut notes = vec![format!(
        "`{name}` is down from its stop until its gate has passed: usually seconds, at most {} s to stop and {} s to \
         become healthy; what uses it meets errors meanwhile",
        grace.as_secs(),
        gate.as_secs()
    )];
    if why.contains(&Change::Asked) {
        return notes;
    }
    let volumes: Vec<&str> =
        moving.incoming.spec.volumes.keys().map(crate::names::VolumeName::as_str).collect();
    notes.push(if volumes.is_empty() {
        format!("`{name}` names no volume: what it keeps in itself goes with the old one")
    } else {
        format!("volumes stay: {}; what it wrote elsewhere goes with the old one", volumes.join(", "))
    });
    notes
}

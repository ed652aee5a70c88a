//! From what is live to what shall be live, on one host: what every verb's plan comes down to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use crate::addresses::{Ports, Subnet};
use crate::config::settings::Strategy;
use crate::gate::Check;
use crate::layout;
use crate::names::{InstanceName, ServiceName, Slot, instance_name};
use crate::plan::specify::{Ground, Identity, reference, respecify, urls};
use crate::plan::{Change, GatedInstance, InstanceRef, ServicePlan};
use crate::release::{Live, Release, RuntimeKind, ServiceRelease};
use crate::request::Stamp;
use crate::state::{FoundInstance, HostState, Role};

/// Which services are made anew though nothing differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Anew {
    /// None.
    OnlyChanged,
    /// These; empty: all.
    Asked(BTreeSet<ServiceName>),
}

/// What goes and what comes, service by service.
pub(crate) struct Transition {
    pub(crate) slot: Slot,
    pub(crate) services: BTreeMap<ServiceName, Moved>,
    /// What has been given out so far.
    pub(crate) allocation: Allocation,
    pub(crate) urls: BTreeMap<ServiceName, String>,
}

/// One service's way.
pub(crate) struct Moved {
    pub(crate) plan: ServicePlan,
    pub(crate) outgoing: Vec<InstanceRef>,
    pub(crate) incoming: Vec<GatedInstance>,
    /// All its members afterwards, with where they are reached.
    pub(crate) members: Vec<(InstanceName, Option<SocketAddr>)>,
}

/// Why no transition can be planned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoTransition {
    #[error("no free network is left in {0}")]
    NoSubnet(String),
    #[error("no free address is left in network {0}")]
    NoAddress(String),
    #[error("no free loopback port is left of {0} (`ports` in the host's host.yml)")]
    NoPort(Ports),
    #[error(transparent)]
    Name(#[from] crate::names::NameError),
}

/// Plans the way from what is live on a host to `release`, with `stopped` services at rest.
pub(crate) fn transition(
    state: &HostState,
    release: &Release,
    stopped: &BTreeSet<ServiceName>,
    anew: &Anew,
    stamp: Stamp,
) -> Result<Transition, NoTransition> {
    let live = state.live.as_ref();
    let was = live
        .and_then(|live| state.releases.iter().find(|r| r.release.id == live.release))
        .map(|r| &r.release);
    let slot = live.map_or(Slot::Blue, |live| live.slot.idle());
    let mut allocation = Allocation::new(state);
    let warm = warm_members(state, release, live);

    let mut changes: BTreeMap<ServiceName, Vec<Change>> = BTreeMap::new();
    for (name, service) in &release.services {
        changes.insert(name.clone(), differences(state, live, was, release, name, service, anew));
    }
    spread_urls(release, &mut changes);

    // Names and addresses first: specifications refer to each other's.
    let mut identities: BTreeMap<ServiceName, Vec<Identity>> = BTreeMap::new();
    for (name, service) in &release.services {
        if stopped.contains(name) || changes[name].is_empty() {
            continue;
        }
        let reused = warm.get(name).filter(|found| found.len() == service.settings.replicas as usize);
        let list = match reused {
            Some(found) => found.iter().map(|found| identity_of(found)).collect(),
            None => (1..=service.settings.replicas)
                .map(|replica| {
                    let address = allocation.service(state, service, name)?;
                    Ok(Identity {
                        name: instance_name(name, slot, replica, stamp.run)?,
                        slot,
                        replica,
                        run: stamp.run,
                        address,
                    })
                })
                .collect::<Result<Vec<_>, NoTransition>>()?,
        };
        identities.insert(name.clone(), list);
    }

    let urls = urls(release, |name| {
        let coming = identities.get(name).and_then(|list| list.first()).map(|identity| identity.address);
        coming
            .unwrap_or_else(|| live_members(state, live, name).first().and_then(|found| found.address))
            .or_else(|| backing_address(state, name))
    });
    let ground = Ground { state, release, urls: urls.clone() };
    let mut services = BTreeMap::new();
    for name in release.services.keys() {
        let moved = if stopped.contains(name) {
            stop(state, live, name)
        } else if let Some(identities) = identities.get(name) {
            let incoming: Vec<_> =
                identities.iter().filter_map(|identity| ground.service(name, identity)).collect();
            replace(state, live, release, name, changes[name].clone(), incoming)
        } else {
            let found = live_members(state, live, name);
            let members = found.iter().map(|found| (found.name.clone(), found.address)).collect();
            Moved { plan: ServicePlan::Kept, outgoing: Vec::new(), incoming: Vec::new(), members }
        };
        services.insert(name.clone(), moved);
    }
    for name in live.into_iter().flat_map(|live| live.members.keys()) {
        if !release.services.contains_key(name) {
            services.insert(name.clone(), stop(state, live, name));
        }
    }
    // A release that goes live again from warmth goes on in its own colour; where nothing starts, the colour of what runs stays: nobody
    // would join the networks of another.
    let stays = live.filter(|_| identities.is_empty()).map(|live| live.slot);
    let slot = stays.or_else(|| warm_slot(&identities, stamp)).unwrap_or(slot);
    Ok(Transition { slot, services, allocation, urls })
}

fn warm_slot(identities: &BTreeMap<ServiceName, Vec<Identity>>, stamp: Stamp) -> Option<Slot> {
    identities.values().flatten().find(|identity| identity.run != stamp.run).map(|identity| identity.slot)
}

fn identity_of(found: &FoundInstance) -> Identity {
    Identity {
        name: found.name.clone(),
        slot: found.slot,
        replica: found.replica,
        run: found.run,
        address: found.address,
    }
}

/// Instances that are live, in the order of their number.
pub(crate) fn live_members<'a>(
    state: &'a HostState,
    live: Option<&Live>,
    service: &ServiceName,
) -> Vec<&'a FoundInstance> {
    let names = live.and_then(|live| live.members.get(service)).map(Vec::as_slice).unwrap_or_default();
    let mut found: Vec<_> = state.instances.iter().filter(|found| names.contains(&found.name)).collect();
    found.sort_by_key(|found| found.replica);
    found
}

fn backing_address(state: &HostState, service: &ServiceName) -> Option<SocketAddr> {
    state
        .instances
        .iter()
        .find(|found| found.role == Role::Backing && found.service == *service)
        .and_then(|found| found.address)
}

/// Instances of this very release that still run without being live: kept warm.
fn warm_members<'a>(
    state: &'a HostState,
    release: &Release,
    live: Option<&Live>,
) -> BTreeMap<ServiceName, Vec<&'a FoundInstance>> {
    let mut warm: BTreeMap<ServiceName, Vec<&FoundInstance>> = BTreeMap::new();
    for found in &state.instances {
        let live = live.is_some_and(|live| live.has(&found.name));
        let same = respecify(state, found).is_some_and(|again| {
            found.release == release.id
                && again.spec.hash() == found.spec
                && release.services.contains_key(&found.service)
        });
        if found.role == Role::Service && found.ours && found.is_running() && !live && same {
            warm.entry(found.service.clone()).or_default().push(found);
        }
    }
    warm
}

fn differences(
    state: &HostState,
    live: Option<&Live>,
    was: Option<&Release>,
    release: &Release,
    name: &ServiceName,
    service: &ServiceRelease,
    anew: &Anew,
) -> Vec<Change> {
    let mut changes = Vec::new();
    if let Anew::Asked(asked) = anew
        && (asked.is_empty() || asked.contains(name))
    {
        changes.push(Change::Asked);
    }
    let (Some(live), Some(was)) = (live, was) else {
        return vec![Change::Missing];
    };
    let Some(before) = was.services.get(name) else {
        return vec![Change::Missing];
    };
    if before.content.identity() != service.content.identity()
        || before.content.runtime() != service.content.runtime()
    {
        changes.push(Change::Content);
    }
    if before.shipped != service.shipped {
        changes.push(Change::Files);
    }
    if before.settings.run != service.settings.run
        || before.settings.port != service.settings.port
        || before.settings.replicas != service.settings.replicas
        || before.settings.route.is_some() != service.settings.route.is_some()
        || networked(was) != networked(release)
    {
        changes.push(Change::Settings);
    }
    let used = service.settings.run.environment.values().flat_map(crate::template::Template::variables);
    if used.into_iter().any(|variable| was.variables.get(variable) != release.variables.get(variable)) {
        changes.push(Change::Variables);
    }
    let members = live_members(state, Some(live), name);
    if members.len() != service.settings.replicas as usize || !members.iter().all(|found| found.is_running())
    {
        changes.push(Change::Missing);
    }
    changes
}

/// Whether instances of a release join a slot's network and one of backing services: when that changes, all are made anew.
fn networked(release: &Release) -> (bool, bool) {
    let containers =
        release.services.values().filter(|s| s.content.runtime() == RuntimeKind::Container).count();
    (containers > 1, release.backing.values().any(|b| b.content.runtime() == RuntimeKind::Container))
}

/// What is told the address of another changes when that one does: a plain process would call the old address; a container that is in both
/// colours for a while would meet either, also the new one before its gate.
fn spread_urls(release: &Release, changes: &mut BTreeMap<ServiceName, Vec<Change>>) {
    loop {
        let moved: BTreeSet<ServiceName> =
            changes.iter().filter(|(_, changes)| !changes.is_empty()).map(|(name, _)| name.clone()).collect();
        let told = release.services.iter().filter(|(name, service)| {
            changes[*name].is_empty()
                && service
                    .settings
                    .run
                    .environment
                    .values()
                    .flat_map(crate::template::Template::services)
                    .any(|to| moved.contains(to))
        });
        let told: Vec<ServiceName> = told.map(|(name, _)| name.clone()).collect();
        if told.is_empty() {
            return;
        }
        for name in told {
            changes.insert(name, vec![Change::Url]);
        }
    }
}

fn stop(state: &HostState, live: Option<&Live>, name: &ServiceName) -> Moved {
    let outgoing: Vec<_> =
        live_members(state, live, name).into_iter().map(|found| reference(state, found)).collect();
    let names = outgoing.iter().map(|instance| instance.name.clone()).collect();
    Moved {
        plan: ServicePlan::Stopped { outgoing: names },
        outgoing,
        incoming: Vec::new(),
        members: Vec::new(),
    }
}

fn replace(
    state: &HostState,
    live: Option<&Live>,
    release: &Release,
    name: &ServiceName,
    why: Vec<Change>,
    incoming: Vec<GatedInstance>,
) -> Moved {
    let outgoing: Vec<_> =
        live_members(state, live, name).into_iter().map(|found| reference(state, found)).collect();
    let names: Vec<_> = incoming.iter().map(|instance| instance.spec.name.clone()).collect();
    let members =
        incoming.iter().map(|instance| (instance.spec.name.clone(), instance.spec.address)).collect();
    let strategy =
        release.services.get(name).map_or(Strategy::BlueGreen, |service| service.settings.strategy);
    let plan = if outgoing.is_empty() {
        ServicePlan::Started { incoming: names }
    } else {
        let outgoing = outgoing.iter().map(|instance| instance.name.clone()).collect();
        ServicePlan::Replaced { why, strategy, outgoing, incoming: names }
    };
    Moved { plan, outgoing, incoming, members }
}

/// Hands out addresses, remembering what it gave.
#[derive(Clone)]
pub(crate) struct Allocation {
    taken: BTreeSet<SocketAddr>,
    used: Vec<Subnet>,
    range: String,
    subnets: BTreeMap<String, Subnet>,
}

impl Allocation {
    pub(crate) fn new(state: &HostState) -> Self {
        let mut taken = state.taken.clone();
        taken.extend(state.instances.iter().filter_map(|found| found.address));
        let engine = state.engine.as_ref();
        let used =
            engine.map(|e| e.subnets.iter().filter_map(|s| Subnet::parse(s)).collect()).unwrap_or_default();
        let subnets = engine
            .map(|e| {
                e.networks
                    .iter()
                    .filter_map(|(name, subnet)| Some((name.clone(), Subnet::parse(subnet)?)))
                    .collect()
            })
            .unwrap_or_default();
        let range = engine.map(|engine| engine.range.clone()).unwrap_or_default();
        Self { taken, used, range, subnets }
    }

    /// The subnet of a network of ours, chosen where the network is absent.
    pub(crate) fn network(&mut self, name: &str, prefix: u8) -> Result<Subnet, NoTransition> {
        if let Some(subnet) = self.subnets.get(name) {
            return Ok(*subnet);
        }
        let range = Subnet::parse(&self.range);
        let chosen = range.and_then(|range| range.choose(prefix, &self.used, seed(&[name])));
        let subnet = chosen.ok_or_else(|| NoTransition::NoSubnet(self.range.clone()))?;
        self.used.push(subnet);
        self.subnets.insert(name.to_owned(), subnet);
        Ok(subnet)
    }

    /// Where an instance of a service will be reached, where it is reached at all.
    fn service(
        &mut self,
        state: &HostState,
        service: &ServiceRelease,
        name: &ServiceName,
    ) -> Result<Option<SocketAddr>, NoTransition> {
        match (service.content.runtime(), service.settings.port) {
            // A plain process listens on the port it is told: the number in its settings, if any, only says that it does.
            (RuntimeKind::Process, port) if port.is_some() || is_reached(service) => {
                self.loopback(state, name).map(Some)
            }
            (RuntimeKind::Container, Some(port)) => {
                self.container(state, &layout::edge_network(&state.installation), 22, port, name).map(Some)
            }
            (RuntimeKind::Process | RuntimeKind::Container, _) => Ok(None),
        }
    }

    /// An address in a network of ours, or a published loopback port where the bridge is not reached from the host.
    pub(crate) fn container(
        &mut self,
        state: &HostState,
        network: &str,
        prefix: u8,
        port: u16,
        name: &ServiceName,
    ) -> Result<SocketAddr, NoTransition> {
        if !state.engine.as_ref().is_some_and(|engine| engine.bridge_reachable) {
            return self.loopback(state, name);
        }
        let subnet = self.network(network, prefix)?;
        let taken: BTreeSet<IpAddr> = self.taken.iter().map(SocketAddr::ip).collect();
        let address = subnet
            .fixed(&taken, place_of(state, name))
            .ok_or_else(|| NoTransition::NoAddress(network.to_owned()))?;
        let address = SocketAddr::new(IpAddr::V4(address), port);
        self.taken.insert(address);
        Ok(address)
    }

    pub(crate) fn loopback(
        &mut self,
        state: &HostState,
        name: &ServiceName,
    ) -> Result<SocketAddr, NoTransition> {
        let place = place_of(state, name);
        let port = state.ports.free(&self.taken, place).ok_or(NoTransition::NoPort(state.ports))?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        self.taken.insert(address);
        Ok(address)
    }
}

/// Where the search for an address of a service begins: another place for each app, since two may be planned at the same time.
fn place_of(state: &HostState, service: &ServiceName) -> u64 {
    seed(&[state.installation.as_str(), &state.app.to_string(), service.as_str()])
}

fn seed(parts: &[&str]) -> u64 {
    crate::hash::ContentHash::of_parts(parts).number()
}

/// Whether requests or probes go to it, so that it needs an address even when its settings name no port.
fn is_reached(service: &ServiceRelease) -> bool {
    let probed =
        service.settings.gate.checks.iter().any(|gated| {
            matches!(gated.check, Check::Http { port: None, .. } | Check::Tcp { port: None, .. })
        });
    service.settings.route.is_some() || probed
}

//! From a release and a place to the specification of one instance, again and again alike: the one way specifications are made.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::config::settings::{DatabaseEngine, Mount, OwnHealthcheck, RunSettings};
use crate::layout;
use crate::names::{AppId, InstanceName, RunId, ServiceName, Slot, VariableName, VolumeName};
use crate::plan::{GatedInstance, InstanceRef, InstanceSpec, NetworkUse, VolumeSpec};
use crate::release::{Part, Release, RuntimeKind};
use crate::state::{FoundInstance, HostState, Role};
use crate::variables::given;

/// What tells one instance from another of the same service.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) name: InstanceName,
    pub(crate) slot: Slot,
    pub(crate) replica: u32,
    pub(crate) run: RunId,
    pub(crate) address: Option<SocketAddr>,
}

/// What specifications need of the host.
pub(crate) struct Ground<'a> {
    pub(crate) state: &'a HostState,
    pub(crate) release: &'a Release,
    /// Addresses of the services of this release, for `${services.X.url}`.
    pub(crate) urls: BTreeMap<ServiceName, String>,
}

/// Where a volume lies. `root` is the host's folder of state.
pub(crate) fn volume_spec(
    release: &Release,
    root: &str,
    runtime: RuntimeKind,
    volume: &VolumeName,
) -> VolumeSpec {
    let external = release.volumes.get(volume).and_then(|settings| settings.external.clone());
    let name = match (&external, runtime) {
        (Some(name), _) => name.clone(),
        (None, RuntimeKind::Container) => layout::engine_volume(&release.app, volume),
        (None, RuntimeKind::Process) => layout::volume_folder(root, &release.app, volume),
    };
    VolumeSpec { runtime, name, external: external.is_some() }
}

impl Ground<'_> {
    /// The specification of an instance of a service.
    pub(crate) fn service(&self, service: &ServiceName, identity: &Identity) -> Option<GatedInstance> {
        let of = self.release.services.get(service)?;
        let part = self.release.part(service)?;
        let spec = self.spec(service, Role::Service, part, of.settings.port, identity);
        Some(GatedInstance { spec, gate: of.settings.gate.clone() })
    }

    /// The specification of a backing service's instance.
    pub(crate) fn backing(&self, service: &ServiceName, identity: &Identity) -> Option<GatedInstance> {
        let of = self.release.backing.get(service)?;
        let part = Part { run: &of.settings.run, content: &of.content, shipped: &of.shipped };
        let mut spec = self.spec(service, Role::Backing, part, of.settings.port, identity);
        // It outlives the services beside it: only what it is told itself belongs to how it was made.
        let told: std::collections::BTreeSet<&ServiceName> = referred(&of.settings.run).collect();
        spec.urls.retain(|name, _| told.contains(name));
        Some(GatedInstance { spec, gate: of.settings.gate.clone() })
    }

    /// A one-off instance of a service, or of what is there for them alone: a migration, or `exec --once`.
    pub(crate) fn one_off(
        &self,
        service: &ServiceName,
        command: Vec<crate::template::Template>,
        identity: &Identity,
    ) -> Option<InstanceSpec> {
        let part = self.release.part(service)?;
        let mut run = part.run.clone();
        run.command = Some(command);
        run.ports.clear();
        run.healthcheck = Some(OwnHealthcheck::Off);
        Some(self.spec(service, Role::OneOff, Part { run: &run, ..part }, None, identity))
    }

    fn spec(
        &self,
        service: &ServiceName,
        role: Role,
        Part { run, content, shipped }: Part<'_>,
        port: Option<u16>,
        identity: &Identity,
    ) -> InstanceSpec {
        let app = &self.release.app;
        let runtime = content.runtime();
        // A plain process has no port of its own to map to: the one it is told is the one it is reached at.
        let port = match runtime {
            RuntimeKind::Process => identity.address.map(|address| address.port()).or(port),
            RuntimeKind::Container => port,
        };
        let published = match (runtime, identity.address) {
            (RuntimeKind::Container, Some(address)) if address.ip().is_loopback() => Some(address.port()),
            _ => None,
        };
        InstanceSpec {
            name: identity.name.clone(),
            app: app.clone(),
            service: service.clone(),
            role,
            release: self.release.id.clone(),
            slot: identity.slot,
            replica: identity.replica,
            run: identity.run,
            content: content.clone(),
            shipped: shipped.clone(),
            settings: run.clone(),
            port,
            address: identity.address,
            networks: if runtime == RuntimeKind::Container {
                self.networks(service, role, identity)
            } else {
                Vec::new()
            },
            published,
            urls: self.urls.clone(),
            files: self.files(runtime, run),
            volumes: self.volumes(runtime, run),
            given: self.given(service, port, identity),
            isolated: false,
            network_of: None,
        }
    }

    /// The networks it needs, and no more: each costs 20–50 ms of its start.
    fn networks(&self, service: &ServiceName, role: Role, identity: &Identity) -> Vec<NetworkUse> {
        let app = &self.release.app;
        let fixed = identity.address.and_then(|address| match address.ip() {
            std::net::IpAddr::V4(ip) if !ip.is_loopback() => Some(ip),
            _ => None,
        });
        let backing =
            NetworkUse { network: layout::backing_network(app), aliases: Vec::new(), address: None };
        if role == Role::Backing {
            return vec![NetworkUse { aliases: vec![service.to_string()], address: fixed, ..backing }];
        }
        let mut networks = Vec::new();
        if let (Role::Service, Some(address)) = (role, fixed) {
            let network = layout::edge_network(&self.state.installation);
            networks.push(NetworkUse { network, aliases: Vec::new(), address: Some(address) });
        }
        let peers =
            self.release.services.values().filter(|s| s.content.runtime() == RuntimeKind::Container).count();
        if peers > 1 && role == Role::Service {
            networks.push(slot_use(app, identity.slot, service));
        }
        if self.release.backing.values().any(|b| b.content.runtime() == RuntimeKind::Container) {
            networks.push(backing);
        }
        if networks.is_empty() {
            networks.push(slot_use(app, identity.slot, service));
        }
        networks
    }

    fn given(
        &self,
        service: &ServiceName,
        port: Option<u16>,
        identity: &Identity,
    ) -> BTreeMap<VariableName, String> {
        let release = self.release;
        let values = [
            (given::PORT, port.map(|port| port.to_string())),
            (given::APP, Some(release.app.app.to_string())),
            (given::ENVIRONMENT, Some(release.app.environment.to_string())),
            (given::SERVICE, Some(service.to_string())),
            (given::RELEASE, Some(release.id.to_string())),
            (given::COMMIT, Some(release.source.commit.clone().unwrap_or_default())),
            (given::VERSION, Some(release.source.version.clone().unwrap_or_default())),
            (given::SLOT, Some(identity.slot.to_string())),
            (given::INSTANCE, Some(format!("{}/{}", release.app, identity.name))),
        ];
        values.into_iter().filter_map(|(name, value)| Some((name.parse().ok()?, value?))).collect()
    }

    fn volumes(&self, runtime: RuntimeKind, run: &RunSettings) -> BTreeMap<VolumeName, String> {
        let mounted = run
            .mounts
            .iter()
            .filter_map(|mount| if let Mount::Volume { volume, .. } = mount { Some(volume) } else { None });
        let databases = self.release.databases.values().filter_map(|database| match &database.engine {
            DatabaseEngine::Sqlite { volume, .. } if runtime == RuntimeKind::Process => Some(volume),
            _ => None,
        });
        mounted.chain(databases).map(|volume| (volume.clone(), self.volume(runtime, volume).name)).collect()
    }

    /// A volume as the host makes it.
    pub(crate) fn volume(&self, runtime: RuntimeKind, volume: &VolumeName) -> VolumeSpec {
        volume_spec(self.release, &self.state.root, runtime, volume)
    }

    /// `${databases.X.file}` as the instance sees it.
    fn files(&self, runtime: RuntimeKind, run: &RunSettings) -> BTreeMap<crate::names::DatabaseName, String> {
        let mut files = BTreeMap::new();
        for (name, database) in &self.release.databases {
            let DatabaseEngine::Sqlite { volume, file, .. } = &database.engine else { continue };
            let folder = match runtime {
                RuntimeKind::Process => Some(self.volume(runtime, volume).name),
                RuntimeKind::Container => run.mounts.iter().find_map(|mount| match mount {
                    Mount::Volume { volume: mounted, target, .. } if mounted == volume => {
                        Some(target.clone())
                    }
                    _ => None,
                }),
            };
            if let Some(folder) = folder {
                files.insert(name.clone(), format!("{folder}/{file}"));
            }
        }
        files
    }
}

fn slot_use(app: &AppId, slot: Slot, service: &ServiceName) -> NetworkUse {
    NetworkUse { network: layout::slot_network(app, slot), aliases: vec![service.to_string()], address: None }
}

/// A found instance as far as stopping needs it; how it is stopped comes from the release it was made for.
pub(crate) fn reference(state: &HostState, found: &FoundInstance) -> InstanceRef {
    let release =
        state.releases.iter().find(|record| record.release.id == found.release).map(|record| &record.release);
    let stop = release.and_then(|release| {
        let service = release.services.get(&found.service).map(|s| &s.settings.run.stop);
        service.or_else(|| release.backing.get(&found.service).map(|b| &b.settings.run.stop))
    });
    InstanceRef {
        name: found.name.clone(),
        service: found.service.clone(),
        runtime: found.runtime,
        stop: stop.cloned().unwrap_or_default(),
    }
}

/// A found instance's specification, made anew from the record of its release.
pub(crate) fn respecify(state: &HostState, found: &FoundInstance) -> Option<GatedInstance> {
    let release = &state.releases.iter().find(|record| record.release.id == found.release)?.release;
    let urls = urls(release, |service| {
        let same = |other: &&FoundInstance| {
            other.service == *service && other.release == found.release && other.role == Role::Service
        };
        state
            .instances
            .iter()
            .filter(same)
            .min_by_key(|other| (other.run != found.run, other.replica))
            .and_then(|other| other.address)
    });
    let ground = Ground { state, release, urls };
    let identity = Identity {
        name: found.name.clone(),
        slot: found.slot,
        replica: found.replica,
        run: found.run,
        address: found.address,
    };
    match found.role {
        Role::Service => ground.service(&found.service, &identity),
        Role::Backing => ground.backing(&found.service, &identity),
        Role::OneOff => None,
    }
}

/// A fresh one-off instance of a service of the live release, with the words as they are; `None`: there is no such service.
pub fn one_off(
    state: &HostState,
    service: &ServiceName,
    words: &[String],
    run: RunId,
) -> Option<InstanceSpec> {
    let live = state.live.as_ref()?;
    let release = &state.releases.iter().find(|record| record.release.id == live.release)?.release;
    let urls = urls(release, |other| {
        let mut members = live.members.get(other)?.iter();
        members.find_map(|name| state.instances.iter().find(|found| found.name == *name)?.address)
    });
    let ground = Ground { state, release, urls };
    let name = format!("once-{service}-{}", run.short()).parse().ok()?;
    let identity = Identity { name, slot: live.slot, replica: 1, run, address: None };
    let words = words.iter().map(crate::template::Template::text).collect();
    let spec = ground.one_off(service, words, &identity)?;
    Some(InstanceSpec { networks: on_what_is_there(state, spec.networks), ..spec })
}

/// No run makes networks for it. A container alone in its app is only where it is routed to: a network of its slot was never needed.
fn on_what_is_there(state: &HostState, networks: Vec<NetworkUse>) -> Vec<NetworkUse> {
    let Some(engine) = &state.engine else { return networks };
    let edge = layout::edge_network(&state.installation);
    let instead = |wanted: NetworkUse| {
        if !engine.networks.contains_key(&wanted.network) && engine.networks.contains_key(&edge) {
            NetworkUse { network: edge.clone(), aliases: Vec::new(), address: None }
        } else {
            wanted
        }
    };
    networks.into_iter().map(instead).collect()
}

/// The services that settings refer to.
fn referred(run: &RunSettings) -> impl Iterator<Item = &ServiceName> {
    let words = run.command.iter().chain(&run.entrypoint).flatten();
    let texts = run.environment.values().chain(words);
    texts.flat_map(crate::template::Template::services)
}

/// `${services.X.url}` of every service with a port: a name for containers, an address for plain processes.
pub(crate) fn urls(
    release: &Release,
    address: impl Fn(&ServiceName) -> Option<SocketAddr>,
) -> BTreeMap<ServiceName, String> {
    let migrating = release.databases.values().flat_map(|database| &database.migrate);
    let migrating = migrating.flat_map(|one| [Some(&one.command), one.pending.as_ref(), one.down.as_ref()]);
    let migrating = migrating.flatten().flatten().flat_map(crate::template::Template::services);
    let referred: std::collections::BTreeSet<&ServiceName> =
        release.released().flat_map(|part| referred(part.run)).chain(migrating).collect();
    let services = release.services.iter().map(|(name, s)| (name, s.content.runtime(), s.settings.port));
    let backing = release.backing.iter().map(|(name, b)| (name, b.content.runtime(), b.settings.port));
    services
        .chain(backing)
        .filter(|(name, _, _)| referred.contains(name))
        .filter_map(|(name, runtime, port)| {
            let url = match runtime {
                RuntimeKind::Container => format!("http://{name}:{}", port?),
                RuntimeKind::Process => format!("http://{}", address(name)?),
            };
            Some((name.clone(), url))
        })
        .collect()
}

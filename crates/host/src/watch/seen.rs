//! A look at one app: what is live, what is served, what runs, and what could not be seen.

use std::collections::{BTreeMap, BTreeSet};

use cutover_core::config::settings::{Service, StopSettings};
use cutover_core::gate::Gate;
use cutover_core::layout::Layout;
use cutover_core::names::{AppId, InstanceName, ReleaseId, ServiceName};
use cutover_core::release::{Live, Release, RuntimeKind};
use cutover_core::state::{FoundInstance, InstanceState, ReleaseRecord, RestartPolicy, Role};
use cutover_routes::Entry;
use jiff::Timestamp;

use crate::host::{kinds, needs_engine};
use crate::observe::{live_file, live_in_table_on_disk};
use crate::ports::Ports;

/// What a look showed.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    /// The proxy, or else what lies on disk, told what is live. `false`: nothing may be concluded from `live`.
    pub(super) told: bool,
    /// Nobody tells what is live now; this is what was told last. What is down is started, and nothing else is done.
    pub(super) remembered: bool,
    /// What is live.
    pub(super) live: Option<Live>,
    /// The app's entry in the table served; `None`: it has none, or no proxy answers.
    pub(super) entry: Option<Entry>,
    /// Instances of this installation.
    pub(super) instances: BTreeMap<InstanceName, FoundInstance>,
    /// Those that run without a keeper.
    pub(super) unkept: BTreeSet<InstanceName>,
    /// Runtimes that did not answer: what they carry is unknown, not absent (S4a).
    pub(super) blind: BTreeSet<RuntimeKind>,
    /// The record of the live release.
    pub(super) release: Option<Release>,
    /// Releases that are kept running after they were replaced, and until when.
    pub(super) warm: BTreeMap<ReleaseId, Timestamp>,
    /// Instances that are down and were live once: by the verdict of the runs that made them. They were to be put away, and were not.
    pub(super) left: BTreeSet<InstanceName>,
    /// A run died and is not settled yet: all is its own until then (S9).
    pub(super) unfinished: bool,
}

impl Seen {
    /// Looks by the ports, and at what lies on disk. `records` are the app's releases.
    pub(super) async fn look(ports: &Ports, layout: &Layout, app: &AppId, records: &[ReleaseRecord]) -> Self {
        let mut seen = Self::default();
        seen.see_live(ports, layout, app).await;
        if ports.container.is_none() && records.iter().any(|record| needs_engine(&record.release)) {
            seen.blind.insert(RuntimeKind::Container);
        }
        seen.see_instances(ports, app).await;
        let live = seen.live.as_ref().map(|live| &live.release);
        let record = records.iter().find(|record| Some(&record.release.id) == live);
        seen.release = record.map(|record| record.release.clone());
        seen.warm = records
            .iter()
            .filter_map(|record| Some((record.release.id.clone(), record.warm_until?)))
            .collect();
        seen
    }

    async fn see_live(&mut self, ports: &Ports, layout: &Layout, app: &AppId) {
        let table = ports.router.read().await;
        let answers = table.is_ok();
        let routed = match table {
            Ok(found) => {
                self.entry = found.table.owners.get(&app.owner()).cloned();
                Ok(self.entry.as_ref().and_then(|entry| Live::from_facts(&entry.facts)))
            }
            Err(error) => {
                tracing::debug!(%app, %error, "the proxy does not answer");
                live_in_table_on_disk(layout, app)
            }
        };
        // A table without a proxy is what will be served once one starts; no file from a time without routes overrules it.
        self.remembered = !answers && matches!(routed, Ok(Some(_)));
        let live =
            routed.and_then(|routed| if routed.is_some() { Ok(routed) } else { live_file(layout, app) });
        match live {
            Ok(live) => {
                self.told = answers || live.is_some();
                self.live = live;
            }
            Err(error) => tracing::warn!(%app, %error, "what is live cannot be read"),
        }
    }

    async fn see_instances(&mut self, ports: &Ports, app: &AppId) {
        for runtime in ports.runtimes() {
            match runtime.list(app).await {
                Ok(found) => {
                    let ours = found.into_iter().filter(|instance| instance.ours);
                    self.instances.extend(ours.map(|instance| (instance.name.clone(), instance)));
                }
                Err(error) => {
                    tracing::debug!(%app, %error, "a runtime cannot be looked at");
                    self.blind.insert(runtime.kind());
                }
            }
        }
        for (name, instance) in self.instances.iter().filter(|(_, instance)| instance.is_running()) {
            let Ok(runtime) = ports.runtime(instance.runtime) else { continue };
            if matches!(runtime.is_kept(app, name).await, Ok(false)) {
                self.unkept.insert(name.clone());
            }
        }
    }

    /// Instances that are down and not started again, of no matter whom.
    pub(super) fn ended(&self) -> impl Iterator<Item = &FoundInstance> {
        self.instances.values().filter(|instance| {
            let is_down = matches!(instance.state, InstanceState::Exited { .. });
            is_down && instance.role == Role::Service && instance.restart == RestartPolicy::No
        })
    }

    /// Falls back to what was live when that was last told.
    pub(super) fn remember(&mut self, live: Live, records: &[ReleaseRecord]) {
        self.release = records
            .iter()
            .find(|record| record.release.id == live.release)
            .map(|record| record.release.clone());
        self.live = Some(live);
        self.told = true;
        self.remembered = true;
    }

    /// Whether all that the live release needs could be seen.
    pub(super) fn is_complete(&self) -> bool {
        let kinds = self.release.iter().flat_map(kinds);
        self.told && kinds.into_iter().all(|kind| !self.blind.contains(&kind))
    }

    /// Services that should run, with their instances.
    pub(super) fn members(&self) -> impl Iterator<Item = (&ServiceName, &Vec<InstanceName>)> {
        let live = self.live.iter();
        live.flat_map(|live| live.members.iter().filter(|(service, _)| !live.stopped.contains(*service)))
    }

    /// Backing instances; they belong to no release.
    pub(super) fn backing(&self) -> impl Iterator<Item = &FoundInstance> {
        self.instances.values().filter(|instance| instance.role == Role::Backing)
    }

    /// What should run now, as far as it is there.
    pub(super) fn wanted(&self) -> impl Iterator<Item = &FoundInstance> {
        let members = self.members().flat_map(|(_, names)| names).filter_map(|name| self.instances.get(name));
        members.chain(self.live.iter().flat_map(|_| self.backing()))
    }

    /// A service's settings in the live release.
    pub(super) fn service(&self, name: &ServiceName) -> Option<&Service> {
        Some(&self.release.as_ref()?.services.get(name)?.settings)
    }

    /// What an instance must pass.
    pub(super) fn gate(&self, instance: &FoundInstance) -> Option<&Gate> {
        let release = self.release.as_ref()?;
        match instance.role {
            Role::Backing => Some(&release.backing.get(&instance.service)?.settings.gate),
            Role::Service | Role::OneOff => Some(&release.services.get(&instance.service)?.settings.gate),
        }
    }

    /// How an instance is stopped.
    pub(super) fn stop(&self, instance: &FoundInstance) -> StopSettings {
        self.service(&instance.service).map(|service| service.run.stop.clone()).unwrap_or_default()
    }
}

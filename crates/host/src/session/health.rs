//! How an app's services are now: each instance of what is live, looked at and probed.

use std::collections::BTreeMap;

use cutover_core::defaults::CRASH_LOOP;
use cutover_core::gate::{Finding, Gate, Probe};
use cutover_core::names::{AppId, ServiceName};
use cutover_core::release::Live;
use cutover_core::state::{FoundInstance, HostState, InstanceState};
use cutover_core::wire::{InstanceHealth, Reply, ServiceHealth};
use futures_util::future::join_all;
use tokio::io::{AsyncRead, AsyncWrite};

use super::frames::Stop;
use super::serve::Session;
use crate::host::Host;
use crate::observe::observe_again;
use crate::ports::ProbeTarget;
use crate::redact;

impl<R, W> Session<R, W>
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    pub(super) async fn health(&mut self, app: &AppId) -> Result<(), Stop> {
        let host = self.host().await?;
        let state = observe_again(&host, app).await?;
        let services = services(&host, &state).await;
        Ok(self.outgoing.send(&Reply::Health { services }).await?)
    }
}

async fn services(host: &Host, state: &HostState) -> BTreeMap<ServiceName, ServiceHealth> {
    let Some(live) = &state.live else { return BTreeMap::new() };
    let Some(record) = state.releases.iter().find(|record| record.release.id == live.release) else {
        return BTreeMap::new();
    };
    let all = record.release.services.iter().map(|(name, service)| async move {
        let members = members(state, live, name).into_iter();
        let instances =
            join_all(members.map(|found| instance(host, &state.app, found, &service.settings.gate))).await;
        let stopped = live.stopped.contains(name);
        (name.clone(), ServiceHealth { instances, stopped, wanted: service.settings.replicas })
    });
    join_all(all).await.into_iter().collect()
}

fn members<'a>(state: &'a HostState, live: &Live, service: &ServiceName) -> Vec<&'a FoundInstance> {
    state.instances.iter().filter(|found| found.service == *service && live.has(&found.name)).collect()
}

async fn instance(host: &Host, app: &AppId, found: &FoundInstance, gate: &Gate) -> InstanceHealth {
    let finding = if found.is_running() { probe(host, app, found, gate).await } else { None };
    InstanceHealth {
        name: found.name.clone(),
        healthy: found.is_running().then_some(finding.is_none()),
        crash_loop: matches!(found.state, InstanceState::Restarting { restarts, .. } if restarts >= CRASH_LOOP),
        state: found.state.clone(),
        finding,
    }
}

/// What the first check that does not pass has found.
async fn probe(host: &Host, app: &AppId, found: &FoundInstance, gate: &Gate) -> Option<Finding> {
    let target = ProbeTarget {
        app: app.clone(),
        instance: found.name.clone(),
        runtime: found.runtime,
        address: found.address,
    };
    for check in &gate.checks {
        if let Probe::Failed(finding) = host.ports.prober.probe(&target, &check.check, check.timeout).await {
            let values = redact::values(&host.layout, app, [&found.release]);
            return Some(redact::finding(&values, finding));
        }
    }
    None
}

//! Probes: one try of a check on an instance, one request on a public route. Pace and counting are the stage's.

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use cutover_core::config::settings::Verify;
use cutover_core::gate::{Check, Probe};
use cutover_core::names::{AppId, InstanceName};
use cutover_core::plan::RouteCheck;
use cutover_core::release::RuntimeKind;

/// Whom a try is for.
#[derive(Debug, Clone)]
pub struct ProbeTarget {
    /// Of which app.
    pub app: AppId,
    /// Which instance.
    pub instance: InstanceName,
    /// What carries it.
    pub runtime: RuntimeKind,
    /// Where it is reached.
    pub address: Option<SocketAddr>,
}

/// What looks.
#[async_trait]
pub trait Prober: Send + Sync {
    /// One try of a check, at most `timeout`.
    async fn probe(&self, target: &ProbeTarget, check: &Check, timeout: Duration) -> Probe;

    /// One request through the proxy for a route, at most `timeout`: an answer of the app's own, with an accepted status.
    async fn route(&self, check: &RouteCheck, timeout: Duration) -> Probe;

    /// What else the author wants to see of a route: a body, a version, a smoke test in an instance.
    async fn verify(&self, check: &RouteCheck, expect: &Verify, target: &ProbeTarget) -> Probe;
}

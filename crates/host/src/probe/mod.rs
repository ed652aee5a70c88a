//! Probes: one try of a check on an instance, one request on a public route. The stages and watch decide how often, and what to think of it.
//!
//! What is found comes from the app: it is not redacted here, whoever shows it does that.

mod connect;
mod exec;
pub mod facts;
mod http;
mod json;
mod log;
mod route;
mod steady;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cutover_core::config::settings::Verify;
use cutover_core::gate::{Check, Finding, Probe};
use cutover_core::plan::RouteCheck;
use cutover_core::release::RuntimeKind;

use crate::ports::{ProbeTarget, Prober, Runtime, RuntimeError};

/// The real prober.
pub struct Probes {
    process: Arc<dyn Runtime>,
    container: Option<Arc<dyn Runtime>>,
    proxy: Vec<SocketAddr>,
}

impl Probes {
    /// Probes instances by their runtimes, and routes by the addresses on which the proxy takes plain HTTP.
    pub fn new(
        process: Arc<dyn Runtime>,
        container: Option<Arc<dyn Runtime>>,
        proxy_http: Vec<SocketAddr>,
    ) -> Self {
        Self { process, container, proxy: proxy_http }
    }

    fn runtime(&self, kind: RuntimeKind) -> Result<&dyn Runtime, Finding> {
        match kind {
            RuntimeKind::Process => Ok(self.process.as_ref()),
            RuntimeKind::Container => {
                self.container.as_deref().ok_or_else(|| other("no container engine answers"))
            }
        }
    }

    async fn check(&self, target: &ProbeTarget, check: &Check, timeout: Duration) -> Result<(), Finding> {
        let runtime = self.runtime(target.runtime)?;
        match check {
            Check::Http { path, port, host, scheme, status, json, inside } => {
                let address = address(target, *port)?;
                let stream = connect::connect(runtime, target, address, *inside).await?;
                let ask = http::Get { address, host: host.as_deref(), scheme, path };
                let answer = http::get(stream, &ask).await?;
                answer.with_status(*status)?;
                json::matches(&answer.body, json)
            }
            Check::Tcp { port, inside } => {
                let address = address(target, *port)?;
                connect::connect(runtime, target, address, *inside).await.map(drop)
            }
            Check::Command { words } => exec::command(runtime, target, words.clone(), timeout).await,
            Check::File { path } => exec::file(runtime, target, path, timeout).await,
            Check::Container => exec::container(runtime, target, timeout).await,
            Check::Log { text } => log::shows(runtime, target, text).await,
            Check::Steady { duration } => steady::is(runtime, target, *duration).await,
        }
    }
}

#[async_trait]
impl Prober for Probes {
    async fn probe(&self, target: &ProbeTarget, check: &Check, timeout: Duration) -> Probe {
        within(timeout, self.check(target, check, timeout)).await
    }

    async fn route(&self, check: &RouteCheck, timeout: Duration) -> Probe {
        within(timeout, route::answers(&self.proxy, check)).await
    }

    async fn verify(&self, check: &RouteCheck, expect: &Verify, target: &ProbeTarget) -> Probe {
        match expect {
            Verify::Http { path, contains, json } => {
                let shows = route::shows(&self.proxy, check, path, contains.as_deref(), json);
                within(cutover_core::defaults::PROBE_TIMEOUT, shows).await
            }
            Verify::Command { words, timeout } => {
                let run = async {
                    exec::command(self.runtime(target.runtime)?, target, words.clone(), *timeout).await
                };
                within(*timeout, run).await
            }
        }
    }
}

/// The whole try in time, or [`Finding::NoAnswer`].
async fn within(timeout: Duration, tried: impl Future<Output = Result<(), Finding>>) -> Probe {
    match tokio::time::timeout(timeout, tried).await {
        Ok(Ok(())) => Probe::Passed,
        Ok(Err(finding)) => Probe::Failed(finding),
        Err(_) => Probe::Failed(Finding::NoAnswer),
    }
}

/// Where the instance is reached, at another port where the check names one.
fn address(target: &ProbeTarget, port: Option<u16>) -> Result<SocketAddr, Finding> {
    let address =
        target.address.ok_or_else(|| other("the instance has no address: the service has no port"))?;
    Ok(port.map_or(address, |port| SocketAddr::new(address.ip(), port)))
}

fn other(detail: impl Into<String>) -> Finding {
    Finding::Other { detail: detail.into() }
}

fn failed(error: &RuntimeError) -> Finding {
    other(error.message.clone())
}

#[cfg(test)]
mod tests;

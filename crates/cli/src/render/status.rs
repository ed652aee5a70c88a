//! What is live, and how it is.

use std::collections::BTreeMap;

use cutover_core::backup::BackupState;
use cutover_core::exit::Exit;
use cutover_core::gate::Finding;
use cutover_core::journal::LockHolder;
use cutover_core::names::{AppId, ReleaseId, ServiceName, Slot};
use cutover_core::state::{HostState, InstanceState};
use cutover_core::verdict::{Outcome, Verdict};
use cutover_core::wire::{InstanceHealth, ServiceHealth};
use cutover_routes::RouteState;
use jiff::Timestamp;
use serde::Serialize;

use super::event::size;
use super::harmless_line;
use super::paint::{self, Text};
use super::time::{ago, moment, span};

/// A clock that is off by less is not told.
const CLOCK_MATTERS_MS: u64 = 2_000;
/// The state of a route that nothing is behind.
const CLOSED: &str = "closed";

/// What is live, and how it is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Status {
    app: AppId,
    now: Timestamp,
    /// `None`: nothing is live.
    live: Option<LiveRelease>,
    /// The machine.
    host: HostLine,
    services: BTreeMap<ServiceName, ServiceHealth>,
    routes: Vec<RouteLine>,
    /// Whether a proxy answers.
    proxy: bool,
    lock: Option<LockHolder>,
    backups: BackupState,
    /// The verdict of the newest run that was begun.
    last: Option<Verdict>,
    /// What people should know of the host's own records.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    remarks: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct LiveRelease {
    release: ReleaseId,
    slot: Slot,
    commit: Option<String>,
    subject: Option<String>,
    version: Option<String>,
}

/// The machine, as far as it matters to who looks after an app.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct HostLine {
    /// As the configuration names it.
    pub(crate) name: String,
    pub(crate) system: String,
    /// `cutover-host`'s version.
    pub(crate) version: String,
    pub(crate) platform: String,
    /// How far its clock is ahead of ours, in milliseconds.
    pub(crate) ahead_ms: i64,
    /// Name and version of its container engine.
    pub(crate) engine: Option<String>,
    /// Of the disk where state lies, in bytes.
    pub(crate) disk_free: u64,
    pub(crate) disk_size: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct RouteLine {
    service: String,
    url: String,
    state: &'static str,
    /// What it leads to.
    release: Option<ReleaseId>,
    slot: Option<Slot>,
    instances: Vec<String>,
}

impl Status {
    /// Put together from one look and the samples of health.
    pub(crate) fn new(
        state: &HostState,
        host: HostLine,
        services: BTreeMap<ServiceName, ServiceHealth>,
        backups: BackupState,
    ) -> Self {
        Self {
            app: state.app.clone(),
            now: state.now,
            live: state.live.as_ref().map(|live| {
                let record = state.releases.iter().find(|record| record.release.id == live.release);
                let source = record.map(|record| record.release.source.clone()).unwrap_or_default();
                LiveRelease {
                    release: live.release.clone(),
                    slot: live.slot,
                    commit: source.commit,
                    subject: source.subject,
                    version: source.version,
                }
            }),
            host,
            services,
            routes: routes(state),
            proxy: state.table.is_some(),
            lock: state.lock.clone(),
            backups,
            // One that only found the lock taken did nothing that could have failed.
            last: state.verdicts.iter().find(|verdict| verdict.exit() != Exit::Locked).cloned(),
            remarks: state.remarks.clone(),
        }
    }
}

fn routes(state: &HostState) -> Vec<RouteLine> {
    let entry = state.table.as_ref().and_then(|found| found.table.owners.get(&state.app.owner()));
    let port = state.listeners.first().map(std::net::SocketAddr::port).filter(|port| *port != 80);
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    let mut lines = Vec::new();
    for route in entry.into_iter().flat_map(|entry| &entry.routes) {
        // A route for every host is best shown as one that can be opened here.
        let any = ["localhost".to_owned()];
        let hosts = if route.hosts.is_empty() { &any[..] } else { &route.hosts[..] };
        for host in hosts {
            lines.push(RouteLine {
                service: route.name.clone(),
                url: format!("http://{host}{port}{}", route.path),
                state: match route.state {
                    RouteState::Serving { .. } => "serving",
                    RouteState::Held { .. } => "held",
                    RouteState::Closed { .. } => CLOSED,
                },
                release: state.live.as_ref().map(|live| live.release.clone()),
                slot: state.live.as_ref().map(|live| live.slot),
                instances: match &route.state {
                    RouteState::Serving { targets } => {
                        targets.iter().map(|target| target.id.clone()).collect()
                    }
                    RouteState::Held { .. } | RouteState::Closed { .. } => Vec::new(),
                },
            });
        }
    }
    lines
}

/// Whether a release is live and all that should run does, as far as is known; and its backups are not old, where there should be some.
pub(crate) fn is_healthy(status: &Status) -> bool {
    let routed = status.routes.is_empty() || status.proxy;
    let runs = status.services.values().any(|service| !service.stopped) || status.services.is_empty();
    // A worker may be stopped for a while; who asks for a page is turned away.
    let open = status.routes.iter().all(|route| route.state != CLOSED);
    status.live.is_some()
        && routed
        && runs
        && open
        && !status.backups.stale
        && status.services.values().all(is_service_healthy)
}

fn is_service_healthy(service: &ServiceHealth) -> bool {
    let good = service.instances.iter().filter(|instance| is_instance_healthy(instance)).count();
    service.stopped || good >= usize::try_from(service.wanted).unwrap_or(usize::MAX)
}

fn is_instance_healthy(instance: &InstanceHealth) -> bool {
    matches!(instance.state, InstanceState::Running { .. })
        && instance.healthy != Some(false)
        && !instance.crash_loop
}

/// As people read it.
pub(crate) fn status(status: &Status) -> String {
    let mut text = Text::default();
    text.line(match &status.live {
        Some(live) => format!("{}: {}", paint::name(&status.app), live_text(live)),
        None => {
            format!("{}: nothing is live; `cutover deploy` puts a release live", paint::name(&status.app))
        }
    });
    if let Some(holder) = &status.lock {
        text.line(format!(
            "{} {} by {}, for {} (`cutover attach` follows it)",
            paint::warn("in motion:"),
            holder.verb.as_str(),
            harmless_line(&holder.by),
            ago(holder.since, status.now)
        ));
    }
    for (name, service) in &status.services {
        service_lines(&mut text, name, service, status.now);
    }
    for route in &status.routes {
        let state = if route.state == "serving" { String::new() } else { format!(" ({})", route.state) };
        text.line(format!("  {} → {}{state}{}", route.url, route.service, leads_to(route)));
    }
    if status.live.is_some() && !status.proxy {
        text.line(format!(
            "  {} no proxy answers; `cutover deploy` or `cutover start` starts it",
            paint::bad("!")
        ));
    }
    text.line(host_text(&status.host));
    if let Some(line) = super::backup::state(&status.backups, status.now) {
        text.line(line);
    }
    for remark in &status.remarks {
        text.line(format!("{} {remark}", paint::warn("warning:")));
    }
    if let Some(last) = &status.last {
        text.line(format!("last run: {}", last_text(last, status.now)));
    }
    text.finish()
}

/// Release, colour and instances behind a route.
fn leads_to(route: &RouteLine) -> String {
    let (Some(release), Some(slot), false) = (&route.release, route.slot, route.instances.is_empty()) else {
        return String::new();
    };
    format!(" → {release} ({slot}: {})", route.instances.join(", "))
}

fn host_text(host: &HostLine) -> String {
    let mut facts =
        vec![format!("cutover-host {}", host.version), host.platform.clone(), host.system.clone()];
    facts.extend(host.engine.clone());
    facts.push(format!("{} of {} free", size(host.disk_free), size(host.disk_size)));
    if host.ahead_ms.unsigned_abs() >= CLOCK_MATTERS_MS {
        let way = if host.ahead_ms > 0 { "ahead of" } else { "behind" };
        let apart = span(std::time::Duration::from_millis(host.ahead_ms.unsigned_abs()));
        facts.push(paint::warn(format!("its clock is {apart} {way} ours")));
    }
    facts.retain(|fact| !fact.is_empty());
    format!("host {}: {}", paint::name(&host.name), facts.join(", "))
}

fn live_text(live: &LiveRelease) -> String {
    let commit = live.commit.as_ref().map(|commit| {
        let subject = live.subject.as_ref().map(|subject| format!(" \"{subject}\"")).unwrap_or_default();
        format!("commit {}{subject}", &commit[..commit.len().min(7)])
    });
    let version = live.version.as_ref().map(|version| format!("version {version}"));
    let facts: Vec<String> = [Some(live.slot.to_string()), commit, version].into_iter().flatten().collect();
    format!("release {} is live ({})", paint::strong(&live.release), facts.join(", "))
}

fn service_lines(text: &mut Text, name: &ServiceName, service: &ServiceHealth, now: Timestamp) {
    let good = service.instances.iter().filter(|instance| is_instance_healthy(instance)).count();
    let state = if service.stopped {
        paint::warn("stopped (until `cutover start` or the next deploy)")
    } else if is_service_healthy(service) {
        paint::good(format!("healthy, {good} of {}", service.wanted))
    } else {
        paint::bad(format!("not healthy, {good} of {}", service.wanted))
    };
    text.line(format!("  {} {state}", paint::column(name.as_str(), 12, |name| paint::name(name))));
    for instance in &service.instances {
        text.line(format!("    {}: {}", instance.name, instance_text(instance, now)));
    }
}

fn instance_text(instance: &InstanceHealth, now: Timestamp) -> String {
    let mut facts = vec![match &instance.state {
        InstanceState::Created => "created, not started".to_owned(),
        InstanceState::Running { since, restarts } => {
            let restarts = if *restarts == 0 { String::new() } else { format!(", {restarts} restarts") };
            format!("up for {}{restarts}", ago(*since, now))
        }
        InstanceState::Restarting { exit, restarts } => {
            format!("restarting ({restarts} times so far): {exit}")
        }
        InstanceState::Exited { exit } => exit.to_string(),
    }];
    if instance.crash_loop {
        facts.push("it ends again and again".to_owned());
    }
    if instance.healthy == Some(false) {
        facts.push(match &instance.finding {
            Some(finding) => format!("its probe fails: {}", finding_text(finding)),
            None => "its probe fails".to_owned(),
        });
    }
    facts.join("; ")
}

fn finding_text(finding: &Finding) -> String {
    match finding {
        Finding::Refused => "nobody listens there".to_owned(),
        Finding::NoAnswer => "no answer in time".to_owned(),
        Finding::Status { status, .. } => format!("it answered {status}"),
        Finding::Body { detail } | Finding::Other { detail } => detail.clone(),
        Finding::Exit { code, .. } => format!("the command exited with {code}"),
        Finding::NotYet => "not there yet".to_owned(),
    }
}

fn last_text(last: &Verdict, now: Timestamp) -> String {
    let outcome = match &last.outcome {
        Outcome::Done => paint::good("done"),
        Outcome::Failed { failure } => format!("{} {}", paint::bad("failed:"), failure.what),
    };
    format!(
        "{} by {}, {} ago at {}: {outcome}",
        last.verb.as_str(),
        harmless_line(&last.by),
        ago(last.finished, now),
        moment(last.finished)
    )
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;

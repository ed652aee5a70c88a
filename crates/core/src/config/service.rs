//! Services: source, run settings, route, gate, strategy and bounds, with their defaults filled in.

use std::time::Duration;

use super::gates::{self, Around};
use super::problem::{Draft, Issues, ProblemKind};
use super::read::At;
use super::run::{self, Context};
use super::settings::{HoldSettings, OwnHealthcheck, Service, Source, Strategy};
use super::{routes, value};
use crate::defaults;

const HOLD_MOST: Duration = Duration::from_mins(5);
const HOLD_LEAST: Duration = Duration::from_secs(1);
const HOLD_BYTES_MOST: u64 = 1 << 30;
const DRAIN_MOST: Duration = Duration::from_hours(1);

/// Reads one service. `root` is the whole file: what it says for all services.
pub(crate) fn service(
    name: &str,
    at: &At<'_>,
    root: &At<'_>,
    local: bool,
    context: &mut Context<'_>,
) -> Service {
    let source = run::source(at, name, &mut context.issues);
    let process = at.get("artifact").is_some();
    if let Some(Source::Image { reference }) = &source {
        run::note_floating(at, reference, &mut context.issues);
    }
    let shared = root.get("environment");
    let run = run::run(at, shared.as_ref(), process, context);
    let port = at.port("port");
    let route = at.get("route").map(|at| routes::route(&at));
    refuse_empty_route(at, &mut context.issues);
    if route.is_some() && port.is_none() && !process && source.is_some() && at.get("port").is_none() {
        let what = "a route needs the port that the container listens on";
        let draft = Draft::new(ProblemKind::Missing, at.place("route"), &at.path, what);
        context.issues.add(draft.remedy("say where the app listens: `port: 8000`"));
    }
    let issues = &mut context.issues;
    let around = Around {
        port,
        route: route.as_ref(),
        healthcheck: run.healthcheck.as_ref().and_then(OwnHealthcheck::command),
        process,
        scheme: scheme(at, local, issues),
    };
    let gate = gates::gate(at, &around, issues);
    let replicas = replicas(at);
    Service {
        verify: gates::verify(at, route.is_some(), issues),
        strategy: strategy(at, route.is_some(), replicas, issues),
        hold: hold(at, root, issues),
        drain: drain(at, root, issues),
        restart_unhealthy: at.flag("restart_unhealthy").unwrap_or(false),
        // A placeholder keeps the cross-checks going; with a problem no configuration leaves here.
        source: source.unwrap_or(Source::Image { reference: String::new() }),
        run,
        port,
        route,
        gate,
        replicas,
    }
}

/// `route:` with nothing behind it may be a file that is not finished; every host is asked for in so many words.
fn refuse_empty_route(at: &At<'_>, issues: &mut Issues) {
    if at.node.get("route").is_some() && at.get("route").is_none() {
        let draft = Draft::new(
            ProblemKind::Missing,
            at.place("route"),
            &format!("{}.route", at.path),
            "`route` says nothing",
        );
        issues.add(draft.remedy("`route: { host: example.com }`, or `route: {}` for every host"));
    }
}

/// How clients come: without certificates by `http`.
fn scheme(at: &At<'_>, local: bool, issues: &mut Issues) -> &'static str {
    let tls = at.get("route").and_then(|route| route.get("tls"));
    match tls.as_ref().and_then(At::text) {
        Some("off") => "http",
        Some(_) if !local => {
            if let Some(tls) = &tls {
                let draft = tls.problem(ProblemKind::Refused, "certificates come later");
                issues.add(
                    draft.remedy("until then stand behind something that ends TLS, and write `tls: off`"),
                );
            }
            "https"
        }
        None if !local => "https",
        _ => "http",
    }
}

fn replicas(at: &At<'_>) -> u32 {
    let deploy = || at.get("deploy")?.parsed("replicas");
    at.parsed("replicas").or_else(|| at.parsed("scale")).or_else(deploy).unwrap_or(1)
}

fn strategy(at: &At<'_>, routed: bool, replicas: u32, issues: &mut Issues) -> Strategy {
    let Some(given) = at.get("strategy") else {
        return if routed || replicas > 1 { Strategy::BlueGreen } else { Strategy::Handover };
    };
    match given.text() {
        Some("handover") if replicas > 1 => {
            let what = format!("`handover` never runs two at once, and {replicas} replicas are wanted");
            let draft = given.problem(ProblemKind::Conflict, what);
            issues.add(draft.remedy("keep one replica, or use `strategy: blue-green`"));
            Strategy::Handover
        }
        Some("handover") => Strategy::Handover,
        Some(later @ ("rolling" | "canary")) => {
            let draft = given.problem(ProblemKind::Refused, format!("`strategy: {later}` comes later"));
            issues.add(draft.remedy("use `blue-green`: as many new instances start beside the old, and one switch moves all requests"));
            Strategy::BlueGreen
        }
        _ => Strategy::BlueGreen,
    }
}

fn hold(at: &At<'_>, root: &At<'_>, issues: &mut Issues) -> HoldSettings {
    let mut hold = HoldSettings {
        budget: defaults::HOLD_BUDGET,
        requests: defaults::HOLD_REQUESTS,
        bytes: defaults::HOLD_BYTES,
    };
    for given in root.get("hold").into_iter().chain(at.get("hold")) {
        let budget =
            given.text().and_then(|text| value::duration(text).ok()).or_else(|| given.duration("budget"));
        if let Some(budget) = budget {
            within(&given, "a hold", budget, HOLD_LEAST, HOLD_MOST, issues);
            hold.budget = budget;
        }
        hold.requests = given.parsed("requests").unwrap_or(hold.requests);
        if let Some(bytes) = given.bytes("bytes") {
            if bytes > HOLD_BYTES_MOST {
                issues.add(given.problem(ProblemKind::Value, "a hold keeps at most 1g of request bodies"));
            }
            hold.bytes = bytes;
        }
    }
    hold
}

fn drain(at: &At<'_>, root: &At<'_>, issues: &mut Issues) -> Duration {
    let Some(given) = at.get("drain").or_else(|| root.get("drain")) else { return defaults::DRAIN };
    let Some(drain) = given.text().and_then(|text| value::duration(text).ok()) else {
        return defaults::DRAIN;
    };
    within(&given, "a drain", drain, Duration::ZERO, DRAIN_MOST, issues);
    drain
}

/// Reports a duration out of its bounds.
pub(crate) fn within(
    at: &At<'_>,
    what: &str,
    found: Duration,
    least: Duration,
    most: Duration,
    issues: &mut Issues,
) {
    if found < least || found > most {
        let (least, most) = (value::show_duration(least), value::show_duration(most));
        let found = value::show_duration(found);
        issues
            .add(at.problem(ProblemKind::Value, format!("{what} lasts from {least} to {most}, not {found}")));
    }
}

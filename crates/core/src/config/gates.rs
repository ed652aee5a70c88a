//! Gates and verifications: `health`, `ready`, `healthcheck` and what is taken where none is given.

use std::time::Duration;

use super::problem::{Draft, Issues, ProblemKind};
use super::read::At;
use super::run;
use super::service::within;
use super::settings::{Healthcheck, RouteSettings, Verify};
use super::value;
use crate::defaults;
use crate::gate::{Check, Gate, GateCheck};

/// What a gate depends on besides its own keys.
pub(crate) struct Around<'s> {
    pub(crate) port: Option<u16>,
    pub(crate) route: Option<&'s RouteSettings>,
    pub(crate) healthcheck: Option<&'s Healthcheck>,
    /// A plain process: it is told its port when it has none of its own.
    pub(crate) process: bool,
    /// `http` or `https`, as clients come.
    pub(crate) scheme: &'static str,
}

/// Reads the gate of a service or backing service.
pub(crate) fn gate(at: &At<'_>, around: &Around<'_>, issues: &mut Issues) -> Gate {
    let (health, ready) = (at.get("health"), at.get("ready"));
    let mut checks: Vec<GateCheck> = Vec::new();
    checks.extend(health.as_ref().and_then(|health| self::health(health, around, issues)));
    checks.extend(ready.as_ref().map(|ready| self::ready(ready, issues)).unwrap_or_default());
    if let Some(healthcheck) = around.healthcheck {
        checks.push(container(healthcheck, around.process));
    }
    if checks.is_empty() {
        checks.push(paced(match around.port {
            Some(_) => Check::Tcp { port: None, inside: false },
            None if around.route.is_some() => Check::Tcp { port: None, inside: false },
            None => Check::Steady { duration: defaults::STEADY },
        }));
    }
    let longest = [&health, &ready].into_iter().filter_map(|at| at.as_ref()?.duration("within")).max();
    bounds(at, issues);
    Gate { checks, within: longest.unwrap_or(defaults::GATE) }
}

fn paced(check: Check) -> GateCheck {
    GateCheck {
        check,
        interval: defaults::PROBE_INTERVAL,
        timeout: defaults::PROBE_TIMEOUT,
        rise: 1,
        fall: defaults::FALL,
    }
}

fn health(at: &At<'_>, around: &Around<'_>, issues: &mut Issues) -> Option<GateCheck> {
    let given: Vec<&str> =
        ["path", "command", "tcp"].into_iter().filter(|key| at.get(key).is_some()).collect();
    let inside = at.flag("inside").unwrap_or(false);
    let check = match given.as_slice() {
        ["path"] => {
            asked_port(at, "path", around, issues);
            http(at, around, inside, issues)?
        }
        ["command"] => Check::Command { words: at.settled_command("command", issues)? },
        ["tcp"] => {
            let port = at.port("tcp").or_else(|| at.port("port"));
            if port.is_none() {
                asked_port(at, "tcp", around, issues);
            }
            Check::Tcp { port, inside }
        }
        [] if at.port("port").is_some() => Check::Tcp { port: at.port("port"), inside },
        [] => {
            if !issues.has_at(&at.path) {
                let draft = at.problem(ProblemKind::Missing, "`health` does not say what to look at");
                issues.add(draft.remedy("health: { path: /health }").allowed("", ["path", "command", "tcp"]));
            }
            return None;
        }
        several => {
            let what =
                format!("`{}` are given together: a health check looks at one of them", several.join("`, `"));
            issues.add(
                at.problem(ProblemKind::Conflict, what).remedy("what must be seen once stands in `ready`"),
            );
            return None;
        }
    };
    Some(GateCheck {
        check,
        interval: at.duration("interval").unwrap_or(defaults::PROBE_INTERVAL),
        timeout: at.duration("timeout").unwrap_or(defaults::PROBE_TIMEOUT),
        rise: at.parsed("rise").unwrap_or(1),
        fall: at.parsed("fall").unwrap_or(defaults::FALL),
    })
}

/// A check that asks a port needs one to ask.
fn asked_port(at: &At<'_>, key: &str, around: &Around<'_>, issues: &mut Issues) {
    if at.port("port").is_none() && around.port.is_none() && !around.process && at.get("port").is_none() {
        let what = "this check asks a port, and the service has none";
        let draft = Draft::new(ProblemKind::Missing, at.place(key), &at.path, what);
        issues.add(draft.remedy("say where the app listens: `port: 8000`"));
    }
}

fn http(at: &At<'_>, around: &Around<'_>, inside: bool, issues: &mut Issues) -> Option<Check> {
    let host = at.string("host").or_else(|| around.route?.hosts.first().cloned());
    Some(Check::Http {
        path: at.string("path")?,
        port: at.port("port"),
        host,
        scheme: around.scheme.to_owned(),
        status: status(at, issues),
        json: at.get("json").map(|json| run::texts(&json)).unwrap_or_default(),
        inside,
    })
}

fn status(at: &At<'_>, issues: &mut Issues) -> (u16, u16) {
    let mut ranges: Vec<(u16, u16)> =
        at.texts("status").iter().filter_map(|text| value::status(text).ok()).collect();
    ranges.sort_unstable();
    let Some((first, rest)) = ranges.split_first() else { return (200, 399) };
    let mut whole = *first;
    for range in rest {
        if let Some(at) = at.get("status").filter(|_| range.0 > whole.1.saturating_add(1)) {
            let draft = at.problem(ProblemKind::Value, "status codes with a gap between them");
            issues.add(draft.remedy(format!("give one range: `{}-{}`", whole.0, range.1)));
        }
        whole.1 = whole.1.max(range.1);
    }
    whole
}

fn ready(at: &At<'_>, issues: &mut Issues) -> Vec<GateCheck> {
    let mut checks = Vec::new();
    checks.extend(at.string("log").map(|text| Check::Log { text }));
    checks.extend(at.string("file").map(|path| Check::File { path }));
    checks.extend(at.settled_command("command", issues).map(|words| Check::Command { words }));
    if checks.is_empty() && !issues.has_at(&at.path) {
        let draft = at.problem(ProblemKind::Missing, "`ready` does not say what to look for");
        issues.add(draft.remedy("ready: { log: started }").allowed("", ["log", "file", "command"]));
    }
    checks.into_iter().map(paced).collect()
}

/// The health command of a container is run by its own name; a plain process has none, so it is a command like others.
fn container(healthcheck: &Healthcheck, process: bool) -> GateCheck {
    let check = if process { Check::Command { words: healthcheck.test.clone() } } else { Check::Container };
    GateCheck {
        check,
        interval: healthcheck.interval.min(defaults::PROBE_INTERVAL),
        timeout: healthcheck.timeout,
        rise: 1,
        fall: healthcheck.retries,
    }
}

/// A gate without time, or a pace without pause, passes nothing or asks for ever.
fn bounds(at: &At<'_>, issues: &mut Issues) {
    let least = Duration::from_millis(10);
    for gate in ["health", "ready"].iter().filter_map(|key| at.get(key)) {
        for key in ["within", "interval", "timeout"] {
            if let (Some(given), Some(found)) = (gate.get(key), gate.duration(key)) {
                within(&given, &format!("`{key}`"), found, least, defaults::GATE_MOST, issues);
            }
        }
    }
}

/// Reads `verify:`.
pub(crate) fn verify(at: &At<'_>, routed: bool, issues: &mut Issues) -> Vec<Verify> {
    let Some(at) = at.get("verify") else { return Vec::new() };
    let mut all = Vec::new();
    for one in at.one_or_more() {
        if let Some(path) = one.string("path") {
            if !routed {
                let draft = one.problem(
                    ProblemKind::Conflict,
                    "`verify.path` asks the public route, and the service has none",
                );
                issues.add(draft.remedy("give the service a `route`, or verify by `command`"));
            }
            all.push(Verify::Http {
                path,
                // Without a commit there is nothing to look for.
                contains: one.string("contains").filter(|text| !text.is_empty()),
                json: one.get("json").map(|json| run::texts(&json)).unwrap_or_default(),
            });
        }
        if let Some(words) = one.settled_command("command", issues) {
            let timeout = one.duration("timeout").unwrap_or(defaults::VERIFY_COMMAND);
            all.push(Verify::Command { words, timeout });
        }
        if one.get("path").is_none() && one.get("command").is_none() && !issues.has_at(&one.path) {
            let draft = one.problem(ProblemKind::Missing, "`verify` does not say what to look at");
            issues.add(
                draft
                    .remedy("verify: { path: /version, contains: \"${CUTOVER_COMMIT}\" }")
                    .allowed("", ["path", "command"]),
            );
        }
    }
    all
}

//! From facts about a candidate to the true cause, and what to do about it. Facts come in as data; nothing here looks.

mod listening;
mod log;

use std::net::SocketAddr;
use std::time::Duration;

use crate::gate::{Check, Finding};
use crate::names::{ReleaseId, ServiceName};
use crate::release::RuntimeKind;
use crate::state::{ExitStatus, InstanceState};

/// What is known about an instance that did not become healthy, or ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Of which service.
    pub service: ServiceName,
    /// Of which release.
    pub release: ReleaseId,
    /// What carries it.
    pub runtime: RuntimeKind,
    /// What it does; `None`: it is gone.
    pub state: Option<InstanceState>,
    /// Where anything in it listens; `None`: not known.
    pub listening: Option<Vec<SocketAddr>>,
    /// The port it should listen on.
    pub port: Option<u16>,
    /// The check that did not pass.
    pub check: Option<Check>,
    /// What its last try found.
    pub last: Option<Finding>,
    /// Tries of it.
    pub tries: u32,
    /// From the start of the instance to now.
    pub elapsed: Duration,
    /// The end of its log, redacted.
    pub log: Vec<String>,
}

/// Why, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Diagnosis {
    /// Facts, most telling first.
    pub cause: Vec<String>,
    /// What to do, commands included.
    pub next: Vec<String>,
    /// The end of the log, where it is worth reading.
    pub log: Vec<String>,
}

impl Diagnosis {
    fn cause(&mut self, text: impl Into<String>) {
        self.cause.push(text.into());
    }

    fn next(&mut self, text: impl Into<String>) {
        self.next.push(text.into());
    }
}

/// Names the cause. What the log says comes first, because it is the nearest to it; then the exit, or what the probe and the listening
/// sockets say.
pub fn diagnose(facts: &Facts) -> Diagnosis {
    let mut found = Diagnosis { log: tail(&facts.log), ..Diagnosis::default() };
    let told = log::explain(&facts.log);
    if let Some(told) = &told {
        found.cause(told.cause.clone());
        found.next(told.next.clone());
    }
    match &facts.state {
        None => found.cause("the instance is gone: somebody removed it"),
        Some(InstanceState::Created) => found.cause("the instance was made, but never started"),
        Some(InstanceState::Exited { exit }) => ended(&mut found, facts, exit, 0),
        Some(InstanceState::Restarting { exit, restarts }) => ended(&mut found, facts, exit, *restarts),
        Some(InstanceState::Running { restarts, .. }) => {
            probed(&mut found, facts);
            if *restarts > 0 {
                found.cause(format!("it runs, but has been started again {restarts} times"));
            }
        }
    }
    found.next(format!("see `cutover logs {} --release {}`", facts.service, facts.release));
    found
}

/// The end of the log; a line that is the same as the one before it is counted, so that a loop does not hide what led to it.
fn tail(log: &[String]) -> Vec<String> {
    let mut lines: Vec<(&String, usize)> = Vec::new();
    for line in log {
        match lines.last_mut() {
            Some((last, times)) if *last == line => *times += 1,
            _ => lines.push((line, 1)),
        }
    }
    let lines = &lines[lines.len().saturating_sub(crate::defaults::LOG_TAIL)..];
    let told = lines
        .iter()
        .map(|(line, times)| if *times == 1 { (*line).clone() } else { format!("{line} ({times} times)") });
    told.collect()
}

fn ended(found: &mut Diagnosis, facts: &Facts, exit: &ExitStatus, restarts: u32) {
    let explained = !found.cause.is_empty();
    // How long it ran is not known of one that ended after its gate.
    let when = if facts.elapsed.is_zero() {
        String::new()
    } else {
        format!(" {} after its start", seconds(facts.elapsed))
    };
    if exit.out_of_memory {
        found.cause(format!("it was ended by the kernel for want of memory{when}"));
        found.next(
            "give it more memory (`mem_limit` or `deploy.resources.limits.memory`), or let it use less",
        );
        return;
    }
    if let Some(error) = &exit.error {
        not_started(found, error);
        return;
    }
    let again = if restarts > 0 { format!(", again and again ({restarts} times)") } else { String::new() };
    found.cause(format!("it {exit}{when}{again}"));
    // A shell, and an engine, tell a signal as 128 and its number.
    let signal =
        exit.signal.or_else(|| exit.code.map(|code| code - 128).filter(|signal| (1..32).contains(signal)));
    match (exit.code, signal) {
        _ if explained => {}
        (Some(0), _) => found.next(
            "it ended without an error: its command must go on running (no `&`, no daemon mode); a job that ends is no service",
        ),
        (Some(126), _) => found.next("its command cannot be executed: look at its rights and its first line"),
        (Some(127), _) => found.next("its command was not found: check `command` and what is in the image or artifact"),
        (_, Some(9)) => found.next("somebody killed it: the kernel for want of memory (see `dmesg`), or a person"),
        (_, Some(4 | 6 | 7 | 8 | 11)) => found.next(
            "it crashed: its own code, a library in it, or one built for another processor; start the same build where a debugger is",
        ),
        _ if facts.log.is_empty() => {
            found.next("it wrote nothing: start its command by hand with the same variables, or let it say more");
        }
        _ => {}
    }
}

/// The runtime could not start it: its own words say why.
fn not_started(found: &mut Diagnosis, error: &str) {
    found.cause(format!("it could not be started: {error}"));
    if let Some(remedy) = remedy_of_start(error) {
        found.next(remedy);
    }
}

/// What helps where a runtime says in these words why it could not start an instance; `None`: the words have to do.
pub fn remedy_of_start(error: &str) -> Option<&'static str> {
    const REMEDIES: [(&[&str], &str); 9] = [
        (
            &["exec format error", "no program of this machine"],
            "build it for this host's processor and system; a script begins with `#!` and its interpreter",
        ),
        (
            &["interpreter"],
            "look at its first line (`#!`) and at what it is linked with: install that on the host, or ship it with the artifact",
        ),
        (&["permission denied", "not executable"], "`chmod +x` it before it is built, shipped or committed"),
        (&["has no command"], "name one: `command:` of the service"),
        (&["its working folder"], "check `working_dir`: it is a folder within the artifact"),
        (
            &["user `"],
            "make that user on the host, or change `user:`; another user than one's own needs root",
        ),
        (
            &["no such file", "not found", "is not there"],
            "its command is not there: check `command` and what is in the image or artifact (a script whose first line names a missing interpreter counts, too)",
        ),
        (
            &["address already in use", "port is already allocated"],
            "something else has the port: stop it, or choose another in `ports`",
        ),
        (&["no space left on device"], "make room on the disk, then deploy again"),
    ];
    let low = error.to_lowercase();
    let fits = |(phrases, _): &&(&[&str], &str)| phrases.iter().any(|phrase| low.contains(phrase));
    REMEDIES.iter().find(fits).map(|(_, remedy)| *remedy)
}

fn probed(found: &mut Diagnosis, facts: &Facts) {
    let tries = format!(" ({} in {})", times(facts.tries), seconds(facts.elapsed));
    let what = facts.check.as_ref().map_or_else(|| "its gate".to_owned(), name);
    match &facts.last {
        Some(Finding::Status { status, body }) => status_found(found, facts, (&what, &tries), *status, body),
        Some(Finding::Refused) => {
            found.cause(format!("{what} was refused: nobody listens there{tries}"));
            listening::explain(found, facts);
        }
        Some(Finding::NoAnswer) => {
            if listening::explain(found, facts) {
                found.cause(format!("{what} got no answer{tries}"));
            } else {
                found.cause(format!("{what} got no answer in time, though something listens there{tries}"));
                found.next(
                    "it takes connections but does not answer: it may hang at its start (waiting for a database?), or need a longer `timeout`",
                );
            }
        }
        Some(Finding::Body { detail }) => {
            found.cause(format!("{what} answered, but not as expected: {detail}{tries}"));
            found.next("let the app say so there, or mend `health: { json: … }`");
        }
        Some(Finding::Exit { code, output }) => {
            let said = first_line(output).map(|line| format!(": {line}")).unwrap_or_default();
            found.cause(format!("{what} exited with code {code}{said}{tries}"));
            found.next(match code {
                126 | 127 => "the command is not in the instance, or may not be run there: put it into the image or artifact, or ask over HTTP (`health: { path: … }`)",
                _ => "the command runs in the instance and has to exit with 0: mend what it finds, or the command",
            });
        }
        Some(Finding::NotYet) => not_yet(found, facts, &what),
        Some(Finding::Other { detail }) => found.cause(format!("{what}: {detail}{tries}")),
        None => {
            found.cause(format!("{what} did not pass within {}", seconds(facts.elapsed)));
            listening::explain(found, facts);
        }
    }
}

fn status_found(found: &mut Diagnosis, facts: &Facts, (what, tries): (&str, &str), status: u16, body: &str) {
    let said = first_line(body).map(|line| format!(": {line}")).unwrap_or_default();
    found.cause(format!("{what} answered {status}{tries}{said}"));
    let path = match &facts.check {
        Some(Check::Http { path, .. }) => path.as_str(),
        _ => "/",
    };
    if log::refuses_host(status, body) || facts.log.iter().any(|line| log::refuses_host(status, line)) {
        let host = match &facts.check {
            Some(Check::Http { host: Some(host), .. }) => format!("`{host}`"),
            _ => "its address".to_owned(),
        };
        found.cause.insert(0, format!("it refuses the Host header {host}"));
        found.next(format!(
            "allow the host in the app (ALLOWED_HOSTS, trusted or allowed hosts), or set `health: {{ host: … }}` to one it allows; sent was {host}"
        ));
        return;
    }
    match status {
        301 | 302 | 303 | 307 | 308 => found.next(format!(
            "`{path}` redirects; name a path that answers by itself, or accept it with `health: {{ status: 200-399 }}`"
        )),
        401 | 403 => found.next(format!("`{path}` wants credentials; name a health path that is open")),
        404 => found.next(format!("there is no `{path}` in the app: set `health: {{ path: … }}` to one that is")),
        500..=599 => found.next(format!("`{path}` fails in the app itself: mend what its log says")),
        _ => found.next(format!("let `{path}` answer 200, or accept it: `health: {{ status: {status} }}`")),
    }
}

fn not_yet(found: &mut Diagnosis, facts: &Facts, what: &str) {
    let waited = seconds(facts.elapsed);
    match &facts.check {
        Some(Check::Log { text }) => {
            found.cause(format!("no line with `{text}` in its log within {waited}"));
            found.next("check the text of `ready: { log: … }`, and that the app does not keep its output in a buffer (PYTHONUNBUFFERED=1)");
        }
        Some(Check::File { path }) => found.cause(format!("the file {path} did not appear within {waited}")),
        Some(Check::Steady { duration }) => {
            found.cause(format!("it was not up for {} without a break within {waited}", seconds(*duration)));
        }
        _ => found.cause(format!("{what} did not pass within {waited}")),
    }
}

/// A check as people read it.
fn name(check: &Check) -> String {
    match check {
        Check::Http { path, .. } => format!("GET {path}"),
        Check::Tcp { port: Some(port), .. } => format!("a connection to port {port}"),
        Check::Tcp { port: None, .. } => "a connection to its port".to_owned(),
        Check::Command { words } => format!("the command `{}`", words.join(" ")),
        Check::Log { text } => format!("a log line with `{text}`"),
        Check::File { path } => format!("the file {path}"),
        Check::Container => "the container's HEALTHCHECK".to_owned(),
        Check::Steady { .. } => "being up without a break".to_owned(),
    }
}

fn first_line(text: &str) -> Option<&str> {
    text.lines().map(str::trim).find(|line| !line.is_empty())
}

/// A number of tries, in words.
pub fn times(tries: u32) -> String {
    if tries == 1 { "1 try".to_owned() } else { format!("{tries} tries") }
}

fn seconds(duration: Duration) -> String {
    let tenths = (duration.as_millis() + 50) / 100;
    if tenths < 100 && !tenths.is_multiple_of(10) {
        format!("{}.{}s", tenths / 10, tenths % 10)
    } else {
        format!("{}s", tenths / 10)
    }
}

#[cfg(test)]
mod tests;

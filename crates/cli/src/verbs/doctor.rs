//! `doctor`: what is needed here and there, line by line, each that is not well with its remedy. It changes nothing, and works where there is
//! no `cutover-host` at all.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use cutover_core::config::Selection;
use cutover_core::config::settings::{BuildPlace, Config, Source};
use cutover_core::defaults::DISK_FREE;
use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::variables;
use cutover_core::wire::{FoundFolder, HostFacts, PortHolder, TableFile};
use cutover_engine::Engine;
use serde::Serialize;

use super::diff::facts;
use super::{Desk, Ended};
use crate::hosts::{self, Channel, Target};
use crate::render::{self, Line, size};
use crate::sources::{Identity, Project};

/// A clock that is off by more is told.
const CLOCK: jiff::SignedDuration = jiff::SignedDuration::from_secs(5);
/// For a name to be looked up.
const LOOK_UP: Duration = Duration::from_secs(5);
/// Fewer free files in a hundred are told.
const INODES_LEFT: u64 = 5;

/// How one thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Level {
    Ok,
    Warning,
    Problem,
}

/// One thing that is needed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// `here`, or the host.
    pub(crate) place: String,
    pub(crate) level: Level,
    pub(crate) what: String,
    /// What helps, where it is not well.
    pub(crate) remedy: Option<String>,
}

/// What was found so far at one place.
struct Findings {
    place: String,
    all: Vec<Finding>,
}

impl Findings {
    fn at(place: impl Into<String>) -> Self {
        Self { place: place.into(), all: Vec::new() }
    }

    fn add(&mut self, level: Level, what: impl Into<String>, remedy: Option<String>) {
        self.all.push(Finding { place: self.place.clone(), level, what: what.into(), remedy });
    }

    fn ok(&mut self, what: impl Into<String>) {
        self.add(Level::Ok, what, None);
    }

    fn warning(&mut self, what: impl Into<String>, remedy: impl Into<String>) {
        self.add(Level::Warning, what, Some(remedy.into()));
    }

    fn problem(&mut self, what: impl Into<String>, remedy: impl Into<String>) {
        self.add(Level::Problem, what, Some(remedy.into()));
    }

    fn failure(&mut self, failure: &Failure) {
        let because = failure.cause.first().map(|cause| format!(": {cause}")).unwrap_or_default();
        self.add(Level::Problem, format!("{}{because}", failure.what), failure.next.first().cloned());
    }
}

/// Exits with 1 where there is a problem.
pub(super) async fn doctor(desk: &Desk) -> Ended {
    let mut here = Findings::at("here");
    program(&mut here, "git", "git", "install git: without it a release is named by its content");
    let (identity, config) = configuration(desk, &mut here);
    if config.as_ref().is_some_and(builds) {
        engine_here(&mut here).await;
    }
    let mut all = here.all;
    if let Some(identity) = identity {
        if let Target::Server(_) = identity.target {
            let ssh = std::env::var(variables::SSH).ok().filter(|named| !named.is_empty());
            let mut here = Findings::at("here");
            program(&mut here, "ssh", ssh.as_deref().unwrap_or("ssh"), "install the OpenSSH client");
            all.extend(here.all);
        }
        all.extend(there(&identity, config.as_ref()).await);
    }
    for finding in &all {
        desk.output.answer(&Line::Finding { finding }, || render::finding(finding))?;
    }
    let problems = all.iter().filter(|finding| finding.level == Level::Problem).count();
    Ok(if problems == 0 { Exit::Done } else { Exit::Failed }.code())
}

fn program(here: &mut Findings, name: &str, program: &str, remedy: &str) {
    let word = if name == "ssh" { "-V" } else { "--version" };
    match std::process::Command::new(program).arg(word).stdin(std::process::Stdio::null()).output() {
        Ok(output) if output.status.success() => {
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said).lines().next().unwrap_or_default().trim().to_owned();
            here.ok(if said.is_empty() { name.to_owned() } else { said });
        }
        Ok(output) => here.problem(format!("{program} ends with {}", output.status), remedy),
        Err(error) => here.problem(format!("{program}: {error}"), remedy),
    }
}

/// What cutover.yml says, and all that is wrong with it.
fn configuration(desk: &Desk, here: &mut Findings) -> (Option<Identity>, Option<Config>) {
    let project = match Project::open(&desk.place) {
        Ok(project) => project,
        Err(failure) => {
            here.failure(&failure);
            return (None, None);
        }
    };
    let selection = Selection { environment: desk.place.environment.clone(), ..Selection::default() };
    let config = match project.config(&selection) {
        Ok(config) => {
            here.ok(format!("{} is good", project.file));
            Some(config)
        }
        Err(problems) => {
            for problem in &problems.problems {
                let place = format!("{}:{}:{}", problem.file, problem.line, problem.column);
                here.problem(format!("{place}: {}", problem.what), "`cutover check` shows it in its place");
            }
            None
        }
    };
    (project.identity(&desk.place).ok(), config)
}

/// Whether an image is built here.
fn builds(config: &Config) -> bool {
    let is_here =
        |source: &Source| matches!(source, Source::Build(settings) if settings.on == BuildPlace::Here);
    config.parts().any(|(_, source, _)| is_here(source))
}

async fn engine_here(here: &mut Findings) {
    match Engine::connect().await {
        Ok(engine) => here.ok(format!("container engine at {}", engine.address())),
        Err(error) => here
            .problem(format!("`build:` needs a container engine: {error}"), "start one, or set DOCKER_HOST"),
    }
}

async fn there(identity: &Identity, config: Option<&Config>) -> Vec<Finding> {
    let mut there = Findings::at(identity.target.shown());
    let mut host = match hosts::open(&identity.target).await {
        Ok(host) => host,
        Err(error) => {
            there.failure(&error.failure());
            return there.all;
        }
    };
    conversation(&mut there, &host, identity);
    let facts = match facts(&mut host, &identity.id).await {
        Ok(facts) => facts,
        Err(stop) => {
            if let Some(failure) = stop.failure() {
                there.failure(&failure);
            }
            return there.all;
        }
    };
    machine(&mut there, &facts, config);
    if let Some(config) = config {
        names(&mut there, config, &facts, &identity.target).await;
    }
    there.all
}

fn conversation(there: &mut Findings, host: &Channel, identity: &Identity) {
    let greeting = host.greeting();
    let ours = env!("CARGO_PKG_VERSION");
    if greeting.package == ours {
        there.ok(format!("cutover-host {ours}, {}", greeting.platform));
    } else {
        let upgrade = format!("`cutover upgrade {}`", identity.id.environment);
        there.warning(format!("cutover-host is {}, cutover is {ours}", greeting.package), upgrade);
    }
    let apart = greeting.ahead.unsigned_abs().as_secs();
    if greeting.ahead.abs() > CLOCK {
        there.warning(
            format!("its clock and ours are {apart} s apart"),
            "set up time synchronisation; nothing depends on equal clocks, but log lines and history are hard to read",
        );
    } else {
        there.ok("its clock is right");
    }
}

fn machine(there: &mut Findings, facts: &HostFacts, config: Option<&Config>) {
    if !facts.system.is_empty() {
        there.ok(facts.system.clone());
    }
    facts.folders.iter().for_each(|found| folder(there, found));
    for file in &facts.open_files {
        let remedy =
            format!("`chmod 600 {}` on the host; consider its secrets known and change them", file.path);
        there.problem(format!("{} can be read by others (mode {:04o})", file.path, file.mode), remedy);
    }
    engine_there(there, facts, config);
    if let Some(trouble) = &facts.host_file_trouble {
        there.problem(trouble.clone(), "mend the host's host.yml, or CUTOVER_HTTP");
    }
    for port in &facts.ports {
        match &port.by {
            PortHolder::Ours => there.ok(format!("our proxy listens on {}", port.address)),
            PortHolder::Nobody => there.ok(format!("{} is free for the proxy", port.address)),
            PortHolder::Other { name } => there.problem(
                format!("{} is taken by {}", port.address, name.as_deref().unwrap_or("another process")),
                "stop it or move it, or stand behind it: `http: 127.0.0.1:8080` in host.yml",
            ),
        }
    }
    match (facts.proxy, facts.supervised) {
        (true, true) => there.ok("proxy and watch are seen to"),
        (true, false) => there.warning(
            "the proxy runs, and nothing starts it again",
            "`cutover-host up`, or the units that `cutover setup` makes",
        ),
        (false, _) => {
            there.warning("no proxy answers", "the first deploy starts it; `cutover-host up` does so now");
        }
    }
    if facts.table_file == TableFile::Other {
        there
            .warning("the route table on the disk is not the one that is served", "`cutover diff` says more");
    }
    if facts.firewall_gone {
        there.problem(
            "the firewall that setup loaded is gone: something threw away all rules (`nft flush ruleset`)",
            "`systemctl restart cutover-firewall` on the host, or `cutover setup`",
        );
    }
    if facts.lingers == Some(false) {
        there.warning("what this user runs ends with its login", "`loginctl enable-linger` as root");
    }
}

fn folder(there: &mut Findings, found: &FoundFolder) {
    let FoundFolder { what, path, mode, free, inodes_free, inodes, size: all } = found;
    if mode.is_some_and(|mode| what == "state" && mode & 0o022 != 0) {
        there.problem(format!("others may write to {path}"), format!("`chmod 700 {path}` on the host"));
    }
    let few_files = *inodes > 0 && inodes_free.saturating_mul(100) < inodes.saturating_mul(INODES_LEFT);
    let text = format!("{what}: {} of {} free at {path}", size(*free), size(*all));
    if *free < DISK_FREE {
        there.problem(text, "make room: `cutover prune`, `docker image prune`");
    } else if few_files {
        there.problem(
            format!("{what}: hardly any file can be made at {path} (inodes)"),
            "remove many small files there",
        );
    } else {
        there.ok(text);
    }
}

fn engine_there(there: &mut Findings, facts: &HostFacts, config: Option<&Config>) {
    let needed = config.is_some_and(|config| {
        config.parts().any(|(_, source, _)| !matches!(source, Source::Artifact { .. }))
    });
    match (&facts.engine, &facts.engine_trouble) {
        (Some(engine), _) => {
            let text = format!("{} {} ({})", engine.name, engine.version, engine.storage_driver);
            if engine.storage_driver == "vfs" {
                there.warning(text, "the storage driver vfs copies whole images: let its data lie on a file system with overlay2");
            } else if engine.limits_memory {
                there.ok(text);
            } else {
                there.warning(
                    format!("{text} does not honour memory limits"),
                    "switch the memory controller of control groups on",
                );
            }
        }
        (None, Some(trouble)) if needed => {
            there.problem(
                format!("no container engine answers: {trouble}"),
                "start it (`systemctl start docker`), or `cutover setup`",
            );
        }
        (None, _) => there.ok("no container engine, and none is needed"),
    }
}

/// Whether the names of the routes lead to the host.
async fn names(there: &mut Findings, config: &Config, facts: &HostFacts, target: &Target) {
    let mut ours: BTreeSet<IpAddr> = facts.addresses.iter().copied().collect();
    match target {
        Target::Here => {
            ours.extend(["127.0.0.1", "::1"].iter().filter_map(|text| text.parse::<IpAddr>().ok()));
        }
        Target::Server(server) => ours.extend(look_up(server.name.address()).await),
    }
    let routes = config.services.values().filter_map(|service| service.route.as_ref());
    let names: BTreeSet<&String> = routes.flat_map(|route| &route.hosts).collect();
    for name in names.into_iter().filter(|name| !name.ends_with("localhost") && !name.contains('*')) {
        let found = look_up(name).await;
        let shown: Vec<String> = found.iter().map(ToString::to_string).collect();
        if found.is_empty() {
            there.warning(format!("{name} is not known to DNS"), format!("let it lead to {}", list(&ours)));
        } else if found.iter().any(|address| ours.contains(address)) {
            there.ok(format!("{name} leads to it"));
        } else {
            there.warning(
                format!("{name} leads to {}, which is not this host", shown.join(", ")),
                format!("let it lead to {}, unless something stands before it", list(&ours)),
            );
        }
    }
}

fn list(addresses: &BTreeSet<IpAddr>) -> String {
    addresses
        .iter()
        .filter(|one| !one.is_loopback())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(" or ")
}

async fn look_up(name: &str) -> BTreeSet<IpAddr> {
    let found = tokio::time::timeout(LOOK_UP, tokio::net::lookup_host((name, 80))).await;
    found.ok().and_then(Result::ok).into_iter().flatten().map(|address| address.ip()).collect()
}

#[cfg(test)]
mod tests {
    use cutover_core::wire::{EngineFacts, FoundPort, OpenFile};

    use super::*;

    #[test]
    fn what_is_not_well_is_told_with_its_remedy() {
        let folder = |what: &str, free, inodes_free| FoundFolder {
            what: what.to_owned(),
            path: format!("/srv/{what}"),
            mode: Some(0o700),
            free,
            size: 40 << 30,
            inodes_free,
            inodes: 1_000,
        };
        let facts = HostFacts {
            system: "Debian GNU/Linux 12 (bookworm)".to_owned(),
            folders: vec![folder("state", 1 << 20, 900), folder("logs", 8 << 30, 10)],
            open_files: vec![OpenFile { path: "/srv/env".to_owned(), mode: 0o644 }],
            engine: Some(EngineFacts {
                name: "Docker".to_owned(),
                version: "20.10.24".to_owned(),
                storage_driver: "vfs".to_owned(),
                limits_memory: true,
            }),
            ports: vec![FoundPort {
                address: "0.0.0.0:80".parse().unwrap(),
                by: PortHolder::Other { name: Some("nginx (process 812)".to_owned()) },
            }],
            firewall_gone: true,
            ..HostFacts::default()
        };
        let mut there = Findings::at("shop.example.com");
        machine(&mut there, &facts, None);
        let told: Vec<String> =
            there.all.iter().map(|finding| render::plain(&render::finding(finding))).collect();
        insta::assert_snapshot!(told.join("\n"));
    }
}

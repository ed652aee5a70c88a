//! What must fit together: routes, dependencies, references, databases.

use std::collections::{BTreeMap, BTreeSet};

use super::problem::{Draft, Issues, ProblemKind};
use super::read::At;
use super::settings::{Config, DatabaseEngine, Mount, PublishedPort, Source};
use super::tree::Span;
use crate::names::{DatabaseName, ServiceName};
use crate::template::Template;
use crate::variables::given::PORT;

/// Adds the problems that only the whole shows.
pub(crate) fn check(config: &Config, root: &At<'_>, issues: &mut Issues) {
    routes_alike(config, root, issues);
    ports_alike(config, root, issues);
    cycle(config, root, issues);
    told_port(config, root, issues);
    references(config, root, issues);
    let mut files: BTreeMap<(&str, &str), &DatabaseName> = BTreeMap::new();
    for (name, database) in &config.databases {
        if let DatabaseEngine::Sqlite { volume, services, file } = &database.engine {
            if let Some(other) = files.insert((volume.as_str(), file), name) {
                let (span, path) = place(root, "databases", name.as_str(), "file");
                let what = format!("databases `{other}` and `{name}` are the same file");
                let draft = Draft::new(ProblemKind::Conflict, span, &path, what);
                issues.add(draft.also(place(root, "databases", other.as_str(), "file").0));
            }
            let group = Group { name, volume: volume.as_str(), services };
            reach_the_file(config, &group, root, issues);
        }
    }
}

fn member<'n>(root: &At<'n>, section: &str, name: &str) -> Option<At<'n>> {
    root.get(section)?.get(name)
}

fn place(root: &At<'_>, section: &str, name: &str, key: &str) -> (Span, String) {
    match member(root, section, name) {
        Some(at) => (at.place(key), format!("{}.{key}", at.path)),
        None => (root.node.span, section.to_owned()),
    }
}

fn routes_alike(config: &Config, root: &At<'_>, issues: &mut Issues) {
    let mut seen: BTreeMap<(String, String), &ServiceName> = BTreeMap::new();
    for (name, service) in &config.services {
        let Some(route) = &service.route else { continue };
        let every = [String::new()];
        let hosts = if route.hosts.is_empty() { &every[..] } else { &route.hosts[..] };
        for host in hosts {
            let Some(other) = seen.insert((host.clone(), route.path.clone()), name) else { continue };
            let (mut first, mut second) = (
                (other, place(root, "services", other.as_str(), "route").0),
                (name, place(root, "services", name.as_str(), "route").0),
            );
            if (second.1.file, second.1.start) < (first.1.file, first.1.start) {
                std::mem::swap(&mut first, &mut second);
            }
            let shown = if host.is_empty() { "every host".to_owned() } else { format!("`{host}`") };
            let what = format!(
                "services `{}` and `{}` have the same route: {shown}, path `{}`",
                first.0, second.0, route.path
            );
            let draft =
                Draft::new(ProblemKind::Conflict, second.1, &format!("services.{}.route", second.0), what);
            issues.add(draft.also(first.1).remedy("give one of them another `host` or `path`"));
        }
    }
}

fn ports_alike(config: &Config, root: &At<'_>, issues: &mut Issues) {
    let services = config.services.iter().map(|(name, service)| ("services", name, &service.run));
    let backing = config.backing.iter().map(|(name, backing)| ("backing", name, &backing.run));
    let mut seen: Vec<(&PublishedPort, &str, &ServiceName)> = Vec::new();
    for (section, name, run) in services.chain(backing) {
        for port in &run.ports {
            if let Some((_, section_of, other)) = seen.iter().find(|(known, ..)| collide(known, port)) {
                let (span, path) = place(root, section, name.as_str(), "ports");
                let what = format!("port {} of the host is published by `{other}` already", port.host);
                let draft = Draft::new(ProblemKind::Conflict, span, &path, what);
                let first = place(root, section_of, other.as_str(), "ports").0;
                issues.add(draft.also(first).remedy("take another port of the host"));
            }
            seen.push((port, section, name));
        }
    }
    for (name, service) in &config.services {
        // Old and new run side by side, and one port has one owner.
        if service.strategy == super::settings::Strategy::BlueGreen && !service.run.ports.is_empty() {
            let (span, path) = place(root, "services", name.as_str(), "ports");
            let what = "a published port has one owner, and with `blue-green` old and new run side by side";
            let draft = Draft::new(ProblemKind::Conflict, span, &path, what);
            issues.add(draft.remedy("reach it by `route`, or use `strategy: handover`"));
        }
    }
}

/// Whether two published ports cannot be had together.
fn collide(one: &PublishedPort, other: &PublishedPort) -> bool {
    let addresses =
        one.address == other.address || one.address.is_unspecified() || other.address.is_unspecified();
    addresses && one.host == other.host && one.udp == other.udp
}

/// `PORT` is cutover's to tell: an app that reads another number from it listens where nobody looks.
fn told_port(config: &Config, root: &At<'_>, issues: &mut Issues) {
    for (name, service) in &config.services {
        let mut given = service.run.environment.iter().filter(|(variable, _)| variable.as_str() == PORT);
        let Some(text) = given.find_map(|(_, template)| template.as_text()) else { continue };
        let port = service.port.map(|port| port.to_string());
        if port.as_deref() == Some(text) {
            continue;
        }
        let (span, path) = variable_place(root, "services", name, PORT);
        let what = format!("`{PORT}` is told by cutover, and `{name}` is not to listen on {text}");
        let draft = Draft::new(ProblemKind::Conflict, span, &path, what);
        let process = matches!(service.source, Source::Artifact { .. });
        issues.add(draft.remedy(if process {
            "take it away: a plain process is told a free port".to_owned()
        } else {
            format!("take it away, and say `port: {text}` in `services.{name}`")
        }));
    }
}

fn cycle(config: &Config, root: &At<'_>, issues: &mut Issues) {
    let mut done: BTreeSet<&ServiceName> = BTreeSet::new();
    for name in config.services.keys() {
        let mut trail: Vec<&ServiceName> = Vec::new();
        if let Some(cycle) = walk(name, config, &mut trail, &mut done) {
            let shown = cycle.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(" → ");
            let (span, path) = place(root, "services", cycle[0].as_str(), "depends_on");
            let what = format!("`depends_on` goes in a circle: {shown}");
            issues.add(
                Draft::new(ProblemKind::Conflict, span, &path, what)
                    .remedy("take one of these dependencies away"),
            );
        }
    }
}

/// The circle that begins and ends with the same service, if this one leads into it.
fn walk<'c>(
    name: &'c ServiceName,
    config: &'c Config,
    trail: &mut Vec<&'c ServiceName>,
    done: &mut BTreeSet<&'c ServiceName>,
) -> Option<Vec<&'c ServiceName>> {
    if let Some(at) = trail.iter().position(|known| *known == name) {
        let mut circle = trail[at..].to_vec();
        circle.push(name);
        return Some(circle);
    }
    let service = config.services.get(name).filter(|_| !done.contains(name))?;
    trail.push(name);
    let found = service.run.depends_on.keys().find_map(|next| walk(next, config, trail, done));
    trail.pop();
    done.insert(name);
    found
}

/// `${services.X.url}` and `${databases.X.file}` name what is there.
fn references(config: &Config, root: &At<'_>, issues: &mut Issues) {
    for (name, service) in &config.services {
        let at = |key: &str| place(root, "services", name.as_str(), key);
        for (variable, template) in &service.run.environment {
            let (span, path) = variable_place(root, "services", name, variable.as_str());
            template_names(config, template, span, &path, issues);
        }
        for (key, words) in [("command", &service.run.command), ("entrypoint", &service.run.entrypoint)] {
            let (span, path) = at(key);
            words.iter().flatten().for_each(|word| template_names(config, word, span, &path, issues));
        }
    }
    for (name, backing) in &config.backing {
        for (variable, template) in &backing.run.environment {
            let (span, path) = variable_place(root, "backing", name, variable.as_str());
            if let Some(service) =
                template.services().into_iter().find(|name| !config.backing.contains_key(name))
            {
                let what = format!("a backing service outlives releases, and `{service}` belongs to one");
                issues.add(Draft::new(ProblemKind::Reference, span, &path, what));
            }
            template_names(config, template, span, &path, issues);
        }
    }
    for (name, database) in &config.databases {
        let (span, path) = place(root, "databases", name.as_str(), "migrate");
        let told = database.migrate.iter().filter_map(|migrate| config.one_offs.get(&migrate.service));
        let told =
            told.flat_map(|own| own.run.environment.values().chain(own.run.entrypoint.iter().flatten()));
        let words = database
            .migrate
            .iter()
            .flat_map(|migrate| migrate.command.iter().chain(migrate.pending.iter().flatten()));
        words.chain(told).for_each(|word| template_names(config, word, span, &path, issues));
    }
}

/// Where a variable is written: in the service, or for all of them.
fn variable_place(root: &At<'_>, section: &str, name: &ServiceName, variable: &str) -> (Span, String) {
    let own = member(root, section, name.as_str()).and_then(|at| at.get("environment"));
    let shared = root.get("environment");
    let at = own.into_iter().chain(shared).find(|at| at.node.get(variable).is_some());
    match at {
        Some(at) => {
            (at.node.get(variable).map_or(at.node.span, |node| node.span), format!("{}.{variable}", at.path))
        }
        None => place(root, section, name.as_str(), "environment"),
    }
}

fn template_names(config: &Config, template: &Template, span: Span, path: &str, issues: &mut Issues) {
    for name in template.services() {
        let service = config.services.get(name).map(|service| (&service.source, service.port));
        let backing = || config.backing.get(name).map(|backing| (&backing.source, backing.port));
        let what = match service.or_else(backing) {
            // A plain process is told its port when it has none of its own.
            Some((Source::Artifact { .. }, _) | (_, Some(_))) => continue,
            Some(_) => format!("service `{name}` has no port, so it has no address"),
            None => format!("there is no service `{name}`"),
        };
        let draft = Draft::new(ProblemKind::Reference, span, path, what);
        issues.add(draft.near(name.as_str(), config.services.keys().map(ServiceName::as_str)));
    }
    for name in template.databases() {
        let what = match config.databases.get(name).map(|database| &database.engine) {
            Some(DatabaseEngine::Sqlite { .. }) => continue,
            Some(DatabaseEngine::Server { .. }) => format!("database `{name}` is not a file"),
            None => format!("there is no database `{name}`"),
        };
        let draft = Draft::new(ProblemKind::Reference, span, path, what);
        issues.add(draft.near(name.as_str(), config.databases.keys().map(DatabaseName::as_str)));
    }
}

fn is_writable(mount: &Mount, name: &str) -> bool {
    matches!(mount, Mount::Volume { volume, read_only: false, .. } if volume.as_str() == name)
}

struct Group<'c> {
    name: &'c DatabaseName,
    volume: &'c str,
    services: &'c [ServiceName],
}

/// Every service of a group must see the file, and all of them by the same means.
fn reach_the_file(config: &Config, group: &Group<'_>, root: &At<'_>, issues: &mut Issues) {
    let (span, path) = place(root, "databases", group.name.as_str(), "services");
    let migrating = config.databases.get(group.name).into_iter().flat_map(|database| &database.migrate);
    let opening: BTreeSet<&ServiceName> =
        group.services.iter().chain(migrating.map(|migrate| &migrate.service)).collect();
    let mut processes = 0;
    for name in &opening {
        let Some(service) = config.services.get(*name) else { continue };
        if matches!(service.source, Source::Artifact { .. }) {
            processes += 1;
            continue;
        }
        let mounted = service.run.mounts.iter().any(|mount| is_writable(mount, group.volume));
        if !mounted {
            let what = format!(
                "service `{name}` does not mount volume `{}`, where database `{}` lies",
                group.volume, group.name
            );
            let draft = Draft::new(ProblemKind::Missing, span, &path, what);
            issues.add(draft.remedy(format!("in `services.{name}`: `volumes: [{}:/data]`", group.volume)));
        }
    }
    if processes > 0 && processes < opening.len() {
        let what = format!(
            "database `{}` is opened by plain processes and by containers, and they share no files",
            group.name
        );
        issues.add(Draft::new(ProblemKind::Conflict, span, &path, what));
    }
    if config.hosts.len() > 1 {
        let what = format!("SQLite database `{}` lies on one host, and there are several", group.name);
        issues
            .add(Draft::new(ProblemKind::Refused, span, &path, what).remedy("use a database with a server"));
    }
    for (name, service) in config.services.iter().filter(|(name, _)| !opening.contains(name)) {
        if service.run.mounts.iter().any(|mount| is_writable(mount, group.volume)) {
            issues.note(format!(
                "service `{name}` mounts volume `{}`, where database `{}` lies: if it opens the file, name it in `{path}`",
                group.volume, group.name
            ));
        }
        let uses = service.run.environment.values().any(|template| template.databases().contains(group.name));
        if uses && !group.services.contains(name) {
            let what = format!(
                "service `{name}` uses the file of database `{}`, and is not among its services",
                group.name
            );
            let draft = Draft::new(ProblemKind::Conflict, span, &path, what);
            issues.add(draft.remedy("name it there: all that open the file are handed over together"));
        }
    }
}

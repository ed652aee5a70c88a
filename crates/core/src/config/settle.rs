//! From sources and selection to a settled configuration: the order of the steps, and the sections that are not worth a file.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::check::{When, check};
use super::environment::{self, LOCAL};
use super::fill::{Known, fill};
use super::keys::{ENVIRONMENT, ROOT};
use super::problem::{Draft, Issues, ProblemKind, Problems};
use super::read::At;
use super::run::Context;
use super::settings::{Backing, Config, Database, Registry, Service, Volume};
use super::shape::Shape;
use super::tree::{self, Node, Span, Value};
use super::{backing, backup, compose, cross, database, demand, service, value};
use crate::defaults;
use crate::names::{
    AppId, AppName, DatabaseName, EnvironmentName, HostName, ServiceName, VariableName, VolumeName,
};
use crate::setup::{Item, SetupSettings};
use crate::template::Template;

/// The texts a configuration is made from.
#[derive(Debug, Clone, Default)]
pub struct Sources<'a> {
    /// The path of cutover.yml, as it is shown.
    pub file: &'a str,
    /// Its text.
    pub text: &'a str,
    /// Texts of the files that [`compose_files`] names, by path; what cannot be read is absent.
    pub compose: BTreeMap<String, String>,
    /// Texts of the files that [`env_files`] names, by path. Their names are taken, their values stay outside.
    pub env_files: BTreeMap<String, String>,
}

/// What the command line adds.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// `-e`.
    pub environment: Option<EnvironmentName>,
    /// `-v NAME=value`.
    pub set: BTreeMap<VariableName, String>,
    /// cutover's own public variables: `CUTOVER_COMMIT`, `CUTOVER_VERSION`.
    pub builtins: BTreeMap<VariableName, String>,
    /// Names for which secret values exist elsewhere: for better messages.
    pub provided: BTreeSet<VariableName>,
}

/// Reads a configuration for one environment.
///
/// # Errors
/// All problems at once.
pub fn parse(sources: &Sources<'_>, selection: &Selection) -> Result<Config, Problems> {
    let mut issues = Issues::default();
    let mut files = vec![(sources.file.to_owned(), sources.text.to_owned())];
    let settled = settle(sources, selection, &mut files, &mut issues);
    match settled {
        Some(mut config) if issues.is_clean() => {
            config.notes = issues.into_notes();
            Ok(config)
        }
        _ => Err(issues.finish(&files)),
    }
}

/// The environments of a file, in its order; `local` is always among them.
///
/// # Errors
/// When it is not YAML.
pub fn environments(text: &str) -> Result<Vec<EnvironmentName>, Problems> {
    let mut issues = Issues::default();
    let root = tree::read(text, 0, &mut issues);
    match (root, issues.is_clean()) {
        (Some(root), true) => Ok(environment::names(&root)),
        (None, true) => Ok(LOCAL.parse().into_iter().collect()),
        (_, false) => Err(issues.finish(&[("cutover.yml".to_owned(), text.to_owned())])),
    }
}

/// The Compose files a file names, so that they can be read first; of broken text none.
pub fn compose_files(text: &str) -> Vec<String> {
    let root = tree::read(text, 0, &mut Issues::default());
    root.as_ref().map(|root| At::new(root, "").texts("compose")).unwrap_or_default()
}

/// The files that `env_file` keys name, in the file and in the Compose files given, so that they can be read first.
pub fn env_files(texts: &[&str]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for text in texts {
        if let Some(root) = tree::read(text, 0, &mut Issues::default()) {
            collect_env_files(&root, &mut found);
        }
    }
    found
}

fn collect_env_files(node: &Node, found: &mut BTreeSet<String>) {
    for (key, value) in node.entries() {
        if key.text == "env_file" {
            for file in At::new(value, "").one_or_more() {
                found.extend(file.text().map(str::to_owned).or_else(|| file.string("path")));
            }
        } else {
            collect_env_files(value, found);
        }
    }
}

const EXAMPLE: &str = "write a first one:\napp: my-app\nservices:\n  web: { build: ., port: 8000, route: { host: example.com } }\nenvironments: { production: { hosts: [deploy@example.com] } }";

fn settle(
    sources: &Sources<'_>,
    selection: &Selection,
    files: &mut Vec<(String, String)>,
    issues: &mut Issues,
) -> Option<Config> {
    let Some(mut root) = tree::read(sources.text, 0, issues) else {
        if issues.is_clean() {
            let span = Span { line: 1, column: 1, ..Span::default() };
            issues.add(Draft::new(ProblemKind::Missing, span, "", "the file is empty").remedy(EXAMPLE));
        }
        return None;
    };
    if !matches!(root.value, Value::Map(_)) {
        let what = format!("expected a map of keys, found {}", root.found());
        issues.add(Draft::new(ProblemKind::Type, root.span, "", what).remedy(EXAMPLE));
        return None;
    }
    check(&root, &ROOT, "", When::Before, issues);
    root = compose::take(root, sources, files, issues);
    let name = environment::choose(&root, selection, issues)?;
    // Problems of other environments are problems of the file; notes about them are noise here.
    let others = environment::names(&root).into_iter().filter(|other| *other != name);
    issues.forget_notes(&others.map(|other| format!("environments.{other}")).collect::<Vec<_>>());
    let app = app_name(&root, issues);
    environment::name_pairs(&mut root);
    environment::lay_over(&mut root, &name, issues);
    let app_text = app.as_ref().map_or("app", AppName::as_str);
    let known = environment::known(&root, app_text, &name, selection);
    if name.as_str() == LOCAL {
        environment::local_routes(&mut root, app_text, &known);
    }
    fill_all(&mut root, &name, &known, issues);
    read(&root, app, name, &known, sources, selection, issues)
}

/// Fills the file and checks again what was filled. Of `environments` only the part that is meant, and of it what was not laid over.
fn fill_all(root: &mut Node, name: &EnvironmentName, known: &Known, issues: &mut Issues) {
    let Value::Map(entries) = &mut root.value else { return };
    for (key, node) in entries {
        if key.text == "environments" {
            let Some(meant) = node.get_mut(name.as_str()) else { continue };
            let Value::Map(entries) = &mut meant.value else { continue };
            for (key, node) in entries.iter_mut().filter(|(key, _)| !environment::is_laid_over(&key.text)) {
                let path = format!("environments.{name}.{}", key.text);
                fill_one(&ENVIRONMENT, &key.text, node, &path, known, issues);
            }
        } else if key.text != "app" {
            fill_one(&ROOT, &key.text, node, &key.text, known, issues);
        }
    }
}

fn fill_one(shape: &Shape, key: &str, node: &mut Node, path: &str, known: &Known, issues: &mut Issues) {
    if let Some(found) = shape.keys().find(|known| known.name == key && known.is_usable()) {
        fill(node, &found.shape, path, known, issues);
        check(node, &found.shape, path, When::After, issues);
    }
}

fn app_name(root: &Node, issues: &mut Issues) -> Option<AppName> {
    let at = At::new(root, "");
    let Some(app) = at.get("app") else {
        if root.get("app").is_none() && !issues.has_at("") {
            let draft = Draft::new(
                ProblemKind::Missing,
                Span { end: root.span.start, ..root.span },
                "app",
                "the app has no name",
            );
            issues.add(draft.remedy("begin the file with `app: my-app`"));
        }
        return None;
    };
    let text = app.text()?;
    if text.contains('$') {
        let draft = app
            .problem(ProblemKind::Value, "the app's name is what its state is found by: it stands as it is");
        issues.add(draft.remedy("write the name without references"));
    }
    text.parse().ok()
}

fn read(
    root: &Node,
    app: Option<AppName>,
    environment: EnvironmentName,
    known: &Known,
    sources: &Sources<'_>,
    selection: &Selection,
    issues: &mut Issues,
) -> Option<Config> {
    let at = At::new(root, "");
    let local = environment.as_str() == LOCAL;
    let names = |section: &str| {
        let section = at.get(section);
        section.iter().flat_map(|at| at.entries().map(|(key, ..)| key.to_owned())).collect::<BTreeSet<_>>()
    };
    let mut context = Context {
        issues: std::mem::take(issues),
        known,
        services: names("services"),
        backing: names("backing"),
        env_files: &sources.env_files,
        from_files: BTreeMap::new(),
        volumes: BTreeSet::new(),
        one_offs: BTreeMap::new(),
    };
    let services = services(&at, local, &mut context);
    let backing = all_backing(&at, &mut context);
    let databases = databases(&at, &services, &mut context);
    let volumes = volumes(&at, &mut context);
    let registry = registry(&at, &mut context);
    let backup = backup::backup(&at, &mut context);
    let meant = at.get("environments").and_then(|all| all.get(environment.as_str()));
    let mut config = Config {
        // A placeholder where the name is a problem of its own.
        id: AppId { app: app.or_else(|| "unnamed".parse().ok())?, environment },
        protected: meant.as_ref().and_then(|at| at.flag("protected")).unwrap_or(false),
        hosts: hosts(meant.as_ref(), &mut context),
        setup: meant.as_ref().and_then(|at| at.get("setup")).map(|at| setup(&at)).unwrap_or_default(),
        registry,
        services,
        one_offs: std::mem::take(&mut context.one_offs),
        backing,
        databases,
        volumes,
        backup,
        bake: time(&at, "bake", defaults::BAKE, defaults::BAKE_MOST, &mut context.issues),
        keep_warm: time(&at, "keep_warm", Duration::ZERO, Duration::from_hours(24), &mut context.issues),
        keep: at.parsed("keep").unwrap_or(defaults::KEEP),
        required: BTreeMap::new(),
        generate: BTreeSet::new(),
        variables: known.origins.clone(),
        notes: Vec::new(),
    };
    *issues = context.issues;
    demand::demand(&mut config, selection);
    let backup = config.backup.as_ref();
    if let Some(problem) = backup.and_then(|backup| backup::refuse_key_of_host(backup, &config.generate, &at))
    {
        issues.add(problem);
    }
    if let Some(backup) = backup {
        backup::refuse_unused(backup, &config, &at, issues);
    }
    cross::check(&config, &at, issues);
    demand::unused(&config, root, selection, issues);
    Some(config)
}

/// What is switched off, and what is left open.
fn setup(at: &At<'_>) -> SetupSettings {
    let off = Item::KEYS.into_iter().filter(|(_, key)| at.flag(key) == Some(false));
    let open = at.get("open").map(|open| open.one_or_more()).unwrap_or_default();
    let openings = open.iter().filter_map(|port| value::opening(port.text()?).ok());
    let (udp, tcp): (Vec<_>, Vec<_>) = openings.partition(|(_, udp)| *udp);
    let ports = |openings: Vec<(u16, bool)>| openings.into_iter().map(|(port, _)| port).collect();
    SetupSettings { off: off.map(|(item, _)| item).collect(), open: ports(tcp), open_udp: ports(udp) }
}

fn services(at: &At<'_>, local: bool, context: &mut Context<'_>) -> BTreeMap<ServiceName, Service> {
    let all = at.get("services");
    let mut services = BTreeMap::new();
    for (key, _, member) in all.iter().flat_map(|all| all.entries().collect::<Vec<_>>()) {
        let service = service::service(key, &member, at, local, context);
        services.extend(key.parse().ok().map(|name: ServiceName| (name, service)));
    }
    if all.is_none_or(|all| all.node.entries().is_empty()) && !context.issues.has_at("") {
        let draft =
            Draft::new(ProblemKind::Missing, at.place("services"), "services", "the app has no services");
        context
            .issues
            .add(draft.remedy("services:\n  web: { build: ., port: 8000, route: { host: example.com } }"));
    }
    services
}

fn all_backing(at: &At<'_>, context: &mut Context<'_>) -> BTreeMap<ServiceName, Backing> {
    let mut found = BTreeMap::new();
    let Some(all) = at.get("backing") else { return found };
    if let Some(first) = all.items().next() {
        let draft = first.problem(
            ProblemKind::Missing,
            "a list names services of Compose files, and `compose` names none",
        );
        context.issues.add(draft.remedy("backing:\n  postgres: { image: \"postgres:17\" }"));
    }
    for (key, span, member) in all.entries() {
        if context.services.contains(key) {
            let what = format!("`{key}` is a service and a backing service");
            let draft = Draft::new(ProblemKind::Conflict, span, &member.path, what);
            let other = at.get("services").map(|services| services.place(key));
            context.issues.add(other.map_or(draft.clone(), |other| draft.also(other)));
        }
        let backing = backing::backing(key, &member, context);
        found.extend(key.parse().ok().map(|name: ServiceName| (name, backing)));
    }
    found
}

fn databases(
    at: &At<'_>,
    services: &BTreeMap<ServiceName, Service>,
    context: &mut Context<'_>,
) -> BTreeMap<DatabaseName, Database> {
    let mut found = BTreeMap::new();
    let Some(all) = at.get("databases") else { return found };
    for (key, _, member) in all.entries() {
        let Ok(name) = key.parse::<DatabaseName>() else { continue };
        let database = database::database(&name, &member, at, services, context);
        found.extend(database.map(|database| (name, database)));
    }
    found
}

/// The volumes that are declared, and those that somebody names.
fn volumes(at: &At<'_>, context: &mut Context<'_>) -> BTreeMap<VolumeName, Volume> {
    let mut found: BTreeMap<VolumeName, Volume> =
        context.volumes.iter().map(|name| (name.clone(), Volume { external: None })).collect();
    let Some(all) = at.get("volumes") else { return found };
    for (key, _, member) in all.entries() {
        let Ok(name) = key.parse::<VolumeName>() else { continue };
        let external = member.flag("external") == Some(true);
        let given = member.string("name");
        if given.is_some() && !external {
            let draft = Draft::new(
                ProblemKind::Conflict,
                member.place("name"),
                &member.path,
                "cutover names its own volumes",
            );
            context.issues.add(draft.remedy("`external: true` takes a volume that is made elsewhere"));
        }
        if !context.volumes.contains(&name) {
            let near = context.volumes.iter().map(VolumeName::as_str).collect::<Vec<_>>().join(", ");
            context.issues.note(if near.is_empty() {
                format!("volume `{name}` is declared, and nothing uses it")
            } else {
                format!("volume `{name}` is declared, and nothing uses it; used are: {near}")
            });
        }
        let external = external.then(|| given.unwrap_or_else(|| key.to_owned()));
        found.insert(name, Volume { external });
    }
    found
}

fn registry(at: &At<'_>, context: &mut Context<'_>) -> Option<Registry> {
    let at = at.get("registry")?;
    let Some(server) = at.string("server") else {
        if !context.issues.has_at("registry") {
            let draft = at.problem(ProblemKind::Missing, "a registry needs its `server`");
            context.issues.add(draft.remedy(
                "registry: { server: registry.example.com, username: name, password: \"${REGISTRY_TOKEN}\" }",
            ));
        }
        return None;
    };
    let password = at.get("password").and_then(|at| at.template());
    if let (Some(place), Some(_)) = (at.get("password"), password.as_ref().and_then(Template::as_text)) {
        let draft = place.problem(ProblemKind::Refused, "a password is written in the file");
        let remedy = "put it into the env file, and refer to it: `password: \"${REGISTRY_TOKEN}\"`";
        context.issues.add(draft.remedy(remedy));
    }
    Some(Registry { server, username: at.get("username").and_then(|at| at.template()), password })
}

fn hosts(meant: Option<&At<'_>>, context: &mut Context<'_>) -> Vec<HostName> {
    let Some(at) = meant.and_then(|meant| meant.get("hosts")) else { return Vec::new() };
    let hosts: Vec<HostName> = at.texts_here().iter().filter_map(|host| host.parse().ok()).collect();
    if !hosts.is_empty() && context.known.environment == LOCAL {
        let draft = at.problem(ProblemKind::Conflict, "`local` is this machine, and has no other hosts");
        context.issues.add(draft.remedy("give the environment another name"));
    }
    if hosts.len() > 1 {
        let draft = at.problem(ProblemKind::Refused, "several hosts come later");
        context.issues.add(draft.remedy("name one host; an environment for each host works until then"));
    }
    hosts
}

fn time(at: &At<'_>, key: &str, default: Duration, most: Duration, issues: &mut Issues) -> Duration {
    let Some(given) = at.get(key) else { return default };
    let Some(time) = given.text().and_then(|text| super::value::duration(text).ok()) else { return default };
    service::within(&given, &format!("`{key}`"), time, Duration::ZERO, most, issues);
    time
}

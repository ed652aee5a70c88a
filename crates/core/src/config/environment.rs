//! Which environment is meant, and what it lays over the file.

use std::collections::BTreeMap;

use super::check::below;
use super::fill::Known;
use super::problem::{Draft, Issues, ProblemKind};
use super::read::At;
use super::settings::Origin;
use super::settle::Selection;
use super::tree::{Key, Node, Span, Value};
use super::{merge, routes};
use crate::names::{EnvironmentName, VariableName};
use crate::template::Template;
use crate::variables::given;

/// The environment of this machine.
pub(crate) const LOCAL: &str = "local";

/// The names declared, in order, and `local`.
pub(crate) fn names(root: &Node) -> Vec<EnvironmentName> {
    let declared = root.get("environments").map(Node::entries).unwrap_or_default();
    let mut names: Vec<EnvironmentName> =
        declared.iter().filter_map(|(key, _)| key.text.parse().ok()).collect();
    if let Ok(local) = LOCAL.parse()
        && !names.contains(&local)
    {
        names.push(local);
    }
    names
}

/// The environment that is meant: the named one, or the only one.
pub(crate) fn choose(root: &Node, selection: &Selection, issues: &mut Issues) -> Option<EnvironmentName> {
    let names = names(root);
    let declared: Vec<&EnvironmentName> = names.iter().filter(|name| name.as_str() != LOCAL).collect();
    let span = At::new(root, "").place("environments");
    match (&selection.environment, declared.as_slice()) {
        (Some(wanted), _) if names.contains(wanted) => Some(wanted.clone()),
        (Some(wanted), _) => {
            let what = format!("there is no environment `{wanted}`");
            let draft = Draft::new(ProblemKind::Environment, span, "environments", what);
            issues.add(draft.allowed(wanted.as_str(), names.iter().map(EnvironmentName::as_str)));
            None
        }
        (None, []) => LOCAL.parse().ok(),
        (None, [only]) => Some((*only).clone()),
        (None, _) => {
            let draft = Draft::new(
                ProblemKind::Environment,
                span,
                "environments",
                "there are several environments, and none was named",
            );
            issues.add(
                draft
                    .allowed("", names.iter().map(EnvironmentName::as_str))
                    .remedy("name one: `-e ENVIRONMENT`, or CUTOVER_ENV"),
            );
            None
        }
    }
}

/// The sections that an environment lays over those of the file.
const LAID_OVER: [&str; 5] = ["services", "backing", "databases", "volumes", "backup"];

/// Whether this part of an environment is laid over the file.
pub(crate) fn is_laid_over(section: &str) -> bool {
    LAID_OVER.contains(&section)
}

/// The file as this environment has it; its own section stays where it is.
pub(crate) fn lay_over(root: &mut Node, name: &EnvironmentName, issues: &mut Issues) {
    let over = root.get("environments").and_then(|all| all.get(name.as_str())).cloned();
    let Some(mut over) = over else { return };
    for section in LAID_OVER {
        let Some(node) = over.get_mut(section) else { continue };
        if matches!(section, "services" | "backing") {
            drop_baseless(root, section, node, &format!("environments.{name}.{section}"), issues);
        }
        lay_section(root, section, node);
    }
}

/// What is laid over nothing, and has nothing to run, is most often a misspelt name.
fn drop_baseless(root: &Node, section: &str, over: &mut Node, path: &str, issues: &mut Issues) {
    let base = root.get(section);
    let Value::Map(members) = &mut over.value else { return };
    members.retain(|(key, member)| {
        let has_base = base.is_some_and(|base| base.get(&key.text).is_some());
        let stays = has_base || SOURCES.iter().any(|source| member.get(source).is_some());
        if !stays {
            let what = format!("there is no `{}` in `{section}` to lay this over", key.text);
            let draft = Draft::new(ProblemKind::Reference, key.span, &below(path, &key.text), what);
            let known = base.map(Node::entries).unwrap_or_default().iter().map(|(key, _)| key.text.as_str());
            issues.add(draft.allowed(&key.text, known));
        }
        stays
    });
}

/// What a service is made from is one of these.
const SOURCES: [&str; 3] = ["build", "image", "artifact"];

/// Lays the members of a section over those of the file, one by one.
pub(crate) fn lay_section(root: &mut Node, section: &str, over: &Node) {
    let Value::Map(entries) = &mut root.value else { return };
    if !entries.iter().any(|(key, _)| key.text == section) {
        let key = Key { text: section.to_owned(), span: over.span };
        entries.push((key, Node::map(Vec::new(), over.span)));
    }
    let Some(base) = root.get_mut(section) else { return };
    if let Value::Null = base.value {
        base.value = Value::Map(Vec::new());
    }
    let Value::Map(members) = &mut base.value else { return };
    for (key, node) in over.entries() {
        match members.iter_mut().find(|(known, _)| known.text == key.text) {
            Some((_, member)) => {
                let mut below = std::mem::replace(member, node.clone());
                forget_other_sources(&mut below, node);
                *member = merge::lay(below, node);
            }
            None => members.push((key.clone(), node.clone())),
        }
    }
}

/// A service that is given another source is not made from the old one as well.
fn forget_other_sources(base: &mut Node, over: &Node) {
    let given: Vec<&str> = SOURCES.into_iter().filter(|key| over.get(key).is_some()).collect();
    if let (Value::Map(entries), false) = (&mut base.value, given.is_empty()) {
        entries
            .retain(|(key, _)| !SOURCES.contains(&key.text.as_str()) || given.contains(&key.text.as_str()));
    }
}

/// On this machine routes have names that need no DNS, unless the file gives some for it.
pub(crate) fn local_routes(root: &mut Node, app: &str, known: &Known) {
    let given: Vec<String> = root
        .get("environments")
        .and_then(|all| all.get(LOCAL)?.get("services"))
        .map(Node::entries)
        .unwrap_or_default()
        .iter()
        .filter(|(_, service)| {
            service.get("route").is_some_and(|r| r.get("host").or(r.get("hosts")).is_some())
        })
        .map(|(key, _)| key.text.clone())
        .collect();
    let Some(Value::Map(services)) = root.get_mut("services").map(|node| &mut node.value) else { return };
    for (key, service) in services.iter_mut().filter(|(key, _)| !given.contains(&key.text)) {
        let Some(Value::Map(route)) = service.get_mut("route").map(|node| &mut node.value) else { continue };
        let span = route.iter().find(|(key, _)| key.text.starts_with("host")).map(|(_, node)| node.span);
        let Some(span) = span else { continue };
        if route.iter().filter(|(key, _)| key.text.starts_with("host")).all(|(_, node)| is_local(node, known))
        {
            continue;
        }
        route.retain(|(key, _)| !key.text.starts_with("host"));
        let host = Key { text: "host".to_owned(), span };
        route.push((host, Node::scalar(routes::local_host(&key.text, app), span)));
    }
}

fn is_local(node: &Node, known: &Known) -> bool {
    let one = |node: &Node| {
        let template = node.text().and_then(|text| text.parse::<Template>().ok());
        let filled = template.map(|template| template.with_known(&known.values));
        filled
            .as_ref()
            .and_then(Template::as_text)
            .is_some_and(|text| text == "localhost" || text.ends_with(".localhost"))
    };
    match &node.value {
        Value::List(items) => !items.is_empty() && items.iter().all(one),
        Value::Scalar { .. } => one(node),
        Value::Null | Value::Map(_) => false,
    }
}

/// All public values and where each comes from.
pub(crate) fn known(root: &Node, app: &str, name: &EnvironmentName, selection: &Selection) -> Known {
    let mut known =
        Known { environment: name.to_string(), secrets: selection.provided.clone(), ..Known::default() };
    let empty =
        [(given::COMMIT, ""), (given::VERSION, ""), (given::APP, app), (given::ENVIRONMENT, name.as_str())];
    for (name, value) in empty {
        if let Ok(name) = name.parse::<VariableName>() {
            put(&mut known, name, value.to_owned(), Origin::Cutover);
        }
    }
    for (name, value) in &selection.builtins {
        put(&mut known, name.clone(), value.clone(), Origin::Cutover);
    }
    for (name, value) in &selection.set {
        put(&mut known, name.clone(), value.clone(), Origin::CommandLine);
    }
    let variables = root.get("environments").and_then(|all| all.get(name.as_str())?.get("variables"));
    public(&mut known, variables, Origin::EnvironmentVariables);
    public(&mut known, root.get("environment"), Origin::Configuration);
    for member in
        ["services", "backing"].iter().filter_map(|section| root.get(section)).flat_map(Node::entries)
    {
        let declared = member.1.get("environment").map(Node::entries).unwrap_or_default();
        known.secrets.extend(declared.iter().filter_map(|(key, value)| secret(key, value, &known.values)));
    }
    known
}

/// A name declared without a value is a secret, unless something stronger gives it a public one.
fn secret(key: &Key, value: &Node, values: &BTreeMap<VariableName, String>) -> Option<VariableName> {
    let name = key.text.parse().ok().filter(|_| matches!(value.value, Value::Null));
    name.filter(|name| !values.contains_key(name))
}

fn put(known: &mut Known, name: VariableName, value: String, origin: Origin) {
    known.origins.insert(name.clone(), origin);
    known.values.insert(name, value);
}

/// Takes the values that are public as they stand, or once others are filled in; what is known already is stronger.
fn public(known: &mut Known, node: Option<&Node>, origin: Origin) {
    let mut open: BTreeMap<VariableName, Template> = BTreeMap::new();
    for (key, value) in node.map(Node::entries).unwrap_or_default() {
        let template = value.text().and_then(|text| text.parse::<Template>().ok());
        let name = key.text.parse::<VariableName>();
        match (name, template) {
            (Ok(name), Some(template)) if !known.values.contains_key(&name) => {
                open.insert(name, template);
            }
            _ => known.secrets.extend(secret(key, value, &known.values)),
        }
    }
    loop {
        let before = open.len();
        open.retain(|name, template| match template.with_known(&known.values).as_text() {
            Some(text) => {
                put(known, name.clone(), text.to_owned(), origin);
                false
            }
            None => true,
        });
        if open.len() == before {
            return;
        }
    }
}

/// Lists of `NAME=value` become maps, so that references and overrides see names.
pub(crate) fn name_pairs(root: &mut Node) {
    let turn = |node: Option<&mut Node>| {
        if let Some(node) = node {
            let taken = std::mem::replace(node, Node::map(Vec::new(), Span::default()));
            *node = merge::pairs(taken);
        }
    };
    turn(root.get_mut("environment"));
    for section in ["services", "backing"] {
        let Some(Value::Map(members)) = root.get_mut(section).map(|node| &mut node.value) else { continue };
        for (_, member) in members {
            turn(member.get_mut("environment"));
            turn(member.get_mut("labels"));
        }
    }
    let Some(Value::Map(all)) = root.get_mut("environments").map(|node| &mut node.value) else { return };
    for (_, environment) in all {
        turn(environment.get_mut("variables"));
    }
}

//! Takes services over from Compose files: `compose: [docker-compose.yml]`.

use super::check::{When, check};
use super::environment;
use super::keys::COMPOSE_FILE;
use super::problem::{Draft, Issues, ProblemKind};
use super::read::At;
use super::settle::Sources;
use super::tree::{self, Node, Span, Value};

/// Takes the services of Compose files over, what cutover.yml says laid over them.
pub(crate) fn take(
    root: Node,
    sources: &Sources<'_>,
    files: &mut Vec<(String, String)>,
    issues: &mut Issues,
) -> Node {
    let named = At::new(&root, "").get("compose").map(|at| at.one_or_more()).unwrap_or_default();
    let mut taken = Node::map(Vec::new(), root.span);
    for at in &named {
        let Some(path) = at.text() else { continue };
        if path.trim_start_matches("./").contains('/') {
            let draft = at.problem(ProblemKind::Refused, format!("`{path}` lies in another folder"));
            issues.add(draft.remedy(
                "Compose files lie beside cutover.yml, where their own relative paths are read from",
            ));
            continue;
        }
        let Some(text) = sources.compose.get(path) else {
            issues.add(at.problem(ProblemKind::Missing, format!("the Compose file `{path}` is not there")));
            continue;
        };
        files.push((path.to_owned(), text.clone()));
        let Some(file) = tree::read(text, files.len() - 1, issues) else { continue };
        check(&file, &COMPOSE_FILE, "", When::Before, issues);
        for section in ["services", "volumes"] {
            if let Some(node) = file.get(section) {
                environment::lay_section(&mut taken, section, node);
            }
        }
    }
    if named.is_empty() {
        return root;
    }
    divide(&mut taken, &root, issues);
    lay_file(taken, root)
}

/// Of the services of Compose files, those that `backing` names are backing services; those with profiles stay out unless named.
fn divide(taken: &mut Node, root: &Node, issues: &mut Issues) {
    let backing = root.get("backing");
    let mut listed: Vec<(&str, Span)> = Vec::new();
    for node in backing.map(Node::items).unwrap_or_default() {
        listed.extend(node.text().map(|text| (text, node.span)));
    }
    let mapped: Vec<&str> =
        backing.map(Node::entries).unwrap_or_default().iter().map(|(key, _)| key.text.as_str()).collect();
    let own = |name: &str| root.get("services").is_some_and(|services| services.get(name).is_some());
    let Some(Value::Map(services)) = taken.get_mut("services").map(|node| &mut node.value) else { return };
    let names: Vec<String> = services.iter().map(|(key, _)| key.text.clone()).collect();
    for (name, span) in &listed {
        if !names.iter().any(|known| known == name) {
            let what = format!("no Compose file has a service `{name}`");
            let draft = Draft::new(ProblemKind::Reference, *span, "backing", what);
            issues.add(draft.allowed(name, names.iter().map(String::as_str)));
        }
    }
    let is_backing = |name: &str| mapped.contains(&name) || listed.iter().any(|(listed, _)| *listed == name);
    let (backing, services_left): (Vec<_>, Vec<_>) =
        std::mem::take(services).into_iter().partition(|(key, _)| is_backing(&key.text));
    *services = services_left;
    services.retain(|(key, node)| {
        let stays = node.get("profiles").is_none() || own(&key.text);
        if !stays {
            issues.note(format!(
                "`{}` is left out: it has profiles, and cutover.yml does not name it",
                key.text
            ));
        }
        stays
    });
    let span = taken.span;
    environment::lay_section(taken, "backing", &Node::map(backing, span));
}

fn lay_file(mut taken: Node, root: Node) -> Node {
    let span = root.span;
    let Value::Map(entries) = root.value else { return taken };
    for (key, node) in entries {
        match (key.text.as_str(), &node.value) {
            // A list only says which services of the Compose files are meant.
            ("backing", Value::List(_)) => {}
            ("services" | "backing" | "volumes", _) => environment::lay_section(&mut taken, &key.text, &node),
            _ => {
                if let Value::Map(all) = &mut taken.value {
                    all.push((key, node));
                }
            }
        }
    }
    taken.span = span;
    taken
}

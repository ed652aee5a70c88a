//! Which values must come from elsewhere: the env file, or a password made on the host.

use std::collections::{BTreeMap, BTreeSet};

use super::fill::is_given_later;
use super::problem::Issues;
use super::settings::{Config, DatabaseEngine, Origin};
use super::settle::Selection;
use super::tree::{Node, Value};
use crate::backup::BackupSettings;
use crate::names::VariableName;
use crate::template::{Otherwise, Piece, Template};

/// Finds the names whose values must come from elsewhere, and of them the passwords that are made when absent.
pub(crate) fn demand(config: &mut Config, selection: &Selection) {
    let environments = config.parts().map(|(_, _, run)| &run.environment);
    let registry = config.registry.iter().flat_map(|r| r.username.iter().chain(&r.password));
    let urls = config.databases.values().filter_map(|database| match &database.engine {
        DatabaseEngine::Server { url, .. } => url.as_ref(),
        DatabaseEngine::Sqlite { .. } => None,
    });
    let backup = config.backup.iter().flat_map(BackupSettings::templates);
    let environments = environments.flat_map(BTreeMap::values);
    let templates = environments.chain(registry).chain(urls).chain(backup);
    let required: BTreeSet<VariableName> = templates.flat_map(needed).cloned().collect();
    let declared = |name: &VariableName, environment: &BTreeMap<VariableName, Template>| {
        environment.get(name).is_some_and(|template| needed(template).any(|needed| needed == name))
    };
    for name in required {
        let password = name.as_str().ends_with("PASSWORD");
        let backing = config.backing.values().any(|backing| declared(&name, &backing.run.environment));
        let generated = password && backing;
        if generated {
            config.generate.insert(name.clone());
        }
        let absent = !selection.provided.contains(&name);
        let origin = if generated && absent { Origin::Generated } else { Origin::HostFile };
        config.required.insert(name, origin);
    }
}

/// `-v` of a name that nothing uses is most often a misspelt one.
pub(crate) fn unused(config: &Config, root: &Node, selection: &Selection, issues: &mut Issues) {
    for name in selection.set.keys() {
        let declared = config.parts().any(|(_, _, run)| run.environment.contains_key(name));
        if !declared && !mentions(root, name.as_str()) {
            issues.note(format!("`-v {name}=…` is used nowhere"));
        }
    }
}

fn mentions(node: &Node, name: &str) -> bool {
    match &node.value {
        Value::Null => false,
        Value::Scalar { text, .. } => text.contains(name),
        Value::List(items) => items.iter().any(|item| mentions(item, name)),
        Value::Map(entries) => entries.iter().any(|(key, node)| key.text == name || mentions(node, name)),
    }
}

/// The variables that a template cannot do without.
fn needed(template: &Template) -> impl Iterator<Item = &VariableName> {
    template.pieces().iter().filter_map(|piece| match piece {
        Piece::Variable { name, otherwise: Otherwise::Required | Otherwise::Message(_) }
            if !is_given_later(name) =>
        {
            Some(name)
        }
        _ => None,
    })
}

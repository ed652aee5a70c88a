//! Lays one tree over another by Compose's merge rules: what `environments.X` says over the file, the file over its Compose files.

use super::tree::{Key, Node, Tag, Value};

/// How values of a key are merged.
enum Rule {
    /// Maps key by key, lists by appending what is new, scalars by replacing.
    Usual,
    /// `NAME=value` as a list counts as a map.
    Pairs,
    /// A list of names counts as a map of names.
    Names,
    /// What comes last stands.
    Replace,
    /// Lists, item by item: what mounts the same target is replaced.
    Targets,
    /// Maps key by key; a list is one thing, in its order, and stands as a whole.
    Whole,
}

fn rule(key: &str) -> Rule {
    match key {
        "environment" | "labels" | "args" | "extra_hosts" | "sysctls" | "variables" | "json" => Rule::Pairs,
        "depends_on" => Rule::Names,
        "command" | "entrypoint" | "pending" | "down" | "test" | "artifact" | "verify" | "hosts"
        | "status" | "services_of" => Rule::Replace,
        "volumes" => Rule::Targets,
        "migrate" => Rule::Whole,
        _ => Rule::Usual,
    }
}

/// Lays `over` over `base`.
pub(crate) fn lay(base: Node, over: &Node) -> Node {
    lay_by(base, over, &Rule::Usual)
}

fn lay_by(base: Node, over: &Node, rule: &Rule) -> Node {
    if over.tag == Tag::Override || matches!(rule, Rule::Replace) {
        return over.clone();
    }
    let (base, over) = match rule {
        Rule::Pairs => (pairs(base), pairs(over.clone())),
        Rule::Names => (names(base), names(over.clone())),
        _ => (base, over.clone()),
    };
    let value = match (base.value, over.value) {
        (Value::Map(mut entries), Value::Map(others)) => {
            for (key, node) in others {
                put(&mut entries, key, node);
            }
            Value::Map(entries)
        }
        (Value::List(mut items), Value::List(others)) if !matches!(rule, Rule::Whole) => {
            for node in others {
                append(&mut items, node, rule);
            }
            Value::List(items)
        }
        // A key without a value says nothing against what stands there.
        (kept @ (Value::Map(_) | Value::List(_)), Value::Null) => kept,
        (_, other) => other,
    };
    Node { span: over.span, value, tag: Tag::Plain }
}

fn put(entries: &mut Vec<(Key, Node)>, key: Key, node: Node) {
    let at = entries.iter().position(|(known, _)| known.text == key.text);
    match at {
        Some(at) if node.tag == Tag::Reset => {
            entries.remove(at);
        }
        None if node.tag == Tag::Reset => {}
        Some(at) => {
            let (known, base) = entries.swap_remove(at);
            let laid = lay_by(base, &node, &rule(&key.text));
            entries.push((known, laid));
            let last = entries.len() - 1;
            entries.swap(at, last);
        }
        None => entries.push((key, node)),
    }
}

fn append(items: &mut Vec<Node>, node: Node, rule: &Rule) {
    let same = |known: &Node| match rule {
        Rule::Targets => target(known).is_some() && target(known) == target(&node),
        _ => known.text().is_some() && known.text() == node.text(),
    };
    match items.iter().position(same) {
        Some(at) => items[at] = node,
        None => items.push(node),
    }
}

/// Where a volume is mounted.
fn target(node: &Node) -> Option<String> {
    if let Some(text) = node.text() {
        let parts: Vec<&str> = text.split(':').collect();
        return Some((*parts.get(1).unwrap_or(&parts[0])).to_owned());
    }
    node.get("target")?.text().map(str::to_owned)
}

/// A list of `NAME=value` as a map; a map stays.
pub(crate) fn pairs(node: Node) -> Node {
    let Value::List(items) = &node.value else { return node };
    let mut entries: Vec<(Key, Node)> = Vec::new();
    for item in items {
        let Some(text) = item.text() else { continue };
        let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
        let value = match value {
            Some(value) => Node::scalar(value, item.span),
            None => Node { span: item.span, value: Value::Null, tag: Tag::Plain },
        };
        let key = Key { text: name.to_owned(), span: item.span };
        entries.retain(|(known, _)| known.text != key.text);
        entries.push((key, value));
    }
    Node { value: Value::Map(entries), ..node }
}

fn names(node: Node) -> Node {
    let Value::List(items) = &node.value else { return node };
    let entries = items
        .iter()
        .filter_map(|item| {
            let key = Key { text: item.text()?.to_owned(), span: item.span };
            Some((key, Node { span: item.span, value: Value::Null, tag: Tag::Plain }))
        })
        .collect();
    Node { value: Value::Map(entries), ..node }
}

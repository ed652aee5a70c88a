//! Structural problems, all of them: unknown keys, wrong types, values that break their form, keys that are refused.

use super::host::HOST;
use super::problem::{Draft, Issues, ProblemKind};
use super::shape::{Key as KnownKey, Naming, Pairs, Shape, Treatment};
use super::tree::{Key, Node, Tag, Value};

/// Whether references were filled already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// As written: a text with `${` in it may become anything.
    Before,
    /// As it will be used.
    After,
}

/// Checks a value and all below it.
pub(crate) fn check(node: &Node, shape: &Shape, path: &str, when: When, issues: &mut Issues) {
    match (shape, &node.value) {
        (Shape::Anything, _) => {}
        _ if node.tag == Tag::Reset => {}
        (Shape::Either(shapes), _) => match shapes.iter().find(|shape| fits(shape, node)) {
            Some(shape) => check(node, shape, path, when, issues),
            None => wrong_type(node, shape, path, issues),
        },
        (Shape::Keys(_) | Shape::List(_) | Shape::Map(..) | Shape::Pairs(_), Value::Null) => {}
        (Shape::Keys(_), Value::Map(entries)) => keys(entries, shape, path, when, issues),
        (Shape::Map(naming, inner), Value::Map(entries)) => {
            for (key, value) in entries.iter().filter(|(key, _)| !is_extension(key)) {
                name(key, *naming, path, issues);
                check(value, inner, &below(path, &key.text), when, issues);
            }
        }
        (Shape::List(inner), Value::List(items)) => {
            for (index, item) in items.iter().enumerate() {
                check(item, inner, &format!("{path}[{index}]"), when, issues);
            }
        }
        (Shape::Pairs(pairs), Value::Map(entries)) => pairs_of_map(entries, *pairs, path, issues),
        (Shape::Pairs(pairs), Value::List(items)) => pairs_of_list(items, *pairs, path, when, issues),
        (Shape::Words, Value::List(items)) => {
            for (index, item) in items.iter().enumerate() {
                check(item, &Shape::Text, &format!("{path}[{index}]"), when, issues);
            }
        }
        (_, Value::Scalar { text, quoted, open }) if is_scalar(shape) => match (open, shape) {
            (Some(open), Shape::Words) => scalar(node, shape, &open.to_string(), *quoted, path, issues),
            (Some(_), _) => {}
            (None, _) if when == When::Before && text.contains("${") => {}
            (None, _) => scalar(node, shape, text, *quoted, path, issues),
        },
        (_, Value::Null) => {
            let what = format!("there is no value; expected {}", shape.expected());
            issues.add(Draft::new(ProblemKind::Type, node.span, path, what));
        }
        _ => wrong_type(node, shape, path, issues),
    }
}

/// The path of a key below another.
pub(crate) fn below(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// Whether a shape is meant for what stands there.
pub(crate) fn fits(shape: &Shape, node: &Node) -> bool {
    match (shape, &node.value) {
        (Shape::Either(shapes), _) => shapes.iter().any(|shape| fits(shape, node)),
        (Shape::Anything, _) => true,
        (_, Value::Scalar { .. }) => is_scalar(shape),
        (_, Value::Map(_)) => matches!(shape, Shape::Keys(_) | Shape::Map(..) | Shape::Pairs(_)),
        (_, Value::List(_)) => matches!(shape, Shape::List(_) | Shape::Words | Shape::Pairs(_)),
        (_, Value::Null) => !is_scalar(shape),
    }
}

fn is_scalar(shape: &Shape) -> bool {
    !matches!(shape, Shape::List(_) | Shape::Map(..) | Shape::Pairs(_) | Shape::Keys(_) | Shape::Either(_))
}

fn is_extension(key: &Key) -> bool {
    key.text.starts_with("x-")
}

/// Keys of which people often write the main part alone.
const MAIN_PART: [(&str, &str); 6] = [
    ("route", "host"),
    ("health", "path"),
    ("ready", "log"),
    ("verify", "path"),
    ("registry", "server"),
    ("migrate", "command"),
];

fn wrong_type(node: &Node, shape: &Shape, path: &str, issues: &mut Issues) {
    let what = format!("expected {}, found {}", shape.expected(), node.found());
    let draft = Draft::new(ProblemKind::Type, node.span, path, what);
    let last = path.rsplit('.').next().unwrap_or(path);
    let main = MAIN_PART.iter().find(|(key, _)| *key == last);
    issues.add(match (main, node.text()) {
        (Some((key, part)), Some(text)) => draft.remedy(format!("write `{key}: {{ {part}: {text} }}`")),
        _ => draft,
    });
}

fn keys(entries: &[(Key, Node)], shape: &Shape, path: &str, when: When, issues: &mut Issues) {
    for (key, value) in entries.iter().filter(|(key, _)| !is_extension(key)) {
        let place = below(path, &key.text);
        match shape.keys().find(|known| known.name == key.text) {
            None => unknown(key, shape, path, issues),
            Some(known) => known_key(known, key, value, &place, when, issues),
        }
    }
}

fn unknown(key: &Key, shape: &Shape, path: &str, issues: &mut Issues) {
    let what = format!("`{}` is not a key {}", key.text, place_of(path, shape));
    let usable =
        shape.keys().filter(|known| known.is_usable() && !matches!(known.treatment, Treatment::Ignored(_)));
    let draft = Draft::new(ProblemKind::UnknownKey, key.span, &below(path, &key.text), what);
    issues.add(draft.allowed(&key.text, usable.map(|known| known.name)));
}

fn place_of(path: &str, shape: &Shape) -> String {
    match path {
        "" if std::ptr::eq(shape, &raw const HOST) => "of host.yml".to_owned(),
        "" => "of cutover.yml".to_owned(),
        path => format!("of `{path}`"),
    }
}

fn known_key(known: &KnownKey, key: &Key, value: &Node, place: &str, when: When, issues: &mut Issues) {
    // What is switched off needs no reason why it cannot be on.
    let off = matches!(&value.value, Value::Null) || value.text() == Some("false");
    match known.treatment {
        Treatment::Refused(_) | Treatment::Later(_) if off => {}
        Treatment::Refused(reason) => {
            let what = format!("`{}` is not supported", key.text);
            issues.add(Draft::new(ProblemKind::Refused, key.span, place, what).remedy(reason));
        }
        Treatment::Later(until) => {
            let what = format!("`{}` comes later", key.text);
            issues.add(Draft::new(ProblemKind::Refused, key.span, place, what).remedy(until));
        }
        // Told once: where it is written, not where it was laid over something.
        Treatment::Ignored(_) if when == When::After => {}
        Treatment::Ignored(why) => issues.note(format!("`{place}` has no effect: {why}")),
        Treatment::Own | Treatment::Honoured | Treatment::Translated(_) => {
            check(value, &known.shape, place, when, issues);
        }
    }
}

fn name(key: &Key, naming: Naming, path: &str, issues: &mut Issues) {
    if let Err(what) = naming.check(&key.text) {
        issues.add(Draft::new(ProblemKind::Value, key.span, &below(path, &key.text), what));
    }
}

fn pairs_of_map(entries: &[(Key, Node)], pairs: Pairs, path: &str, issues: &mut Issues) {
    for (key, value) in entries {
        pair_name(key, pairs, path, issues);
        let place = below(path, &key.text);
        match &value.value {
            Value::Scalar { .. } => {}
            Value::Null if pairs != Pairs::Variables => {}
            Value::Null => {
                let what = format!("`{}` has no value", key.text);
                let draft = Draft::new(ProblemKind::Missing, key.span, &place, what);
                issues.add(draft.remedy("give it one here, or declare the name in `environment` and keep the value in the host's env file"));
            }
            Value::List(_) | Value::Map(_) => {
                let what = format!("expected text, found {}", value.found());
                issues.add(Draft::new(ProblemKind::Type, value.span, &place, what));
            }
        }
    }
}

fn pairs_of_list(items: &[Node], pairs: Pairs, path: &str, when: When, issues: &mut Issues) {
    let mut seen: Vec<&str> = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let place = format!("{path}[{index}]");
        let Some(text) = item.text() else {
            wrong_type(item, &Shape::Text, &place, issues);
            continue;
        };
        let name = text.split_once(['=', ':']).map_or(text, |(name, _)| name);
        if when == When::Before && name.contains("${") {
            continue;
        }
        pair_name(&Key { text: name.to_owned(), span: item.span }, pairs, path, issues);
        if seen.contains(&name) && pairs == Pairs::Environment {
            let what = format!("`{name}` is given twice");
            issues.add(Draft::new(ProblemKind::Conflict, item.span, &place, what));
        }
        seen.push(name);
    }
}

fn pair_name(key: &Key, pairs: Pairs, path: &str, issues: &mut Issues) {
    if pairs != Pairs::Public {
        name(key, Naming::Variable, path, issues);
        if key.text.starts_with("CUTOVER_") {
            let what = format!("`{}`: names that begin with `CUTOVER_` are cutover's own", key.text);
            issues.add(Draft::new(ProblemKind::Conflict, key.span, &below(path, &key.text), what));
        }
    }
}

fn scalar(node: &Node, shape: &Shape, text: &str, quoted: bool, path: &str, issues: &mut Issues) {
    let wrong = |what: String| Draft::new(ProblemKind::Value, node.span, path, what);
    match shape {
        Shape::Flag if quoted || !matches!(text, "true" | "false") => {
            let what = format!("expected {}, found {}", shape.expected(), node.found());
            let draft = Draft::new(ProblemKind::Type, node.span, path, what);
            issues.add(match text.to_ascii_lowercase().as_str() {
                "yes" | "on" | "true" => draft.remedy("write `true`"),
                "no" | "off" | "false" => draft.remedy("write `false`"),
                _ => draft,
            });
        }
        Shape::Whole { least, most } => match text.parse::<i64>() {
            Ok(number) if (*least..=*most).contains(&number) => {}
            Ok(number) => {
                issues.add(wrong(format!("{number} is out of bounds; expected {}", shape.expected())));
            }
            Err(_) => {
                let what = format!("expected {}, found {}", shape.expected(), node.found());
                issues.add(Draft::new(ProblemKind::Type, node.span, path, what));
            }
        },
        Shape::Form(form) => {
            if let Err(what) = (form.check)(text) {
                issues.add(wrong(what).remedy(format!("write {}", form.expected)));
            }
        }
        Shape::OneOf(words) if !words.contains(&text) => {
            issues.add(wrong(format!("`{text}` is not known here")).allowed(text, words.iter().copied()));
        }
        Shape::Words => match super::value::words(text) {
            Ok(words) if words.is_empty() => issues.add(wrong("the command is empty".to_owned())),
            Ok(_) => {}
            Err(what) => issues.add(wrong(format!("the command cannot be split into words: {what}"))),
        },
        _ => {}
    }
}

//! Fills references from public sources, and says which may stay open where: secrets in the environment of instances, services and
//! database files also in commands, nothing anywhere else.

use std::collections::{BTreeMap, BTreeSet};

use super::check::{below, fits};
use super::problem::{Draft, Issues, ProblemKind};
use super::settings::Origin;
use super::shape::{Pairs, Shape};
use super::tree::{Node, Value};
use crate::names::VariableName;
use crate::template::{Otherwise, Piece, Template};
use crate::variables::given;

/// Given to each instance when it is made; until then nobody knows them.
pub(crate) const GIVEN_LATER: [&str; 5] =
    [given::PORT, given::SERVICE, given::RELEASE, given::SLOT, given::INSTANCE];

/// The public values, and names that are secret.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) values: BTreeMap<VariableName, String>,
    pub(crate) origins: BTreeMap<VariableName, Origin>,
    pub(crate) secrets: BTreeSet<VariableName>,
    /// The environment that is settled, for remedies.
    pub(crate) environment: String,
}

/// What may stay open at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum May {
    /// Nothing.
    Nothing,
    /// What the plan knows: services, database files, what each instance is given.
    Planned,
    /// Secrets, too.
    Secret,
}

/// Fills all references below a node.
pub(crate) fn fill(node: &mut Node, shape: &Shape, path: &str, known: &Known, issues: &mut Issues) {
    match shape {
        Shape::Anything => {}
        Shape::Either(shapes) => {
            if let Some(shape) = shapes.iter().find(|shape| fits(shape, node)) {
                fill(node, shape, path, known, issues);
            }
        }
        Shape::Keys(_) => {
            let Value::Map(entries) = &mut node.value else { return };
            for (key, value) in entries {
                if let Some(found) = shape.keys().find(|k| k.name == key.text && k.is_usable()) {
                    fill(value, &found.shape, &below(path, &key.text), known, issues);
                }
            }
        }
        Shape::Map(_, inner) => {
            let Value::Map(entries) = &mut node.value else { return };
            for (key, value) in entries {
                fill(value, inner, &below(path, &key.text), known, issues);
            }
        }
        Shape::List(inner) => {
            let Value::List(items) = &mut node.value else { return };
            for (index, item) in items.iter_mut().enumerate() {
                fill(item, inner, &format!("{path}[{index}]"), known, issues);
            }
        }
        Shape::Pairs(Pairs::Environment) => each(node, path, May::Secret, known, issues),
        Shape::Pairs(_) => each(node, path, May::Nothing, known, issues),
        Shape::Words => each(node, path, May::Planned, known, issues),
        Shape::Secret => scalar(node, path, May::Secret, known, issues),
        _ => scalar(node, path, May::Nothing, known, issues),
    }
}

/// Fills a scalar, the items of a list, or the values of a map.
fn each(node: &mut Node, path: &str, may: May, known: &Known, issues: &mut Issues) {
    match &mut node.value {
        Value::List(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                scalar(item, &format!("{path}[{index}]"), may, known, issues);
            }
        }
        Value::Map(entries) => {
            for (key, value) in entries {
                scalar(value, &below(path, &key.text), may, known, issues);
            }
        }
        Value::Scalar { .. } | Value::Null => scalar(node, path, may, known, issues),
    }
}

fn scalar(node: &mut Node, path: &str, may: May, known: &Known, issues: &mut Issues) {
    let span = node.span;
    let Value::Scalar { text, open, quoted } = &mut node.value else { return };
    if !text.contains('$') {
        return;
    }
    if let Some(name) = bare_reference(text) {
        issues.note(format!("`{path}`: `${name}` stands as it is; a reference is written `${{{name}}}`"));
    }
    let template = match text.parse::<Template>() {
        Ok(template) => template,
        Err(error) => {
            let draft = Draft::new(ProblemKind::Reference, span, path, error.to_string());
            issues.add(draft.remedy("write `$$` for a `$` that is no reference"));
            return;
        }
    };
    let template = template.with_known(&known.values);
    if let Some(filled) = template.as_text() {
        filled.clone_into(text);
        // Quotes stood around the reference, and say nothing of the value.
        *quoted = false;
        return;
    }
    let mut rest = Some(String::new());
    for piece in template.pieces() {
        if let Ok(piece) = settle(piece, may) {
            rest = rest.map(|rest| rest + &piece);
        } else {
            let draft = Draft::new(ProblemKind::Reference, span, path, "");
            issues.add(unfilled(piece, may, known, draft));
            rest = None;
        }
    }
    // Written out and read again, so that equal templates are equal however they came about. One that cannot be filled stays open,
    // so that nobody reads a value that is none.
    let template = rest.and_then(|rest| rest.parse().ok()).unwrap_or(template);
    match template.as_text() {
        Some(filled) => {
            filled.clone_into(text);
            *quoted = false;
        }
        None => *open = Some(template),
    }
}

/// `$NAME` without braces, which Compose would fill and cutover does not.
fn bare_reference(text: &str) -> Option<&str> {
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            rest = after;
            continue;
        }
        let end = rest
            .find(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'))
            .unwrap_or(rest.len());
        if end > 1 && !rest.starts_with(|c: char| c.is_ascii_digit()) {
            return Some(&rest[..end]);
        }
    }
    None
}

/// A piece as it is written in what remains; an error when it may not stay open here.
fn settle(piece: &Piece, may: May) -> Result<String, ()> {
    match piece {
        Piece::Text(text) => Ok(text.replace('$', "$$")),
        Piece::ServiceUrl(name) if may != May::Nothing => Ok(format!("${{services.{name}.url}}")),
        Piece::DatabaseFile(name) if may != May::Nothing => Ok(format!("${{databases.{name}.file}}")),
        Piece::ServiceUrl(_) | Piece::DatabaseFile(_) => Err(()),
        Piece::Variable { otherwise: Otherwise::Default { text, .. } | Otherwise::Instead(text), .. }
            if text.contains("${") =>
        {
            Err(())
        }
        Piece::Variable { name, otherwise } => match (may, otherwise) {
            (May::Secret, _) => Ok(written(name, otherwise)),
            (May::Planned, _) if is_given_later(name) => Ok(written(name, otherwise)),
            (_, Otherwise::Default { text, .. }) => Ok(text.replace('$', "$$")),
            (_, Otherwise::Instead(_)) => Ok(String::new()),
            (_, Otherwise::Required | Otherwise::Message(_)) => Err(()),
        },
    }
}

fn written(name: &VariableName, otherwise: &Otherwise) -> String {
    match otherwise {
        Otherwise::Required => format!("${{{name}}}"),
        Otherwise::Message(text) => format!("${{{name}:?{text}}}"),
        Otherwise::Default { text, empty_too: true } => format!("${{{name}:-{text}}}"),
        Otherwise::Default { text, empty_too: false } => format!("${{{name}-{text}}}"),
        Otherwise::Instead(text) => format!("${{{name}:+{text}}}"),
    }
}

/// Whether a name gets its value when an instance is made.
pub(crate) fn is_given_later(name: &VariableName) -> bool {
    GIVEN_LATER.contains(&name.as_str())
}

fn unfilled(piece: &Piece, may: May, known: &Known, draft: Draft) -> Draft {
    match piece {
        Piece::Variable { name, otherwise: Otherwise::Default { .. } | Otherwise::Instead(_) } => draft
            .says(format!("`${{{name}…}}` has another reference inside"))
            .remedy("a default is plain text; give the inner variable a name of its own"),
        Piece::Variable { name, .. } if is_given_later(name) => draft
            .says(format!("`${{{name}}}` is known only when an instance is made"))
            .remedy("it can stand in `environment` and `command`"),
        Piece::Variable { name, .. } if known.secrets.contains(name) => draft
            .says(format!("`${{{name}}}` is a secret, and secrets stand in `environment` only"))
            .remedy("pass it in `environment`, and let the app read it there"),
        Piece::Variable { name, otherwise } => {
            let reason = match otherwise {
                Otherwise::Message(text) if !text.is_empty() => format!(": {text}"),
                _ => String::new(),
            };
            let place = &known.environment;
            draft.says(format!("`${{{name}}}` has no public value{reason}")).near(name.as_str(), known.values.keys().map(VariableName::as_str)).remedy(format!(
                "give it with `-v {name}=…` or in `environments.{place}.variables`, or a default: `${{{name}:-…}}`{}",
                if may == May::Planned { "; a secret goes into `environment`" } else { "" },
            ))
        }
        piece => draft
            .says(format!("`{}` is known only when an instance is made", reference(piece)))
            .remedy("it can stand in `environment` and `command`"),
    }
}

fn reference(piece: &Piece) -> String {
    match piece {
        Piece::ServiceUrl(name) => format!("${{services.{name}.url}}"),
        Piece::DatabaseFile(name) => format!("${{databases.{name}.file}}"),
        Piece::Variable { name, .. } => format!("${{{name}}}"),
        Piece::Text(text) => text.clone(),
    }
}

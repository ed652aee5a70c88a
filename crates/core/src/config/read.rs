//! Reads values of a checked tree. What is malformed was reported by the check, and reads as absent here.

use std::str::FromStr;
use std::time::Duration;

use super::check::below;
use super::problem::{Draft, Issues, ProblemKind};
use super::settings::Command;
use super::tree::{Node, Span, Value};
use super::value;
use crate::template::Template;

/// A value with its key path.
#[derive(Debug, Clone)]
pub(crate) struct At<'n> {
    pub(crate) node: &'n Node,
    pub(crate) path: String,
}

impl<'n> At<'n> {
    pub(crate) fn new(node: &'n Node, path: impl Into<String>) -> Self {
        Self { node, path: path.into() }
    }

    /// The value of a key, unless there is none.
    pub(crate) fn get(&self, key: &str) -> Option<At<'n>> {
        let node = self.node.get(key)?;
        let null = matches!(node.value, Value::Null);
        (!null).then(|| At { node, path: below(&self.path, key) })
    }

    /// All entries of a map, `x-` apart: key, its place, value.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&'n str, Span, At<'n>)> + use<'n, '_> {
        self.node
            .entries()
            .iter()
            .filter(|(key, _)| !key.text.starts_with("x-"))
            .map(|(key, node)| (key.text.as_str(), key.span, At { node, path: below(&self.path, &key.text) }))
    }

    /// The place of a key, or of the whole where it is absent.
    pub(crate) fn place(&self, key: &str) -> Span {
        self.node
            .entries()
            .iter()
            .find(|(known, _)| known.text == key)
            .map_or(self.node.span, |(key, _)| key.span)
    }

    pub(crate) fn items(&self) -> impl Iterator<Item = At<'n>> + use<'n, '_> {
        self.node
            .items()
            .iter()
            .enumerate()
            .map(|(index, node)| At { node, path: format!("{}[{index}]", self.path) })
    }

    /// One, or the items of a list.
    pub(crate) fn one_or_more(&self) -> Vec<At<'n>> {
        match &self.node.value {
            Value::List(_) => self.items().collect(),
            Value::Null => Vec::new(),
            Value::Scalar { .. } | Value::Map(_) => vec![self.clone()],
        }
    }

    /// Settled text.
    pub(crate) fn text(&self) -> Option<&'n str> {
        match &self.node.value {
            Value::Scalar { text, open: None, .. } => Some(text),
            _ => None,
        }
    }

    pub(crate) fn string(&self, key: &str) -> Option<String> {
        self.get(key)?.text().map(str::to_owned)
    }

    /// A value of a type whose form the check looked at.
    pub(crate) fn parsed<T: FromStr>(&self, key: &str) -> Option<T> {
        self.get(key)?.text()?.parse().ok()
    }

    pub(crate) fn flag(&self, key: &str) -> Option<bool> {
        self.parsed(key)
    }

    pub(crate) fn duration(&self, key: &str) -> Option<Duration> {
        value::duration(self.get(key)?.text()?).ok()
    }

    pub(crate) fn bytes(&self, key: &str) -> Option<u64> {
        value::bytes(self.get(key)?.text()?).ok()
    }

    pub(crate) fn port(&self, key: &str) -> Option<u16> {
        value::port(self.get(key)?.text()?).ok()
    }

    /// Texts of one value or of a list.
    pub(crate) fn texts(&self, key: &str) -> Vec<String> {
        let all = self.get(key).map(|at| at.one_or_more()).unwrap_or_default();
        all.iter().filter_map(At::text).map(str::to_owned).collect()
    }

    /// Texts of this value.
    pub(crate) fn texts_here(&self) -> Vec<&'n str> {
        self.one_or_more().iter().filter_map(At::text).collect()
    }

    /// A scalar as a template: its references filled as far as they are public.
    pub(crate) fn template(&self) -> Option<Template> {
        match &self.node.value {
            Value::Scalar { open: Some(template), .. } => Some(template.clone()),
            Value::Scalar { text, open: None, .. } => Some(literal(text)),
            _ => None,
        }
    }

    /// A command as words that may refer to services and database files.
    pub(crate) fn command(&self, key: &str) -> Option<Command> {
        let at = self.get(key)?;
        match &at.node.value {
            Value::List(_) => at.items().map(|item| item.template()).collect(),
            Value::Scalar { text, open: None, .. } => {
                Some(value::words(text).ok()?.iter().map(|word| literal(word)).collect())
            }
            Value::Scalar { open: Some(template), .. } => {
                value::words(&template.to_string()).ok()?.iter().map(|word| word.parse().ok()).collect()
            }
            _ => None,
        }
    }

    /// A command whose every word must be settled: health commands and smoke tests run as they stand.
    pub(crate) fn settled_command(&self, key: &str, issues: &mut Issues) -> Option<Vec<String>> {
        let command = self.command(key)?;
        let words: Option<Vec<String>> =
            command.iter().map(|word| word.as_text().map(str::to_owned)).collect();
        if words.is_none() {
            let at = self.get(key)?;
            let what = "this command is run as it stands: its references cannot be filled";
            let draft = Draft::new(ProblemKind::Reference, at.node.span, &at.path, what);
            issues.add(draft.remedy(
                "let a shell in the instance read its own variables: [\"sh\", \"-c\", \"… $$NAME\"]",
            ));
        }
        words
    }

    /// A problem of this value.
    pub(crate) fn problem(&self, kind: ProblemKind, what: impl Into<String>) -> Draft {
        Draft::new(kind, self.node.span, &self.path, what)
    }
}

/// Text without references, in the form that reading it back gives.
pub(crate) fn literal(text: &str) -> Template {
    if text.is_empty() { "".parse().unwrap_or_else(|_| Template::text("")) } else { Template::text(text) }
}

//! Text with `${…}` in it, as Compose writes it, plus `${services.X.url}` and `${databases.X.file}`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::names::{DatabaseName, ServiceName, VariableName};

/// Text whose references are still open. Serialises as it is written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Template(Vec<Piece>);

/// A part of a template.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Piece {
    /// Stands for itself.
    Text(String),
    /// `${NAME}`, `${NAME:-otherwise}`, `${NAME-otherwise}`, `${NAME:?message}`, `${NAME:+instead}`.
    Variable {
        /// Whose value.
        name: VariableName,
        /// What when it is absent (or empty).
        otherwise: Otherwise,
    },
    /// `${services.X.url}`: where instances of X of the same release are reached.
    ServiceUrl(ServiceName),
    /// `${databases.X.file}`: the SQLite file; in a rehearsal, the copy.
    DatabaseFile(DatabaseName),
}

/// What a reference gives when its variable is absent.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Otherwise {
    /// It must be there.
    Required,
    /// `:?`: it must be there, with a message of the author's.
    Message(String),
    /// `-` (absent) or `:-` (absent or empty).
    Default {
        /// The text to take.
        text: String,
        /// Whether an empty value counts as absent.
        empty_too: bool,
    },
    /// `:+`: this text where there is a value, else nothing.
    Instead(String),
}

/// Why a text is not a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// No `}`.
    #[error("`${{` is not closed")]
    Open,
    /// What stands between the braces.
    #[error(
        "`${{{0}}}` is not a reference: a variable's name, `services.NAME.url` or `databases.NAME.file` is expected"
    )]
    Reference(String),
}

/// A reference that could not be filled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    /// No source has it.
    #[error("variable {name} has no value{}", message.as_ref().map(|m| format!(": {m}")).unwrap_or_default())]
    Variable {
        /// The one without a value.
        name: VariableName,
        /// The author's message, from `${NAME:?message}`.
        message: Option<String>,
    },
    /// The release has no such service.
    #[error("service `{0}` has no address")]
    Service(ServiceName),
    /// The release has no such file.
    #[error("database `{0}` has no file")]
    Database(DatabaseName),
}

/// What references are filled from.
pub trait Lookup {
    /// A variable's value.
    fn variable(&self, name: &VariableName) -> Option<String>;
    /// The URL of a service of the same release.
    fn service_url(&self, name: &ServiceName) -> Option<String>;
    /// The file of a SQLite database.
    fn database_file(&self, name: &DatabaseName) -> Option<String>;
}

impl Template {
    /// A template without references.
    pub fn text(text: impl Into<String>) -> Self {
        Self(vec![Piece::Text(text.into())])
    }

    /// Its parts in order.
    pub fn pieces(&self) -> &[Piece] {
        &self.0
    }

    /// The text, when no reference is open.
    pub fn as_text(&self) -> Option<&str> {
        match self.0.as_slice() {
            [] => Some(""),
            [Piece::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The variables it refers to.
    pub fn variables(&self) -> BTreeSet<&VariableName> {
        self.0
            .iter()
            .filter_map(|piece| if let Piece::Variable { name, .. } = piece { Some(name) } else { None })
            .collect()
    }

    /// The services it refers to.
    pub fn services(&self) -> BTreeSet<&ServiceName> {
        self.0
            .iter()
            .filter_map(|piece| if let Piece::ServiceUrl(name) = piece { Some(name) } else { None })
            .collect()
    }

    /// The databases it refers to.
    pub fn databases(&self) -> BTreeSet<&DatabaseName> {
        self.0
            .iter()
            .filter_map(|piece| if let Piece::DatabaseFile(name) = piece { Some(name) } else { None })
            .collect()
    }

    /// Fills the variables that are known (public ones), leaves the others open.
    #[must_use]
    pub fn with_known(&self, known: &BTreeMap<VariableName, String>) -> Self {
        let mut pieces: Vec<Piece> = Vec::new();
        for piece in &self.0 {
            let filled = match piece {
                Piece::Variable { name, otherwise } => match known.get(name) {
                    Some(value) => Piece::Text(chosen(Some(value), otherwise).unwrap_or_default()),
                    None => piece.clone(),
                },
                other => other.clone(),
            };
            match (pieces.last_mut(), filled) {
                (Some(Piece::Text(before)), Piece::Text(text)) => before.push_str(&text),
                (_, filled) => pieces.push(filled),
            }
        }
        Self(pieces)
    }

    /// The text with every reference filled.
    ///
    /// # Errors
    /// The first reference without a value.
    pub fn resolve(&self, lookup: &dyn Lookup) -> Result<String, Unresolved> {
        let mut text = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(part) => text.push_str(part),
                Piece::Variable { name, otherwise } => {
                    let value = lookup.variable(name);
                    let filled = chosen(value.as_deref(), otherwise).ok_or_else(|| Unresolved::Variable {
                        name: name.clone(),
                        message: if let Otherwise::Message(message) = otherwise {
                            Some(message.clone())
                        } else {
                            None
                        },
                    })?;
                    text.push_str(&filled);
                }
                Piece::ServiceUrl(name) => {
                    text.push_str(
                        &lookup.service_url(name).ok_or_else(|| Unresolved::Service(name.clone()))?,
                    );
                }
                Piece::DatabaseFile(name) => {
                    text.push_str(
                        &lookup.database_file(name).ok_or_else(|| Unresolved::Database(name.clone()))?,
                    );
                }
            }
        }
        Ok(text)
    }
}

fn chosen(value: Option<&str>, otherwise: &Otherwise) -> Option<String> {
    match otherwise {
        Otherwise::Required => value.map(str::to_owned),
        Otherwise::Message(_) => value.filter(|v| !v.is_empty()).map(str::to_owned),
        Otherwise::Default { text, empty_too } => {
            Some(value.filter(|v| !(*empty_too && v.is_empty())).unwrap_or(text).to_owned())
        }
        Otherwise::Instead(text) => {
            Some(if value.is_some_and(|v| !v.is_empty()) { text.clone() } else { String::new() })
        }
    }
}

impl FromStr for Template {
    type Err = TemplateError;
    fn from_str(source: &str) -> Result<Self, TemplateError> {
        let mut pieces = Vec::new();
        let mut text = String::new();
        let mut rest = source;
        while let Some(at) = rest.find('$') {
            text.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('$') {
                text.push('$');
                rest = after;
            } else if let Some(after) = rest.strip_prefix('{') {
                let end = after.find('}').ok_or(TemplateError::Open)?;
                if !text.is_empty() {
                    pieces.push(Piece::Text(std::mem::take(&mut text)));
                }
                pieces.push(reference(&after[..end])?);
                rest = &after[end + 1..];
            } else {
                // A lone `$` stands for itself: shells and regular expressions use it, and only `${…}` is ours.
                text.push('$');
            }
        }
        text.push_str(rest);
        if !text.is_empty() {
            pieces.push(Piece::Text(text));
        }
        Ok(Self(pieces))
    }
}

fn reference(inner: &str) -> Result<Piece, TemplateError> {
    let wrong = || TemplateError::Reference(inner.to_owned());
    if let Some(name) = inner.strip_prefix("services.").and_then(|r| r.strip_suffix(".url")) {
        return name.parse().map(Piece::ServiceUrl).map_err(|_| wrong());
    }
    if let Some(name) = inner.strip_prefix("databases.").and_then(|r| r.strip_suffix(".file")) {
        return name.parse().map(Piece::DatabaseFile).map_err(|_| wrong());
    }
    let end = inner.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(inner.len());
    let name = inner[..end].parse::<VariableName>().map_err(|_| wrong())?;
    let rest = &inner[end..];
    let otherwise = if rest.is_empty() {
        Otherwise::Required
    } else if let Some(text) = rest.strip_prefix(":-") {
        Otherwise::Default { text: text.to_owned(), empty_too: true }
    } else if let Some(text) = rest.strip_prefix('-') {
        Otherwise::Default { text: text.to_owned(), empty_too: false }
    } else if let Some(text) = rest.strip_prefix(":?").or_else(|| rest.strip_prefix('?')) {
        Otherwise::Message(text.to_owned())
    } else if let Some(text) = rest.strip_prefix(":+").or_else(|| rest.strip_prefix('+')) {
        Otherwise::Instead(text.to_owned())
    } else {
        return Err(wrong());
    };
    Ok(Piece::Variable { name, otherwise })
}

impl fmt::Display for Template {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => formatter.write_str(&text.replace('$', "$$"))?,
                Piece::ServiceUrl(name) => write!(formatter, "${{services.{name}.url}}")?,
                Piece::DatabaseFile(name) => write!(formatter, "${{databases.{name}.file}}")?,
                Piece::Variable { name, otherwise } => match otherwise {
                    Otherwise::Required => write!(formatter, "${{{name}}}")?,
                    Otherwise::Message(text) => write!(formatter, "${{{name}:?{text}}}")?,
                    Otherwise::Default { text, empty_too: true } => write!(formatter, "${{{name}:-{text}}}")?,
                    Otherwise::Default { text, empty_too: false } => write!(formatter, "${{{name}-{text}}}")?,
                    Otherwise::Instead(text) => write!(formatter, "${{{name}:+{text}}}")?,
                },
            }
        }
        Ok(())
    }
}

impl TryFrom<String> for Template {
    type Error = TemplateError;
    fn try_from(text: String) -> Result<Self, TemplateError> {
        text.parse()
    }
}

impl From<Template> for String {
    fn from(template: Template) -> Self {
        template.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Known(BTreeMap<VariableName, String>);

    impl Lookup for Known {
        fn variable(&self, name: &VariableName) -> Option<String> {
            self.0.get(name).cloned()
        }
        fn service_url(&self, name: &ServiceName) -> Option<String> {
            Some(format!("http://{name}:80"))
        }
        fn database_file(&self, _: &DatabaseName) -> Option<String> {
            None
        }
    }

    fn resolve(text: &str) -> Result<String, Unresolved> {
        let known =
            Known([("A".parse().unwrap(), "1".to_owned()), ("E".parse().unwrap(), String::new())].into());
        text.parse::<Template>().unwrap().resolve(&known)
    }

    #[test]
    fn references_are_filled_as_compose_does() {
        assert_eq!(resolve("x${A}y").unwrap(), "x1y");
        assert_eq!(resolve("${B:-two} ${E:-empty} ${E-kept}").unwrap(), "two empty ");
        assert_eq!(resolve("${A:+set}${B:+unset}").unwrap(), "set");
        assert_eq!(resolve("$$A $ {A} cost $5").unwrap(), "$A $ {A} cost $5");
        assert_eq!(resolve("${services.api.url}/v1").unwrap(), "http://api:80/v1");
        assert!(resolve("${B}").is_err());
        assert!(resolve("${databases.main.file}").is_err());
    }

    #[test]
    fn a_template_serialises_as_it_is_written() {
        for text in ["a${B}c", "${B:-x}$$", "${services.api.url}${databases.main.file}", "${B:?why}"] {
            assert_eq!(text.parse::<Template>().unwrap().to_string(), text);
        }
    }
}

//! Identities: the names people write and the ids we give. Private fields, so that a value that breaks its rule cannot exist.

mod host;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use host::HostName;

/// Which rule a name broke.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message says it")]
pub enum NameError {
    #[error("{} {what} is not empty", article(what))]
    Empty { what: &'static str },
    #[error("{} {what} has at most {limit} characters, this one has {found}", article(what))]
    Long { what: &'static str, limit: usize, found: usize },
    #[error(
        "{} {what} begins with a lower-case letter or a digit and goes on with lower-case letters, digits, `-` or `_`; found `{found}`",
        article(what)
    )]
    Character { what: &'static str, found: char },
    #[error("`{found}` is not {} {what}", article(what))]
    Form { what: &'static str, found: String },
}

fn article(what: &str) -> &'static str {
    if what.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" }
}

fn check_label(text: &str, what: &'static str, limit: usize) -> Result<(), NameError> {
    let mut characters = text.chars();
    let first = characters.next().ok_or(NameError::Empty { what })?;
    if text.len() > limit {
        return Err(NameError::Long { what, limit, found: text.len() });
    }
    if !(first.is_ascii_lowercase() || first.is_ascii_digit()) {
        return Err(NameError::Character { what, found: first });
    }
    match characters.find(|c| !(c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_'))) {
        Some(found) => Err(NameError::Character { what, found }),
        None => Ok(()),
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal, $limit:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// The name as written.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                check_label(text, $what, $limit)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> Self {
                name.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
    };
}

name!(/** What one cutover.yml describes. */ AppName, "app name", 40);
name!(/** A named place the app runs in. */ EnvironmentName, "environment name", 30);
name!(/** A service, or a backing service. */ ServiceName, "service name", 40);
name!(/** A database of the app. */ DatabaseName, "database name", 40);
name!(/** A volume of the app. */ VolumeName, "volume name", 60);
name!(/** One immutable version: the commit's first characters, or its content's; with `-2`, `-3` … when the same commit makes another release. */ ReleaseId, "release id", 60);
name!(/** One instance: `{service}-{slot}-{replica}-{end of the run's id}`, unique within app and environment. */ InstanceName, "instance name", 90);

/// The name of a variable: letters, digits and `_`, not beginning with a digit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VariableName(String);

impl VariableName {
    /// The name as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for VariableName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let good = text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            && text.chars().next().is_some_and(|c| !c.is_ascii_digit());
        if good {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError::Form { what: "variable name", found: text.to_owned() })
        }
    }
}

impl TryFrom<String> for VariableName {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<VariableName> for String {
    fn from(name: VariableName) -> Self {
        name.0
    }
}

impl fmt::Display for VariableName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// An app in one of its environments: the unit of the lock, the table's owner, the state folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AppId {
    /// The app.
    pub app: AppName,
    /// The environment it runs in.
    pub environment: EnvironmentName,
}

impl AppId {
    /// The owner name of its entry in the route table.
    pub fn owner(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for AppId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.app, self.environment)
    }
}

impl FromStr for AppId {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let form =
            || NameError::Form { what: "app and environment (`app/environment`)", found: text.to_owned() };
        let (app, environment) = text.split_once('/').ok_or_else(form)?;
        Ok(Self { app: app.parse()?, environment: environment.parse()? })
    }
}

/// A run's identity, made by the client (S12): a version 7 UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(uuid::Uuid);

impl RunId {
    /// Wraps an id made elsewhere; the core makes none.
    pub fn new(id: uuid::Uuid) -> Self {
        Self(id)
    }

    /// The last eight hexadecimal digits: the random end, for names of instances.
    pub fn short(&self) -> String {
        let text = self.0.simple().to_string();
        text[text.len() - 8..].to_owned()
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl FromStr for RunId {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        uuid::Uuid::parse_str(text)
            .map(Self)
            .map_err(|_| NameError::Form { what: "run id", found: text.to_owned() })
    }
}

/// The colour a release's instances wear.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Slot {
    /// The first colour.
    Blue,
    /// The other colour.
    Green,
}

impl Slot {
    /// The other colour: where the next release starts.
    #[must_use]
    pub fn idle(self) -> Self {
        match self {
            Self::Blue => Self::Green,
            Self::Green => Self::Blue,
        }
    }

    /// The colour's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Blue => "blue",
            Self::Green => "green",
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for Slot {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        match text {
            "blue" => Ok(Self::Blue),
            "green" => Ok(Self::Green),
            _ => Err(NameError::Form { what: "slot (`blue` or `green`)", found: text.to_owned() }),
        }
    }
}

/// The name of an instance of a service: planned, so that its creation can be repeated.
///
/// # Errors
/// When the parts together are longer than an instance's name may be.
pub fn instance_name(
    service: &ServiceName,
    slot: Slot,
    replica: u32,
    run: RunId,
) -> Result<InstanceName, NameError> {
    format!("{service}-{slot}-{replica}-{}", run.short()).parse()
}

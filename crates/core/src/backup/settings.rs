//! What people want of backups.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use std::time::Duration;

use jiff::civil::Time;
use serde::{Deserialize, Serialize};

use crate::names::{DatabaseName, ServiceName, VolumeName};
use crate::template::Template;

/// `backup:` of one environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupSettings {
    /// Where the repository lies.
    pub to: Target,
    /// What it is encrypted with: a reference; never a value.
    pub password: Template,
    /// Who we are to an S3 server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<Access>,
    /// From one to the next.
    #[serde(with = "crate::millis")]
    pub every: Duration,
    /// The time of day (UTC) of those that come in whole days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
    /// What stays.
    pub keep: Keep,
    /// How often the newest is put back for a trial; `None`: when somebody asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drill: Option<Drill>,
    /// Volumes that are copied while nothing changes them, and what sees to that; all others are taken from where they lie.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<VolumeName, Still>,
}

/// What keeps a volume as it is while it is copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum Still {
    /// The app itself does, told by commands in a running instance of a service.
    Hook {
        /// Which service.
        service: ServiceName,
        /// Comes before the copy.
        before: Vec<String>,
        /// Comes after it, however it went; empty: nothing does.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        after: Vec<String>,
        /// From the beginning of `before` to the end of the copy at most; as long again for `after`.
        #[serde(with = "crate::millis")]
        timeout: Duration,
    },
    /// All instances of these services are paused.
    Pause {
        /// Which services.
        services: BTreeSet<ServiceName>,
        /// So long at most.
        #[serde(with = "crate::millis")]
        timeout: Duration,
    },
}

impl Still {
    /// The services that it needs.
    pub fn services(&self) -> Vec<&ServiceName> {
        match self {
            Self::Hook { service, .. } => vec![service],
            Self::Pause { services, .. } => services.iter().collect(),
        }
    }
}

/// A trial of the newest backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drill {
    /// From one to the next; `None`: when somebody asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "crate::millis::option")]
    pub every: Option<Duration>,
    /// What each database is asked once it is back: the first value of the answer is neither nothing, nor zero, nor false.
    pub checks: BTreeMap<DatabaseName, Vec<String>>,
}

impl BackupSettings {
    /// Everything in it that refers to a secret.
    pub fn templates(&self) -> impl Iterator<Item = &Template> {
        let access = self.access.iter().flat_map(|access| [&access.key, &access.secret]);
        std::iter::once(&self.password).chain(access)
    }
}

/// Who we are to an S3 server: references; never values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// The access key's id.
    pub key: Template,
    /// Its secret.
    pub secret: Template,
}

/// Which backups stay: the newest of so many days, weeks and months that have one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keep {
    /// Days.
    pub daily: u32,
    /// Weeks.
    pub weekly: u32,
    /// Months.
    pub monthly: u32,
}

impl Default for Keep {
    fn default() -> Self {
        Self { daily: 7, weekly: 4, monthly: 6 }
    }
}

/// Where a repository lies, as restic takes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Target(String);

impl Target {
    /// As restic takes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The folder, where it lies on the host itself.
    pub fn folder(&self) -> Option<&str> {
        self.0.starts_with('/').then_some(&self.0)
    }

    /// Whether an S3 server has it.
    pub fn is_s3(&self) -> bool {
        self.0.starts_with("s3:")
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = text.starts_with('/') || text.starts_with("sftp:") || text.starts_with("s3:");
        if !known {
            return Err(format!(
                "`{text}` is no place for backups: a folder of the host begins with `/`, others with `sftp:` or `s3:`"
            ));
        }
        if text.split(['/', ':']).any(|part| part == "..") {
            return Err(format!("`{text}` has `..` in it"));
        }
        if text.trim_end_matches('/').is_empty() {
            return Err("`/` is the whole host; name a folder".to_owned());
        }
        if text.contains(char::is_whitespace) || text.contains(char::is_control) {
            return Err(format!("`{text}` has a space in it"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for Target {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Target> for String {
    fn from(target: Target) -> Self {
        target.0
    }
}

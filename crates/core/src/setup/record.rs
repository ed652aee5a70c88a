//! What setup did on a host, kept there: what other apps on it need stays open, and `teardown` undoes no more than was done.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::wanted::{Ingress, Wanted};
use crate::names::AppId;

/// The format's version.
pub const RECORD_VERSION: u32 = 1;

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// [`RECORD_VERSION`].
    pub version: u32,
    /// For whom: by app and environment, as they are written.
    #[serde(default)]
    pub apps: BTreeMap<String, AppSetup>,
    /// Files that were written, and are nobody else's.
    #[serde(default)]
    pub files: BTreeSet<String>,
    /// Keys that were added to the engine's own file, with what they were set to.
    #[serde(default)]
    pub engine_keys: BTreeMap<String, String>,
    /// Packages that were installed.
    #[serde(default)]
    pub packages: BTreeSet<String>,
    /// Units that were enabled.
    #[serde(default)]
    pub units: BTreeSet<String>,
    /// The account of the deploy user is one that was made here.
    #[serde(default)]
    pub user: bool,
}

/// What an app needs of the host's firewall.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppSetup {
    /// Requests from outside.
    pub ingress: Ingress,
    /// Further ports.
    pub open: BTreeSet<u16>,
    /// Further UDP ports.
    #[serde(default)]
    pub open_udp: BTreeSet<u16>,
}

impl Default for Record {
    fn default() -> Self {
        Self {
            version: RECORD_VERSION,
            apps: BTreeMap::new(),
            files: BTreeSet::new(),
            engine_keys: BTreeMap::new(),
            packages: BTreeSet::new(),
            units: BTreeSet::new(),
            user: false,
        }
    }
}

impl Record {
    /// Without an app that needs this host no longer.
    #[must_use]
    pub fn without(&self, app: &AppId) -> Self {
        let mut record = self.clone();
        record.apps.remove(&app.to_string());
        record
    }

    /// With what is wanted now in the place of what was.
    #[must_use]
    pub fn with(&self, wanted: &Wanted) -> Self {
        let mut record = self.clone();
        let (open, open_udp) = (wanted.settings.open.clone(), wanted.settings.open_udp.clone());
        record.apps.insert(wanted.app.to_string(), AppSetup { ingress: wanted.ingress, open, open_udp });
        record
    }
}

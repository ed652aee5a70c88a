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

    /// With an app that is deployed here and was never set up; one that was keeps what it said it needs.
    #[must_use]
    pub fn with_deployed(mut self, app: &AppId, ingress: Ingress) -> Self {
        self.apps.entry(app.to_string()).or_insert_with(|| AppSetup {
            ingress,
            open: BTreeSet::new(),
            open_udp: BTreeSet::new(),
        });
        self
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_that_was_only_deployed_counts_and_one_that_was_set_up_keeps_its_needs() {
        let (shop, blog): (AppId, AppId) =
            ("shop/production".parse().unwrap(), "blog/production".parse().unwrap());
        let needs = AppSetup { ingress: Ingress::None, open: [8443].into(), open_udp: BTreeSet::new() };
        let apps = BTreeMap::from([(shop.to_string(), needs.clone())]);
        let record = Record { apps, ..Record::default() };

        let record = record.with_deployed(&shop, Ingress::Routes).with_deployed(&blog, Ingress::Routes);

        assert_eq!(record.apps[&shop.to_string()], needs);
        assert_eq!(record.apps[&blog.to_string()].ingress, Ingress::Routes);
    }
}

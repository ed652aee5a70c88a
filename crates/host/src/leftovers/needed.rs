//! What releases of all apps and runs that are to come need (S26).

use std::collections::BTreeSet;

use cutover_core::hash::ContentHash;
use cutover_core::layout::{self, Layout};
use cutover_core::names::{AppId, ReleaseId, RunId, ServiceName};
use cutover_core::release::{Content, Live, Release};

use crate::journal::Trouble;
use crate::lease::{Lease, Leased};
use crate::lock::RetentionLock;
use crate::observe::live_on_disk;
use crate::store::{Store, apps_on_disk};

/// All that is needed, by whomever.
pub(crate) struct Needed {
    /// Releases on record, of all apps.
    pub(crate) releases: Vec<Release>,
    /// What somebody has a lease of.
    pub(crate) leased: Leased,
    /// Whether the live release of every app is on record: else it is not known what all of it needs (S25).
    complete: bool,
}

impl Needed {
    /// As it is now, but for the releases of `app` that are `going`.
    ///
    /// # Errors
    /// When some of it cannot be read.
    pub(crate) fn read(
        layout: &Layout,
        store: &Store,
        app: &AppId,
        going: &BTreeSet<ReleaseId>,
    ) -> Result<Self, Trouble> {
        let alone = RetentionLock::take(layout)?;
        let mut needed = Self::under(&alone, layout, store, None)?;
        needed.releases.retain(|release| release.app != *app || !going.contains(&release.id));
        Ok(needed)
    }

    /// As it stays for as long as nobody may say that he needs something. What run `own` has brought is needed by its release, or not at all.
    ///
    /// # Errors
    /// When some of it cannot be read.
    pub(crate) fn under(
        alone: &RetentionLock,
        layout: &Layout,
        store: &Store,
        own: Option<RunId>,
    ) -> Result<Self, Trouble> {
        let mut releases = Vec::new();
        for app in store.apps()? {
            releases.extend(store.releases(&app)?.into_iter().map(|record| record.release));
        }
        let unfinished = store.all_unfinished()?.into_iter().map(|(_, run)| run);
        let unfinished = unfinished.filter(|run| Some(*run) != own).collect();
        let complete = are_on_record(layout, &releases)?;
        Ok(Self { releases, leased: Lease::all(alone, layout, &unfinished, own)?, complete })
    }

    /// The artifacts among it; `None`: that is not known, so that none may go.
    pub(crate) fn artifacts(&self) -> Option<BTreeSet<ContentHash>> {
        let of_releases = self.releases.iter().flat_map(Release::artifacts);
        let all = || of_releases.chain(self.leased.artifacts.iter().cloned()).collect();
        self.complete.then(all)
    }

    /// Whether a release on record has an image of this service that was built: it may have been built here, and may be again.
    pub(crate) fn is_built(&self, app: &AppId, service: &ServiceName) -> bool {
        let of_app = self.releases.iter().filter(|release| release.app == *app);
        let mut contents = of_app.flat_map(|release| {
            let services = release.services.get(service).map(|service| &service.content);
            services.into_iter().chain(release.backing.get(service).map(|backing| &backing.content))
        });
        contents.any(|content| match content {
            Content::Image { name, .. } => {
                name.as_deref().and_then(layout::app_of_built_image).is_some_and(|built| built == *app)
            }
            Content::Artifact { .. } => false,
        })
    }

    /// Whether all that lives is on record.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete
    }

    /// Whether somebody brings something now, or has brought it for a run that has not ended.
    pub(crate) fn is_leased(&self) -> bool {
        !(self.leased.images.is_empty() && self.leased.artifacts.is_empty())
    }
}

fn are_on_record(layout: &Layout, releases: &[Release]) -> Result<bool, Trouble> {
    for app in apps_on_disk(layout) {
        let live = live_on_disk(layout, &app)
            .map_err(|failure| Trouble::plain(format!("what {app} needs is not known: {}", failure.what)))?;
        let is_on_record =
            |live: &Live| releases.iter().any(|release| release.app == app && release.id == live.release);
        if !live.as_ref().is_none_or(is_on_record) {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use cutover_core::names::Slot;

    use super::*;

    #[test]
    fn where_something_lives_that_is_on_no_record_nothing_is_known_to_be_needless() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::under(folder.path());
        let store = Store::open(&layout).unwrap();
        let [shop, blog]: [AppId; 2] = ["shop/local", "blog/local"].map(|name| name.parse().unwrap());
        let needed = || Needed::read(&layout, &store, &shop, &BTreeSet::new()).unwrap().artifacts();
        assert_eq!(needed(), Some(BTreeSet::new()));

        let live = Live {
            release: "7f3c9e1".parse().unwrap(),
            slot: Slot::Blue,
            run: RunId::new(uuid::Uuid::nil()),
            members: std::collections::BTreeMap::new(),
            stopped: BTreeSet::new(),
            repository: None,
        };
        fs::create_dir_all(layout.app(&blog)).unwrap();
        fs::write(layout.live_file(&blog), serde_json::to_vec(&live).unwrap()).unwrap();

        assert_eq!(needed(), None);
    }
}

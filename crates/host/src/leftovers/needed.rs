//! What releases of all apps and runs that are to come need (S26).

use std::collections::BTreeSet;

use cutover_core::hash::ContentHash;
use cutover_core::layout::Layout;
use cutover_core::names::{AppId, ReleaseId, RunId};
use cutover_core::release::Release;

use crate::journal::Trouble;
use crate::lease::{Lease, Leased};
use crate::lock::RetentionLock;
use crate::store::Store;

/// All that is needed, by whomever.
pub(crate) struct Needed {
    /// Releases on record, of all apps.
    pub(crate) releases: Vec<Release>,
    /// What somebody has a lease of.
    pub(crate) leased: Leased,
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
        Ok(Self { releases, leased: Lease::all(alone, layout, &unfinished)? })
    }

    /// The artifacts among it.
    pub(crate) fn artifacts(&self) -> BTreeSet<ContentHash> {
        let of_releases = self.releases.iter().flat_map(Release::artifacts);
        of_releases.chain(self.leased.artifacts.iter().cloned()).collect()
    }

    /// Whether somebody brings something now, or has brought it for a run that has not ended.
    pub(crate) fn is_leased(&self) -> bool {
        !(self.leased.images.is_empty() && self.leased.artifacts.is_empty())
    }
}

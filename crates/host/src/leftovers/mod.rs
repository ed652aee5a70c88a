//! What lies on this host and is needed by nothing: looked for before a plan is made, and again before any of it goes. What needs what is decided
//! by [`cutover_core::retention`]; here it is looked at, and taken away.

mod disk;
mod needed;
mod remove;

use std::collections::BTreeSet;
use std::sync::Arc;

use cutover_core::layout::{self, Layout};
use cutover_core::names::{AppId, ReleaseId};
use cutover_core::release::RuntimeKind;
use cutover_core::retention::{ImageNeeds, Leftovers, unneeded_images, unneeded_releases};
use cutover_core::state::{HostState, InstanceState, Role};

use crate::blocking::blocking;
use crate::journal::Trouble;
use crate::ports::Ports;
use crate::store::Store;

pub(crate) use disk::{forget_torn_snapshots, names, old_snapshots};
pub(crate) use needed::Needed;
pub(crate) use remove::{forget_contexts, forget_release, remove, remove_folder};

/// Where it is looked, and for whom.
#[derive(Clone)]
pub(crate) struct Place<'a> {
    pub(crate) layout: &'a Layout,
    pub(crate) store: &'a Arc<Store>,
    pub(crate) ports: &'a Ports,
    pub(crate) app: &'a AppId,
}

/// What goes before anything else does, and needs nothing from then on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Going {
    pub(crate) releases: BTreeSet<ReleaseId>,
    /// Names of containers.
    pub(crate) containers: BTreeSet<String>,
    /// Releases of which something is there, on record or not: they do not go.
    pub(crate) carried: BTreeSet<ReleaseId>,
}

impl Going {
    /// What a prune takes away of an app as it is now.
    pub(crate) fn of(state: &HostState) -> Self {
        let is_live = |name| state.live.as_ref().is_none_or(|live| live.has(name));
        let candidates = state.instances.iter().filter(|found| {
            found.ours
                && found.role == Role::Service
                && found.runtime == RuntimeKind::Container
                && matches!(found.state, InstanceState::Exited { .. } | InstanceState::Created)
                && !is_live(&found.name)
        });
        Self {
            releases: unneeded_releases(state).into_iter().collect(),
            containers: candidates.map(|found| layout::container(&state.app, &found.name)).collect(),
            carried: state.instances.iter().map(|found| found.release.clone()).collect(),
        }
    }
}

impl Place<'_> {
    /// What nothing needs, once `going` is gone.
    ///
    /// # Errors
    /// When something that may be needed cannot be looked at: then nothing is known to be needed by nobody.
    pub(crate) async fn look(&self, going: &Going) -> Result<Leftovers, Trouble> {
        let (layout, store, app) = (self.layout.clone(), Arc::clone(self.store), self.app.clone());
        let all = going.clone();
        let (needed, gone) = blocking(move || {
            let needed = Needed::read(&layout, &store, &app, &all.releases)?;
            let gone = disk::look(&layout, &store, &app, &all, &needed)?;
            Ok::<_, Trouble>((needed, gone))
        })
        .await
        .map_err(|error| Trouble::plain(error.to_string()))??;
        let images = self.images(going, &needed).await?;
        let mut all = Leftovers { gone, stays: images.stays };
        all.gone.extend(images.gone);
        // By kind, and as they were found within one.
        all.gone.sort_by_key(|one| one.kind);
        Ok(all)
    }

    async fn images(&self, going: &Going, needed: &Needed) -> Result<Leftovers, Trouble> {
        let Some(runtime) = &self.ports.container else { return Ok(Leftovers::default()) };
        let mut images = runtime.images(self.app).await?;
        for image in &mut images {
            image.users.retain(|user| !going.containers.contains(user));
        }
        let needs = ImageNeeds { app: self.app, releases: &needed.releases, leased: &needed.leased.images };
        Ok(unneeded_images(&images, needs))
    }
}

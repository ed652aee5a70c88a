//! Carrying out what was decided, under the app's lock. The first act that fails ends the rest: the next look decides anew.

use std::time::Duration;

use cutover_core::config::settings::StopSettings;
use cutover_core::layout::Layout;
use cutover_core::names::{AppId, InstanceName};
use cutover_core::state::{FoundInstance, InstanceState, RestartPolicy};
use cutover_routes::{Entry, RouteState};

use super::decide::Act;
use super::memory::{Memory, Now};
use super::seen::Seen;
use crate::ports::{Certainty, Ports, RouterError, RouterErrorKind, Runtime, RuntimeError, RuntimeErrorKind};
use crate::store::{Store, StoreError};

/// Tries of a replacement that others' changes keep overtaking.
const TRIES: u32 = 10;

/// For the removal of one that has ended: what takes longer is tried again later, and the lock is let go.
const REMOVAL: Duration = Duration::from_secs(10);

/// Why an act failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ActError {
    /// A runtime.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The proxy.
    #[error(transparent)]
    Router(#[from] RouterError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Somebody else changed the app's own entry, which only the holder of the lock may.
    #[error("the app's entry in the route table was changed by somebody else")]
    Entry,
}

/// What acts need.
pub(super) struct Hands<'a> {
    pub(super) ports: &'a Ports,
    pub(super) store: &'a Store,
    pub(super) layout: &'a Layout,
    pub(super) app: &'a AppId,
}

impl Hands<'_> {
    /// Carries out all, in order.
    pub(super) async fn carry_out(
        &self,
        acts: &[Act],
        seen: &Seen,
        memory: &mut Memory,
        now: Now,
    ) -> Result<(), ActError> {
        for act in acts {
            tracing::info!(app = %self.app, ?act, "watch acts");
            self.one(act, seen, memory, now).await?;
        }
        Ok(())
    }

    async fn one(&self, act: &Act, seen: &Seen, memory: &mut Memory, now: Now) -> Result<(), ActError> {
        match act {
            Act::Admit { instance } => {
                let runtime = self.ports.runtime(found(seen, instance)?.runtime)?;
                runtime.set_restart(self.app, instance, RestartPolicy::UnlessStopped).await?;
            }
            Act::Routes { entry } => {
                self.replace(seen.entry.as_ref(), entry).await?;
                settle_for_what_serves(entry, seen, memory);
            }
            Act::Quiet { instance, limit } => {
                let targets = [instance.to_string()];
                let drained = self.ports.router.drain(&targets, *limit / 4, *limit, true).await;
                if let Err(error) = drained {
                    tracing::warn!(app = %self.app, %instance, %error, "it is restarted with requests inside");
                }
            }
            Act::Start { instance } => self.start(found(seen, instance)?, memory, now).await?,
            Act::Restart { instance, stop } => {
                let instance = found(seen, instance)?;
                let runtime = self.ports.runtime(instance.runtime)?;
                runtime.stop(self.app, &instance.name, stop).await?;
                self.start(instance, memory, now).await?;
            }
            Act::Retire { instance, stop } => {
                let runtime = self.ports.runtime(found(seen, instance)?.runtime)?;
                // What stays is in nobody's way: no reason to leave something else undone.
                if let Err(error) = self.retire(runtime.as_ref(), instance, stop).await {
                    tracing::warn!(app = %self.app, %instance, %error, "it cannot be put away");
                    memory.stays(instance, Now::look());
                }
            }
            Act::Cool { release } => self.store.set_warm(self.app, release, None)?,
        }
        Ok(())
    }

    async fn retire(
        &self,
        runtime: &dyn Runtime,
        instance: &InstanceName,
        stop: &StopSettings,
    ) -> Result<(), RuntimeError> {
        runtime.set_restart(self.app, instance, RestartPolicy::No).await?;
        runtime.stop(self.app, instance, stop).await?;
        let removed = tokio::time::timeout(REMOVAL, runtime.remove(self.app, instance)).await;
        removed.unwrap_or_else(|_| {
            let text = format!("its removal takes longer than {} s", REMOVAL.as_secs());
            Err(RuntimeError::new(RuntimeErrorKind::Late, Certainty::Unknown, text))
        })
    }

    /// One that does not start keeps nobody else from being started.
    async fn start(&self, instance: &FoundInstance, memory: &mut Memory, now: Now) -> Result<(), ActError> {
        let runtime = self.ports.runtime(instance.runtime)?;
        let outcome = runtime.start(self.app, &instance.name).await;
        if let Err(error) = &outcome {
            tracing::warn!(app = %self.app, instance = %instance.name, %error, log = %self.layout.instance_log(self.app, &instance.name).display(), "it does not start");
        }
        memory.started(&instance.name, now, outcome.err().map(|error| error.message));
        Ok(())
    }

    /// Replaces the app's own entry. A lost compare-and-swap is tried again while only others' entries differ (S2).
    async fn replace(&self, expect: Option<&Entry>, entry: &Entry) -> Result<(), ActError> {
        let owner = self.app.owner();
        for _ in 0..TRIES {
            let served = self.ports.router.read().await?;
            if served.table.owners.get(&owner) != expect {
                return Err(ActError::Entry);
            }
            let mut table = served.table;
            table.owners.insert(owner.clone(), entry.clone());
            match self.ports.router.replace(&served.hash, &table).await {
                Ok(_) => return Ok(()),
                Err(error) if error.kind == RouterErrorKind::Moved => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(ActError::Entry)
    }
}

fn found<'a>(seen: &'a Seen, name: &InstanceName) -> Result<&'a FoundInstance, ActError> {
    seen.instances.get(name).ok_or_else(|| {
        RuntimeError::new(
            crate::ports::RuntimeErrorKind::Gone,
            crate::ports::Certainty::NotDone,
            format!("`{name}` is gone"),
        )
        .into()
    })
}

/// What gets requests counts as proved from here on, be it because a hold ended before its gate was passed.
fn settle_for_what_serves(entry: &Entry, seen: &Seen, memory: &mut Memory) {
    let serving = entry.routes.iter().filter_map(|route| match &route.state {
        RouteState::Serving { targets } => Some(targets),
        RouteState::Held { .. } | RouteState::Closed { .. } => None,
    });
    for target in serving.flatten() {
        let instance = seen.instances.values().find(|instance| instance.name.as_str() == target.id);
        if let Some(FoundInstance { name, state: InstanceState::Running { since, .. }, .. }) = instance {
            memory.prove(name, *since);
        }
    }
}

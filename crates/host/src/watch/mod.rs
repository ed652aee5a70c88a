//! `cutover-host watch`: keeps instances and routes true after crash and reboot, settles runs that died, probes health, removes orphans.
//!
//! One a root, by lock. It changes an app only under that app's lock (S8), and nothing before it has seen all that is live (S4a). Every
//! change it makes follows from a look by [`decide`]; exits, keepers that die, and locks that are let go are heard, not polled; and every
//! [`cutover_core::defaults::WATCH`] it looks by itself, because what is heard may be lost (S22).

mod act;
mod app;
mod attend;
mod backups;
mod changes;
mod decide;
#[cfg(test)]
pub(crate) mod fake;
mod health;
mod memory;
mod routes;
mod seen;
mod settle;
mod told;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use cutover_core::layout::Layout;
use cutover_core::names::AppId;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::host::{Host, HostError};
use crate::lock::{LockError, ProcessLock};
use crate::ports::Ports;
use crate::store::samples::Samples;
use crate::store::{Store, StoreError};

use app::AppWatch;
pub use app::HOLDER;
use backups::Backups;
use changes::LockChanges;
use memory::Now;
use settle::{Settler, Settling};

/// Makes the ports anew: an engine that did not answer may answer now.
pub type Connect = Box<dyn Fn() -> BoxFuture<'static, Option<Ports>> + Send + Sync>;

/// Why watch cannot work.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// Another watches this root.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The installation.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system refused something it should not.
    #[error("{0}")]
    System(#[from] std::io::Error),
}

/// `cutover-host watch`: watches an installation until it is told to end (SIGTERM, SIGINT).
///
/// # Errors
/// When another watches it, or it cannot be opened.
pub async fn run(layout: Layout) -> Result<(), WatchError> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let _lock = ProcessLock::take(&layout, "watch")?;
    let host = Host::open(layout.clone()).await?;
    let again = layout.clone();
    let connect: Connect = Box::new(move || {
        let layout = again.clone();
        Box::pin(async move { Host::open(layout).await.ok().map(|host| host.ports) })
    });
    let watch = Watch::new(layout, host.store, host.ports, connect)?;
    tokio::select! {
        // Whoever keeps it up starts it again, and it opens what is there then.
        () = watch.run() => tracing::warn!("the store is not what it was: watch begins anew"),
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// What the watches over all apps share.
struct Shared {
    layout: Layout,
    store: Arc<Store>,
    samples: Samples,
    ports: Mutex<Ports>,
    connect: Connect,
}

impl Shared {
    fn ports(&self) -> Ports {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tries again to find an engine; `true`: there is one now.
    async fn reconnect(&self) -> bool {
        if self.ports().container.is_some() {
            return false;
        }
        let Some(ports) = (self.connect)().await.filter(|ports| ports.container.is_some()) else {
            return false;
        };
        *self.ports.lock().unwrap_or_else(PoisonError::into_inner) = ports;
        true
    }
}

impl Now {
    /// By both clocks of this machine.
    fn look() -> Self {
        Self { wall: Timestamp::now(), steady: Instant::now() }
    }
}

/// The watch over one installation.
pub struct Watch {
    shared: Arc<Shared>,
    settler: Settler,
    changes: LockChanges,
}

impl Watch {
    /// Over everything in `layout`, by `ports`; `connect` makes them anew where no engine answered.
    ///
    /// # Errors
    /// When locks cannot be listened to, or samples not be kept.
    pub fn new(
        layout: Layout,
        store: Arc<Store>,
        ports: Ports,
        connect: Connect,
    ) -> Result<Self, WatchError> {
        let changes = LockChanges::new(&layout)?;
        let samples = Samples::open(&layout)?;
        let of = layout.clone();
        let settler: Settler = Box::new(move |app| settle::spawn(&of, app));
        let shared = Shared { layout, store, samples, ports: Mutex::new(ports), connect };
        Ok(Self { shared: Arc::new(shared), settler, changes })
    }

    /// Watches until dropped.
    pub async fn run(self) {
        let mut apps: BTreeMap<AppId, Arc<Notify>> = BTreeMap::new();
        let mut watches: JoinSet<AppId> = JoinSet::new();
        let mut settling = Settling::default();
        let mut backups = Backups::by_processes(&self.shared.layout);
        loop {
            if !self.shared.store.is_current(&self.shared.layout) {
                return;
            }
            self.find(&mut apps, &mut watches);
            let pause = settling.pass(&self.shared.layout, &self.shared.store, &self.settler);
            backups.pass(&self.shared.layout, &self.shared.store, &self.shared.ports());
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                let_go = self.changes.next() => match let_go {
                    Ok(names) => {
                        wake(&apps, &names);
                        backups.wake();
                    }
                    Err(error) => {
                        tracing::warn!(%error, "locks cannot be listened to");
                        tokio::time::sleep(pause).await;
                    }
                },
                Some(gone) = watches.join_next() => {
                    if let Ok(app) = gone {
                        apps.remove(&app);
                    }
                }
            }
        }
    }

    /// Begins to watch apps that were not known yet.
    fn find(&self, apps: &mut BTreeMap<AppId, Arc<Notify>>, watches: &mut JoinSet<AppId>) {
        let known = match self.shared.store.apps() {
            Ok(known) => known,
            Err(error) => {
                tracing::warn!(%error, "apps cannot be looked for");
                return;
            }
        };
        for app in known {
            if apps.contains_key(&app) {
                continue;
            }
            let bell = Arc::new(Notify::new());
            apps.insert(app.clone(), Arc::clone(&bell));
            let watch = AppWatch::new(Arc::clone(&self.shared), app.clone());
            watches.spawn(async move {
                watch.run(bell).await;
                app
            });
        }
    }
}

/// Rings for the apps whose locks were let go.
fn wake(apps: &BTreeMap<AppId, Arc<Notify>>, let_go: &[String]) {
    for (app, bell) in apps {
        let name = format!("{}.{}.lock", app.app, app.environment);
        if let_go.contains(&name) {
            bell.notify_one();
        }
    }
}

#[cfg(test)]
mod tests;

//! The ports of the simulated host. Every call is a fault point; every act can be repeated, as the real ones can.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use cutover_core::config::settings::{ServerKind, Verify};
use cutover_core::gate::{Check, Finding, Probe};
use cutover_core::hash::ContentHash;
use cutover_core::names::RunId;
use cutover_core::plan::RouteCheck;
use cutover_core::release::RuntimeKind;
use cutover_core::state::FoundTable;
use cutover_host::meter::Meter;
use cutover_host::ports::{
    Account, Alone, Certainty, Content, Database, DatabaseError, Drained, Located, LockSamples, NotAlone,
    Ports, ProbeTarget, Prober, Router, RouterError, RouterErrorKind, RuntimeError, RuntimeErrorKind, Server,
    ServerState, Taken,
};
use cutover_host::store::Store;
use cutover_routes::figures::{Figures, TargetFigures};
use cutover_routes::{RouteTable, TableHash};
use tokio::sync::Notify;

use super::carrier::Carrier;
use super::faults::Fault;
use super::machine::Machine;
use super::site::SALT;
use super::world::{World, schema};

/// All ports of a simulated host, as one run uses them.
#[derive(Clone)]
pub(crate) struct Simulated {
    pub(crate) machine: Arc<Mutex<Machine>>,
    /// Rings when the process dies.
    pub(crate) died: Arc<Notify>,
    /// Rings at each change of the host.
    pub(crate) changed: Arc<Notify>,
    /// Where a cancel is asked for.
    store: Arc<Store>,
    run: RunId,
}

/// An act failed; whether it may have happened.
pub(crate) struct Failed(Certainty);

impl Simulated {
    pub(crate) fn new(machine: Arc<Mutex<Machine>>, store: Arc<Store>, run: RunId) -> Self {
        Self { machine, died: Arc::new(Notify::new()), changed: Arc::new(Notify::new()), store, run }
    }

    pub(crate) fn ports(&self) -> Ports {
        let own = Arc::new(self.clone());
        let carrier = |kind| Arc::new(Carrier { sim: self.clone(), kind });
        Ports {
            process: carrier(RuntimeKind::Process),
            container: Some(carrier(RuntimeKind::Container)),
            router: own.clone(),
            database: own.clone(),
            prober: own,
            meter: Meter::default(),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn die(&self) -> ! {
        self.died.notify_one();
        Self::hang().await
    }

    async fn hang() -> ! {
        loop {
            std::future::pending::<()>().await;
        }
    }

    fn cancel(&self) -> Result<(), Failed> {
        self.store.ask_cancel(self.run, "sweep").map_err(|_| Failed(Certainty::NotDone))
    }

    /// An act with an effect: the fault decides whether and when it lands.
    pub(crate) async fn act<T: Send + 'static>(
        &self,
        effect: impl FnOnce(&mut World) -> T + Send + 'static,
    ) -> Result<T, Failed> {
        let fault = self.lock().call();
        match fault {
            Some(Fault::Fail) => return Err(Failed(Certainty::NotDone)),
            Some(Fault::Hang) => Self::hang().await,
            Some(Fault::CrashBefore) => self.die().await,
            Some(Fault::Late) => {
                self.lock().lands_later(move |world| drop(effect(world)));
                return Err(Failed(Certainty::Unknown));
            }
            Some(Fault::Cancel) => self.cancel()?,
            None | Some(Fault::CrashAfter | Fault::PowerLoss) => {}
        }
        let value = effect(&mut self.lock().world);
        self.changed.notify_waiters();
        self.die_after(fault).await;
        Ok(value)
    }

    /// A look: no effect to land late.
    pub(crate) async fn see<T>(&self, read: impl FnOnce(&mut World) -> T) -> Result<T, Failed> {
        let fault = self.lock().call();
        match fault {
            Some(Fault::Fail | Fault::Late) => return Err(Failed(Certainty::NotDone)),
            Some(Fault::Hang) => Self::hang().await,
            Some(Fault::CrashBefore) => self.die().await,
            Some(Fault::Cancel) => self.cancel()?,
            None | Some(Fault::CrashAfter | Fault::PowerLoss) => {}
        }
        let value = read(&mut self.lock().world);
        self.die_after(fault).await;
        Ok(value)
    }

    async fn die_after(&self, fault: Option<Fault>) {
        match fault {
            Some(Fault::CrashAfter) => self.die().await,
            Some(Fault::PowerLoss) => {
                self.lock().world.lose_power();
                self.die().await;
            }
            _ => {}
        }
    }
}

impl From<Failed> for RuntimeError {
    fn from(failed: Failed) -> Self {
        RuntimeError::new(RuntimeErrorKind::Other, failed.0, "a fault was put here")
    }
}

impl From<Failed> for RouterError {
    fn from(failed: Failed) -> Self {
        RouterError {
            kind: RouterErrorKind::Unreachable,
            certainty: failed.0,
            message: "a fault was put here".to_owned(),
        }
    }
}

impl From<Failed> for DatabaseError {
    fn from(failed: Failed) -> Self {
        DatabaseError { full: false, certainty: failed.0, message: "a fault was put here".to_owned() }
    }
}

#[async_trait]
impl Router for Simulated {
    async fn read(&self) -> Result<FoundTable, RouterError> {
        Ok(self.see(|world| FoundTable { hash: world.hash(), table: world.table.clone() }).await?)
    }

    async fn replace(&self, expect: &TableHash, table: &RouteTable) -> Result<TableHash, RouterError> {
        let (expect, table) = (expect.clone(), table.clone());
        let replaced = self.act(move |world| {
            if world.hash() != expect {
                return None;
            }
            world.table = table;
            // What the table points at is asked at once.
            world.traffic();
            Some(world.hash())
        });
        let moved = || RouterError {
            kind: RouterErrorKind::Moved,
            certainty: Certainty::NotDone,
            message: "another table is served".into(),
        };
        replaced.await?.ok_or_else(moved)
    }

    async fn drain(&self, _: &[String], _: Duration, _: Duration, _: bool) -> Result<Drained, RouterError> {
        Ok(self.see(|_| Drained { left: 0, closed: 0 }).await?)
    }

    async fn figures(&self) -> Result<Figures, RouterError> {
        let (boots, counted) = self.see(|world| (world.boots, world.answers.clone())).await?;
        let target = |(answers, errors): (u64, u64)| TargetFigures {
            answers: [("2xx".to_owned(), answers - errors), ("5xx".to_owned(), errors)].into(),
            ..TargetFigures::default()
        };
        let targets = counted.into_iter().map(|(name, counts)| (name, target(counts))).collect();
        Ok(Figures { started: format!("start {boots}"), targets, ..Figures::default() })
    }
}

#[async_trait]
impl Database for Simulated {
    async fn copy(&self, from: &Path, to: &Path) -> Result<u64, DatabaseError> {
        let (from, to) = (from.to_owned(), to.to_owned());
        Ok(self.act(move |_| std::fs::copy(from, to).unwrap_or_default()).await?)
    }

    async fn content(&self, file: &Path) -> Result<Content, DatabaseError> {
        let text = std::fs::read(file).unwrap_or_default();
        Ok(self.see(|_| Content([("all".to_owned(), ContentHash::of(&text))].into())).await?)
    }

    async fn snapshot(&self, of: &Located, to: &Path) -> Result<Taken, DatabaseError> {
        let (of, to) = (of.clone(), to.to_owned());
        let (bytes, hash) = self
            .act(move |world| {
                if world.loses_lock {
                    world.lock = None;
                }
                let bytes = std::fs::copy(world.file_of(&of), &to).unwrap_or_default();
                (bytes, ContentHash::of(&std::fs::read(&to).unwrap_or_default()))
            })
            .await?;
        Ok(Taken { bytes, hash: Some(hash), counts: None, loose: Vec::new() })
    }

    async fn closed(&self, database: &Located) -> Result<(), DatabaseError> {
        let closed = self.see(|world| {
            let file = world.file_of(database);
            world.nobody_has_open(&file, "about to be migrated");
        });
        Ok(closed.await?)
    }

    async fn check(&self, _: &Path, _: &Located) -> Result<Vec<String>, DatabaseError> {
        Ok(self.see(|_| Vec::new()).await?)
    }

    async fn differing(&self, snapshot: &Path, file: &Path) -> Result<u64, DatabaseError> {
        let (then, now) =
            (std::fs::read(snapshot).unwrap_or_default(), std::fs::read(file).unwrap_or_default());
        Ok(self.see(|_| u64::from(then != now)).await?)
    }

    async fn restore_beside(&self, snapshot: &Path, of: &Located, to: &str) -> Result<(), DatabaseError> {
        let (from, to) = (snapshot.to_owned(), to.to_owned());
        let Located::Server(server) = of else {
            return Ok(self.act(move |_| std::fs::copy(from, to).map(drop).unwrap_or_default()).await?);
        };
        // PostgreSQL's has its name once it is whole, the others' from the beginning.
        if server.kind != ServerKind::Postgres {
            let name = to.clone();
            let is_new = self.act(move |world| world.beside.insert(name, String::new()).is_none()).await?;
            if !is_new {
                return Err(DatabaseError::plain("it is there already"));
            }
        }
        let text = std::fs::read_to_string(from).unwrap_or_default();
        Ok(self.act(move |world| drop(world.beside.insert(to, text))).await?)
    }

    async fn restore_keeping(&self, snapshot: &Path, to: &Located) -> Result<Option<String>, DatabaseError> {
        self.restore(snapshot, to).await
    }

    async fn rehearse_restore(&self, _: &Server, _: &Path) -> Result<(), DatabaseError> {
        Ok(self.see(|_| ()).await?)
    }

    async fn roles(&self, _: &Server) -> Result<Vec<String>, DatabaseError> {
        Ok(Vec::new())
    }

    async fn make_roles(&self, _: &Server, _: &[String]) -> Result<(), DatabaseError> {
        Ok(self.see(|_| ()).await?)
    }

    async fn answer(&self, _: &Located, _: &str) -> Result<String, DatabaseError> {
        Ok(String::new())
    }

    async fn kept(&self, _: &Server) -> Result<Vec<String>, DatabaseError> {
        Ok(Vec::new())
    }

    async fn drop_kept(&self, _: &Server, name: &str) -> Result<(), DatabaseError> {
        let name = name.to_owned();
        Ok(self.act(move |world| drop(world.beside.remove(&name))).await?)
    }

    async fn look(&self, server: &Server) -> Result<ServerState, DatabaseError> {
        let of = Located::Server(server.clone());
        let look = |world: &mut World| (schema(&world.file_of(&of)), world.beside.keys().cloned().collect());
        let (found, others) = self.see(look).await?;
        let catalogue = found.map(|version| version.to_string()).unwrap_or_default();
        Ok(ServerState { catalogue, others, ..ServerState::default() })
    }

    async fn alone(&self, _: &Server) -> Result<Alone, NotAlone> {
        let taken = self.see(World::alone).await.map_err(DatabaseError::from)?;
        taken.ok_or(NotAlone::Theirs)
    }

    async fn migrating(&self, _: &Server) -> Result<Option<String>, DatabaseError> {
        Ok(self.see(|world| world.pooled.then(|| "session 1 of a pooler".to_owned())).await?)
    }

    async fn admits(&self, _: &Server, account: &Account) -> Result<bool, DatabaseError> {
        let said = account.password.fingerprint(SALT);
        Ok(self.see(|world| world.password.as_ref() == Some(&said)).await?)
    }

    async fn can_set_password(
        &self,
        _: &Server,
        _: &Account,
        _: &Account,
    ) -> Result<Vec<String>, DatabaseError> {
        Ok(self.see(|_| Vec::new()).await?)
    }

    async fn set_password(&self, _: &Server, _: &Account, to: &Account) -> Result<(), DatabaseError> {
        let said = to.password.fingerprint(SALT);
        Ok(self.act(move |world| world.change_password(said)).await?)
    }

    async fn fill(&self, _: &Server, _: &Path, _: &Server) -> Result<Duration, DatabaseError> {
        Err(DatabaseError::plain("this world has no scratch servers"))
    }

    async fn schema(&self, of: &Server) -> Result<BTreeMap<String, String>, DatabaseError> {
        let of = Located::Server(of.clone());
        let found = self.see(move |world| schema(&world.file_of(&of))).await?;
        Ok(found.map(|version| ("schema".to_owned(), version.to_string())).into_iter().collect())
    }

    async fn locks(&self, _: &Server) -> Result<LockSamples, DatabaseError> {
        Err(DatabaseError::plain("this world has no locks"))
    }

    async fn end_sessions(&self, _: &Server) -> Result<u64, DatabaseError> {
        Ok(self.see(|world| u64::from(std::mem::take(&mut world.pooled))).await?)
    }

    async fn restore(&self, snapshot: &Path, to: &Located) -> Result<Option<String>, DatabaseError> {
        let (from, to) = (snapshot.to_owned(), self.lock().world.file_of(to));
        let restored = self.act(move |world| {
            world.nobody_has_open(&to, "restored");
            std::fs::copy(from, to).map(drop).unwrap_or_default();
        });
        restored.await?;
        Ok(None)
    }
}

#[async_trait]
impl Prober for Simulated {
    async fn probe(&self, target: &ProbeTarget, _: &Check, _: Duration) -> Probe {
        let probed = self.see(|world| {
            let instance = world.instances.get(&target.instance)?;
            let passes = instance.runs() && !world.behaviour(&instance.spec.content).unhealthy;
            world.instances.get_mut(&target.instance)?.gated |= passes;
            passes.then_some(())
        });
        match probed.await {
            Ok(Some(())) => Probe::Passed,
            _ => Probe::Failed(Finding::Refused),
        }
    }

    async fn route(&self, check: &RouteCheck, _: Duration) -> Probe {
        let asked = self.see(|world| {
            world.traffic();
            let mute = |name| {
                world.instances.get(name).is_some_and(|found| world.behaviour(&found.spec.content).mute)
            };
            !check.targets.iter().any(mute)
        });
        match asked.await {
            Ok(true) => Probe::Passed,
            Ok(false) => Probe::Failed(Finding::Status { status: 500, body: String::new() }),
            Err(_) => Probe::Failed(Finding::NoAnswer),
        }
    }

    async fn verify(&self, _: &RouteCheck, _: &Verify, _: &ProbeTarget) -> Probe {
        Probe::Passed
    }
}

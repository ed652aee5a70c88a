//! A runtime and a router in memory, for the tests of watch, probes and down.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use cutover_core::config::settings::StopSettings;
use cutover_core::names::{AppId, InstanceName};
use cutover_core::plan::{InstanceSpec, NetworkSpec, NetworkUse, VolumeSpec};
use cutover_core::release::RuntimeKind;
use cutover_core::secret::Secrets;
use cutover_core::state::{ExitStatus, FoundEngine, FoundInstance, FoundTable, InstanceState, RestartPolicy};
use cutover_routes::figures::Figures;
use cutover_routes::{RouteTable, TableHash};
use jiff::Timestamp;
use tokio::sync::Notify;

use crate::ports::{
    Account, Alone, Certainty, Content, Database, DatabaseError, Drained, Exec, Finished, Located,
    LockSamples, LogLine, LogQuery, NotAlone, Router, RouterError, RouterErrorKind, Runtime, RuntimeError,
    RuntimeErrorKind, Server, ServerState, Taken,
};

pub(crate) fn exit(code: i32) -> ExitStatus {
    ExitStatus { code: Some(code), signal: None, out_of_memory: false, error: None, at: None }
}

/// A runtime that holds instances in memory and notes every act.
pub(crate) struct FakeRuntime {
    kind: RuntimeKind,
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Default)]
struct Inner {
    instances: BTreeMap<InstanceName, FoundInstance>,
    acts: Vec<String>,
    unreachable: bool,
    unstartable: BTreeSet<InstanceName>,
    /// Whose removal never ends.
    stuck: BTreeSet<InstanceName>,
    execs: VecDeque<Finished>,
    networks: BTreeMap<String, String>,
}

impl FakeRuntime {
    pub(crate) fn new(kind: RuntimeKind) -> Self {
        Self { kind, inner: Mutex::default(), changed: Notify::new() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    pub(crate) fn put(&self, instance: FoundInstance) {
        self.inner().instances.insert(instance.name.clone(), instance);
        self.changed.notify_waiters();
    }

    /// Ends an instance as a kill does.
    pub(crate) fn kill(&self, name: &str) {
        let name: InstanceName = name.parse().unwrap();
        self.inner().instances.get_mut(&name).unwrap().state = InstanceState::Exited { exit: exit(137) };
        self.changed.notify_waiters();
    }

    pub(crate) fn answer_exec(&self, code: i32, output: &[&str]) {
        let output = output.iter().map(|&line| line.to_owned()).collect();
        self.inner().execs.push_back(Finished { exit: exit(code), output });
    }

    pub(crate) fn set_unreachable(&self, unreachable: bool) {
        self.inner().unreachable = unreachable;
    }

    pub(crate) fn set_unstartable(&self, name: &str) {
        self.inner().unstartable.insert(name.parse().unwrap());
    }

    pub(crate) fn set_stuck(&self, name: &str) {
        self.inner().stuck.insert(name.parse().unwrap());
    }

    /// All acts so far, which are then forgotten.
    pub(crate) fn acts(&self) -> Vec<String> {
        std::mem::take(&mut self.inner().acts)
    }

    fn reached(&self) -> Result<MutexGuard<'_, Inner>, RuntimeError> {
        let inner = self.inner();
        if inner.unreachable {
            return Err(RuntimeError::new(
                RuntimeErrorKind::Unreachable,
                Certainty::NotDone,
                "the engine does not answer",
            ));
        }
        Ok(inner)
    }
}

#[async_trait]
impl Runtime for FakeRuntime {
    fn kind(&self) -> RuntimeKind {
        self.kind
    }

    async fn list(&self, _app: &AppId) -> Result<Vec<FoundInstance>, RuntimeError> {
        Ok(self.reached()?.instances.values().cloned().collect())
    }

    async fn inspect(
        &self,
        _app: &AppId,
        name: &InstanceName,
    ) -> Result<Option<FoundInstance>, RuntimeError> {
        Ok(self.reached()?.instances.get(name).cloned())
    }

    async fn create(&self, _spec: &InstanceSpec, _values: &Secrets) -> Result<(), RuntimeError> {
        unreachable!("nothing here creates")
    }

    async fn start(&self, _app: &AppId, name: &InstanceName) -> Result<(), RuntimeError> {
        let mut inner = self.reached()?;
        inner.acts.push(format!("start {name}"));
        if inner.unstartable.contains(name) {
            return Err(RuntimeError::new(RuntimeErrorKind::Content, Certainty::NotDone, "no such program"));
        }
        if let Some(found) = inner.instances.get_mut(name) {
            found.state = InstanceState::Running { since: Timestamp::now(), restarts: 0 };
        }
        drop(inner);
        self.changed.notify_waiters();
        Ok(())
    }

    async fn stop(
        &self,
        _app: &AppId,
        name: &InstanceName,
        _stop: &StopSettings,
    ) -> Result<(), RuntimeError> {
        let mut inner = self.reached()?;
        inner.acts.push(format!("stop {name}"));
        if let Some(found) = inner.instances.get_mut(name) {
            found.state = InstanceState::Exited { exit: exit(0) };
        }
        drop(inner);
        self.changed.notify_waiters();
        Ok(())
    }

    async fn remove(&self, _app: &AppId, name: &InstanceName) -> Result<(), RuntimeError> {
        let is_stuck = {
            let mut inner = self.reached()?;
            inner.acts.push(format!("remove {name}"));
            if !inner.stuck.contains(name) {
                inner.instances.remove(name);
            }
            inner.stuck.contains(name)
        };
        if is_stuck { std::future::pending().await } else { Ok(()) }
    }

    async fn set_restart(
        &self,
        _app: &AppId,
        name: &InstanceName,
        policy: RestartPolicy,
    ) -> Result<(), RuntimeError> {
        let mut inner = self.reached()?;
        inner.acts.push(format!("set_restart {name} {policy:?}"));
        if let Some(found) = inner.instances.get_mut(name) {
            found.restart = policy;
        }
        Ok(())
    }

    async fn exited(&self, _app: &AppId, name: &InstanceName) -> Result<ExitStatus, RuntimeError> {
        loop {
            let changed = self.changed.notified();
            match self.reached()?.instances.get(name).map(|found| found.state.clone()) {
                Some(InstanceState::Exited { exit } | InstanceState::Restarting { exit, .. }) => {
                    return Ok(exit);
                }
                Some(InstanceState::Running { .. } | InstanceState::Created) => {}
                None => {
                    return Err(RuntimeError::new(RuntimeErrorKind::Gone, Certainty::NotDone, "it is gone"));
                }
            }
            changed.await;
        }
    }

    async fn logs(
        &self,
        _app: &AppId,
        _name: &InstanceName,
        _query: &LogQuery,
    ) -> Result<Vec<LogLine>, RuntimeError> {
        Ok(Vec::new())
    }

    async fn exec(&self, _app: &AppId, _name: &InstanceName, _exec: &Exec) -> Result<Finished, RuntimeError> {
        let answer = self.reached()?.execs.pop_front();
        answer.ok_or_else(|| RuntimeError::new(RuntimeErrorKind::Other, Certainty::NotDone, "nothing to run"))
    }

    async fn listening(&self, _app: &AppId, _name: &InstanceName) -> Result<Vec<SocketAddr>, RuntimeError> {
        Ok(Vec::new())
    }

    async fn engine(&self, _app: &AppId) -> Result<Option<FoundEngine>, RuntimeError> {
        let networks = self.reached()?.networks.clone();
        Ok(Some(FoundEngine {
            name: "Docker".to_owned(),
            version: "29.0".to_owned(),
            platform: "linux/amd64".to_owned(),
            bridge_reachable: true,
            subnets: networks.values().cloned().collect(),
            range: cutover_core::defaults::SUBNETS.to_owned(),
            networks,
            volumes: BTreeSet::new(),
        }))
    }

    async fn ensure_network(&self, network: &NetworkSpec) -> Result<(), RuntimeError> {
        let networks = &mut self.reached()?.networks;
        let is_other =
            networks.iter().any(|(name, subnet)| (*name == network.name) != (*subnet == network.subnet));
        if is_other {
            let message = format!("{} is taken", network.subnet);
            return Err(RuntimeError::new(RuntimeErrorKind::Exists, Certainty::NotDone, message));
        }
        networks.insert(network.name.clone(), network.subnet.clone());
        Ok(())
    }

    async fn join(&self, _: &AppId, _: &InstanceName, _: &NetworkUse) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn leave(&self, _: &AppId, _: &InstanceName, _: &str) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn remove_network(&self, _name: &str) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn ensure_volume(&self, _app: &AppId, _volume: &VolumeSpec) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn remove_volume(&self, _volume: &VolumeSpec) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn volume_path(&self, _volume: &VolumeSpec) -> Result<PathBuf, RuntimeError> {
        Ok(PathBuf::new())
    }
}

/// A table in memory; every table it served is kept.
#[derive(Default)]
pub(crate) struct FakeRouter {
    served: Mutex<Vec<RouteTable>>,
    /// Put in the way of the next replacement, as another owner's would.
    rival: Mutex<Option<RouteTable>>,
    silent: Mutex<bool>,
}

impl FakeRouter {
    pub(crate) fn serving(table: RouteTable) -> Self {
        Self { served: Mutex::new(vec![table]), ..Self::default() }
    }

    pub(crate) fn table(&self) -> RouteTable {
        self.served.lock().unwrap().last().cloned().unwrap_or_default()
    }

    /// Every table so far, oldest first.
    pub(crate) fn tables(&self) -> Vec<RouteTable> {
        self.served.lock().unwrap().clone()
    }

    pub(crate) fn set_silent(&self, silent: bool) {
        *self.silent.lock().unwrap() = silent;
    }

    pub(crate) fn forget(&self, owner: &str) {
        let mut table = self.table();
        table.owners.remove(owner);
        self.served.lock().unwrap().push(table);
    }

    pub(crate) fn race(&self, rival: RouteTable) {
        *self.rival.lock().unwrap() = Some(rival);
    }
}

#[async_trait]
impl Router for FakeRouter {
    async fn read(&self) -> Result<FoundTable, RouterError> {
        if *self.silent.lock().unwrap() {
            return Err(RouterError {
                kind: RouterErrorKind::Unreachable,
                certainty: Certainty::NotDone,
                message: "the proxy does not answer".into(),
            });
        }
        let table = self.table();
        Ok(FoundTable { hash: TableHash::of(&table), table })
    }

    async fn replace(&self, expect: &TableHash, table: &RouteTable) -> Result<TableHash, RouterError> {
        if let Some(rival) = self.rival.lock().unwrap().take() {
            self.served.lock().unwrap().push(rival);
        }
        if TableHash::of(&self.table()) != *expect {
            return Err(RouterError {
                kind: RouterErrorKind::Moved,
                certainty: Certainty::NotDone,
                message: "another table is served".into(),
            });
        }
        self.served.lock().unwrap().push(table.clone());
        Ok(TableHash::of(table))
    }

    async fn drain(&self, _: &[String], _: Duration, _: Duration, _: bool) -> Result<Drained, RouterError> {
        Ok(Drained { left: 0, closed: 0 })
    }

    async fn figures(&self) -> Result<Figures, RouterError> {
        Ok(Figures::default())
    }
}

/// No database: whoever is given it has no business with any.
pub(crate) struct NoDatabase;

#[async_trait]
impl Database for NoDatabase {
    async fn copy(&self, _: &Path, _: &Path) -> Result<u64, DatabaseError> {
        unreachable!()
    }
    async fn content(&self, _: &Path) -> Result<Content, DatabaseError> {
        unreachable!()
    }
    async fn snapshot(&self, _: &Located, _: &Path) -> Result<Taken, DatabaseError> {
        unreachable!()
    }
    async fn closed(&self, _: &Located) -> Result<(), DatabaseError> {
        unreachable!()
    }
    async fn restore(&self, _: &Path, _: &Located) -> Result<Option<String>, DatabaseError> {
        unreachable!()
    }
    async fn check(&self, _: &Path, _: &Located) -> Result<Vec<String>, DatabaseError> {
        unreachable!()
    }
    async fn differing(&self, _: &Path, _: &Path) -> Result<u64, DatabaseError> {
        unreachable!()
    }
    async fn restore_beside(&self, _: &Path, _: &Located, _: &str) -> Result<(), DatabaseError> {
        unreachable!()
    }
    async fn restore_keeping(&self, _: &Path, _: &Located) -> Result<Option<String>, DatabaseError> {
        unreachable!()
    }
    async fn rehearse_restore(&self, _: &Server, _: &Path) -> Result<(), DatabaseError> {
        unreachable!()
    }

    async fn roles(&self, _: &Server) -> Result<Vec<String>, DatabaseError> {
        unreachable!()
    }
    async fn make_roles(&self, _: &Server, _: &[String]) -> Result<(), DatabaseError> {
        unreachable!()
    }
    async fn answer(&self, _: &Located, _: &str) -> Result<String, DatabaseError> {
        unreachable!()
    }
    async fn kept(&self, _: &Server) -> Result<Vec<String>, DatabaseError> {
        unreachable!()
    }
    async fn drop_kept(&self, _: &Server, _: &str) -> Result<(), DatabaseError> {
        unreachable!()
    }
    async fn look(&self, _: &Server) -> Result<ServerState, DatabaseError> {
        unreachable!()
    }
    async fn alone(&self, _: &Server) -> Result<Alone, NotAlone> {
        unreachable!()
    }
    async fn migrating(&self, _: &Server) -> Result<Option<String>, DatabaseError> {
        unreachable!()
    }
    async fn admits(&self, _: &Server, _: &Account) -> Result<bool, DatabaseError> {
        unreachable!()
    }
    async fn can_set_password(
        &self,
        _: &Server,
        _: &Account,
        _: &Account,
    ) -> Result<Vec<String>, DatabaseError> {
        unreachable!()
    }
    async fn set_password(&self, _: &Server, _: &Account, _: &Account) -> Result<(), DatabaseError> {
        unreachable!()
    }
    async fn fill(&self, _: &Server, _: &Path, _: &Server) -> Result<Duration, DatabaseError> {
        unreachable!()
    }
    async fn schema(&self, _: &Server) -> Result<BTreeMap<String, String>, DatabaseError> {
        unreachable!()
    }
    async fn locks(&self, _: &Server) -> Result<LockSamples, DatabaseError> {
        unreachable!()
    }
    async fn end_sessions(&self, _: &Server) -> Result<u64, DatabaseError> {
        unreachable!()
    }
}

//! The ports of the simulated host. Every call is a fault point; every act can be repeated, as the real ones can.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use cutover_core::config::settings::{StopSettings, Verify};
use cutover_core::gate::{Check, Finding, Probe};
use cutover_core::hash::ContentHash;
use cutover_core::names::{AppId, InstanceName};
use cutover_core::plan::{InstanceSpec, NetworkSpec, NetworkUse, RouteCheck, VolumeSpec};
use cutover_core::release::RuntimeKind;
use cutover_core::secret::Secrets;
use cutover_core::state::{ExitStatus, FoundInstance, FoundTable, InstanceState, RestartPolicy};
use cutover_host::ports::{
    Certainty, Content, Database, DatabaseError, Drained, Exec, Finished, LogLine, LogQuery, Ports,
    ProbeTarget, Prober, Router, RouterError, RouterErrorKind, Runtime, RuntimeError, RuntimeErrorKind,
};
use cutover_routes::figures::{Figures, TargetFigures};
use cutover_routes::{RouteTable, TableHash};
use tokio::sync::Notify;

use super::faults::Fault;
use super::machine::{Instance, Late, Machine, exited};

/// All ports of a simulated host.
#[derive(Clone)]
pub(crate) struct Simulated {
    pub(crate) machine: Arc<Mutex<Machine>>,
    /// Rings when the process dies.
    pub(crate) died: Arc<Notify>,
    /// Rings at each change of an instance.
    changed: Arc<Notify>,
}

/// An act failed; whether it may have happened.
struct Failed(Certainty);

impl Simulated {
    pub(crate) fn new(machine: Arc<Mutex<Machine>>) -> Self {
        Self { machine, died: Arc::new(Notify::new()), changed: Arc::new(Notify::new()) }
    }

    pub(crate) fn ports(&self) -> Ports {
        let own = Arc::new(self.clone());
        Ports {
            process: own.clone(),
            container: None,
            router: own.clone(),
            database: own.clone(),
            prober: own,
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn die(&self) -> ! {
        self.died.notify_one();
        loop {
            std::future::pending::<()>().await;
        }
    }

    /// An act with an effect: the fault decides whether and when it lands.
    async fn act<T: Send + 'static>(
        &self,
        effect: impl FnOnce(&mut Machine) -> T + Send + 'static,
    ) -> Result<T, Failed> {
        let fault = self.lock().call();
        match fault {
            None => {
                let value = effect(&mut self.lock());
                self.changed.notify_waiters();
                Ok(value)
            }
            Some(Fault::Fail) => Err(Failed(Certainty::NotDone)),
            Some(Fault::Hang) => loop {
                std::future::pending::<()>().await;
            },
            Some(Fault::CrashBefore) => self.die().await,
            Some(Fault::CrashAfter) => {
                effect(&mut self.lock());
                self.die().await
            }
            Some(Fault::Late) => {
                let mut machine = self.lock();
                let due = machine.calls + 3;
                machine.late.push(Late { due, effect: Box::new(move |machine| drop(effect(machine))) });
                Err(Failed(Certainty::Unknown))
            }
        }
    }

    /// A look: no effect to land late.
    async fn look<T>(&self, read: impl FnOnce(&mut Machine) -> T) -> Result<T, Failed> {
        let fault = self.lock().call();
        match fault {
            None => Ok(read(&mut self.lock())),
            Some(Fault::Fail | Fault::Late) => Err(Failed(Certainty::NotDone)),
            Some(Fault::Hang) => loop {
                std::future::pending::<()>().await;
            },
            Some(Fault::CrashBefore | Fault::CrashAfter) => self.die().await,
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

fn found(instance: &Instance) -> FoundInstance {
    let spec = &instance.spec;
    FoundInstance {
        name: spec.name.clone(),
        service: spec.service.clone(),
        role: spec.role,
        release: spec.release.clone(),
        slot: spec.slot,
        replica: spec.replica,
        run: spec.run,
        runtime: RuntimeKind::Process,
        spec: spec.hash(),
        address: spec.address,
        state: instance.state.clone(),
        restart: instance.restart,
        ours: true,
    }
}

/// All instances, without a fault point: for looks of the test's own.
pub(crate) fn instances(machine: &Machine) -> Vec<FoundInstance> {
    machine.instances.values().map(found).collect()
}

#[async_trait]
impl Runtime for Simulated {
    fn kind(&self) -> RuntimeKind {
        RuntimeKind::Process
    }

    async fn list(&self, _: &AppId) -> Result<Vec<FoundInstance>, RuntimeError> {
        Ok(self.look(|machine| instances(machine)).await?)
    }

    async fn inspect(&self, _: &AppId, name: &InstanceName) -> Result<Option<FoundInstance>, RuntimeError> {
        let name = name.clone();
        Ok(self.look(move |machine| machine.instances.get(&name).map(found)).await?)
    }

    async fn create(&self, spec: &InstanceSpec, _: &Secrets) -> Result<(), RuntimeError> {
        let spec = spec.clone();
        let made = self.act(move |machine| {
            let other = machine.instances.get(&spec.name).is_some_and(|instance| instance.spec != spec);
            if other {
                return false;
            }
            let instance =
                Instance { state: InstanceState::Created, restart: RestartPolicy::No, spec: spec.clone() };
            machine.instances.entry(spec.name).or_insert(instance);
            true
        });
        if made.await? {
            Ok(())
        } else {
            Err(RuntimeError::new(
                RuntimeErrorKind::Exists,
                Certainty::NotDone,
                "another instance has this name",
            ))
        }
    }

    async fn start(&self, _: &AppId, name: &InstanceName) -> Result<(), RuntimeError> {
        let name = name.clone();
        Ok(self.act(move |machine| machine.run(&name)).await?)
    }

    async fn stop(&self, _: &AppId, name: &InstanceName, _: &StopSettings) -> Result<(), RuntimeError> {
        let name = name.clone();
        let stop = self.act(move |machine| {
            if let Some(instance) = machine.instances.get_mut(&name).filter(|instance| instance.runs()) {
                instance.state = InstanceState::Exited { exit: exited(0) };
            }
        });
        Ok(stop.await?)
    }

    async fn remove(&self, _: &AppId, name: &InstanceName) -> Result<(), RuntimeError> {
        let name = name.clone();
        let remove = self.act(move |machine| {
            if machine.instances.get(&name).is_some_and(Instance::runs) {
                return false;
            }
            machine.instances.remove(&name);
            true
        });
        if remove.await? {
            Ok(())
        } else {
            Err(RuntimeError::new(RuntimeErrorKind::Refused, Certainty::NotDone, "it runs"))
        }
    }

    async fn set_restart(
        &self,
        _: &AppId,
        name: &InstanceName,
        policy: RestartPolicy,
    ) -> Result<(), RuntimeError> {
        let name = name.clone();
        let set = self.act(move |machine| {
            if let Some(instance) = machine.instances.get_mut(&name) {
                instance.restart = policy;
            }
        });
        Ok(set.await?)
    }

    async fn exited(&self, _: &AppId, name: &InstanceName) -> Result<ExitStatus, RuntimeError> {
        loop {
            let heard = self.changed.notified();
            let state = self.lock().instances.get(name).map(|instance| instance.state.clone());
            match state {
                Some(InstanceState::Exited { exit }) => return Ok(exit),
                None => {
                    return Err(RuntimeError::new(
                        RuntimeErrorKind::Gone,
                        Certainty::NotDone,
                        "there is no such instance",
                    ));
                }
                _ => heard.await,
            }
        }
    }

    async fn logs(&self, _: &AppId, _: &InstanceName, _: &LogQuery) -> Result<Vec<LogLine>, RuntimeError> {
        Ok(Vec::new())
    }

    async fn exec(&self, _: &AppId, _: &InstanceName, _: &Exec) -> Result<Finished, RuntimeError> {
        Ok(Finished { exit: exited(0), output: Vec::new() })
    }

    async fn listening(&self, _: &AppId, _: &InstanceName) -> Result<Vec<SocketAddr>, RuntimeError> {
        Ok(Vec::new())
    }

    async fn ensure_network(&self, _: &NetworkSpec) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn join(&self, _: &AppId, _: &InstanceName, _: &NetworkUse) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn leave(&self, _: &AppId, _: &InstanceName, _: &str) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn remove_network(&self, _: &str) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn ensure_volume(&self, _: &AppId, volume: &VolumeSpec) -> Result<(), RuntimeError> {
        let folder = volume.name.clone();
        Ok(self.act(move |_| std::fs::create_dir_all(folder).unwrap_or_default()).await?)
    }

    async fn remove_volume(&self, volume: &VolumeSpec) -> Result<(), RuntimeError> {
        let folder = volume.name.clone();
        Ok(self.act(move |_| std::fs::remove_dir_all(folder).unwrap_or_default()).await?)
    }

    async fn volume_path(&self, volume: &VolumeSpec) -> Result<PathBuf, RuntimeError> {
        Ok(PathBuf::from(&volume.name))
    }
}

#[async_trait]
impl Router for Simulated {
    async fn read(&self) -> Result<FoundTable, RouterError> {
        Ok(self.look(|machine| FoundTable { hash: machine.hash(), table: machine.table.clone() }).await?)
    }

    async fn replace(&self, expect: &TableHash, table: &RouteTable) -> Result<TableHash, RouterError> {
        let (expect, table) = (expect.clone(), table.clone());
        let replaced = self.act(move |machine| {
            if machine.hash() != expect {
                return None;
            }
            machine.table = table;
            // What the table points at is asked at once.
            machine.traffic();
            Some(machine.hash())
        });
        let moved = || RouterError {
            kind: RouterErrorKind::Moved,
            certainty: Certainty::NotDone,
            message: "another table is served".into(),
        };
        replaced.await?.ok_or_else(moved)
    }

    async fn drain(&self, _: &[String], _: Duration, _: Duration, _: bool) -> Result<Drained, RouterError> {
        Ok(self.look(|_| Drained { left: 0, closed: 0 }).await?)
    }

    async fn figures(&self) -> Result<Figures, RouterError> {
        let counted = self.look(|machine| machine.answers.clone()).await?;
        let target = |(answers, errors): (u64, u64)| TargetFigures {
            answers: [("2xx".to_owned(), answers - errors), ("5xx".to_owned(), errors)].into(),
            ..TargetFigures::default()
        };
        let targets = counted.into_iter().map(|(name, counts)| (name, target(counts))).collect();
        Ok(Figures { started: "simulated".to_owned(), targets, ..Figures::default() })
    }
}

#[async_trait]
impl Database for Simulated {
    async fn copy(&self, from: &Path, to: &Path) -> Result<u64, DatabaseError> {
        self.snapshot(from, to).await
    }

    async fn content(&self, file: &Path) -> Result<Content, DatabaseError> {
        let text = std::fs::read(file).unwrap_or_default();
        Ok(self.look(|_| Content([("all".to_owned(), ContentHash::of(&text))].into())).await?)
    }

    async fn snapshot(&self, file: &Path, to: &Path) -> Result<u64, DatabaseError> {
        let (from, to) = (file.to_owned(), to.to_owned());
        Ok(self.act(move |_| std::fs::copy(from, to).unwrap_or_default()).await?)
    }

    async fn restore(&self, snapshot: &Path, file: &Path) -> Result<(), DatabaseError> {
        let (from, to) = (snapshot.to_owned(), file.to_owned());
        let restored = self.act(move |machine| {
            let open = machine
                .instances
                .values()
                .any(|i| i.runs() && i.spec.files.values().any(|f| Path::new(f) == to));
            if open {
                machine
                    .broken
                    .push(format!("P8: {} was restored while an instance has it open", to.display()));
            }
            std::fs::copy(from, to).map(drop).unwrap_or_default();
        });
        Ok(restored.await?)
    }
}

#[async_trait]
impl Prober for Simulated {
    async fn probe(&self, target: &ProbeTarget, _: &Check, _: Duration) -> Probe {
        let probed = self.look(|machine| {
            let instance = machine.instances.get(&target.instance)?;
            (instance.runs() && !machine.behaviour(&instance.spec.content).unhealthy).then_some(())
        });
        match probed.await {
            Ok(Some(())) => Probe::Passed,
            _ => Probe::Failed(Finding::Refused),
        }
    }

    async fn route(&self, _: &RouteCheck, _: Duration) -> Probe {
        match self.look(Machine::traffic).await {
            Ok(()) => Probe::Passed,
            Err(_) => Probe::Failed(Finding::NoAnswer),
        }
    }

    async fn verify(&self, _: &RouteCheck, _: &Verify, _: &ProbeTarget) -> Probe {
        Probe::Passed
    }
}

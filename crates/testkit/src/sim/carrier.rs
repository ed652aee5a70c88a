//! What carries instances on the simulated host: plain processes, or containers with their networks and volumes.

use std::net::SocketAddr;
use std::path::PathBuf;

use async_trait::async_trait;
use cutover_core::config::settings::StopSettings;
use cutover_core::hash::ContentHash;
use cutover_core::names::{AppId, InstanceName};
use cutover_core::plan::{InstanceSpec, NetworkSpec, NetworkUse, VolumeSpec};
use cutover_core::release::RuntimeKind;
use cutover_core::secret::{Secret, Secrets};
use cutover_core::state::{ExitStatus, FoundImage, FoundInstance, InstanceState, RestartPolicy, Role};
use cutover_core::template::Template;
use cutover_host::ports::{
    Certainty, Exec, Finished, LogLine, LogQuery, Runtime, RuntimeError, RuntimeErrorKind,
};

use super::ports::Simulated;
use super::site::SALT;
use super::world::{Instance, PASSWORD, World, exited};

/// One kind of runtime.
pub(crate) struct Carrier {
    pub(crate) sim: Simulated,
    pub(crate) kind: RuntimeKind,
}

/// What an effect says of itself when it cannot be.
type Refused = (RuntimeErrorKind, &'static str);

impl Carrier {
    async fn act(
        &self,
        effect: impl FnOnce(&mut World) -> Result<(), Refused> + Send + 'static,
    ) -> Result<(), RuntimeError> {
        let done = self.sim.act(effect).await?;
        done.map_err(|(kind, why)| RuntimeError::new(kind, Certainty::NotDone, why))
    }

    fn folder(world: &World, volume: &VolumeSpec) -> PathBuf {
        // A plain process's volume is a folder already, an engine's is a name.
        world.volumes.join(&volume.name)
    }
}

fn gone<T>(found: Option<T>) -> Result<T, Refused> {
    found.ok_or((RuntimeErrorKind::Gone, "there is no such instance"))
}

/// The salted hash of the password that an instance is told.
fn told(spec: &InstanceSpec, values: &Secrets) -> Option<ContentHash> {
    let mut asked = spec.settings.environment.values().flat_map(Template::variables);
    let name = asked.find(|name| name.as_str() == PASSWORD)?;
    values.get(name).map(|value| value.fingerprint(SALT))
}

fn make(world: &mut World, spec: InstanceSpec, password: Option<ContentHash>) -> Result<(), Refused> {
    if let Some(there) = world.instances.get(&spec.name) {
        let same = there.spec == spec;
        return if same { Ok(()) } else { Err((RuntimeErrorKind::Exists, "another instance has this name")) };
    }
    if spec.networks.iter().any(|joined| !world.networks.contains_key(&joined.network)) {
        return Err((RuntimeErrorKind::Gone, "there is no such network"));
    }
    let mut others = world.instances.values();
    if others.any(|other| other.runs() && other.spec.address.is_some() && other.spec.address == spec.address)
    {
        return Err((RuntimeErrorKind::Exists, "another instance has this address"));
    }
    let own = world.behaviour(&spec.content).password.filter(|_| spec.role == Role::Service);
    let password = password.map(|told| own.map_or(told, |own| Secret::new(own).fingerprint(SALT)));
    world.instances.insert(spec.name.clone(), Instance::new(spec, password));
    Ok(())
}

#[async_trait]
impl Runtime for Carrier {
    fn kind(&self) -> RuntimeKind {
        self.kind
    }

    async fn list(&self, _: &AppId) -> Result<Vec<FoundInstance>, RuntimeError> {
        let kind = self.kind;
        let ours = move |world: &mut World| {
            world.instances.values().filter(|one| one.spec.runtime() == kind).map(Instance::found).collect()
        };
        Ok(self.sim.see(ours).await?)
    }

    async fn inspect(&self, _: &AppId, name: &InstanceName) -> Result<Option<FoundInstance>, RuntimeError> {
        Ok(self.sim.see(|world| world.instances.get(name).map(Instance::found)).await?)
    }

    async fn create(&self, spec: &InstanceSpec, values: &Secrets) -> Result<(), RuntimeError> {
        let (spec, password) = (spec.clone(), told(spec, values));
        self.act(move |world| make(world, spec, password)).await
    }

    async fn start(&self, _: &AppId, name: &InstanceName) -> Result<(), RuntimeError> {
        let name = name.clone();
        self.act(move |world| {
            gone(world.instances.get(&name))?;
            world.run(&name);
            Ok(())
        })
        .await
    }

    async fn stop(&self, _: &AppId, name: &InstanceName, _: &StopSettings) -> Result<(), RuntimeError> {
        let name = name.clone();
        self.act(move |world| {
            if let Some(instance) = world.instances.get_mut(&name).filter(|instance| instance.runs()) {
                instance.state = InstanceState::Exited { exit: exited(0) };
            }
            Ok(())
        })
        .await
    }

    async fn remove(&self, _: &AppId, name: &InstanceName) -> Result<(), RuntimeError> {
        let name = name.clone();
        self.act(move |world| {
            if world.instances.get(&name).is_some_and(Instance::runs) {
                world.refuses_removal(&name);
                return Err((RuntimeErrorKind::Refused, "it runs"));
            }
            world.instances.remove(&name);
            Ok(())
        })
        .await
    }

    async fn set_restart(
        &self,
        _: &AppId,
        name: &InstanceName,
        policy: RestartPolicy,
    ) -> Result<(), RuntimeError> {
        let name = name.clone();
        self.act(move |world| {
            gone(world.instances.get_mut(&name))?.restart = policy;
            Ok(())
        })
        .await
    }

    async fn exited(&self, _: &AppId, name: &InstanceName) -> Result<ExitStatus, RuntimeError> {
        loop {
            let heard = self.sim.changed.notified();
            let state = self.sim.lock().world.instances.get(name).map(|instance| instance.state.clone());
            match state {
                Some(InstanceState::Exited { exit }) => return Ok(exit),
                None => {
                    let what = "there is no such instance";
                    return Err(RuntimeError::new(RuntimeErrorKind::Gone, Certainty::NotDone, what));
                }
                _ => heard.await,
            }
        }
    }

    async fn logs(&self, _: &AppId, _: &InstanceName, _: &LogQuery) -> Result<Vec<LogLine>, RuntimeError> {
        Ok(Vec::new())
    }

    async fn image(&self, reference: &str) -> Result<Option<FoundImage>, RuntimeError> {
        let reference = reference.to_owned();
        Ok(self.sim.see(move |world| world.images.get(&reference).cloned()).await?)
    }

    async fn exec(&self, _: &AppId, _: &InstanceName, _: &Exec) -> Result<Finished, RuntimeError> {
        Ok(Finished { exit: exited(0), output: Vec::new() })
    }

    async fn listening(&self, _: &AppId, _: &InstanceName) -> Result<Vec<SocketAddr>, RuntimeError> {
        Ok(Vec::new())
    }

    async fn ensure_network(&self, network: &NetworkSpec) -> Result<(), RuntimeError> {
        let network = network.clone();
        self.act(move |world| {
            world.networks.entry(network.name.clone()).or_insert(network);
            Ok(())
        })
        .await
    }

    async fn join(&self, _: &AppId, name: &InstanceName, network: &NetworkUse) -> Result<(), RuntimeError> {
        let (name, network) = (name.clone(), network.clone());
        self.act(move |world| {
            let joined = world.join(&name, &network);
            if joined {
                Ok(())
            } else {
                Err((RuntimeErrorKind::Gone, "there is no such instance or network"))
            }
        })
        .await
    }

    async fn leave(&self, _: &AppId, name: &InstanceName, network: &str) -> Result<(), RuntimeError> {
        let (name, network) = (name.clone(), network.to_owned());
        self.act(move |world| {
            gone(world.instances.get_mut(&name))?.networks.remove(&network);
            Ok(())
        })
        .await
    }

    async fn remove_network(&self, name: &str) -> Result<(), RuntimeError> {
        let name = name.to_owned();
        self.act(move |world| {
            if world.instances.values().any(|instance| instance.networks.contains_key(&name)) {
                return Err((RuntimeErrorKind::Refused, "the network is in use"));
            }
            world.networks.remove(&name);
            Ok(())
        })
        .await
    }

    async fn ensure_volume(&self, _: &AppId, volume: &VolumeSpec) -> Result<(), RuntimeError> {
        let volume = volume.clone();
        self.act(move |world| {
            let made = std::fs::create_dir_all(Self::folder(world, &volume));
            made.map_err(|_| (RuntimeErrorKind::Other, "the volume's folder cannot be made"))
        })
        .await
    }

    async fn remove_volume(&self, volume: &VolumeSpec) -> Result<(), RuntimeError> {
        let volume = volume.clone();
        self.act(move |world| {
            std::fs::remove_dir_all(Self::folder(world, &volume)).unwrap_or_default();
            Ok(())
        })
        .await
    }

    async fn volume_path(&self, volume: &VolumeSpec) -> Result<PathBuf, RuntimeError> {
        Ok(Self::folder(&self.sim.lock().world, volume))
    }
}

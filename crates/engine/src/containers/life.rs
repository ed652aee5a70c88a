//! The life of a container: made, started, stopped, gone.
//!
//! Each call can be repeated: what is so already is not an error. None of them waits for health or decides anything.

use std::collections::BTreeMap;
use std::time::Duration;

use bollard::errors::Error as Transport;
use bollard::models::{ContainerUpdateBody, NetworkConnectRequest, NetworkDisconnectRequest};
use bollard::query_parameters::{
    CreateContainerOptions, KillContainerOptions, RemoveContainerOptions, StopContainerOptions,
    WaitContainerOptions,
};
use futures_util::StreamExt;

use super::body;
use super::found::{Container, Exit, State};
use super::spec::{ContainerSpec, Endpoint, Networking, RestartPolicy};
use crate::connect::Engine;
use crate::error::{Certainty, EngineError, Kind, Subject, explain};

/// Multi-endpoint creation came with this minor of the API; before it, each further network is a call of its own.
const SEVERAL_NETWORKS_AT_ONCE: usize = 44;

/// Between tries at a container that is just ending; after that, some 2.5 s in all, the engine's answer stands.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// What `create` found or made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// The engine's id.
    pub id: String,
    /// True where an earlier, equal creation is being taken up again.
    pub found: bool,
    /// What the engine could not honour (a limit the kernel lacks, say).
    pub warnings: Vec<String>,
}

/// What happens to a container's unnamed volumes. Named ones always stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoveVolumes {
    /// They stay, without an owner.
    Keep,
    /// They go with it.
    Unnamed,
}

impl Engine {
    /// Makes a container, joined to its networks, not started. A container of that name that carries all of the spec's
    /// labels is taken as made by an earlier try (let a label name the spec's content), anything else is `Exists`.
    pub async fn create(&self, spec: &ContainerSpec) -> Result<Created, EngineError> {
        let act = || format!("create container {}", spec.name);
        let endpoints: &[Endpoint] = match &spec.networking {
            Networking::Joined(endpoints) => endpoints,
            _ => &[],
        };
        let at_once =
            if self.speaks(SEVERAL_NETWORKS_AT_ONCE) { endpoints.len() } else { endpoints.len().min(1) };
        let (first, further) = endpoints.split_at(at_once);
        let request = body::create(spec, first).map_err(|problem| EngineError::refused(act(), problem))?;
        let options = CreateContainerOptions {
            name: Some(spec.name.clone()),
            platform: spec.platform.clone().unwrap_or_default(),
        };
        match self.docker().create_container(Some(options), request).await {
            Ok(answer) => {
                for endpoint in further {
                    self.join(&answer.id, endpoint).await?;
                }
                Ok(Created { id: answer.id, found: false, warnings: answer.warnings })
            }
            Err(error) => {
                let error = explain(Subject::NewContainer, act)(error);
                if error.kind == Kind::Exists {
                    self.take_up(spec, endpoints, error).await
                } else {
                    Err(error)
                }
            }
        }
    }

    /// The container an earlier, interrupted `create` left behind, with the networks it still lacks.
    async fn take_up(
        &self,
        spec: &ContainerSpec,
        endpoints: &[Endpoint],
        exists: EngineError,
    ) -> Result<Created, EngineError> {
        let found = self.inspect(&spec.name).await?;
        if let Some(label) = foreign_label(&spec.labels, &found.labels) {
            let message = format!("{}; it is not ours: its label {label} differs", exists.message);
            return Err(EngineError { message, ..exists });
        }
        for endpoint in endpoints.iter().filter(|endpoint| !found.joined(&endpoint.network)) {
            self.join(&found.id, endpoint).await?;
        }
        Ok(Created { id: found.id, found: true, warnings: Vec::new() })
    }

    /// Starts it; a running one stays as it is.
    pub async fn start(&self, container: &str) -> Result<(), EngineError> {
        self.docker()
            .start_container(container, None)
            .await
            .map_err(explain(Subject::Thing, || format!("start container {container}")))
    }

    /// Sends its stop signal, waits for `grace`, then kills. Returns when it has ended; one that is not running stays
    /// as it is. The engine does not start it again, whatever its policy.
    pub async fn stop(&self, container: &str, grace: Duration) -> Result<(), EngineError> {
        let seconds = i32::try_from(body::whole_seconds(grace)).unwrap_or(i32::MAX);
        self.docker_long()
            .stop_container(container, Some(StopContainerOptions { signal: None, t: Some(seconds) }))
            .await
            .map_err(explain(Subject::Thing, || format!("stop container {container}")))
    }

    /// Freezes all of its processes; one that is frozen or does not run is a `Conflict`.
    pub async fn pause(&self, container: &str) -> Result<(), EngineError> {
        self.docker()
            .pause_container(container)
            .await
            .map_err(explain(Subject::Thing, || format!("pause container {container}")))
    }

    /// Lets it go on; one that is not frozen is a `Conflict`.
    pub async fn unpause(&self, container: &str) -> Result<(), EngineError> {
        self.docker()
            .unpause_container(container)
            .await
            .map_err(explain(Subject::Thing, || format!("unpause container {container}")))
    }

    /// Sends a signal, such as `SIGHUP`. A container that is not running is a `Conflict`.
    pub async fn signal(&self, container: &str, signal: &str) -> Result<(), EngineError> {
        self.docker()
            .kill_container(container, Some(KillContainerOptions { signal: signal.to_owned() }))
            .await
            .map_err(explain(Subject::Thing, || format!("send {signal} to container {container}")))
    }

    /// Removes a stopped container; one that is gone already is no error, a running one a `Conflict`.
    pub async fn remove(&self, container: &str, volumes: RemoveVolumes) -> Result<(), EngineError> {
        self.removal(container, volumes, false).await
    }

    /// Kills it if need be and removes it. Returns when it is gone.
    pub async fn kill_and_remove(&self, container: &str, volumes: RemoveVolumes) -> Result<(), EngineError> {
        match self.removal(container, volumes, true).await {
            // With force, a conflict means that somebody else's removal is under way: it is waited for.
            Err(error) if error.kind == Kind::Conflict => {
                self.wait_for(container, "removed").await.map(drop).or_else(gone)
            }
            other => other,
        }
    }

    async fn removal(&self, container: &str, volumes: RemoveVolumes, force: bool) -> Result<(), EngineError> {
        let options = RemoveContainerOptions { v: volumes == RemoveVolumes::Unnamed, force, link: false };
        self.docker_long()
            .remove_container(container, Some(options))
            .await
            .map_err(explain(Subject::Thing, || format!("remove container {container}")))
            .or_else(gone)
    }

    /// Changes what the engine does when it ends; takes effect at once, also on a running one.
    ///
    /// The engine touches the running process on the way and fails, changing nothing, where that ends in this very
    /// moment. One that crashes again and again must lose its policy all the same, so it is tried again.
    pub async fn set_restart(&self, container: &str, policy: RestartPolicy) -> Result<(), EngineError> {
        let change = ContainerUpdateBody {
            restart_policy: Some(body::restart_policy(policy)),
            ..ContainerUpdateBody::default()
        };
        let mut pause = Duration::from_millis(5);
        loop {
            let changed = self.docker().update_container(container, change.clone()).await;
            let act = || format!("set the restart policy of container {container}");
            match changed.map_err(explain(Subject::Thing, act)) {
                Err(error) if error.kind == Kind::Other && pause < LONGEST_PAUSE => {}
                other => return other,
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }

    /// Waits until it is not running, and says how it ended. Returns at once for one that has ended or never started.
    pub async fn wait(&self, container: &str) -> Result<Exit, EngineError> {
        let code = self.wait_for(container, "not-running").await?;
        let known = match self.inspect(container).await {
            Ok(Container { state: State::Exited(exit) | State::Dead(exit), .. }) if exit.code == code => {
                Some(exit)
            }
            // Started again or gone meanwhile: the exit code that was waited for is what remains known.
            Ok(_) => None,
            Err(error) if error.kind == Kind::Gone => None,
            Err(error) => return Err(error),
        };
        Ok(known.unwrap_or(Exit { code, ..Exit::default() }))
    }

    async fn wait_for(&self, container: &str, condition: &str) -> Result<i64, EngineError> {
        let act = || format!("wait for container {container} to be {condition}");
        let options = WaitContainerOptions { condition: condition.to_owned() };
        match self.docker_long().wait_container(container, Some(options)).next().await {
            Some(Ok(answer)) => Ok(answer.status_code),
            // A code other than 0 comes as an error.
            Some(Err(Transport::DockerContainerWaitError { code, .. })) => Ok(code),
            Some(Err(error)) => Err(explain(Subject::Thing, act)(error)),
            None => Err(EngineError {
                kind: Kind::Unreachable,
                certainty: Certainty::Unknown,
                act: act(),
                message: "the engine closed the connection".to_owned(),
            }),
        }
    }

    /// Joins a container, running or not, to a network; one that is joined already stays as it is.
    pub async fn join(&self, container: &str, endpoint: &Endpoint) -> Result<(), EngineError> {
        let request = NetworkConnectRequest {
            container: container.to_owned(),
            endpoint_config: Some(body::endpoint(endpoint)),
        };
        let act = || format!("join container {container} to network {}", endpoint.network);
        let joined = self.docker().connect_network(&endpoint.network, request).await;
        let Err(error) = joined.map_err(explain(Subject::Thing, act)) else { return Ok(()) };
        // "Already joined" has no status of its own (403 on some engines, 500 on others), so look.
        match self.inspect(container).await {
            Ok(found) if found.joined_as(endpoint) => Ok(()),
            _ => Err(error),
        }
    }

    /// Takes a container off a network; one that is not on it stays as it is.
    pub async fn leave(&self, container: &str, network: &str) -> Result<(), EngineError> {
        let request = NetworkDisconnectRequest { container: container.to_owned(), force: Some(true) };
        let act = || format!("take container {container} off network {network}");
        let left = self.docker().disconnect_network(network, request).await;
        let Err(error) = left.map_err(explain(Subject::Thing, act)) else { return Ok(()) };
        match self.inspect(container).await {
            Ok(found) if !found.joined(network) => Ok(()),
            Err(look) if look.kind == Kind::Gone => Ok(()),
            _ => Err(error),
        }
    }
}

fn gone(error: EngineError) -> Result<(), EngineError> {
    if error.kind == Kind::Gone { Ok(()) } else { Err(error) }
}

/// The first label of the spec that the found container does not carry with that value.
fn foreign_label<'spec>(
    wanted: &'spec BTreeMap<String, String>,
    found: &BTreeMap<String, String>,
) -> Option<&'spec str> {
    if wanted.is_empty() {
        return Some("(none was asked for)");
    }
    wanted.iter().find(|(key, value)| found.get(*key) != Some(value)).map(|(key, _)| key.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_container_is_ours_only_with_every_label_we_asked_for() {
        let wanted = labels(&[("app", "shop"), ("installation", "1")]);
        assert_eq!(
            foreign_label(&wanted, &labels(&[("app", "shop"), ("installation", "1"), ("more", "x")])),
            None
        );
        assert_eq!(
            foreign_label(&wanted, &labels(&[("app", "shop"), ("installation", "2")])),
            Some("installation")
        );
        assert_eq!(foreign_label(&wanted, &labels(&[])), Some("app"));
    }

    #[test]
    fn without_labels_nothing_is_taken_as_ours() {
        assert!(foreign_label(&labels(&[]), &labels(&[("app", "shop")])).is_some());
    }
}

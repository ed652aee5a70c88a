//! Looking at containers: all that carry a label in one call, or one in full.

use std::collections::BTreeMap;
use std::time::Duration;

use bollard::models::{
    ContainerConfig, ContainerInspectResponse, ContainerState, ContainerStateStatusEnum, ContainerSummary,
    ContainerSummaryStateEnum, EndpointSettings, HealthStatusEnum, HostConfig, PortMap,
    RestartPolicy as EngineRestartPolicy, RestartPolicyNameEnum,
};
use bollard::query_parameters::ListContainersOptions;
use jiff::Timestamp;

use super::found::{Attached, Container, Exit, Health, HealthStatus, Listed, Phase, Published, State};
use super::spec::{Environment, Protocol, RestartPolicy};
use crate::connect::Engine;
use crate::error::{EngineError, Subject, explain};
use crate::filters;

impl Engine {
    /// Every container that carries all of `labels`, also the stopped ones. One call, whatever their number.
    pub async fn list(&self, labels: &BTreeMap<String, String>) -> Result<Vec<Listed>, EngineError> {
        let options = ListContainersOptions {
            all: true,
            filters: Some(filters::by_labels(labels)),
            ..ListContainersOptions::default()
        };
        let found = self
            .docker()
            .list_containers(Some(options))
            .await
            .map_err(explain(Subject::Thing, || "list containers".to_owned()))?;
        Ok(found.into_iter().map(listed).collect())
    }

    /// One container, by name or id; `Gone` where there is none.
    pub async fn inspect(&self, container: &str) -> Result<Container, EngineError> {
        let found = self
            .docker()
            .inspect_container(container, None)
            .await
            .map_err(explain(Subject::Thing, || format!("inspect container {container}")))?;
        Ok(full(found))
    }
}

fn listed(found: ContainerSummary) -> Listed {
    let mut ports: Vec<Published> = Vec::new();
    for port in found.ports.unwrap_or_default() {
        let (Some(address), Some(host)) = (port.ip.and_then(|ip| ip.parse().ok()), port.public_port) else {
            continue;
        };
        let protocol = port.typ.map_or(Protocol::Tcp, |typ| protocol(typ.as_ref()));
        ports.push(Published { container: port.private_port, protocol, address, host });
    }
    Listed {
        id: found.id.unwrap_or_default(),
        name: found.names.unwrap_or_default().first().map(|name| unslashed(name)).unwrap_or_default(),
        labels: found.labels.unwrap_or_default().into_iter().collect(),
        phase: listed_phase(found.state),
        image_id: found.image_id.unwrap_or_default(),
        image: found.image.unwrap_or_default(),
        networks: places(found.network_settings.and_then(|settings| settings.networks).unwrap_or_default()),
        ports,
    }
}

fn full(found: ContainerInspectResponse) -> Container {
    let config = found.config.unwrap_or_default();
    let host = found.host_config.unwrap_or_default();
    let state = found.state.unwrap_or_default();
    let network = found.network_settings.unwrap_or_default();
    Container {
        id: found.id.unwrap_or_default(),
        name: unslashed(&found.name.unwrap_or_default()),
        environment: variables(&config),
        image_id: found.image.unwrap_or_default(),
        image: config.image.clone().unwrap_or_default(),
        started_at: state.started_at.as_deref().and_then(moment),
        finished_at: state.finished_at.as_deref().and_then(moment),
        created_at: found.created.as_deref().and_then(moment),
        restarts: u64::try_from(found.restart_count.unwrap_or(0)).unwrap_or(0),
        restart: restart(&host),
        networks: places(network.networks.unwrap_or_default()),
        ports: published(network.ports.unwrap_or_default()),
        exposed: config.exposed_ports.iter().flatten().filter_map(|port| parse_port(port)).collect(),
        health: health(&state),
        health_test: config.healthcheck.and_then(|check| check.test).unwrap_or_default(),
        pid: state.pid.and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0),
        command: found.path.into_iter().chain(found.args.unwrap_or_default()).collect(),
        stop_signal: config.stop_signal.filter(|signal| !signal.is_empty()),
        stop_grace: config
            .stop_timeout
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map(Duration::from_secs),
        terminal: config.tty.unwrap_or(false),
        labels: config.labels.unwrap_or_default().into_iter().collect(),
        state: full_state(state),
    }
}

fn listed_phase(state: Option<ContainerSummaryStateEnum>) -> Phase {
    use ContainerSummaryStateEnum as Engine;
    match state {
        Some(Engine::RUNNING | Engine::STOPPING) => Phase::Running,
        Some(Engine::PAUSED) => Phase::Paused,
        Some(Engine::RESTARTING) => Phase::Restarting,
        Some(Engine::EXITED) => Phase::Exited,
        Some(Engine::REMOVING) => Phase::Removing,
        Some(Engine::DEAD) => Phase::Dead,
        Some(Engine::CREATED | Engine::EMPTY) | None => Phase::Created,
    }
}

fn full_state(state: ContainerState) -> State {
    use ContainerStateStatusEnum as Engine;
    let exit = Exit {
        code: state.exit_code.unwrap_or(0),
        out_of_memory: state.oom_killed.unwrap_or(false),
        error: state.error.unwrap_or_default(),
        finished_at: state.finished_at.as_deref().and_then(moment),
    };
    match state.status {
        Some(Engine::RUNNING | Engine::STOPPING) => State::Running,
        Some(Engine::PAUSED) => State::Paused,
        Some(Engine::RESTARTING) => State::Restarting(exit),
        Some(Engine::EXITED) => State::Exited(exit),
        Some(Engine::REMOVING) => State::Removing,
        Some(Engine::DEAD) => State::Dead(exit),
        // A start that failed leaves the container `created`, with an exit code and the engine's words.
        Some(Engine::CREATED | Engine::EMPTY) | None if !exit.error.is_empty() => State::Exited(exit),
        Some(Engine::CREATED | Engine::EMPTY) | None => State::Created,
    }
}

fn health(state: &ContainerState) -> Option<Health> {
    let health = state.health.as_ref()?;
    let status = match health.status? {
        HealthStatusEnum::STARTING => HealthStatus::Starting,
        HealthStatusEnum::HEALTHY => HealthStatus::Healthy,
        HealthStatusEnum::UNHEALTHY => HealthStatus::Unhealthy,
        HealthStatusEnum::NONE | HealthStatusEnum::EMPTY => return None,
    };
    let last = health.log.as_ref().and_then(|log| log.last());
    Some(Health {
        status,
        failures: u64::try_from(health.failing_streak.unwrap_or(0)).unwrap_or(0),
        last_output: last.and_then(|probe| probe.output.clone()).unwrap_or_default(),
    })
}

fn restart(host: &HostConfig) -> RestartPolicy {
    let Some(EngineRestartPolicy { name: Some(name), maximum_retry_count }) = &host.restart_policy else {
        return RestartPolicy::No;
    };
    match name {
        RestartPolicyNameEnum::ALWAYS => RestartPolicy::Always,
        RestartPolicyNameEnum::UNLESS_STOPPED => RestartPolicy::UnlessStopped,
        RestartPolicyNameEnum::ON_FAILURE => RestartPolicy::OnFailure {
            times: maximum_retry_count.and_then(|times| u32::try_from(times).ok()).unwrap_or(0),
        },
        RestartPolicyNameEnum::NO | RestartPolicyNameEnum::EMPTY => RestartPolicy::No,
    }
}

fn places(networks: impl IntoIterator<Item = (String, EndpointSettings)>) -> BTreeMap<String, Attached> {
    let place = |(name, settings): (String, EndpointSettings)| {
        let fixed = settings.ipam_config.and_then(|ipam| ipam.ipv4_address);
        let attached = Attached {
            network_id: settings.network_id.unwrap_or_default(),
            address: settings.ip_address.and_then(|address| address.parse().ok()),
            fixed: fixed.and_then(|address| address.parse().ok()),
            aliases: settings.aliases.unwrap_or_default(),
        };
        (name, attached)
    };
    networks.into_iter().map(place).collect()
}

fn published(ports: PortMap) -> Vec<Published> {
    let mut found = Vec::new();
    for (port, bindings) in ports {
        let Some((container, protocol)) = parse_port(&port) else { continue };
        for binding in bindings.unwrap_or_default() {
            let address = binding.host_ip.and_then(|address| address.parse().ok());
            let host = binding.host_port.and_then(|port| port.parse().ok());
            if let (Some(address), Some(host)) = (address, host) {
                found.push(Published { container, protocol, address, host });
            }
        }
    }
    found.sort_by_key(|port| (port.container, port.protocol, port.address, port.host));
    found
}

fn variables(config: &ContainerConfig) -> Environment {
    config.env.iter().flatten().map(|line| line.split_once('=').unwrap_or((line, ""))).collect()
}

/// `80/tcp`, or `80`.
pub(crate) fn parse_port(port: &str) -> Option<(u16, Protocol)> {
    let (number, name) = port.split_once('/').unwrap_or((port, "tcp"));
    Some((number.parse().ok()?, protocol(name)))
}

fn protocol(name: &str) -> Protocol {
    match name {
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => Protocol::Tcp,
    }
}

/// The engine writes "never" as the year 1.
fn moment(text: &str) -> Option<Timestamp> {
    text.parse::<Timestamp>().ok().filter(|moment| moment.as_second() > 0)
}

fn unslashed(name: &str) -> String {
    name.trim_start_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_is_no_moment() {
        assert_eq!(moment("0001-01-01T00:00:00Z"), None);
        assert!(moment("2026-11-21T13:52:43.700658069Z").is_some());
    }

    #[test]
    fn ports_are_read_with_and_without_protocol() {
        assert_eq!(parse_port("80/tcp"), Some((80, Protocol::Tcp)));
        assert_eq!(parse_port("53/udp"), Some((53, Protocol::Udp)));
        assert_eq!(parse_port("80"), Some((80, Protocol::Tcp)));
        assert_eq!(parse_port("x"), None);
    }

    #[test]
    fn a_start_that_failed_is_an_exit_with_the_engines_words() {
        let state = ContainerState {
            status: Some(ContainerStateStatusEnum::CREATED),
            exit_code: Some(127),
            error: Some("exec: \"nope\": executable file not found".to_owned()),
            ..ContainerState::default()
        };
        assert!(matches!(full_state(state), State::Exited(Exit { code: 127, .. })));
    }
}

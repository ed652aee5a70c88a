//! A `ContainerSpec` as the engine's create request. Pure; checks only what the engine would answer with a secret in
//! its words.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bollard::models::{
    ContainerCreateBody, DeviceMapping, EndpointIpamConfig, EndpointSettings, HealthConfig, HostConfig,
    HostConfigLogConfig, Mount as EngineMount, MountType, NetworkingConfig, PortBinding, ResourcesUlimits,
    RestartPolicy as EngineRestartPolicy, RestartPolicyNameEnum,
};

use super::spec::{
    ContainerSpec, Endpoint, Environment, HealthCheck, HealthTest, Limits, Mount, MountSource, Networking,
    Port, RestartPolicy,
};

/// The request that makes `spec`, joined to those of its `endpoints` that the engine takes at creation.
pub(super) fn create(spec: &ContainerSpec, endpoints: &[Endpoint]) -> Result<ContainerCreateBody, String> {
    Ok(ContainerCreateBody {
        image: Some(spec.image.clone()),
        cmd: spec.command.clone(),
        entrypoint: spec.entrypoint.clone(),
        env: Some(environment(&spec.environment)?),
        labels: Some(hashed(&spec.labels)),
        user: spec.user.clone(),
        working_dir: spec.working_folder.clone(),
        hostname: spec.hostname.clone(),
        domainname: spec.domain.clone(),
        exposed_ports: exposed(spec),
        healthcheck: spec.health.as_ref().map(health),
        stop_signal: spec.stop_signal.clone(),
        stop_timeout: spec.stop_grace.map(whole_seconds),
        tty: Some(spec.terminal),
        open_stdin: Some(spec.open_input),
        // Its input ends when whoever is attached leaves.
        stdin_once: Some(spec.open_input),
        host_config: Some(host_config(spec)),
        networking_config: (!endpoints.is_empty()).then(|| networking(endpoints)),
        ..ContainerCreateBody::default()
    })
}

/// `name=value` lines. A broken name is refused here, because the engine's refusal would quote the value.
pub(super) fn environment(variables: &Environment) -> Result<Vec<String>, String> {
    variables
        .iter()
        .map(|(name, value)| {
            if name.is_empty() || name.contains(['=', '\0']) {
                return Err(format!("{name:?} cannot be the name of a variable"));
            }
            if value.contains('\0') {
                return Err(format!("the value of {name} holds a NUL byte"));
            }
            Ok(format!("{name}={value}"))
        })
        .collect()
}

pub(super) fn restart_policy(policy: RestartPolicy) -> EngineRestartPolicy {
    let (name, times) = match policy {
        RestartPolicy::No => (RestartPolicyNameEnum::NO, 0),
        RestartPolicy::Always => (RestartPolicyNameEnum::ALWAYS, 0),
        RestartPolicy::UnlessStopped => (RestartPolicyNameEnum::UNLESS_STOPPED, 0),
        RestartPolicy::OnFailure { times } => (RestartPolicyNameEnum::ON_FAILURE, times),
    };
    EngineRestartPolicy { name: Some(name), maximum_retry_count: Some(i64::from(times)) }
}

pub(super) fn endpoint(endpoint: &Endpoint) -> EndpointSettings {
    EndpointSettings {
        aliases: (!endpoint.aliases.is_empty()).then(|| endpoint.aliases.clone()),
        ipam_config: endpoint.address.map(|address| EndpointIpamConfig {
            ipv4_address: Some(address.to_string()),
            ..EndpointIpamConfig::default()
        }),
        ..EndpointSettings::default()
    }
}

/// Seconds, rounded up: a grace of 1.5 s is not cut to 1.
pub(super) fn whole_seconds(duration: Duration) -> i64 {
    let seconds = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

fn host_config(spec: &ContainerSpec) -> HostConfig {
    let mut host = HostConfig {
        restart_policy: Some(restart_policy(spec.restart)),
        network_mode: network_mode(&spec.networking),
        readonly_rootfs: Some(spec.read_only),
        init: spec.init,
        privileged: Some(spec.privileged),
        cap_add: listed(&spec.capabilities_added),
        cap_drop: listed(&spec.capabilities_dropped),
        security_opt: listed(&spec.security_options),
        group_add: listed(&spec.groups),
        sysctls: some_map(&spec.kernel_settings),
        tmpfs: some_map(&spec.memory_folders),
        shm_size: spec.shared_memory.map(signed),
        mounts: (!spec.mounts.is_empty()).then(|| spec.mounts.iter().map(mount).collect()),
        port_bindings: (!spec.ports.is_empty()).then(|| port_bindings(&spec.ports)),
        extra_hosts: listed(&spec.extra_hosts),
        dns: (!spec.name_servers.is_empty())
            .then(|| spec.name_servers.iter().map(ToString::to_string).collect()),
        dns_search: listed(&spec.search_domains),
        pid_mode: spec.process_namespace.clone(),
        ipc_mode: spec.ipc_namespace.clone(),
        devices: (!spec.devices.is_empty()).then(|| devices(spec)),
        log_config: spec.logging.as_ref().map(|logging| HostConfigLogConfig {
            typ: Some(logging.driver.clone()),
            config: Some(hashed(&logging.options)),
        }),
        ..HostConfig::default()
    };
    set_limits(&mut host, &spec.limits);
    host
}

fn set_limits(host: &mut HostConfig, limits: &Limits) {
    host.memory = limits.memory.map(signed);
    host.memory_reservation = limits.memory_reservation.map(signed);
    host.memory_swap = limits.memory_and_swap;
    host.nano_cpus = limits.processors.map(nano_processors);
    host.cpu_shares = limits.processor_shares.map(i64::from);
    host.cpuset_cpus.clone_from(&limits.processor_set);
    host.pids_limit = limits.processes;
    host.oom_score_adj = limits.out_of_memory_score.map(i64::from);
    host.ulimits = (!limits.ulimits.is_empty()).then(|| {
        let one = |limit: &super::spec::Ulimit| ResourcesUlimits {
            name: Some(limit.name.clone()),
            soft: Some(limit.soft),
            hard: Some(limit.hard),
        };
        limits.ulimits.iter().map(one).collect()
    });
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a number of processors times 10⁹ is far below the limit"
)]
fn nano_processors(processors: f64) -> i64 {
    (processors * 1e9).round() as i64
}

fn network_mode(networking: &Networking) -> Option<String> {
    match networking {
        Networking::Default => None,
        Networking::None => Some("none".to_owned()),
        Networking::Host => Some("host".to_owned()),
        Networking::Of(container) => Some(format!("container:{container}")),
        Networking::Joined(endpoints) => {
            Some(endpoints.first().map_or_else(|| "none".to_owned(), |first| first.network.clone()))
        }
    }
}

fn networking(endpoints: &[Endpoint]) -> NetworkingConfig {
    let settings = endpoints.iter().map(|place| (place.network.clone(), endpoint(place))).collect();
    NetworkingConfig { endpoints_config: Some(settings) }
}

fn mount(mount: &Mount) -> EngineMount {
    let (typ, source) = match &mount.source {
        MountSource::Volume(name) => (MountType::VOLUME, Some(name.clone())),
        MountSource::Path(path) => (MountType::BIND, Some(path.display().to_string())),
        MountSource::Anonymous => (MountType::VOLUME, None),
    };
    EngineMount {
        typ: Some(typ),
        source,
        target: Some(mount.target.clone()),
        read_only: Some(mount.read_only),
        ..EngineMount::default()
    }
}

fn devices(spec: &ContainerSpec) -> Vec<DeviceMapping> {
    let one = |device: &super::spec::Device| DeviceMapping {
        path_on_host: Some(device.source.clone()),
        path_in_container: Some(device.target.clone()),
        cgroup_permissions: Some(device.permissions.clone()),
    };
    spec.devices.iter().map(one).collect()
}

fn exposed(spec: &ContainerSpec) -> Option<Vec<String>> {
    let published = spec.ports.iter().map(|port| (port.container, port.protocol));
    let mut ports: Vec<String> = spec
        .exposed
        .iter()
        .copied()
        .chain(published)
        .map(|(port, protocol)| format!("{port}/{protocol}"))
        .collect();
    ports.sort();
    ports.dedup();
    (!ports.is_empty()).then_some(ports)
}

fn port_bindings(ports: &[Port]) -> HashMap<String, Option<Vec<PortBinding>>> {
    let mut bindings: HashMap<String, Option<Vec<PortBinding>>> = HashMap::new();
    for port in ports {
        let binding = PortBinding {
            host_ip: Some(port.address.to_string()),
            // An empty host port is how the API says "any free one".
            host_port: Some(port.host.map(|host| host.to_string()).unwrap_or_default()),
        };
        bindings
            .entry(format!("{}/{}", port.container, port.protocol))
            .or_default()
            .get_or_insert_default()
            .push(binding);
    }
    bindings
}

fn health(check: &HealthCheck) -> HealthConfig {
    HealthConfig {
        test: check.test.as_ref().map(|test| match test {
            HealthTest::Off => vec!["NONE".to_owned()],
            HealthTest::Command(words) => {
                std::iter::once("CMD".to_owned()).chain(words.iter().cloned()).collect()
            }
            HealthTest::Shell(line) => vec!["CMD-SHELL".to_owned(), line.clone()],
        }),
        interval: check.interval.map(nanoseconds),
        timeout: check.timeout.map(nanoseconds),
        start_period: check.start_period.map(nanoseconds),
        retries: check.retries.map(i64::from),
        start_interval: None,
    }
}

fn nanoseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn listed(words: &[String]) -> Option<Vec<String>> {
    (!words.is_empty()).then(|| words.to_vec())
}

fn hashed(map: &BTreeMap<String, String>) -> HashMap<String, String> {
    map.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn some_map(map: &BTreeMap<String, String>) -> Option<HashMap<String, String>> {
    (!map.is_empty()).then(|| hashed(map))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_variable_is_refused_without_its_value() {
        let variables = [("A=B", "hunter2")].into_iter().collect();
        let refusal = environment(&variables).unwrap_err();
        assert!(!refusal.contains("hunter2"), "{refusal}");
        let variables = [("TOKEN", "hun\0ter2")].into_iter().collect();
        let refusal = environment(&variables).unwrap_err();
        assert!(refusal.contains("TOKEN") && !refusal.contains("ter2"), "{refusal}");
    }

    #[test]
    fn a_grace_is_rounded_up() {
        assert_eq!(whole_seconds(Duration::from_millis(1_500)), 2);
        assert_eq!(whole_seconds(Duration::from_secs(10)), 10);
    }

    #[test]
    fn a_candidate_has_no_restart_policy_unless_told() {
        let body = create(&ContainerSpec::default(), &[]).unwrap();
        let policy = body.host_config.unwrap().restart_policy.unwrap();
        assert_eq!(policy.name, Some(RestartPolicyNameEnum::NO));
    }

    #[test]
    fn the_same_container_port_can_be_bound_twice() {
        let port = |host| Port {
            container: 80,
            protocol: super::super::Protocol::Tcp,
            address: [127, 0, 0, 1].into(),
            host,
        };
        let bindings = port_bindings(&[port(Some(8080)), port(None)]);
        let bound = bindings["80/tcp"].as_ref().unwrap();
        assert_eq!(bound.iter().map(|b| b.host_port.clone().unwrap()).collect::<Vec<_>>(), ["8080", ""]);
    }
}

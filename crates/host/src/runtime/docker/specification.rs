//! An instance's specification as a container's. Pure but for the values it fills in; says everything about a container in one place.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use cutover_core::config::settings::{Mount as MountSettings, OwnHealthcheck, RunSettings};
use cutover_core::defaults;
use cutover_core::layout::{self, Layout, label};
use cutover_core::plan::{InstanceSpec, NetworkUse};
use cutover_core::release::Content;
use cutover_core::secret::Secrets;
use cutover_core::template::Template;
use cutover_engine::{
    ContainerSpec, Device, Endpoint, Environment, HealthCheck, HealthTest, Limits, Logging, Mount,
    MountSource, Networking, Port, Protocol, RestartPolicy, Ulimit,
};

use super::error::refused;
use crate::ports::RuntimeError;
use crate::runtime::references::Sources;

/// What a container is made from, besides its specification.
pub(super) struct Ground<'a> {
    pub(super) layout: &'a Layout,
    pub(super) installation: &'a str,
    pub(super) values: &'a Secrets,
    /// Where the engine sends output that names no driver of its own.
    pub(super) usual_logging: &'a str,
}

/// The container that is this instance. Its values are filled in; nothing else in it is secret.
///
/// # Errors
/// What cannot be said to an engine, without any value.
pub(super) fn container(spec: &InstanceSpec, ground: &Ground<'_>) -> Result<ContainerSpec, RuntimeError> {
    let Content::Image { reference, .. } = &spec.content else {
        return Err(refused(format!("{} is made of an artifact, not of an image", spec.name)));
    };
    let settings = &spec.settings;
    Ok(ContainerSpec {
        name: layout::container(&spec.app, &spec.name),
        image: reference.clone(),
        platform: settings.platform.clone(),
        command: settings.command.as_deref().map(|words| filled_words(spec, words)).transpose()?,
        entrypoint: settings.entrypoint.as_deref().map(|words| filled_words(spec, words)).transpose()?,
        environment: environment(spec, ground.values)?,
        labels: labels(spec, ground.installation),
        user: settings.user.clone(),
        working_folder: settings.working_dir.clone(),
        hostname: settings.hostname.clone(),
        read_only: settings.read_only,
        init: settings.init,
        capabilities_added: settings.cap_add.clone(),
        capabilities_dropped: settings.cap_drop.clone(),
        security_options: settings.security_opt.clone(),
        kernel_settings: settings.sysctls.clone(),
        devices: settings.devices.iter().map(|text| device(text)).collect(),
        limits: limits(spec),
        mounts: mounts(spec, ground.layout)?,
        memory_folders: memory_folders(settings),
        shared_memory: settings.shm_size,
        networking: networking(spec),
        ports: ports(spec)?,
        extra_hosts: settings.extra_hosts.clone(),
        name_servers: name_servers(settings)?,
        health: settings.healthcheck.as_ref().map(health),
        logging: logging(settings, ground.usual_logging),
        stop_signal: settings.stop.signal.clone(),
        stop_grace: Some(settings.stop.grace),
        // S4: an exit is an exit, and a reboot does not revive a candidate.
        restart: RestartPolicy::No,
        ..ContainerSpec::default()
    })
}

/// The author's own labels, and ours, by which it is found again and told from others'.
fn labels(spec: &InstanceSpec, installation: &str) -> BTreeMap<String, String> {
    let ours = [
        (label::INSTALLATION, installation.to_owned()),
        (label::APP, spec.app.to_string()),
        (label::SERVICE, spec.service.to_string()),
        (label::ROLE, layout::role_text(spec.role).to_owned()),
        (label::INSTANCE, spec.name.to_string()),
        (label::RELEASE, spec.release.to_string()),
        (label::SLOT, spec.slot.to_string()),
        (label::REPLICA, spec.replica.to_string()),
        (label::RUN, spec.run.to_string()),
        (label::SPEC, spec.hash().to_string()),
        // Empty rather than absent: an image's label would show through.
        (label::ADDRESS, spec.address.map(|address| address.to_string()).unwrap_or_default()),
    ];
    let mut labels = spec.settings.labels.clone();
    labels.extend(ours.map(|(name, value)| (name.to_owned(), value)));
    labels
}

/// The author's variables, filled, and cutover's own, which win because the plan counts on them.
fn environment(spec: &InstanceSpec, values: &Secrets) -> Result<Environment, RuntimeError> {
    let sources = Sources { spec, values: Some(values) };
    let mut environment = Environment::default();
    for (name, template) in &spec.settings.environment {
        let value = template
            .resolve(&sources)
            .map_err(|open| refused(format!("variable {name} of {}: {open}", spec.service)))?;
        environment.set(name.as_str(), value);
    }
    for (name, value) in &spec.given {
        environment.set(name.as_str(), value.as_str());
    }
    Ok(environment)
}

/// Words of a command are seen by everybody who may list processes, so no secret value fills them (P6).
fn filled_words(spec: &InstanceSpec, words: &[Template]) -> Result<Vec<String>, RuntimeError> {
    let sources = Sources { spec, values: None };
    let fill = |word: &Template| {
        word.resolve(&sources).map_err(|open| {
            refused(format!(
                "the command of {}: {open} (values of the env file reach it as variables, never as arguments)",
                spec.service
            ))
        })
    };
    words.iter().map(fill).collect()
}

fn mounts(spec: &InstanceSpec, layout: &Layout) -> Result<Vec<Mount>, RuntimeError> {
    let mut mounts = Vec::new();
    for mount in &spec.settings.mounts {
        mounts.extend(match mount {
            MountSettings::Volume { volume, target, read_only } => {
                let place = spec.volumes.get(volume).ok_or_else(|| {
                    refused(format!("volume `{volume}` of {} has no place on this host", spec.service))
                })?;
                Some(Mount { source: volume_source(place), target: target.clone(), read_only: *read_only })
            }
            MountSettings::Shipped { source, target } => {
                let path = shipped(spec, source, layout)?;
                Some(Mount { source: MountSource::Path(path), target: target.clone(), read_only: true })
            }
            MountSettings::Host { source, target, read_only } => Some(Mount {
                source: MountSource::Path(source.into()),
                target: target.clone(),
                read_only: *read_only,
            }),
            MountSettings::Tmpfs { .. } => None,
        });
    }
    Ok(mounts)
}

/// Where in the host's artifact store a file or folder of the repository lies.
fn shipped(spec: &InstanceSpec, source: &str, layout: &Layout) -> Result<PathBuf, RuntimeError> {
    let shipped = spec
        .shipped
        .get(source)
        .ok_or_else(|| refused(format!("`{source}` of {} did not ship with its release", spec.service)))?;
    let folder = layout.artifact(&shipped.hash);
    Ok(shipped.file.as_ref().map_or(folder.clone(), |file| folder.join(file)))
}

/// A rehearsal sees its copy, a folder of the host, where the volume would be; or nothing of it.
fn volume_source(place: &str) -> MountSource {
    if place.is_empty() {
        MountSource::Anonymous
    } else if place.starts_with('/') {
        MountSource::Path(PathBuf::from(place))
    } else {
        MountSource::Volume(place.to_owned())
    }
}

fn memory_folders(settings: &RunSettings) -> BTreeMap<String, String> {
    settings
        .mounts
        .iter()
        .filter_map(|mount| match mount {
            MountSettings::Tmpfs { target, options } => Some((target.clone(), options.clone())),
            MountSettings::Volume { .. } | MountSettings::Shipped { .. } | MountSettings::Host { .. } => None,
        })
        .collect()
}

fn networking(spec: &InstanceSpec) -> Networking {
    if spec.isolated {
        return Networking::None;
    }
    if let Some(other) = &spec.network_of {
        return Networking::Of(layout::container(&spec.app, other));
    }
    if spec.networks.is_empty() {
        return Networking::Default;
    }
    Networking::Joined(spec.networks.iter().map(endpoint).collect())
}

pub(super) fn endpoint(network: &NetworkUse) -> Endpoint {
    Endpoint { network: network.network.clone(), aliases: network.aliases.clone(), address: network.address }
}

/// The loopback port that stands for its address, and those the author publishes. None without a network.
fn ports(spec: &InstanceSpec) -> Result<Vec<Port>, RuntimeError> {
    if spec.isolated {
        return Ok(Vec::new());
    }
    let mut ports: Vec<Port> = spec
        .settings
        .ports
        .iter()
        .map(|port| Port {
            container: port.container,
            protocol: if port.udp { Protocol::Udp } else { Protocol::Tcp },
            address: port.address,
            host: Some(port.host),
        })
        .collect();
    if let Some(host) = spec.published {
        let container = spec
            .port
            .ok_or_else(|| refused(format!("{} has no port that could be published", spec.service)))?;
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        ports.push(Port { container, protocol: Protocol::Tcp, address, host: Some(host) });
    }
    Ok(ports)
}

/// Where memory runs out, what only tries something is the first that the kernel ends.
const FIRST_TO_GO: i32 = 1000;

fn limits(spec: &InstanceSpec) -> Limits {
    let settings = &spec.settings;
    let ulimit = |(name, (soft, hard)): (&String, &(i64, i64))| Ulimit {
        name: name.clone(),
        soft: *soft,
        hard: *hard,
    };
    #[expect(clippy::cast_precision_loss, reason = "thousandths of a processor are far below 2⁵²")]
    let processors = settings.cpu_millis.map(|millis| millis as f64 / 1000.0);
    Limits {
        memory: settings.memory,
        processors,
        processes: settings.pids_limit,
        ulimits: settings.ulimits.iter().map(ulimit).collect(),
        out_of_memory_score: (spec.isolated || spec.network_of.is_some()).then_some(FIRST_TO_GO),
        ..Limits::default()
    }
}

/// `source[:target][:rights]`, as Compose writes it.
fn device(text: &str) -> Device {
    let mut parts = text.split(':');
    let source = parts.next().unwrap_or_default().to_owned();
    let second = parts.next();
    let (target, permissions) = match (second, parts.next()) {
        (Some(rights), None) if !rights.starts_with('/') => (source.clone(), rights),
        (Some(target), rights) => (target.to_owned(), rights.unwrap_or("rwm")),
        (None, _) => (source.clone(), "rwm"),
    };
    Device { source, target, permissions: permissions.to_owned() }
}

fn name_servers(settings: &RunSettings) -> Result<Vec<IpAddr>, RuntimeError> {
    let read = |text: &String| {
        text.parse().map_err(|_| refused(format!("dns: `{text}` is no address of a name server")))
    };
    settings.dns.iter().map(read).collect()
}

/// The engine's own pace, for whoever looks with its tools; the gate runs the command at ours.
fn health(own: &OwnHealthcheck) -> HealthCheck {
    let OwnHealthcheck::Command(check) = own else {
        return HealthCheck {
            test: Some(HealthTest::Off),
            interval: None,
            timeout: None,
            start_period: None,
            retries: None,
        };
    };
    HealthCheck {
        test: Some(HealthTest::Command(check.test.clone())),
        interval: Some(check.interval),
        timeout: Some(check.timeout),
        start_period: Some(check.start_period),
        retries: Some(check.retries),
    }
}

/// An engine left to itself keeps output without bound (S24): where it would go to files, they are rotated.
fn logging(settings: &RunSettings, usual: &str) -> Option<Logging> {
    if let Some(logging) = &settings.logging {
        return Some(Logging { driver: logging.driver.clone(), options: logging.options.clone() });
    }
    matches!(usual, "json-file" | "local").then(|| Logging {
        driver: usual.to_owned(),
        options: BTreeMap::from([
            ("max-size".to_owned(), defaults::LOG_BYTES.to_string()),
            ("max-file".to_owned(), defaults::LOG_FILES.to_string()),
        ]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_as_compose_writes_them() {
        let cases = [
            ("/dev/fuse", "/dev/fuse", "/dev/fuse", "rwm"),
            ("/dev/sda:/dev/xvda", "/dev/sda", "/dev/xvda", "rwm"),
            ("/dev/sda:/dev/xvda:r", "/dev/sda", "/dev/xvda", "r"),
            ("/dev/fuse:rw", "/dev/fuse", "/dev/fuse", "rw"),
        ];
        for (text, source, target, permissions) in cases {
            let expected = Device {
                source: source.to_owned(),
                target: target.to_owned(),
                permissions: permissions.to_owned(),
            };
            assert_eq!(device(text), expected, "{text}");
        }
    }

    #[test]
    fn output_in_files_is_bounded_unless_the_author_says_where_it_goes() {
        let settings = RunSettings::default();
        assert_eq!(logging(&settings, "json-file").unwrap().options["max-file"], "3");
        assert_eq!(logging(&settings, "journald"), None);
        let own = RunSettings {
            logging: Some(cutover_core::config::settings::Logging {
                driver: "none".to_owned(),
                options: BTreeMap::new(),
            }),
            ..settings
        };
        assert_eq!(logging(&own, "json-file").unwrap().driver, "none");
    }
}

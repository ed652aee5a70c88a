//! What an image is: its parts, and its content as one hash (S6).

use std::collections::BTreeMap;
use std::time::Duration;

use bollard::models::{HealthConfig, ImageInspect};
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::containers::{HealthCheck, HealthTest, Protocol, parse_port};
use crate::registry::Reference;

/// An image, as the engine tells it.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// The engine's own id. Up to Docker 28 the configuration's digest, in containerd's store the manifest's.
    pub id: String,
    /// Digest of its configuration, where the engine tells it.
    pub configuration: Option<String>,
    /// Digests of its unpacked layers, lowest first: what it consists of, however it came here.
    pub layers: Vec<String>,
    /// `amd64`, `arm64`, …
    pub architecture: String,
    /// Such as `linux`.
    pub operating_system: String,
    /// Such as `v8`.
    pub variant: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Prepended to the command.
    pub entrypoint: Vec<String>,
    /// Run unless the container says otherwise.
    pub command: Vec<String>,
    /// `name=value`; part of the image, so nothing in it is secret.
    pub environment: Vec<String>,
    /// `user[:group]`; empty is root.
    pub user: String,
    /// Where its command starts.
    pub working_folder: String,
    /// Ports it says it listens on.
    pub exposed: Vec<(u16, Protocol)>,
    /// Folders that become unnamed volumes unless something is mounted there.
    pub volumes: Vec<String>,
    /// Signal that stops it; `None` is SIGTERM.
    pub stop_signal: Option<String>,
    /// Its own probe.
    pub health: Option<HealthCheck>,
    /// Bytes, unpacked.
    pub size: u64,
    /// When it was built.
    pub created_at: Option<Timestamp>,
    /// Names it goes by here.
    pub tags: Vec<String>,
    /// `repository@sha256:…` it came from or went to.
    pub digests: Vec<String>,
}

impl Image {
    /// The digest it has in the repository of a reference: `repository@sha256:…`.
    pub fn origin(&self, reference: &Reference) -> Option<&str> {
        let of = |digest: &&String| Reference::split(digest).repository == reference.repository;
        self.digests.iter().find(of).map(String::as_str)
    }

    /// What runs, as one hash: layers and every setting that a container takes over, but no label, name or date. Two
    /// builds of the same content are equal by it, on any engine.
    pub fn content(&self) -> String {
        let mut hash = Sha256::new();
        // Each field has its count in front, so that no two different images can write the same bytes.
        let mut field = |name: &str, values: &[String]| {
            hash.update(format!("{name} {}\n", values.len()));
            for value in values {
                hash.update(format!("{} ", value.len()));
                hash.update(value);
                hash.update("\n");
            }
        };
        let exposed: Vec<String> =
            self.exposed.iter().map(|(port, protocol)| format!("{port}/{protocol}")).collect();
        field("content-version", &["1".to_owned()]);
        field("platform", &[self.operating_system.clone(), self.architecture.clone(), self.variant.clone()]);
        field("layers", &self.layers);
        field("entrypoint", &self.entrypoint);
        field("command", &self.command);
        field("environment", &self.environment);
        field("user", std::slice::from_ref(&self.user));
        field("working-folder", std::slice::from_ref(&self.working_folder));
        field("exposed", &exposed);
        field("volumes", &self.volumes);
        field("stop-signal", self.stop_signal.as_slice());
        field("health", &self.health.iter().map(|check| format!("{check:?}")).collect::<Vec<_>>());
        format!("sha256:{}", hex(&hash.finalize()))
    }
}

pub(crate) fn image(found: ImageInspect) -> Image {
    let config = found.config.unwrap_or_default();
    let id = found.id.unwrap_or_default();
    let mut exposed: Vec<(u16, Protocol)> =
        config.exposed_ports.iter().flatten().filter_map(|port| parse_port(port)).collect();
    exposed.sort_unstable();
    let mut volumes = config.volumes.unwrap_or_default();
    volumes.sort_unstable();
    Image {
        // Only containerd's store describes the manifest, and there the id is the manifest's digest.
        configuration: found.descriptor.is_none().then(|| id.clone()),
        id,
        layers: found.root_fs.and_then(|files| files.layers).unwrap_or_default(),
        architecture: found.architecture.unwrap_or_default(),
        operating_system: found.os.unwrap_or_default(),
        variant: found.variant.unwrap_or_default(),
        labels: config.labels.unwrap_or_default().into_iter().collect(),
        entrypoint: config.entrypoint.unwrap_or_default(),
        command: config.cmd.unwrap_or_default(),
        environment: config.env.unwrap_or_default(),
        user: config.user.unwrap_or_default(),
        working_folder: config.working_dir.unwrap_or_default(),
        exposed,
        volumes,
        stop_signal: config.stop_signal.filter(|signal| !signal.is_empty()),
        health: config.healthcheck.and_then(health),
        size: u64::try_from(found.size.unwrap_or(0)).unwrap_or(0),
        created_at: found.created.and_then(|moment| moment.parse().ok()),
        tags: named(found.repo_tags.unwrap_or_default()),
        digests: named(found.repo_digests.unwrap_or_default()),
    }
}

/// Engines write "no name" as `<none>:<none>`.
pub(crate) fn named(names: Vec<String>) -> Vec<String> {
    names.into_iter().filter(|name| !name.contains("<none>")).collect()
}

fn health(config: HealthConfig) -> Option<HealthCheck> {
    let words = config.test.unwrap_or_default();
    let test = match words.split_first() {
        None => return None,
        Some((kind, _)) if kind == "NONE" => HealthTest::Off,
        Some((kind, line)) if kind == "CMD-SHELL" => HealthTest::Shell(line.join(" ")),
        Some((_, command)) => HealthTest::Command(command.to_vec()),
    };
    let duration = |nanoseconds: Option<i64>| {
        nanoseconds.and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0).map(Duration::from_nanos)
    };
    Some(HealthCheck {
        test: Some(test),
        interval: duration(config.interval),
        timeout: duration(config.timeout),
        start_period: duration(config.start_period),
        retries: config
            .retries
            .and_then(|retries| u32::try_from(retries).ok())
            .filter(|retries| *retries > 0),
    })
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        write!(text, "{byte:02x}").ok();
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Image {
        image(ImageInspect::default())
    }

    #[test]
    fn content_is_what_runs_and_not_what_it_is_called() {
        let base =
            Image { layers: vec!["sha256:1".to_owned()], command: vec!["serve".to_owned()], ..sample() };
        let renamed = Image {
            id: "sha256:other".to_owned(),
            tags: vec!["app:v2".to_owned()],
            labels: BTreeMap::from([("org.opencontainers.image.revision".to_owned(), "7f3c9e1".to_owned())]),
            ..base.clone()
        };
        assert_eq!(base.content(), renamed.content());
        let changed = [
            Image { layers: vec!["sha256:2".to_owned()], ..base.clone() },
            Image { command: vec!["serve".to_owned(), String::new()], ..base.clone() },
            Image { entrypoint: vec!["serve".to_owned()], command: Vec::new(), ..base.clone() },
            Image { user: "app".to_owned(), ..base.clone() },
        ];
        for other in changed {
            assert_ne!(base.content(), other.content(), "{other:?}");
        }
    }
}

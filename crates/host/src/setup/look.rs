//! What is found on this server.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use cutover_core::env_file;
use cutover_core::failure::Failure;
use cutover_core::layout::Layout;
use cutover_core::names::{AppId, VariableName};
use cutover_core::setup::{Clock, Distribution, Engine, Found, Init, Room, place};
use cutover_engine::Engine as Client;

use super::system::ask;
use super::{files, firewall, packages, program, record, sshd, units};
use crate::up;

const PACKAGES: [&str; 6] =
    ["docker.io", "docker-cli", "logrotate", "unattended-upgrades", "systemd-timesyncd", "nftables"];
const FILES: [&str; 5] = [place::FIREWALL, place::SSHD, place::ENGINE, place::LOGROTATE, place::UPGRADES];
const UNITS: [&str; 4] = [place::PROXY_UNIT, place::WATCH_UNIT, place::FIREWALL_UNIT, place::DEAD_MAN_UNIT];
/// What keeps a clock.
const CLOCKS: [&str; 6] = [
    "systemd-timesyncd.service",
    "chrony.service",
    "chronyd.service",
    "ntp.service",
    "ntpsec.service",
    "openntpd.service",
];
/// For an engine to answer.
const ANSWER: Duration = Duration::from_secs(10);

/// Looks at everything.
pub(super) async fn look(layout: &Layout, app: &AppId) -> Result<Found, Failure> {
    let clocks = units::look(&CLOCKS).await;
    Ok(Found {
        distribution: distribution(),
        init: if units::is_systemd() { Init::Systemd } else { Init::Other },
        linked: program::linked(),
        packages: packages::installed(&PACKAGES).await,
        files: found_files(),
        engine: engine().await,
        units: units::look(&UNITS).await,
        firewall: firewall::loaded(layout).await,
        ssh: sshd::look().await,
        http: http(layout),
        other_firewall: other_firewall().await,
        clock: if clocks.values().any(|unit| unit.enabled) { Clock::Kept } else { Clock::Unkept },
        secrets: secrets(layout, app),
        room: room(layout),
        record: record::read(layout)?,
    })
}

/// From `os-release`.
pub(super) fn distribution() -> Distribution {
    let text = files::read("/etc/os-release").unwrap_or_default();
    let value = |key: &str| {
        let found = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        found.unwrap_or("unknown").trim_matches('"').to_owned()
    };
    Distribution { id: value("ID"), version: value("VERSION_ID"), name: value("PRETTY_NAME") }
}

fn found_files() -> BTreeMap<String, String> {
    let units = UNITS.iter().map(|unit| format!("{}/{unit}", place::UNITS));
    let all = FILES.iter().map(|path| (*path).to_owned()).chain(units);
    all.filter_map(|path| Some((path.clone(), files::read(&path)?))).collect()
}

async fn engine() -> Engine {
    let answers = async {
        let client = Client::connect().await.ok()?;
        let info = client.info().await.ok()?;
        Some(Engine::Answers { running: info.running, live_restore: info.live_restore })
    };
    match tokio::time::timeout(ANSWER, answers).await {
        Ok(Some(engine)) => engine,
        _ if ["/usr/bin/dockerd", "/usr/sbin/dockerd", "/usr/local/bin/dockerd"]
            .iter()
            .any(|path| Path::new(path).exists()) =>
        {
            Engine::Silent
        }
        _ => Engine::Absent,
    }
}

fn http(layout: &Layout) -> BTreeSet<u16> {
    let addresses = up::http_addresses(layout).unwrap_or_default();
    addresses
        .into_iter()
        .filter(|address| !address.ip().is_loopback())
        .map(|address| address.port())
        .collect()
}

async fn other_firewall() -> Option<String> {
    let ufw = files::read("/etc/ufw/ufw.conf").unwrap_or_default();
    if ufw.lines().any(|line| line.trim() == "ENABLED=yes") {
        return Some("ufw".to_owned());
    }
    let firewalld = ask(&["systemctl", "is-active", "firewalld.service"]).await.ok;
    firewalld.then(|| "firewalld".to_owned())
}

fn secrets(layout: &Layout, app: &AppId) -> BTreeSet<VariableName> {
    let text = std::fs::read_to_string(layout.env_file(app)).unwrap_or_default();
    env_file::parse(&text)
        .map(|values| values.iter().map(|(name, _)| name.clone()).collect())
        .unwrap_or_default()
}

fn room(layout: &Layout) -> Room {
    let text = files::read("/proc/meminfo").unwrap_or_default();
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        let kibibytes: u64 =
            line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0);
        kibibytes * 1024
    };
    let at = layout.state().ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"));
    let disk = crate::files::free(at).unwrap_or_default();
    Room { memory: value("MemTotal"), swap: value("SwapTotal"), disk }
}

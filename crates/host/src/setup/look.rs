//! What is found on this server.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use cutover_core::env_file;
use cutover_core::failure::Failure;
use cutover_core::layout::Layout;
use cutover_core::names::{AppId, VariableName};
use cutover_core::setup::{Clock, Distribution, Engine, EngineTold, Found, Init, Room, place};
use cutover_engine::Engine as Client;

use super::system::ask;
use super::{files, firewall, handover, listeners, packages, portless, program, record, sshd, units};
use crate::lock::ProcessLock;
use crate::{listening, memory, up};

const PACKAGES: [&str; 7] = [
    "docker.io",
    "docker-cli",
    "logrotate",
    "unattended-upgrades",
    "systemd-timesyncd",
    "nftables",
    "restic",
];
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
    let (engine, engine_told) = engine().await;
    let listeners = listeners::outside();
    let mut ssh = sshd::look().await;
    ssh.ports.extend(sshd::heard(&listeners));
    Ok(Found {
        distribution: distribution(),
        init: if units::is_systemd() { Init::Systemd } else { Init::Other },
        linked: program::linked(),
        outdated: handover::is_outdated(layout),
        packages: packages::installed(&PACKAGES).await,
        files: found_files(),
        engine,
        engine_told,
        units: units::look(&UNITS).await,
        firewall: firewall::loaded(layout).await,
        ssh,
        http: http(layout),
        taken: taken(layout),
        portless: portless::look().await,
        listeners,
        other_firewall: other_firewall().await,
        clock: if clocks.values().any(|unit| unit.enabled) { Clock::Kept } else { Clock::Unkept },
        secrets: secrets(layout, app),
        room: room(layout),
        record: record::read_with_deployed(layout)?,
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

async fn engine() -> (Engine, EngineTold) {
    let mut told = EngineTold { flags: engine_flags().await, ..EngineTold::default() };
    let answers = async {
        let client = Client::connect().await.ok()?;
        let info = client.info().await.ok()?;
        told.swarm = info.swarm;
        told.log_driver = Some(info.logging_driver).filter(|driver| !driver.is_empty());
        Some(Engine::Answers { running: info.running, live_restore: info.live_restore })
    };
    let engine = match tokio::time::timeout(ANSWER, answers).await {
        Ok(Some(engine)) => engine,
        _ if ["/usr/bin/dockerd", "/usr/sbin/dockerd", "/usr/local/bin/dockerd"]
            .iter()
            .any(|path| Path::new(path).exists()) =>
        {
            Engine::Silent
        }
        _ => Engine::Absent,
    };
    (engine, told)
}

/// The flags the engine is started with, as far as anybody says: the process itself, its unit, and the file its unit reads.
async fn engine_flags() -> BTreeSet<String> {
    let pid = files::read("/run/docker.pid").and_then(|text| text.trim().parse::<u32>().ok());
    let line = pid.and_then(|pid| files::read(&format!("/proc/{pid}/cmdline"))).unwrap_or_default();
    let unit = ask(&["systemctl", "show", "--property=ExecStart", "--value", "docker.service"]).await.out;
    let defaults = files::read("/etc/default/docker").unwrap_or_default();
    let options = defaults.lines().filter(|line| !line.trim_start().starts_with('#'));
    flags(&[line.replace('\0', " "), unit, options.collect::<Vec<_>>().join(" ")].join(" "))
}

/// Names of flags in a command line, without dashes and values.
fn flags(words: &str) -> BTreeSet<String> {
    let words = words.split(|sign: char| sign.is_whitespace() || matches!(sign, '"' | '\''));
    let names = words.filter_map(|word| word.split_once("--")?.1.split('=').next());
    names.map(str::to_owned).collect()
}

fn http(layout: &Layout) -> BTreeSet<u16> {
    let addresses = up::http_addresses(layout).unwrap_or_default();
    addresses
        .into_iter()
        .filter(|address| !address.ip().is_loopback())
        .map(|address| address.port())
        .collect()
}

/// Where the proxy would listen and another process does; nothing, where ours serves or `cutover-host up` keeps it.
fn taken(layout: &Layout) -> BTreeMap<u16, String> {
    if ["proxy", "up"].iter().any(|process| ProcessLock::peek(layout, process).is_some()) {
        return BTreeMap::new();
    }
    let listening = listening::ports();
    let wanted = up::http_addresses(layout).unwrap_or_default().into_iter().map(|address| address.port());
    let taken = wanted.filter(|port| listening.contains(port));
    taken.map(|port| (port, up::port::holder(port).unwrap_or_else(|| "another process".to_owned()))).collect()
}

async fn other_firewall() -> Option<String> {
    let ufw = files::read("/etc/ufw/ufw.conf").unwrap_or_default();
    if ufw.lines().any(|line| line.trim() == "ENABLED=yes") {
        return Some("ufw".to_owned());
    }
    if ask(&["systemctl", "is-active", "firewalld.service"]).await.ok {
        return Some("firewalld".to_owned());
    }
    let nftables = units::look(&["nftables.service"]).await.values().any(|unit| unit.enabled);
    nftables.then(|| "nftables.service".to_owned())
}

fn secrets(layout: &Layout, app: &AppId) -> BTreeSet<VariableName> {
    let text = std::fs::read_to_string(layout.env_file(app)).unwrap_or_default();
    env_file::parse(&text)
        .map(|values| values.iter().map(|(name, _)| name.clone()).collect())
        .unwrap_or_default()
}

fn room(layout: &Layout) -> Room {
    let value = |name: &str| memory::told(name).unwrap_or_default();
    let at = layout.state().ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"));
    let disk = crate::files::free(at).unwrap_or_default();
    Room { memory: value("MemTotal"), swap: value("SwapTotal"), disk }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_found_however_they_are_written() {
        let words = "/usr/sbin/dockerd -H fd:// --containerd=/run/c.sock DOCKER_OPTS=\"--log-opt max-size=50m --live-restore=true\"";
        let expected = ["containerd", "log-opt", "live-restore"].map(str::to_owned);
        assert_eq!(flags(words), expected.into());
    }
}

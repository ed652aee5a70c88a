//! The decision: wanted × found → changes, in the order in which they are made. The last ones are those that could lock somebody out.

use std::collections::{BTreeMap, BTreeSet};

use super::change::{Act, Change, EngineEffect};
use super::engine_file;
use super::firewall::{Openings, ruleset};
use super::found::{Clock, Engine, Found, Init, Listener, Room, SshFound};
use super::place;
use super::record::Record;
use super::support::has_client_apart;
use super::texts::{self, RootLogin};
use super::wanted::{Ingress, Item, Wanted};

/// The distributions' own engine.
const ENGINE: &str = "docker.io";
/// Less memory than this without swap is told.
const LITTLE_MEMORY: u64 = 2 << 30;
/// Less room on the disk than this is told.
const LITTLE_DISK: u64 = 5 << 30;
/// Where requests come in, whatever port the proxy has now: certificates come for 443.
const HTTPS: u16 = 443;
/// An example of a tunnel's port, where it is not known.
const WIREGUARD: u16 = 51_820;

/// What is to be done, and what else a person should know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// In order.
    pub changes: Vec<Change>,
    /// Sentences.
    pub warnings: Vec<String>,
}

/// Decides.
pub fn decide(wanted: &Wanted, found: &Found) -> Decision {
    let mut decision = Decision::default();
    program(wanted, found, &mut decision);
    logs(wanted, found, &mut decision);
    packages(wanted, found, &mut decision);
    if wanted.has(Item::Upgrades) {
        file(Item::Upgrades, place::UPGRADES, texts::upgrades(), found, &mut decision);
    }
    engine(wanted, found, &mut decision);
    services(wanted, found, &mut decision);
    secrets(wanted, found, &mut decision);
    firewall(wanted, found, &mut decision);
    ssh(wanted, found, &mut decision);
    warnings(wanted, found, &mut decision);
    decision
}

fn add(decision: &mut Decision, item: Item, act: Act) {
    decision.changes.push(Change { item, act });
}

/// A file that is not there as wanted.
fn file(item: Item, path: &str, text: String, found: &Found, decision: &mut Decision) {
    if found.files.get(path) != Some(&text) {
        add(decision, item, Act::File { path: path.to_owned(), text, mode: 0o644 });
    }
}

fn program(wanted: &Wanted, found: &Found, decision: &mut Decision) {
    if found.linked.as_ref() != Some(&wanted.program) {
        add(decision, Item::Program, Act::Program { folder: wanted.program.clone() });
    }
}

/// Each part of setup has its packages; they are installed together.
fn packages(wanted: &Wanted, found: &Found, decision: &mut Decision) {
    let mut parts: Vec<(Item, &str)> = Vec::new();
    if wanted.has(Item::Docker) && found.engine == Engine::Absent {
        parts.push((Item::Docker, ENGINE));
    }
    // Cutover needs no `docker` command; whoever looks after the server at night does.
    let is_distributions = found.engine == Engine::Absent || found.packages.contains(ENGINE);
    if wanted.has(Item::Docker) && is_distributions && has_client_apart(&found.distribution) {
        parts.push((Item::Docker, "docker-cli"));
    }
    if wanted.has(Item::Logs) && found.init == Init::Systemd {
        parts.push((Item::Logs, "logrotate"));
    }
    if wanted.has(Item::Upgrades) {
        parts.push((Item::Upgrades, "unattended-upgrades"));
    }
    if wanted.has(Item::Time) && found.clock == Clock::Unkept && found.init == Init::Systemd {
        parts.push((Item::Time, "systemd-timesyncd"));
    }
    if wanted.has(Item::Firewall) {
        parts.push((Item::Firewall, "nftables"));
    }
    if wanted.backups {
        parts.push((Item::Backups, "restic"));
    }
    let missing = parts.iter().filter(|(_, name)| !found.packages.contains(*name));
    let names: BTreeSet<String> = missing.clone().map(|(_, name)| (*name).to_owned()).collect();
    if let Some((item, _)) = missing.clone().next() {
        add(decision, *item, Act::Packages { names });
    }
}

fn logs(wanted: &Wanted, found: &Found, decision: &mut Decision) {
    if !wanted.has(Item::Logs) {
        return;
    }
    if found.init == Init::Systemd {
        file(Item::Logs, place::LOGROTATE, texts::logrotate(), found, decision);
    }
    let comes = wanted.has(Item::Docker) || found.engine != Engine::Absent;
    if !comes {
        return;
    }
    let file = found.files.get(place::ENGINE).map(String::as_str);
    decision.warnings.extend(engine_file::left_out(file, &found.engine_told));
    match engine_file::merged(file, &found.engine_told) {
        Ok((_, added)) if added.is_empty() => {}
        Ok((text, added)) => {
            let effect = match found.engine {
                Engine::Absent => EngineEffect::AtItsStart,
                Engine::Answers { running: 0, .. }
                | Engine::Answers { live_restore: true, .. }
                | Engine::Silent => EngineEffect::Restarted,
                Engine::Answers { .. } => EngineEffect::ReadAgain,
            };
            add(decision, Item::Logs, Act::EngineFile { text, added, effect });
        }
        Err(why) => decision
            .warnings
            .push(format!("{} was left alone, and logs of containers have no limit: {why}", place::ENGINE)),
    }
}

fn engine(wanted: &Wanted, found: &Found, decision: &mut Decision) {
    // Packages start it; where it was there and does not answer, it is started. One that was just installed is looked at again.
    let is_silent = found.engine == Engine::Silent;
    if wanted.has(Item::Docker) && is_silent && found.init == Init::Systemd {
        add(decision, Item::Docker, Act::Engine);
    }
}

fn services(wanted: &Wanted, found: &Found, decision: &mut Decision) {
    if found.init != Init::Systemd {
        return;
    }
    let unit = |name: &str| format!("{}/{name}", place::UNITS);
    let guards = wanted.has(Item::Firewall) || wanted.has(Item::SshHardening);
    let mut units = BTreeSet::new();
    let before = decision.changes.len();
    if guards {
        file(Item::Services, &unit(place::DEAD_MAN_UNIT), texts::dead_man_unit(), found, decision);
        units.extend(pending(place::DEAD_MAN_UNIT, found, Wants::Enabled));
    }
    // A unit that cannot have its port would be started again and again, and take it at the next boot.
    let serves = wanted.has(Item::Services) && found.taken.is_empty();
    if wanted.has(Item::Services) && !serves {
        decision.warnings.push(taken(&found.taken));
    }
    if serves {
        file(Item::Services, &unit(place::PROXY_UNIT), texts::proxy_unit(), found, decision);
        file(Item::Services, &unit(place::WATCH_UNIT), texts::watch_unit(), found, decision);
        for name in [place::PROXY_UNIT, place::WATCH_UNIT] {
            units.extend(pending(name, found, Wants::Active));
        }
    }
    let rewritten = decision.changes.len() > before;
    let runs = found.units.get(place::PROXY_UNIT).is_some_and(|unit| unit.active);
    let renewed = rewritten || found.outdated || found.linked.as_ref() != Some(&wanted.program);
    if !units.is_empty() {
        add(decision, Item::Services, Act::Units { names: units });
    } else if serves && runs && renewed {
        add(decision, Item::Services, Act::Renew);
    }
}

fn taken(ports: &BTreeMap<u16, String>) -> String {
    let taken: Vec<String> =
        ports.iter().map(|(port, name)| format!("port {port} is taken by {name}")).collect();
    format!(
        "proxy and watch are not started: {}; stop it or move it, or let the proxy stand behind it (`http: 127.0.0.1:8080` in {}), then `cutover setup` again",
        taken.join(", "),
        place::HOST_FILE
    )
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wants {
    Enabled,
    Active,
}

fn pending(name: &str, found: &Found, wants: Wants) -> Option<String> {
    let as_wanted =
        found.units.get(name).is_some_and(|unit| unit.enabled && (unit.active || wants == Wants::Enabled));
    (!as_wanted).then(|| name.to_owned())
}

fn secrets(wanted: &Wanted, found: &Found, decision: &mut Decision) {
    let names: BTreeSet<_> = wanted.secrets.difference(&found.secrets).cloned().collect();
    if !names.is_empty() {
        add(decision, Item::Secrets, Act::Secrets { names });
    }
}

/// What all apps of the host need, and the way in for people.
fn openings(wanted: &Wanted, found: &Found, record: &Record) -> Openings {
    let mut tcp = found.ssh.ports.clone();
    let mut udp = BTreeSet::new();
    for app in record.apps.values() {
        tcp.extend(app.open.iter().copied());
        udp.extend(app.open_udp.iter().copied());
    }
    let routed = wanted.ingress == Ingress::Routes;
    if routed || record.apps.values().any(|app| app.ingress == Ingress::Routes) {
        tcp.extend(found.http.iter().copied());
        tcp.insert(HTTPS);
    }
    Openings { tcp, udp }
}

fn firewall(wanted: &Wanted, found: &Found, decision: &mut Decision) {
    if !wanted.has(Item::Firewall) {
        return;
    }
    if found.ssh.ports.is_empty() {
        let why =
            "the firewall was left alone: it is not known on which port people come in (no sshd was found)";
        decision.warnings.push(why.to_owned());
        return;
    }
    let openings = openings(wanted, found, &found.record.with(wanted));
    let rules = ruleset(&openings);
    let loaded = found.firewall.as_ref() == Some(&rules);
    let cuts = cuts(&openings, found);
    if let Some(why) = cut_tunnel(&openings, &cuts, &found.ssh).filter(|_| !loaded) {
        decision.warnings.push(why);
        return;
    }
    let unit = format!("{}/{}", place::UNITS, place::FIREWALL_UNIT);
    let persistent = found.init != Init::Systemd
        || (found.files.get(&unit) == Some(&texts::firewall_unit(place::FIREWALL))
            && pending(place::FIREWALL_UNIT, found, Wants::Enabled).is_none());
    let kept = found.files.get(place::FIREWALL) == Some(&rules);
    if !(loaded && kept && persistent) {
        if found.init == Init::Systemd {
            file(Item::Firewall, &unit, texts::firewall_unit(place::FIREWALL), found, decision);
        }
        // By rules of ours they are cut off already.
        let stood = found.firewall.as_deref().and_then(Openings::of).is_some();
        let portless = if stood { BTreeSet::new() } else { found.portless.clone() };
        let (open, udp) = (openings.tcp, openings.udp);
        add(decision, Item::Firewall, Act::Firewall { rules, open, udp, cuts, portless });
    }
    if let Some(other) = &found.other_firewall {
        decision.warnings.push(format!(
            "{other} is at work, too: what it does not let in stays out, whatever setup opens"
        ));
    }
    if found.init != Init::Systemd {
        decision
            .warnings
            .push("the firewall is gone after a reboot: there is no systemd to load it again".to_owned());
    }
}

/// Why somebody who comes in by a tunnel might be locked out at its next handshake; `None`: nobody, or they are not. Where its port is not
/// known it may be any of UDP that is cut off: that another app has one open says nothing.
fn cut_tunnel(openings: &Openings, cuts: &BTreeSet<Listener>, ssh: &SshFound) -> Option<String> {
    let tunnel = ssh.tunnel.as_ref()?;
    let cut: Vec<String> = cuts.iter().filter(|one| one.udp).map(Listener::to_string).collect();
    let is_let_in = match ssh.tunnel_port {
        Some(port) => openings.udp.contains(&port),
        None => !openings.udp.is_empty() && cut.is_empty(),
    };
    let those = match ssh.tunnel_port {
        None if !cut.is_empty() => format!(" (cut off would be {})", cut.join(", ")),
        _ => String::new(),
    };
    let port = ssh.tunnel_port.unwrap_or(WIREGUARD);
    (!is_let_in).then(|| {
        format!(
            "the firewall was left alone: you come in by {tunnel}, a tunnel, whose next handshake might not be let in{those}; name its port (`setup: {{ open: [{port}/udp] }}`), or come in past it"
        )
    })
}

/// Who listens now and is not heard any more. Where rules of ours are loaded, whatever they do not let in was cut off by them; a file of them
/// cuts nobody off, and what somebody changed in them is not known.
fn cuts(openings: &Openings, found: &Found) -> BTreeSet<Listener> {
    let before = found.firewall.as_deref().and_then(Openings::of);
    let was_heard = |one: &&Listener| before.as_ref().is_none_or(|before| before.leaves(one));
    let cut = found.listeners.iter().filter(|one| !openings.leaves(one) && !one.is_the_proxy());
    cut.filter(was_heard).cloned().collect()
}

fn ssh(wanted: &Wanted, found: &Found, decision: &mut Decision) {
    if !wanted.has(Item::SshHardening) || !found.ssh.installed {
        return;
    }
    let narrowed = texts::sshd(RootLogin::Narrowed);
    let ours = found.files.get(place::SSHD);
    let root = if found.ssh.root_login == "yes" || ours == Some(&narrowed) {
        RootLogin::Narrowed
    } else {
        RootLogin::AsFound
    };
    let text = texts::sshd(root);
    if !found.ssh.passwords && found.ssh.root_login != "yes" && ours.is_none() {
        // Somebody has seen to it already.
        return;
    }
    if ours == Some(&text) && !found.ssh.passwords {
        return;
    }
    if found.ssh.has_key {
        // Where passwords are not accepted nobody comes in by one.
        let locks_out = if found.ssh.passwords { found.ssh.by_password.clone() } else { BTreeSet::new() };
        add(decision, Item::SshHardening, Act::Sshd { text, locks_out });
    } else {
        decision.warnings.push(format!(
            "sshd goes on accepting passwords: {} has no key in authorized_keys, and would be locked out",
            found.ssh.login
        ));
    }
}

fn warnings(wanted: &Wanted, found: &Found, decision: &mut Decision) {
    let gib = |bytes: u64| format!("{}.{} GiB", bytes >> 30, ((bytes & ((1 << 30) - 1)) * 10) >> 30);
    let Room { memory, swap, disk } = found.room;
    if memory > 0 && memory < LITTLE_MEMORY && swap == 0 {
        decision.warnings.push(format!(
            "there is {} of memory and no swap: two releases side by side may not fit; `fallocate -l 1G /swapfile`, `mkswap`, `swapon` and a line in /etc/fstab help",
            gib(memory)
        ));
    }
    if disk > 0 && disk < LITTLE_DISK {
        decision
            .warnings
            .push(format!("only {} are free on the disk: images of a few releases need more", gib(disk)));
    }
    if found.init == Init::Other && wanted.has(Item::Services) {
        decision.warnings.push(
            "there is no systemd: proxy and watch are kept by `cutover-host up`, which the first deploy starts; start it at boot by what this host has for that"
                .to_owned(),
        );
    }
    if !wanted.has(Item::Docker) && found.engine == Engine::Absent {
        decision
            .warnings
            .push("there is no container engine: only plain processes can be deployed".to_owned());
    }
}

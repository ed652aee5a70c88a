//! Who listens where others than this machine can reach it: whom the firewall would cut off. By the kernel's tables, TCP and UDP.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::RangeInclusive;
use std::path::Path;

use cutover_core::setup::Listener;

const TABLES: [(&str, bool); 4] = [("tcp", false), ("tcp6", false), ("udp", true), ("udp6", true)];

/// Processes that ask by UDP from ports the kernel gave them, and are answered there as what they asked for (their names as the kernel cuts them).
const ASKERS: [&str; 10] = [
    "systemd-resolve",
    "systemd-timesyn",
    "chronyd",
    "ntpd",
    "dnsmasq",
    "named",
    "unbound",
    "avahi-daemon",
    "dhclient",
    "dhcpcd",
];
/// Who has a socket that no process has: a tunnel of the kernel's, say.
pub(super) const KERNEL: &str = "the kernel";

/// All but the ports of UDP from which known services ask.
pub(super) fn outside() -> BTreeSet<Listener> {
    let sockets = sockets();
    let names = names(Path::new("/proc"), &sockets.iter().map(|(_, _, inode)| *inode).collect());
    // What a process closed in between is not the kernel's.
    let left = self::sockets();
    let there = sockets.into_iter().filter(|socket| names.contains_key(&socket.2) || left.contains(socket));
    let named = there.map(|(udp, port, inode)| {
        let name = names.get(&inode).map_or(KERNEL, String::as_str).to_owned();
        Listener { name, udp, port }
    });
    let given = given();
    named.filter(|one| !only_asks(one, &given)).collect()
}

/// Port and inode of whoever is reached from outside, and whether by UDP.
fn sockets() -> BTreeSet<(bool, u16, u64)> {
    let table = |(table, udp)| {
        let text = fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default();
        let found = text.lines().skip(1).filter_map(|line| reached(line, udp));
        found.map(|(port, inode)| (udp, port, inode)).collect::<Vec<_>>()
    };
    TABLES.into_iter().flat_map(table).collect()
}

/// Whether it is there for the answers to its own questions. Anybody else may be a tunnel, a call or a relay, whatever its port.
fn only_asks(one: &Listener, given: &RangeInclusive<u16>) -> bool {
    one.udp && given.contains(&one.port) && ASKERS.contains(&one.name.as_str())
}

/// The ports that the kernel gives to those who name none.
fn given() -> RangeInclusive<u16> {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut bounds = range.split_whitespace().filter_map(|bound| bound.parse::<u16>().ok());
    bounds.next().zip(bounds.next()).map_or(32_768..=60_999, |(least, most)| least..=most)
}

/// Port and inode, where a line shows a socket that listens at an address that is not loopback.
fn reached(line: &str, udp: bool) -> Option<(u16, u64)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (address, port) = fields.get(1)?.split_once(':')?;
    // Each group of four bytes stands there as the processor reads it: backwards on those that there are.
    let loopback = match address.len() {
        8 => address.ends_with("7F"),
        _ => {
            address == "00000000000000000000000001000000"
                || (address.starts_with("0000000000000000FFFF0000") && address.ends_with("7F"))
        }
    };
    let listens = *fields.get(3)? == if udp { "07" } else { "0A" };
    if loopback || !listens {
        return None;
    }
    Some((u16::from_str_radix(port, 16).ok()?, fields.get(9)?.parse().ok()?))
}

/// sshd's process of a connection, as newer ones call it: where it listens it forwards, which is nobody's way in.
const SESSION: &str = "sshd-session";

/// By the title that an sshd gives itself, as `sshd: /usr/sbin/sshd -D [listener] …` or `sshd: ann@pts/0`.
fn is_session(name: &str, title: &str) -> bool {
    name.trim() == "sshd" && title.strip_prefix("sshd: ").is_some_and(|whose| !whose.starts_with('/'))
}

/// The names of the processes that have these sockets.
pub(super) fn names(processes: &Path, sockets: &BTreeSet<u64>) -> BTreeMap<u64, String> {
    let mut names: BTreeMap<u64, String> = BTreeMap::new();
    let mut processes: Vec<_> = fs::read_dir(processes).into_iter().flatten().flatten().collect();
    // What starts services has the sockets of some, too, and is not who listens.
    processes.sort_by_key(|process| process.file_name() == "1");
    for process in processes {
        let descriptors = fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        for descriptor in descriptors {
            let Ok(target) = fs::read_link(descriptor.path()) else { continue };
            let inode = target
                .to_str()
                .and_then(|target| target.strip_prefix("socket:[")?.strip_suffix(']')?.parse::<u64>().ok());
            let Some(inode) = inode.filter(|inode| sockets.contains(inode)) else { continue };
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            let title = fs::read_to_string(process.path().join("cmdline")).unwrap_or_default();
            let name = if is_session(&name, &title) { SESSION } else { name.trim() };
            if !name.is_empty() {
                names.entry(inode).or_insert_with(|| name.to_owned());
            }
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_others_can_reach_is_outside() {
        let line = |local: &str, state: &str| {
            format!("   0: {local} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000 0 0 4711 1")
        };
        assert_eq!(reached(&line("00000000:0016", "0A"), false), Some((22, 4711)));
        assert_eq!(reached(&line("00000000000000000000000000000000:CA6C", "07"), true), Some((51820, 4711)));
        assert_eq!(reached(&line("017AA8C0:0035", "07"), true), Some((53, 4711)));
        for local in [
            "0100007F:0016",
            "3500007F:0016",
            "00000000000000000000000001000000:0016",
            "0000000000000000FFFF00000100007F:0016",
        ] {
            assert_eq!(reached(&line(local, "0A"), false), None, "{local}");
        }
        assert_eq!(reached(&line("00000000:0016", "01"), false), None, "a connection");
    }

    #[test]
    fn whoever_listens_is_named() {
        let socket = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
        let port = socket.local_addr().unwrap().port();

        let found = outside();

        let comm = fs::read_to_string("/proc/self/comm").unwrap();
        assert!(found.iter().any(|one| one.port == port && !one.udp && one.name == comm.trim()), "{found:?}");
    }

    #[test]
    fn only_known_services_ask_and_a_tunnel_is_named_whatever_its_port() {
        let asks = |name: &str, udp, port| {
            only_asks(&Listener { name: name.to_owned(), udp, port }, &(32_768..=60_999))
        };
        assert!(asks("systemd-resolve", true, 51_820) && asks("chronyd", true, 40_000));
        assert!(!asks(KERNEL, true, 51_820), "WireGuard");
        assert!(!asks("docker-proxy", true, 51_820) && !asks("tailscaled", true, 41_641));
        assert!(!asks("dnsmasq", true, 53) && !asks("dnsmasq", false, 40_000), "it answers there");
    }

    #[test]
    fn what_a_connection_forwards_is_not_sshds_own() {
        assert!(is_session("sshd\n", "sshd: ann@pts/0"));
        assert!(!is_session("sshd\n", "sshd: /usr/sbin/sshd -D [listener] 0 of 10-100 startups"));
        assert!(!is_session("sshd\n", "/usr/sbin/sshd\0-D\0") && !is_session("nginx\n", "sshd: ann"));
    }

    #[test]
    fn a_service_is_named_and_not_what_starts_services() {
        let processes = tempfile::tempdir().unwrap();
        for (pid, name, socket) in [("1", "systemd", 7), ("1", "systemd", 8), ("812", "rpcbind", 7)] {
            let folder = processes.path().join(pid);
            fs::create_dir_all(folder.join("fd")).unwrap();
            fs::write(folder.join("comm"), format!("{name}\n")).unwrap();
            let descriptor = folder.join("fd").join(socket.to_string());
            std::os::unix::fs::symlink(format!("socket:[{socket}]"), descriptor).unwrap();
        }

        let names = names(processes.path(), &[7, 8, 9].into());

        let expected = [(7, "rpcbind".to_owned()), (8, "systemd".to_owned())];
        assert_eq!(names, expected.into(), "whom 9 belongs to is not seen: the kernel");
    }

    #[test]
    fn a_socket_of_udp_is_named_though_the_kernel_chose_its_port() {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        let port = socket.local_addr().unwrap().port();

        assert!(outside().iter().any(|one| one.port == port && one.udp && one.name != KERNEL));
    }
}

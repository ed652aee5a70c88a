//! Who listens where others than this machine can reach it: whom the firewall would cut off. By the kernel's tables, TCP and UDP.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::RangeInclusive;

use cutover_core::setup::Listener;

const TABLES: [(&str, bool); 4] = [("tcp", false), ("tcp6", false), ("udp", true), ("udp6", true)];

/// Ports of UDP that a process was given for questions of its own are left out; those that the kernel itself has (a tunnel's) are not.
pub(super) fn outside() -> BTreeSet<Listener> {
    let given = given();
    let mut found = Vec::new();
    for (table, udp) in TABLES {
        let text = fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default();
        let sockets = text.lines().skip(1).filter_map(|line| reached(line, udp));
        let asked = sockets.filter(|(port, inode)| !udp || *inode == 0 || !given.contains(port));
        found.extend(asked.map(|(port, inode)| (udp, port, inode)));
    }
    let names = names(&found.iter().map(|(_, _, inode)| *inode).collect());
    let named = found.into_iter().map(|(udp, port, inode)| {
        let name = match inode {
            0 => "the kernel",
            inode => names.get(&inode).map_or("a process", String::as_str),
        };
        Listener { name: name.to_owned(), udp, port }
    });
    named.collect()
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

/// The names of the processes that have these sockets.
fn names(sockets: &BTreeSet<u64>) -> BTreeMap<u64, String> {
    let mut names = BTreeMap::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let descriptors = fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        for descriptor in descriptors {
            let Ok(target) = fs::read_link(descriptor.path()) else { continue };
            let inode = target
                .to_str()
                .and_then(|target| target.strip_prefix("socket:[")?.strip_suffix(']')?.parse::<u64>().ok());
            let Some(inode) = inode.filter(|inode| sockets.contains(inode)) else { continue };
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            if !name.trim().is_empty() {
                names.entry(inode).or_insert_with(|| name.trim().to_owned());
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
}

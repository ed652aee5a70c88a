//! Who is reached from outside otherwise than by a port of TCP or UDP: the firewall lets none of it in, and `open` cannot name it. What is looked
//! for is what keeps a server in its place: addresses that move between servers, routing, tunnels between sites, forwarded ports.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::listeners::{KERNEL, names};
use super::system::ask;

/// Protocols that are let in, have ports, or that nobody is heard by: ICMP, TCP, UDP, ICMP of IPv6, and the number of those who only send.
const KNOWN: [u16; 5] = [1, 6, 17, 58, 255];
/// What forwards published ports of containers, which are told of as such.
const CONTAINERS: [&str; 3] = ["DOCKER", "NETAVARK", "CNI-"];

/// In people's words.
pub(super) async fn look() -> BTreeSet<String> {
    let table = |name: &str| fs::read_to_string(format!("/proc/net/{name}")).unwrap_or_default();
    let mut sockets: Vec<(u64, String)> = Vec::new();
    for raw in ["raw", "raw6"] {
        let all = table(raw);
        let found = all.lines().skip(1).filter_map(protocol);
        sockets.extend(found.map(|(number, inode)| (inode, format!("IP protocol {number}"))));
    }
    let all = table("sctp/eps");
    let found = all.lines().skip(1).filter_map(sctp);
    sockets.extend(found.map(|(port, inode)| (inode, format!("SCTP {port}"))));
    let names = names(Path::new("/proc"), &sockets.iter().map(|(inode, _)| *inode).collect());
    let mut all = named(&sockets, &names);
    all.extend(tunnels(Path::new("/sys/class/net")));
    // Where it is not installed yet nothing is known of its rules.
    all.extend(forwards(&ask(&["nft", "--stateless", "list", "ruleset"]).await.out));
    all
}

fn named(sockets: &[(u64, String)], names: &BTreeMap<u64, String>) -> BTreeSet<String> {
    let name = |inode| names.get(inode).map_or(KERNEL, String::as_str);
    sockets.iter().map(|(inode, what)| format!("{} ({what})", name(inode))).collect()
}

/// Protocol and inode of a line of `/proc/net/raw`, where the protocol stands in the place of a port.
fn protocol(line: &str) -> Option<(u16, u64)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let number = u16::from_str_radix(fields.get(1)?.split_once(':')?.1, 16).ok()?;
    let inode = fields.get(9)?.parse().ok()?;
    (!KNOWN.contains(&number)).then_some((number, inode))
}

/// Port and inode of a line of `/proc/net/sctp/eps`: `ENDPT SOCK STY SST HBKT LPORT UID INODE LADDRS`.
fn sctp(line: &str) -> Option<(u16, u64)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (port, inode) = (fields.get(5)?.parse().ok()?, fields.get(7)?.parse().ok()?);
    let outside = fields.iter().skip(8).any(|address| !address.starts_with("127.") && *address != "::1");
    outside.then_some((port, inode))
}

/// Tunnels of the kernel that are up and have no port: GRE, and IP in IP.
fn tunnels(interfaces: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(interfaces).into_iter().flatten().flatten();
    let found = entries.filter_map(|entry| {
        let read = |what| fs::read_to_string(entry.path().join(what)).unwrap_or_default();
        let is_up = u32::from_str_radix(read("flags").trim().trim_start_matches("0x"), 16).ok()? & 1 == 1;
        let kind = match read("type").trim() {
            "778" | "823" => "GRE",
            "768" | "769" | "776" => "IP in IP",
            _ => return None,
        };
        is_up.then(|| format!("the tunnel {} ({kind})", entry.file_name().to_string_lossy()))
    });
    found.collect()
}

/// Chains of others that forward ports to elsewhere, as `nft` lists them.
fn forwards(listed: &str) -> BTreeSet<String> {
    let (mut table, mut chain) = ("", "");
    let mut found = BTreeSet::new();
    for line in listed.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("table ") {
            table = name.trim_end_matches(" {");
        } else if let Some(name) = line.strip_prefix("chain ") {
            chain = name.trim_end_matches(" {");
        } else if table != "inet cutover"
            && !CONTAINERS.iter().any(|of| chain.starts_with(of))
            && forwards_by(line)
        {
            found.insert(format!("ports that chain {chain} of table {table} forwards"));
        }
    }
    found
}

/// As `nft` writes its own rules, and those of `iptables` with and without its library.
fn forwards_by(rule: &str) -> bool {
    let mut words = rule.split('#').next().unwrap_or_default().split_whitespace();
    let mut before = "";
    words.any(|word| {
        let asked = std::mem::replace(&mut before, word) == "status";
        !asked && matches!(word, "dnat" | "DNAT" | "\"DNAT\"")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_but_those_that_have_ports_or_are_let_in_are_found() {
        let line = |number: &str| {
            format!(
                "  112: 00000000:{number} 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 0000000000000000 0"
            )
        };
        assert_eq!(protocol(&line("0070")), Some((112, 4711)));
        assert!(["0001", "003A", "00FF", "0006"].iter().all(|known| protocol(&line(known)).is_none()));
        let names = BTreeMap::from([(4711, "keepalived".to_owned())]);
        let sockets = [(4711, "IP protocol 112".to_owned()), (9, "SCTP 3868".to_owned())];
        let expected = ["keepalived (IP protocol 112)", "the kernel (SCTP 3868)"].map(str::to_owned);
        assert_eq!(named(&sockets, &names), expected.into());
    }

    #[test]
    fn an_endpoint_of_sctp_that_others_reach_is_found() {
        let line = "ffff8b0e52a3b000 ffff8b0e4f1ad000 2   10  29   3868   0 4711 10.0.0.1 127.0.0.1";
        assert_eq!(sctp(line), Some((3868, 4711)));
        assert_eq!(sctp(&line.replace("10.0.0.1 ", "")), None);
    }

    #[test]
    fn a_tunnel_without_a_port_counts_while_it_is_up() {
        let folder = tempfile::tempdir().unwrap();
        for (name, kind, flags) in
            [("gre1", "778", "0x90c1"), ("gre0", "778", "0x80"), ("eth0", "1", "0x1003")]
        {
            let interface = folder.path().join(name);
            fs::create_dir(&interface).unwrap();
            fs::write(interface.join("type"), format!("{kind}\n")).unwrap();
            fs::write(interface.join("flags"), format!("{flags}\n")).unwrap();
        }
        assert_eq!(tunnels(folder.path()), ["the tunnel gre1 (GRE)".to_owned()].into());
    }

    #[test]
    fn forwarded_ports_of_others_are_found_and_those_of_containers_are_not() {
        let listed = "table ip nat {\n\tchain DOCKER {\n\t\tiifname != \"docker0\" tcp dport 5432 dnat to 172.17.0.2:5432\n\t}\n\n\
            \tchain PREROUTING {\n\t\ttype nat hook prerouting priority dstnat; policy accept;\n\t\tfib daddr type local jump DOCKER\n\
            \t\ttcp dport 2222 dnat to 10.0.3.5:22\n\t}\n}\n\
            table ip lxd {\n\tchain prert.c1 {\n\t\ttcp dport 80 xt target \"DNAT\"\n\t}\n}\n\
            table inet cutover {\n\tchain forward {\n\t\tct status dnat drop\n\t}\n}\n\
            table inet mine {\n\tchain forward {\n\t\tct status dnat accept\n\t\ttcp dport 1 accept # no dnat\n\t}\n}\n";
        let expected = ["PREROUTING of table ip nat", "prert.c1 of table ip lxd"];
        let expected = expected.map(|one| format!("ports that chain {one} forwards"));
        assert_eq!(forwards(listed), expected.into());
    }
}

//! The firewall's rules: a table of our own in nftables, loaded whole or not at all. Nobody else's rules are touched, and none of theirs (an
//! engine's, ufw's) can let in what this table drops: a packet that one table drops is gone.
//!
//! Docker's published ports do not pass the input chain: the engine rewrites the packet's destination first. So the forward chain looks at
//! the port that was asked for before the rewriting. Over IPv6 an engine may answer by a process of its own (`docker-proxy`): that is
//! the input chain's.

use std::collections::BTreeSet;

use super::found::Listener;

/// What may come in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Openings {
    /// TCP ports.
    pub tcp: BTreeSet<u16>,
    /// UDP ports.
    pub udp: BTreeSet<u16>,
}

/// Addresses are asked for by DHCP, over both families: these UDP ports are always open.
const DHCP: [u16; 2] = [68, 546];
/// The names of a local network (mDNS, LLMNR), which a system listens for by itself: who only asks there hears the answers.
const CHATTER: [u16; 2] = [5353, LLMNR];
/// Over TCP, too.
const LLMNR: u16 = 5355;
/// Where clocks answer. `ntpd` asks from there, too; another (chronyd) is there only where it is to serve others.
const CLOCKS: u16 = 123;
const ASKING_CLOCK: &str = "ntpd";

impl Openings {
    /// What rules let in that [`ruleset`] wrote, here or in an earlier version; `None`: they are no such rules.
    pub(super) fn of(rules: &str) -> Option<Self> {
        let set = |what: &str| {
            let set = rules.lines().find_map(|line| line.trim().strip_prefix(what)?.strip_suffix("accept"));
            let ports = set.map(|set| set.trim().trim_start_matches('{').trim_end_matches('}').split(','));
            ports.map(|ports| ports.map(|port| port.trim().parse().ok()).collect::<Option<BTreeSet<u16>>>())
        };
        // There are no such rules without the ports of DHCP.
        let udp = set("udp dport")??;
        Some(Self { tcp: set("tcp dport").unwrap_or_else(|| Some(BTreeSet::new()))?, udp })
    }

    /// Whether whoever listens there goes on being heard, or needs not to be.
    pub(super) fn leaves(&self, listener: &Listener) -> bool {
        let port = listener.port;
        if listener.udp {
            let asks = CHATTER.contains(&port) || (port == CLOCKS && listener.name == ASKING_CLOCK);
            self.udp.contains(&port) || DHCP.contains(&port) || asks
        } else {
            self.tcp.contains(&port) || port == LLMNR
        }
    }
}

/// The rule that lets ports in; nothing, where there are none.
fn accept(what: &str, ports: &BTreeSet<u16>) -> String {
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    if ports.is_empty() { String::new() } else { format!("{what} {{ {} }} accept\n\t\t", ports.join(", ")) }
}

/// Networks inside this machine: loopback, and those of container engines.
const INSIDE: [&str; 5] = ["lo", "docker*", "br-*", "veth*", "podman*"];

/// A rule for each of them: the nftables of Ubuntu 22.04 takes no patterns in a set.
fn inside(direction: &str, verdict: &str) -> String {
    INSIDE.map(|name| format!("{direction} \"{name}\" {verdict}")).join("\n\t\t")
}

/// The file that `nft -f` loads, in the place of what was loaded before. Protocols stand in it by number (1, 6, 17 and 58 are ICMP, TCP, UDP and
/// ICMP of IPv6), since a bare server has no list of their names.
pub fn ruleset(openings: &Openings) -> String {
    let tcp = accept("tcp dport", &openings.tcp);
    let udp = accept("udp dport", &openings.udp.iter().copied().chain(DHCP).collect());
    let published = accept("meta l4proto 6 ct original proto-dst", &openings.tcp)
        + &accept("meta l4proto 17 ct original proto-dst", &openings.udp);
    let (from_inside, to_inside) = (inside("iifname", "accept"), inside("oifname", "drop"));
    format!(
        "#!/usr/sbin/nft -f
# Written by cutover setup; `cutover teardown` removes it. Each setup writes it anew.
table inet cutover
delete table inet cutover
table inet cutover {{
\tchain input {{
\t\ttype filter hook input priority filter - 5; policy accept;
\t\tct state established,related accept
\t\t{from_inside}
\t\tmeta l4proto {{ 1, 58 }} accept
\t\t{udp}{tcp}drop
\t}}
\tchain forward {{
\t\ttype filter hook forward priority filter - 5; policy accept;
\t\tct state established,related accept
\t\t{from_inside}
\t\t{published}ct status dnat drop
\t\t{to_inside}
\t}}
}}
"
    )
}

//! The firewall's rules: a table of our own in nftables, loaded whole or not at all. Nobody else's rules are touched, and none of theirs (an
//! engine's, ufw's) can let in what this table drops: a packet that one table drops is gone.
//!
//! Docker's published ports do not pass the input chain: the engine rewrites the packet's destination first. So the forward chain looks at
//! the port that was asked for before the rewriting. Over IPv6 an engine may answer by a process of its own (`docker-proxy`): that is
//! the input chain's.

use std::collections::BTreeSet;
use std::fmt::Write;

/// What may come in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Openings {
    /// TCP ports.
    pub tcp: BTreeSet<u16>,
}

/// Networks inside this machine: loopback, and those of container engines.
const INSIDE: [&str; 5] = ["lo", "docker*", "br-*", "veth*", "podman*"];

/// A rule for each of them: the nftables of Ubuntu 22.04 takes no patterns in a set.
fn inside(direction: &str, verdict: &str) -> String {
    INSIDE.map(|name| format!("{direction} \"{name}\" {verdict}")).join("\n\t\t")
}

/// The file that `nft -f` loads, in the place of what was loaded before. Protocols stand in it by number (1, 6 and 58 are ICMP, TCP and ICMP of
/// IPv6), since a bare server has no list of their names.
pub fn ruleset(openings: &Openings) -> String {
    let mut ports = String::new();
    for port in &openings.tcp {
        let comma = if ports.is_empty() { "" } else { ", " };
        // Writing to a String cannot fail.
        write!(ports, "{comma}{port}").unwrap_or_default();
    }
    let tcp = if ports.is_empty() { String::new() } else { format!("tcp dport {{ {ports} }} accept\n\t\t") };
    let published = if ports.is_empty() {
        String::new()
    } else {
        format!("meta l4proto 6 ct original proto-dst {{ {ports} }} accept\n\t\t")
    };
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
\t\tudp dport {{ 68, 546 }} accept
\t\t{tcp}drop
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

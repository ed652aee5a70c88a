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
const INSIDE: &str = r#"{ "lo", "docker*", "br-*", "veth*", "podman*" }"#;

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
    format!(
        "#!/usr/sbin/nft -f
# Written by cutover setup; `cutover teardown` removes it. Each setup writes it anew.
table inet cutover
delete table inet cutover
table inet cutover {{
\tchain input {{
\t\ttype filter hook input priority filter - 5; policy accept;
\t\tct state established,related accept
\t\tiifname {INSIDE} accept
\t\tmeta l4proto {{ 1, 58 }} accept
\t\tudp dport {{ 68, 546 }} accept
\t\t{tcp}drop
\t}}
\tchain forward {{
\t\ttype filter hook forward priority filter - 5; policy accept;
\t\tct state established,related accept
\t\tiifname {INSIDE} accept
\t\t{published}ct status dnat drop
\t\toifname {INSIDE} drop
\t}}
}}
"
    )
}

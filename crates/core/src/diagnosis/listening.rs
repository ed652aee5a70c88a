//! What the listening sockets say: loopback only, another port, nothing at all.

use std::net::{IpAddr, SocketAddr};

use super::{Diagnosis, Facts};
use crate::gate::Check;
use crate::release::RuntimeKind;

/// Adds what is wrong with the sockets; `false`: nothing is, or they are not known.
pub(super) fn explain(found: &mut Diagnosis, facts: &Facts) -> bool {
    let (Some(listening), Some(port)) = (&facts.listening, facts.port) else { return false };
    let here: Vec<&SocketAddr> = listening.iter().filter(|address| address.port() == port).collect();
    let reached = |address: &&SocketAddr| is_inside(facts) || is_reachable(address.ip(), facts.runtime);
    if here.iter().any(reached) {
        return false;
    }
    if let Some(address) = here.first() {
        let wanted = match facts.runtime {
            RuntimeKind::Container => "0.0.0.0",
            RuntimeKind::Process => "127.0.0.1",
        };
        found.cause.insert(0, format!("it listens on {address} only, where the proxy cannot reach it"));
        found.next.insert(0, format!("the app listens on {}: make it listen on {wanted}", address.ip()));
    } else if listening.is_empty() {
        found.cause(format!("nothing in it listens on any port (expected: {port})"));
        found.next(format!(
            "it may still be starting (raise `within`), or is not told to serve: it must listen on port {port}, which is in PORT"
        ));
    } else {
        let others: Vec<String> = listening.iter().map(ToString::to_string).collect();
        found.cause.insert(0, format!("it listens on {}, not on port {port}", others.join(", ")));
        found.next.insert(0, other_port(facts.runtime, listening, port));
    }
    true
}

fn other_port(runtime: RuntimeKind, listening: &[SocketAddr], port: u16) -> String {
    let mut ports: Vec<u16> = listening.iter().map(SocketAddr::port).collect();
    ports.sort_unstable();
    ports.dedup();
    let reachable = listening.iter().any(|address| is_reachable(address.ip(), runtime));
    match (runtime, ports.as_slice()) {
        // Naming the port would not do: the proxy does not reach it there either.
        (RuntimeKind::Container, _) if !reachable => {
            format!("make the app listen on 0.0.0.0, on the port in PORT ({port})")
        }
        (RuntimeKind::Container, [only]) => {
            format!("set `port: {only}`, or make the app listen on the port in PORT ({port})")
        }
        _ => format!("make the app listen on the port in PORT ({port} here)"),
    }
}

/// The check is made from within: the app may listen on its own loopback only, on purpose.
fn is_inside(facts: &Facts) -> bool {
    matches!(facts.check, Some(Check::Http { inside: true, .. } | Check::Tcp { inside: true, .. }))
}

/// Whether the proxy, outside of a container, beside a process, gets there.
fn is_reachable(ip: IpAddr, runtime: RuntimeKind) -> bool {
    match (runtime, ip.to_canonical()) {
        (RuntimeKind::Container, ip) => !ip.is_loopback(),
        (RuntimeKind::Process, IpAddr::V4(ip)) => ip.is_loopback() || ip.is_unspecified(),
        (RuntimeKind::Process, IpAddr::V6(ip)) => ip.is_unspecified(),
    }
}

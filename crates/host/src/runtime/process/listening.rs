//! Which TCP ports an instance's processes listen on, from the kernel's own tables: to tell "loopback only" and "another port" from silence.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::processes::Stat;

/// The addresses that any of these processes listens on, in order.
pub(super) fn addresses(processes: &[Stat]) -> Vec<SocketAddr> {
    let sockets: BTreeSet<u64> = processes.iter().flat_map(|stat| sockets_of(stat.id.pid)).collect();
    let mut found: BTreeSet<SocketAddr> = BTreeSet::new();
    for stat in processes {
        for table in ["tcp", "tcp6"] {
            let text = fs::read_to_string(format!("/proc/{}/net/{table}", stat.id.pid)).unwrap_or_default();
            let listening = text.lines().filter_map(listener);
            found.extend(listening.filter(|(_, inode)| sockets.contains(inode)).map(|(address, _)| address));
        }
    }
    found.into_iter().collect()
}

/// The sockets a process has open, by inode.
fn sockets_of(pid: i32) -> Vec<u64> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    entries
        .filter_map(Result::ok)
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .filter_map(|target| target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok())
        .collect()
}

/// A line of `/proc/net/tcp` or `tcp6` that shows a listening socket: its address and inode.
fn listener(line: &str) -> Option<(SocketAddr, u64)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
    if *state != "0A" {
        return None;
    }
    let (address, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    Some((SocketAddr::new(address_of(address)?, port), inode.parse().ok()?))
}

/// The kernel prints addresses as 32-bit words in the machine's own byte order.
fn address_of(hex: &str) -> Option<IpAddr> {
    let words: Option<Vec<[u8; 4]>> = (0..hex.len() / 8)
        .map(|word| Some(u32::from_str_radix(hex.get(word * 8..word * 8 + 8)?, 16).ok()?.to_ne_bytes()))
        .collect();
    match words?.as_slice() {
        [word] => Some(Ipv4Addr::from(*word).into()),
        words @ [_, _, _, _] => {
            let bytes: [u8; 16] = words.concat().try_into().ok()?;
            Some(Ipv6Addr::from(bytes).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::processes::{ProcessId, stat};
    use super::*;

    #[test]
    fn only_listening_sockets_are_read() {
        let line =
            "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0 0 4711 1 x";
        assert_eq!(listener(line), Some(("127.0.0.1:8080".parse().unwrap(), 4711)));
        assert_eq!(listener(&line.replace(" 0A ", " 01 ")), None);
        let six = line.replace("0100007F", "00000000000000000000000001000000");
        assert_eq!(listener(&six), Some(("[::1]:8080".parse().unwrap(), 4711)));
        assert_eq!(listener("  sl  local_address rem_address   st tx_queue"), None);
    }

    #[test]
    fn a_socket_of_this_process_is_found() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let own = stat(std::process::id().cast_signed()).unwrap();
        assert!(addresses(&[own]).contains(&socket.local_addr().unwrap()));
        let other = Stat { id: ProcessId { pid: 1 << 30, start: 0 }, ..own };
        assert_eq!(addresses(&[other]), []);
    }
}

//! TCP ports on which anybody on this machine listens, asked of the kernel by its socket diagnostics: those who listen are a list of their
//! own there. `/proc/net/tcp` shows the same, and walks the table of all connections for it, which on a large machine takes milliseconds at
//! each look; it is read where the kernel has no diagnostics.

use std::collections::BTreeSet;
use std::io;

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

/// Of `linux/netlink.h` and `linux/sock_diag.h`.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const REQUEST_DUMP: u16 = 0x301;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const HEADER: usize = 16;
/// Of `linux/inet_diag.h`: a request has so many bytes behind its header, and an answer's port lies so many behind its own.
const REQUEST: usize = 56;
const PORT_AT: usize = 4;
const TCP: u8 = 6;
const LISTEN: u32 = 1 << 10;

/// The ports, over IPv4 or IPv6, at whatever address.
pub(crate) fn ports() -> BTreeSet<u16> {
    let families = [AddressFamily::INET, AddressFamily::INET6];
    let asked: io::Result<Vec<_>> = families.into_iter().map(ask).collect();
    match asked {
        Ok(ports) => ports.into_iter().flatten().collect(),
        Err(error) => {
            tracing::debug!(%error, "the kernel has no socket diagnostics");
            ["/proc/net/tcp", "/proc/net/tcp6"].into_iter().flat_map(from_table).collect()
        }
    }
}

fn ask(family: AddressFamily) -> io::Result<BTreeSet<u16>> {
    let socket =
        socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(netlink::SOCK_DIAG))?;
    send(&socket, &request(family), SendFlags::empty())?;
    let mut ports = BTreeSet::new();
    let mut buffer = vec![0; 32 * 1024];
    loop {
        let (count, _) = recv(&socket, buffer.as_mut_slice(), RecvFlags::empty())?;
        if take(&buffer[..count], &mut ports)? {
            return Ok(ports);
        }
    }
}

/// All of a family's TCP sockets that listen.
fn request(family: AddressFamily) -> Vec<u8> {
    let length = u32::try_from(HEADER + REQUEST).unwrap_or_default();
    let mut bytes = Vec::with_capacity(HEADER + REQUEST);
    bytes.extend(length.to_ne_bytes());
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend(REQUEST_DUMP.to_ne_bytes());
    // Neither a number nor a sender: one question, one answer.
    bytes.extend([0; 8]);
    bytes.extend([u8::try_from(family.as_raw()).unwrap_or_default(), TCP, 0, 0]);
    bytes.extend(LISTEN.to_ne_bytes());
    bytes.resize(HEADER + REQUEST, 0);
    bytes
}

/// Takes the ports out of a piece of the answer; says whether it was the last.
fn take(mut answer: &[u8], ports: &mut BTreeSet<u16>) -> io::Result<bool> {
    while let Some((length, kind)) = header(answer) {
        match kind {
            DONE => return Ok(true),
            ERROR => return Err(io::ErrorKind::Unsupported.into()),
            _ => {}
        }
        let at = HEADER + PORT_AT;
        if let Some([high, low]) = answer.get(at..at + 2) {
            ports.insert(u16::from_be_bytes([*high, *low]));
        }
        // Messages begin at multiples of four bytes.
        answer = answer.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    // Cut, or nothing at all: it would be asked for ever.
    if answer.is_empty() { Ok(false) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// A message's length and kind; `None`: there is none.
fn header(bytes: &[u8]) -> Option<(usize, u16)> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?);
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let length = usize::try_from(length).ok()?;
    (length >= HEADER && length <= bytes.len()).then_some((length, kind))
}

/// A line of the kernel's table shows the port of a socket that listens.
fn from_table(file: &str) -> Vec<u16> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let port = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, state) = (fields.next()?, fields.nth(1)?);
        let port = u16::from_str_radix(local.rsplit(':').next()?, 16).ok()?;
        (state == "0A").then_some(port)
    };
    text.lines().skip(1).filter_map(port).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn listeners_of_both_families_are_found_both_ways_and_connections_are_not() {
        let four = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = four.local_addr().unwrap().port();
        let six = TcpListener::bind("[::1]:0").ok().map(|six| (six.local_addr().unwrap().port(), six));
        let client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let by_diagnostics = ask(AddressFamily::INET).unwrap();

        assert!(by_diagnostics.contains(&port));
        assert!(from_table("/proc/net/tcp").contains(&port));
        assert!(!by_diagnostics.contains(&client.local_addr().unwrap().port()));
        if let Some((port, _six)) = six {
            assert!(ports().contains(&port));
            assert!(from_table("/proc/net/tcp6").contains(&port));
        }
    }

    #[test]
    fn an_answer_that_is_cut_or_refused_is_an_error() {
        let message = |length: u32, kind: u16| {
            let mut bytes = [length.to_ne_bytes().as_slice(), kind.to_ne_bytes().as_slice()].concat();
            bytes.resize(HEADER, 0);
            bytes
        };
        let mut ports = BTreeSet::new();

        assert!(take(&message(16, DONE), &mut ports).unwrap());
        assert!(take(&message(16, ERROR), &mut ports).is_err());
        assert!(take(&message(60, SOCK_DIAG_BY_FAMILY), &mut ports).is_err());
        assert!(take(&message(0, SOCK_DIAG_BY_FAMILY), &mut ports).is_err());
        assert_eq!(ports, BTreeSet::new());
    }
}

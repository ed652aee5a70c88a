//! The kernel's tables of listening sockets, as text, and what of them an app in a container opened.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The engine's own name server sits inside of every container.
const NAME_SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11));

/// The addresses that are listened on, from the text of `/proc/net/tcp` and `tcp6`, in order.
pub(super) fn listening(tables: &str) -> Vec<SocketAddr> {
    let found: BTreeSet<SocketAddr> = tables.lines().filter_map(listener).collect();
    found.into_iter().filter(|address| address.ip() != NAME_SERVER).collect()
}

/// A line that shows a listening socket (state 0A).
fn listener(line: &str) -> Option<SocketAddr> {
    let fields: Vec<&str> = line.split_whitespace().take(4).collect();
    let [_, local, _, "0A"] = fields.as_slice() else { return None };
    let (address, port) = local.split_once(':')?;
    Some(SocketAddr::new(address_of(address)?, u16::from_str_radix(port, 16).ok()?))
}

/// The kernel prints addresses as 32-bit words in the machine's own byte order.
fn address_of(hex: &str) -> Option<IpAddr> {
    let words: Option<Vec<[u8; 4]>> =
        (0..hex.len() / 8).map(|word| word_of(hex.get(word * 8..word * 8 + 8)?)).collect();
    match words?.as_slice() {
        [word] => Some(Ipv4Addr::from(*word).into()),
        words @ [_, _, _, _] => {
            let bytes: [u8; 16] = words.concat().try_into().ok()?;
            Some(Ipv6Addr::from(bytes).into())
        }
        _ => None,
    }
}

/// Eight hexadecimal digits, as the four bytes they stand for in memory.
pub(super) fn word_of(hex: &str) -> Option<[u8; 4]> {
    u32::from_str_radix(hex, 16).ok().map(u32::to_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_apps_own_listening_sockets_are_read() {
        let line = |local: &str, state: &str| {
            format!("   0: {local} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000 0 0 1 1 x\n")
        };
        let tables = [
            "  sl  local_address rem_address   st tx_queue\n".to_owned(),
            line("0B00007F:A1B2", "0A"),
            line("0100007F:1F90", "0A"),
            line("00000000:0050", "01"),
            line("00000000000000000000000000000000:0050", "0A"),
        ]
        .concat();
        let expected: [SocketAddr; 2] = ["127.0.0.1:8080".parse().unwrap(), "[::]:80".parse().unwrap()];
        assert_eq!(listening(&tables), expected);
    }
}

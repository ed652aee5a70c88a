//! Fixed addresses, pure: a subnet nobody uses, an address in the half the engine does not hand out, a loopback port outside the
//! ephemeral range (S29).

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

/// An IPv4 network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subnet {
    first: u32,
    prefix: u8,
}

impl Subnet {
    /// Reads `a.b.c.d/n`; bits behind the prefix are cleared.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.trim().split_once('/')?;
        let prefix: u8 = prefix.parse().ok().filter(|prefix| *prefix <= 32)?;
        let address: Ipv4Addr = address.parse().ok()?;
        Some(Self { first: u32::from(address) & mask(prefix), prefix })
    }

    fn last(self) -> u32 {
        self.first | !mask(self.prefix)
    }

    fn overlaps(self, other: Self) -> bool {
        self.first <= other.last() && other.first <= self.last()
    }

    /// How many leading bits all its addresses share.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// Where an address of this subnet lies in another one as large; `None`: it is none of this one's.
    pub fn at_the_same_place(self, address: Ipv4Addr, other: Self) -> Option<Ipv4Addr> {
        let address = u32::from(address);
        (self.first..=self.last())
            .contains(&address)
            .then(|| Ipv4Addr::from(other.first + (address - self.first)))
    }

    /// A subnet of `prefix` bits in this one that meets none of `used`. The search begins at a place given by `seed`, so that two plans made at the same
    /// time rarely meet.
    pub fn choose(self, prefix: u8, used: &[Self], seed: u64) -> Option<Self> {
        let step = 1_u64 << (32 - u32::from(prefix.min(31)));
        let count = (u64::from(self.last()) - u64::from(self.first) + 1) / step;
        around(count, seed)
            .filter_map(|place| u32::try_from(u64::from(self.first) + place * step).ok())
            .map(|first| Self { first, prefix })
            .find(|candidate| !used.iter().any(|other| candidate.overlaps(*other)))
    }

    /// The lower half, which the engine hands out of (`--ip-range`).
    #[must_use]
    pub fn engine_half(self) -> Self {
        Self { first: self.first, prefix: (self.prefix + 1).min(32) }
    }

    /// An address of the upper half that is not taken, from a place given by `seed` on; the broadcast address is not given.
    pub fn fixed(self, taken: &BTreeSet<IpAddr>, seed: u64) -> Option<Ipv4Addr> {
        let half = self.engine_half().last() + 1;
        around(u64::from(self.last() - half), seed)
            .filter_map(|place| Some(Ipv4Addr::from(half + u32::try_from(place).ok()?)))
            .find(|address| !taken.contains(&IpAddr::V4(*address)))
    }
}

impl std::fmt::Display for Subnet {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}/{}", Ipv4Addr::from(self.first), self.prefix)
    }
}

fn mask(prefix: u8) -> u32 {
    if prefix == 0 { 0 } else { u32::MAX << (32 - u32::from(prefix.min(32))) }
}

/// A range of ports, both ends in it, written `20000-31999`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ports {
    first: u16,
    last: u16,
}

impl Ports {
    /// Those that need no rights and lie below the usual ephemeral range (32768–60999).
    const ALLOWED: Self = Self { first: 1024, last: 32_767 };

    /// Instances of one release beside those of another, of a few services.
    const LEAST: u16 = 20;

    /// A port of these on loopback that is not taken. The search begins at a place given by `seed`, so that two apps on one host rarely
    /// meet.
    pub fn free(self, taken: &BTreeSet<SocketAddr>, seed: u64) -> Option<u16> {
        around(u64::from(self.last - self.first) + 1, seed)
            .map(|place| self.first + u16::try_from(place).unwrap_or_default())
            .find(|port| {
                !taken.iter().any(|address| address.port() == *port && loopback_or_any(address.ip()))
            })
    }
}

impl Default for Ports {
    fn default() -> Self {
        Self { first: 20_000, last: 31_999 }
    }
}

impl std::str::FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let ends =
            text.split_once('-').and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)));
        let (first, last) = ends.ok_or_else(|| format!("`{text}` is not a range of ports"))?;
        let allowed = Self::ALLOWED;
        if first < allowed.first || last > allowed.last {
            return Err(format!(
                "`{text}` does not lie in {allowed}: others have those ports, or are given them by chance"
            ));
        }
        if first > last || last - first < Self::LEAST - 1 {
            return Err(format!(
                "`{text}` is too small: a deploy needs ports for old and new instances, at least {}",
                Self::LEAST
            ));
        }
        Ok(Self { first, last })
    }
}

impl TryFrom<String> for Ports {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Ports> for String {
    fn from(ports: Ports) -> Self {
        ports.to_string()
    }
}

impl std::fmt::Display for Ports {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}-{}", self.first, self.last)
    }
}

/// Every place below `length` once, beginning at the one that `seed` points to.
fn around(length: u64, seed: u64) -> impl Iterator<Item = u64> {
    (0..length).map(move |step| (seed % length + step) % length)
}

fn loopback_or_any(address: IpAddr) -> bool {
    address.is_loopback() || address.is_unspecified()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        Subnet::parse(text).unwrap()
    }

    #[test]
    fn a_subnet_is_chosen_beside_those_in_use() {
        let used = [subnet("10.213.0.0/26"), subnet("10.213.0.96/27"), subnet("192.168.0.0/16")];
        let all = subnet("10.213.0.0/16");
        assert_eq!(all.choose(26, &used, 0).unwrap().to_string(), "10.213.0.128/26");
        assert_eq!(all.choose(26, &used, 1023).unwrap().to_string(), "10.213.255.192/26");
        assert_eq!(all.choose(26, &used, 1024).unwrap().to_string(), "10.213.0.128/26");
        assert_eq!(subnet("10.213.0.0/26").choose(26, &used, 5), None);
        assert_eq!(all.choose(26, &[subnet("0.0.0.0/0")], 0), None);
        assert_eq!(subnet("10.213.0.0/26").choose(24, &[], 0), None);
    }

    #[test]
    fn fixed_addresses_come_from_the_half_the_engine_leaves_alone() {
        let net = subnet("10.213.0.0/29");
        assert_eq!(net.engine_half().to_string(), "10.213.0.0/30");
        let mut taken = BTreeSet::new();
        for expected in [4, 5, 6] {
            let address = net.fixed(&taken, 0).unwrap();
            assert_eq!(address, Ipv4Addr::new(10, 213, 0, expected));
            taken.insert(IpAddr::V4(address));
        }
        assert_eq!(net.fixed(&taken, 7), None);
        assert_eq!(net.fixed(&BTreeSet::new(), 4), Some(Ipv4Addr::new(10, 213, 0, 5)));
    }

    #[test]
    fn a_port_that_is_taken_is_passed_over() {
        let taken = BTreeSet::from(["127.0.0.1:21".parse().unwrap(), "0.0.0.0:22".parse().unwrap()]);
        assert_eq!(Ports { first: 20, last: 23 }.free(&taken, 1), Some(23));
        assert_eq!(Ports { first: 21, last: 22 }.free(&taken, 0), None);
    }

    #[test]
    fn a_range_of_ports_is_read_and_written() {
        let ports: Ports = "20000-31999".parse().unwrap();
        assert_eq!((ports, ports.to_string().as_str()), (Ports::default(), crate::defaults::PORTS));
        for wrong in
            ["", "20000", "80-20000", "20000-40000", "31999-20000", "20000-20005", "-1-5", "20000-31999-"]
        {
            assert!(wrong.parse::<Ports>().is_err(), "{wrong:?}");
        }
    }
}

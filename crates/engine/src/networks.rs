//! Networks and the subnets they occupy.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use bollard::models::{Ipam, IpamConfig, Network as EngineNetwork, NetworkCreateRequest, NetworkInspect};
use bollard::query_parameters::ListNetworksOptions;

use crate::connect::Engine;
use crate::error::{EngineError, Kind, Subject, explain};
use crate::filters;

/// A range of IPv4 addresses: `172.30.8.0/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subnet {
    /// Its first address.
    pub address: Ipv4Addr,
    /// How many leading bits all its addresses share, 0 to 32.
    pub prefix: u8,
}

impl Subnet {
    /// Whether any address lies in both.
    pub fn overlaps(self, other: Self) -> bool {
        let shared = self.prefix.min(other.prefix);
        let mask = u32::MAX.checked_shl(32 - u32::from(shared)).unwrap_or(0);
        self.address.to_bits() & mask == other.address.to_bits() & mask
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.prefix)
    }
}

/// Not a range of IPv4 addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no IPv4 subnet such as 172.30.8.0/24")]
pub struct NotASubnet(String);

impl FromStr for Subnet {
    type Err = NotASubnet;

    fn from_str(text: &str) -> Result<Self, NotASubnet> {
        let broken = || NotASubnet(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(broken)?;
        let address = address.parse().map_err(|_| broken())?;
        let prefix = prefix.parse().ok().filter(|prefix| *prefix <= 32).ok_or_else(broken)?;
        Ok(Self { address, prefix })
    }
}

/// A network to be made: always a bridge on this host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkSpec {
    /// Unique on the engine.
    pub name: String,
    /// Its addresses; `None` lets the engine choose, and then no address can be fixed.
    pub subnet: Option<Subnet>,
    /// The part of the subnet that the engine hands out by itself; fixed addresses come from the rest (S29).
    pub handed_out: Option<Subnet>,
    /// The host's own address on it; `None` is the first one.
    pub gateway: Option<Ipv4Addr>,
    /// Without a way out.
    pub internal: bool,
    /// How we find it again.
    pub labels: BTreeMap<String, String>,
    /// The bridge driver's options, such as `com.docker.network.bridge.name`.
    pub options: BTreeMap<String, String>,
}

/// A network, as the engine tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// The engine's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// `bridge`, `host`, `none`, …
    pub driver: String,
    /// Its IPv4 subnets.
    pub subnets: Vec<Subnet>,
    /// The parts of them that the engine hands out by itself.
    pub handed_out: Vec<Subnet>,
    /// The host's own address on it.
    pub gateway: Option<Ipv4Addr>,
    /// Without a way out.
    pub internal: bool,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// The driver's options.
    pub options: BTreeMap<String, String>,
    /// Running containers on it, id → address; only `inspect_network` fills it.
    pub containers: BTreeMap<String, Option<Ipv4Addr>>,
}

impl Engine {
    /// Makes a network and gives its id. One of that name that carries all of the spec's labels is taken as made by an
    /// earlier try; another is `Exists`; a subnet somebody else uses is a `Conflict`.
    pub async fn create_network(&self, spec: &NetworkSpec) -> Result<String, EngineError> {
        let act = || format!("create network {}", spec.name);
        match self.docker().create_network(request(spec)).await {
            Ok(answer) => Ok(answer.id),
            Err(error) => {
                let error = explain(Subject::NewThing, act)(error);
                // 20.10 looks at the subnet before the name: a second try is a conflict with its own first one.
                if !matches!(error.kind, Kind::Exists | Kind::Conflict) {
                    return Err(error);
                }
                let found = match self.inspect_network(&spec.name).await {
                    Ok(found) => found,
                    Err(look) if look.kind == Kind::Gone => return Err(error),
                    Err(look) => return Err(look),
                };
                let ours = !spec.labels.is_empty()
                    && spec.labels.iter().all(|(key, value)| found.labels.get(key) == Some(value));
                if ours {
                    return Ok(found.id);
                }
                Err(EngineError {
                    kind: Kind::Exists,
                    message: format!("network {} is there and is not ours", spec.name),
                    ..error
                })
            }
        }
    }

    /// Networks that carry all of `labels`; with none, every network.
    pub async fn list_networks(
        &self,
        labels: &BTreeMap<String, String>,
    ) -> Result<Vec<Network>, EngineError> {
        let options =
            ListNetworksOptions { filters: (!labels.is_empty()).then(|| filters::by_labels(labels)) };
        let found = self
            .docker()
            .list_networks(Some(options))
            .await
            .map_err(explain(Subject::Thing, || "list networks".to_owned()))?;
        Ok(found.into_iter().map(listed).collect())
    }

    /// One network by name or id.
    pub async fn inspect_network(&self, network: &str) -> Result<Network, EngineError> {
        let found = self
            .docker()
            .inspect_network(network, None)
            .await
            .map_err(explain(Subject::Thing, || format!("inspect network {network}")))?;
        Ok(inspected(found))
    }

    /// Removes a network; one that is gone already is no error, one in use a `Conflict`.
    pub async fn remove_network(&self, network: &str) -> Result<(), EngineError> {
        let removed = self.docker().remove_network(network).await;
        match removed.map_err(explain(Subject::Thing, || format!("remove network {network}"))) {
            Err(error) if error.kind == Kind::Gone => Ok(()),
            other => other,
        }
    }

    /// Every IPv4 subnet that a network of this engine occupies, whoever made it, in order.
    pub async fn subnets_in_use(&self) -> Result<Vec<Subnet>, EngineError> {
        let networks = self.list_networks(&BTreeMap::new()).await?;
        let mut subnets: Vec<Subnet> = networks.into_iter().flat_map(|network| network.subnets).collect();
        subnets.sort_unstable();
        subnets.dedup();
        Ok(subnets)
    }
}

fn request(spec: &NetworkSpec) -> NetworkCreateRequest {
    let pairs = |map: &BTreeMap<String, String>| -> HashMap<String, String> {
        map.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    let addresses = spec.subnet.map(|subnet| IpamConfig {
        subnet: Some(subnet.to_string()),
        ip_range: spec.handed_out.map(|range| range.to_string()),
        gateway: spec.gateway.map(|gateway| gateway.to_string()),
        auxiliary_addresses: None,
    });
    NetworkCreateRequest {
        name: spec.name.clone(),
        driver: Some("bridge".to_owned()),
        internal: Some(spec.internal),
        ipam: addresses.map(|addresses| Ipam { config: Some(vec![addresses]), ..Ipam::default() }),
        options: Some(pairs(&spec.options)),
        labels: Some(pairs(&spec.labels)),
        ..NetworkCreateRequest::default()
    }
}

fn listed(found: EngineNetwork) -> Network {
    let ranges = ranges(found.ipam);
    Network {
        id: found.id.unwrap_or_default(),
        name: found.name.unwrap_or_default(),
        driver: found.driver.unwrap_or_default(),
        subnets: ranges.subnets,
        handed_out: ranges.handed_out,
        gateway: ranges.gateway,
        internal: found.internal.unwrap_or(false),
        labels: found.labels.unwrap_or_default().into_iter().collect(),
        options: found.options.unwrap_or_default().into_iter().collect(),
        containers: BTreeMap::new(),
    }
}

fn inspected(found: NetworkInspect) -> Network {
    let ranges = ranges(found.ipam);
    let place = |address: Option<String>| address.and_then(|address| address.split('/').next()?.parse().ok());
    Network {
        id: found.id.unwrap_or_default(),
        name: found.name.unwrap_or_default(),
        driver: found.driver.unwrap_or_default(),
        subnets: ranges.subnets,
        handed_out: ranges.handed_out,
        gateway: ranges.gateway,
        internal: found.internal.unwrap_or(false),
        labels: found.labels.unwrap_or_default().into_iter().collect(),
        options: found.options.unwrap_or_default().into_iter().collect(),
        containers: found
            .containers
            .unwrap_or_default()
            .into_iter()
            .map(|(id, end)| (id, place(end.ipv4_address)))
            .collect(),
    }
}

#[derive(Default)]
struct Ranges {
    subnets: Vec<Subnet>,
    handed_out: Vec<Subnet>,
    gateway: Option<Ipv4Addr>,
}

/// IPv6 and unreadable entries are left out: nothing of ours is placed by them.
fn ranges(ipam: Option<Ipam>) -> Ranges {
    let mut ranges = Ranges::default();
    for config in ipam.and_then(|ipam| ipam.config).unwrap_or_default() {
        ranges.subnets.extend(config.subnet.and_then(|subnet| subnet.parse::<Subnet>().ok()));
        ranges.handed_out.extend(config.ip_range.and_then(|range| range.parse::<Subnet>().ok()));
        ranges.gateway = ranges.gateway.or_else(|| config.gateway?.split('/').next()?.parse().ok());
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn subnets_are_read_and_written() {
        assert_eq!(subnet("172.30.8.0/24").to_string(), "172.30.8.0/24");
        for broken in ["172.30.8.0", "172.30.8.0/33", "fd00::/64", "x/8", ""] {
            assert!(broken.parse::<Subnet>().is_err(), "{broken}");
        }
    }

    #[test]
    fn subnets_overlap_where_one_holds_the_other() {
        assert!(subnet("172.16.0.0/12").overlaps(subnet("172.30.8.0/24")));
        assert!(subnet("172.30.8.0/24").overlaps(subnet("172.16.0.0/12")));
        assert!(!subnet("172.30.8.0/24").overlaps(subnet("172.30.9.0/24")));
        assert!(subnet("0.0.0.0/0").overlaps(subnet("10.0.0.0/8")));
    }
}

//! What the engine is and has, for the look that a plan is made from.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, UdpSocket};

use cutover_core::defaults;
use cutover_core::hash::ContentHash;
use cutover_core::layout::label;
use cutover_core::names::AppId;
use cutover_core::release::BuiltImage;
use cutover_core::state::{FoundEngine, FoundImage};
use cutover_engine::{
    EngineInfo, HealthTest, Image, Kind, Network, Product, Protocol, PullProgress, Reference, RegistryLogin,
    Subnet,
};

use super::DockerRuntime;
use super::error::failed;
use super::sockets::word_of;
use crate::host_file;
use crate::ports::{Certainty, Doing, ImageRequest, RuntimeError, RuntimeErrorKind};

/// Names of the network an engine brings itself.
const DEFAULT_NETWORKS: [&str; 2] = ["bridge", "podman"];

impl DockerRuntime {
    /// What the engine is and has, as one app sees it.
    ///
    /// # Errors
    /// When the engine does not answer, or not completely (S4a).
    pub async fn facts(&self, app: &AppId) -> Result<FoundEngine, RuntimeError> {
        let (nothing, of_app) = (BTreeMap::new(), self.of_app(app));
        let (info, networks, volumes) =
            tokio::join!(self.info(), self.engine.list_networks(&nothing), self.engine.list_volumes(&of_app));
        let (info, networks) = (info?, networks.map_err(failed)?);
        let volumes = volumes.map_err(failed)?;
        let ours = |network: &&Network| {
            network.labels.get(label::INSTALLATION).is_some_and(|found| *found == self.installation)
        };
        Ok(FoundEngine {
            name: product(info.product).to_owned(),
            version: info.version.clone(),
            platform: format!("{}/{}", info.operating_system, architecture(&info.architecture)),
            bridge_reachable: bridge_reachable(info, &networks),
            subnets: subnets(&networks),
            range: self.range(),
            networks: networks
                .iter()
                .filter(ours)
                .filter_map(|network| Some((network.name.clone(), network.subnets.first()?.to_string())))
                .collect(),
            volumes: volumes.into_iter().map(|volume| volume.name).collect(),
        })
    }

    /// Where networks are cut from.
    fn range(&self) -> String {
        host_file::of(&self.layout)
            .subnets
            .map_or_else(|| defaults::SUBNETS.to_owned(), |range| range.to_string())
    }

    fn of_app(&self, app: &AppId) -> BTreeMap<String, String> {
        BTreeMap::from([
            (label::INSTALLATION.to_owned(), self.installation.clone()),
            (label::APP.to_owned(), app.to_string()),
        ])
    }

    pub(super) async fn find_image(&self, reference: &str) -> Result<Option<FoundImage>, RuntimeError> {
        match self.engine.inspect_image(reference).await {
            Ok(image) => found_image(&image, reference).map(Some),
            Err(error) if error.kind == Kind::NotFoundImage => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    pub(super) async fn drop_image(&self, built: &BuiltImage) -> Result<(), RuntimeError> {
        let image = match self.engine.inspect_image(&built.id).await {
            Ok(image) => image,
            Err(error) if error.kind == Kind::NotFoundImage => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        let Some(name) = removable(&image.tags, built) else { return Ok(()) };
        match self.engine.remove_image(name).await {
            // A container uses it, whoever's.
            Err(error) if error.kind == Kind::Conflict => Ok(()),
            removed => removed.map_err(failed),
        }
    }

    pub(super) async fn pull(
        &self,
        request: &ImageRequest,
        doing: &mut Doing<'_>,
    ) -> Result<FoundImage, RuntimeError> {
        let login = request.login.as_ref().map(|login| RegistryLogin {
            server: login.server.clone(),
            username: login.username.clone(),
            password: login.password.expose().to_owned(),
        });
        // A password is for its own registry only.
        let login = login.filter(|login| login.is_for(&Reference::split(&request.reference)));
        let mut told = |progress: PullProgress| {
            // Bars are for a terminal of the engine's own client.
            if progress.current.is_none() && !progress.status.is_empty() {
                doing(&progress.status);
            }
        };
        let image = self
            .engine
            .pull(&request.reference, request.platform.as_deref(), login.as_ref(), &mut told)
            .await;
        found_image(&image.map_err(failed)?, &request.reference)
    }
}

fn found_image(image: &Image, reference: &str) -> Result<FoundImage, RuntimeError> {
    let identity = ContentHash::from_hex(&image.content()).ok_or_else(|| {
        let message = format!("image {} has no identity", image.id);
        RuntimeError::new(RuntimeErrorKind::Other, Certainty::NotDone, message)
    })?;
    let variant = if image.variant.is_empty() { String::new() } else { format!("/{}", image.variant) };
    let healthcheck = image
        .health
        .as_ref()
        .is_some_and(|health| health.test.as_ref().is_some_and(|test| *test != HealthTest::Off));
    Ok(FoundImage {
        id: image.id.clone(),
        identity,
        exposed: image
            .exposed
            .iter()
            .filter(|(_, protocol)| *protocol == Protocol::Tcp)
            .map(|(port, _)| *port)
            .collect(),
        healthcheck,
        command: image.entrypoint.iter().chain(&image.command).cloned().collect(),
        platform: format!("{}/{}{variant}", image.operating_system, image.architecture),
        origin: image.origin(&Reference::split(reference)).map(str::to_owned),
    })
}

/// By what an image that we built is removed: our name, or its id where a later build has taken the name over. Under a name that somebody else
/// gave it, it is his.
fn removable<'a>(tags: &[String], built: &'a BuiltImage) -> Option<&'a str> {
    // Podman tells names of its own images with their place.
    let is_ours = |tag: &String| tag.strip_prefix("localhost/").unwrap_or(tag) == built.name;
    if tags.iter().any(is_ours) {
        return Some(&built.name);
    }
    tags.is_empty().then_some(&built.id)
}

fn product(product: Product) -> &'static str {
    match product {
        Product::Docker => "Docker",
        Product::Podman => "Podman",
    }
}

/// The kernel's name of a machine, as images name it.
fn architecture(kernel: &str) -> &str {
    match kernel {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "armv7l" => "arm/v7",
        other => other,
    }
}

/// Found by trying: the engine's bridge is ours to reach when its address is one of this host's own. A rootless engine's, and one in a virtual
/// machine, is not, even where another engine's bridge here has the same address.
fn bridge_reachable(info: &EngineInfo, networks: &[Network]) -> bool {
    if info.rootless {
        return false;
    }
    let (usual, others): (Vec<&Network>, Vec<&Network>) = networks
        .iter()
        .filter(|network| network.driver == "bridge")
        .partition(|network| DEFAULT_NETWORKS.contains(&network.name.as_str()));
    let candidates = if usual.is_empty() { others } else { usual };
    // Podman makes a bridge with the first container on it.
    candidates.into_iter().filter_map(gateway).any(is_local) || info.product == Product::Podman
}

fn gateway(network: &Network) -> Option<Ipv4Addr> {
    let first = || Some(Ipv4Addr::from_bits(network.subnets.first()?.address.to_bits() + 1));
    network.gateway.or_else(first)
}

/// Only an address of this host can be bound.
fn is_local(address: Ipv4Addr) -> bool {
    UdpSocket::bind((IpAddr::V4(address), 0)).is_ok()
}

/// All that is in use: the engine's networks and this host's routes.
fn subnets(networks: &[Network]) -> Vec<String> {
    let of_engine = networks.iter().flat_map(|network| &network.subnets).map(ToString::to_string);
    let routes = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
    let of_host = routes.lines().filter_map(route).map(|subnet| subnet.to_string());
    of_engine.chain(of_host).collect::<BTreeSet<_>>().into_iter().collect()
}

/// A line of the kernel's table of routes. The default route is no subnet in use.
fn route(line: &str) -> Option<Subnet> {
    let mut fields = line.split_whitespace();
    let address = Ipv4Addr::from(word_of(fields.nth(1)?)?);
    let mask = u32::from_be_bytes(word_of(fields.nth(5)?)?);
    let prefix = u8::try_from(mask.leading_ones()).ok()?;
    (prefix > 0).then_some(Subnet { address, prefix })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_goes_by_our_name_and_never_by_somebody_elses() {
        let built = BuiltImage { id: "sha256:1".to_owned(), name: "cutover/shop/local/web:0123".to_owned() };
        let by = |tags: &[&str]| {
            let tags: Vec<String> = tags.iter().map(|tag| (*tag).to_owned()).collect();
            removable(&tags, &built).map(str::to_owned)
        };
        assert_eq!(by(&["theirs:1", "cutover/shop/local/web:0123"]), Some(built.name.clone()));
        assert_eq!(by(&["localhost/cutover/shop/local/web:0123"]), Some(built.name.clone()));
        assert_eq!(by(&[]), Some(built.id.clone()));
        assert_eq!(by(&["theirs:1"]), None);
    }

    #[test]
    fn routes_are_read_but_for_the_default_one() {
        let table = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
            eth0\t00000000\t010011AC\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
            docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n";
        let found: Vec<String> = table.lines().filter_map(route).map(|subnet| subnet.to_string()).collect();
        assert_eq!(found, ["172.17.0.0/16"]);
    }
}

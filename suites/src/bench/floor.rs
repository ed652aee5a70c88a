//! The floor of a deploy with a container engine: the same calls, made directly, with nothing around them. What they cost nobody can save;
//! what a deploy costs beyond is ours.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use anyhow::Context as _;
use bollard::Docker;
use bollard::models::{
    ContainerCreateBody, EndpointIpamConfig, EndpointSettings, Ipam, IpamConfig, NetworkCreateRequest,
    NetworkingConfig,
};
use bollard::query_parameters::{CreateContainerOptions, RemoveContainerOptions, StopContainerOptions};

use super::figures::milliseconds;
use super::processes::first_answer;
use super::sample::PORT;

/// Outside of the range that cutover takes its own from.
const SUBNET: &str = "10.214.77.0/24";
const HANDED_OUT: &str = "10.214.77.128/25";

/// A network like the one that an instance with a route joins, and what is live on it.
pub(super) struct Floor {
    docker: Docker,
    image: String,
    network: String,
    live: Option<String>,
    number: u8,
}

/// One swap, in milliseconds.
pub(super) struct Swap {
    /// From the call that makes the new one until its first answer.
    pub(super) up: f64,
    /// Until the old one is gone.
    pub(super) whole: f64,
}

impl Floor {
    pub(super) async fn new(engine: &str, image: &str) -> anyhow::Result<Self> {
        let docker = Docker::connect_with_host(engine)?.negotiate_version().await?;
        let network = format!("cutover-bench-{}", std::process::id());
        let pool = IpamConfig {
            subnet: Some(SUBNET.to_owned()),
            ip_range: Some(HANDED_OUT.to_owned()),
            ..IpamConfig::default()
        };
        let request = NetworkCreateRequest {
            name: network.clone(),
            ipam: Some(Ipam { config: Some(vec![pool]), ..Ipam::default() }),
            ..NetworkCreateRequest::default()
        };
        docker.create_network(request).await.context("a network for the floor")?;
        Ok(Self { docker, image: image.to_owned(), network, live: None, number: 0 })
    }

    /// New made, joined, started, asked until it answers; old stopped and removed.
    pub(super) async fn swap(&mut self) -> anyhow::Result<Swap> {
        self.number = self.number % 100 + 1;
        let address = Ipv4Addr::new(10, 214, 77, 1 + self.number);
        let name = format!("{}-{}", self.network, self.number);
        let began = Instant::now();
        self.create(&name, Some(self.joined(address))).await?;
        self.docker.start_container(&name, None).await?;
        first_answer(SocketAddr::from((address, PORT))).await?;
        let up = began.elapsed();
        if let Some(old) = self.live.replace(name) {
            let patiently = StopContainerOptions { signal: None, t: Some(10) };
            self.docker.stop_container(&old, Some(patiently)).await?;
            self.docker.remove_container(&old, None).await?;
        }
        Ok(Swap { up: milliseconds(up), whole: milliseconds(began.elapsed()) })
    }

    /// One container on the engine's own bridge, as `docker run` makes it, until its first answer.
    pub(super) async fn on_the_default_bridge(&self) -> anyhow::Result<f64> {
        let name = format!("{}-default", self.network);
        let began = Instant::now();
        self.create(&name, None).await?;
        self.docker.start_container(&name, None).await?;
        let address = self.default_address(&name).await?;
        first_answer(SocketAddr::from((address, PORT))).await?;
        let up = began.elapsed();
        self.remove(&name).await?;
        Ok(milliseconds(up))
    }

    async fn create(&self, name: &str, networking: Option<NetworkingConfig>) -> anyhow::Result<()> {
        let body = ContainerCreateBody {
            image: Some(self.image.clone()),
            env: Some(vec![format!("PORT={PORT}")]),
            networking_config: networking,
            host_config: Some(bollard::models::HostConfig {
                network_mode: Some(self.network_mode(name)),
                ..bollard::models::HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let options =
            CreateContainerOptions { name: Some(name.to_owned()), ..CreateContainerOptions::default() };
        self.docker.create_container(Some(options), body).await?;
        Ok(())
    }

    fn network_mode(&self, name: &str) -> String {
        if name.ends_with("-default") { "bridge".to_owned() } else { self.network.clone() }
    }

    fn joined(&self, address: Ipv4Addr) -> NetworkingConfig {
        let ipam =
            EndpointIpamConfig { ipv4_address: Some(address.to_string()), ..EndpointIpamConfig::default() };
        let endpoint = EndpointSettings { ipam_config: Some(ipam), ..EndpointSettings::default() };
        NetworkingConfig { endpoints_config: Some(HashMap::from([(self.network.clone(), endpoint)])) }
    }

    async fn default_address(&self, name: &str) -> anyhow::Result<Ipv4Addr> {
        let found = self.docker.inspect_container(name, None).await?;
        let networks = found.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
        let address = networks.get("bridge").and_then(|endpoint| endpoint.ip_address.clone());
        address.and_then(|text| text.parse().ok()).context("it has no address on the default bridge")
    }

    async fn remove(&self, name: &str) -> anyhow::Result<()> {
        let options = RemoveContainerOptions { force: true, ..RemoveContainerOptions::default() };
        Ok(self.docker.remove_container(name, Some(options)).await?)
    }

    /// Takes away what is left of it.
    pub(super) async fn clear(&mut self) -> anyhow::Result<()> {
        if let Some(live) = self.live.take() {
            self.remove(&live).await?;
        }
        Ok(self.docker.remove_network(&self.network).await?)
    }
}

//! A range of loopback ports that no other site on this machine has: two installations that plan at the same moment know nothing of
//! each other, and could give the same port to both.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;

use anyhow::Context as _;

/// Ports of one site.
const SIZE: u16 = 100;

/// Where the first range begins; the last one ends below the ephemeral ports.
const FIRST: u16 = 10_000;

/// So many ranges there are.
const RANGES: u16 = 220;

/// A range, claimed by the name of a socket, which the kernel gives to one holder and takes back at its end.
#[derive(Debug)]
pub(super) struct Ports {
    _claim: UnixListener,
    first: u16,
}

impl Ports {
    pub(super) fn claim() -> anyhow::Result<Self> {
        // From a place of its own on, so that those who claim at the same time do not all try the same ones.
        let place = std::process::id() % u32::from(RANGES);
        let mut ranges = (0..RANGES).map(|step| (u16::try_from(place).unwrap_or(0) + step) % RANGES);
        ranges.find_map(Self::claim_this).context("every range of ports is claimed by another site")
    }

    fn claim_this(range: u16) -> Option<Self> {
        let name = SocketAddr::from_abstract_name(format!("cutover-testkit-ports-{range}")).ok()?;
        let claim = UnixListener::bind_addr(&name).ok()?;
        Some(Self { _claim: claim, first: FIRST + range * SIZE })
    }

    /// Says so in the host's configuration.
    pub(super) fn write(&self, host_file: &Path) -> anyhow::Result<()> {
        std::fs::create_dir_all(host_file.parent().context("a file in a folder")?)?;
        let text = format!("ports: {}-{}\n", self.first, self.first + SIZE - 1);
        std::fs::write(host_file, text).with_context(|| host_file.display().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_claims_are_of_different_ports() {
        let folder = tempfile::tempdir().unwrap();
        let claims = [Ports::claim().unwrap(), Ports::claim().unwrap()];
        let texts: Vec<String> = ["one", "other"]
            .iter()
            .zip(&claims)
            .map(|(name, claim)| {
                let file = folder.path().join(name).join("host.yml");
                claim.write(&file).unwrap();
                std::fs::read_to_string(file).unwrap()
            })
            .collect();
        assert_ne!(texts[0], texts[1]);
        for text in &texts {
            assert!(cutover_core::config::host_file("host.yml", text).unwrap().ports.is_some(), "{text}");
        }
    }
}

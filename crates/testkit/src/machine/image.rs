//! What a server is made from.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

/// What `machines.sh` exits with where there can be no such server.
const NONE: i32 = 3;

/// What a server has when it is handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Image {
    /// Debian 12, nothing else.
    Debian12,
    /// Debian 13, nothing else.
    Debian13,
    /// Ubuntu 22.04, nothing else.
    Ubuntu2204,
    /// Ubuntu 24.04, nothing else.
    Ubuntu2404,
    /// Debian 12, with the packages that setup installs to be had without a network.
    Stocked12,
    /// Debian 12 with its engine.
    Engine20,
    /// Debian 13 with its engine.
    Engine26,
    /// Ubuntu 24.04 with its engine: API 1.44 and later only, images in containerd's store.
    Engine29,
}

impl Image {
    /// Its name for `machines.sh`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Debian12 => "bare-12",
            Self::Debian13 => "bare-13",
            Self::Ubuntu2204 => "bare-22.04",
            Self::Ubuntu2404 => "bare-24.04",
            Self::Stocked12 => "stocked-12",
            Self::Engine20 => "engine-20.10",
            Self::Engine26 => "engine-26.1",
            Self::Engine29 => "engine-29.1",
        }
    }

    /// Its tag on the engine in `DOCKER_HOST`, made where it is not there yet; `Err` inside: why there can be none here.
    pub(super) fn made(self) -> anyhow::Result<Result<String, String>> {
        let output = script(&["image", self.name()])?;
        let said = String::from_utf8_lossy(&output.stderr);
        match output.status.code() {
            Some(0) => Ok(Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())),
            Some(NONE) => Ok(Err(said.lines().last().unwrap_or_default().to_owned())),
            _ => bail!("{} was not made: {said}", self.name()),
        }
    }
}

/// Sees to it that systemd takes nothing from this machine.
pub(super) fn cgroups() -> anyhow::Result<()> {
    let output = script(&["cgroups"])?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

fn script(words: &[&str]) -> anyhow::Result<std::process::Output> {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/machines.sh");
    Command::new(&path).args(words).output().with_context(|| format!("{} does not run", path.display()))
}

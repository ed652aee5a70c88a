//! Pairs of keys, made for one test.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

/// A pair of keys without a passphrase.
pub(super) struct KeyPair {
    pub(super) private: PathBuf,
    /// The public one's line: type and key.
    pub(super) public: String,
}

impl KeyPair {
    /// Makes one at `path`.
    pub(super) fn make(path: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new("ssh-keygen");
        command.args(["-q", "-t", "ed25519", "-N", "", "-C", "a test's", "-f"]).arg(path);
        let output = command.output().context("ssh-keygen is needed")?;
        if !output.status.success() {
            bail!("ssh-keygen: {}", String::from_utf8_lossy(&output.stderr));
        }
        let line = std::fs::read_to_string(path.with_extension("pub"))?;
        let public = line.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
        Ok(Self { private: path.to_owned(), public })
    }
}

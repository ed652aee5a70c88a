//! The programs a site is made of, where cargo puts them.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

/// The programs of a site.
#[derive(Clone, Debug)]
pub struct Binaries {
    pub cutover: PathBuf,
    pub host: PathBuf,
    /// The application that is deployed.
    pub guestbook: PathBuf,
}

impl Binaries {
    /// Those in `target/<profile>`, where this very program, or the folder of this test, lies.
    pub fn beside_this_program() -> anyhow::Result<Self> {
        let own = std::env::current_exe().context("this program does not know where it lies")?;
        let folder = own.parent().context("this program lies nowhere")?;
        let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
        Self::in_folder(folder)
    }

    fn in_folder(folder: &Path) -> anyhow::Result<Self> {
        let program = |name: &str| {
            let path = folder.join(name);
            if path.is_file() {
                return Ok(path);
            }
            bail!(
                "{} is not built yet: run `cargo build -p cutover -p cutover-host-bin -p guestbook` first, with the same profile",
                path.display()
            )
        };
        Ok(Self {
            cutover: program("cutover")?,
            host: program("cutover-host")?,
            guestbook: program("guestbook")?,
        })
    }

    /// The same with another `cutover-host`.
    #[must_use]
    pub fn with_host(self, host: impl Into<PathBuf>) -> Self {
        Self { host: host.into(), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_a_program_that_is_not_built_then_the_command_that_builds_it_is_told() {
        let empty = tempfile::tempdir().unwrap();
        let error = Binaries::in_folder(empty.path()).unwrap_err().to_string();
        assert!(error.contains("cargo build -p cutover "), "{error}");
    }
}

//! Lays out the guestbook's releases as a developer's repository would hold them, v1 to v6, from `examples/guestbook`.

use std::io;
use std::path::{Path, PathBuf};

/// Which of the example's two configurations becomes `cutover.yml`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Processes,
    Containers,
}

/// Good releases, each on top of the one before; the others lie on top of the last of these.
const GOOD: [&str; 3] = ["v1", "v2", "v3"];

/// Fills `repository` with release `version` (`v1` … `v6`): `cutover.yml`, `web/` and `bot/`, as plain processes with `binary` in both; images have it
/// from their base. What an earlier release left there goes; everything else in the folder stays.
pub fn lay_out(version: &str, kind: Kind, binary: &Path, repository: &Path) -> io::Result<()> {
    for folder in ["web", "bot"] {
        match std::fs::remove_dir_all(repository.join(folder)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    lay_out_files(version, repository)?;
    let containers = repository.join("cutover.docker.yml");
    match kind {
        Kind::Containers => std::fs::rename(containers, repository.join("cutover.yml")),
        Kind::Processes => {
            for folder in ["web", "bot"] {
                std::fs::copy(binary, repository.join(folder).join("guestbook"))?;
            }
            std::fs::remove_file(containers)
        }
    }
}

/// The release's own files only: no binary, and both configurations.
pub fn lay_out_files(version: &str, folder: &Path) -> io::Result<()> {
    let example = example();
    for name in ["cutover.yml", "cutover.docker.yml"] {
        std::fs::copy(example.join(name), folder.join(name))?;
    }
    let below = GOOD.iter().take_while(|good| **good != version);
    for layer in below.copied().chain([version]) {
        overlay(&example.join("releases").join(layer), folder)?;
    }
    Ok(())
}

fn overlay(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::create_dir_all(to)?;
    for item in std::fs::read_dir(from)? {
        let item = item?;
        let target = to.join(item.file_name());
        if item.file_type()?.is_dir() {
            overlay(&item.path(), &target)?;
        } else {
            std::fs::copy(item.path(), target)?;
        }
    }
    Ok(())
}

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/guestbook")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn laid_out(versions: &[&str], kind: Kind) -> tempfile::TempDir {
        let repository = tempfile::tempdir().unwrap();
        let binary = repository.path().join("binary");
        std::fs::write(&binary, "#!").unwrap();
        for version in versions {
            lay_out(version, kind, &binary, repository.path()).unwrap();
        }
        repository
    }

    fn text(repository: &tempfile::TempDir, file: &str) -> String {
        std::fs::read_to_string(repository.path().join(file)).unwrap()
    }

    #[test]
    fn given_one_release_after_another_then_nothing_of_the_last_stays() {
        let repository = laid_out(&["v5", "v6"], Kind::Processes);
        let migrations = std::fs::read_dir(repository.path().join("web/migrations")).unwrap().count();
        assert_eq!(migrations, 2);
        assert!(text(&repository, "web/behaviour.json").contains("fail_after_requests"));
        assert_eq!(text(&repository, "bot/guestbook"), "#!");
    }

    #[test]
    fn given_the_second_release_then_only_a_page_differs_from_the_first() {
        let (first, second) = (laid_out(&["v1"], Kind::Processes), laid_out(&["v2"], Kind::Processes));
        for same in ["cutover.yml", "bot/greeting.txt", "web/sql/insert_entry.sql", "web/pages/about.html"] {
            assert_eq!(text(&first, same), text(&second, same), "{same}");
        }
        assert_ne!(text(&first, "web/pages/index.html"), text(&second, "web/pages/index.html"));
    }

    #[test]
    fn given_the_third_release_then_its_configuration_differs_by_the_declared_break_alone() {
        for kind in [Kind::Processes, Kind::Containers] {
            let (first, third) = (laid_out(&["v1"], kind), laid_out(&["v3"], kind));
            let declared = text(&first, "cutover.yml").replace("compatible: expand", "compatible: breaking");
            assert_eq!(text(&third, "cutover.yml"), declared);
            assert!(!third.path().join("cutover.docker.yml").exists());
        }
    }
}

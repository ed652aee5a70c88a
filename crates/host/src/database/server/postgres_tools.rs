//! Which of this host's client programs fit a server: its own major version, or a newer one that still speaks to it. Inside the server's instance
//! they always do.

use std::path::{Path, PathBuf};

use crate::ports::{DatabaseError, Server, Way};

/// Where the distribution puts the programs of each major version.
const VERSIONS: &str = "/usr/lib/postgresql";

/// What a program is started by, for a server of this major version.
///
/// # Errors
/// None here fits; what to install.
pub(super) fn program(server: &Server, major: u32, name: &str) -> Result<String, DatabaseError> {
    match server.way {
        Way::Inside { .. } => Ok(name.to_owned()),
        Way::Outside { .. } => fitting(Path::new(VERSIONS), major, name)
            .map(|path| path.display().to_string())
            .ok_or_else(|| {
                DatabaseError::plain(format!(
                    "this host has no `{name}` that fits a server of version {major}: `apt-get install postgresql-client-{major}` brings it"
                ))
            }),
    }
}

/// From this version on `pg_restore` begins with a setting that older servers do not know, and what is told to stop at an error stops there.
const NEW_SETTING: u32 = 17;

/// The oldest one that is not older than the server, and puts back what it took.
fn fitting(versions: &Path, major: u32, name: &str) -> Option<PathBuf> {
    let entries = std::fs::read_dir(versions).into_iter().flatten().flatten();
    let found = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut fitting: Vec<u32> = found.filter(|version| fits(*version, major)).collect();
    fitting.sort_unstable();
    let paths = fitting.iter().map(|version| versions.join(format!("{version}/bin/{name}")));
    paths.into_iter().find(|path| path.is_file())
}

fn fits(version: u32, major: u32) -> bool {
    version == major || version > major && (version < NEW_SETTING || major >= NEW_SETTING)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_own_version_is_taken_else_the_next_newer_one() {
        let folder = tempfile::tempdir().unwrap();
        for version in ["13", "15", "17"] {
            let bin = folder.path().join(version).join("bin");
            std::fs::create_dir_all(&bin).unwrap();
            std::fs::write(bin.join("pg_dump"), "").unwrap();
        }
        let version = |major| {
            let path = fitting(folder.path(), major, "pg_dump")?;
            path.strip_prefix(folder.path()).ok()?.iter().next()?.to_str().map(str::to_owned)
        };

        assert_eq!(version(15).as_deref(), Some("15"));
        assert_eq!(version(14).as_deref(), Some("15"));
        assert_eq!(version(16), None, "17 takes a dump of it that it cannot put back");
        assert_eq!(version(18), None, "an older one cannot read it");
        assert_eq!(fitting(folder.path(), 13, "pg_restore"), None);
    }
}

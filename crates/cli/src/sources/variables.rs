//! Values the client lays over the host's env file: the local env file, and what this process's environment has of the names that are
//! declared without a value. They are secret: they go out in one frame, and nowhere else (P6).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use cutover_core::config::settings::{Config, Origin};
use cutover_core::env_file;
use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::names::{EnvironmentName, VariableName};
use cutover_core::plan::Rule;
use cutover_core::secret::{Secret, Secrets};

use super::project::Project;

/// Rights of others, and of the group.
const OTHERS: u32 = 0o077;

/// What the client lays over the host's env file.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Overlay {
    /// The values.
    pub(crate) values: Secrets,
    /// Where each came from.
    pub(crate) origins: BTreeMap<VariableName, Origin>,
}

impl Overlay {
    fn lay(&mut self, values: &Secrets, origin: Origin) {
        for (name, value) in values.iter() {
            self.origins.insert(name.clone(), origin);
            self.values.insert(name.clone(), value.clone());
        }
    }
}

/// How the process's environment is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProcessEnvironment {
    /// For names that are declared without a value.
    Use,
    /// Not at all: the environment is protected, and nobody asked for it.
    Leave,
}

/// Gathers the overlay of a deploy. `process` reads this process's environment.
pub(crate) fn overlay(
    config: &Config,
    project: &Project,
    use_process: ProcessEnvironment,
    allowed: &BTreeSet<Rule>,
    process: impl Fn(&str) -> Option<String>,
) -> Result<Overlay, Failure> {
    let mut overlay = Overlay::default();
    for (path, text) in project.env_files() {
        overlay.lay(&parse(path, text)?, Origin::LocalFile);
    }
    let path = local_file(&project.folder, &config.id.environment);
    overlay.lay(&read_local(&path, allowed)?, Origin::LocalFile);
    if use_process == ProcessEnvironment::Use {
        for name in config.required.keys() {
            if let Some(value) = process(name.as_str()) {
                overlay.origins.insert(name.clone(), Origin::ProcessEnvironment);
                overlay.values.insert(name.clone(), Secret::new(value));
            }
        }
    }
    placeholders(&overlay.values, &path.display().to_string())?;
    Ok(overlay)
}

/// The local env file of an environment: `.env` of `local`, `.env.<environment>` of others.
pub(super) fn local_file(folder: &Path, environment: &EnvironmentName) -> PathBuf {
    match environment.as_str() {
        "local" => folder.join(".env"),
        other => folder.join(format!(".env.{other}")),
    }
}

/// The values of the local env file of an environment, and where it lies.
pub(crate) fn local_values(
    folder: &Path,
    environment: &EnvironmentName,
) -> Result<(PathBuf, Secrets), Failure> {
    let path = local_file(folder, environment);
    let values = read_local(&path, &BTreeSet::new())?;
    Ok((path, values))
}

/// An env file that must be there.
pub(crate) fn read_env_file(path: &Path, allowed: &BTreeSet<Rule>) -> Result<Overlay, Failure> {
    if !path.exists() {
        let what = format!("{} cannot be read", path.display());
        return Err(Failure::new(Exit::Usage, what)
            .because("there is no such file")
            .next("name an env file"));
    }
    let mut overlay = Overlay::default();
    overlay.lay(&read_local(path, allowed)?, Origin::LocalFile);
    placeholders(&overlay.values, &path.display().to_string())?;
    Ok(overlay)
}

fn read_local(path: &Path, allowed: &BTreeSet<Rule>) -> Result<Secrets, Failure> {
    let shown = path.display();
    let unreadable = |error: std::io::Error| {
        Failure::new(Exit::Configuration, format!("{shown} cannot be read")).because(error.to_string())
    };
    let found = match fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Secrets::new()),
        found => found.map_err(unreadable)?,
    };
    let mode = found.permissions().mode() & 0o7777;
    if mode & OTHERS != 0 && !allowed.contains(&Rule::OpenEnvFile) {
        return Err(Failure::new(Exit::Refused, format!("{shown} can be read by others"))
            .because(format!("its mode is {mode:04o}, and it holds secrets"))
            .next(format!("`chmod 600 {shown}`; consider its secrets known and change them"))
            .next(format!("or let it pass, on record: `--allow {}`", Rule::OpenEnvFile.as_str())));
    }
    let text = fs::read_to_string(path).map_err(unreadable)?;
    parse(&shown.to_string(), &text)
}

fn parse(shown: &str, text: &str) -> Result<Secrets, Failure> {
    env_file::parse(text).map_err(|errors| {
        let failure = Failure::new(Exit::Configuration, format!("{shown} cannot be understood"));
        errors
            .into_iter()
            .fold(failure, |failure, error| failure.because(error.to_string()))
            .next("each line is `NAME=value`, a comment, or empty")
    })
}

/// Refuses values that somebody forgot to fill in, all of them at once.
pub(crate) fn placeholders(values: &Secrets, place: &str) -> Result<(), Failure> {
    let forgotten: Vec<&str> = values
        .iter()
        .filter(|(_, value)| env_file::is_placeholder(value.expose()))
        .map(|(name, _)| name.as_str())
        .collect();
    if forgotten.is_empty() {
        return Ok(());
    }
    Err(Failure::new(Exit::Refused, format!("{} still a placeholder", is_or_are(&forgotten)))
        .because(format!("{place}, or this process's environment, has `CHANGE_ME` or the like there"))
        .next("put the real values in their place"))
}

fn is_or_are(names: &[&str]) -> String {
    let verb = if names.len() == 1 { "is" } else { "are" };
    format!("{} {verb}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(text: &str, mode: u32) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".env");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        folder
    }

    fn read(folder: &Path, allowed: &[Rule]) -> Result<Secrets, Failure> {
        read_local(&folder.join(".env"), &allowed.iter().copied().collect())
    }

    #[test]
    fn a_file_that_others_can_read_is_refused_with_the_command_that_mends_it() {
        let folder = local("TOKEN=hunter2\n", 0o644);
        let failure = read(folder.path(), &[]).unwrap_err();
        assert_eq!(failure.exit, Exit::Refused);
        assert!(failure.next[0].starts_with("`chmod 600 "), "{failure:?}");
        assert_eq!(read(folder.path(), &[Rule::OpenEnvFile]).unwrap().len(), 1);
        assert_eq!(read(local("TOKEN=hunter2\n", 0o600).path(), &[]).unwrap().len(), 1);
    }

    #[test]
    fn no_file_has_no_values() {
        assert!(read(tempfile::tempdir().unwrap().path(), &[]).unwrap().is_empty());
    }

    #[test]
    fn lines_that_cannot_be_read_are_told_without_their_values() {
        let folder = local("TOKEN=\"hunter2\nhunter3\n", 0o600);
        let failure = read(folder.path(), &[]).unwrap_err();
        assert_eq!((failure.exit, failure.cause.len()), (Exit::Configuration, 2));
        assert!(!format!("{failure:?}").contains("hunter"), "{failure:?}");
    }

    #[test]
    fn every_placeholder_is_named_at_once() {
        let values = env_file::parse("A=CHANGE_ME\nB=fine\nC=change-me-please\n").unwrap();
        let failure = placeholders(&values, ".env").unwrap_err();
        assert_eq!(failure.what, "A, C are still a placeholder");
    }

    #[test]
    fn each_environment_has_its_own_file() {
        let name = |environment: &str| local_file(Path::new("/app"), &environment.parse().unwrap());
        assert_eq!(name("local"), Path::new("/app/.env"));
        assert_eq!(name("staging"), Path::new("/app/.env.staging"));
    }
}

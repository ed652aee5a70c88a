//! The configuration: found, read with the files it names, and settled for one environment.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use cutover_core::config::settings::Config;
use cutover_core::config::{self, Problems, Selection, Sources};
use cutover_core::defaults;
use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::names::{AppId, AppName, EnvironmentName, HostName, VariableName};
use cutover_core::template::Piece;

use super::variables::local_file;
use crate::asked::Place;
use crate::effects::Protection;
use crate::hosts::Target;
use crate::verbs::Stop;

const NAMES: [&str; 2] = ["cutover.yml", "cutover.yaml"];

/// The configuration's texts.
#[derive(Debug)]
pub(crate) struct Project {
    /// The folder of cutover.yml: paths in it are relative to here.
    pub(crate) folder: PathBuf,
    /// cutover.yml, as it is shown.
    pub(crate) file: String,
    text: String,
    compose: BTreeMap<String, String>,
    env_files: BTreeMap<String, String>,
}

/// What is known of an app without understanding all of its configuration.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) id: AppId,
    pub(crate) protection: Protection,
    /// Where it runs.
    pub(crate) target: Target,
}

impl Project {
    /// Finds cutover.yml and reads it with all the files it names.
    pub(crate) fn open(place: &Place) -> Result<Self, Failure> {
        let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
        let path = match &place.file {
            Some(file) => here.join(file),
            None => find(&here).ok_or_else(|| nothing_here(&here))?,
        };
        let file = path.strip_prefix(&here).unwrap_or(&path).display().to_string();
        let bytes = fs::metadata(&path).map_or(0, |metadata| metadata.len());
        if bytes > defaults::CONFIGURATION_BYTES {
            return Err(Failure::new(
                Exit::Configuration,
                format!("{file} is too large to be a configuration"),
            )
            .because(format!("it has {bytes} bytes, the most is {}", defaults::CONFIGURATION_BYTES))
            .next("see what was written into it; data belongs into files of its own"));
        }
        let text = fs::read_to_string(&path).map_err(|error| {
            let failure = Failure::new(Exit::Configuration, format!("{file} cannot be read"));
            match error.kind() {
                std::io::ErrorKind::InvalidData => failure
                    .because("it is not text (UTF-8)")
                    .next("write it anew, or take it from git again; `--file PATH` names another one"),
                _ => failure.because(error.to_string()).next("`--file PATH` names another one"),
            }
        })?;
        let folder = path.parent().map_or(here, Path::to_owned);
        let compose = read_all(&folder, config::compose_files(&text));
        let texts: Vec<&str> =
            [text.as_str()].into_iter().chain(compose.values().map(String::as_str)).collect();
        let env_files = read_all(&folder, config::env_files(&texts));
        Ok(Self { folder, file, text, compose, env_files })
    }

    /// The environments it has, `local` among them.
    pub(crate) fn environments(&self) -> Result<Vec<EnvironmentName>, Problems> {
        config::environments(&self.text)
    }

    /// The texts of `env_file` keys: names are in the configuration, values come from here.
    pub(crate) fn env_files(&self) -> &BTreeMap<String, String> {
        &self.env_files
    }

    /// What is never part of an image, an artifact or a mount, by its path beside cutover.yml: the files that hold secrets, of every
    /// environment (P6), and the repository itself.
    pub(crate) fn never_sent(&self) -> BTreeSet<String> {
        let environments = self.environments().unwrap_or_default();
        let local = environments.iter().map(|environment| local_file(Path::new(""), environment));
        let plain = |path| Path::new(path).components().filter(|part| *part != Component::CurDir).collect();
        let named = self.env_files.keys().map(plain);
        let secret = local.chain(named).map(|path: PathBuf| path.to_string_lossy().into_owned());
        secret.chain([".env".to_owned(), ".git".to_owned()]).collect()
    }

    /// The configuration of one environment.
    pub(crate) fn config(&self, selection: &Selection) -> Result<Config, Problems> {
        let sources = Sources {
            file: &self.file,
            text: &self.text,
            compose: self.compose.clone(),
            env_files: self.env_files.clone(),
        };
        config::parse(&sources, selection)
    }

    /// Refuses `-v` for names that are declared without a value: those are secret, and a command line is not (P6).
    pub(crate) fn refuse_secrets_on_the_command_line(&self, selection: &Selection) -> Result<(), Failure> {
        let without = Selection { set: BTreeMap::new(), ..selection.clone() };
        if selection.set.is_empty() {
            return Ok(());
        }
        // Where the file makes no sense without them, they fill public places.
        let Ok(config) = self.config(&without) else { return Ok(()) };
        let secret = selection.set.keys().filter(|name| is_declared_without_value(&config, name));
        let names: Vec<&str> = secret.map(VariableName::as_str).collect();
        if names.is_empty() {
            return Ok(());
        }
        Err(Failure::new(Exit::Usage, format!("`-v` is not for {}", names.join(", ")))
            .because("cutover.yml declares it without a value: it is secret, and a command line can be read by others")
            .next(format!("`cutover env set {}` asks for its value", names.join(" "))))
    }

    /// The host that the configuration is about.
    pub(crate) fn target(&self, config: &Config) -> Target {
        Target::of(&config.hosts, &config.id.environment, &self.folder)
    }

    /// Which app and environment this is. A verb that only needs to know that works with a file that is being mended, too, as long as it
    /// is about this machine.
    pub(crate) fn identity(&self, place: &Place) -> Result<Identity, Stop> {
        let selection = Selection { environment: place.environment.clone(), ..Selection::default() };
        match self.config(&selection) {
            Ok(config) => Ok(Identity {
                protection: if config.protected { Protection::Protected } else { Protection::Open },
                target: self.target(&config),
                id: config.id,
            }),
            Err(problems) if problems.only_environment() => Err(problems.into()),
            Err(problems) => self.bare_identity(place).ok_or_else(|| problems.into()),
        }
    }

    fn bare_identity(&self, place: &Place) -> Option<Identity> {
        let environments = self.environments().ok()?;
        let environment = match (&place.environment, environments.as_slice()) {
            (Some(named), _) => named.clone(),
            (None, [only]) => only.clone(),
            (None, _) => return None,
        };
        // Whether another environment is this machine stands in the part that could not be understood.
        (environment.as_str() == HostName::local().as_str()).then_some(())?;
        let app = self.text.lines().find_map(|line| line.strip_prefix("app:"))?;
        let app: AppName = app.split('#').next()?.trim().trim_matches(['"', '\'']).parse().ok()?;
        let id = AppId { app, environment };
        Some(Identity { id, protection: Protection::Open, target: Target::Here })
    }
}

/// Whether some instance gets the variable as it comes, and nothing public says what it is.
pub(crate) fn is_declared_without_value(config: &Config, name: &VariableName) -> bool {
    config
        .parts()
        .filter_map(|(_, _, run)| run.environment.get(name))
        .any(|template| matches!(template.pieces(), [Piece::Variable { name: of, .. }] if of == name))
}

fn find(here: &Path) -> Option<PathBuf> {
    for folder in here.ancestors() {
        if let Some(found) = NAMES.iter().map(|name| folder.join(name)).find(|path| path.is_file()) {
            return Some(found);
        }
        // A repository is the widest thing an app lies in.
        if folder.join(".git").exists() {
            return None;
        }
    }
    None
}

fn nothing_here(here: &Path) -> Failure {
    Failure::new(Exit::Configuration, "there is no cutover.yml")
        .because(format!("neither in {} nor above it, up to the repository's top", here.display()))
        .next("go to the app's folder, or name the file: `--file PATH`")
        .next("or write a first one, and run `cutover check`:")
        .next(
            "  app: my-app\n  services:\n    web: { artifact: build, command: ./server, route: { path: / } }",
        )
}

/// Those of the files that can be read.
fn read_all(folder: &Path, paths: impl IntoIterator<Item = String>) -> BTreeMap<String, String> {
    let paths: BTreeSet<String> = paths.into_iter().collect();
    paths
        .into_iter()
        .filter_map(|path| {
            let text = fs::read_to_string(folder.join(&path)).ok()?;
            Some((path, text))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(text: &str) -> (tempfile::TempDir, Project) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cutover.yml");
        fs::write(&path, text).unwrap();
        let place = Place { environment: None, file: Some(path), json: false };
        let project = Project::open(&place).unwrap();
        (folder, project)
    }

    fn place(environment: Option<&str>) -> Place {
        Place { environment: environment.map(|name| name.parse().unwrap()), file: None, json: false }
    }

    const APP: &str = "app: shop\nservices:\n  web: { artifact: web, command: ./web, route: { path: / } }\n";

    #[test]
    fn the_file_is_found_above_up_to_the_repository() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("a/b");
        fs::create_dir_all(&below).unwrap();
        assert_eq!(find(&below), None);
        fs::write(folder.path().join("cutover.yml"), APP).unwrap();
        assert_eq!(find(&below), Some(folder.path().join("cutover.yml")));
        fs::create_dir(folder.path().join("a/.git")).unwrap();
        assert_eq!(find(&below), None);
    }

    #[test]
    fn an_app_is_known_even_while_its_file_is_being_mended() {
        let (_folder, project) = project(&format!("{APP}colour: red\n"));
        let identity = project.identity(&place(None)).unwrap();
        assert_eq!(identity.id.to_string(), "shop/local");
    }

    #[test]
    fn env_files_of_every_environment_stay_here() {
        let text = format!("{APP}environments:\n  staging: {{}}\n")
            .replace("path: / }", "path: / }, env_file: ./secrets/app.env");
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("secrets")).unwrap();
        fs::write(folder.path().join("secrets/app.env"), "").unwrap();
        fs::write(folder.path().join("cutover.yml"), text).unwrap();
        let place = Place { file: Some(folder.path().join("cutover.yml")), ..place(None) };
        let never = Project::open(&place).unwrap().never_sent();
        assert_eq!(never.iter().collect::<Vec<_>>(), [".env", ".env.staging", ".git", "secrets/app.env"]);
    }

    #[test]
    fn an_environment_is_on_its_server_and_local_is_here() {
        let text = format!("{APP}environments:\n  production: {{ hosts: [deploy@example.com] }}\n");
        let (folder, project) = project(&text);
        let Target::Server(server) = project.identity(&place(None)).unwrap().target else {
            panic!("no server")
        };
        assert_eq!(server.name.as_str(), "deploy@example.com");
        assert_eq!(server.known_hosts, folder.path().join("cutover.known_hosts"));
        assert_eq!(project.identity(&place(Some("local"))).unwrap().target, Target::Here);
    }

    #[test]
    fn a_secret_on_the_command_line_is_refused_and_a_public_value_is_not() {
        let text = "app: shop\nenvironment:\n  TOKEN:\n  GREETING: hello\nservices:\n  web: { artifact: web, command: ./web, route: { path: / } }\n";
        let (_folder, project) = project(text);
        let with = |name: &str| Selection {
            set: BTreeMap::from([(name.parse().unwrap(), "x".to_owned())]),
            ..Selection::default()
        };
        let failure = project.refuse_secrets_on_the_command_line(&with("TOKEN")).unwrap_err();
        assert_eq!(failure.next, ["`cutover env set TOKEN` asks for its value"]);
        assert!(project.refuse_secrets_on_the_command_line(&with("GREETING")).is_ok());
    }
}

//! What is executed: the program, its words, its folder, its user and its variables, from an instance's record. Used by the keeper for the
//! instance itself and by `exec` for a command in it, so that both see the same world. Values never become words.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use cutover_core::names::{AppId, InstanceName};
use cutover_core::plan::InstanceSpec;
use cutover_core::secret::{Secret, Secrets};
use cutover_core::template::{Template, Unresolved};
use cutover_core::variables::given;

use super::folder::Record;
use crate::runtime::references::Sources;

/// Taken over from the host, where it has them; everything else an instance gets is its own.
pub(super) const INHERITED: [&str; 5] = ["PATH", "HOME", "LANG", "LC_ALL", "TZ"];

const USUAL_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Why something cannot be executed. No text shows a value.
#[derive(Debug, thiserror::Error)]
pub(super) enum LaunchError {
    #[error("it has no command: name one with `command:`")]
    NoCommand,
    #[error("its command refers to something without a public value: {0}")]
    Words(Unresolved),
    #[error("its environment is not complete: {0}")]
    Environment(Unresolved),
    #[error("its artifact is not in this host's store ({})", .0.display())]
    NoArtifact(PathBuf),
    #[error("its working folder `{0}` is not a folder of the artifact")]
    Folder(String),
    #[error("`{program}` is not there: looked in {looked}")]
    NotFound { program: String, looked: String },
    #[error("`{0}` is not executable: set its execute bit in the repository")]
    NotExecutable(String),
    #[error("user `{0}` is not known on this host")]
    User(String),
    #[error("running as user `{0}` needs root")]
    Rights(String),
    #[error("`{program}` cannot be executed: {why}")]
    Refused { program: String, why: String },
}

/// Something ready to be executed.
#[derive(Debug)]
pub(super) struct Launch {
    program: PathBuf,
    shown: String,
    words: Vec<OsString>,
    folder: PathBuf,
    environment: BTreeMap<OsString, OsString>,
    user: Option<User>,
}

/// A user of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
    home: Option<String>,
}

/// The id by which all that an instance started is found (S10).
pub(super) fn instance_id(app: &AppId, name: &InstanceName) -> String {
    format!("{app}/{name}")
}

/// All variables of an instance, filled; cutover's own win over the author's, because the plan counts on them.
///
/// # Errors
/// A reference without a value.
pub(super) fn fill(
    spec: &InstanceSpec,
    installation: &str,
    values: &Secrets,
) -> Result<Secrets, LaunchError> {
    let sources = Sources { spec, values: Some(values) };
    let mut filled = Secrets::new();
    for (name, template) in &spec.settings.environment {
        let value = template.resolve(&sources).map_err(LaunchError::Environment)?;
        filled.insert(name.clone(), Secret::new(value));
    }
    let id = instance_id(&spec.app, &spec.name);
    let marks = [(given::INSTANCE, id.as_str()), (given::INSTALLATION, installation)];
    let own = spec.given.iter().map(|(name, value)| (name.as_str(), value.as_str())).chain(marks);
    for (name, value) in own {
        if let Ok(name) = name.parse() {
            filled.insert(name, Secret::new(value));
        }
    }
    Ok(filled)
}

/// The user an instance runs as; `None`: whoever cutover is.
///
/// # Errors
/// When there is no such user, or we may not become it.
pub(super) fn user(spec: &InstanceSpec) -> Result<Option<User>, LaunchError> {
    let Some(text) = spec.settings.user.as_deref() else { return Ok(None) };
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let group = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let user = find_user(text, &passwd, &group).ok_or_else(|| LaunchError::User(text.to_owned()))?;
    let own = rustix::process::geteuid();
    if own.is_root() {
        Ok(Some(user))
    } else if own.as_raw() == user.uid {
        Ok(None)
    } else {
        Err(LaunchError::Rights(text.to_owned()))
    }
}

impl Launch {
    /// The instance itself, or another command in its place.
    ///
    /// # Errors
    /// Whatever keeps it from being executed, as far as it can be seen beforehand.
    pub(super) fn new(
        record: &Record,
        values: &Secrets,
        words: Option<&[String]>,
    ) -> Result<Self, LaunchError> {
        let spec = &record.spec;
        if !record.artifact.is_dir() {
            return Err(LaunchError::NoArtifact(record.artifact.clone()));
        }
        let words = match words {
            Some(words) => words.to_vec(),
            None => own_words(spec, &record.artifact)?,
        };
        let (program, rest) = words.split_first().ok_or(LaunchError::NoCommand)?;
        let folder = working_folder(&record.artifact, spec.settings.working_dir.as_deref())?;
        let user = user(spec)?;
        let environment = environment(values, user.as_ref());
        let path = environment.get(&OsString::from("PATH")).cloned().unwrap_or_default();
        Ok(Self {
            program: find_program(program, &folder, &path)?,
            shown: program.clone(),
            words: rest.iter().map(OsString::from).collect(),
            folder,
            environment,
            user,
        })
    }

    /// As the standard library starts it; streams are the caller's. It gets a process group of its own.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.arg0(&self.shown).args(&self.words).current_dir(&self.folder);
        command.env_clear().envs(&self.environment).process_group(0);
        if let Some(user) = &self.user {
            command.gid(user.gid).uid(user.uid);
        }
        command
    }

    /// The same, executed by a word of `cutover-host` once that has done what it is for. It begins a session of its own.
    pub(super) fn command_by(&self, host_binary: &Path, word: &str) -> Command {
        let mut command = Command::new(host_binary);
        command.arg(word).arg(&self.program).arg(&self.shown).args(&self.words).current_dir(&self.folder);
        command.env_clear().envs(&self.environment);
        if let Some(user) = &self.user {
            command.gid(user.gid).uid(user.uid);
        }
        command
    }

    /// What the system said when it was executed, with the cause where it is known.
    pub(super) fn refused(&self, error: &io::Error) -> LaunchError {
        let why = match error.raw_os_error() {
            Some(code) if code == rustix::io::Errno::NOENT.raw_os_error() => {
                "the interpreter or the dynamic linker it names is not on this host".to_owned()
            }
            Some(code) if code == rustix::io::Errno::NOEXEC.raw_os_error() => {
                "it is no program of this machine (another platform, or a script without `#!`)".to_owned()
            }
            _ => error.to_string(),
        };
        LaunchError::Refused { program: self.shown.clone(), why }
    }
}

/// The words of the instance's own command. An artifact that is a single file needs none.
fn own_words(spec: &InstanceSpec, artifact: &Path) -> Result<Vec<String>, LaunchError> {
    let sources = Sources { spec, values: None };
    let parts = [&spec.settings.entrypoint, &spec.settings.command];
    let templates: Vec<&Template> = parts.into_iter().flatten().flatten().collect();
    if templates.is_empty() {
        let file = only_file(artifact).ok_or(LaunchError::NoCommand)?;
        return Ok(vec![format!("./{file}")]);
    }
    templates.into_iter().map(|word| word.resolve(&sources).map_err(LaunchError::Words)).collect()
}

fn only_file(artifact: &Path) -> Option<String> {
    let mut entries = std::fs::read_dir(artifact).ok()?;
    let (first, second) = (entries.next()?.ok()?, entries.next());
    let alone = second.is_none() && first.file_type().ok()?.is_file();
    if alone { first.file_name().into_string().ok() } else { None }
}

fn working_folder(artifact: &Path, below: Option<&str>) -> Result<PathBuf, LaunchError> {
    let below = below.unwrap_or(".");
    let inside =
        Path::new(below).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    let folder = plain(&artifact.join(below));
    if inside && folder.is_dir() { Ok(folder) } else { Err(LaunchError::Folder(below.to_owned())) }
}

/// A program by path is looked for from the working folder. One by its bare name too, before `PATH`: people write `command: server` for what
/// lies in the artifact.
fn find_program(program: &str, folder: &Path, path: &OsString) -> Result<PathBuf, LaunchError> {
    let here = plain(&folder.join(program));
    if here.is_file() {
        return if is_executable(&here) {
            Ok(here)
        } else {
            Err(LaunchError::NotExecutable(program.to_owned()))
        };
    }
    let not_found =
        |looked: &str| LaunchError::NotFound { program: program.to_owned(), looked: looked.to_owned() };
    if program.contains('/') {
        return Err(not_found("the artifact's working folder"));
    }
    std::env::split_paths(path)
        .map(|folder| folder.join(program))
        .find(|candidate| is_executable(candidate))
        .ok_or_else(|| not_found(&format!("the artifact's working folder and PATH ({})", path.display())))
}

/// Without `.` in it: programs show the path they were started by.
fn plain(path: &Path) -> PathBuf {
    path.components().collect()
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

fn environment(values: &Secrets, user: Option<&User>) -> BTreeMap<OsString, OsString> {
    let mut environment: BTreeMap<OsString, OsString> =
        INHERITED.into_iter().filter_map(|name| Some((name.into(), std::env::var_os(name)?))).collect();
    environment.entry("PATH".into()).or_insert_with(|| USUAL_PATH.into());
    if let Some(home) = user.and_then(|user| user.home.as_ref()) {
        environment.insert("HOME".into(), home.into());
    }
    environment.extend(values.iter().map(|(name, value)| (name.as_str().into(), value.expose().into())));
    environment
}

/// `user`, `user:group`, numbers or names, as Compose writes it.
fn find_user(text: &str, passwd: &str, groups: &str) -> Option<User> {
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    let number: Option<u32> = user.parse().ok();
    let line = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| {
        fields.len() >= 6 && (fields[0] == user || (number.is_some() && fields[2].parse().ok() == number))
    });
    let uid = number.or_else(|| line.as_ref()?[2].parse().ok())?;
    let gid = match group {
        Some(group) => group.parse().ok().or_else(|| group_number(group, groups))?,
        None => line.as_ref().map_or(Some(uid), |fields| fields[3].parse().ok())?,
    };
    Some(User { uid, gid, home: line.map(|fields| fields[5].to_owned()) })
}

fn group_number(name: &str, groups: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        if fields.first() == Some(&name) { fields.get(2)?.parse().ok() } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\nweb:x:1001:1002::/home/web:/bin/sh\n";
    const GROUPS: &str = "root:x:0:\ndata:x:77:web\n";

    #[test]
    fn users_are_found_by_name_and_number() {
        let web = |gid| User { uid: 1001, gid, home: Some("/home/web".to_owned()) };
        assert_eq!(find_user("web", PASSWD, GROUPS), Some(web(1002)));
        assert_eq!(find_user("1001", PASSWD, GROUPS), Some(web(1002)));
        assert_eq!(find_user("web:data", PASSWD, GROUPS), Some(web(77)));
        assert_eq!(find_user("5:6", PASSWD, GROUPS), Some(User { uid: 5, gid: 6, home: None }));
        assert_eq!(find_user("nobody-here", PASSWD, GROUPS), None);
        assert_eq!(find_user("web:no-group", PASSWD, GROUPS), None);
    }

    #[test]
    fn a_working_folder_stays_inside_the_artifact() {
        let artifact = tempfile::tempdir().unwrap();
        std::fs::create_dir(artifact.path().join("app")).unwrap();
        assert!(working_folder(artifact.path(), None).is_ok());
        assert!(working_folder(artifact.path(), Some("./app")).is_ok());
        for outside in ["..", "app/../..", "/tmp", "absent"] {
            assert!(working_folder(artifact.path(), Some(outside)).is_err(), "{outside}");
        }
    }

    #[test]
    fn a_program_is_found_in_the_artifact_before_the_path() {
        let folder = tempfile::tempdir().unwrap();
        let server = folder.path().join("sh");
        std::fs::write(&server, "#!/bin/sh\n").unwrap();
        let path = OsString::from("/usr/bin:/bin");
        let error = find_program("sh", folder.path(), &path).unwrap_err();
        assert!(error.to_string().contains("execute bit"), "{error}");
        std::fs::set_permissions(&server, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(find_program("sh", folder.path(), &path).unwrap(), server);
        assert!(find_program("true", folder.path(), &path).unwrap().is_absolute());
        let error = find_program("./absent", folder.path(), &path).unwrap_err();
        assert_eq!(error.to_string(), "`./absent` is not there: looked in the artifact's working folder");
    }
}

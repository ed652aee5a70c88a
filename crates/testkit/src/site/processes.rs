//! Which processes belong to a site, by what the system says of each. Only these are ever ended.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use cutover_core::layout;
use cutover_core::names::{AppId, InstanceName};
use rustix::process::{Pid, Signal, kill_process};

/// What a process is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Process {
    Up,
    Proxy,
    Watch,
    Session,
    Run,
    /// The keeper of this instance.
    Keeper(String),
    /// An instance, by its name.
    Instance(String),
    /// Anything else below the site's folder: a command line, a migration.
    Other(String),
}

impl Process {
    /// Whether it is an instance of this service, or this backing service, whose only instance has its name.
    pub fn is_instance_of(&self, service: &str) -> bool {
        matches!(self, Self::Instance(name) if name == service || name.starts_with(&format!("{service}-")))
    }

    /// Whether it keeps an instance of this service.
    pub fn is_keeper_of(&self, service: &str) -> bool {
        matches!(self, Self::Keeper(name) if name.starts_with(&format!("{service}-")))
    }
}

/// A process of a site.
#[derive(Clone, Debug)]
pub struct Found {
    pub pid: u32,
    pub process: Process,
    /// The name of the container that it is the first process of.
    pub container: Option<String>,
}

/// Everything that runs for the installation below `folder`, or in a container of one of `apps`.
pub(super) fn of(folder: &Path, apps: &[AppId]) -> Vec<Found> {
    let Ok(all) = std::fs::read_dir("/proc") else { return Vec::new() };
    let numbers = all.flatten().filter_map(|item| item.file_name().to_str()?.parse::<u32>().ok());
    numbers.filter(|pid| *pid != std::process::id()).filter_map(|pid| look(pid, folder, apps)).collect()
}

/// `None`: not of this site, or over.
fn look(pid: u32, folder: &Path, apps: &[AppId]) -> Option<Found> {
    let of = |file: &str| std::fs::read(format!("/proc/{pid}/{file}")).ok();
    let line = of("cmdline")?;
    let words: Vec<&str> =
        line.split(|byte| *byte == 0).filter_map(|word| std::str::from_utf8(word).ok()).collect();
    let environment = of("environ")?;
    let variables: Vec<&[u8]> = environment.split(|byte| *byte == 0).collect();
    let value =
        |name: &str| variables.iter().find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="));
    let names_folder = |value: &[u8]| Path::new(OsStr::from_bytes(value)).starts_with(folder);
    let works_here =
        std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|place| place.starts_with(folder));
    let named = value("CUTOVER_INSTANCE").and_then(|id| instance(std::str::from_utf8(id).ok()?));
    // Who deploys gave its containers no name of the folder: they are known by their app, which is in this site alone.
    let container =
        named.as_ref().filter(|(app, _)| apps.contains(app)).map(|(app, name)| layout::container(app, name));
    let ours = value("CUTOVER_ROOT").is_some_and(names_folder)
        || works_here
        || container.is_some()
        || words.iter().any(|word| Path::new(word).starts_with(folder));
    // A process that is over, and not yet heard of by its parent, has no words any more.
    if !ours || words.first().is_none_or(|program| program.is_empty()) {
        return None;
    }
    let process = match named {
        // A command inside a container has all variables of its instance, and is not the instance.
        Some(_) if container.is_some() && !is_first_of_its_container(pid) => Process::Other(words.join(" ")),
        Some((_, name)) => Process::Instance(name.to_string()),
        None => kind(&words),
    };
    Some(Found { pid, process, container })
}

/// What an instance's id says: `app/environment/instance`.
fn instance(id: &str) -> Option<(AppId, InstanceName)> {
    let (app, name) = id.rsplit_once('/')?;
    Some((app.parse().ok()?, name.parse().ok()?))
}

fn is_first_of_its_container(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    numbers.is_some_and(|numbers| numbers.split_whitespace().last() == Some("1"))
}

/// What a process is that is no instance, by its words.
fn kind(words: &[&str]) -> Process {
    match words.get(1..).unwrap_or_default() {
        ["up", ..] => Process::Up,
        ["proxy", ..] => Process::Proxy,
        ["watch", ..] => Process::Watch,
        ["session", ..] => Process::Session,
        ["run", ..] => Process::Run,
        ["keep", instance, ..] => {
            let name = Path::new(instance).file_name().unwrap_or_default();
            Process::Keeper(name.to_string_lossy().into_owned())
        }
        _ => Process::Other(words.join(" ")),
    }
}

/// With -9. One that is gone already is as good.
pub(super) fn kill(pid: u32) {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return };
    kill_process(pid, Signal::KILL).unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::process::{Command, Stdio};

    #[test]
    fn given_a_process_that_works_below_the_folder_then_it_and_no_other_is_found() {
        let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let start = |folder: &tempfile::TempDir| {
            let mut command = Command::new("cat");
            command.current_dir(folder.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = command.spawn().unwrap();
            // Whoever starts it goes on before it has its own words: only what answers is all there.
            child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
            child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
            child
        };
        let (mut one, mut other) = (start(&ours), start(&theirs));

        let found = of(ours.path(), &[]);
        kill(found[0].pid);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].pid, one.id());
        one.wait().unwrap();
        assert!(of(ours.path(), &[]).is_empty());
        assert_eq!(of(theirs.path(), &[]).len(), 1);
        other.kill().unwrap();
        other.wait().unwrap();
    }
}

//! This machine as a host: `cutover-host session` as a child process.

use std::path::PathBuf;
use std::process::Command;

use cutover_core::variables;

use super::error::Trouble;

const BINARY: &str = "cutover-host";

/// What starts a session on this machine.
pub(super) fn command() -> Result<Command, Trouble> {
    let mut command = Command::new(find(&Surroundings::of_this_process())?);
    command.arg("session");
    Ok(command)
}

/// What the search for the binary looks at.
struct Surroundings {
    named: Option<PathBuf>,
    beside: Option<PathBuf>,
    path: Vec<PathBuf>,
}

impl Surroundings {
    fn of_this_process() -> Self {
        let named = std::env::var_os(variables::HOST_BINARY).filter(|value| !value.is_empty());
        let beside = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join(BINARY)));
        let path = std::env::var_os("PATH");
        let path = path.iter().flat_map(std::env::split_paths).map(|folder| folder.join(BINARY)).collect();
        Self { named: named.map(PathBuf::from), beside, path }
    }
}

/// The one that is named, else the one beside this program, else the first of `PATH`. A named one that is not there is an error, and
/// no reason to take another.
fn find(surroundings: &Surroundings) -> Result<PathBuf, Trouble> {
    if let Some(named) = &surroundings.named {
        let looked = vec![format!("{} ({})", named.display(), variables::HOST_BINARY)];
        return if named.is_file() { Ok(named.clone()) } else { Err(Trouble::NoBinary { looked }) };
    }
    let candidates = surroundings.beside.iter().chain(&surroundings.path);
    candidates.into_iter().find(|candidate| candidate.is_file()).cloned().ok_or_else(|| {
        let beside = surroundings.beside.iter().map(|path| path.display().to_string());
        Trouble::NoBinary { looked: beside.chain(["the folders of PATH".to_owned()]).collect() }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hosts::{HostError, Target};

    #[test]
    fn the_named_one_wins_then_the_one_beside_then_the_path() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, "").unwrap();
            path
        };
        let (named, beside, on_path) = (file("named"), file("beside"), file("path"));
        let all = Surroundings {
            named: Some(named.clone()),
            beside: Some(beside.clone()),
            path: vec![on_path.clone()],
        };
        assert_eq!(find(&all).unwrap(), named);
        assert_eq!(find(&Surroundings { named: None, ..all }).unwrap(), beside);
        let only_path = Surroundings { named: None, beside: None, path: vec![on_path.clone()] };
        assert_eq!(find(&only_path).unwrap(), on_path);
    }

    #[test]
    fn a_named_one_that_is_not_there_is_told_and_no_other_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let beside = folder.path().join("beside");
        std::fs::write(&beside, "").unwrap();
        let surroundings =
            Surroundings { named: Some("/nowhere/host".into()), beside: Some(beside), path: Vec::new() };
        let failure = HostError::new(Target::Here, find(&surroundings).unwrap_err()).failure();
        assert_eq!(failure.cause, ["not at /nowhere/host (CUTOVER_HOST_BINARY)"]);
    }
}

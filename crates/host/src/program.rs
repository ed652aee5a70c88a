//! This program, to be started again: as a run, a keeper, a watch. It is found by the process itself and not by its path, so that an upgrade
//! which replaced or removed the file changes nothing: a run finishes with the binary it began with (S23).

use std::path::{Path, PathBuf};
use std::process::Command;

/// What a process list shows of it.
pub const NAME: &str = "cutover-host";

/// The program of whoever executes this path.
pub fn own() -> PathBuf {
    PathBuf::from("/proc/self/exe")
}

/// A command that executes a program of ours under its own name.
pub(crate) fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    std::os::unix::process::CommandExt::arg0(&mut command, NAME);
    command
}

/// Gives this process the name by which people look for it: the path it was executed by says nothing.
pub fn take_name() {
    let named = std::ffi::CString::new(NAME).map(|name| rustix::thread::set_name(&name));
    if !matches!(named, Ok(Ok(()))) {
        tracing::debug!("this process keeps the name it was given");
    }
}

//! What ends a server however its test ends: a process of its own that waits for the end of its input.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;

/// Reads until the test is gone, or says so.
const SCRIPT: &str =
    r#"cat >/dev/null; docker rm -fv "$1"; docker network rm "$1-six"; docker network rm "$1""#;

/// Ends the container and the networks of one name, with their volumes, when it is dropped, or when this process ends.
pub(super) struct Guard {
    process: Child,
}

impl Guard {
    pub(super) fn of(name: &str) -> anyhow::Result<Self> {
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT, "sh", name]).stdin(Stdio::piped());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        // No remainder of a test, and no child of its terminal: it has to outlive both.
        command.env_remove("TMPDIR").current_dir("/").process_group(0);
        Ok(Self { process: command.spawn().context("the guard of a server")? })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(mut input) = self.process.stdin.take() {
            input.flush().unwrap_or_default();
        }
        let ended = self.process.wait();
        if !std::thread::panicking() {
            assert!(ended.is_ok_and(|status| status.success()), "a server was left behind");
        }
    }
}

//! What a command said, and how it ended.

use std::os::unix::process::ExitStatusExt;
use std::process::Output;
use std::time::Duration;

use anyhow::bail;

/// What a command said, and how it ended.
#[derive(Clone, Debug)]
pub struct Told {
    /// Its exit code; `None`: a signal ended it.
    pub exit: Option<i32>,
    pub signal: Option<i32>,
    pub output: String,
    pub talk: String,
    pub took: Duration,
}

impl Told {
    pub fn new(output: &Output, took: Duration) -> Self {
        Self {
            exit: output.status.code(),
            signal: output.status.signal(),
            output: String::from_utf8_lossy(&output.stdout).into_owned(),
            talk: String::from_utf8_lossy(&output.stderr).into_owned(),
            took,
        }
    }

    /// Itself, where it ended with this code; else an error that says all that was said.
    pub fn expect(self, exit: i32) -> anyhow::Result<Self> {
        if self.exit == Some(exit) {
            return Ok(self);
        }
        bail!(
            "exit {exit} was expected, it was {:?} (signal {:?})\n{}\n{}",
            self.exit,
            self.signal,
            self.output,
            self.talk
        )
    }

    /// The failure's four answers, as people read them; empty without one.
    pub fn failure(&self) -> &str {
        self.talk.find("error: ").map_or("", |start| &self.talk[start..])
    }
}

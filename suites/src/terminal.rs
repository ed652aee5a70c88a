//! A terminal of a test's own, with a command at it, as a person has it.

use cutover_testkit::SOON;
use std::io::Result;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags, fcntl_getfl, fcntl_setfl};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};

/// A terminal, and what is shown on it.
pub struct Terminal {
    ours: OwnedFd,
    keys: pipe::Sender,
    screen: pipe::Receiver,
    shown: String,
    child: Child,
}

impl Terminal {
    /// Starts a command at a terminal of 100 columns and 40 rows. `host` is a `cutover-host`, whose `terminal` makes it the one that the
    /// command is controlled by.
    ///
    /// # Errors
    /// No terminal, or no command.
    pub fn with(command: &tokio::process::Command, host: &Path) -> Result<Self> {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&ours)?;
        unlockpt(&ours)?;
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let theirs = rustix::fs::open(ptsname(&ours, Vec::new())?, flags, Mode::empty())?;
        tcsetwinsize(&theirs, window(100, 40))?;
        fcntl_setfl(&ours, fcntl_getfl(&ours)? | OFlags::NONBLOCK)?;
        let command = command.as_std();
        let mut at_terminal = Command::new(host);
        at_terminal
            .arg("terminal")
            .arg(command.get_program())
            .arg(command.get_program())
            .args(command.get_args());
        if let Some(folder) = command.get_current_dir() {
            at_terminal.current_dir(folder);
        }
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => at_terminal.env(name, value),
                None => at_terminal.env_remove(name),
            };
        }
        at_terminal.env("TERM", "xterm").kill_on_drop(true);
        at_terminal.stdin(theirs.try_clone()?).stdout(theirs.try_clone()?).stderr(theirs);
        let child = at_terminal.spawn()?;
        let keys = pipe::Sender::from_owned_fd_unchecked(ours.try_clone()?)?;
        let screen = pipe::Receiver::from_owned_fd_unchecked(ours.try_clone()?)?;
        Ok(Self { ours, keys, screen, shown: String::new(), child })
    }

    /// Types.
    ///
    /// # Errors
    /// Nobody is at the other end.
    pub async fn types(&mut self, keys: &str) -> Result<()> {
        self.keys.write_all(keys.as_bytes()).await
    }

    /// Gives it another size.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn resize(&self, columns: u16, rows: u16) -> Result<()> {
        Ok(tcsetwinsize(&self.ours, window(columns, rows))?)
    }

    /// Waits until `text` has been shown; gives all that was.
    ///
    /// # Errors
    /// It was not, in time.
    pub async fn shows(&mut self, text: &str) -> std::result::Result<&str, String> {
        let end = tokio::time::Instant::now() + SOON;
        let mut piece = [0; 4096];
        while !self.shown.contains(text) {
            let read = tokio::time::timeout_at(end, self.screen.read(&mut piece)).await;
            match read {
                Ok(Ok(count @ 1..)) => self.shown.push_str(&String::from_utf8_lossy(&piece[..count])),
                other => return Err(format!("{text:?} was not shown ({other:?}): {}", self.shown)),
            }
        }
        Ok(&self.shown)
    }

    /// Its exit code.
    ///
    /// # Errors
    /// It does not end.
    pub async fn ends(mut self) -> std::result::Result<Option<i32>, String> {
        let ended = tokio::time::timeout(SOON, self.child.wait()).await;
        let ended = ended.map_err(|_| format!("it does not end: {}", self.shown))?;
        ended.map(|status| status.code()).map_err(|error| error.to_string())
    }
}

fn window(columns: u16, rows: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

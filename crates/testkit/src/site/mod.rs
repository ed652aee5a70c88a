//! A site: one installation under a folder of its own, the real binaries, and applications in git repositories of their own.
//!
//! Everything is found and ended under this site's folder only, also when a test panics; every wait has a deadline.

mod app;
mod binaries;
mod processes;
mod told;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use cutover_core::journal::Entry;
use cutover_core::layout::Layout;
use cutover_core::names::RunId;
use cutover_core::variables;

pub use app::{App, LiveRelease, Status};
pub use binaries::Binaries;
pub use processes::{Found, Process};
pub use told::Told;

use crate::{probe::ProbeOptions, wait_until};

/// No command of a site takes longer.
pub const DEADLINE: Duration = Duration::from_mins(2);
/// How long processes may take to end once they were told to.
const END: Duration = Duration::from_secs(20);

/// One installation with real processes. Dropped, all of them end and its folder goes.
pub struct Site {
    folder: tempfile::TempDir,
    binaries: Binaries,
    /// Set once the proxy has a port: whatever is started later takes the same.
    http: std::sync::OnceLock<SocketAddr>,
}

impl Site {
    /// An installation in which nothing runs yet.
    pub fn new() -> anyhow::Result<Self> {
        Self::with(Binaries::beside_this_program()?)
    }

    /// The same, of other programs.
    pub fn with(binaries: Binaries) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("site-").tempdir()?;
        std::fs::create_dir(folder.path().join("root"))?;
        Ok(Self { folder, binaries, http: std::sync::OnceLock::new() })
    }

    /// An application's repository, empty so far; `host` is the name that its route has.
    pub fn app(&self, name: &str, host: &str) -> anyhow::Result<App<'_>> {
        App::new(self, name, host)
    }

    /// Everything of this site lies below.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where the installation lies.
    pub fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    pub fn layout(&self) -> Layout {
        Layout::under(&self.root())
    }

    pub fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// What the journal of a run says, as its event file has it.
    pub fn journal(&self, run: RunId) -> anyhow::Result<Vec<Entry>> {
        let text = std::fs::read_to_string(self.layout().events(run)).context("the event file")?;
        text.lines().map(|line| serde_json::from_str(line).context("the event file")).collect()
    }

    /// Where its proxy listens.
    pub fn http(&self) -> anyhow::Result<SocketAddr> {
        if let Some(known) = self.http.get() {
            return Ok(*known);
        }
        let listeners = cutover_host::up::listeners(&self.layout());
        let first = listeners.first().copied().context("no proxy was started in this site yet")?;
        Ok(*self.http.get_or_init(|| first))
    }

    /// Traffic to `host` through this site's proxy.
    pub fn traffic(&self, host: &str) -> anyhow::Result<ProbeOptions> {
        Ok(ProbeOptions::new(self.http()?, host))
    }

    /// A command that belongs to this site.
    pub fn command(&self, program: &Path) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(program);
        let http = self.http.get().map_or_else(|| "127.0.0.1:0".to_owned(), SocketAddr::to_string);
        command
            .env(variables::ROOT, self.root())
            .env(variables::HTTP, http)
            .env(variables::HOST_BINARY, &self.binaries.host)
            .env_remove(variables::ENVIRONMENT)
            .env_remove(variables::DOCKER_HOST)
            .kill_on_drop(true);
        command
    }

    /// Runs a command to its end.
    pub async fn run(&self, mut command: tokio::process::Command) -> anyhow::Result<Told> {
        let began = Instant::now();
        let output = command.stdin(Stdio::null()).output();
        let output = tokio::time::timeout(DEADLINE, output)
            .await
            .with_context(|| format!("no end within {DEADLINE:?}: {:?}", command.as_std()))??;
        Ok(Told::new(&output, began.elapsed()))
    }

    /// Starts proxy and watch again, as an init system does at boot.
    pub async fn boot(&self) -> anyhow::Result<()> {
        let log = std::fs::File::create(self.folder.path().join("boot.log"))?;
        let mut command = self.command(&self.binaries.host);
        command.arg("up").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).kill_on_drop(false);
        drop(command.spawn()?);
        self.await_process("proxy", |process| *process == Process::Proxy).await.map(drop)
    }

    /// Ends it in order; tells what was stopped.
    pub async fn down(&self) -> anyhow::Result<Told> {
        let mut command = self.command(&self.binaries.host);
        command.arg("down");
        self.run(command).await
    }

    /// All processes of this site.
    pub fn processes(&self) -> Vec<Found> {
        processes::below(self.folder.path())
    }

    /// Waits until a process of this kind is there.
    pub async fn await_process(&self, what: &str, is: impl Fn(&Process) -> bool) -> anyhow::Result<Found> {
        let look = async || self.processes().into_iter().find(|found| is(&found.process));
        Ok(wait_until(what, DEADLINE, look).await?)
    }

    /// Kills the process of this kind with -9; says which it was.
    pub fn kill(&self, is: impl Fn(&Process) -> bool) -> anyhow::Result<Found> {
        let Some(found) = self.processes().into_iter().find(|found| is(&found.process)) else {
            bail!("no such process in this site: {:?}", self.processes());
        };
        processes::kill(found.pid);
        Ok(found)
    }

    /// Power is lost: everything of this site ends at once, again until nothing is left.
    pub fn kill_all(&self) -> anyhow::Result<usize> {
        let began = Instant::now();
        let mut killed = 0;
        loop {
            let there = self.processes();
            if there.is_empty() {
                return Ok(killed);
            }
            killed = killed.max(there.len());
            for found in &there {
                processes::kill(found.pid);
            }
            if began.elapsed() > END {
                bail!("these do not end: {there:?}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // Nobody can be told here: what is left is ended by force, and a test that cares asks before.
        self.kill_all().unwrap_or_default();
    }
}

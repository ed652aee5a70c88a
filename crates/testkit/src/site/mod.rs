//! A site: one installation under a folder of its own, the real binaries, and applications in git repositories of their own; as plain processes, or
//! on a container engine.
//!
//! Everything is found and ended under this site's folder, and in containers of this installation, only, also when a test panics; every wait has a
//! deadline.

mod app;
mod base;
mod binaries;
mod docker;
mod own_engine;
mod ports;
mod processes;
mod remote;
mod told;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use cutover_core::journal::Entry;
use cutover_core::layout::Layout;
use cutover_core::names::{AppId, RunId};
use cutover_core::variables;
use cutover_engine::Engine;
use cutover_host::installation::Installation;

pub(crate) use app::git;
pub use app::{App, LiveRelease, Status};
pub(crate) use base::made as base_image;
pub use binaries::Binaries;
pub use docker::Docker;
pub use own_engine::OwnEngine;
use ports::Ports;
pub use processes::{Found, Process};
pub use remote::Remote;
pub use told::Told;

use crate::guestbook::Kind;
use crate::{probe::ProbeOptions, wait_until};

/// No command of a site takes longer.
pub const DEADLINE: Duration = Duration::from_mins(2);
/// How long processes may take to end once they were told to.
const END: Duration = Duration::from_secs(20);

/// One installation with real processes. Dropped, all of them end, and its folder and all it made on an engine go.
pub struct Site {
    folder: tempfile::TempDir,
    binaries: Binaries,
    docker: Option<Docker>,
    /// How the command line reaches it, where that is through ssh.
    remote: Option<Remote>,
    /// Those with containers.
    apps: Mutex<Vec<AppId>>,
    /// Whether its first network is there.
    has_networks: AtomicBool,
    /// Set once the proxy has a port: whatever is started later takes the same.
    http: std::sync::OnceLock<SocketAddr>,
    /// For as long as it is there.
    _ports: Ports,
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
        let ports = Ports::claim()?;
        ports.write(&Layout::under(&folder.path().join("root")).host_file())?;
        let (apps, has_networks) = (Mutex::default(), AtomicBool::new(false));
        Ok(Self {
            folder,
            binaries,
            docker: None,
            remote: None,
            apps,
            has_networks,
            http: std::sync::OnceLock::new(),
            _ports: ports,
        })
    }

    /// An installation whose applications run in containers on this engine.
    pub async fn on_engine(binaries: Binaries, engine: Engine) -> anyhow::Result<Self> {
        let mut site = Self::with(binaries)?;
        site.docker = Some(Docker::on(engine, &site.binaries.guestbook).await?);
        Ok(site)
    }

    /// The same as a server: the command line reaches it through ssh, and knows nothing of where it lies. `Err` inside: why there can be none.
    pub fn over_ssh(binaries: Binaries) -> anyhow::Result<Result<Self, String>> {
        if let Some(why) = crate::ssh::missing() {
            return Ok(Err(why));
        }
        let mut site = Self::with(binaries)?;
        site.remote = Some(Remote::start(site.folder(), &site.binaries.host, &site.variables())?);
        Ok(Ok(site))
    }

    /// A server with a container engine.
    pub async fn over_ssh_on_engine(
        binaries: Binaries,
        engine: Engine,
    ) -> anyhow::Result<Result<Self, String>> {
        let mut site = match Self::over_ssh(binaries)? {
            Ok(site) => site,
            Err(why) => return Ok(Err(why)),
        };
        site.docker = Some(Docker::on(engine, &site.binaries.guestbook).await?);
        site.remote().sessions_get(&site.variables())?;
        Ok(Ok(site))
    }

    /// How the command line reaches it.
    ///
    /// # Panics
    /// Where that is not through ssh.
    pub fn remote(&self) -> &Remote {
        self.remote.as_ref().expect("a site over ssh")
    }

    /// The engine, where there is one.
    pub fn docker(&self) -> Option<&Docker> {
        self.docker.as_ref()
    }

    /// What its applications run as.
    pub fn kind(&self) -> Kind {
        if self.docker.is_some() { Kind::Containers } else { Kind::Processes }
    }

    /// An application's repository, empty so far; `host` is the name that its route has.
    pub fn app(&self, name: &str, host: &str) -> anyhow::Result<App<'_>> {
        let id = self.identify(name)?;
        App::new(self, id, self.folder().join(name), host)
    }

    /// On an engine, where all share one space of names, an app's is made this site's alone.
    fn identify(&self, name: &str) -> anyhow::Result<AppId> {
        if self.remote.is_some() {
            return Ok(format!("{name}/{}", remote::ENVIRONMENT).parse()?);
        }
        if self.docker.is_none() {
            return Ok(format!("{name}/local").parse()?);
        }
        let unique = uuid::Uuid::new_v4().simple().to_string();
        let id: AppId = format!("{name}-{}/local", unique.get(..8).unwrap_or_default()).parse()?;
        self.apps.lock().unwrap_or_else(PoisonError::into_inner).push(id.clone());
        Ok(id)
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
        let http = *self.http.get_or_init(|| first);
        if let Some(remote) = &self.remote {
            remote.sessions_get(&self.variables())?;
        }
        Ok(http)
    }

    /// Traffic to `host` through this site's proxy.
    pub fn traffic(&self, host: &str) -> anyhow::Result<ProbeOptions> {
        Ok(ProbeOptions::new(self.http()?, host))
    }

    /// What tells a program of this site where it is.
    fn variables(&self) -> Vec<(&'static str, String)> {
        let http = self.http.get().map_or_else(|| "127.0.0.1:0".to_owned(), SocketAddr::to_string);
        let engine = self.docker.as_ref().map(|docker| (variables::DOCKER_HOST, docker.address().to_owned()));
        let own = [(variables::ROOT, self.root().display().to_string()), (variables::HTTP, http)];
        own.into_iter().chain(engine).collect()
    }

    /// A command that belongs to this site.
    pub fn command(&self, program: &Path) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(program);
        command
            .envs(self.variables())
            .env(variables::HOST_BINARY, &self.binaries.host)
            .env_remove(variables::ENVIRONMENT)
            .env_remove(variables::DOCKER_HOST)
            .kill_on_drop(true);
        if let Some(docker) = &self.docker {
            command.env(variables::DOCKER_HOST, docker.address());
        }
        command
    }

    /// Installations know nothing of each other: two on one engine could choose the same free addresses for their first networks.
    async fn alone_at_first(&self) -> Option<tokio::sync::MutexGuard<'static, ()>> {
        static FIRST: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
        if self.docker.is_none() || self.has_networks.load(Ordering::Relaxed) {
            return None;
        }
        Some(FIRST.lock().await)
    }

    fn has_networks(&self) {
        self.has_networks.store(true, Ordering::Relaxed);
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

    /// All processes of this site, those in containers among them.
    pub fn processes(&self) -> Vec<Found> {
        let apps = self.apps.lock().unwrap_or_else(PoisonError::into_inner);
        processes::of(self.folder.path(), &apps)
    }

    /// Waits until a process of this kind is there.
    pub async fn await_process(&self, what: &str, is: impl Fn(&Process) -> bool) -> anyhow::Result<Found> {
        let look = async || self.processes().into_iter().find(|found| is(&found.process));
        Ok(wait_until(what, DEADLINE, look).await?)
    }

    /// Kills the process of this kind with -9; says which it was.
    pub fn kill(&self, is: impl Fn(&Process) -> bool) -> anyhow::Result<Found> {
        let found = self.find(is)?;
        processes::kill(found.pid);
        Ok(found)
    }

    /// `docker kill` of the container of this kind of process, as a person does it; says which it was.
    pub async fn kill_container(&self, is: impl Fn(&Process) -> bool) -> anyhow::Result<Found> {
        let found = self.find(is)?;
        let docker = self.docker.as_ref().context("this site has no engine")?;
        docker.kill(found.container.as_deref().context("it is in no container")?).await?;
        Ok(found)
    }

    fn find(&self, is: impl Fn(&Process) -> bool) -> anyhow::Result<Found> {
        let there = self.processes();
        match there.iter().find(|found| is(&found.process)) {
            Some(found) => Ok(found.clone()),
            None => bail!("no such process in this site: {there:?}"),
        }
    }

    /// Power is lost: everything of this site ends at once, containers too, again until nothing is left.
    pub fn kill_all(&self) -> anyhow::Result<usize> {
        let killed = self.kill_own()?;
        let Some(docker) = &self.docker else { return Ok(killed) };
        let contained = self.processes().len();
        // The engine would start again what was killed behind its back.
        docker.kill_all(&self.installation()?)?;
        self.until_none("containers", |_| true)?;
        Ok(killed + contained)
    }

    /// Kills all of this site with -9 but what runs in containers.
    pub fn kill_own(&self) -> anyhow::Result<usize> {
        self.until_none("processes", |found| found.container.is_none())
    }

    /// Kills what is not in a container, until none of these is left; says how many there were.
    fn until_none(&self, what: &str, is: impl Fn(&Found) -> bool) -> anyhow::Result<usize> {
        let began = Instant::now();
        let mut killed = 0;
        loop {
            let there: Vec<Found> = self.processes().into_iter().filter(&is).collect();
            if there.is_empty() {
                return Ok(killed);
            }
            killed = killed.max(there.len());
            for found in there.iter().filter(|found| found.container.is_none()) {
                processes::kill(found.pid);
            }
            if began.elapsed() > END {
                bail!("these {what} do not end: {there:?}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn installation(&self) -> anyhow::Result<String> {
        Ok(Installation::open(&self.layout())?.id)
    }

    /// All that this installation made on an engine goes.
    fn clear_engine(&self) -> anyhow::Result<()> {
        let Some(docker) = &self.docker else { return Ok(()) };
        let apps = self.apps.lock().unwrap_or_else(PoisonError::into_inner);
        docker.clear(&self.installation()?, &apps)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // What is left is ended by force; a test that cares how much that was asks before.
        let ended = self.kill_all().map(drop).and_then(|()| self.clear_engine());
        // A test that leaves something behind has failed; one that fails already has said why.
        if !std::thread::panicking() {
            assert!(ended.is_ok(), "left behind: {ended:?}");
        }
    }
}

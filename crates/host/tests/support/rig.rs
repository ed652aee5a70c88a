//! An installation of its own in a temporary folder, with real keepers and processes, and none of them left when it goes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use cutover_core::config::settings::{RunSettings, StopSettings};
use cutover_core::hash::ContentHash;
use cutover_core::layout::Layout;
use cutover_core::names::{AppId, InstanceName, RunId, Slot};
use cutover_core::plan::InstanceSpec;
use cutover_core::release::Content;
use cutover_core::secret::Secrets;
use cutover_core::state::{ExitStatus, InstanceState, Role};
use cutover_host::ports::{LogQuery, Runtime};
use cutover_host::runtime::process::ProcessRuntime;
use rustix::process::{Pid, Signal, kill_process};

/// On every wait.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// An installation with its runtime.
pub(crate) struct Rig {
    root: tempfile::TempDir,
    installation: String,
    pub(crate) layout: Layout,
    pub(crate) runtime: ProcessRuntime,
    pub(crate) app: AppId,
    names: AtomicU32,
    mounted: bool,
}

impl Rig {
    pub(crate) fn new() -> Self {
        Self::at(tempfile::tempdir().unwrap(), false)
    }

    /// On a file system of its own of one megabyte; `None`: we may not mount one.
    pub(crate) fn on_a_small_disk() -> Option<Self> {
        let root = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=1m", "none"]).arg(root.path());
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        mounted.then(|| Self::at(root, true))
    }

    fn at(root: tempfile::TempDir, mounted: bool) -> Self {
        let layout = Layout::under(root.path());
        let installation = uuid::Uuid::now_v7().to_string();
        let runtime = ProcessRuntime::new(layout.clone(), installation.clone(), keeper());
        let app = "shop/production".parse().unwrap();
        fs::create_dir_all(layout.artifact(&artifact())).unwrap();
        Self { root, installation, layout, runtime, app, names: AtomicU32::new(0), mounted }
    }

    /// Takes all that is left of a small disk, until [`Self::free`].
    pub(crate) fn fill(&self) {
        use std::io::Write;
        let mut file = fs::File::create(self.scratch("ballast")).unwrap();
        while file.write_all(&[1; 512]).is_ok() {}
    }

    pub(crate) fn free(&self) {
        fs::remove_file(self.scratch("ballast")).unwrap();
    }

    /// A folder for what the processes of a test write.
    pub(crate) fn scratch(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// The folder of the only artifact.
    pub(crate) fn artifact(&self) -> PathBuf {
        self.layout.artifact(&artifact())
    }

    /// An instance that runs a shell script, whose working folder for scratch files is `$SCRATCH`.
    pub(crate) fn script(&self, script: &str) -> InstanceSpec {
        self.command(&["/bin/sh", "-c", &script.replace('$', "$$")])
    }

    pub(crate) fn command(&self, words: &[&str]) -> InstanceSpec {
        let number = self.names.fetch_add(1, Ordering::Relaxed);
        let scratch = self.root.path().to_str().unwrap().to_owned();
        InstanceSpec {
            name: format!("web-blue-{number}-0badcafe").parse().unwrap(),
            app: self.app.clone(),
            service: "web".parse().unwrap(),
            role: Role::Service,
            release: "7f3c9e1".parse().unwrap(),
            slot: Slot::Blue,
            replica: 1,
            run: RunId::new(uuid::Uuid::now_v7()),
            content: Content::Artifact { hash: artifact() },
            settings: RunSettings {
                command: Some(words.iter().map(|word| word.parse().unwrap()).collect()),
                stop: StopSettings { signal: None, grace: Duration::from_secs(5) },
                ..RunSettings::default()
            },
            port: None,
            address: None,
            networks: Vec::new(),
            published: None,
            urls: BTreeMap::new(),
            files: BTreeMap::new(),
            shipped: BTreeMap::new(),
            volumes: BTreeMap::new(),
            given: BTreeMap::from([("SCRATCH".parse().unwrap(), scratch)]),
            isolated: false,
            network_of: None,
        }
    }

    pub(crate) async fn create(&self, spec: &InstanceSpec) {
        self.runtime.create(spec, &Secrets::new()).await.unwrap();
    }

    pub(crate) async fn start(&self, spec: &InstanceSpec) {
        within(self.runtime.start(&self.app, &spec.name)).await.unwrap();
    }

    pub(crate) async fn started(&self, script: &str) -> InstanceSpec {
        let spec = self.script(script);
        self.create(&spec).await;
        self.start(&spec).await;
        spec
    }

    pub(crate) async fn stop(&self, spec: &InstanceSpec) {
        within(self.runtime.stop(&self.app, &spec.name, &spec.settings.stop)).await.unwrap();
    }

    pub(crate) async fn exited(&self, spec: &InstanceSpec) -> ExitStatus {
        within(self.runtime.exited(&self.app, &spec.name)).await.unwrap()
    }

    pub(crate) async fn state(&self, name: &InstanceName) -> InstanceState {
        within(self.runtime.inspect(&self.app, name)).await.unwrap().unwrap().state
    }

    pub(crate) async fn log(&self, spec: &InstanceSpec) -> Vec<String> {
        let lines = within(self.runtime.logs(&self.app, &spec.name, &LogQuery::default())).await.unwrap();
        lines.into_iter().map(|line| line.text).collect()
    }

    /// A file of an instance's folder.
    pub(crate) fn file(&self, spec: &InstanceSpec, name: &str) -> PathBuf {
        self.layout.instance(&self.app, &spec.name).join(name)
    }

    /// What the keeper last wrote down.
    pub(crate) fn noted(&self, spec: &InstanceSpec) -> serde_json::Value {
        serde_json::from_slice(&fs::read(self.file(spec, "state.json")).unwrap()).unwrap()
    }

    pub(crate) fn keeper_pid(&self, spec: &InstanceSpec) -> i32 {
        pid_of(&self.noted(spec)["keeper"]["pid"])
    }

    pub(crate) fn child_pid(&self, spec: &InstanceSpec) -> i32 {
        pid_of(&self.noted(spec)["phase"]["child"]["pid"])
    }

    /// A keeper of the instance, not started yet.
    pub(crate) fn keeper(&self, spec: &InstanceSpec) -> Command {
        let mut command = Command::new(keeper());
        command.arg("keep").arg(self.layout.instance(&self.app, &spec.name));
        command
    }

    /// Kills the keeper and nothing else, and sees it gone.
    pub(crate) async fn kill_keeper(&self, spec: &InstanceSpec) {
        kill(self.keeper_pid(spec));
        within(self.runtime.unkept(&self.app, &spec.name)).await.unwrap();
    }

    /// Waits for a file of the scratch folder to have so many lines, and gives them.
    pub(crate) async fn lines(&self, name: &str, count: usize) -> Vec<String> {
        let path = self.scratch(name);
        until(&format!("{count} lines in {name}"), || read_lines(&path).len() >= count).await;
        read_lines(&path)
    }
}

impl Rig {
    /// What instances of this rig run, as far as their environment tells or their keepers' sessions.
    pub(crate) fn processes(&self, keepers: &[i32]) -> Vec<i32> {
        let mark = format!("CUTOVER_INSTALLATION={}", self.installation);
        let is_ours = |pid: &i32| {
            let stat = read(*pid, "stat");
            // The fourth field behind the command's name.
            let session = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(3)?.parse().ok());
            lives(*pid)
                && (session.is_some_and(|session| keepers.contains(&session))
                    || read(*pid, "environ").split('\0').any(|pair| pair == mark))
        };
        pids().into_iter().filter(is_ours).collect()
    }

    fn keepers(&self) -> Vec<i32> {
        let folder = self.root.path().to_str().unwrap();
        let is_keeper = |pid: &i32| {
            let words = read(*pid, "cmdline");
            words.contains("keep\0") && words.contains(folder)
        };
        pids().into_iter().filter(is_keeper).collect()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // Keepers first, so that nothing is started again; what they were just starting has their session and nothing else yet.
        let keepers = self.keepers();
        keepers.iter().copied().for_each(kill);
        for _ in 0..1000 {
            let left = self.processes(&keepers);
            if left.is_empty() {
                break;
            }
            left.into_iter().for_each(kill);
        }
        if self.mounted {
            let unmounted = Command::new("umount").arg("-l").arg(self.root.path()).status();
            assert!(unmounted.is_ok_and(|status| status.success()), "a mount is left");
        }
    }
}

fn read(pid: i32, file: &str) -> String {
    String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default()).into_owned()
}

/// Waits for a future, at most [`DEADLINE`].
pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(DEADLINE, future).await.expect("in time")
}

/// Looks again and again until something holds, at most [`DEADLINE`].
pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn kill(pid: i32) {
    match kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL) {
        // It may have ended by itself.
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => panic!("{pid} cannot be killed: {error}"),
    }
}

/// Whether a process is there and has not ended.
pub(crate) fn lives(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

pub(crate) fn read_lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn pids() -> Vec<i32> {
    let entries = fs::read_dir("/proc").unwrap();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

fn pid_of(value: &serde_json::Value) -> i32 {
    i32::try_from(value.as_i64().expect("a pid")).unwrap()
}

fn artifact() -> ContentHash {
    ContentHash::of(b"the artifact of the tests")
}

/// The example `keep`, which cargo builds beside the tests.
fn keeper() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let keeper = tests.parent().unwrap().parent().unwrap().join("examples/keep");
    assert!(
        keeper.is_file(),
        "{} is not built: `cargo build -p cutover-host --example keep`",
        keeper.display()
    );
    keeper
}

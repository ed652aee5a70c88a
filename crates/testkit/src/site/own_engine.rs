//! An engine of a test's own, that it may restart, and kill with all that runs on it. It lies in a folder of its own (`scripts/engine.sh`).

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use cutover_engine::Engine;
use rustix::process::{Pid, Signal, kill_process};

/// What `engine.sh` exits with where there can be no engine.
const NONE: i32 = 3;
/// How long it may take to end once it is killed.
const END: Duration = Duration::from_secs(20);

/// An engine that belongs to one test. Dropped, it goes with all that it has.
pub struct OwnEngine {
    folder: tempfile::TempDir,
}

impl OwnEngine {
    /// Starts one, beside those that run; `Err` inside: why there can be none here.
    pub fn start() -> anyhow::Result<Result<Self, String>> {
        Self::start_by("own")
    }

    /// The same in a network of its own: it reaches nobody, this machine's loopback no more than others.
    pub fn start_apart() -> anyhow::Result<Result<Self, String>> {
        Self::start_by("apart")
    }

    fn start_by(word: &str) -> anyhow::Result<Result<Self, String>> {
        let engine = Self { folder: tempfile::Builder::new().prefix("eng-").tempdir()? };
        let output = engine.run(word)?;
        if output.status.code() == Some(NONE) {
            let said = String::from_utf8_lossy(&output.stderr);
            return Ok(Err(said.lines().last().unwrap_or_default().to_owned()));
        }
        done(word, &output)?;
        Ok(Ok(engine))
    }

    /// A connection to it.
    pub async fn connect(&self) -> anyhow::Result<Engine> {
        Ok(Engine::connect_to(&format!("unix://{}", self.folder().join("sock").display())).await?)
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Stops it in order, and starts it again with what it has.
    pub fn restart(&self) -> anyhow::Result<()> {
        done("restart", &self.run("restart")?)
    }

    /// It alone ends, at once; its containers run on.
    pub fn lose(&self) -> anyhow::Result<()> {
        let file = self.folder().join("pid");
        let pid = std::fs::read_to_string(&file)?;
        let pid = Pid::from_raw(pid.trim().parse()?).context("no process")?;
        kill_process(pid, Signal::KILL)?;
        // Its parent may not have heard of its end.
        let there = || std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero()));
        let began = Instant::now();
        while there().is_ok_and(|line| !line.is_empty()) {
            ensure!(began.elapsed() < END, "the engine does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
        // The next one looks whether there are such processes, and those that nobody heard the end of count. Its containerd ends with it.
        std::fs::remove_file(self.folder().join("exec/containerd/containerd.pid"))?;
        Ok(std::fs::remove_file(file)?)
    }

    /// As a loss of power: it and all its containers end at once.
    pub fn kill(&self) -> anyhow::Result<()> {
        done("kill", &self.run("kill")?)
    }

    /// Starts it again after either.
    pub fn again(&self) -> anyhow::Result<()> {
        done("again", &self.run("again")?)
    }

    /// Takes the address from its bridge, so that this host looks as one that cannot reach containers; published ports go on.
    pub fn hide_bridge(&self) -> anyhow::Result<()> {
        let bridge = std::fs::read_to_string(self.folder().join("engine-of-the-tests"))?;
        let output = Command::new("ip").args(["address", "flush", "dev", bridge.trim()]).output()?;
        done("ip address flush", &output)
    }

    fn run(&self, word: &str) -> anyhow::Result<Output> {
        let mut command = Command::new(script());
        // What runs on it is no remainder of a test that was given our temporary folder.
        command.arg(word).arg(self.folder()).env_remove("TMPDIR").env_remove("DOCKER_HOST");
        command.output().with_context(|| format!("{} does not run", script().display()))
    }
}

impl Drop for OwnEngine {
    fn drop(&mut self) {
        let stopped = self.run("stop").and_then(|output| done("stop", &output));
        if !std::thread::panicking() {
            assert!(stopped.is_ok(), "left behind: {stopped:?}");
        }
    }
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/engine.sh")
}

fn done(what: &str, output: &Output) -> anyhow::Result<()> {
    if !output.status.success() {
        bail!("{what}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

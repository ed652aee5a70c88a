//! One server: made, entered, looked into.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::process::Command;

use super::access::{Access, User};
use super::guard::Guard;
use super::image::{self, Image};
use crate::probe::ProbeOptions;
use crate::wait_until;

/// No word to a server takes longer.
const DEADLINE: Duration = Duration::from_mins(2);
/// Systemd in a container: what `--privileged` gives, but for what this machine may not have itself to give. What is in memory
/// only is gone after a reboot.
const FLAGS: [&str; 14] = [
    "--cap-add=ALL",
    "--cap-drop=SYS_RESOURCE",
    "--security-opt=seccomp=unconfined",
    "--security-opt=systempaths=unconfined",
    "--security-opt=apparmor=unconfined",
    "--device-cgroup-rule=a *:* rwm",
    "--cgroupns=private",
    "--tmpfs=/run",
    "--tmpfs=/run/lock",
    "--tmpfs=/tmp:exec",
    "--stop-timeout=60",
    "--label=cutover-test=machine",
    "--log-opt=max-size=1m",
    "--init=false",
];

/// What a server without systemd starts: nothing but the way in.
const ONLY_SSHD: &str = "mkdir -p /run/sshd && exec /usr/sbin/sshd -D";

/// What a server's first process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum First {
    Systemd,
    Sshd,
}

/// A server of one test.
pub struct Machine {
    name: String,
    image: Image,
    address: Ipv4Addr,
    access: Access,
    // After all else that needs the container.
    _guard: Guard,
}

impl Machine {
    /// Starts one, and waits until it lets in by ssh; `Err` inside: why there can be none here.
    pub async fn start(image: Image) -> anyhow::Result<Result<Self, String>> {
        Self::start_by(image, First::Systemd).await
    }

    /// The same without systemd: after a boot nothing runs on it but sshd.
    pub async fn start_without_systemd(image: Image) -> anyhow::Result<Result<Self, String>> {
        Self::start_by(image, First::Sshd).await
    }

    async fn start_by(image: Image, first: First) -> anyhow::Result<Result<Self, String>> {
        let tag = match tokio::task::block_in_place(|| image::cgroups().and_then(|()| image.made()))? {
            Ok(tag) => tag,
            Err(why) => return Ok(Err(why)),
        };
        let name = format!("cutover-test-{}", uuid::Uuid::new_v4().simple());
        let access = Access::new()?;
        let guard = Guard::of(&name)?;
        docker(&["network", "create", &name]).await?;
        let mut words = vec!["create", "--name", &name, "--hostname", image.name(), "--network", &name];
        words.extend(FLAGS);
        match first {
            First::Systemd => words.push(&tag),
            First::Sshd => words.extend(["--stop-signal=SIGTERM", &tag, "sh", "-c", ONLY_SSHD]),
        }
        docker(&words).await?;
        let mut machine = Self { name, image, address: Ipv4Addr::UNSPECIFIED, access, _guard: guard };
        machine.lay_over().await?;
        docker(&["start", &machine.name]).await?;
        machine.address = machine.find_address().await?;
        machine.access.write_client(machine.address)?;
        machine.until_up().await?;
        machine.own_homes().await?;
        Ok(Ok(machine))
    }

    /// Keys, before anybody can ask for them.
    async fn lay_over(&self) -> anyhow::Result<()> {
        let tree = format!("{}/.", self.access.tree()?.display());
        docker(&["cp", &tree, &format!("{}:/", self.name)]).await.map(drop)
    }

    async fn own_homes(&self) -> anyhow::Result<()> {
        let own = "chown -R admin: /home/admin; chown -R guest: /home/guest";
        self.exec(&["sh", "-c", own]).await.map(drop)
    }

    async fn find_address(&self) -> anyhow::Result<Ipv4Addr> {
        let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        let said = docker(&["inspect", "--format", format, &self.name]).await?;
        said.parse().with_context(|| format!("no address: {said}"))
    }

    /// Waits until it lets in by ssh.
    pub async fn until_up(&self) -> anyhow::Result<()> {
        let up = async || self.ssh(User::Root, "true").await.is_ok().then_some(());
        wait_until(&format!("{} lets in", self.image.name()), DEADLINE, up).await?;
        Ok(())
    }

    /// Joins it to a network of IPv6 besides; gives its address there.
    pub async fn join_six(&self) -> anyhow::Result<Ipv6Addr> {
        let network = format!("{}-six", self.name);
        let number = uuid::Uuid::new_v4().as_u128();
        let [one, two, three] = [16, 32, 48].map(|bits| (number >> bits) & 0xffff);
        // Of the range that is nobody's.
        let subnet = format!("fd00:{one:x}:{two:x}:{three:x}::/64");
        // Not of those that an engine takes by itself: the one inside the server may have taken the very same.
        let four = format!("10.{}.{}.0/24", 128 + one % 128, two % 256);
        docker(&["network", "create", "--ipv6", "--subnet", &subnet, "--subnet", &four, &network]).await?;
        docker(&["network", "connect", &network, &self.name]).await?;
        let format = "{{range .NetworkSettings.Networks}}{{.GlobalIPv6Address}}{{end}}";
        let said = docker(&["inspect", "--format", format, &self.name]).await?;
        said.parse().with_context(|| format!("no address: {said}"))
    }

    pub fn image(&self) -> Image {
        self.image
    }

    /// Its container's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is; the same after a reboot.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// As `cutover.yml` names it.
    pub fn target(&self, user: User) -> String {
        format!("{}@{}", user.name(), self.address)
    }

    /// The ssh that knows it and is let in: what `CUTOVER_SSH` names.
    pub fn ssh_program(&self) -> PathBuf {
        self.access.program()
    }

    /// A folder of the client's, for a test's own files.
    pub fn folder(&self) -> &Path {
        self.access.folder()
    }

    /// Traffic to it.
    pub fn traffic(&self, host: &str) -> ProbeOptions {
        ProbeOptions::new(SocketAddr::from((self.address, 80)), host)
    }

    /// Looks into it from within, without its network.
    pub async fn exec(&self, words: &[&str]) -> anyhow::Result<String> {
        let all: Vec<&str> = ["exec", &self.name].into_iter().chain(words.iter().copied()).collect();
        docker(&all).await
    }

    /// A command line of a shell on it, by ssh.
    pub async fn ssh(&self, user: User, line: &str) -> anyhow::Result<String> {
        let mut command = Command::new(self.ssh_program());
        command.args(["-T", "-o", "ConnectTimeout=5", &self.target(user), line]);
        run(command).await
    }

    /// How often it was started.
    pub async fn boots(&self) -> anyhow::Result<usize> {
        Ok(self.exec(&["cat", "/var/log/boots"]).await?.lines().count())
    }

    /// Puts a file of this machine on it, for root.
    pub async fn put(&self, from: &Path, to: &str) -> anyhow::Result<()> {
        docker(&["cp", &from.display().to_string(), &format!("{}:{to}", self.name)]).await?;
        self.exec(&["chown", "root:root", to]).await.map(drop)
    }
}

/// What the tests' engine says to these words.
pub(super) async fn docker(words: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new("docker");
    command.args(words);
    run(command).await
}

pub(super) async fn run(mut command: Command) -> anyhow::Result<String> {
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(DEADLINE, command.output())
        .await
        .with_context(|| format!("no end within {DEADLINE:?}: {:?}", command.as_std()))??;
    if !output.status.success() {
        bail!("{:?}: {}", command.as_std(), String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

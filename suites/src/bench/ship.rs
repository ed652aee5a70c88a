//! A change of one line in an image of 500 MB, on its way to a server: by cutover, by a registry beside the server, and by `docker save`. All three
//! through a link of 100 Mbit/s and a round trip of 20 ms.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use cutover_engine::Engine;
use cutover_testkit::site::{App, Binaries, OwnEngine, Site};
use cutover_testkit::ssh::{Link, Relay};
use cutover_testkit::wait_until;

use crate::engine::{self, SHELL_IMAGE};

use super::figures::{milliseconds, ratios};
use super::sheet::Section;

pub(super) const LINK: Link = Link { delay: Duration::from_millis(10), rate: Some(12_500_000) };
pub(super) const ROUNDS: usize = 3;
/// What stays as it is: so many layers of so many bytes, of this machine's own programs and libraries.
const LAYERS: usize = 20;
const LAYER: u64 = 25_000_000;
/// The layer in which a line changes: text, as applications are.
const APPLICATION: u64 = 4_000_000;
const HOST: &str = "sample.localhost";
const SOON: Duration = Duration::from_secs(30);

pub(super) async fn measure(binaries: &Binaries) -> anyhow::Result<Section> {
    let mut section =
        Section::new("Ship: one line changed in an image of 500 MB, 100 Mbit/s, round trip 20 ms");
    super::files::measure(&mut section, binaries).await?;
    let client = match engine::usable().await.and_then(|engine| engine::shell_image(&engine).map(|()| engine))
    {
        Ok(engine) => engine,
        Err(why) => return Ok(without(section, why)),
    };
    let host = match tokio::task::block_in_place(OwnEngine::start)? {
        Ok(host) => host,
        Err(why) => return Ok(without(section, why)),
    };
    let folder = tempfile::tempdir()?;
    let program = folder.path().join("cutover");
    let script = format!(
        "#!/bin/sh\nexport DOCKER_HOST={}\nexec {} \"$@\"\n",
        client.address(),
        binaries.cutover.display()
    );
    std::fs::write(&program, script)?;
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))?;
    let binaries = Binaries { cutover: program, ..binaries.clone() };
    let site = match Site::over_ssh_on_engine(binaries, host.connect().await?).await? {
        Ok(site) => site,
        Err(why) => return Ok(without(section, why)),
    };
    let app = site.app("sample", HOST)?;
    let images = Images { client: client.clone(), folder: folder.path().to_owned(), app: &app };
    images.base()?;
    let measured = async {
        let ours = images.by_cutover().await?;
        let registry = images.by_registry().await?;
        anyhow::Ok((ours, registry, images.by_save().await?))
    };
    let measured = measured.await;
    images.clear().await?;
    report(&mut section, &measured?);
    Ok(section)
}

fn without(mut section: Section, why: String) -> Section {
    section.not_run(why);
    section
}

/// What one way took, round by round.
#[derive(Default)]
struct Way {
    times: Vec<f64>,
    carried: Vec<f64>,
}

type Measured = ((Way, Vec<f64>), (Way, Vec<f64>), f64);

fn report(section: &mut Section, ((ours, whole), (registry, layer), save): &Measured) {
    section.row("cutover: the step that ships", "ms", &ours.times);
    section.row("cutover: the whole deploy, ssh and all", "ms", whole);
    section.row("push to a registry beside the server, and pull", "ms", &registry.times);
    section.row("docker save | ssh docker load", "ms", &[*save]).note("once");
    section.row("cutover over push and pull", "×", &ratios(&ours.times, &registry.times)).goal(1.0);
    let saves = vec![*save; ours.times.len()];
    section.row("cutover over save and load", "×", &ratios(&ours.times, &saves)).goal(0.1);
    section
        .row(
            "bytes of the whole deploy over those of the changed layer, compressed",
            "×",
            &ratios(&ours.carried, layer),
        )
        .goal(1.05)
        .note(
            "both directions, ssh's own and the run's events included; compressed as the registry keeps it",
        );
    section.row("bytes of push over the same", "×", &ratios(&registry.carried, layer));
}

struct Images<'a> {
    client: Engine,
    folder: PathBuf,
    app: &'a App<'a>,
}

impl Images<'_> {
    fn name(&self, tag: &str) -> String {
        format!("cutover/{}/sample:{tag}", self.app.id())
    }

    fn relay(&self) -> &Relay {
        &self.app.site().remote().relay
    }

    /// The layers that stay as they are.
    fn base(&self) -> anyhow::Result<()> {
        let context = self.folder.join("base");
        let mut files = files_below(&["/usr/lib", "/usr/bin", "/usr/sbin", "/usr/share"]);
        let mut dockerfile = format!("FROM {SHELL_IMAGE}\n");
        for layer in 0..LAYERS {
            let folder = format!("layer-{layer}");
            fill(&context.join(&folder), &mut files, LAYER)?;
            dockerfile = format!("{dockerfile}COPY {folder} /parts/{folder}\n");
        }
        std::fs::write(context.join("Dockerfile"), dockerfile)?;
        self.docker(&["build", "--quiet", "--tag", &self.name("base"), &context.display().to_string()])?;
        Ok(std::fs::remove_dir_all(context)?)
    }

    /// One more version, which differs from the others by one line.
    fn version(&self, tag: &str) -> anyhow::Result<String> {
        let context = self.folder.join("application");
        if !context.exists() {
            let mut files = files_below(&["/usr/share/perl", "/usr/lib/python3", "/usr/share/doc"]);
            fill(&context.join("app"), &mut files, APPLICATION)?;
        }
        std::fs::write(context.join("app/index.html"), format!("{tag}\n"))?;
        let dockerfile = format!(
            "FROM {}\nCOPY app /app\nCMD [\"httpd\", \"-f\", \"-p\", \"80\", \"-h\", \"/app\"]\n",
            self.name("base")
        );
        std::fs::write(context.join("Dockerfile"), dockerfile)?;
        let name = self.name(tag);
        self.docker(&["build", "--quiet", "--tag", &name, &context.display().to_string()])?;
        Ok(name)
    }

    async fn by_cutover(&self) -> anyhow::Result<(Way, Vec<f64>)> {
        let id = &self.app.id().app;
        let repository = self.name("any").replace(":any", "");
        let config = format!(
            "app: {id}\nservices:\n  web:\n    image: {repository}\n    port: 80\n    init: true\n    route: {{ host: {HOST} }}\nbake: 0\n"
        );
        std::fs::write(self.app.repository().join("cutover.yml"), self.app.own(&config))?;
        self.app.record("an image")?;
        let (mut way, mut whole) = (Way::default(), Vec::new());
        for round in 0..=ROUNDS {
            let tag = format!("v{round}");
            self.version(&tag)?;
            let before = self.relay().carried();
            let began = Instant::now();
            let told = self.app.cutover(&["deploy", "--json", "--version", &tag]).await?.expect(0)?;
            let took = milliseconds(began.elapsed());
            if round == 0 {
                // All of it went; from now on the link is what it is.
                self.relay().becomes(LINK);
                continue;
            }
            way.times.push(step(&told.output).with_context(|| told.output.clone())?);
            way.carried.push(as_figure(self.relay().carried() - before));
            whole.push(took);
        }
        Ok((way, whole))
    }

    async fn by_registry(&self) -> anyhow::Result<(Way, Vec<f64>)> {
        let registry = Registry::start(&self.folder).await?;
        let relay = Relay::before(registry.address, Link::OPEN)?;
        let (mut way, mut layers) = (Way::default(), Vec::new());
        for round in 0..=ROUNDS {
            let tag = format!("w{round}");
            let (there, here) =
                (format!("{}/sample:{tag}", relay.address()), format!("{}/sample:{tag}", registry.address));
            self.docker(&["tag", &self.version(&tag)?, &there])?;
            let (before, kept) = (relay.carried(), registry.blobs());
            let began = Instant::now();
            self.docker(&["push", "--quiet", &there])?;
            docker(self.host(), &["pull", "--quiet", &here])?;
            let took = milliseconds(began.elapsed());
            self.docker(&["rmi", &there])?;
            if round == 0 {
                relay.becomes(LINK);
                continue;
            }
            way.times.push(took);
            way.carried.push(as_figure(relay.carried() - before));
            let new = registry.blobs().into_iter().filter(|blob| !kept.contains(blob));
            layers.push(as_figure(new.map(|(_, bytes)| bytes).max().context("nothing was pushed")?));
        }
        Ok((way, layers))
    }

    /// All of it, as it is done by hand.
    async fn by_save(&self) -> anyhow::Result<f64> {
        let image = self.version("x1")?;
        let remote = self.app.site().remote();
        let address = self.relay().address();
        let line = format!(
            "docker save {image} | {} -T -p {} root@{} docker load",
            remote.client.program().display(),
            address.port(),
            address.ip()
        );
        let began = Instant::now();
        let mut command = tokio::process::Command::new("sh");
        command.args(["-c", &line]).env("DOCKER_HOST", self.client.address()).kill_on_drop(true);
        let output = command.output().await?;
        ensure!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(milliseconds(began.elapsed()))
    }

    fn docker(&self, words: &[&str]) -> anyhow::Result<String> {
        docker(self.client.address(), words)
    }

    fn host(&self) -> &str {
        self.app.site().docker().map_or("", |docker| docker.address())
    }

    async fn clear(&self) -> anyhow::Result<()> {
        for name in self.client.image_names(&format!("cutover/{}/*", self.app.id())).await? {
            self.client.remove_image(&name).await?;
        }
        Ok(())
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures are for people")]
pub(super) fn as_figure(bytes: u64) -> f64 {
    bytes as f64
}

/// What the step that ships took, by its own line.
fn step(output: &str) -> Option<f64> {
    let lines = output.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    lines.filter(|line| line["kind"] == "shipped").find_map(|line| line["millis"].as_f64())
}

fn docker(engine: &str, words: &[&str]) -> anyhow::Result<String> {
    let output = std::process::Command::new("docker").args(words).env("DOCKER_HOST", engine).output()?;
    ensure!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Files of this machine, in order.
pub(super) fn files_below(folders: &[&str]) -> std::vec::IntoIter<(PathBuf, u64)> {
    let (mut files, mut folders): (Vec<_>, Vec<_>) =
        (Vec::new(), folders.iter().map(PathBuf::from).collect());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(found) if found.is_dir() => folders.push(entry.path()),
                Ok(found) if found.is_file() && found.len() > 0 => files.push((entry.path(), found.len())),
                _ => {}
            }
        }
    }
    files.sort();
    files.into_iter()
}

/// Copies files until there are so many bytes.
fn fill(folder: &Path, files: &mut std::vec::IntoIter<(PathBuf, u64)>, bytes: u64) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    let mut filled = 0;
    while filled < bytes {
        let (path, size) = files.next().context("this machine has too few files")?;
        if size < bytes {
            std::fs::copy(path, folder.join(filled.to_string()))?;
            filled += size;
        }
    }
    Ok(())
}

/// The distribution's registry, which lets everybody in.
struct Registry {
    child: Child,
    address: SocketAddr,
    folder: PathBuf,
}

impl Registry {
    async fn start(folder: &Path) -> anyhow::Result<Self> {
        let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let (folder, file) = (folder.join("registry"), folder.join("registry.yml"));
        let text = format!(
            "version: 0.1\nstorage: {{ filesystem: {{ rootdirectory: {} }} }}\nhttp: {{ addr: \"{address}\" }}\nlog: {{ level: error }}\n",
            folder.display()
        );
        std::fs::write(&file, text)?;
        let mut command = std::process::Command::new("docker-registry");
        command.arg("serve").arg(file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().context("docker-registry")?;
        let registry = Self { child, address, folder };
        let listens = async || tokio::net::TcpStream::connect(address).await.ok();
        wait_until("the registry listens", SOON, listens).await?;
        Ok(registry)
    }

    fn blobs(&self) -> Vec<(PathBuf, u64)> {
        files_below(&[&self.folder.join("docker/registry/v2/blobs").display().to_string()]).collect()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().unwrap_or_default();
        self.child.wait().map(drop).unwrap_or_default();
    }
}

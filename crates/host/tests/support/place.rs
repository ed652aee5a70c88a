//! A place on a real engine for one test: an installation of its own, whose containers, networks and volumes go when it does, also when the test
//! panics.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use cutover_core::addresses::Subnet;
use cutover_core::config::settings::{RunSettings, StopSettings};
use cutover_core::hash::ContentHash;
use cutover_core::layout::{self, Layout, label};
use cutover_core::names::{AppId, InstanceName, RunId, Slot};
use cutover_core::plan::{InstanceSpec, NetworkSpec, NetworkUse, VolumeSpec};
use cutover_core::release::{Content, RuntimeKind};
use cutover_core::secret::Secrets;
use cutover_core::state::{ExitStatus, FoundInstance, InstanceState, Role};
use cutover_engine::{Container, Engine, RemoveVolumes};
use cutover_host::ports::{Exec, LogQuery, Runtime, RuntimeError, RuntimeErrorKind};
use cutover_host::runtime::docker::DockerRuntime;

/// A shell and its tools, nothing else; `scripts/engine.sh base` makes it.
pub(crate) const BASE: &str = "cutover-test/busybox:1";
/// Runs until it is told to stop, and then stops at once.
pub(crate) const IDLE: &str = "trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done";
/// On every wait.
pub(crate) const DEADLINE: Duration = Duration::from_mins(1);

pub(crate) struct Place {
    root: tempfile::TempDir,
    pub(crate) installation: String,
    pub(crate) layout: Layout,
    pub(crate) engine: Engine,
    pub(crate) runtime: DockerRuntime,
    pub(crate) app: AppId,
    names: AtomicU32,
}

/// Runs a test on the engine that answers, or says why it does not run.
pub(crate) fn on_engine<F: Future<Output = ()>>(name: &str, test: impl FnOnce(Place) -> F) {
    let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    threads.block_on(async {
        let engine = match Engine::connect().await {
            Ok(engine) => engine,
            Err(why) => return not_run(name, why),
        };
        if let Err(why) = base_image(&engine).await {
            return not_run(name, why);
        }
        let place = Place::on(engine.clone());
        let _cleaner = Cleaner { engine, installation: place.installation.clone() };
        let ended = tokio::time::timeout(2 * DEADLINE, test(place)).await;
        assert!(ended.is_ok(), "{name} did not end");
    });
}

/// Said instead of failing, so that the table of suites can tell.
pub(crate) fn not_run(name: &str, why: impl std::fmt::Display) {
    println!("not run: {name}: {why}");
}

impl Place {
    fn on(engine: Engine) -> Self {
        static APPS: AtomicU32 = AtomicU32::new(0);
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::under(root.path());
        let installation = uuid::Uuid::now_v7().to_string();
        let runtime = DockerRuntime::on(engine.clone(), &layout, &installation);
        let number = APPS.fetch_add(1, Ordering::Relaxed);
        let app = format!("shop{}-{number}/test", std::process::id()).parse().unwrap();
        Self { root, installation, layout, engine, runtime, app, names: AtomicU32::new(0) }
    }

    /// The same host's engine, as another installation of cutover uses it.
    pub(crate) fn neighbour(&self) -> DockerRuntime {
        DockerRuntime::on(self.engine.clone(), &self.layout, "somebody-else")
    }

    pub(crate) fn folder(&self) -> &Path {
        self.root.path()
    }

    /// An instance that runs a line of shell, on no network.
    pub(crate) fn script(&self, service: &str, script: &str) -> InstanceSpec {
        let number = self.names.fetch_add(1, Ordering::Relaxed);
        let words = ["/bin/sh", "-c", &script.replace('$', "$$")];
        InstanceSpec {
            name: format!("{service}-blue-{number}-0badcafe").parse().unwrap(),
            app: self.app.clone(),
            service: service.parse().unwrap(),
            role: Role::Service,
            release: "7f3c9e1".parse().unwrap(),
            slot: Slot::Blue,
            replica: 1,
            run: RunId::new(uuid::Uuid::now_v7()),
            content: Content::Image {
                reference: BASE.to_owned(),
                identity: ContentHash::of(b"base"),
                name: None,
                origin: None,
            },
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
            given: BTreeMap::new(),
            isolated: true,
            network_of: None,
        }
    }

    pub(crate) fn idle(&self, service: &str) -> InstanceSpec {
        self.script(service, IDLE)
    }

    /// A network with its subnet, made.
    pub(crate) async fn network(&self, name: &str) -> NetworkSpec {
        static CHOOSING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
        let _choosing = CHOOSING.lock().await;
        for _ in 0..20 {
            let network = self.absent_network(name).await;
            match self.runtime.ensure_network(&network).await {
                Ok(()) => return network,
                // Another test binary was quicker.
                Err(error) if error.kind == RuntimeErrorKind::Exists => {}
                Err(error) => panic!("{error}"),
            }
        }
        panic!("no free subnet");
    }

    pub(crate) async fn absent_network(&self, name: &str) -> NetworkSpec {
        let used = self.runtime.facts(&self.app).await.unwrap().subnets;
        let used: Vec<Subnet> = used.iter().filter_map(|text| Subnet::parse(text)).collect();
        let all = Subnet::parse("10.214.0.0/16").unwrap();
        let subnet = all.choose(28, &used, 0).unwrap();
        NetworkSpec {
            name: name.to_owned(),
            subnet: subnet.to_string(),
            range: subnet.engine_half().to_string(),
        }
    }

    pub(crate) fn edge(&self) -> String {
        layout::edge_network(&self.installation)
    }

    pub(crate) fn volume(&self, name: &str) -> VolumeSpec {
        let name = layout::engine_volume(&self.app, &name.parse().unwrap());
        VolumeSpec { runtime: RuntimeKind::Container, name, external: false }
    }

    pub(crate) async fn create(&self, spec: &InstanceSpec) {
        within(self.runtime.create(spec, &Secrets::new())).await.unwrap();
    }

    pub(crate) async fn start(&self, spec: &InstanceSpec) {
        within(self.runtime.start(&self.app, &spec.name)).await.unwrap();
    }

    pub(crate) async fn started(&self, spec: InstanceSpec) -> InstanceSpec {
        self.create(&spec).await;
        self.start(&spec).await;
        spec
    }

    pub(crate) async fn stop(&self, spec: &InstanceSpec) {
        within(self.runtime.stop(&self.app, &spec.name, &spec.settings.stop)).await.unwrap();
    }

    pub(crate) async fn remove(&self, spec: &InstanceSpec) {
        within(self.runtime.remove(&self.app, &spec.name)).await.unwrap();
    }

    pub(crate) async fn exited(&self, spec: &InstanceSpec) -> ExitStatus {
        within(self.runtime.exited(&self.app, &spec.name)).await.unwrap()
    }

    pub(crate) async fn found(&self, name: &InstanceName) -> FoundInstance {
        within(self.runtime.inspect(&self.app, name)).await.unwrap().unwrap()
    }

    pub(crate) async fn state(&self, name: &InstanceName) -> InstanceState {
        self.found(name).await.state
    }

    pub(crate) async fn container(&self, spec: &InstanceSpec) -> Container {
        self.engine.inspect(&layout::container(&self.app, &spec.name)).await.unwrap()
    }

    pub(crate) async fn log(&self, spec: &InstanceSpec, query: &LogQuery) -> Vec<String> {
        let lines = within(self.runtime.logs(&self.app, &spec.name, query)).await.unwrap();
        lines.into_iter().map(|line| line.text).collect()
    }

    /// What a script that ends by itself wrote.
    pub(crate) async fn output(&self, spec: &InstanceSpec) -> Vec<String> {
        self.exited(spec).await;
        self.log(spec, &LogQuery::default()).await
    }

    /// Runs a line of shell inside; its exit code and output.
    pub(crate) async fn inside(&self, spec: &InstanceSpec, script: &str) -> (i32, String) {
        let words = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        let exec = Exec { words, timeout: DEADLINE };
        let finished = self.runtime.exec(&self.app, &spec.name, &exec).await.unwrap();
        (finished.exit.code.unwrap(), finished.output.join("\n"))
    }

    /// Waits for a line in its output.
    pub(crate) async fn says(&self, spec: &InstanceSpec, text: &str) {
        until(text, async || {
            self.log(spec, &LogQuery::default()).await.iter().any(|line| line.contains(text))
        })
        .await;
    }
}

/// On a network by a name.
pub(crate) fn on(network: &NetworkSpec, alias: &str) -> NetworkUse {
    NetworkUse { network: network.name.clone(), aliases: vec![alias.to_owned()], address: None }
}

/// The first address of the half that is ours.
pub(crate) fn fixed(network: &NetworkSpec) -> Ipv4Addr {
    Subnet::parse(&network.subnet).unwrap().fixed(&std::collections::BTreeSet::new(), 0).unwrap()
}

pub(crate) fn at(address: Ipv4Addr, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(address), port)
}

/// What an HTTP server answers to a GET; `None`: nobody answers.
pub(crate) async fn get(address: SocketAddr) -> Option<String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.ok()?;
    stream.write_all(b"GET /index.html HTTP/1.0\r\n\r\n").await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    (!answer.is_empty()).then_some(answer)
}

pub(crate) async fn answers(address: SocketAddr, text: &str) {
    until(text, async || get(address).await.is_some_and(|answer| answer.contains(text))).await;
}

pub(crate) async fn within<T>(act: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, act).await.expect("it did not end")
}

pub(crate) async fn until(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let waited = tokio::time::timeout(DEADLINE, async {
        while !so().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(waited.await.is_ok(), "waited in vain for: {what}");
}

pub(crate) fn kind<T: std::fmt::Debug>(result: Result<T, RuntimeError>) -> (RuntimeErrorKind, String) {
    let error = result.unwrap_err();
    (error.kind, error.message)
}

async fn base_image(engine: &Engine) -> Result<(), String> {
    static MAKING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let _making = MAKING.lock().await;
    if engine.inspect_image(BASE).await.is_ok() {
        return Ok(());
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/engine.sh");
    let made = Command::new(script).arg("base").env("DOCKER_HOST", engine.address()).output();
    let made = made.map_err(|error| format!("{script}: {error}"))?;
    if made.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&made.stderr).into_owned()) }
}

struct Cleaner {
    engine: Engine,
    installation: String,
}

impl Drop for Cleaner {
    fn drop(&mut self) {
        let (engine, installation) = (self.engine.clone(), self.installation.clone());
        // A thread with a runtime of its own: the test's may be unwinding.
        let cleaned = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { tokio::time::timeout(DEADLINE, clean(&engine, installation)).await })
        });
        match cleaned.join() {
            Ok(Ok(())) => {}
            other => println!("left behind on the engine: {} ({other:?})", self.installation),
        }
    }
}

async fn clean(engine: &Engine, installation: String) {
    let labels = BTreeMap::from([(label::INSTALLATION.to_owned(), installation)]);
    for container in engine.list(&labels).await.unwrap() {
        engine.kill_and_remove(&container.id, RemoveVolumes::Unnamed).await.unwrap();
    }
    for network in engine.list_networks(&labels).await.unwrap() {
        engine.remove_network(&network.id).await.unwrap();
    }
    for volume in engine.list_volumes(&labels).await.unwrap() {
        engine.remove_volume(&volume.name).await.unwrap();
    }
}

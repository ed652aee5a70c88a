//! The real processes, killed one after another under traffic: proxy, watch, supervisor, keeper, instance, and all at once. The app is this
//! very test binary, which serves when it is asked to.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test stops where it fails, and says its numbers"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cutover_core::config::settings::{
    HoldSettings, RouteSettings, RunSettings, Service, Source, StopSettings, Strategy,
};
use cutover_core::gate::{Check, Gate, GateCheck};
use cutover_core::hash::ContentHash;
use cutover_core::layout::Layout;
use cutover_core::names::{AppId, InstanceName, RunId, Slot};
use cutover_core::plan::InstanceSpec;
use cutover_core::release::{Content, Live, Provenance, Release, ServiceRelease};
use cutover_core::secret::Secrets;
use cutover_core::state::{RestartPolicy, Role};
use cutover_core::wire::{Ask, Reply};
use cutover_host::installation::Installation;
use cutover_host::lock::ProcessLock;
use cutover_host::ports::{Router, Runtime};
use cutover_host::router::proxy::ProxyRouter;
use cutover_host::runtime::process::ProcessRuntime;
use cutover_host::store::Store;
use cutover_routes::{Address, Entry, Route, RouteState, Target};
use support::Root;

/// No wait of these tests is longer.
const DEADLINE: Duration = Duration::from_secs(30);

/// Not a test: the app, when this binary is started as one.
#[test]
#[ignore = "the app of the other tests"]
fn app() {
    let Ok(port) = std::env::var("PORT") else { return };
    let listener = TcpListener::bind(("127.0.0.1", port.parse().unwrap())).unwrap();
    let name = std::env::var("CUTOVER_INSTANCE").unwrap();
    for stream in listener.incoming() {
        let name = name.clone();
        std::thread::spawn(move || answer(stream.unwrap(), &name));
    }
}

fn answer(mut stream: TcpStream, name: &str) {
    let mut asked = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(read) => asked.extend_from_slice(&buffer[..read]),
        }
        if asked.ends_with(b"\r\n\r\n") {
            asked.clear();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len());
            if stream.write_all(head.as_bytes()).is_err() {
                return;
            }
        }
    }
}

/// One installation with proxy, watch, and an app of so many replicas that is live.
struct Site {
    root: Root,
    layout: Layout,
    app: AppId,
    runtime: ProcessRuntime,
    http: SocketAddr,
}

impl Site {
    async fn serving(replicas: u32) -> Self {
        Self::serving_in(Root::new(), replicas).await
    }

    async fn serving_in(root: Root, replicas: u32) -> Self {
        let http = up(&root);
        let layout = root.layout();
        let installation = Installation::open(&layout).unwrap();
        let program = PathBuf::from(env!("CARGO_BIN_EXE_cutover-host"));
        let runtime = ProcessRuntime::new(layout.clone(), installation.id, program);
        let app: AppId = "shop/local".parse().unwrap();
        let site = Self { root, layout, app, runtime, http };
        let members: Vec<Target> = {
            let mut members = Vec::new();
            for replica in 1..=replicas {
                members.push(site.start(replica).await);
            }
            members
        };
        site.go_live(members).await;
        let begun = Instant::now();
        while get(site.http).is_err() {
            assert!(begun.elapsed() < DEADLINE, "the app does not serve");
            std::thread::sleep(Duration::from_millis(5));
        }
        site
    }

    async fn start(&self, replica: u32) -> Target {
        let spec = spec(&self.app, replica);
        std::fs::create_dir_all(self.layout.artifact(spec.content.identity())).unwrap();
        let target = Target { id: spec.name.to_string(), address: Address::Tcp(spec.address.unwrap()) };
        self.runtime.create(&spec, &Secrets::new()).await.unwrap();
        self.runtime.start(&self.app, &spec.name).await.unwrap();
        self.runtime.set_restart(&self.app, &spec.name, RestartPolicy::UnlessStopped).await.unwrap();
        target
    }

    async fn go_live(&self, targets: Vec<Target>) {
        let release = release(&self.app, u32::try_from(targets.len()).unwrap());
        let names = targets.iter().map(|target| target.id.parse().unwrap()).collect();
        let live = Live {
            release: release.id.clone(),
            slot: Slot::Blue,
            run: run(),
            members: BTreeMap::from([("web".parse().unwrap(), names)]),
            stopped: BTreeSet::new(),
            repository: None,
        };
        let route = Route {
            name: "web".into(),
            hosts: vec![],
            path: "/".into(),
            strip: false,
            state: RouteState::Serving { targets },
        };
        let router = ProxyRouter::new(self.layout.clone());
        let found = router.read().await.unwrap();
        let mut table = found.table;
        table.owners.insert(self.app.owner(), Entry { facts: live.to_facts(), routes: vec![route] });
        router.replace(&found.hash, &table).await.unwrap();
        Store::open(&self.layout).unwrap().put_release(&release).unwrap();
        // Watch finds new apps by itself; a lock that is let go tells it at once.
        drop(ProcessLock::take(&self.layout, "test").unwrap());
        let samples = cutover_host::store::samples::Samples::open(&self.layout).unwrap();
        eventually("watch sees the app", || samples.newest(&self.app).unwrap().is_some()).await;
    }

    fn pid(&self, process: &str) -> u32 {
        ProcessLock::peek(&self.layout, process).unwrap_or_else(|| panic!("no {process}"))
    }

    fn state(&self, replica: u32) -> serde_json::Value {
        let folder = self.layout.instance(&self.app, &name(replica));
        serde_json::from_slice(&std::fs::read(folder.join("state.json")).unwrap()).unwrap()
    }

    fn keeper(&self, replica: u32) -> u32 {
        number(&self.state(replica)["keeper"]["pid"])
    }

    fn process(&self, replica: u32) -> u32 {
        number(&self.state(replica)["phase"]["child"]["pid"])
    }
}

fn number(value: &serde_json::Value) -> u32 {
    u32::try_from(value.as_u64().unwrap_or_else(|| panic!("no number: {value}"))).unwrap()
}

/// Starts proxy and watch as the first deploy does; gives where the proxy listens.
fn up(root: &Root) -> SocketAddr {
    match root.talk().ask(&Ask::Up) {
        Reply::Up { listeners, .. } => listeners[0],
        other => panic!("{other:?}"),
    }
}

fn kill(pids: &[u32]) {
    let words: Vec<String> = pids.iter().map(ToString::to_string).collect();
    let killed = Command::new("sh").args(["-c", &format!("kill -9 {}", words.join(" "))]).status().unwrap();
    assert!(killed.success());
}

async fn eventually(what: &str, is: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < DEADLINE, "{what}: not within {DEADLINE:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn run() -> RunId {
    RunId::new(uuid::Uuid::nil())
}

fn name(replica: u32) -> InstanceName {
    format!("web-blue-{replica}-0").parse().unwrap()
}

fn settings() -> RunSettings {
    let words =
        [std::env::current_exe().unwrap().display().to_string().as_str(), "--ignored", "--exact", "app"]
            .map(|word| word.parse().unwrap());
    let stop = StopSettings { signal: None, grace: Duration::from_secs(5) };
    RunSettings { command: Some(words.to_vec()), stop, ..RunSettings::default() }
}

fn content() -> Content {
    Content::Artifact { hash: ContentHash::of(b"the app is this test binary") }
}

/// An instance on a port that was free a moment ago.
fn spec(app: &AppId, replica: u32) -> InstanceSpec {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let given =
        [("PORT", address.port().to_string()), ("CUTOVER_INSTANCE", format!("{app}/{}", name(replica)))];
    InstanceSpec {
        name: name(replica),
        app: app.clone(),
        service: "web".parse().unwrap(),
        role: Role::Service,
        release: "r1".parse().unwrap(),
        slot: Slot::Blue,
        replica,
        run: run(),
        content: content(),
        settings: settings(),
        port: Some(address.port()),
        address: Some(address),
        networks: vec![],
        published: None,
        urls: BTreeMap::new(),
        files: BTreeMap::new(),
        shipped: BTreeMap::new(),
        volumes: BTreeMap::new(),
        given: given.map(|(name, value)| (name.parse().unwrap(), value)).into(),
        isolated: false,
        network_of: None,
    }
}

fn release(app: &AppId, replicas: u32) -> Release {
    let check = Check::Tcp { port: None, inside: false };
    let second = Duration::from_secs(1);
    let service = Service {
        source: Source::Artifact { path: ".".into() },
        run: settings(),
        port: None,
        route: Some(RouteSettings { hosts: vec![], path: "/".into(), strip: false }),
        gate: Gate {
            checks: vec![GateCheck { check, interval: second, timeout: second, rise: 1, fall: 3 }],
            within: DEADLINE,
        },
        verify: vec![],
        strategy: Strategy::BlueGreen,
        replicas,
        hold: HoldSettings { budget: DEADLINE, requests: 1_000, bytes: 1 << 20 },
        drain: Duration::from_secs(5),
        restart_unhealthy: false,
    };
    Release {
        one_offs: [].into(),
        id: "r1".parse().unwrap(),
        app: app.clone(),
        source: Provenance::default(),
        services: BTreeMap::from([(
            "web".parse().unwrap(),
            ServiceRelease { settings: service, content: content(), shipped: BTreeMap::new() },
        )]),
        backing: BTreeMap::new(),
        databases: BTreeMap::new(),
        volumes: BTreeMap::new(),
        backup: None,
        registry: None,
        variables: BTreeMap::new(),
        bake: Duration::ZERO,
        keep_warm: Duration::ZERO,
        keep: 5,
        created: "2026-11-21T12:00:00Z".parse().unwrap(),
    }
}

/// One request on a connection of its own; the app's whole answer, or what came instead.
fn get(address: SocketAddr) -> Result<String, String> {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().map_err(|error| error.to_string())?;
    let is_whole = answer.starts_with("HTTP/1.1 200") && answer.contains("\r\n\r\nshop/local/web-blue-");
    if is_whole { Ok(answer) } else { Err(format!("instead of an answer: {answer:?}")) }
}

/// Requests, one after another, from a few clients.
struct Traffic {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<(u32, Vec<String>, Duration)>>,
}

impl Traffic {
    fn to(address: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let client = |_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                let (mut sent, mut failed, mut slowest) = (0, Vec::new(), Duration::ZERO);
                while !stop.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    sent += 1;
                    failed.extend(get(address).err());
                    slowest = slowest.max(begun.elapsed());
                    std::thread::sleep(Duration::from_millis(2));
                }
                (sent, failed, slowest)
            })
        };
        Self { clients: (0..3).map(client).collect(), stop }
    }

    /// Ends it; prints its numbers and gives what failed.
    fn end(self, what: &str) -> Vec<String> {
        // What a change breaks, it breaks at once: a moment more shows it.
        std::thread::sleep(Duration::from_millis(300));
        self.stop.store(true, Ordering::Relaxed);
        let (mut sent, mut failed, mut slowest) = (0, Vec::new(), Duration::ZERO);
        for client in self.clients {
            let (more, bad, slow) = client.join().unwrap();
            sent += more;
            failed.extend(bad);
            slowest = slowest.max(slow);
        }
        println!("{what}: {sent} requests, {} failed, slowest {} ms", failed.len(), slowest.as_millis());
        failed
    }
}

#[tokio::test]
async fn a_killed_proxy_is_back_within_a_second_and_nobody_is_refused() {
    let site = Site::serving(1).await;
    let before = site.pid("proxy");
    let traffic = Traffic::to(site.http);

    kill(&[before]);
    let begun = Instant::now();
    get(site.http).unwrap();
    let back = begun.elapsed();

    let failed = traffic.end("proxy killed");
    assert!(back < Duration::from_secs(1), "{back:?}");
    assert_ne!(site.pid("proxy"), before);
    // Three clients, one request each inside at most.
    assert!(failed.len() <= 3, "{failed:?}");
}

#[tokio::test]
async fn a_killed_watch_is_back_and_does_its_work() {
    let site = Site::serving(1).await;
    let before = site.pid("watch");
    kill(&[before]);
    let back = || ProcessLock::peek(&site.layout, "watch").is_some_and(|pid| pid != before);
    eventually("watch is back", back).await;

    let traffic = Traffic::to(site.http);
    let (keeper, process) = (site.keeper(1), site.process(1));
    kill(&[keeper, process]);
    eventually("it runs under another keeper", || site.keeper(1) != keeper).await;

    drop(traffic.end("watch killed, then keeper and instance"));
    get(site.http).unwrap();
}

#[tokio::test]
async fn a_killed_instance_is_back_within_a_second() {
    let site = Site::serving(1).await;
    let traffic = Traffic::to(site.http);
    let process = site.process(1);
    let begun = Instant::now();

    kill(&[process]);
    eventually("it was started again", || {
        site.state(1)["phase"]["child"]["pid"].as_u64().is_some_and(|pid| pid != u64::from(process))
    })
    .await;
    let back = begun.elapsed();

    traffic.end("the only instance killed");
    assert!(back < Duration::from_secs(1), "{back:?}");
    get(site.http).unwrap();
}

#[tokio::test]
async fn of_two_replicas_one_is_killed_and_nobody_notices() {
    let site = Site::serving(2).await;
    let traffic = Traffic::to(site.http);
    let (keeper, process) = (site.keeper(1), site.process(1));

    kill(&[keeper, process]);
    eventually("it runs under another keeper", || site.keeper(1) != keeper).await;

    assert_eq!(traffic.end("one of two replicas killed, with its keeper"), Vec::<String>::new());
}

#[tokio::test]
async fn a_killed_keeper_is_replaced_under_a_hold_and_nobody_notices() {
    let site = Site::serving(1).await;
    let traffic = Traffic::to(site.http);
    let (keeper, process) = (site.keeper(1), site.process(1));

    kill(&[keeper]);
    eventually("it runs under another keeper", || site.keeper(1) != keeper).await;

    assert_eq!(traffic.end("keeper killed"), Vec::<String>::new());
    eventually("the orphan has ended", || !std::path::Path::new(&format!("/proc/{process}")).exists()).await;
}

#[tokio::test]
async fn what_a_killed_supervisor_left_works_on_and_is_taken_over() {
    let site = Site::serving(1).await;
    let (supervisor, proxy, watch) = (site.pid("up"), site.pid("proxy"), site.pid("watch"));
    let traffic = Traffic::to(site.http);

    kill(&[supervisor]);
    eventually("it is gone", || ProcessLock::peek(&site.layout, "up").is_none()).await;
    let http = up(&site.root);

    assert_eq!(traffic.end("supervisor killed"), Vec::<String>::new());
    assert_eq!((http, site.pid("proxy"), site.pid("watch")), (site.http, proxy, watch));
    kill(&[watch]);
    let back = || ProcessLock::peek(&site.layout, "watch").is_some_and(|pid| pid != watch);
    eventually("the new one keeps watch", back).await;
}

#[tokio::test]
async fn after_all_was_killed_the_same_release_serves_again() {
    let site = Site::serving(2).await;
    let mut all = vec![site.pid("up"), site.pid("watch"), site.pid("proxy")];
    for replica in [1, 2] {
        all.extend([site.keeper(replica), site.process(replica)]);
    }
    kill(&all);
    eventually("all are gone", || ProcessLock::peek(&site.layout, "proxy").is_none()).await;

    let http = up(&site.root);
    let begun = Instant::now();
    eventually("it serves", || get(http).is_ok()).await;

    println!(
        "after all was killed: serves again {} ms after the proxy was back",
        begun.elapsed().as_millis()
    );
    eventually("both replicas run", || site.keeper(1) != all[3] && site.keeper(2) != all[5]).await;
}

#[tokio::test]
async fn what_runs_can_start_its_like_when_its_program_was_removed() {
    let site = Site::serving_in(Root::with_its_own_program(), 1).await;
    let (proxy, watch, keeper) = (site.pid("proxy"), site.pid("watch"), site.keeper(1));
    site.root.remove_its_own_program();

    kill(&[proxy, watch, keeper]);

    let is_new =
        |process: &str, before| ProcessLock::peek(&site.layout, process).is_some_and(|pid| pid != before);
    eventually("the proxy is back", || is_new("proxy", proxy)).await;
    eventually("watch is back", || is_new("watch", watch)).await;
    eventually("it runs under another keeper", || site.keeper(1) != keeper).await;
    eventually("it serves", || get(site.http).is_ok()).await;
    let name = std::fs::read_to_string(format!("/proc/{}/comm", site.pid("watch"))).unwrap();
    assert_eq!(name.trim(), "cutover-host", "people look for it by its name");
}

#[tokio::test]
async fn down_stops_all_and_up_brings_all_back() {
    let site = Site::serving(1).await;
    let process = site.process(1);

    let said = site.root.runs(&["down"]);

    assert!(said.status.success(), "{said:?}");
    let gone = !std::path::Path::new(&format!("/proc/{process}")).exists();
    assert!(gone && ProcessLock::peek(&site.layout, "proxy").is_none());
    let http = up(&site.root);
    eventually("it serves", || get(http).is_ok()).await;
}

#[tokio::test]
async fn a_proxy_that_cannot_start_says_why() {
    let root = Root::new();
    let folder = root.layout().proxy();
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("table.json"), "cut").unwrap();

    let Reply::Failed { failure } = root.talk().ask(&Ask::Up) else { panic!("its table cannot be read") };

    let cause = failure.cause.join("; ");
    assert!(cause.contains("the proxy does not start: neither "), "{failure:?}");
    assert!(cause.contains("table.json (it is cut short)"), "{failure:?}");
}

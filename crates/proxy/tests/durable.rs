//! The proxy's own end, crash and return; the table on disk; who may ask.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cutover_proxy::{Limits, Proxy, ProxyError};
use cutover_routes::control::{Answer, Ask};
use support::client::{Client, Raw, Traffic, get};
use support::upstream::Upstream;
use support::{Control, TestProxy, eventually, held, in_time, options, serving, table, web};

#[tokio::test]
async fn a_restarted_proxy_serves_the_last_table_with_nothing_else_running() {
    let proxy = TestProxy::start().await;
    let app = Upstream::start("app").await;
    let hash = proxy.serve(vec![web(serving(&[("app", app.address)]))]).await;
    let started = proxy.figures().await.started;
    let home = proxy.stop().await;
    assert!(!home.path().join("control.sock").exists());

    let proxy = TestProxy::at(home, Limits::default()).await.unwrap();

    assert_eq!(get(proxy.address, "/").await.body, "app");
    assert_eq!(proxy.control().await.read().await.0, hash);
    assert_ne!(proxy.figures().await.started, started);
}

#[tokio::test]
async fn a_restarted_proxy_still_holds() {
    let proxy = TestProxy::start().await;
    proxy.serve(vec![web(held(Duration::from_secs(20), 10))]).await;
    let proxy = TestProxy::at(proxy.stop().await, Limits::default()).await.unwrap();
    let address = proxy.address;
    let waiting = tokio::spawn(async move { get(address, "/").await });
    eventually("it waits", || async { proxy.held().await == 1 }).await;

    let app = Upstream::start("app").await;
    proxy.serve(vec![web(serving(&[("app", app.address)]))]).await;

    assert_eq!(in_time("the held request", waiting).await.unwrap().body, "app");
}

#[tokio::test]
async fn a_cut_table_is_served_from_its_copy_and_two_cut_ones_refuse_to_start() {
    let proxy = TestProxy::start().await;
    let app = Upstream::start("app").await;
    proxy.serve(vec![]).await;
    let last = proxy.serve(vec![web(serving(&[("app", app.address)]))]).await;
    let home = proxy.stop().await;
    let cut = |name: &str| {
        let path = home.path().join("proxy").join(name);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    };
    cut("table.json");

    let proxy = TestProxy::at(Arc::clone(&home), Limits::default()).await.unwrap();
    assert_eq!(proxy.control().await.read().await.0, last, "control tells what is served");
    assert_eq!(get(proxy.address, "/").await.body, "app");
    proxy.serve(vec![]).await;
    proxy.stop().await;

    cut("table.json");
    cut("table.previous.json");
    let refused = TestProxy::at(home, Limits::default()).await;
    let text = refused.err().unwrap().to_string();
    assert!(
        text.contains("table.json") && text.contains("remove both to begin with an empty table"),
        "{text}"
    );
}

#[tokio::test]
async fn a_second_proxy_on_the_same_folder_does_not_start_and_harms_nothing() {
    let proxy = TestProxy::start().await;

    let second = Proxy::start(options(&proxy.home, Limits::default())).await;

    assert!(matches!(second, Err(ProxyError::Store(_))), "{second:?}");
    assert!(second.unwrap_err().to_string().contains("another proxy (process "));
    assert_eq!(proxy.control().await.read().await.1, table(vec![]));
}

#[tokio::test]
async fn only_the_owner_may_ask_and_read() {
    let proxy = TestProxy::start().await;
    proxy.serve(vec![]).await;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;

    assert_eq!(mode(&proxy.control_path()), 0o600);
    assert_eq!(mode(&proxy.home.path().join("proxy")), 0o700);
    assert_eq!(mode(&proxy.home.path().join("proxy/table.json")), 0o600);
}

#[tokio::test]
async fn questions_that_are_none_are_refused_and_the_next_is_answered() {
    let proxy = TestProxy::start().await;
    let mut control = proxy.control().await;

    for (line, expected) in [
        ("hello", "not a question"),
        ("{}", "not a question"),
        (r#"{"version":1,"ask":{"ask":"dance"}}"#, "not a question"),
        (r#"{"version":2,"ask":{"ask":"dance"}}"#, "speaks up to 1"),
    ] {
        control.say(line).await;
        match control.hear().await {
            Answer::Refused { reason, full: false } => assert!(reason.contains(expected), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
    let (expect, _) = control.read().await;
    let mut bad = web(serving(&[]));
    bad.path = "/a/../b".into();
    match control.ask(Ask::Replace { expect: expect.clone(), table: table(vec![bad]) }).await {
        Answer::Refused { reason, full: false } => assert!(reason.contains("has a dot segment"), "{reason}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(control.read().await.0, expect);
}

#[tokio::test]
async fn a_proxy_that_ends_lets_requests_finish_and_streams_close() {
    let proxy = TestProxy::start().await;
    let app = Upstream::start("app").await;
    proxy.serve(vec![web(serving(&[("app", app.address)]))]).await;
    let address = proxy.address;
    let slow = tokio::spawn(async move { get(address, "/slow?500").await });
    let mut events = Raw::connect(address).await;
    events.send("GET /events HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut idle = Client::new(address);
    idle.get("/").await;
    eventually("both are inside", || async { proxy.in_flight("app").await == 2 }).await;

    let begun = Instant::now();
    proxy.stop().await;

    assert!(
        (Duration::from_millis(300)..Duration::from_secs(5)).contains(&begun.elapsed()),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(slow.await.unwrap().body, "app");
    events.read_to("\r\n0\r\n\r\n").await;
}

const MOMENT: Duration = Duration::from_millis(200);

/// An app that answers one request, when told to.
async fn gate() -> (std::net::SocketAddr, tokio::sync::oneshot::Sender<()>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (open, opened) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
        opened.await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nopen").await.unwrap();
    });
    (address, open)
}

/// A proxy that is told to end; done when it has ended.
async fn told_to_end(proxy: TestProxy) -> tokio::task::JoinHandle<Arc<tempfile::TempDir>> {
    let address = proxy.address;
    let ending = tokio::spawn(proxy.stop());
    eventually("it says so", || async { get(address, "/").await.headers.contains_key("connection") }).await;
    ending
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_ends_serves_everybody_while_a_long_request_keeps_it() {
    let proxy = TestProxy::with(Limits { farewell: MOMENT, ..Limits::default() }).await;
    let (app, (gate, open)) = (Upstream::start("app").await, gate().await);
    let long = support::route("long", "/long", serving(&[("gate", gate)]));
    let mut waits = support::route("waits", "/waits", held(Duration::from_secs(25), 10));
    proxy.serve(vec![web(serving(&[("app", app.address)])), long.clone(), waits.clone()]).await;
    let (address, mut control) = (proxy.address, proxy.control().await);
    let inside = tokio::spawn(async move { get(address, "/long").await });
    let waiting = tokio::spawn(async move { get(address, "/waits").await });
    eventually("both are inside", || async {
        proxy.in_flight("gate").await == 1 && proxy.figures().await.routes["app/waits"].held == 1
    })
    .await;

    let ending = told_to_end(proxy).await;
    tokio::time::sleep(MOMENT * 2).await;
    let traffic = Traffic::start(address, 2);
    eventually("traffic", || async { traffic.sent() > 100 }).await;
    traffic.stop_without_failures("traffic while the proxy is about to end").await;
    assert!(!inside.is_finished() && !waiting.is_finished());
    waits.state = serving(&[("app", app.address)]);
    control.serve(vec![web(serving(&[("app", app.address)])), long, waits]).await;
    assert_eq!(in_time("the held request", waiting).await.unwrap().body, "app");
    open.send(()).unwrap();

    assert_eq!(in_time("the long request", inside).await.unwrap().body, "open");
    in_time("the end", ending).await.unwrap();
}

#[tokio::test]
async fn a_head_that_has_begun_when_the_proxy_ends_is_answered() {
    let proxy = TestProxy::with(Limits { farewell: MOMENT, ..Limits::default() }).await;
    let app = Upstream::start("app").await;
    proxy.serve(vec![web(serving(&[("app", app.address)]))]).await;
    let mut raw = Raw::connect(proxy.address).await;
    raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    raw.read_to("app").await;
    raw.send("GET / HTTP/1.1\r\nHo").await;

    let address = proxy.address;
    let ending = told_to_end(proxy).await;
    eventually("nobody is accepted", || async { tokio::net::TcpStream::connect(address).await.is_err() })
        .await;
    raw.send("st: a\r\n\r\n").await;

    let answer = raw.read_all().await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("connection: close"), "{answer}");
    in_time("the end", ending).await.unwrap();
}

#[tokio::test]
async fn a_proxy_that_ends_does_not_wait_for_ever() {
    let proxy = TestProxy::with(Limits { leaving: MOMENT, shutdown: MOMENT, ..Limits::default() }).await;
    let app = Upstream::start("app").await;
    proxy.serve(vec![web(serving(&[("app", app.address)]))]).await;
    let mut raw = Raw::connect(proxy.address).await;
    raw.send("GET /slow?600000 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    eventually("it is inside", || async { proxy.in_flight("app").await == 1 }).await;

    proxy.stop().await;
}

/// A disk of its own, small; none where this process may not mount.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(folder.path()).status();
        mounted.is_ok_and(|status| status.success()).then(|| Self(folder))
    }

    /// Fills the disk to the last block.
    fn fill(&self, name: &str) {
        use std::io::Write;
        let mut file = fs::File::create(self.0.path().join(name)).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
        while file.write_all(&[1]).is_ok() {}
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: after a failed test something may still be open on it.
        let unmounted = Command::new("umount").arg("-l").arg(self.0.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

#[tokio::test]
async fn on_a_full_disk_the_ballast_pays_for_the_switch_back_and_then_changes_are_refused() {
    let Some(disk) = SmallDisk::mount() else {
        println!("not run: a full disk (this process may not mount)");
        return;
    };
    let home = Arc::new(tempfile::tempdir_in(disk.0.path()).unwrap());
    let proxy = TestProxy::at(Arc::clone(&home), Limits::default()).await.unwrap();
    let app = Upstream::start("app").await;
    let (mut control, route) = (proxy.control().await, || vec![web(serving(&[("app", app.address)]))]);
    control.serve(route()).await;
    let ballast = home.path().join("proxy/ballast");
    assert!(ballast.exists());

    disk.fill("full");
    control.serve(vec![]).await;
    assert!(!ballast.exists(), "given up");
    let served = control.serve(route()).await;

    disk.fill("fuller");
    match control.ask(Ask::Replace { expect: served.clone(), table: table(vec![]) }).await {
        Answer::Refused { reason, full } => assert!(
            full && reason.contains("No space left on device")
                && reason.contains("what was served is served"),
            "{reason}"
        ),
        other => panic!("{other:?}"),
    }
    assert_eq!(control.read().await.0, served);
    assert_eq!(get(proxy.address, "/").await.body, "app");

    fs::remove_file(disk.0.path().join("full")).unwrap();
    control.serve(vec![]).await;
    eventually("the ballast is back", || async { ballast.exists() }).await;
    proxy.stop().await;
    drop((control, home));
}

/// Not a test: what the kill test runs as a process of its own.
#[test]
fn as_a_process() {
    let (Ok(home), Ok(address)) = (std::env::var("PROXY_TEST_HOME"), std::env::var("PROXY_TEST_ADDRESS"))
    else {
        return;
    };
    let options = cutover_proxy::Options {
        listeners: vec![std::net::TcpListener::bind(address).unwrap()],
        control: Path::new(&home).join("control.sock"),
        folder: Path::new(&home).join("proxy"),
        limits: Limits::default(),
    };
    cutover_proxy::run(options).unwrap();
}

struct Process(Child);

impl Process {
    fn start(home: &Path, address: std::net::SocketAddr) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["as_a_process", "--exact", "--nocapture"]).stdout(std::process::Stdio::null());
        Self(
            command
                .env("PROXY_TEST_HOME", home)
                .env("PROXY_TEST_ADDRESS", address.to_string())
                .spawn()
                .unwrap(),
        )
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_proxy_is_back_at_once_with_the_table_it_acknowledged() {
    let home = tempfile::tempdir().unwrap();
    let address = support::nobody();
    let socket = home.path().join("control.sock");
    let connected = || async { tokio::net::UnixStream::connect(&socket).await.is_ok() };
    let app = Upstream::start("app").await;
    let mut process = Process::start(home.path(), address);
    eventually("the proxy answers", connected).await;
    let mut served =
        Control::connect(socket.clone()).await.serve(vec![web(serving(&[("app", app.address)]))]).await;

    for round in 0..5 {
        let routes = vec![web(serving(&[(&format!("app{round}"), app.address)]))];
        let acknowledged = Control::connect(socket.clone()).await.serve(routes).await;
        assert_ne!(acknowledged, served);
        served = acknowledged;
        drop(process);
        let begun = Instant::now();
        process = Process::start(home.path(), address);
        eventually("the proxy is back", connected).await;
        assert_eq!(get(address, "/").await.body, "app");
        println!("kill {round}: serving again after {:?}", begun.elapsed());
        assert_eq!(Control::connect(socket.clone()).await.read().await.0, served);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_replicas_killed_again_and_again_under_traffic_is_not_noticed() {
    let proxy = TestProxy::start().await;
    let address = support::nobody();
    let (mut one, two) = (Upstream::at("one", address).await, Upstream::start("two").await);
    proxy.serve(vec![web(serving(&[("one", address), ("two", two.address)]))]).await;
    // GETs only: a POST that is inside an instance when it dies cannot be sent again.
    let traffic = Traffic::gets(proxy.address, 6);

    for _ in 0..10 {
        let before = traffic.sent();
        eventually("traffic", || async { traffic.sent() > before + 50 }).await;
        one.kill().await;
        one = Upstream::at("one", address).await;
    }

    traffic.stop_without_failures("one of two replicas killed ten times").await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proxies_that_take_over_the_listener_one_from_another_lose_nothing() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let home = Arc::new(tempfile::tempdir().unwrap());
    let start = || {
        let options = support::listening(listener.try_clone().unwrap(), &home, Limits::default());
        TestProxy::of(Arc::clone(&home), options)
    };
    let app = Upstream::start("app").await;
    let mut proxy = start().await.unwrap();
    proxy.serve(vec![web(serving(&[("app", app.address)]))]).await;
    let traffic = Traffic::start(proxy.address, 3);

    for _ in 0..5 {
        let before = traffic.sent();
        eventually("traffic", || async { traffic.sent() > before + 200 }).await;
        proxy.stop().await;
        proxy = start().await.unwrap();
    }

    traffic.stop_without_failures("five proxies, one after another").await;
    proxy.stop().await;
}

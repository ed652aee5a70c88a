//! Images that are built on one engine and run on another, without a registry: layer by layer over the session's channel, and each no more than once.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test stops where it fails, and says its numbers"
)]

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use cutover_engine::Engine;
use cutover_suites::disk::Disk;
use cutover_suites::engine::{SHELL_IMAGE, docker, on_engine, shell_image, usable};
use cutover_testkit::site::{App, Binaries, OwnEngine, Process, Site, Told};
use cutover_testkit::{SOON, get, wait_until};

const HOST: &str = "shop.localhost";
/// Of each of the layers that stay as they are.
const LAYER: usize = 300_000;
const LAYERS: usize = 8;

/// A machine whose engine builds, and a host with an engine of its own.
struct Two {
    site: Site,
    host: OwnEngine,
    client: Engine,
    /// What clients sent.
    wire: PathBuf,
    /// A line of a shell that what clients send goes through, where there is such a file.
    way: PathBuf,
    apps: Mutex<Vec<String>>,
    /// The client's engine, where it is one of its own.
    _apart: Option<OwnEngine>,
}

impl Two {
    /// `None`: they cannot be here, and it was said why.
    async fn start(name: &str) -> Option<Self> {
        let client = usable().await.map_err(|why| println!("not run: {name}: {why}")).ok()?;
        Self::with(name, client, None).await
    }

    /// The same with an engine that reaches nobody, and so no process on this machine's loopback.
    async fn start_apart(name: &str) -> Option<Self> {
        let apart = tokio::task::block_in_place(OwnEngine::start_apart).unwrap();
        let apart = apart.map_err(|why| println!("not run: {name}: {why}")).ok()?;
        let client = apart.connect().await.unwrap();
        Self::with(name, client, Some(apart)).await
    }

    async fn with(name: &str, client: Engine, apart: Option<OwnEngine>) -> Option<Self> {
        let not_run = |why: String| println!("not run: {name}: {why}");
        shell_image(&client).map_err(not_run).ok()?;
        let host = tokio::task::block_in_place(OwnEngine::start).unwrap().map_err(not_run).ok()?;
        let folder = host.folder().join("programs");
        std::fs::create_dir(&folder).unwrap();
        let (wire, way, engine) = (folder.join("wire"), folder.join("way"), host.connect().await.unwrap());
        let binaries = Binaries::beside_this_program().unwrap();
        let (cutover, program) = (binaries.cutover.display(), binaries.host.display());
        write_program(
            &folder.join("cutover"),
            &format!("export DOCKER_HOST={}\nexec {cutover} \"$@\"", client.address()),
        );
        // What a client sends is kept, so that it can be counted.
        let (kept, worse) = (wire.display(), way.display());
        let script = format!(
            "export DOCKER_HOST={}\n[ \"$1\" = session ] || exec {program} \"$@\"\n\
             if [ -e {worse} ]; then . {worse}; else cat; fi | tee -a {kept} | exec {program} session",
            engine.address(),
        );
        write_program(&folder.join("cutover-host"), &script);
        let binaries = Binaries { cutover: folder.join("cutover"), ..binaries };
        let site = Site::on_engine(binaries.with_host(folder.join("cutover-host")), engine).await.unwrap();
        Some(Self { site, host, client, wire, way, apps: Mutex::default(), _apart: apart })
    }

    /// An application; what is built for it goes with this.
    fn app(&self) -> App<'_> {
        let app = self.site.app("shop", HOST).unwrap();
        self.apps.lock().unwrap().push(format!("cutover/{}/*", app.id()));
        app
    }

    /// From now on there is no engine on the machine of the client.
    fn client_without_engine(&self) {
        let cutover = self.site.binaries().cutover.clone();
        let script = std::fs::read_to_string(&cutover).unwrap();
        let address = format!("DOCKER_HOST={}", self.client.address());
        let none = script.replace(&address, "DOCKER_HOST=unix:///not/there");
        assert_ne!(script, none);
        std::fs::write(cutover, none).unwrap();
    }

    /// Bytes that clients sent since the last call.
    fn sent(&self) -> u64 {
        let bytes = std::fs::metadata(&self.wire).map_or(0, |found| found.len());
        std::fs::write(&self.wire, "").unwrap();
        bytes
    }

    /// What the host's engine says to its own client.
    fn docker(&self, words: &[&str]) -> String {
        let mut command = std::process::Command::new("docker");
        let address = format!("unix://{}/sock", self.host.folder().display());
        let output = command.args(words).env("DOCKER_HOST", address).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// What clients send goes this way from now on; `None`: as it comes.
    fn goes(&self, way: Option<&str>) {
        match way {
            Some(way) => std::fs::write(&self.way, way).unwrap(),
            None => std::fs::remove_file(&self.way).unwrap(),
        }
    }

    /// What waits on the host for an image.
    fn waiting(&self) -> usize {
        std::fs::read_dir(self.site.layout().layers()).map_or(0, Iterator::count)
    }

    async fn answer(&self) -> String {
        get(self.site.http().unwrap(), HOST, "/").await.unwrap().trim().to_owned()
    }
}

impl Drop for Two {
    fn drop(&mut self) {
        let (client, apps) = (self.client.clone(), std::mem::take(&mut *self.apps.lock().unwrap()));
        let of_apps = async move {
            for app in apps {
                for name in client.image_names(&app).await? {
                    client.remove_image(&name).await?;
                }
            }
            Ok::<(), cutover_engine::EngineError>(())
        };
        let removed = tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(of_apps));
        assert!(removed.is_ok() || std::thread::panicking(), "{removed:?}");
    }
}

fn write_program(path: &Path, script: &str) {
    std::fs::write(path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// What clients send passes as it comes; after so many bytes this is done once.
fn way(bytes: usize, then: &str) -> String {
    let script = [
        "import os",
        "def send(piece):",
        "    while piece: piece = piece[os.write(1, piece):]",
        &format!("left = {bytes}"),
        "while True:",
        "    piece = os.read(0, min(65536, left) if left > 0 else 65536)",
        "    if not piece: break",
        "    send(piece)",
        "    left -= len(piece)",
        &format!("    if left == 0: {then}"),
    ];
    format!("python3 -c '{}'", script.join("\n"))
}

/// Bytes that no compression makes fewer of.
fn noise(mut seed: u64, bytes: usize) -> Vec<u8> {
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33).to_le_bytes()[0]
    };
    (0..bytes).map(|_| next()).collect()
}

/// An image of many layers; the last one has `page`.
fn lay_out(app: &App<'_>, page: &str) {
    let folder = app.repository();
    let mut dockerfile = format!("FROM {SHELL_IMAGE}\n");
    for number in 0..LAYERS {
        let file = folder.join(format!("part-{number}"));
        if !file.exists() {
            std::fs::write(file, noise(number as u64, LAYER)).unwrap();
        }
        dockerfile = format!("{dockerfile}COPY part-{number} /parts/\n");
    }
    dockerfile += "COPY index.html /www/\nCMD [\"httpd\", \"-f\", \"-p\", \"80\", \"-h\", \"/www\"]\n";
    std::fs::write(folder.join("Dockerfile"), dockerfile).unwrap();
    std::fs::write(folder.join("index.html"), page).unwrap();
    let id = &app.id().app;
    let text = format!(
        "app: {id}\nservices:\n  web:\n    build: .\n    port: 80\n    init: true\n    route: {{ host: {HOST} }}\nbake: 0\n"
    );
    std::fs::write(folder.join("cutover.yml"), text).unwrap();
    app.record(page).unwrap();
}

async fn deployed(app: &App<'_>) -> Told {
    let told = app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
    println!("{}", told.talk);
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_one_line_sends_one_layer_and_the_same_again_none() {
    let name = "a_change_of_one_line_sends_one_layer_and_the_same_again_none";
    let Some(two) = Two::start(name).await else { return };
    let app = two.app();
    lay_out(&app, "one");

    deployed(&app).await;
    let first = two.sent();
    assert_eq!(two.answer().await, "one");

    lay_out(&app, "two");
    deployed(&app).await;
    let second = two.sent();
    assert_eq!(two.answer().await, "two");

    // When the host has the image, then nothing of it is sent, whatever else changes.
    app.write_env("GREETING=hello\n").unwrap();
    deployed(&app).await;
    let third = two.sent();

    println!("sent: first {first}, one line changed {second}, image there {third}");
    assert!(first > (LAYERS * LAYER) as u64, "{first}");
    assert!(second < 40_000, "{second}");
    assert!(third < second, "{third}");
    assert_eq!(two.docker(&["images", "--quiet", "--filter", "dangling=true"]), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_does_not_reach_us_is_read_by_what_it_saves() {
    let name = "an_engine_that_does_not_reach_us_is_read_by_what_it_saves";
    let Some(two) = Two::start_apart(name).await else { return };
    // It is so: what it pushes to this machine's loopback comes to nobody.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let nobody = format!("{}/cutover-test/nobody", listener.local_addr().unwrap());
    let called = cutover_engine::Reference::split(&format!("{nobody}:1"));
    two.client.tag(SHELL_IMAGE, &called).await.unwrap();
    let refused = two.client.push(&called).await.unwrap_err();
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "{refused}");
    two.client.remove_image(&called.to_string()).await.unwrap();

    let app = two.app();
    let mut sent = Vec::new();
    for page in ["one", "two"] {
        lay_out(&app, page);
        deployed(&app).await;
        assert_eq!(two.answer().await, page);
        sent.push(two.sent());
    }
    // Then, too, what the host has is not sent.
    println!("sent: first {}, one line changed {}", sent[0], sent[1]);
    assert!(sent[0] > (LAYERS * LAYER) as u64 && sent[1] < 40_000, "{sent:?}");
    assert_eq!(two.waiting(), 0);
    let left = two.client.image_names("127.*/cutover/*").await.unwrap();
    assert!(left.is_empty(), "{left:?}");
}

/// All four answers are given.
async fn refused(app: &App<'_>, exit: i32) -> String {
    let told = app.cutover(&["deploy"]).await.unwrap().expect(exit).unwrap();
    println!("{}", told.failure());
    for part in ["error: ", "cause: ", "state: ", "next: "] {
        assert!(told.failure().contains(part), "no {part} in {}", told.talk);
    }
    told.failure().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_lost_connection_only_the_layers_that_did_not_come_whole_are_sent() {
    let name = "after_a_lost_connection_only_the_layers_that_did_not_come_whole_are_sent";
    let Some(two) = Two::start(name).await else { return };
    let app = two.app();
    lay_out(&app, "one");

    // When the connection is lost in the middle, then nothing of the image is there, and no torn layer.
    two.goes(Some(&way(1_500_000, "break")));
    let told = app.cutover(&["deploy"]).await.unwrap();
    assert_ne!(told.exit, Some(0));
    two.sent();
    wait_until("the session is over", SOON, async || (two.waiting() > 0).then_some(())).await.unwrap();
    let came = two.waiting();
    assert!((1..=LAYERS).contains(&came), "{came}");
    assert_eq!(two.docker(&["images", "--quiet", "cutover/*/*/*"]), "");

    // When it is tried again, then the others are sent.
    two.goes(None);
    deployed(&app).await;
    let again = two.sent();
    println!("{came} layers came whole before; {again} bytes were sent after that");
    assert!(again < ((LAYERS + 7 - came) * LAYER) as u64, "{again}");
    assert_eq!((two.answer().await.as_str(), two.waiting()), ("one", 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_byte_that_changed_on_the_way_is_refused() {
    let name = "a_byte_that_changed_on_the_way_is_refused";
    let Some(two) = Two::start(name).await else { return };
    let app = two.app();
    lay_out(&app, "one");

    two.goes(Some(&way(2_000_000, "os.write(1, bytes([255 - os.read(0, 1)[0]]))")));
    let failure = refused(&app, 1).await;
    assert!(failure.contains("was not taken in") && failure.contains("nothing was touched"), "{failure}");
    assert_eq!(two.docker(&["images", "--quiet", "cutover/*/*/*"]), "");

    two.goes(None);
    deployed(&app).await;
    assert_eq!((two.answer().await.as_str(), two.waiting()), ("one", 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_without_room_for_layers_is_told_before_anything_is_sent() {
    let name = "a_disk_without_room_for_layers_is_told_before_anything_is_sent";
    let Some(two) = Two::start(name).await else { return };
    let app = two.app();
    lay_out(&app, "one");
    let folder = two.site.layout().layers();
    std::fs::create_dir_all(&folder).unwrap();
    let disk = Disk::mount_of(&folder, "1m").unwrap();

    let failure = refused(&app, 7).await;
    assert!(failure.contains(&format!("make room under {}", folder.display())), "{failure}");
    assert!(two.sent() < 40_000);

    drop(disk);
    deployed(&app).await;
    assert_eq!(two.answer().await, "one");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_apps_of_the_same_layers_ship_at_once() {
    let name = "two_apps_of_the_same_layers_ship_at_once";
    let Some(two) = Two::start(name).await else { return };
    let (one, other) = (two.app(), two.site.app("other", "other.localhost").unwrap());
    two.apps.lock().unwrap().push(format!("cutover/{}/*", other.id()));
    lay_out(&one, "one");
    lay_out(&other, "other");
    let text = std::fs::read_to_string(other.repository().join("cutover.yml")).unwrap();
    std::fs::write(other.repository().join("cutover.yml"), text.replace(HOST, "other.localhost")).unwrap();
    other.record("its own route").unwrap();

    tokio::join!(deployed(&one), deployed(&other));

    assert_eq!(two.answer().await, "one");
    let answer = get(two.site.http().unwrap(), "other.localhost", "/").await.unwrap();
    assert_eq!((answer.trim(), two.waiting()), ("other", 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_whose_engine_is_gone_says_so_and_takes_the_image_once_it_is_back() {
    let name = "a_host_whose_engine_is_gone_says_so_and_takes_the_image_once_it_is_back";
    let Some(two) = Two::start(name).await else { return };
    let app = two.app();
    lay_out(&app, "one");
    tokio::task::block_in_place(|| two.host.lose()).unwrap();

    let told = app.cutover(&["deploy"]).await.unwrap();
    println!("{}", told.failure());
    assert_ne!(told.exit, Some(0));
    assert!(told.failure().contains("engine"), "{}", told.talk);

    tokio::task::block_in_place(|| two.host.again()).unwrap();
    deployed(&app).await;
    assert_eq!(two.answer().await, "one");
}

/// An image of two layers, which is built in few steps; `last` is one of them.
fn lay_out_small(app: &App<'_>, page: &str, build: &str, last: &str) {
    lay_out(app, page);
    let folder = app.repository();
    let dockerfile = format!(
        "FROM {SHELL_IMAGE}\nCOPY . /www/\n{last}\nCMD [\"httpd\", \"-f\", \"-p\", \"80\", \"-h\", \"/www\"]\n"
    );
    std::fs::write(folder.join("Dockerfile"), dockerfile).unwrap();
    std::fs::write(folder.join(".dockerignore"), "ignored\n").unwrap();
    std::fs::write(folder.join("ignored"), "nobody needs it").unwrap();
    let text = std::fs::read_to_string(folder.join("cutover.yml")).unwrap();
    std::fs::write(folder.join("cutover.yml"), text.replace("build: .", &format!("build: {build}"))).unwrap();
    app.record(page).unwrap();
}

const ON_HOST: &str = "{ context: ., on: host }";

#[tokio::test(flavor = "multi_thread")]
async fn a_host_builds_from_what_changed_and_a_build_that_fails_or_loses_its_client_touches_nothing() {
    let name = "a_host_builds_from_what_changed_and_a_build_that_fails_or_loses_its_client_touches_nothing";
    let Some(two) = Two::start(name).await else { return };
    if let Err(why) = shell_image(&two.host.connect().await.unwrap()) {
        return println!("not run: {name}: {why}");
    }
    two.client_without_engine();
    let app = two.app();
    lay_out_small(&app, "one", ON_HOST, "");
    let told = deployed(&app).await;
    let first = two.sent();
    assert!(told.talk.contains("was built on"), "{}", told.talk);
    assert_eq!(two.answer().await, "one");
    let container = two.docker(&["ps", "--quiet", "--filter", "label=dev.cutover.service=web"]);
    let files = two.docker(&["exec", &container, "ls", "-A", "/www"]);
    assert!(files.lines().any(|file| file == ".dockerignore"), "{files}");
    assert!(!files.lines().any(|file| file == "ignored"), "{files}");

    // When it is only planned, then nothing is built and nothing is sent.
    lay_out_small(&app, "two", ON_HOST, "");
    // In whatever order the engine lists them.
    let images = || {
        let listed = two.docker(&["images", "--format", "{{.Repository}}:{{.Tag}}", "cutover/*/*/*"]);
        listed.lines().map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let before = images();
    let plan = app.cutover(&["plan"]).await.unwrap().expect(0).unwrap();
    assert!(plan.output.contains("its image would be built on"), "{}", plan.output);
    assert_eq!((images(), two.sent() < 10_000), (before, true));

    deployed(&app).await;
    let second = two.sent();
    println!("sent: first {first}, one line changed {second}");
    assert!(first > (LAYERS * LAYER) as u64, "{first}");
    assert!(second < 60_000, "{second}");

    let before = images();
    lay_out_small(&app, "three", ON_HOST, "RUN echo last words; exit 3");
    let failure = refused(&app, 1).await;
    for part in ["was not built on the host", "last words", "release"] {
        assert!(failure.contains(part), "no {part} in {failure}");
    }
    assert_eq!((two.answer().await.as_str(), images()), ("two", before.clone()));

    // When the client is killed in the middle, then the build ends.
    lay_out_small(&app, "four", ON_HOST, "RUN echo at work; sleep 1234");
    let mut client = app.command(&["deploy"]).spawn().unwrap();
    let building = || two.docker(&["ps", "--no-trunc", "--format", "{{.Command}}"]).contains("sleep 1234");
    wait_until("the build is at work", SOON, async || building().then_some(())).await.unwrap();
    client.kill().await.unwrap();
    wait_until("the build has ended", SOON, async || (!building()).then_some(())).await.unwrap();
    assert_eq!((two.answer().await.as_str(), images()), ("two", before));

    lay_out_small(&app, "five", ON_HOST, "");
    deployed(&app).await;
    assert_eq!(two.answer().await, "five");
}

/// What clients send passes as it comes, up to what would begin the run; that comes to nothing.
const UP_TO_THE_RUN: &str = r#"python3 -c '
import os
def send(piece):
    while piece: piece = piece[os.write(1, piece):]
while True:
    piece = os.read(0, 65536)
    if not piece: break
    run = piece.find(b"{\"ask\":\"run\"")
    send(piece if run < 0 else piece[:run])
    if run >= 0: break
while os.read(0, 65536): pass
'"#;

#[tokio::test(flavor = "multi_thread")]
async fn what_was_shipped_stays_as_long_as_its_client_does_and_goes_with_what_nobody_needs() {
    let name = "what_was_shipped_stays_as_long_as_its_client_does_and_goes_with_what_nobody_needs";
    let Some(two) = Two::start(name).await else { return };
    let app = two.app();
    lay_out_small(&app, "one", ".", "");
    deployed(&app).await;
    // In whatever order the engine lists them.
    let images = || {
        let listed = two.docker(&["images", "--format", "{{.Repository}}:{{.Tag}}", "cutover/*/*/*"]);
        listed.lines().map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let live = images();

    // Given a client whose image came, and whose run never begins.
    lay_out_small(&app, "two", ".", "");
    two.goes(Some(UP_TO_THE_RUN));
    let mut client = app.command(&["deploy"]).spawn().unwrap();
    wait_until("the image came", SOON, async || (images() != live).then_some(())).await.unwrap();
    two.goes(None);
    let both = images();

    app.cutover(&["prune", "--yes"]).await.unwrap().expect(0).unwrap();
    assert_eq!(images(), both, "it is leased");

    client.kill().await.unwrap();
    let is_session = |process: &Process| *process == Process::Session;
    let over = async || (!two.site.processes().iter().any(|found| is_session(&found.process))).then_some(());
    wait_until("the session is over", SOON, over).await.unwrap();
    app.cutover(&["prune", "--yes"]).await.unwrap().expect(0).unwrap();
    assert_eq!(images(), live);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_under_way_are_not_pruned_and_come_once() {
    let name = "files_under_way_are_not_pruned_and_come_once";
    let Some(two) = Two::start(name).await else { return };
    if let Err(why) = shell_image(&two.host.connect().await.unwrap()) {
        return println!("not run: {name}: {why}");
    }
    let app = two.app();
    lay_out_small(&app, "one", ".", "");
    deployed(&app).await;
    let layout = two.site.layout();
    let under_way = || {
        let names = std::fs::read_dir(layout.parcels()).into_iter().flatten().flatten();
        names.map(|entry| entry.path()).find(|path| path.to_string_lossy().contains(".pack."))
    };

    // Given a client in the middle of what an image is built from: nothing of it is leased yet.
    lay_out_small(&app, "two", ON_HOST, "");
    let goes_on = two.host.folder().join("goes-on");
    let waits = format!(
        "[__import__(\"time\").sleep(0.01) for _ in iter(lambda: os.path.exists(\"{}\"), True)]",
        goes_on.display()
    );
    two.sent();
    two.goes(Some(&way(1_500_000, &waits)));
    let client = app.command(&["deploy"]).output();
    let client = tokio::spawn(client);
    let came = async || under_way().filter(|path| std::fs::metadata(path).is_ok_and(|found| found.len() > 0));
    let pack = wait_until("files are under way", SOON, came).await.unwrap();
    two.goes(None);

    // When what nothing needs goes, then they stay.
    let told = app.cutover(&["prune", "--yes"]).await.unwrap().expect(0).unwrap();
    assert!(!told.output.contains("left-overs"), "{}", told.output);
    assert!(pack.exists(), "{}{}", told.output, told.talk);

    std::fs::write(&goes_on, "").unwrap();
    let output = tokio::time::timeout(SOON * 3, client).await.unwrap().unwrap().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(two.answer().await, "two");
    let sent = two.sent();
    println!("{sent} bytes were sent");
    assert!(sent < ((LAYERS + 1) * LAYER) as u64, "some came twice: {sent}");
    assert_eq!(under_way(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_built_on_the_hosts_own_engine_stays_while_the_next_is_built() {
    let name = "what_is_built_on_the_hosts_own_engine_stays_while_the_next_is_built";
    let test = async |site: &Site| {
        if let Err(why) = shell_image(site.docker().unwrap().engine()) {
            return println!("not run: {name}: {why}");
        }
        let app = site.app("shop", HOST).unwrap();
        lay_out_small(&app, "one", ".", "");
        deployed(&app).await;

        // Given a second service, whose build takes as long as it is told.
        lay_out_small(&app, "two", ".", "");
        let folder = app.repository();
        let wait = format!(
            "FROM {SHELL_IMAGE}\nRUN until [ -e /goes-on ]; do sleep 0.1; done\nCMD [\"sleep\", \"9999\"]\n"
        );
        std::fs::create_dir(folder.join("worker")).unwrap();
        std::fs::write(folder.join("worker/Dockerfile"), wait).unwrap();
        let text = std::fs::read_to_string(folder.join("cutover.yml")).unwrap();
        let worker = "services:\n  zz-worker:\n    build: worker\n    init: true\n";
        std::fs::write(folder.join("cutover.yml"), text.replace("services:\n", worker)).unwrap();
        app.record("with a worker").unwrap();
        let client = tokio::spawn(app.command(&["deploy"]).output());
        let at_work = async || {
            let running = docker(site, &["ps", "--no-trunc", "--format", "{{.ID}} {{.Command}}"]);
            let line = running.lines().find(|line| line.contains("goes-on"))?;
            Some(line.split_once(' ')?.0.to_owned())
        };
        let build = wait_until("the second build is at work", SOON, at_work).await.unwrap();
        let images = || {
            docker(
                site,
                &["images", "--format", "{{.Repository}}:{{.Tag}}", &format!("cutover/{}/web", app.id())],
            )
        };
        let both = images();
        assert_eq!(both.lines().count(), 2, "{both}");

        app.cutover(&["prune", "--yes"]).await.unwrap().expect(0).unwrap();
        assert_eq!(images(), both, "the first one is built for a run");

        docker(site, &["exec", &build, "touch", "/goes-on"]);
        let output = tokio::time::timeout(SOON * 3, client).await.unwrap().unwrap().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(get(site.http().unwrap(), HOST, "/").await.unwrap().trim(), "two");
    };
    on_engine(name, Binaries::beside_this_program().unwrap(), test).await;
}

/// A configuration that takes an image by its tag.
fn by_tag(app: &App<'_>, image: &str, subject: &str) {
    let id = &app.id().app;
    let text = format!(
        "app: {id}\nservices:\n  web:\n    image: {image}\n    port: 80\n    init: true\n    route: {{ host: {HOST} }}\nbake: 0\n"
    );
    std::fs::write(app.repository().join("cutover.yml"), text).unwrap();
    app.record(subject).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_was_built_anew_is_what_runs_and_what_nobody_needs_goes() {
    let name = "a_tag_that_was_built_anew_is_what_runs_and_what_nobody_needs_goes";
    let Some(two) = Two::start(name).await else { return };
    let app = two.app();
    let pattern = format!("cutover/{}/*", app.id());
    let own = format!("own/{}:dev", app.id().app);
    two.apps.lock().unwrap().push(own.clone());
    let built = async || two.client.image_names(&pattern).await.unwrap();
    let called = cutover_engine::Reference::split;

    // Given a tag that means one image here, and another one on the host.
    lay_out(&app, "one");
    deployed(&app).await;
    let one = built().await;
    lay_out(&app, "two");
    deployed(&app).await;
    let both = built().await;
    let two_built = both.iter().find(|name| !one.contains(name)).unwrap();
    two.client.tag(&one[0], &called(&own)).await.unwrap();
    two.docker(&["tag", two_built, &own]);

    // When it is deployed, then the one here runs, and it was said.
    by_tag(&app, &own, "by tag");
    let told = deployed(&app).await;
    assert!(told.talk.contains("is another one here than on the host"), "{}", told.talk);
    assert_eq!(two.answer().await, "one");

    // When a build of long ago is still here, then the next deploy takes it away; what the host has on record stays.
    let old = format!("cutover/{}/web:000000000000", app.id());
    two.client.tag(two_built, &called(&old)).await.unwrap();
    lay_out(&app, "three");
    let told = deployed(&app).await;
    assert!(told.talk.contains("images of earlier builds were taken"), "{}", told.talk);
    let left = two.client.image_names(&pattern).await.unwrap();
    assert!(!left.contains(&old) && left.contains(two_built), "{left:?}");

    // Given images on the host that no release has, one of them used by a person, and one that is none of cutover's.
    let web = two.docker(&["images", "--quiet", "--no-trunc", &format!("cutover/{}/web", app.id())]);
    let web = web.lines().next().unwrap();
    let (unneeded, used) =
        (format!("cutover/{}/web:unneeded", app.id()), format!("cutover/{}/web:used", app.id()));
    let of_others = "cutover/other/local/web:1";
    for name in [&unneeded, &used, of_others, "mine/web:1"] {
        let made = two.docker(&["create", "--label", name, web]);
        two.docker(&["commit", "--message", name, &made, name]);
        two.docker(&["rm", &made]);
    }
    let shell = two.docker(&["create", "--name", "persons-own", &used]);
    let told = app.cutover(&["prune", "--yes"]).await.unwrap().expect(0).unwrap();
    assert!(told.talk.contains("container `persons-own` uses it"), "{}", told.talk);
    let names = two.docker(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    assert!(!names.contains(":unneeded"), "{names}");
    for stays in [&used, of_others, "mine/web:1"] {
        assert!(names.contains(stays), "no {stays}: {names}");
    }
    two.docker(&["rm", &shell]);

    // Then rollback reaches what it reached.
    app.cutover(&["rollback", "--yes"]).await.unwrap().expect(0).unwrap();
    assert_eq!(two.answer().await, "one");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn a_network_that_is_gone_ends_the_build_on_the_server() {
    let name = "a_network_that_is_gone_ends_the_build_on_the_server";
    let not_run = |why: String| println!("not run: {name}: {why}");
    let host = match tokio::task::block_in_place(OwnEngine::start).unwrap() {
        Ok(host) => host,
        Err(why) => return not_run(why),
    };
    let engine = host.connect().await.unwrap();
    if let Err(why) = shell_image(&engine) {
        return not_run(why);
    }
    let binaries = Binaries::beside_this_program().unwrap();
    let site = match Site::over_ssh_on_engine(binaries, engine).await.unwrap() {
        Ok(site) => site,
        Err(why) => return not_run(why),
    };
    let app = site.app("shop", HOST).unwrap();
    let lay_out = |page: &str, last: &str| {
        lay_out_small(&app, page, ON_HOST, last);
        let file = app.repository().join("cutover.yml");
        let text = site.remote().own(&std::fs::read_to_string(&file).unwrap());
        std::fs::write(file, text).unwrap();
        app.record(page).unwrap();
    };
    lay_out("one", "");
    let told = deployed(&app).await;
    assert!(told.talk.contains(&format!("was built on {}", site.remote().host())), "{}", told.talk);

    lay_out("two", "RUN echo at work; sleep 1234");
    let mut client = app.command(&["deploy"]).spawn().unwrap();
    let building = || docker(&site, &["ps", "--no-trunc", "--format", "{{.Command}}"]).contains("sleep 1234");
    wait_until("the build is at work", SOON, async || building().then_some(())).await.unwrap();
    site.remote().relay.cut();
    let told = tokio::time::timeout(SOON * 2, client.wait()).await.unwrap().unwrap();
    assert!(!told.success());
    wait_until("the build has ended", SOON * 2, async || (!building()).then_some(())).await.unwrap();
    site.remote().relay.heal();

    let answer = get(site.http().unwrap(), HOST, "/").await.unwrap();
    assert_eq!(answer.trim(), "one");
    lay_out("three", "");
    deployed(&app).await;
}

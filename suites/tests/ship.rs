//! Images that are built on one engine and run on another, without a registry: layer by layer over the session's channel, and each no more than once.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test stops where it fails, and says its numbers"
)]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use cutover_engine::Engine;
use cutover_suites::engine::{SHELL_IMAGE, shell_image, usable};
use cutover_testkit::get;
use cutover_testkit::site::{App, Binaries, OwnEngine, Site, Told};

const HOST: &str = "shop.localhost";
/// Of each of the layers that stay as they are.
const LAYER: usize = 300_000;
const LAYERS: usize = 8;

/// A machine whose engine builds, and a host with an engine of its own.
struct Two {
    site: Site,
    host: OwnEngine,
    client: Engine,
    wire: PathBuf,
    apps: Mutex<Vec<String>>,
}

impl Two {
    /// `None`: they cannot be here, and it was said why.
    async fn start(name: &str) -> Option<Self> {
        let not_run = |why: String| println!("not run: {name}: {why}");
        let client = usable().await.map_err(not_run).ok()?;
        shell_image(&client).map_err(not_run).ok()?;
        let host = tokio::task::block_in_place(OwnEngine::start).unwrap().map_err(not_run).ok()?;
        let folder = host.folder().join("programs");
        std::fs::create_dir(&folder).unwrap();
        let (wire, engine) = (folder.join("wire"), host.connect().await.unwrap());
        let binaries = Binaries::beside_this_program().unwrap();
        let (cutover, program) = (binaries.cutover.display(), binaries.host.display());
        write_program(
            &folder.join("cutover"),
            &format!("export DOCKER_HOST={}\nexec {cutover} \"$@\"", client.address()),
        );
        // What a client sends is kept, so that it can be counted.
        write_program(
            &folder.join("cutover-host"),
            &format!(
                "export DOCKER_HOST={}\n[ \"$1\" != session ] || tee -a {} | exec {program} session\n\
                 [ \"$1\" = session ] || exec {program} \"$@\"",
                engine.address(),
                wire.display(),
            ),
        );
        let binaries = Binaries { cutover: folder.join("cutover"), ..binaries };
        let site = Site::on_engine(binaries.with_host(folder.join("cutover-host")), engine).await.unwrap();
        Some(Self { site, host, client, wire, apps: Mutex::default() })
    }

    /// An application; what is built for it goes with this.
    fn app(&self) -> App<'_> {
        let app = self.site.app("shop", HOST).unwrap();
        self.apps.lock().unwrap().push(format!("cutover/{}/*", app.id()));
        app
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

//! A place on a real engine for one test: everything made there carries the test's own label and is removed when it
//! is dropped, also when the test panics.

#![allow(dead_code, clippy::unwrap_used, clippy::print_stdout, reason = "shared by several test binaries")]

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use bollard::Docker;
use bollard::query_parameters::CreateImageOptions;
use cutover_engine::{ContainerSpec, Engine, ExecCommand, Reference, RemoveVolumes};
use futures_util::StreamExt;

/// A shell and its tools, nothing else; made from the machine's static busybox. Not the image of `scripts/engine.sh base`, which has all tools.
pub(crate) const BASE: &str = "cutover-test/few-tools:1";

const LABEL: &str = "cutover.engine-test";
const BUSYBOX: &str = "/bin/busybox";
const DEADLINE: Duration = Duration::from_mins(2);

pub(crate) struct Place {
    pub(crate) engine: Engine,
    pub(crate) id: String,
}

/// Runs a test on the engine that answers, or says why it does not run.
pub(crate) fn on_engine<F: Future<Output = ()>>(name: &str, test: impl FnOnce(Place) -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let engine = match Engine::connect().await {
            Ok(engine) => engine,
            Err(why) => return not_run(name, why),
        };
        if let Err(why) = base_image(&engine).await {
            return not_run(name, why);
        }
        let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
        let place = Place { engine, id: format!("ct{}-{:x}", std::process::id(), nanos & 0xffff_ffff) };
        let cleaner = Cleaner { engine: place.engine.clone(), labels: place.labels() };
        let ended = tokio::time::timeout(DEADLINE, test(place)).await;
        drop(cleaner);
        assert!(ended.is_ok(), "{name} did not end within {DEADLINE:?}");
    });
}

/// Said instead of failing, so that the table of suites can tell.
pub(crate) fn not_run(name: &str, why: impl std::fmt::Display) {
    println!("not run: {name}: {why}");
}

impl Place {
    pub(crate) fn labels(&self) -> BTreeMap<String, String> {
        BTreeMap::from([(LABEL.to_owned(), self.id.clone())])
    }

    pub(crate) fn name(&self, what: &str) -> String {
        format!("{}-{what}", self.id)
    }

    /// A container that runs a line of shell.
    pub(crate) fn spec(&self, what: &str, script: &str) -> ContainerSpec {
        ContainerSpec {
            name: self.name(what),
            image: BASE.to_owned(),
            command: Some(vec!["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()]),
            labels: self.labels(),
            ..ContainerSpec::default()
        }
    }

    /// One that runs until it is told to stop, and then stops at once.
    pub(crate) fn idle(&self, what: &str) -> ContainerSpec {
        self.spec(what, "trap 'exit 0' TERM; echo idle; while :; do sleep 1 & wait $!; done")
    }
}

struct Cleaner {
    engine: Engine,
    labels: BTreeMap<String, String>,
}

impl Drop for Cleaner {
    fn drop(&mut self) {
        let (engine, labels) = (self.engine.clone(), self.labels.clone());
        // A thread with a runtime of its own: the test's may be unwinding.
        let cleaned = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { tokio::time::timeout(DEADLINE, clean(&engine, &labels)).await })
        });
        match cleaned.join() {
            Ok(Ok(())) => {}
            other => println!("left behind on the engine: {:?} ({other:?})", self.labels),
        }
    }
}

async fn clean(engine: &Engine, labels: &BTreeMap<String, String>) {
    for container in engine.list(labels).await.unwrap() {
        engine.kill_and_remove(&container.id, RemoveVolumes::Unnamed).await.unwrap();
    }
    for network in engine.list_networks(labels).await.unwrap() {
        engine.remove_network(&network.id).await.unwrap();
    }
    for volume in engine.list_volumes(labels).await.unwrap() {
        engine.remove_volume(&volume.name).await.unwrap();
    }
    for image in engine.list_images(labels).await.unwrap() {
        for tag in &image.tags {
            engine.remove_image(tag).await.unwrap();
        }
        engine.remove_image(&image.id).await.unwrap();
    }
}

/// One test of a binary makes it, the others wait.
static MAKING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

async fn base_image(engine: &Engine) -> Result<(), String> {
    let _making = MAKING.lock().await;
    if engine.inspect_image(BASE).await.is_ok() {
        return Ok(());
    }
    let busybox =
        std::fs::read(BUSYBOX).map_err(|error| format!("no static busybox at {BUSYBOX}: {error}"))?;
    let docker = Docker::connect_with_host(engine.address()).unwrap().negotiate_version().await.unwrap();
    let name = Reference::split(BASE);
    let options = CreateImageOptions {
        from_src: Some("-".to_owned()),
        repo: Some(name.repository),
        tag: name.tag,
        ..CreateImageOptions::default()
    };
    let body = bollard::body_full(root_files(&busybox).into());
    let mut reports = docker.create_image(Some(options), Some(body), None);
    while let Some(report) = reports.next().await {
        report.map_err(|error| error.to_string())?;
    }
    if engine.inspect_image(BASE).await.is_err() {
        // Podman 4.3 does not heed the tag of an import.
        let untagged = Reference::split(BASE).repository;
        engine.tag(&untagged, &Reference::split(BASE)).await.map_err(|error| error.to_string())?;
        engine.remove_image(&untagged).await.map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn root_files(busybox: &[u8]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let header = |kind, mode, size| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size);
        header
    };
    for (folder, mode) in [("bin/", 0o755), ("tmp/", 0o1777), ("etc/", 0o755)] {
        archive.append_data(&mut header(tar::EntryType::Directory, mode, 0), folder, &[][..]).unwrap();
    }
    let size = u64::try_from(busybox.len()).unwrap();
    archive.append_data(&mut header(tar::EntryType::Regular, 0o755, size), "bin/busybox", busybox).unwrap();
    for tool in [
        "sh",
        "sleep",
        "echo",
        "cat",
        "wget",
        "nslookup",
        "httpd",
        "true",
        "id",
        "ls",
        "tty",
        "stty",
        "sha256sum",
    ] {
        archive
            .append_link(&mut header(tar::EntryType::Symlink, 0o777, 0), format!("bin/{tool}"), "busybox")
            .unwrap();
    }
    archive.into_inner().unwrap()
}

pub(crate) fn command(words: &[&str]) -> ExecCommand {
    ExecCommand { words: words.iter().map(|word| (*word).to_owned()).collect(), ..ExecCommand::default() }
}

//! P6: a value is planted, and looked for in everything that anybody can see: argument lists of all processes while commands run, what they say,
//! all files of the installation, what the engine tells of containers and images.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cutover_testkit::SOON;
use cutover_testkit::site::{App, Docker, Site};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::counted::{none_failed, traffic};

const NAME: &str = "PLANTED";
const BEFORE: &str = "planted-before-9d1f";
const AFTER: &str = "planted-after-77c2";

/// Deploys that go well and badly, a change of the value, and every look: the value is nowhere but in env files and in its own instances.
pub async fn a_secret_is_seen_nowhere(site: &Site) {
    let app = site.app("vault", "vault.localhost").unwrap();
    app.add_to_env(&format!("{NAME}={BEFORE}")).unwrap();
    let watcher = Watcher::start();
    release(&app, "v1", "{}");
    quiet(&app, &["deploy"], 0).await;
    let probe = traffic(&app);
    // An app that tells it itself, and goes on or ends: what people are shown of its log is without it.
    release(&app, "v2", &format!(r#"{{ "tells": ["{NAME}"] }}"#));
    quiet(&app, &["plan"], 0).await;
    quiet(&app, &["deploy", "--json"], 0).await;
    quiet(&app, &["logs", "web"], 0).await;
    release(&app, "v3", &format!(r#"{{ "tells": ["{NAME}"], "exit_at_start": 3 }}"#));
    quiet(&app, &["deploy"], 4).await;
    change(&app).await;
    for words in [
        vec!["status"],
        vec!["status", "--json"],
        vec!["history", "--json"],
        vec!["releases", "--json"],
        vec!["env", "list"],
        vec!["env", "list", "--json"],
        vec!["plan", "--json"],
        vec!["attach", "--json"],
        vec!["lock"],
        vec!["logs"],
    ] {
        let told = app.cutover(&words).await.unwrap();
        says_nothing(&words.join(" "), &told.output);
        says_nothing(&words.join(" "), &told.talk);
    }
    none_failed("deploys with a secret", &probe.stop().await);
    let lines = watcher.stop();
    assert!(lines.is_empty(), "in an argument list: {lines:?}");
    let files = files_with_it(&site.root());
    assert!(files.is_empty(), "in files: {files:?}");
    if let Some(docker) = site.docker() {
        the_engine_tells_nothing(docker, &app).await;
    }
}

/// Lays out a release whose web service is given the value, alone and within another.
fn release(app: &App<'_>, version: &str, behaviour: &str) {
    let with_it = |config: &str| {
        let variables =
            format!("    environment:\n      {NAME}:\n      DSN: db://user:${{{NAME}}}@host/db\n");
        config.replacen("    environment:\n", &variables, 1)
    };
    app.commit(version, with_it).unwrap();
    std::fs::write(app.repository().join("web/behaviour.json"), behaviour).unwrap();
    app.record(version).unwrap();
}

async fn quiet(app: &App<'_>, words: &[&str], exit: i32) {
    let told = app.cutover(words).await.unwrap().expect(exit).unwrap();
    says_nothing(&words.join(" "), &told.output);
    says_nothing(&words.join(" "), &told.talk);
}

/// A new value, given on standard input.
async fn change(app: &App<'_>) {
    let mut command = app.command(&["env", "set", NAME, "--yes"]);
    command.stdin(std::process::Stdio::piped());
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(format!("{AFTER}\n").as_bytes()).await.unwrap();
    let output = tokio::time::timeout(SOON, child.wait_with_output()).await.unwrap().unwrap();
    let (said, talk) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}{talk}");
    says_nothing("env set", &said);
    says_nothing("env set", &talk);
}

fn says_nothing(what: &str, text: &str) {
    assert!(!has_it(text.as_bytes()), "`{what}` tells a secret:\n{text}");
}

fn has_it(bytes: &[u8]) -> bool {
    [BEFORE, AFTER].iter().any(|value| bytes.windows(value.len()).any(|window| window == value.as_bytes()))
}

/// Files of the installation with the value in them, that are neither env files nor an instance's own words.
fn files_with_it(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for item in std::fs::read_dir(folder).unwrap().flatten() {
        let (path, kind) = (item.path(), item.file_type().unwrap());
        if kind.is_dir() {
            found.extend(files_with_it(&path));
            continue;
        }
        let is_own = path.file_name().is_some_and(|name| name == "env")
            || path.extension().is_some_and(|end| end == "log") && path.to_string_lossy().contains("/vault");
        if kind.is_file() && !is_own && std::fs::read(&path).is_ok_and(|bytes| has_it(&bytes)) {
            found.push(path.display().to_string());
        }
    }
    found
}

/// Neither of containers, save the variables of their own, nor of images, layers included.
async fn the_engine_tells_nothing(docker: &Docker, app: &App<'_>) {
    let name = app.id().app.to_string();
    let all: serde_json::Value = ask_json(docker, "/containers/json?all=true").await;
    let mut looked = 0;
    for container in all.as_array().unwrap() {
        if !container.to_string().contains(&name) {
            continue;
        }
        let id = container["Id"].as_str().unwrap();
        let mut inspected = ask_json(docker, &format!("/containers/{id}/json")).await;
        inspected["Config"]["Env"] = serde_json::Value::Null;
        says_nothing("docker inspect", &inspected.to_string());
        looked += 1;
    }
    assert!(looked >= 2, "{looked} containers are the app's");
    let images = ask_json(docker, "/images/json").await;
    let tags = images.as_array().unwrap().iter().filter_map(|image| image["RepoTags"].as_array().cloned());
    let own: Vec<String> = tags
        .flatten()
        .filter_map(|tag| Some(tag.as_str()?.to_owned()))
        .filter(|tag| tag.starts_with(&format!("cutover/{name}/")))
        .collect();
    assert!(own.len() >= 3, "images of the app: {own:?}");
    for tag in own {
        let history = ask(docker, &format!("/images/{tag}/history")).await;
        let layers = ask(docker, &format!("/images/{tag}/get")).await;
        assert!(layers.len() > 100_000, "an image is more than {} bytes", layers.len());
        assert!(!has_it(&history) && !has_it(&layers), "{tag} has a secret in it");
    }
}

async fn ask_json(docker: &Docker, path: &str) -> serde_json::Value {
    serde_json::from_slice(&ask(docker, path).await).unwrap()
}

/// What the engine itself answers, past everything of ours.
async fn ask(docker: &Docker, path: &str) -> Vec<u8> {
    let socket = docker.address().strip_prefix("unix://").unwrap();
    let mut stream = tokio::net::UnixStream::connect(socket).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: engine\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let head = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    assert!(answer.starts_with(b"HTTP/1.0 200"), "{}", String::from_utf8_lossy(&answer[..head]));
    answer.split_off(head + 4)
}

/// Reads the argument lists of all processes, again and again.
struct Watcher {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Vec<String>>,
}

impl Watcher {
    fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut found = Vec::new();
            while !stopping.load(Ordering::Relaxed) {
                found.extend(argument_lists_with_it());
                std::thread::sleep(Duration::from_millis(2));
            }
            found
        });
        Self { stop, thread }
    }

    fn stop(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

fn argument_lists_with_it() -> Vec<String> {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|item| std::fs::read(item.path().join("cmdline")).ok())
        .filter(|line| has_it(line))
        .map(|line| String::from_utf8_lossy(&line).into_owned())
        .collect()
}

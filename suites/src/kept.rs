//! An application with a `PostgreSQL` and a Redis among its backing services, whose data tests put away and bring back; and what restic says of that.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a part of tests: it stops where it fails, and says why one did not run"
)]

use std::fs;

use cutover_core::backup::BackupRecord;
use cutover_host::backup::lock_name;
use cutover_host::lock::ProcessLock;
use cutover_host::store::Store;
use cutover_testkit::site::{App, Site};
use cutover_testkit::{SOON, wait_until};

use crate::engine::{DATABASES_IMAGE, POSTGRES_START};

/// Where it is reached.
pub const HOST: &str = "kept.localhost";
/// The password of its repository.
pub const PASSWORD: &str = "correct-horse-battery-staple";

const CONFIG: &str = r#"app: APP
services:
  web:
    image: IMAGE
    command: [httpd, -f, -p, "8080", -h, /etc]
    port: 8080
    init: true
    stop_grace_period: 2s
    route: { host: kept.localhost }
    health: { path: /hostname, interval: 200ms, within: 60s }
databases:
  main: { engine: postgres, service: postgres, services: [web] }
backing:
  postgres:
    image: IMAGE
    command: [sh, -c, "START"]
    environment: { POSTGRES_USER: kept, POSTGRES_DB: kept, POSTGRES_PASSWORD: }
    volumes: ["pgdata:/data"]
    healthcheck: { test: [CMD, pg_isready, -h, 127.0.0.1, -U, kept], interval: 1s, retries: 60 }
  cache:
    image: IMAGE
    command: [redis-server, --dir, /data, --save, "", --bind, 0.0.0.0, --protected-mode, "no"]
    volumes: ["cache:/data"]
bake: 0s
MORE
"#;

/// Writes and commits its configuration, with `more` at the end of it.
///
/// # Panics
/// When it cannot.
pub fn commit(app: &App<'_>, more: &str) {
    let config = CONFIG
        .replace("IMAGE", DATABASES_IMAGE)
        .replace("START", &POSTGRES_START.replace('$', "$$"))
        .replace("MORE", more)
        .replace("app: APP", &format!("app: {}", app.id().app));
    fs::write(app.repository().join("cutover.yml"), config).expect("the repository can be written");
    app.record("release").expect("a commit");
}

/// What a query in the database says.
///
/// # Panics
/// When it fails.
pub async fn query(app: &App<'_>, query: &str) -> String {
    let script = format!(
        "PGPASSWORD=$POSTGRES_PASSWORD psql -h 127.0.0.1 -U kept -d kept -v ON_ERROR_STOP=1 -qAtc \"{query}\""
    );
    inside(app, "postgres", &script).await
}

/// What a script in a backing service says.
///
/// # Panics
/// When it fails.
pub async fn inside(app: &App<'_>, service: &str, script: &str) -> String {
    let told = app.cutover(&["exec", service, "--", "sh", "-c", script]).await.expect("it runs");
    told.expect(0).expect("it ends well").output.trim().to_owned()
}

/// Whether restic is there; where it is not, says that the test did not run.
pub fn has_restic(test: &str) -> bool {
    let is_there = std::process::Command::new("restic").arg("version").output().is_ok();
    if !is_there {
        println!("not run: {test}: restic is not installed");
    }
    is_there
}

/// What restic says by itself of the repository in the site's folder.
///
/// # Panics
/// When it refuses: a test stops there.
pub fn restic(site: &Site, words: &[&str]) -> Vec<u8> {
    let mut command = std::process::Command::new("restic");
    command.args(words).env("RESTIC_REPOSITORY", site.folder().join("backups"));
    command.env("RESTIC_PASSWORD", PASSWORD).env("RESTIC_CACHE_DIR", site.folder().join("cache"));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// The records of backups, once there are so many; the newest first.
///
/// # Panics
/// When they do not come, or the store cannot be read.
pub async fn records(app: &App<'_>, count: usize) -> Vec<BackupRecord> {
    let layout = app.site().layout();
    let store = Store::open(&layout).unwrap();
    let look = async || {
        // What is beyond `keep` goes after it is on record.
        let is_over = ProcessLock::peek(&layout, &lock_name(app.id())).is_none();
        Some(store.backups(app.id()).unwrap()).filter(|records| is_over && records.len() >= count)
    };
    wait_until("a backup was tried", SOON, look).await.unwrap()
}

//! The verbs of who looks after a host: each run for real against a site of plain processes.
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use cutover_testkit::get;
use cutover_testkit::site::{App, Binaries, Site};

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(30);

fn site() -> Site {
    Site::with(Binaries::beside_this_program().unwrap()).unwrap()
}

async fn exits(app: &App<'_>, words: &[&str], code: i32) -> String {
    let told = app.cutover(words).await.unwrap().expect(code).unwrap();
    format!("{}{}", told.output, told.talk)
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn diff_tells_what_a_person_did_by_hand_and_what_mends_it() {
    let site = site();
    let app = site.app("guestbook", "guestbook.localhost").unwrap();
    app.deploy("v1").await.unwrap().expect(0).unwrap();
    assert!(exits(&app, &["diff"], 0).await.contains("is as it was recorded"));

    let env = site.layout().env_file(app.id());
    fs::create_dir_all(env.parent().unwrap()).unwrap();
    fs::write(&env, "EXTRA=by-hand\n").unwrap();
    mode(&env, 0o644);
    let told = exits(&app, &["diff"], 4).await;
    assert!(told.contains("its mode is 0644") && told.contains("chmod 600"), "{told}");
    assert!(told.contains("other values than the live release: EXTRA"), "{told}");
    assert!(!told.contains("by-hand"), "{told}");
    fs::remove_file(&env).unwrap();
    exits(&app, &["diff"], 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn env_files_are_pushed_and_compared_without_a_value_being_told() {
    let site = site();
    let app = site.app("guestbook", "guestbook.localhost").unwrap();
    app.deploy("v1").await.unwrap().expect(0).unwrap();
    let file = app.repository().join("push.env");
    let push = |no_deploy| {
        let words = ["env", "push", "push.env"].into_iter();
        words.chain(if no_deploy { Some("--no-deploy") } else { None }).collect::<Vec<_>>()
    };

    fs::write(&file, "GREETING=hello-there-secret\n").unwrap();
    mode(&file, 0o644);
    assert!(exits(&app, &push(true), 7).await.contains("can be read by others"));
    mode(&file, 0o600);
    fs::write(&file, "GREETING=CHANGE_ME\n").unwrap();
    assert!(exits(&app, &push(true), 7).await.contains("still a placeholder"));
    fs::write(&file, "GREETING=hello-there-secret\n").unwrap();

    assert!(exits(&app, &push(true), 0).await.contains("the next deploy takes it"));
    app.add_to_env("GREETING=another").unwrap();
    let told = exits(&app, &["env", "diff"], 4).await;
    assert!(told.contains("differs  GREETING") && !told.contains("hello-there"), "{told}");
    app.add_to_env("GREETING=hello-there-secret").unwrap();
    let told = exits(&app, &["env", "diff"], 4).await;
    assert!(told.contains("same     GREETING"), "{told}");

    fs::write(&file, "GREETING=hello-again-secret\n").unwrap();
    let before = app.serving().await.unwrap();
    exits(&app, &push(false), 0).await;
    assert_eq!(app.serving().await.unwrap(), before, "the same commit, with other variables");
    let told = exits(&app, &["env", "list"], 0).await;
    assert!(told.contains("he…"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn status_shows_the_host_and_what_each_route_leads_to() {
    let site = site();
    let app = site.app("guestbook", "guestbook.localhost").unwrap();
    app.deploy("v1").await.unwrap().expect(0).unwrap();
    let told = exits(&app, &["status"], 0).await;
    assert!(told.contains("host this machine: cutover-host "), "{told}");
    assert!(told.contains("(blue: web-blue-1-") && told.contains(" free"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_says_what_is_well_and_what_helps_also_before_anything_was_deployed() {
    let site = site();
    let app = site.app("guestbook", "guestbook.localhost").unwrap();
    app.commit("v1", str::to_owned).unwrap();
    let told = exits(&app, &["doctor"], 0).await;
    assert!(told.contains("is free for the proxy") && told.contains("its clock is right"), "{told}");
    app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
    let told = exits(&app, &["doctor"], 0).await;
    assert!(told.contains("our proxy listens on") && told.contains("proxy and watch are seen to"), "{told}");

    let env = site.layout().env_file(app.id());
    fs::create_dir_all(env.parent().unwrap()).unwrap();
    fs::write(&env, "EXTRA=by-hand\n").unwrap();
    mode(&env, 0o644);
    let told = exits(&app, &["doctor"], 1).await;
    assert!(told.contains("can be read by others (mode 0644)") && told.contains("chmod 600"), "{told}");

    let mut alone = app.command(&["doctor"]);
    alone.env("CUTOVER_HOST_BINARY", "/nowhere/cutover-host");
    let told = site.run(alone).await.unwrap().expect(1).unwrap();
    assert!(told.output.contains("problem  this machine: "), "{}{}", told.output, told.talk);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_leads_several_connections_to_a_service_and_ends_by_ctrl_c() {
    let site = site();
    let app = site.app("guestbook", "guestbook.localhost").unwrap();
    app.deploy("v1").await.unwrap().expect(0).unwrap();
    let mut command = app.command(&["tunnel", "web"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = timeout(SOON, lines.next_line()).await.unwrap().unwrap().unwrap();
    let address: std::net::SocketAddr = line.parse().unwrap();
    let asked = (0..8).map(|_| tokio::spawn(timeout(SOON, get(address, "guestbook.localhost", "/health"))));
    for answer in asked.collect::<Vec<_>>() {
        answer.await.unwrap().unwrap().unwrap();
    }
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(timeout(SOON, child.wait()).await.unwrap().unwrap().code(), Some(0));
    let told = exits(&app, &["tunnel", "web:1"], 2).await;
    assert!(told.contains("a tunnel cannot lead to port 1 of `web`"), "{told}");
    let told = exits(&app, &["tunnel", "nobody"], 1).await;
    assert!(told.contains("has no instance that a tunnel could lead to"), "{told}");
}

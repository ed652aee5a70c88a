//! The host is busy, of a newer version, or damaged.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;

use cutover_testkit::site::{Process, Site};
use cutover_testkit::{SOON, wait_until};
use rusqlite::Connection;
use rustix::process::{Pid, Signal, kill_process};

use cutover_suites::input::{GOOD, Golden, Shop};

#[tokio::test(flavor = "multi_thread")]
async fn a_second_deploy_at_the_same_time_is_refused() {
    let site = Site::new().unwrap();
    let mut shop = Shop::serving(&site).await;
    let mut golden = Golden::new("busy");
    shop.recovers("a second release").await;
    shop.configured(&GOOD.replace("within: 3s", "within: 1h"));
    shop.behaves(r#""health_status": 500"#);
    shop.app.cutover(&["deploy", "--detach"]).await.unwrap().expect(0).unwrap();
    wait_until("the first holds the lock", SOON, async || shop.app.status().await.ok()?.lock).await.unwrap();
    for words in
        [&["deploy"][..], &["rollback", "--yes"], &["restart", "--yes"], &["env", "set", "NEW=1", "--yes"]]
    {
        let told = shop.app.cutover(words).await.unwrap();
        golden.failure(&site, &words.join(" "), 3, &told);
    }
    shop.app.cutover(&["cancel"]).await.unwrap().expect(0).unwrap();
    let told = shop.app.cutover(&["attach"]).await.unwrap();
    golden.failure(&site, "the first, cancelled", 9, &told);
    shop.still_serves("cancelled").await;
    shop.recovers("a second deploy").await;
    golden.compare();
}

#[tokio::test(flavor = "multi_thread")]
async fn state_of_a_newer_version_is_not_written() {
    let site = Site::new().unwrap();
    let mut shop = Shop::serving(&site).await;
    let mut golden = Golden::new("newer");
    let store = site.layout().store();
    let version = |version: Option<u32>| -> u32 {
        let store = Connection::open(&store).unwrap();
        store.busy_timeout(SOON).unwrap();
        let before = store.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
        if let Some(version) = version {
            store.pragma_update(None, "user_version", version).unwrap();
        }
        before
    };
    let ours = version(Some(99));
    for verb in ["deploy", "status"] {
        let told = shop.app.cutover(&[verb]).await.unwrap();
        golden.failure(&site, &format!("state database, {verb}"), 1, &told);
    }
    assert_eq!(version(Some(ours)), 99);
    shop.still_serves("a newer state database").await;

    let file = site.layout().installation();
    let installation = fs::read_to_string(&file).unwrap();
    for (case, text) in [
        ("installation of a newer version", installation.replace("\"version\":1", "\"version\":9")),
        ("installation cut", installation[..20].to_owned()),
    ] {
        fs::write(&file, text).unwrap();
        let told = shop.app.cutover(&["deploy"]).await.unwrap();
        golden.failure(&site, case, 1, &told);
    }
    fs::write(&file, installation).unwrap();
    shop.recovers("newer versions").await;
    golden.compare();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_does_not_answer_is_told() {
    let site = Site::new().unwrap();
    let mut shop = Shop::serving(&site).await;
    let mut golden = Golden::new("proxy");
    let socket = site.layout().proxy_socket();
    let aside = socket.with_extension("aside");
    fs::rename(&socket, &aside).unwrap();
    let silent = UnixListener::bind(&socket).unwrap();
    let told = shop.app.cutover(&["deploy", "--all"]).await.unwrap();
    golden.failure(&site, "its control socket hangs", 7, &told);
    drop(silent);
    fs::remove_file(&socket).unwrap();
    let told = shop.app.cutover(&["deploy", "--all"]).await.unwrap();
    golden.failure(&site, "its control socket is gone", 1, &told);
    fs::rename(&aside, &socket).unwrap();
    shop.still_serves("a hanging socket").await;

    let up = site.await_process("up", |process| *process == Process::Up).await.unwrap();
    signal(up.pid, Signal::STOP);
    site.kill(|process| *process == Process::Proxy).unwrap();
    let told = shop.app.cutover(&["deploy", "--all"]).await.unwrap();
    golden.failure(&site, "it is not running", 1, &told);
    signal(up.pid, Signal::CONT);
    site.await_process("proxy", |process| *process == Process::Proxy).await.unwrap();
    shop.still_serves("no proxy").await;
    shop.recovers("proxies").await;
    golden.compare();
}

fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_table_that_is_cut_is_told_and_set_aside() {
    let site = Site::new().unwrap();
    let mut shop = Shop::serving(&site).await;
    let mut golden = Golden::new("tables");
    shop.recovers("a second release").await;
    let folder = site.layout().proxy();
    let (table, copy) = (folder.join("table.json"), folder.join("table.previous.json"));
    let cut = |path: &Path| {
        let whole = fs::read(path).unwrap();
        fs::write(path, &whole[..whole.len() / 2]).unwrap();
    };
    // As after a loss of power: one of the two files is cut.
    for path in [&table, &copy] {
        cut(path);
        site.kill(|process| *process == Process::Proxy).unwrap();
        wait_until("it is served again", SOON, async || shop.get_soon().await).await.unwrap();
        shop.still_serves("one table cut").await;
        let settled = async || (fs::read(&table).ok()? == fs::read(&copy).ok()?).then_some(());
        wait_until("both are whole again", SOON, settled).await.unwrap();
    }
    // A proxy that serves needs neither, and writes both anew.
    let whole = fs::read(&table).unwrap();
    cut(&table);
    cut(&copy);
    shop.still_serves("both tables cut").await;
    shop.recovers("both tables cut under a proxy that serves").await;

    let settled = async || (fs::read(&table).ok()? == fs::read(&copy).ok()?).then_some(());
    wait_until("both are whole again", SOON, settled).await.unwrap();
    assert_ne!(fs::read(&table).unwrap(), whole);
    let whole = fs::read(&table).unwrap();
    cut(&table);
    cut(&copy);
    site.kill(|process| *process == Process::Proxy).unwrap();
    for verb in ["deploy", "status"] {
        let told = shop.app.cutover(&[verb]).await.unwrap();
        golden.failure(&site, &format!("both tables cut, and the proxy started anew, {verb}"), 1, &told);
    }
    fs::write(&copy, whole).unwrap();
    wait_until("it is served again", SOON, async || shop.get_soon().await).await.unwrap();
    shop.still_serves("a table put back").await;
    shop.recovers("tables").await;
    golden.compare();
}

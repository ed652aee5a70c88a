//! Where it is deployed from and to: repositories, commits, environments, other apps, the root, the port.

use std::net::TcpListener;
use std::process::Command;

use cutover_core::variables;
use cutover_testkit::site::{App, Site, Told};

use cutover_testkit::{SOON, wait_until};

use cutover_suites::input::{GOOD, Golden, Shop};

fn git(app: &App<'_>, words: &[&str]) -> String {
    let output = Command::new("git").arg("-C").arg(app.repository()).args(words).output().unwrap();
    assert!(output.status.success(), "git {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A command with another environment variable.
async fn with(app: &App<'_>, words: &[&str], (name, value): (&str, &str)) -> Told {
    let mut command = app.command(words);
    command.env(name, value);
    app.site().run(command).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_environment_that_cannot_be_meant_touches_nothing() {
    let site = Site::new().unwrap();
    let mut shop = Shop::serving(&site).await;
    let mut golden = Golden::new("environments");
    let several = format!(
        "{GOOD}environments:\n  staging: {{ hosts: [deploy@staging.example.com] }}\n  production: {{ hosts: [deploy@example.com] }}\n"
    );
    shop.configured(&several);
    shop.fails(&mut golden, "several environments and none named", &["deploy"], 2).await;
    shop.fails(&mut golden, "an environment that is not there", &["deploy", "stagin"], 2).await;
    let told = with(&shop.app, &["deploy"], (variables::ENVIRONMENT, "No Such/Name")).await;
    golden.failure(&site, "CUTOVER_ENV is no name", 2, &told);
    shop.still_serves("CUTOVER_ENV").await;
    shop.recovers("environments").await;
    golden.compare();
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_and_releases_that_cannot_be_meant_touch_nothing() {
    let site = Site::new().unwrap();
    let mut shop = Shop::serving(&site).await;
    let mut golden = Golden::new("commits");
    shop.fails(&mut golden, "nothing to roll back to", &["rollback", "--yes"], 7).await;
    shop.recovers("a second commit").await;
    let branch = git(&shop.app, &["branch", "--show-current"]);
    shop.fails(&mut golden, "a rollback to what is not there", &["rollback", "--to", "0000000", "--yes"], 7)
        .await;
    shop.fails(&mut golden, "a commit that is not there", &["deploy", "--commit", "0000000"], 2).await;
    git(&shop.app, &["checkout", "--quiet", "HEAD~1"]);
    shop.fails(&mut golden, "an older commit", &["deploy"], 7).await;
    git(&shop.app, &["checkout", "--quiet", &branch]);

    // Without git a release is named by its content; only what needs git is refused.
    std::fs::rename(shop.app.repository().join(".git"), site.folder().join("git")).unwrap();
    shop.fails(&mut golden, "not a git repository, and a commit named", &["deploy", "--commit", "HEAD"], 2)
        .await;
    git(&shop.app, &["init", "--quiet", "."]);
    shop.fails(&mut golden, "git without commits, and one named", &["deploy", "--commit", "HEAD"], 2).await;
    shop.behaves(r#""health_status": 500"#);
    shop.fails(&mut golden, "git without commits, and a bad release", &["deploy"], 4).await;
    std::fs::remove_dir_all(shop.app.repository().join(".git")).unwrap();
    shop.behaves(r#""health_status": 501"#);
    shop.fails(&mut golden, "not a git repository, and a bad release", &["deploy"], 4).await;
    std::fs::rename(site.folder().join("git"), shop.app.repository().join(".git")).unwrap();
    shop.recovers("commits").await;
    golden.compare();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_belongs_to_another_is_not_touched() {
    let site = Site::new().unwrap();
    let mut shop = Shop::laid_out(&site);
    let mut golden = Golden::new("others");
    git(&shop.app, &["remote", "add", "origin", "https://git.example.com/acme/shop.git"]);
    shop.goes_live().await;
    git(&shop.app, &["remote", "set-url", "origin", "git@git.example.com:other/shop.git"]);
    shop.fails(&mut golden, "an app of the same name from another repository", &["deploy"], 7).await;
    git(&shop.app, &["remote", "set-url", "origin", "ssh://git@git.example.com/acme/shop"]);
    shop.configured(&GOOD.replace("app: shop", "app: store"));
    shop.fails(&mut golden, "another app's route", &["deploy"], 7).await;
    shop.recovers("others").await;
    golden.compare();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_cannot_be_used_is_told() {
    let site = Site::new().unwrap();
    let mut shop = Shop::serving(&site).await;
    let mut golden = Golden::new("roots");
    let long = site.folder().join("x".repeat(90));
    let below_nothing = site.folder().join("disk/root");
    let below_a_file = shop.app.repository().join("cutover.yml/root");
    for (case, root) in [
        ("too long for sockets", &long),
        ("below what is not there", &below_nothing),
        ("below a file", &below_a_file),
    ] {
        for verb in ["deploy", "status"] {
            let told = with(&shop.app, &[verb], (variables::ROOT, root.to_str().unwrap())).await;
            golden.failure(&site, &format!("{case}, {verb}"), 1, &told);
            assert!(!root.exists(), "{case}: something was made");
        }
    }
    shop.still_serves("other roots").await;
    shop.recovers("roots").await;
    golden.compare();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_cannot_be_had_is_told_with_its_holder() {
    let site = Site::new().unwrap();
    let mut shop = Shop::laid_out(&site);
    let mut golden = Golden::new("ports");
    let theirs = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = theirs.local_addr().unwrap().to_string();
    for (case, address, exit) in [
        ("the port is taken", taken.as_str(), 7),
        ("the address is nobody's here", "192.0.2.1:8080", 1),
        ("no address", "localhost", 1),
    ] {
        let told = with(&shop.app, &["deploy"], (variables::HTTP, address)).await;
        golden.failure(&site, case, exit, &told);
        wait_until("nothing is left", SOON, async || site.processes().is_empty().then_some(()))
            .await
            .unwrap();
    }
    drop(theirs);
    shop.goes_live().await;
    shop.recovers("ports").await;
    golden.compare();
}

//! Servers of the tests' own: what happens to servers happens to them, and what is deployed to them serves.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test stops where it fails, and says its numbers"
)]

use std::time::{Duration, Instant};

use cutover_suites::built_there::{self, Keeps};
use cutover_suites::hardships::{self, failed, serves};
use cutover_suites::servers::{on_server, on_server_without_systemd};
use cutover_suites::{engine, loads, neighbours, on_the_way};
use cutover_testkit::machine::{Cut, Image, Machine, ServerApp, User};
use cutover_testkit::probe::{Probe, fetch_entries};
use cutover_testkit::site::Binaries;
use cutover_testkit::{SOON, wait_until};

/// In which one that lets in would have answered.
const A_WHILE: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_to_servers_happens_to_those_of_the_tests() {
    let name = "what_happens_to_servers_happens_to_those_of_the_tests";
    on_server(name, Image::Engine20, async |machine| {
        assert_eq!(machine.ssh(User::Admin, "sudo -n id -u").await.unwrap(), "0");
        machine.ssh(User::Guest, "sudo -n true").await.unwrap_err();
        let boot = machine.boots().await.unwrap();

        machine.reboot().await.unwrap();
        machine.lose_power().await.unwrap();
        machine.power_on().await.unwrap();
        assert_eq!(machine.boots().await.unwrap(), boot + 2);

        for what in [Cut::Ssh, Cut::All] {
            machine.cut(what).await.unwrap();
            // Dropped: whoever knocks waits.
            tokio::time::timeout(A_WHILE, machine.ssh(User::Root, "true")).await.unwrap_err();
            machine.mend(what).await.unwrap();
            machine.ssh(User::Root, "true").await.unwrap();
        }
        machine.hang().await.unwrap();
        tokio::time::timeout(A_WHILE, machine.ssh(User::Root, "true")).await.unwrap_err();
        machine.resume().await.unwrap();
        machine.ssh(User::Root, "true").await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bare_debian_13_serves_containers_after_setup_and_deploy() {
    bare_to_serving("a_bare_debian_13_serves_containers_after_setup_and_deploy", Image::Debian13).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn a_bare_debian_12_serves_containers_after_setup_and_deploy() {
    bare_to_serving("a_bare_debian_12_serves_containers_after_setup_and_deploy", Image::Debian12).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn a_bare_ubuntu_22_04_serves_containers_after_setup_and_deploy() {
    bare_to_serving("a_bare_ubuntu_22_04_serves_containers_after_setup_and_deploy", Image::Ubuntu2204).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn a_bare_ubuntu_24_04_serves_containers_after_setup_and_deploy() {
    bare_to_serving("a_bare_ubuntu_24_04_serves_containers_after_setup_and_deploy", Image::Ubuntu2404).await;
}

/// Nothing is done by hand. Then there are two apps, of which one goes again, and the server starts anew.
async fn bare_to_serving(name: &str, image: Image) {
    on_server(name, image, async |machine| {
        let (binaries, engine) = (Binaries::beside_this_program().unwrap(), engine::usable().await.unwrap());
        let shop = ServerApp::of_containers(machine, &binaries, &engine, "shop").await.unwrap();
        shop.commit("v1", "first", str::to_owned).unwrap();
        let began = Instant::now();
        shop.cutover(&["setup"]).await.unwrap().expect(0).unwrap();
        let set_up = began.elapsed();
        shop.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
        let version = machine.exec(&["dockerd", "--version"]).await.unwrap();
        // Whoever looks after it finds the command there.
        assert!(machine.exec(&["docker", "ps", "--quiet"]).await.unwrap().lines().count() >= 2);
        println!(
            "{}: a host after {set_up:?}, serving after {:?}, engine {version}",
            image.name(),
            began.elapsed()
        );
        serves(&shop, "first").await;

        let probe = Probe::start(shop.traffic());
        shop.commit("v2", "second", str::to_owned).unwrap();
        let told = shop.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
        println!("a deploy of images over ssh took {:?}", told.took);
        beside_another(machine, &binaries).await;
        let report = probe.stop().await;
        println!("{} requests, {} failed, slowest {:?}", report.sent(), report.failed(), report.slowest());
        assert_eq!(report.failed(), 0, "{report}");

        let began = Instant::now();
        machine.reboot().await.unwrap();
        let answers = async || shop.ask("/version").await.ok().filter(|answer| answer.status == 200);
        wait_until("it serves again", SOON, answers).await.unwrap();
        println!("serving {:?} after the reboot began", began.elapsed());
        serves(&shop, "second").await;
        let found = report.verify_entries(&fetch_entries(&shop.traffic()).await.unwrap());
        assert!(found.is_complete(), "{:?} {:?}", found.missing, found.twice);
    })
    .await;
}

/// Another app comes, changes and goes on the same server; its own traffic loses nothing while it is there (S2).
async fn beside_another(machine: &Machine, binaries: &Binaries) {
    let blog = ServerApp::of_processes(machine, binaries, "blog").unwrap();
    blog.commit("v1", "a blog", str::to_owned).unwrap();
    blog.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
    let probe = Probe::start(blog.traffic());
    blog.commit("v2", "a better blog", str::to_owned).unwrap();
    blog.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
    let report = probe.stop().await;
    assert_eq!(report.failed(), 0, "{report}");
    serves(&blog, "a better blog").await;
    blog.cutover(&["remove", "--yes"]).await.unwrap().expect(0).unwrap();
    assert_eq!(blog.ask("/version").await.unwrap().status, 404);
}

/// What keeps a server from being deployed to is told in four parts, and nothing of it is half done.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_lacks_is_told() {
    on_server("what_a_server_lacks_is_told", Image::Engine20, async |machine| {
        let (binaries, engine) = (Binaries::beside_this_program().unwrap(), engine::usable().await.unwrap());
        let app = ServerApp::of_containers(machine, &binaries, &engine, "shop").await.unwrap();
        let app = app.set_up_with("upgrades: false, time: false, firewall: false, ssh_hardening: false");
        app.commit("v1", "first", str::to_owned).unwrap();

        let another = "cp /etc/os-release /tmp/kept; sed -i -e s/^ID=.*/ID=fedora/ -e 's/^PRETTY_NAME=.*/PRETTY_NAME=\"Fedora Linux 40\"/' /etc/os-release";
        machine.exec(&["sh", "-c", another]).await.unwrap();
        let unsupported = failed(&app, &["setup"]).await;
        machine.exec(&["sh", "-c", "cat /tmp/kept >/etc/os-release"]).await.unwrap();
        machine.exec(&["test", "!", "-e", "/usr/local/bin/cutover-host"]).await.unwrap();

        app.cutover(&["setup"]).await.unwrap().expect(0).unwrap();
        app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
        let probe = Probe::start(app.traffic());
        app.commit("v2", "second", str::to_owned).unwrap();
        // Containers go on without it, and so does what serves.
        machine.exec(&["systemctl", "stop", "docker.socket", "docker"]).await.unwrap();
        let stopped = failed(&app, &["deploy"]).await;
        machine.exec(&["systemctl", "start", "docker.socket", "docker"]).await.unwrap();
        let report = probe.stop().await;
        assert_eq!(report.failed(), 0, "{report}");
        app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
        serves(&app, "second").await;
        insta::assert_snapshot!("what_a_server_lacks_is_told", format!("{unsupported}\n{stopped}"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn a_full_disk_is_told_and_nothing_of_what_serves_is_lost() {
    let name = "a_full_disk_is_told_and_nothing_of_what_serves_is_lost";
    on_server(name, Image::Engine26, hardships::a_full_disk).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn a_disk_that_fills_on_the_way_is_told_and_the_next_deploy_goes_on_from_there() {
    let name = "a_disk_that_fills_on_the_way_is_told_and_the_next_deploy_goes_on_from_there";
    let all = async |machine: &Machine| on_the_way::all(machine, Keeps::Usually).await;
    on_server(name, Image::Engine20, all).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn a_disk_of_containerds_that_fills_on_the_way_is_told_and_the_next_deploy_goes_on_from_there() {
    let name = "a_disk_of_containerds_that_fills_on_the_way_is_told_and_the_next_deploy_goes_on_from_there";
    let all = async |machine: &Machine| on_the_way::all(machine, Keeps::InContainerd).await;
    on_server(name, Image::Engine26, all).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn engine_26_builds_on_the_server() {
    let all = async |machine: &Machine| built_there::all(machine, Keeps::Usually).await;
    on_server("engine_26_builds_on_the_server", Image::Engine26, all).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn engine_26_with_containerds_store_builds_on_the_server() {
    let all = async |machine: &Machine| built_there::all(machine, Keeps::InContainerd).await;
    on_server("engine_26_with_containerds_store_builds_on_the_server", Image::Engine26, all).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn engine_29_builds_on_the_server() {
    let all = async |machine: &Machine| built_there::all(machine, Keeps::Usually).await;
    on_server("engine_29_builds_on_the_server", Image::Engine29, all).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn an_image_is_loaded_whole_where_layers_only_seemed_to_be_there() {
    let name = "an_image_is_loaded_whole_where_layers_only_seemed_to_be_there";
    on_server(name, Image::Engine26, loads::after_a_refused_one).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn nothing_depends_on_the_clock_of_a_server() {
    let name = "nothing_depends_on_the_clock_of_a_server";
    on_server(name, Image::Debian13, hardships::a_clock_a_day_off).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn without_a_way_to_packages_setup_says_so_and_goes_on_later() {
    let name = "without_a_way_to_packages_setup_says_so_and_goes_on_later";
    on_server(name, Image::Debian13, hardships::no_way_to_packages).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn a_server_without_systemd_serves_all_the_same() {
    let name = "a_server_without_systemd_serves_all_the_same";
    on_server_without_systemd(name, Image::Debian12, hardships::no_systemd).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn environments_and_apps_of_one_server_do_not_notice_each_other() {
    let name = "environments_and_apps_of_one_server_do_not_notice_each_other";
    on_server(name, Image::Engine26, neighbours::all).await;
}

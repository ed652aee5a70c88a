//! Servers to which something is wrong: a disk that is full, a clock that is off, no way to packages, no systemd.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a part of tests: it stops where it fails, and says its numbers"
)]

use cutover_testkit::machine::{Machine, Part, ServerApp};
use cutover_testkit::probe::{Probe, fetch_entries};
use cutover_testkit::site::{Binaries, Told};
use cutover_testkit::{SOON, redact, wait_until};

use crate::engine;

/// What needs packages from elsewhere, or keeps people out, is tried elsewhere.
const PLAIN: &str =
    "docker: false, logs: false, upgrades: false, time: false, firewall: false, ssh_hardening: false";
/// The same where there are containers.
pub(crate) const WITH_ENGINE: &str =
    "logs: false, upgrades: false, time: false, firewall: false, ssh_hardening: false";

/// Where the state lies, and where the images do.
pub(crate) const STATE: &str = "/var/lib/cutover";
pub(crate) const IMAGES: &str = "/var/lib/docker";

pub(crate) async fn says(machine: &Machine, line: &str) -> String {
    machine.exec(&["sh", "-c", line]).await.unwrap()
}

/// What status names live is what answers.
pub async fn serves(app: &ServerApp<'_>, subject: &str) {
    let live = app.status().await.unwrap().live.unwrap();
    assert_eq!(live.subject.as_deref(), Some(subject));
    let answer = app.ask("/version").await.unwrap();
    assert_eq!(answer.release.as_deref(), Some(live.release.as_str()), "{answer:?}");
}

/// The words of a command that fails, without what differs from time to time: each of the four answers is among them.
pub async fn failed(app: &ServerApp<'_>, words: &[&str]) -> String {
    in_four_parts(app, words, &app.cutover(words).await.unwrap())
}

/// The same of what was told already.
pub(crate) fn in_four_parts(app: &ServerApp<'_>, words: &[&str], told: &Told) -> String {
    let text = told.failure().to_owned();
    for part in ["error: ", "\n  cause: ", "\n  state: ", "\n  next:  "] {
        assert!(
            text.contains(part),
            "{words:?}: exit {:?}, no {part:?}\n{}\n{}",
            told.exit,
            told.output,
            told.talk
        );
    }
    let text =
        text.replace(&app.machine().address().to_string(), "SERVER").replace(app.id().app.as_str(), "APP");
    let text = redact(&text, &[(app.repository(), "REPOSITORY")]);
    format!("── cutover {} · exit {}\n{text}", words.join(" "), told.exit.unwrap_or(-1))
}

/// A disk of this folder's own. It is full from then on, to the last byte.
pub(crate) async fn fill(machine: &Machine, folder: &str) {
    let line = format!(
        "dd if=/dev/zero of={folder}/filler bs=64k 2>/dev/null; dd if=/dev/zero of={folder}/rest bs=1 count=65536 2>/dev/null; df {folder}"
    );
    says(machine, &line).await;
}

pub(crate) async fn make_room(machine: &Machine, folder: &str) {
    says(machine, &format!("rm -f {folder}/filler {folder}/rest")).await;
}

/// State and images lie on disks of their own from here on.
pub(crate) async fn on_small_disks(machine: &Machine, images: &str) {
    says(machine, &format!("mkdir -p {STATE} && mount -t tmpfs -o size=600m,mode=0711 tmpfs {STATE}")).await;
    let stop = "systemctl stop docker docker.socket containerd";
    let mount = format!("mount -t tmpfs -o size=600m,mode=0710 tmpfs {images}");
    says(machine, &format!("{stop}; {mount} && systemctl start containerd docker")).await;
}

/// The disk with the state, and then the one with the images, is full before something is brought, and again while a run goes on.
pub async fn a_full_disk(machine: &Machine) {
    on_small_disks(machine, IMAGES).await;
    let (binaries, engine) = (Binaries::beside_this_program().unwrap(), engine::usable().await.unwrap());
    let shop = ServerApp::of_containers(machine, &binaries, &engine, "shop").await.unwrap();
    let shop = shop.set_up_with(WITH_ENGINE);
    shop.commit("v1", "first", str::to_owned).unwrap();
    shop.cutover(&["setup"]).await.unwrap().expect(0).unwrap();
    shop.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
    let blog = ServerApp::of_processes(machine, &binaries, "blog").unwrap().set_up_with(WITH_ENGINE);
    blog.commit("v1", "a blog", str::to_owned).unwrap();
    blog.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
    let probes = [Probe::start(shop.traffic()), Probe::start(blog.traffic())];
    shop.commit("v2", "second", str::to_owned).unwrap();
    blog.commit("v2", "a better blog", str::to_owned).unwrap();

    fill(machine, IMAGES).await;
    println!("{}", failed(&shop, &["deploy"]).await);
    make_room(machine, IMAGES).await;
    fill(machine, STATE).await;
    println!("{}", failed(&blog, &["deploy"]).await);
    println!("{}", failed(&shop, &["deploy"]).await);
    make_room(machine, STATE).await;
    serves(&shop, "first").await;
    serves(&blog, "a blog").await;

    blog.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
    shop.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
    // While the new release is watched.
    for (round, (app, folder)) in [(&shop, STATE), (&blog, STATE), (&shop, IMAGES)].into_iter().enumerate() {
        let subject = format!("on a disk that fills {round}");
        app.commit("v2", &subject, |text| text.replace("bake: 1s", "bake: 6s")).unwrap();
        app.cutover(&["deploy", "--detach"]).await.unwrap().expect(0).unwrap();
        let bakes = async || {
            let status = app.status().await.ok()?;
            (status.live?.subject.as_deref() == Some(&subject)).then_some(())
        };
        wait_until("it is switched", SOON, bakes).await.unwrap();
        fill(machine, folder).await;
        let over = async || app.status().await.ok().filter(|status| status.lock.is_none());
        let status = wait_until("the run has ended", SOON, over).await.unwrap();
        println!("{folder} full while it bakes: {:?}", status.last.map(|verdict| verdict.outcome));
        make_room(machine, folder).await;
        let subject = format!("room again {round}");
        app.commit("v2", &subject, str::to_owned).unwrap();
        app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
        serves(app, &subject).await;
    }
    for (app, probe) in [&shop, &blog].into_iter().zip(probes) {
        let report = probe.stop().await;
        assert_eq!(report.failed(), 0, "{report}");
        println!("{} requests, {} failed", report.sent(), report.failed());
        let found = report.verify_entries(&fetch_entries(&app.traffic()).await.unwrap());
        assert!(found.is_complete(), "{:?} {:?}", found.missing, found.twice);
    }
}

/// All that the server runs believes in another time, first a day ahead and then a day behind: it deploys and goes back as any other, loses no
/// request, and removes nothing because it would be old.
pub async fn a_clock_a_day_off(machine: &Machine) {
    let binaries = Binaries::beside_this_program().unwrap();
    let app = ServerApp::of_processes(machine, &binaries, "shop").unwrap().set_up_with(PLAIN);
    says(machine, "apt-get update -q && apt-get install -y -q --no-install-recommends libfaketime").await;
    for (clock, told) in [("+1d", "is 1 d 0 h ahead of"), ("-1d", "is 1 d 0 h behind")] {
        set_clock(machine, clock).await;
        let subject = format!("by a clock of {clock}");
        app.commit("v1", &subject, str::to_owned).unwrap();
        app.cutover(&["setup"]).await.unwrap().expect(0).unwrap();
        let deployed = app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
        assert!(
            deployed.talk.contains(told) || deployed.output.contains(told),
            "{}{}",
            deployed.output,
            deployed.talk
        );
        serves(&app, &subject).await;
        let probe = Probe::start(app.traffic());
        for migration in ["101", "102"] {
            let file = format!("web/migrations/{migration}_later.sql");
            let change = format!("ALTER TABLE entries ADD COLUMN later_{migration}_{} TEXT;", clock.len());
            app.commit_with("v2", migration, str::to_owned, &[(&file, &change)]).unwrap();
            app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
        }
        app.cutover(&["rollback", "--yes"]).await.unwrap().expect(0).unwrap();
        serves(&app, "101").await;
        machine.kill(|one| one.is(Part::Watch)).await.unwrap();
        let report = probe.stop().await;
        assert_eq!(report.failed(), 0, "{report}");
        println!("{clock}: {} requests, {} failed", report.sent(), report.failed());
    }
    let releases = app.cutover(&["releases"]).await.unwrap().expect(0).unwrap();
    println!("{}", releases.output);
}

/// From the next boot on: units by the init system's own default, logins by their environment. The kernel's clock is everybody's.
async fn set_clock(machine: &Machine, clock: &str) {
    let library = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";
    let line = format!(
        "mkdir -p /etc/systemd/system.conf.d && printf '[Manager]\\nDefaultEnvironment=LD_PRELOAD={library} FAKETIME={clock} FAKETIME_DONT_FAKE_MONOTONIC=1\\n' \
         >/etc/systemd/system.conf.d/clock.conf && printf 'LD_PRELOAD={library}\\nFAKETIME={clock}\\nFAKETIME_DONT_FAKE_MONOTONIC=1\\n' >/etc/environment"
    );
    says(machine, &line).await;
    machine.reboot().await.unwrap();
}

/// Packages cannot be had: said in four parts, and the next setup goes on from there.
pub async fn no_way_to_packages(machine: &Machine) {
    let (binaries, engine) = (Binaries::beside_this_program().unwrap(), engine::usable().await.unwrap());
    let app = ServerApp::of_containers(machine, &binaries, &engine, "shop").await.unwrap();
    app.commit("v1", "first", str::to_owned).unwrap();
    says(machine, "mkdir /root/kept && cp -a /etc/apt/sources.list* /root/kept/ && rm -rf /var/lib/apt/lists/* /etc/apt/sources.list.d/*").await;
    says(machine, "echo 'deb http://127.0.0.1:9/debian stable main' >/etc/apt/sources.list").await;

    let told = failed(&app, &["setup"]).await;
    assert!(told.contains("connect to 127.0.0.1:9"), "{told}");
    println!("{told}");

    says(machine, "cp -a /root/kept/. /etc/apt/").await;
    app.cutover(&["setup"]).await.unwrap().expect(0).unwrap();
    app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
    serves(&app, "first").await;
}

/// `cutover-host up` keeps proxy and watch. After a reboot nobody starts it but the next command.
pub async fn no_systemd(machine: &Machine) {
    let binaries = Binaries::beside_this_program().unwrap();
    let app = ServerApp::of_processes(machine, &binaries, "shop").unwrap();
    let app = app.set_up_with("docker: false, upgrades: false, time: false, firewall: false");
    app.commit("v1", "first", str::to_owned).unwrap();
    let told = app.cutover(&["setup"]).await.unwrap().expect(0).unwrap();
    assert!(told.talk.contains("there is no systemd"), "{}", told.talk);
    let again = app.cutover(&["setup"]).await.unwrap().expect(0).unwrap();
    assert!(again.talk.contains("nothing to change"), "{}{}", again.output, again.talk);
    app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();

    let probe = Probe::start(app.traffic());
    app.commit("v2", "second", str::to_owned).unwrap();
    app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
    serves(&app, "second").await;
    let report = probe.lap();
    assert_eq!(report.failed(), 0, "{report}");
    machine.kill(|one| one.is(Part::Proxy)).await.unwrap();
    let gone = std::time::SystemTime::now();
    let answers = async || app.ask("/version").await.ok().filter(|answer| answer.status == 200);
    wait_until("the proxy is back", SOON, answers).await.unwrap();
    let report = probe.lap();
    assert_eq!(report.failed(), report.failed_begun_before(gone), "{report}");

    drop(probe);
    machine.reboot().await.unwrap();
    // Nothing starts it here; whoever deploys next does.
    app.commit("v2", "after a reboot", str::to_owned).unwrap();
    app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
    serves(&app, "after a reboot").await;
    app.cutover(&["teardown", "--yes"]).await.unwrap().expect(0).unwrap();
}

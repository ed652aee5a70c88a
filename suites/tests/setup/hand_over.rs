//! Sockets handed over from one `cutover-host` to the next, by a setup or an upgrade: whatever is killed meanwhile, who serves goes on or begins again.

use super::*;

/// What `cutover-host up`, the proxy and the watch execute: one line, where it is the same.
const EXECUTE: &str = "for process in up proxy watch; do readlink /proc/$(cat /var/lib/cutover/locks/$process.lock)/exe; done | uniq";

/// An upgrade of the server to this program.
fn upgrade_to(app: &ServerApp<'_>, program: &Path) -> tokio::process::Command {
    let mut command = app.command(&["upgrade"]);
    command.env("CUTOVER_HOST_BINARY", program);
    command
}

/// The session is killed between the end of `cutover-host up` and the begin of the units: it goes on by itself, and the next
/// setup waits for it (S11).
#[tokio::test(flavor = "multi_thread")]
async fn a_setup_whose_session_dies_while_sockets_are_handed_over_loses_no_request() {
    let name = "a_setup_whose_session_dies_while_sockets_are_handed_over_loses_no_request";
    on_server(name, Image::Stocked12, async |machine| {
        let binaries = Binaries::beside_this_program().unwrap();
        let app = kept_by_hand(machine, &binaries).await;
        let (probe, downloads) = (Probe::start(app.traffic()), Downloads::begin(&app));

        let told = dies_in_the_hand_over(machine, "session", app.command(&["setup"]), 1).await;
        assert!(told.contains("`cutover setup` goes on from there"), "{told}");
        app.cutover(&["setup"]).await.unwrap().expect(0).unwrap();

        let linked = says(machine, "readlink /usr/local/bin/cutover-host").await;
        assert_eq!(serving(machine).await, [linked.trim(), linked.trim()]);
        assert_eq!(downloads.end().await, 0, "downloads that were cut");
        let report = probe.stop().await;
        assert_eq!(report.failed(), 0, "{report}");
        println!("a setup broken off in the middle of {} requests, 0 failed", report.sent());
        // Nothing is left of it, and what was there by hand is kept.
        let kept = "test ! -e /run/cutover/handover.sock && cat /usr/local/lib/cutover/by-hand-*/cutover-host | sha256sum";
        assert_eq!(says(machine, kept).await, sum_of(&binaries.host));
    })
    .await;
}

/// The same of one `cutover-host up` and the next, which nobody would start: no unit is there, and no other command comes.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn an_upgrade_whose_session_dies_while_sockets_are_handed_over_loses_no_request() {
    let name = "an_upgrade_whose_session_dies_while_sockets_are_handed_over_loses_no_request";
    on_server(name, Image::Stocked12, async |machine| {
        let binaries = Binaries::beside_this_program().unwrap();
        let app = kept_by_hand(machine, &binaries).await;
        let other = other_program(&binaries, machine.folder());
        let upgrade = || upgrade_to(&app, &other);
        let (probe, downloads) = (Probe::start(app.traffic()), Downloads::begin(&app));

        let told = dies_in_the_hand_over(machine, "session", upgrade(), 6).await;
        assert!(told.contains("comes to its end on the server by itself"), "{told}");

        let goes_on = async || {
            let linked = machine.exec(&["readlink", "/usr/local/bin/cutover-host"]).await.ok()?;
            (machine.exec(&["sh", "-c", EXECUTE]).await.ok()? == linked).then_some(())
        };
        wait_until("all of them execute the new one", SOON, goes_on).await.unwrap();
        assert_eq!(downloads.end().await, 0, "downloads that were cut");
        let report = probe.stop().await;
        assert_eq!(report.failed(), 0, "{report}");
        println!("an upgrade broken off in the middle of {} requests, 0 failed", report.sent());
        let again = upgrade().output().await.unwrap();
        let told = String::from_utf8_lossy(&again.stdout);
        assert!(again.status.success() && told.contains("is there already"), "{told}");
    })
    .await;
}

/// Of two that `cutover-host up` would be one after the other, the second never gets to serve.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn an_upgrade_that_does_not_serve_gives_back_what_no_unit_keeps() {
    let name = "an_upgrade_that_does_not_serve_gives_back_what_no_unit_keeps";
    on_server(name, Image::Stocked12, async |machine| {
        let binaries = Binaries::beside_this_program().unwrap();
        let app = kept_by_hand(machine, &binaries).await;
        let by_hand = says(machine, "sha256sum </usr/local/bin/cutover-host").await;
        let ends = "while :; do for one in $(pgrep -f 'cutover-host [u]p'); do case $(readlink /proc/$one/exe) in \
                    */by-hand-*|*' (deleted)') ;; /usr/local/lib/cutover/*) kill -KILL $one ;; esac; done; done";
        machine.exec(&["systemd-run", "--quiet", "--unit=ends-it", "sh", "-c", ends]).await.unwrap();
        let (probe, downloads) = (Probe::start(app.traffic()), Downloads::begin(&app));

        let other = other_program(&binaries, machine.folder());
        let output = upgrade_to(&app, &other).output().await.unwrap();

        let told = String::from_utf8_lossy(&output.stderr);
        assert!(told.contains("proxy and watch go on with cutover-host by-hand-"), "{told}");
        let serves = "sha256sum </proc/$(pgrep -f 'cutover-host [u]p')/exe; sha256sum </usr/local/bin/cutover-host";
        let sums = says(machine, serves).await;
        assert!(sums.lines().all(|sum| sum == by_hand), "{sums}");
        assert_eq!(downloads.end().await, 0, "downloads that were cut");
        let report = probe.stop().await;
        assert_eq!(report.failed(), 0, "{report}");
        println!("an upgrade in vain under {} requests, 0 failed", report.sent());
    })
    .await;
}

/// What carries the hand-over out is killed itself: connections that waited are lost, and the units serve without anybody's help.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn a_hand_over_that_is_killed_leaves_the_units_to_serve() {
    let name = "a_hand_over_that_is_killed_leaves_the_units_to_serve";
    on_server(name, Image::Stocked12, async |machine| {
        let binaries = Binaries::beside_this_program().unwrap();
        let app = kept_by_hand(machine, &binaries).await;
        let downloads = Downloads::begin(&app);

        let told = dies_in_the_hand_over(machine, "handover", app.command(&["setup"]), 1).await;

        assert!(told.contains("could not learn how the hand-over of proxy and watch ended"), "{told}");
        assert!(told.contains("state: not known: the one that served may have been ended"), "{told}");
        let linked = says(machine, "readlink /usr/local/bin/cutover-host").await;
        let serves = async || (serving(machine).await == [linked.trim(), linked.trim()]).then_some(());
        wait_until("the units serve", SOON, serves).await.unwrap();
        let answers = async || app.ask("/version").await.ok().filter(|answer| answer.status == 200);
        wait_until("it answers", SOON, answers).await.unwrap();
        println!("{} downloads were lost with a hand-over that was killed", downloads.end().await);
        app.cutover(&["setup"]).await.unwrap().expect(0).unwrap();
    })
    .await;
}

/// The same where no unit is there that would begin by itself: the next upgrade knows what served, and has it serve again.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn an_upgrade_whose_hand_over_is_killed_is_finished_by_the_next_one() {
    let name = "an_upgrade_whose_hand_over_is_killed_is_finished_by_the_next_one";
    on_server(name, Image::Stocked12, async |machine| {
        let binaries = Binaries::beside_this_program().unwrap();
        let app = kept_by_hand(machine, &binaries).await;
        let other = other_program(&binaries, machine.folder());
        let upgrade = || upgrade_to(&app, &other);
        let downloads = Downloads::begin(&app);
        dies_in_the_hand_over(machine, "handover", upgrade(), 1).await;
        println!("{} downloads were lost with a hand-over that was killed", downloads.end().await);

        let again = upgrade().output().await.unwrap();

        let told = String::from_utf8_lossy(&again.stdout);
        assert!(again.status.success() && told.contains("proxy and watch go on with it"), "{told}");
        assert_eq!(app.ask("/version").await.unwrap().status, 200);
        assert_eq!(says(machine, EXECUTE).await, says(machine, "readlink /usr/local/bin/cutover-host").await);
        let third = upgrade().output().await.unwrap();
        assert!(String::from_utf8_lossy(&third.stdout).contains("is there already"), "{third:?}");
    })
    .await;
}

/// `CUTOVER_HTTP` reaches no unit: a setup is refused for it, and an upgrade after it, whose way leads to the units that the setup left.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn an_upgrade_after_a_refused_setup_gives_no_address_up() {
    let name = "an_upgrade_after_a_refused_setup_gives_no_address_up";
    on_server(name, Image::Stocked12, async |machine| {
        let binaries = Binaries::beside_this_program().unwrap();
        let app = kept_by_hand(machine, &binaries).await;
        says(machine, "cutover-host down").await;
        let up = "CUTOVER_HTTP=0.0.0.0:80,127.0.0.1:8099 setsid cutover-host up </dev/null >/dev/null 2>&1 &";
        says(machine, up).await;
        let answers = async || app.ask("/version").await.ok().filter(|answer| answer.status == 200);
        wait_until("it answers", SOON, answers).await.unwrap();
        let probe = Probe::start(app.traffic());

        for words in [["setup"], ["upgrade"]] {
            let mut command = app.command(&words);
            command.env("CUTOVER_HOST_BINARY", other_program(&binaries, machine.folder()));
            let output = command.output().await.unwrap();
            let told = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(7), "{told}");
            assert!(told.contains("127.0.0.1:8099, where the unit's proxy would not"), "{told}");
        }

        let report = probe.stop().await;
        assert_eq!(report.failed(), 0, "{report}");
        says(machine, "bash -c 'exec 3<>/dev/tcp/127.0.0.1/8099'").await;
    })
    .await;
}

/// An app on a server that was not set up: somebody put `cutover-host` there, and `cutover-host up` keeps what serves.
async fn kept_by_hand<'a>(machine: &'a Machine, binaries: &Binaries) -> ServerApp<'a> {
    let settings =
        "docker: false, logs: false, upgrades: false, time: false, firewall: false, ssh_hardening: false";
    let app = app(machine, binaries).set_up_with(settings);
    app.commit("v1", "by hand", str::to_owned).unwrap();
    machine.put(&binaries.host, "/usr/local/bin/cutover-host").await.unwrap();
    app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
    app
}

/// Kills this part of cutover once the watch that served has ended, and the proxy beside it still finishes what it has. Gives what the client says
/// of it.
async fn dies_in_the_hand_over(
    machine: &Machine,
    part: &str,
    mut command: tokio::process::Command,
    exit: i32,
) -> String {
    let one = async |part: Part| {
        machine.processes().await.unwrap().into_iter().find(|one| one.is(part)).unwrap().pid
    };
    let (watch, proxy) = (one(Part::Watch).await, one(Part::Proxy).await);
    let kill = format!(
        "while [ -d /proc/{watch} ]; do sleep 0.01; done; pkill -KILL -f '[c]utover-host {part}$' && test -d /proc/{proxy}"
    );
    let (ended, _) = tokio::join!(
        tokio::time::timeout(SOON, command.output()),
        tokio::time::timeout(SOON, says(machine, &kill))
    );
    let output = ended.unwrap().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(exit), "{told}");
    told
}

/// Downloads of which one always has a while to go: a proxy that is told to end finishes it first.
struct Downloads {
    end: tokio::sync::oneshot::Sender<()>,
    work: tokio::task::JoinHandle<usize>,
}

impl Downloads {
    fn begin(app: &ServerApp<'_>) -> Self {
        let (end, mut ends) = tokio::sync::oneshot::channel();
        let traffic = app.traffic();
        let work = async move {
            let mut all = tokio::task::JoinSet::new();
            let mut begins = tokio::time::interval(Duration::from_millis(500));
            loop {
                tokio::select! {
                    _ = begins.tick() => {}
                    _ = &mut ends => break,
                }
                let (address, host) = (traffic.address, traffic.host.clone());
                all.spawn(async move { ask(address, &host, "/slow?ms=2000").await });
            }
            let ended = all.join_all().await;
            ended.iter().filter(|one| one.as_ref().map_or(true, |answer| answer.status != 200)).count()
        };
        Self { end, work: tokio::spawn(work) }
    }

    /// How many of them were not answered.
    async fn end(self) -> usize {
        self.end.send(()).unwrap();
        self.work.await.unwrap()
    }
}

//! `cutover setup` on servers of the tests' own: a bare one becomes a host, a second time changes nothing, nobody is locked out, and what
//! serves goes on.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test stops where it fails, and says its numbers"
)]

mod hand_over;

use std::io::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use cutover_suites::engine;
use cutover_suites::servers::on_server;
use cutover_testkit::machine::{Image, Machine, Part, ServerApp, User};
use cutover_testkit::probe::{Load, Mix, Probe, fetch_entries};
use cutover_testkit::site::Binaries;
use cutover_testkit::{SOON, ask, wait_until};

/// An application of plain processes whose production is this server.
fn app<'a>(machine: &'a Machine, binaries: &Binaries) -> ServerApp<'a> {
    let app = ServerApp::of_processes(machine, binaries, "shop").unwrap();
    app.commit("v1", "first", str::to_owned).unwrap();
    app
}

/// The same program under another sum, as another release would be.
fn other_program(binaries: &Binaries, folder: &Path) -> PathBuf {
    let path = folder.join("cutover-host");
    std::fs::copy(&binaries.host, &path).unwrap();
    let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"another build").unwrap();
    path
}

/// Whether a connection from outside comes in.
async fn comes_in(machine: &Machine, port: u16) -> bool {
    comes_in_at(machine.address().into(), port).await
}

async fn comes_in_at(address: IpAddr, port: u16) -> bool {
    let connects = tokio::net::TcpStream::connect((address, port));
    matches!(tokio::time::timeout(Duration::from_secs(2), connects).await, Ok(Ok(_)))
}

async fn says(machine: &Machine, line: &str) -> String {
    machine.exec(&["sh", "-c", line]).await.unwrap()
}

/// All that setup touches, by sum and rights.
async fn traces(machine: &Machine) -> String {
    says(
        machine,
        "find /etc /usr/local -newer /var/log/boots -type f -not -path '/etc/.pwd.lock' | sort | xargs -r sha256sum; find /usr/local | sort",
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bare_server_becomes_a_host_and_is_given_back() {
    given_and_taken("a_bare_server_becomes_a_host_and_is_given_back", Image::Stocked12).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn a_bare_debian_13_becomes_a_host_and_is_given_back() {
    given_and_taken("a_bare_debian_13_becomes_a_host_and_is_given_back", Image::Debian13).await;
}

async fn given_and_taken(name: &str, image: Image) {
    on_server(name, image, async |machine| {
        let binaries = Binaries::beside_this_program().unwrap();
        let app = app(machine, &binaries).by(User::Admin);
        app.commit("v1", "by admin", str::to_owned).unwrap();

        // What is shown is not done.
        let before = traces(machine).await;
        let shown = app.cutover(&["setup", "--dry-run"]).await.unwrap().expect(0).unwrap();
        assert!(shown.output.contains("docker.io"), "{}", shown.output);
        let gone = async || (traces(machine).await == before).then_some(());
        wait_until("nothing is left of it", SOON, gone).await.unwrap();

        // The power goes while packages are being unpacked: the next setup goes on from there.
        let mut broken = app.command(&["setup"]).spawn().unwrap();
        let unpacks = async || machine.exec(&["test", "-e", "/usr/bin/containerd.dpkg-new"]).await.is_ok().then_some(());
        let installs = async || match unpacks().await {
            Some(()) => Some(()),
            None => machine.exec(&["test", "-e", "/usr/bin/containerd"]).await.is_ok().then_some(()),
        };
        wait_until("packages are unpacked", SOON, installs).await.unwrap();
        machine.lose_power().await.unwrap();
        assert!(!tokio::time::timeout(SOON, broken.wait()).await.unwrap().unwrap().success());
        machine.power_on().await.unwrap();

        let began = Instant::now();
        let first = app.cutover(&["setup"]).await.unwrap().expect(0).unwrap();
        println!("a bare {} that lost its power meanwhile is a host {:?} later", image.name(), began.elapsed());
        let shown: Vec<&str> = shown.output.lines().collect();
        let done: Vec<&str> = first.output.lines().map(str::trim).collect();
        assert!(!done.is_empty() && done.iter().all(|line| shown.contains(line) || line.starts_with("install")), "{done:?}");

        let after = traces(machine).await;
        let second = app.cutover(&["setup"]).await.unwrap().expect(0).unwrap();
        assert_eq!(second.output, "");
        assert!(second.talk.contains("nothing to change"), "{}", second.talk);
        assert_eq!(traces(machine).await, after);
        let sshd = says(machine, "sshd -T | grep -E '^(passwordauthentication|kbdinteractiveauthentication|permitrootlogin) '").await;
        assert!(!sshd.contains(" yes"), "{sshd}");

        app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
        upgrade_under_traffic(machine, &binaries, &app).await;
        a_published_port_stays_inside(machine).await;
        keys_open_sessions_only(machine, &app).await;

        let began = Instant::now();
        machine.reboot().await.unwrap();
        let answers = async || app.ask("/version").await.ok().filter(|answer| answer.status == 200);
        wait_until("it serves again", SOON, answers).await.unwrap();
        println!("serving {:?} after the reboot began", began.elapsed());
        assert!(says(machine, "nft list table inet cutover").await.contains("drop"));

        let undone = app.cutover(&["teardown", "--yes"]).await.unwrap().expect(0).unwrap();
        assert!(undone.output.contains("data stays"), "{}", undone.output);
        let left = says(
            machine,
            "ls /etc/systemd/system /etc/cutover /etc/ssh/sshd_config.d /usr/local/bin /etc/logrotate.d; nft list tables; getent passwd cutover || true",
        )
        .await;
        assert!(!left.contains("cutover-proxy") && !left.contains("10-cutover") && !left.contains("inet cutover"), "{left}");
        says(machine, "test -s /var/lib/cutover/cutover.db && test ! -e /etc/docker/daemon.json").await;
    })
    .await;
}

/// The proxy goes on with another program; nobody notices.
async fn upgrade_under_traffic(machine: &Machine, binaries: &Binaries, app: &ServerApp<'_>) {
    let program = other_program(binaries, machine.folder());
    let probe = Probe::start(app.traffic());
    let mut command = app.command(&["upgrade"]);
    let output = command.env("CUTOVER_HOST_BINARY", &program).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report = probe.stop().await;
    assert_eq!(report.failed(), 0, "{report}");
    println!("upgraded under {} requests, {} failed", report.sent(), report.failed());
    let programs = says(
        machine,
        "readlink /proc/$(systemctl show -P MainPID cutover-proxy)/exe; ls /usr/local/lib/cutover | wc -l",
    )
    .await;
    let (runs, kept) = programs.split_once('\n').unwrap();
    let linked = says(machine, "readlink /usr/local/bin/cutover-host").await;
    assert_eq!(runs, linked);
    assert_eq!(kept.trim(), "2", "the old one stays");
    upgrade_broken_off(machine, app, linked.trim()).await;
}

/// The link leads to the one, and what serves is the other.
async fn upgrade_broken_off(machine: &Machine, app: &ServerApp<'_>, other: &str) {
    let relink = format!(
        "ln -sfn $(ls -d /usr/local/lib/cutover/*/cutover-host | grep -vxF {other}) /usr/local/bin/cutover-host"
    );
    says(machine, &relink).await;
    let probe = Probe::start(app.traffic());

    let told = app.cutover(&["upgrade"]).await.unwrap().expect(0).unwrap();

    assert!(told.output.contains("proxy and watch go on with it"), "{}", told.output);
    let linked = says(machine, "readlink /usr/local/bin/cutover-host").await;
    assert_ne!(linked.trim(), other);
    assert_eq!(serving(machine).await, [linked.trim(), linked.trim()]);
    let again = app.cutover(&["upgrade"]).await.unwrap().expect(0).unwrap();
    assert!(again.output.contains("is there already"), "{}", again.output);
    // Of watch alone, `setup` goes on with it, too.
    let leads = async |to: &str| says(machine, &format!("ln -sfn {to} /usr/local/bin/cutover-host")).await;
    leads(other).await;
    says(machine, "systemctl restart cutover-watch").await;
    let watches = async || (serving(machine).await[1] == other).then_some(());
    wait_until("watch executes the other one", SOON, watches).await.unwrap();
    leads(linked.trim()).await;
    let renewed = app.cutover(&["setup"]).await.unwrap().expect(0).unwrap();
    assert!(renewed.output.contains("restart proxy and watch"), "{}", renewed.output);
    assert_eq!(serving(machine).await, [linked.trim(), linked.trim()]);

    // The new one does not begin: the one before serves on.
    let refuses = format!(
        "mkdir -p /run/systemd/system/cutover-proxy.service.d && cat >/run/systemd/system/cutover-proxy.service.d/refuse.conf <<'END'\n\
         [Service]\nExecStartPre=/bin/sh -c 'test \"$(readlink /usr/local/bin/cutover-host)\" = {}'\nEND\n",
        linked.trim()
    );
    says(machine, &refuses).await;
    let program = other_program(&Binaries::beside_this_program().unwrap(), machine.folder());
    let mut command = app.command(&["upgrade"]);
    let output = command.env("CUTOVER_HOST_BINARY", &program).output().await.unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && told.contains("proxy and watch go on with cutover-host"), "{told}");
    assert_eq!(says(machine, "readlink /usr/local/bin/cutover-host").await, linked);
    assert_eq!(serving(machine).await, [linked.trim(), linked.trim()]);
    says(machine, "rm -r /run/systemd/system/cutover-proxy.service.d && systemctl daemon-reload").await;
    let report = probe.stop().await;
    assert_eq!(report.failed(), 0, "{report}");
}

/// What proxy and watch execute.
async fn serving(machine: &Machine) -> [String; 2] {
    let line = "for unit in proxy watch; do readlink /proc/$(systemctl show -P MainPID cutover-$unit)/exe || echo none; done";
    let said = says(machine, line).await;
    let mut lines = said.lines().map(str::to_owned);
    [(); 2].map(|()| lines.next().unwrap())
}

/// Docker publishes past the input chain: from outside nobody gets to it, from within everybody does.
async fn a_published_port_stays_inside(machine: &Machine) {
    let six: IpAddr = machine.join_six().await.unwrap().into();
    // An engine looks for IPv6 as it starts.
    says(machine, "sysctl -q -w net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.lo.disable_ipv6=0 && systemctl restart docker").await;
    let image = machine.folder().join("image.tar");
    engine::shell_image(&engine::usable().await.unwrap()).unwrap();
    let (base, saved) = (engine::SHELL_IMAGE, image.display().to_string());
    let mut command = tokio::process::Command::new("docker");
    assert!(command.args(["save", "--output", &saved, base]).status().await.unwrap().success());
    machine.put(&image, "/root/image.tar").await.unwrap();
    let listen = format!(
        "docker run -d -p 5432:5432 -p 443:5432 {base} sh -c 'while true; do echo hello | nc -l -p 5432; done'"
    );
    says(machine, &format!("docker load --quiet --input /root/image.tar && {listen}")).await;

    let open = async || comes_in(machine, 443).await.then_some(());
    wait_until("what may be reached is", SOON, open).await.unwrap();
    assert!(!comes_in(machine, 5432).await, "a published port is open to the outside");
    let within = "timeout 5 bash -c 'exec 3<>/dev/tcp/127.0.0.1/5432'";
    says(machine, within).await;
    // Over IPv6 a process of the engine takes it in, and no rule of the engine's.
    let open_by_six = async || comes_in_at(six, 443).await.then_some(());
    wait_until("what may be reached is, by IPv6", SOON, open_by_six).await.unwrap();
    assert!(!comes_in_at(six, 5432).await, "a published port is open to the outside by IPv6");

    // The engine writes its rules anew when it starts.
    says(machine, "systemctl restart docker").await;
    wait_until("what may be reached is, again", SOON, open).await.unwrap();
    assert!(!comes_in(machine, 5432).await, "a restart of the engine opened it");
    // A shell that is a container's first process hears no signal: a reboot would wait for it.
    says(machine, "docker rm --force $(docker ps --quiet)").await;
}

async fn keys_open_sessions_only(machine: &Machine, app: &ServerApp<'_>) {
    let key = machine.folder().join("ci");
    let mut command = tokio::process::Command::new("ssh-keygen");
    let made = command
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "ci@example", "-f"])
        .arg(&key)
        .status()
        .await
        .unwrap();
    assert!(made.success());
    let public = key.with_extension("pub");
    app.cutover(&["key", "add", &public.display().to_string()]).await.unwrap().expect(0).unwrap();
    let listed = app.cutover(&["key", "list"]).await.unwrap().expect(0).unwrap();
    assert!(listed.output.contains("ci@example"), "{}", listed.output);

    // Whatever it asks for, it gets a session; and a session of its does not change the server.
    let words =
        "{\"ask\":\"hello\",\"version\":1,\"package\":\"x\"}\n{\"ask\":\"setup\",\"setup\":\"keys\"}\n";
    let said = by_key(machine, &key, words).await;
    assert!(
        said.contains("\"reply\":\"hello\"") && said.contains("a deploy key does not change the server"),
        "{said}"
    );

    app.cutover(&["key", "revoke", "ci@example"]).await.unwrap().expect(0).unwrap();
    assert_eq!(by_key(machine, &key, words).await, "");
}

/// What a login of the deploy user is told, whatever it wants to execute.
async fn by_key(machine: &Machine, key: &Path, words: &str) -> String {
    let mut command = tokio::process::Command::new(machine.ssh_program());
    command.args(["-T", "-o", "BatchMode=yes", "-o"]).arg(format!("IdentityFile={}", key.display()));
    command.arg(format!("cutover@{}", machine.address())).arg("cat /etc/shadow");
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut input, words.as_bytes()).await.ok();
    drop(input);
    let output = tokio::time::timeout(SOON, child.wait_with_output()).await.unwrap().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A program of the shell.
fn program(path: &Path, text: &str) {
    std::fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_would_be_locked_out_is_not() {
    on_server("whoever_would_be_locked_out_is_not", Image::Stocked12, async |machine| {
        let binaries = Binaries::beside_this_program().unwrap();
        let settings = "docker: false, logs: false, services: false, upgrades: false, time: false";
        let app = app(machine, &binaries).set_up_with(settings);
        let packages = "DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends nftables";
        let colleague = "useradd -m -s /bin/bash carol && echo carol:secret | chpasswd; nft 'add table ip lab; \
             add chain ip lab guests { type nat hook prerouting priority 0; }; add rule ip lab guests tcp dport 9 dnat to 10.9.9.9'";
        says(machine, &format!("{packages} && {colleague}")).await;
        // The server is reached by another port than sshd knows of: the rules would cut it.
        let door = "systemd-run --quiet --unit=door --socket-property=ListenStream=2222 --socket-property=Accept=no \
                    /lib/systemd/systemd-socket-proxyd 127.0.0.1:22";
        says(machine, &format!("{door} 2>/dev/null || true; systemctl start door.socket 2>/dev/null || true")).await;
        assert!(comes_in(machine, 2222).await, "the other door is open");
        app.commit("v1", "by another door", |text| {
            let target = machine.target(User::Root);
            text.replace(&format!("hosts: [\"{target}\"]"), &format!("hosts: [\"{target}:2222\"]"))
        })
        .unwrap();
        let known = machine.folder().join("known_hosts");
        let line = std::fs::read_to_string(&known).unwrap();
        let other = line.replace(&machine.address().to_string(), &format!("[{}]:2222", machine.address()));
        std::fs::write(&known, format!("{line}{other}")).unwrap();

        // Who comes in by a tunnel would be cut off at its next handshake, which a second connection by it does not show.
        let by_tunnel = machine.folder().join("by-tunnel");
        let tunnel = "mkdir -p /dev/net; test -e /dev/net/tun || mknod /dev/net/tun c 10 200; \
                      ip tuntap add dev wg0 mode tun && ip address add 10.99.0.1/32 dev wg0";
        says(machine, tunnel).await;
        let connection = "export SSH_CONNECTION=\\\"10.99.0.2 40000 10.99.0.1 22\\\"; ";
        program(
            &by_tunnel,
            &format!(
                "exec bash -c 'last=${{@: -1}}; exec {} \"${{@:1:$#-1}}\" \"{connection}$last\"' - \"$@\"",
                machine.ssh_program().display()
            ),
        );
        let output = app.command(&["setup", "--dry-run"]).env("CUTOVER_SSH", &by_tunnel).output().await.unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && told.contains("you come in by wg0, a tunnel"), "{told}");
        assert!(!String::from_utf8_lossy(&output.stdout).contains("let in nothing"), "{output:?}");

        // Whoever listens there and would be cut off is named, and nobody is there to approve it.
        let asked = app.cutover(&["setup"]).await.unwrap().expect(2).unwrap();
        assert!(asked.talk.contains("the firewall cuts off") && asked.talk.contains("(TCP 2222)"), "{}", asked.talk);
        assert!(asked.talk.contains("ports that chain guests of table ip lab forwards"), "{}", asked.talk);
        assert!(asked.talk.contains("have one and no key: carol"), "{}", asked.talk);
        let told = app.cutover(&["setup", "--yes"]).await.unwrap().expect(1).unwrap();

        assert!(told.talk.contains("a second connection did not come in"), "{}", told.talk);
        assert!(comes_in(machine, 2222).await, "it was taken back");
        let left = says(machine, "nft list tables; ls /etc/ssh/sshd_config.d /var/lib/cutover/setup").await;
        assert!(!left.contains("inet cutover") && !left.contains("10-cutover") && !left.contains("trial"), "{left}");

        // The client dies in the very moment: nobody confirms, and it is taken back all the same.
        let dies = machine.folder().join("dies");
        let text = format!(
            "case \"$*\" in *ControlPath=none*) kill -9 $PPID; exit 1;; esac\nexec {} \"$@\"",
            machine.ssh_program().display()
        );
        program(&dies, &text);
        let mut command = app.command(&["setup", "--yes"]);
        let output = command.env("CUTOVER_SSH", &dies).output().await.unwrap();
        assert!(!output.status.success());
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(!comes_in(machine, 2222).await, "the rules are not loaded: {told}");
        let open = async || comes_in(machine, 2222).await.then_some(());
        wait_until("the rules are taken back", SOON, open).await.unwrap();
        machine.ssh(User::Root, "true").await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_serves_already_goes_on_serving() {
    on_server("what_serves_already_goes_on_serving", Image::Stocked12, async |machine| {
        let binaries = Binaries::beside_this_program().unwrap();
        let app = app(machine, &binaries).set_up_with("docker: false, upgrades: false, time: false");
        app.commit("v1", "by hand", str::to_owned).unwrap();
        machine.put(&binaries.host, "/usr/local/bin/cutover-host").await.unwrap();
        app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
        assert!(says(machine, "pgrep -fa 'cutover-host up'").await.contains("up"));
        app.commit("v1", "set up", str::to_owned).unwrap();

        let probe = Probe::start(app.traffic());
        app.cutover(&["setup"]).await.unwrap().expect(0).unwrap();
        let report = probe.stop().await;

        assert_eq!(report.failed(), 0, "{report}");
        println!("set up under {} requests, {} failed", report.sent(), report.failed());
        let unit = says(
            machine,
            "systemctl is-active cutover-proxy cutover-watch; pgrep -fa 'cutover-host [u]p' || true",
        )
        .await;
        assert_eq!(unit.trim(), "active\nactive");
        // A run is in a unit of its own: it does not end with the session that began it.
        app.commit("v2", "second", str::to_owned).unwrap();
        let probe = Probe::start(app.traffic());
        app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
        says(machine, "systemctl restart cutover-proxy").await;
        let restarted = probe.lap();
        assert_eq!(restarted.failed(), 0, "{restarted}");
        println!("deployed and restarted under {} requests, 0 failed", restarted.sent());
        killed_under_traffic(machine, &app, &probe, 3).await;
        probe.stop().await;
        listens_elsewhere(machine).await;
        let keepers = says(machine, "systemctl list-units --no-legend 'cutover-keep-*.scope' | wc -l").await;
        assert_ne!(keepers, "0", "keepers are units of their own");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn units_that_do_not_serve_give_back_what_they_took_over() {
    let name = "units_that_do_not_serve_give_back_what_they_took_over";
    on_server(name, Image::Stocked12, async |machine| {
        let binaries = Binaries::beside_this_program().unwrap();
        let app = app(machine, &binaries).set_up_with("docker: false, upgrades: false, time: false");
        app.commit("v1", "by hand", str::to_owned).unwrap();
        let by_hand = other_program(&binaries, machine.folder());
        machine.put(&by_hand, "/usr/local/bin/cutover-host").await.unwrap();
        app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();

        let folder = "/etc/systemd/system/cutover-proxy.service.d";
        let supervisor = async || says(machine, "pgrep -f 'cutover-host [u]p'").await;
        let before = supervisor().await;
        app.commit("v1", "set up", str::to_owned).unwrap();
        let probe = Probe::start(app.traffic());
        // Given a unit that would listen elsewhere: nobody is ended for it.
        let elsewhere = "/var/lib/cutover/host.yml";
        says(machine, &format!("echo 'http: 127.0.0.1:8081' >{elsewhere}")).await;
        let told = app.cutover(&["setup"]).await.unwrap().expect(7).unwrap();
        assert!(told.talk.contains("listens on [::]:80, where the unit's proxy would not"), "{}", told.talk);
        assert_eq!(supervisor().await, before);
        says(machine, &format!("rm {elsewhere}")).await;
        // Given a unit that does not start at all, and one whose proxy begins, takes its turn, and cannot listen then.
        for (broken, stays) in
            [("ExecStartPre=/bin/false", true), ("Environment=CUTOVER_HTTP=203.0.113.1:80", false)]
        {
            let add = format!("mkdir -p {folder} && printf '[Service]\\n{broken}\\n' >{folder}/broken.conf");
            says(machine, &add).await;
            let began = Instant::now();
            let told = app.cutover(&["setup"]).await.unwrap().expect(1).unwrap();
            assert!(told.talk.contains("`cutover-host up` keeps proxy and watch as before"), "{}", told.talk);
            assert!(told.talk.contains("ends each time that systemd starts it"), "{}", told.talk);
            assert_eq!(supervisor().await == before, stays, "who served was ended only for one that waits");
            let given_back = "sha256sum </usr/local/bin/cutover-host && sha256sum </proc/$(pgrep -f 'cutover-host [u]p')/exe";
            let sums = says(machine, given_back).await;
            assert!(sums.lines().all(|sum| sum == sum_of(&by_hand)), "{broken}: {sums}");
            let lap = probe.lap();
            assert_eq!(lap.failed(), 0, "{broken}: {lap}");
            println!(
                "{broken}: set up in vain for {:?} under {} requests, 0 failed",
                began.elapsed(),
                lap.sent()
            );
        }
        app.commit("v2", "in between", str::to_owned).unwrap();
        app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();

        says(machine, &format!("rm -r {folder}")).await;
        app.cutover(&["setup"]).await.unwrap().expect(0).unwrap();
        let report = probe.stop().await;
        assert_eq!(report.failed(), 0, "{report}");
        assert_eq!(
            says(machine, "systemctl is-active cutover-proxy cutover-watch").await.trim(),
            "active\nactive"
        );
    })
    .await;
}

/// As `sha256sum` says it of its standard input.
fn sum_of(path: &Path) -> String {
    let sum = cutover_core::hash::ContentHash::of(&std::fs::read(path).unwrap());
    format!("{sum}  -")
}

/// The host is told another port: on the one before nobody takes connections in that nobody would accept.
async fn listens_elsewhere(machine: &Machine) {
    let line = "echo \"http: ['0.0.0.0:8080']\" >/var/lib/cutover/host.yml && systemctl restart cutover-proxy && ss -ltn";
    let listens = says(machine, line).await;
    assert!(listens.contains(":8080 ") && !listens.contains(":80 "), "{listens}");
}

/// The proxy is killed again and again: what was inside it fails, and nothing that comes later.
async fn killed_under_traffic(machine: &Machine, app: &ServerApp<'_>, probe: &Probe, times: usize) {
    for _ in 0..times {
        let killed = machine.kill(|one| one.is(Part::Proxy)).await.unwrap();
        let gone = SystemTime::now();
        assert_eq!(killed, 1);
        let back = async || app.ask("/version").await.ok().filter(|answer| answer.status == 200);
        wait_until("the proxy is back", SOON, back).await.unwrap();
        let lap = probe.lap();
        let inside = lap.failed_begun_before(gone);
        println!("killed under {} requests: {inside} were inside it", lap.sent());
        assert_eq!(lap.failed() - inside, 0, "{lap}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn a_proxy_that_is_killed_loses_only_what_was_inside_it() {
    on_server("a_proxy_that_is_killed_loses_only_what_was_inside_it", Image::Debian13, async |machine| {
        let binaries = Binaries::beside_this_program().unwrap();
        let settings =
            "docker: false, logs: false, upgrades: false, time: false, firewall: false, ssh_hardening: false";
        let app = app(machine, &binaries).set_up_with(settings);
        app.commit("v1", "first", str::to_owned).unwrap();
        app.cutover(&["setup"]).await.unwrap().expect(0).unwrap();
        app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
        let mut options = app.traffic();
        // New connections above all: they wait in a queue that outlives the proxy.
        options.mix = Mix {
            get: Load { fresh: 12, keep_alive: 2 },
            post: Load { fresh: 4, keep_alive: 2 },
            ..Mix::NONE
        };
        let probe = Probe::start(options);
        killed_under_traffic(machine, &app, &probe, 40).await;
        let report = probe.stop().await;
        let found = report.verify_entries(&fetch_entries(&app.traffic()).await.unwrap());
        assert!(found.is_complete(), "{:?} {:?}", found.missing, found.twice);
    })
    .await;
}

/// Whoever logs out takes with them what they started, and none of it is ours (S11).
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn what_serves_outlives_the_login_that_started_it() {
    on_server("what_serves_outlives_the_login_that_started_it", Image::Debian13, async |machine| {
        let binaries = Binaries::beside_this_program().unwrap();
        let settings = "docker: false, logs: false, upgrades: false, time: false, firewall: false, ssh_hardening: false";
        let app = app(machine, &binaries).by(User::Admin).set_up_with(settings);
        let packages = "apt-get update -q && apt-get install -y -q --no-install-recommends libpam-systemd";
        says(machine, packages).await;
        let login = "systemctl unmask systemd-logind && mkdir -p /etc/systemd/logind.conf.d && \
                     printf '[Login]\\nKillUserProcesses=yes\\n' >/etc/systemd/logind.conf.d/kill.conf";
        says(machine, login).await;
        machine.reboot().await.unwrap();
        // It is so: what a login leaves running ends with it.
        machine.ssh(User::Admin, "setsid sleep 4242 >/dev/null 2>&1 </dev/null & sleep 0.2; pgrep -f 'sleep 424[2]'").await.unwrap();
        let ended = async || says(machine, "pgrep -fc 'sleep 424[2]' || true").await.starts_with('0').then_some(());
        wait_until("a login's own process has ended", SOON, ended).await.unwrap();

        machine.put(&binaries.host, "/usr/local/bin/cutover-host").await.unwrap();
        app.commit("v1", "without units", str::to_owned).unwrap();
        app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
        let gone = async || (!says(machine, "loginctl --no-legend list-sessions").await.contains("admin")).then_some(());
        wait_until("nobody is logged in", SOON, gone).await.unwrap();
        assert_eq!(app.ask("/version").await.unwrap().status, 200);
        assert!(says(machine, "pgrep -fa 'cutover-host [u]p' || true").await.contains("up"), "it ended with the login");

        for subject in ["second", "third"] {
            let probe = Probe::start(app.traffic());
            app.commit("v2", subject, |text| text.replace("bake: 1s", "bake: 4s")).unwrap();
            app.cutover(&["deploy", "--detach"]).await.unwrap().expect(0).unwrap();
            wait_until("nobody is logged in", SOON, gone).await.unwrap();
            let done = async || {
                let status = app.status().await.ok().filter(|status| status.lock.is_none())?;
                (status.live?.subject.as_deref() == Some(subject)).then_some(())
            };
            wait_until("the run has gone on to its end", SOON, done).await.unwrap();
            let report = probe.stop().await;
            assert_eq!(report.failed(), 0, "{report}");
            app.cutover(&["setup"]).await.unwrap().expect(0).unwrap();
        }
        let each = "began=$(date +%s%N); for i in $(seq 20); do systemd-run --scope --collect --quiet -- true; done; echo $((($(date +%s%N) - began) / 20000000))";
        println!("a unit of its own takes {} ms", says(machine, each).await);
    })
    .await;
}

/// What of a release lies beside `cutover`, in a folder of the test's own.
struct Release {
    folder: PathBuf,
    binaries: Binaries,
}

impl Release {
    /// With the program for servers of this kind alone.
    fn new(machine: &Machine) -> Self {
        let built = Binaries::beside_this_program().unwrap();
        let folder = machine.folder().join("release");
        std::fs::create_dir(&folder).unwrap();
        let cutover = folder.join("cutover");
        std::fs::copy(&built.cutover, &cutover).unwrap();
        let release = Self { folder, binaries: Binaries { cutover, ..built } };
        release.has(std::env::consts::ARCH, &std::fs::read(&release.binaries.host).unwrap());
        release
    }

    /// It has this program, too, and says its sum.
    fn has(&self, machine: &str, program: &[u8]) {
        std::fs::write(self.folder.join(format!("cutover-host-{machine}-linux")), program).unwrap();
        let sums = ["-c", "sha256sum cutover cutover-host-*-linux >SHA256SUMS"];
        let mut command = std::process::Command::new("sh");
        assert!(command.args(sums).current_dir(&self.folder).status().unwrap().success());
    }

    /// What setup says where nobody names a program; nothing of it stays on the server.
    async fn refused(&self, app: &ServerApp<'_>, ssh: Option<&Path>, texts: &[&str]) {
        let mut command = app.command(&["setup"]);
        command.env_remove("CUTOVER_HOST_BINARY");
        if let Some(ssh) = ssh {
            command.env("CUTOVER_SSH", ssh);
        }
        let output = tokio::time::timeout(SOON, command.output()).await.unwrap().unwrap();
        let talk = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{talk}");
        for text in texts.iter().chain(&["state: nothing was touched", "next:"]) {
            assert!(talk.contains(text), "{text}: {talk}");
        }
    }
}

/// The head of a program for the other kind of machine.
fn of_the_other_kind() -> (&'static str, Vec<u8>) {
    let (machine, number) = match std::env::consts::ARCH {
        "x86_64" => ("aarch64", 0xb7),
        _ => ("x86_64", 0x3e),
    };
    let mut program = b"\x7fELF\x02\x01\x01".to_vec();
    program.resize(18, 0);
    program.extend([number, 0]);
    program.resize(4_096, 7);
    (machine, program)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_gets_the_program_of_its_own_kind_and_none_that_is_not_what_it_should_be() {
    let name = "a_server_gets_the_program_of_its_own_kind_and_none_that_is_not_what_it_should_be";
    on_server(name, Image::Stocked12, async |machine| {
        let release = Release::new(machine);
        let settings =
            "docker: false, logs: false, services: false, upgrades: false, time: false, firewall: false, ssh_hardening: false";
        let app = app(machine, &release.binaries).set_up_with(settings);
        app.commit("v1", "of a release", str::to_owned).unwrap();
        let before = traces(machine).await;
        let (other, program) = of_the_other_kind();
        let named = format!("cutover-host-{other}-linux");

        // A server of the other kind, for which there is none, and then one.
        says(machine, &format!("mv /usr/bin/uname /usr/bin/uname.kept && printf '#!/bin/sh\\ncase $1 in -m) echo {other};; *) exec uname.kept \"$@\";; esac\\n' >/usr/bin/uname && chmod 755 /usr/bin/uname")).await;
        release.refused(&app, None, &[&format!("no cutover-host for a server of {other}"), &named]).await;
        release.has(other, &program);
        // What comes is that one: this server cannot carry it out.
        release.refused(&app, None, &["Exec format error"]).await;
        says(machine, "mv /usr/bin/uname.kept /usr/bin/uname").await;

        // One of which the release says another sum, and one that changes on its way.
        let own = release.folder.join(format!("cutover-host-{}-linux", std::env::consts::ARCH));
        let whole = std::fs::read(&own).unwrap();
        std::fs::write(&own, &whole[..whole.len() - 1]).unwrap();
        release.refused(&app, None, &["is not the program that it should be", "SHA256SUMS"]).await;
        std::fs::write(&own, &whole).unwrap();
        let ssh = machine.folder().join("changes-a-byte");
        let way = "import os\ndef send(piece):\n    while piece: piece = piece[os.write(1, piece):]\nleft = 1000000\nwhile True:\n    piece = os.read(0, 65536)\n    if not piece: break\n    left -= len(piece)\n    if left < 0 < left + len(piece): piece = piece[:-1] + bytes([255 - piece[-1]])\n    send(piece)";
        std::fs::write(&ssh, format!("#!/bin/sh\npython3 -c '{way}' | exec {} \"$@\"\n", machine.ssh_program().display())).unwrap();
        std::fs::set_permissions(&ssh, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        release.refused(&app, Some(&ssh), &["what arrived there is not what was sent: the sums differ"]).await;
        let gone = async || (traces(machine).await == before).then_some(());
        wait_until("nothing of them is left", SOON, gone).await.unwrap();

        // And the one of its own kind is what it then has.
        let mut command = app.command(&["setup"]);
        let output = command.env_remove("CUTOVER_HOST_BINARY").output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let there = says(machine, "sha256sum </usr/local/bin/cutover-host").await;
        let sums = std::fs::read_to_string(release.folder.join("SHA256SUMS")).unwrap();
        assert!(sums.contains(there.trim_end_matches([' ', '-'])), "{there} {sums}");

        // Where nobody serves, none is told to go on with the next.
        let next = other_program(&release.binaries, machine.folder());
        let output = app.command(&["upgrade"]).env("CUTOVER_HOST_BINARY", &next).output().await.unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && told.contains("nobody keeps proxy and watch here"), "{told}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_be_set_up_is_left_alone() {
    on_server("a_server_that_cannot_be_set_up_is_left_alone", Image::Stocked12, async |machine| {
        let binaries = Binaries::beside_this_program().unwrap();
        let before = traces(machine).await;
        let refused = async |app: &ServerApp<'_>, exit: i32, texts: &[&str]| {
            let told = app.cutover(&["setup"]).await.unwrap().expect(exit).unwrap();
            for text in texts.iter().chain(&["state: nothing was touched", "next:"]) {
                assert!(told.talk.contains(text), "{text}: {}", told.talk);
            }
        };
        let guest = app(machine, &binaries).by(User::Guest);
        guest.commit("v1", "by guest", str::to_owned).unwrap();
        refused(&guest, 1, &["may not become root", "sudo: a password is required"]).await;

        let app = app(machine, &binaries);
        says(machine, "mount -t tmpfs -o size=30m tmpfs /usr/local").await;
        refused(&app, 1, &["/usr/local has room for 30720 KiB"]).await;
        says(machine, "umount /usr/local").await;

        says(machine, "cp -L /etc/os-release /root/kept && rm /etc/os-release && sed 's/^ID=.*/ID=fedora/; s/^PRETTY_NAME=.*/PRETTY_NAME=Fedora/' /root/kept >/etc/os-release").await;
        refused(&app, 7, &["setup does not know Fedora", "Debian 12, Debian 13, Ubuntu 22.04, Ubuntu 24.04"]).await;
        says(machine, "rm /etc/os-release && ln -s ../usr/lib/os-release /etc/os-release").await;

        assert_eq!(traces(machine).await, before);
    })
    .await;
}

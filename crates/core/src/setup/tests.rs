//! Goldens of what people read, and the promise that what was changed is not changed again.

use super::*;

fn wanted(ingress: Ingress) -> Wanted {
    Wanted {
        backups: false,
        app: "shop/production".parse().unwrap(),
        program: "0.1.0-aaaaaaaaaaaa".to_owned(),
        settings: SetupSettings::default(),
        ingress,
        secrets: ["POSTGRES_PASSWORD".parse().unwrap()].into(),
    }
}

/// A server as it comes.
fn fresh() -> Found {
    Found {
        distribution: Distribution {
            id: "debian".to_owned(),
            version: "12".to_owned(),
            name: "Debian GNU/Linux 12 (bookworm)".to_owned(),
        },
        init: Init::Systemd,
        linked: None,
        outdated: false,
        packages: ["logrotate".to_owned()].into(),
        files: std::collections::BTreeMap::new(),
        engine: Engine::Absent,
        engine_told: EngineTold::default(),
        units: std::collections::BTreeMap::new(),
        firewall: None,
        ssh: SshFound {
            ports: [22].into(),
            passwords: true,
            root_login: "yes".to_owned(),
            login: "root".to_owned(),
            has_key: true,
            by_password: std::collections::BTreeSet::new(),
            installed: true,
            tunnel: None,
            tunnel_port: None,
        },
        http: [80].into(),
        taken: std::collections::BTreeMap::new(),
        listeners: std::collections::BTreeSet::new(),
        portless: std::collections::BTreeSet::new(),
        other_firewall: None,
        clock: Clock::Unkept,
        secrets: std::collections::BTreeSet::new(),
        room: Room { memory: 1 << 30, swap: 0, disk: 40 << 30 },
        record: Record::default(),
    }
}

fn sentences(decision: &Decision) -> String {
    let changes = decision.changes.iter().map(Change::sentence);
    let warnings = decision.warnings.iter().map(|warning| format!("! {warning}"));
    changes.chain(warnings).collect::<Vec<_>>().join("\n")
}

/// The host after the changes, as a look would find it.
fn after(found: &Found, wanted: &Wanted, changes: &[Change]) -> Found {
    let mut found = found.clone();
    for change in changes {
        match &change.act {
            Act::Program { folder } => found.linked = Some(folder.clone()),
            Act::Packages { names } => {
                found.packages.extend(names.iter().cloned());
                if names.contains("docker.io") {
                    found.engine = Engine::Answers { running: 0, live_restore: true };
                }
                if names.contains("systemd-timesyncd") {
                    found.clock = Clock::Kept;
                }
            }
            Act::File { path, text, .. } => {
                found.files.insert(path.clone(), text.clone());
            }
            Act::EngineFile { text, added, .. } => {
                found.files.insert(place::ENGINE.to_owned(), text.clone());
                found.record.engine_keys.extend(added.clone());
            }
            Act::Engine => found.engine = Engine::Answers { running: 0, live_restore: false },
            Act::Units { names } => {
                let unit = Unit { enabled: true, active: true };
                found.units.extend(names.iter().map(|name| (name.clone(), unit)));
            }
            Act::Renew => found.outdated = false,
            Act::Secrets { names } => found.secrets.extend(names.iter().cloned()),
            Act::Firewall { rules, .. } => {
                found.firewall = Some(rules.clone());
                found.files.insert(place::FIREWALL.to_owned(), rules.clone());
                found.units.insert(place::FIREWALL_UNIT.to_owned(), Unit { enabled: true, active: true });
            }
            Act::Sshd { text, .. } => {
                found.files.insert(place::SSHD.to_owned(), text.clone());
                found.ssh.passwords = false;
                if text.contains("PermitRootLogin") {
                    found.ssh.root_login = "without-password".to_owned();
                }
            }
        }
    }
    found.record = found.record.with(wanted);
    found
}

#[test]
fn given_a_fresh_server_then_everything_is_told_and_done_once() {
    let (wanted, found) = (wanted(Ingress::Routes), fresh());
    let first = decide(&wanted, &found);

    insta::assert_snapshot!(sentences(&first), @r"
        install cutover-host 0.1.0-aaaaaaaaaaaa at /usr/local/bin/cutover-host
        write /etc/logrotate.d/cutover (rotates the logs of cutover's own processes)
        add live-restore = true, log-opts.max-file = 5, log-opts.max-size = 20m to /etc/docker/daemon.json, before the engine's first start
        install docker.io, nftables, systemd-timesyncd, unattended-upgrades
        write /etc/apt/apt.conf.d/52cutover-upgrades (security upgrades every day)
        write /etc/systemd/system/cutover-dead-man.service (takes back at boot what was on trial when the power went)
        write /etc/systemd/system/cutover-proxy.service (the proxy's unit)
        write /etc/systemd/system/cutover-watch.service (watch's unit)
        start cutover-dead-man.service, cutover-proxy.service, cutover-watch.service, now and at boot
        make values for POSTGRES_PASSWORD in the app's env file (0600)
        write /etc/systemd/system/cutover-firewall.service (loads the firewall at boot)
        let in nothing but TCP 22, 80, 443, published ports of containers included; taken back unless a second connection succeeds
        let sshd accept keys only, no passwords; taken back unless a second connection succeeds
        ! there is 1.0 GiB of memory and no swap: two releases side by side may not fit; `fallocate -l 1G /swapfile`, `mkswap`, `swapon` and a line in /etc/fstab help
        ");
    let second = decide(&wanted, &after(&found, &wanted, &first.changes));
    assert_eq!(second.changes, []);
}

#[test]
fn where_the_engine_comes_without_its_client_that_comes_too() {
    let wanted = wanted(Ingress::Routes);
    let mut found = fresh();
    found.distribution.version = "13".to_owned();
    let has_client = |decision: &Decision| {
        let of_packages = decision.changes.iter().find_map(|change| match &change.act {
            Act::Packages { names } => Some(names.contains("docker-cli")),
            _ => None,
        });
        of_packages.unwrap_or_default()
    };
    let first = decide(&wanted, &found);
    assert!(has_client(&first) && !has_client(&decide(&wanted, &fresh())));
    assert_eq!(decide(&wanted, &after(&found, &wanted, &first.changes)).changes, []);

    // An engine of other packages has a client of its own.
    found.engine = Engine::Answers { running: 0, live_restore: true };
    assert!(!has_client(&decide(&wanted, &found)));
    // A host that was set up before this was so gets it now.
    found.packages.insert("docker.io".to_owned());
    assert!(has_client(&decide(&wanted, &found)));
}

#[test]
fn given_a_host_that_has_something_of_everything_then_what_stands_there_stays() {
    let wanted = Wanted { secrets: std::collections::BTreeSet::new(), ..wanted(Ingress::None) };
    let mut found = fresh();
    found.engine = Engine::Answers { running: 3, live_restore: false };
    found.files.insert(
        place::ENGINE.to_owned(),
        "{\"log-opts\": {\"max-size\": \"1g\"}, \"registry-mirrors\": [\"https://mirror.example\"]}"
            .to_owned(),
    );
    found.ssh.ports = [2222].into();
    found.ssh.has_key = false;
    found.clock = Clock::Kept;
    found.other_firewall = Some("ufw".to_owned());

    let decision = decide(&wanted, &found);

    insta::assert_snapshot!(sentences(&decision), @r"
        install cutover-host 0.1.0-aaaaaaaaaaaa at /usr/local/bin/cutover-host
        write /etc/logrotate.d/cutover (rotates the logs of cutover's own processes)
        add live-restore = true, log-opts.max-file = 5 to /etc/docker/daemon.json, without a restart of the engine: its containers run; limits of logs hold from its next start on
        install nftables, unattended-upgrades
        write /etc/apt/apt.conf.d/52cutover-upgrades (security upgrades every day)
        write /etc/systemd/system/cutover-dead-man.service (takes back at boot what was on trial when the power went)
        write /etc/systemd/system/cutover-proxy.service (the proxy's unit)
        write /etc/systemd/system/cutover-watch.service (watch's unit)
        start cutover-dead-man.service, cutover-proxy.service, cutover-watch.service, now and at boot
        write /etc/systemd/system/cutover-firewall.service (loads the firewall at boot)
        let in nothing but TCP 2222, published ports of containers included; taken back unless a second connection succeeds
        ! ufw is at work, too: what it does not let in stays out, whatever setup opens
        ! sshd goes on accepting passwords: root has no key in authorized_keys, and would be locked out
        ! there is 1.0 GiB of memory and no swap: two releases side by side may not fit; `fallocate -l 1G /swapfile`, `mkswap`, `swapon` and a line in /etc/fstab help
        ");
    let text = decision.changes.iter().find_map(|change| match &change.act {
        Act::EngineFile { text, .. } => Some(text.clone()),
        _ => None,
    });
    insta::assert_snapshot!(text.unwrap(), @r#"
        {
          "live-restore": true,
          "log-opts": {
            "max-file": "5",
            "max-size": "1g"
          },
          "registry-mirrors": [
            "https://mirror.example"
          ]
        }
        "#);
}

#[test]
fn given_another_web_server_then_the_proxy_is_not_started_against_it() {
    let taken = [(80, "nginx (process 812)".to_owned())].into();
    let found = Found { taken, clock: Clock::Kept, ..fresh() };

    let decision = decide(&wanted(Ingress::Routes), &found);

    let told = sentences(&decision);
    assert!(!told.contains("cutover-proxy") && !told.contains("cutover-watch"), "{told}");
    insta::assert_snapshot!(
        decision.warnings[0],
        @"proxy and watch are not started: port 80 is taken by nginx (process 812); stop it or move it, or let the proxy stand behind it (`http: 127.0.0.1:8080` in /var/lib/cutover/host.yml), then `cutover setup` again"
    );
}

#[test]
fn what_another_app_needs_stays_open() {
    let mut found = fresh();
    found.record = found.record.with(&Wanted {
        app: "site/production".parse().unwrap(),
        settings: SetupSettings { open: [8443].into(), ..SetupSettings::default() },
        ..wanted(Ingress::Routes)
    });

    let decision = decide(&wanted(Ingress::None), &found);

    let open = decision.changes.iter().find_map(|change| match &change.act {
        Act::Firewall { open, .. } => Some(open.clone()),
        _ => None,
    });
    assert_eq!(open.unwrap(), [22, 80, 443, 8443].into());
}

/// What is told of the firewall.
fn told_of_firewall(decision: &Decision) -> String {
    let lines = sentences(decision);
    lines.lines().filter(|line| line.contains("let in")).collect::<Vec<_>>().join("\n")
}

#[test]
fn who_is_cut_off_is_named_and_a_tunnel_is_not_cut_off_unseen() {
    let listener = |name: &str, udp, port| Listener { name: name.to_owned(), udp, port };
    let all = [
        listener("sshd", false, 22),
        listener("dnsmasq", true, 53),
        listener("dhclient", true, 68),
        listener("avahi-daemon", true, 5353),
        listener("the kernel", true, 51820),
        listener("postgres", false, 5432),
        listener("cutover-host", false, 80),
    ];
    let found = Found { listeners: all.into(), ..fresh() };
    let wanted = wanted(Ingress::None);

    insta::assert_snapshot!(told_of_firewall(&decide(&wanted, &found)), @"let in nothing but TCP 22, published ports of containers included; it cuts off dnsmasq (UDP 53), postgres (TCP 5432), the kernel (UDP 51820); taken back unless a second connection succeeds");

    let mut by_tunnel = found;
    by_tunnel.ssh.tunnel = Some("wg0".to_owned());
    insta::assert_snapshot!(told_of_firewall(&decide(&wanted, &by_tunnel)), @"! the firewall was left alone: you come in by wg0, a tunnel, whose next handshake might not be let in (cut off would be dnsmasq (UDP 53), the kernel (UDP 51820)); name its port (`setup: { open: [51820/udp] }`), or come in past it");
    by_tunnel.ssh.tunnel_port = Some(51820);
    let settings =
        SetupSettings { open: [5432].into(), open_udp: [51820].into(), ..SetupSettings::default() };
    let wanted = Wanted { settings, ..wanted };
    insta::assert_snapshot!(told_of_firewall(&decide(&wanted, &by_tunnel)), @"let in nothing but TCP 22, 5432 and UDP 51820, published ports of containers included; it cuts off dnsmasq (UDP 53); taken back unless a second connection succeeds");

    // Later a port is not to be open any more: that one is cut off, and what was already is not told again.
    let mut later = after(&by_tunnel, &wanted, &decide(&wanted, &by_tunnel).changes);
    later.ssh.tunnel = None;
    let settings = SetupSettings { open_udp: [51820].into(), ..SetupSettings::default() };
    insta::assert_snapshot!(told_of_firewall(&decide(&Wanted { settings, ..wanted }, &later)), @"let in nothing but TCP 22 and UDP 51820, published ports of containers included; it cuts off postgres (TCP 5432); taken back unless a second connection succeeds");
}

#[test]
fn what_was_heard_is_read_from_the_rules_that_are_loaded() {
    let listener = |name: &str, port| Listener { name: name.to_owned(), udp: false, port };
    let before = fresh();
    let changes = decide(&wanted(Ingress::Routes), &before).changes;
    let mut found = after(&before, &wanted(Ingress::Routes), &changes);
    // nginx stands in front since, on the proxy's port; a database was cut off all along.
    found.http.clear();
    found.listeners = [listener("nginx", 80), listener("postgres", 5432)].into();

    let told = told_of_firewall(&decide(&wanted(Ingress::Routes), &found));
    assert!(told.contains("it cuts off nginx (TCP 80); taken back"), "{told}");

    // Somebody changed the rules or threw them away: the file says nothing of who is heard.
    found.firewall = None;
    let told = told_of_firewall(&decide(&wanted(Ingress::Routes), &found));
    assert!(told.contains("it cuts off nginx (TCP 80), postgres (TCP 5432); taken back"), "{told}");
}

#[test]
fn a_clock_that_serves_others_is_named() {
    let clock = |name: &str| Listener { name: name.to_owned(), udp: true, port: 123 };
    let found = Found { listeners: [clock("chronyd"), clock("ntpd")].into(), ..fresh() };

    let told = told_of_firewall(&decide(&wanted(Ingress::None), &found));

    assert!(told.contains("it cuts off chronyd (UDP 123); taken back"), "{told}");
}

#[test]
fn who_has_no_port_is_named_until_rules_of_ours_are_loaded() {
    let mut found = Found { portless: ["keepalived (IP protocol 112)".to_owned()].into(), ..fresh() };
    let wanted = wanted(Ingress::None);

    let told = told_of_firewall(&decide(&wanted, &found));
    assert!(told.contains("it cuts off keepalived (IP protocol 112); taken back"), "{told}");

    found.firewall = Some(ruleset(&Openings { tcp: [22, 25].into(), udp: [].into() }));
    let told = told_of_firewall(&decide(&wanted, &found));
    assert!(!told.contains("keepalived"), "it was cut off before: {told}");
}

#[test]
fn who_comes_in_by_a_password_is_named() {
    let mut found = fresh();
    found.ssh.by_password = ["ann".to_owned(), "bob".to_owned()].into();
    let told = sentences(&decide(&wanted(Ingress::None), &found));
    assert!(
        told.contains("no passwords; it locks out, since they have no key: ann, bob; taken back"),
        "{told}"
    );

    found.ssh.passwords = false;
    let told = sentences(&decide(&wanted(Ingress::None), &found));
    assert!(told.contains("sshd accept keys only") && !told.contains("ann"), "{told}");
}

#[test]
fn openings_are_read_back_from_rules() {
    for tcp in [[22, 80].into(), std::collections::BTreeSet::new()] {
        let openings = Openings { tcp, udp: [68, 546, 51820].into() };
        assert_eq!(Openings::of(&ruleset(&openings)), Some(openings));
    }
    assert_eq!(Openings::of("table inet cutover {}"), None);
    assert_eq!(Openings::of("udp dport { 68 } accept\ntcp dport { ssh } accept"), None);
}

#[test]
fn the_port_of_another_app_lets_no_tunnel_in() {
    let mut found = fresh();
    found.ssh.tunnel = Some("tun0".to_owned());
    let vpn = Listener { name: "openvpn".to_owned(), udp: true, port: 1194 };
    found.listeners.insert(vpn);
    let settings = SetupSettings { open_udp: [3478].into(), ..SetupSettings::default() };
    found.record = found.record.with(&Wanted {
        app: "calls/production".parse().unwrap(),
        settings,
        ..wanted(Ingress::None)
    });
    let of_this = wanted(Ingress::None);

    insta::assert_snapshot!(told_of_firewall(&decide(&of_this, &found)), @"! the firewall was left alone: you come in by tun0, a tunnel, whose next handshake might not be let in (cut off would be openvpn (UDP 1194)); name its port (`setup: { open: [51820/udp] }`), or come in past it");

    // The same where its port is known, and nobody is seen there.
    found.listeners.clear();
    found.ssh.tunnel_port = Some(51821);
    insta::assert_snapshot!(told_of_firewall(&decide(&of_this, &found)), @"! the firewall was left alone: you come in by tun0, a tunnel, whose next handshake might not be let in; name its port (`setup: { open: [51821/udp] }`), or come in past it");

    let settings = SetupSettings { open_udp: [51821].into(), ..SetupSettings::default() };
    let told = told_of_firewall(&decide(&Wanted { settings, ..of_this }, &found));
    assert!(told.starts_with("let in nothing but TCP 22 and UDP 3478, 51821"), "{told}");
}

#[test]
fn each_item_can_be_switched_off() {
    for (item, key) in Item::KEYS {
        let mut wanted = wanted(Ingress::Routes);
        wanted.settings.off.insert(item);
        let decision = decide(&wanted, &fresh());
        let left = decision.changes.iter().filter(|change| match item {
            // The engine's file is the logs' affair; what guards a trial stays as long as there is one.
            Item::Services => {
                matches!(&change.act, Act::Units { names } if names.contains(place::PROXY_UNIT))
            }
            _ => change.item == item && !matches!(change.act, Act::Packages { .. }),
        });
        assert_eq!(left.count(), 0, "{key}");
    }
}

#[test]
fn given_no_systemd_then_nothing_is_written_for_it() {
    let found = Found { init: Init::Other, ..fresh() };
    let decision = decide(&wanted(Ingress::Routes), &found);
    let units = decision.changes.iter().filter(|change| change.item == Item::Services);
    assert_eq!(units.count(), 0);
    assert!(sentences(&decision).contains("kept by `cutover-host up`"));
}

#[test]
fn a_new_program_goes_on_with_the_sockets_of_the_old_one() {
    let (wanted, found) = (wanted(Ingress::Routes), fresh());
    let found = after(&found, &wanted, &decide(&wanted, &found).changes);
    let wanted = Wanted { program: "0.2.0-bbbbbbbbbbbb".to_owned(), ..wanted };

    insta::assert_snapshot!(sentences(&decide(&wanted, &found)), @r"
        install cutover-host 0.2.0-bbbbbbbbbbbb at /usr/local/bin/cutover-host
        restart proxy and watch with the new cutover-host; their sockets stay open
        ! there is 1.0 GiB of memory and no swap: two releases side by side may not fit; `fallocate -l 1G /swapfile`, `mkswap`, `swapon` and a line in /etc/fstab help
        ");
}

/// What is done to the engine's file, and what is told of it.
fn engine_file_changes(engine_told: EngineTold) -> String {
    let engine = Engine::Answers { running: 3, live_restore: false };
    let decision = decide(&wanted(Ingress::Routes), &Found { engine, engine_told, ..fresh() });
    let lines = sentences(&decision);
    lines.lines().filter(|line| line.contains("daemon.json")).collect::<Vec<_>>().join("\n")
}

#[test]
fn what_was_broken_off_before_proxy_and_watch_went_on_with_it_is_finished() {
    let (wanted, found) = (wanted(Ingress::Routes), fresh());
    let found = after(&found, &wanted, &decide(&wanted, &found).changes);

    let decision = decide(&wanted, &Found { outdated: true, ..found });

    assert_eq!(decision.changes, [Change { item: Item::Services, act: Act::Renew }]);
}

#[test]
fn what_the_engine_would_not_start_with_is_not_written() {
    let flags = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let json = Some("json-file".to_owned());

    let swarm = EngineTold { swarm: true, log_driver: json.clone(), ..EngineTold::default() };
    insta::assert_snapshot!(engine_file_changes(swarm), @r"
        add log-opts.max-file = 5, log-opts.max-size = 20m to /etc/docker/daemon.json, without a restart of the engine: its containers run; limits of logs hold from its next start on
        ! live-restore was not added to /etc/docker/daemon.json: the engine is part of a swarm, and would not start with it
        ");
    let flag = EngineTold { log_driver: json, flags: flags(&["log-opt", "host"]), ..EngineTold::default() };
    insta::assert_snapshot!(engine_file_changes(flag), @r"
        add live-restore = true to /etc/docker/daemon.json, without a restart of the engine: its containers run; limits of logs hold from its next start on
        ! limits of logs were not added to /etc/docker/daemon.json: the engine is started with --log-opt, and would not start with both
        ");
    let journal = EngineTold {
        log_driver: Some("journald".to_owned()),
        flags: flags(&["log-driver", "live-restore"]),
        ..EngineTold::default()
    };
    assert_eq!(engine_file_changes(journal), "");
}

#[test]
fn what_was_added_to_the_engines_file_can_be_taken_out_again_and_nothing_else() {
    let theirs = "{\"log-opts\":{\"max-size\":\"1g\"},\"debug\":true}";
    let (text, added) = engine_file::merged(Some(theirs), &EngineTold::default()).unwrap();
    let left = engine_file_without(&text, &added).unwrap().unwrap();
    let (left, theirs): (serde_json::Value, serde_json::Value) =
        (serde_json::from_str(&left).unwrap(), serde_json::from_str(theirs).unwrap());
    assert_eq!(left, theirs);
    let (text, added) = engine_file::merged(None, &EngineTold::default()).unwrap();
    assert_eq!(engine_file_without(&text, &added).unwrap(), None);
    for text in ["[]", "{"] {
        assert!(engine_file::merged(Some(text), &EngineTold::default()).is_err());
    }
}

#[test]
fn the_rules_look_at_the_port_that_was_asked_for() {
    insta::assert_snapshot!(ruleset(&Openings { tcp: [22, 80].into(), udp: [51820].into() }), @r#"
        #!/usr/sbin/nft -f
        # Written by cutover setup; `cutover teardown` removes it. Each setup writes it anew.
        table inet cutover
        delete table inet cutover
        table inet cutover {
        	chain input {
        		type filter hook input priority filter - 5; policy accept;
        		ct state established,related accept
        		iifname "lo" accept
        		iifname "docker*" accept
        		iifname "br-*" accept
        		iifname "veth*" accept
        		iifname "podman*" accept
        		meta l4proto { 1, 58 } accept
        		udp dport { 68, 546, 51820 } accept
        		tcp dport { 22, 80 } accept
        		drop
        	}
        	chain forward {
        		type filter hook forward priority filter - 5; policy accept;
        		ct state established,related accept
        		iifname "lo" accept
        		iifname "docker*" accept
        		iifname "br-*" accept
        		iifname "veth*" accept
        		iifname "podman*" accept
        		meta l4proto 6 ct original proto-dst { 22, 80 } accept
        		meta l4proto 17 ct original proto-dst { 51820 } accept
        		ct status dnat drop
        		oifname "lo" drop
        		oifname "docker*" drop
        		oifname "br-*" drop
        		oifname "veth*" drop
        		oifname "podman*" drop
        	}
        }
        "#);
}

#[test]
fn an_unknown_system_is_refused_with_the_known_ones() {
    assert!(refuse_unsupported(&fresh().distribution).is_ok());
    let other =
        Distribution { id: "fedora".to_owned(), version: "41".to_owned(), name: "Fedora 41".to_owned() };
    let failure = refuse_unsupported(&other).unwrap_err();
    assert_eq!(failure.exit, crate::exit::Exit::Refused);
    insta::assert_snapshot!(failure.to_string(), @"setup does not know Fedora 41: it knows Debian 12, Debian 13, Ubuntu 22.04, Ubuntu 24.04");
}

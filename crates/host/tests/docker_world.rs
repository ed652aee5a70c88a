//! Instances as containers of a real engine: what surrounds them. Networks and names, volumes, ports, settings, what a look shows of the host.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

#[path = "support/place.rs"]
#[expect(dead_code, reason = "shared by several test binaries")]
mod place;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use cutover_core::config::settings::{Healthcheck, Mount, OwnHealthcheck, PublishedPort};
use cutover_core::hash::ContentHash;
use cutover_core::layout;
use cutover_core::names::Slot;
use cutover_core::plan::{NetworkSpec, NetworkUse};
use cutover_core::release::{BuiltImage, Shipped};
use cutover_core::secret::Secrets;
use cutover_core::state::Role;
use cutover_engine::Reference;
use cutover_host::ports::{Runtime, RuntimeErrorKind};
use place::{answers, at, fixed, get, kind, on, on_engine, until};

const SERVE: &str = "mkdir -p /tmp/w; echo i-am-$NAME > /tmp/w/index.html; exec httpd -f -p 80 -h /tmp/w";

#[test]
fn a_fixed_address_is_reached_and_stays_over_restarts() {
    on_engine("a_fixed_address_is_reached_and_stays_over_restarts", |place| async move {
        let edge = place.network(&place.edge()).await;
        let mut spec = place.script("web", SERVE);
        spec.isolated = false;
        spec.given.insert("NAME".parse().unwrap(), "web".to_owned());
        spec.address = Some(at(fixed(&edge), 80));
        spec.networks =
            vec![NetworkUse { network: edge.name.clone(), aliases: Vec::new(), address: Some(fixed(&edge)) }];
        let spec = place.started(spec).await;
        let facts = place.runtime.facts(&place.app).await.unwrap();
        if !facts.bridge_reachable {
            return place::not_run(
                "a_fixed_address_is_reached",
                "the engine's bridge is not reached from here",
            );
        }
        answers(at(fixed(&edge), 80), "i-am-web").await;
        assert_eq!(place.found(&spec.name).await.address, spec.address);
        place.stop(&spec).await;
        // Another that comes in between does not get it.
        let mut other = place.idle("other");
        other.isolated = false;
        other.networks = vec![NetworkUse { network: edge.name.clone(), aliases: Vec::new(), address: None }];
        place.started(other).await;
        place.start(&spec).await;
        answers(at(fixed(&edge), 80), "i-am-web").await;
    });
}

#[test]
fn files_that_ship_with_a_release_are_mounted_and_cannot_be_written() {
    on_engine("files_that_ship_with_a_release_are_mounted_and_cannot_be_written", |place| async move {
        let (file, folder) = (ContentHash::of(b"a file"), ContentHash::of(b"a folder"));
        for (hash, name) in [(&file, "app.conf"), (&folder, "a.conf")] {
            std::fs::create_dir_all(place.layout.artifact(hash)).unwrap();
            std::fs::write(place.layout.artifact(hash).join(name), format!("of {name}\n")).unwrap();
        }
        let mut spec = place.idle("web");
        let shipped = |hash: &ContentHash, file: Option<&str>| Shipped {
            hash: hash.clone(),
            file: file.map(str::to_owned),
        };
        spec.shipped.insert("app.conf".to_owned(), shipped(&file, Some("app.conf")));
        spec.shipped.insert("conf.d".to_owned(), shipped(&folder, None));
        let mount = |source: &str, target: &str| Mount::Shipped {
            source: source.to_owned(),
            target: target.to_owned(),
        };
        spec.settings.mounts = vec![mount("app.conf", "/etc/app.conf"), mount("conf.d", "/etc/app.d")];
        let spec = place.started(spec).await;
        let read = place.inside(&spec, "cat /etc/app.conf /etc/app.d/a.conf").await;
        assert_eq!(read, (0, "of app.conf\nof a.conf".to_owned()));
        for target in ["/etc/app.conf", "/etc/app.d/new"] {
            assert_ne!(place.inside(&spec, &format!("echo x > {target}")).await.0, 0, "{target}");
        }

        let mut unsent = place.idle("web");
        unsent.settings.mounts = vec![mount("other.conf", "/etc/other.conf")];
        let (refusal, message) = kind(place.runtime.create(&unsent, &Secrets::new()).await);
        assert_eq!(refusal, RuntimeErrorKind::Refused);
        assert!(message.contains("other.conf"), "{message}");
    });
}

#[test]
fn names_never_cross_slots() {
    on_engine("names_never_cross_slots", |place| async move {
        let blue = place.network(&layout::slot_network(&place.app, Slot::Blue)).await;
        let green = place.network(&layout::slot_network(&place.app, Slot::Green)).await;
        let backing = place.network(&layout::backing_network(&place.app)).await;
        let member = |service: &str, name: &str, networks: Vec<NetworkUse>| {
            let mut spec = place.script(service, SERVE);
            spec.given.insert("NAME".parse().unwrap(), name.to_owned());
            spec.networks = networks;
            spec.isolated = false;
            // Names that the engine does not know are refused at once, not looked for outside.
            spec.settings.dns = vec!["127.0.0.1".to_owned()];
            spec
        };
        let anonymous = NetworkUse { network: backing.name.clone(), aliases: Vec::new(), address: None };
        place.started(member("api", "blue-api", vec![on(&blue, "api"), anonymous.clone()])).await;
        place.started(member("api", "green-api", vec![on(&green, "api"), anonymous.clone()])).await;
        let mut database = member("db", "db", vec![on(&backing, "db")]);
        database.role = Role::Backing;
        place.started(database).await;
        let kept = place.started(member("kept", "kept", vec![on(&blue, "kept")])).await;
        let blue_web = place.started(member("web", "web", vec![on(&blue, "web"), anonymous.clone()])).await;
        let green_web = place.started(member("web", "web", vec![on(&green, "web"), anonymous])).await;

        let ask = async |from: &_, name: &str| {
            // A static busybox's wget cannot look names up, and falls over.
            let find = "awk '/^Name:/ { seen = 1 } seen && /^Address/ { print $NF; exit }'";
            let script = format!(
                "A=$(nslookup {name} 2>/dev/null | {find}); test -n \"$A\" || exit 9; printf 'GET /index.html HTTP/1.0\r\n\r\n' | nc -w 2 $A 80 | tail -n 1"
            );
            let (code, answer) = place.inside(from, &script).await;
            if code == 0 { answer } else { format!("no-{code}") }
        };
        for (from, expected) in [(&blue_web, "i-am-blue-api"), (&green_web, "i-am-green-api")] {
            until(expected, async || ask(from, "api").await == expected).await;
            until("i-am-db", async || ask(from, "db").await == "i-am-db").await;
        }
        assert_eq!(ask(&green_web, "kept").await, "no-9", "a name of the other slot was found");

        // A kept instance joins the new slot, and leaves the old one later.
        place.runtime.join(&place.app, &kept.name, &on(&green, "kept")).await.unwrap();
        place.runtime.join(&place.app, &kept.name, &on(&green, "kept")).await.unwrap();
        until("i-am-kept", async || ask(&green_web, "kept").await == "i-am-kept").await;
        assert_eq!(ask(&blue_web, "kept").await, "i-am-kept");
        place.runtime.leave(&place.app, &kept.name, &blue.name).await.unwrap();
        place.runtime.leave(&place.app, &kept.name, &blue.name).await.unwrap();
        assert_eq!(ask(&blue_web, "kept").await, "no-9", "the name stayed in the slot that was left");
        assert_eq!(ask(&green_web, "kept").await, "i-am-kept");
    });
}

#[test]
fn an_isolated_instance_has_no_network_and_sees_the_copy() {
    on_engine("an_isolated_instance_has_no_network_and_sees_the_copy", |place| async move {
        let copy = place.folder().join("copy");
        std::fs::create_dir(&copy).unwrap();
        std::fs::write(copy.join("app.db"), "rows").unwrap();
        let mut spec = place.script("web", "ls /sys/class/net; cat /data/app.db; echo more >> /data/app.db");
        spec.role = Role::OneOff;
        spec.published = Some(9);
        spec.networks =
            vec![NetworkUse { network: "nowhere".to_owned(), aliases: Vec::new(), address: None }];
        spec.volumes.insert("data".parse().unwrap(), copy.to_str().unwrap().to_owned());
        spec.settings.mounts = vec![Mount::Volume {
            volume: "data".parse().unwrap(),
            target: "/data".to_owned(),
            read_only: false,
        }];
        let spec = place.started(spec).await;
        assert_eq!(place.output(&spec).await, ["lo", "rows"]);
        assert_eq!(std::fs::read_to_string(copy.join("app.db")).unwrap(), "rowsmore\n");
    });
}

#[test]
fn a_network_is_made_once_and_never_taken_from_another() {
    on_engine("a_network_is_made_once_and_never_taken_from_another", |place| async move {
        let edge = place.network(&place.edge()).await;
        place.runtime.ensure_network(&edge).await.unwrap();
        let facts = place.runtime.facts(&place.app).await.unwrap();
        assert_eq!(facts.networks[&edge.name], edge.subnet);
        assert!(facts.subnets.contains(&edge.subnet), "{:?}", facts.subnets);

        // The same name, from a plan that did not see it.
        let elsewhere = NetworkSpec { name: edge.name.clone(), ..place.absent_network("x").await };
        let (refusal, message) = kind(place.runtime.ensure_network(&elsewhere).await);
        assert_eq!(refusal, RuntimeErrorKind::Exists);
        assert!(message.contains(&edge.subnet), "{message}");
        // The same subnet, under another name.
        let overlapping = NetworkSpec { name: format!("{}-x", edge.name), ..edge.clone() };
        assert_eq!(kind(place.runtime.ensure_network(&overlapping).await).0, RuntimeErrorKind::Exists);

        let neighbour = place.neighbour();
        for (refusal, message) in
            [kind(neighbour.ensure_network(&edge).await), kind(neighbour.remove_network(&edge.name).await)]
        {
            assert_eq!(refusal, RuntimeErrorKind::Refused);
            assert!(message.contains("another installation"), "{message}");
        }
        place.runtime.remove_network(&edge.name).await.unwrap();
        place.runtime.remove_network(&edge.name).await.unwrap();
        assert!(!place.runtime.facts(&place.app).await.unwrap().networks.contains_key(&edge.name));
    });
}

#[test]
fn a_built_image_loses_our_name_and_nobody_elses() {
    on_engine("a_built_image_loses_our_name_and_nobody_elses", |place| async move {
        let base = place.engine.inspect_image(place::BASE).await.unwrap();
        let name = layout::built_image(&place.app, &"web".parse().unwrap(), "0123456789abcdef");
        let built = BuiltImage { id: base.id.clone(), name: name.clone() };
        place.engine.tag(place::BASE, &Reference::split(&name)).await.unwrap();
        assert!(place.engine.inspect_image(&name).await.is_ok());

        place.runtime.remove_image(&built).await.unwrap();
        place.runtime.remove_image(&built).await.unwrap();

        assert!(place.engine.inspect_image(&name).await.is_err());
        assert_eq!(place.engine.inspect_image(place::BASE).await.unwrap().id, base.id, "it has another name");
    });
}

#[test]
fn two_runs_that_make_the_edge_at_once_make_one() {
    on_engine("two_runs_that_make_the_edge_at_once_make_one", |place| async move {
        let one = place.absent_network(&place.edge()).await;
        // The other run's plan chose another subnet.
        let all = cutover_core::addresses::Subnet::parse("10.215.0.0/16").unwrap();
        let subnet = all.choose(28, &[], 0).unwrap();
        let other = NetworkSpec {
            name: one.name.clone(),
            subnet: subnet.to_string(),
            range: subnet.engine_half().to_string(),
        };
        let (first, second) =
            tokio::join!(place.runtime.ensure_network(&one), place.runtime.ensure_network(&other));
        assert_eq!(usize::from(first.is_ok()) + usize::from(second.is_ok()), 1, "{first:?} {second:?}");
        let labels = [(layout::label::INSTALLATION.to_owned(), place.installation.clone())].into();
        assert_eq!(place.engine.list_networks(&labels).await.unwrap().len(), 1);
    });
}

#[test]
fn volumes_outlive_instances_and_belong_to_somebody() {
    on_engine("volumes_outlive_instances_and_belong_to_somebody", |place| async move {
        let volume = place.volume("data");
        place.runtime.ensure_volume(&place.app, &volume).await.unwrap();
        place.runtime.ensure_volume(&place.app, &volume).await.unwrap();
        assert!(place.runtime.facts(&place.app).await.unwrap().volumes.contains(&volume.name));
        let with_volume = |script: &str| {
            let mut spec = place.script("web", script);
            spec.volumes.insert("data".parse().unwrap(), volume.name.clone());
            spec.settings.mounts = vec![Mount::Volume {
                volume: "data".parse().unwrap(),
                target: "/data".to_owned(),
                read_only: false,
            }];
            spec
        };
        let mut lost = with_volume("true");
        lost.volumes.insert("data".parse().unwrap(), format!("{}-lost", volume.name));
        let (refusal, message) = kind(place.runtime.create(&lost, &Secrets::new()).await);
        assert_eq!(refusal, RuntimeErrorKind::Gone);
        assert!(message.contains("-lost"), "{message}");

        let first = place.started(with_volume("echo row > /data/rows")).await;
        assert_eq!(place.exited(&first).await.code, Some(0));
        place.remove(&first).await;
        let second = place.started(with_volume("cat /data/rows")).await;
        assert_eq!(place.output(&second).await, ["row"]);
        let folder = place.runtime.volume_path(&volume).await.unwrap();
        assert_eq!(std::fs::read_to_string(folder.join("rows")).unwrap(), "row\n");

        let neighbour = place.neighbour();
        assert_eq!(kind(neighbour.ensure_volume(&place.app, &volume).await).0, RuntimeErrorKind::Refused);
        assert_eq!(kind(neighbour.remove_volume(&volume).await).0, RuntimeErrorKind::Refused);
        let mut external = volume.clone();
        external.external = true;
        place.runtime.ensure_volume(&place.app, &external).await.unwrap();
        assert_eq!(kind(place.runtime.remove_volume(&external).await).0, RuntimeErrorKind::Refused);
        assert_eq!(
            kind(place.runtime.remove_volume(&volume).await).0,
            RuntimeErrorKind::Refused,
            "it is in use"
        );
        place.remove(&second).await;
        place.runtime.remove_volume(&volume).await.unwrap();
        place.runtime.remove_volume(&volume).await.unwrap();
        let (refusal, message) = kind(place.runtime.ensure_volume(&place.app, &external).await);
        assert_eq!(refusal, RuntimeErrorKind::Gone);
        assert!(message.contains("external"), "{message}");
    });
}

#[test]
fn a_published_port_is_on_loopback_only() {
    on_engine("a_published_port_is_on_loopback_only", |place| async move {
        let net = place.network(&layout::slot_network(&place.app, Slot::Blue)).await;
        let free = || {
            let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            socket.local_addr().unwrap().port()
        };
        let (published, own) = (free(), free());
        let mut spec = place.script("web", SERVE);
        spec.isolated = false;
        spec.given.insert("NAME".parse().unwrap(), "web".to_owned());
        spec.networks = vec![on(&net, "web")];
        spec.port = Some(80);
        spec.published = Some(published);
        spec.address = Some(at(Ipv4Addr::LOCALHOST, published));
        spec.settings.ports =
            vec![PublishedPort { address: [127, 0, 0, 2].into(), host: own, container: 80, udp: false }];
        let spec = place.started(spec).await;
        answers(at(Ipv4Addr::LOCALHOST, published), "i-am-web").await;
        answers(at(Ipv4Addr::new(127, 0, 0, 2), own), "i-am-web").await;
        assert_eq!(get(at(Ipv4Addr::new(127, 0, 0, 3), published)).await, None);

        // A port that somebody else has is told when it is started.
        let mut second = place.script("web", SERVE);
        second.isolated = false;
        second.networks = spec.networks.clone();
        second.port = Some(80);
        second.published = Some(published);
        place.create(&second).await;
        let (refusal, message) = kind(place.runtime.start(&place.app, &second.name).await);
        assert_eq!(refusal, RuntimeErrorKind::Exists, "{message}");
    });
}

#[test]
fn the_settings_reach_the_container() {
    on_engine("the_settings_reach_the_container", |place| async move {
        let host = place.folder().join("host");
        std::fs::create_dir(&host).unwrap();

        let mut spec = place.idle("web");
        let settings = &mut spec.settings;
        settings.user = Some("1000:1001".to_owned());
        settings.working_dir = Some("/tmp".to_owned());
        settings.hostname = Some("shop-web".to_owned());
        settings.read_only = true;
        settings.init = Some(true);
        settings.cap_drop = vec!["ALL".to_owned()];
        settings.security_opt = vec!["no-new-privileges:true".to_owned()];
        settings.memory = Some(64 << 20);
        settings.cpu_millis = Some(500);
        settings.pids_limit = Some(50);
        settings.shm_size = Some(2 << 20);
        settings.ulimits.insert("nofile".to_owned(), (100, 200));
        settings.extra_hosts = vec!["db.example:10.9.8.7".to_owned()];
        settings.dns = vec!["10.9.8.1".to_owned()];
        settings.healthcheck = Some(OwnHealthcheck::Command(Healthcheck {
            test: vec!["test".to_owned(), "-e".to_owned(), "/".to_owned()],
            interval: Duration::from_hours(1),
            timeout: Duration::from_secs(3),
            retries: 2,
            start_period: Duration::ZERO,
        }));
        settings.mounts = vec![
            Mount::Tmpfs { target: "/tmp".to_owned(), options: "size=1m,mode=1777".to_owned() },
            Mount::Host {
                source: host.to_str().unwrap().to_owned(),
                target: "/host".to_owned(),
                read_only: true,
            },
        ];
        let spec = place.started(spec).await;
        let cases = [
            ("id -u; id -g", "1000\n1001"),
            ("pwd", "/tmp"),
            ("hostname", "shop-web"),
            ("touch /x 2>/dev/null && echo written || echo refused", "refused"),
            ("touch /tmp/x && echo written", "written"),
            ("df -k /tmp | tail -1 | awk '{print $2}'", "1024"),
            ("df -k /dev/shm | tail -1 | awk '{print $2}'", "2048"),
            ("grep CapBnd /proc/self/status | awk '{print $2}'", "0000000000000000"),
            ("grep NoNewPrivs /proc/self/status | awk '{print $2}'", "1"),
            ("cat /proc/1/comm | grep -c -e docker-init -e tini -e catatonit", "1"),
            // Of the instance itself: some engines raise the soft limit of a command that is executed beside it.
            ("grep 'open files' /proc/1/limits | awk '{print $4; print $5}'", "100\n200"),
            ("grep -c '10.9.8.7.*db.example' /etc/hosts", "1"),
            ("touch /host/x 2>/dev/null || echo refused", "refused"),
        ];
        for (script, expected) in cases {
            assert_eq!(place.inside(&spec, script).await.1, expected, "{script}");
        }
        let health = place.runtime.health_command(&place.app, &spec.name).await.unwrap();
        assert_eq!(health.unwrap(), ["test", "-e", "/"]);
        let info = place.engine.info().await.unwrap();
        if info.limits_memory && info.limits_processes {
            let limits = "cd /sys/fs/cgroup; cat memory.max memory/memory.limit_in_bytes pids.max pids/pids.max cpu.max cpu/cpu.cfs_quota_us 2>/dev/null";
            let (_, limits) = place.inside(&spec, limits).await;
            let numbers: Vec<&str> = limits.split_whitespace().take(3).collect();
            assert_eq!(numbers, ["67108864", "50", "50000"]);
        }
    });
}

#[test]
fn an_images_own_health_command_is_switched_off() {
    on_engine("an_images_own_health_command_is_switched_off", |place| async move {
        let mut spec = place.idle("web");
        spec.settings.healthcheck = Some(OwnHealthcheck::Off);
        let spec = place.started(spec).await;
        assert_eq!(place.runtime.health_command(&place.app, &spec.name).await.unwrap(), None);
        assert_eq!(place.container(&spec).await.health_test, ["NONE"]);
    });
}

#[test]
fn listening_sockets_are_the_apps_own() {
    on_engine("listening_sockets_are_the_apps_own", |place| async move {
        let net = place.network(&layout::slot_network(&place.app, Slot::Blue)).await;
        let mut spec =
            place.script("web", "httpd -p 127.0.0.1:8080 -h /tmp; exec httpd -f -p 0.0.0.0:80 -h /tmp");
        spec.isolated = false;
        spec.networks = vec![on(&net, "web")];
        let spec = place.started(spec).await;
        let expected: [SocketAddr; 2] = ["0.0.0.0:80".parse().unwrap(), "127.0.0.1:8080".parse().unwrap()];
        until("both ports", async || {
            place.runtime.listening(&place.app, &spec.name).await.unwrap() == expected
        })
        .await;
        let namespace = place.runtime.network_namespace(&place.app, &spec.name).await.unwrap();
        println!("network namespace: {namespace:?}");
        if place.runtime.facts(&place.app).await.unwrap().bridge_reachable {
            assert!(namespace.is_some());
        }
        place.stop(&spec).await;
        assert_eq!(place.runtime.listening(&place.app, &spec.name).await.unwrap(), []);
    });
}

#[test]
fn a_look_shows_the_engine_as_it_is() {
    on_engine("a_look_shows_the_engine_as_it_is", |place| async move {
        let facts = place.runtime.facts(&place.app).await.unwrap();
        println!("{facts:?}");
        assert!(facts.platform.starts_with("linux/"));
        assert!(
            facts.subnets.iter().all(|subnet| subnet != "0.0.0.0/0"),
            "the default route is no subnet in use"
        );
        assert!(!facts.subnets.is_empty() && facts.networks.is_empty() && facts.volumes.is_empty());
    });
}

/// DESIGN's figure is the whole deploy's; what this part of it costs over the engine's own work is seen here.
#[test]
#[ignore = "a figure, true only where nothing else runs"]
fn making_and_starting_costs_little_over_the_engines_own_work() {
    on_engine("making_and_starting_costs_little_over_the_engines_own_work", |place| async move {
        let net = place.network(&layout::slot_network(&place.app, Slot::Blue)).await;
        let prepared = || {
            let mut spec = place.idle("web");
            spec.isolated = false;
            spec.networks = vec![on(&net, "web")];
            spec
        };
        place.runtime.facts(&place.app).await.unwrap();
        let (mut ours, mut floor) = (Vec::new(), Vec::new());
        for round in 0..7 {
            let spec = prepared();
            let begun = Instant::now();
            place.create(&spec).await;
            place.start(&spec).await;
            ours.push(begun.elapsed());
            place.stop(&spec).await;
            place.remove(&spec).await;

            let raw = cutover_engine::ContainerSpec {
                name: format!("{}-raw-{round}", place.installation),
                image: place::BASE.to_owned(),
                command: Some(["/bin/sh", "-c", place::IDLE].map(str::to_owned).to_vec()),
                labels: [(layout::label::INSTALLATION.to_owned(), place.installation.clone())].into(),
                networking: cutover_engine::Networking::Joined(vec![cutover_engine::Endpoint {
                    network: net.name.clone(),
                    aliases: vec!["web".to_owned()],
                    address: None,
                }]),
                ..cutover_engine::ContainerSpec::default()
            };
            let begun = Instant::now();
            let id = place.engine.create(&raw).await.unwrap().id;
            place.engine.start(&id).await.unwrap();
            floor.push(begun.elapsed());
            place.engine.stop(&id, Duration::from_secs(5)).await.unwrap();
            place.engine.remove(&id, cutover_engine::RemoveVolumes::Unnamed).await.unwrap();
        }
        ours.sort_unstable();
        floor.sort_unstable();
        let ratio = ours[0].as_secs_f64() / floor[0].as_secs_f64();
        println!(
            "create and start: ours {:?} (median {:?}), the engine's {:?} (median {:?}), {ratio:.2} x",
            ours[0], ours[3], floor[0], floor[3]
        );
        // The fastest of each: a busy machine slows single rounds down, not all of them.
        assert!(ratio <= 1.2, "{ratio:.2} times the engine's own work");
    });
}

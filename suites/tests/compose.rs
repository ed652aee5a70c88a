//! The keys of the Compose specification that are honoured: each as the engine shows it on the container that `cutover deploy` made.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test stops where it fails, and says its numbers"
)]

use std::process::Command;

use cutover_suites::engine::{SHELL_IMAGE, containers, docker, on_engine, shell_image};
use cutover_testkit::get;
use cutover_testkit::site::{App, Binaries, Site};
use serde_json::{Value, json};

const HOST: &str = "shop.localhost";

const SERVICES: &str = r#"services:
  web:
    image: IMAGE
    entrypoint: [sh, -c]
    command: ["mkdir -p /tmp/w; cat /etc/app.conf /shared/from-outside > /tmp/w/index.html; exec httpd -f -p 8080 -h /tmp/w"]
    port: 8080
    route: { host: shop.localhost }
    environment: { GREETING: "hello $${NAME}" }
    env_file: secrets.env
    user: "1000:1001"
    working_dir: /tmp
    hostname: shop-web
    read_only: true
    init: true
    tmpfs: ["/tmp:size=1m,mode=1777"]
    cap_drop: [ALL]
    cap_add: [NET_BIND_SERVICE]
    security_opt: ["no-new-privileges:true"]
    sysctls: { net.ipv4.tcp_syncookies: 0 }
    devices: ["/dev/zero:/dev/zeros:r"]
    mem_limit: 64m
    cpus: 0.5
    pids_limit: 50
    shm_size: 2m
    ulimits: { nofile: { soft: 100, hard: 200 }, core: 0 }
    extra_hosts: ["db.example:10.9.8.7"]
    dns: 10.9.8.1
    labels: { team: shop }
    logging: { driver: json-file, options: { max-size: 3m, max-file: "2" } }
    healthcheck: { test: ["CMD", "true"], interval: 1h, timeout: 3s, retries: 2, start_period: 4s }
    stop_signal: SIGINT
    stop_grace_period: 7s
    volumes:
      - data:/data
      - outside:/shared:ro
      - ./app.conf:/etc/app.conf:ro
      - { type: bind, source: FOLDER, target: /host, read_only: true }
    depends_on: { worker: { condition: service_healthy } }
  worker:
    image: IMAGE
    command: [sh, -c, "trap 'exit 0' TERM; touch /tmp/up; while :; do sleep 1 & wait; done"]
    healthcheck: { disable: true }
    ready: { file: /tmp/up, within: 20s }
    replicas: 1
    strategy: blue-green
    deploy: { resources: { limits: { memory: 32m, cpus: "0.25", pids: 20 } } }
backing:
  store:
    image: IMAGE
    command: [httpd, -f, -p, "8080", -h, /etc]
    init: true
    ports: ["PORT:8080"]
volumes:
  outside: { external: true, name: VOLUME }
bake: 0
"#;

/// The running container of a service, as the engine shows it.
fn container(app: &App<'_>, service: &str) -> Value {
    let id = containers(app, service);
    let found: Value = serde_json::from_str(&docker(app.site(), &["inspect", &id])).unwrap();
    found[0].clone()
}

fn same(found: &Value, cases: &[(&str, Value)]) {
    for (pointer, expected) in cases {
        assert_eq!(found.pointer(pointer).unwrap_or(&Value::Null), expected, "{pointer}");
    }
}

fn mount(found: &Value, target: &str) -> Value {
    let mounts = found["Mounts"].as_array().unwrap();
    mounts.iter().find(|mount| mount["Destination"] == target).cloned().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_honoured_key_is_set_on_the_container() {
    let name = "every_honoured_key_is_set_on_the_container";
    on_engine(name, Binaries::beside_this_program().unwrap(), async |site| {
        if let Err(why) = shell_image(site.docker().unwrap().engine()) {
            return println!("not run: {name}: {why}");
        }
        let app = site.app("shop", HOST).unwrap();
        let volume = Outside::make(site, &app);
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = site.folder().join("host");
        std::fs::create_dir(&folder).unwrap();
        let services = SERVICES
            .replace("IMAGE", SHELL_IMAGE)
            .replace("PORT", &port.to_string())
            .replace("FOLDER", &folder.display().to_string())
            .replace("VOLUME", &volume.name);
        let write = |file: &str, text: &str| std::fs::write(app.repository().join(file), text).unwrap();
        write("cutover.yml", &format!("app: {}\n{services}", app.id().app));
        write("app.conf", "from the repository\n");
        write("secrets.env", "API_KEY=planted-secret\n");
        app.record("first").unwrap();
        app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();

        let web = container(&app, "web");
        all_of_web(&web, &app, &folder.display().to_string(), &volume.name);
        let shown = get(site.http().unwrap(), HOST, "/").await.unwrap();
        assert_eq!(shown, "from the repository\nfrom another project\n");

        let worker = container(&app, "worker");
        same(
            &worker,
            &[
                ("/Config/Healthcheck/Test", json!(["NONE"])),
                ("/HostConfig/Memory", json!(32 << 20)),
                ("/HostConfig/NanoCpus", json!(250_000_000)),
                ("/HostConfig/PidsLimit", json!(20)),
            ],
        );
        let published = json!([{ "HostIp": "127.0.0.1", "HostPort": port.to_string() }]);
        same(&container(&app, "store"), &[("/HostConfig/PortBindings/8080~1tcp", published)]);
        // Started before the one that depends on it.
        let started = |found: &Value| found["State"]["StartedAt"].as_str().unwrap().to_owned();
        assert!(started(&worker) < started(&web));
    })
    .await;
}

fn all_of_web(web: &Value, app: &App<'_>, folder: &str, outside: &str) {
    let data = format!("cutover-{}.local.data", app.id().app);
    same(
        web,
        &[
            ("/Config/Entrypoint", json!(["sh", "-c"])),
            ("/Config/User", json!("1000:1001")),
            ("/Config/WorkingDir", json!("/tmp")),
            ("/Config/Hostname", json!("shop-web")),
            ("/Config/Labels/team", json!("shop")),
            ("/Config/StopSignal", json!("INT")),
            ("/Config/StopTimeout", json!(7)),
            ("/Config/Healthcheck/Test", json!(["CMD", "true"])),
            ("/Config/Healthcheck/Interval", json!(3_600_000_000_000_u64)),
            ("/Config/Healthcheck/Timeout", json!(3_000_000_000_u64)),
            ("/Config/Healthcheck/Retries", json!(2)),
            ("/Config/Healthcheck/StartPeriod", json!(4_000_000_000_u64)),
            ("/HostConfig/ReadonlyRootfs", json!(true)),
            ("/HostConfig/Init", json!(true)),
            ("/HostConfig/Tmpfs/~1tmp", json!("size=1m,mode=1777")),
            ("/HostConfig/CapDrop", json!(["ALL"])),
            ("/HostConfig/CapAdd", json!(["NET_BIND_SERVICE"])),
            ("/HostConfig/SecurityOpt", json!(["no-new-privileges:true"])),
            ("/HostConfig/Sysctls", json!({ "net.ipv4.tcp_syncookies": "0" })),
            ("/HostConfig/Devices/0/PathOnHost", json!("/dev/zero")),
            ("/HostConfig/Devices/0/PathInContainer", json!("/dev/zeros")),
            ("/HostConfig/Devices/0/CgroupPermissions", json!("r")),
            ("/HostConfig/Memory", json!(64 << 20)),
            ("/HostConfig/NanoCpus", json!(500_000_000)),
            ("/HostConfig/PidsLimit", json!(50)),
            ("/HostConfig/ShmSize", json!(2 << 20)),
            ("/HostConfig/ExtraHosts", json!(["db.example:10.9.8.7"])),
            ("/HostConfig/Dns", json!(["10.9.8.1"])),
            ("/HostConfig/LogConfig/Type", json!("json-file")),
            ("/HostConfig/LogConfig/Config", json!({ "max-size": "3m", "max-file": "2" })),
            // cutover's own: started again by itself once it is live.
            ("/HostConfig/RestartPolicy/Name", json!("unless-stopped")),
        ],
    );
    let limits = web["HostConfig"]["Ulimits"].as_array().unwrap();
    for limit in [
        json!({ "Name": "nofile", "Soft": 100, "Hard": 200 }),
        json!({ "Name": "core", "Soft": 0, "Hard": 0 }),
    ] {
        assert!(limits.contains(&limit), "{limits:?}");
    }
    let variables = web["Config"]["Env"].as_array().unwrap();
    for variable in ["GREETING=hello ${NAME}", "API_KEY=planted-secret", "PORT=8080", "CUTOVER_SERVICE=web"] {
        assert!(variables.contains(&json!(variable)), "{variable}");
    }
    let cases = [
        ("/data", "volume", json!(data), true),
        ("/shared", "volume", json!(outside), false),
        ("/etc/app.conf", "bind", Value::Null, false),
        ("/host", "bind", Value::Null, false),
    ];
    for (target, kind, name, writable) in cases {
        let mount = mount(web, target);
        assert_eq!(
            (&mount["Type"], &mount["Name"], &mount["RW"]),
            (&json!(kind), &name, &json!(writable)),
            "{target}"
        );
    }
    assert_eq!(mount(web, "/host")["Source"], folder);
}

/// A volume of an earlier project, with something in it.
struct Outside<'a> {
    site: &'a Site,
    name: String,
}

impl<'a> Outside<'a> {
    fn make(site: &'a Site, app: &App<'_>) -> Self {
        let outside = Self { site, name: format!("outside-{}", app.id().app) };
        docker(site, &["volume", "create", &outside.name]);
        let mount = format!("{}:/v", outside.name);
        let write = "echo from another project > /v/from-outside";
        docker(
            site,
            &["run", "--rm", "--network", "none", "--volume", &mount, SHELL_IMAGE, "sh", "-c", write],
        );
        outside
    }
}

impl Drop for Outside<'_> {
    fn drop(&mut self) {
        let mut command = Command::new("docker");
        command.args(["volume", "rm", "--force", &self.name]);
        // The site's containers use it until they are gone; what is left is told by the engine's own list.
        command
            .env("DOCKER_HOST", self.site.docker().unwrap().address())
            .output()
            .map(drop)
            .unwrap_or_default();
    }
}

//! Golden texts: what is told of a configuration that is wrong, theme by theme. Each case stands beside its text.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use cutover_core::config::{Selection, Sources, parse};

/// The parts of a file that are right, so that a case shows only what is wrong.
const WEB: &str = "app: shop\nservices:\n  web:\n    image: shop:1\n    port: 8000\n";

fn told(cases: &[(&str, String)]) -> String {
    let tell = |(title, text): &(&str, String)| {
        let sources = Sources { file: "cutover.yml", text, ..Sources::default() };
        let problems = match parse(&sources, &Selection::default()) {
            Ok(config) => format!("no problem; notes: {:#?}", config.notes),
            Err(problems) => problems.to_string(),
        };
        format!("## {title}\n\n{}\n→\n{problems}\n", text.trim_end())
    };
    cases.iter().map(tell).collect::<Vec<_>>().join("\n")
}

/// Compares with the golden text of the test's own name.
fn golden(cases: &[(&str, String)]) {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or_default();
    insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => true }, {
        insta::assert_snapshot!(name, told(cases));
    });
}

/// A service with more keys.
fn web(more: &str) -> String {
    let indented: String = more.lines().map(|line| format!("    {line}\n")).collect();
    format!("{WEB}{indented}")
}

/// A file with more sections.
fn shop(more: &str) -> String {
    format!("{WEB}{more}")
}

#[test]
fn not_yaml() {
    golden(&[
        ("empty", String::new()),
        ("only a comment", "# later\n".to_owned()),
        ("a list", "- web\n".to_owned()),
        ("a tab", "app: shop\nservices:\n\tweb:\n".to_owned()),
        ("cut", "app: shop\nservices: { web: { image: \"shop\n".to_owned()),
        (
            "a reference without quotes between braces",
            "app: shop\nservices: { web: { command: run ${PORT} } }\n".to_owned(),
        ),
        ("given twice", shop("keep: 3\nkeep: 4\n")),
        ("two documents", "app: shop\n---\napp: other\n".to_owned()),
        ("an alias of nothing", shop("x-a: *nothing\n")),
        ("too deep", format!("app: shop\nx-deep: {}{}\n", "[".repeat(60), "]".repeat(60))),
        (
            "an alias bomb",
            format!(
                "x-a: &a [1,2,3,4,5,6,7,8,9]\n{}",
                (0..9)
                    .map(|n| {
                        let (new, old) = ((b'b' + n) as char, (b'a' + n) as char);
                        format!("x-{new}: &{new} [{}]\n", [format!("*{old}").as_str(); 9].join(","))
                    })
                    .collect::<String>()
            ),
        ),
        ("merge of a word", shop("x-a:\n  <<: word\n")),
    ]);
}

#[test]
fn keys_and_types() {
    golden(&[
        ("unknown keys, everywhere", "app: shop\nservises: {}\nservices:\n  web:\n    imag: shop:1\n    port: 8000\n    health: { pathh: /health }\nenvironments: { production: { host: [a] } }\n".to_owned()),
        ("wrong types", "app: [shop]\nservices:\n  web:\n    image: { name: shop }\n    port: many\n    replicas: two\n    restart_unhealthy: yes\n    route: example.com\n    environment: text\nkeep: \"5\"\n".to_owned()),
        ("no value", web("health:\n  path:\nroute:\n  host:")),
        ("no app, no services", "keep: 3\n".to_owned()),
        ("names", "app: My Shop\nservices:\n  Web: { image: \"shop:1\" }\n  -x: { image: \"shop:1\" }\nenvironment: { 1A: x, CUTOVER_X: y }\n".to_owned()),
        ("nothing to run, and too much", "app: shop\nservices:\n  a: {}\n  b: { image: \"x:1\", artifact: b, command: ./b }\n  c: { artifact: c }\n".to_owned()),
        ("compose keys that are refused or without effect", web("privileged: true\nnetwork_mode: host\ncontainer_name: web\nrestart: always\nsecrets: [a]\nprivileged_: false\ndeploy: { update_config: { order: start-first }, replicas: 2 }")),
        ("what is not for a plain process", "app: shop\nservices:\n  web: { artifact: web, command: ./web, ports: [\"80:80\"], volumes: [\"data:/data\"], cap_drop: [ALL] }\n".to_owned()),
        ("a route that says nothing", web("route:")),
        ("what comes later", shop("jobs: {}\n").replace("jobs: {}", "jobs: { digest: {} }") + "    # the end\n"),
    ]);
}

#[test]
fn values() {
    golden(&[
        ("ports", "app: shop\nservices:\n  a: { image: \"x:1\", port: 0 }\n  b: { image: \"x:1\", port: 70000 }\n  c: { image: \"x:1\", ports: [80, \"80:0\", \"1.2.3:80:80\", \"80-90:80-90\", \"53:53/icmp\"] }\n".to_owned()),
        ("times", shop("bake: 1h\nkeep_warm: 30\nhold: 10m\ndrain: soon\n")),
        ("sizes and counts", web("mem_limit: 1x\ncpus: half\nreplicas: 0\nhold: { bytes: 2g, requests: 0 }") + "keep: 0\n"),
        ("paths", "app: shop\nservices:\n  a: { artifact: /srv/a, command: ./a }\n  b: { artifact: ../b, command: ./b }\n  c: { build: /src }\n  d: { build: { context: ../d } }\n".to_owned()),
        ("commands", web("command: echo 'open\nentrypoint: \"\"")),
        ("mounts", web("volumes:\n  - ./data:/data\n  - ../up:/up:ro\n  - /data\n  - data:data\n  - Data:/data\n  - { type: bind, source: ./conf, target: /conf }")),
        ("gates", web("health: {}\nready: {}\nverify: {}")),
        ("gates that look at two things, or at a gap", web("health: { path: /health, tcp: 80, status: [200, 404] }")),
        ("codes and hosts", web("health: { path: health, status: 42 }\nroute: { host: \"https://example.com/\", path: api }")),
        ("bounds of gates and migrations", web("health: { path: /, interval: 0, timeout: 0, within: 0 }\nstop_grace_period: 2h") + "backing: { pg: { image: \"postgres:17\" } }\ndatabases: { main: { engine: postgres, service: pg, migrate: { service: web, command: m, timeout: 0 } } }\n"),
        ("how long snapshots stay", shop("databases:\n  a: { engine: postgres, url: \"${A}\", snapshot: { keep: 30m } }\n  b: { engine: postgres, url: \"${B}\", snapshot: { keep: 400d } }\n  c: { engine: postgres, url: \"${C}\", snapshot: { keep: week } }\n  d: { engine: postgres, url: \"${D}\", snapshot: {} }\n  e: { engine: postgres, url: \"${E}\", snapshot: all }\n  f: { engine: postgres, url: \"${F}\", snapshot: { keeps: 7d } }\n")),
        ("placeholders", web("environment: { SECRET_KEY: CHANGE_ME }")),
        ("a name with a reference", "app: \"${APP}\"\nservices: { web: { image: \"x:1\" } }\n".to_owned()),
        ("what an environment fills", shop("environments: { production: { hosts: [\"${H}\"], protected: \"${P}\", variables: { H: -x, P: perhaps } } }\n")),
        ("signals and modes", web("stop_signal: TREM\nstrategy: blue_green")),
    ]);
}

#[test]
fn what_must_fit_together() {
    golden(&[
        ("two routes alike", "app: shop\nservices:\n  web: { image: \"x:1\", port: 1, route: { host: a.localhost, path: /api/ } }\n  api: { image: \"x:1\", port: 1, route: { host: A.localhost, path: /api } }\n".to_owned()),
        ("a route without a port", "app: shop\nservices:\n  web: { image: \"x:1\", route: { host: a.localhost }, health: { path: / } }\n".to_owned()),
        ("another port than the service's", "app: shop\nenvironment: { PORT: 3000 }\nservices:\n  a: { image: \"x:1\", port: 3000 }\n  b: { image: \"x:1\", port: 80 }\n  c: { artifact: c, command: ./c, environment: { PORT: \"8080\" } }\n  d: { image: \"x:1\", environment: { PORT: } }\n".to_owned()),
        ("a circle", "app: shop\nservices:\n  a: { image: \"x:1\", depends_on: [b] }\n  b: { image: \"x:1\", depends_on: [c] }\n  c: { image: \"x:1\", depends_on: { a: { condition: service_healthy } } }\n".to_owned()),
        ("names that nothing has", web("depends_on: [redsi]\nenvironment: { A: \"${services.wep.url}\", B: \"${databases.main.file}\", C: \"${services.redis.url}\" }") + "backing: { redis: { image: redis } }\ndatabases: { main: { engine: postgres, service: postgres } }\n"),
        ("a dependency of the wrong sort", web("depends_on: { redis: { condition: service_completed_successfully } }") + "backing: { redis: { image: \"redis:7\" } }\n"),
        ("strategies", "app: shop\nservices:\n  a: { image: \"x:1\", strategy: handover, replicas: 2 }\n  b: { image: \"x:1\", strategy: canary }\n".to_owned()),
        ("published ports", "app: shop\nservices:\n  a: { image: \"x:1\", port: 80, route: {}, ports: [\"8080:80\"] }\n  b: { image: \"x:1\", ports: [\"127.0.0.1:8080:80\"] }\n".to_owned()),
        ("ports that collide by address", "app: shop\nservices:\n  a: { image: \"x:1\", ports: [\"0.0.0.0:80:80\"] }\n  b: { image: \"x:1\", ports: [\"127.0.0.1:80:80\", \"80:80/udp\"] }\n".to_owned()),
        ("an environment that lays over nothing", shop("environments: { production: { services: { wbe: { port: 1 } }, backing: { redis: { image: \"redis:7\" } } } }\n")),
        ("one file twice", "app: shop\nservices: { web: { image: \"x:1\", volumes: [\"d:/d\"] }, other: { image: \"x:1\", volumes: [\"d:/d\"] } }\ndatabases: { a: { engine: sqlite, volume: d, file: a.db, services: [web] }, b: { engine: sqlite, volume: d, file: ./a.db, services: [web] } }\n".to_owned()),
        ("verify without a route", web("verify: { path: /version }")),
        ("a service that is a backing service", shop("backing: { web: { image: \"redis:7\" } }\n")),
        ("sqlite", "app: shop\nservices:\n  web: { artifact: web, command: ./web, environment: { F: \"${databases.other.file}\" } }\n  api: { image: \"x:1\" }\ndatabases:\n  main: { engine: sqlite, volume: data, file: /a.db, services: [web, wep], migrate: { service: web, command: ./migrate } }\n  other: { engine: sqlite, volume: data, file: o.db, services: [api] }\n  third: { engine: sqlite, service: web }\n  fourth: { volume: data }\n".to_owned()),
        ("databases with a server", shop("backing: { postgres: { image: \"postgres:17\" } }\ndatabases:\n  a: { engine: postgres, service: postgers }\n  b: { engine: postgres, file: x.db }\n  c: { engine: oracle }\n  d: { engine: mysql, service: postgres, migrate: { command: x }, snapshot: never, backup: { every: 1d } }\n")),
        ("migrations of servers", shop("backing: { db: { image: \"db:1\" } }\ndatabases:\n  a: { engine: mariadb, service: db, migrate: { service: web, command: x } }\n  b: { engine: postgres, service: db, url: \"${URL}\" }\n  c: { engine: postgres, url: \"postgres://ann:secret@db.example.com/x\" }\n  e: { engine: mariadb, url: \"postgres://ann@db.example.com/x\" }\n  d: { engine: sqlite, volume: v, file: x.db, services: [web], migrate: { service: web, command: x, pending: y } }\n")),
        ("migrations in an image of their own", "app: shop\nservices: { web: { image: \"x:1\" }, migrate-b: { image: \"x:1\" } }\nbacking: { db: { image: \"db:1\" } }\ndatabases:\n  a:\n    engine: postgres\n    service: db\n    migrate:\n      - { command: x }\n      - { image: \"m:1\", service: web, command: x }\n      - { service: web, files: ./m, environment: { A: b }, command: x }\n      - { image: \"m:1\", files: [/m, ../m, ., \"./m:m\"], command: x }\n      - { image: \"m:1\", files: [./a/m, ./b/m], command: x }\n      - { image: m, command: x, environment: { URL: \"${services.wbe.url}\" } }\n  b: { engine: postgres, service: db, migrate: { image: \"m:1\", command: x } }\n  c: { engine: sqlite, volume: v, file: x.db, services: [web], migrate: { image: \"m:1\", command: x } }\n  d: { engine: postgres, service: db, migrate: [] }\n  a-2: { engine: postgres, service: db, migrate: { image: \"m:1\", command: x } }\n".to_owned()),
        ("several hosts", shop("environments: { production: { hosts: [a@one, b@two] } }\n")),
        ("a password in the file", shop("registry: { server: registry.example.com, password: hunter2 }\n")),
        ("backups that say too little", shop("backup: { every: day }\n")),
        ("backups that nobody could read", shop("backing: { redis: { image: \"redis:7\", environment: { REDIS_PASSWORD: } } }\nbackup: { to: /mnt/b, password: \"${REDIS_PASSWORD}\" }\n")),
        ("backups with their secrets in the file", shop("backup: { to: \"s3:https://s3.example.com/b\", password: hunter2, key: \"${K}\" }\n")),
        ("backups to places and times that are none", shop("backup: { to: ./here, password: \"${P}\", every: 5m, at: noon, keep: { daily: 0 } }\n")),
        ("backups at a time of no day", shop("backup: { to: \"sftp:a@b:/c\", password: \"${P}\", every: hour, at: \"03:00\", secret: \"${S}\" }\n")),
        (
            "volumes of backups that nobody keeps as they are",
            "app: shop\nservices:\n  web: { image: \"shop:1\", port: 80, volumes: [\"uploads:/up\"] }\n  bot: { image: \"shop:1\" }\nbackup:\n  to: /mnt/b\n  password: \"${P}\"\n  volumes:\n    nowhere: { pause: [web] }\n    uploads: { service: bot, before: freeze }\n".to_owned(),
        ),
        (
            "hooks and pauses that are half or both",
            "app: shop\nservices:\n  web: { image: \"shop:1\", port: 80, volumes: [\"a:/a\", \"b:/b\", \"c:/c\", \"d:/d\", \"e:/e\", \"f:/f\"], route: { host: shop.example.com } }\nbackup:\n  to: /mnt/b\n  password: \"${P}\"\n  volumes:\n    a: { service: web, after: thaw }\n    b: { pause: [web], before: freeze }\n    c: { pause: [wbe], timeout: 2h }\n    d: { service: web, before: \"freeze ${P}\" }\n    e: { pause: [] }\n    f: { pause: [web], timeout: 1m }\n".to_owned(),
        ),
    ]);
}

#[test]
fn references() {
    golden(&[
        ("a secret of one service in a public place", web("environment: { TOKEN: }\nhostname: \"${TOKEN}\"")),
        ("secrets and unknown names where public values are needed", "app: shop\nenvironment: { SECRET_KEY: }\nservices:\n  web:\n    build: { context: ., args: { KEY: \"${SECRET_KEY}\" } }\n    port: 8000\n    command: serve --key ${SECRET_KEY} --url ${services.web.url} --port ${PORT}\n    route: { path: \"/${PREFIX:?say where}\" }\n    health: { path: \"${services.web.url}\", command: [\"x\", \"${PORT}\"] }\n".to_owned()),
        ("broken references", web("environment: { A: \"${\", B: \"${a b}\", C: \"${A:-${B}}\" }\nhostname: \"${X-${Y}}\"")),
        ("one host without a value", shop("environments: { production: { hosts: [\"${HOST}\"], variables: { A: \"${B}\", C: } } }\n")),
    ]);
}

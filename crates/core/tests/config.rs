//! cutover.yml as people write it: what it settles to, and every problem it can have, as text.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::disallowed_methods, reason = "the core is pure, its tests read files")]
#![allow(
    clippy::items_after_statements,
    clippy::print_stdout,
    reason = "a test says what it found, beside what it needs"
)]

use std::collections::BTreeMap;
use std::time::Duration;

use cutover_core::config::settings::{Config, Origin, Service, SnapshotPolicy, Source, Strategy};
use cutover_core::config::{
    Problems, Selection, Sources, compose_files, compose_table, env_files, environments, parse,
    reference_markdown,
};
use cutover_core::gate::Check;
use cutover_core::names::{ServiceName, VariableName, VolumeName};

const MODEL: &str = include_str!("../fixtures/config/model.yml");
const PROCESSES: &str = include_str!("../../../examples/guestbook/cutover.yml");
const CONTAINERS: &str = include_str!("../../../examples/guestbook/cutover.docker.yml");

fn in_environment(text: &str, environment: &str) -> Result<Config, Problems> {
    let named = (!environment.is_empty()).then(|| environment.parse().unwrap());
    let selection = Selection { environment: named, ..Selection::default() };
    parse(&Sources { file: "cutover.yml", text, ..Sources::default() }, &selection)
}

#[test]
fn the_model_settles_for_a_server() {
    let config = in_environment(MODEL, "production").unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(config.id.to_string(), "project-manager/production");
    assert!(config.protected);
    let api = &config.services[&"api".parse().unwrap()];
    assert_eq!(api.route.as_ref().unwrap().hosts, ["pm.example.com"]);
    assert_eq!(api.strategy, Strategy::BlueGreen);
    let url = &api.run.environment[&"DATABASE_URL".parse().unwrap()];
    assert_eq!(url.to_string(), "postgresql://manager:${POSTGRES_PASSWORD}@postgres:5432/manager");
    assert_eq!(api.run.environment[&"APP_ENV".parse().unwrap()].as_text(), Some("production"));
    let bot = &config.services[&"bot".parse().unwrap()];
    assert_eq!((bot.strategy, &bot.source), (Strategy::Handover, &api.source));
    let required: Vec<String> =
        config.required.iter().map(|(name, origin)| format!("{name} {origin:?}")).collect();
    assert_eq!(
        required,
        [
            "GHCR_TOKEN HostFile",
            "POSTGRES_PASSWORD Generated",
            "SECRET_KEY HostFile",
            "TELEGRAM_BOT_TOKEN HostFile"
        ]
    );
    assert_eq!(config.variables[&"DOMAIN".parse().unwrap()], Origin::EnvironmentVariables);
    assert!(config.volumes.contains_key(&"pgdata".parse().unwrap()));
}

#[test]
fn how_long_snapshots_stay_is_said_of_each_database() {
    let text = format!(
        "{SHOP}databases:\n  a: {{ engine: postgres, url: \"${{A}}\", snapshot: {{ keep: 7d }} }}\n  b: {{ engine: postgres, url: \"${{B}}\", snapshot: none }}\n  c: {{ engine: postgres, url: \"${{C}}\" }}\n"
    );
    let config = good(&text, "");
    let kept = config.databases.values().map(|database| (database.snapshot, database.keep));
    let week = Duration::from_hours(7 * 24);
    assert_eq!(
        kept.collect::<Vec<_>>(),
        [
            (SnapshotPolicy::BeforeMigration, Some(week)),
            (SnapshotPolicy::None, None),
            (SnapshotPolicy::BeforeMigration, None)
        ]
    );
    let written = serde_json::to_value(&config.databases).unwrap();
    assert!(written["c"].get("keep").is_none(), "as releases on record have it: {written}");
}

#[test]
fn the_guestbook_settles_as_processes_and_as_containers() {
    let processes = in_environment(PROCESSES, "").unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(processes.id.to_string(), "guestbook/local");
    let web = &processes.services[&"web".parse().unwrap()];
    assert_eq!(web.source, Source::Artifact { path: "web".to_owned() });
    assert_eq!(web.route.as_ref().unwrap().hosts, ["guestbook.localhost"]);
    assert!(
        matches!(&web.gate.checks[0].check, Check::Http { path, scheme, .. } if path == "/health" && scheme == "http")
    );
    let bot = &processes.services[&"bot".parse().unwrap()];
    assert!(matches!(&bot.gate.checks[0].check, Check::Log { text } if text == "polling started"));
    assert_eq!(processes.required.len(), 1);
    let containers = in_environment(CONTAINERS, "").unwrap_or_else(|problems| panic!("{problems}"));
    let Source::Build(build) = &containers.services[&"web".parse().unwrap()].source else { panic!() };
    assert_eq!(build.args["BASE"], "scratch");
}

#[test]
fn environments_are_named_in_order() {
    let names = environments(MODEL).unwrap().iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names, ["staging", "production", "local"]);
    let names = environments("").unwrap().iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names, ["local"]);
}

#[test]
fn several_environments_and_none_named_is_a_matter_of_the_command() {
    let problems = in_environment(MODEL, "").unwrap_err();
    assert!(problems.only_environment());
    assert_eq!(problems.problems[0].allowed, ["staging", "production", "local"]);
    let unknown = in_environment(MODEL, "prodction").unwrap_err();
    assert!(unknown.only_environment());
    assert_eq!(unknown.problems[0].nearest.as_deref(), Some("production"));
}

#[test]
fn given_one_environment_then_it_is_meant() {
    let text = format!("{SHOP}environments: {{ production: {{ hosts: [deploy@one] }} }}\n");
    let config = good(&text, "");
    assert_eq!(config.id.environment.as_str(), "production");
    assert_eq!(config.hosts[0].as_str(), "deploy@one");
    assert!(good(&text, "local").hosts.is_empty());
}

const SHOP: &str = "app: shop\nservices:\n  web:\n    image: shop:1\n    port: 8000\n    route: { host: \"${DOMAIN:-shop.example.com}\" }\n";

fn good(text: &str, environment: &str) -> Config {
    in_environment(text, environment).unwrap_or_else(|problems| panic!("{problems}"))
}

fn service<'c>(config: &'c Config, name: &str) -> &'c Service {
    &config.services[&name.parse::<ServiceName>().unwrap()]
}

fn variable(service: &Service, name: &str) -> String {
    service.run.environment[&name.parse::<VariableName>().unwrap()].to_string()
}

#[test]
fn routes_on_this_machine_need_no_dns() {
    let route = |text: &str| service(&good(text, ""), "web").route.clone().unwrap().hosts;
    assert_eq!(route(SHOP), ["web.shop.localhost"]);
    assert_eq!(route(&SHOP.replace("${DOMAIN:-shop.example.com}", "${DOMAIN}")), ["web.shop.localhost"]);
    assert_eq!(route(&SHOP.replace("${DOMAIN:-shop.example.com}", "here.localhost")), ["here.localhost"]);
    let named = format!(
        "{SHOP}environments: {{ local: {{ services: {{ web: {{ route: {{ host: my.test }} }} }} }} }}\n"
    );
    assert_eq!(route(&named), ["my.test"]);
}

#[test]
fn an_environment_lays_over_by_the_rules_of_compose() {
    let text = "app: shop
environment: { LEVEL: info, MODE: a }
services:
  web:
    build: .
    port: 8000
    environment: [ONE=1, TWO=2]
    command: [serve, --fast]
    volumes: [\"data:/data\", \"cache:/cache\"]
    dns: [1.1.1.1]
    route: { path: /shop, strip: true }
environments:
  production:
    variables: { LEVEL: warning }
    services:
      web:
        image: shop:2
        environment: { TWO: two, THREE: 3 }
        command: serve --safe
        volumes: [\"fast:/cache\", \"data:/data\"]
        dns: [1.1.1.1, 9.9.9.9]
        route: { host: shop.example.com, strip: !reset null }
        replicas: 2
";
    let config = good(text, "production");
    let web = service(&config, "web");
    assert_eq!(web.source, Source::Image { reference: "shop:2".to_owned() });
    let variables: Vec<String> =
        web.run.environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(variables, ["LEVEL=warning", "MODE=a", "ONE=1", "THREE=3", "TWO=two"]);
    let command: Vec<String> = web.run.command.iter().flatten().map(ToString::to_string).collect();
    assert_eq!(command, ["serve", "--safe"]);
    assert_eq!(web.run.dns, ["1.1.1.1", "9.9.9.9"]);
    let mounts: Vec<String> = web.run.mounts.iter().map(|mount| format!("{mount:?}")).collect();
    assert!(mounts.len() == 2 && mounts[1].contains("fast"), "{mounts:?}");
    let route = web.route.as_ref().unwrap();
    assert_eq!((route.hosts.len(), route.path.as_str(), route.strip), (1, "/shop", false));
    assert_eq!((web.replicas, web.strategy), (2, Strategy::BlueGreen));
}

#[test]
fn an_environment_that_lists_migrations_says_all_of_them_in_their_order() {
    let text = "app: shop
services: { web: { image: \"shop:1\" } }
backing: { db: { image: \"db:1\" } }
databases:
  main:
    engine: postgres
    service: db
    migrate:
      - { service: web, command: one }
      - { service: web, command: two, timeout: 1m }
environments:
  production:
    databases:
      main:
        migrate:
          - { service: web, command: one }
          - { service: web, command: two, timeout: 1h }
";
    let config = good(text, "production");
    let migrate = &config.databases.values().next().unwrap().migrate;
    let told: Vec<_> =
        migrate.iter().map(|one| (one.command[0].to_string(), one.timeout.as_secs())).collect();
    assert_eq!(told, [("one".to_owned(), 600), ("two".to_owned(), 3600)]);
}

#[test]
fn the_command_line_is_stronger_than_the_file_and_never_gives_secrets() {
    let text = format!("{SHOP}    environment: {{ LEVEL: info, KEY: }}\n");
    let set = |name: &str, value: &str| {
        let set = [(name.parse().unwrap(), value.to_owned())].into();
        let selection = Selection { set, ..Selection::default() };
        parse(&Sources { file: "cutover.yml", text: &text, ..Sources::default() }, &selection)
    };
    let config = set("LEVEL", "debug").unwrap();
    assert_eq!(variable(service(&config, "web"), "LEVEL"), "debug");
    assert_eq!(config.variables[&"LEVEL".parse::<VariableName>().unwrap()], Origin::CommandLine);
    assert!(
        set("KEY", "value").unwrap_err().to_string().contains("a name declared without a value is a secret")
    );
    assert_eq!(set("LEVLE", "debug").unwrap().notes, ["`-v LEVLE=…` is used nowhere"]);
}

#[test]
fn passwords_of_backing_services_are_made_when_absent() {
    let text = format!(
        "{SHOP}    environment: {{ URL: \"redis://:${{REDIS_PASSWORD}}@redis\", API_PASSWORD: }}
backing: {{ redis: {{ image: \"redis:7\", environment: {{ REDIS_PASSWORD: , LICENCE: }} }} }}\n"
    );
    let config = good(&text, "");
    let generated: Vec<&str> = config.generate.iter().map(VariableName::as_str).collect();
    assert_eq!(generated, ["REDIS_PASSWORD"]);
    let required: Vec<&str> = config.required.keys().map(VariableName::as_str).collect();
    assert_eq!(required, ["API_PASSWORD", "LICENCE", "REDIS_PASSWORD"]);
    let redis = &config.backing[&"redis".parse::<ServiceName>().unwrap()];
    assert_eq!(redis.port, Some(6379));
    assert!(matches!(redis.gate.checks[0].check, Check::Tcp { .. }));
}

#[test]
fn services_of_compose_files_are_taken_over() {
    let compose = "
services:
  web: { build: ., image: shop, ports: [\"127.0.0.1:9000:9000\"], depends_on: { db: { condition: service_healthy } } }
  db: { image: \"postgres:17\", volumes: [\"data:/var/lib/postgresql/data\"], environment: [POSTGRES_PASSWORD] }
  mailhog: { image: mailhog, profiles: [dev] }
volumes: { data: { external: true, name: old_data } }
";
    let text = "app: shop\ncompose: [compose.yml]\nbacking: [db]\nservices: { web: { port: 9000, strategy: handover } }\n";
    let compose: BTreeMap<String, String> = [("compose.yml".to_owned(), compose.to_owned())].into();
    assert_eq!(compose_files(text), ["compose.yml"]);
    let sources = Sources { file: "cutover.yml", text, compose, ..Sources::default() };
    let config = parse(&sources, &Selection::default()).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(config.services.len(), 1);
    assert_eq!(config.backing.len(), 1);
    assert_eq!(config.generate.len(), 1);
    assert_eq!(service(&config, "web").port, Some(9000));
    assert!(service(&config, "web").run.depends_on.is_empty());
    let data = &config.volumes[&"data".parse::<VolumeName>().unwrap()];
    assert_eq!(data.external.as_deref(), Some("old_data"));
    assert!(config.notes.iter().any(|note| note.contains("mailhog")), "{:?}", config.notes);
    let missing = parse(&Sources { compose: BTreeMap::new(), ..sources }, &Selection::default()).unwrap_err();
    assert!(missing.to_string().contains("the Compose file `compose.yml` is not there"), "{missing}");
}

#[test]
fn a_problem_of_a_compose_file_points_into_it() {
    let text = "app: shop\ncompose: [compose.yml]\n";
    let compose =
        [("compose.yml".to_owned(), "services:\n  web: { image: \"x:1\", privileged: true }\n".to_owned())];
    let sources = Sources { file: "cutover.yml", text, compose: compose.into(), ..Sources::default() };
    let problems = parse(&sources, &Selection::default()).unwrap_err();
    let problem = &problems.problems[0];
    assert_eq!((problem.file.as_str(), problem.line), ("compose.yml", 2));
    assert_eq!(&problems.text_of(problem)[problem.span.clone()], "privileged");
}

#[test]
fn env_files_give_names_and_keep_their_values() {
    let text = format!(
        "{SHOP}    env_file: [.env.web, {{ path: absent, required: false }}]\n    environment: {{ LEVEL: info }}\n"
    );
    assert_eq!(env_files(&[&text]).into_iter().collect::<Vec<_>>(), [".env.web", "absent"]);
    let files = [(".env.web".to_owned(), "TOKEN=hunter2\nLEVEL=debug\n".to_owned())];
    let sources = Sources { file: "cutover.yml", text: &text, env_files: files.into(), ..Sources::default() };
    let config = parse(&sources, &Selection::default()).unwrap();
    assert_eq!(variable(service(&config, "web"), "TOKEN"), "${TOKEN}");
    assert_eq!(variable(service(&config, "web"), "LEVEL"), "info");
    assert!(config.required.contains_key(&"TOKEN".parse::<VariableName>().unwrap()));
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn what_is_not_said_has_a_default() {
    let text = "app: shop
services:
  web: { image: \"x:1\", port: 80, route: {} }
  worker: { image: \"x:1\" }
  pool: { image: \"x:1\", replicas: 3 }
  checked: { image: \"x:1\", healthcheck: { test: curl localhost } }
  process: { artifact: ./process/, command: \"./run ${PORT}\", healthcheck: { test: [CMD, ./ok] } }
";
    let config = good(text, "");
    let strategies: Vec<Strategy> = config.services.values().map(|service| service.strategy).collect();
    use Strategy::{BlueGreen, Handover};
    assert_eq!(strategies, [Handover, BlueGreen, Handover, BlueGreen, Handover]);
    let check = |name: &str| service(&config, name).gate.checks[0].check.clone();
    assert_eq!(check("web"), Check::Tcp { port: None, inside: false });
    assert!(matches!(check("worker"), Check::Steady { .. }));
    assert_eq!(check("checked"), Check::Container);
    assert_eq!(check("process"), Check::Command { words: vec!["./ok".to_owned()] });
    let process = service(&config, "process");
    assert_eq!(process.source, Source::Artifact { path: "process".to_owned() });
    assert_eq!(process.run.command.as_ref().unwrap()[1].to_string(), "${PORT}");
    assert_eq!(config.bake, Duration::from_secs(10));
}

#[test]
fn compose_keys_settle_into_run_settings() {
    let text = format!(
        "{SHOP}    strategy: handover
    ports: [\"8080:80\", \"[::1]:53:53/udp\", {{ target: 90, published: 91, host_ip: 0.0.0.0 }}]
    volumes: [\"./conf/redis.conf:/etc/redis.conf:ro\", \"/srv/media:/media\", {{ type: tmpfs, target: /t, tmpfs: {{ size: 1m }} }}]
    tmpfs: /tmp:size=64m
    mem_limit: 64m
    cpus: 0.5
    pids_limit: -1
    ulimits: {{ nofile: {{ soft: 10, hard: 20 }}, core: 0 }}
    extra_hosts: [\"a:1.2.3.4\", \"b=5.6.7.8\"]
    stop_signal: SIGINT
    stop_grace_period: 1m30s
    labels: [team=shop]
    logging: {{ driver: local, options: {{ max-size: 10m }} }}
    user: 1000
    init: true
    hold: {{ budget: 5s, bytes: 1m }}
    drain: 0
    x-note: anything
"
    );
    let config = good(&text, "");
    insta::assert_debug_snapshot!(service(&config, "web").run);
    let hold = &service(&config, "web").hold;
    assert_eq!((hold.budget.as_secs(), hold.requests, hold.bytes), (5, 1000, 1 << 20));
}

#[test]
fn anchors_and_merge_keys_are_written_out() {
    let text = "app: shop
x-base: &base
  image: shop:1
  environment: &env { A: 1, B: 2 }
services:
  one: { <<: *base, environment: { <<: *env, B: 3 } }
  two: { <<: [*base, { image: other }], command: run }
";
    let config = good(text, "");
    assert_eq!(variable(service(&config, "one"), "A"), "1");
    assert_eq!(variable(service(&config, "one"), "B"), "3");
    assert_eq!(service(&config, "two").source, Source::Image { reference: "shop:1".to_owned() });
}

#[test]
fn words_that_may_mean_another_version_tomorrow_are_noted() {
    let text = "app: shop
services: { a: { image: shop }, b: { image: \"shop:latest\" }, c: { image: \"host:5000/shop\" }, d: { image: \"shop:1\", restart: always } }
";
    insta::assert_snapshot!(good(text, "").notes.join("\n"), @r"
    `services.d.restart` has no effect: cutover restarts what should run, and never a candidate
    `services.a.image`: `shop` has no tag: the next start may bring another one
    `services.b.image`: `shop:latest` is no version: the next start may bring another one
    `services.c.image`: `host:5000/shop` has no tag: the next start may bring another one
    ");
}

#[test]
fn limits_that_are_not_kept_for_a_plain_process_are_told() {
    let text = "app: shop
services:
  bot: { artifact: bot, command: ./bot, mem_limit: 64m, ulimits: { nofile: 100 }, deploy: { resources: { limits: { cpus: '1' } } } }
";
    insta::assert_snapshot!(good(text, "").notes.join("\n"), @r"
    `services.bot.mem_limit` is not kept for plain processes: set it on what starts `cutover-host up`, or use an image
    `services.bot.deploy.resources` is not kept for plain processes: set it on what starts `cutover-host up`, or use an image
    ");
}

#[test]
fn notes_are_about_the_environment_that_is_meant() {
    let text = format!(
        "{SHOP}environments:\n  staging: {{ services: {{ web: {{ tty: true }} }} }}\n  production: {{ services: {{ web: {{ attach: true }} }} }}\n"
    );
    insta::assert_snapshot!(good(&text, "production").notes.join("\n"), @"`environments.production.services.web.attach` has no effect: output is always kept; see `cutover logs`");
}

#[test]
fn the_example_of_an_empty_file_is_right() {
    let problems = in_environment("", "").unwrap_err();
    let remedy = problems.problems[0].remedy.clone().unwrap();
    let (_, example) = remedy.split_once('\n').unwrap();
    assert_eq!(good(&format!("{example}\n"), "").id.to_string(), "my-app/production");
}

#[test]
fn the_reference_page_is_what_the_tables_say() {
    let page = include_str!("../../../docs/configuration.md");
    let made = reference_markdown();
    if page != made {
        let next = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
        assert!(
            std::env::var_os("UPDATE_DOCS").is_some(),
            "docs/configuration.md is not what the tables say; make it with UPDATE_DOCS=1"
        );
        std::fs::write(next, made).unwrap();
    }
}

/// What the pages show of a file, between what it leaves out.
fn whole(part: &str) -> String {
    if part.starts_with("app:") {
        return part.to_owned();
    }
    let main = "  main:\n    engine: postgres\n    service: postgres\n";
    let indented = || part.lines().map(|line| format!("    {line}\n")).collect::<String>();
    let part = match part.split_once('\n') {
        Some(("migrate:", _)) => format!("databases:\n{main}{}", indented()),
        Some(("backup:", rest)) => {
            format!("databases:\n{main}backup:\n  to: /backups\n  password: ${{BACKUP_PASSWORD}}\n{rest}")
        }
        Some(("backing:", others)) => others.to_owned(),
        _ => part.to_owned(),
    };
    format!(
        "{SHOP}  api: {{ image: \"shop:1\" }}\nbacking:\n  postgres: {{ image: \"postgres:15\" }}\n{part}"
    )
}

#[test]
fn each_configuration_on_a_page_is_one() {
    let top = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let docs = std::fs::read_dir(top.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let pages = docs.filter(|path| path.extension().is_some_and(|ending| ending == "md"));
    let mut parts = 0;
    for page in pages.chain([top.join("README.md")]) {
        let text = std::fs::read_to_string(&page).unwrap();
        for part in text.split("```yaml\n").skip(1) {
            let part = part.split("```").next().unwrap();
            let environment = if part.contains("production:") { "production" } else { "" };
            let problems = in_environment(&whole(part), environment).err();
            assert!(problems.is_none(), "{}: {part}\n{}", page.display(), problems.unwrap());
            parts += 1;
        }
    }
    assert!(parts >= 12, "{parts}: were they found?");
}

#[test]
fn every_key_of_the_compose_specification_has_its_line() {
    let names: Vec<&str> = compose_table().map(|key| key.name).collect();
    let mut sorted = names.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(names, sorted);
    // Of the specification's schema of a service, as of 2026.
    let specification = include_str!("../fixtures/config/compose_service_keys.txt");
    let missing: Vec<&str> = specification.lines().filter(|name| !names.contains(name)).collect();
    assert_eq!(missing, [""; 0]);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test may look at the clock")]
fn a_file_is_read_in_no_time() {
    let selection = Selection { environment: Some("production".parse().unwrap()), ..Selection::default() };
    let sources = Sources { file: "cutover.yml", text: MODEL, ..Sources::default() };
    let start = std::time::Instant::now();
    for _ in 0..50 {
        parse(&sources, &selection).unwrap();
    }
    let each = start.elapsed() / 50;
    println!("the model file: {each:?}");
    // Without optimisation, on a machine that is busy; with it the goal is 2 ms.
    assert!(each < std::time::Duration::from_millis(100), "{each:?}");
}

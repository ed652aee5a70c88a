//! cutover.yml as people write it: what it settles to, and every problem it can have, as text.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use cutover_core::config::settings::{Config, Origin, Source, Strategy};
use cutover_core::config::{Problems, Selection, Sources, environments, parse};
use cutover_core::gate::Check;

const MODEL: &str = include_str!("../fixtures/config/model.yml");
const PROCESSES: &str = include_str!("../../../examples/guestbook/cutover.yml");
const CONTAINERS: &str = include_str!("../../../examples/guestbook/cutover.docker.yml");

fn in_environment(text: &str, environment: &str) -> Result<Config, Problems> {
    let named = (!environment.is_empty()).then(|| environment.parse().unwrap());
    let selection = Selection { environment: named, ..Selection::default() };
    parse(&Sources { file: "cutover.yml", text, ..Sources::default() }, &selection)
}

/// All problems, as they are told.
fn problems(text: &str) -> String {
    match in_environment(text, "") {
        Ok(_) => "no problem".to_owned(),
        Err(problems) => problems.to_string(),
    }
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
    println!("{}", in_environment(MODEL, "").unwrap_err());
    println!(
        "{}",
        in_environment(MODEL, "local").map(|c| format!("{c:#?}")).unwrap_or_else(|p| p.to_string())
    );
    println!("{}", problems("app: a\nservises: {}\n"));
}

//! The applications of the scenes, and how they are put live.

use cutover_testkit::guestbook::Kind;
use cutover_testkit::site::{App, Process, Site};

/// An application whose first release is live.
pub(super) async fn deployed<'a>(site: &'a Site, name: &str, edit: fn(&str) -> String) -> App<'a> {
    let app = site.app(name, &format!("{name}.localhost")).unwrap();
    deploy(&app, "v1", edit).await;
    app
}

/// Puts a release of the example live.
pub(super) async fn deploy(app: &App<'_>, version: &str, edit: fn(&str) -> String) {
    app.commit(version, edit).unwrap();
    app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
    assert_eq!(app.serving().await.unwrap(), version);
}

pub(super) fn as_it_is(config: &str) -> String {
    config.to_owned()
}

pub(super) fn with_replicas(config: &str) -> String {
    config.replace("    route: {", "    replicas: 3\n    route: {")
}

pub(super) fn with_two(config: &str) -> String {
    config.replace("    route: {", "    replicas: 2\n    route: {")
}

pub(super) fn as_singleton(config: &str) -> String {
    config.replace("    route: {", "    strategy: handover\n    route: {")
}

/// A release in which the bot says something else.
pub(super) fn with_another_bot(app: &App<'_>, version: &str, greeting: &str) {
    app.commit(version, str::to_owned).unwrap();
    std::fs::write(app.repository().join("bot/greeting.txt"), greeting).unwrap();
    app.record(greeting).unwrap();
}

/// Two services of one artifact or image, without a database; the front asks the back.
pub(super) fn pair(app: &App<'_>, version: &str) {
    let (source, host) = match app.site().kind() {
        Kind::Processes => {
            ("artifact: web\n    command: ./guestbook serve", "environment: { HOST: 127.0.0.1")
        }
        Kind::Containers => (
            r#"build: { context: web, args: { BASE: "${BASE_IMAGE:-scratch}" } }"#,
            "environment: { NAME: pair",
        ),
    };
    let config = format!(
        r#"app: guestbook
services:
  front:
    {source}
    port: 8000
    {host}, PEER_URL: "${{services.back.url}}" }}
    route: {{ host: guestbook.localhost }}
    health: {{ path: /health }}
  back:
    {source}
    {host} }}
    strategy: blue-green
    port: 8000
    health: {{ path: /health }}
bake: 1s
"#
    );
    app.commit(version, |_| app.own(&config)).unwrap();
    std::fs::write(app.repository().join("web/behaviour.json"), r#"{ "database": "memory" }"#).unwrap();
    app.record(version).unwrap();
}

/// How many instances of a service run.
pub(super) fn running(site: &Site, service: &str) -> Vec<u32> {
    let all = site.processes().into_iter();
    all.filter(|found| found.process.is_instance_of(service)).map(|found| found.pid).collect()
}

pub(super) fn is_web(process: &Process) -> bool {
    process.is_instance_of("web")
}

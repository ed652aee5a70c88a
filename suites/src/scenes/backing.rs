//! A backing service: started when it is absent, and left alone by every deploy after.

use cutover_testkit::get;
use cutover_testkit::site::{App, Site};

use super::applications::running;
use super::counted::{none_failed, traffic};
use super::deploys::serves;
use crate::engine::{containers, docker};

/// The front asks the store; the store keeps its data in a volume.
const CONFIG: &str = r#"app: guestbook
services:
  front:
    build: &web { context: web, args: { BASE: "${BASE_IMAGE:-scratch}" } }
    port: 8000
    environment: { PEER_URL: "http://store:8000" }
    route: { host: guestbook.localhost }
    health: { path: /health }
backing:
  store:
    build: *web
    port: 8000
    volumes: [store:/data]
    health: { path: /health }
bake: 1s
"#;

/// Two deploys, a rollback and a change of its own settings leave it as it is; those who ask it are answered by the very same.
pub async fn a_backing_service_is_started_once_and_never_replaced(site: &Site) {
    let app = site.app("stand", "stand.localhost").unwrap();
    release(&app, "v1", CONFIG);
    app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
    let (store, first) = (running(site, "store"), asked(site, "stand.localhost").await);
    assert_eq!(store.len(), 1);
    let probe = traffic(&app);
    release(&app, "v2", CONFIG);
    app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
    release(
        &app,
        "v2 with another store",
        &CONFIG.replace("    volumes:", "    environment: { MORE: more }\n    volumes:"),
    );
    let told = app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
    assert!(told.talk.contains("`store`"), "its drift is told: {}", told.talk);
    app.cutover(&["rollback", "--yes"]).await.unwrap().expect(0).unwrap();
    serves(&app, "v2").await;
    assert_eq!(running(site, "store"), store, "a backing service was replaced");
    assert_eq!(asked(site, "stand.localhost").await, first);
    none_failed("deploys on a backing service", &probe.stop().await);
}

/// Made anew only when somebody asks for it: with its volume and its address; one that fails its gate changes nothing.
pub async fn a_backing_service_is_made_anew_when_asked(site: &Site) {
    let app = site.app("anew", "anew.localhost").unwrap();
    release(&app, "v1", CONFIG);
    app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
    let (first, volumes, address) = (containers(&app, "store"), of(&app, VOLUMES), of(&app, ADDRESSES));

    let nothing = app.cutover(&["backing", "apply", "store", "--yes"]).await.unwrap().expect(0).unwrap();
    assert!(nothing.talk.contains("nothing to do"), "{}", nothing.talk);

    release(&app, "more", &CONFIG.replace("    volumes:", "    environment: { MORE: more }\n    volumes:"));
    app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
    let told = app.cutover(&["backing", "apply", "store", "--yes"]).await.unwrap().expect(0).unwrap();
    assert!(told.talk.contains("`store` was down for "), "{}", told.talk);
    let second = containers(&app, "store");
    assert_ne!(second, first, "it was not made anew");
    assert!(of(&app, "{{json .Config.Env}}").contains("MORE=more"));
    assert_eq!((of(&app, VOLUMES), of(&app, ADDRESSES)), (volumes, address));
    asked(site, "anew.localhost").await;

    let broken = CONFIG.replace("    volumes:", "    command: /no/such/program\n    volumes:");
    release(&app, "broken", &broken);
    app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
    let told = app.cutover(&["backing", "apply", "store", "--yes"]).await.unwrap().expect(4).unwrap();
    assert!(told.talk.contains("backing service `store` runs as it did before"), "{}", told.talk);
    assert_eq!(containers(&app, "store"), second, "the old one runs again");
    asked(site, "anew.localhost").await;

    app.cutover(&["backing", "restart", "store", "--yes"]).await.unwrap().expect(0).unwrap();
    assert_eq!(containers(&app, "store"), second, "the very same was restarted");
    asked(site, "anew.localhost").await;
}

/// One that never was healthy is mended in the file, and by nothing else.
pub async fn a_backing_service_that_never_came_up_is_mended_by_the_next_deploy(site: &Site) {
    let app = site.app("mended", "mended.localhost").unwrap();
    let broken = CONFIG.replace("    volumes:", "    command: /no/such/program\n    volumes:");
    release(&app, "broken", &broken);
    let told = app.cutover(&["deploy"]).await.unwrap().expect(4).unwrap();
    assert!(told.talk.contains("service `store` could not be started"), "{}", told.talk);

    release(&app, "mended", CONFIG);
    let told = app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();

    assert!(told.talk.contains("takes off store as an earlier deploy made it"), "{}", told.talk);
    assert_eq!(running(site, "store").len(), 1);
    asked(site, "mended.localhost").await;
}

const VOLUMES: &str = "{{range .Mounts}}{{.Name}} {{.Destination}};{{end}}";
const ADDRESSES: &str = "{{range .NetworkSettings.Networks}}{{.IPAddress}};{{end}}";

/// What the engine says of the store that runs.
fn of(app: &App<'_>, template: &str) -> String {
    docker(app.site(), &["inspect", "--format", template, &containers(app, "store")])
}

fn release(app: &App<'_>, subject: &str, config: &str) {
    app.commit("v2", |_| app.own(config)).unwrap();
    std::fs::write(app.repository().join("web/behaviour.json"), r#"{ "database": "memory" }"#).unwrap();
    std::fs::write(app.repository().join("web/pages/about.html"), subject).unwrap();
    app.record(subject).unwrap();
}

/// Which release the store that answers was made by.
async fn asked(site: &Site, host: &str) -> String {
    let answer = get(site.http().unwrap(), host, "/peer").await.unwrap();
    let said: serde_json::Value = serde_json::from_str(&answer).unwrap_or_else(|_| panic!("{answer}"));
    said["peer"]["release"].as_str().unwrap().to_owned()
}

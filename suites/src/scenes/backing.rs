//! A backing service: started when it is absent, and left alone by every deploy after.

use cutover_testkit::get;
use cutover_testkit::site::{App, Site};

use super::applications::running;
use super::counted::{none_failed, traffic};
use super::deploys::serves;

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

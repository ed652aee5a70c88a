//! A web application and a worker with a real `PostgreSQL` and a real Redis as backing services: deploys, a migration, a rollback and a crash of
//! the database, while entries are written. Every entry whose answer was good is there in the end, and was worked on once.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test stops where it fails, and says its numbers"
)]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use cutover_suites::engine::{
    DATABASES_IMAGE, POSTGRES_START, containers, databases_image, docker, on_engine,
};
use cutover_suites::rows::{HOST, serves, written_while};
use cutover_testkit::site::{App, Binaries};
use cutover_testkit::{SOON, ask, wait_until};

const CONFIG: &str = r#"app: APP
environment:
  DATABASE_URL: postgresql://ledger:${POSTGRES_PASSWORD}@postgres/ledger
services:
  web:
    build: &source .
    command: [httpd, -f, -p, "8080", -h, /www]
    port: 8080
    init: true
    replicas: 2
    route: { host: ledger.localhost }
    health: { path: /cgi-bin/health, interval: 200ms, timeout: 5s, within: 60s }
    depends_on: { postgres: { condition: service_healthy }, cache: { condition: service_started } }
  worker:
    build: *source
    command: [sh, /worker.sh]
    strategy: handover
    ready: { log: worker ready, within: 30s }
databases:
  main: { engine: postgres, service: postgres, snapshot: none, migrate: { service: web, command: sh /migrate.sh } }
backing:
  postgres:
    image: IMAGE
    command: [sh, -c, "START"]
    environment: { POSTGRES_USER: ledger, POSTGRES_DB: ledger, POSTGRES_PASSWORD: }
    volumes: ["pgdata:/data"]
    healthcheck: { test: [CMD, pg_isready, -h, 127.0.0.1, -U, ledger], interval: 1s, retries: 60 }
  cache:
    image: IMAGE
    command: [redis-server, --dir, /data, --appendonly, "yes", --bind, 0.0.0.0, --protected-mode, "no"]
    volumes: ["cache:/data"]
bake: 1s
"#;

const HEALTH: &str = r#"#!/bin/sh
if said=$(psql "$DATABASE_URL" -qAtc 'select count(*) from entries' 2>&1) && redis-cli -h cache ping | grep -q PONG
then printf 'Content-Type: text/plain\r\n\r\n%s\n' "$(cat /version)"
else printf 'Status: 503 Service Unavailable\r\nContent-Type: text/plain\r\n\r\n%s\n' "$said"; fi
"#;

const ADD: &str = r#"#!/bin/sh
if psql "$DATABASE_URL" -qc "insert into entries (text) values ('$QUERY_STRING')" >/dev/null 2>&1 \
    && [ "$(redis-cli -h cache rpush jobs "$QUERY_STRING")" -gt 0 ]
then printf 'Content-Type: text/plain\r\n\r\nadded %s\n' "$QUERY_STRING"
else printf 'Status: 500 Internal Server Error\r\n\r\n'; fi
"#;

/// A job that was taken is finished before it ends.
const WORKER: &str = r#"trap 'over=1' TERM
redis-cli -h cache ping && echo worker ready
while [ -z "$over" ]; do
    job=$(redis-cli -h cache blpop jobs 1 | sed -n 2p)
    if [ -n "$job" ]; then psql "$DATABASE_URL" -qc "insert into done (text) values ('$job')" || redis-cli -h cache lpush jobs "$job"; fi
done
"#;

const SCHEMA: &str = "create table if not exists entries (text text primary key); \
                      create table if not exists done (text text);";
const WIDER: &str = "alter table entries add column if not exists mark text not null default 'wider';";

fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// A commit of the application, as a developer would have it.
fn release(app: &App<'_>, version: &str, schema: &str) {
    let folder = app.repository();
    let start = POSTGRES_START.replace('$', "$$");
    let config = CONFIG.replace("IMAGE", DATABASES_IMAGE).replace("START", &start);
    write(folder, "cutover.yml", &config.replace("app: APP", &format!("app: {}", app.id().app)));
    let files = "COPY www /www\nCOPY worker.sh migrate.sh version /\n";
    write(folder, "Dockerfile", &format!("FROM {DATABASES_IMAGE}\n{files}"));
    write(folder, "www/cgi-bin/health", HEALTH);
    write(folder, "www/cgi-bin/add", ADD);
    write(folder, "worker.sh", WORKER);
    write(
        folder,
        "migrate.sh",
        &format!("psql \"$DATABASE_URL\" -v ON_ERROR_STOP=1 -qc \"{SCHEMA} {schema}\"\n"),
    );
    write(folder, "version", version);
    app.record(version).unwrap();
}

/// What a query in the backing service itself says.
async fn query(app: &App<'_>, query: &str) -> String {
    let script = format!("PGPASSWORD=$POSTGRES_PASSWORD psql -h 127.0.0.1 -U ledger -qAtc \"{query}\"");
    let told = app.cutover(&["exec", "postgres", "--", "sh", "-c", &script]).await.unwrap();
    told.expect(0).unwrap().output.trim().to_owned()
}

/// A deploy with a migration, one whose migration fails, one more, and a rollback.
async fn changes(app: &App<'_>) {
    release(app, "second", WIDER);
    app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
    assert_eq!(query(app, "select count(distinct mark) from entries").await, "1");
    release(app, "broken again", "select nonsense;");
    app.cutover(&["deploy"]).await.unwrap().expect(5).unwrap();
    release(app, "third", WIDER);
    app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
    app.cutover(&["rollback", "--yes"]).await.unwrap().expect(0).unwrap();
    serves(app, "second").await;
}

/// The database's own process is killed, as by the kernel for want of memory: it is brought back, with what it has.
async fn crash(app: &App<'_>) {
    let pid = docker(app.site(), &["inspect", "--format", "{{.State.Pid}}", &containers(app, "postgres")]);
    let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let http = app.site().http().unwrap();
    let answers = async || {
        let answer = ask(http, HOST, "/cgi-bin/health").await.ok()?;
        (answer.status == 200).then_some(())
    };
    wait_until("the database answers again", SOON, answers).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_and_redis_are_started_once_kept_and_lose_nothing() {
    let name = "postgres_and_redis_are_started_once_kept_and_lose_nothing";
    on_engine(name, Binaries::beside_this_program().unwrap(), async |site| {
        if let Err(why) = databases_image(site.docker().unwrap().engine()) {
            return println!("not run: {name}: {why}");
        }
        let app = site.app("ledger", HOST).unwrap();
        release(&app, "broken", "select nonsense;");
        let told = app.cutover(&["deploy"]).await.unwrap().expect(5).unwrap();
        assert!(told.failure().contains("column \"nonsense\" does not exist"), "{}", told.talk);
        // With the password that was made for the first one.
        release(&app, "first", "");
        app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
        let backing = (containers(&app, "postgres"), containers(&app, "cache"));

        let (one, (other, ())) =
            written_while(site, "one", written_while(site, "other", Box::pin(changes(&app)))).await;

        assert_eq!((containers(&app, "postgres"), containers(&app, "cache")), backing, "one was replaced");
        assert!(one.len() + other.len() > 20, "{one:?} {other:?}");
        let written = (one.len() + other.len()).to_string();
        let is_worked_on = async || (query(&app, "select count(*) from done").await == written).then_some(());
        wait_until("every entry is worked on", SOON, is_worked_on).await.unwrap();
        crash(&app).await;
        assert_eq!(query(&app, "select count(*) from entries").await, written);
        assert_eq!(query(&app, "select count(distinct text) from done").await, written);
    })
    .await;
}

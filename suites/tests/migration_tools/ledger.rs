//! The application: it writes rows to a table that a tool's migrations made. Its releases are folders of files, one laid over another.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use cutover_suites::engine::{MARIADB_START, POSTGRES_START, ToolsImage};
use cutover_suites::rows::{none_is_missing, serves, written_while};
use cutover_testkit::site::App;

use crate::Tool;

/// In front of what the page of migrations says of a tool.
const CONFIG: &str = r#"app: APP
environment: ENVIRONMENT
services:
  web:
    build: .
    command: [httpd, -f, -p, "8080", -h, /www]
    port: 8080
    init: true
    stop_grace_period: 2s
    route: { host: ledger.localhost }
    health: { path: /cgi-bin/health, interval: 200ms, timeout: 5s, within: 60s }
    hold: { budget: 60s }
bake: 500ms
backing:
"#;

/// A database's server, and how the application and the suite speak with it.
pub(crate) struct Server {
    /// Its engine, and its service.
    pub(crate) name: &'static str,
    pub(crate) image: ToolsImage,
    /// How the application's image begins, from the tool's.
    from: &'static str,
    environment: &'static str,
    /// Its entry below `backing`.
    backing: &'static str,
    start: &'static str,
    /// A shell's function `sql` for the application.
    sql: &'static str,
    /// A shell's words in the server itself, to which a query is given.
    asks: &'static str,
    /// How many run a query that sleeps.
    pub(crate) sleeping: &'static str,
    /// What is told of tables where the statement after an `alter table` fails, and how many of its columns are there then.
    pub(crate) failed: [&'static str; 2],
}

pub(crate) const POSTGRES: Server = Server {
    name: "postgres",
    image: ToolsImage::Python,
    from: "FROM TOOL\n",
    environment: "{ DATABASE_URL: \"postgresql://ledger:${POSTGRES_PASSWORD}@postgres/ledger?sslmode=disable\" }",
    backing: r#"  postgres:
    image: IMAGE
    command: [sh, -c, "START"]
    environment: { POSTGRES_USER: ledger, POSTGRES_DB: ledger, POSTGRES_PASSWORD: }
    volumes: ["pgdata:/data"]
    healthcheck: { test: [CMD, pg_isready, -h, 127.0.0.1, -U, ledger], interval: 1s, retries: 60 }
"#,
    start: POSTGRES_START,
    sql: r#"sql() { psql "$DATABASE_URL" -v ON_ERROR_STOP=1 -qAtc "$1"; }"#,
    asks: "PGPASSWORD=$POSTGRES_PASSWORD psql -h 127.0.0.1 -U ledger -d $POSTGRES_DB -qAtc",
    sleeping: "select count(*) from pg_stat_activity where query like '%pg_sleep(600)%' and pid <> pg_backend_pid()",
    failed: ["a transaction took back what it did", "0"],
};

pub(crate) const MARIADB: Server = Server {
    name: "mariadb",
    image: ToolsImage::Mariadb,
    from: "FROM IMAGE\nCOPY --from=TOOL /usr/bin/ledger-migrate /usr/bin/\n",
    environment: "{ DATABASE_URL: \"mysql://ledger:${MARIADB_PASSWORD}@mariadb/ledger\", MYSQL_PWD: \"${MARIADB_PASSWORD}\" }",
    backing: r#"  mariadb:
    image: IMAGE
    command: [sh, -c, "START"]
    environment: { MARIADB_USER: ledger, MARIADB_DATABASE: ledger, MARIADB_PASSWORD: , MARIADB_ROOT_PASSWORD: }
    volumes: ["data:/data"]
    healthcheck: { test: [CMD, sh, -c, "MYSQL_PWD=$$MARIADB_PASSWORD mariadb -h 127.0.0.1 -u ledger ledger -e 'select 1'"], interval: 1s, retries: 60 }
"#,
    start: MARIADB_START,
    sql: r#"sql() { mariadb -h mariadb -u ledger -N ledger -e "$1"; }"#,
    asks: "MYSQL_PWD=$MARIADB_ROOT_PASSWORD mariadb -u root -N $MARIADB_DATABASE -e",
    sleeping: "select count(*) from information_schema.processlist where info like '%sleep(600)%' and id <> connection_id()",
    failed: ["this engine commits each such statement by itself", "1"],
};

const DOCKERFILE: &str = "WORKDIR /app\nCOPY www /www\nCOPY app /app\nCOPY version /\n";

const HEALTH: &str = r#"#!/bin/sh
SQL
if said=$(sql 'select count(*) from entries' 2>&1)
then printf 'Content-Type: text/plain\r\n\r\n%s\n' "$(cat /version)"
else printf 'Status: 503 Service Unavailable\r\nContent-Type: text/plain\r\n\r\n%s\n' "$said"; fi
"#;

/// A row, in the words of this release.
const ADD: &str = r#"#!/bin/sh
SQL
if sql "insert into entries (COLUMN) values ('$QUERY_STRING')" >/dev/null 2>&1
then printf 'Content-Type: text/plain\r\n\r\nadded %s\n' "$QUERY_STRING"
else printf 'Status: 500 Internal Server Error\r\n\r\n'; fi
"#;

/// One release of the application.
#[derive(Clone, Copy)]
pub(crate) struct Release<'a> {
    pub(crate) name: &'a str,
    /// The tool's folders, one laid over another.
    pub(crate) folders: &'a [&'a str],
    pub(crate) compatible: &'a str,
    pub(crate) timeout: &'a str,
    /// The column it writes to.
    pub(crate) column: &'a str,
}

fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn lay_over(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let place = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            lay_over(&entry.path(), &place);
        } else {
            std::fs::copy(entry.path(), &place).unwrap();
        }
    }
}

/// The application with one tool, and all rows whose answer was good.
pub(crate) struct Ledger<'a> {
    pub(crate) app: &'a App<'a>,
    pub(crate) tool: &'a Tool,
    acknowledged: BTreeSet<String>,
}

impl<'a> Ledger<'a> {
    pub(crate) fn new(app: &'a App<'a>, tool: &'a Tool) -> Self {
        Self { app, tool, acknowledged: BTreeSet::new() }
    }

    /// A commit of the application, as a developer would have it.
    fn commit(&self, release: &Release<'_>) {
        let folder = self.app.repository();
        let server = self.tool.server;
        let databases = self
            .tool
            .databases()
            .replace("compatible: expand", &format!("compatible: {}", release.compatible))
            .replace("migrate:\n", &format!("migrate:\n      timeout: {}\n", release.timeout));
        let config = (CONFIG.to_owned() + server.backing)
            .replace("ENVIRONMENT", server.environment)
            .replace("IMAGE", &server.image.name())
            .replace("START", &server.start.replace('$', "$$"))
            .replace("app: APP", &format!("app: {}", self.app.id().app));
        write(folder, "cutover.yml", &(config + &databases));
        let from =
            server.from.replace("IMAGE", &server.image.name()).replace("TOOL", &self.tool.image.name());
        write(folder, "Dockerfile", &(from + DOCKERFILE));
        write(folder, "www/cgi-bin/health", &HEALTH.replace("SQL", server.sql));
        write(folder, "www/cgi-bin/add", &ADD.replace("SQL", server.sql).replace("COLUMN", release.column));
        write(folder, "version", release.name);
        let place = folder.join("app");
        if place.exists() {
            std::fs::remove_dir_all(&place).unwrap();
        }
        let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/migration_tools/ledgers");
        for layer in release.folders {
            lay_over(&tools.join(self.tool.folder).join(layer), &place);
        }
        self.app.record(release.name).unwrap();
    }

    /// Deploys it, and expects this exit code; gives what was said.
    pub(crate) async fn deploy(&self, release: &Release<'_>, exit: i32) -> String {
        self.commit(release);
        self.told(&["deploy"], exit).await
    }

    /// A verb of cutover's, expected to end with this code; gives all that was said.
    pub(crate) async fn told(&self, words: &[&str], exit: i32) -> String {
        let told = self.app.cutover(words).await.unwrap().expect(exit).unwrap();
        println!("--- {} ({exit})\n{}{}", words.join(" "), told.output, told.talk);
        format!("{}{}", told.output, told.talk)
    }

    /// What a query in the backing service itself says.
    pub(crate) async fn query(&self, query: &str) -> String {
        let Server { name, asks, .. } = self.tool.server;
        let script = format!("{asks} \"{query}\"");
        let told = self.app.cutover(&["exec", name, "--", "sh", "-c", &script]).await.unwrap();
        told.expect(0).unwrap().output.trim().to_owned()
    }

    pub(crate) async fn serves(&self, version: &str) {
        serves(self.app, version).await;
    }

    /// Rows are written all the while; none fails, and every one is there afterwards, with all from before. Gives what `acts` gave.
    pub(crate) async fn under_traffic<T>(
        &mut self,
        name: &str,
        column: &str,
        acts: impl AsyncFnOnce(&Self) -> T,
    ) -> T {
        let (good, given) = written_while(self.app.site(), name, acts(self)).await;
        self.acknowledged.extend(good);
        let rows = self.query(&format!("select {column} from entries")).await;
        none_is_missing(name, &self.acknowledged, &rows);
        println!("{}, {name}: of {} rows so far none is missing", self.tool.name, self.acknowledged.len());
        given
    }
}

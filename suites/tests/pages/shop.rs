//! The application of the pages: rows of orders in a `PostgreSQL`, uploads in a volume, on a server that is called production.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use cutover_core::variables;
use cutover_suites::engine::{DATABASES_IMAGE, POSTGRES_START, databases_image, usable};
use cutover_suites::rows::{HOST, none_is_missing, serves, written_while};
use cutover_testkit::machine::Machine;
use cutover_testkit::site::{App, Binaries, Site};
use tokio::process::Command;

/// In front of what the page of backups says of them.
const CONFIG: &str = r#"app: shop
environment:
  DATABASE_URL: postgresql://shop:${POSTGRES_PASSWORD}@postgres/shop
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
    volumes: ["uploads:/uploads"]
databases:
  main:
    engine: postgres
    service: postgres
    migrate: { service: web, command: sh /migrate.sh, compatible: COMPATIBLE, down: sh /down.sh }
backing:
  postgres:
    image: IMAGE
    command: [sh, -c, "START"]
    environment: { POSTGRES_USER: shop, POSTGRES_DB: shop, POSTGRES_PASSWORD: , PGPASSWORD: "${POSTGRES_PASSWORD}" }
    volumes: ["pgdata:/data"]
    healthcheck: { test: [CMD, pg_isready, -h, 127.0.0.1, -U, shop], interval: 1s, retries: 60 }
bake: 500ms
"#;

const HEALTH: &str = r#"#!/bin/sh
if said=$(psql "$DATABASE_URL" -qAtc 'select count(*) from orders' 2>&1)
then printf 'Content-Type: text/plain\r\n\r\n%s\n' "$(cat /version)"
else printf 'Status: 503 Service Unavailable\r\nContent-Type: text/plain\r\n\r\n%s\n' "$said"; fi
"#;

/// An order, in the words of this release.
const ADD: &str = r#"#!/bin/sh
if psql "$DATABASE_URL" -qc "insert into orders (COLUMN) values ('$QUERY_STRING')" >/dev/null 2>&1
then printf 'Content-Type: text/plain\r\n\r\nadded %s\n' "$QUERY_STRING"
else printf 'Status: 500 Internal Server Error\r\n\r\n'; fi
"#;

/// What its migration says to the database, and what takes that back.
#[derive(Clone, Copy)]
pub(crate) struct Migration {
    up: &'static str,
    down: &'static str,
    compatible: &'static str,
    /// The column that the release writes to.
    pub(crate) column: &'static str,
}

pub(crate) const FIRST: Migration = Migration {
    up: "create table if not exists orders (text text primary key, placed timestamptz not null default now())",
    down: "drop table orders",
    compatible: "expand",
    column: "text",
};
pub(crate) const WIDER: Migration = Migration {
    up: "alter table orders add column if not exists mark text",
    down: "alter table orders drop column mark",
    ..FIRST
};
/// The old release cannot live with it.
pub(crate) const RENAMED: Migration = Migration {
    up: "alter table orders rename column text to line",
    down: "alter table orders rename column line to text",
    compatible: "breaking",
    column: "line",
};

/// The application, and what the words of the pages mean for it.
pub(crate) struct Shop<'a> {
    pub(crate) app: &'a App<'a>,
    stands: Vec<(&'static str, String)>,
    /// What the lines before say to the shell.
    exports: Vec<String>,
    /// The ssh that leads to the server in the place of the site, once that is gone.
    ssh: Option<PathBuf>,
    /// What the page of backups has of them.
    backups: String,
}

/// Carries out `test` with the application on a server of its own; or says that the test of this name did not run, and why.
pub(crate) async fn with_shop(name: &str, backups: &str, test: impl AsyncFnOnce(&mut Shop<'_>)) {
    let engine = match usable().await {
        Ok(engine) => engine,
        Err(why) => return println!("not run: {name}: {why}"),
    };
    if let Err(why) = databases_image(&engine) {
        return println!("not run: {name}: {why}");
    }
    let site = Site::over_ssh_on_engine(Binaries::beside_this_program().unwrap(), engine).await.unwrap();
    let site = match site {
        Ok(site) => site,
        Err(why) => return println!("not run: {name}: {why}"),
    };
    let app = site.app("shop", HOST).unwrap();
    test(&mut Shop::new(&app, backups)).await;
}

fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

impl<'a> Shop<'a> {
    /// Its repository, without a release. `backups` is what `cutover.yml` has of them and of environments.
    fn new(app: &'a App<'a>, backups: &str) -> Self {
        let site = app.site();
        let mut shop =
            Self { app, stands: Vec::new(), exports: Vec::new(), ssh: None, backups: backups.to_owned() };
        // The whole table of what stands for something else here; more is known once it is there: releases, IDs.
        let folder = site.folder().display();
        shop.means("sftp:backup@nas.example.com:/backups", &format!("{folder}/backups"));
        shop.means("cp -a /backups /trial", &format!("cp -a {folder}/backups {folder}/trial"));
        shop.means("/srv/", &format!("{folder}/srv/"));
        // Where the engine keeps all it has, its volumes below.
        let engine = app.volume("uploads").ancestors().nth(3).unwrap().display().to_string();
        shop.means("/var/lib/docker/", &format!("{engine}/"));
        shop.means("deploy@example.com", &site.remote().host());
        shop.means("Host: shop.example.com", &format!("Host: {HOST}"));
        for folder in ["bin", "srv"] {
            std::fs::create_dir(site.folder().join(folder)).unwrap();
        }
        std::os::unix::fs::symlink(&site.binaries().cutover, shop.bin().join("cutover")).unwrap();
        shop
    }

    /// Where the shell finds programs first.
    pub(crate) fn bin(&self) -> PathBuf {
        self.app.site().folder().join("bin")
    }

    /// From now on this of the pages stands for that.
    pub(crate) fn means(&mut self, on_the_page: &'static str, here: &str) {
        self.stands.retain(|(known, _)| *known != on_the_page);
        self.stands.push((on_the_page, here.to_owned()));
    }

    /// A line of a page, as it is meant here.
    pub(crate) fn meant(&self, line: &str) -> String {
        let (mut meant, mut rest) = (String::new(), line);
        while let Some(first) = rest.chars().next() {
            if let Some((word, here)) = self.stands.iter().find(|(word, _)| rest.starts_with(word)) {
                meant += here;
                rest = &rest[word.len()..];
            } else {
                meant.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
        meant
    }

    pub(crate) fn export(&mut self, line: &str) {
        self.exports.push(line.to_owned());
    }

    /// A shell in the repository that gets a line, with `cutover` in its path.
    pub(crate) fn shell(&self, line: &str) -> Command {
        let site = self.app.site();
        let mut command = Command::new("sh");
        let lines: Vec<&str> = self.exports.iter().map(String::as_str).chain([line]).collect();
        command.args(["-c", &lines.join("\n")]).current_dir(self.app.repository());
        for (name, value) in self.app.command(&[]).as_std().get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let path = std::env::var("PATH").unwrap();
        command.env("PATH", format!("{}:{path}", self.bin().display()));
        if let Some(ssh) = &self.ssh {
            // What setup brings there.
            command.env(variables::SSH, ssh).env(variables::HOST_BINARY, &site.binaries().host);
        }
        command
    }

    /// Commits a release.
    pub(crate) fn commit(&self, version: &str, migration: Migration) {
        let folder = self.app.repository();
        let backups = self.meant(&self.backups);
        let config = CONFIG
            .replace("IMAGE", DATABASES_IMAGE)
            .replace("START", &POSTGRES_START.replace('$', "$$"))
            .replace("COMPATIBLE", migration.compatible);
        write(folder, "cutover.yml", &(config + &backups));
        write(folder, "Dockerfile", &format!("FROM {DATABASES_IMAGE}\nCOPY www /www\nCOPY *.sh version /\n"));
        write(folder, "www/index.html", version);
        write(folder, "www/cgi-bin/health", HEALTH);
        write(folder, "www/cgi-bin/add", &ADD.replace("COLUMN", migration.column));
        for (name, sql) in [("migrate.sh", migration.up), ("down.sh", migration.down)] {
            write(folder, name, &format!("exec psql \"$DATABASE_URL\" -v ON_ERROR_STOP=1 -qAtc \"{sql}\"\n"));
        }
        write(folder, "version", version);
        self.app.record(version).unwrap();
    }

    /// Commits and deploys a release; its name.
    pub(crate) async fn deploy(&self, version: &str, migration: Migration) -> String {
        self.commit(version, migration);
        let told = self.app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
        println!("--- deploy of {version}\n{}", told.talk);
        serves(self.app, version).await;
        self.app.status().await.unwrap().live.unwrap().release.to_string()
    }

    /// What a query in the database says.
    pub(crate) async fn query(&self, query: &str) -> String {
        let mut command = self.shell("cutover exec postgres psql -U shop -qAtc \"$QUERY\"");
        command.env("QUERY", query);
        let told = self.app.site().run(command).await.unwrap();
        told.expect(0).unwrap().output.trim().to_owned()
    }

    /// Orders are placed all the while; none fails, and every one is there afterwards. Gives what `acts` gave.
    pub(crate) async fn under_traffic<T>(
        &self,
        name: &str,
        column: &str,
        acts: impl Future<Output = T>,
    ) -> T {
        let (good, given) = written_while(self.app.site(), name, acts).await;
        none_is_missing(name, &good, &self.query(&format!("select {column} from orders")).await);
        given
    }

    /// The site is lost, and its application goes to this server.
    pub(crate) fn moves_to(&mut self, machine: &Machine) {
        self.ssh = Some(machine.ssh_program());
    }
}

//! The container engine that answers, where containers can be tried on it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Stdio};

use cutover_core::layout::label;
use cutover_engine::Engine;
use cutover_testkit::site::{App, Binaries, OwnEngine, Site};

/// The engine that answers, or why there is none to use.
pub async fn usable() -> Result<Engine, String> {
    if !rustix::process::geteuid().is_root() {
        return Err("containers and volumes are looked into by root only".to_owned());
    }
    Engine::connect().await.map_err(|error| error.to_string())
}

/// Carries out `test` at a site on the engine that answers; or says that the test of this name did not run, and why.
#[expect(clippy::print_stdout, reason = "the table of suites reads this line")]
pub async fn on_engine(name: &str, binaries: Binaries, test: impl AsyncFnOnce(&Site)) {
    match usable().await {
        Err(why) => println!("not run: {name}: {why}"),
        Ok(engine) => match Site::on_engine(binaries, engine).await {
            Err(why) => panic!("no site on the engine: {why:#}"),
            Ok(site) => test(&site).await,
        },
    }
}

/// A shell and its tools, nothing else.
pub const SHELL_IMAGE: &str = "cutover-test/busybox:1";

/// `PostgreSQL` and Redis as the distribution has them, with a shell.
pub const DATABASES_IMAGE: &str = "cutover-test/databases:1";

/// For `PostgreSQL` in it, what the entry point of the usual image does: a data folder where there is none, and the server in the place of the shell.
pub const POSTGRES_START: &str = "set -e; mkdir -p /var/run/postgresql; chown postgres /data /var/run/postgresql; chmod 700 /data; \
    if [ ! -s /data/PG_VERSION ]; then printf %s $POSTGRES_PASSWORD > /tmp/password; chmod 644 /tmp/password; \
    gosu postgres initdb --no-sync -D /data/new -U $POSTGRES_USER --pwfile=/tmp/password -A scram-sha-256 > /dev/null; \
    gosu postgres sh -c 'mv /data/new/* /data/; rmdir /data/new'; \
    echo host all all all scram-sha-256 >> /data/pg_hba.conf; \
    (export PGPASSWORD=$POSTGRES_PASSWORD; gosu postgres pg_ctl -D /data -o '-c listen_addresses=' -w start > /dev/null; \
    [ $POSTGRES_DB = postgres ] || createdb -h /var/run/postgresql -U $POSTGRES_USER $POSTGRES_DB; gosu postgres pg_ctl -D /data -w stop > /dev/null); \
    fi; exec gosu postgres postgres -D /data -c listen_addresses=*";

/// What the entry point of the usual image does: a data folder where there is none, and the server in the place of the shell.
pub const MARIADB_START: &str = "set -e; mkdir -p /run/mysqld; chown mysql /data /run/mysqld; \
    if [ ! -d /data/mysql ]; then \
    gosu mysql mariadb-install-db --no-defaults --datadir=/data/new --auth-root-authentication-method=normal --skip-test-db --innodb-log-file-size=4M > /dev/null; \
    printf '%s;\\\\n' \\\"create database $MARIADB_DATABASE\\\" \\\"create user '$MARIADB_USER'@'%' identified by '$MARIADB_PASSWORD'\\\" \
    \\\"grant all on $MARIADB_DATABASE.* to '$MARIADB_USER'@'%'\\\" \\\"alter user root@localhost identified by '$MARIADB_ROOT_PASSWORD'\\\" \
    \\\"create user root@'%' identified by '$MARIADB_ROOT_PASSWORD'\\\" \\\"grant all on *.* to root@'%' with grant option\\\" > /tmp/init.sql; \
    chmod 644 /tmp/init.sql; mv /data/new/* /data/; rmdir /data/new; FIRST=--init-file=/tmp/init.sql; fi; \
    exec gosu mysql mariadbd --no-defaults --datadir=/data --socket=/run/mysqld/mysqld.sock --bind-address=0.0.0.0 --skip-name-resolve --innodb-log-file-size=4M $FIRST";

/// `MariaDB` as the distribution has it, with a shell.
pub const MARIADB_IMAGE: &str = "cutover-test/mariadb:1";

/// What migrates a database, beside its server and a shell: the word for `engine.sh`, which is the image's name, too.
#[derive(Debug, Clone, Copy)]
pub enum ToolsImage {
    /// Alembic and Django, as the distribution has them. The others are made of it.
    Python,
    /// Golang-migrate's own command.
    GolangMigrate,
    /// A program with sqlx's migrator.
    Sqlx,
    /// [`MARIADB_IMAGE`], which has none of them.
    Mariadb,
}

impl ToolsImage {
    fn word(self) -> &'static str {
        match self {
            Self::Python => "tools",
            Self::GolangMigrate => "golang-migrate",
            Self::Sqlx => "sqlx",
            Self::Mariadb => "mariadb",
        }
    }

    /// By which the engine knows it.
    pub fn name(self) -> String {
        format!("cutover-test/{}:1", self.word())
    }

    /// Sees to it that the engine has it.
    ///
    /// # Errors
    /// What keeps it from being made.
    pub fn made(self, engine: &Engine) -> Result<(), String> {
        image(engine, self.word())
    }
}

/// Sees to it that the engine has [`SHELL_IMAGE`].
///
/// # Errors
/// What keeps it from being made.
pub fn shell_image(engine: &Engine) -> Result<(), String> {
    image(engine, "base")
}

/// Sees to it that the engine has [`DATABASES_IMAGE`].
///
/// # Errors
/// What keeps it from being made.
pub fn databases_image(engine: &Engine) -> Result<(), String> {
    image(engine, "databases")
}

/// Sees to it that the engine has [`MARIADB_IMAGE`].
///
/// # Errors
/// What keeps it from being made.
pub fn mariadb_image(engine: &Engine) -> Result<(), String> {
    image(engine, "mariadb")
}

fn image(engine: &Engine, word: &str) -> Result<(), String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/engine.sh");
    let made = std::process::Command::new(script).arg(word).env("DOCKER_HOST", engine.address()).output();
    let made = made.map_err(|error| format!("{script}: {error}"))?;
    if made.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&made.stderr).into_owned()) }
}

/// What the engine's own client says to these words, at the engine of a site.
///
/// # Panics
/// When it refuses: a test stops there.
pub fn docker(site: &Site, words: &[&str]) -> String {
    let mut command = std::process::Command::new("docker");
    let address = site.docker().expect("a site on an engine").address();
    let output = command.args(words).env("DOCKER_HOST", address).output().expect("the engine's own client");
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// The ids of the running containers of a service, a line each.
pub fn containers(app: &App<'_>, service: &str) -> String {
    let (by_app, by_service) =
        (format!("label={}={}", label::APP, app.id()), format!("label={}={service}", label::SERVICE));
    docker(app.site(), &["ps", "--quiet", "--no-trunc", "--filter", &by_app, "--filter", &by_service])
}

/// A client of a server in its own container, which says one thing and stays. Dropped, it is gone.
pub struct Session(Child);

impl Session {
    /// Once it was answered, with a line that is given back.
    ///
    /// # Panics
    /// When there is no such container, or no answer: a test stops there.
    pub fn open(app: &App<'_>, service: &str, client: &str, statement: &str) -> (Self, String) {
        let mut command = std::process::Command::new("docker");
        let address = app.site().docker().expect("a site on an engine").address();
        command.args(["exec", "-i", &containers(app, service), "sh", "-c", client]);
        command.env("DOCKER_HOST", address).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the engine's own client");
        let input = child.stdin.as_mut().expect("a pipe");
        input.write_all(format!("{statement}\n").as_bytes()).expect("it reads");
        let mut line = String::new();
        let output = child.stdout.as_mut().expect("a pipe");
        BufReader::new(output).read_line(&mut line).expect("it answers");
        (Self(child), line.trim().to_owned())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        self.0.wait().map(drop).unwrap_or_default();
    }
}

/// The same at a site on an engine of its own, which the test may restart and kill.
#[expect(clippy::print_stdout, reason = "the table of suites reads this line")]
pub async fn on_own_engine(name: &str, binaries: Binaries, test: impl AsyncFnOnce(&Site, &OwnEngine)) {
    let own = match tokio::task::block_in_place(OwnEngine::start) {
        Err(why) => panic!("no engine of its own: {why:#}"),
        Ok(Err(why)) => return println!("not run: {name}: {why}"),
        Ok(Ok(own)) => own,
    };
    let site = async { Site::on_engine(binaries, own.connect().await?).await };
    match site.await {
        Err(why) => panic!("no site on the engine: {why:#}"),
        Ok(site) => test(&site, &own).await,
    }
}

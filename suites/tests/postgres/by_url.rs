//! A server that is none of the application's: its url is a variable, and this host's own client programs ask, dump and restore it. The role in the url
//! owns its database and may make others, and is no superuser.

use cutover_suites::kept::{self, PASSWORD, has_restic, records};
use cutover_testkit::site::Site;

use super::*;

const ROLE_PASSWORD: &str = "a-password-of-the-role";

/// A release whose database is there.
const AWAY: Version<'static> = Version { place: Place::Url, ..FIRST };

fn renamed_away(name: &str) -> Version<'_> {
    Version { place: Place::Url, ..renamed(name) }
}

/// The server, in a container of the test's own. Dropped, it is gone.
struct Server<'a> {
    site: &'a Site,
    container: String,
    port: String,
}

impl<'a> Server<'a> {
    /// Where both this host and containers reach it.
    async fn start(site: &'a Site) -> Self {
        let gateway = ["network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}"];
        let publish = format!("{}::5432", docker(site, &gateway));
        let mut words = vec!["run", "--detach", "--volume", "/data", "--publish", &publish];
        for variable in ["POSTGRES_USER=admin", "POSTGRES_DB=postgres", "POSTGRES_PASSWORD=of-the-admin"] {
            words.extend(["--env", variable]);
        }
        let container = docker(site, &[&words[..], &[DATABASES_IMAGE, "sh", "-c", POSTGRES_START]].concat());
        // From here on it is taken away, whatever happens.
        let mut server = Self { site, container, port: String::new() };
        server.port = docker(site, &["port", &server.container, "5432"]);
        let is_ready = async || server.try_ask("postgres", "select 1");
        wait_until("the server answers", SOON, is_ready).await.unwrap();
        server.ask("postgres", &format!("create role ledger login createdb password '{ROLE_PASSWORD}'"));
        server.ask("postgres", "create database ledger owner ledger");
        server
    }

    fn url(&self) -> String {
        format!("postgresql://ledger:{ROLE_PASSWORD}@{}/ledger", self.port)
    }

    /// What a query says; `None`: it failed.
    fn try_ask(&self, database: &str, query: &str) -> Option<String> {
        let mut command = std::process::Command::new("docker");
        command.args(["exec", "--env", "PGPASSWORD=of-the-admin", &self.container]);
        command.args(["psql", "-h", "127.0.0.1", "-U", "admin", "-d", database, "-qAtc", query]);
        let output = command.env("DOCKER_HOST", self.site.docker().unwrap().address()).output().unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap().trim().to_owned())
    }

    fn ask(&self, database: &str, query: &str) -> String {
        self.try_ask(database, query).unwrap_or_else(|| panic!("{query}"))
    }

    fn query(&self, query: &str) -> String {
        self.ask("ledger", query)
    }

    /// Rows are written all the while; none fails, and every one is there afterwards.
    async fn under_traffic(&self, name: &str, column: &str, acts: impl Future<Output = ()>) {
        let (acknowledged, ()) = written_while(self.site, name, acts).await;
        none_is_missing(name, &acknowledged, &self.query(&format!("select {column} from entries")));
    }

    /// Databases that are there beside the one.
    fn beside(&self) -> String {
        self.query(BESIDE)
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        let mut command = std::process::Command::new("docker");
        command.args(["rm", "--force", "--volumes", &self.container]);
        let removed = command.env("DOCKER_HOST", self.site.docker().unwrap().address()).output();
        let is_gone = removed.is_ok_and(|output| output.status.success());
        assert!(is_gone || std::thread::panicking(), "the server is left behind");
    }
}

/// The first release, live with a server that is somebody else's.
async fn with_server(name: &str, test: impl AsyncFnOnce(&Server<'_>, &App<'_>)) {
    if std::process::Command::new("pg_dump").arg("--version").output().is_err() {
        return println!("not run: {name}: this machine has no pg_dump (package postgresql-client)");
    }
    on_engine(name, Binaries::beside_this_program().unwrap(), async |site| {
        if let Err(why) = databases_image(site.docker().unwrap().engine()) {
            return println!("not run: {name}: {why}");
        }
        let server = Server::start(site).await;
        let app = site.app("ledger", HOST).unwrap();
        app.add_to_env(&format!("DATABASE_URL={}\nBACKUP_PASSWORD={PASSWORD}", server.url())).unwrap();
        deploy(&app, &AWAY, 0).await;
        test(&server, &app).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_by_its_url_is_migrated_with_the_hosts_own_programs() {
    with_server("a_server_by_its_url_is_migrated_with_the_hosts_own_programs", async |server, app| {
        let before = dumps(app).len();
        server
            .under_traffic("beside", "text", async {
                let migrate = "sql 'alter table entries add column mark text'";
                let talk = deploy(app, &Version { name: "wider", migrate, ..AWAY }, 0).await;
                assert!(talk.contains(".dump.zst"), "{talk}");
                assert_eq!(dumps(app).len(), before + 1);

                let migrate =
                    "sql 'begin; alter table entries add column half text; select nonsense; commit'";
                let talk = deploy(app, &Version { name: "undone", migrate, ..AWAY }, 5).await;
                assert!(talk.contains("the schema of `main` is as it was before"), "{talk}");
                assert!(talk.contains("a transaction took back"), "{talk}");
                serves(app, "wider").await;
            })
            .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn a_breaking_migration_by_url_is_put_back_when_it_fails_and_is_taken_back_with_its_snapshot() {
    let name = "a_breaking_migration_by_url_is_put_back_when_it_fails_and_is_taken_back_with_its_snapshot";
    with_server(name, async |server, app| {
        server
            .under_traffic("half", "text", async {
                let migrate = "sql 'alter table entries add column half text'; sql 'select nonsense'";
                let talk = deploy(app, &Version { name: "half", migrate, ..AWAY }, 5).await;
                assert!(talk.contains("was changed by the migration that failed"), "{talk}");
                serves(app, "first").await;
            })
            .await;
        put_back_by_hand(app, "first").await;
        let halves = "select count(*) from information_schema.columns where column_name = 'half'";
        assert_eq!(server.query(halves), "0");
        server
            .under_traffic("held", "text", async {
                let migrate = "sql 'alter table entries rename column text to line'; sql 'select nonsense'";
                let talk = deploy(app, &Version { migrate, ..renamed_away("fails") }, 5).await;
                assert!(talk.contains("the database was put back as it was"), "{talk}");
                serves(app, "first").await;
            })
            .await;
        server
            .under_traffic("renamed", "line", async {
                deploy(app, &renamed_away("renamed"), 0).await;
                serves(app, "renamed").await;
            })
            .await;
        let answer = ask(app.site().http().unwrap(), HOST, "/cgi-bin/add?afterwards").await.unwrap();
        assert_eq!(answer.status, 200);
        let refused = told(app, &["rollback", "--yes"], 7).await;
        assert!(refused.contains("--restore-db"), "{refused}");

        let (acknowledged, ()) = written_while(app.site(), "back", async {
            told(app, &["rollback", "--restore-db", "--yes"], 0).await;
        })
        .await;

        serves(app, "first").await;
        assert_eq!(server.query("select count(*) from entries where text = 'afterwards'"), "0");
        assert_ne!(server.query("select count(*) from entries where text like 'held%'"), "0");
        // What was written before the way back is in what was replaced, what was written after it is in its place.
        assert_eq!(server.beside(), "ledger_cutover_replaced");
        let replaced = server.ask("ledger_cutover_replaced", "select line from entries");
        let rows = format!("{replaced}\n{}", server.query("select text from entries"));
        none_is_missing("back", &acknowledged, &rows);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn a_migration_by_url_that_hangs_is_ended_in_the_server_too() {
    with_server("a_migration_by_url_that_hangs_is_ended_in_the_server_too", async |server, app| {
        let sleeping = "select count(*) from pg_stat_activity where query like '%pg_sleep(600)%' and pid <> pg_backend_pid()";
        server
            .under_traffic("hangs", "text", async {
                let (migrate, timeout) = ("sql 'select pg_sleep(600)'", "3s");
                let talk = deploy(app, &Version { name: "hangs", migrate, timeout, ..AWAY }, 5).await;
                assert!(talk.contains("did not end within 3 s"), "{talk}");
                assert!(talk.contains("the schema of `main` is as it was before"), "{talk}");
                assert_eq!(server.query(sleeping), "0");

                let migrate = "sql 'alter table entries rename column text to line'; sql 'select pg_sleep(600)'";
                let talk = deploy(app, &Version { migrate, timeout, ..renamed_away("waits") }, 5).await;
                assert!(talk.contains("the database was put back as it was"), "{talk}");
                assert_eq!(server.query(sleeping), "0");
                serves(app, "first").await;
            })
            .await;
    })
    .await;
}

/// Nothing of it is migrated, and the password is in nothing that is said.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn a_url_that_leads_nowhere_or_lets_nobody_in_is_told() {
    with_server("a_url_that_leads_nowhere_or_lets_nobody_in_is_told", async |server, app| {
        let good = std::fs::read_to_string(app.repository().join(".env")).unwrap();
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        server.ask("postgres", "create role reader login password 'a-reader'");
        for (url, said) in [
            (server.url().replace(ROLE_PASSWORD, "another-password"), "password authentication failed"),
            (server.url().replace(&server.port, &nobody.to_string()), "onnection refused"),
            (server.url() + "-of-nobody", "database \"ledger-of-nobody\" does not exist"),
            (
                server.url().replace(&format!("ledger:{ROLE_PASSWORD}"), "reader:a-reader"),
                "permission denied",
            ),
        ] {
            app.write_env(&good.replace(&server.url(), &url)).unwrap();
            let migrate = "sql 'create table never (id int)'";
            let talk = deploy(app, &Version { name: "wrong", migrate, ..AWAY }, 5).await;
            assert!(talk.contains(said) && talk.contains("not migrated"), "{talk}");
            assert!(!talk.contains("another-password") && !talk.contains("a-reader"), "{talk}");
            serves(app, "first").await;
        }
        assert_eq!(server.query("select count(*) from pg_tables where tablename = 'never'"), "0");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn a_role_that_may_come_into_its_own_database_alone_migrates_without_the_lock() {
    with_server(
        "a_role_that_may_come_into_its_own_database_alone_migrates_without_the_lock",
        async |server, app| {
            server.ask("postgres", "revoke connect on database postgres from public");
            let migrate = "sql 'alter table entries add column mark text'";

            let talk = deploy(app, &Version { name: "wider", migrate, ..AWAY }, 0).await;

            let warning = "nobody else is kept from migrating `main` meanwhile: the role may not connect";
            assert!(talk.contains(warning), "{talk}");
            serves(app, "wider").await;
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn a_server_by_its_url_is_in_a_backup_and_comes_back_from_it() {
    let name = "a_server_by_its_url_is_in_a_backup_and_comes_back_from_it";
    if !has_restic(name) {
        return;
    }
    with_server(name, async |server, app| {
        commit(app, &Version { name: "kept", ..AWAY });
        let config = app.repository().join("cutover.yml");
        let to = app.site().folder().join("backups");
        let backup =
            format!("backup: {{ to: {}, password: \"${{BACKUP_PASSWORD}}\", every: 31d }}\n", to.display());
        std::fs::write(&config, std::fs::read_to_string(&config).unwrap() + &backup).unwrap();
        app.record("kept").unwrap();
        told(app, &["deploy"], 0).await;
        assert!(records(app, 1).await[0].is_verified());

        server
            .under_traffic("kept", "text", async {
                let run = told(app, &["backup", "run"], 0).await;
                assert!(run.contains("database main"), "{run}");
                let read = told(app, &["backup", "verify"], 0).await;
                assert!(read.contains("database main: its dump came back"), "{read}");
                let drilled = told(app, &["backup", "drill"], 0).await;
                assert!(drilled.contains("database main: it came back with 1 tables"), "{drilled}");
            })
            .await;
        let (before, ()) = written_while(app.site(), "before", async {
            serves(app, "kept").await;
        })
        .await;
        told(app, &["backup", "run"], 0).await;
        server.query("delete from entries");
        let found = told(app, &["backup", "restore"], 0).await;
        let snapshot = found.split_once("cutover snapshot restore ").unwrap().1.split_once('`').unwrap().0;

        written_while(app.site(), "restored", async {
            told(app, &["snapshot", "restore", snapshot, "--yes"], 0).await;
        })
        .await;

        none_is_missing("before", &before, &server.query("select text from entries"));
        assert_eq!(server.beside(), "ledger_cutover_replaced", "nothing is left of what was tried");
        let listed =
            kept::restic(app.site(), &["snapshots", "--json", "--tag", &format!("{}/dump", app.id())]);
        assert!(!String::from_utf8_lossy(&listed).contains(ROLE_PASSWORD));
    })
    .await;
}

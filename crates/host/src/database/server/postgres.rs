//! `PostgreSQL`: asked by `psql`, dumped by `pg_dump` and put back by `pg_restore`, all of the server's own version or a newer one.

use std::collections::BTreeMap;
use std::future::ready;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use cutover_core::layout;
use cutover_core::wire::Extent;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::alone::{CLOSED, Holder, SILENCE};
use super::client::{Client, badly};
use super::dump::{self, Making};
use super::password::{Tried, full, log_in, tell};
use super::port::{AGAIN, ANSWER, InServer, LET_GO, LONG_ANSWER};
use super::postgres_catalogue::{self as catalogue, Found};
use super::postgres_login::LOGIN;
use super::postgres_password;
use super::postgres_restore::{FORM, contents, elsewhere, literal, quoted, same_version};
use super::postgres_tools as tools;
use crate::meter::Meter;
use crate::ports::{Account, Alone, DatabaseError, LockSamples, NotAlone, Server, ServerState, Taken, Way};

/// The oldest whose tools do all that is wanted of them.
const OLDEST: u32 = 13;

/// Any version asks any other. What is asked may hold values, which a command line would show: it reads that.
const PSQL: [&str; 4] = ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1"];

/// Whether the server's `pg_hba.conf` keeps somebody out of a database, or `PgBouncer` does not know it. No catalogue says so, and `psql` has no code for
/// it; the file has the same name in every language, and `PgBouncer` speaks one only.
fn is_kept_out(error: &DatabaseError) -> bool {
    ["pg_hba.conf", "no such database"].iter().any(|sign| error.message.contains(sign))
}

/// A database of `PostgreSQL`.
pub(super) struct Postgres<'a> {
    pub(super) client: Client<'a>,
}

impl<'a> Postgres<'a> {
    pub(super) fn of(server: &'a Server, meter: &'a Meter) -> Self {
        Self { client: Client { server, login: &LOGIN, meter } }
    }
}

impl Postgres<'_> {
    /// What a query gives, a line a row.
    pub(super) async fn ask(&self, database: Option<&str>, query: &str) -> Result<String, DatabaseError> {
        self.asked(database, query, ANSWER).await
    }

    async fn asked(
        &self,
        database: Option<&str>,
        query: &str,
        timeout: Duration,
    ) -> Result<String, DatabaseError> {
        let words = PSQL.map(str::to_owned);
        let said = self.client.run(database, &words, &format!("{query}\n;\n"), timeout).await?;
        if said.exit.code == Some(0) {
            return Ok(String::from_utf8_lossy(&said.output).trim_end().to_owned());
        }
        if said.exit.code == Some(127) {
            return Err(DatabaseError::plain(
                "there is no `psql` where the database is reached from: the server's own image has it; on a host, `apt-get install postgresql-client` brings it",
            ));
        }
        Err(badly(&words, &said.exit, &said.errors))
    }

    /// Tells statements with a password to a session that [`InServer::end_sessions`] finds.
    async fn tell_password(&self, statements: &str) -> Result<(), DatabaseError> {
        let words = ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=terse", "-f", "-"];
        tell(&self.client, None, &words.map(str::to_owned), "select 1;\n", statements).await
    }

    /// What the server says, where a snapshot of this database can be taken and is what somebody wants.
    async fn wanted(&self) -> Result<ServerState, DatabaseError> {
        let state = self.look().await?;
        if state.major < OLDEST {
            return Err(DatabaseError::plain(format!(
                "the server is of version {}; snapshots are taken from version {OLDEST} on",
                state.major
            )));
        }
        // Which of them is the app's is not guessed: a snapshot of another one would be none.
        if state.tables == 0 && self.client.server.name.is_none() && !state.others.is_empty() {
            return Err(DatabaseError::plain(format!(
                "database `{}` has no tables, and the server has others ({}): which of them is the app's is said by `name`",
                state.database,
                state.others.join(", ")
            )));
        }
        Ok(state)
    }

    /// Takes a dump. Its table of contents is read as it comes, and so is all of the file, for its checksums.
    async fn taken(
        &self,
        words: &[String],
        of: impl Future<Output = Result<Extent, DatabaseError>>,
        to: &Path,
    ) -> Result<Taken, DatabaseError> {
        let (shown, coming) = mpsc::channel(1);
        let (say, told) = oneshot::channel();
        let list = same_version(words, "pg_restore", &["--list"]);
        let listing = async {
            let listed = dump::shown(&self.client, &list, coming).await;
            // Where nobody asks any more the dump did not come.
            say.send(listed.and_then(|said| contents(&list, &said).map(drop))).unwrap_or_default();
            std::future::pending().await
        };
        let proof = async |file| {
            dump::whole(file, FORM).await?;
            let told = tokio::time::timeout(ANSWER, told).await;
            told.map_err(|_| DatabaseError::plain("`pg_restore` does not come to its end with the dump"))?
                .map_err(|_| DatabaseError::plain("`pg_restore` did not say what is in the dump"))?
        };
        let frames = [vec![words.to_vec()]];
        let making = Making { frames: &frames, of, shown: Some(shown) };
        tokio::select! {
            taken = dump::take(&self.client, making, to, proof) => taken,
            never = listing => never,
        }
    }
}

#[async_trait]
impl InServer for Postgres<'_> {
    async fn look(&self) -> Result<ServerState, DatabaseError> {
        let told = self.ask(None, catalogue::STATE).await?;
        let found: Found = serde_json::from_str(&told).map_err(|error| {
            DatabaseError::plain(format!("the server's answer is not understood: {error}"))
        })?;
        let schema = match catalogue::versions(&found.tools) {
            None => Vec::new(),
            Some(query) => catalogue::read_versions(&self.ask(None, &query).await.unwrap_or_else(|error| {
                tracing::warn!(%error, "a migration tool's table is not understood");
                String::new()
            })),
        };
        Ok(ServerState {
            database: found.database,
            major: found.number / 10_000,
            bytes: found.bytes,
            tables: found.tables,
            others: found.others,
            catalogue: found.catalogue,
            objects: BTreeMap::new(),
            schema,
            counts: found.counts,
        })
    }

    async fn snapshot(&self, to: &Path) -> Result<Taken, DatabaseError> {
        // Packed by us: what is packed by table does not deduplicate.
        let words = |program: &str| {
            [program, "--format=custom", "--compress=0", "--lock-wait-timeout=60s"].map(str::to_owned)
        };
        let server = self.client.server;
        let mut counts = None;
        let mut of = |state: ServerState| {
            counts = state.counts;
            Extent::About { bytes: state.bytes }
        };
        let taken = match server.way {
            // The programs are the server's own, whatever it says: they begin while it is asked.
            Way::Inside { .. } => {
                let known = async { self.wanted().await.map(of) };
                self.taken(&words("pg_dump"), known, to).await?
            }
            Way::Outside { .. } => {
                let state = self.wanted().await?;
                let program = tools::program(server, state.major, "pg_dump")?;
                // What cannot be put back is no snapshot.
                tools::program(server, state.major, "pg_restore")?;
                self.taken(&words(&program), ready(Ok(of(state))), to).await?
            }
        };
        Ok(Taken { counts, ..taken })
    }

    async fn connected(&self) -> Result<String, DatabaseError> {
        self.ask(None, &catalogue::sessions()).await
    }

    async fn alone(&self) -> Result<Alone, NotAlone> {
        let words = PSQL.map(str::to_owned).to_vec();
        // A transaction keeps its session also behind a pooler, which would give one between two statements to somebody else, lock and all.
        // A host that has lost its power says no farewell: the server is to notice in half a minute, not in two hours; through a pooler, which goes on
        // by itself, once the beat is missing.
        // Who may not connect there is told so by the catalogue: the server's words are in its own language.
        let statements = format!(
            "select current_database() as name, case current_database() when 'postgres' then '{}' else '{}' end as elsewhere \\gset\n\
             select not exists (select from pg_database where datname = :'elsewhere' and datallowconn and has_database_privilege(oid, 'connect')) as closed \\gset\n\
             \\if :closed\n\\echo {CLOSED}\n\\quit\n\\endif\n\\connect :elsewhere\n\
             set tcp_keepalives_idle = 10;\nset tcp_keepalives_interval = 5;\nset tcp_keepalives_count = 4;\n\
             select set_config(name, '0', false) from pg_settings where name = 'transaction_timeout' \\g /dev/null\n\
             begin;\nset local idle_in_transaction_session_timeout = '{SILENCE}s';\n\
             select pg_try_advisory_xact_lock(hashtextextended('cutover ' || :'name', 0));\n",
            elsewhere("postgres"),
            elsewhere("any other")
        );
        let server = Server { client: layout::ALONE_CLIENT, ..self.client.server.clone() };
        let client = Client { server: &server, login: self.client.login, meter: self.client.meter };
        // It is in the transaction that took it, or has ended.
        let holder = Holder { client: &client, words, statements, again: "select true;\n", taken: "t" };
        match holder.take().await {
            Err(NotAlone::Failed(error)) if is_kept_out(&error) => Err(NotAlone::Closed),
            taken => taken,
        }
    }

    async fn migrating(&self) -> Result<Option<String>, DatabaseError> {
        let end = Instant::now() + LET_GO;
        loop {
            // Those of a migration of ours that has just ended may be on their way out.
            let told = self.ask(None, &catalogue::migrations()).await?;
            let Some(first) = told.lines().next() else { return Ok(None) };
            if Instant::now() >= end {
                return Ok(Some(first.to_owned()));
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn tried(&self, account: &Account) -> Result<Tried, DatabaseError> {
        // `psql` has one exit code for all that keeps it out, and its prose is not read: a password is refused where there was room, twice over.
        for _ in 0..2 {
            let said = log_in(&self.client, postgres_password::LOG_IN, account).await?;
            if said.exit.code == Some(0) {
                return Ok(Tried::In);
            }
            match self.ask(None, &postgres_password::without_room(account)).await {
                Ok(limit) if limit.is_empty() => {}
                Ok(limit) => return Ok(Tried::Neither(full(account, &limit))),
                Err(error) => return Ok(Tried::Neither(error)),
            }
        }
        Ok(Tried::Refused)
    }

    async fn can_set_password(&self, _: &Account, to: &Account) -> Result<Vec<String>, DatabaseError> {
        let statements = postgres_password::statements(to);
        self.tell_password(&format!("begin;\n{statements}rollback;\n")).await.map(|()| Vec::new())
    }

    async fn set_password(&self, _: &Account, to: &Account) -> Result<(), DatabaseError> {
        self.tell_password(&postgres_password::statements(to)).await
    }

    async fn end_sessions(&self) -> Result<u64, DatabaseError> {
        let theirs = format!(
            "from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid() and application_name in ('{}', '{}')",
            layout::MIGRATION_CLIENT,
            layout::OWN_CLIENT
        );
        let told = self.ask(None, &format!("select pid, pg_terminate_backend(pid) {theirs}")).await?;
        let ended: Vec<&str> = told.lines().filter_map(|row| row.split('|').next()).collect();
        if ended.is_empty() {
            return Ok(0);
        }
        // Whoever comes since is somebody else.
        let left = format!("select count(*) {theirs} and pid in ({})", ended.join(", "));
        let end = Instant::now() + LET_GO;
        while self.ask(None, &left).await? != "0" {
            if Instant::now() >= end {
                let message =
                    "a session of a migration that was stopped goes on in the server, and does not end";
                return Err(DatabaseError::plain(message));
            }
            tokio::time::sleep(AGAIN).await;
        }
        Ok(ended.len() as u64)
    }

    async fn restore(&self, snapshot: &Path) -> Result<Option<String>, DatabaseError> {
        self.put_back(snapshot).await.map(Some)
    }

    async fn check(&self, snapshot: &Path) -> Result<Vec<String>, DatabaseError> {
        self.checked(snapshot).await
    }

    async fn restore_beside(&self, snapshot: &Path, to: &str) -> Result<(), DatabaseError> {
        self.put_beside(snapshot, to).await
    }

    async fn restore_keeping(&self, snapshot: &Path) -> Result<Option<String>, DatabaseError> {
        self.put_back_keeping(snapshot).await.map(Some)
    }

    async fn rehearse_restore(&self, scratch: &Path) -> Result<(), DatabaseError> {
        let state = self.look().await?;
        let program = tools::program(self.client.server, state.major, "pg_dump")?;
        let words = [&program, "--format=custom", "--compress=0", "--schema-only", "--lock-wait-timeout=60s"];
        self.taken(&words.map(str::to_owned), ready(Ok(Extent::Not)), scratch).await?;
        self.made_and_dropped(&state, scratch).await
    }

    async fn answer(&self, query: &str) -> Result<String, DatabaseError> {
        let told = self.asked(None, query, LONG_ANSWER).await?;
        Ok(told.split(['|', '\n']).next().unwrap_or_default().to_owned())
    }

    async fn roles(&self) -> Result<Vec<String>, DatabaseError> {
        let told = self.ask(None, catalogue::ROLES).await?;
        serde_json::from_str(&told)
            .map_err(|error| DatabaseError::plain(format!("the server's answer is not understood: {error}")))
    }

    async fn make_roles(&self, roles: &[String]) -> Result<(), DatabaseError> {
        for role in roles {
            let named = format!("select count(*) from pg_roles where rolname = {}", literal(role));
            let count = self.ask(None, &named).await?;
            if count == "0" {
                self.ask(None, &format!("create role {} nologin", quoted(role))).await?;
            }
        }
        Ok(())
    }

    async fn fill(&self, snapshot: &Path, like: &Server) -> Result<Duration, DatabaseError> {
        self.filled_like(snapshot, &Postgres::of(like, self.client.meter)).await
    }

    async fn schema(&self) -> Result<BTreeMap<String, String>, DatabaseError> {
        let told = self.ask(None, catalogue::SCHEMA).await?;
        serde_json::from_str(&told)
            .map_err(|error| DatabaseError::plain(format!("the server's answer is not understood: {error}")))
    }

    async fn locks(&self) -> Result<LockSamples, DatabaseError> {
        super::postgres_locks::samples(&self.client).await
    }

    async fn kept(&self) -> Result<Vec<String>, DatabaseError> {
        let state = self.look().await?;
        Ok(super::postgres_restore::kept(&state))
    }

    async fn drop_kept(&self, name: &str) -> Result<(), DatabaseError> {
        self.dropped(name).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_kept_out_by_the_servers_file_or_a_pooler_is_known_in_any_language() {
        let is_kept_out = |said: &str| {
            is_kept_out(&DatabaseError::plain(format!(
                "\\connect: connection to server on socket \"/run/postgresql/.s.PGSQL.5432\" failed: FATAL:  {said}"
            )))
        };
        for said in [
            "no pg_hba.conf entry for host \"[local]\", user \"ann\", database \"postgres\", no encryption",
            "kein pg_hba.conf-Eintrag für Host »[local]«, Benutzer »ann«, Datenbank »postgres«, keine Verschlüsselung",
            "no such database: postgres",
            "pg_hba.conf lehnt Verbindung ab für Host »[local]«, Benutzer »ann«, Datenbank »postgres«, keine Verschlüsselung",
        ] {
            assert!(is_kept_out(said), "{said}");
        }
        for said in ["zu viele Verbindungen von Rolle »ann«", "role \"ann\" does not exist"] {
            assert!(!is_kept_out(said), "somebody else may have the lock: {said}");
        }
    }
}

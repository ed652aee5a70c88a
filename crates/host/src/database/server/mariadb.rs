//! `MariaDB` and `MySQL`: asked by `mariadb`, dumped by `mariadb-dump` and put back by `mariadb`, or by the programs of `MySQL`'s names.

use std::collections::BTreeMap;
use std::future::ready;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use cutover_core::config::settings::ServerKind;
use cutover_core::wire::Extent;

use super::alone::{Holder, SILENCE};
use super::client::{Client, badly};
use super::dump::{self, Making};
use super::mariadb_catalogue::{self as catalogue, Found};
use super::mariadb_login::{DATABASE, LOGIN};
use super::mariadb_password::{PASSWORD_LOCK, Users};
use super::mariadb_restore::literal;
use super::mariadb_version::Version;
use super::password::{Tried, log_in, tell};
use super::port::{ANSWER, InServer, LONG_ANSWER};
use super::{mariadb_dump, mariadb_password};
use crate::meter::Meter;
use crate::ports::{Account, Alone, DatabaseError, LockSamples, NotAlone, Server, ServerState, Taken, Way};

/// Texts come and go in these letters.
pub(super) const LETTERS: &str = "--default-character-set=utf8mb4";
/// Each row is said once it is there.
pub(super) const AT_ONCE: &str = "--unbuffered";

/// A database of `MariaDB` or `MySQL`.
pub(super) struct Maria<'a> {
    pub(super) client: Client<'a>,
}

impl<'a> Maria<'a> {
    pub(super) fn of(server: &'a Server, meter: &'a Meter) -> Self {
        Self { client: Client { server, login: &LOGIN, meter } }
    }
}

impl Maria<'_> {
    pub(super) fn is_mariadb(&self) -> bool {
        self.client.server.kind == ServerKind::Mariadb
    }

    /// The program that talks to the server.
    pub(super) fn talker(&self) -> &'static str {
        if self.is_mariadb() { "mariadb" } else { "mysql" }
    }

    /// The words of the program that talks: it gives a line a row, without a head, and waits for no server that is not there.
    pub(super) fn talks(&self, more: &[&str]) -> Vec<String> {
        let words = [self.talker(), "--batch", "--skip-column-names", "--connect-timeout=10"];
        words.iter().chain(more).map(|word| (*word).to_owned()).collect()
    }

    /// What statements give: a line a row, its values between tabs.
    pub(super) async fn ask(
        &self,
        database: Option<&str>,
        statements: &str,
    ) -> Result<String, DatabaseError> {
        self.asked(database, statements, ANSWER).await
    }

    async fn asked(
        &self,
        database: Option<&str>,
        statements: &str,
        timeout: Duration,
    ) -> Result<String, DatabaseError> {
        self.output(database, &self.talks(&[LETTERS, DATABASE]), statements, timeout).await
    }

    /// The same of the server as a whole, whether or not the database is there.
    pub(super) async fn ask_server(&self, statements: &str) -> Result<String, DatabaseError> {
        self.ask(Some("information_schema"), statements).await
    }

    pub(super) async fn output(
        &self,
        database: Option<&str>,
        words: &[String],
        input: &str,
        timeout: Duration,
    ) -> Result<String, DatabaseError> {
        let said = self.client.run(database, words, input, timeout).await?;
        if said.cut {
            return Err(DatabaseError::plain("the server's answer is too long to be read whole"));
        }
        if said.exit.code == Some(0) {
            return Ok(String::from_utf8_lossy(&said.output).trim_end_matches('\n').to_owned());
        }
        if said.exit.code == Some(127) {
            return Err(self.no_program(words));
        }
        Err(badly(words, &said.exit, &said.errors))
    }

    /// Of those that share an account's name, whose password is changed.
    async fn users(&self, from: &Account, to: &Account) -> Result<Users, DatabaseError> {
        let said = self.ask_server(&mariadb_password::users(&to.role)).await?;
        Users::of(&to.role, [&from.password, &to.password], &said)
    }

    /// Tells statements with a password to a session that [`InServer::end_sessions`] finds by the lock that it takes first.
    async fn tell_password(&self, statements: &str) -> Result<(), DatabaseError> {
        let words = self.talks(&[AT_ONCE, LETTERS]);
        let first = format!("select get_lock({}, 0);\n", literal(PASSWORD_LOCK));
        tell(&self.client, Some("information_schema"), &words, &first, statements).await
    }

    fn no_program(&self, words: &[String]) -> DatabaseError {
        let program = words.first().map_or("", String::as_str);
        let package = if self.is_mariadb() { "mariadb-client" } else { "mysql-client" };
        DatabaseError::plain(format!(
            "there is no `{program}` where the database is reached from: the server's own image has it; on a host, `apt-get install {package}` brings it",
        ))
    }

    /// The host's programs have to be of the server's engine, and not older than it. Inside the server's instance they are.
    async fn fitting(&self, server: &Version) -> Result<(), DatabaseError> {
        if let Way::Inside { .. } = self.client.server.way {
            return Ok(());
        }
        let words = [self.dumper(), "--version"].map(str::to_owned);
        let said = self.output(None, &words, "", ANSWER).await?;
        match Version::of_program(&said) {
            Some(program) if program.reads(server) => Ok(()),
            Some(program) => Err(DatabaseError::plain(format!(
                "this host's `{}` is of {program}, and the server is of {server}: install the client programs of that or a newer version",
                self.dumper()
            ))),
            None => Err(DatabaseError::plain(format!(
                "what `{} --version` says is not understood",
                self.dumper()
            ))),
        }
    }

    /// What the server tells of the database.
    pub(super) async fn found(&self) -> Result<Found, DatabaseError> {
        let found = catalogue::read(&self.ask(None, catalogue::STATE).await?)?;
        if found.version.mariadb == self.is_mariadb() {
            return Ok(found);
        }
        let engine = if found.version.mariadb { "mariadb" } else { "mysql" };
        Err(DatabaseError::plain(format!("the server is {}: its `engine` is `{engine}`", found.version)))
    }
}

#[async_trait]
impl InServer for Maria<'_> {
    async fn look(&self) -> Result<ServerState, DatabaseError> {
        let found = self.found().await?;
        let schema = match catalogue::versions(&found.tools) {
            None => Vec::new(),
            Some(query) => catalogue::read_versions(&self.ask(None, &query).await.unwrap_or_else(|error| {
                tracing::warn!(%error, "a migration tool's table is not understood");
                String::new()
            })),
        };
        Ok(ServerState {
            database: found.database,
            major: found.version.major,
            bytes: found.bytes,
            tables: found.tables,
            others: found.others,
            catalogue: cutover_core::hash::ContentHash::of_value(&found.objects).to_string(),
            objects: found.objects,
            schema,
            counts: None,
        })
    }

    async fn snapshot(&self, to: &Path) -> Result<Taken, DatabaseError> {
        let found = self.found().await?;
        found.version.new_enough()?;
        // Which of them is the app's is not guessed: a snapshot of another one would be none.
        if found.tables == 0 && self.client.server.name.is_none() && !found.others.is_empty() {
            return Err(DatabaseError::plain(format!(
                "database `{}` has no tables, and the server has others ({}): which of them is the app's is said by `name`",
                found.database,
                found.others.join(", ")
            )));
        }
        self.fitting(&found.version).await?;
        Self::refuse_lost_history(&found)?;
        // What cannot be put back is no snapshot.
        self.can_be_put_back(&found).await?;
        let proof = async |dump| mariadb_dump::proven_as_it_comes(dump, &found).await;
        let of = ready(Ok(Extent::About { bytes: found.bytes }));
        let frames = self.frames(&found);
        let taken = dump::take(&self.client, Making { frames: &frames, of, shown: None }, to, proof).await?;
        Ok(Taken { loose: found.loose, ..taken })
    }

    async fn connected(&self) -> Result<String, DatabaseError> {
        self.ask(None, catalogue::SESSIONS).await
    }

    async fn alone(&self) -> Result<Alone, NotAlone> {
        let words = self.talks(&[AT_ONCE, DATABASE]);
        // Its name may have 64 characters.
        let statements = format!(
            "set session wait_timeout = {SILENCE};\nset @lock = concat('cutover ', left(sha2(database(), 256), 7));\nuse information_schema;\nselect get_lock(@lock, 0);\n"
        );
        // The client program may have come again by itself, and without it.
        let again = "select is_used_lock(@lock) = connection_id();\n";
        Holder { client: &self.client, words, statements, again, taken: "1" }.take().await
    }

    /// Of sessions that have a client none says whose it is.
    async fn migrating(&self) -> Result<Option<String>, DatabaseError> {
        self.end_those_of_nobody().await.map(|_| None)
    }

    async fn tried(&self, account: &Account) -> Result<Tried, DatabaseError> {
        let said = log_in(&self.client, mariadb_password::LOG_IN, account).await?;
        Ok(mariadb_password::tried(account, &said))
    }

    async fn can_set_password(&self, from: &Account, to: &Account) -> Result<Vec<String>, DatabaseError> {
        let users = self.users(from, to).await?;
        self.tell_password(&mariadb_password::trial(to, self.is_mariadb())).await?;
        Ok(users.told)
    }

    async fn set_password(&self, from: &Account, to: &Account) -> Result<(), DatabaseError> {
        let hosts = self.users(from, to).await?.hosts;
        self.tell_password(&mariadb_password::statements(to, &hosts, self.is_mariadb())).await
    }

    async fn end_sessions(&self) -> Result<u64, DatabaseError> {
        self.end_those_of_nobody().await
    }

    async fn restore(&self, snapshot: &Path) -> Result<Option<String>, DatabaseError> {
        self.put_back(snapshot).await.map(|()| None)
    }

    async fn check(&self, snapshot: &Path) -> Result<Vec<String>, DatabaseError> {
        let found = self.found().await?;
        mariadb_dump::proven(snapshot, &found, self.client.meter).await?;
        Ok(vec![
            "rows, definitions and events are whole: each ends with the mark of a dump that was completed"
                .to_owned(),
        ])
    }

    async fn restore_beside(&self, snapshot: &Path, to: &str) -> Result<(), DatabaseError> {
        self.put_beside(snapshot, to).await
    }

    async fn restore_keeping(&self, snapshot: &Path) -> Result<Option<String>, DatabaseError> {
        self.put_back_keeping(snapshot).await.map(Some)
    }

    async fn rehearse_restore(&self, _: &Path) -> Result<(), DatabaseError> {
        let found = self.found().await?;
        self.can_be_put_back(&found).await?;
        self.can_be_exchanged(&found).await
    }

    async fn answer(&self, query: &str) -> Result<String, DatabaseError> {
        let told = self.asked(None, query, LONG_ANSWER).await?;
        Ok(told.split(['\t', '\n']).next().unwrap_or_default().to_owned())
    }

    async fn fill(&self, snapshot: &Path, like: &Server) -> Result<Duration, DatabaseError> {
        self.filled_like(snapshot, &Maria::of(like, self.client.meter)).await
    }

    async fn schema(&self) -> Result<BTreeMap<String, String>, DatabaseError> {
        Ok(catalogue::read_schema(&self.ask(None, catalogue::SCHEMA).await?))
    }

    async fn locks(&self) -> Result<LockSamples, DatabaseError> {
        self.lock_samples().await
    }

    async fn kept(&self) -> Result<Vec<String>, DatabaseError> {
        let found = self.found().await?;
        Ok(super::mariadb_restore::kept(&found))
    }

    async fn drop_kept(&self, name: &str) -> Result<(), DatabaseError> {
        self.dropped(name).await
    }
}

//! A database of an app, a file on this host or one in a server: looked at, snapshot, migrated alone, restored (S16–S19). Nothing here decides
//! when.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cutover_core::config::settings::ServerKind;
use cutover_core::hash::ContentHash;
use cutover_core::names::{AppId, InstanceName};
use cutover_core::rehearsal::LockSample;
use cutover_core::secret::Secret;
use cutover_core::state::SchemaVersion;
use futures_util::Stream;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::{Certainty, Runtime};
use crate::files::FileError;

/// What is done with databases.
#[async_trait]
pub trait Database: Send + Sync {
    /// A consistent copy of a live file at `to`, durable; `to` is replaced.
    async fn copy(&self, from: &Path, to: &Path) -> Result<u64, DatabaseError>;

    /// The content of a file, table by table; an absent file has none.
    async fn content(&self, file: &Path) -> Result<Content, DatabaseError>;

    /// A verified, durable copy. A file's has passed `integrity_check`; a dump came whole, and its table of contents was read back from the disk.
    /// Where it does not work, nothing stays.
    async fn snapshot(&self, of: &Located, to: &Path) -> Result<Taken, DatabaseError>;

    /// Returns once nothing has it open but us: what may be migrated (P8). An absent file is open nowhere. Fails with the names of who still
    /// has it open after a while.
    async fn closed(&self, database: &Located) -> Result<(), DatabaseError>;

    /// Puts a snapshot in the database's place while nothing has it open: verified, beside it, then renamed. A file keeps owner and mode, and old
    /// `-wal` and `-shm` are removed durably before; a server's database keeps owner, encoding and settings. Whoever is no instance may have come and gone
    /// meanwhile: where what was replaced stays beside, its name is given back.
    async fn restore(&self, snapshot: &Path, to: &Located) -> Result<Option<String>, DatabaseError>;

    /// Whether a snapshot can be put in the database's place: all of it is read, with its own checksum or integrity check; a dump's table of
    /// contents, and that it is of this database and of no newer server. What was found good, a line each.
    async fn check(&self, snapshot: &Path, of: &Located) -> Result<Vec<String>, DatabaseError>;

    /// Rows of a file that are not as in a snapshot of it: inserted, changed or deleted since. Nobody who writes waits for it.
    async fn differing(&self, snapshot: &Path, file: &Path) -> Result<u64, DatabaseError>;

    /// Puts a snapshot beside its database, which is not touched: a database of the same server, or a file, that is not there yet.
    async fn restore_beside(&self, snapshot: &Path, of: &Located, to: &str) -> Result<(), DatabaseError>;

    /// Like [`Self::restore`], where nobody asked for it. Whoever is no instance may have written to a server's database meanwhile: what was
    /// replaced stays beside, under the name that is given back. Repeated, it is done already.
    async fn restore_keeping(&self, snapshot: &Path, to: &Located) -> Result<Option<String>, DatabaseError>;

    /// Tries whether a server's database could be put back: its schema, without rows, is dumped into `scratch` and made a database beside, which is
    /// dropped again. So rights, roles, extensions and client programs are known before anybody waits for them.
    async fn rehearse_restore(&self, server: &Server, scratch: &Path) -> Result<(), DatabaseError>;

    /// The first value of a query's answer.
    async fn answer(&self, of: &Located, query: &str) -> Result<String, DatabaseError>;

    /// The names of what such restores have kept beside a server's database.
    async fn kept(&self, server: &Server) -> Result<Vec<String>, DatabaseError>;

    /// Drops one of these.
    async fn drop_kept(&self, server: &Server, name: &str) -> Result<(), DatabaseError>;

    /// The server's roles that own something of a database, or are granted something there: a dump names them, and does not make them.
    async fn roles(&self, of: &Server) -> Result<Vec<String>, DatabaseError>;

    /// Makes those of them that are not there; nobody comes in by them.
    async fn make_roles(&self, of: &Server, roles: &[String]) -> Result<(), DatabaseError>;

    /// What a server says of a database.
    async fn look(&self, server: &Server) -> Result<ServerState, DatabaseError>;

    /// Takes the lock of migrations that the database has in its server, where other installations see it. It is let go when what is given is
    /// dropped, and when this process ends, however it ends.
    async fn alone(&self, server: &Server) -> Result<Alone, NotAlone>;

    /// Who migrates the database although the lock is ours: the instance of a run that was killed goes on without it until somebody settles that run.
    /// Sessions without a client are no such, and end. `None`: nobody, as far as the engine tells one session from another.
    async fn migrating(&self, server: &Server) -> Result<Option<String>, DatabaseError>;

    /// Whether an account gets in, by the way that apps come.
    async fn admits(&self, server: &Server, account: &Account) -> Result<bool, DatabaseError>;

    /// Whether [`Self::set_password`] would be let: it is tried as far as that changes nothing. What of the account would stay as it is, or is changed
    /// whatever it is, a line each.
    async fn can_set_password(
        &self,
        server: &Server,
        from: &Account,
        to: &Account,
    ) -> Result<Vec<String>, DatabaseError>;

    /// Gives an account that has one of these passwords the second, which reaches no log of the server's. Sessions that are open stay so.
    async fn set_password(&self, server: &Server, from: &Account, to: &Account) -> Result<(), DatabaseError>;

    /// Makes what a server that was just made holds into what a snapshot of a database of the server `like` holds: under the same name, and with the
    /// roles and settings of that one. Gives how long the snapshot itself took to come back.
    async fn fill(&self, fresh: &Server, snapshot: &Path, like: &Server) -> Result<Duration, DatabaseError>;

    /// What the schema is, by object (`column entries.mark`), in the server's words.
    async fn schema(&self, of: &Server) -> Result<BTreeMap<String, String>, DatabaseError>;

    /// The locks of a database's sessions, looked at again and again until nobody asks any more.
    async fn locks(&self, of: &Server) -> Result<LockSamples, DatabaseError>;

    /// Ends the sessions of migrations and snapshots whose client is gone, and sees them gone (S19); how many there were.
    async fn end_sessions(&self, server: &Server) -> Result<u64, DatabaseError>;
}

/// As long as it is there nobody else migrates the database. The default holds nothing: for what has no server.
#[derive(Debug, Default)]
pub struct Alone {
    /// Dropped, it ends the session that holds the lock.
    session: Option<oneshot::Sender<Infallible>>,
}

impl Alone {
    /// Held by a session that ends when the other end of `session` is told that this one is gone, and whose own end drops that one.
    pub fn while_held(session: oneshot::Sender<Infallible>) -> Self {
        Self { session: Some(session) }
    }

    /// Whether the session has ended, or does not answer any more: somebody else may have the lock since.
    pub fn is_lost(&self) -> bool {
        self.session.as_ref().is_some_and(oneshot::Sender::is_closed)
    }
}

/// Why the lock of migrations was not taken.
#[derive(Debug)]
pub enum NotAlone {
    /// Somebody else has it.
    Theirs,
    /// The role may not come in where it lies: nothing says whether somebody has it.
    Closed,
    /// The server did not answer, or not that.
    Failed(DatabaseError),
}

impl From<DatabaseError> for NotAlone {
    fn from(error: DatabaseError) -> Self {
        Self::Failed(error)
    }
}

/// Looks at locks, as they are made.
pub type LockSamples = Pin<Box<dyn Stream<Item = LockSample> + Send>>;

/// A database, found.
#[derive(Clone)]
pub enum Located {
    /// A file of SQLite.
    File(PathBuf),
    /// In a server.
    Server(Server),
}

/// A database in a server, and the way to it.
#[derive(Clone)]
pub struct Server {
    /// Which engine.
    pub kind: ServerKind,
    /// The database's name; `None`: the one that the image made, or that the URL names.
    pub name: Option<String>,
    /// By which way.
    pub way: Way,
    /// What we are called in its list of clients.
    pub client: &'static str,
    /// The password of who we come as, from within an instance that was made with another one; `None`: what the instance was told counts.
    pub password: Option<Secret>,
}

/// As whom an app comes into a server, and by which way.
#[derive(Debug, Clone)]
pub struct Account {
    /// The role.
    pub role: String,
    /// Its password.
    pub password: Secret,
    /// The server, as its apps call it.
    pub host: String,
    /// Its port; `None`: the usual one.
    pub port: Option<u16>,
}

/// By which way a server is reached.
#[derive(Clone)]
pub enum Way {
    /// By the tools in the server's own instance, which are of its version.
    Inside {
        /// What carries it.
        runtime: Arc<dyn Runtime>,
        /// Whose.
        app: AppId,
        /// Which.
        instance: InstanceName,
    },
    /// By this host's tools.
    Outside {
        /// Where, as whom, with which password.
        url: Secret,
    },
}

impl fmt::Debug for Way {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inside { app, instance, .. } => write!(formatter, "inside {app}/{instance}"),
            Self::Outside { .. } => formatter.write_str("from outside"),
        }
    }
}

/// A snapshot that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// Its size.
    pub bytes: u64,
    /// Of a dump's file.
    pub hash: Option<ContentHash>,
    /// What the server had counted when it was taken, where it counts.
    pub counts: Option<RowCounts>,
    /// Tables whose rows are in a dump, but not of the moment of which it is: their engine has no transactions.
    pub loose: Vec<String>,
}

/// So many tables are named.
const NAMED: usize = 5;

impl Taken {
    /// What is not of the copy's moment, in words; `None`: all is.
    pub fn told_loose(&self) -> Option<String> {
        let names: Vec<String> = self.loose.iter().take(NAMED).map(|table| format!("`{table}`")).collect();
        let more = match self.loose.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more tables"),
        };
        (!names.is_empty()).then(|| {
            format!(
                "the rows of {}{more} are not of one moment with the rest: there the engine has no transactions (`alter table … engine=InnoDB` mends that)",
                names.join(", ")
            )
        })
    }
}

/// Rows that a server has counted as inserted, changed or deleted, from some moment on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowCounts {
    /// Tells one database, and one beginning of its counts, from another.
    pub from: String,
    /// By table.
    pub tables: BTreeMap<String, u64>,
}

impl RowCounts {
    /// Rows since `then`; `None`: it was begun anew meanwhile, and nobody knows how many there were before.
    pub fn since(&self, then: &Self) -> Option<u64> {
        let of_each = self.tables.iter().map(|(table, rows)| {
            let before = then.tables.get(table).copied().unwrap_or_default();
            rows.checked_sub(before)
        });
        if self.from == then.from { of_each.sum() } else { None }
    }
}

/// What a server says of a database.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerState {
    /// Its name.
    pub database: String,
    /// The server's major version.
    pub major: u32,
    /// Its size on the server's disk.
    pub bytes: u64,
    /// Tables of the app.
    pub tables: u64,
    /// Other databases of the server.
    pub others: Vec<String>,
    /// Tells one set of tables, columns, indexes, functions and so on from another.
    pub catalogue: String,
    /// The same by object (``table `entries` ``), where the engine keeps what a migration that failed had done of it.
    pub objects: BTreeMap<String, ContentHash>,
    /// What migration tools say, as far as their tables are known.
    pub schema: Vec<SchemaVersion>,
    /// What it has counted, where it counts.
    pub counts: Option<RowCounts>,
}

/// The content of a database: a hash by table, the schema among them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Content(pub BTreeMap<String, ContentHash>);

/// Why it was not done.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct DatabaseError {
    /// The disk is full.
    pub full: bool,
    /// Whether it may have happened all the same.
    pub certainty: Certainty,
    /// What happened. May hold what a client program said: not redacted yet.
    pub message: String,
}

impl From<FileError> for DatabaseError {
    fn from(FileError { full, message, .. }: FileError) -> Self {
        Self { full, certainty: Certainty::NotDone, message }
    }
}

impl DatabaseError {
    /// It did not happen, and nothing more is known than this.
    pub fn plain(message: impl Into<String>) -> Self {
        Self { full: false, certainty: Certainty::NotDone, message: message.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(from: &str, tables: &[(&str, u64)]) -> RowCounts {
        let tables = tables.iter().map(|(table, rows)| ((*table).to_owned(), *rows)).collect();
        RowCounts { from: from.to_owned(), tables }
    }

    #[test]
    fn rows_since_are_told_only_where_the_counting_went_on() {
        let then = counts("1", &[("entries", 40), ("dropped", 900)]);
        assert_eq!(counts("1", &[("entries", 42), ("new", 5)]).since(&then), Some(7));
        assert_eq!(counts("1", &[]).since(&then), Some(0));
        assert_eq!(counts("1", &[("entries", 39), ("new", 5)]).since(&then), None, "it was begun anew");
        assert_eq!(counts("2", &[("entries", 42)]).since(&then), None, "it is another database");
    }

    #[test]
    fn what_is_not_of_the_moment_is_named_up_to_five_tables() {
        let told = |count: usize| {
            let loose = (1..=count).map(|number| format!("t{number}")).collect();
            Taken { bytes: 0, hash: None, counts: None, loose }.told_loose()
        };
        assert_eq!(told(0), None);
        assert!(told(1).unwrap().starts_with("the rows of `t1` are not of one moment"));
        assert!(
            told(7).unwrap().starts_with("the rows of `t1`, `t2`, `t3`, `t4`, `t5` and 2 more tables are")
        );
    }
}

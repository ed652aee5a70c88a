//! What is done with a database in a server, whatever its engine.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use cutover_core::config::settings::ServerKind;
use cutover_core::hash::ContentHash;
use tokio::time::Instant;

use super::mariadb::Maria;
use super::password::{PAUSE, TRIES, Tried};
use super::postgres::Postgres;
use crate::meter::Meter;
use crate::ports::{Account, Alone, DatabaseError, LockSamples, NotAlone, Server, ServerState, Taken};

/// For an answer of a server.
pub(super) const ANSWER: Duration = Duration::from_secs(30);
/// For an answer to a query that somebody wrote.
pub(super) const LONG_ANSWER: Duration = Duration::from_hours(1);
/// For sessions to end whose client is gone, and for instances that were stopped to let go.
pub(super) const LET_GO: Duration = Duration::from_secs(10);
/// Between two looks at them.
pub(super) const AGAIN: Duration = Duration::from_millis(100);

/// One database of one engine: see [`crate::ports::Database`], whose words these are.
#[async_trait]
pub(in crate::database) trait InServer: Send + Sync {
    async fn look(&self) -> Result<ServerState, DatabaseError>;
    async fn snapshot(&self, to: &Path) -> Result<Taken, DatabaseError>;
    /// Who is connected besides us, a line each.
    async fn connected(&self) -> Result<String, DatabaseError>;
    async fn closed(&self) -> Result<(), DatabaseError> {
        let end = Instant::now() + LET_GO;
        loop {
            let open = self.connected().await?;
            if open.is_empty() {
                return Ok(());
            }
            if Instant::now() >= end {
                let open = open.lines().collect::<Vec<_>>().join(", ");
                return Err(DatabaseError::plain(format!("connected are: {open}")));
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
    async fn alone(&self) -> Result<Alone, NotAlone>;
    async fn migrating(&self) -> Result<Option<String>, DatabaseError>;
    /// One try of an account, by the way that apps come.
    async fn tried(&self, account: &Account) -> Result<Tried, DatabaseError>;
    async fn admits(&self, account: &Account) -> Result<bool, DatabaseError> {
        let mut left = TRIES;
        loop {
            left -= 1;
            match self.tried(account).await? {
                Tried::In => return Ok(true),
                Tried::Refused => return Ok(false),
                Tried::Neither(error) if left == 0 => return Err(error),
                Tried::Neither(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }
    async fn can_set_password(&self, from: &Account, to: &Account) -> Result<Vec<String>, DatabaseError>;
    async fn set_password(&self, from: &Account, to: &Account) -> Result<(), DatabaseError>;
    async fn end_sessions(&self) -> Result<u64, DatabaseError>;
    async fn restore(&self, snapshot: &Path) -> Result<Option<String>, DatabaseError>;
    async fn check(&self, snapshot: &Path) -> Result<Vec<String>, DatabaseError>;
    async fn restore_beside(&self, snapshot: &Path, to: &str) -> Result<(), DatabaseError>;
    async fn restore_keeping(&self, snapshot: &Path) -> Result<Option<String>, DatabaseError>;
    async fn rehearse_restore(&self, scratch: &Path) -> Result<(), DatabaseError>;
    /// Who asks may have much to count.
    async fn answer(&self, query: &str) -> Result<String, DatabaseError>;
    /// None, where a dump comes back also without them.
    async fn roles(&self) -> Result<Vec<String>, DatabaseError> {
        Ok(Vec::new())
    }
    async fn make_roles(&self, _: &[String]) -> Result<(), DatabaseError> {
        Ok(())
    }
    async fn fill(&self, snapshot: &Path, like: &Server) -> Result<Duration, DatabaseError>;
    async fn schema(&self) -> Result<BTreeMap<String, String>, DatabaseError>;
    async fn locks(&self) -> Result<LockSamples, DatabaseError>;
    async fn kept(&self) -> Result<Vec<String>, DatabaseError>;
    async fn drop_kept(&self, name: &str) -> Result<(), DatabaseError>;
}

/// What the name of a database ends with that was replaced and stays, before a few digits.
const KEPT: &str = "replaced_";
/// Digits of it.
const DIGITS: usize = 7;

/// What the name of a database ends with that a restore of this snapshot leaves: the snapshot's, so that an earlier try is known.
pub(super) fn kept_of(snapshot: &Path) -> String {
    let file = snapshot.file_name().unwrap_or_default().to_string_lossy();
    format!("{KEPT}{}", ContentHash::of(file.as_bytes()).short())
}

/// Those among the server's databases that stay beside one since restores which nobody asked for; `beside` gives names beside it.
pub(super) fn kept_among(others: &[String], beside: impl Fn(&str) -> String) -> Vec<String> {
    let any = beside(&format!("{KEPT}{}", "0".repeat(DIGITS)));
    let (before, _) = any.split_at(any.len() - DIGITS);
    let is_kept = |name: &&String| {
        name.strip_prefix(before).is_some_and(|digits| {
            digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
        })
    };
    others.iter().filter(is_kept).cloned().collect()
}

/// The database, by its engine.
pub(in crate::database) fn of<'a>(server: &'a Server, meter: &'a Meter) -> Box<dyn InServer + 'a> {
    match server.kind {
        ServerKind::Postgres => Box::new(Postgres::of(server, meter)),
        ServerKind::Mysql | ServerKind::Mariadb => Box::new(Maria::of(server, meter)),
    }
}

//! Samples of health: how each service of an app was, at moments. They may be lost, so they lie in a file of their own with
//! `synchronous=NORMAL`, bounded: a disk they filled would be in the journal's way (S24).

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use cutover_core::layout::Layout;
use cutover_core::names::{AppId, ServiceName};
use cutover_core::wire::ServiceHealth;
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::journal::timestamp;
use super::{StoreError, format};

/// Samples kept for each app.
const KEPT: u32 = 720;

/// The version of the file; another one is thrown away and begun anew.
const VERSION: u32 = 1;

/// How an app's services were.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// When.
    pub at: Timestamp,
    /// By service.
    pub services: BTreeMap<ServiceName, ServiceHealth>,
}

/// The samples of one installation.
#[derive(Debug)]
pub struct Samples {
    connection: Mutex<Connection>,
}

impl Samples {
    /// Opens the file; makes it where there is none.
    ///
    /// # Errors
    /// When it cannot be read or made.
    pub fn open(layout: &Layout) -> Result<Self, StoreError> {
        let path = layout.state().join("samples.db");
        super::make_private(std::fs::OpenOptions::new(), &path)?;
        Self::with(Connection::open(path)?)
    }

    fn with(connection: Connection) -> Result<Self, StoreError> {
        connection.busy_timeout(super::BUSY)?;
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
        let version: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if version != VERSION {
            connection.execute_batch(
                "BEGIN IMMEDIATE; DROP TABLE IF EXISTS samples;
                 CREATE TABLE samples (number INTEGER PRIMARY KEY AUTOINCREMENT, app TEXT NOT NULL, at TEXT NOT NULL, services TEXT NOT NULL);
                 CREATE INDEX samples_by_app ON samples (app, number); PRAGMA user_version = 1; COMMIT;",
            )?;
        }
        Ok(Self { connection: Mutex::new(connection) })
    }

    /// Keeps a sample; the oldest ones of the app beyond the bound go.
    ///
    /// # Errors
    /// When it is not kept.
    pub fn put(
        &self,
        app: &AppId,
        at: Timestamp,
        services: &BTreeMap<ServiceName, ServiceHealth>,
    ) -> Result<(), StoreError> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        super::transact(&mut connection, super::Lasting::WithTheNext, |transaction| {
            transaction.execute(
                "INSERT INTO samples (app, at, services) VALUES (?1, ?2, ?3)",
                params![app.to_string(), at.to_string(), format::write(services)?],
            )?;
            transaction.execute(
                "DELETE FROM samples WHERE app = ?1 AND number <= \
                 (SELECT number FROM samples WHERE app = ?1 ORDER BY number DESC LIMIT 1 OFFSET ?2)",
                params![app.to_string(), KEPT],
            )?;
            Ok(())
        })
    }

    /// The newest sample of an app.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn newest(&self, app: &AppId) -> Result<Option<Sample>, StoreError> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let found: Option<(String, String)> = connection
            .prepare_cached("SELECT at, services FROM samples WHERE app = ?1 ORDER BY number DESC LIMIT 1")?
            .query_row([app.to_string()], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let read = |(at, services): (String, String)| {
            Ok(Sample { at: timestamp(&at)?, services: format::read(format::FORMAT, &services)? })
        };
        found.map(read).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_sample_is_found_and_old_ones_go() {
        let samples = Samples::with(Connection::open_in_memory().unwrap()).unwrap();
        let (shop, other): (AppId, AppId) = ("shop/local".parse().unwrap(), "other/local".parse().unwrap());
        let at = |second: u32| Timestamp::new(1_000_000 + i64::from(second), 0).unwrap();
        samples.put(&other, at(0), &BTreeMap::new()).unwrap();
        for second in 0..KEPT + 10 {
            let health = ServiceHealth { instances: vec![], stopped: false, wanted: second };
            samples.put(&shop, at(second), &BTreeMap::from([("web".parse().unwrap(), health)])).unwrap();
        }

        let newest = samples.newest(&shop).unwrap().unwrap();

        assert_eq!((newest.at, newest.services[&"web".parse().unwrap()].wanted), (at(KEPT + 9), KEPT + 9));
        let connection = samples.connection.lock().unwrap();
        let kept: u32 = connection.query_row("SELECT count(*) FROM samples", [], |row| row.get(0)).unwrap();
        assert_eq!(kept, KEPT + 1);
    }
}

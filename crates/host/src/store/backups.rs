//! Backups that were tried, in the order in which they were: no clock tells which of two is the newer one (S26).

use cutover_core::backup::BackupRecord;
use cutover_core::names::AppId;
use rusqlite::params;

use super::{Lasting, Store, StoreError};

/// So many of an app stay on record.
const KEPT: u32 = 100;

impl Store {
    /// Records how a backup ended; the oldest beyond a hundred go.
    ///
    /// # Errors
    /// When it is not recorded.
    pub fn put_backup(&self, app: &AppId, record: &BackupRecord) -> Result<(), StoreError> {
        let text = serde_json::to_string(record).map_err(|error| StoreError::new(error.to_string()))?;
        self.write_lasting(Lasting::AtOnce, |transaction| {
            let app = app.to_string();
            transaction.execute("INSERT INTO backups (app, record) VALUES (?1, ?2)", params![app, text])?;
            let old = "DELETE FROM backups WHERE app = ?1 AND sequence NOT IN
                (SELECT sequence FROM backups WHERE app = ?1 ORDER BY sequence DESC LIMIT ?2)";
            transaction.execute(old, params![app, KEPT])?;
            Ok(())
        })
    }

    /// What is on record of an app's backups, the newest first. What a newer build wrote and cannot be read here is left out.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn backups(&self, app: &AppId) -> Result<Vec<BackupRecord>, StoreError> {
        self.read(|connection| {
            let mut statement = connection
                .prepare_cached("SELECT record FROM backups WHERE app = ?1 ORDER BY sequence DESC")?;
            let rows = statement.query_map([app.to_string()], |row| row.get::<_, String>(0))?;
            let texts: Vec<String> = rows.collect::<Result<_, _>>()?;
            Ok(texts.iter().filter_map(|text| serde_json::from_str(text).ok()).collect())
        })
    }
}

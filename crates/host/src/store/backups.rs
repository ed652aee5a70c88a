//! Backups that were tried, in the order in which they were: no clock tells which of two is the newer one (S26).

use cutover_core::backup::BackupRecord;
use cutover_core::names::AppId;
use rusqlite::params;

use super::{Lasting, Store, StoreError};

/// So many of an app stay on record.
const KEPT: u32 = 100;

impl Store {
    /// Records how a backup ended; the oldest beyond a hundred go. The newest that counts of each place stays however many fail after it: by it is known
    /// that a repository was there.
    ///
    /// # Errors
    /// When it is not recorded.
    pub fn put_backup(&self, app: &AppId, record: &BackupRecord) -> Result<(), StoreError> {
        let text = serde_json::to_string(record).map_err(|error| StoreError::new(error.to_string()))?;
        self.write_lasting(Lasting::AtOnce, |transaction| {
            let app = app.to_string();
            transaction.execute("INSERT INTO backups (app, record) VALUES (?1, ?2)", params![app, text])?;
            let old = "DELETE FROM backups WHERE app = ?1 AND sequence NOT IN
                (SELECT sequence FROM backups WHERE app = ?1 ORDER BY sequence DESC LIMIT ?2)
                AND sequence NOT IN (SELECT max(sequence) FROM backups WHERE app = ?1
                AND CASE WHEN json_valid(record) THEN json_extract(record, '$.outcome.outcome') END = 'verified'
                GROUP BY json_extract(record, '$.to'))";
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

#[cfg(test)]
mod tests {
    use cutover_core::backup::BackupOutcome;
    use jiff::Timestamp;

    use super::*;

    fn record(to: &str, outcome: BackupOutcome) -> BackupRecord {
        let at = Timestamp::UNIX_EPOCH;
        BackupRecord { to: to.parse().unwrap(), by: "ann".to_owned(), started: at, finished: at, outcome }
    }

    fn good(to: &str, id: &str) -> BackupRecord {
        let outcome = BackupOutcome::Verified {
            id: id.to_owned(),
            items: Vec::new(),
            bytes: 0,
            added: 0,
            left_out: Vec::new(),
        };
        record(to, outcome)
    }

    #[test]
    fn given_more_failures_than_are_kept_then_the_newest_that_counts_of_each_place_stays() {
        let (store, app) = (Store::in_memory().unwrap(), "shop/local".parse().unwrap());
        for (to, id) in [("/srv/one", "old"), ("/srv/one", "new"), ("/srv/two", "other")] {
            store.put_backup(&app, &good(to, id)).unwrap();
        }
        for _ in 0..=KEPT {
            let why = "its disk is not mounted".to_owned();
            store.put_backup(&app, &record("/srv/one", BackupOutcome::Failed { why })).unwrap();
        }

        let all = store.backups(&app).unwrap();

        let verified: Vec<_> = all.iter().filter(|record| record.is_verified()).cloned().collect();
        assert_eq!(verified, [good("/srv/two", "other"), good("/srv/one", "new")]);
        assert_eq!(all.len(), usize::try_from(KEPT).unwrap() + 2);
    }
}

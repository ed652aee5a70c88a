//! Snapshots in the order in which they were taken: no clock tells which of two is the newer one (S26).

use std::collections::BTreeMap;

use cutover_core::hash::ContentHash;
use cutover_core::names::{AppId, ReleaseId};
use rusqlite::{OptionalExtension, params};

use super::{Lasting, Store, StoreError};
use crate::ports::RowCounts;

impl Store {
    /// Records that a snapshot was taken, with the SHA-256 of its file; one that is known keeps its place. It lasts with the next line of the
    /// journal that names an act.
    ///
    /// # Errors
    /// When it is not recorded.
    pub fn put_snapshot(
        &self,
        app: &AppId,
        file: &str,
        hash: Option<&ContentHash>,
    ) -> Result<(), StoreError> {
        let newest = "SELECT coalesce(max(sequence), 0) FROM releases WHERE app = ?1 AND ?4 IS NULL";
        self.insert_snapshot(app, file, hash, newest, None)
    }

    /// Records what a database's server had counted when a snapshot was taken that is on record.
    ///
    /// # Errors
    /// When it is not recorded.
    pub fn put_row_counts(&self, file: &str, counts: &RowCounts) -> Result<(), StoreError> {
        let counts = serde_json::to_string(counts)
            .map_err(|error| StoreError::new(format!("what was counted cannot be written: {error}")))?;
        self.write_lasting(Lasting::WithTheNext, |transaction| {
            transaction.execute("UPDATE snapshots SET counts = ?2 WHERE file = ?1", [file, &counts])?;
            Ok(())
        })
    }

    /// What a database's server had counted when a snapshot was taken; `None`: it does not count, or that is on no record.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn row_counts(&self, file: &str) -> Result<Option<RowCounts>, StoreError> {
        self.read(|connection| {
            let mut statement = connection
                .prepare_cached("SELECT counts FROM snapshots WHERE file = ?1 AND counts IS NOT NULL")?;
            let counts = statement.query_row([file], |row| row.get::<_, String>(0)).optional()?;
            Ok(counts.and_then(|counts| serde_json::from_str(&counts).ok()))
        })
    }

    /// Records a snapshot that came out of a backup, which was made while `release` was live: which migrations are in it is told by when that went live
    /// last, and is not known where it is on no record. One that is known keeps its place.
    ///
    /// # Errors
    /// When it is not recorded.
    pub fn put_recalled(
        &self,
        app: &AppId,
        file: &str,
        hash: &ContentHash,
        release: &ReleaseId,
    ) -> Result<(), StoreError> {
        let of_release = "SELECT sequence FROM releases WHERE app = ?1 AND id = ?4 AND lived = 1";
        self.insert_snapshot(app, file, Some(hash), of_release, Some(release))
    }

    /// `moment` asks for the number of the release that had gone live last; `?1` is the app there and `?4` the release.
    fn insert_snapshot(
        &self,
        app: &AppId,
        file: &str,
        hash: Option<&ContentHash>,
        moment: &str,
        release: Option<&ReleaseId>,
    ) -> Result<(), StoreError> {
        self.write_lasting(Lasting::WithTheNext, |transaction| {
            let insert = format!(
                "INSERT INTO snapshots (app, file, hash, moment) VALUES (?1, ?2, ?3, ({moment})) \
                ON CONFLICT (file) DO UPDATE SET hash = coalesce(excluded.hash, hash)"
            );
            let values =
                params![app.to_string(), file, hash.map(ContentHash::as_str), release.map(ReleaseId::as_str)];
            transaction.execute(&insert, values)?;
            Ok(())
        })
    }

    /// The SHA-256 of an app's snapshots, of those of which one is on record.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn snapshot_hashes(&self, app: &AppId) -> Result<BTreeMap<String, ContentHash>, StoreError> {
        self.read(|connection| {
            let mut statement = connection
                .prepare_cached("SELECT file, hash FROM snapshots WHERE app = ?1 AND hash IS NOT NULL")?;
            let rows = statement.query_map([app.to_string()], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
            })?;
            let mut hashes = BTreeMap::new();
            for row in rows {
                let (file, hash) = row?;
                hashes.extend(ContentHash::from_hex(&hash).map(|hash| (file, hash)));
            }
            Ok(hashes)
        })
    }

    /// The number under which a release had gone live last when each of an app's snapshots was taken, of those of which it is on record.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn snapshot_moments(&self, app: &AppId) -> Result<BTreeMap<String, u64>, StoreError> {
        self.read(|connection| {
            let mut statement = connection
                .prepare_cached("SELECT file, moment FROM snapshots WHERE app = ?1 AND moment IS NOT NULL")?;
            let rows = statement.query_map([app.to_string()], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// The file names of an app's snapshots, each with its place in their order.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn snapshots(&self, app: &AppId) -> Result<BTreeMap<String, u64>, StoreError> {
        self.read(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT file, sequence FROM snapshots WHERE app = ?1")?;
            let rows = statement.query_map([app.to_string()], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// Forgets a snapshot whose file is gone.
    ///
    /// # Errors
    /// When it is still on record.
    pub fn forget_snapshot(&self, file: &str) -> Result<(), StoreError> {
        self.write_lasting(Lasting::WithTheNext, |transaction| {
            transaction.execute("DELETE FROM snapshots WHERE file = ?1", [file])?;
            Ok(())
        })
    }
}

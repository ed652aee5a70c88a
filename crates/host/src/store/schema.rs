//! The tables, and the way to them from every earlier version.

use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, TransactionBehavior};

use super::StoreError;

/// The version of the tables that this build writes, kept in `user_version`.
pub(super) const VERSION: u32 = 6;

/// Order is by `number` and `sequence`, never by clock: a clock that jumps reorders nothing (S26).
const V1: &str = "
CREATE TABLE runs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    run TEXT NOT NULL UNIQUE,
    app TEXT NOT NULL,
    verb TEXT NOT NULL,
    by TEXT NOT NULL,
    started TEXT NOT NULL,
    finished TEXT,
    cancel_asked_by TEXT
);
CREATE INDEX runs_by_app ON runs (app, number);
CREATE INDEX runs_unfinished ON runs (number) WHERE finished IS NULL;
CREATE TABLE entries (
    run TEXT NOT NULL,
    seq INTEGER NOT NULL,
    at TEXT NOT NULL,
    format INTEGER NOT NULL,
    what TEXT NOT NULL,
    PRIMARY KEY (run, seq)
) WITHOUT ROWID;
CREATE TABLE verdicts (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    run TEXT NOT NULL UNIQUE,
    app TEXT NOT NULL,
    format INTEGER NOT NULL,
    verdict TEXT NOT NULL
);
CREATE INDEX verdicts_by_app ON verdicts (app, sequence);
CREATE TABLE releases (
    app TEXT NOT NULL,
    id TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    lived INTEGER NOT NULL DEFAULT 0,
    warm_until TEXT,
    format INTEGER NOT NULL,
    release TEXT NOT NULL,
    migrations TEXT NOT NULL DEFAULT '[]',
    PRIMARY KEY (app, id)
) WITHOUT ROWID;
";

/// When a migration was carried out was not recorded before: the last time its release went live is the best that is known.
const V2: &str = "
UPDATE releases SET migrations = (
    SELECT json_group_array(json(json_set(value, '$.at', releases.sequence, '$.undone', NULL)))
    FROM json_each(releases.migrations)
);
";

/// The order in which snapshots were taken (S26). Of earlier ones it is known where the journal is still there; the others are older.
const V3: &str = "
CREATE TABLE snapshots (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    app TEXT NOT NULL,
    file TEXT NOT NULL UNIQUE
);
CREATE INDEX snapshots_by_app ON snapshots (app, sequence);
INSERT OR IGNORE INTO snapshots (app, file)
    SELECT runs.app, json_extract(entries.what, '$.step.file')
    FROM entries JOIN runs ON runs.run = entries.run
    WHERE json_extract(entries.what, '$.step.step') = 'snapshot'
    ORDER BY runs.number, entries.seq;
";

/// Backups that were tried, and how each ended.
const V4: &str = "
CREATE TABLE backups (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    app TEXT NOT NULL,
    record TEXT NOT NULL
);
CREATE INDEX backups_by_app ON backups (app, sequence);
";

/// What a snapshot's file was, and which release had gone live last when it was taken: which migrations are in it. Of earlier ones the hash is
/// known where the journal is still there.
const V5: &str = "
ALTER TABLE snapshots ADD COLUMN hash TEXT;
ALTER TABLE snapshots ADD COLUMN moment INTEGER;
UPDATE snapshots SET hash = (
    SELECT json_extract(done.what, '$.result.hash')
    FROM entries AS begun JOIN entries AS done
        ON done.run = begun.run AND json_extract(done.what, '$.intent') = begun.seq
    WHERE json_extract(begun.what, '$.step.step') = 'snapshot'
        AND json_extract(begun.what, '$.step.file') = snapshots.file
        AND json_extract(done.what, '$.result.result') = 'snapshot'
);
";

/// What a database's server had counted when a snapshot was taken. Of earlier ones nobody knows it.
const V6: &str = "ALTER TABLE snapshots ADD COLUMN counts TEXT;";

/// Sets the connection up and brings the tables to [`VERSION`]. A newer store is refused before anything is written.
pub(super) fn upgrade(connection: &mut Connection) -> Result<(), StoreError> {
    refuse_newer(version(connection)?)?;
    enter_wal(connection)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", "ON")?;
    if version(connection)? == VERSION {
        return Ok(());
    }
    // Looked at again under the lock: another process may be upgrading, too.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found = version(&transaction)?;
    refuse_newer(found)?;
    if found < 1 {
        transaction.execute_batch(V1)?;
    }
    if found < 2 {
        transaction.execute_batch(V2)?;
    }
    if found < 3 {
        transaction.execute_batch(V3)?;
    }
    if found < 4 {
        transaction.execute_batch(V4)?;
    }
    if found < 5 {
        transaction.execute_batch(V5)?;
    }
    if found < 6 {
        transaction.execute_batch(V6)?;
    }
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()?;
    Ok(())
}

/// Refuses tables that are not of [`VERSION`], where they cannot be brought to it.
pub(super) fn refuse_other(connection: &Connection) -> Result<(), StoreError> {
    let found = version(connection)?;
    refuse_newer(found)?;
    if found == VERSION {
        return Ok(());
    }
    Err(StoreError::new(format!(
        "the state database is of version {found} and cannot be brought to {VERSION} where nothing can be written"
    )))
}

fn refuse_newer(found: u32) -> Result<(), StoreError> {
    if found > VERSION { Err(StoreError::newer(found, VERSION)) } else { Ok(()) }
}

fn version(connection: &Connection) -> Result<u32, StoreError> {
    Ok(connection.pragma_query_value(None, "user_version", |row| row.get(0))?)
}

/// The change of mode needs the file alone, and does not wait for it by itself.
fn enter_wal(connection: &Connection) -> Result<(), StoreError> {
    let end = Instant::now() + super::BUSY;
    loop {
        match connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(())) {
            Err(rusqlite::Error::SqliteFailure(error, _))
                if error.code == ErrorCode::DatabaseBusy && Instant::now() < end =>
            {
                std::thread::sleep(Duration::from_millis(10));
            }
            outcome => return Ok(outcome?),
        }
    }
}

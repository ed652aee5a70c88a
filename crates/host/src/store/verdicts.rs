//! Verdicts: the one outcome of each run.

use cutover_core::names::{AppId, RunId};
use cutover_core::verdict::Verdict;
use jiff::Timestamp;
use rusqlite::{OptionalExtension, Transaction, params};

use super::{Store, StoreError, format};

impl Store {
    /// Records the outcome of a run. The first one stays: a run has one verdict, once it is over.
    ///
    /// # Errors
    /// When it is not recorded; the run counts as unfinished.
    pub fn finish_run(&self, verdict: &Verdict) -> Result<(), StoreError> {
        self.write(|transaction| {
            put_verdict(transaction, verdict)?;
            transaction.execute(
                "UPDATE runs SET finished = ?2 WHERE run = ?1 AND finished IS NULL",
                params![verdict.run.to_string(), verdict.finished.to_string()],
            )?;
            Ok(())
        })
    }

    /// Records the outcome of a run that has something to put away yet. It stays unfinished, so that whoever comes after its end puts that away.
    ///
    /// # Errors
    /// When it is not recorded.
    pub fn decide_run(&self, verdict: &Verdict) -> Result<(), StoreError> {
        self.write(|transaction| put_verdict(transaction, verdict))
    }

    /// Records what a person was told of a run that could not be settled. It stays unfinished, so that watch keeps off what it left and it
    /// is settled as soon as that can be; then its outcome takes the place of this one.
    ///
    /// # Errors
    /// When it is not recorded.
    pub fn give_up_run(&self, verdict: &Verdict) -> Result<(), StoreError> {
        self.write(|transaction| put_verdict(transaction, verdict))
    }

    /// Records that a run is over of which no outcome is known.
    ///
    /// # Errors
    /// When it is not recorded.
    pub(super) fn close_run(&self, run: RunId, at: Timestamp) -> Result<(), StoreError> {
        self.write(|transaction| {
            let close = "UPDATE runs SET finished = ?2 WHERE run = ?1 AND finished IS NULL";
            transaction.execute(close, params![run.to_string(), at.to_string()])?;
            Ok(())
        })
    }

    /// Whether a run has an outcome that stays.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn is_over(&self, run: RunId) -> Result<bool, StoreError> {
        self.read(|connection| {
            let query = "SELECT EXISTS (SELECT 1 FROM verdicts WHERE run = ?1) \
                 AND NOT EXISTS (SELECT 1 FROM runs WHERE run = ?1 AND finished IS NULL)";
            Ok(connection.prepare_cached(query)?.query_row([run.to_string()], |row| row.get(0))?)
        })
    }

    /// The verdict of a run; `None`: it has none yet.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn verdict(&self, run: RunId) -> Result<Option<Verdict>, StoreError> {
        self.read(|connection| {
            let found: Option<(u32, String)> = connection
                .prepare_cached("SELECT format, verdict FROM verdicts WHERE run = ?1")?
                .query_row([run.to_string()], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            found.map(|(format, text)| format::read(format, &text)).transpose()
        })
    }

    /// The newest verdicts of an app, newest first, at most `limit`.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn verdicts(&self, app: &AppId, limit: u32) -> Result<Vec<Verdict>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT format, verdict FROM verdicts WHERE app = ?1 ORDER BY sequence DESC LIMIT ?2",
            )?;
            let rows =
                statement.query_map(params![app.to_string(), limit], |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.map(|row| {
                let (format, text): (u32, String) = row?;
                format::read(format, &text)
            })
            .collect()
        })
    }
}

fn put_verdict(transaction: &Transaction<'_>, verdict: &Verdict) -> Result<(), StoreError> {
    let (run, app) = (verdict.run.to_string(), verdict.app.to_string());
    transaction.execute(
        "INSERT INTO runs (run, app, verb, by, started) VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (run) DO NOTHING",
        params![run, app, format::write(&verdict.verb)?, verdict.by, verdict.started.to_string()],
    )?;
    transaction.execute(
        "INSERT INTO verdicts (run, app, format, verdict) VALUES (?1, ?2, ?3, ?4) \
         ON CONFLICT (run) DO UPDATE SET format = excluded.format, verdict = excluded.verdict \
         WHERE EXISTS (SELECT 1 FROM runs WHERE runs.run = excluded.run AND runs.finished IS NULL)",
        params![run, app, format::FORMAT, format::write(verdict)?],
    )?;
    Ok(())
}

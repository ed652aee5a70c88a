//! Runs and their journals.

use cutover_core::journal::{Entry, Step, What};
use cutover_core::names::{AppId, RunId};
use cutover_core::plan::Verb;
use jiff::Timestamp;
use rusqlite::{OptionalExtension, Row, params};

use super::{Lasting, Store, StoreError, format};

/// A run as recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunRow {
    /// Which.
    pub run: RunId,
    /// Whose.
    pub app: AppId,
    /// What was asked.
    pub verb: Verb,
    /// By whom.
    pub by: String,
    /// When it began.
    pub started: Timestamp,
    /// When its verdict was written; `None`: it has none yet.
    pub finished: Option<Timestamp>,
}

impl Store {
    /// Records that a run begins; tells whether it was not known before (S12). Nothing is done for it before its journal has a line that lasts.
    ///
    /// # Errors
    /// When it is not recorded.
    pub fn begin_run(
        &self,
        run: RunId,
        app: &AppId,
        verb: Verb,
        by: &str,
        at: Timestamp,
    ) -> Result<bool, StoreError> {
        self.write_lasting(Lasting::WithTheNext, |transaction| {
            let begun = transaction.execute(
                "INSERT INTO runs (run, app, verb, by, started) VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (run) DO NOTHING",
                params![run.to_string(), app.to_string(), format::write(&verb)?, by, at.to_string()],
            )?;
            Ok(begun > 0)
        })
    }

    /// Writes the next line of a run's journal. What is about to be done is durable before it is done; what came of it is with the next line
    /// that says what is about to be done.
    ///
    /// # Errors
    /// When it is not recorded: then the act it speaks of must not begin.
    pub fn append(&self, run: RunId, at: Timestamp, what: &What) -> Result<Entry, StoreError> {
        let text = format::write(what)?;
        let seq = self.write_lasting(lasting(what), |transaction| {
            let next = "SELECT coalesce(max(seq), 0) + 1 FROM entries WHERE run = ?1";
            let seq: u64 =
                transaction.prepare_cached(next)?.query_row([run.to_string()], |row| row.get(0))?;
            let insert = "INSERT INTO entries (run, seq, at, format, what) VALUES (?1, ?2, ?3, ?4, ?5)";
            transaction.prepare_cached(insert)?.execute(params![
                run.to_string(),
                seq,
                at.to_string(),
                format::FORMAT,
                text
            ])?;
            Ok(seq)
        })?;
        Ok(Entry { run, seq, at, what: what.clone() })
    }

    /// The journal of a run from line `from` on.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn entries(&self, run: RunId, from: u64) -> Result<Vec<Entry>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT seq, at, format, what FROM entries WHERE run = ?1 AND seq >= ?2 ORDER BY seq",
            )?;
            let rows = statement.query_map(params![run.to_string(), from], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
            })?;
            rows.map(|row| {
                let (seq, at, format, what): (u64, String, u32, String) = row?;
                Ok(Entry { run, seq, at: timestamp(&at)?, what: format::read(format, &what)? })
            })
            .collect()
        })
    }

    /// Whether a run has written anything: one that waits for the lock has not.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn has_begun(&self, run: RunId) -> Result<bool, StoreError> {
        self.read(|connection| {
            let query = "SELECT EXISTS (SELECT 1 FROM entries WHERE run = ?1)";
            Ok(connection.prepare_cached(query)?.query_row([run.to_string()], |row| row.get(0))?)
        })
    }

    /// A run; `None`: unknown here.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn run(&self, run: RunId) -> Result<Option<RunRow>, StoreError> {
        type Found = (String, String, String, String, Option<String>);
        let found = self.read(|connection| {
            let found: Option<Found> = connection
                .query_row(
                    "SELECT app, verb, by, started, finished FROM runs WHERE run = ?1",
                    [run.to_string()],
                    |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)),
                )
                .optional()?;
            Ok(found)
        })?;
        let Some((app, verb, by, started, finished)) = found else { return Ok(None) };
        Ok(Some(RunRow {
            run,
            app: parsed(&app)?,
            verb: format::read(format::FORMAT, &verb)?,
            by,
            started: timestamp(&started)?,
            finished: finished.as_deref().map(timestamp).transpose()?,
        }))
    }

    /// The run of an app that began last.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn newest_run(&self, app: &AppId) -> Result<Option<RunId>, StoreError> {
        self.one_run("SELECT run FROM runs WHERE app = ?1 ORDER BY number DESC LIMIT 1", app)
    }

    /// The run of an app that was carried out in part and has no verdict: the oldest that has a journal. One that still waits for the lock
    /// has none, and nothing to settle.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn unfinished(&self, app: &AppId) -> Result<Option<RunId>, StoreError> {
        self.one_run(
            "SELECT run FROM runs WHERE app = ?1 AND finished IS NULL \
             AND EXISTS (SELECT 1 FROM entries WHERE entries.run = runs.run) ORDER BY number LIMIT 1",
            app,
        )
    }

    /// Every run without a verdict, oldest first, those without a journal included.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn all_unfinished(&self) -> Result<Vec<(AppId, RunId)>, StoreError> {
        self.read(|connection| {
            let mut statement = connection
                .prepare_cached("SELECT app, run FROM runs WHERE finished IS NULL ORDER BY number")?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.map(|row| {
                let (app, run): (String, String) = row?;
                Ok((parsed(&app)?, parsed(&run)?))
            })
            .collect()
        })
    }

    /// Records the wish to cancel a run; the first who asked stays.
    ///
    /// # Errors
    /// When it is not recorded.
    pub fn ask_cancel(&self, run: RunId, by: &str) -> Result<(), StoreError> {
        self.write(|transaction| {
            transaction.execute(
                "UPDATE runs SET cancel_asked_by = ?2 WHERE run = ?1 AND cancel_asked_by IS NULL",
                params![run.to_string(), by],
            )?;
            Ok(())
        })
    }

    /// Who asked to cancel a run, if anybody.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn cancel_asked(&self, run: RunId) -> Result<Option<String>, StoreError> {
        self.read(|connection| {
            let asked: Option<Option<String>> = connection
                .prepare_cached("SELECT cancel_asked_by FROM runs WHERE run = ?1")?
                .query_row([run.to_string()], |row| row.get(0))
                .optional()?;
            Ok(asked.flatten())
        })
    }

    /// Apps that have releases here, or a run without a verdict.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn apps(&self) -> Result<Vec<AppId>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT app FROM releases UNION SELECT app FROM runs WHERE finished IS NULL ORDER BY 1",
            )?;
            let rows = statement.query_map([], |row: &Row<'_>| row.get::<_, String>(0))?;
            rows.map(|row| parsed(&row?)).collect()
        })
    }

    /// An app's runs that are over, all but the newest `keep`, with the bytes of each one's journal.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn old_runs(&self, app: &AppId, keep: u32) -> Result<Vec<(RunId, u64)>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT run, (SELECT coalesce(sum(length(what)), 0) FROM entries WHERE entries.run = runs.run) \
                 FROM runs WHERE app = ?1 AND finished IS NOT NULL AND number <= \
                 (SELECT number FROM runs WHERE app = ?1 ORDER BY number DESC LIMIT 1 OFFSET ?2)",
            )?;
            let rows =
                statement.query_map(params![app.to_string(), keep], |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.map(|row| {
                let (run, bytes): (String, u64) = row?;
                Ok((parsed(&run)?, bytes))
            })
            .collect()
        })
    }

    /// Drops the journal of a run that is over. Its verdict stays.
    ///
    /// # Errors
    /// When it is still there.
    pub fn forget_run(&self, run: RunId) -> Result<(), StoreError> {
        self.write(|transaction| {
            let over = "DELETE FROM runs WHERE run = ?1 AND finished IS NOT NULL";
            if transaction.execute(over, [run.to_string()])? > 0 {
                transaction.execute("DELETE FROM entries WHERE run = ?1", [run.to_string()])?;
            }
            Ok(())
        })
    }

    /// Drops the journals of an app's runs that are over, all but those of the newest `keep`; tells which.
    ///
    /// # Errors
    /// When they are still there.
    pub fn forget_runs(&self, app: &AppId, keep: u32) -> Result<Vec<RunId>, StoreError> {
        let old = self.old_runs(app, keep)?;
        old.into_iter().map(|(run, _)| self.forget_run(run).map(|()| run)).collect()
    }

    fn one_run(&self, query: &str, app: &AppId) -> Result<Option<RunId>, StoreError> {
        self.read(|connection| {
            let found: Option<String> = connection
                .prepare_cached(query)?
                .query_row([app.to_string()], |row| row.get(0))
                .optional()?;
            found.as_deref().map(parsed).transpose()
        })
    }
}

/// A run may lose its last words to a loss of power, never an act that it was about to begin: an intent without an outcome is looked after
/// (S9), an act without an intent would not be. What is there again, or gone, by looking at it, and the verdict, which is recorded on its own
/// before it is told, need not be waited for either.
fn lasting(what: &What) -> Lasting {
    match what {
        What::Entered { .. }
        | What::Skipped { .. }
        | What::Left { .. }
        | What::Outcome { .. }
        | What::Note { .. }
        | What::Output { .. }
        | What::Verdict { .. }
        | What::Intent { step: Step::Quiet { .. } | Step::Discard { .. }, .. } => Lasting::WithTheNext,
        What::Planned { .. }
        | What::Intent { .. }
        | What::Broke { .. }
        | What::Failed { .. }
        | What::CancelAsked { .. }
        | What::Warning { .. }
        | What::Resumed { .. } => Lasting::AtOnce,
    }
}

pub(super) fn timestamp(text: &str) -> Result<Timestamp, StoreError> {
    parsed(text)
}

pub(super) fn parsed<T>(text: &str) -> Result<T, StoreError>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error| StoreError::new(format!("the state database holds `{text}`: {error}")))
}

//! Releases on record: what rollback can reach.

use cutover_core::hash::ContentHash;
use cutover_core::names::{AppId, ReleaseId, VariableName};
use cutover_core::release::Release;
use cutover_core::state::{Migrated, MigrationRecord, ReleaseRecord, Restored, Undone};
use jiff::Timestamp;
use rusqlite::{OptionalExtension, Transaction, params};

use super::journal::timestamp;
use super::{Lasting, Store, StoreError, format};

impl Store {
    /// Records a release; gives its sequence. The same id again takes the record's place: a release that never lived becomes the newest,
    /// one that did keeps its place. It lasts with the next line of the journal that names an act, before anything of it is made.
    ///
    /// # Errors
    /// When it is not recorded; also when a release of this id was live with other content, since a release is immutable.
    pub fn put_release(&self, release: &Release) -> Result<u64, StoreError> {
        let text = format::write(release)?;
        let (app, id) = (release.app.to_string(), release.id.to_string());
        self.write_lasting(Lasting::WithTheNext, |transaction| {
            let known: Option<(u64, bool, u32, String)> = transaction
                .query_row(
                    "SELECT sequence, lived, format, release FROM releases WHERE app = ?1 AND id = ?2",
                    params![app, id],
                    |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
                )
                .optional()?;
            let sequence = match known {
                Some((sequence, true, format, known)) => {
                    refuse_other_content(release, &format::read(format, &known)?)?;
                    sequence
                }
                Some((_, false, ..)) | None => next_sequence(transaction, &app)?,
            };
            transaction.execute(
                "INSERT INTO releases (app, id, sequence, format, release) VALUES (?1, ?2, ?3, ?4, ?5) \
                 ON CONFLICT (app, id) DO UPDATE SET sequence = ?3, format = ?4, release = ?5",
                params![app, id, sequence, format::FORMAT, text],
            )?;
            Ok(sequence)
        })
    }

    /// An app's releases, by sequence.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn releases(&self, app: &AppId) -> Result<Vec<ReleaseRecord>, StoreError> {
        type Found = (u64, bool, Option<String>, u32, String, String);
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT sequence, lived, warm_until, format, release, migrations FROM releases \
                 WHERE app = ?1 ORDER BY sequence",
            )?;
            let rows = statement.query_map([app.to_string()], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?))
            })?;
            rows.map(|row| {
                let (sequence, lived, warm, format, release, migrations): Found = row?;
                Ok(ReleaseRecord {
                    release: format::read(format, &release)?,
                    sequence,
                    lived,
                    migrations: format::read(format, &migrations)?,
                    warm_until: warm.as_deref().map(timestamp).transpose()?,
                })
            })
            .collect()
        })
    }

    /// Records that a release went live: it is the newest now. What was recorded of its migrations before stays, and so does when each was
    /// carried out: a rollback moves the release, not the schema. A snapshot that was put back undoes every migration of that database
    /// since it was taken.
    ///
    /// # Errors
    /// When it is not recorded, or there is no such release.
    pub fn mark_live(
        &self,
        app: &AppId,
        id: &ReleaseId,
        migrated: &[Migrated],
        restored: &[Restored],
    ) -> Result<(), StoreError> {
        let app = app.to_string();
        self.write(|transaction| {
            let moment = next_sequence(transaction, &app)?;
            let stays = newest_lived(transaction, &app)?.as_deref() == Some(id.as_str());
            for restored in restored {
                undo(transaction, &app, restored, moment, stays)?;
            }
            let mut all = migrations(transaction, &app)?;
            let Some((_, known)) = all.iter_mut().find(|(of, _)| of == id.as_str()) else {
                return Err(StoreError::new(format!("release {id} of {app} is not on record")));
            };
            // A record that is written again after a crash says nothing new.
            let is_known =
                |done: &&Migrated| known.iter().any(|one| one.done == **done && one.undone.is_none());
            let new: Vec<Migrated> = migrated.iter().filter(|done| !is_known(done)).cloned().collect();
            let new =
                new.into_iter().map(|done| MigrationRecord { done, at: moment, undone: None, again: false });
            known.extend(new);
            put_migrations(transaction, &app, id.as_str(), known)?;
            transaction.execute(
                "UPDATE releases SET lived = 1, warm_until = NULL, sequence = ?3 WHERE app = ?1 AND id = ?2",
                params![app, id.as_str(), moment],
            )?;
            Ok(())
        })
    }

    /// Records that migrations were taken back, under the number under which the next release will be recorded as live. Repeated, it says nothing new.
    ///
    /// # Errors
    /// When it is not recorded.
    pub fn undo_migrations(&self, app: &AppId, undone: &[Undone]) -> Result<(), StoreError> {
        if undone.is_empty() {
            return Ok(());
        }
        let app = app.to_string();
        self.write(|transaction| {
            let moment = next_sequence(transaction, &app)?;
            for (id, mut known) in migrations(transaction, &app)? {
                let is_undone = |one: &MigrationRecord| {
                    undone.iter().any(|undone| {
                        undone.release.as_str() == id
                            && undone.database == one.done.database
                            && undone.at == one.at
                    })
                };
                for one in known.iter_mut().filter(|one| one.undone.is_none() && is_undone(one)) {
                    one.undone = Some(moment);
                }
                put_migrations(transaction, &app, &id, &known)?;
            }
            Ok(())
        })
    }

    /// Records until when a replaced release keeps running; `None`: it does not.
    ///
    /// # Errors
    /// When it is not recorded.
    pub fn set_warm(&self, app: &AppId, id: &ReleaseId, until: Option<Timestamp>) -> Result<(), StoreError> {
        self.write(|transaction| {
            transaction.execute(
                "UPDATE releases SET warm_until = ?3 WHERE app = ?1 AND id = ?2",
                params![app.to_string(), id.to_string(), until.map(|until| until.to_string())],
            )?;
            Ok(())
        })
    }

    /// Records that a variable of a release has another value: the password that its database has now. Unknown: nothing.
    ///
    /// # Errors
    /// When it is not recorded.
    pub fn set_variable(
        &self,
        app: &AppId,
        id: &ReleaseId,
        name: &VariableName,
        hash: &ContentHash,
    ) -> Result<(), StoreError> {
        let (app, id) = (app.to_string(), id.to_string());
        self.write(|transaction| {
            let found: Option<(u32, String)> = transaction
                .query_row(
                    "SELECT format, release FROM releases WHERE app = ?1 AND id = ?2",
                    params![app, id],
                    |row| Ok((row.get(0)?, row.get(1)?)),
                )
                .optional()?;
            let Some((format, text)) = found else { return Ok(()) };
            let mut release: Release = format::read(format, &text)?;
            release.variables.insert(name.clone(), hash.clone());
            transaction.execute(
                "UPDATE releases SET format = ?3, release = ?4 WHERE app = ?1 AND id = ?2",
                params![app, id, format::FORMAT, format::write(&release)?],
            )?;
            Ok(())
        })
    }

    /// Takes a release off the record; unknown: nothing.
    ///
    /// # Errors
    /// When it is still there.
    pub fn forget_release(&self, app: &AppId, id: &ReleaseId) -> Result<(), StoreError> {
        self.write(|transaction| {
            transaction.execute(
                "DELETE FROM releases WHERE app = ?1 AND id = ?2",
                params![app.to_string(), id.to_string()],
            )?;
            Ok(())
        })
    }

    /// Takes all releases of an app off the record. What happened to it stays: the history outlives the app.
    ///
    /// # Errors
    /// When they are still there.
    pub fn forget_app(&self, app: &AppId) -> Result<(), StoreError> {
        self.write(|transaction| {
            transaction.execute("DELETE FROM releases WHERE app = ?1", [app.to_string()])?;
            Ok(())
        })
    }
}

type OfRelease = (String, Vec<MigrationRecord>);

fn migrations(transaction: &Transaction<'_>, app: &str) -> Result<Vec<OfRelease>, StoreError> {
    let mut statement =
        transaction.prepare_cached("SELECT id, format, migrations FROM releases WHERE app = ?1")?;
    let rows = statement.query_map([app], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    rows.map(|row| {
        let (id, format, text): (String, u32, String) = row?;
        Ok((id, format::read(format, &text)?))
    })
    .collect()
}

fn put_migrations(
    transaction: &Transaction<'_>,
    app: &str,
    id: &str,
    migrations: &[MigrationRecord],
) -> Result<(), StoreError> {
    transaction.execute(
        "UPDATE releases SET migrations = ?3 WHERE app = ?1 AND id = ?2",
        params![app, id, format::write(&migrations)?],
    )?;
    Ok(())
}

/// From `moment` on the schema has the migrations that it had when the snapshot was taken: those since then are undone, and those that a
/// restore had undone since are there again. Where the release that was live stays so, it needs what is undone.
fn undo(
    transaction: &Transaction<'_>,
    app: &str,
    restored: &Restored,
    moment: u64,
    stays: bool,
) -> Result<(), StoreError> {
    let mut all = migrations(transaction, app)?;
    let before = |one: &&MigrationRecord| {
        one.done.database == restored.database && one.done.snapshot.as_ref() == Some(&restored.snapshot)
    };
    // Taken before a migration: when that went live is known also where it is not when the snapshot was taken.
    let since = all.iter().flat_map(|(_, known)| known).find(before).map(|one| one.at);
    let taken = match since {
        Some(since) => Some(since.saturating_sub(1)),
        None => moment_of(transaction, &restored.snapshot)?,
    };
    let Some(taken) = taken else { return Ok(()) };
    for (id, known) in &mut all {
        let mut again = Vec::new();
        for one in known.iter_mut().filter(|one| one.done.database == restored.database) {
            match one.undone {
                None if one.at > taken => (one.undone, one.again) = (Some(moment), stays),
                Some(undone) if one.at <= taken && taken < undone && undone < moment => {
                    again.push(MigrationRecord {
                        done: one.done.clone(),
                        at: moment,
                        undone: None,
                        again: false,
                    });
                }
                None | Some(_) => {}
            }
        }
        let is_there = |one: &MigrationRecord, known: &[MigrationRecord]| {
            known.iter().any(|other| other.done == one.done && other.undone.is_none())
        };
        again.retain(|one| !is_there(one, known));
        known.extend(again);
        put_migrations(transaction, app, id, known)?;
    }
    Ok(())
}

/// Which release had gone live last when a snapshot was taken; `None`: that is not known.
fn moment_of(transaction: &Transaction<'_>, file: &str) -> Result<Option<u64>, StoreError> {
    let found = transaction
        .query_row("SELECT moment FROM snapshots WHERE file = ?1", [file], |row| row.get::<_, Option<u64>>(0))
        .optional()?;
    Ok(found.flatten())
}

/// The release that went live last.
fn newest_lived(transaction: &Transaction<'_>, app: &str) -> Result<Option<String>, StoreError> {
    let asked = "SELECT id FROM releases WHERE app = ?1 AND lived = 1 ORDER BY sequence DESC LIMIT 1";
    Ok(transaction.query_row(asked, [app], |row| row.get(0)).optional()?)
}

fn next_sequence(transaction: &Transaction<'_>, app: &str) -> Result<u64, StoreError> {
    Ok(transaction.query_row(
        "SELECT coalesce(max(sequence), 0) + 1 FROM releases WHERE app = ?1",
        [app],
        |row| row.get(0),
    )?)
}

/// What instances are made of and configured with may not change under a name; how a deploy of it goes may.
fn refuse_other_content(new: &Release, known: &Release) -> Result<(), StoreError> {
    let same = new.services == known.services
        && new.one_offs == known.one_offs
        && new.backing == known.backing
        && new.databases == known.databases
        && new.volumes == known.volumes
        && new.variables == known.variables;
    if same {
        Ok(())
    } else {
        Err(StoreError::new(format!("release {} of {} was live with other content", new.id, new.app)))
    }
}

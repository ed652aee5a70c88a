//! What is on record of an app's backups. That one began is marked before it does anything: whoever works on them next puts one that was killed on
//! record as failed, and who only reads takes it for that meanwhile.

use cutover_core::backup::{BackupOutcome, BackupRecord, Target};
use cutover_core::failure::Failure;
use cutover_core::layout::Layout;
use cutover_core::names::AppId;
use cutover_core::wire::BackupOrder;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::begun::{self, KILLED};
use super::gather::failed;
use crate::files;
use crate::store::{Store, StoreError};

/// A backup whose end is not known yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Begun {
    to: Target,
    by: String,
    started: Timestamp,
}

impl Begun {
    fn failed(self) -> BackupRecord {
        let Self { to, by, started } = self;
        BackupRecord {
            to,
            by,
            started,
            finished: started,
            outcome: BackupOutcome::Failed { why: KILLED.to_owned() },
        }
    }

    fn is_among(&self, records: &[BackupRecord]) -> bool {
        records.iter().any(|record| record.started == self.started)
    }
}

/// The lock of whoever works on an app's backups: a deploy goes on beside it.
pub fn lock_name(app: &AppId) -> String {
    format!("backup.{}.{}", app.app, app.environment)
}

/// All whose end is known, the newest first: one that was killed has failed.
pub(super) fn all(layout: &Layout, store: &Store, app: &AppId) -> Result<Vec<BackupRecord>, Failure> {
    let killed = begun::killed::<Begun>(layout, &layout.backup_begun(app), &lock_name(app));
    // Read after the mark: whoever takes it away has put it on record before.
    let mut records = store.backups(app).map_err(|error| unreadable(&error))?;
    if let Some(killed) = killed.filter(|killed| !killed.is_among(&records)) {
        records.insert(0, killed.failed());
    }
    Ok(records)
}

/// Marks that one begins, under its lock.
pub(super) fn begin(layout: &Layout, order: &BackupOrder, started: Timestamp) -> Result<(), Failure> {
    let begun = Begun { to: order.settings.to.clone(), by: order.by.clone(), started };
    begun::begin(&layout.backup_begun(&order.app), &begun)
}

/// Puts on record how the one that began has ended.
pub(super) fn put(
    layout: &Layout,
    store: &Store,
    app: &AppId,
    record: &BackupRecord,
) -> Result<(), StoreError> {
    store.put_backup(app, record)?;
    files::discard(&layout.backup_begun(app));
    Ok(())
}

/// Puts one on record that was killed, under its lock.
pub(super) fn settle(layout: &Layout, store: &Store, app: &AppId) -> Result<(), Failure> {
    let mark = layout.backup_begun(app);
    let Some(begun) = begun::read::<Begun>(&mark) else { return Ok(()) };
    let records = store.backups(app).map_err(|error| unreadable(&error))?;
    if begun.is_among(&records) {
        files::discard(&mark);
        return Ok(());
    }
    put(layout, store, app, &begun.failed()).map_err(|error| unreadable(&error))
}

pub(super) fn unreadable(error: &StoreError) -> Failure {
    let failure = failed("the state database did not answer").because(error.to_string());
    error.next().into_iter().fold(failure, Failure::next)
}

#[cfg(test)]
mod tests {
    use cutover_core::backup::{BackupSettings, Keep};
    use cutover_core::wire::BackupWork;

    use super::*;
    use crate::lock::ProcessLock;

    fn order() -> BackupOrder {
        BackupOrder {
            app: "shop/production".parse().unwrap(),
            settings: BackupSettings {
                to: "/srv/backups".parse().unwrap(),
                password: "${BACKUP_PASSWORD}".parse().unwrap(),
                access: None,
                every: std::time::Duration::from_hours(24),
                at: None,
                keep: Keep::default(),
                drill: None,
                volumes: std::collections::BTreeMap::new(),
            },
            by: "schedule".to_owned(),
            work: BackupWork::Run,
        }
    }

    #[test]
    fn given_a_backup_that_was_killed_then_it_has_failed_once_and_one_that_goes_on_has_not() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::under(folder.path());
        let (store, order) = (Store::in_memory().unwrap(), order());
        let at = Timestamp::constant(1_790_000_000, 123_456_789);
        let lock = ProcessLock::take(&layout, &lock_name(&order.app)).unwrap();
        let all = || all(&layout, &store, &order.app).unwrap();

        begin(&layout, &order, at).unwrap();
        assert_eq!(all(), [], "it goes on");
        drop(lock);
        let killed = all();
        assert_eq!(killed.len(), 1);
        assert!(!killed[0].is_verified() && killed[0].started == at, "{killed:?}");

        // The next one puts it on record, and once, wherever that is broken off.
        settle(&layout, &store, &order.app).unwrap();
        begin(&layout, &order, at).unwrap();
        assert_eq!(all(), killed);
        settle(&layout, &store, &order.app).unwrap();
        assert_eq!(store.backups(&order.app).unwrap(), killed);
        assert!(!layout.backup_begun(&order.app).exists());
    }
}

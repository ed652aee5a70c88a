//! The locks of migrations that databases have in their servers. A run takes each once, before anything is done that would disturb somebody else, and
//! keeps it over its stages and the way back: nobody comes in between a look, a snapshot, a migration and its undoing.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cutover_core::failure::Failure;
use cutover_core::journal::What;
use cutover_core::names::DatabaseName;
use cutover_core::plan::{DatabasePlace, Migration, ServerPlace, Stage};

use super::located::server;
use super::{Act, told};
use crate::journal::{StageError, Trouble};
use crate::ports::{Alone, Located, NotAlone, Server};

/// Those that a run has.
#[derive(Default)]
pub struct MigrationLocks {
    held: Mutex<Vec<Held>>,
}

/// One of them. One that was lost stays as long as a database was looked at under it, and under none since: what was seen of that may not be so any
/// more, whoever has taken the lock anew.
struct Held {
    place: ServerPlace,
    alone: Alone,
    /// Two databases of an app may be one in the server.
    databases: BTreeSet<DatabaseName>,
    /// Nobody else migrated there. What seems to since is a session of this run's own migration that a pooler keeps under its name; it may serve the app
    /// by now, and is not ended.
    found_alone: bool,
}

impl MigrationLocks {
    /// Nothing is done any more that they would keep somebody else from.
    pub(crate) fn let_go(&self) {
        self.held().clear();
    }

    fn held(&self) -> MutexGuard<'_, Vec<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is one still, under which the database is from now on.
    fn has(&self, database: &DatabaseName, place: &ServerPlace) -> bool {
        let is_it = |held: &Held| held.place == *place && !held.alone.is_lost();
        let mut held = self.held();
        let Some(at) = held.iter().position(is_it) else { return false };
        let found = held.remove(at);
        put_under(&mut held, database, found);
        true
    }

    pub(super) fn has_lost(&self, database: &DatabaseName) -> bool {
        self.held().iter().any(|held| held.databases.contains(database) && held.alone.is_lost())
    }

    fn was_found_alone(&self, database: &DatabaseName) -> bool {
        self.held().iter().any(|held| held.databases.contains(database) && held.found_alone)
    }

    fn is_found_alone(&self, database: &DatabaseName) {
        let mut held = self.held();
        let of_it = held.iter_mut().filter(|held| held.databases.contains(database));
        of_it.for_each(|held| held.found_alone = true);
    }

    fn keep(&self, database: &DatabaseName, place: &ServerPlace, alone: Alone) {
        let taken = Held { place: place.clone(), alone, databases: BTreeSet::new(), found_alone: false };
        put_under(&mut self.held(), database, taken);
    }
}

fn put_under(held: &mut Vec<Held>, database: &DatabaseName, mut lock: Held) {
    for other in held.iter_mut() {
        other.databases.remove(database);
    }
    held.retain(|other| !other.databases.is_empty());
    lock.databases.insert(database.clone());
    held.push(lock);
}

/// Keeps everybody else from migrating the database: another app, or another host, may reach it, too.
pub(super) async fn for_migration(
    act: &Act<'_>,
    stage: Stage,
    migration: &Migration,
) -> Result<(), StageError> {
    let Some(DatabasePlace::Server(place)) = &migration.place else { return Ok(()) };
    let unseen = |trouble: Trouble| told::unseen(act, migration, &trouble);
    let server = server(act, place).await.map_err(unseen)?;
    match take(act, &migration.database, place, &server).await {
        Ok(()) => Ok(()),
        Err(NotAlone::Theirs) => Err(told::migrated_by_another(act, stage, &migration.database).into()),
        Err(NotAlone::Closed) => without(act, stage, place, &migration.database, OTHERS_CLOSED),
        Err(NotAlone::Failed(error)) => Err(unseen(error.into()).into()),
    }
}

/// Before a snapshot that somebody asked for is taken or put back: while somebody else migrates neither is what he wants. Where that cannot be asked
/// he has it all the same.
pub(super) async fn for_asked(
    act: &Act<'_>,
    stage: Stage,
    database: &DatabaseName,
    place: &DatabasePlace,
    found: &Located,
) -> Result<(), StageError> {
    let (DatabasePlace::Server(place), Located::Server(server)) = (place, found) else { return Ok(()) };
    match take(act, database, place, server).await {
        Ok(()) => Ok(()),
        Err(NotAlone::Theirs) => Err(told::migrated_by_another(act, stage, database).into()),
        Err(NotAlone::Closed) => without(act, stage, place, database, OTHERS_CLOSED),
        Err(NotAlone::Failed(error)) => without(act, stage, place, database, &error.message),
    }
}

/// Refuses to migrate, or put back (`done`), what somebody else may have changed since it was looked at and its snapshot was taken.
pub(super) fn refuse_lost(act: &Act<'_>, database: &DatabaseName, done: &str) -> Result<(), Failure> {
    if act.locks.has_lost(database) { Err(told::lost_before(database, done)) } else { Ok(()) }
}

/// Refuses to migrate beside the instance of a run that was killed: the lock went with that run, and the instance has come back since its sessions
/// were ended. Whoever settles that run ends it. It is asked once under each lock.
pub(super) async fn refuse_another(
    act: &Act<'_>,
    stage: Stage,
    migration: &Migration,
    server: &Server,
) -> Result<(), Failure> {
    if act.locks.was_found_alone(&migration.database) {
        return Ok(());
    }
    let asked = act.ports.database.migrating(server).await;
    match asked.map_err(|error| told::unseen(act, migration, &error.into()))? {
        None => {
            act.locks.is_found_alone(&migration.database);
            Ok(())
        }
        Some(who) => Err(told::still_migrated(act, stage, &migration.database, &who)),
    }
}

/// What runs is not ended for it, for that would harm more: what may have come of it is told.
pub(super) fn tell_lost(
    act: &Act<'_>,
    stage: Stage,
    database: &DatabaseName,
    done: &str,
) -> Result<(), StageError> {
    if !act.locks.has_lost(database) {
        return Ok(());
    }
    let text = told::lost_meanwhile(database, done);
    act.journal.write(What::Warning { stage, text }).map(drop)
}

/// Takes it, where this run does not have it, or not any more.
pub(super) async fn take(
    act: &Act<'_>,
    database: &DatabaseName,
    place: &ServerPlace,
    server: &Server,
) -> Result<(), NotAlone> {
    if !act.locks.has(database, place) {
        act.locks.keep(database, place, act.ports.database.alone(server).await?);
    }
    Ok(())
}

const OTHERS_CLOSED: &str = "the role may not connect to the server's other databases";

/// The app's own lock holds, and the migration's tool may have one. Rights that it needs nowhere else are asked of nobody.
fn without(
    act: &Act<'_>,
    stage: Stage,
    place: &ServerPlace,
    database: &DatabaseName,
    why: &str,
) -> Result<(), StageError> {
    act.locks.keep(database, place, Alone::default());
    let text = format!("nobody else is kept from migrating `{database}` meanwhile: {why}");
    act.journal.write(What::Warning { stage, text }).map(drop)
}

#[cfg(test)]
mod tests {
    use cutover_core::config::settings::ServerKind;
    use cutover_core::plan::Reached;
    use cutover_core::release::RuntimeKind;
    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn a_lock_that_is_taken_anew_for_one_database_stays_lost_for_the_other_that_was_looked_at_under_it() {
        let reached = Reached::Backing {
            service: "postgres".parse().unwrap(),
            runtime: RuntimeKind::Container,
            password: None,
        };
        let place = ServerPlace { kind: ServerKind::Postgres, reached, name: Some("shop".to_owned()) };
        let [main, audit] = ["main", "audit"].map(|name| name.parse::<DatabaseName>().unwrap());
        let (locks, taken) = (MigrationLocks::default(), || {
            let (session, held) = oneshot::channel();
            (Alone::while_held(session), held)
        });
        let (first, session) = taken();
        locks.keep(&main, &place, first);
        assert!(!locks.has_lost(&main));

        drop(session);
        assert!(!locks.has(&audit, &place), "it is lost");
        let (second, _session) = taken();
        locks.keep(&audit, &place, second);

        assert!(locks.has_lost(&main), "somebody else may have changed it since");
        assert!(!locks.has_lost(&audit));
        assert!(locks.has(&main, &place), "it is looked at anew");
        assert!(!locks.has_lost(&main));
    }
}

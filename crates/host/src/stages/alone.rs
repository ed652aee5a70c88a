//! The locks of migrations that databases have in their servers. A run takes each once, before anything is done that would disturb somebody else, and
//! keeps it over its stages and the way back: nobody comes in between a look, a snapshot, a migration and its undoing.

use std::sync::{Mutex, MutexGuard, PoisonError};

use cutover_core::failure::Failure;
use cutover_core::journal::What;
use cutover_core::names::DatabaseName;
use cutover_core::plan::{DatabasePlace, Migration, ServerPlace, Stage};

use super::located::server;
use super::{Act, told};
use crate::journal::{StageError, Trouble};
use crate::ports::{Alone, DatabaseError, Server};

/// Those that a run has.
#[derive(Default)]
pub struct MigrationLocks {
    held: Mutex<Vec<(ServerPlace, Alone)>>,
}

impl MigrationLocks {
    /// Nothing is done any more that they would keep somebody else from.
    pub(crate) fn let_go(&self) {
        self.held().clear();
    }

    fn held(&self) -> MutexGuard<'_, Vec<(ServerPlace, Alone)>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Two databases of an app may be one in the server.
    fn has(&self, place: &ServerPlace) -> bool {
        self.held().iter().any(|(of, alone)| of == place && !alone.is_lost())
    }

    fn has_lost(&self, place: &ServerPlace) -> bool {
        self.held().iter().any(|(of, alone)| of == place && alone.is_lost())
    }

    fn keep(&self, place: &ServerPlace, alone: Alone) {
        let mut held = self.held();
        held.retain(|(of, _)| of != place);
        held.push((place.clone(), alone));
    }
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
    match take(act, place, &server).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(told::migrated_by_another(act, stage, &migration.database).into()),
        Err(error) if lacks_right(&error) => without(act, stage, place, &migration.database, OTHERS_CLOSED),
        Err(error) => Err(unseen(error.into()).into()),
    }
}

/// Before a snapshot that somebody asked for is taken or put back: while somebody else migrates neither is what he wants. Where that cannot be asked
/// he has it all the same.
pub(super) async fn for_asked(
    act: &Act<'_>,
    database: &DatabaseName,
    place: &DatabasePlace,
    unreached: impl Fn(&Trouble) -> Failure,
) -> Result<(), StageError> {
    let DatabasePlace::Server(place) = place else { return Ok(()) };
    let server = server(act, place).await.map_err(|trouble| unreached(&trouble))?;
    match take(act, place, &server).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(told::migrated_by_another(act, Stage::Snapshot, database).into()),
        Err(error) if lacks_right(&error) => without(act, Stage::Snapshot, place, database, OTHERS_CLOSED),
        Err(error) => without(act, Stage::Snapshot, place, database, &error.message),
    }
}

/// Refuses to migrate what somebody else may have changed since it was looked at and its snapshot was taken.
pub(super) fn refuse_lost(act: &Act<'_>, migration: &Migration) -> Result<(), Failure> {
    if has_lost(act, migration) { Err(told::lost_before(&migration.database)) } else { Ok(()) }
}

/// Refuses to migrate beside the instance of a run that was killed: the lock went with that run, and the instance has come back since its sessions
/// were ended. Whoever settles that run ends it.
pub(super) async fn refuse_another(
    act: &Act<'_>,
    stage: Stage,
    migration: &Migration,
    server: &Server,
) -> Result<(), Failure> {
    let asked = act.ports.database.migrating(server).await;
    match asked.map_err(|error| told::unseen(act, migration, &error.into()))? {
        None => Ok(()),
        Some(who) => Err(told::still_migrated(act, stage, &migration.database, &who)),
    }
}

/// A migration that runs is not ended for it, for that would harm more: what came of it is told.
pub(super) fn tell_lost(act: &Act<'_>, stage: Stage, migration: &Migration) -> Result<(), StageError> {
    if !has_lost(act, migration) {
        return Ok(());
    }
    let text = told::lost_meanwhile(&migration.database);
    act.journal.write(What::Warning { stage, text }).map(drop)
}

fn has_lost(act: &Act<'_>, migration: &Migration) -> bool {
    matches!(&migration.place, Some(DatabasePlace::Server(place)) if act.locks.has_lost(place))
}

/// Takes it, where this run does not have it, or not any more; `false`: somebody else has it.
pub(super) async fn take(act: &Act<'_>, place: &ServerPlace, server: &Server) -> Result<bool, DatabaseError> {
    if act.locks.has(place) {
        return Ok(true);
    }
    let Some(alone) = act.ports.database.alone(server).await? else { return Ok(false) };
    act.locks.keep(place, alone);
    Ok(true)
}

/// Where `psql` says that a database may not be connected to, or is not there.
const NO_RIGHT: [&str; 3] = ["permission denied for database", "does not exist", "no pg_hba.conf entry"];

const OTHERS_CLOSED: &str = "the role may not connect to the server's other databases";

fn lacks_right(error: &DatabaseError) -> bool {
    NO_RIGHT.iter().any(|word| error.message.contains(word))
}

/// The app's own lock holds, and the migration's tool may have one. Rights that it needs nowhere else are asked of nobody.
fn without(
    act: &Act<'_>,
    stage: Stage,
    place: &ServerPlace,
    database: &DatabaseName,
    why: &str,
) -> Result<(), StageError> {
    act.locks.keep(place, Alone::default());
    let text = format!("nobody else is kept from migrating `{database}` meanwhile: {why}");
    act.journal.write(What::Warning { stage, text }).map(drop)
}

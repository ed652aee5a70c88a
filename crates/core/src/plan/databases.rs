//! What happens to databases in a deploy: which are rehearsed, which services form a group, what is migrated where (S16, S18).

use std::collections::BTreeSet;

use crate::config::settings::{Database, DatabaseEngine, Migrate, SnapshotPolicy};
use crate::layout;
use crate::names::{DatabaseName, ServiceName, Slot, VolumeName};
use crate::plan::specify::{Ground, Identity};
use crate::plan::{DatabasePlace, Migration};
use crate::release::Release;
use crate::request::Stamp;

/// Migrations that may be pending: those of databases whose migrating service has other content or another command than what is live.
pub(crate) fn migrations(
    ground: &Ground<'_>,
    was: Option<&Release>,
    slot: Slot,
    stamp: Stamp,
) -> Vec<Migration> {
    let changed = ground.release.databases.iter().filter_map(|(name, database)| {
        let migrate = database.migrate.as_ref()?;
        may_be_pending(ground.release, was, name, migrate).then_some((name, database, migrate))
    });
    changed
        .filter_map(|(name, database, migrate)| migration(ground, name, database, migrate, slot, stamp))
        .collect()
}

fn may_be_pending(release: &Release, was: Option<&Release>, name: &DatabaseName, migrate: &Migrate) -> bool {
    let Some(was) = was else { return true };
    let content = |release: &Release| {
        release.services.get(&migrate.service).map(|service| service.content.identity().clone())
    };
    let before = was.databases.get(name).and_then(|database| database.migrate.as_ref());
    content(was) != content(release) || before.map(|before| &before.command) != Some(&migrate.command)
}

fn migration(
    ground: &Ground<'_>,
    name: &DatabaseName,
    database: &Database,
    migrate: &Migrate,
    slot: Slot,
    stamp: Stamp,
) -> Option<Migration> {
    let release = ground.release;
    let instance = format!("migrate-{name}-{}", stamp.run.short()).parse().ok()?;
    let identity = Identity { name: instance, slot, replica: 1, run: stamp.run, address: None };
    let spec = ground.one_off(&migrate.service, migrate.command.clone(), &identity)?;
    let place = place(ground, &migrate.service, database);
    let group: BTreeSet<ServiceName> =
        if place.is_some() { openers(database).collect() } else { BTreeSet::new() };
    let others = release.databases.iter().filter(|(other, _)| *other != name);
    let beside = others.filter_map(|(other, database)| {
        Some((other.clone(), self::place(ground, &migrate.service, database)?))
    });
    let hold = release
        .services
        .iter()
        .filter(|(name, _)| group.contains(*name))
        .map(|(_, service)| service.settings.hold.budget);
    Some(Migration {
        database: name.clone(),
        place,
        spec,
        timeout: migrate.timeout,
        compatible: migrate.compatible,
        snapshot: database.snapshot,
        snapshot_file: layout::snapshot_file(&release.app, name, stamp.now, &release.id, "sqlite"),
        budget: hold.min().unwrap_or(crate::defaults::HOLD_BUDGET),
        beside: beside.collect(),
        group,
    })
}

/// Where a SQLite database's file lies, as the service that opens it carries it.
pub(crate) fn place(
    ground: &Ground<'_>,
    service: &ServiceName,
    database: &Database,
) -> Option<DatabasePlace> {
    let DatabaseEngine::Sqlite { volume, file, .. } = &database.engine else { return None };
    let runtime = ground.release.services.get(service)?.content.runtime();
    Some(DatabasePlace { volume: ground.volume(runtime, volume), name: volume.clone(), file: file.clone() })
}

/// The services that have the files of these databases open, in the release that comes or in what is live: they are handed over together,
/// also those that the new release drops or no longer lists. A file is told by where it lies, not by what the database is called.
pub(crate) fn group<'a>(
    databases: impl Iterator<Item = &'a DatabaseName>,
    release: &Release,
    was: Option<&Release>,
) -> BTreeSet<ServiceName> {
    let files: BTreeSet<_> = databases.filter_map(|name| lies(release.databases.get(name)?)).collect();
    let all = [Some(release), was].into_iter().flatten().flat_map(|release| release.databases.values());
    let of_them = all.filter(|database| lies(database).is_some_and(|place| files.contains(&place)));
    of_them.flat_map(openers).collect()
}

/// In which volume, and where there.
fn lies(database: &Database) -> Option<(&VolumeName, &str)> {
    match &database.engine {
        DatabaseEngine::Sqlite { volume, file, .. } => Some((volume, file)),
        DatabaseEngine::Server { .. } => None,
    }
}

/// The services that open a SQLite file, the migrating one included.
fn openers(database: &Database) -> impl Iterator<Item = ServiceName> {
    let listed = match &database.engine {
        DatabaseEngine::Sqlite { services, .. } => services.as_slice(),
        DatabaseEngine::Server { .. } => &[],
    };
    listed.iter().chain(database.migrate.iter().map(|migrate| &migrate.service)).cloned()
}

/// Whether somebody decided to go without a snapshot.
pub(crate) fn decided_without(migrations: &[Migration]) -> bool {
    migrations.iter().all(|migration| migration.snapshot == SnapshotPolicy::None)
}

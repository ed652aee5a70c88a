//! What happens to databases in a deploy: which are rehearsed, which services form a group, what is migrated where (S16, S18).

use std::collections::{BTreeMap, BTreeSet};

use crate::config::settings::{Database, DatabaseEngine, Migrate, SnapshotPolicy};
use crate::layout;
use crate::names::{DatabaseName, ServiceName, Slot};
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
    let group = match &database.engine {
        DatabaseEngine::Sqlite { services, .. } => {
            services.iter().chain([&migrate.service]).cloned().collect()
        }
        DatabaseEngine::Server { .. } => BTreeSet::new(),
    };
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

/// The services that open a database whose migration is pending: they are handed over together.
pub(crate) fn group(migrations: &[Migration]) -> BTreeSet<ServiceName> {
    migrations
        .iter()
        .filter(|migration| migration.place.is_some())
        .flat_map(|migration| migration.group.iter().cloned())
        .collect()
}

/// The services that open each SQLite database of a release.
pub(crate) fn openers(release: &Release) -> BTreeMap<DatabaseName, BTreeSet<ServiceName>> {
    let sqlite = release.databases.iter().filter_map(|(name, database)| match &database.engine {
        DatabaseEngine::Sqlite { services, .. } => Some((name.clone(), services.iter().cloned().collect())),
        DatabaseEngine::Server { .. } => None,
    });
    sqlite.collect()
}

/// Whether somebody decided to go without a snapshot.
pub(crate) fn decided_without(migrations: &[Migration]) -> bool {
    migrations.iter().all(|migration| migration.snapshot == SnapshotPolicy::None)
}

//! What happens to databases in a deploy: which are rehearsed, which services form a group, what is migrated where (S16, S18).

use std::collections::BTreeSet;

use crate::config::settings::{
    Command, Compatible, Database, DatabaseEngine, Migrate, ServerKind, SnapshotPolicy,
};
use crate::layout;
use crate::names::{DatabaseName, ServiceName, Slot, VolumeName};
use crate::plan::specify::{Ground, Identity};
use crate::plan::{
    DatabasePlace, FilePlace, InstanceSpec, Migration, NextCommand, Planned, Reached, ServerPlace,
    SnapshotPlan, WhyNot, passwords,
};
use crate::release::{BackingRelease, Release};
use crate::request::Stamp;
use crate::state::Migrated;
use crate::template::Template;

/// Migrations that may be pending: those of databases whose migrating service has other content or another command than what is live, and of
/// databases that what is live does not have.
pub(crate) fn migrations(
    ground: &Ground<'_>,
    was: Option<&Release>,
    slot: Slot,
    stamp: Stamp,
) -> Vec<Migration> {
    let changed = ground.release.databases.iter().filter_map(|(name, database)| {
        let pending = may_be_pending(ground.release, was, name, database) || is_undone(ground, name);
        pending.then_some((name, database))
    });
    changed
        .filter_map(|(name, database)| migration(ground, name, database, &database.migrate, slot, stamp))
        .collect()
}

/// Also where the database is another one: it lies elsewhere, or what its url names has another value.
fn may_be_pending(
    release: &Release,
    was: Option<&Release>,
    name: &DatabaseName,
    database: &Database,
) -> bool {
    let Some((was, before)) = was.and_then(|was| Some((was, was.databases.get(name)?))) else { return true };
    let commands = |database: &Database| -> Vec<Command> {
        database.migrate.iter().map(|migrate| migrate.command.clone()).collect()
    };
    let content = |release: &Release| -> Vec<_> {
        let parts = database.migrate.iter().map(|migrate| release.part(&migrate.service));
        parts.map(|part| part.map(|part| (part.content.identity().clone(), part.shipped.clone()))).collect()
    };
    // What it is told says where its files and its database are, and nothing but the migration is run with it.
    let own = |release: &Release| -> Vec<_> {
        let own = database.migrate.iter().map(|migrate| release.one_offs.get(&migrate.service));
        own.map(|own| own.map(|own| own.settings.run.clone())).collect()
    };
    let told = own(release).into_iter().flatten().flat_map(|run| run.environment.into_values());
    let told: BTreeSet<_> =
        told.flat_map(|text| text.variables().into_iter().cloned().collect::<Vec<_>>()).collect();
    let url = if let DatabaseEngine::Server { url, .. } = &database.engine { url.as_ref() } else { None };
    let mut named = url.into_iter().flat_map(Template::variables).chain(&told);
    content(was) != content(release)
        || own(was) != own(release)
        || commands(before) != commands(database)
        || lies(before) != lies(database)
        || named.any(|variable| was.variables.get(variable) != release.variables.get(variable))
}

/// Whether a snapshot from before a migration was put back under a release that needs it, and nothing was migrated since. Whichever release brought
/// it: one that came after had nothing to migrate, and lives on the same schema.
fn is_undone(ground: &Ground<'_>, name: &DatabaseName) -> bool {
    let all = || {
        let records = ground.state.releases.iter().flat_map(|record| &record.migrations);
        records.filter(|one| one.done.database == *name)
    };
    let is_there = |done: &Migrated| all().any(|one| one.done == *done && one.undone.is_none());
    let undone = all().filter(|one| one.again && !is_there(&one.done));
    let last = undone.filter_map(|one| one.undone).max();
    last.is_some_and(|last| !all().any(|one| one.at > last && one.undone.is_none()))
}

/// One migration, where it can be told what is run and for what: the first of `all`, and then the others.
pub(super) fn migration(
    ground: &Ground<'_>,
    name: &DatabaseName,
    database: &Database,
    all: &[Migrate],
    slot: Slot,
    stamp: Stamp,
) -> Option<Migration> {
    let release = ground.release;
    let (first, others) = all.split_first()?;
    let place = place(ground, &first.service, database);
    let one_off = |what: &str, number: usize, migrate: &Migrate, command: &Command| -> Option<InstanceSpec> {
        let number = if number == 1 { String::new() } else { format!("-{number}") };
        let instance = format!("{what}-{name}-{}{number}", stamp.run.short()).parse().ok()?;
        let identity = Identity { name: instance, slot, replica: 1, run: stamp.run, address: None };
        ground.one_off(&migrate.service, command.clone(), &identity)
    };
    let command = |number: usize, migrate: &Migrate| {
        let mut spec = one_off("migrate", number, migrate, &migrate.command)?;
        if let Some(DatabasePlace::Server(ServerPlace { kind: ServerKind::Postgres, .. })) = place {
            // Its sessions in the server are found by this (S19).
            let variable = crate::variables::given::DATABASE_CLIENT.parse().ok()?;
            spec.given.insert(variable, layout::MIGRATION_CLIENT.to_owned());
        }
        Some(NextCommand {
            spec,
            pending: match &migrate.pending {
                Some(command) => Some(Box::new(one_off("pending", number, migrate, command)?)),
                None => None,
            },
            timeout: migrate.timeout,
        })
    };
    let NextCommand { spec, pending, timeout } = command(1, first)?;
    let then = (2..).zip(others).map(|(number, migrate)| command(number, migrate)).collect::<Option<_>>()?;
    let group: BTreeSet<ServiceName> = openers(release, database).collect();
    let others = release.databases.iter().filter(|(other, _)| *other != name);
    let beside = others
        .filter_map(|(other, database)| Some((other.clone(), file_place(ground, &first.service, database)?)));
    let extension = match &place {
        Some(DatabasePlace::Server(_)) => layout::DUMP,
        Some(DatabasePlace::File(_)) | None => layout::SQLITE,
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
        pending,
        timeout,
        then,
        compatible: database.compatible(),
        snapshot: database.snapshot,
        snapshot_file: layout::snapshot_file(&release.app, name, stamp.now, &release.id, extension),
        budget: hold.min().unwrap_or(crate::defaults::HOLD_BUDGET),
        beside: beside.collect(),
        group,
        down: None,
    })
}

/// Where a database lies: a file as the service that opens it carries it, or a server.
pub(crate) fn place(
    ground: &Ground<'_>,
    service: &ServiceName,
    database: &Database,
) -> Option<DatabasePlace> {
    let DatabaseEngine::Server { kind, service: backing, url, name, .. } = &database.engine else {
        return file_place(ground, service, database).map(DatabasePlace::File);
    };
    let reached = match (backing, url) {
        (Some(service), _) => within(service, ground.release.backing.get(service)?, *kind),
        (None, Some(url)) => Reached::Url { url: url.clone(), release: ground.release.id.clone() },
        (None, None) => return None,
    };
    Some(DatabasePlace::Server(ServerPlace { kind: *kind, reached, name: name.clone() }))
}

/// From within the instance of a backing service.
pub(crate) fn within(service: &ServiceName, backing: &BackingRelease, kind: ServerKind) -> Reached {
    Reached::Backing {
        service: service.clone(),
        runtime: backing.content.runtime(),
        password: passwords::own(backing, kind).cloned(),
    }
}

/// Where a SQLite database's file lies, as the service that opens it carries it.
fn file_place(ground: &Ground<'_>, service: &ServiceName, database: &Database) -> Option<FilePlace> {
    let DatabaseEngine::Sqlite { volume, file, .. } = &database.engine else { return None };
    let runtime = ground.release.part(service)?.content.runtime();
    Some(FilePlace { volume: ground.volume(runtime, volume), name: volume.clone(), file: file.clone() })
}

/// Whether a migration that is pending happens while the group is held: every one of SQLite (S16), and what the old release cannot live with
/// (S18). Where nothing is live, nobody is held; what takes migrations back takes this path also then, for only from here is a database put back.
pub(crate) fn is_held(migration: &Migration, has_live: bool) -> bool {
    match &migration.place {
        Some(DatabasePlace::File(_)) => true,
        Some(DatabasePlace::Server(_)) => {
            migration.down.is_some() || has_live && migration.compatible == Compatible::Breaking
        }
        None => false,
    }
}

/// The services that have these databases open, in the release that comes or in what is live: they are handed over together, also those that
/// the new release drops or no longer lists. A database is told by where it lies, not by what it is called.
pub(crate) fn group<'a>(
    databases: impl Iterator<Item = &'a DatabaseName>,
    release: &Release,
    was: Option<&Release>,
) -> BTreeSet<ServiceName> {
    let meant: BTreeSet<_> = databases.filter_map(|name| release.databases.get(name)).map(lies).collect();
    let releases = [Some(release), was].into_iter().flatten();
    let all =
        releases.flat_map(|release| release.databases.values().map(move |database| (release, database)));
    let of_them = all.filter(|(_, database)| meant.contains(&lies(database)));
    of_them.flat_map(|(release, database)| openers(release, database)).collect()
}

/// What tells one database from another.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Lies<'a> {
    File(&'a VolumeName, &'a str),
    Server(Option<&'a ServiceName>, Option<&'a Template>, Option<&'a str>),
}

fn lies(database: &Database) -> Lies<'_> {
    match &database.engine {
        DatabaseEngine::Sqlite { volume, file, .. } => Lies::File(volume, file),
        DatabaseEngine::Server { service, url, name, .. } => {
            Lies::Server(service.as_ref(), url.as_ref(), name.as_deref())
        }
    }
}

/// The services that open a database, the migrating one included; of a server, where none are named, all.
pub(crate) fn openers<'a>(
    release: &'a Release,
    database: &'a Database,
) -> impl Iterator<Item = ServiceName> + 'a {
    let (listed, all) = match &database.engine {
        DatabaseEngine::Sqlite { services, .. } => (services.as_slice(), false),
        DatabaseEngine::Server { services, .. } => (services.as_slice(), services.is_empty()),
    };
    let all = release.services.keys().filter(move |_| all);
    // What is there for a migration alone has no instance that could be handed over.
    let migrating = database.migrate.iter().map(|migrate| &migrate.service);
    let migrating = migrating.filter(|service| release.services.contains_key(*service));
    listed.iter().chain(all).chain(migrating).cloned()
}

/// The snapshots before what is migrated outside a handover.
pub(crate) fn snapshots(all: &[Migration], direct: &[Migration]) -> Planned<SnapshotPlan> {
    let is_wanted = |migration: &&Migration| migration.snapshot == SnapshotPolicy::BeforeMigration;
    let databases: BTreeSet<DatabaseName> =
        direct.iter().filter(is_wanted).map(|migration| migration.database.clone()).collect();
    if !databases.is_empty() {
        return Planned::Do(SnapshotPlan { databases, ..SnapshotPlan::default() });
    }
    // Somebody decided to go without one; or it happens inside the handover, where something is pending.
    let decided = !all.iter().any(|migration| is_wanted(&migration));
    Planned::NotNeeded(if decided { WhyNot::Decided } else { WhyNot::NothingPending })
}

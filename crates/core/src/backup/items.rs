//! What belongs into a backup of a release: every database and every volume that it has, and of what cannot be taken, why.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::config::settings::{Database, DatabaseEngine, Mount, ServerKind};
use crate::names::{DatabaseName, ServiceName, VolumeName};
use crate::plan::{Reached, ServerPlace, VolumeSpec, volume_spec, within};
use crate::release::{Release, RuntimeKind};

/// What belongs into a backup.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Items {
    /// Databases that are files.
    pub databases: Vec<DatabaseItem>,
    /// Databases in a server.
    pub servers: Vec<ServerItem>,
    /// Volumes.
    pub volumes: Vec<VolumeItem>,
    /// What is not taken, and why, in words.
    pub left_out: Vec<String>,
}

/// A database that is a file of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseItem {
    /// Which.
    pub name: DatabaseName,
    /// In which volume.
    pub volume: VolumeName,
    /// Where that lies.
    pub spec: VolumeSpec,
    /// Its path below it.
    pub file: String,
    /// Who opens it.
    pub services: BTreeSet<ServiceName>,
}

/// A database in a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerItem {
    /// Which.
    pub name: DatabaseName,
    /// By which way it is reached.
    pub place: ServerPlace,
}

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeItem {
    /// Which.
    pub name: VolumeName,
    /// Where it lies.
    pub spec: VolumeSpec,
    /// Who uses it.
    pub services: BTreeSet<ServiceName>,
    /// Backing services among them: one that is Redis is told to save first.
    pub backing: BTreeSet<ServiceName>,
}

/// What belongs into a backup of a release. `root` is the host's folder of state.
pub fn items(release: &Release, root: &str) -> Items {
    let users = users(release);
    let mut items = Items::default();
    for (name, database) in &release.databases {
        match &database.engine {
            DatabaseEngine::Sqlite { volume, file, .. } => {
                let Some((runtime, _)) = users.get(volume) else { continue };
                items.databases.push(DatabaseItem {
                    name: name.clone(),
                    volume: volume.clone(),
                    spec: volume_spec(release, root, *runtime, volume),
                    file: file.clone(),
                    services: openers(database),
                });
            }
            DatabaseEngine::Server { .. } => items.servers.extend(server(release, name, database)),
        }
    }
    let servers: BTreeSet<&ServiceName> = release
        .databases
        .values()
        .filter_map(|database| match &database.engine {
            DatabaseEngine::Server { service, .. } => service.as_ref(),
            DatabaseEngine::Sqlite { .. } => None,
        })
        .collect();
    for (name, (runtime, services)) in &users {
        // Whoever else mounts them (a sidecar that measures, say), the files of a server that runs are no backup.
        let mut holders = services.iter().filter(|service| servers.contains(service));
        let all = services.iter().all(|service| servers.contains(service));
        if let Some(server) = holders.find(|server| all || holds_the_files(release, server, name)) {
            items.left_out.push(not_the_files(release, name, server));
            continue;
        }
        let spec = volume_spec(release, root, *runtime, name);
        let backing = services.iter().filter(|service| release.backing.contains_key(*service));
        let backing = backing.cloned().collect();
        items.volumes.push(VolumeItem { name: name.clone(), spec, services: services.clone(), backing });
    }
    items.left_out.extend(folders(release).into_iter().map(|(folder, services)| {
        let services: Vec<String> = services.iter().map(|service| format!("`{service}`")).collect();
        format!("`{folder}` of the host, which {} may write: only volumes are taken", services.join(", "))
    }));
    items
}

/// Where the usual images of servers have their files.
const FILES: [&str; 5] =
    ["/var/lib/postgresql", "/var/lib/mysql", "/bitnami/postgresql", "/bitnami/mysql", "/bitnami/mariadb"];

fn holds_the_files(release: &Release, server: &ServiceName, wanted: &VolumeName) -> bool {
    let mounts = release.backing.get(server).map(|backing| backing.settings.run.mounts.as_slice());
    mounts.unwrap_or_default().iter().any(|mount| match mount {
        Mount::Volume { volume, target, .. } => {
            volume == wanted && FILES.iter().any(|files| Path::new(target).starts_with(files))
        }
        Mount::Shipped { .. } | Mount::Host { .. } | Mount::Tmpfs { .. } => false,
    })
}

/// What holds sockets, devices and the kernel's own files: nothing that anybody would put back.
const NO_DATA: [&str; 5] = ["/run", "/var/run", "/dev", "/proc", "/sys"];

/// Folders and files of the host that somebody may write, with whom.
fn folders(release: &Release) -> BTreeMap<&str, BTreeSet<&ServiceName>> {
    let mut folders: BTreeMap<&str, BTreeSet<&ServiceName>> = BTreeMap::new();
    for (name, _, mounts) in mounts(release) {
        for mount in mounts {
            let Mount::Host { source, read_only: false, .. } = mount else { continue };
            if !NO_DATA.iter().any(|folder| Path::new(source).starts_with(folder)) {
                folders.entry(source).or_default().insert(name);
            }
        }
    }
    folders
}

/// A database whose server is asked for a dump of it; `None`: the release has no such server.
fn server(release: &Release, name: &DatabaseName, database: &Database) -> Option<ServerItem> {
    let DatabaseEngine::Server { kind, service, url, name: inside, .. } = &database.engine else {
        return None;
    };
    let reached = match (service, url) {
        (Some(service), _) => within(service, release.backing.get(service)?, *kind),
        (None, Some(url)) => Reached::Url { url: url.clone(), release: release.id.clone() },
        (None, None) => return None,
    };
    let place = ServerPlace { kind: *kind, reached, name: inside.clone() };
    Some(ServerItem { name: name.clone(), place })
}

/// Why the files of a server are not taken.
fn not_the_files(release: &Release, volume: &VolumeName, server: &ServiceName) -> String {
    let dumped = release.databases.iter().filter_map(|(name, database)| match &database.engine {
        DatabaseEngine::Server { kind, service: Some(service), .. } if service == server => {
            Some((kind, format!("`{name}`")))
        }
        DatabaseEngine::Server { .. } | DatabaseEngine::Sqlite { .. } => None,
    });
    let (kinds, dumped): (Vec<_>, Vec<_>) = dumped.unzip();
    let without = match kinds.first() {
        Some(ServerKind::Mysql | ServerKind::Mariadb) => "users and their rights",
        Some(ServerKind::Postgres) | None => "roles' passwords and memberships",
    };
    format!(
        "volume `{volume}` of the database server `{server}`: {} is dumped instead, without the server's {without}",
        dumped.join(", ")
    )
}

fn openers(database: &Database) -> BTreeSet<ServiceName> {
    let listed = match &database.engine {
        DatabaseEngine::Sqlite { services, .. } => services.as_slice(),
        DatabaseEngine::Server { .. } => &[],
    };
    listed.iter().chain(database.migrate.iter().map(|migrate| &migrate.service)).cloned().collect()
}

/// Each service, what carries it, and its mounts.
fn mounts(release: &Release) -> impl Iterator<Item = (&ServiceName, RuntimeKind, &[Mount])> {
    let services = release.services.iter();
    let services = services
        .map(|(name, service)| (name, service.content.runtime(), service.settings.run.mounts.as_slice()));
    let backing = release.backing.iter();
    services.chain(
        backing
            .map(|(name, backing)| (name, backing.content.runtime(), backing.settings.run.mounts.as_slice())),
    )
}

/// Who uses each volume, and what carries it.
fn users(release: &Release) -> BTreeMap<VolumeName, (RuntimeKind, BTreeSet<ServiceName>)> {
    let mut users: BTreeMap<VolumeName, (RuntimeKind, BTreeSet<ServiceName>)> = BTreeMap::new();
    for (name, runtime, mounts) in mounts(release) {
        for mount in mounts {
            let Mount::Volume { volume, .. } = mount else { continue };
            users.entry(volume.clone()).or_insert_with(|| (runtime, BTreeSet::new())).1.insert(name.clone());
        }
    }
    for database in release.databases.values() {
        let DatabaseEngine::Sqlite { volume, .. } = &database.engine else { continue };
        for opener in openers(database) {
            let Some(service) = release.services.get(&opener) else { continue };
            let runtime = service.content.runtime();
            users.entry(volume.clone()).or_insert_with(|| (runtime, BTreeSet::new())).1.insert(opener);
        }
    }
    users
}

//! Where everything lies and what it is called: paths under the root, labels, names of containers, networks and volumes. One home.

use std::path::{Path, PathBuf};

use crate::hash::ContentHash;
use crate::names::{AppId, DatabaseName, InstanceName, ReleaseId, RunId, ServiceName, Slot, VolumeName};
use crate::state::Role;

/// Labels on everything that is ours in an engine.
pub mod label {
    /// The installation's id.
    pub const INSTALLATION: &str = "dev.cutover.installation";
    /// `app/environment`.
    pub const APP: &str = "dev.cutover.app";
    /// The service.
    pub const SERVICE: &str = "dev.cutover.service";
    /// `service`, `backing` or `one_off`.
    pub const ROLE: &str = "dev.cutover.role";
    /// The instance's name.
    pub const INSTANCE: &str = "dev.cutover.instance";
    /// The release.
    pub const RELEASE: &str = "dev.cutover.release";
    /// The colour.
    pub const SLOT: &str = "dev.cutover.slot";
    /// The number among equals.
    pub const REPLICA: &str = "dev.cutover.replica";
    /// The run.
    pub const RUN: &str = "dev.cutover.run";
    /// Hash of the specification.
    pub const SPEC: &str = "dev.cutover.spec";
    /// The address the proxy uses.
    pub const ADDRESS: &str = "dev.cutover.address";
}

/// What the names of all built images begin with.
const BUILT_IMAGES: &str = "cutover/";

/// The folders of one installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    state: PathBuf,
    backups: PathBuf,
    logs: PathBuf,
    run: PathBuf,
}

impl Layout {
    /// The system's own places.
    pub fn system() -> Self {
        Self {
            state: "/var/lib/cutover".into(),
            backups: "/var/backups/cutover".into(),
            logs: "/var/log/cutover".into(),
            run: "/run/cutover".into(),
        }
    }

    /// Everything under one folder (`CUTOVER_ROOT`).
    pub fn under(root: &Path) -> Self {
        Self {
            state: root.join("lib"),
            backups: root.join("backups"),
            logs: root.join("log"),
            run: root.join("run"),
        }
    }

    /// Where state lies.
    pub fn state(&self) -> &Path {
        &self.state
    }
    /// Where snapshots lie.
    pub fn backups(&self) -> &Path {
        &self.backups
    }
    /// Where event files and logs lie.
    pub fn logs(&self) -> &Path {
        &self.logs
    }
    /// Where sockets lie.
    pub fn run(&self) -> &Path {
        &self.run
    }
    /// The store.
    pub fn store(&self) -> PathBuf {
        self.state.join("cutover.db")
    }
    /// What was lost when the store was made anew, until somebody has been told.
    pub fn lost_records(&self) -> PathBuf {
        self.state.join("lost-records")
    }
    /// The installation's id and salt.
    pub fn installation(&self) -> PathBuf {
        self.state.join("installation.json")
    }
    /// The host's own configuration.
    pub fn host_file(&self) -> PathBuf {
        self.state.join("host.yml")
    }
    /// Lock files.
    pub fn locks(&self) -> PathBuf {
        self.state.join("locks")
    }
    /// An app's lock.
    pub fn lock(&self, app: &AppId) -> PathBuf {
        self.locks().join(format!("{}.{}.lock", app.app, app.environment))
    }
    /// What came out of a backup and waits for the first deploy to this host.
    pub fn returning(&self, app: &AppId) -> PathBuf {
        self.app(app).join("returning")
    }
    /// What of an app's data waits to go into a backup, or comes out of one.
    pub fn backup_room(&self, app: &AppId) -> PathBuf {
        self.state.join("backup").join(app.app.as_str()).join(app.environment.as_str())
    }
    /// That a backup began whose end is not known yet.
    pub fn backup_begun(&self, app: &AppId) -> PathBuf {
        self.app(app).join("backup-begun.json")
    }
    /// What keeps a volume as it is while a backup copies it, and is to be undone.
    pub fn backup_undo(&self, app: &AppId) -> PathBuf {
        self.app(app).join("backup-undo.json")
    }
    /// What of an app's backups comes back for a trial.
    pub fn drill_room(&self, app: &AppId) -> PathBuf {
        self.state.join("backup").join(".drill").join(app.app.as_str()).join(app.environment.as_str())
    }
    /// What is known of the newest trial of a backup.
    pub fn drill(&self, app: &AppId) -> PathBuf {
        self.app(app).join("drill.json")
    }
    /// That a trial began whose end is not known yet.
    pub fn drill_begun(&self, app: &AppId) -> PathBuf {
        self.app(app).join("drill-begun.json")
    }
    /// What restic remembers of repositories that lie elsewhere.
    pub fn backup_cache(&self) -> PathBuf {
        self.state.join("backup").join(".cache")
    }
    /// Which processes of restic are ours, while they work.
    pub fn restics(&self) -> PathBuf {
        self.state.join("backup").join(".restics")
    }
    /// The lock of the host itself (upgrades; runs hold it shared, S23).
    pub fn host_lock(&self) -> PathBuf {
        self.locks().join("host.lock")
    }
    /// The lock of a process of which there is one a root (`proxy`, `watch`, `up`).
    pub fn process_lock(&self, process: &str) -> PathBuf {
        self.locks().join(format!("{process}.lock"))
    }
    /// The proxy's folder: table, ballast, certificates.
    pub fn proxy(&self) -> PathBuf {
        self.state.join("proxy")
    }
    /// The proxy's control socket.
    pub fn proxy_socket(&self) -> PathBuf {
        self.run.join("proxy.sock")
    }
    /// The store's ballast, given up on a full disk (S24).
    pub fn ballast(&self) -> PathBuf {
        self.state.join("ballast")
    }
    /// The content-addressed artifacts of plain processes.
    pub fn artifacts(&self) -> PathBuf {
        self.state.join("artifacts")
    }
    /// One artifact.
    pub fn artifact(&self, hash: &ContentHash) -> PathBuf {
        self.artifacts().join(hash.as_str())
    }
    /// Layers of images on their way to the engine, by the hash of what is in them.
    pub fn layers(&self) -> PathBuf {
        self.state.join("layers")
    }
    /// One of them.
    pub fn layer(&self, layer: &ContentHash) -> PathBuf {
        self.layers().join(layer.as_str())
    }
    /// Lists of the chunks of artifacts that are kept, and chunks on their way to become files.
    pub fn parcels(&self) -> PathBuf {
        self.state.join("parcels")
    }
    /// The chunks of one artifact that is kept.
    pub fn chunks(&self, artifact: &ContentHash) -> PathBuf {
        self.parcels().join(format!("{artifact}.list"))
    }
    /// What images are built from on this host, as it was sent last.
    pub fn contexts(&self) -> PathBuf {
        self.state.join("contexts")
    }
    /// The archive of one service's; its list has `.list` behind its name.
    pub fn context(&self, app: &AppId, service: &ServiceName) -> PathBuf {
        self.contexts().join(format!("{}.{}.{service}", app.app, app.environment))
    }
    /// What runs that are to come need, a file each (S26).
    pub fn leases(&self) -> PathBuf {
        self.state.join("leases")
    }
    /// What one of them needs.
    pub fn lease(&self, run: RunId) -> PathBuf {
        self.leases().join(run.to_string())
    }
    /// Held by whoever takes a lease, and by whoever takes away what nobody has one of.
    pub fn retention_lock(&self) -> PathBuf {
        self.locks().join("retention.lock")
    }
    /// An app's folder.
    pub fn app(&self, app: &AppId) -> PathBuf {
        self.state.join("apps").join(app.app.as_str()).join(app.environment.as_str())
    }
    /// Its env file.
    pub fn env_file(&self, app: &AppId) -> PathBuf {
        self.app(app).join("env")
    }
    /// Its live file, where it has no routes.
    pub fn live_file(&self, app: &AppId) -> PathBuf {
        self.app(app).join("live.json")
    }
    /// A release's folder.
    pub fn release(&self, app: &AppId, release: &ReleaseId) -> PathBuf {
        self.app(app).join("releases").join(release.as_str())
    }
    /// A release's own env file.
    pub fn release_env(&self, app: &AppId, release: &ReleaseId) -> PathBuf {
        self.release(app, release).join("env")
    }
    /// Folders of the volumes of plain processes.
    pub fn volume(&self, app: &AppId, volume: &VolumeName) -> PathBuf {
        self.app(app).join("volumes").join(volume.as_str())
    }
    /// The folders of instances that are plain processes.
    pub fn instances(&self, app: &AppId) -> PathBuf {
        self.app(app).join("instances")
    }
    /// The folder of one: specification, state, policy.
    pub fn instance(&self, app: &AppId, instance: &InstanceName) -> PathBuf {
        self.instances(app).join(instance.as_str())
    }
    /// A keeper's socket. Its name is short, because a socket's path has at most 107 bytes.
    pub fn keeper_socket(&self, app: &AppId, instance: &InstanceName) -> PathBuf {
        let id = ContentHash::of_parts(&["keeper", &app.to_string(), instance.as_str()]);
        self.run.join(format!("k{}", &id.as_str()[..12]))
    }
    /// The folders of runs.
    pub fn run_folders(&self) -> PathBuf {
        self.state.join("runs")
    }
    /// A run's folder: its plan and, until admitted, what the client sent for its env file.
    pub fn run_folder(&self, run: RunId) -> PathBuf {
        self.run_folders().join(run.to_string())
    }
    /// How long the process that works on a run may take (S9).
    pub fn run_deadline(&self, run: RunId) -> PathBuf {
        self.run_folder(run).join("deadline")
    }
    /// How far a run's long act is, while it goes on.
    pub fn run_progress(&self, run: RunId) -> PathBuf {
        self.run_folder(run).join("progress")
    }
    /// Held by the process that carries a run out.
    pub fn run_lock(&self, run: RunId) -> PathBuf {
        self.run_folder(run).join("lock")
    }
    /// What is to be heard of apps beside their runs.
    pub fn events_beside_runs(&self) -> PathBuf {
        self.logs.join("events.jsonl")
    }
    /// The event files of runs.
    pub fn run_events(&self) -> PathBuf {
        self.logs.join("runs")
    }
    /// The event file of a run.
    pub fn events(&self, run: RunId) -> PathBuf {
        self.run_events().join(format!("{run}.jsonl"))
    }
    /// The log files of an app's instances.
    pub fn instance_logs(&self, app: &AppId) -> PathBuf {
        self.logs.join(app.app.as_str()).join(app.environment.as_str())
    }
    /// An instance's log file; for rotated ones see [`rotated`].
    pub fn instance_log(&self, app: &AppId, instance: &InstanceName) -> PathBuf {
        self.instance_logs(app).join(format!("{instance}.log"))
    }
    /// Where `process` writes what it has to say to developers.
    pub fn process_log(&self, process: &str) -> PathBuf {
        self.logs.join(format!("{process}.log"))
    }
    /// An app's snapshots.
    pub fn snapshots(&self, app: &AppId) -> PathBuf {
        self.backups.join(app.app.as_str()).join(app.environment.as_str())
    }
    /// A snapshot by its file name.
    pub fn snapshot(&self, file: &str) -> PathBuf {
        self.backups.join(file)
    }
}

/// A log file that was rotated so many times; 0: itself.
pub fn rotated(log: &Path, number: u32) -> PathBuf {
    if number == 0 {
        return log.to_owned();
    }
    let mut name = log.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// The folder of a plain process's volume, below a host's folder of state as [`crate::state::HostState::root`] tells it.
pub fn volume_folder(state_root: &str, app: &AppId, volume: &VolumeName) -> String {
    format!("{state_root}/apps/{}/{}/volumes/{volume}", app.app, app.environment)
}

/// The label's text of a role.
pub fn role_text(role: Role) -> &'static str {
    match role {
        Role::Service => "service",
        Role::Backing => "backing",
        Role::OneOff => "one_off",
    }
}

/// A container's name.
pub fn container(app: &AppId, instance: &InstanceName) -> String {
    in_engine(app, instance)
}

/// What an instance is called that is the scratch server of a rehearsal.
pub fn scratch(database: &DatabaseName, run: RunId) -> String {
    format!("{SCRATCH}{database}-{}", run.short())
}

/// Whether a one-off instance is such a server: unlike others it is nobody's once its run is over.
pub fn is_scratch(instance: &InstanceName) -> bool {
    instance.as_str().starts_with(SCRATCH)
}

const SCRATCH: &str = "scratch-";

/// The network with fixed addresses for the proxy; one an installation, no names.
pub fn edge_network(installation: &str) -> String {
    format!("cutover-{}-edge", short_installation(installation))
}

/// An app's network of one colour: names of services of one release.
pub fn slot_network(app: &AppId, slot: Slot) -> String {
    in_engine(app, slot)
}

/// An app's network of backing services.
pub fn backing_network(app: &AppId) -> String {
    in_engine(app, "backing")
}

/// The engine's name of a volume.
pub fn engine_volume(app: &AppId, volume: &VolumeName) -> String {
    in_engine(app, volume)
}

/// The name of an image that is built for a service at a commit.
pub fn built_image(app: &AppId, service: &ServiceName, commit: &str) -> String {
    format!("{BUILT_IMAGES}{app}/{service}:{}", commit.get(..12).unwrap_or(commit))
}

/// The app that an image was built for, by its name; `None`: it is no name of [`built_image`].
pub fn app_of_built_image(name: &str) -> Option<AppId> {
    let (app, environment, _service) = {
        let mut parts = name.strip_prefix(BUILT_IMAGES)?.splitn(3, '/');
        (parts.next()?, parts.next()?, parts.next()?)
    };
    format!("{app}/{environment}").parse().ok()
}

/// Whether an image's name is one of [`built_image`]: made by us, and ours to remove.
pub fn is_built_image(name: &str) -> bool {
    name.starts_with(BUILT_IMAGES)
}

/// A name in the engine, where all apps share one space. Dots occur in no name of ours, so that `shop-eu/live` and `shop/eu-live` never meet.
fn in_engine(app: &AppId, what: impl std::fmt::Display) -> String {
    format!("cutover-{}.{}.{what}", app.app, app.environment)
}

/// What the name of a snapshot of a SQLite file ends with.
pub const SQLITE: &str = "sqlite";
/// What the name of a dump of a server's database ends with: `pg_dump`'s own archive, packed.
pub const DUMP: &str = "dump.zst";
/// What a migration is called in a server's list of its clients.
pub const MIGRATION_CLIENT: &str = "cutover-migration";
/// What cutover itself is called there, in a deploy.
pub const OWN_CLIENT: &str = "cutover-snapshot";
/// What it is called there while it makes or puts back a backup: no deploy ends that.
pub const BACKUP_CLIENT: &str = "cutover-backup";
/// What a session is called that looks at the locks of a rehearsal: it is none of the migration's.
pub const LOCKS_CLIENT: &str = "cutover-locks";
/// What holds the lock of migrations is called so there: it has no database open that anybody would have to wait for.
pub const ALONE_CLIENT: &str = "cutover-alone";

/// The file name of a snapshot: `{database}_{timestamp}_{commit}.{ext}` below the app's own folder of the backups.
pub fn snapshot_file(
    app: &AppId,
    database: &DatabaseName,
    at: jiff::Timestamp,
    release: &ReleaseId,
    extension: &str,
) -> String {
    format!(
        "{}/{}/{database}_{}_{release}.{extension}",
        app.app,
        app.environment,
        at.strftime("%Y%m%dT%H%M%S%3fZ")
    )
}

/// The name that [`snapshot_file`] gives to a file of the app's own folder of the backups.
pub fn in_snapshots(app: &AppId, name: &str) -> String {
    format!("{}/{}/{name}", app.app, app.environment)
}

/// What a database's name gets that is there for a drill of a backup.
pub const DRILLED: &str = "_cutover_drilled";

/// Whether a restore or a drill makes and drops a database of a server that is called so: `X_cutover_restored`, `X_cutover_replaced` and the like.
pub fn is_beside_a_database(name: &str) -> bool {
    let ending = name.rsplit_once("_cutover_").map(|(_, ending)| ending);
    ending.is_some_and(|ending| {
        matches!(ending, "restored" | "drilled" | "tried") || ending.starts_with("replaced")
    })
}

/// Whether it is there for a drill of a backup: nobody else may look at one of this name.
pub fn is_for_a_drill(name: &str) -> bool {
    name.ends_with(DRILLED)
}

/// What a snapshot is called: its file's name without the app's folder.
pub fn snapshot_name(file: &str) -> &str {
    file.rsplit('/').next().unwrap_or(file)
}

/// The database that a snapshot is of, by its file name in the app's own folder; `None`: it is no snapshot of ours, but for example a copy that somebody
/// made of one.
pub fn database_of_snapshot(name: &str) -> Option<DatabaseName> {
    parts_of_snapshot(name).map(|(database, ..)| database)
}

/// All that the name of a snapshot says: its database, when it was taken, and of which release.
pub fn parts_of_snapshot(name: &str) -> Option<(DatabaseName, jiff::Timestamp, ReleaseId)> {
    // A database's name may have `_` in it; a moment has none, and always the same length.
    let is_moment = |text: &str| {
        text.bytes().enumerate().all(|(place, byte)| match place {
            8 => byte == b'T',
            18 => byte == b'Z',
            _ => byte.is_ascii_digit(),
        })
    };
    let (place, _) = name.match_indices('_').find(|(place, _)| {
        let moment = name.get(place + 1..place + 20);
        moment.is_some_and(is_moment) && name.as_bytes().get(place + 20) == Some(&b'_')
    })?;
    let rest = name.get(place + 21..)?;
    let ended = [SQLITE, DUMP].into_iter().find_map(|ending| rest.strip_suffix(ending)?.strip_suffix('.'));
    let release = ended?.parse().ok()?;
    let moment = name.get(place + 1..place + 20)?;
    let digits = |from: usize, to: usize| moment.get(from..to);
    let taken = format!(
        "{}-{}-{}T{}:{}:{}.{}Z",
        digits(0, 4)?,
        digits(4, 6)?,
        digits(6, 8)?,
        digits(9, 11)?,
        digits(11, 13)?,
        digits(13, 15)?,
        digits(15, 18)?
    );
    Some((name[..place].parse().ok()?, taken.parse().ok()?, release))
}

/// The random end of its id: the beginning is the time at which it was made, the same for all that were made within a minute.
fn short_installation(installation: &str) -> &str {
    installation.len().checked_sub(8).and_then(|start| installation.get(start..)).unwrap_or(installation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apps_whose_names_run_together_share_nothing_in_the_engine() {
        let (one, other): (AppId, AppId) = ("shop-eu/live".parse().unwrap(), "shop/eu-live".parse().unwrap());
        let data: VolumeName = "data".parse().unwrap();
        let instance: InstanceName = "web-blue-1-00000001".parse().unwrap();
        assert_ne!(engine_volume(&one, &data), engine_volume(&other, &data));
        assert_ne!(container(&one, &instance), container(&other, &instance));
        assert_ne!(slot_network(&one, Slot::Blue), slot_network(&other, Slot::Blue));
        assert_ne!(backing_network(&one), backing_network(&other));
    }

    #[test]
    fn a_snapshot_says_which_database_it_is_of() {
        let (app, release): (AppId, ReleaseId) =
            ("shop/local".parse().unwrap(), "7f3c9e1-2".parse().unwrap());
        for name in ["main", "my_main_20251126t", "1_2"] {
            let database: DatabaseName = name.parse().unwrap();
            let at = "2026-11-26T04:05:06.007Z".parse().unwrap();
            for ending in [SQLITE, DUMP] {
                let file = snapshot_file(&app, &database, at, &release, ending);
                let name = file.strip_prefix("shop/local/").unwrap();
                assert_eq!(in_snapshots(&app, name), file);
                assert_eq!(database_of_snapshot(name), Some(database.clone()));
                assert_eq!(parts_of_snapshot(name), Some((database.clone(), at, release.clone())));
                assert_eq!(database_of_snapshot(&format!("{name}.gz")), None, "it is somebody's own");
            }
        }
        assert_eq!(database_of_snapshot("notes_of_mine.txt"), None);
    }

    #[test]
    fn a_built_image_says_which_app_it_is_of() {
        let app: AppId = "shop/local".parse().unwrap();
        let name = built_image(&app, &"web".parse().unwrap(), "7f3c9e1");
        assert_eq!(app_of_built_image(&name), Some(app));
        assert_eq!(app_of_built_image("cutover/web:1"), None);
        assert_eq!(app_of_built_image("shop/local/web:1"), None);
    }

    #[test]
    fn installations_made_at_the_same_time_have_networks_of_their_own() {
        let (one, other) = ("01a21413-c0e3-7699-8667-9d23bea2dfdd", "01a21413-c0e3-7699-8667-9d23bea2dfde");
        assert_ne!(edge_network(one), edge_network(other));
        assert_eq!(edge_network("short"), "cutover-short-edge");
    }
}

//! Retention: what may go of what lies on a host. By references, of all apps on the host, and by sequence; by clock only where somebody says how
//! long snapshots stay (S26). What lies there and who needs it comes in as data.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::hash::ContentHash;
use crate::names::{AppId, DatabaseName, ReleaseId};
use crate::release::{Content, Live, Release};
use crate::state::{FoundInstance, HostState, Role};

/// A kind of thing that lies on a host for a while, in the order in which they go: what a release needed is needed by nothing once it is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The record of a release with its env file.
    Release,
    /// An image that cutover built.
    Image,
    /// What plain processes are made of.
    Artifact,
    /// A copy of a database, taken before a migration.
    Snapshot,
    /// The journal and the events of a run that is over; its verdict stays.
    Run,
    /// The output of an instance that is gone.
    Log,
    /// What was on its way here and never arrived, or was never used.
    Staged,
}

impl Kind {
    /// As people read it, of several.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Release => "releases",
            Self::Image => "images",
            Self::Artifact => "artifacts",
            Self::Snapshot => "snapshots",
            Self::Run => "runs",
            Self::Log => "logs",
            Self::Staged => "left-overs",
        }
    }

    /// As people read it, of one.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Image => "image",
            Self::Artifact => "artifact",
            Self::Snapshot => "snapshot",
            Self::Run => "run",
            Self::Log => "log",
            Self::Staged => "left-over",
        }
    }
}

/// One thing that nothing needs any more.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Leftover {
    /// What it is.
    pub kind: Kind,
    /// Which: an id, a name, or a path below the folder where its kind lies.
    pub name: String,
    /// Bytes that are free once it is gone.
    pub bytes: u64,
}

/// What nothing on a host needs any more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leftovers {
    /// What may go, in the order in which it goes.
    pub gone: Vec<Leftover>,
    /// What stays although nothing of cutover's needs it, and why, in words.
    pub stays: Vec<String>,
}

/// Releases of an app that nothing needs: beyond `keep` by sequence (S26), and those that never lived. A backing service runs on as the
/// release that started it made it, so that one is needed for as long as it is there.
pub(crate) fn forgotten(state: &HostState, release: &Release, becomes: &Live) -> Vec<ReleaseId> {
    let live = state.live.as_ref().map(|live| &live.release);
    let stays = |found: &&FoundInstance| becomes.has(&found.name) || found.role == Role::Backing;
    let members: BTreeSet<&ReleaseId> =
        state.instances.iter().filter(stays).map(|found| &found.release).collect();
    let needed = |id: &ReleaseId| *id == release.id || Some(id) == live || members.contains(id);
    let mut lived: Vec<_> =
        state.releases.iter().filter(|record| record.lived && !needed(&record.release.id)).collect();
    lived.sort_by_key(|record| std::cmp::Reverse(record.sequence));
    // Where another goes live, the live one of now is the first that rollback can reach.
    let reached = usize::from(live.is_some_and(|live| *live != release.id));
    let beyond = lived.into_iter().skip((release.keep as usize).saturating_sub(reached));
    let never = state.releases.iter().filter(|record| !record.lived && !needed(&record.release.id));
    beyond.chain(never).map(|record| record.release.id.clone()).collect()
}

/// The same of an app that nothing is done to. Where it is not known what is live, or a run has not come to its end, all of them stay; and so does
/// one that still runs warm.
pub fn unneeded_releases(state: &HostState) -> Vec<ReleaseId> {
    let Some(live) = state.live.as_ref().filter(|_| state.unfinished.is_none()) else { return Vec::new() };
    let Some(record) = state.releases.iter().find(|record| record.release.id == live.release) else {
        return Vec::new();
    };
    let runs = |id: &ReleaseId| {
        state.instances.iter().any(|found| found.release == *id && found.ours && found.is_running())
    };
    let warm = |id: &ReleaseId| {
        state.releases.iter().any(|record| record.release.id == *id && record.warm_until.is_some())
    };
    let mut gone = forgotten(state, &record.release, live);
    gone.retain(|id| !runs(id) && !warm(id));
    gone
}

/// An image as an engine has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldImage {
    /// The engine's id.
    pub id: String,
    /// Names it goes by.
    pub names: Vec<String>,
    /// Its layers, with the bytes of each; lowest first.
    pub layers: Vec<(String, u64)>,
    /// Containers that use it, whoever's, running or not.
    pub users: Vec<String>,
}

/// What needs images.
#[derive(Debug, Clone, Copy)]
pub struct ImageNeeds<'a> {
    /// The app whose images may go. What another one has just built nobody has said yet what for: that app's own prune, under its lock, takes it.
    pub app: &'a AppId,
    /// Every release on record that stays, of all apps.
    pub releases: &'a [Release],
    /// Names and ids that somebody has a lease of.
    pub leased: &'a BTreeSet<String>,
}

impl ImageNeeds<'_> {
    /// Whether an image is ours, and needed by nothing of ours.
    fn lets_go(&self, image: &HeldImage, name: &str) -> bool {
        let is_ours = crate::layout::app_of_built_image(name).is_some_and(|app| app == *self.app);
        let is_leased = self.leased.contains(&image.id) || self.leased.contains(name);
        let mut contents = self.releases.iter().flat_map(Release::contents);
        let is_needed = contents.any(|content| match content {
            Content::Image { reference, name: known, .. } => {
                *reference == image.id || known.as_deref() == Some(name)
            }
            Content::Artifact { .. } => false,
        });
        is_ours && !is_leased && !is_needed
    }
}

/// Images that cutover built and nothing needs. One that a container uses stays and is told; one that has another name, too, loses ours only.
/// Layers that another image has are not freed.
pub fn unneeded_images(images: &[HeldImage], needs: ImageNeeds<'_>) -> Leftovers {
    let mut told = Leftovers::default();
    let mut going: Vec<(&HeldImage, Vec<&String>)> = Vec::new();
    for image in images {
        let names: Vec<&String> = image.names.iter().filter(|name| needs.lets_go(image, name)).collect();
        match (names.first(), image.users.as_slice()) {
            (None, _) => {}
            (Some(name), [user, ..]) => {
                told.stays.push(format!("image {name} stays: container `{user}` uses it"));
            }
            (Some(_), []) => going.push((image, names)),
        }
    }
    let is_whole = |image: &HeldImage| {
        going.iter().any(|(other, names)| other.id == image.id && names.len() == image.names.len())
    };
    let mut kept: BTreeSet<&str> = images
        .iter()
        .filter(|image| !is_whole(image))
        .flat_map(|image| image.layers.iter().map(|(layer, _)| layer.as_str()))
        .collect();
    for (image, names) in &going {
        let freed = image.layers.iter().filter(|(layer, _)| kept.insert(layer)).map(|(_, bytes)| bytes).sum();
        for (place, name) in names.iter().enumerate() {
            let bytes = if place + 1 == names.len() { freed } else { 0 };
            told.gone.push(Leftover { kind: Kind::Image, name: (*name).clone(), bytes });
        }
    }
    told
}

/// A snapshot as it lies in an app's folder of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldSnapshot {
    /// Its file name under the backups folder.
    pub file: String,
    /// Of which database.
    pub database: DatabaseName,
    /// Its place in the order in which they were taken; `None`: taken before that was recorded.
    pub sequence: Option<u64>,
    /// Its size.
    pub bytes: u64,
    /// Since when it is what it is: when it was taken, or came out of a backup.
    pub since: Timestamp,
    /// It was read back when it came, and what was read is on record.
    pub verified: bool,
}

/// Which snapshots stay that nothing needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotsKept<'a> {
    /// The newest so many of each database …
    pub newest: u32,
    /// … but of these the younger ones, however many they are, and the newest three that are verified.
    pub younger: &'a BTreeMap<DatabaseName, Duration>,
    /// The clock by which they are younger. What seems to come from its future is young.
    pub now: Timestamp,
}

/// A snapshot as `snapshot list` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownSnapshot {
    /// Its file name in the app's own folder of the backups: what it is called.
    pub name: String,
    /// Of which database.
    pub database: DatabaseName,
    /// When it was taken, as its name says.
    pub taken: Timestamp,
    /// Of which release.
    pub release: ReleaseId,
    /// Its size.
    pub bytes: u64,
    /// Its place in the order in which they were taken; `None`: it is on no record.
    pub sequence: Option<u64>,
    /// SHA-256 of its file as it was recorded; `None`: none was.
    pub hash: Option<ContentHash>,
    /// The number under which a release had gone live last when it was taken: which migrations are in it; `None`: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moment: Option<u64>,
    /// Releases whose migration a rollback takes back with it.
    pub needed_by: BTreeSet<ReleaseId>,
    /// Why it cannot be put back, as far as a look at its file tells.
    pub problem: Option<String>,
}

/// Snapshots beyond those that are kept. Those in `needed` stay and are not counted. Without a place in the order one is older than all that have one;
/// among such ones their names tell.
pub fn unneeded_snapshots(
    held: &[HeldSnapshot],
    needed: &BTreeSet<String>,
    kept: SnapshotsKept<'_>,
) -> Vec<Leftover> {
    let mut all: Vec<&HeldSnapshot> = held.iter().collect();
    all.sort_by(|one, other| {
        (&one.database, other.sequence, &other.file).cmp(&(&other.database, one.sequence, &one.file))
    });
    let of_each = all.chunk_by(|one, other| one.database == other.database);
    let old = of_each.flat_map(|of_one| {
        // By their order: whatever the clock says, these stay (S26).
        let newest: Vec<_> = of_one.iter().filter(|one| one.verified && one.bytes > 0).take(STAY).collect();
        let younger = of_one.first().and_then(|one| kept.younger.get(&one.database));
        let free = of_one.iter().filter(|one| !needed.contains(&one.file));
        free.enumerate().filter(move |(place, one)| match younger {
            None => *place >= kept.newest as usize,
            Some(time) => !newest.contains(one) && is_older(one.since, kept.now, *time),
        })
    });
    old.map(|(_, one)| Leftover { kind: Kind::Snapshot, name: one.file.clone(), bytes: one.bytes }).collect()
}

/// So many of the newest that were read back whole stay of each database.
const STAY: usize = 3;

/// Whether so much time has passed. A clock that was set back says of none that it has.
fn is_older(since: Timestamp, now: Timestamp, than: Duration) -> bool {
    Duration::try_from(now.duration_since(since)).is_ok_and(|age| age > than)
}

/// The snapshots that releases on record refer to: what a rollback across their migrations puts back.
pub fn needed_snapshots<'a>(
    records: impl IntoIterator<Item = &'a crate::state::ReleaseRecord>,
) -> BTreeSet<String> {
    let migrations = records.into_iter().flat_map(|record| &record.migrations);
    migrations.filter_map(|migration| migration.done.snapshot.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(id: &str, names: &[&str], layers: &[(&str, u64)]) -> HeldImage {
        HeldImage {
            id: id.to_owned(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            layers: layers.iter().map(|(layer, bytes)| ((*layer).to_owned(), *bytes)).collect(),
            users: Vec::new(),
        }
    }

    fn gone(images: &[HeldImage], leased: &[&str]) -> Leftovers {
        let app = "shop/local".parse().unwrap();
        let leased = leased.iter().map(|name| (*name).to_owned()).collect();
        unneeded_images(images, ImageNeeds { app: &app, releases: &[], leased: &leased })
    }

    fn named(leftovers: &Leftovers) -> Vec<(&str, u64)> {
        leftovers.gone.iter().map(|gone| (gone.name.as_str(), gone.bytes)).collect()
    }

    #[test]
    fn an_image_frees_what_no_other_one_shares_and_each_layer_once() {
        let base = ("base", 100);
        let images = [
            image("1", &["cutover/shop/local/web:1"], &[base, ("one", 10), ("both", 7)]),
            image("2", &["cutover/shop/local/web:2"], &[base, ("two", 20), ("both", 7)]),
            image("3", &["debian:13"], &[base]),
        ];
        assert_eq!(
            named(&gone(&images, &[])),
            [("cutover/shop/local/web:1", 17), ("cutover/shop/local/web:2", 20)]
        );
    }

    #[test]
    fn what_is_not_ours_or_leased_stays() {
        let images = [
            image("1", &["cutover/other/local/web:1"], &[]),
            image("2", &["shop/web:2"], &[]),
            image("3", &["cutover/shop/local/web:3"], &[]),
            image("4", &["cutover/shop/local/web:4"], &[]),
        ];
        assert_eq!(gone(&images, &["3", "cutover/shop/local/web:4"]), Leftovers::default());
    }

    #[test]
    fn what_a_container_uses_stays_and_a_second_name_keeps_the_layers() {
        let mut used = image("1", &["cutover/shop/local/web:1"], &[("one", 10)]);
        used.users.push("my-own".to_owned());
        let images = [used, image("2", &["cutover/shop/local/web:2", "mine:2"], &[("two", 20)])];
        let told = gone(&images, &[]);
        assert_eq!(named(&told), [("cutover/shop/local/web:2", 0)]);
        assert_eq!(told.stays, ["image cutover/shop/local/web:1 stays: container `my-own` uses it"]);
    }

    const NOW: &str = "2026-11-26T12:00:00Z";

    fn snapshot(database: &str, name: &str, sequence: Option<u64>) -> HeldSnapshot {
        HeldSnapshot {
            file: name.to_owned(),
            database: database.parse().unwrap(),
            sequence,
            bytes: 1,
            since: NOW.parse().unwrap(),
            verified: true,
        }
    }

    fn unneeded(held: &[HeldSnapshot], needed: &[&str], newest: u32, younger: &[(&str, u64)]) -> Vec<String> {
        let needed = needed.iter().map(|name| (*name).to_owned()).collect();
        let hours = |(name, hours): &(&str, u64)| (name.parse().unwrap(), Duration::from_hours(*hours));
        let younger = younger.iter().map(hours).collect();
        let kept = SnapshotsKept { newest, younger: &younger, now: NOW.parse().unwrap() };
        unneeded_snapshots(held, &needed, kept).into_iter().map(|one| one.name).collect()
    }

    #[test]
    fn the_newest_snapshots_of_each_database_stay_whatever_the_clock_said() {
        let held = [
            snapshot("main", "main_2031", Some(1)),
            snapshot("main", "main_2024", Some(2)),
            snapshot("main", "main_2025", Some(3)),
            snapshot("main", "main_2030", None),
            snapshot("main", "main_2029", None),
            snapshot("other", "other_2020", Some(1)),
        ];
        assert_eq!(unneeded(&held, &[], 2, &[]), ["main_2031", "main_2030", "main_2029"]);
        assert_eq!(unneeded(&held, &["main_2031"], 2, &[]), ["main_2030", "main_2029"]);
        assert_eq!(unneeded(&held, &[], 4, &[]), ["main_2029"]);
    }

    #[test]
    fn where_a_time_is_given_the_younger_ones_stay_and_the_newest_that_are_verified() {
        let of = |name: &str, sequence, hours: i64| HeldSnapshot {
            since: NOW.parse::<Timestamp>().unwrap() - jiff::SignedDuration::from_hours(hours),
            ..snapshot("main", name, sequence)
        };
        let mut held = vec![
            of("older", Some(0), 300),
            of("old", Some(1), 200),
            of("needed", Some(2), 100),
            of("verified", Some(3), 90),
            HeldSnapshot { verified: false, ..of("torn", Some(4), 80) },
            of("on no record", None, 70),
            snapshot("other", "other", Some(1)),
        ];
        let gone = |held: &[HeldSnapshot], hours| unneeded(held, &["needed"], 1, &[("main", hours)]);
        assert_eq!(gone(&held, 24), ["torn", "older", "on no record"]);
        assert_eq!(gone(&held, 85), ["older"], "however many there are");
        assert_eq!(gone(&held, 400), [""; 0]);

        // A new one, which is verified; and a clock that was set back since some were taken.
        held.push(of("new", Some(5), 1));
        assert_eq!(gone(&held, 24), ["torn", "old", "older", "on no record"]);
        for one in &mut held {
            one.since += jiff::SignedDuration::from_hours(300);
        }
        assert_eq!(gone(&held, 24), [""; 0], "what comes from the future is young");
    }
}

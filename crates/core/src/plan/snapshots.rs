//! Snapshots that somebody asks for: taken now, put in their database's place, or beside it.

use std::collections::BTreeSet;

use crate::config::settings::{Compatible, Database};
use crate::defaults::SNAPSHOTS;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::layout;
use crate::names::{AppId, DatabaseName, ReleaseId};
use crate::plan::idle::idle;
use crate::plan::lifecycle::{is_empty, nothing_live, record, unknown_release};
use crate::plan::specify::Ground;
use crate::plan::{
    AskedSnapshot, DatabasePlace, HeldDatabase, HostPlan, Planned, RecordPlan, Refusals, RestoredBeside,
    SnapshotPlan, Verb, databases,
};
use crate::release::Release;
use crate::request::{Request, Stamp};
use crate::retention::KnownSnapshot;
use crate::state::{HostState, MigrationRecord, ReleaseRecord};

/// Snapshots of the databases of what is live, or of those that are named.
pub(super) fn create(
    id: &AppId,
    state: &HostState,
    request: &Request,
    stamp: Stamp,
) -> Result<HostPlan, Refusals> {
    let release = live(id, state)?;
    let ground = Ground { state, release, urls: [].into() };
    let wanted = &request.snapshot.databases;
    known(release, wanted)?;
    let (mut asked, mut notes) = (Vec::new(), Vec::new());
    for (name, database) in &release.databases {
        if !(wanted.is_empty() || wanted.contains(name)) {
            continue;
        }
        match place(&ground, database) {
            Some(place) => {
                let file = file(id, name, &place, &release.id, stamp);
                asked.push(AskedSnapshot { database: name.clone(), place, file });
            }
            None if wanted.contains(name) => return Err(without_snapshots(name).into()),
            None => notes.push(format!("`{name}` is left out: cutover takes no snapshots of its engine")),
        }
    }
    if asked.is_empty() {
        return Err(Failure::new(Exit::Refused, "there is nothing to take a snapshot of")
            .because(format!(
                "release {} of {id} has no database that cutover takes snapshots of",
                release.id
            ))
            .next("name one under `databases:` in cutover.yml, and deploy")
            .into());
    }
    let snapshot = Planned::Do(SnapshotPlan { asked, ..SnapshotPlan::default() });
    // Those that are taken by a schedule do not heap up until the next deploy.
    let record = RecordPlan { snapshots: Some(SNAPSHOTS), ..RecordPlan::default() };
    Ok(HostPlan { snapshot, record, notes, ..idle(id, state, request, stamp) })
}

/// A snapshot put back beside its database.
pub(super) fn beside(
    id: &AppId,
    state: &HostState,
    request: &Request,
    stamp: Stamp,
) -> Result<HostPlan, Refusals> {
    let release = live(id, state)?;
    let ground = Ground { state, release, urls: [].into() };
    let (snapshot, place) = chosen(&ground, request)?;
    let to = request.snapshot.to.clone().unwrap_or_default();
    let fits = match &place {
        DatabasePlace::File(_) => to.starts_with('/'),
        DatabasePlace::Server(_) => !to.is_empty() && to.len() <= 63 && !to.contains(['/', '\0']),
    };
    if !fits {
        let what = match &place {
            DatabasePlace::File(_) => {
                "of SQLite: `--to` takes the whole path of a file that is not there yet"
            }
            DatabasePlace::Server(_) => {
                "of a server: `--to` takes the name of a database that is not there yet"
            }
        };
        return Err(Failure::new(Exit::Usage, format!("the snapshot cannot be put back as `{to}`"))
            .because(format!("`{}` is a database {what}", snapshot.database))
            .next("name another place")
            .into());
    }
    if matches!(place, DatabasePlace::Server(_)) && layout::is_beside_a_database(&to) {
        return Err(Failure::new(Exit::Usage, format!("the snapshot cannot be put back as `{to}`"))
            .because("databases that are called so are made, and dropped, by restores")
            .next("name another place")
            .into());
    }
    let beside = RestoredBeside {
        database: snapshot.database.clone(),
        place,
        file: layout::in_snapshots(id, &snapshot.name),
        to,
        begun: false,
    };
    let snapshot = Planned::Do(SnapshotPlan { beside: Some(beside), ..SnapshotPlan::default() });
    Ok(HostPlan { snapshot, ..idle(id, state, request, stamp) })
}

/// A snapshot put in its database's place, with one of the present before it.
pub(super) fn restore(
    ground: &Ground<'_>,
    request: &Request,
    stamp: Stamp,
) -> Result<HeldDatabase, Refusals> {
    let (snapshot, place) = chosen(ground, request)?;
    let release = ground.release;
    let present = file(&release.app, &snapshot.database, &place, &release.id, stamp);
    Ok(HeldDatabase::Restore {
        database: snapshot.database.clone(),
        place,
        snapshot: Some(layout::in_snapshots(&release.app, &snapshot.name)),
        present: Some(present),
    })
}

/// A migration that a snapshot and the release that is live do not both have.
pub(crate) struct Apart<'a> {
    /// The release that was migrated.
    pub(crate) record: &'a ReleaseRecord,
    pub(crate) migration: &'a MigrationRecord,
    pub(crate) how: Differs,
}

/// Which of the two has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Differs {
    /// The release that is live does; the snapshot was taken before it.
    Lacking,
    /// The snapshot does; the release that is live went live without it.
    Added,
}

/// The snapshot that a restore in its database's place names, as far as it is known.
pub(crate) fn named<'a>(state: &'a HostState, request: &Request) -> Option<&'a KnownSnapshot> {
    if request.verb != Verb::SnapshotRestore || request.snapshot.to.is_some() {
        return None;
    }
    let name = request.snapshot.name.as_deref()?;
    state.snapshots.iter().flatten().filter(|one| one.name == name).max_by_key(|one| one.sequence)
}

/// What stands between a snapshot and the release under which it would be put, as far as it is known which migrations are in it.
pub(crate) fn apart<'a>(state: &'a HostState, snapshot: &KnownSnapshot) -> Vec<Apart<'a>> {
    let live = state.live.as_ref().and_then(|live| record(state, &live.release));
    let (Some(live), Some(moment)) = (live, snapshot.moment) else { return Vec::new() };
    let between = state.releases.iter().filter_map(|record| {
        let of_it = record.migrations.iter().filter(|one| one.done.database == snapshot.database);
        let mut of_it = of_it.filter(|one| !is_empty(state, one));
        let is_in = of_it.clone().any(|one| one.held_at(moment));
        // What a release brought itself it needs also where a restore has undone it since.
        let is_own = record.release.id == live.release.id;
        let is_needed =
            is_own && of_it.clone().next().is_some() || of_it.clone().any(|one| one.held_at(live.sequence));
        let how = match (is_needed, is_in) {
            (true, false) => Differs::Lacking,
            (false, true) => Differs::Added,
            (true, true) | (false, false) => return None,
        };
        Some(Apart { record, migration: of_it.next_back()?, how })
    });
    between.collect()
}

/// What is worth saying of a snapshot before it is put in its database's place.
pub(super) fn restore_notes(state: &HostState, request: &Request) -> Vec<String> {
    let Some(found) = named(state, request) else { return Vec::new() };
    let database = &found.database;
    let mut notes = Vec::new();
    if found.hash.is_none() {
        notes.push(format!(
            "{} is on no record: that it is a snapshot of `{database}`, and was not changed since, is told by nothing but its name",
            found.name
        ));
    }
    if found.moment.is_none() {
        notes.push(format!("which migrations of `{database}` are in it is not known"));
    }
    let apart = apart(state, found);
    notes.extend(apart.iter().filter(|one| one.migration.done.compatible != Compatible::Breaking).map(
        |Apart { record, how, .. }| match how {
            Differs::Lacking => format!(
                "it was taken before release {} migrated `{database}`: the next deploy carries that out again",
                record.release.id
            ),
            Differs::Added => format!(
                "release {} had migrated `{database}` when it was taken, and the one that is live went live without that",
                record.release.id
            ),
        },
    ));
    notes
}

/// The snapshot that is named, where it is one of a database of what is live.
fn chosen<'a>(
    ground: &'a Ground<'_>,
    request: &Request,
) -> Result<(&'a KnownSnapshot, DatabasePlace), Refusals> {
    let name = request.snapshot.name.as_deref().unwrap_or_default();
    let refused = |what: &str, why: String| {
        Failure::new(Exit::Refused, what)
            .because(why)
            .next("`cutover snapshot list` shows those that there are")
    };
    let all = ground.state.snapshots.iter().flatten();
    let found = all
        .filter(|one| one.name == name)
        .max_by_key(|one| one.sequence)
        .ok_or_else(|| refused(&format!("there is no snapshot `{name}`"), unknown(name).to_owned()))?;
    let unfit = |why: String| refused(&format!("the snapshot `{name}` cannot be put back"), why);
    if let Some(problem) = &found.problem {
        return Err(unfit(problem.clone()).into());
    }
    let release = ground.release;
    let Some(database) = release.databases.get(&found.database) else {
        let why = format!("release {}, which is live, has no database `{}`", release.id, found.database);
        return Err(unfit(why).into());
    };
    let place = place(ground, database);
    match place {
        Some(place) if found.name.ends_with(ending(&place)) => Ok((found, place)),
        Some(_) => Err(unfit(format!("it is of another engine than `{}` has today", found.database)).into()),
        None => Err(without_snapshots(&found.database).into()),
    }
}

/// Why nothing goes by a name.
fn unknown(name: &str) -> &'static str {
    if name.contains('/') {
        "a snapshot's name is that of a file, without a folder: no `/` is in it"
    } else if layout::database_of_snapshot(name).is_none() {
        "no snapshot is called so: DATABASE_MOMENT_RELEASE and an ending, as `cutover snapshot list` shows them"
    } else {
        "nothing of that name lies among the snapshots of this app"
    }
}

fn live<'a>(id: &AppId, state: &'a HostState) -> Result<&'a Release, Refusals> {
    let live = state.live.as_ref().ok_or_else(|| nothing_live(id))?;
    Ok(&record(state, &live.release).ok_or_else(|| unknown_release(state, &live.release))?.release)
}

fn known(release: &Release, asked: &BTreeSet<DatabaseName>) -> Result<(), Refusals> {
    let Some(unknown) = asked.iter().find(|name| !release.databases.contains_key(*name)) else {
        return Ok(());
    };
    let known: Vec<_> = release.databases.keys().map(ToString::to_string).collect();
    Err(Failure::new(Exit::Usage, format!("the live release has no database {unknown}"))
        .because(if known.is_empty() {
            "it has none".to_owned()
        } else {
            format!("it has: {}", known.join(", "))
        })
        .next("name one of these, or none for all of them")
        .into())
}

fn without_snapshots(name: &DatabaseName) -> Failure {
    Failure::new(Exit::Refused, format!("cutover takes no snapshots of `{name}`"))
        .because("its engine is none of those that it takes them of")
        .next("take one with the engine's own tools")
}

fn ending(place: &DatabasePlace) -> &'static str {
    match place {
        DatabasePlace::File(_) => layout::SQLITE,
        DatabasePlace::Server(_) => layout::DUMP,
    }
}

/// Where a database of what is live lies; `None`: that has none of this name.
pub fn database_place(state: &HostState, database: &DatabaseName) -> Option<DatabasePlace> {
    let release = &record(state, &state.live.as_ref()?.release)?.release;
    place(&Ground { state, release, urls: [].into() }, release.databases.get(database)?)
}

/// Where a database of a release lies.
pub(super) fn place(ground: &Ground<'_>, database: &Database) -> Option<DatabasePlace> {
    let opener = databases::openers(ground.release, database).next()?;
    databases::place(ground, &opener, database)
}

/// The file name of a snapshot of it as it is now.
pub(super) fn file(
    app: &AppId,
    database: &DatabaseName,
    place: &DatabasePlace,
    release: &ReleaseId,
    stamp: Stamp,
) -> String {
    layout::snapshot_file(app, database, stamp.now, release, ending(place))
}

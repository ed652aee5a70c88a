//! `rollback --migrate-down`: the migrations that stand between a release and the schema of today, taken back by the `down` commands that were
//! recorded with them, each in the release that was migrated. They take the held path as a breaking migration does, with a snapshot before.

use std::collections::BTreeMap;

use crate::config::settings::{Command, Compatible, Migrate, SnapshotPolicy};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::layout;
use crate::names::{DatabaseName, ServiceName, VariableName};
use crate::plan::databases::migration;
use crate::plan::lifecycle::{Crossed, Crossing, crossed};
use crate::plan::specify::Ground;
use crate::plan::{DatabasePlace, Down, Migration, NextCommand, Refusals};
use crate::release::{Live, Release};
use crate::request::Stamp;
use crate::state::{HostState, MigrationRecord, ReleaseRecord, Undone};
use crate::template::Template;
use crate::variables::given::SCHEMA_BEFORE;

/// A migration that is to be taken back.
struct Back<'a> {
    record: &'a ReleaseRecord,
    migration: &'a MigrationRecord,
}

impl Back<'_> {
    fn database(&self) -> &DatabaseName {
        &self.migration.done.database
    }

    /// How it was migrated, and what takes that back, the last first; `None`: no such command is recorded, or not of each.
    fn commands(&self) -> Option<Vec<(&Migrate, &Command)>> {
        let migrate = &self.record.release.databases.get(self.database())?.migrate;
        let commands = migrate.iter().rev().map(|migrate| Some((migrate, migrate.down.as_ref()?)));
        commands.collect::<Option<Vec<_>>>().filter(|commands| !commands.is_empty())
    }

    /// Whether it is known that there is something to take back: where a tool keeps the schema's version, that has changed.
    fn is_known(&self) -> bool {
        let schema = self.migration.done.schema.as_ref();
        let is_told = schema.is_some_and(|schema| !schema.before.is_empty());
        let differs = schema.is_some_and(|schema| schema.before != schema.after);
        differs || !is_told && self.migration.done.changed == Some(true)
    }

    /// The schema's version before it; empty: it had none yet. `None`: no tool keeps one, or tells one that it takes (several heads).
    fn version_before(&self) -> Option<&str> {
        let schema = self.migration.done.schema.as_ref()?;
        match schema.before.as_slice() {
            [] if !schema.after.is_empty() => Some(""),
            [one] if !one.version.contains(", ") => Some(&one.version),
            _ => None,
        }
    }

    /// Whether its commands are told the version that they ask for: one that is not may take back everything.
    fn is_told(&self, downs: &[(&Migrate, &Command)]) -> bool {
        let asks = |word: &Template| word.to_string().contains(SCHEMA_BEFORE);
        self.version_before().is_some() || !downs.iter().any(|(_, down)| down.iter().any(asks))
    }
}

/// Of each database that a breaking migration has changed since `release` was live: that one and all that came after it, the newest first. What
/// came after stands on it. What is known to have changed nothing has nothing to take back.
fn back<'a>(state: &'a HostState, release: &Release) -> BTreeMap<&'a DatabaseName, Vec<Back<'a>>> {
    let mut all: BTreeMap<&DatabaseName, Vec<Back<'_>>> = BTreeMap::new();
    let since = crossed(state, release).into_iter().filter(|one| one.how == Crossing::Since);
    for Crossed { migration: first, .. } in since {
        let database = &first.done.database;
        if all.contains_key(database) || !release.databases.contains_key(database) {
            continue;
        }
        let records = state
            .releases
            .iter()
            .flat_map(|record| record.migrations.iter().map(move |migration| Back { record, migration }));
        let mut of_it: Vec<Back<'_>> = records
            .filter(|one| one.database() == database && one.migration.undone.is_none())
            .filter(|one| one.migration.at >= first.at && !one.migration.is_empty())
            .collect();
        of_it.sort_by_key(|one| std::cmp::Reverse(one.migration.at));
        all.insert(database, of_it);
    }
    all
}

/// Whether each migration that a rollback to `release` crosses can be taken back by a command.
pub(crate) fn are_recorded(state: &HostState, release: &Release) -> bool {
    let all = back(state, release);
    let is_recorded = |of_it: &Vec<Back<'_>>| {
        let can_run = |one: &Back<'_>| one.commands().is_some_and(|downs| one.is_told(&downs));
        !of_it.is_empty() && of_it.iter().all(can_run)
    };
    !all.is_empty() && all.values().all(is_recorded)
}

/// What is worth saying of them before they are taken back.
pub(super) fn notes(state: &HostState, release: &Release) -> Vec<String> {
    let all = back(state, release);
    let unknown = all.values().flatten().filter(|one| !one.is_known());
    let told = unknown.map(|one| {
        format!(
            "release {} is recorded as having migrated `{}`; whether that changed anything is not known, and its `down` is run all the same",
            one.record.release.id,
            one.database()
        )
    });
    told.collect()
}

/// What takes them back, by database.
///
/// # Errors
/// One of them has no such command on record.
pub(super) fn downs(
    live: &Live,
    ground: &Ground<'_>,
    urls: &BTreeMap<ServiceName, String>,
    stamp: Stamp,
) -> Result<Vec<Migration>, Refusals> {
    let (state, release) = (ground.state, ground.release);
    back(state, release)
        .into_iter()
        .map(|(database, back)| one_database(live, ground, urls, database, &back, stamp))
        .collect()
}

fn one_database(
    live: &Live,
    target: &Ground<'_>,
    urls: &BTreeMap<ServiceName, String>,
    database: &DatabaseName,
    back: &[Back<'_>],
    stamp: Stamp,
) -> Result<Migration, Refusals> {
    let state = target.state;
    let mut whole: Option<Migration> = None;
    let mut undoes = Vec::new();
    for one in back {
        let Some(downs) = one.commands() else { return Err(without(one, target.release).into()) };
        if !one.is_told(&downs) {
            return Err(untold(one, target.release).into());
        }
        let ground = Ground { state, release: &one.record.release, urls: urls.clone() };
        let all = downs.into_iter().map(|(migrate, down)| Migrate {
            command: down.clone(),
            pending: None,
            ..migrate.clone()
        });
        let all: Vec<Migrate> = all.collect();
        let of_it = one.record.release.databases.get(database);
        let made = of_it.and_then(|of_it| migration(&ground, database, of_it, &all, live.slot, stamp));
        let Some(mut made) = made else { return Err(without(one, target.release).into()) };
        let version = one.version_before().filter(|version| !version.is_empty());
        if let (Some(version), Ok(variable)) = (version, SCHEMA_BEFORE.parse::<VariableName>()) {
            for spec in made.specs_mut() {
                spec.given.insert(variable.clone(), version.to_owned());
            }
        }
        let (release, at) = (one.record.release.id.clone(), one.migration.at);
        undoes.push(Undone { release, database: database.clone(), at });
        match &mut whole {
            None => whole = Some(made),
            Some(whole) => {
                whole.budget = whole.budget.min(made.budget);
                let first = NextCommand { spec: made.spec, pending: None, timeout: made.timeout };
                whole.then.extend(std::iter::once(first).chain(made.then));
            }
        }
    }
    let Some(mut whole) = whole else { return Err(nothing(database, target.release).into()) };
    // That the release that was migrated went without one says nothing of this: what is dropped now was written since.
    whole.snapshot = SnapshotPolicy::BeforeMigration;
    // It is of what is live, whichever release was migrated last.
    let ending = match &whole.place {
        Some(DatabasePlace::Server(_)) => layout::DUMP,
        Some(DatabasePlace::File(_)) | None => layout::SQLITE,
    };
    whole.snapshot_file =
        layout::snapshot_file(&target.release.app, database, stamp.now, &live.release, ending);
    for (number, next) in (2..).zip(&mut whole.then) {
        if let Ok(name) = format!("{}-{number}", whole.spec.name).parse() {
            next.spec.name = name;
        }
    }
    whole.compatible = Compatible::Breaking;
    whole.down = Some(Down { then: Vec::new(), undoes });
    Ok(whole)
}

/// A schema that was changed by what is on no record: a run that failed, or a person.
fn nothing(database: &DatabaseName, to: &Release) -> Failure {
    Failure::new(Exit::Refused, format!("the migrations since release {} cannot be taken back", to.id))
        .because(format!(
            "the schema of `{database}` has changed since then, and by none of those that are on record"
        ))
        .next("go forward with a new release")
}

/// What has no `down` on record is not guessed.
fn without(one: &Back<'_>, to: &Release) -> Failure {
    let (database, migrated) = (one.database(), &one.record.release.id);
    let of_it = one.record.release.databases.get(database);
    let several = of_it.is_some_and(|of_it| of_it.migrate.len() > 1);
    let (which, each) = if several { ("each of its commands", " of each") } else { ("it", "") };
    let cause = format!("release {migrated} migrated `{database}`, and has no `down` on record for {which}");
    other_ways(one, to, cause).next(format!(
        "`databases.{database}.migrate.down`{each} in cutover.yml records one with the next release"
    ))
}

/// Nor is the version that it leads to.
fn untold(one: &Back<'_>, to: &Release) -> Failure {
    let (database, migrated) = (one.database(), &one.record.release.id);
    let cause = format!(
        "the `down` of release {migrated} for `{database}` asks for {SCHEMA_BEFORE}, and the version before that migration is not known, or is more than one"
    );
    other_ways(one, to, cause)
}

fn other_ways(one: &Back<'_>, to: &Release, cause: String) -> Failure {
    let failure =
        Failure::new(Exit::Refused, format!("the migrations since release {} cannot be taken back", to.id))
            .because(cause);
    match &one.migration.done.snapshot {
        Some(file) => failure.next(format!(
            "`cutover rollback --to {} --restore-db` puts a snapshot back instead ({file} is the one before that migration); what was written since is kept in a snapshot of the present, but not served",
            to.id
        )),
        None => failure.next("go forward with a new release"),
    }
}

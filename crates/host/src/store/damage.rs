//! A store that is damaged, or lost: set aside, and made anew from what can still be read of it, from the event files of runs, and from what is
//! live (S25). What the app's users see hangs on none of it. What is lost is kept in a file until a run has told it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cutover_core::exit::Exit;
use cutover_core::hash::ContentHash;
use cutover_core::journal::{Entry, Step, StepResult, What};
use cutover_core::layout::Layout;
use cutover_core::names::{AppId, RunId, VariableName};
use cutover_core::plan::{HostPlan, Verb};
use cutover_core::recover::{goal, migration_records, restored};
use cutover_core::release::Release;
use cutover_core::verdict::{Outcome, Verdict};
use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags, params, params_from_iter};

use super::{Store, StoreError, format, schema};
use crate::files;
use crate::lock::HostLock;
use crate::observe::live_on_disk;
use crate::stages::{environment, password};

/// The tables, those first that others are told by.
const TABLES: [&str; 6] = ["runs", "releases", "verdicts", "snapshots", "backups", "entries"];
/// What may lie beside a database and belongs to its content.
const BESIDE: [&str; 2] = ["-wal", "-shm"];
/// So many damaged stores lie beside each other; then the last one's place is taken.
const ASIDE: u32 = 1_000;
/// Between two tries to be alone.
const AGAIN: Duration = Duration::from_millis(50);

/// Sees to it that the store can be relied on: one that is not whole is mended.
///
/// # Errors
/// When it cannot be mended now, or was written by a newer build.
pub(super) fn sound(layout: &Layout) -> Result<Connection, StoreError> {
    match whole(layout) {
        Err(error) if error.damaged => mend(layout, &error),
        other => other,
    }
}

/// The store, if nothing is wrong with it.
fn whole(layout: &Layout) -> Result<Connection, StoreError> {
    let path = layout.store();
    if mending(layout).exists() {
        return Err(StoreError::damaged(
            "the state database was being made anew when that was broken off".to_owned(),
        ));
    }
    if is_lost(layout) {
        return Err(StoreError::damaged(format!("{} is gone or empty", path.display())));
    }
    let connection = super::open_file(&path)?;
    if !Checked::of(&path).is_noted(layout) {
        check(&connection)?;
        // Noted as it is now: a look that changed it would be made again and again.
        Checked::of(&path).note(layout);
    }
    Ok(connection)
}

/// Whether there is no store where one has been: runs have left their events.
fn is_lost(layout: &Layout) -> bool {
    let is_empty = fs::metadata(layout.store()).map_or(true, |found| found.len() == 0);
    is_empty && !event_files(layout).is_empty()
}

fn check(connection: &Connection) -> Result<(), StoreError> {
    let found: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if found != "ok" {
        return Err(StoreError::damaged(format!("the state database is damaged: {found}")));
    }
    let mut tables = connection.prepare("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1")?;
    for table in TABLES {
        if !tables.exists([table])? {
            return Err(StoreError::damaged(format!("the state database has no table `{table}`")));
        }
    }
    Ok(())
}

/// The file that was found to be whole last: another content, or another boot, is checked again.
#[derive(Debug, PartialEq, Eq)]
struct Checked(String);

impl Checked {
    fn of(path: &Path) -> Self {
        use std::os::unix::fs::MetadataExt;
        Self(fs::metadata(path).map_or_else(
            |_| String::new(),
            |found| format!("{} {} {}.{}", found.ino(), found.len(), found.mtime(), found.mtime_nsec()),
        ))
    }

    fn is_noted(&self, layout: &Layout) -> bool {
        !self.0.is_empty() && fs::read_to_string(noted(layout)).is_ok_and(|noted| noted == self.0)
    }

    /// Best effort: where it cannot be noted the store is checked again.
    fn note(&self, layout: &Layout) {
        if let Err(error) = files::swap(&noted(layout), self.0.as_bytes()) {
            tracing::debug!(%error, "that the store is whole could not be noted");
        }
    }
}

/// Without this file the next one who opens the store checks it.
pub(super) fn noted(layout: &Layout) -> PathBuf {
    layout.run().join("store.checked")
}

/// Names where the damaged store is set aside, from before that begins until another one is in its place: a mend that was broken off is taken up by
/// the next one.
fn mending(layout: &Layout) -> PathBuf {
    layout.state().join("store.mending")
}

/// Sets the store aside and makes another one. Nobody else works with it meanwhile: runs hold the host.
fn mend(layout: &Layout, found: &StoreError) -> Result<Connection, StoreError> {
    let end = Instant::now() + super::BUSY;
    let _alone = loop {
        match HostLock::exclusive(layout) {
            Ok(alone) => break alone,
            Err(_) if Instant::now() < end => std::thread::sleep(AGAIN),
            Err(_) => {
                let why = format!("{found}; it is set aside and made anew as soon as no run goes on");
                return Err(StoreError::damaged(why));
            }
        }
    };
    // Another process may have mended it.
    match whole(layout) {
        Err(error) if error.damaged => {}
        other => return other,
    }
    tracing::error!(%found, "the state database is set aside and made anew");
    let (store, mark) = (layout.store(), mending(layout));
    let taken_up = mark.exists();
    let aside = place_aside(&store, &mark)?;
    // Where it lies aside and there is one all the same, all was done but the last step.
    if !(taken_up && aside.exists() && store.exists()) {
        files::replace(&mark, aside.as_os_str().as_encoded_bytes(), 0o600)?;
        set_aside(&store, &aside)?;
        let aside = aside.exists().then_some(aside);
        let next = files::beside(&store);
        let built = build(layout, &next, aside.as_deref());
        let told = built.inspect_err(|_| files::discard(&next))?;
        keep(layout, found, aside.as_deref(), &told).inspect_err(|_| files::discard(&next))?;
        fs::rename(&next, &store).map_err(|error| files::FileError::new("put in place", &store, &error))?;
        files::sync_folder(layout.state())?;
    }
    files::remove(&mark)?;
    whole(layout)
}

/// Where it is to lie: where a mend that was broken off began to put it, else where there is none yet.
fn place_aside(store: &Path, mark: &Path) -> Result<PathBuf, StoreError> {
    match fs::read(mark) {
        Ok(marked) => return Ok(PathBuf::from(OsString::from_vec(marked))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(files::FileError::new("read", mark, &error).into()),
    }
    let named = |number: u32| with_ending(store, &format!(".damaged-{number}"));
    Ok((1..ASIDE).map(named).find(|path| !path.exists()).unwrap_or_else(|| named(ASIDE)))
}

/// The log goes first: beside a file that takes the database's place it would be played into that.
fn set_aside(store: &Path, aside: &Path) -> Result<(), StoreError> {
    for ending in BESIDE {
        rename(&with_ending(store, ending), &with_ending(aside, ending))?;
    }
    rename(store, aside)?;
    Ok(files::sync_folder(files::folder_of(store))?)
}

fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    match fs::rename(from, to) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(files::FileError::new("set aside", from, &error).into())
        }
        _ => Ok(()),
    }
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// What the new store has, and what is known to lack.
#[derive(Debug, Default)]
struct Rebuilt {
    releases: usize,
    runs: usize,
    lost: Vec<String>,
    /// Values whose hashes are those of today, whatever they were when a release lived.
    guessed: BTreeSet<String>,
}

/// One file, without a log beside it, that holds all that could be found.
fn build(layout: &Layout, next: &Path, aside: Option<&Path>) -> Result<Rebuilt, StoreError> {
    super::make_private(std::fs::OpenOptions::new(), next)?;
    let mut connection = Connection::open(next)?;
    schema::upgrade(&mut connection)?;
    let read = aside.map_or(Ok(false), |aside| salvage(&connection, aside))?;
    let releases = if read { Releases::Read } else { Releases::Lack };
    let store =
        Store { connection: std::sync::Mutex::new(connection), ballast: None, file: None, noted: None };
    let (runs, mut guessed) = (runs(layout), BTreeSet::new());
    // Of each app: whatever came before it was over when it began.
    let newest: BTreeMap<&AppId, RunId> =
        runs.iter().filter_map(|run| goal(run)).map(|goal| (&goal.app, goal.run)).collect();
    for run in &runs {
        match take_in(layout, &store, run, &newest, releases) {
            Err(error) if error.full => return Err(error),
            // What cannot be taken in of one run is no reason to lose the others.
            Err(error) => tracing::warn!(%error, "a run's events could not be taken in"),
            Ok(of_run) => guessed.extend(of_run),
        }
    }
    let rebuilt = Rebuilt { guessed, ..rebuilt(layout, &store)? };
    store.read(|connection| {
        connection.pragma_update_and_check(None, "journal_mode", "DELETE", |_| Ok(()))?;
        Ok(())
    })?;
    drop(store);
    fs::File::open(next)
        .and_then(|file| file.sync_all())
        .map_err(|error| files::FileError::new("make durable", next, &error))?;
    Ok(rebuilt)
}

/// Whether all releases could be read from the damaged store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Releases {
    /// They are on record again.
    Read,
    /// They are made from what runs have told.
    Lack,
}

/// Row by row, from both ends up to where nothing can be read. Whether all releases were.
///
/// # Errors
/// When there is no room for them.
fn salvage(into: &Connection, aside: &Path) -> Result<bool, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let from = match Connection::open_with_flags(aside, flags) {
        Ok(from) => from,
        Err(error) => {
            tracing::warn!(%error, "nothing can be read of the damaged store");
            return Ok(false);
        }
    };
    let mut has_releases = false;
    for table in TABLES {
        for order in ["ASC", "DESC"] {
            let transaction = into.unchecked_transaction()?;
            let copied = copy(&from, into, table, order);
            transaction.commit()?;
            match copied.map_err(StoreError::from) {
                Ok(()) => {
                    has_releases |= table == "releases" && order == "ASC";
                    break;
                }
                Err(error) if error.full => return Err(error),
                Err(error) => tracing::warn!(table, order, %error, "not all rows can be read"),
            }
        }
    }
    Ok(has_releases)
}

fn copy(from: &Connection, into: &Connection, table: &str, order: &str) -> rusqlite::Result<()> {
    let mut rows = from.prepare(&format!("SELECT * FROM {table} ORDER BY 1 {order}"))?;
    let columns: Vec<String> = rows.column_names().map(str::to_owned).collect();
    let marks = vec!["?"; columns.len()].join(", ");
    let insert = format!("INSERT OR IGNORE INTO {table} ({}) VALUES ({marks})", columns.join(", "));
    let mut rows = rows.query([])?;
    while let Some(row) = rows.next()? {
        let values: Vec<Value> = (0..columns.len()).map(|place| row.get(place)).collect::<Result<_, _>>()?;
        into.prepare_cached(&insert)?.execute(params_from_iter(values))?;
    }
    Ok(())
}

fn event_files(layout: &Layout) -> Vec<PathBuf> {
    let entries = fs::read_dir(layout.run_events()).into_iter().flatten().flatten();
    let is_events = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "jsonl");
    entries.map(|entry| entry.path()).filter(is_events).collect()
}

/// What each run has told, in the order in which they began: by the clock, since nothing else is left that tells.
fn runs(layout: &Layout) -> Vec<Vec<Entry>> {
    let mut runs: Vec<Vec<Entry>> = event_files(layout).iter().map(|path| entries(path)).collect();
    runs.retain(|entries| !entries.is_empty());
    runs.sort_by_key(|entries| (entries[0].at, entries[0].run));
    runs
}

/// Lines that are torn, or of which nothing is known, are left out.
fn entries(path: &Path) -> Vec<Entry> {
    let Ok(file) = fs::File::open(path) else { return Vec::new() };
    let mut entries: Vec<Entry> = Vec::new();
    for line in BufReader::new(file).lines().map_while(Result::ok) {
        let Ok(entry) = serde_json::from_str::<Entry>(&line) else { continue };
        // Without a number it was told on the way back, where nothing could be written.
        if entry.seq > entries.last().map_or(0, |last| last.seq) {
            entries.push(entry);
        }
    }
    entries
}

/// The SHA-256 of a snapshot that was begun with this entry.
fn hash_of(entries: &[Entry], begun: u64) -> Option<&ContentHash> {
    entries.iter().find_map(|entry| match &entry.what {
        What::Outcome { intent, result: StepResult::Snapshot { hash, .. } } if *intent == begun => {
            hash.as_ref()
        }
        _ => None,
    })
}

/// What of it was guessed.
fn take_in(
    layout: &Layout,
    store: &Store,
    entries: &[Entry],
    newest: &BTreeMap<&AppId, RunId>,
    releases: Releases,
) -> Result<Vec<String>, StoreError> {
    let Some(goal) = goal(entries) else { return Ok(Vec::new()) };
    let (run, first) = (goal.run, &entries[0]);
    store.begin_run(run, &goal.app, goal.verb, &goal.by, first.at)?;
    for entry in entries {
        put_entry(store, run, entry)?;
        if let What::Intent { step: Step::Snapshot { file, .. }, .. } = &entry.what {
            store.put_snapshot(&goal.app, file, hash_of(entries, entry.seq))?;
        }
    }
    let verdict = entries.iter().rev().find_map(|entry| match &entry.what {
        What::Verdict { verdict } => Some(verdict.as_ref()),
        _ => None,
    });
    let guessed = match releases {
        Releases::Lack => {
            let guessed = put_release(layout, store, goal, entries, verdict)?;
            if verdict.is_some_and(|verdict| verdict.outcome == Outcome::Done) {
                password::carry_hashes_back(store, goal)?;
            }
            guessed
        }
        Releases::Read => Vec::new(),
    };
    // One that a person was told of is not over until another one begins: what had that done again would undo what came after it.
    let is_newest = newest.get(&goal.app) == Some(&run);
    match verdict {
        Some(verdict) if is_newest && verdict.exit() == Exit::Person => store.give_up_run(verdict)?,
        Some(verdict) => store.finish_run(verdict)?,
        None if is_newest => {}
        None => store.close_run(run, entries[entries.len() - 1].at)?,
    }
    Ok(guessed)
}

fn put_entry(store: &Store, run: RunId, entry: &Entry) -> Result<(), StoreError> {
    let text = format::write(&entry.what)?;
    store.write(|transaction| {
        transaction
            .prepare_cached(
                "INSERT OR IGNORE INTO entries (run, seq, at, format, what) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![run.to_string(), entry.seq, entry.at.to_string(), format::FORMAT, text])?;
        Ok(())
    })
}

/// The release of a run, if it was not forgotten since: then its folder is gone. It has lived where the run put it live, or where it is live now. What of
/// it was guessed is told.
fn put_release(
    layout: &Layout,
    store: &Store,
    goal: &HostPlan,
    entries: &[Entry],
    verdict: Option<&Verdict>,
) -> Result<Vec<String>, StoreError> {
    let Some(release) = &goal.release else { return Ok(Vec::new()) };
    if !layout.release(&goal.app, &release.id).is_dir() {
        return Ok(Vec::new());
    }
    let known = store.releases(&goal.app)?.into_iter().find(|known| known.release.id == release.id);
    // A rehearsal makes nothing live, and no record anew: what it has tried may be live.
    let is_rehearsed = goal.verb == Verb::MigrateRehearse;
    if is_rehearsed && known.is_some() {
        return Ok(Vec::new());
    }
    let recorded = if let Some(known) = known.filter(|known| known.lived) {
        // What it lived with is not found out a second time, and otherwise: it is the same release.
        Release { variables: known.release.variables, ..release.clone() }
    } else {
        let recorded = goal.preflight.todo().map(|plan| environment::as_recorded(layout, plan, release));
        // Its env file may be damaged as the store was.
        recorded.and_then(Result::ok).unwrap_or_else(|| release.clone())
    };
    store.put_release(&recorded)?;
    let planned = |name: &VariableName| release.variables.contains_key(name);
    let guessed = recorded.variables.keys().filter(|name| !planned(name));
    let guessed = guessed.map(|name| format!("{name} of release {} of {}", release.id, goal.app)).collect();
    let live = live_on_disk(layout, &goal.app).ok().flatten();
    let is_live = live.is_some_and(|live| live.release == release.id);
    match verdict {
        Some(verdict) if (verdict.outcome == Outcome::Done && !is_rehearsed) || is_live => store.mark_live(
            &goal.app,
            &release.id,
            &migration_records(entries, goal),
            &restored(entries, goal),
        )?,
        _ => {}
    }
    Ok(guessed)
}

/// Of what is on the disk that of which nothing is on record.
fn rebuilt(layout: &Layout, store: &Store) -> Result<Rebuilt, StoreError> {
    let mut rebuilt = Rebuilt {
        runs: store.read(|connection| {
            Ok(connection.query_row("SELECT count(*) FROM runs", [], |row| row.get(0))?)
        })?,
        ..Rebuilt::default()
    };
    for app in apps_on_disk(layout) {
        let known = store.releases(&app)?;
        rebuilt.releases += known.len();
        let folders = fs::read_dir(layout.app(&app).join("releases")).into_iter().flatten().flatten();
        let names = folders.filter_map(|entry| entry.file_name().into_string().ok());
        let lost = names.filter(|name| !known.iter().any(|record| record.release.id.as_str() == name));
        rebuilt.lost.extend(lost.map(|name| format!("release {name} of {app}")));
    }
    rebuilt.lost.sort_unstable();
    Ok(rebuilt)
}

/// Apps that have a folder here, whether or not anything of them is on record.
pub(crate) fn apps_on_disk(layout: &Layout) -> Vec<AppId> {
    let below = |path: PathBuf| {
        let names = fs::read_dir(path).into_iter().flatten().flatten();
        names.filter_map(|entry| entry.file_name().into_string().ok())
    };
    let apps = layout.state().join("apps");
    let named = |app: String| {
        let environments = below(apps.join(&app));
        environments
            .filter_map(move |environment| format!("{app}/{environment}").parse().ok())
            .collect::<Vec<_>>()
    };
    below(apps.clone()).flat_map(named).collect()
}

/// Kept until a run has told it.
fn keep(
    layout: &Layout,
    found: &StoreError,
    aside: Option<&Path>,
    rebuilt: &Rebuilt,
) -> Result<(), StoreError> {
    let place = aside.map_or_else(String::new, |aside| format!(" and lies in {}", aside.display()));
    let Rebuilt { releases, runs, lost, guessed } = rebuilt;
    let lost = if lost.is_empty() {
        "what was known of older runs may be lost".to_owned()
    } else {
        format!("nothing is known any more of {}, which rollback cannot reach", lost.join(", "))
    };
    let guessed = if guessed.is_empty() {
        String::new()
    } else {
        let names: Vec<&str> = guessed.iter().map(String::as_str).collect();
        format!(
            "; what was made as {} is taken to be what the release's env file has today",
            names.join(", ")
        )
    };
    let text = format!(
        "the records of this host were made anew with {releases} releases and {runs} runs: {found}; what was there is set aside{place}; {lost}{guessed}"
    );
    Ok(files::replace(&layout.lost_records(), text.as_bytes(), 0o600)?)
}

/// What was lost, where nobody has been told yet.
pub fn untold(layout: &Layout) -> Option<String> {
    fs::read_to_string(layout.lost_records()).ok()
}

/// It is in a run's journal now.
///
/// # Errors
/// When it would be told again.
pub(crate) fn told(layout: &Layout) -> Result<(), StoreError> {
    Ok(files::remove(&layout.lost_records())?)
}

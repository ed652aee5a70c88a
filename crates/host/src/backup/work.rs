//! The process that works on an app's backups: reads its job, does it alone, and says what came of it, a reply of a session on each line.

use std::fs;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use cutover_core::backup::{
    Attempt, BackupOutcome, BackupRecord, BackupState, DrillOutcome, DrillRecord, Items, Target, is_stale,
    items,
};
use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::hash::ContentHash;
use cutover_core::journal::LockHolder;
use cutover_core::layout::Layout;
use cutover_core::names::{AppId, RunId};
use cutover_core::plan::Verb;
use cutover_core::release::{Live, Release};
use cutover_core::secret::Secrets;
use cutover_core::wire::{BackupOrder, BackupTold, BackupWork, Extent, Reply};
use jiff::Timestamp;

use super::drill;
use super::drill_record::{self, drill_lock_name};
use super::dumps::{self, Dump};
use super::gather::{Gathered, failed, gather, trouble};
use super::job::Job;
use super::proof::{Amount, prove};
use super::prose::Trouble;
use super::prune::{is_verified, known, prune};
use super::record::{self, lock_name, unreadable};
use super::restic::{Counted, Kernel, Listed, Restic, ResticError, VERIFIED, dumps_tag, new_mark, tag};
use super::restore;
use super::returning;
use super::still::Of;
use super::store::store;
use super::{recalled, redis};
use crate::files;
use crate::host::Host;
use crate::lock::{AppLock, LockError, ProcessLock};
use crate::meter::{Meter, telling};
use crate::observe;
use crate::run::end_rehearsal;
use crate::store::Store;

/// For a deploy to end that is in the way of copying databases.
const LOCK_WAIT: Duration = Duration::from_hours(1);
/// For whoever settles a run that was killed.
const SETTLED: Duration = Duration::from_secs(1);
/// For another app's backup to end that goes to the same repository.
const TURN: Duration = Duration::from_hours(12);
/// For a drill to clear up after itself.
const AFTER: Duration = Duration::from_mins(10);
/// Between two looks at who works in the same repository.
const AGAIN: Duration = Duration::from_millis(200);

/// `cutover-host backup`: does the job on its input.
pub async fn main(layout: Layout) -> ExitCode {
    if let Err(error) = rustix::process::setsid() {
        tracing::debug!(%error, "no session of its own");
    }
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    let job = read.ok().and_then(|_| serde_json::from_str::<Job>(&line).ok());
    let Some(job) = job else { return ExitCode::from(Exit::Usage.code()) };
    match Worker::open(layout, job).await {
        Ok(worker) => worker.work().await,
        Err(failure) => refuse(failure),
    }
}

fn refuse(failure: Failure) -> ExitCode {
    let exit = ExitCode::from(failure.exit.code());
    tracing::warn!(%failure, "the work on backups was not done");
    say(&Reply::Failed { failure: Box::new(failure) });
    exit
}

/// Whoever began us may have left: the work goes on.
fn say(reply: &Reply) {
    let mut text = serde_json::to_vec(reply).unwrap_or_default();
    text.push(b'\n');
    let mut out = std::io::stdout().lock();
    if let Err(error) = out.write_all(&text).and_then(|()| out.flush()) {
        tracing::debug!(%error, "nobody listens any more");
    }
}

pub(super) fn doing(what: impl Into<String>) {
    say(&Reply::Doing { what: what.into() });
}

/// What a part of a backup comes to, in bytes.
#[derive(Default)]
struct Added {
    bytes: u64,
    bytes_new: u64,
}

struct Worker {
    host: Host,
    order: BackupOrder,
    restic: Restic,
    room: PathBuf,
    started: Timestamp,
    /// What no record and no message may have in it (P6).
    values: Secrets,
    /// For as long as we work: of the app, and of the repository, which several may share.
    _locks: (ProcessLock, Option<ProcessLock>),
}

impl Worker {
    async fn open(layout: Layout, job: Job) -> Result<Self, Failure> {
        let app = job.order.app.clone();
        let name = match job.order.work {
            BackupWork::Drill { .. } => drill_lock_name(&app),
            _ => lock_name(&app),
        };
        let lock = ProcessLock::take(&layout, &name).map_err(|error| busy(&app, &error))?;
        let started = Timestamp::now();
        let is_of_newest = job.order.work == BackupWork::Drill { id: None };
        if is_of_newest {
            drill_record::begin(&layout, &app, &job.order.by, started)?;
        }
        let host = Host::open_for(&layout, &app).await.map_err(|error| error.failure())?;
        if !matches!(job.order.work, BackupWork::Drill { .. })
            && let Err(failure) = record::settle(&layout, &host.store, &app)
        {
            // Another beginning would take its mark away.
            if job.order.work == BackupWork::Run {
                return Err(failure);
            }
            tracing::warn!(%failure, "a backup that was killed is not on record yet");
        }
        let of = Of { ports: &host.ports, layout: &layout, app: &app };
        // Our lock keeps watch from it.
        let undone =
            if matches!(job.order.work, BackupWork::Drill { .. }) { Ok(()) } else { of.undo().await };
        let ready = async {
            if job.order.work == BackupWork::Run {
                record::begin(&layout, &job.order, started)?;
            }
            match undone {
                // Another volume would take its mark away; and our lock would keep watch from it for as long as we work.
                Err(failure) if job.order.work != BackupWork::List && !of.was_tried() => return Err(failure),
                Err(failure) => {
                    tracing::error!(%app, %failure, "a backup that was killed left something kept as it is");
                }
                Ok(()) => {}
            }
            Self::ready_to_work(&layout, &job, &host.ports.meter).await
        };
        match ready.await {
            Ok((restic, room, repository)) => {
                let values = job.values();
                Ok(Self { host, order: job.order, restic, room, started, values, _locks: (lock, repository) })
            }
            Err(failure) => {
                let failure = without_values(&job.values(), failure);
                if job.order.work == BackupWork::Run {
                    let outcome = BackupOutcome::Failed { why: failure.to_string() };
                    let of = record_of(&job.order, started, outcome);
                    let recorded = record::put(&layout, &host.store, &app, &of);
                    if let Err(error) = recorded {
                        tracing::warn!(%error, "a backup that could not begin is not on record");
                    }
                }
                if is_of_newest {
                    let outcome = DrillOutcome::Failed { why: failure.to_string() };
                    let record =
                        DrillRecord { by: job.order.by, started, finished: Timestamp::now(), outcome };
                    if let Err(error) = drill_record::put(&layout, &app, &record) {
                        tracing::warn!(%error, "a drill that could not begin is on record as one that was killed");
                    }
                }
                Err(failure)
            }
        }
    }

    async fn ready_to_work(
        layout: &Layout,
        job: &Job,
        meter: &Meter,
    ) -> Result<(Restic, PathBuf, Option<ProcessLock>), Failure> {
        let app = &job.order.app;
        let repository = match job.order.work {
            BackupWork::List
            | BackupWork::Beside { .. }
            | BackupWork::Recall { .. }
            | BackupWork::All { .. }
            // For as long as it reads.
            | BackupWork::Drill { .. } => None,
            BackupWork::Run | BackupWork::Verify { .. } | BackupWork::Prune => {
                Some(repository(layout, app, &job.order.settings.to).await?)
            }
        };
        let room = match job.order.work {
            BackupWork::Drill { .. } => layout.drill_room(app),
            _ => layout.backup_room(app),
        };
        empty(&room)?;
        if job.order.work == BackupWork::Run
            && let Ok(_nobody_drills) = ProcessLock::take(layout, &drill_lock_name(app))
        {
            empty(&layout.drill_room(app))?;
        }
        let temporary = room.join("restic");
        for folder in [&temporary, &layout.backup_cache()] {
            files::ensure_folder(folder, 0o700).map_err(|error| trouble(&error))?;
        }
        let restic = Restic::new(&job.order.settings, &job.values(), layout, temporary, meter.clone())?;
        Ok((restic, room, repository))
    }

    async fn work(self) -> ExitCode {
        let progress = |progress| say(&Reply::Progress { progress });
        let done = telling(&self.host.ports.meter, progress, self.carry_out()).await;
        if let Err(failure) = empty(&self.room) {
            tracing::warn!(%failure, "what was made for a backup stays until the next");
        }
        match done {
            Ok(told) => {
                say(&Reply::Backup { told: Box::new(told) });
                ExitCode::SUCCESS
            }
            Err(failure) => refuse(without_values(&self.values, failure)),
        }
    }

    async fn carry_out(&self) -> Result<BackupTold, Failure> {
        match &self.order.work {
            BackupWork::Run => self.run().await,
            BackupWork::List => {
                let all = self.listed("the backups cannot be listed").await?;
                Ok(BackupTold::Listed { backups: all.iter().map(known).collect() })
            }
            BackupWork::Verify { id } => self.verify(id.as_deref()).await,
            BackupWork::Drill { id } => self.drill(id.as_deref()).await,
            BackupWork::Beside { id, folder } => {
                let backup = self.chosen(id.as_deref(), "the backup was not put back").await?;
                doing(format!("backup {} comes to {folder}", known(&backup).id));
                let back = restore::beside(&self.restic, &backup, Path::new(folder)).await?;
                Ok(BackupTold::Restored { id: known(&backup).id, lines: back.lines })
            }
            BackupWork::Recall { id } => {
                let backup = self.chosen(id.as_deref(), "the backup was not brought here").await?;
                doing(format!("the databases of backup {} come", known(&backup).id));
                let lines =
                    recalled::as_snapshots(&self.host, &self.order.app, &self.restic, &backup).await?;
                Ok(BackupTold::Recalled { id: known(&backup).id, lines })
            }
            BackupWork::All { id } => {
                let backup = self.chosen(id.as_deref(), "the backup was not brought back").await?;
                doing(format!("backup {} comes back", known(&backup).id));
                let _alone = self.alone("the backup was not brought back").await?;
                let lines =
                    returning::all(&self.host, &self.order.app, &self.restic, &backup, &self.room).await?;
                Ok(BackupTold::Restored { id: known(&backup).id, lines })
            }
            BackupWork::Prune => {
                let what = "the old backups were not taken away";
                self.there(what).await?;
                self.unlock(what).await?;
                doing("backups beyond `keep` go");
                let pruned = prune(&self.restic, &self.order.app, self.order.settings.keep, None).await;
                let pruned = pruned.map_err(|error| self.because(&error, what))?;
                Ok(BackupTold::Pruned { gone: pruned.gone, stay: pruned.stay })
            }
        }
    }

    fn because(&self, error: &ResticError, what: &str) -> Failure {
        error.failure(what, self.restic.target())
    }

    /// Makes one, and records how it ended.
    async fn run(&self) -> Result<BackupTold, Failure> {
        let mut remarks = Vec::new();
        let mark = new_mark();
        let made = self.make(&mut remarks, &mark).await;
        let made = made.map_err(|failure| without_values(&self.values, failure));
        let outcome = match &made {
            Ok(outcome) => outcome.clone(),
            Err(failure) => BackupOutcome::Failed { why: failure.to_string() },
        };
        let record = record_of(&self.order, self.started, outcome);
        let recorded = record::put(&self.host.layout, &self.host.store, &self.order.app, &record);
        if made.is_err() {
            self.forget(&mark).await;
        }
        made?;
        recorded.map_err(|error| {
            failed("the backup was made, and is not on record")
                .because(error.to_string())
                .next("see that the host's disk has room, then `cutover backup run`")
        })?;
        self.tidy(&mut remarks, &mark).await;
        Ok(BackupTold::Made { record, remarks })
    }

    async fn make(&self, remarks: &mut Vec<String>, mark: &str) -> Result<BackupOutcome, Failure> {
        let what = "there is no new backup";
        self.ready(what, remarks).await?;
        let (release, mut gathered, dumps) = self.gathered().await?;
        for dump in &dumps {
            gathered.items.push(format!("database {}", dump.database));
            gathered
                .manifest
                .dumps
                .insert(dump.database.clone(), dump.described(mark, &self.host.ports.meter).await?);
        }
        gathered.seal(&self.room)?;
        doing(format!("{} go to {}", gathered.items.join(", "), self.restic.target().as_str()));
        let tags = ["cutover".to_owned(), tag(&self.order.app), mark.to_owned()];
        let summary =
            store(&self.restic, &gathered, &tags).await.map_err(|error| self.because(&error, what))?;
        doing("it is read back");
        let amount = Amount { files: summary.total_files_processed, bytes: summary.total_bytes_processed };
        let proved = prove(&self.restic, &summary.snapshot_id, amount, &gathered.hashes).await;
        if let Err(error) = proved {
            return Err(
                self.because(&error, "a backup was made, and does not count: it could not be read back")
            );
        }
        // Volumes went first: what is deleted from them while a dump goes its long way is named by its rows.
        let dumped = self.stored(dumps, &gathered, mark).await.map_err(|error| self.because(&error, what))?;
        let id = self
            .mark(&summary.snapshot_id, mark, gathered.manifest.dumps.len())
            .await
            .map_err(|error| self.because(&error, what))?;
        tracing::info!(app = %self.order.app, %id, %release, "a backup was made and read back");
        Ok(BackupOutcome::Verified {
            id,
            items: gathered.items,
            bytes: summary.total_bytes_processed + dumped.bytes,
            added: summary.data_added + dumped.bytes_new,
            left_out: gathered.left_out,
        })
    }

    /// What one that failed has left in the repository counts for nothing, and the next try brings its own. Pieces stay until old backups go: the next
    /// try finds those that did not change.
    async fn forget(&self, mark: &str) {
        let app = &self.order.app;
        let gone = async {
            let mut left = self.restic.list(&format!("{},{mark}", tag(app))).await?;
            left.extend(self.restic.list(&format!("{},{mark}", dumps_tag(app))).await?);
            let words: Vec<&str> =
                std::iter::once("forget").chain(left.iter().map(|it| it.id.as_str())).collect();
            if words.len() > 1 { self.restic.run_alone(&words).await.map(drop) } else { Ok(()) }
        };
        if let Err(error) = gone.await {
            tracing::warn!(
                words = error.words,
                "what a backup that failed has left in the repository stays until one is good"
            );
        }
    }

    /// A repository that can be written. One is made where none ever was; one that was there and is not any more is a disk that is not mounted.
    async fn ready(&self, what: &str, remarks: &mut Vec<String>) -> Result<(), Failure> {
        let is_there = self.restic.is_there().await.map_err(|error| self.because(&error, what))?;
        if is_there {
            if self.unlock(what).await? {
                remarks.push(
                    "a lock that an ended process had left in the repository was taken away".to_owned(),
                );
            }
            return Ok(());
        }
        let to = &self.order.settings.to;
        let known = self.host.store.backups(&self.order.app).map_err(|error| unreadable(&error))?;
        if known.iter().any(|record| record.to == *to && record.is_verified()) {
            let gone = ResticError { trouble: Trouble::NoRepository, words: String::new() };
            return Err(self
                .because(&gone, what)
                .because("there was one: backups of this app went there before"));
        }
        doing(format!("a repository is made at {}", to.as_str()));
        self.restic.init().await.map_err(|error| self.because(&error, what))?;
        remarks.push(format!(
            "a new repository was made at {}: without its password nobody reads it",
            to.as_str()
        ));
        Ok(())
    }

    async fn there(&self, what: &str) -> Result<(), Failure> {
        let gone = ResticError { trouble: Trouble::NoRepository, words: String::new() };
        match self.restic.is_there().await {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.because(&gone, what)),
            Err(error) => Err(self.because(&error, what)),
        }
    }

    async fn unlock(&self, what: &str) -> Result<bool, Failure> {
        self.restic.sweep().await.map_err(|error| self.because(&error, what))
    }

    /// Copies what cannot be taken where it lies: files under the app's lock, for moments; what servers are asked for, beside everything but
    /// migrations, which would wait for it with all who wait for them.
    async fn gathered(&self) -> Result<(String, Gathered, Vec<Dump>), Failure> {
        let app = &self.order.app;
        let alone = self.alone("there is no new backup").await?;
        let (release, mut items) = self.items()?;
        doing("databases are copied");
        let mut gathered =
            gather(&self.host, app, &release.id, &items, &self.order.settings.volumes, &self.room).await?;
        let asking = ProcessLock::take(&self.host.layout, &super::dump_lock(app));
        let asking = asking.map_err(|error| busy(app, &error))?;
        drop(alone);
        let mut dumps = Vec::new();
        for item in &items.servers {
            doing(format!("database {} is dumped", item.name));
            dumps.push(dumps::take(&self.host, app, item, &self.room).await?);
        }
        // A save may take an hour, and no migration minds it.
        drop(asking);
        // What was copied already is not saved once more.
        items.volumes.retain(|volume| !self.order.settings.volumes.contains_key(&volume.name));
        redis::save(&self.host, app, &items, &mut gathered).await?;
        let named: Vec<&str> = items.servers.iter().filter_map(|item| item.place.name.as_deref()).collect();
        for dump in &dumps {
            let loose = dump.loose.iter().map(|loose| format!("database `{}`: {loose}", dump.database));
            gathered.left_out.extend(loose);
            let others = dump.others.iter().filter(|other| !named.contains(&other.as_str()));
            gathered.left_out.extend(others.map(|other| {
                format!(
                    "`{other}`, which the server of `{}` has besides: cutover.yml names no such database",
                    dump.database
                )
            }));
        }
        Ok((release.id.to_string(), gathered, dumps))
    }

    /// Brings the dumps into the repository, and reads each back.
    async fn stored(&self, dumps: Vec<Dump>, gathered: &Gathered, mark: &str) -> Result<Added, ResticError> {
        let tags = ["cutover".to_owned(), dumps_tag(&self.order.app), mark.to_owned()];
        let mut all = Added::default();
        for dump in dumps {
            let Some(described) = gathered.manifest.dumps.get(&dump.database) else { continue };
            doing(format!("database {} goes to {}", dump.database, self.restic.target().as_str()));
            all.bytes += described.bytes;
            all.bytes_new += dump.store(described, &self.restic, &tags).await?;
        }
        Ok(all)
    }

    async fn alone(&self, what: &str) -> Result<AppLock, Failure> {
        let app = &self.order.app;
        let holder = LockHolder {
            app: app.clone(),
            run: RunId::new(uuid::Uuid::now_v7()),
            by: super::HOLDER.to_owned(),
            verb: Verb::Restart,
            since: Timestamp::now(),
            pid: std::process::id(),
        };
        let waiting = async {
            loop {
                let lock = AppLock::wait(&self.host.layout, app, &holder, |by| {
                    doing(format!("waits for the {} by {}", by.verb.as_str(), by.by));
                    end_rehearsal(&self.host.store, by, &format!("backup by {}", self.order.by));
                })
                .await?;
                // A run that was killed is settled before anybody else does anything (S9): who does so needs the lock.
                let unfinished = self.host.store.all_unfinished().unwrap_or_default();
                if !unfinished.iter().any(|(whose, _)| whose == app) {
                    return Ok(lock);
                }
                drop(lock);
                tokio::time::sleep(SETTLED).await;
            }
        };
        let taken = tokio::time::timeout(LOCK_WAIT, waiting).await;
        let taken = taken.map_err(|_| {
            failed(what)
                .because(format!("a run of {app} goes on for more than {} min", LOCK_WAIT.as_secs() / 60))
                .next("`cutover attach` follows it; then try again")
        })?;
        taken.map_err(|error: LockError| {
            failed(what).because(error.to_string()).next("see that the host's disk can be written")
        })
    }

    /// What is live, and what of it belongs into a backup.
    fn items(&self) -> Result<(Release, Items), Failure> {
        let app = &self.order.app;
        let live = observe::live_on_disk(&self.host.layout, app)?;
        let releases = self.host.store.releases(app).map_err(|error| unreadable(&error))?;
        let release =
            live.and_then(|live| releases.into_iter().find(|record| record.release.id == live.release));
        let release = release.map(|record| record.release).ok_or_else(|| {
            failed("there is nothing to back up")
                .because(format!("nothing of {app} is live on this host"))
                .next("`cutover deploy` puts a release live; `cutover backup restore` brings data back")
        })?;
        let items = items(&release, &self.host.layout.state().display().to_string());
        Ok((release, items))
    }

    /// Says of a backup, in the repository itself, that it was read back; gives its new id.
    async fn mark(&self, id: &str, mark: &str, count: usize) -> Result<String, ResticError> {
        let app = tag(&self.order.app);
        let dumps = self.restic.list(&format!("{},{mark}", dumps_tag(&self.order.app))).await?;
        if dumps.len() != count {
            return Err(ResticError {
                trouble: Trouble::Damaged,
                words: format!("{} of its {count} dumps are not there any more", count.abs_diff(dumps.len())),
            });
        }
        let tags = ["--set", "cutover", "--set", &app, "--set", mark, "--set", VERIFIED];
        self.restic.run_alone(&[&["tag"], tags.as_slice(), &[id]].concat()).await?;
        let all = self.restic.list(&format!("{app},{VERIFIED}")).await?;
        let marked =
            all.iter().find(|backup| backup.original.as_deref().is_some_and(|was| was.starts_with(id)));
        marked.map(|backup| known(backup).id).ok_or_else(|| ResticError {
            trouble: Trouble::Other,
            words: format!("backup {id} is not there any more once it was marked"),
        })
    }

    /// What is beyond `keep` goes; that it could not is no reason to doubt the backup that was made.
    async fn tidy(&self, remarks: &mut Vec<String>, mark: &str) {
        doing("backups beyond `keep` go");
        match prune(&self.restic, &self.order.app, self.order.settings.keep, Some(mark)).await {
            Ok(pruned) if pruned.gone.is_empty() => {}
            Ok(pruned) => {
                remarks.push(format!("{} older backups are gone, {} stay", pruned.gone.len(), pruned.stay));
            }
            Err(error) => remarks.push(format!("older backups stay: {}", error.words)),
        }
    }

    async fn listed(&self, what: &str) -> Result<Vec<Listed>, Failure> {
        self.there(what).await?;
        self.restic.list(&tag(&self.order.app)).await.map_err(|error| self.because(&error, what))
    }

    /// The one that is meant: by its id, else the newest that counts.
    async fn chosen(&self, id: Option<&str>, what: &str) -> Result<Listed, Failure> {
        let all = self.listed(what).await?;
        let is_meant = |backup: &&Listed| match id {
            Some(id) => !id.is_empty() && backup.id.starts_with(id),
            None => is_verified(backup),
        };
        let found: Vec<&Listed> = all.iter().filter(is_meant).collect();
        match (id, found.as_slice()) {
            (None, [newest, ..]) | (Some(_), [newest]) => Ok((*newest).clone()),
            (Some(id), [_, ..]) => Err(failed(what)
                .because(format!("`{id}` may be several of them"))
                .next("`cutover backup list` shows their whole ids")),
            (Some(id), []) => Err(failed(what)
                .because(format!("there is no backup `{id}` of {}", self.order.app))
                .next("`cutover backup list` shows those that there are")),
            (None, []) => Err(failed(what)
                .because(format!(
                    "no backup of {} counts: none was read back after it was made",
                    self.order.app
                ))
                .next(
                    "`cutover backup run` makes one; `cutover backup list` shows all, and each can be named",
                )),
        }
    }

    /// Puts a backup back beside what is live, and records how that ended, where it is the newest that counts.
    async fn drill(&self, id: Option<&str>) -> Result<BackupTold, Failure> {
        let (app, started) = (&self.order.app, Timestamp::now());
        let layout = &self.host.layout;
        let mut is_newest = id.is_none();
        let tried = async {
            let backup = self.chosen(id, "there was no drill").await?;
            if id.is_some() {
                is_newest = drill::is_newest(&self.listed("there was no drill").await?, &backup);
                if is_newest {
                    drill_record::begin(layout, app, &self.order.by, started)?;
                }
            }
            Ok((known(&backup).id, self.tried(&backup).await?))
        };
        // Each step has its own end; what has none is not waited for either.
        let tried = tokio::time::timeout(drill::WHOLE + AFTER, tried).await.unwrap_or_else(|_| {
            let failure = failed("the drill was broken off: it took too long");
            Err(failure.next("`cutover doctor` tells what does not answer; then `cutover backup drill`"))
        });
        let tried = tried.map_err(|failure| without_values(&self.values, failure));
        let outcome = match &tried {
            Ok((id, lines)) => DrillOutcome::Good { id: id.clone(), lines: lines.clone() },
            Err(failure) => DrillOutcome::Failed { why: failure.to_string() },
        };
        let record = DrillRecord { by: self.order.by.clone(), started, finished: Timestamp::now(), outcome };
        let recorded = if is_newest { drill_record::put(layout, app, &record) } else { Ok(()) };
        if let Err(error) = &recorded {
            tracing::warn!(%error, "how a drill ended is not on record");
        }
        let (id, mut lines) = tried?;
        recorded?;
        if !is_newest {
            lines.push("not on record: it is not the newest that was read back".to_owned());
        }
        Ok(BackupTold::Drilled { id, lines })
    }

    /// Deploys, backups and restores go on beside it: what it makes has names of its own.
    async fn tried(&self, backup: &Listed) -> Result<Vec<String>, Failure> {
        let app = &self.order.app;
        let end = tokio::time::Instant::now() + drill::WHOLE;
        doing(format!("backup {} comes back for a trial", known(backup).id));
        drop(self.alone("there was no drill").await?);
        let (_, items) = self.items()?;
        // What it reads is not cleared away meanwhile.
        let reading = repository(&self.host.layout, app, &self.order.settings.to).await?;
        let trial = drill::Trial {
            host: &self.host,
            app,
            restic: &self.restic,
            room: &self.room,
            items: &items,
            drill: self.order.settings.drill.as_ref(),
            end,
        };
        trial.of(backup, reading).await
    }

    /// Reads all of the repository, and puts a backup back for a moment.
    async fn verify(&self, id: Option<&str>) -> Result<BackupTold, Failure> {
        let what = "the backups are not as they should be";
        self.there(what).await?;
        self.unlock(what).await?;
        doing("every piece in the repository is read");
        let counted = Counted { what: "read", by: Kernel::Read, of: Extent::Not };
        let check = async || self.restic.run_counted(&["check", "--read-data"], counted).await;
        self.restic.waiting(check).await.map_err(|error| self.because(&error, what))?;
        let backup = self.chosen(id, what).await?;
        doing(format!("backup {} is put back for a moment", known(&backup).id));
        let scratch = self.room.join("scratch");
        let back = restore::beside(&self.restic, &backup, &scratch).await?;
        let databases = back
            .found
            .manifest
            .databases
            .keys()
            .map(|name| format!("database {name}: put back, integrity_check: ok"));
        let volumes = back.found.manifest.volumes.keys().map(|name| format!("volume {name}: put back"));
        let dumps = back.found.manifest.dumps.keys();
        let dumps = dumps.map(|name| format!("database {name}: its dump came back, every byte"));
        let mut lines = vec!["repository: every piece is what was written".to_owned()];
        lines.extend(databases.chain(dumps).chain(volumes));
        Ok(BackupTold::Verified { id: known(&backup).id, lines })
    }
}

/// What client programs and servers say may have in it what they were told.
fn without_values(values: &Secrets, failure: Failure) -> Failure {
    let all = |lines: Vec<String>| lines.iter().map(|line| values.redact(line)).collect();
    Failure {
        exit: failure.exit,
        what: values.redact(&failure.what),
        cause: all(failure.cause),
        state: failure.state,
        next: all(failure.next),
        log: all(failure.log),
    }
}

fn record_of(order: &BackupOrder, started: Timestamp, outcome: BackupOutcome) -> BackupRecord {
    BackupRecord {
        to: order.settings.to.clone(),
        by: order.by.clone(),
        started,
        finished: Timestamp::now(),
        outcome,
    }
}

/// What the host knows of the backups of an app of which this is live.
pub(crate) fn state(
    layout: &Layout,
    store: &Store,
    app: &AppId,
    live: Option<&Live>,
) -> Result<BackupState, Failure> {
    let records = record::all(layout, store, app)?;
    let settings = settings_of(store, app, live)?;
    let verified = records.iter().find(|record| record.is_verified()).cloned();
    let (drill, now) = (drill_record::newest(layout, app), Timestamp::now());
    let stale = settings.as_ref().is_some_and(|settings| {
        let good = drill.as_ref().filter(|drill| drill.is_good()).map(|drill| drill.started);
        let wanted = settings.drill.as_ref().and_then(|drill| drill.every);
        is_stale(settings.every, verified.as_ref().map(|record| record.started), now)
            || wanted.is_some_and(|every| is_stale(every, good, now))
    });
    let every = settings.map(|settings| u64::try_from(settings.every.as_millis()).unwrap_or(u64::MAX));
    Ok(BackupState { every_ms: every, last: records.into_iter().next(), verified, stale, drill })
}

/// The backups that the live release wants.
pub(crate) fn settings(
    layout: &Layout,
    store: &Store,
    app: &AppId,
) -> Result<Option<cutover_core::backup::BackupSettings>, Failure> {
    settings_of(store, app, observe::live_on_disk(layout, app)?.as_ref())
}

fn settings_of(
    store: &Store,
    app: &AppId,
    live: Option<&Live>,
) -> Result<Option<cutover_core::backup::BackupSettings>, Failure> {
    let Some(live) = live else { return Ok(None) };
    let releases = store.releases(app).map_err(|error| unreadable(&error))?;
    let live = releases.into_iter().find(|record| record.release.id == live.release);
    Ok(live.and_then(|record| record.release.backup))
}

/// Whether a backup of the app counts there, so that it can be put back for a trial.
pub(crate) fn has_one(store: &Store, app: &AppId, to: &Target) -> Result<bool, Failure> {
    let records = store.backups(app).map_err(|error| unreadable(&error))?;
    Ok(records.iter().any(|record| record.is_verified() && record.to == *to))
}

/// The newest that was tried.
pub(crate) fn last(layout: &Layout, store: &Store, app: &AppId) -> Result<Option<Attempt>, Failure> {
    let records = record::all(layout, store, app)?;
    let failures = records.iter().take_while(|record| !record.is_verified()).count();
    let failures = u32::try_from(failures).unwrap_or(u32::MAX);
    Ok(records.first().map(|record| Attempt { at: record.started, failures }))
}

fn busy(app: &AppId, error: &LockError) -> Failure {
    let why = match error {
        LockError::Running { pid: Some(pid), .. } => format!("process {pid} works on them"),
        LockError::Running { .. } => "another process works on them".to_owned(),
        other => other.to_string(),
    };
    let what = match error {
        LockError::Running { process, .. } if *process == drill_lock_name(app) => "drills",
        _ => "works on",
    };
    Failure::new(Exit::Locked, format!("somebody {what} the backups of {app} already"))
        .because(why)
        .while_serving("what was serving goes on")
        .next("wait for its end; `cutover status` tells what came of it")
}

/// Of a repository only one process of this host makes something else at a time; it is waited for.
async fn repository(layout: &Layout, app: &AppId, to: &Target) -> Result<ProcessLock, Failure> {
    let hash = ContentHash::of(to.as_str().as_bytes());
    let name = format!("repository.{}", &hash.to_string()[..16]);
    let end = tokio::time::Instant::now() + TURN;
    let mut told = false;
    loop {
        match ProcessLock::take(layout, &name) {
            Ok(lock) => return Ok(lock),
            Err(LockError::Running { pid, .. }) if tokio::time::Instant::now() < end => {
                if !told {
                    let who =
                        pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
                    doing(format!("waits for {who}, which works in the same repository"));
                    told = true;
                }
                tokio::time::sleep(AGAIN).await;
            }
            Err(error) => return Err(busy(app, &error)),
        }
    }
}

/// What a process that was killed left in the room goes, too.
fn empty(room: &Path) -> Result<(), Failure> {
    let emptied = match fs::remove_dir_all(room) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(files::FileError::new("empty", room, &error))
        }
        _ => files::ensure_folder(room, 0o700),
    };
    emptied.map_err(|error| trouble(&error))
}

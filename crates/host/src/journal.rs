//! The journal of one run: intent, effect, outcome. The only mouth of a run: what is written here is at once what people see.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::journal::{Entry, Step, StepResult, What};
use cutover_core::names::RunId;
use cutover_core::plan::Stage;
use jiff::Timestamp;
use tokio::time::Instant;

use crate::files::FileError;
use crate::installation::InstallationError;
use crate::ports::{Certainty, DatabaseError, RouterError, RouterErrorKind, RuntimeError, RuntimeErrorKind};
use crate::runtime::process::artifact::ArtifactError;
use crate::store::{Store, StoreError};

/// Who hears each entry once it is written: the event file, and what a test puts here.
pub type Listener = Box<dyn Fn(&Entry) + Send + Sync>;

/// The journal of one run.
pub struct Journal {
    store: Arc<Store>,
    run: RunId,
    heard: Listener,
    /// Going back acts even where nothing can be written any more (S24); going forward does not.
    back: AtomicBool,
    /// Cancel is read between acts as long as it can be obeyed (S21).
    cancellable: AtomicBool,
    /// The acts that were begun and have not ended, in the order of their beginning: what a stage that is dropped was at.
    under_way: Mutex<BTreeMap<u64, UnderWay>>,
}

/// An act between its intent and its outcome.
#[derive(Debug, Clone)]
struct UnderWay {
    what: String,
    exit: Exit,
    since: Instant,
}

/// Why an act did not work.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct Trouble {
    /// In whose words soever; without secrets.
    pub message: String,
    /// It may have happened all the same.
    pub unknown: bool,
    /// What helps, where it is known.
    pub remedy: Option<&'static str>,
}

impl Trouble {
    /// It did not happen, and nothing more is known than this.
    pub fn plain(message: impl Into<String>) -> Self {
        Self { message: message.into(), unknown: false, remedy: None }
    }
}

const MAKE_ROOM: &str = "make room on the disk, then do the same again";
const SEE_RUNTIME: &str = "see that what should have answered runs (a container engine: `systemctl status docker`), then do the same again";
const START_PROXY: &str =
    "see that proxy and watch run (`cutover-host up` starts them; proxy.log says more), then deploy again";

/// How a stage ends that does not end well. It hands nothing back: recovery looks again.
#[derive(Debug, Clone)]
pub enum StageError {
    /// The four answers so far.
    Failed(Box<Failure>),
    /// Somebody asked for it.
    Cancelled {
        /// Who.
        by: String,
    },
}

impl StageError {
    /// The failure as it is journalled.
    pub fn failure(self) -> Failure {
        match self {
            Self::Failed(failure) => *failure,
            Self::Cancelled { by } => Failure::new(Exit::Cancelled, "the deploy was cancelled")
                .because(format!("{by} asked for it"))
                .next("start it again when it is wanted"),
        }
    }
}

impl From<Failure> for StageError {
    fn from(failure: Failure) -> Self {
        Self::Failed(Box::new(failure))
    }
}

impl Journal {
    /// The journal of `run`; `heard` hears each entry.
    pub fn new(store: Arc<Store>, run: RunId, heard: Listener) -> Self {
        Self {
            store,
            run,
            heard,
            back: AtomicBool::new(false),
            cancellable: AtomicBool::new(false),
            under_way: Mutex::default(),
        }
    }

    /// Whose journal it is.
    pub fn run(&self) -> RunId {
        self.run
    }

    /// Everything written so far.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn entries(&self) -> Result<Vec<Entry>, StoreError> {
        self.store.entries(self.run, 1)
    }

    /// From now on the way goes back: acts happen even where nothing can be written.
    pub fn go_back(&self) {
        self.back.store(true, Ordering::Relaxed);
        self.cancellable.store(false, Ordering::Relaxed);
        // What a cancel dropped is nothing that the way back waits for.
        self.under_way().clear();
    }

    /// Whether a cancel is obeyed from here on.
    pub fn obey_cancel(&self, obey: bool) {
        self.cancellable.store(obey && !self.back.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Writes an entry.
    ///
    /// # Errors
    /// When it cannot be written and the way goes forward.
    pub fn write(&self, what: What) -> Result<u64, StageError> {
        match self.store.append(self.run, Timestamp::now(), &what) {
            Ok(entry) => {
                (self.heard)(&entry);
                Ok(entry.seq)
            }
            Err(error) if self.back.load(Ordering::Relaxed) => {
                tracing::warn!(%error, "the journal cannot be written; the way back goes on");
                (self.heard)(&Entry { run: self.run, seq: 0, at: Timestamp::now(), what });
                Ok(0)
            }
            Err(error) => Err(unwritable(&error).into()),
        }
    }

    /// Intent, effect, outcome.
    ///
    /// # Errors
    /// A cancel that was asked for before the act; the effect's own trouble; a journal that cannot be written.
    pub async fn act<T, E: Into<Trouble>>(
        &self,
        stage: Stage,
        step: Step,
        effect: impl Future<Output = Result<(T, StepResult), E>>,
    ) -> Result<T, StageError> {
        self.check_cancel()?;
        let (what, exit) = (describe(&step), exit_of(stage, &step));
        let intent = self.write(What::Intent { stage, step })?;
        let number = self.begin(UnderWay { what: what.clone(), exit, since: Instant::now() });
        let ended = effect.await;
        self.under_way().remove(&number);
        match ended {
            Ok((value, result)) => {
                self.write(What::Outcome { intent, result })?;
                Ok(value)
            }
            Err(error) => {
                let trouble: Trouble = error.into();
                self.write(What::Broke { intent, error: trouble.message.clone(), unknown: trouble.unknown })?;
                Err(failed(stage, exit, &what, &trouble).into())
            }
        }
    }

    /// Writes the intent of an act that comes after the verdict. Its outcome is not written: the verdict is the last word.
    ///
    /// # Errors
    /// A journal that cannot be written.
    pub fn intend(&self, stage: Stage, step: Step) -> Result<(), StageError> {
        self.write(What::Intent { stage, step }).map(drop)
    }

    fn under_way(&self) -> MutexGuard<'_, BTreeMap<u64, UnderWay>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes an act that begins; its number among those that go on.
    fn begin(&self, act: UnderWay) -> u64 {
        let mut all = self.under_way();
        let number = all.last_key_value().map_or(0, |(last, _)| last + 1);
        all.insert(number, act);
        number
    }

    /// How a stage failed that was dropped at its deadline.
    pub(crate) fn hung(&self, stage: Stage, limit: Duration) -> Failure {
        // The one that was begun first has been waited for the longest.
        let act = std::mem::take(&mut *self.under_way()).pop_first().map(|(_, act)| act);
        let exit = act.as_ref().map_or_else(|| exit_of_stage(stage), |act| act.exit);
        let what = format!("stage {stage} hung: it was given up after {} s", limit.as_secs());
        let failure = match act {
            Some(act) => Failure::new(exit, what).because(format!(
                "{} was begun {} s before and did not end",
                act.what,
                act.since.elapsed().as_secs()
            )),
            None => Failure::new(exit, what).because("what it waited for did not come"),
        };
        failure
            .next("see that the disk, the proxy and the container engine of this host answer; then try again")
    }

    /// Fails where a cancel was asked for and can be obeyed.
    ///
    /// # Errors
    /// The cancel.
    pub fn check_cancel(&self) -> Result<(), StageError> {
        if !self.cancellable.load(Ordering::Relaxed) {
            return Ok(());
        }
        match self.store.cancel_asked(self.run) {
            Ok(Some(by)) => Err(StageError::Cancelled { by }),
            Ok(None) => Ok(()),
            Err(error) => Err(unwritable(&error).into()),
        }
    }

    /// Says something worth reading.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn note(&self, stage: Stage, text: impl Into<String>) -> Result<(), StageError> {
        self.write(What::Note { stage, text: text.into() }).map(drop)
    }

    /// A step whose failure is told and changes nothing.
    pub async fn best_effort<T, E: Into<Trouble>>(
        &self,
        stage: Stage,
        step: Step,
        effect: impl Future<Output = Result<(T, StepResult), E>>,
    ) -> Option<T> {
        match self.act(stage, step, effect).await {
            Ok(value) => Some(value),
            Err(error) => {
                let failure = error.failure();
                let warned = self.write(What::Warning { stage, text: failure.to_string() });
                if let Err(error) = warned {
                    tracing::warn!(?error, "a warning could not be written");
                }
                None
            }
        }
    }
}

fn unwritable(error: &StoreError) -> Failure {
    not_written("the journal", error.full, error)
}

/// A file without which nothing goes forward.
pub(crate) fn unwritten(what: &str, error: &FileError) -> Failure {
    not_written(what, error.full, error)
}

fn not_written(what: &str, full: bool, error: &dyn std::fmt::Display) -> Failure {
    let failure = Failure::new(Exit::Failed, format!("{what} cannot be written")).because(error.to_string());
    if full {
        failure.next("make room on the disk where the state lies, then do the same again")
    } else {
        failure
    }
}

/// How a run ends whose act did not work. What is done to a database counts as that in every stage: `SQLite` is snapshot and migrated
/// inside the handover.
fn exit_of(stage: Stage, step: &Step) -> Exit {
    match step {
        Step::Rehearse { .. }
        | Step::Pending { .. }
        | Step::Snapshot { .. }
        | Step::Migrate { .. }
        | Step::Inspect { .. }
        | Step::Restore { .. } => Exit::Migration,
        _ => exit_of_stage(stage),
    }
}

fn exit_of_stage(stage: Stage) -> Exit {
    match stage {
        Stage::Snapshot | Stage::Migrate => Exit::Migration,
        Stage::Backing | Stage::Start | Stage::Check | Stage::Handover | Stage::Verify | Stage::Bake => {
            Exit::NotHealthy
        }
        Stage::Lock | Stage::Preflight | Stage::Switch | Stage::Drain | Stage::Record => Exit::Failed,
    }
}

fn failed(stage: Stage, exit: Exit, what: &str, trouble: &Trouble) -> Failure {
    let failure =
        Failure::new(exit, format!("stage {stage}: {what} did not work")).because(trouble.message.clone());
    trouble.remedy.into_iter().fold(failure, Failure::next)
}

/// An act in words.
pub fn describe(step: &Step) -> String {
    match step {
        Step::Admit => "writing the release's env file".to_owned(),
        Step::Fetch { image } => format!("fetching image {image}"),
        Step::Network { name } => format!("making network {name}"),
        Step::Volume { name } => format!("making volume {name}"),
        Step::Create { instance } => format!("creating {instance}"),
        Step::Start { instance } => format!("starting {instance}"),
        Step::Join { instance, network } => format!("letting {instance} join {network}"),
        Step::Leave { instance, network } => format!("letting {instance} leave {network}"),
        Step::Restart { instance, .. } => format!("setting the restart policy of {instance}"),
        Step::Stop { instance } => format!("stopping {instance}"),
        Step::Remove { instance } => format!("removing {instance}"),
        Step::Rehearse { database } => format!("rehearsing the migration of `{database}`"),
        Step::Pending { database } => format!("asking whether a migration of `{database}` is pending"),
        Step::Hold { .. } => "holding requests".to_owned(),
        Step::Quiet { .. } => "waiting for requests in flight".to_owned(),
        Step::Snapshot { database, .. } => format!("taking a snapshot of `{database}`"),
        Step::Migrate { database } => format!("migrating `{database}`"),
        Step::Inspect { database } => format!("looking at what the migration left in `{database}`"),
        Step::Restore { database, .. } => format!("putting `{database}` back"),
        Step::Password { service, .. } => format!("changing a password in the server of `{service}`"),
        Step::Switch => "switching the routes".to_owned(),
        Step::Live => "writing what is live".to_owned(),
        Step::Unroute => "taking the routes out".to_owned(),
        Step::Discard { what } => format!("removing {what}"),
        Step::Record => "recording the release".to_owned(),
    }
}

impl From<RuntimeError> for Trouble {
    fn from(error: RuntimeError) -> Self {
        let remedy = match error.kind {
            RuntimeErrorKind::Full => Some(MAKE_ROOM),
            RuntimeErrorKind::Unreachable => Some(SEE_RUNTIME),
            _ => None,
        };
        Self { unknown: error.certainty == Certainty::Unknown, remedy, message: error.message }
    }
}

impl From<RouterError> for Trouble {
    fn from(error: RouterError) -> Self {
        let remedy = match error.kind {
            RouterErrorKind::Full => Some(MAKE_ROOM),
            RouterErrorKind::Unreachable => Some(START_PROXY),
            _ => None,
        };
        Self { unknown: error.certainty == Certainty::Unknown, remedy, message: error.message }
    }
}

impl From<DatabaseError> for Trouble {
    fn from(error: DatabaseError) -> Self {
        let unknown = error.certainty == Certainty::Unknown;
        Self { unknown, remedy: error.full.then_some(MAKE_ROOM), message: error.message }
    }
}

impl From<FileError> for Trouble {
    fn from(error: FileError) -> Self {
        Self { remedy: error.full.then_some(MAKE_ROOM), ..Self::plain(error.message) }
    }
}

impl From<InstallationError> for Trouble {
    fn from(error: InstallationError) -> Self {
        Self::plain(error.to_string())
    }
}

impl From<ArtifactError> for Trouble {
    fn from(error: ArtifactError) -> Self {
        Self { remedy: error.is_full().then_some(MAKE_ROOM), ..Self::plain(error.to_string()) }
    }
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self { remedy: error.full.then_some(MAKE_ROOM), ..Self::plain(error.message) }
    }
}

#[cfg(test)]
mod tests {
    use cutover_core::plan::Verb;

    use super::*;

    #[test]
    fn given_a_snapshot_that_fails_inside_the_handover_then_the_exit_is_that_of_a_migration() {
        let database: cutover_core::names::DatabaseName = "main".parse().unwrap();
        let snapshot = Step::Snapshot { database: database.clone(), file: "main.db".to_owned() };
        assert_eq!(exit_of(Stage::Handover, &snapshot), Exit::Migration);
        assert_eq!(exit_of(Stage::Handover, &Step::Migrate { database }), Exit::Migration);
        assert_eq!(exit_of(Stage::Handover, &Step::Hold { services: Vec::new() }), Exit::NotHealthy);
        assert_eq!(exit_of(Stage::Switch, &Step::Switch), Exit::Failed);
    }

    #[tokio::test]
    async fn given_acts_that_go_on_at_once_when_their_stage_is_given_up_then_the_first_of_them_is_named() {
        let run = RunId::new(uuid::Uuid::now_v7());
        let store = Store::in_memory().unwrap();
        store.begin_run(run, &"shop/local".parse().unwrap(), Verb::Deploy, "ann", Timestamp::now()).unwrap();
        let journal = Journal::new(Arc::new(store), run, Box::new(|_| ()));
        let never = |name: &str| {
            let effect = std::future::pending::<Result<((), StepResult), Trouble>>();
            journal.act(Stage::Drain, Step::Stop { instance: name.parse().unwrap() }, effect)
        };
        let done = async { Ok::<_, Trouble>(((), StepResult::Done)) };
        let ends = journal.act(Stage::Drain, Step::Stop { instance: "api".parse().unwrap() }, done);
        let all = async { tokio::join!(ends, never("web"), never("bot")) };

        assert!(tokio::time::timeout(Duration::from_millis(10), all).await.is_err());

        let failure = journal.hung(Stage::Drain, Duration::from_secs(40));
        assert!(failure.cause[0].starts_with("stopping web was begun"), "{failure:?}");
        let nothing = journal.hung(Stage::Drain, Duration::from_secs(40));
        assert_eq!(nothing.cause, ["what it waited for did not come"]);
    }

    #[tokio::test]
    async fn given_an_act_that_a_cancel_dropped_when_the_way_back_hangs_then_it_is_not_told_by_that_act() {
        let run = RunId::new(uuid::Uuid::now_v7());
        let store = Store::in_memory().unwrap();
        store.begin_run(run, &"shop/local".parse().unwrap(), Verb::Deploy, "ann", Timestamp::now()).unwrap();
        let journal = Journal::new(Arc::new(store), run, Box::new(|_| ()));
        let never = std::future::pending::<Result<((), StepResult), Trouble>>();
        let fetch = journal.act(Stage::Preflight, Step::Fetch { image: "web".to_owned() }, never);
        assert!(tokio::time::timeout(Duration::from_millis(10), fetch).await.is_err());

        journal.go_back();

        let failure = journal.hung(Stage::Drain, Duration::from_secs(40));
        assert_eq!(failure.cause, ["what it waited for did not come"]);
    }
}

//! Giving up: a person is told, and the run goes on being one that is to be settled.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Mutex;

use cutover_core::config::settings::Verify;
use cutover_core::gate::{Check, Probe};
use cutover_core::names::{AppId, RunId};
use cutover_core::plan::{RouteCheck, Stage, Verb};
use cutover_core::release::RuntimeKind;

use super::*;
use crate::meter::Meter;
use crate::ports::{ProbeTarget, Prober};
use crate::watch::fake::{FakeRouter, FakeRuntime, NoDatabase};

/// No probe: these runs end before they would need one.
struct Nothing;

#[async_trait]
impl Prober for Nothing {
    async fn probe(&self, _: &ProbeTarget, _: &Check, _: Duration) -> Probe {
        unreachable!()
    }
    async fn route(&self, _: &RouteCheck, _: Duration) -> Probe {
        unreachable!()
    }
    async fn verify(&self, _: &RouteCheck, _: &Verify, _: &ProbeTarget) -> Probe {
        unreachable!()
    }
}

/// A host that can be looked at only sometimes; after the last answer it can.
#[derive(Default)]
struct Sometimes(Mutex<VecDeque<bool>>);

#[async_trait]
impl Look for Sometimes {
    async fn look(&self) -> Result<HostState, Failure> {
        if self.0.lock().unwrap().pop_front().unwrap_or(true) {
            Ok(empty())
        } else {
            Err(Failure::new(Exit::Failed, "the engine does not answer"))
        }
    }

    async fn live(&self) -> Result<Option<Live>, Failure> {
        self.look().await.map(|found| found.live)
    }
}

fn empty() -> HostState {
    HostState {
        app: app(),
        installation: "0123456789abcdef".to_owned(),
        salt: "salt".to_owned(),
        root: "/srv/cutover/lib".to_owned(),
        now: Timestamp::UNIX_EPOCH,
        live: None,
        table: None,
        instances: Vec::new(),
        releases: Vec::new(),
        variables: None,
        placeholders: BTreeSet::new(),
        env_file_mode: None,
        env_file_problems: Vec::new(),
        artifacts: BTreeSet::new(),
        images: BTreeMap::new(),
        engine: None,
        taken: BTreeSet::new(),
        ports: cutover_core::addresses::Ports::default(),
        databases: BTreeMap::new(),
        disk_free: 0,
        unfinished: None,
        lock: None,
        verdicts: Vec::new(),
        listeners: Vec::new(),
        remarks: Vec::new(),
        leftovers: None,
        snapshots: None,
        written: BTreeMap::new(),
    }
}

fn app() -> AppId {
    "shop/local".parse().unwrap()
}

/// A run that has written something, and whose process died.
struct Dead {
    _folder: tempfile::TempDir,
    layout: Layout,
    store: Arc<Store>,
    run: RunId,
    ports: Ports,
}

impl Dead {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::in_memory().unwrap());
        let run = RunId::new(uuid::Uuid::now_v7());
        store.begin_run(run, &app(), Verb::Deploy, "ann", Timestamp::UNIX_EPOCH).unwrap();
        store.append(run, Timestamp::UNIX_EPOCH, &What::Entered { stage: Stage::Lock }).unwrap();
        let ports = Ports {
            process: Arc::new(FakeRuntime::new(RuntimeKind::Process)),
            container: None,
            router: Arc::new(FakeRouter::default()),
            database: Arc::new(NoDatabase),
            prober: Arc::new(Nothing),
            meter: Meter::default(),
        };
        Self { layout: Layout::under(folder.path()), _folder: folder, store, run, ports }
    }

    async fn settle(&self, look: &dyn Look) -> Verdict {
        let journal = Journal::new(self.store.clone(), self.run, Box::new(|_| ()));
        let settling = Settling {
            ports: &self.ports,
            journal: &journal,
            layout: &self.layout,
            store: &self.store,
            locks: &MigrationLocks::default(),
            app: &app(),
            look,
        };
        settle(&settling).await
    }
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_restarts_is_waited_for() {
    let dead = Dead::new();

    let verdict = dead.settle(&Sometimes(Mutex::new(VecDeque::from([false; 20])))).await;

    assert_eq!(verdict.exit(), Exit::Failed, "it was looked at, and had no plan");
    assert!(dead.store.is_over(dead.run).unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_host_that_cannot_be_looked_at_leaves_the_run_unfinished_and_its_outcome_comes_later() {
    let dead = Dead::new();

    let told = dead.settle(&Sometimes(Mutex::new(VecDeque::from([false; 1_000])))).await;

    assert_eq!(told.exit(), Exit::Person);
    assert_eq!(dead.store.unfinished(&app()).unwrap(), Some(dead.run), "watch keeps off what it left");
    assert_eq!(dead.store.verdict(dead.run).unwrap().unwrap().exit(), Exit::Person);

    let settled = dead.settle(&Sometimes::default()).await;

    assert_eq!(settled.exit(), Exit::Failed);
    assert_eq!(dead.store.unfinished(&app()).unwrap(), None);
    let history = dead.store.verdicts(&app(), 9).unwrap();
    assert_eq!(history.iter().map(Verdict::exit).collect::<Vec<_>>(), [Exit::Failed], "one run, one outcome");
}

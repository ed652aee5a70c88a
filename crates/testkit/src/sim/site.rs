//! Deploys on the simulated host: plan, carry out, die, settle, and the promises to be checked afterwards.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use cutover_core::config::settings::Config;
use cutover_core::config::{Selection, Sources, parse};
use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::hash::ContentHash;
use cutover_core::journal::What;
use cutover_core::layout::Layout;
use cutover_core::names::{AppId, HostName, RunId};
use cutover_core::plan::{HostPlan, Verb, lifecycle, plan};
use cutover_core::release::{Content, Live, Provenance};
use cutover_core::request::{Ancestry, Request, Stamp};
use cutover_core::state::{FoundTable, HostState, Role, World};
use cutover_core::verdict::Verdict;
use cutover_host::journal::Journal;
use cutover_host::settle::{Look, Settling, carry_out, settle};
use cutover_host::stages::{Act, EnvChange};
use cutover_host::store::Store;
use cutover_routes::RouteState;
use jiff::Timestamp;

use super::faults::FaultPlan;
use super::machine::{Behaviour, Machine};
use super::ports::{Simulated, instances};

/// A promise that did not hold.
pub type Broken = String;

/// How a run on the simulated host ended.
#[derive(Debug)]
pub struct Outcome {
    /// Its verdict.
    pub verdict: Verdict,
    /// Calls of ports it made.
    pub calls: u64,
}

/// An app on a simulated host.
pub struct Site {
    machine: Arc<Mutex<Machine>>,
    store: Arc<Store>,
    layout: Layout,
    app: AppId,
    text: String,
    runs: u64,
    _folder: tempfile::TempDir,
}

impl Site {
    /// A site with this cutover.yml, nothing deployed.
    ///
    /// # Errors
    /// When the text is no configuration, or there is no place for files.
    pub fn new(text: &str) -> Result<Self> {
        // Memory where there is some: thousands of runs need no disk.
        let memory = std::path::Path::new("/dev/shm");
        let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }?;
        let layout = Layout::under(folder.path());
        let config = configuration(text)?;
        let mut machine = Machine::new();
        for (name, service) in &config.services {
            if service.strategy == cutover_core::config::settings::Strategy::Handover {
                machine.singletons.push(name.to_string());
            }
        }
        Ok(Self {
            machine: Arc::new(Mutex::new(machine)),
            store: Arc::new(Store::in_memory()?),
            layout,
            app: config.id,
            text: text.to_owned(),
            runs: 0,
            _folder: folder,
        })
    }

    /// The simulated host.
    pub fn machine(&self) -> std::sync::MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// A request to deploy a version; each service's artifact is named after it, so that a behaviour can be given to it.
    ///
    /// # Errors
    /// When the text is no configuration.
    pub fn deploy(&self, version: &str, behaviour: Behaviour) -> Result<Request> {
        let config = configuration(&self.text)?;
        let mut contents = BTreeMap::new();
        for name in config.services.keys().chain(config.backing.keys()) {
            let hash = ContentHash::of_parts(&["artifact", name.as_str(), version]);
            std::fs::create_dir_all(self.layout.artifact(&hash))?;
            self.machine().behaviours.insert(hash.as_str().to_owned(), behaviour);
            contents.insert(name.clone(), Content::Artifact { hash });
        }
        Ok(Request { contents, ..self.ask(Verb::Deploy) })
    }

    /// A request of another verb.
    pub fn ask(&self, verb: Verb) -> Request {
        Request {
            verb,
            by: "sweep".to_owned(),
            services: std::collections::BTreeSet::new(),
            source: Provenance::default(),
            contents: BTreeMap::new(),
            shipped: BTreeMap::new(),
            ancestry: Ancestry::Unknown,
            overlay: BTreeMap::new(),
            unset: std::collections::BTreeSet::new(),
            to: None,
            restore_databases: false,
            skip_migrations: false,
            no_bake: false,
            all: false,
            volumes: false,
            allow: std::collections::BTreeSet::new(),
        }
    }

    /// Plans a request and carries it out under the faults, settling until there is a verdict.
    ///
    /// # Errors
    /// When it is refused, or no verdict is reached.
    pub async fn run(&mut self, request: &Request, faults: FaultPlan) -> Result<Outcome> {
        self.runs += 1;
        let run = RunId::new(uuid::Uuid::from_u128(u128::from(self.runs)));
        let plan = self.plan(request, run)?;
        let sim = Simulated::new(self.machine.clone());
        {
            let mut machine = self.machine();
            machine.faults = faults;
            machine.since_first = None;
            machine.calls = 0;
        }
        self.store.begin_run(run, &self.app, request.verb, "sweep", Timestamp::now())?;
        let first = Journal::new(self.store.clone(), run, Box::new(|_| ()));
        first
            .write(What::Planned { plan: Box::new(plan.clone()) })
            .map_err(|error| anyhow::anyhow!("{error:?}"))?;
        let (mut begun, mut told) = (false, None);
        // A process that dies is followed by another, as watch would start it; a dead one's deadline is its plan's.
        for _ in 0..8 {
            let life = self.life(run, &sim, (!begun).then_some(&plan));
            begun = true;
            let verdict = tokio::select! {
                biased;
                () = sim.died.notified() => None,
                verdict = tokio::time::timeout(Duration::from_hours(2), life) => verdict.ok(),
            };
            // One that was given up is settled by the next that watch starts.
            let given_up = verdict.is_some() && self.store.unfinished(&self.app)?.is_some();
            if given_up {
                told = verdict;
                continue;
            }
            if let Some(verdict) = verdict {
                let calls = self.machine().calls;
                self.machine().land_all();
                self.watch();
                return Ok(Outcome { verdict, calls });
            }
        }
        match told {
            Some(verdict) => Ok(Outcome { verdict, calls: self.machine().calls }),
            None => bail!("no verdict after eight processes"),
        }
    }

    /// What watch does after a verdict: what landed late, inert or running, is found by its label and ended.
    fn watch(&self) {
        let live = self.live();
        let mut machine = self.machine();
        let late = std::mem::take(&mut machine.landed);
        if late {
            machine.instances.retain(|name, instance| {
                instance.spec.role == Role::Backing
                    || live.as_ref().is_some_and(|live| live.has(name))
                    || matches!(instance.state, cutover_core::state::InstanceState::Exited { .. })
            });
        }
    }

    /// One process: carries the plan out, where it is the first, and settles.
    async fn life(&self, run: RunId, sim: &Simulated, plan: Option<&HostPlan>) -> Verdict {
        let ports = sim.ports();
        let journal = Journal::new(self.store.clone(), run, Box::new(|_| ()));
        if let Some(plan) = plan {
            let act =
                Act { ports: &ports, journal: &journal, layout: &self.layout, store: &self.store, plan };
            carry_out(&act, &EnvChange::default()).await;
        }
        let look = Eyes { site: self, sim };
        let settling = Settling {
            ports: &ports,
            journal: &journal,
            layout: &self.layout,
            store: &self.store,
            app: &self.app,
            look: &look,
        };
        settle(&settling).await
    }

    fn plan(&self, request: &Request, run: RunId) -> Result<HostPlan> {
        let state = self.state()?;
        let world = World { hosts: [(HostName::local(), state)].into() };
        let stamp = Stamp { now: Timestamp::now(), run };
        let refused =
            |refusals: cutover_core::plan::Refusals| anyhow::anyhow!("refused: {:?}", refusals.failure());
        let planned = match request.verb {
            Verb::Deploy => plan(&configuration(&self.text)?, &world, request, stamp).map_err(refused)?,
            _ => lifecycle(&self.app, &world, request, stamp).map_err(refused)?,
        };
        planned.hosts.into_values().next().context("a plan without a host")
    }

    fn live(&self) -> Option<Live> {
        let machine = self.machine();
        let entry = machine.table.owners.get(&self.app.owner());
        entry.and_then(|entry| Live::from_facts(&entry.facts)).or_else(|| {
            let text = std::fs::read(self.layout.live_file(&self.app)).ok()?;
            serde_json::from_slice(&text).ok()
        })
    }

    /// The host as a look would find it, without a fault point.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn state(&self) -> Result<HostState> {
        let live = self.live();
        let machine = self.machine();
        Ok(HostState {
            app: self.app.clone(),
            installation: "simulated".to_owned(),
            salt: "salt".to_owned(),
            root: self.layout.state().display().to_string(),
            now: Timestamp::now(),
            live,
            table: Some(FoundTable { hash: machine.hash(), table: machine.table.clone() }),
            instances: instances(&machine),
            releases: self.store.releases(&self.app)?,
            variables: None,
            placeholders: std::collections::BTreeSet::new(),
            env_file_problems: Vec::new(),
            env_file_mode: None,
            artifacts: std::collections::BTreeSet::new(),
            images: BTreeMap::new(),
            engine: None,
            taken: std::collections::BTreeSet::new(),
            databases: BTreeMap::new(),
            disk_free: u64::MAX,
            unfinished: self.store.unfinished(&self.app)?,
            lock: None,
            verdicts: Vec::new(),
            listeners: Vec::new(),
        })
    }

    /// Everything the promises say of the host after a verdict; what does not hold is told.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn check(&self, before: Option<&Live>, verdict: &Verdict) -> Result<Vec<Broken>> {
        let state = self.state()?;
        let mut broken = std::mem::take(&mut self.machine().broken);
        let live = state.live.as_ref();
        if state.unfinished.is_some() {
            broken.push("the run is unfinished".to_owned());
        }
        if verdict.serving.as_ref() != live.map(|live| &live.release) {
            broken.push(format!(
                "P2: the verdict says {:?} serves, {:?} does",
                verdict.serving,
                live.map(|l| &l.release)
            ));
        }
        if verdict.exit() == Exit::Done
            && verdict.verb != Verb::Remove
            && live.map(|live| live.run) != Some(verdict.run)
        {
            broken.push("P4: done, and another run's release is live".to_owned());
        }
        if !matches!(verdict.exit(), Exit::Done | Exit::Person)
            && live.map(|l| l.run) != before.map(|l| l.run)
        {
            broken.push(format!("P2: exit {:?}, and what served before does not serve", verdict.exit()));
        }
        self.check_routes(live, &mut broken);
        Self::check_instances(&state, live, &mut broken);
        Ok(broken)
    }

    fn check_routes(&self, live: Option<&Live>, broken: &mut Vec<Broken>) {
        let machine = self.machine();
        let Some(entry) = machine.table.owners.get(&self.app.owner()) else { return };
        for route in &entry.routes {
            match &route.state {
                RouteState::Serving { targets } => {
                    for target in targets {
                        if !live.is_some_and(|live| {
                            live.members.values().flatten().any(|name| name.as_str() == target.id)
                        }) {
                            broken.push(format!(
                                "P2: route {} points at {}, which is not live",
                                route.name, target.id
                            ));
                        }
                    }
                }
                RouteState::Held { .. } => broken.push(format!("P2: route {} is still held", route.name)),
                RouteState::Closed { .. } => {}
            }
        }
    }

    fn check_instances(state: &HostState, live: Option<&Live>, broken: &mut Vec<Broken>) {
        for name in live.into_iter().flat_map(|live| live.members.values().flatten()) {
            if !state.instances.iter().any(|found| found.name == *name && found.is_running()) {
                broken.push(format!("P2: {name} is live and does not run"));
            }
        }
        let mut stopped: BTreeMap<String, u32> = BTreeMap::new();
        for found in &state.instances {
            let member = live.is_some_and(|live| live.has(&found.name));
            if found.role == Role::Backing || member {
                continue;
            }
            if found.is_running() {
                broken.push(format!("P4: {} still runs and is not live", found.name));
            }
            *stopped.entry(found.service.to_string()).or_default() += 1;
        }
        for (service, count) in stopped {
            if count > 1 {
                broken.push(format!("P4: {count} instances of {service} are left, stopped"));
            }
        }
    }

    /// The database's schema version, and whether every acknowledged row is in it.
    ///
    /// # Errors
    /// A row that was acknowledged and is gone.
    pub fn database(&self, relative: &str) -> Result<Option<u32>> {
        let path = self.layout.app(&self.app).join("volumes").join(relative);
        let Ok(text) = std::fs::read_to_string(path) else { return Ok(None) };
        let rows: std::collections::BTreeSet<&str> = text.lines().collect();
        for row in &self.machine().acknowledged {
            if !rows.contains(format!("row {row}").as_str()) {
                bail!("P3: row {row} was acknowledged and is lost");
            }
        }
        let version = text
            .lines()
            .find_map(|line| line.strip_prefix("schema "))
            .and_then(|version| version.parse().ok());
        Ok(version)
    }

    /// The journal of the newest run, for a failing test's eyes.
    pub fn journal(&self) -> String {
        let run = self.store.newest_run(&self.app).ok().flatten();
        let entries = run.and_then(|run| self.store.entries(run, 1).ok()).unwrap_or_default();
        let line = |entry: &cutover_core::journal::Entry| match &entry.what {
            What::Planned { plan } => format!("{} planned {:?}\n", entry.seq, plan.direction),
            other => format!("{} {other:?}\n", entry.seq),
        };
        entries.iter().map(line).collect()
    }

    /// What is live.
    pub fn serving(&self) -> Option<Live> {
        self.live()
    }
}

struct Eyes<'a> {
    site: &'a Site,
    sim: &'a Simulated,
}

#[async_trait]
impl Look for Eyes<'_> {
    async fn look(&self) -> Result<HostState, Failure> {
        use cutover_host::ports::Runtime;
        let unseen =
            |error: String| Failure::new(Exit::Failed, "the host cannot be looked at").because(error);
        // The look's own calls are fault points, too.
        self.sim.list(&self.site.app).await.map_err(|error| unseen(error.to_string()))?;
        self.site.state().map_err(|error| unseen(error.to_string()))
    }
}

fn configuration(text: &str) -> Result<Config> {
    let sources = Sources { file: "cutover.yml", text, compose: BTreeMap::new(), env_files: BTreeMap::new() };
    parse(&sources, &Selection::default()).map_err(|problems| anyhow::anyhow!("{problems:?}"))
}

//! Deploys on the simulated host: plan, carry out, die, settle; and back to a moment before, to do it again under another fault.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use cutover_core::config::settings::{Config, Source, Strategy};
use cutover_core::config::{Selection, Sources, parse};
use cutover_core::env_file;
use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::hash::ContentHash;
use cutover_core::journal::{Entry, LockHolder, What};
use cutover_core::layout::{Layout, parts_of_snapshot};
use cutover_core::names::{AppId, HostName, InstanceName, ReleaseId, RunId, ServiceName};
use cutover_core::plan::{HostPlan, Refusals, Verb, lifecycle, plan};
use cutover_core::release::{Content, Live, Provenance};
use cutover_core::request::{Ancestry, Request, SnapshotRequest, Stamp};
use cutover_core::retention::{KnownSnapshot, Leftovers};
use cutover_core::secret::{Secret, Secrets};
use cutover_core::state::{
    FoundEngine, FoundInstance, FoundTable, HostState, InstanceState, ReleaseRecord, Role, World as Hosts,
};
use cutover_core::verdict::Verdict;
use cutover_host::assignment::Assignment;
use cutover_host::events::EventFile;
use cutover_host::files;
use cutover_host::journal::Journal;
use cutover_host::lock::AppLock;
use cutover_host::ports::Alone;
use cutover_host::settle::{Look, Settling, carry_out, settle};
use cutover_host::stages::{Act, EnvChange, MigrationLocks};
use cutover_host::store::Store;
use jiff::Timestamp;

use super::behaviour::Behaviour;
use super::faults::FaultPlan;
use super::machine::Machine;
use super::ports::Simulated;
use super::world::{Instance, World, image, schema};
use crate::Litter;

/// Processes for one run, at most: one that dies is followed by another, as watch would start it.
const PROCESSES: usize = 8;
/// A run that hangs is ended after so long.
const DEADLINE: Duration = Duration::from_hours(2);

/// How a run on the simulated host ended.
#[derive(Debug)]
pub struct Outcome {
    /// Its verdict.
    pub verdict: Verdict,
    /// Calls of ports it made.
    pub calls: u64,
    /// Calls since the first fault.
    pub since_first: u64,
}

/// What is asked of a site: a request, and what goes with it for the env file.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The request.
    pub request: Request,
    sent: Secrets,
}

/// A plan to be carried out, with what goes with it.
#[derive(Debug, Clone)]
pub struct Made {
    /// The plan.
    pub plan: HostPlan,
    sent: Secrets,
}

/// A site at one moment, to come back to.
pub struct Moment {
    pub(super) world: World,
    /// What was live then.
    pub live: Option<Live>,
    /// The schema of the server's database then.
    pub(super) schema: Option<u32>,
    store: Store,
    files: tempfile::TempDir,
}

/// An app on a simulated host.
pub struct Site {
    machine: Arc<Mutex<Machine>>,
    pub(super) store: Arc<Store>,
    pub(super) layout: Layout,
    pub(super) app: AppId,
    config: Config,
    /// What the journal of the newest run said.
    heard: Arc<Mutex<Vec<Entry>>>,
    /// What nothing needs, where some lies there.
    pub(super) litter: Option<Litter>,
    folder: tempfile::TempDir,
}

impl Site {
    /// A site with this cutover.yml, nothing deployed.
    ///
    /// # Errors
    /// When the text is no configuration, or there is no place for files.
    pub fn new(text: &str) -> Result<Self> {
        let folder = folder()?;
        let layout = Layout::under(folder.path());
        let config = configuration(text)?;
        let alone = |strategy| strategy == Strategy::Handover;
        let singletons = config.services.iter().filter(|(_, service)| alone(service.strategy));
        // A server keeps what is in it here.
        std::fs::create_dir_all(folder.path().join("engine/server"))?;
        let world = World {
            volumes: folder.path().join("engine"),
            backups: layout.backups().to_owned(),
            singletons: singletons.map(|(name, _)| name.to_string()).collect(),
            ..World::default()
        };
        Ok(Self {
            machine: Arc::new(Mutex::new(Machine::new(world, FaultPlan::default()))),
            store: Arc::new(Store::in_memory()?),
            layout,
            app: config.id.clone(),
            config,
            heard: Arc::default(),
            litter: None,
            folder,
        })
    }

    pub(super) fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From here on this cutover.yml counts.
    ///
    /// # Errors
    /// When the text is no configuration.
    pub fn edit(&mut self, text: &str) -> Result<()> {
        self.config = configuration(text)?;
        Ok(())
    }

    /// What nothing needs lies there from here on.
    ///
    /// # Errors
    /// When it cannot be laid down.
    pub fn litter(&mut self) -> Result<()> {
        self.litter = Some(Litter::lay(&self.layout, &self.app)?);
        Ok(())
    }

    /// The moment, to come back to.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub fn moment(&self) -> Result<Moment> {
        let files = folder()?;
        copy(self.folder.path(), files.path())?;
        let world = self.machine().world.clone();
        let (live, schema) = (self.live_in(&world), schema(&world.server_file()));
        Ok(Moment { world, live, schema, store: self.store.duplicate()?, files })
    }

    /// Back to a moment.
    ///
    /// # Errors
    /// When files cannot be put back.
    pub fn rewind(&mut self, to: &Moment) -> Result<()> {
        for entry in std::fs::read_dir(self.folder.path())? {
            std::fs::remove_dir_all(entry?.path())?;
        }
        copy(to.files.path(), self.folder.path())?;
        self.store = Arc::new(to.store.duplicate()?);
        *self.machine() = Machine::new(to.world.clone(), FaultPlan::default());
        Ok(())
    }

    /// A request to deploy a version, but for services of `kept`, which stay at theirs; each service's content is named after its version, so
    /// that a behaviour can be given to it.
    ///
    /// # Errors
    /// When content cannot be laid down.
    pub fn deploy(&self, version: &str, behaviour: Behaviour, kept: &[&str]) -> Result<Asked> {
        let mut contents = self.live_contents()?;
        contents.retain(|name, _| kept.contains(&name.as_str()));
        let services = self.config.services.iter().map(|(name, service)| (name, &service.source));
        let backing = self.config.backing.iter().map(|(name, backing)| (name, &backing.source));
        for (name, source) in services.chain(backing) {
            if contents.contains_key(name) {
                continue;
            }
            let hash = ContentHash::of_parts(&["content", name.as_str(), version]);
            self.machine().world.behaviours.insert(hash.as_str().to_owned(), behaviour);
            let content = match source {
                Source::Artifact { .. } => {
                    std::fs::create_dir_all(self.layout.artifact(&hash))?;
                    Content::Artifact { hash }
                }
                Source::Image { .. } | Source::Build(_) => {
                    let reference = format!("{name}:{version}");
                    self.machine().world.images.insert(reference.clone(), image(&reference, &hash));
                    Content::Image { reference, identity: hash, name: None, origin: None }
                }
            };
            contents.insert(name.clone(), content);
        }
        Ok(Asked { request: Request { contents, ..request(Verb::Deploy) }, sent: Secrets::new() })
    }

    fn live_contents(&self) -> Result<BTreeMap<ServiceName, Content>> {
        let live = self.live();
        let releases = self.store.releases(&self.app)?;
        let of = |record: &cutover_core::state::ReleaseRecord| {
            let services =
                record.release.services.iter().map(|(name, of)| (name.clone(), of.content.clone()));
            services.collect()
        };
        Ok(releases
            .iter()
            .find(|r| live.as_ref().is_some_and(|live| live.release == r.release.id))
            .map(of)
            .unwrap_or_default())
    }

    /// A request of another verb.
    pub fn ask(verb: Verb) -> Asked {
        Asked { request: request(verb), sent: Secrets::new() }
    }

    /// A request to set a variable.
    ///
    /// # Errors
    /// When that is no name of one.
    pub fn set(&self, name: &str, value: &str) -> Result<Asked> {
        Self::sending(Self::ask(Verb::Environment), name, value)
    }

    /// The same request, with a variable.
    ///
    /// # Errors
    /// When that is no name of one.
    pub fn sending(mut asked: Asked, name: &str, value: &str) -> Result<Asked> {
        asked.sent.insert(name.parse()?, Secret::new(value.to_owned()));
        asked.request.overlay = asked.sent.fingerprints(SALT);
        Ok(asked)
    }

    /// Plans what is asked, as run number `number`.
    ///
    /// # Errors
    /// When it is refused.
    pub fn plan(&self, asked: &Asked, number: u128) -> Result<Made> {
        let request = &asked.request;
        let world = Hosts { hosts: [(HostName::local(), self.state()?)].into() };
        let stamp = Stamp { now: Timestamp::now(), run: RunId::new(uuid::Uuid::from_u128(number)) };
        let refused = |refusals: Refusals| anyhow::anyhow!("refused: {:?}", refusals.failure());
        let planned = match request.verb {
            Verb::Deploy => plan(&self.config, &world, request, stamp).map_err(refused)?,
            _ => lifecycle(&self.app, &world, request, stamp).map_err(refused)?,
        };
        let plan = planned.hosts.into_values().next().context("a plan without a host")?;
        Ok(Made { plan, sent: asked.sent.clone() })
    }

    /// Carries a plan out under the faults, settling until there is a verdict.
    ///
    /// # Errors
    /// When no verdict is reached.
    pub async fn run(&mut self, made: &Made, faults: FaultPlan) -> Result<Outcome> {
        let plan = &made.plan;
        let sim = Simulated::new(self.machine.clone(), self.store.clone(), plan.run);
        {
            let mut machine = self.machine();
            *machine = Machine::new(std::mem::take(&mut machine.world), faults);
        }
        if made.sent != Secrets::new() {
            self.send(made)?;
        }
        self.journal().clear();
        self.store.begin_run(plan.run, &self.app, plan.verb, &plan.by, Timestamp::now())?;
        let mut told = None;
        for number in 0..PROCESSES {
            let life = self.life(&sim, made, number == 0);
            let verdict = tokio::select! {
                biased;
                () = sim.died.notified() => None,
                verdict = tokio::time::timeout(DEADLINE, life) => verdict.ok(),
            };
            let Some(verdict) = verdict.transpose()? else { continue };
            // One that was given up is settled by the next that watch starts.
            let given_up = self.store.unfinished(&self.app)?.is_some();
            told = Some(verdict);
            if !given_up {
                break;
            }
        }
        let Some(verdict) = told else { bail!("no verdict after {PROCESSES} processes") };
        let mut machine = self.machine();
        machine.land_all();
        let since_first = machine.since_first.unwrap_or_default();
        Ok(Outcome { verdict, calls: machine.calls, since_first })
    }

    fn send(&self, made: &Made) -> Result<()> {
        let unset = BTreeSet::new();
        let assignment = Assignment {
            plan: made.plan.clone(),
            unset,
            keep_env: true,
            wait: false,
            fetched: BTreeSet::new(),
        };
        Ok(assignment.save(&self.layout, &made.sent)?)
    }

    /// One process: takes the lock, carries the plan out, where it is the first, and settles.
    async fn life(&self, sim: &Simulated, made: &Made, first: bool) -> Result<Verdict> {
        let plan = &made.plan;
        let holder = LockHolder {
            app: self.app.clone(),
            run: plan.run,
            by: plan.by.clone(),
            verb: plan.verb,
            since: Timestamp::now(),
            pid: std::process::id(),
        };
        let _lock = AppLock::take(&self.layout, &self.app, &holder)?;
        let ports = sim.ports();
        let journal = self.listened(plan.run);
        let locks = MigrationLocks::default();
        if first {
            let planned = What::Planned { plan: Box::new(plan.clone()) };
            journal.write(planned).map_err(|error| anyhow::anyhow!("{error:?}"))?;
            let act = Act {
                ports: &ports,
                journal: &journal,
                layout: &self.layout,
                store: &self.store,
                locks: &locks,
                plan,
            };
            let change = EnvChange { unset: BTreeSet::new(), keep: made.sent != Secrets::new() };
            carry_out(&act, &change).await;
        }
        let look = Eyes { site: self, sim };
        let settling = Settling {
            ports: &ports,
            journal: &journal,
            layout: &self.layout,
            store: &self.store,
            locks: &locks,
            app: &self.app,
            look: &look,
        };
        Ok(settle(&settling).await)
    }

    /// What watch does after a verdict: what landed late, inert or running, is found by its label and ended; what is live and down is started.
    pub(super) fn watch(&self) {
        let live = self.live();
        let mut machine = self.machine();
        let late = std::mem::take(&mut machine.landed);
        let world = &mut machine.world;
        let is_live = |name: &InstanceName| live.as_ref().is_some_and(|live| live.has(name));
        world.instances.retain(|name, instance| {
            let kept = matches!(instance.state, InstanceState::Exited { .. });
            !late || kept || is_live(name) || instance.spec.role == Role::Backing
        });
        let down: Vec<_> = world
            .instances
            .iter()
            .filter(|(name, instance)| is_live(name) && !instance.runs() && world.boots > 0)
            .map(|(name, _)| name.clone())
            .collect();
        for name in down {
            world.run(&name);
            if let Some(instance) = world.instances.get_mut(&name) {
                instance.gated = instance.runs();
            }
        }
    }

    /// What is live: the facts in the table, else the live file.
    pub(super) fn live_in(&self, world: &World) -> Option<Live> {
        live_in(world, &self.layout, &self.app)
    }

    fn live(&self) -> Option<Live> {
        self.live_in(&self.machine().world)
    }

    /// The host as a look finds it, without a fault point.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn state(&self) -> Result<HostState> {
        let (instances, table) = {
            let world = &self.machine().world;
            let instances = world.instances.values().map(Instance::found).collect();
            (instances, FoundTable { hash: world.hash(), table: world.table.clone() })
        };
        self.seen(instances, Some(table))
    }

    fn seen(&self, instances: Vec<FoundInstance>, table: Option<FoundTable>) -> Result<HostState> {
        let variables = std::fs::read_to_string(self.layout.env_file(&self.app)).ok();
        let variables = variables.map(|text| env_file::parse(&text).unwrap_or_default().fingerprints(SALT));
        Ok(HostState {
            app: self.app.clone(),
            installation: "simulated".to_owned(),
            salt: SALT.to_owned(),
            root: self.layout.state().display().to_string(),
            now: Timestamp::now(),
            live: self.live(),
            table,
            instances,
            releases: self.store.releases(&self.app)?,
            variables,
            placeholders: BTreeSet::new(),
            env_file_problems: Vec::new(),
            env_file_mode: None,
            artifacts: BTreeSet::new(),
            written: BTreeMap::new(),
            images: BTreeMap::new(),
            engine: Some(self.engine()),
            taken: BTreeSet::new(),
            ports: cutover_core::addresses::Ports::default(),
            databases: BTreeMap::new(),
            disk_free: u64::MAX,
            unfinished: self.store.unfinished(&self.app)?,
            lock: None,
            verdicts: Vec::new(),
            listeners: Vec::new(),
            remarks: Vec::new(),
            leftovers: self
                .litter
                .as_ref()
                .map(|litter| Leftovers { gone: litter.leftovers(), stays: Vec::new() }),
            snapshots: Some(snapshots(&self.layout, &self.app)),
        })
    }

    fn engine(&self) -> FoundEngine {
        let world = &self.machine().world;
        let networks: BTreeMap<_, _> =
            world.networks.values().map(|network| (network.name.clone(), network.subnet.clone())).collect();
        let volumes = std::fs::read_dir(&world.volumes).into_iter().flatten().flatten();
        FoundEngine {
            name: "Simulated".to_owned(),
            version: "1".to_owned(),
            platform: "linux/amd64".to_owned(),
            bridge_reachable: true,
            subnets: networks.values().cloned().collect(),
            range: cutover_core::defaults::SUBNETS.to_owned(),
            networks,
            volumes: volumes.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect(),
        }
    }

    fn listened(&self, run: RunId) -> Journal {
        let heard = self.heard.clone();
        let (machine, layout, app, store) =
            (self.machine.clone(), self.layout.clone(), self.app.clone(), self.store.clone());
        let listener = move |entry: &Entry| {
            if matches!(&entry.what, What::Verdict { verdict } if verdict.exit() == Exit::Done) {
                let warm = warm(&store, &app);
                let world = &mut machine.lock().unwrap_or_else(PoisonError::into_inner).world;
                let live = live_in(world, &layout, &app);
                world.told_done(live.as_ref(), &warm);
            }
            heard.lock().unwrap_or_else(PoisonError::into_inner).push(entry.clone());
        };
        Journal::new(self.store.clone(), run, Box::new(listener))
    }

    /// What was replaced and still there, stopped, when the newest run told that it is done.
    pub fn left_when_told(&self) -> Vec<InstanceName> {
        self.machine().world.left_when_told.clone()
    }

    /// From now on the server ends the session that holds its lock of migrations while a snapshot is taken.
    pub fn lose_locks(&self) {
        self.machine().world.loses_lock = true;
    }

    /// Somebody else takes the lock of migrations in the server, and has it as long as what is given is there.
    pub fn migrated_by_somebody_else(&self) -> Option<Alone> {
        self.machine().world.alone()
    }

    /// How often the lock of migrations in the server was taken.
    pub fn locked(&self) -> u32 {
        self.machine().world.locked
    }

    /// The releases on record, and those of records that are made anew from what these runs have told, the oldest first.
    ///
    /// # Errors
    /// When records cannot be read or made, or there is no place for files.
    pub fn made_anew(&self, runs: &[Vec<Entry>]) -> Result<[Vec<ReleaseRecord>; 2]> {
        let (known, folder) = (self.store.releases(&self.app)?, folder()?);
        let layout = Layout::under(folder.path());
        files::ensure_folder(layout.run(), 0o700)?;
        for record in &known {
            std::fs::create_dir_all(layout.release(&self.app, &record.release.id))?;
        }
        for entries in runs {
            let Some(first) = entries.first() else { continue };
            let events = EventFile::open(&layout, first.run);
            for entry in entries {
                events.append(entry);
            }
        }
        Ok([known, Store::open(&layout)?.releases(&self.app)?])
    }

    /// What the journal of the newest run said.
    pub fn journal(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Snapshots as they lie there, as far as a restore asks for it.
fn snapshots(layout: &Layout, app: &AppId) -> Vec<KnownSnapshot> {
    let entries = std::fs::read_dir(layout.snapshots(app)).into_iter().flatten().flatten();
    let known = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let (database, taken, release) = parts_of_snapshot(&name)?;
        let (bytes, needed_by) = (entry.metadata().ok()?.len(), BTreeSet::new());
        let (sequence, hash, moment, problem) = (None, None, None, None);
        Some(KnownSnapshot {
            name,
            database,
            taken,
            release,
            bytes,
            sequence,
            hash,
            moment,
            needed_by,
            problem,
        })
    });
    let mut known: Vec<KnownSnapshot> = known.collect();
    known.sort_by(|one, other| one.name.cmp(&other.name));
    known
}

fn live_in(world: &World, layout: &Layout, app: &AppId) -> Option<Live> {
    let entry = world.table.owners.get(&app.owner());
    entry.and_then(|entry| Live::from_facts(&entry.facts)).or_else(|| {
        let text = std::fs::read(layout.live_file(app)).ok()?;
        serde_json::from_slice(&text).ok()
    })
}

/// Releases that are kept warm.
fn warm(store: &Store, app: &AppId) -> BTreeSet<ReleaseId> {
    let releases = store.releases(app).unwrap_or_default().into_iter();
    let warm = releases.filter(|record| record.warm_until.is_some_and(|until| until > Timestamp::now()));
    warm.map(|record| record.release.id).collect()
}

/// Of the simulated installation.
pub(super) const SALT: &str = "salt";

/// Memory where there is some: thousands of runs need no disk.
fn folder() -> std::io::Result<tempfile::TempDir> {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy(&from, &to)?;
        } else {
            std::fs::copy(&from, &to)?;
            // What is old stays so.
            std::fs::File::open(&to)?.set_modified(entry.metadata()?.modified()?)?;
        }
    }
    Ok(())
}

fn request(verb: Verb) -> Request {
    Request {
        verb,
        by: "sweep".to_owned(),
        services: BTreeSet::new(),
        source: Provenance::default(),
        contents: BTreeMap::new(),
        shipped: BTreeMap::new(),
        ancestry: Ancestry::Unknown,
        overlay: BTreeMap::new(),
        unset: BTreeSet::new(),
        to: None,
        restore_databases: false,
        migrate_down: false,
        skip_migrations: false,
        no_bake: false,
        all: false,
        volumes: false,
        allow: BTreeSet::new(),
        snapshot: SnapshotRequest::default(),
    }
}

struct Eyes<'a> {
    site: &'a Site,
    sim: &'a Simulated,
}

#[async_trait]
impl Look for Eyes<'_> {
    async fn look(&self) -> Result<HostState, Failure> {
        let unseen =
            |error: String| Failure::new(Exit::Failed, "the host cannot be looked at").because(error);
        // The look's own calls are fault points, too.
        let ports = self.sim.ports();
        let table = ports.router.read().await.ok();
        let mut instances = Vec::new();
        for runtime in ports.runtimes() {
            instances.extend(runtime.list(&self.site.app).await.map_err(|error| unseen(error.to_string()))?);
        }
        self.site.seen(instances, table).map_err(|error| unseen(error.to_string()))
    }

    async fn live(&self) -> Result<Option<Live>, Failure> {
        let read = self.sim.ports().router.read().await;
        read.map_err(|error| {
            Failure::new(Exit::Failed, "the table cannot be read").because(error.to_string())
        })?;
        Ok(self.site.live())
    }
}

fn configuration(text: &str) -> Result<Config> {
    let sources = Sources { file: "cutover.yml", text, compose: BTreeMap::new(), env_files: BTreeMap::new() };
    parse(&sources, &Selection::default()).map_err(|problems| anyhow::anyhow!("{problems:?}"))
}

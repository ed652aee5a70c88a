//! What is on the simulated host, and what happens on it by itself: instances that do as their content does, traffic that writes rows.
//! A promise that is broken on the way is written down.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use cutover_core::config::settings::Mount;
use cutover_core::hash::ContentHash;
use cutover_core::names::{AppId, InstanceName, ReleaseId};
use cutover_core::plan::{InstanceSpec, NetworkSpec, NetworkUse};
use cutover_core::release::{Content, Live, RuntimeKind};
use cutover_core::state::{ExitStatus, FoundImage, FoundInstance, InstanceState, RestartPolicy, Role};
use cutover_host::ports::{Alone, Located};
use cutover_routes::{Entry, RouteState, RouteTable, TableHash};
use jiff::Timestamp;
use tokio::sync::oneshot::{self, error::TryRecvError};

use super::behaviour::{Behaviour, Migration};

/// So many alike stand behind one request that is looked at: a bake judges no fewer than 20.
const REQUESTS: u64 = 20;

/// The variable that says the server's password, where a service is told it.
pub(crate) const PASSWORD: &str = "POSTGRES_PASSWORD";

/// An instance of the simulated host.
#[derive(Debug, Clone)]
pub(crate) struct Instance {
    pub(crate) spec: InstanceSpec,
    /// Of its specification, as a label would show it.
    pub(crate) hash: ContentHash,
    pub(crate) state: InstanceState,
    pub(crate) restart: RestartPolicy,
    /// The salted hash of the password that it was told.
    pub(crate) password: Option<ContentHash>,
    /// It has passed a probe since it was started.
    pub(crate) gated: bool,
    /// The container networks it is in, with the names it answers to there.
    pub(crate) networks: BTreeMap<String, Vec<String>>,
}

impl Instance {
    pub(crate) fn new(spec: InstanceSpec, password: Option<ContentHash>) -> Self {
        let networks =
            spec.networks.iter().map(|joined| (joined.network.clone(), joined.aliases.clone())).collect();
        Self {
            hash: spec.hash(),
            state: InstanceState::Created,
            restart: RestartPolicy::No,
            password,
            gated: false,
            networks,
            spec,
        }
    }

    pub(crate) fn runs(&self) -> bool {
        matches!(self.state, InstanceState::Running { .. })
    }

    pub(crate) fn found(&self) -> FoundInstance {
        FoundInstance {
            name: self.spec.name.clone(),
            service: self.spec.service.clone(),
            role: self.spec.role,
            release: self.spec.release.clone(),
            slot: self.spec.slot,
            replica: self.spec.replica,
            run: self.spec.run,
            runtime: self.spec.runtime(),
            spec: self.hash.clone(),
            address: self.spec.address,
            state: self.state.clone(),
            restart: self.restart,
            ours: true,
        }
    }
}

/// The simulated host as it is at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct World {
    /// Where volumes of containers lie.
    pub(crate) volumes: PathBuf,
    /// Where snapshots lie.
    pub(crate) backups: PathBuf,
    pub(crate) instances: BTreeMap<InstanceName, Instance>,
    pub(crate) networks: BTreeMap<String, NetworkSpec>,
    /// What the engine has, by reference.
    pub(crate) images: BTreeMap<String, FoundImage>,
    pub(crate) table: RouteTable,
    /// Databases of the server that snapshots were put back as, with what is in them.
    pub(crate) beside: BTreeMap<String, String>,
    /// The salted hash of the server's password, once it has one.
    pub(crate) password: Option<ContentHash>,
    /// The server's lock of migrations, as the last one who took it has it.
    pub(crate) lock: Option<Arc<Mutex<oneshot::Receiver<Infallible>>>>,
    /// How often that was taken.
    pub(crate) locked: u32,
    /// The server ends the session that holds it while a snapshot is taken.
    pub(crate) loses_lock: bool,
    /// A pooler keeps a session of a migration that has ended, under its name.
    pub(crate) pooled: bool,
    /// Starts of the host so far.
    pub(crate) boots: u32,
    pub(crate) behaviours: BTreeMap<String, Behaviour>,
    /// Answers of each target, and how many of them were errors.
    pub(crate) answers: BTreeMap<String, (u64, u64)>,
    pub(crate) acknowledged: Vec<u64>,
    pub(crate) rows: u64,
    /// Services of which two may never run at once.
    pub(crate) singletons: BTreeSet<String>,
    /// What was replaced and still there, stopped, when the newest run told that it is done.
    pub(crate) left_when_told: Vec<InstanceName>,
    /// Promises that did not hold.
    pub(crate) broken: Vec<String>,
}

impl World {
    fn breaks(&mut self, what: String) {
        if !self.broken.contains(&what) {
            self.broken.push(what);
        }
    }

    /// How instances of some content behave.
    pub(crate) fn behaviour(&self, content: &Content) -> Behaviour {
        self.behaviours.get(content.identity().as_str()).copied().unwrap_or_default()
    }

    /// A run tells that it is done: of what is not live nothing runs any more but what is kept warm (P4).
    pub(crate) fn told_done(&mut self, live: Option<&Live>, warm: &BTreeSet<ReleaseId>) {
        let of_none = |one: &&Instance| {
            one.spec.role == Role::Service && !live.is_some_and(|live| live.has(&one.spec.name))
        };
        let (running, left): (Vec<_>, Vec<_>) =
            self.instances.values().filter(of_none).partition(|one| one.runs());
        let running = running.into_iter().filter(|one| !warm.contains(&one.spec.release));
        let running: Vec<_> = running.map(|one| one.spec.name.clone()).collect();
        self.left_when_told = left.into_iter().map(|one| one.spec.name.clone()).collect();
        for name in running {
            self.breaks(format!("P4: it was told to be done while {name} ran, which is not live"));
        }
    }

    /// What serves is not even to be tried to be removed: a moment later it may be down, to be started again.
    pub(crate) fn refuses_removal(&mut self, name: &InstanceName) {
        let routes = self.table.owners.values().flat_map(|entry| &entry.routes);
        let serves = routes.into_iter().any(|route| match &route.state {
            RouteState::Serving { targets } => targets.iter().any(|target| target.id == name.as_str()),
            _ => false,
        });
        if serves {
            self.breaks(format!("P2: it was tried to remove {name}, which serves"));
        }
    }

    /// The table's hash.
    pub(crate) fn hash(&self) -> TableHash {
        TableHash::of(&self.table)
    }

    /// One request on every route: it must find an instance that runs, was gated, and can live with the schema. What it writes is acknowledged.
    pub(crate) fn traffic(&mut self) {
        let mut met = Vec::new();
        for (owner, entry) in &self.table.owners {
            for route in &entry.routes {
                let RouteState::Serving { targets } = &route.state else { continue };
                met.extend(targets.iter().map(|target| (owner.clone(), target.id.clone())));
            }
        }
        for (owner, id) in met {
            self.request(&owner, &id);
        }
    }

    fn request(&mut self, owner: &str, id: &str) {
        let found = self.instances.values().find(|instance| instance.spec.name.as_str() == id);
        let Some(instance) = found.filter(|instance| instance.runs()).cloned() else {
            return self.breaks(format!("P1: a request of {owner} met {id}, which does not run"));
        };
        if !instance.gated {
            self.breaks(format!("P1: requests of {owner} go to {id}, which never passed a probe"));
        }
        if !self.lets_in(&instance) {
            self.breaks(format!("P1: requests of {owner} go to {id}, which the server does not let in"));
        }
        let spec = &instance.spec;
        let behaviour = self.behaviour(&spec.content);
        self.calls(&instance);
        let file = self.database(spec);
        if let (Some((from, to)), Some(file)) = (behaviour.schemas, &file)
            && let Some(schema) = schema(file).filter(|schema| !(from..=to).contains(schema))
        {
            self.breaks(format!("P3: {id} serves on schema {schema}, it can live with {from} to {to}"));
        }
        let counted = self.answers.entry(id.to_owned()).or_default();
        counted.0 += REQUESTS;
        counted.1 += if behaviour.errors { REQUESTS } else { 0 };
        if let Some(file) = file.filter(|_| !behaviour.errors) {
            self.rows += 1;
            if append(&file, &format!("row {}", self.rows)) {
                self.acknowledged.push(self.rows);
            }
        }
    }

    /// What an instance calls by name must be there, and be of what is live.
    fn calls(&mut self, caller: &Instance) {
        if caller.spec.runtime() != RuntimeKind::Container {
            return;
        }
        let mut wrong = Vec::new();
        for name in caller.spec.urls.keys().filter(|name| **name != caller.spec.service) {
            let live = self.live(&caller.spec.app);
            let answering: Vec<&Instance> = self
                .instances
                .values()
                .filter(|other| other.runs() && other.spec.role == Role::Service)
                .filter(|other| {
                    let mut shared =
                        other.networks.iter().filter(|(network, _)| caller.networks.contains_key(*network));
                    shared.any(|(_, aliases)| aliases.iter().any(|alias| alias == name.as_str()))
                })
                .collect();
            let me = &caller.spec.name;
            if answering.is_empty() {
                wrong.push(format!("P1: {me} calls `{name}`, and nobody answers"));
            }
            let foreign =
                answering.iter().find(|other| !live.as_ref().is_some_and(|live| live.has(&other.spec.name)));
            if let Some(other) = foreign {
                wrong.push(format!(
                    "P1: {me} calls `{name}`, and {} answers, which is not live",
                    other.spec.name
                ));
            }
        }
        for what in wrong {
            self.breaks(what);
        }
    }

    fn live(&self, app: &AppId) -> Option<Live> {
        self.table.owners.get(&app.owner()).and_then(|entry: &Entry| Live::from_facts(&entry.facts))
    }

    /// Starts an instance's process; what it does by itself follows.
    pub(crate) fn run(&mut self, name: &InstanceName) {
        let Some(instance) = self.instances.get(name).filter(|instance| !instance.runs()).cloned() else {
            return;
        };
        let spec = &instance.spec;
        if spec.role == Role::Service && self.singletons.contains(spec.service.as_str()) {
            let mut running =
                self.instances.values().filter(|other| other.runs() && other.spec.role == Role::Service);
            if let Some(other) = running.find(|other| other.spec.service == spec.service) {
                let what = format!("P8: {name} was started while {} runs", other.spec.name);
                self.breaks(what);
            }
        }
        if spec.role == Role::Backing {
            let mut running = self.instances.values().filter(|other| other.runs());
            if let Some(other) = running.find(|other| other.spec.service == spec.service) {
                let what =
                    format!("P8: {name} was started on the volumes of {}, which runs", other.spec.name);
                self.breaks(what);
            }
        }
        let behaviour = self.behaviour(&spec.content);
        let code = match spec.role {
            Role::OneOff => {
                let effect = if is_down(spec) {
                    behaviour.down.map_or(Migration::Half, Migration::To)
                } else {
                    behaviour.migration
                };
                Some(i32::from(!self.migrate(spec, effect)))
            }
            Role::Service if behaviour.exits || !self.lets_in(&instance) => Some(1),
            Role::Service | Role::Backing => None,
        };
        if spec.role == Role::Backing && self.password.is_none() {
            // Its volume is new.
            self.password.clone_from(&instance.password);
        }
        let state = match code {
            Some(code) => InstanceState::Exited { exit: exited(code) },
            None => InstanceState::Running { since: Timestamp::UNIX_EPOCH, restarts: 0 },
        };
        if let Some(instance) = self.instances.get_mut(name) {
            instance.state = state;
            instance.gated = false;
        }
    }

    /// Whether the server lets an instance in; one that is told no password asks for nothing.
    pub(crate) fn lets_in(&self, instance: &Instance) -> bool {
        instance.password.is_none() || instance.password == self.password
    }

    /// The server gets another password, while nobody runs who would be refused from now on.
    pub(crate) fn change_password(&mut self, password: ContentHash) {
        let mut told = self.instances.values().filter(|one| one.runs() && one.spec.role == Role::Service);
        let refused = told.find(|one| one.password.as_ref().is_some_and(|told| *told != password));
        if let Some(refused) = refused {
            let what = format!("P1: the server does not let {} in any more, which runs", refused.spec.name);
            self.breaks(what);
        }
        self.password = Some(password);
    }

    /// The server's lock of migrations; `None`: somebody has it, be it who asks.
    pub(crate) fn alone(&mut self) -> Option<Alone> {
        let is_held = |lock: &Arc<Mutex<oneshot::Receiver<Infallible>>>| {
            lock.lock().is_ok_and(|mut lock| matches!(lock.try_recv(), Err(TryRecvError::Empty)))
        };
        if self.lock.as_ref().is_some_and(is_held) {
            return None;
        }
        let (alone, lock) = oneshot::channel();
        self.lock = Some(Arc::new(Mutex::new(lock)));
        self.locked += 1;
        Some(Alone::while_held(alone))
    }

    /// A migration's effect on the file it was told; whether it ended well.
    fn migrate(&mut self, spec: &InstanceSpec, migration: Migration) -> bool {
        let Some(file) = self.database(spec) else { return true };
        if !spec.isolated {
            self.nobody_has_open(&file, "migrated");
            self.has_snapshot(&file, is_down(spec));
            self.pooled |= file == self.server_file();
        }
        match migration {
            Migration::None => true,
            Migration::To(to) => set_schema(&file, to),
            Migration::FailsForReal(to) if spec.isolated => set_schema(&file, to),
            Migration::Half | Migration::FailsForReal(_) => {
                set_schema(&file, 999);
                false
            }
        }
    }

    /// P8: nothing has the file open.
    pub(crate) fn nobody_has_open(&mut self, file: &Path, what: &str) {
        let open = self.instances.values().find(|other| {
            other.runs()
                && other.spec.role != Role::OneOff
                && self.database(&other.spec).as_deref() == Some(file)
        });
        if let Some(other) = open {
            let what = format!("P8: a database was {what} while {} has it open", other.spec.name);
            self.breaks(what);
        }
    }

    /// P3: a restorable copy of what is about to be changed; where migrations are taken back one after the other, of what was before the first.
    fn has_snapshot(&mut self, file: &Path, is_down: bool) {
        let Ok(text) = std::fs::read_to_string(file) else { return };
        let is_before = |taken: &str| {
            is_down && version_in(taken) > version_in(&text) && rows_in(taken).eq(rows_in(&text))
        };
        let taken = files_below(&self.backups).iter().any(|snapshot| {
            std::fs::read_to_string(snapshot).is_ok_and(|taken| taken == text || is_before(&taken))
        });
        if !taken {
            self.breaks("P3: a database was migrated without a snapshot".to_owned());
        }
    }

    /// The file of a database; that of a server stands for what is in it.
    pub(crate) fn file_of(&self, database: &Located) -> PathBuf {
        match database {
            Located::File(file) => file.clone(),
            Located::Server(_) => self.server_file(),
        }
    }

    /// There is one server at most.
    pub(crate) fn server_file(&self) -> PathBuf {
        self.volumes.join("server/database")
    }

    /// Where the database of an instance lies on the host.
    pub(crate) fn database(&self, spec: &InstanceSpec) -> Option<PathBuf> {
        if spec.settings.environment.keys().any(|name| name.as_str() == "DATABASE_URL") {
            return Some(self.server_file());
        }
        let file = spec.files.values().next()?;
        if spec.runtime() == RuntimeKind::Process {
            return Some(file.into());
        }
        spec.settings.mounts.iter().find_map(|mount| {
            let Mount::Volume { volume, target, .. } = mount else { return None };
            let below = file.strip_prefix(target.as_str())?.trim_start_matches('/');
            let folder = spec.volumes.get(volume)?;
            // A rehearsal's is a folder already, an engine's is a name.
            Some(self.volumes.join(folder).join(below))
        })
    }

    /// Lets an instance join a network.
    pub(crate) fn join(&mut self, name: &InstanceName, network: &NetworkUse) -> bool {
        let there = self.networks.contains_key(&network.network);
        let Some(instance) = self.instances.get_mut(name).filter(|_| there) else { return false };
        instance.networks.insert(network.network.clone(), network.aliases.clone());
        true
    }

    /// A host that lost power and came back: what had no policy stays down, what had one runs again, and watch finds it healthy.
    pub(crate) fn lose_power(&mut self) {
        self.boots += 1;
        self.answers.clear();
        for instance in self.instances.values_mut().filter(|instance| instance.runs()) {
            instance.state = InstanceState::Exited { exit: exited(137) };
            instance.gated = false;
        }
        let again: Vec<_> = self
            .instances
            .iter()
            .filter(|(_, instance)| instance.restart == RestartPolicy::UnlessStopped)
            .map(|(name, _)| name.clone())
            .collect();
        for name in again {
            self.run(&name);
            if let Some(instance) = self.instances.get_mut(&name) {
                instance.gated = instance.runs();
            }
        }
    }
}

pub(crate) fn exited(code: i32) -> ExitStatus {
    ExitStatus { code: Some(code), signal: None, out_of_memory: false, error: None, at: None }
}

/// An image that the engine has.
pub(crate) fn image(reference: &str, identity: &ContentHash) -> FoundImage {
    FoundImage {
        id: reference.to_owned(),
        identity: identity.clone(),
        exposed: Vec::new(),
        healthcheck: false,
        command: Vec::new(),
        platform: "linux/amd64".to_owned(),
        origin: None,
    }
}

/// The schema's version in a database file.
pub(crate) fn schema(file: &Path) -> Option<u32> {
    version_in(&std::fs::read_to_string(file).ok()?)
}

fn version_in(text: &str) -> Option<u32> {
    text.lines().find_map(|line| line.strip_prefix("schema "))?.parse().ok()
}

fn rows_in(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.starts_with("schema "))
}

fn set_schema(file: &Path, version: u32) -> bool {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let rows: String = rows_in(&text).map(|line| format!("{line}\n")).collect();
    std::fs::write(file, format!("schema {version}\n{rows}")).is_ok()
}

fn append(file: &Path, line: &str) -> bool {
    use std::io::Write;
    // The first to open it makes it, as SQLite does.
    let opened = std::fs::OpenOptions::new().append(true).create(true).open(file);
    opened.is_ok_and(|mut file| writeln!(file, "{line}").is_ok())
}

/// Every file below a folder.
pub(crate) fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path);
        }
    }
    files
}

/// Whether it takes a migration back.
fn is_down(spec: &InstanceSpec) -> bool {
    let words = spec.settings.command.iter().flatten();
    words.filter_map(cutover_core::template::Template::as_text).any(|word| word == "./down")
}

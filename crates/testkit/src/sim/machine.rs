//! What is on the simulated host, and what happens on it by itself: traffic that writes rows, and the watch for broken promises.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cutover_core::names::InstanceName;
use cutover_core::plan::InstanceSpec;
use cutover_core::release::Content;
use cutover_core::state::{ExitStatus, InstanceState, RestartPolicy, Role};
use cutover_routes::{RouteState, RouteTable, TableHash};
use jiff::Timestamp;

use super::faults::{Fault, FaultPlan};

/// How instances of an artifact behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Behaviour {
    /// Ends at once.
    pub exits: bool,
    /// Never passes its gate.
    pub unhealthy: bool,
    /// Passes its gate, then answers its public route with errors.
    pub errors: bool,
    /// What its migration does.
    pub migration: Migration,
}

/// What a migration does to the database file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Migration {
    /// Nothing is pending.
    #[default]
    None,
    /// Brings the schema to this version.
    To(u32),
    /// Changes half of it and fails.
    Half,
    /// Works on the copy, fails on the database itself.
    FailsForReal(u32),
}

/// An instance of the simulated host.
#[derive(Debug, Clone)]
pub(crate) struct Instance {
    pub(crate) spec: InstanceSpec,
    pub(crate) state: InstanceState,
    pub(crate) restart: RestartPolicy,
}

impl Instance {
    pub(crate) fn runs(&self) -> bool {
        matches!(self.state, InstanceState::Running { .. })
    }
}

/// An effect that lands after its caller gave up.
pub(crate) struct Late {
    pub(crate) due: u64,
    pub(crate) effect: Box<dyn FnOnce(&mut Machine) + Send>,
}

/// The simulated host.
pub struct Machine {
    pub(crate) instances: BTreeMap<InstanceName, Instance>,
    pub(crate) table: RouteTable,
    pub(crate) behaviours: BTreeMap<String, Behaviour>,
    pub(crate) answers: BTreeMap<String, (u64, u64)>,
    pub(crate) calls: u64,
    pub(crate) faults: FaultPlan,
    pub(crate) since_first: Option<u64>,
    pub(crate) late: Vec<Late>,
    /// Something landed after its caller gave up.
    pub(crate) landed: bool,
    pub(crate) acknowledged: Vec<u64>,
    pub(crate) rows: u64,
    pub(crate) broken: Vec<String>,
    /// Services of which two may never run at once.
    pub(crate) singletons: Vec<String>,
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self {
            instances: BTreeMap::new(),
            table: RouteTable::default(),
            behaviours: BTreeMap::new(),
            answers: BTreeMap::new(),
            calls: 0,
            faults: FaultPlan::default(),
            since_first: None,
            late: Vec::new(),
            landed: false,
            acknowledged: Vec::new(),
            rows: 0,
            broken: Vec::new(),
            singletons: Vec::new(),
        }
    }

    /// Counts a call; says what goes wrong at it. Between calls the world goes on: late effects land, traffic is served.
    pub(crate) fn call(&mut self) -> Option<Fault> {
        self.calls += 1;
        self.land();
        self.traffic();
        match (self.faults.first, self.since_first, self.faults.second) {
            (Some((at, fault)), None, _) if at == self.calls => {
                self.since_first = Some(0);
                Some(fault)
            }
            (_, Some(count), Some((at, fault))) => {
                self.since_first = Some(count + 1);
                (count + 1 == at).then_some(fault)
            }
            _ => None,
        }
    }

    fn land(&mut self) {
        let calls = self.calls;
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.late).into_iter().partition(|late| late.due <= calls);
        self.late = later;
        self.landed |= !due.is_empty();
        for late in due {
            (late.effect)(self);
        }
    }

    /// All late effects land now.
    pub fn land_all(&mut self) {
        self.calls += 1_000;
        self.land();
    }

    /// One request on every route: it must find an instance that runs, and what it writes is acknowledged.
    pub(crate) fn traffic(&mut self) {
        let mut written = Vec::new();
        for (owner, entry) in &self.table.owners {
            for route in &entry.routes {
                let RouteState::Serving { targets } = &route.state else { continue };
                for target in targets {
                    let instance = self
                        .instances
                        .iter()
                        .find(|(name, _)| name.as_str() == target.id)
                        .map(|(_, instance)| instance);
                    match instance {
                        Some(instance) if instance.runs() => {
                            written.push((target.id.clone(), instance.spec.clone()));
                        }
                        _ => self
                            .broken
                            .push(format!("P1: a request of {owner} met {} which does not run", target.id)),
                    }
                }
            }
        }
        for (target, spec) in written {
            let errors = self.behaviour(&spec.content).errors;
            let counted = self.answers.entry(target).or_default();
            counted.0 += 1;
            counted.1 += u64::from(errors);
            if let Some(file) = spec.files.values().next().filter(|_| !errors) {
                self.rows += 1;
                let row = self.rows;
                if append(Path::new(file), &format!("row {row}")) {
                    self.acknowledged.push(row);
                }
            }
        }
    }

    /// How instances of some content behave.
    pub(crate) fn behaviour(&self, content: &Content) -> Behaviour {
        self.behaviours.get(content.identity().as_str()).copied().unwrap_or_default()
    }

    /// Starts an instance's process; what it does by itself follows.
    pub(crate) fn run(&mut self, name: &InstanceName) {
        let Some(instance) = self.instances.get(name).cloned() else { return };
        if instance.runs() {
            return;
        }
        let spec = &instance.spec;
        if spec.role == Role::Service && self.singletons.iter().any(|single| single == spec.service.as_str())
        {
            let mut running =
                self.instances.values().filter(|other| other.runs() && other.spec.role == Role::Service);
            if let Some(other) = running.find(|other| other.spec.service == spec.service) {
                self.broken.push(format!("P8: {name} was started while {} runs", other.spec.name));
            }
        }
        let behaviour = self.behaviour(&spec.content);
        let exit = match spec.role {
            Role::OneOff => Some(i32::from(!migrate(spec, behaviour.migration))),
            _ if behaviour.exits => Some(1),
            _ => None,
        };
        let state = match exit {
            Some(code) => InstanceState::Exited { exit: exited(code) },
            None => InstanceState::Running { since: Timestamp::UNIX_EPOCH, restarts: 0 },
        };
        if let Some(instance) = self.instances.get_mut(name) {
            instance.state = state;
        }
    }

    /// A host that lost power and came back: what had no policy stays down, what had one runs again.
    pub fn reboot(&mut self) {
        let names: Vec<_> = self.instances.keys().cloned().collect();
        for name in &names {
            if let Some(instance) = self.instances.get_mut(name).filter(|instance| instance.runs()) {
                instance.state = InstanceState::Exited { exit: exited(137) };
            }
        }
        for name in names {
            if self
                .instances
                .get(&name)
                .is_some_and(|instance| instance.restart == RestartPolicy::UnlessStopped)
            {
                self.run(&name);
            }
        }
    }

    /// The table's hash.
    pub(crate) fn hash(&self) -> TableHash {
        TableHash::of(&self.table)
    }
}

pub(crate) fn exited(code: i32) -> ExitStatus {
    ExitStatus { code: Some(code), signal: None, out_of_memory: false, error: None, at: None }
}

fn append(path: &Path, line: &str) -> bool {
    let Ok(mut text) = std::fs::read_to_string(path) else { return false };
    text.push_str(line);
    text.push('\n');
    std::fs::write(path, text).is_ok()
}

/// A migration's effect on the file it was told; whether it ended well.
fn migrate(spec: &InstanceSpec, migration: Migration) -> bool {
    let Some(file) = spec.files.values().next().map(PathBuf::from) else { return true };
    let version = |version: u32| {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let rest: String = text
            .lines()
            .filter(|line| !line.starts_with("schema "))
            .map(|line| format!("{line}\n"))
            .collect();
        std::fs::write(&file, format!("schema {version}\n{rest}")).is_ok()
    };
    match migration {
        Migration::None => true,
        Migration::To(to) => version(to),
        Migration::FailsForReal(to) if spec.isolated => version(to),
        Migration::Half | Migration::FailsForReal(_) => {
            version(999);
            false
        }
    }
}

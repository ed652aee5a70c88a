//! A host in memory as the planner sees it: plans are made from it and carried out on it, as far as what they leave behind matters.

use std::collections::{BTreeMap, BTreeSet};

use cutover_core::config::settings::{Config, Source};
use cutover_core::config::{Selection, Sources, parse};
use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::hash::ContentHash;
use cutover_core::journal::{Entry, Step, StepResult, What};
use cutover_core::names::{HostName, InstanceName, RunId, ServiceName};
use cutover_core::plan::{
    Direction, GatedInstance, HostPlan, Planned, Refusals, Stage, SwitchPlan, Verb, lifecycle, plan,
};
use cutover_core::recover::{Recovery, conclude, recover};
use cutover_core::release::{Content, Provenance, Shipped};
use cutover_core::request::{Ancestry, Request, SnapshotRequest, Stamp};
use cutover_core::state::{
    ExitStatus, FoundInstance, FoundTable, HostState, InstanceState, ReleaseRecord, RestartPolicy, Role,
    World,
};
use cutover_core::verdict::Verdict;
use cutover_routes::{RouteTable, TableHash};

/// One page.
pub(crate) const WEB: &str = r"
app: shop
services:
  web:
    artifact: web
    command: ./web
    port: 8000
    route: { host: shop.example.com }
    health: { path: /health }
";

/// Why a gate was not passed.
pub(crate) fn unhealthy() -> Failure {
    Failure::new(Exit::NotHealthy, "release v2 was not put live: service `api` did not become healthy")
}

/// What a person reads of a failure, with names in the place of what a run made up.
pub(crate) fn told(failure: &Failure, names: &[(&str, &str)]) -> String {
    let lines = failure.cause.iter().map(|cause| format!("  cause: {cause}"));
    let lines = lines.chain(failure.next.iter().map(|next| format!("  next: {next}")));
    let text =
        std::iter::once(format!("error: {}", failure.what)).chain(lines).collect::<Vec<_>>().join("\n");
    names.iter().fold(text, |text, (id, name)| text.replace(id, name))
}

/// A host with one app on it.
pub(crate) struct Host {
    pub(crate) state: HostState,
    pub(crate) text: String,
    runs: u128,
}

/// A folder of the repository as it is mounted, by what is in it.
pub(crate) fn file(content: &str) -> Shipped {
    Shipped { hash: ContentHash::of(content.as_bytes()), file: None }
}

impl Host {
    pub(crate) fn new(text: &str) -> Self {
        Self { state: state(&config(text)), text: text.to_owned(), runs: 0 }
    }

    /// One on which a first version is live.
    pub(crate) fn serving(text: &str) -> Self {
        let mut host = Self::new(text);
        let first = host.deploy("v1").unwrap();
        host.carry_out(&first);
        host
    }

    /// A version whose instances run, and which is switched to: nothing after that is done.
    pub(crate) fn switched_to(&mut self, version: &str) -> (HostPlan, Journal) {
        let plan = self.deploy(version).unwrap();
        let mut journal = Journal::of(&plan);
        for gated in incoming(&plan) {
            self.run(&gated);
        }
        journal.did(Stage::Switch, Step::Switch);
        self.switch(&plan);
        (plan, journal)
    }

    fn stamp(&mut self) -> Stamp {
        self.runs += 1;
        Stamp { now: self.state.now, run: RunId::new(uuid::Uuid::from_u128(self.runs << 64)) }
    }

    /// A plan to deploy: every service's content is its own of that version.
    pub(crate) fn deploy(&mut self, version: &str) -> Result<HostPlan, Refusals> {
        let contents = self.contents(version);
        self.deploy_of(contents)
    }

    /// A plan to deploy these contents.
    pub(crate) fn deploy_of(
        &mut self,
        contents: BTreeMap<ServiceName, Content>,
    ) -> Result<HostPlan, Refusals> {
        let shipped = config(&self.text).shipped().map(|path| (path.to_owned(), file(path))).collect();
        self.plan(&Request { contents, shipped, ..ask(Verb::Deploy) })
    }

    /// The content of every service in a version.
    pub(crate) fn contents(&self, version: &str) -> BTreeMap<ServiceName, Content> {
        let config = config(&self.text);
        let content = |name: &ServiceName, source: &Source| {
            let hash = ContentHash::of_parts(&[name.as_str(), version]);
            match source {
                Source::Artifact { .. } => Content::Artifact { hash },
                Source::Image { .. } | Source::Build(_) => {
                    let reference = format!("{name}:{version}");
                    Content::Image { reference, identity: hash, name: None, origin: None }
                }
            }
        };
        config.parts().map(|(name, source, _)| (name.clone(), content(name, source))).collect()
    }

    pub(crate) fn plan(&mut self, request: &Request) -> Result<HostPlan, Refusals> {
        let stamp = self.stamp();
        let world = World { hosts: BTreeMap::from([(HostName::local(), self.state.clone())]) };
        let planned = match request.verb {
            Verb::Deploy | Verb::MigrateRehearse => plan(&config(&self.text), &world, request, stamp)?,
            _ => lifecycle(&self.state.app, &world, request, stamp)?,
        };
        Ok(planned.hosts.into_values().next().unwrap())
    }

    /// What the plan leaves behind when all of it was done.
    pub(crate) fn carry_out(&mut self, plan: &HostPlan) {
        for gated in incoming(plan) {
            self.run(&gated);
        }
        self.switch(plan);
        let gone: BTreeSet<InstanceName> =
            plan.drain.todo().into_iter().flat_map(|drain| &drain.outgoing).map(|i| i.name.clone()).collect();
        self.state.instances.retain(|found| !gone.contains(&found.name));
        if let (Direction::Forward, Some(release)) = (plan.direction, &plan.release) {
            let sequence = 1 + self.state.releases.iter().map(|record| record.sequence).max().unwrap_or(0);
            self.state.releases.retain(|record| record.release.id != release.id);
            self.state.releases.push(ReleaseRecord {
                release: release.clone(),
                sequence,
                lived: true,
                migrations: Vec::new(),
                warm_until: None,
            });
        }
    }

    pub(crate) fn switch(&mut self, plan: &HostPlan) {
        match plan.switch.todo() {
            Some(SwitchPlan::Table { after, .. }) => {
                let mut table = self.state.table.take().map(|found| found.table).unwrap_or_default();
                match after {
                    Some(after) => table.owners.insert(plan.app.owner(), after.clone()),
                    None => table.owners.remove(&plan.app.owner()),
                };
                self.state.table = Some(FoundTable { hash: TableHash::of(&table), table });
                self.state.live.clone_from(&plan.becomes);
            }
            Some(SwitchPlan::LiveFile) => self.state.live.clone_from(&plan.becomes),
            None => {}
        }
    }

    pub(crate) fn run(&mut self, gated: &GatedInstance) {
        self.state.instances.retain(|found| found.name != gated.spec.name);
        self.state.instances.push(running(gated));
    }

    pub(crate) fn stop(&mut self, service: &str) {
        for found in self.state.instances.iter_mut().filter(|found| found.service.as_str() == service) {
            let exit =
                ExitStatus { code: Some(0), signal: None, out_of_memory: false, error: None, at: None };
            found.state = InstanceState::Exited { exit };
        }
    }

    pub(crate) fn recover(&mut self, journal: &Journal) -> Recovery {
        let run = journal.entries[0].run;
        recover(&journal.entries, &self.state, Stamp { now: self.state.now, run })
    }

    /// The way on or back that recovery takes.
    pub(crate) fn way(&mut self, journal: &Journal) -> HostPlan {
        match self.recover(journal) {
            Recovery::Act(plan) => *plan,
            other => panic!("there is nothing to be done: {other:?}"),
        }
    }

    pub(crate) fn concluded(&self, journal: &Journal) -> Verdict {
        conclude(&journal.entries, &self.state, Stamp { now: self.state.now, run: journal.run })
    }

    pub(crate) fn verdict(&mut self, journal: &Journal) -> Verdict {
        match self.recover(journal) {
            Recovery::Settled(verdict) => *verdict,
            other => panic!("it is not settled: {other:?}"),
        }
    }
}

/// A run's journal, written by hand.
pub(crate) struct Journal {
    pub(crate) entries: Vec<Entry>,
    run: RunId,
}

impl Journal {
    pub(crate) fn of(plan: &HostPlan) -> Self {
        let mut journal = Self { entries: Vec::new(), run: plan.run };
        journal.planned(plan);
        journal
    }

    pub(crate) fn write(&mut self, what: What) -> u64 {
        let seq = self.entries.len() as u64 + 1;
        self.entries.push(Entry { run: self.run, seq, at: moment(), what });
        seq
    }

    pub(crate) fn planned(&mut self, plan: &HostPlan) {
        self.write(What::Planned { plan: Box::new(plan.clone()) });
    }

    pub(crate) fn resumed(&mut self, plan: &HostPlan) {
        self.write(What::Resumed { attempt: 1, why: "going".to_owned() });
        self.planned(plan);
    }

    pub(crate) fn did(&mut self, stage: Stage, step: Step) {
        let intent = self.write(What::Intent { stage, step });
        self.write(What::Outcome { intent, result: StepResult::Done });
    }

    pub(crate) fn failed(&mut self, stage: Stage, failure: Failure) {
        self.write(What::Failed { stage, failure });
    }

    pub(crate) fn left(&mut self, stage: Stage) {
        self.write(What::Left { stage, took_ms: 1 });
    }
}

pub(crate) fn incoming(plan: &HostPlan) -> Vec<GatedInstance> {
    let beside = plan.start.todo().into_iter().flat_map(|start| start.waves.iter().flatten());
    let handed = plan.handover.todo().into_iter().flat_map(|handover| &handover.incoming);
    let follow = plan.verify.todo().into_iter().flat_map(|v| v.follow.iter().flat_map(|f| &f.incoming));
    let backing = plan.backing.todo().into_iter().flat_map(|backing| &backing.instances);
    beside.chain(handed).chain(follow).chain(backing).cloned().collect()
}

/// The services of some instances.
pub(crate) fn services<'a>(instances: impl IntoIterator<Item = &'a GatedInstance>) -> Vec<&'a str> {
    instances.into_iter().map(|instance| instance.spec.service.as_str()).collect()
}

pub(crate) fn todo<T>(planned: &Planned<T>) -> &T {
    planned.todo().unwrap()
}

fn moment() -> jiff::Timestamp {
    "2026-11-21T14:00:00Z".parse().unwrap()
}

fn running(gated: &GatedInstance) -> FoundInstance {
    let spec = &gated.spec;
    FoundInstance {
        name: spec.name.clone(),
        service: spec.service.clone(),
        role: spec.role,
        release: spec.release.clone(),
        slot: spec.slot,
        replica: spec.replica,
        run: spec.run,
        runtime: spec.runtime(),
        spec: spec.hash(),
        address: spec.address,
        state: InstanceState::Running { since: moment(), restarts: 0 },
        restart: if spec.role == Role::OneOff { RestartPolicy::No } else { RestartPolicy::UnlessStopped },
        ours: true,
    }
}

pub(crate) fn ask(verb: Verb) -> Request {
    Request {
        verb,
        by: "ada@laptop".to_owned(),
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

pub(crate) fn config(text: &str) -> Config {
    let sources = Sources { file: "cutover.yml", text, ..Sources::default() };
    parse(&sources, &Selection::default()).unwrap()
}

fn state(config: &Config) -> HostState {
    let table = RouteTable::default();
    HostState {
        app: config.id.clone(),
        installation: "0123456789abcdef".to_owned(),
        salt: "salt".to_owned(),
        root: "/srv/cutover/lib".to_owned(),
        now: moment(),
        live: None,
        table: Some(FoundTable { hash: TableHash::of(&table), table }),
        instances: Vec::new(),
        releases: Vec::new(),
        variables: None,
        placeholders: BTreeSet::new(),
        env_file_problems: Vec::new(),
        env_file_mode: None,
        artifacts: BTreeSet::new(),
        images: BTreeMap::new(),
        engine: None,
        taken: BTreeSet::new(),
        ports: cutover_core::addresses::Ports::default(),
        databases: BTreeMap::new(),
        disk_free: 64 << 30,
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

//! A host, an app and its plans for golden tests: made by the core's own functions, so that the texts are of real plans.

use std::collections::{BTreeMap, BTreeSet};

use cutover_core::config::settings::Config;
use cutover_core::config::{Selection, Sources, parse};
use cutover_core::hash::ContentHash;
use cutover_core::names::HostName;
use cutover_core::plan::{InstanceSpec, Plan, Verb};
use cutover_core::release::{Content, Provenance};
use cutover_core::request::{Ancestry, Request, Stamp};
use cutover_core::state::{
    FoundInstance, FoundTable, HostState, InstanceState, ReleaseRecord, RestartPolicy, World,
};
use cutover_routes::RouteTable;

use crate::arguments::request;

pub(super) const SHOP: &str = r"
app: shop
services:
  web:
    artifact: web
    command: ./server
    environment: { TOKEN: , DATABASE_FILE: '${databases.main.file}' }
    route: { host: shop.localhost }
    health: { path: /health }
  bot:
    artifact: bot
    command: ./bot
    strategy: handover
    ready: { log: polling started }
databases:
  main:
    engine: sqlite
    volume: data
    file: shop.db
    services: [web]
    migrate: { service: web, command: ./server migrate, compatible: expand }
";

pub(super) fn config() -> Config {
    let sources = Sources { file: "cutover.yml", text: SHOP, ..Sources::default() };
    parse(&sources, &Selection::default()).unwrap()
}

pub(super) fn host() -> HostState {
    HostState {
        app: "shop/local".parse().unwrap(),
        installation: "0123456789abcdef".to_owned(),
        salt: "salt".to_owned(),
        root: "/srv/cutover/lib".to_owned(),
        now: "2026-11-21T14:00:00Z".parse().unwrap(),
        live: None,
        table: Some(FoundTable {
            hash: cutover_routes::TableHash::of(&RouteTable::default()),
            table: RouteTable::default(),
        }),
        instances: Vec::new(),
        releases: Vec::new(),
        variables: Some(BTreeMap::from([("TOKEN".parse().unwrap(), ContentHash::of(b"token"))])),
        placeholders: BTreeSet::new(),
        env_file_problems: Vec::new(),
        env_file_mode: Some(0o600),
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
        listeners: vec!["127.0.0.1:8080".parse().unwrap()],
        remarks: Vec::new(),
        leftovers: None,
        snapshots: None,
        written: BTreeMap::new(),
    }
}

pub(super) fn deploy(web: &str) -> Request {
    let content = |text: &str| Content::Artifact { hash: ContentHash::of(text.as_bytes()) };
    Request {
        source: Provenance {
            commit: Some("7f3c9e1a00000000000000000000000000000000".to_owned()),
            subject: Some("Greet people by name".to_owned()),
            ..Provenance::default()
        },
        contents: BTreeMap::from([
            ("web".parse().unwrap(), content(web)),
            ("bot".parse().unwrap(), content("bot 1")),
        ]),
        ancestry: Ancestry::NotOlder,
        ..request(Verb::Deploy, "ada@laptop")
    }
}

pub(super) fn plan(state: &HostState, request: &Request) -> Plan {
    let world = World { hosts: BTreeMap::from([(HostName::local(), state.clone())]) };
    let stamp = Stamp { now: state.now, run: "018f3c9e-0000-7000-8000-0000deadbeef".parse().unwrap() };
    cutover_core::plan::plan(&config(), &world, request, stamp).unwrap()
}

/// The host once the plan was carried out.
pub(super) fn after(state: &HostState, plan: &Plan) -> HostState {
    let done = plan.hosts.values().next().unwrap();
    let release = done.release.clone().unwrap();
    let started = done.start.todo().into_iter().flat_map(|start| start.waves.iter().flatten());
    let followed = done.verify.todo().into_iter().flat_map(|verify| &verify.follow);
    let all = started.chain(followed.flat_map(|follow| &follow.incoming));
    let record =
        ReleaseRecord { release, sequence: 1, lived: true, migrations: Vec::new(), warm_until: None };
    HostState {
        live: done.becomes.clone(),
        instances: all.map(|gated| running(&gated.spec, state)).collect(),
        releases: vec![record],
        ..state.clone()
    }
}

fn running(spec: &InstanceSpec, state: &HostState) -> FoundInstance {
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
        state: InstanceState::Running { since: state.now, restarts: 0 },
        restart: RestartPolicy::UnlessStopped,
        ours: true,
    }
}

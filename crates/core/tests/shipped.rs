//! Files of the repository that are mounted into containers: part of what a service is, and of what a host must have.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::{BTreeMap, BTreeSet};

use cutover_core::config::settings::Config;
use cutover_core::config::{Selection, Sources, parse};
use cutover_core::hash::ContentHash;
use cutover_core::names::HostName;
use cutover_core::plan::{Change, GatedInstance, HostPlan, Refusals, ServicePlan, Verb, plan};
use cutover_core::release::{Content, Provenance, Shipped};
use cutover_core::request::{Ancestry, Request, SnapshotRequest, Stamp};
use cutover_core::state::{
    FoundEngine, FoundInstance, HostState, InstanceState, ReleaseRecord, RestartPolicy, Role, World,
};

const SHOP: &str = "
app: shop
services:
  web:
    image: shop/web:1
    volumes: [./web.conf:/etc/web.conf:ro]
  bot: { image: shop/bot:1 }
backing:
  redis:
    image: redis:7
    volumes: [./redis.conf:/etc/redis.conf:ro, data:/data]
";

fn config() -> Config {
    let sources = Sources { file: "cutover.yml", text: SHOP, ..Sources::default() };
    parse(&sources, &Selection::default()).unwrap()
}

fn host() -> HostState {
    HostState {
        app: "shop/local".parse().unwrap(),
        installation: "0123456789abcdef".to_owned(),
        salt: "salt".to_owned(),
        root: "/srv/cutover/lib".to_owned(),
        now: "2026-11-21T14:00:00Z".parse().unwrap(),
        live: None,
        table: None,
        instances: Vec::new(),
        releases: Vec::new(),
        variables: None,
        placeholders: BTreeSet::new(),
        env_file_problems: Vec::new(),
        env_file_mode: None,
        artifacts: BTreeSet::new(),
        images: BTreeMap::new(),
        engine: Some(FoundEngine {
            name: "Docker".to_owned(),
            version: "20.10".to_owned(),
            platform: "linux/amd64".to_owned(),
            bridge_reachable: true,
            subnets: Vec::new(),
            range: cutover_core::defaults::SUBNETS.to_owned(),
            networks: BTreeMap::new(),
            volumes: BTreeSet::new(),
        }),
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

/// The mounted files' contents, by name.
fn request(files: &[(&str, &str)]) -> Request {
    let image = |name: &str| Content::Image {
        reference: format!("sha256:{name}"),
        identity: ContentHash::of(name.as_bytes()),
        name: None,
        origin: None,
    };
    let shipped = |(name, text): &(&str, &str)| {
        let shipped = Shipped { hash: ContentHash::of(text.as_bytes()), file: Some((*name).to_owned()) };
        ((*name).to_owned(), shipped)
    };
    Request {
        verb: Verb::Deploy,
        by: "ada@laptop".to_owned(),
        services: BTreeSet::new(),
        source: Provenance::default(),
        contents: ["web", "bot", "redis"].map(|name| (name.parse().unwrap(), image(name))).into(),
        shipped: files.iter().map(shipped).collect(),
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

fn planned(state: &HostState, request: &Request) -> Result<HostPlan, Refusals> {
    let world = World { hosts: BTreeMap::from([(HostName::local(), state.clone())]) };
    let stamp = Stamp { now: state.now, run: "018f3c9e-0000-7000-8000-0000deadbeef".parse().unwrap() };
    Ok(plan(&config(), &world, request, stamp)?.hosts.into_values().next().unwrap())
}

/// The host once the plan was carried out.
fn after(state: &HostState, plan: &HostPlan) -> HostState {
    let started = plan.start.todo().into_iter().flat_map(|start| start.waves.iter().flatten());
    let backing = plan.backing.todo().into_iter().flat_map(|backing| &backing.instances);
    let release = plan.release.clone().unwrap();
    let live = plan.becomes.as_ref().unwrap();
    let stay = state.instances.iter().filter(|found| live.has(&found.name) || found.role == Role::Backing);
    let came: Vec<FoundInstance> = started.chain(backing).map(running).collect();
    let sequence = 1 + u64::try_from(state.releases.len()).unwrap();
    let mut state = HostState {
        live: plan.becomes.clone(),
        instances: stay.filter(|found| came.iter().all(|new| new.name != found.name)).cloned().collect(),
        releases: state
            .releases
            .iter()
            .filter(|record| !plan.record.forget.contains(&record.release.id))
            .cloned()
            .chain([ReleaseRecord {
                release,
                sequence,
                lived: true,
                migrations: Vec::new(),
                warm_until: None,
            }])
            .collect(),
        ..state.clone()
    };
    state.instances.extend(came);
    state
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
        state: InstanceState::Running { since: "2026-11-21T14:00:00Z".parse().unwrap(), restarts: 0 },
        restart: RestartPolicy::UnlessStopped,
        ours: true,
    }
}

const FIRST: [(&str, &str); 2] = [("web.conf", "web 1"), ("redis.conf", "redis 1")];

#[test]
fn what_is_mounted_travels_with_the_instance_and_must_be_on_the_host() {
    let plan = planned(&host(), &request(&FIRST)).unwrap();
    let wanted: BTreeSet<ContentHash> =
        ["web 1", "redis 1"].map(|text| ContentHash::of(text.as_bytes())).into();
    assert_eq!(plan.preflight.todo().unwrap().artifacts, wanted);
    let redis = &plan.backing.todo().unwrap().instances[0].spec;
    assert_eq!(redis.shipped["redis.conf"].hash, ContentHash::of(b"redis 1"));
    assert!(!redis.shipped.contains_key("web.conf"));
}

#[test]
fn a_changed_file_is_a_changed_service_and_the_others_stay() {
    let state = host();
    let state = after(&state, &planned(&state, &request(&FIRST)).unwrap());
    let again = planned(&state, &request(&FIRST)).unwrap();
    assert!(again.services.values().all(|service| *service == ServicePlan::Kept), "{:?}", again.services);
    let changed = planned(&state, &request(&[("web.conf", "web 2"), FIRST[1]])).unwrap();
    let ServicePlan::Replaced { why, .. } = &changed.services[&"web".parse().unwrap()] else {
        panic!("{:?}", changed.services)
    };
    assert_eq!(why, &[Change::Files]);
    assert_eq!(changed.services[&"bot".parse().unwrap()], ServicePlan::Kept);
    assert_ne!(changed.release.unwrap().id, again.release.unwrap().id);
}

#[test]
fn a_backing_services_changed_file_is_told_and_its_release_is_kept_for_it() {
    let state = host();
    let first = planned(&state, &request(&FIRST)).unwrap();
    let mut state = after(&state, &first);
    for number in 2..12 {
        let text = format!("web {number}");
        let files = [("web.conf", text.as_str()), ("redis.conf", "redis 2")];
        let plan = planned(&state, &request(&files)).unwrap();
        assert!(plan.backing.todo().is_none_or(|backing| backing.instances.is_empty()));
        let told = plan.notes.iter().find(|note| note.contains("`redis`")).unwrap();
        assert!(
            told.contains("a file that is mounted into it") && told.contains("`cutover backing apply redis`"),
            "{told}"
        );
        state = after(&state, &plan);
    }
    let first = first.release.unwrap().id;
    assert!(state.releases.iter().any(|record| record.release.id == first));
    assert!(state.releases.len() < 8, "{}", state.releases.len());
}

#[test]
fn a_file_that_is_not_there_is_refused_by_name() {
    let failure = planned(&host(), &request(&FIRST[..1])).unwrap_err().failure();
    assert_eq!(failure.what, "`redis.conf`, which is mounted, is not there");
}

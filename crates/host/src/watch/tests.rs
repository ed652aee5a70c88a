//! Decisions from looks, and whole watches over an app in memory with paused time. The clock of the wall is a fixed moment where it
//! matters.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use cutover_core::config::settings::{
    DependsOn, HoldSettings, RouteSettings, RunSettings, Service, Source, Strategy, Verify,
};
use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::gate::{Check, Finding, Gate, GateCheck, Probe};
use cutover_core::hash::ContentHash;
use cutover_core::names::{InstanceName, ReleaseId, RunId, ServiceName, Slot};
use cutover_core::plan::RouteCheck;
use cutover_core::release::{Content, Live, Release, RuntimeKind, ServiceRelease};
use cutover_core::state::{FoundInstance, InstanceState, RestartPolicy, Role};
use cutover_core::verdict::{Outcome, Verdict};
use cutover_routes::{Address, Entry, Hold, Route, RouteState, RouteTable, Target};

use super::decide::{Act, decide};
use super::fake::{FakeRouter, FakeRuntime, NoDatabase, exit};
use super::memory::Memory;
use super::seen::Seen;
use super::*;
use crate::lock::AppLock;
use crate::meter::Meter;
use crate::ports::{ProbeTarget, Prober};

const RELEASE: &str = "r2";

fn app_id() -> AppId {
    "shop/local".parse().unwrap()
}

fn wall() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().unwrap()
}

fn now() -> Now {
    Now { wall: wall(), steady: Instant::now() }
}

fn run_id() -> RunId {
    RunId::new(uuid::Uuid::nil())
}

fn running_since(second: i64) -> InstanceState {
    InstanceState::Running { since: Timestamp::from_second(1_000_000 + second).unwrap(), restarts: 0 }
}

fn exited() -> InstanceState {
    InstanceState::Exited { exit: exit(137) }
}

fn instance(name: &str, service: &str, state: InstanceState) -> FoundInstance {
    let number = u16::from(name.as_bytes()[0]) + name.bytes().map(u16::from).sum::<u16>();
    FoundInstance {
        name: name.parse().unwrap(),
        service: service.parse().unwrap(),
        role: Role::Service,
        release: RELEASE.parse().unwrap(),
        slot: Slot::Blue,
        replica: 1,
        run: run_id(),
        runtime: RuntimeKind::Process,
        spec: ContentHash::of(b"spec"),
        address: Some(([127, 0, 0, 1], 20_000 + number).into()),
        state,
        restart: RestartPolicy::UnlessStopped,
        ours: true,
    }
}

fn gate() -> Gate {
    let check = Check::Tcp { port: None, inside: false };
    let second = Duration::from_secs(1);
    Gate {
        checks: vec![GateCheck { check, interval: second, timeout: second, rise: 1, fall: 3 }],
        within: Duration::from_mins(1),
    }
}

fn service(routed: bool, depends_on: &[(&str, DependsOn)]) -> Service {
    let depends_on = depends_on.iter().map(|(on, how)| (on.parse().unwrap(), *how)).collect();
    Service {
        source: Source::Artifact { path: ".".into() },
        run: RunSettings { depends_on, ..RunSettings::default() },
        port: Some(80),
        route: routed.then(|| RouteSettings { hosts: vec![], path: "/".into(), strip: false }),
        gate: gate(),
        verify: Vec::<Verify>::new(),
        strategy: Strategy::BlueGreen,
        replicas: 1,
        hold: HoldSettings { budget: Duration::from_secs(30), requests: 100, bytes: 1000 },
        drain: Duration::from_secs(30),
        restart_unhealthy: false,
    }
}

fn release(services: &[(&str, Service)]) -> Release {
    let content = Content::Artifact { hash: ContentHash::of(b"artifact") };
    let services = services.iter().map(|(name, settings)| {
        (
            name.parse().unwrap(),
            ServiceRelease { settings: settings.clone(), content: content.clone(), shipped: BTreeMap::new() },
        )
    });
    Release {
        one_offs: BTreeMap::new(),
        id: RELEASE.parse().unwrap(),
        app: app_id(),
        source: cutover_core::release::Provenance::default(),
        services: services.collect(),
        backing: BTreeMap::new(),
        databases: BTreeMap::new(),
        volumes: BTreeMap::new(),
        backup: None,
        registry: None,
        variables: BTreeMap::new(),
        bake: Duration::ZERO,
        keep_warm: Duration::ZERO,
        keep: 5,
        created: wall(),
    }
}

fn live(members: &[(&str, &[&str])]) -> Live {
    let members = members.iter().map(|(service, names)| {
        (service.parse().unwrap(), names.iter().map(|name| name.parse().unwrap()).collect())
    });
    Live {
        release: RELEASE.parse().unwrap(),
        slot: Slot::Blue,
        run: run_id(),
        members: members.collect(),
        stopped: BTreeSet::new(),
        repository: None,
    }
}

fn target(instance: &FoundInstance) -> Target {
    Target { id: instance.name.to_string(), address: Address::Tcp(instance.address.unwrap()) }
}

fn entry(live: &Live, state: RouteState) -> Entry {
    let route = Route { name: "web".into(), hosts: vec![], path: "/".into(), strip: false, state };
    Entry { facts: live.to_facts(), routes: vec![route] }
}

fn serving(targets: &[&FoundInstance]) -> RouteState {
    RouteState::Serving { targets: targets.iter().map(|instance| target(instance)).collect() }
}

fn held(until: u64) -> RouteState {
    RouteState::Held { hold: Hold { until, requests: 1, bytes: 1, reason: "soon".into() } }
}

/// An app `web` with a route and these instances, all of them serving.
fn web(instances: &[FoundInstance]) -> Seen {
    let names: Vec<&str> = instances.iter().map(|instance| instance.name.as_str()).collect();
    let live = live(&[("web", &names)]);
    Seen {
        told: true,
        entry: Some(entry(&live, serving(&instances.iter().collect::<Vec<_>>()))),
        live: Some(live),
        instances: instances.iter().map(|one| (one.name.clone(), one.clone())).collect(),
        release: Some(release(&[("web", service(true, &[]))])),
        ..Seen::default()
    }
}

fn with(mut seen: Seen, changed: FoundInstance) -> Seen {
    seen.instances.insert(changed.name.clone(), changed);
    seen
}

/// What watch knows that has seen all as it should be.
fn knowing(seen: &Seen) -> Memory {
    let mut memory = Memory::default();
    memory.take_in(seen, now());
    memory
}

fn name(text: &str) -> InstanceName {
    text.parse().unwrap()
}

fn start(text: &str) -> Act {
    Act::Start { instance: name(text) }
}

fn route_of(acts: &[Act]) -> &RouteState {
    let entry = acts.iter().find_map(|act| if let Act::Routes { entry } = act { Some(entry) } else { None });
    &entry.unwrap_or_else(|| panic!("no change of routes in {acts:?}")).routes[0].state
}

#[tokio::test]
async fn nothing_is_done_where_all_is_as_it_should_be() {
    let seen = web(&[instance("web-1", "web", running_since(0))]);

    assert_eq!(decide(&seen, &knowing(&seen), now()), []);
}

#[tokio::test]
async fn nothing_is_done_before_all_was_seen() {
    let mut seen = web(&[instance("web-1", "web", exited())]);
    seen.blind.insert(RuntimeKind::Process);
    let mut memory = Memory::default();
    memory.take_in(&seen, now());
    assert_eq!(decide(&seen, &memory, now()), []);

    let untold = Seen { told: false, ..web(&[instance("web-1", "web", exited())]) };
    memory.take_in(&untold, now());
    assert_eq!(decide(&untold, &memory, now()), []);
}

#[tokio::test]
async fn nothing_is_done_while_a_dead_run_is_not_settled() {
    let one = instance("web-1", "web", running_since(0));
    let memory = knowing(&web(std::slice::from_ref(&one)));
    let seen = Seen {
        unfinished: true,
        ..with(web(std::slice::from_ref(&one)), FoundInstance { state: exited(), ..one })
    };

    assert_eq!(decide(&seen, &memory, now()), []);
}

#[tokio::test]
async fn what_may_never_run_twice_is_not_started_while_another_of_it_runs() {
    let old = instance("bot-1", "bot", running_since(0));
    let single = Service { strategy: Strategy::Handover, ..service(false, &[]) };
    let seen =
        Seen { release: Some(release(&[("bot", single)])), entry: None, ..web(std::slice::from_ref(&old)) };
    let seen = Seen { live: Some(live(&[("bot", &["bot-1"])])), ..seen };
    let mut memory = knowing(&seen);
    let new = FoundInstance { restart: RestartPolicy::No, ..instance("bot-2", "bot", running_since(5)) };
    let down = FoundInstance { state: exited(), ..old };
    let both = with(with(seen, down.clone()), new.clone());
    memory.take_in(&both, now());

    assert!(!decide(&both, &memory, now()).contains(&start("bot-1")));
    let alone = with(both, FoundInstance { state: exited(), ..new });
    assert!(decide(&alone, &memory, now()).contains(&start("bot-1")));
}

#[tokio::test]
async fn the_only_instance_that_is_down_is_held_for_and_started() {
    let one = instance("web-1", "web", running_since(0));
    let mut memory = knowing(&web(std::slice::from_ref(&one)));
    let seen = with(web(std::slice::from_ref(&one)), FoundInstance { state: exited(), ..one });
    memory.take_in(&seen, now());

    let acts = decide(&seen, &memory, now());

    let RouteState::Held { hold } = route_of(&acts) else { panic!("{acts:?}") };
    assert_eq!(hold.until, u64::try_from(wall().as_millisecond()).unwrap() + 30_000);
    assert_eq!(acts[1..], [start("web-1")]);
}

#[tokio::test]
async fn with_another_serving_the_dead_one_leaves_the_balance_until_it_has_proved_itself() {
    let (one, two) = (instance("web-1", "web", running_since(0)), instance("web-2", "web", running_since(0)));
    let all = [one.clone(), two.clone()];
    let mut memory = knowing(&web(&all));
    let dead = with(web(&all), FoundInstance { state: exited(), ..one.clone() });
    memory.take_in(&dead, now());

    let acts = decide(&dead, &memory, now());
    assert_eq!(*route_of(&acts), serving(&[&two]));
    assert_eq!(acts[1..], [start("web-1")]);

    let back = FoundInstance { state: running_since(9), ..one.clone() };
    let mut seen = with(web(&all), back.clone());
    seen.entry = Some(entry(seen.live.as_ref().unwrap(), serving(&[&two])));
    memory.take_in(&seen, now());
    assert_eq!(decide(&seen, &memory, now()), []);
    memory.prove(&back.name, Timestamp::from_second(1_000_009).unwrap());
    assert_eq!(*route_of(&decide(&seen, &memory, now())), serving(&[&back, &two]));
}

#[tokio::test]
async fn a_hold_ends_when_the_instance_has_proved_itself_or_its_time_is_over() {
    let up = instance("web-1", "web", running_since(9));
    let mut seen = web(std::slice::from_ref(&up));
    let at = u64::try_from(wall().as_millisecond()).unwrap();
    let with_hold = |until| Some(entry(&live(&[("web", &["web-1"])]), held(until)));
    seen.entry = with_hold(at + 1);
    let mut memory = knowing(&seen);

    assert_eq!(decide(&seen, &memory, now()), [], "it has not proved itself, and there is time");
    seen.entry = with_hold(at);
    assert_eq!(*route_of(&decide(&seen, &memory, now())), serving(&[&up]));
    seen.entry = with_hold(at + 1);
    memory.prove(&up.name, Timestamp::from_second(1_000_009).unwrap());
    assert_eq!(*route_of(&decide(&seen, &memory, now())), serving(&[&up]));
}

#[tokio::test]
async fn one_that_lost_its_keeper_is_replaced_under_a_hold() {
    let mut seen = web(&[instance("web-1", "web", running_since(0))]);
    let memory = knowing(&seen);
    seen.unkept.insert(name("web-1"));

    let acts = decide(&seen, &memory, now());

    assert!(matches!(route_of(&acts), RouteState::Held { .. }));
    let quiet = Act::Quiet { instance: name("web-1"), limit: Duration::from_secs(10) };
    let restart = Act::Restart { instance: name("web-1"), stop: seen.stop(&seen.instances[&name("web-1")]) };
    assert_eq!(acts[1..], [quiet, restart]);
}

#[tokio::test]
async fn of_several_that_lost_their_keepers_one_is_replaced_at_a_time() {
    let (one, two) = (instance("web-1", "web", running_since(0)), instance("web-2", "web", running_since(0)));
    let mut seen = web(&[one.clone(), two.clone()]);
    let mut memory = knowing(&seen);
    seen.unkept.extend([name("web-1"), name("web-2")]);

    let acts = decide(&seen, &memory, now());
    assert_eq!(*route_of(&acts), serving(&[&two]));
    assert!(matches!(&acts[2], Act::Restart { instance, .. } if *instance == one.name), "{acts:?}");

    // It is up again, and not proved: the other one must wait.
    let mut seen = with(seen, FoundInstance { state: running_since(9), ..one });
    seen.unkept.remove(&name("web-1"));
    seen.entry = Some(entry(seen.live.as_ref().unwrap(), serving(&[&two])));
    memory.take_in(&seen, now());
    assert_eq!(decide(&seen, &memory, now()), []);
}

#[tokio::test]
async fn a_sick_one_is_taken_out_and_restarted_only_while_another_is_healthy() {
    let (one, two) = (instance("web-1", "web", running_since(0)), instance("web-2", "web", running_since(0)));
    let seen = web(&[one.clone(), two.clone()]);
    let mut memory = knowing(&seen);
    let since = Timestamp::from_second(1_000_000).unwrap();
    memory.judge(&one.name, since, Some(Finding::Refused));

    let acts = decide(&seen, &memory, now());
    assert_eq!(*route_of(&acts), serving(&[&two]));
    assert!(matches!(&acts[2], Act::Restart { instance, .. } if *instance == one.name), "{acts:?}");

    memory.judge(&two.name, since, Some(Finding::Refused));
    assert_eq!(decide(&seen, &memory, now()), [], "both sick: they stay as they are");
    let mut last_too = service(true, &[]);
    last_too.restart_unhealthy = true;
    let seen = Seen { release: Some(release(&[("web", last_too)])), ..seen };
    let acts = decide(&seen, &memory, now());
    assert_eq!(acts.iter().filter(|act| matches!(act, Act::Restart { .. })).count(), 1, "{acts:?}");
}

#[tokio::test]
async fn what_was_stopped_through_cutover_stays_stopped() {
    let mut seen = web(&[instance("web-1", "web", exited())]);
    if let Some(live) = &mut seen.live {
        live.stopped.insert("web".parse().unwrap());
    }

    assert_eq!(decide(&seen, &knowing(&seen), now()), []);
}

#[tokio::test(start_paused = true)]
async fn after_a_reboot_all_starts_in_the_order_of_what_it_depends_on() {
    let web = instance("web-1", "web", exited());
    let bot = instance("bot-1", "bot", exited());
    let redis = FoundInstance { role: Role::Backing, ..instance("redis-1", "redis", exited()) };
    let live = live(&[("web", &["web-1"]), ("bot", &["bot-1"])]);
    let services = [("web", service(false, &[])), ("bot", service(false, &[("web", DependsOn::Healthy)]))];
    let mut seen = Seen {
        told: true,
        live: Some(live),
        release: Some(release(&services)),
        instances: [web.clone(), bot, redis.clone()].map(|one| (one.name.clone(), one)).into(),
        ..Seen::default()
    };
    let mut memory = Memory::default();
    let mut look = |seen: &Seen, proved: &[&FoundInstance]| {
        memory.take_in(seen, now());
        for instance in proved {
            memory.prove(&instance.name, Timestamp::from_second(1_000_005).unwrap());
        }
        decide(seen, &memory, now())
    };

    assert_eq!(look(&seen, &[]), [start("redis-1")]);
    seen = with(seen, FoundInstance { state: running_since(5), ..redis.clone() });
    assert_eq!(look(&seen, &[]), [], "redis has not proved itself");
    assert_eq!(look(&seen, &[&redis]), [start("web-1")]);
    seen = with(seen, FoundInstance { state: running_since(5), ..web.clone() });
    assert_eq!(look(&seen, &[]), [], "the bot waits for a healthy web");
    assert_eq!(look(&seen, &[&web]), [start("bot-1")]);
}

#[tokio::test(start_paused = true)]
async fn what_it_depends_on_is_not_waited_for_without_end() {
    let redis = FoundInstance { role: Role::Backing, ..instance("redis-1", "redis", running_since(0)) };
    let mut seen = web(&[instance("web-1", "web", exited())]);
    seen.entry = None;
    seen.instances.insert(redis.name.clone(), FoundInstance { state: exited(), ..redis.clone() });
    let mut memory = Memory::default();
    memory.take_in(&seen, now());
    seen.instances.insert(redis.name.clone(), redis);
    memory.take_in(&seen, now());
    assert_eq!(decide(&seen, &memory, now()), []);

    tokio::time::advance(cutover_core::defaults::GATE).await;

    assert_eq!(decide(&seen, &memory, now()), [start("web-1")]);
}

#[tokio::test(start_paused = true)]
async fn starts_that_do_not_last_come_slower_and_slower_and_a_crash_loop_is_told() {
    let one = instance("web-1", "web", running_since(0));
    let seen = with(web(std::slice::from_ref(&one)), FoundInstance { state: exited(), ..one.clone() });
    let mut memory = knowing(&seen);
    let mut pauses = Vec::new();
    for second in 0..6 {
        let begun = Instant::now();
        while !memory.is_due(&one.name, now()) {
            tokio::time::advance(Duration::from_millis(10)).await;
        }
        pauses.push(begun.elapsed());
        memory.started(&one.name, now(), None);
        let up = FoundInstance { state: running_since(10 + second), ..one.clone() };
        memory.take_in(&with(seen.clone(), up), now());
        memory.take_in(&seen, now());
    }

    assert_eq!(pauses[0], Duration::ZERO);
    assert!(pauses.windows(2).skip(1).all(|pair| pair[1] > pair[0]), "{pauses:?}");
    assert!(memory.is_in_crash_loop(&one.name, now()));
    let acts = decide(&seen, &memory, Now { steady: Instant::now() + Duration::from_secs(30), wall: wall() });
    assert_eq!(acts, [start("web-1")], "nobody is kept waiting for what ends again and again");
}

#[tokio::test(start_paused = true)]
async fn orphans_go_after_a_second_look_and_what_is_kept_for_a_reason_stays() {
    let one = instance("web-1", "web", running_since(0));
    let of = |name: &str, state: InstanceState| FoundInstance {
        release: "r1".parse().unwrap(),
        ..instance(name, "web", state)
    };
    let orphan = of("web-0", running_since(0));
    let candidate = FoundInstance { restart: RestartPolicy::No, ..of("web-9", exited()) };
    let migration = FoundInstance { role: Role::OneOff, ..of("migrate-1", exited()) };
    let console = InstanceState::Running { since: wall(), restarts: 0 };
    let scratch = instance("scratch-main-4be1f0a2", "postgres", console.clone());
    let scratch = FoundInstance { role: Role::OneOff, ..scratch };
    let console = FoundInstance { role: Role::OneOff, ..of("console-1", console) };
    let mut seen = web(&[one]);
    for extra in [&orphan, &candidate, &migration, &scratch, &console] {
        seen.instances.insert(extra.name.clone(), extra.clone());
    }
    let mut memory = knowing(&seen);
    assert_eq!(decide(&seen, &memory, now()), []);

    tokio::time::advance(cutover_core::defaults::WATCH).await;
    memory.take_in(&seen, now());

    let gone: Vec<_> = decide(&seen, &memory, now())
        .into_iter()
        .map(|act| match act {
            Act::Retire { instance, .. } => instance.to_string(),
            Act::Quiet { instance, .. } => format!("requests on {instance}"),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(gone, ["migrate-1", "scratch-main-4be1f0a2", "requests on web-0", "web-0"]);
}

#[tokio::test(start_paused = true)]
async fn a_warm_release_goes_when_its_time_is_over() {
    let old = FoundInstance { release: "r1".parse().unwrap(), ..instance("web-0", "web", running_since(0)) };
    let mut seen = web(&[instance("web-1", "web", running_since(0))]);
    seen.instances.insert(old.name.clone(), old.clone());
    let first: ReleaseId = "r1".parse().unwrap();
    seen.warm.insert(first.clone(), wall() + Duration::from_mins(1));
    let mut memory = knowing(&seen);
    tokio::time::advance(cutover_core::defaults::WATCH).await;
    memory.take_in(&seen, now());
    assert_eq!(decide(&seen, &memory, now()), []);

    seen.warm.insert(first.clone(), wall());
    // It ended by itself meanwhile; what is warm has no restart policy.
    let ended = FoundInstance { state: exited(), restart: RestartPolicy::No, ..old.clone() };
    seen.instances.insert(old.name.clone(), ended);
    memory.take_in(&seen, now());
    tokio::time::advance(cutover_core::defaults::WATCH).await;
    memory.take_in(&seen, now());
    let acts = decide(&seen, &memory, now());
    assert!(matches!(&acts[..], [Act::Retire { instance, .. }] if *instance == old.name), "{acts:?}");
    seen.instances.remove(&old.name);
    memory.take_in(&seen, now());
    assert_eq!(decide(&seen, &memory, now()), [Act::Cool { release: first }]);
}

#[tokio::test]
async fn a_live_instance_without_the_policy_of_one_gets_it() {
    let one = instance("web-1", "web", running_since(0));
    let seen = web(&[FoundInstance { restart: RestartPolicy::No, ..one }]);

    assert_eq!(decide(&seen, &knowing(&seen), now()), [Act::Admit { instance: name("web-1") }]);
}

/// Passes, or finds nobody, as told.
#[derive(Default)]
struct FakeProber {
    sick: Mutex<BTreeSet<InstanceName>>,
}

#[async_trait]
impl Prober for FakeProber {
    async fn probe(&self, target: &ProbeTarget, _: &Check, _: Duration) -> Probe {
        let is_sick = self.sick.lock().unwrap().contains(&target.instance);
        if is_sick { Probe::Failed(Finding::Refused) } else { Probe::Passed }
    }

    async fn route(&self, _: &RouteCheck, _: Duration) -> Probe {
        Probe::Passed
    }

    async fn verify(&self, _: &RouteCheck, _: &Verify, _: &ProbeTarget) -> Probe {
        Probe::Passed
    }
}

/// One app in memory, watched.
struct Scene {
    _folder: tempfile::TempDir,
    layout: Layout,
    runtime: Arc<FakeRuntime>,
    router: Arc<FakeRouter>,
    prober: Arc<FakeProber>,
    shared: Arc<Shared>,
    bell: Arc<Notify>,
}

impl Scene {
    fn of(seen: &Seen) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::under(folder.path());
        let runtime = Arc::new(FakeRuntime::new(RuntimeKind::Process));
        for instance in seen.instances.values() {
            runtime.put(instance.clone());
        }
        let mut table = RouteTable::default();
        table.owners.insert(app_id().owner(), seen.entry.clone().unwrap());
        let router = Arc::new(FakeRouter::serving(table));
        let prober = Arc::new(FakeProber::default());
        let ports = Ports {
            process: runtime.clone(),
            container: None,
            router: router.clone(),
            database: Arc::new(NoDatabase),
            prober: prober.clone(),
            meter: Meter::default(),
        };
        let store = Arc::new(Store::in_memory().unwrap());
        store.put_release(seen.release.as_ref().unwrap()).unwrap();
        std::fs::create_dir_all(layout.state()).unwrap();
        let samples = Samples::open(&layout).unwrap();
        let connect: Connect = Box::new(|| Box::pin(async { None }));
        let shared = Shared { layout: layout.clone(), store, samples, ports: Mutex::new(ports), connect };
        Self {
            _folder: folder,
            layout,
            runtime,
            router,
            prober,
            shared: Arc::new(shared),
            bell: Arc::default(),
        }
    }

    fn watch(&self) -> tokio::task::JoinHandle<()> {
        let watch = AppWatch::new(Arc::clone(&self.shared), app_id());
        tokio::spawn(watch.run(Arc::clone(&self.bell)))
    }

    /// Waits, at most so long, until the route is like this.
    async fn until(&self, limit: Duration, is: impl Fn(&RouteState) -> bool) {
        let wait = async {
            while !is(&self.route()) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let waited = tokio::time::timeout(limit, wait).await;
        waited.unwrap_or_else(|_| panic!("not within {limit:?}: {:?}", self.route()));
    }

    fn route(&self) -> RouteState {
        self.router.table().owners[&app_id().owner()].routes[0].state.clone()
    }

    fn health(&self) -> cutover_core::wire::ServiceHealth {
        let web: ServiceName = "web".parse().unwrap();
        self.shared.samples.newest(&app_id()).unwrap().unwrap().services[&web].clone()
    }
}

fn serves(names: &'static [&'static str]) -> impl Fn(&RouteState) -> bool {
    move |state| state.targets().iter().map(|target| target.id.as_str()).eq(names.iter().copied())
}

#[tokio::test(start_paused = true)]
async fn a_killed_instance_is_back_within_a_second_under_a_hold() {
    let scene = Scene::of(&web(&[instance("web-1", "web", running_since(0))]));
    let watch = scene.watch();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(scene.runtime.acts(), Vec::<String>::new());

    scene.runtime.kill("web-1");
    scene.until(Duration::from_secs(1), |state| matches!(state, RouteState::Held { .. })).await;
    scene.until(Duration::from_secs(1), serves(&["web-1"])).await;

    assert_eq!(scene.runtime.acts(), ["start web-1"]);
    assert_eq!(scene.health().instances[0].healthy, Some(true));
    watch.abort();
}

#[tokio::test(start_paused = true)]
async fn while_a_run_holds_the_lock_nothing_is_touched_and_then_at_once() {
    let scene = Scene::of(&web(&[instance("web-1", "web", running_since(0))]));
    let holder = cutover_core::journal::LockHolder {
        app: app_id(),
        run: run_id(),
        by: "ann".into(),
        verb: cutover_core::plan::Verb::Deploy,
        since: wall(),
        pid: std::process::id(),
    };
    let lock = AppLock::take(&scene.layout, &app_id(), &holder).unwrap();
    let watch = scene.watch();
    tokio::time::sleep(Duration::from_secs(1)).await;
    scene.runtime.kill("web-1");
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(scene.runtime.acts(), Vec::<String>::new());

    drop(lock);
    scene.bell.notify_one();

    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(scene.runtime.acts(), ["start web-1"]);
    watch.abort();
}

/// What one run left that is down, and that nobody starts again.
fn ended(name: &str, run: u128) -> FoundInstance {
    FoundInstance {
        release: "r1".parse().unwrap(),
        restart: RestartPolicy::No,
        run: RunId::new(uuid::Uuid::from_u128(run)),
        ..instance(name, "web", exited())
    }
}

fn record(scene: &Scene, run: RunId, outcome: Outcome) {
    let verdict = Verdict {
        run,
        app: app_id(),
        verb: cutover_core::plan::Verb::Deploy,
        release: Some("r1".parse().unwrap()),
        serving: None,
        outcome,
        allowed: vec![],
        by: "ann@laptop".to_owned(),
        started: wall(),
        finished: wall(),
        switched_ms: None,
        freed: None,
        warnings: vec![],
    };
    let store = &scene.shared.store;
    store.begin_run(verdict.run, &verdict.app, verdict.verb, &verdict.by, verdict.started).unwrap();
    store.finish_run(&verdict).unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_was_live_and_could_not_be_put_away_goes_and_a_failed_candidate_stays() {
    let (left, candidate) = (ended("web-0", 7), ended("web-9", 9));
    let scene = Scene::of(&web(&[instance("web-1", "web", running_since(0))]));
    let failed = Outcome::Failed { failure: Failure::new(Exit::Failed, "it did not come up") };
    for (instance, outcome) in [(&left, Outcome::Done), (&candidate, failed)] {
        scene.runtime.put(instance.clone());
        record(&scene, instance.run, outcome);
    }

    let watch = scene.watch();
    tokio::time::sleep(cutover_core::defaults::WATCH * 3).await;

    let acts = scene.runtime.acts();
    assert!(acts.contains(&"remove web-0".to_owned()), "{acts:?}");
    assert!(!acts.iter().any(|act| act.contains("web-9") || act.contains("web-1")), "{acts:?}");
    watch.abort();
}

#[tokio::test(start_paused = true)]
async fn a_removal_that_does_not_end_keeps_nobody_from_being_started_and_is_tried_ever_more_rarely() {
    let left = ended("web-0", 7);
    let scene = Scene::of(&web(&[instance("web-1", "web", running_since(0))]));
    scene.runtime.put(left.clone());
    record(&scene, left.run, Outcome::Done);
    scene.runtime.set_stuck("web-0");

    let watch = scene.watch();
    tokio::time::sleep(cutover_core::defaults::WATCH * 2).await;
    scene.runtime.kill("web-1");
    tokio::time::sleep(Duration::from_secs(20)).await;

    let acts = scene.runtime.acts();
    assert!(acts.contains(&"remove web-0".to_owned()), "{acts:?}");
    assert!(acts.contains(&"start web-1".to_owned()), "{acts:?}");
    tokio::time::sleep(Duration::from_hours(1)).await;
    let tries = scene.runtime.acts().iter().filter(|act| *act == "remove web-0").count();
    assert!((5..20).contains(&tries), "{tries} tries in an hour");
    watch.abort();
}

#[tokio::test(start_paused = true)]
async fn a_sick_replica_leaves_the_balance_is_restarted_and_comes_back() {
    let all = [instance("web-1", "web", running_since(0)), instance("web-2", "web", running_since(0))];
    let scene = Scene::of(&web(&all));
    let watch = scene.watch();
    tokio::time::sleep(Duration::from_secs(2)).await;

    scene.prober.sick.lock().unwrap().insert(name("web-1"));
    scene.until(Duration::from_secs(10), serves(&["web-2"])).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(scene.runtime.acts(), ["stop web-1", "start web-1"]);
    scene.prober.sick.lock().unwrap().clear();

    scene.until(Duration::from_secs(10), serves(&["web-1", "web-2"])).await;
    watch.abort();
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_is_silent_after_the_start_is_not_an_empty_one() {
    let scene = Scene::of(&web(&[instance("web-1", "web", running_since(0))]));
    scene.runtime.set_unreachable(true);
    let before = scene.router.tables();
    let watch = scene.watch();
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(scene.router.tables(), before);

    scene.runtime.set_unreachable(false);
    scene.runtime.kill("web-1");

    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(scene.runtime.acts(), ["start web-1"]);
    scene.until(Duration::from_secs(1), serves(&["web-1"])).await;
    watch.abort();
}

#[tokio::test(start_paused = true)]
async fn one_that_does_not_start_is_told_and_tried_again_more_and_more_slowly() {
    let scene = Scene::of(&web(&[instance("web-1", "web", running_since(0))]));
    let watch = scene.watch();
    tokio::time::sleep(Duration::from_secs(1)).await;
    scene.runtime.set_unstartable("web-1");
    scene.runtime.kill("web-1");

    tokio::time::sleep(Duration::from_mins(1)).await;

    let tries = scene.runtime.acts().len();
    assert!((6..=11).contains(&tries), "{tries}");
    let finding = scene.health().instances[0].finding.clone();
    assert_eq!(finding, Some(Finding::Other { detail: "no such program".into() }));
    watch.abort();
}

#[tokio::test(start_paused = true)]
async fn another_owners_change_of_the_table_is_kept() {
    let scene = Scene::of(&web(&[instance("web-1", "web", running_since(0))]));
    let watch = scene.watch();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut rival = scene.router.table();
    rival.owners.insert("other/local".into(), Entry::default());
    scene.router.race(rival);
    scene.runtime.kill("web-1");

    scene.until(Duration::from_secs(1), |state| matches!(state, RouteState::Held { .. })).await;
    scene.until(Duration::from_secs(1), serves(&["web-1"])).await;

    assert!(scene.router.table().owners.contains_key("other/local"));
    watch.abort();
}

#[tokio::test(start_paused = true)]
async fn without_a_proxy_what_is_down_is_started_and_nothing_else_is_done() {
    let stray =
        FoundInstance { release: "r1".parse().unwrap(), ..instance("web-0", "web", running_since(0)) };
    let scene = Scene::of(&web(&[instance("web-1", "web", running_since(0))]));
    let watch = scene.watch();
    tokio::time::sleep(Duration::from_secs(1)).await;
    scene.router.set_silent(true);
    scene.runtime.put(stray);
    scene.runtime.kill("web-1");

    tokio::time::sleep(Duration::from_secs(30)).await;

    assert_eq!(scene.runtime.acts(), ["start web-1"]);
    scene.router.set_silent(false);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(scene.runtime.acts(), ["set_restart web-0 No", "stop web-0", "remove web-0"]);
    watch.abort();
}

#[tokio::test(start_paused = true)]
async fn a_live_file_from_a_time_without_routes_takes_nothing_away_while_the_proxy_is_silent() {
    let scene = Scene::of(&web(&[instance("web-1", "web", running_since(0))]));
    let layout = &scene.shared.layout;
    let stale = Live { release: "r1".parse().unwrap(), ..live(&[("web", &["web-0"])]) };
    let file = layout.live_file(&app_id());
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, serde_json::to_vec(&stale).unwrap()).unwrap();
    std::fs::create_dir_all(layout.proxy()).unwrap();
    let table = [b"checksum\n", scene.router.table().to_json().as_slice()].concat();
    std::fs::write(layout.proxy().join("table.json"), table).unwrap();
    scene.router.set_silent(true);

    let watch = scene.watch();
    tokio::time::sleep(Duration::from_secs(30)).await;

    assert_eq!(scene.runtime.acts(), [""; 0]);
    watch.abort();
}

#[tokio::test(start_paused = true)]
async fn an_app_of_which_nothing_is_left_is_watched_no_longer() {
    let scene = Scene::of(&web(&[]));
    let release: ReleaseId = RELEASE.parse().unwrap();
    let watch = scene.watch();
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(!watch.is_finished(), "it is live");

    scene.router.forget(&app_id().owner());
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(!watch.is_finished(), "its releases are on record");
    scene.shared.store.forget_release(&app_id(), &release).unwrap();

    tokio::time::timeout(Duration::from_secs(20), watch).await.unwrap().unwrap();
}

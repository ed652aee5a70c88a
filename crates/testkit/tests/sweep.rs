//! The fault sweep: for each kind of plan, each call of a port, each fault, and a crash of the recovery: recover, and check the promises.
//!
//! The host is simulated; plan, journal, stages and recovery are the real ones. The seed of what is drawn is printed.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a sweep that cannot go on fails, and says what it ran"
)]

use cutover_core::exit::Exit;
use cutover_core::plan::Verb;
use cutover_core::request::Request;
use cutover_testkit::sim::{Behaviour, Fault, FaultPlan, Migration, Site};

const WEB_AND_BOT: &str = r"
app: shop
bake: 300ms
services:
  web:
    artifact: web
    command: ./web
    port: 8000
    replicas: 2
    route: { host: shop.example.com }
    health: { path: /health, within: 300ms }
  bot:
    artifact: bot
    command: ./bot
    ready: { log: polling, within: 300ms }
";

const SINGLETON: &str = r"
app: shop
bake: 300ms
services:
  web:
    artifact: web
    command: ./web
    port: 8000
    strategy: handover
    route: { host: shop.example.com }
    health: { path: /health, within: 300ms }
";

const BOT_ALONE: &str = r"
app: bot
services:
  bot:
    artifact: bot
    command: ./bot
    ready: { log: polling, within: 300ms }
";

const DATABASE: &str = r#"
app: shop
bake: 300ms
services:
  web:
    artifact: web
    command: ./web
    environment: { DATABASE_FILE: "${databases.main.file}" }
    port: 8000
    route: { host: shop.example.com }
    health: { path: /health, within: 300ms }
  bot:
    artifact: bot
    command: ./bot
    environment: { DATABASE_FILE: "${databases.main.file}" }
    ready: { log: polling, within: 300ms }
databases:
  main:
    engine: sqlite
    volume: data
    file: app.db
    services: [web, bot]
    migrate: { service: web, command: ./migrate, compatible: COMPATIBLE }
"#;

/// One kind of plan: what is there before, what is asked, what may come of it.
struct Case {
    name: &'static str,
    text: String,
    first: Option<Behaviour>,
    ask: Ask,
    /// The schema version that belongs to the release before and to the one asked for.
    schemas: Option<(u32, u32)>,
}

#[derive(Clone)]
enum Ask {
    Deploy(Behaviour),
    Verb(Verb),
}

fn good() -> Behaviour {
    Behaviour::default()
}

fn cases() -> Vec<Case> {
    let database = |compatible: &str| DATABASE.replace("COMPATIBLE", compatible);
    let migrating = |to| Behaviour { migration: Migration::To(to), ..good() };
    let case =
        |name, text: &str, first, ask, schemas| Case { name, text: text.to_owned(), first, ask, schemas };
    vec![
        case("first deploy", WEB_AND_BOT, None, Ask::Deploy(good()), None),
        case(
            "first deploy that is unhealthy",
            WEB_AND_BOT,
            None,
            Ask::Deploy(Behaviour { unhealthy: true, ..good() }),
            None,
        ),
        case("blue-green with replicas and a bot", WEB_AND_BOT, Some(good()), Ask::Deploy(good()), None),
        case(
            "a release that exits",
            WEB_AND_BOT,
            Some(good()),
            Ask::Deploy(Behaviour { exits: true, ..good() }),
            None,
        ),
        case(
            "a release that is unhealthy",
            WEB_AND_BOT,
            Some(good()),
            Ask::Deploy(Behaviour { unhealthy: true, ..good() }),
            None,
        ),
        case(
            "a release that fails its bake",
            WEB_AND_BOT,
            Some(good()),
            Ask::Deploy(Behaviour { errors: true, ..good() }),
            None,
        ),
        case("handover of a routed singleton", SINGLETON, Some(good()), Ask::Deploy(good()), None),
        case(
            "handover to one that exits",
            SINGLETON,
            Some(good()),
            Ask::Deploy(Behaviour { exits: true, ..good() }),
            None,
        ),
        case(
            "handover to one that fails its bake",
            SINGLETON,
            Some(good()),
            Ask::Deploy(Behaviour { errors: true, ..good() }),
            None,
        ),
        case("a bot alone", BOT_ALONE, Some(good()), Ask::Deploy(good()), None),
        case(
            "a bot alone that exits",
            BOT_ALONE,
            Some(good()),
            Ask::Deploy(Behaviour { exits: true, ..good() }),
            None,
        ),
        case(
            "nothing pending",
            &database("expand"),
            Some(migrating(1)),
            Ask::Deploy(migrating(1)),
            Some((1, 1)),
        ),
        case(
            "an expanding migration",
            &database("expand"),
            Some(migrating(1)),
            Ask::Deploy(migrating(2)),
            None,
        ),
        case(
            "a breaking migration",
            &database("breaking"),
            Some(migrating(1)),
            Ask::Deploy(migrating(2)),
            Some((1, 2)),
        ),
        case(
            "a breaking migration to an unhealthy release",
            &database("breaking"),
            Some(migrating(1)),
            Ask::Deploy(Behaviour { unhealthy: true, ..migrating(2) }),
            Some((1, 2)),
        ),
        case(
            "a migration that fails in its rehearsal",
            &database("breaking"),
            Some(migrating(1)),
            Ask::Deploy(Behaviour { migration: Migration::Half, ..good() }),
            Some((1, 2)),
        ),
        case(
            "a migration that fails on the database itself",
            &database("breaking"),
            Some(migrating(1)),
            Ask::Deploy(Behaviour { migration: Migration::FailsForReal(2), ..good() }),
            Some((1, 2)),
        ),
        case("restart", WEB_AND_BOT, Some(good()), Ask::Verb(Verb::Restart), None),
        case("stop", WEB_AND_BOT, Some(good()), Ask::Verb(Verb::Stop), None),
        case("remove", WEB_AND_BOT, Some(good()), Ask::Verb(Verb::Remove), None),
    ]
}

impl Case {
    async fn before(&self) -> Site {
        let mut site = Site::new(&self.text).unwrap();
        if let Some(behaviour) = self.first {
            let first = site.deploy("v1", behaviour).unwrap();
            let outcome = site.run(&first, FaultPlan::default()).await.unwrap();
            assert_eq!(
                outcome.verdict.exit(),
                Exit::Done,
                "{}: {:?}\n{}",
                self.name,
                outcome.verdict.outcome,
                site.journal()
            );
        }
        site
    }

    fn request(&self, site: &Site) -> Request {
        match &self.ask {
            Ask::Deploy(behaviour) => site.deploy("v2", *behaviour).unwrap(),
            Ask::Verb(verb) => site.ask(*verb),
        }
    }

    /// Runs the case under some faults; gives the calls it made, and what did not hold.
    async fn under(&self, faults: FaultPlan) -> (u64, Vec<String>) {
        let mut site = self.before().await;
        let before = site.serving();
        let request = self.request(&site);
        let outcome = match site.run(&request, faults).await {
            Ok(outcome) => outcome,
            Err(error) => return (0, vec![format!("{error:#}\n{}", site.journal())]),
        };
        let mut broken = site.check(before.as_ref(), &outcome.verdict).unwrap();
        match site.database("data/app.db") {
            Ok(schema) => broken.extend(self.schema(&site, before.as_ref().map(|l| l.run), schema)),
            Err(error) => broken.push(error.to_string()),
        }
        if !broken.is_empty() {
            broken.push(format!("verdict: {:?}\n{}", outcome.verdict.outcome, site.journal()));
        }
        (outcome.calls, broken)
    }

    fn schema(
        &self,
        site: &Site,
        before: Option<cutover_core::names::RunId>,
        found: Option<u32>,
    ) -> Option<String> {
        let (old, new) = self.schemas?;
        let same = site.serving().map(|live| live.run) == before;
        let wanted = if same { old } else { new };
        (found != Some(wanted)).then(|| format!("P3: schema {found:?}, the live release needs {wanted}"))
    }
}

/// Sweeps one case; gives the number of runs.
async fn sweep(case: &Case) -> (u64, Vec<String>) {
    let (calls, broken) = case.under(FaultPlan::default()).await;
    let mut failures: Vec<String> =
        broken.into_iter().map(|b| format!("{} without a fault: {b}", case.name)).collect();
    let mut runs = 1;
    for at in 1..=calls {
        for fault in Fault::ALL {
            runs += 1;
            // A second fault, in the recovery of every other one, drawn from the place of the first: the same every time.
            let drawn = (1 + (at * 7 + 3) % 23, Fault::ALL[usize::try_from(at % 5).unwrap()]);
            let second = (runs % 2 == 0).then_some(drawn);
            let faults = FaultPlan { first: Some((at, fault)), second };
            let (_, broken) = case.under(faults).await;
            if !broken.is_empty() && failures.len() < 5 {
                failures.push(format!(
                    "{} at call {at} {fault:?}, then {second:?}: {}",
                    case.name,
                    broken.join("\n  ")
                ));
            }
        }
    }
    (runs, failures)
}

#[test]
fn whatever_fails_wherever_the_promises_hold() {
    let only = std::env::var("SWEEP_CASE").ok();
    let runtime =
        || tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let queue = std::sync::Mutex::new(
        cases().into_iter().filter(|case| only.as_ref().is_none_or(|only| case.name == only)),
    );
    let swept = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, std::num::NonZero::get) {
            scope.spawn(|| {
                loop {
                    let Some(case) = queue.lock().unwrap().next() else { return };
                    let result = runtime().block_on(sweep(&case));
                    swept.lock().unwrap().push((case.name, result));
                }
            });
        }
    });
    let mut total = 0;
    let mut failures = Vec::new();
    for (name, (runs, broken)) in swept.into_inner().unwrap() {
        println!("{name}: {runs} runs, {} kinds of failure shown", broken.len());
        total += runs;
        failures.extend(broken);
    }
    println!("{total} runs in all");
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

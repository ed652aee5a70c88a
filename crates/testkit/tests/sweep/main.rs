//! The fault sweep: for each kind of plan, each call of a port, each fault, and a crash of the recovery: recover, and check the promises.
//!
//! The host is simulated; plan, journal, stages and recovery are the real ones. What is drawn comes from a seed, which is printed.
//! `SWEEP_SEED` gives another; `SWEEP_CASE` sweeps the cases whose name it is part of.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a sweep that cannot go on fails, and says what it ran"
)]

mod apps;
mod cases;

use std::collections::BTreeMap;
use std::sync::Mutex;

use cutover_core::exit::Exit;
use cutover_core::journal::{Entry, Step, What};
use cutover_core::state::ReleaseRecord;
use cutover_core::verdict::Outcome as Came;
use cutover_testkit::sim::{Behaviour, Fault, FaultPlan, Made, Migration, Moment, Outcome, Site};

use crate::cases::{Ask, Case, cases, is_cancel};

/// First faults of a case whose recovery is swept, too, at every call.
const SECOND: u64 = 4;
/// Every day, one in so many of all that is swept is drawn.
const ONE_IN: u64 = 6;
/// A case is swept in so many parts, side by side.
const PARTS: u64 = 3;
/// Kinds of failure, each with how often it was met and the first time in full.
type Failures = BTreeMap<String, (u64, String)>;

/// One case, ready to be run again and again.
struct Sweep<'a> {
    case: &'a Case,
    site: Site,
    moment: Moment,
    made: Made,
    runs: u64,
    failures: Failures,
}

impl<'a> Sweep<'a> {
    async fn new(case: &'a Case) -> anyhow::Result<Self> {
        let site = Box::pin(case.site()).await?;
        let asked = case.ask.of(&site)?;
        let made = site.plan(&asked, 1000)?;
        let moment = site.moment()?;
        Ok(Self { case, site, moment, made, runs: 0, failures: Failures::new() })
    }

    /// Runs the case under some faults, and checks the promises; gives how many calls there were, and how many after the first fault.
    async fn under(&mut self, faults: FaultPlan) -> anyhow::Result<(u64, u64)> {
        self.runs += 1;
        self.site.rewind(&self.moment)?;
        let outcome = match self.site.run(&self.made, faults).await {
            Ok(outcome) => outcome,
            Err(error) => {
                self.failed(faults, &[format!("{error:#}")]);
                return Ok((0, 0));
            }
        };
        let mut broken = self.site.check(&self.moment, &outcome.verdict)?;
        broken.extend(self.exit(faults, &outcome));
        if !broken.is_empty() {
            let verdict = &outcome.verdict;
            broken.push(format!("verdict: {:?} {:?}", verdict.exit(), verdict.outcome));
            self.failed(faults, &broken);
        }
        Ok((outcome.calls, outcome.since_first))
    }

    /// What the exit code may be, whatever serves.
    fn exit(&self, faults: FaultPlan, outcome: &Outcome) -> Option<String> {
        let exit = outcome.verdict.exit();
        let asked_to_cancel =
            [faults.first, faults.second].into_iter().flatten().any(|(_, fault)| is_cancel(fault));
        let wrong = match exit {
            Exit::Person => !self.case.person,
            Exit::Cancelled => !asked_to_cancel,
            _ if faults == FaultPlan::default() => exit != self.case.ends,
            _ => false,
        };
        wrong.then(|| format!("exit {exit:?} does not fit"))
    }

    fn failed(&mut self, faults: FaultPlan, broken: &[String]) {
        let kind = broken[0].chars().filter(|letter| !letter.is_ascii_digit()).collect();
        let journal = || -> String { self.site.journal().iter().map(line).collect() };
        let name = self.case.name;
        let told = || format!("{name} under {faults:?}:\n  {}\n{}", broken.join("\n  "), journal());
        self.failures.entry(kind).or_insert_with(|| (0, told())).0 += 1;
    }

    /// Every fault at every call of one part, and second faults for some of them: one in so many of them all.
    async fn part(&mut self, part: u64, seed: u64, one_in: u64) -> anyhow::Result<()> {
        let (calls, _) = self.under(FaultPlan::default()).await?;
        let mut random = Random(seed ^ hash(self.case.name));
        let chosen: Vec<u64> = (0..SECOND).map(|_| 1 + random.below(calls)).collect();
        for at in (1..=calls).filter(|at| at % PARTS == part) {
            let drawn = random.of(&Fault::ALL);
            for fault in Fault::ALL {
                let goes_on = chosen.contains(&at) && fault == drawn;
                if !(goes_on || random.below(one_in) == 0) {
                    continue;
                }
                let first = Some((at, fault));
                let (_, since) = self.under(FaultPlan { first, second: None }).await?;
                for then in (1..=since).filter(|_| goes_on) {
                    let second = Some((then, random.of(&Fault::ALL)));
                    if random.below(one_in) == 0 {
                        self.under(FaultPlan { first, second }).await?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn line(entry: &Entry) -> String {
    match &entry.what {
        What::Planned { plan } => format!("    {} planned {:?}\n", entry.seq, plan.direction),
        other => format!("    {} {other:?}\n", entry.seq),
    }
}

/// Numbers that are the same for the same seed (`SplitMix64`).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound.max(1)
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::try_from(self.below(all.len() as u64)).unwrap()]
    }
}

fn hash(text: &str) -> u64 {
    text.bytes()
        .fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3))
}

fn sweep(case: &Case, part: u64, seed: u64, one_in: u64) -> (u64, Failures) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let broken = |error: anyhow::Error| (error.to_string(), (1, format!("{}: {error:#}", case.name)));
        let mut sweep = match Box::pin(Sweep::new(case)).await {
            Ok(sweep) => sweep,
            Err(error) => return (0, Failures::from([broken(error)])),
        };
        if let Err(error) = sweep.part(part, seed, one_in).await {
            sweep.failures.extend([broken(error)]);
        }
        (sweep.runs, sweep.failures)
    })
}

#[test]
fn whatever_fails_wherever_the_promises_hold() {
    sweep_all(ONE_IN);
}

#[test]
#[ignore = "long: make soak"]
fn whatever_fails_at_each_call_the_promises_hold() {
    sweep_all(1);
}

#[tokio::test(start_paused = true)]
async fn what_was_replaced_has_ended_when_it_is_told_and_is_removed_after_that() {
    let mut site = Site::new(apps::CONTAINERS).unwrap();
    let mut deploys = Vec::new();
    for (version, number) in [("v1", 1), ("v2", 2)] {
        let asked = site.deploy(version, Behaviour::default(), &[]).unwrap();
        let (moment, made) = (site.moment().unwrap(), site.plan(&asked, number).unwrap());

        let outcome = site.run(&made, FaultPlan::default()).await.unwrap();

        assert_eq!(outcome.verdict.exit(), Exit::Done);
        assert_eq!(site.check(&moment, &outcome.verdict).unwrap(), Vec::<String>::new());
        deploys.push(site.left_when_told());
    }

    let (first, second) = (&deploys[0], &deploys[1]);
    assert!(first.is_empty(), "nothing was replaced: {first:?}");
    assert_eq!(second.len(), 4, "two of web, api, worker: {second:?}");
    let found = site.state().unwrap().instances;
    assert!(!found.iter().any(|found| second.contains(&found.name)), "they are gone: {found:?}");
}

/// The case of this name at a site of its own, as it is before what is asked.
async fn ready(name: &str) -> (Case, Site, Made) {
    let case = cases().into_iter().find(|case| case.name == name).unwrap();
    let site = Box::pin(case.site()).await.unwrap();
    let made = site.plan(&case.ask.of(&site).unwrap(), 1000).unwrap();
    (case, site, made)
}

/// Whether the newest run began such a step.
fn has_begun(site: &Site, is_it: impl Fn(&Step) -> bool) -> bool {
    site.journal().iter().any(|entry| matches!(&entry.what, What::Intent { step, .. } if is_it(step)))
}

#[tokio::test(start_paused = true)]
async fn a_run_takes_the_lock_of_migrations_once_also_where_it_puts_the_database_back() {
    for name in ["a breaking migration of a server", "a breaking migration of a server that fails half-way"] {
        let (case, mut site, made) = Box::pin(ready(name)).await;
        let before = site.locked();

        let outcome = site.run(&made, FaultPlan::default()).await.unwrap();

        assert_eq!(outcome.verdict.exit(), case.ends, "{name}");
        let restored = has_begun(&site, |step| matches!(step, Step::Restore { .. }));
        assert_eq!(restored, case.ends == Exit::Migration, "{name}");
        assert_eq!(site.locked() - before, 1, "{name}: nobody comes in between");
    }
}

#[tokio::test(start_paused = true)]
async fn a_database_whose_lock_was_lost_since_its_snapshot_is_neither_migrated_nor_put_back() {
    for (name, done) in
        [("a breaking migration of a server", "migrated"), ("a snapshot of a server put back", "put back")]
    {
        let (_, mut site, made) = Box::pin(ready(name)).await;
        let moment = site.moment().unwrap();
        site.lose_locks();

        let verdict = site.run(&made, FaultPlan::default()).await.unwrap().verdict;

        let Came::Failed { failure } = &verdict.outcome else { panic!("{name}: {verdict:?}") };
        assert_eq!(failure.what, format!("`main` was not {done}: the lock of its migrations was lost"));
        assert_eq!(verdict.exit(), Exit::Migration, "{name}");
        let state = &failure.state;
        assert!(state.ends_with("is serving; database not migrated"), "{name}: {state}");
        let touched = |step: &Step| matches!(step, Step::Migrate { .. } | Step::Restore { .. });
        assert!(!has_begun(&site, touched), "{name}");
        assert_eq!(site.check(&moment, &verdict).unwrap(), Vec::<String>::new(), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_deploy_does_not_refuse_its_second_database_for_what_a_pooler_kept_of_its_first() {
    let two = apps::SERVER.replace("compatible: breaking", "compatible: expand");
    let audit = two.split_once("  main:").map(|(_, main)| format!("  audit:{main}")).unwrap();
    let mut site = Site::new(&format!("{two}{audit}")).unwrap();
    let behaviour = Behaviour { migration: Migration::To(1), ..Behaviour::default() };
    let made = site.plan(&site.deploy("v1", behaviour, &[]).unwrap(), 1).unwrap();

    let verdict = site.run(&made, FaultPlan::default()).await.unwrap().verdict;

    assert_eq!(verdict.exit(), Exit::Done, "{verdict:?}");
    for name in ["main", "audit"] {
        let migrated = |step: &Step| matches!(step, Step::Migrate { database } if database.as_str() == name);
        assert!(has_begun(&site, migrated), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_database_that_somebody_else_migrates_is_neither_migrated_nor_put_back_nor_snapshot() {
    for name in [
        "a breaking migration of a server",
        "rollback that migrates a server down",
        "a snapshot of a server by hand",
        "a snapshot of a server put back",
    ] {
        let (_, mut site, made) = Box::pin(ready(name)).await;
        let moment = site.moment().unwrap();
        let somebody = site.migrated_by_somebody_else().unwrap();

        let verdict = site.run(&made, FaultPlan::default()).await.unwrap().verdict;

        let Came::Failed { failure } = &verdict.outcome else { panic!("{name}: {verdict:?}") };
        assert_eq!(failure.what, "`main` is being migrated by somebody else", "{name}");
        assert_eq!(verdict.exit(), Exit::Locked, "{name}");
        let touched = |step: &Step| {
            matches!(
                step,
                Step::Hold { .. } | Step::Snapshot { .. } | Step::Migrate { .. } | Step::Restore { .. }
            )
        };
        assert!(!has_begun(&site, touched), "{name}");
        assert_eq!(site.check(&moment, &verdict).unwrap(), Vec::<String>::new(), "{name}");
        drop(somebody);
    }
}

#[tokio::test(start_paused = true)]
async fn records_that_are_made_anew_have_a_rotated_password_of_all_releases() {
    let (name, mut site) = ("POSTGRES_PASSWORD", Site::new(apps::PASSWORD).unwrap());
    let first = Ask::DeployWith("v1", Behaviour::default(), name, "old");
    let asks = [
        first,
        Ask::Deploy("v2", Behaviour::default(), &[]),
        Ask::Rotate(name, "new"),
        Ask::Rotate(name, "newer"),
    ];
    let mut runs = Vec::new();
    for (number, ask) in (1..).zip(asks) {
        let made = site.plan(&ask.of(&site).unwrap(), number).unwrap();
        let outcome = site.run(&made, FaultPlan::default()).await.unwrap();
        assert_eq!(outcome.verdict.exit(), Exit::Done, "{:?}", outcome.verdict);
        runs.push(site.journal().clone());
    }

    let hashes = site.made_anew(&runs).unwrap().map(|records| {
        let of = |record: ReleaseRecord| (record.release.id, record.release.variables);
        records.into_iter().map(of).collect::<BTreeMap<_, _>>()
    });

    assert_eq!(hashes[0].len(), 4);
    assert_eq!(hashes[0], hashes[1]);
}

fn sweep_all(one_in: u64) {
    let seed = std::env::var("SWEEP_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_125);
    let only = std::env::var("SWEEP_CASE").unwrap_or_default();
    println!("seed {seed}, one run in {one_in}");
    let cases: Vec<Case> = cases().into_iter().filter(|case| case.name.contains(&only)).collect();
    let queue = Mutex::new(cases.iter().flat_map(|case| (0..PARTS).map(move |part| (case, part))));
    let swept: Mutex<BTreeMap<&str, Swept>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, std::num::NonZero::get) {
            scope.spawn(|| {
                loop {
                    let Some((case, part)) = queue.lock().unwrap().next() else { return };
                    let (runs, failures) = sweep(case, part, seed, one_in);
                    swept.lock().unwrap().entry(case.name).or_default().add(case, runs, failures);
                }
            });
        }
    });
    let swept = swept.into_inner().unwrap();
    let runs: u64 = swept.values().map(|swept| swept.runs).sum();
    println!("{} kinds of plan, {} faults, {runs} runs", cases.len(), Fault::ALL.len());
    let told = swept.values().flat_map(|swept| swept.failures.values());
    let told: Vec<String> = told.map(|(times, told)| format!("{times} times: {told}")).collect();
    assert!(told.is_empty(), "{}", told.join("\n\n"));
}

/// What came of a case's parts so far.
#[derive(Default)]
struct Swept {
    parts: u64,
    runs: u64,
    failures: Failures,
}

impl Swept {
    fn add(&mut self, case: &Case, runs: u64, failures: Failures) {
        self.parts += 1;
        self.runs += runs;
        for (kind, (times, told)) in failures {
            self.failures.entry(kind).or_insert((0, told)).0 += times;
        }
        if self.parts == PARTS {
            let broken: u64 = self.failures.values().map(|(times, _)| times).sum();
            let ways = self.failures.len();
            println!("{}: {} runs, {broken} broken in {ways} ways", case.name, self.runs);
        }
    }
}

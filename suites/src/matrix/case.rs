//! One case after another on one server.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a part of tests: it stops where it fails, and says its numbers"
)]

use std::time::{Duration, Instant};

use cutover_core::names::{ReleaseId, RunId};
use cutover_core::verdict::{Outcome, Verdict};
use cutover_testkit::machine::{Machine, Part, ServerApp};
use cutover_testkit::probe::{Ledger, Probe, Report, fetch_entries};
use cutover_testkit::site::Status;
use cutover_testkit::wait_until;

use super::moment::Followed;
use super::{Case, Change, Fault, Moment, Row};
use crate::{STOP_IN, engine, killing_binaries};

/// For a server to come to one live release, with nobody's help.
const CONVERGES: Duration = Duration::from_mins(2);

/// Of a worker between two requests: several servers are tried at once.
const PACE: Duration = Duration::from_millis(25);
/// Migrations are numbered from here on: the example's own come before.
const FIRST_MIGRATION: u32 = 101;

/// What needs packages from elsewhere, or keeps people out, is tried in its own suite.
const WITHOUT_ENGINE: &str =
    "docker: false, upgrades: false, time: false, firewall: false, ssh_hardening: false";
const WITH_ENGINE: &str = "upgrades: false, time: false, firewall: false, ssh_hardening: false";

/// How the application runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Processes,
    Containers,
}

/// An application on a server to which things happen.
pub struct Matrix<'a> {
    app: ServerApp<'a>,
    probe: Probe,
    /// What the probes before this one saw.
    before: Option<Report>,
    rows: Vec<Row>,
    kind: Kind,
    /// The number of the next migration.
    migration: u32,
}

impl<'a> Matrix<'a> {
    /// Makes this server a host, with its first release live.
    pub async fn of(kind: Kind, machine: &'a Machine) -> Self {
        let binaries = killing_binaries().unwrap();
        let app = match kind {
            Kind::Processes => {
                ServerApp::of_processes(machine, &binaries, "shop").unwrap().set_up_with(WITHOUT_ENGINE)
            }
            Kind::Containers => {
                let engine = engine::usable().await.unwrap();
                let app = ServerApp::of_containers(machine, &binaries, &engine, "shop").await.unwrap();
                app.set_up_with(WITH_ENGINE)
            }
        };
        app.commit("v2", "first", quick).unwrap();
        app.cutover(&["setup"]).await.unwrap().expect(0).unwrap();
        app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
        let probe = traffic(&app);
        Self { app, probe, before: None, rows: Vec::new(), kind, migration: FIRST_MIGRATION }
    }

    fn machine(&self) -> &'a Machine {
        self.app.machine()
    }

    /// A deploy to which something happens; where the new release did not go live, another to which nothing happens.
    pub async fn case(&mut self, case: Case) {
        let Case { fault, moment, .. } = case;
        let what = case.to_string();
        let old = self.live().await;
        self.commit(case);
        if let Moment::In(stage) = moment {
            let line = format!("echo {} >{STOP_IN}", stage.as_str());
            self.machine().exec(&["sh", "-c", &line]).await.unwrap();
        }
        let mut deploy = Followed::begin(self.app.command(&["deploy", "--json"])).unwrap();
        let came = match deploy.until(moment).await {
            Ok(came) => came,
            Err(error) => panic!("{what}: {error:#}{}", self.looks().await),
        };
        assert!(came, "{what}: the deploy never came there: {:?}", deploy.end(CONVERGES).await);
        let run = deploy.run.expect("a plan comes first");
        let calm = self.probe.lap();
        assert_eq!(calm.failed(), 0, "before {what}: {calm}");

        let began = Instant::now();
        let ended =
            fault.strike(self.machine(), deploy).await.unwrap_or_else(|error| panic!("{what}: {error:#}"));
        let noticed = ended.noticed.unwrap_or_else(|| began.elapsed());
        let down = if fault.takes_the_server_down() { self.answers_again(&what).await } else { 0 };
        let (status, verdict) = self.converged(&what, run).await;
        let converged = began.elapsed();
        let code = verdict.as_ref().map(|verdict| verdict.exit().code());
        let new = self.is_true(&what, &old, &status, verdict.as_ref()).await;
        let why = verdict.as_ref().and_then(why);
        let lap = self.probe.lap();
        let inside = ended.proxy_gone.map_or(0, |gone| lap.failed_begun_before(gone));
        let failed = lap.failed() - inside;
        self.rows.push(Row {
            case,
            client: ended.exit,
            noticed,
            verdict: code,
            converged,
            new,
            sent: calm.sent() + lap.sent(),
            failed,
            told: lap.total().told,
            down: down + inside,
        });
        println!("{}{}", self.rows[self.rows.len() - 1], why.unwrap_or_default());
        assert_eq!(failed, 0, "{what}: {lap}");
        assert!(
            told_well(fault, ended.exit, code),
            "{what}: the client exited {:?}: {}",
            ended.exit,
            ended.said
        );
        let expendable = fault.is_of_the_client() && moment != Moment::Planned;
        assert!(new || !expendable, "{what}: a run needs nobody to go on");
        if !new {
            self.following(&what).await;
        } else if case.change == Change::Schema {
            self.is_migrated(&what).await;
        }
    }

    /// What is to be deployed.
    fn commit(&mut self, case: Case) {
        let subject = case.to_string();
        if case.change == Change::Pages {
            return self.app.commit("v2", &subject, quick).unwrap();
        }
        let number = self.migration;
        self.migration += 1;
        let file = format!("web/migrations/{number}_matrix.sql");
        let change = format!("ALTER TABLE entries ADD COLUMN matrix_{number} TEXT;\n");
        self.app.commit_with("v2", &subject, quick, &[(&file, &change)]).unwrap();
    }

    /// The release that answers has the last migration.
    async fn is_migrated(&self, what: &str) {
        let program = match self.kind {
            Kind::Processes => "./guestbook",
            Kind::Containers => "/app/guestbook",
        };
        let told = self.app.cutover(&["exec", "web", "--", program, "migrate"]).await.unwrap();
        let version = format!("the database is at schema version {}", self.migration - 1);
        assert!(told.output.contains(&version), "{what}: {version}: {}{}", told.output, told.talk);
    }

    async fn live(&self) -> ReleaseId {
        self.app.status().await.unwrap().live.expect("something is live").release
    }

    /// Traffic begins anew once the server answers again; gives how many requests failed until then.
    async fn answers_again(&mut self, what: &str) -> u64 {
        wait_until(&format!("it answers after {what}"), CONVERGES, async || {
            self.app.ask("/version").await.ok().filter(|answer| answer.status == 200)
        })
        .await
        .unwrap();
        let old = std::mem::replace(&mut self.probe, traffic(&self.app));
        // What is in flight to a server that is gone ends at some time, and says nothing.
        let lap = old.lap();
        let seen = old.so_far();
        drop(old);
        self.remember(seen);
        lap.failed()
    }

    fn remember(&mut self, seen: Report) {
        match &mut self.before {
            None => self.before = Some(seen),
            Some(before) => before.merge(seen),
        }
    }

    /// Waits until nobody is at it any more and the run, if it began, has its verdict.
    async fn converged(&self, what: &str, run: RunId) -> (Status, Option<Verdict>) {
        let look = async || {
            let status = self.app.status().await.ok().filter(|status| status.lock.is_none())?;
            let verdict = status.last.clone().filter(|verdict| verdict.run == run);
            if verdict.is_some() {
                return Some((status, verdict));
            }
            // Without a verdict only where there never was a run.
            let running = self.machine().processes().await.ok()?.iter().any(|one| one.is(Part::Run));
            let file = format!("/var/log/cutover/runs/{run}.jsonl");
            let recorded = self.machine().exec(&["test", "-e", &file]).await;
            (!running && recorded.is_err()).then_some((status, None))
        };
        match wait_until(&format!("{what}: one live release"), CONVERGES, look).await {
            Ok(found) => found,
            Err(error) => panic!("{error}; {:?}; {}", self.app.status().await, self.looks().await),
        }
    }

    /// What is told of the server where something is not as it should be.
    async fn looks(&self) -> String {
        let all = self.machine().processes().await.unwrap_or_default();
        let ours = all.iter().filter(|one| !one.instance.is_empty() || one.words.contains("cutover"));
        ours.map(|one| format!("\n{one}")).collect()
    }

    /// The verdict says what is so: what it names live answers, alone; says whether that is the new release.
    async fn is_true(&self, what: &str, old: &ReleaseId, status: &Status, verdict: Option<&Verdict>) -> bool {
        let live = &status.live.as_ref().unwrap_or_else(|| panic!("{what}: nothing is live")).release;
        if let Some(verdict) = verdict {
            assert_ne!(verdict.exit().code(), 8, "{what}: nobody is needed: {verdict:?}");
            assert_eq!(verdict.serving.as_ref(), Some(live), "{what}: {verdict:?}");
            let done = verdict.exit().code() == 0;
            assert_eq!(done, live != old, "{what}: {live} serves, before it was {old}: {verdict:?}");
        } else {
            assert_eq!(live, old, "{what}: no run began");
        }
        let answered = self.app.ask("/version").await.unwrap();
        assert_eq!(answered.release.as_deref(), Some(live.as_str()), "{what}: {answered:?}");
        self.runs_alone(what, live).await;
        live != old
    }

    /// One instance of each service runs, of this release, and none of another.
    async fn runs_alone(&self, what: &str, live: &ReleaseId) {
        let look = async || {
            let all = self.machine().processes().await.ok()?;
            let ours: Vec<_> = all.iter().filter(|one| one.is_instance_of(self.app.id())).collect();
            let of = |service: &str| {
                let start = format!("{}/{service}-", self.app.id());
                ours.iter().filter(|one| one.instance.starts_with(&start)).count()
            };
            let alone = ours.iter().all(|one| one.release == live.as_str());
            (alone && of("web") == 1 && of("bot") == 1).then_some(())
        };
        let waited = wait_until(&format!("{what}: {live} runs, alone"), CONVERGES, look).await;
        if let Err(error) = waited {
            panic!("{error}: {}", self.looks().await);
        }
    }

    /// A deploy to which nothing happens is as any other.
    async fn following(&mut self, what: &str) {
        self.app.commit("v2", &format!("after {what}"), quick).unwrap();
        let told = self.app.cutover(&["deploy"]).await.unwrap();
        assert_eq!(told.exit, Some(0), "after {what}: {}", told.talk);
        let lap = self.probe.lap();
        assert_eq!(lap.failed(), 0, "the deploy after {what}: {lap}");
    }

    /// Ends the traffic: nothing that was acknowledged is missing, never were there two bots.
    pub async fn end(mut self) -> Vec<Row> {
        self.following("all").await;
        let probe = std::mem::replace(&mut self.probe, traffic(&self.app));
        let seen = probe.stop().await;
        self.remember(seen);
        let entries = fetch_entries(&self.app.traffic()).await.unwrap();
        let found = self.before.as_ref().unwrap().verify_entries(&entries);
        assert!(found.is_complete(), "{:?} {:?}", found.missing, found.twice);
        let ledger = self.machine().exec(&["cat", &self.app.ledger()]).await.unwrap();
        let overlaps = Ledger::parse(&format!("{ledger}\n")).unwrap();
        assert!(overlaps.overlaps().is_empty(), "{:?}", overlaps.overlaps());
        self.rows
    }
}

/// What kept a new release from going live.
fn why(verdict: &Verdict) -> Option<String> {
    match &verdict.outcome {
        Outcome::Done => None,
        Outcome::Failed { failure } => Some(format!("  {}: {}", failure.what, failure.cause.join("; "))),
    }
}

/// Whether a client said what is so: how the run ended, or that it does not know.
fn told_well(fault: Fault, exit: Option<i32>, verdict: Option<u8>) -> bool {
    const UNKNOWN: i32 = 6;
    match exit {
        None => fault == Fault::ClientKilled,
        Some(UNKNOWN) => true,
        // Nothing had begun, so that nothing is unknown.
        Some(1) if verdict.is_none() => true,
        Some(exit) => Some(exit) == verdict.map(i32::from),
    }
}

/// A bake that is short, and a hold that may be long: how fast a server migrates that others share is not what is tried here.
fn quick(config: &str) -> String {
    config.replace("bake: 1s", "bake: 300ms").replace("    verify:", "    hold: 2m\n    verify:")
}

/// Traffic that is short of streams, which drains wait for.
fn traffic(app: &ServerApp<'_>) -> Probe {
    let mut options = app.traffic();
    options.mix.sse = 0;
    options.mix.websocket = 0;
    options.pace = PACE;
    Probe::start(options)
}

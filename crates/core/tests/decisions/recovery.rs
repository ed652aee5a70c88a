//! What recovery makes of a journal and a host.

use cutover_core::exit::Exit;
use cutover_core::gate::Check;
use cutover_core::journal::{Step, What};
use cutover_core::plan::{HeldDatabase, Stage};
use cutover_core::recover::{Recovery, is_out_of_the_way, standing_text};
use cutover_core::state::{ExitStatus, InstanceState};
use cutover_core::verdict::{Outcome, Verdict};

use crate::world::{Host, Journal, WEB, incoming, services, todo, unhealthy};

const PAGE_AND_API: &str = r#"
app: shop
services:
  api:
    artifact: api
    command: ./api
    environment: { DATABASE_FILE: "${databases.main.file}" }
    port: 8000
    route: { host: api.example.com }
    health: { path: /health }
  frontend:
    artifact: frontend
    command: ./frontend
    port: 8001
    route: { host: shop.example.com }
    health: { path: /health-with-api }
    ready: { log: listening }
databases:
  main:
    engine: sqlite
    volume: data
    file: app.db
    services: [api]
    migrate: { service: api, command: ./migrate, compatible: breaking }
"#;

#[test]
fn given_a_kept_service_that_needs_the_one_handed_over_then_the_way_back_gates_it_after_the_handover() {
    // `api` is handed over with a migration, `frontend` is kept and asks `api` in its health.
    let mut host = Host::serving(PAGE_AND_API);
    let all = host.deploy("v2").unwrap();
    let plan = todo(&all.migrate).if_pending.clone().unwrap();
    let mut journal = Journal::of(&plan);
    let old = host.state.instances.iter().find(|found| found.service.as_str() == "api").unwrap().name.clone();
    journal.did(Stage::Handover, Step::Stop { instance: old });
    host.stop("api");
    journal.did(Stage::Handover, Step::Snapshot { database: "main".parse().unwrap(), file: snapshot(&plan) });
    journal.did(Stage::Handover, Step::Migrate { database: "main".parse().unwrap() });
    for gated in incoming(&plan) {
        host.run(&gated);
    }
    journal.failed(Stage::Handover, unhealthy());

    let back = host.way(&journal);

    assert!(back.check.todo().is_none(), "nothing is gated before the old `api` is there again");
    let handover = todo(&back.handover);
    assert!(matches!(handover.databases.as_slice(), [HeldDatabase::Restore { .. }]));
    assert_eq!(services(&handover.incoming), ["api"]);
    assert_eq!(services(&handover.afterwards), ["frontend"]);
    let checks = &handover.afterwards[0].gate.checks;
    assert!(
        matches!(checks.as_slice(), [one] if matches!(one.check, Check::Http { .. })),
        "it was never stopped: its log may have been rotated, so it is only asked: {checks:?}"
    );
}

fn snapshot(plan: &cutover_core::plan::HostPlan) -> String {
    match &todo(&plan.handover).databases[0] {
        HeldDatabase::Migrate { migration } => migration.snapshot_file.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn given_an_old_instance_that_was_stopped_and_started_again_then_its_whole_gate_counts() {
    let mut host = Host::serving(WEB);
    let plan = host.deploy("v2").unwrap();
    let mut journal = Journal::of(&plan);
    let old = host.state.instances[0].name.clone();
    journal.failed(Stage::Check, unhealthy());
    let whole = todo(&host.way(&journal).check).instances[0].gate.clone();

    journal.did(Stage::Handover, Step::Stop { instance: old });

    assert_eq!(todo(&host.way(&journal).check).instances[0].gate, whole);
}

#[test]
fn given_a_first_deploy_that_is_taken_back_after_its_switch_then_its_routes_go_before_what_they_point_at() {
    let mut host = Host::new(&WEB.replace("    port", "    strategy: handover\n    port"));
    let plan = host.deploy("v1").unwrap();
    let mut journal = Journal::of(&plan);
    journal.did(Stage::Switch, Step::Switch);
    host.carry_out(&plan);
    journal.failed(Stage::Verify, unhealthy());

    let back = host.way(&journal);

    assert!(back.handover.todo().is_none(), "nothing is stopped before the switch");
    let gone: Vec<_> = todo(&back.drain).outgoing.iter().map(|outgoing| &outgoing.name).collect();
    assert_eq!(gone, [&incoming(&plan)[0].spec.name]);
}

#[test]
fn given_a_failed_candidate_of_an_earlier_deploy_that_is_still_there_then_one_of_this_takes_its_place() {
    let mut host = Host::serving(WEB);
    let first = host.deploy("v2").unwrap();
    let mut earlier = incoming(&first).remove(0);
    earlier.spec.name = "web-green-1-0badcafe".parse().unwrap();
    host.run(&earlier);
    let exit = ExitStatus { code: Some(1), signal: None, out_of_memory: false, error: None, at: None };
    host.state.instances.last_mut().unwrap().state = InstanceState::Exited { exit };
    let plan = host.deploy("v3").unwrap();
    let mut journal = Journal::of(&plan);
    let candidate = &incoming(&plan)[0];
    host.run(candidate);
    journal.failed(Stage::Check, unhealthy());

    let back = host.way(&journal);

    let drain = todo(&back.drain);
    assert_eq!(drain.kept_candidates, std::slice::from_ref(&candidate.spec.name));
    let gone: Vec<_> = drain.outgoing.iter().map(|outgoing| &outgoing.name).collect();
    assert_eq!(gone, [&candidate.spec.name, &earlier.spec.name]);
}

#[test]
fn given_a_person_was_told_then_the_run_is_still_to_be_settled_with_one_try_at_a_time() {
    let mut host = Host::serving(WEB);
    let plan = host.deploy("v2").unwrap();
    let mut journal = Journal::of(&plan);
    journal.failed(Stage::Check, unhealthy());
    for _ in 0..=cutover_core::defaults::RECOVERIES {
        let back = host.way(&journal);
        journal.resumed(&back);
        journal.failed(Stage::Check, unhealthy());
    }
    let Recovery::Person(failure) = host.recover(&journal) else { panic!("it tries for ever") };
    let told = Verdict { outcome: Outcome::Failed { failure: *failure }, ..host.concluded(&journal) };
    journal.write(What::Verdict { verdict: Box::new(told) });

    let back = host.way(&journal);
    journal.resumed(&back);
    assert!(matches!(host.recover(&journal), Recovery::Person(_)), "one more try, and no more for now");
    journal.left(Stage::Record);

    assert_eq!(host.verdict(&journal).exit(), Exit::NotHealthy);
}

#[test]
fn given_a_database_that_waits_to_be_put_back_then_the_run_is_in_the_way_of_the_next() {
    let mut host = Host::serving(PAGE_AND_API);
    let all = host.deploy("v2").unwrap();
    let plan = todo(&all.migrate).if_pending.clone().unwrap();
    let mut journal = Journal::of(&plan);
    host.stop("api");
    assert!(is_out_of_the_way(&journal.entries, &host.state));
    journal.did(Stage::Handover, Step::Migrate { database: "main".parse().unwrap() });
    assert!(!is_out_of_the_way(&journal.entries, &host.state));
}

#[test]
fn given_a_database_that_waits_to_be_put_back_then_a_person_is_told_what_does_not_run_and_which_snapshot_there_is()
 {
    let mut host = Host::serving(PAGE_AND_API);
    let all = host.deploy("v2").unwrap();
    let plan = todo(&all.migrate).if_pending.clone().unwrap();
    let mut journal = Journal::of(&plan);
    let told = standing_text(&journal.entries, &host.state);
    assert!(told.ends_with("is serving"), "{told}");

    host.stop("api");
    let migration = todo(&plan.handover).databases.iter().find_map(|held| match held {
        HeldDatabase::Migrate { migration } => Some(migration.clone()),
        _ => None,
    });
    let migration = migration.unwrap();
    let (database, file) = (migration.database, migration.snapshot_file);
    journal.did(Stage::Handover, Step::Snapshot { database: database.clone(), file: file.clone() });
    journal.did(Stage::Handover, Step::Migrate { database: database.clone() });
    let told = standing_text(&journal.entries, &host.state);
    assert!(told.contains("without `api`, which is stopped"), "{told}");
    assert!(
        told.contains(&format!("the database `{database}` is not put back, its snapshot is {file}")),
        "{told}"
    );

    host.stop("frontend");
    let told = standing_text(&journal.entries, &host.state);
    assert!(told.contains("nothing of it runs: `api`, `frontend`"), "{told}");
}

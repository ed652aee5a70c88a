//! Who has a database open when it is migrated, and where a migration may not run at all.

use std::collections::{BTreeMap, BTreeSet};

use cutover_core::config::settings::Mount;
use cutover_core::exit::Exit;
use cutover_core::hash::ContentHash;
use cutover_core::journal::{Step, StepResult, What};
use cutover_core::plan::{
    HeldDatabase, HostPlan, MigratePlan, Migration, Planned, Rule, Stage, Verb, WhyNot,
};
use cutover_core::recover::migration_records;
use cutover_core::request::Request;
use cutover_core::state::{SchemaChange, SchemaVersion};
use cutover_core::verdict::Outcome;

use crate::world::{Host, Journal, ask, file, incoming, services, todo, unhealthy};

const WEB_AND_WORKER: &str = r#"
app: shop
services:
  web:
    artifact: web
    command: ./web
    environment: { DATABASE_FILE: "${databases.main.file}" }
    port: 8000
    route: { host: shop.example.com }
    health: { path: /health }
  worker:
    artifact: worker
    command: ./worker
    environment: { DATABASE_FILE: "${databases.main.file}" }
databases:
  main:
    engine: sqlite
    volume: data
    file: app.db
    services: [web, worker]
    migrate: { service: web, command: ./migrate }
"#;

const SERVER: &str = r"
app: shop
services:
  web:
    artifact: web
    command: ./web
    port: 8000
    route: { host: shop.example.com }
    health: { path: /health }
backing:
  postgres: { artifact: postgres, command: ./postgres, port: 5432 }
databases:
  main:
    engine: postgres
    service: postgres
    snapshot: none
    migrate: { service: web, command: ./migrate, compatible: COMPATIBLE }
";

/// The plan of the handover, where something is pending.
fn pending(host: &mut Host) -> HostPlan {
    *todo(&host.deploy("v2").unwrap().migrate).if_pending.clone().unwrap()
}

fn stopped_in_the_handover(plan: &HostPlan) -> Vec<&str> {
    todo(&plan.handover).outgoing.iter().map(|instance| instance.service.as_str()).collect()
}

#[test]
fn given_a_release_that_drops_a_service_which_has_the_file_open_then_it_is_stopped_before_the_migration() {
    let mut host = Host::serving(WEB_AND_WORKER);
    let worker = WEB_AND_WORKER.find("  worker:").unwrap()..WEB_AND_WORKER.find("databases:\n").unwrap();
    host.text.replace_range(worker, "");
    host.text = host.text.replace("[web, worker]", "[web]");

    let plan = pending(&mut host);

    assert_eq!(stopped_in_the_handover(&plan), ["web", "worker"]);
    assert_eq!(services(&todo(&plan.handover).incoming), ["web"]);
    assert!(!plan.becomes.as_ref().unwrap().members.keys().any(|name| name.as_str() == "worker"));
}

#[test]
fn given_a_release_that_no_longer_lists_an_opener_then_it_is_stopped_before_the_migration_all_the_same() {
    let mut host = Host::serving(WEB_AND_WORKER);
    // Under another name, too: it is the file that counts.
    let used = "    command: ./worker\n    environment: { DATABASE_FILE: \"${databases.main.file}\" }\n";
    host.text = host.text.replace(used, "    command: ./worker\n").replace("[web, worker]", "[web]");
    host.text = host.text.replace("main", "orders");

    let plan = pending(&mut host);

    assert_eq!(stopped_in_the_handover(&plan), ["web", "worker"]);
}

#[test]
fn given_a_migration_of_postgres_then_a_snapshot_is_planned_before_it() {
    let text = SERVER.replace("COMPATIBLE", "expand");
    let mut host = Host::serving(&text.replace("    snapshot: none\n", ""));

    let plan = host.deploy("v2").unwrap();

    assert!(todo(&plan.snapshot).databases.iter().any(|name| name.as_str() == "main"));
    let migration = &todo(&plan.migrate).direct[0];
    assert!(migration.snapshot_file.ends_with(".dump.zst"), "{}", migration.snapshot_file);
    assert!(migration.file().is_none());
    let mut host = Host::serving(&text);
    let plan = host.deploy("v2").unwrap();
    assert_eq!(plan.snapshot, Planned::NotNeeded(WhyNot::Decided), "`snapshot: none`");
}

/// A database that a tool's own image migrates, and a service after it.
const TOOL_AND_WEB: &str = r#"
app: shop
services:
  web:
    image: shop/web:1
    port: 8000
    route: { host: shop.example.com }
    health: { path: /health }
backing:
  postgres: { image: "postgres:17", port: 5432 }
databases:
  main:
    engine: postgres
    service: postgres
    migrate:
      - { image: "tool:4", files: ./migrations, command: up, timeout: 1m, compatible: expand, pending: status, down: down }
      - { service: web, command: ./seed, timeout: 5m, compatible: breaking, pending: ./seeded, down: ./unseed }
"#;

#[test]
fn given_several_migrations_of_a_database_then_they_are_one_with_the_strictest_of_their_settings() {
    let mut host = crate::rehearsals::serving(TOOL_AND_WEB);

    let plan = pending(&mut host);

    let HeldDatabase::Migrate { migration } = &todo(&plan.handover).databases[0] else { panic!("{plan:?}") };
    let told: Vec<_> = migration
        .commands()
        .map(|(spec, timeout)| (spec.service.as_str(), spec.settings.command.clone().unwrap(), timeout))
        .map(|(service, words, timeout)| (service, words[0].to_string(), timeout.as_secs()))
        .collect();
    assert_eq!(told, [("migrate-main", "up".to_owned(), 60), ("web", "./seed".to_owned(), 300)]);
    let names: BTreeSet<_> = migration.instances().map(|spec| &spec.name).collect();
    assert_eq!(names.len(), 2, "each has a name of its own: {names:?}");
    assert_eq!(migration.questions().len(), 2);
    assert_eq!(migration.compatible, cutover_core::config::settings::Compatible::Breaking);
    assert_eq!(stopped_in_the_handover(&plan), ["web"], "the tool has no instance that could be stopped");
    assert!(todo(&plan.preflight).images.contains_key("migrate-main:v2"), "it has to be there");
    let mounted = &migration.spec.settings.mounts;
    assert!(
        matches!(&mounted[..], [Mount::Shipped { source, target }] if source == "migrations" && target == "/migrations"),
        "{mounted:?}"
    );
    host.text = host.text.replace(", pending: ./seeded", "");
    let plan = pending(&mut host);
    let HeldDatabase::Migrate { migration } = &todo(&plan.handover).databases[0] else { panic!("{plan:?}") };
    assert!(migration.questions().is_empty(), "one of them cannot be asked");
}

#[test]
fn given_nothing_but_another_file_that_a_migration_reads_then_something_may_be_pending() {
    let mut host = crate::rehearsals::serving(TOOL_AND_WEB);
    let contents = host.contents("v1");
    let same = host.deploy_of(contents.clone()).unwrap();
    assert_eq!(same.migrate, Planned::NotNeeded(WhyNot::Unchanged));

    let shipped = BTreeMap::from([("migrations".to_owned(), file("one more"))]);
    let plan = host.plan(&Request { contents, shipped, ..ask(Verb::Deploy) }).unwrap();

    assert!(todo(&plan.migrate).if_pending.is_some(), "{:?}", plan.migrate);
}

#[test]
fn given_an_image_of_a_migrations_own_that_is_told_something_else_then_something_may_be_pending() {
    for told in ["environment: { DIR: /migrations }", "entrypoint: [sh, -e]"] {
        let mut host = crate::rehearsals::serving(TOOL_AND_WEB);
        host.text = host.text.replace("command: up,", &format!("command: up, {told},"));
        let contents = host.contents("v1");

        let plan = host.deploy_of(contents).unwrap();

        assert!(todo(&plan.migrate).if_pending.is_some(), "{told}: {:?}", plan.migrate);
    }
}

#[test]
fn given_a_question_then_its_sessions_are_not_taken_for_those_of_a_migration() {
    let mut host = crate::rehearsals::serving(TOOL_AND_WEB);
    let plan = pending(&mut host);
    let HeldDatabase::Migrate { migration } = &todo(&plan.handover).databases[0] else { panic!("{plan:?}") };
    let client = cutover_core::variables::given::DATABASE_CLIENT.parse().unwrap();

    assert!(migration.instances().all(|spec| spec.given.contains_key(&client)));
    assert!(migration.questions().iter().all(|(spec, _)| !spec.given.contains_key(&client)));
}

#[test]
fn given_a_breaking_migration_of_postgres_then_what_opens_it_is_handed_over() {
    let mut host = Host::serving(&SERVER.replace("COMPATIBLE", "breaking"));

    let plan = pending(&mut host);

    assert_eq!(stopped_in_the_handover(&plan), ["web"]);
    assert!(matches!(todo(&plan.handover).databases[..], [HeldDatabase::Migrate { .. }]));
    let mut first = Host::new(&SERVER.replace("COMPATIBLE", "breaking"));
    let plan = first.deploy("v1").unwrap();
    assert!(todo(&plan.migrate).if_pending.is_none(), "nobody is there to be held");
}

#[test]
fn given_a_breaking_migration_of_any_engine_then_it_is_never_carried_out_beside_the_old_release() {
    for engine in ["postgres", "mysql", "mariadb"] {
        let text = SERVER
            .replace("COMPATIBLE", "breaking")
            .replace("engine: postgres", &format!("engine: {engine}"));
        let mut host = Host::serving(&text);

        let mut plan = pending(&mut host);

        assert!(matches!(todo(&plan.handover).databases[..], [HeldDatabase::Migrate { .. }]), "{engine}");
        // A plan that says otherwise is not carried out.
        let Planned::Do(handover) = &plan.handover else { panic!("{engine}") };
        let HeldDatabase::Migrate { migration } = &handover.databases[0] else { panic!("{engine}") };
        let direct = MigratePlan {
            rehearse: Vec::new(),
            direct: vec![migration.as_ref().clone()],
            if_pending: None,
            scratch: Vec::new(),
        };
        plan.migrate = Planned::Do(direct);
        let refused = cutover_core::rules::recheck(&plan, &host.state).unwrap_err();
        assert!(refused[0].what.contains("breaking migration of `main`"), "{refused:?}");
        assert!(!Rule::BreakingMigrationBesideOld.can_be_allowed());
    }
}

#[test]
fn given_an_expanding_migration_of_a_server_that_failed_half_way_then_the_state_of_the_schema_is_not_known() {
    let mut host = Host::serving(&SERVER.replace("COMPATIBLE", "expand"));
    let plan = host.deploy("v2").unwrap();
    let mut journal = Journal::of(&plan);
    let step = Step::Migrate { database: "main".parse().unwrap() };
    journal.write(What::Intent { stage: Stage::Migrate, step });
    let failure = cutover_core::failure::Failure::new(Exit::Migration, "the migration of `main` failed");
    journal.failed(Stage::Migrate, failure);
    let back = host.way(&journal);
    journal.resumed(&back);
    journal.left(Stage::Record);

    let verdict = host.verdict(&journal);

    let cutover_core::verdict::Outcome::Failed { failure } = &verdict.outcome else { panic!("{verdict:?}") };
    assert_eq!(failure.exit, Exit::Migration);
    assert!(failure.state.contains("the schema of `main` is not known"), "{}", failure.state);
}

#[test]
fn given_a_migration_of_a_server_that_failed_then_what_was_found_in_it_is_told() {
    let version = |version: &str, broken| SchemaVersion {
        tool: "golang-migrate".to_owned(),
        version: version.to_owned(),
        broken,
    };
    let same = SchemaChange { before: vec![version("2", false)], after: vec![version("2", false)] };
    let marked = SchemaChange { before: vec![version("2", false)], after: vec![version("3", true)] };
    let unfinished = "the tables of `main` are as they were before, and its version is now 3 (golang-migrate, not finished)";
    for (changed, schema, told) in [
        (false, SchemaChange::default(), "the schema of `main` is as it was before"),
        (false, same, "the schema of `main` is as it was before"),
        (false, marked.clone(), unfinished),
        (true, marked, "was changed by the migration that failed"),
    ] {
        let mut host = Host::serving(&SERVER.replace("COMPATIBLE", "expand"));
        let plan = host.deploy("v2").unwrap();
        let mut journal = Journal::of(&plan);
        let database = || "main".parse().unwrap();
        journal.write(What::Intent { stage: Stage::Migrate, step: Step::Migrate { database: database() } });
        let step = Step::Inspect { database: database() };
        let intent = journal.write(What::Intent { stage: Stage::Migrate, step });
        let result = StepResult::Inspected { changed, schema };
        journal.write(What::Outcome { intent, result });
        let failure = cutover_core::failure::Failure::new(Exit::Migration, "the migration of `main` failed");
        journal.failed(Stage::Migrate, failure);
        let back = host.way(&journal);
        journal.resumed(&back);
        journal.left(Stage::Record);

        let verdict = host.verdict(&journal);

        let cutover_core::verdict::Outcome::Failed { failure } = &verdict.outcome else {
            panic!("{verdict:?}")
        };
        assert!(failure.state.contains(told), "{}", failure.state);
    }
}

#[test]
fn given_a_restart_of_a_release_that_keeps_its_predecessor_warm_then_its_own_instances_are_not_kept() {
    let mut host = Host::serving(&format!("keep_warm: 10m\n{WEB_AND_WORKER}"));
    let restart = host.plan(&ask(Verb::Restart)).unwrap();
    assert!(todo(&restart.drain).keep_warm.is_zero());
}

#[test]
fn given_a_run_that_died_while_it_migrated_a_server_then_its_sessions_there_are_ended_on_the_way_back() {
    let mut host = Host::serving(&SERVER.replace("COMPATIBLE", "expand"));
    let plan = host.deploy("v2").unwrap();
    let mut journal = Journal::of(&plan);
    let database = "main".parse().unwrap();
    journal.write(What::Intent { stage: Stage::Migrate, step: Step::Migrate { database } });

    let back = host.way(&journal);

    assert!(matches!(todo(&back.handover).databases[..], [HeldDatabase::Settle { .. }]));
    assert!(todo(&back.handover).hold.is_empty(), "nobody waits for it");
}

#[test]
fn given_the_same_content_then_a_database_that_lies_elsewhere_is_migrated_all_the_same() {
    let text = SERVER.replace("COMPATIBLE", "expand");
    let mut host = Host::new(&text.replace("    service: postgres\n", "    url: \"${DATABASE_URL}\"\n"));
    let variables =
        |value: &str| Some([("DATABASE_URL".parse().unwrap(), ContentHash::of(value.as_bytes()))].into());
    host.state.variables = variables("here");
    let first = host.deploy("v1").unwrap();
    host.carry_out(&first);
    assert_eq!(host.deploy("v1").unwrap().migrate, Planned::NotNeeded(WhyNot::Unchanged));

    host.state.variables = variables("there");
    assert_eq!(todo(&host.deploy("v1").unwrap().migrate).direct.len(), 1, "its url has another value");

    let mut host = Host::serving(&text);
    assert_eq!(host.deploy("v1").unwrap().migrate, Planned::NotNeeded(WhyNot::Unchanged));
    host.text = text.replace("    snapshot: none\n", "    snapshot: none\n    name: shop2\n");
    assert_eq!(todo(&host.deploy("v1").unwrap().migrate).direct.len(), 1, "it has another name");
}

/// Two databases, one of which is migrated beside the old release and one in the handover.
fn two() -> String {
    let first = SERVER.replace("COMPATIBLE", "expand").replace("    snapshot: none\n", "");
    format!(
        "{first}  orders:\n    engine: postgres\n    service: postgres\n    name: orders\n    \
         migrate: {{ service: web, command: ./migrate-orders, compatible: breaking }}\n"
    )
}

#[test]
fn given_a_migration_beside_the_old_release_before_one_in_the_handover_then_neither_is_forgotten() {
    let mut host = Host::serving(&two());
    let all = host.deploy("v2").unwrap();
    let mut journal = Journal::of(&all);
    let begun = |journal: &mut Journal, stage: Stage, migration: &Migration| {
        let (database, file) = (migration.database.clone(), migration.snapshot_file.clone());
        journal.did(stage, Step::Snapshot { database: database.clone(), file });
        journal.did(stage, Step::Migrate { database });
    };
    begun(&mut journal, Stage::Migrate, &todo(&all.migrate).direct[0]);
    let plan = *todo(&all.migrate).if_pending.clone().unwrap();
    journal.planned(&plan);
    let HeldDatabase::Migrate { migration } = &todo(&plan.handover).databases[0] else { panic!("{plan:?}") };
    begun(&mut journal, Stage::Handover, migration);

    let records = migration_records(&journal.entries, &plan);
    let kept: Vec<_> =
        records.iter().map(|record| (record.database.as_str(), record.snapshot.is_some())).collect();
    assert_eq!(kept, [("main", true), ("orders", true)]);

    journal.failed(Stage::Handover, unhealthy());
    host.stop("web");
    let back = host.way(&journal);
    journal.resumed(&back);
    let HeldDatabase::Restore { database, snapshot: Some(file), .. } = &todo(&back.handover).databases[0]
    else {
        panic!("{back:?}")
    };
    journal.did(Stage::Handover, Step::Restore { database: database.clone(), file: file.clone() });
    for gated in incoming(&back) {
        host.run(&gated);
    }
    journal.left(Stage::Record);

    let Outcome::Failed { failure } = host.verdict(&journal).outcome else { panic!("it failed") };
    assert!(
        failure.state.contains("the database was put back as it was; `main` stays migrated"),
        "{}",
        failure.state
    );
}

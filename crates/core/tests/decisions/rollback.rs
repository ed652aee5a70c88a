//! Rollback across migrations: what counts is what the schema had and has, not in which order releases went live.

use cutover_core::config::settings::{Compatible, SnapshotPolicy};
use cutover_core::hash::ContentHash;
use cutover_core::journal::{Step, StepResult, What};
use cutover_core::plan::{Direction, HeldDatabase, HostPlan, Refusals, Rule, Stage, Verb};
use cutover_core::request::Request;
use cutover_core::retention::unneeded_releases;
use cutover_core::state::{Migrated, MigrationRecord, SchemaChange, SchemaVersion};

use crate::world::{Host, Journal, WEB, ask, incoming, todo, told, unhealthy};

const SHOP: &str = r#"
app: shop
services:
  web:
    artifact: web
    command: ./web
    environment: { DATABASE_FILE: "${databases.main.file}" }
    port: 8000
    route: { host: shop.example.com }
    health: { path: /health }
databases:
  main:
    engine: sqlite
    volume: data
    file: app.db
    services: [web]
    migrate: { service: web, command: ./migrate, compatible: breaking }
"#;

/// What `mark_live` records: a version goes live, with the snapshot of a breaking migration where it had one.
fn goes_live(host: &mut Host, version: &str, snapshot: Option<&str>) -> String {
    let plan = host.deploy(version).unwrap();
    host.carry_out(&plan);
    let record = host.state.releases.last_mut().unwrap();
    record.migrations = snapshot
        .map(|snapshot| MigrationRecord {
            done: Migrated {
                database: "main".parse().unwrap(),
                compatible: Compatible::Breaking,
                snapshot: Some(snapshot.to_owned()),
                schema: None,
                changed: None,
            },
            at: record.sequence,
            undone: None,
            again: false,
        })
        .into_iter()
        .collect();
    record.release.id.to_string()
}

fn rollback(host: &mut Host, to: &str, restore: bool) -> Result<HostPlan, Refusals> {
    let to = Some(to.parse().unwrap());
    host.plan(&Request { to, restore_databases: restore, ..ask(Verb::Rollback) })
}

/// A release went live again: its number is the newest, what is recorded of its migrations stays.
fn is_live_again(host: &mut Host, plan: &HostPlan) -> u64 {
    let migrations = host
        .state
        .releases
        .iter()
        .find(|record| Some(&record.release.id) == plan.release.as_ref().map(|release| &release.id))
        .unwrap()
        .migrations
        .clone();
    host.carry_out(plan);
    let record = host.state.releases.last_mut().unwrap();
    record.migrations = migrations;
    record.sequence
}

#[test]
fn given_a_rollback_to_the_release_that_migrated_then_the_way_forward_again_crosses_nothing() {
    let mut host = Host::new(SHOP);
    goes_live(&mut host, "r0", None);
    let first = goes_live(&mut host, "r1", Some("before-r1"));
    let second = goes_live(&mut host, "r2", None);
    let back = rollback(&mut host, &first, false).unwrap();
    is_live_again(&mut host, &back);

    let again = rollback(&mut host, &second, false);

    assert!(again.is_ok(), "{again:?}");
}

#[test]
fn given_a_breaking_migration_since_the_release_was_live_then_it_is_refused_and_a_restore_gets_its_snapshot()
{
    let mut host = Host::new(SHOP);
    let zero = goes_live(&mut host, "r0", None);
    let first = goes_live(&mut host, "r1", Some("before-r1"));
    goes_live(&mut host, "r2", Some("before-r2"));
    let back = rollback(&mut host, &first, true).unwrap();
    assert!(
        matches!(todo(&back.handover).databases.as_slice(), [HeldDatabase::Restore { snapshot: Some(file), .. }] if file == "before-r2")
    );

    let refused = rollback(&mut host, &zero, false).unwrap_err().failure();
    assert!(refused.next[0].contains("before-r1"), "{refused:?}");
    let back = rollback(&mut host, &zero, true).unwrap();
    assert!(
        matches!(todo(&back.handover).databases.as_slice(), [HeldDatabase::Restore { snapshot: Some(file), .. }] if file == "before-r1")
    );
}

#[test]
fn given_a_restore_that_undid_a_migration_then_a_release_that_needs_it_is_refused_also_with_a_restore() {
    let mut host = Host::new(SHOP);
    let zero = goes_live(&mut host, "r0", None);
    goes_live(&mut host, "r1", Some("before-r1"));
    let second = goes_live(&mut host, "r2", None);
    let back = rollback(&mut host, &zero, true).unwrap();
    let moment = is_live_again(&mut host, &back);
    for migration in host.state.releases.iter_mut().flat_map(|record| &mut record.migrations) {
        migration.undone = Some(moment);
    }

    for restore in [false, true] {
        let refused = rollback(&mut host, &second, restore).unwrap_err().failure();
        assert!(refused.cause[0].contains("that was undone since"), "{refused:?}");
        assert!(!refused.next.iter().any(|next| next.contains("--restore-db")), "{refused:?}");
    }
    let request = Request {
        to: Some(second.parse().unwrap()),
        allow: [Rule::RollbackAcrossBreakingMigration].into(),
        ..ask(Verb::Rollback)
    };
    assert!(host.plan(&request).is_ok());
}

#[test]
fn given_a_rollback_that_put_the_database_back_and_has_switched_then_a_failure_does_not_turn_it_around() {
    // What was live cannot run on what was put back, and what the new one wrote since is not thrown away (S18).
    let mut host = Host::new(SHOP);
    let first = goes_live(&mut host, "r1", None);
    goes_live(&mut host, "r2", Some("before-r2"));
    let plan = rollback(&mut host, &first, true).unwrap();
    let HeldDatabase::Restore { database, snapshot: Some(file), .. } = &todo(&plan.handover).databases[0]
    else {
        panic!("{:?}", plan.handover)
    };
    let mut journal = Journal::of(&plan);
    journal.did(Stage::Handover, Step::Restore { database: database.clone(), file: file.clone() });
    for gated in incoming(&plan) {
        host.run(&gated);
    }
    journal.did(Stage::Switch, Step::Switch);
    host.switch(&plan);
    journal.failed(Stage::Bake, unhealthy());

    assert_eq!(host.way(&journal).direction, Direction::Forward);
}

#[test]
fn given_more_releases_than_are_kept_then_a_deploy_and_a_prune_leave_as_many_to_roll_back_to() {
    let mut host = Host::new(&format!("{WEB}keep: 2\n"));
    for version in ["v1", "v2", "v3", "v4", "v5"] {
        let plan = host.deploy(version).unwrap();
        host.carry_out(&plan);
    }
    let mut by_sequence = host.state.releases.clone();
    by_sequence.sort_by_key(|record| record.sequence);
    let ids: Vec<_> = by_sequence.into_iter().map(|record| record.release.id).collect();

    let pruned = unneeded_releases(&host.state);
    let deployed = host.deploy("v6").unwrap().record.forget;

    // The newest first.
    assert!(pruned.iter().eq(ids[..2].iter().rev()), "v5 lives: v3 and v4 stay: {pruned:?} of {ids:?}");
    assert!(
        deployed.iter().eq(ids[..3].iter().rev()),
        "v6 will live: v4 and v5 stay: {deployed:?} of {ids:?}"
    );
}

#[test]
fn given_a_release_that_is_live_by_a_rollback_then_a_second_one_says_where_it_leads() {
    let mut host = Host::serving(WEB);
    let second = host.deploy("v2").unwrap();
    host.carry_out(&second);
    let back = host.plan(&ask(Verb::Rollback)).unwrap();
    assert!(!back.notes.iter().any(|note| note.contains("by a rollback")), "{:?}", back.notes);
    let mut journal = Journal::of(&back);
    host.carry_out(&back);
    journal.left(Stage::Record);
    let verdict = host.verdict(&journal);
    host.state.verdicts.insert(0, verdict);

    let again = host.plan(&ask(Verb::Rollback)).unwrap();

    assert_eq!(
        again.release.as_ref().map(|release| &release.id),
        second.release.as_ref().map(|release| &release.id)
    );
    assert!(again.notes.iter().any(|note| note.contains("is live by a rollback")), "{:?}", again.notes);
}

#[test]
fn given_a_change_of_the_backups_alone_then_a_rollback_goes_to_what_ran_otherwise() {
    let text = |keep: u32| {
        format!(
            "app: shop\nservices:\n  web: {{ artifact: web, command: ./web, environment: {{ TOKEN: }} }}\n\
             backup: {{ to: /backups, password: \"${{TOKEN}}\", keep: {{ daily: {keep} }} }}\n"
        )
    };
    let mut host = Host::new(&text(7));
    host.state.variables = Some([("TOKEN".parse().unwrap(), ContentHash::of(b"first"))].into());
    let deployed = |host: &mut Host, version: &str| {
        let plan = host.deploy(version).unwrap();
        host.carry_out(&plan);
        plan.release.unwrap().id
    };
    let first = deployed(&mut host, "v1");
    let second = deployed(&mut host, "v2");
    host.text = text(8);
    let third = deployed(&mut host, "v2");
    assert_ne!(second, third, "a schedule is something to put live");

    let back = host.plan(&ask(Verb::Rollback)).unwrap();

    assert_eq!(back.release.unwrap().id, first);
    let asked = host.plan(&Request { to: Some(second.clone()), ..ask(Verb::Rollback) }).unwrap();
    assert_eq!(asked.release.unwrap().id, second, "who names it gets it");
}

/// The same app with a database that has a server.
fn with_a_server() -> Host {
    let (services, _) = SHOP.split_once("databases:").unwrap();
    Host::new(&format!(
        "{}backing:
  postgres: {{ artifact: postgres, command: ./postgres, port: 5432 }}
databases:
  main:
    engine: postgres
    service: postgres
    migrate: {{ service: web, command: ./migrate, compatible: breaking, down: ./down }}
",
        services.replace("environment: { DATABASE_FILE: \"${databases.main.file}\" }", "environment: {}")
    ))
}

/// The same app, whose breaking migrations say what takes them back.
fn with_downs() -> Host {
    Host::new(&SHOP.replace("compatible: breaking", "compatible: breaking, down: ./down"))
}

fn down(host: &mut Host, to: &str) -> Result<HostPlan, Refusals> {
    let to = Some(to.parse().unwrap());
    host.plan(&Request { to, migrate_down: true, ..ask(Verb::Rollback) })
}

#[test]
fn given_recorded_downs_then_a_rollback_takes_the_newest_back_first_each_in_its_own_release() {
    let mut host = with_downs();
    let zero = goes_live(&mut host, "r0", None);
    let first = goes_live(&mut host, "r1", Some("before-r1"));
    let second = goes_live(&mut host, "r2", Some("before-r2"));
    let version = |version: &str| SchemaVersion {
        tool: "alembic".to_owned(),
        version: version.to_owned(),
        broken: false,
    };
    let schema = SchemaChange { before: vec![version("1a")], after: vec![version("2b")] };
    host.state.releases.last_mut().unwrap().migrations[0].done.schema = Some(schema);

    let plan = down(&mut host, &zero).unwrap();

    let pending = todo(&plan.migrate).if_pending.clone().unwrap();
    let HeldDatabase::Migrate { migration } = &todo(&pending.handover).databases[0] else {
        panic!("{plan:?}")
    };
    let of: Vec<_> = migration.instances().map(|spec| spec.release.to_string()).collect();
    assert_eq!(of, [second.clone(), first]);
    let before = cutover_core::variables::given::SCHEMA_BEFORE.parse().unwrap();
    let given: Vec<_> =
        migration.instances().map(|spec| spec.given.get(&before).map(String::as_str)).collect();
    assert_eq!(given, [Some("1a"), None]);
    let names: std::collections::BTreeSet<_> = migration.instances().map(|spec| &spec.name).collect();
    assert_eq!(names.len(), 2, "each has a name of its own");
    assert!(migration.snapshot_file.contains(&second), "of what is live: {}", migration.snapshot_file);
    assert_eq!(todo(&plan.preflight).artifacts.len(), 3, "of the old one and of both that were migrated");
    let refused = rollback(&mut host, &zero, false).unwrap_err().failure();
    assert!(refused.next[0].contains("--migrate-down"), "{refused:?}");
}

#[test]
fn given_a_migration_without_a_down_then_nothing_is_guessed() {
    let mut host = Host::new(SHOP);
    let zero = goes_live(&mut host, "r0", None);
    let first = goes_live(&mut host, "r1", Some("before-r1"));

    let refused = down(&mut host, &zero).unwrap_err().failure();

    assert_eq!(refused.exit, cutover_core::exit::Exit::Refused);
    insta::assert_snapshot!(told(&refused, &[(&zero, "R0"), (&first, "R1")]), @"
    error: the migrations since release R0 cannot be taken back
      cause: release R1 migrated `main`, and has no `down` on record for it
      next: `cutover rollback --to R0 --restore-db` puts a snapshot back instead (before-r1 is the one before that migration); what was written since is kept in a snapshot of the present, but not served
      next: `databases.main.migrate.down` in cutover.yml records one with the next release
    ");
    let refused = rollback(&mut host, &zero, false).unwrap_err().failure();
    assert!(!refused.next.iter().any(|next| next.contains("--migrate-down")), "{refused:?}");
}

#[test]
fn given_migrations_that_were_taken_back_then_they_are_recorded_so_and_a_failure_before_the_switch_puts_all_back()
 {
    let mut host = with_downs();
    let zero = goes_live(&mut host, "r0", None);
    goes_live(&mut host, "r1", Some("before-r1"));
    let plan = down(&mut host, &zero).unwrap();
    let pending = *todo(&plan.migrate).if_pending.clone().unwrap();
    let HeldDatabase::Migrate { migration } = &todo(&pending.handover).databases[0] else {
        panic!("{plan:?}")
    };
    let mut journal = Journal::of(&plan);
    journal.planned(&pending);
    let (database, file) = (migration.database.clone(), migration.snapshot_file.clone());
    journal.did(Stage::Handover, Step::Snapshot { database: database.clone(), file: file.clone() });
    let begun = Step::Migrate { database: database.clone() };
    journal.write(What::Intent { stage: Stage::Handover, step: begun.clone() });
    host.stop("web");

    let back = host.way(&journal);

    assert_eq!(back.direction, Direction::Back);
    assert!(
        matches!(&todo(&back.handover).databases[..], [HeldDatabase::Restore { snapshot: Some(put), .. }] if *put == file)
    );
    journal.did(Stage::Handover, begun);
    let undone = cutover_core::recover::undone(&journal.entries, &pending);
    assert_eq!(undone.len(), 1);
    assert!(cutover_core::recover::migration_records(&journal.entries, &pending).is_empty());
}

/// What a tool says of a schema before and after.
fn versions(before: &str, after: &str) -> SchemaChange {
    let version = |version: &str| {
        vec![SchemaVersion { tool: "alembic".to_owned(), version: version.to_owned(), broken: false }]
    };
    SchemaChange { before: version(before), after: version(after) }
}

/// The migration of the release that went live last.
fn newest(host: &mut Host) -> &mut Migrated {
    &mut host.state.releases.last_mut().unwrap().migrations[0].done
}

/// What takes the migration of `main` back in a plan.
fn taken_back(plan: &HostPlan) -> &cutover_core::plan::Migration {
    let pending = todo(&plan.migrate).if_pending.as_ref().unwrap();
    let HeldDatabase::Migrate { migration } = &todo(&pending.handover).databases[0] else {
        panic!("{plan:?}")
    };
    migration
}

#[test]
fn given_a_breaking_migration_that_found_nothing_to_do_then_a_rollback_goes_across_it() {
    let mut host = Host::new(SHOP);
    let first = goes_live(&mut host, "r1", Some("before-r1"));
    goes_live(&mut host, "r2", Some("before-r2"));
    assert!(rollback(&mut host, &first, false).is_err(), "it is not known");
    newest(&mut host).changed = Some(false);

    let back = rollback(&mut host, &first, false).unwrap();

    assert!(!matches!(back.handover, cutover_core::plan::Planned::Do(_)), "nobody is held for it");
    for asked in [rollback(&mut host, &first, true), down(&mut host, &first)] {
        let notes = asked.unwrap().notes;
        assert!(notes.iter().any(|note| note.contains("no database is changed")), "{notes:?}");
    }
}

#[test]
fn given_a_tool_that_found_nothing_to_do_then_what_a_run_that_failed_had_left_is_crossed_all_the_same() {
    let mut host = with_a_server();
    let first = goes_live(&mut host, "r1", Some("before-r1"));
    newest(&mut host).schema = Some(versions("1a", "2b"));
    let second = goes_live(&mut host, "r2", Some("before-r2"));
    newest(&mut host).schema = Some(versions("2b", "2b"));
    assert!(rollback(&mut host, &first, false).is_ok(), "on record is what r1 left");

    newest(&mut host).schema = Some(versions("3c", "3c"));

    assert!(rollback(&mut host, &first, false).is_err());
    let refused = down(&mut host, &first).unwrap_err().failure();
    insta::assert_snapshot!(told(&refused, &[(&first, "R1"), (&second, "R2")]), @"
    error: the migrations since release R1 cannot be taken back
      cause: the schema of `main` has changed since then, and by none of those that are on record
      next: go forward with a new release
    ");
}

#[test]
fn given_migrations_of_which_one_changed_nothing_then_its_down_is_not_run_and_what_is_not_known_is_named() {
    let mut host = with_downs();
    let zero = goes_live(&mut host, "r0", None);
    let first = goes_live(&mut host, "r1", Some("before-r1"));
    newest(&mut host).changed = Some(true);
    goes_live(&mut host, "r2", Some("before-r2"));
    newest(&mut host).changed = Some(false);
    let third = goes_live(&mut host, "r3", Some("before-r3"));

    let plan = down(&mut host, &zero).unwrap();

    let of: Vec<_> = taken_back(&plan).instances().map(|spec| spec.release.to_string()).collect();
    assert_eq!(of, [third.clone(), first]);
    let unknown: Vec<_> = plan.notes.iter().filter(|note| note.contains("is not known")).collect();
    assert!(matches!(unknown[..], [one] if one.contains(&third)), "{:?}", plan.notes);
}

#[test]
fn given_a_rehearsal_that_found_nothing_to_do_then_the_record_says_so() {
    let mut host = with_downs();
    goes_live(&mut host, "r1", Some("before-r1"));
    let plan = host.deploy("r2").unwrap();
    for pending in [true, false] {
        let mut journal = Journal::of(&plan);
        let database = || "main".parse().unwrap();
        let rehearsed = Step::Rehearse { database: database() };
        let intent = journal.write(What::Intent { stage: Stage::Migrate, step: rehearsed });
        journal.write(What::Outcome { intent, result: StepResult::Rehearsed { pending, took_ms: 1 } });
        let alternative = *todo(&plan.migrate).if_pending.clone().unwrap();
        journal.planned(&alternative);
        journal.did(Stage::Handover, Step::Migrate { database: database() });

        let records = cutover_core::recover::migration_records(&journal.entries, &alternative);

        assert_eq!(records[0].changed, Some(pending));
    }
}

#[test]
fn given_a_release_that_was_migrated_without_a_snapshot_then_one_is_taken_before_that_is_taken_back() {
    let text =
        SHOP.replace("compatible: breaking }", "compatible: breaking, down: ./down }\n    snapshot: none");
    let mut host = Host::new(&text);
    let zero = goes_live(&mut host, "r0", None);
    goes_live(&mut host, "r1", Some("before-r1"));
    newest(&mut host).snapshot = None;

    let plan = down(&mut host, &zero).unwrap();

    assert_eq!(taken_back(&plan).snapshot, SnapshotPolicy::BeforeMigration);
}

#[test]
fn given_a_release_that_was_migrated_without_a_snapshot_then_a_restore_is_refused_and_says_what_else_there_is()
 {
    for (mut host, way) in [
        (Host::new(SHOP), "go forward with a new release"),
        (with_downs(), "`cutover rollback --to R0 --migrate-down`"),
    ] {
        let zero = goes_live(&mut host, "r0", None);
        let first = goes_live(&mut host, "r1", Some("before-r1"));
        newest(&mut host).snapshot = None;

        let refused = rollback(&mut host, &zero, true).unwrap_err().failure();

        assert_eq!(refused.exit, cutover_core::exit::Exit::Refused);
        let text = told(&refused, &[(&zero, "R0"), (&first, "R1")]);
        assert!(text.contains("release R1 was migrated without a snapshot"), "{text}");
        assert!(text.contains(&format!("next: {way}")), "{text}");
    }
}

#[test]
fn given_an_app_that_is_stopped_then_what_takes_a_servers_migrations_back_can_be_put_back() {
    let mut host = with_a_server();
    let zero = goes_live(&mut host, "r0", None);
    goes_live(&mut host, "r1", Some("before-r1"));
    let stop = host.plan(&ask(Verb::Stop)).unwrap();
    is_live_again(&mut host, &stop);
    assert!(host.state.live.as_ref().unwrap().members.is_empty());

    let plan = down(&mut host, &zero).unwrap();

    assert!(todo(&plan.migrate).direct.is_empty(), "beside nothing it would not be put back");
    assert_eq!(taken_back(&plan).database.to_string(), "main");
}

#[test]
fn given_migrations_that_were_taken_back_and_a_failure_after_the_switch_then_nothing_is_advised_that_is_refused()
 {
    let mut host = with_downs();
    let zero = goes_live(&mut host, "r0", None);
    let first = goes_live(&mut host, "r1", Some("before-r1"));
    let plan = down(&mut host, &zero).unwrap();
    let pending = *todo(&plan.migrate).if_pending.clone().unwrap();
    let mut journal = Journal::of(&plan);
    journal.planned(&pending);
    let database = taken_back(&plan).database.clone();
    journal.did(Stage::Handover, Step::Migrate { database });
    for gated in incoming(&pending) {
        host.run(&gated);
    }
    journal.did(Stage::Switch, Step::Switch);
    host.switch(&pending);
    journal.failed(Stage::Bake, unhealthy());

    let verdict = host.concluded(&journal);

    let cutover_core::verdict::Outcome::Failed { failure } = verdict.outcome else { panic!("{verdict:?}") };
    assert_eq!(failure.exit, cutover_core::exit::Exit::Person);
    assert!(failure.next[0].contains(&format!("deploy the commit of release {first} again")), "{failure:?}");
    let restores = || failure.next.iter().filter(|next| next.contains("snapshot restore"));
    assert!(restores().all(|next| next.contains("--to SCRATCH")), "what it was does not fit r0: {failure:?}");
    assert!(failure.state.contains("were taken back"), "{failure:?}");
}

#[test]
fn given_a_down_that_asks_for_the_version_before_then_it_gets_it_or_is_not_run() {
    let mut host = with_a_server();
    host.text = host.text.replace("down: ./down", "down: \"./down $$CUTOVER_SCHEMA_BEFORE\"");
    let zero = goes_live(&mut host, "r0", None);
    goes_live(&mut host, "r1", Some("before-r1"));
    let variable = cutover_core::variables::given::SCHEMA_BEFORE.parse().unwrap();
    for (before, given) in [("1a", Some("1a")), ("", None)] {
        newest(&mut host).schema = Some(versions(before, "3c"));
        let plan = down(&mut host, &zero).unwrap();
        assert_eq!(taken_back(&plan).spec.given.get(&variable).map(String::as_str), given, "{before}");
    }
    for schema in [None, Some(versions("1a, 2b", "3c"))] {
        newest(&mut host).schema = schema;

        let refused = down(&mut host, &zero).unwrap_err().failure();

        assert!(refused.cause[0].contains("asks for CUTOVER_SCHEMA_BEFORE"), "{refused:?}");
        let plain = rollback(&mut host, &zero, false).unwrap_err().failure();
        assert!(!plain.next.iter().any(|next| next.contains("--migrate-down")), "{plain:?}");
    }
}

//! Snapshots that somebody asks for: which of them fit what is live, and what a killed run goes on with.

use std::collections::BTreeSet;

use cutover_core::config::settings::Compatible;
use cutover_core::exit::Exit;
use cutover_core::hash::ContentHash;
use cutover_core::journal::{Step, What};
use cutover_core::plan::{HeldDatabase, HostPlan, Planned, Refusals, Rule, Stage, Verb, WhyNot};
use cutover_core::request::{Request, SnapshotRequest};
use cutover_core::retention::KnownSnapshot;
use cutover_core::state::{Migrated, MigrationRecord};
use cutover_core::verdict::Outcome;

use crate::world::{Host, Journal, ask, todo, told};

const SHOP: &str = r"
app: shop
services:
  web:
    artifact: web
    command: ./web
    port: 8000
    route: { host: shop.example.com }
    health: { path: /health }
  page:
    artifact: page
    command: ./page
    port: 8000
    route: { host: page.example.com }
    health: { path: /health }
backing:
  postgres: { artifact: postgres, command: ./postgres, port: 5432 }
databases:
  main:
    engine: postgres
    service: postgres
    migrate: { service: web, command: ./migrate, compatible: expand }
";

/// A snapshot that was taken when a release had gone live under this number.
fn taken(host: &mut Host, moment: Option<u64>) -> String {
    let name = "main_20261126T040506007Z_7f3c9e1.dump.zst".to_owned();
    host.state.snapshots = Some(vec![KnownSnapshot {
        name: name.clone(),
        database: "main".parse().unwrap(),
        taken: host.state.now,
        release: "7f3c9e1".parse().unwrap(),
        bytes: 1,
        sequence: moment,
        hash: moment.map(|_| ContentHash::of(b"dump")),
        moment,
        needed_by: BTreeSet::new(),
        problem: None,
    }]);
    name
}

/// The newest release was migrated when it went live.
fn migrated(host: &mut Host, compatible: Compatible) {
    let record = host.state.releases.last_mut().unwrap();
    let done = Migrated {
        database: "main".parse().unwrap(),
        compatible,
        snapshot: Some("shop/before".to_owned()),
        schema: None,
        changed: None,
    };
    record.migrations.push(MigrationRecord { done, at: record.sequence, undone: None, again: false });
}

fn asks(name: &str, to: Option<&str>) -> Request {
    let snapshot = SnapshotRequest {
        name: Some(name.to_owned()),
        to: to.map(str::to_owned),
        ..SnapshotRequest::default()
    };
    Request { snapshot, ..ask(Verb::SnapshotRestore) }
}

/// A first release, and a second one that was migrated on its way.
fn two_releases(compatible: Compatible) -> Host {
    let mut host = Host::serving(SHOP);
    let second = host.deploy("v2").unwrap();
    host.carry_out(&second);
    migrated(&mut host, compatible);
    host
}

fn restored(host: &mut Host, moment: u64) -> Result<HostPlan, Refusals> {
    let name = taken(host, Some(moment));
    host.plan(&asks(&name, None))
}

#[test]
fn given_a_snapshot_from_before_the_breaking_migration_of_what_is_live_then_it_is_put_beside_and_nowhere_else()
 {
    let mut host = two_releases(Compatible::Breaking);

    let refused = restored(&mut host, 1).unwrap_err().failure();

    assert_eq!(refused.exit, Exit::Refused);
    let live = host.state.live.as_ref().unwrap().release.to_string();
    let first = host.state.releases[0].release.id.to_string();
    insta::assert_snapshot!(told(&refused, &[(&live, "R2"), (&first, "R1")]), @"
    error: release R2, which is live, cannot run on the snapshot main_20261126T040506007Z_7f3c9e1.dump.zst
      cause: it was taken before release R2 migrated `main`, and declared that breaking
      next: `cutover rollback --to R1 --restore-db` puts before (not main_20261126T040506007Z_7f3c9e1.dump.zst) and that release back together
      next: `cutover snapshot restore main_20261126T040506007Z_7f3c9e1.dump.zst --to SCRATCH` puts it beside, to look at
      next: or let it pass, on record: `--allow rollback-across-breaking-migration`
    ");
    assert!(restored(&mut host, 2).is_ok(), "one from after it");
    let name = taken(&mut host, Some(1));
    assert!(host.plan(&asks(&name, Some("scratch"))).is_ok());
    let allowed = Request { allow: [Rule::RollbackAcrossBreakingMigration].into(), ..asks(&name, None) };
    assert!(host.plan(&allowed).is_ok());
}

#[test]
fn given_a_snapshot_with_a_breaking_migration_that_what_is_live_does_not_have_then_it_is_refused() {
    let mut host = two_releases(Compatible::Breaking);
    let to = host.state.releases[0].release.id.clone();
    let back = Request {
        to: Some(to),
        allow: [Rule::RollbackAcrossBreakingMigration].into(),
        ..ask(Verb::Rollback)
    };
    let back = host.plan(&back).unwrap();
    host.carry_out(&back);
    let moment = host.state.releases.last().unwrap().sequence;
    for one in host.state.releases.iter_mut().flat_map(|record| &mut record.migrations) {
        one.undone = Some(moment);
    }

    let refused = restored(&mut host, 2).unwrap_err().failure();

    assert!(refused.cause[0].contains("went live without it"), "{refused:?}");
    assert!(restored(&mut host, moment).is_ok());
}

#[test]
fn given_a_restore_that_was_let_pass_then_the_present_is_put_back_without_leave() {
    let mut host = two_releases(Compatible::Breaking);
    let name = taken(&mut host, Some(1));
    let allowed = Request { allow: [Rule::RollbackAcrossBreakingMigration].into(), ..asks(&name, None) };
    let plan = host.plan(&allowed).unwrap();
    let migrations = host.state.releases.last().unwrap().migrations.clone();
    host.carry_out(&plan);
    let record = host.state.releases.last_mut().unwrap();
    record.migrations = migrations;
    record.migrations[0].undone = Some(record.sequence);

    assert!(restored(&mut host, 2).is_ok());
}

#[test]
fn given_what_is_on_no_record_then_the_plan_says_so_and_of_a_migration_that_adds_it_is_told() {
    let mut host = two_releases(Compatible::Expand);
    let name = taken(&mut host, None);

    let plan = host.plan(&asks(&name, None)).unwrap();

    assert!(plan.notes.iter().any(|note| note.contains("is on no record")), "{:?}", plan.notes);
    assert!(plan.notes.iter().any(|note| note.contains("is not known")), "{:?}", plan.notes);
    let plan = restored(&mut host, 1).unwrap();
    assert!(
        plan.notes.iter().any(|note| note.contains("the next deploy carries that out again")),
        "{:?}",
        plan.notes
    );
}

#[test]
fn given_a_migration_of_an_earlier_release_that_a_restore_undid_then_the_next_deploy_migrates_whatever_it_brings()
 {
    let mut host = Host::new(SHOP);
    let first = host.deploy("v1").unwrap();
    host.carry_out(&first);
    migrated(&mut host, Compatible::Expand);
    // Another page, the same application: nothing was migrated on the way.
    let mut contents = host.contents("v1");
    contents.extend(host.contents("v2").into_iter().filter(|(name, _)| name.as_str() == "page"));
    let page = Request { contents: contents.clone(), ..ask(Verb::Deploy) };
    let second = host.plan(&page).unwrap();
    assert_eq!(second.migrate, Planned::NotNeeded(WhyNot::Unchanged));
    host.carry_out(&second);
    let undone = host.state.releases.last_mut().map(|record| {
        record.sequence += 1;
        record.sequence
    });
    for record in &mut host.state.releases {
        record.migrations.iter_mut().for_each(|one| one.undone = undone);
    }
    assert_eq!(
        host.plan(&page).unwrap().migrate,
        Planned::NotNeeded(WhyNot::Unchanged),
        "by a rollback to a release that does without"
    );
    let migrations = host.state.releases.iter_mut().flat_map(|record| &mut record.migrations);
    migrations.for_each(|one| one.again = true);

    assert_eq!(todo(&host.plan(&page).unwrap().migrate).direct.len(), 1);

    let plan = host.plan(&page).unwrap();
    host.carry_out(&plan);
    migrated(&mut host, Compatible::Expand);
    assert_eq!(host.plan(&page).unwrap().migrate, Planned::NotNeeded(WhyNot::Unchanged), "it is there again");
}

#[test]
fn given_a_name_that_restores_use_then_nothing_is_put_back_under_it() {
    let mut host = two_releases(Compatible::Expand);
    let name = taken(&mut host, Some(2));
    for to in [
        "ledger_cutover_restored",
        "ledger_cutover_replaced",
        "ledger_cutover_replaced_1a2b3c4",
        "ledger_cutover_drilled",
        "ledger_cutover_tried",
    ] {
        let refused = host.plan(&asks(&name, Some(to))).unwrap_err().failure();
        assert_eq!(refused.exit, Exit::Usage, "{to}: {refused:?}");
    }
    assert!(host.plan(&asks(&name, Some("replaced"))).is_ok());
}

#[test]
fn given_a_run_that_was_killed_while_it_put_a_snapshot_beside_then_it_goes_on_and_knows_that_it_had_begun() {
    let mut host = two_releases(Compatible::Expand);
    let name = taken(&mut host, Some(2));
    let plan = host.plan(&asks(&name, Some("scratch"))).unwrap();
    let beside = todo(&plan.snapshot).beside.clone().unwrap();
    assert!(!beside.begun);
    let mut journal = Journal::of(&plan);
    let step = Step::Restore { database: beside.database, file: beside.file };
    journal.write(What::Intent { stage: Stage::Snapshot, step });

    let way = host.way(&journal);

    assert!(todo(&way.snapshot).beside.as_ref().is_some_and(|beside| beside.begun));
}

#[test]
fn given_snapshots_that_are_taken_by_a_schedule_then_they_do_not_heap_up() {
    let mut host = Host::serving(SHOP);
    let plan = host.plan(&ask(Verb::SnapshotCreate)).unwrap();
    assert!(plan.record.snapshots.is_some());
    assert!(!matches!(plan.handover, Planned::Do(_)));
    let name = taken(&mut host, Some(1));
    let plan = host.plan(&asks(&name, None)).unwrap();
    assert!(matches!(todo(&plan.handover).databases[..], [HeldDatabase::Restore { .. }]));
}

#[test]
fn given_a_breaking_migration_that_found_nothing_to_do_then_a_snapshot_from_before_it_fits() {
    let mut host = two_releases(Compatible::Breaking);
    host.state.releases.last_mut().unwrap().migrations[0].done.changed = Some(false);

    assert!(restored(&mut host, 1).is_ok());
}

#[test]
fn given_releases_after_the_one_that_was_migrated_then_the_way_back_that_is_named_leads_to_before_it() {
    let mut host = two_releases(Compatible::Breaking);
    let first = host.state.releases[0].release.id.to_string();
    for version in ["v3", "v4"] {
        let plan = host.deploy(version).unwrap();
        host.carry_out(&plan);
    }

    let refused = restored(&mut host, 1).unwrap_err().failure();

    assert!(
        refused.next[0].starts_with(&format!("`cutover rollback --to {first} --restore-db`")),
        "{refused:?}"
    );
    let to = Some(first.parse().unwrap());
    let back = host.plan(&Request { to, restore_databases: true, ..ask(Verb::Rollback) }).unwrap();
    assert!(matches!(todo(&back.handover).databases[..], [HeldDatabase::Restore { .. }]), "it puts one back");
}

#[test]
fn given_a_run_that_was_killed_in_a_migration_beside_what_is_live_then_it_is_not_told_to_be_taken_back() {
    let mut host = Host::serving(SHOP);
    let plan = host.deploy("v2").unwrap();
    let migration = &todo(&plan.migrate).direct[0];
    let mut journal = Journal::of(&plan);
    let step = Step::Migrate { database: migration.database.clone() };
    journal.write(What::Intent { stage: Stage::Migrate, step });

    let verdict = host.concluded(&journal);

    let Outcome::Failed { failure } = verdict.outcome else { panic!("{verdict:?}") };
    assert!(failure.cause[0].contains("but for the migration of `main`"), "{failure:?}");
}

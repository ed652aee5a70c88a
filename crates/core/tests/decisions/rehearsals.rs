//! Migrations that somebody asks to see tried: on which snapshot, in what surroundings, and what becomes of a rehearsal that was killed.

use std::collections::{BTreeMap, BTreeSet};

use cutover_core::config::settings::{Compatible, Mount};
use cutover_core::defaults::SUBNETS;
use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::hash::ContentHash;
use cutover_core::journal::{Step, What};
use cutover_core::names::RunId;
use cutover_core::plan::{Direction, HostPlan, Planned, Refusals, Stage, Verb};
use cutover_core::request::{Request, SnapshotRequest};
use cutover_core::retention::KnownSnapshot;
use cutover_core::state::{FoundEngine, Migrated, MigrationRecord, Role};
use cutover_core::verdict::Outcome;

use crate::world::{Host, Journal, ask, todo, told, unhealthy};

const SHOP: &str = r#"
app: shop
environment: { DATABASE_URL: "postgresql://shop@postgres/shop" }
services:
  web:
    image: shop/web:1
    port: 8000
    route: { host: shop.example.com }
    health: { path: /health }
    volumes: ["uploads:/uploads", "/srv/sockets/pg:/sockets", "/etc/ssl:/etc/ssl:ro"]
    labels: { router: web }
    cap_add: [SYS_ADMIN]
    devices: ["/dev/sda"]
    security_opt: ["no-new-privileges:true", "seccomp=unconfined"]
    logging: { driver: syslog }
    stop_grace_period: 50s
databases:
  main:
    engine: postgres
    service: postgres
    migrate: { service: web, command: ./migrate, compatible: expand, pending: ./pending }
backing:
  postgres:
    image: postgres:15
    volumes: ["pgdata:/data", "/srv/sockets:/run/postgresql", "/srv/tuning:/etc/tuning:ro"]
"#;

/// A host with an engine, on which a first version is live.
pub(crate) fn serving(text: &str) -> Host {
    let mut host = Host::new(text);
    host.state.engine = Some(FoundEngine {
        name: "Docker".to_owned(),
        version: "20.10".to_owned(),
        platform: "linux/amd64".to_owned(),
        bridge_reachable: true,
        subnets: Vec::new(),
        range: SUBNETS.to_owned(),
        networks: BTreeMap::new(),
        volumes: BTreeSet::new(),
    });
    let first = host.deploy("v1").unwrap();
    host.carry_out(&first);
    host
}

/// Snapshots, by the number under which a release had gone live when each was taken.
fn with_snapshots(host: &mut Host, moments: &[u64]) {
    let release = host.state.live.as_ref().unwrap().release.clone();
    let taken = moments.iter().map(|moment| KnownSnapshot {
        name: format!("main_2026112{moment}T040506007Z_7f3c9e1.dump.zst"),
        database: "main".parse().unwrap(),
        taken: host.state.now,
        release: release.clone(),
        bytes: 1,
        sequence: Some(*moment),
        hash: Some(ContentHash::of(b"dump")),
        moment: Some(*moment),
        needed_by: BTreeSet::new(),
        problem: None,
    });
    host.state.snapshots = Some(taken.collect());
}

fn rehearsed(host: &mut Host, databases: &[&str]) -> Result<HostPlan, Refusals> {
    let databases = databases.iter().map(|name| name.parse().unwrap()).collect();
    let snapshot = SnapshotRequest { databases, ..SnapshotRequest::default() };
    let contents = host.contents("v2");
    host.plan(&Request { contents, snapshot, ..ask(Verb::MigrateRehearse) })
}

#[test]
fn given_a_migration_then_it_is_tried_on_the_newest_snapshot_with_nothing_live_in_its_reach() {
    let mut host = serving(SHOP);
    with_snapshots(&mut host, &[1, 2]);

    let plan = rehearsed(&mut host, &[]).unwrap();

    let [one] = &todo(&plan.migrate).scratch[..] else { panic!("{:?}", plan.migrate) };
    assert!(one.snapshot.ends_with("main_20261122T040506007Z_7f3c9e1.dump.zst"), "{}", one.snapshot);
    let (server, migration) = (&one.server, &one.migration.spec);
    assert!(server.settings.stop.grace.is_zero(), "what it holds is thrown away");
    assert_eq!((server.role, server.isolated, server.networks.len()), (Role::OneOff, true, 0));
    // By whatever name the live server is found, it is this one here.
    let names = ["cutover-shop.local.postgres", "postgres"].map(str::to_owned);
    assert_eq!(one.names, names.into());
    assert_eq!(server.settings.extra_hosts, ["cutover-shop.local.postgres:127.0.0.1", "postgres:127.0.0.1"]);
    for spec in [migration, one.migration.pending.as_deref().unwrap()] {
        assert_eq!((spec.network_of.as_ref(), spec.networks.len()), (Some(&server.name), 0));
        assert!(spec.settings.labels.is_empty(), "nobody routes to it");
        assert!(spec.settings.cap_add.is_empty() && spec.settings.devices.is_empty());
        assert_eq!(spec.settings.security_opt, ["no-new-privileges:true"]);
        assert_eq!(
            spec.settings.logging.as_ref().unwrap().driver,
            "json-file",
            "and in no log of the live ones"
        );
        assert!(spec.settings.stop.grace.is_zero());
        assert_eq!(
            spec.settings.environment,
            host.state.releases[0].release.services.values().next().unwrap().settings.run.environment
        );
    }
    // Its own and empty; or of the host, read only, and then asked there what it is.
    let is_apart = |mount: &Mount| match mount {
        Mount::Volume { read_only, .. } => !read_only,
        Mount::Host { read_only, .. } => *read_only,
        Mount::Shipped { .. } | Mount::Tmpfs { .. } => false,
    };
    assert!(server.settings.mounts.iter().chain(&migration.settings.mounts).all(is_apart));
    assert_eq!((server.volumes.len(), migration.volumes.len()), (1, 1));
    assert!(server.volumes.values().chain(migration.volumes.values()).all(String::is_empty));
    // Its release goes with it.
    assert_eq!(plan.record.forget, [plan.release.as_ref().unwrap().id.clone()]);
    // What is live stays, and nothing else is done.
    assert_eq!(plan.becomes, host.state.live);
    assert!(
        ![plan.start.todo().is_some(), plan.handover.todo().is_some(), plan.switch.todo().is_some()]
            .contains(&true)
    );
}

#[test]
fn given_mariadb_or_mysql_then_its_migration_is_tried_as_one_of_postgres_is() {
    for engine in ["mariadb", "mysql"] {
        let mut host = serving(&SHOP.replace("engine: postgres", &format!("engine: {engine}")));
        with_snapshots(&mut host, &[1]);

        let plan = rehearsed(&mut host, &[]).unwrap();

        let [one] = &todo(&plan.migrate).scratch[..] else { panic!("{engine}: {:?}", plan.migrate) };
        assert!(one.server.isolated && one.migration.spec.networks.is_empty(), "{engine}");
    }
}

#[test]
fn given_no_snapshot_then_what_takes_one_is_named() {
    let mut host = serving(SHOP);
    host.state.snapshots = Some(Vec::new());

    let refused = rehearsed(&mut host, &[]).unwrap_err().failure();

    assert_eq!(refused.exit, Exit::Refused);
    insta::assert_snapshot!(told(&refused, &[]), @"
    error: there is no snapshot of `main` to rehearse on
      cause: a rehearsal is done on what the newest snapshot holds, and none on this host is whole and on record
      next: `cutover snapshot create` takes one now, while the database is used; then rehearse again
    ");
    with_snapshots(&mut host, &[1]);
    assert_eq!(rehearsed(&mut host, &["other"]).unwrap_err().failure().exit, Exit::Usage);
    for snapshot in host.state.snapshots.iter_mut().flatten() {
        snapshot.problem = Some("it is empty".to_owned());
    }
    assert!(rehearsed(&mut host, &["main"]).is_err(), "one that cannot be put back is none");
}

#[test]
fn given_what_cannot_be_had_a_second_time_then_it_is_refused_with_its_reason() {
    let why = |from: &str, to: &str| {
        let mut host = serving(&SHOP.replace(from, to));
        with_snapshots(&mut host, &[1]);
        let refused = rehearsed(&mut host, &[]).unwrap_err().failure();
        assert_eq!(refused.exit, Exit::Refused);
        refused.cause[0].clone()
    };
    assert!(
        why(
            "engine: postgres\n    service: postgres",
            "engine: postgres\n    url: postgres://db.example.com/shop"
        )
        .contains("no container of cutover's")
    );
    assert!(
        why(
            "engine: postgres\n    service: postgres\n    migrate: { service: web, command: ./migrate, compatible: expand, pending: ./pending }",
            "engine: sqlite\n    volume: uploads\n    file: main.db\n    services: [web]\n    migrate: { service: web, command: ./migrate }"
        )
        .contains("each deploy rehearses on a copy")
    );
    let mut host = serving(SHOP);
    with_snapshots(&mut host, &[1]);
    host.state.engine.as_mut().unwrap().name = "Podman".to_owned();
    let refused = rehearsed(&mut host, &[]).unwrap_err().failure();
    insta::assert_snapshot!(told(&refused, &[]), @"
    error: the migration of `main` cannot be rehearsed
      cause: the engine is Podman, in which a network without others gives nobody a name
      next: a rehearsal needs PostgreSQL, MariaDB or MySQL in a container that cutover runs with Docker (`backing:`), and a migration from an image
      next: `--database NAME` rehearses others alone
    ");
    let mut host = serving(SHOP);
    with_snapshots(&mut host, &[1]);
    host.stop("postgres");
    let refused = rehearsed(&mut host, &[]).unwrap_err().failure();
    assert!(refused.cause[0].contains("does not run"), "{refused:?}");
}

#[test]
fn given_a_snapshot_from_before_the_last_migration_then_the_plan_says_so() {
    let mut host = serving(SHOP);
    let second = host.deploy("v2").unwrap();
    host.carry_out(&second);
    let record = host.state.releases.last_mut().unwrap();
    let done = Migrated {
        database: "main".parse().unwrap(),
        compatible: Compatible::Expand,
        snapshot: None,
        schema: None,
        changed: None,
    };
    record.migrations.push(MigrationRecord { done, at: record.sequence, undone: None, again: false });
    let told = |host: &mut Host| rehearsed(host, &[]).unwrap().notes;

    with_snapshots(&mut host, &[1]);
    assert!(
        told(&mut host).iter().any(|note| note.contains("it was taken before release")),
        "{:?}",
        told(&mut host)
    );
    with_snapshots(&mut host, &[1, 2]);
    assert!(told(&mut host).is_empty());
}

#[test]
fn given_a_rehearsal_that_was_killed_then_it_is_taken_back_and_not_done_again() {
    let mut host = serving(SHOP);
    with_snapshots(&mut host, &[1]);
    let plan = rehearsed(&mut host, &[]).unwrap();
    let mut journal = Journal::of(&plan);
    let step = Step::Rehearse { database: "main".parse().unwrap() };
    journal.write(What::Intent { stage: Stage::Migrate, step });

    let way = host.way(&journal);

    assert_eq!(way.direction, Direction::Back);
    assert!(matches!(way.migrate, Planned::NotNeeded(_)));
    assert_eq!(way.record.forget, plan.record.forget);
    assert!(
        way.check.todo().is_none() && way.handover.todo().is_none(),
        "what is live is not asked how it is"
    );
    let Outcome::Failed { failure } = host.concluded(&journal).outcome else { panic!("it was killed") };
    assert!(failure.state.ends_with("is serving; nothing live was touched"), "{failure:?}");
}

#[test]
fn given_a_live_instance_that_has_gone_meanwhile_then_a_rehearsal_that_failed_neither_counts_it_nor_says_to_deploy()
 {
    let mut host = serving(SHOP);
    with_snapshots(&mut host, &[1]);
    let plan = rehearsed(&mut host, &[]).unwrap();
    host.state.instances.retain(|instance| instance.role != Role::Service);
    let mut failed = Journal::of(&plan);
    failed.failed(Stage::Migrate, Failure::new(Exit::Failed, "the snapshot did not come back"));
    let mut killed = Journal::of(&plan);
    let step = Step::Rehearse { database: "main".parse().unwrap() };
    killed.write(What::Intent { stage: Stage::Migrate, step });

    for journal in [failed, killed] {
        let Outcome::Failed { failure } = host.concluded(&journal).outcome else { panic!("{plan:?}") };

        assert_eq!(failure.exit, Exit::Failed, "{failure:?}");
        assert!(!failure.cause.iter().any(|cause| cause.contains("no longer there")), "{failure:?}");
        assert!(
            failure.next.iter().all(|next| next.contains("`cutover migrate rehearse` again")),
            "{failure:?}"
        );
        assert_eq!(failure.next.len(), 1);
    }
}

#[test]
fn given_a_rehearsal_that_failed_then_only_what_it_made_goes_and_at_once() {
    let mut host = serving(SHOP);
    with_snapshots(&mut host, &[1]);
    let plan = rehearsed(&mut host, &[]).unwrap();
    let mut once = host.state.instances[0].clone();
    (once.role, once.name, once.run) =
        (Role::OneOff, "once-web-1".parse().unwrap(), RunId::new(uuid::Uuid::nil()));
    let [one] = &todo(&plan.migrate).scratch[..] else { panic!("{:?}", plan.migrate) };
    let mut server = once.clone();
    (server.name, server.run) = (one.server.name.clone(), plan.run);
    host.state.instances.extend([once, server]);
    let mut journal = Journal::of(&plan);
    let failure = Failure::new(Exit::Migration, "the migration of `main` failed in its rehearsal");
    journal.failed(Stage::Migrate, failure);

    let way = host.way(&journal);

    let gone: Vec<_> = todo(&way.drain).outgoing.iter().map(|instance| &instance.name).collect();
    assert_eq!(gone, [&one.server.name]);
    assert!(todo(&way.drain).outgoing[0].stop.grace.is_zero(), "what it holds is thrown away");
}

#[test]
fn given_a_scratch_server_that_a_rehearsal_left_then_a_deploy_goes_back_without_it() {
    let mut host = serving(SHOP);
    let mut left = host.state.instances[0].clone();
    let run = RunId::new(uuid::Uuid::nil());
    (left.role, left.run) = (Role::OneOff, run);
    left.name = cutover_core::layout::scratch(&"main".parse().unwrap(), run).parse().unwrap();
    host.state.instances.push(left.clone());
    let plan = host.deploy("v2").unwrap();
    let mut journal = Journal::of(&plan);
    journal.failed(Stage::Check, unhealthy());

    let way = host.way(&journal);

    let first = way.handover.todo().into_iter().flat_map(|handover| &handover.outgoing);
    let mut gone = first.chain(&todo(&way.drain).outgoing);
    assert!(gone.all(|instance| instance.name != left.name), "{way:?}");
}

#[test]
fn given_a_value_that_only_a_deploy_makes_then_it_is_asked_for_only_by_a_migration_that_is_told_it() {
    let more = "  cache:\n    image: redis:7\n    environment: { CACHE_PASSWORD: }\n";
    let mut host = serving(SHOP);
    with_snapshots(&mut host, &[1]);
    host.text = format!("{SHOP}{more}");
    let plan = rehearsed(&mut host, &[]).unwrap();
    assert!(todo(&plan.preflight).required.is_empty());

    let told_it =
        SHOP.replace("postgres/shop\" }", "postgres/shop\", CACHE: \"redis://:${CACHE_PASSWORD}@cache\" }");
    host.text = format!("{told_it}{more}");
    let refused = rehearsed(&mut host, &[]).unwrap_err().failure();
    insta::assert_snapshot!(told(&refused, &[]), @"
    error: the migration of `main` cannot be rehearsed
      cause: it is told CACHE_PASSWORD, which has no value before a deploy makes one
      next: `cutover env set -e local CACHE_PASSWORD` gives it one; then rehearse again
    ");
}

//! Passwords of backing services' servers: which variable can be rotated, who is stopped for it, and what is told of one that was only set.

use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::hash::ContentHash;
use cutover_core::journal::{Step, What};
use cutover_core::names::ServiceName;
use cutover_core::plan::{HeldDatabase, HostPlan, PasswordChange, Planned, Stage, Verb, WhyNot};
use cutover_core::recover::{Recovery, is_out_of_the_way, standing_text};
use cutover_core::request::Request;
use cutover_core::verdict::{Outcome, Verdict};

use crate::world::{Host, Journal, ask, incoming, services, todo, told, unhealthy};

const SHOP: &str = r#"
app: shop
services:
  web:
    artifact: web
    command: ./web
    environment: { DATABASE: "postgres://app:${POSTGRES_PASSWORD}@postgres/shop", TOKEN: }
    port: 8000
    route: { host: shop.example.com }
  page: { artifact: page, command: ./page, port: 8001, route: { host: page.example.com } }
  worker:
    artifact: worker
    command: ./worker
    environment: { PASSWORD: "${POSTGRES_PASSWORD}" }
backing:
  postgres:
    artifact: postgres
    command: ./postgres
    environment: { POSTGRES_USER: app, POSTGRES_PASSWORD: }
    port: 5432
databases:
  main: { engine: postgres, service: postgres }
"#;

/// The same with more of it.
fn shop(more: &str) -> Host {
    let mut host = Host::new(&format!("{SHOP}{more}"));
    let names = ["POSTGRES_PASSWORD", "TOKEN", "OTHER_PASSWORD"];
    host.state.variables = Some(names.map(|name| (name.parse().unwrap(), ContentHash::of(b"old"))).into());
    let first = host.deploy("v1").unwrap();
    host.carry_out(&first);
    host
}

fn with(verb: Verb, name: &str, value: &[u8]) -> Request {
    Request { overlay: [(name.parse().unwrap(), ContentHash::of(value))].into(), ..ask(verb) }
}

fn rotate(name: &str) -> Request {
    with(Verb::SecretsRotate, name, b"new")
}

/// What a run leaves behind that rotated it: its release is live, and releases from before are told the same.
fn rotated(host: &mut Host, value: &[u8]) {
    let plan = host.plan(&with(Verb::SecretsRotate, "POSTGRES_PASSWORD", value)).unwrap();
    host.carry_out(&plan);
    let records = host.state.releases.iter_mut().map(|record| &mut record.release.variables);
    for variables in records.chain(&mut host.state.variables) {
        variables.insert("POSTGRES_PASSWORD".parse().unwrap(), ContentHash::of(value));
    }
}

fn change(plan: &HostPlan) -> &PasswordChange {
    match &todo(&plan.handover).databases[..] {
        [HeldDatabase::Password { change }] => change,
        other => panic!("{other:?}"),
    }
}

#[test]
fn whoever_is_told_the_password_is_stopped_while_it_is_changed_and_nobody_else() {
    let mut host = shop("");
    let plan = host.plan(&rotate("POSTGRES_PASSWORD")).unwrap();

    let handover = todo(&plan.handover);
    assert_eq!(handover.hold.iter().map(ServiceName::as_str).collect::<Vec<_>>(), ["web"]);
    assert_eq!(
        handover.outgoing.iter().map(|one| one.service.as_str()).collect::<Vec<_>>(),
        ["web", "worker"]
    );
    assert_eq!(services(&handover.incoming), ["web"], "what has no route follows the routes");
    assert_eq!(plan.start, Planned::NotNeeded(WhyNot::Unchanged));
    assert_eq!(plan.backing, Planned::NotNeeded(WhyNot::Present));
    let (live, becomes) = (plan.live.as_ref().unwrap(), plan.becomes.as_ref().unwrap());
    let change = change(&plan);
    assert_eq!((&change.from, &change.to), (&live.release, &becomes.release));
    assert_eq!(change.role.as_text(), Some("app"));
    assert_eq!(
        plan.notes,
        [
            "`page` is not told POSTGRES_PASSWORD, and is left alone: if it logs in as the same role by a value of its own, the server refuses it from now on"
        ]
    );
}

#[test]
fn given_a_gate_that_fails_then_the_password_from_before_is_given_back_before_the_old_ones_start() {
    let mut host = shop("");
    let plan = host.plan(&rotate("POSTGRES_PASSWORD")).unwrap();
    let mut journal = Journal::of(&plan);
    host.stop("web");
    host.stop("worker");
    journal.did(Stage::Handover, step());
    journal.failed(Stage::Handover, unhealthy());

    let back = host.way(&journal);

    assert_eq!(*change(&back), change(&plan).back());
    assert_eq!(services(&todo(&back.handover).incoming), ["web"]);
}

fn step() -> Step {
    Step::Password { service: "postgres".parse().unwrap(), variable: "POSTGRES_PASSWORD".parse().unwrap() }
}

/// A person was told of it.
fn given_up(host: &mut Host, journal: &mut Journal) -> Failure {
    for _ in 0..=cutover_core::defaults::RECOVERIES {
        let way = host.way(journal);
        journal.resumed(&way);
        journal.failed(Stage::Handover, unasked());
    }
    let Recovery::Person(failure) = host.recover(journal) else { panic!("it tries for ever") };
    let told = Outcome::Failed { failure: (*failure).clone() };
    let told = Verdict { outcome: told, ..host.concluded(journal) };
    journal.write(What::Verdict { verdict: Box::new(told) });
    *failure
}

fn unasked() -> Failure {
    Failure::new(Exit::Failed, "changing a password in the server of `postgres` failed")
        .because("the server does not answer")
}

#[test]
fn given_a_password_that_could_not_be_given_back_then_the_run_stays_in_the_way_and_is_tried_again() {
    let mut host = shop("");
    let plan = host.plan(&rotate("POSTGRES_PASSWORD")).unwrap();
    let mut journal = Journal::of(&plan);
    host.stop("web");
    host.stop("worker");
    journal.did(Stage::Handover, step());
    journal.failed(Stage::Handover, unhealthy());

    let failure = given_up(&mut host, &mut journal);

    assert!(!is_out_of_the_way(&journal.entries, &host.state));
    assert!(standing_text(&journal.entries, &host.state).contains("it is not known which password"));
    let (run, from) = (plan.run.to_string(), change(&plan).from.to_string());
    insta::assert_snapshot!(told(&failure, &[(&run, "RUN"), (&from, "OLD")]), @r"
    error: secrets rotate of shop/local could not be settled by itself
      cause: stage handover: release v2 was not put live: service `api` did not become healthy
      cause: on the way back: changing a password in the server of `postgres` failed
      cause: the server does not answer
      next: it is tried again by itself, and by the next run; or by hand: `cutover exec postgres -- psql -U app postgres`, and there `\password`, with the value that POSTGRES_PASSWORD has in the env file of release OLD
      next: where that server does not answer: end its process on the host, and it is started again (`cutover backing restart` waits for this run)
      next: `cutover status` shows what runs; `cutover attach` replays what was tried; then `cutover deploy` again
    ");
    assert!(
        failure.state.contains("it is not known which password the server of `postgres` has"),
        "{}",
        failure.state
    );
    let again = host.way(&journal);
    assert_eq!(*change(&again), change(&plan).back(), "each process that comes to settle tries once");
    journal.resumed(&again);
    journal.did(Stage::Handover, step());
    assert!(is_out_of_the_way(&journal.entries, &host.state), "the server has it again");
}

#[test]
fn given_a_new_password_that_earlier_releases_could_not_be_told_then_the_run_stays_in_the_way() {
    let mut host = shop("");
    let plan = host.plan(&rotate("POSTGRES_PASSWORD")).unwrap();
    let mut journal = Journal::of(&plan);
    journal.did(Stage::Handover, step());
    host.carry_out(&plan);
    journal.did(Stage::Switch, Step::Switch);
    journal.failed(Stage::Record, unasked());

    assert!(!is_out_of_the_way(&journal.entries, &host.state));
    let told = standing_text(&journal.entries, &host.state);
    assert!(told.contains("releases from before are not told it yet"), "{told}");
    let way = host.way(&journal);
    journal.resumed(&way);
    journal.did(Stage::Record, Step::Record);
    assert!(is_out_of_the_way(&journal.entries, &host.state));
}

#[test]
fn given_a_way_back_that_broke_off_at_the_password_then_nobody_is_told_that_the_server_has_the_new_one() {
    let mut host = shop("");
    let plan = host.plan(&rotate("POSTGRES_PASSWORD")).unwrap();
    let mut journal = Journal::of(&plan);
    journal.did(Stage::Handover, step());
    for gated in incoming(&plan) {
        host.run(&gated);
    }
    journal.did(Stage::Switch, Step::Switch);
    host.switch(&plan);
    journal.failed(Stage::Verify, unhealthy());
    let way = host.way(&journal);
    assert_eq!(*change(&way), change(&plan).back());

    journal.resumed(&way);
    journal.write(What::Intent { stage: Stage::Handover, step: step() });
    journal.failed(Stage::Handover, unasked());

    let told = standing_text(&journal.entries, &host.state);
    assert!(told.contains("it is not known which password"), "{told}");
    assert!(!is_out_of_the_way(&journal.entries, &host.state));
}

#[test]
fn given_a_run_that_did_not_come_to_the_password_then_the_way_back_leaves_it_alone() {
    let mut host = shop("");
    let plan = host.plan(&rotate("POSTGRES_PASSWORD")).unwrap();
    let mut journal = Journal::of(&plan);
    host.stop("web");
    journal.failed(Stage::Handover, unhealthy());

    assert!(todo(&host.way(&journal).handover).databases.is_empty());
}

#[test]
fn given_a_rotated_password_then_a_deploy_changes_nothing_and_a_rollback_passes_over_what_is_the_same() {
    let mut host = shop("");
    rotated(&mut host, b"new");
    let live = host.state.live.clone().unwrap();

    let again = host.deploy("v1").unwrap();
    assert_eq!(again.release.unwrap().id, live.release);
    assert_eq!(again.switch, Planned::NotNeeded(WhyNot::Unchanged));
    assert!(!again.notes.iter().any(|note| note.contains("backing service")), "{:?}", again.notes);
    let refused = host.plan(&ask(Verb::Rollback)).unwrap_err().failure();
    assert_eq!(refused.what, "there is no earlier release to go back to");

    // Twice works, and what is other than the live one is reached.
    let second = host.deploy("v2").unwrap();
    host.carry_out(&second);
    rotated(&mut host, b"newer");
    let back = host.plan(&ask(Verb::Rollback)).unwrap();
    assert_eq!(back.release.unwrap().id, live.release);
}

#[test]
fn given_a_password_that_is_only_set_then_it_is_told_that_the_server_does_not_have_it() {
    let mut host = shop("");
    let set = host.plan(&with(Verb::Environment, "POSTGRES_PASSWORD", b"new")).unwrap();
    assert_eq!(
        set.notes,
        [
            "POSTGRES_PASSWORD is another value than the server of backing service `postgres` has: its image reads it only where the volume is new, so \
         whoever logs in with this value is refused; put the present value back, then `cutover secrets rotate POSTGRES_PASSWORD` changes both"
        ]
    );

    let variables = host.state.variables.as_mut().unwrap();
    variables.insert("POSTGRES_PASSWORD".parse().unwrap(), ContentHash::of(b"new"));
    let deployed = host.deploy("v1").unwrap();
    assert!(deployed.notes.ends_with(&set.notes), "{:?}: none is to be made anew", deployed.notes);
    let other = host.plan(&with(Verb::Environment, "TOKEN", b"new")).unwrap();
    assert_eq!(other.notes, set.notes, "for as long as it is so");
}

/// What is said to whoever rotates it.
fn refusal(more: &str, name: &str) -> (Exit, String) {
    let failure = shop(more).plan(&rotate(name)).unwrap_err().failure();
    (failure.exit, told(&failure, &[]))
}

#[test]
fn a_password_that_the_backing_service_has_by_another_name_too_is_refused_with_that_name() {
    let own = "environment: { POSTGRES_USER: app, POSTGRES_PASSWORD: }";
    let with = |other: &str| {
        let mut host = Host::new(&SHOP.replace(own, &own.replace(" }", other)));
        let names = ["POSTGRES_PASSWORD", "TOKEN"];
        host.state.variables =
            Some(names.map(|name| (name.parse().unwrap(), ContentHash::of(b"old"))).into());
        let first = host.deploy("v1").unwrap();
        host.carry_out(&first);
        host.plan(&rotate("POSTGRES_PASSWORD"))
    };
    assert!(with(" }").is_ok());
    let refused = [
        with(
            ", CHECK_AS: \"${POSTGRES_PASSWORD}\" }\n    healthcheck: { test: [CMD, sh, -c, 'PGPASSWORD=$$CHECK_AS psql -h postgres'] }",
        ),
        with(
            " }\n    healthcheck: { test: [CMD, sh, -c, 'PGPASSWORD=$$POSTGRES_PASSWORD psql -h postgres'] }",
        ),
    ];
    let texts = refused.map(|refused| {
        let failure = refused.unwrap_err().failure();
        assert_eq!(failure.exit, Exit::Refused);
        told(&failure, &[])
    });
    insta::assert_snapshot!(texts.join("\n"), @r"
    error: backing service `postgres` is told POSTGRES_PASSWORD for something else as well
      cause: its variable CHECK_AS has it, too: the container is not made anew by this, and would go on with the password from before there
      next: take it out of CHECK_AS in cutover.yml (a health check needs none: `pg_isready`, `mariadb-admin ping`, `mysqladmin ping`), deploy, `cutover backing apply postgres`, then rotate
    error: the health check of backing service `postgres` logs in by POSTGRES_PASSWORD
      cause: the container goes on with the value that it was made with, and its check would fail from then on
      next: let it ask without a password (`pg_isready`, `mariadb-admin ping`, `mysqladmin ping`), deploy, `cutover backing apply postgres`, then rotate
    ");
}

#[test]
fn what_cannot_be_rotated_is_refused_with_the_way_by_hand() {
    let url = "  away: { engine: postgres, url: \"postgres://app:${OTHER_PASSWORD}@db.example.com/shop\" }\n";
    let redis = SHOP.replace(
        "backing:\n",
        "backing:\n  redis: { artifact: redis, command: ./redis, environment: { REDIS_PASSWORD: \"${OTHER_PASSWORD}\" } }\n",
    );
    let refused = [
        refusal("", "TOKEN"),
        refusal(url, "OTHER_PASSWORD"),
        {
            let mut host = shop("");
            host.text = redis;
            let plan = host.deploy("v1").unwrap();
            host.carry_out(&plan);
            let failure = host.plan(&rotate("OTHER_PASSWORD")).unwrap_err().failure();
            (failure.exit, told(&failure, &[]))
        },
        {
            let mut host = shop("");
            host.stop("postgres");
            let failure = host.plan(&rotate("POSTGRES_PASSWORD")).unwrap_err().failure();
            (failure.exit, told(&failure, &[]))
        },
        {
            let mut host = shop("");
            let failure =
                host.plan(&with(Verb::SecretsRotate, "POSTGRES_PASSWORD", b"old")).unwrap_err().failure();
            (failure.exit, told(&failure, &[]))
        },
    ];
    let exits: Vec<Exit> = refused.iter().map(|(exit, _)| *exit).collect();
    assert_eq!(exits, [Exit::Usage, Exit::Refused, Exit::Refused, Exit::Refused, Exit::Usage]);
    let texts: Vec<String> = refused.into_iter().map(|(_, text)| text).collect();
    insta::assert_snapshot!(texts.join("\n"), @r"
    error: TOKEN is no password of a backing service's database
      cause: no image of a backing service is told it as POSTGRES_PASSWORD, MARIADB_PASSWORD, MYSQL_PASSWORD or the like
      next: `cutover env set TOKEN` changes any other variable
    error: the password of database `away` is not changed by cutover
      cause: it is reached by `url`: its server, and who may log in there, are not of this app
      next: make a second role in it with the same rights and another password, `cutover env set OTHER_PASSWORD` to that, and drop the first role once the release is live
    error: OTHER_PASSWORD is not changed in backing service `redis` by cutover
      cause: it is told it, and not as a password of PostgreSQL, MariaDB or MySQL which cutover knows how to change
      next: by hand: `cutover env set OTHER_PASSWORD`, then `cutover backing apply redis`; who uses it is refused in between
    error: backing service `postgres` does not run
      cause: its server is what changes the password
      next: `cutover backing restart postgres` starts it
    error: POSTGRES_PASSWORD has that value already
      next: give another one, or none: then one is made
    ");
}

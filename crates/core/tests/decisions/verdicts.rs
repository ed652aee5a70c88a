//! The verdict that recovery makes of a run that has come to its end.

use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::journal::{Step, What};
use cutover_core::plan::{Stage, Verb};
use cutover_core::recover::{leaving, told_done};
use cutover_core::verdict::Outcome;

use crate::world::{Host, Journal, WEB, ask, todo, unhealthy};

const WEB_AND_BOT: &str = r"
app: shop
services:
  web:
    artifact: web
    command: ./web
    port: 8000
    route: { host: shop.example.com }
    health: { path: /health }
  bot:
    artifact: bot
    command: ./bot
    ready: { log: polling }
";

/// What failed, if it did.
fn failure(outcome: &Outcome) -> Option<&Failure> {
    if let Outcome::Failed { failure } = outcome { Some(failure) } else { None }
}

#[test]
fn given_a_switch_that_was_taken_back_then_the_verdict_tells_no_time_of_it() {
    let mut host = Host::serving(WEB);
    let (_, mut journal) = host.switched_to("v2");
    assert!(host.concluded(&journal).switched_ms.is_some());
    journal.failed(Stage::Bake, unhealthy());
    let back = host.way(&journal);
    journal.resumed(&back);
    host.switch(&back);

    assert_eq!(host.concluded(&journal).switched_ms, None);
}

#[test]
fn given_a_run_that_changes_nothing_then_it_is_done() {
    // As `env set X=<the same>`, or a deploy that only starts a backing service that was missing.
    let mut host = Host::serving(WEB);
    let plan = host.plan(&ask(Verb::Environment)).unwrap();
    assert!(plan.switch.todo().is_none());
    let mut journal = Journal::of(&plan);
    journal.left(Stage::Record);

    assert_eq!(host.verdict(&journal).outcome, Outcome::Done);
}

#[test]
fn given_a_run_that_switches_nothing_and_fails_then_it_ends_with_its_failure() {
    let mut host = Host::serving(WEB);
    let plan = host.plan(&ask(Verb::Environment)).unwrap();
    let mut journal = Journal::of(&plan);
    journal.failed(Stage::Backing, unhealthy());
    let back = host.way(&journal);
    journal.resumed(&back);
    journal.left(Stage::Record);

    assert_eq!(host.verdict(&journal).exit(), Exit::NotHealthy);
}

#[test]
fn given_a_failed_preflight_then_nothing_is_taken_back() {
    // A way back would need the proxy, which may be what the preflight missed.
    let mut host = Host::serving(WEB);
    let plan = host.deploy("v2").unwrap();
    let mut journal = Journal::of(&plan);
    journal.failed(Stage::Preflight, Failure::new(Exit::Refused, "the proxy does not answer"));

    assert_eq!(host.verdict(&journal).exit(), Exit::Refused);
    assert!(leaving(&journal.entries).is_empty(), "what would have been replaced is live");
}

#[test]
fn given_a_run_that_told_that_it_is_done_then_it_is_not_judged_again_and_what_was_replaced_goes() {
    let mut host = Host::serving(WEB);
    let (plan, mut journal) = host.switched_to("v2");
    assert!(leaving(&journal.entries).is_empty(), "nothing has ended yet");
    journal.left(Stage::Record);
    assert!(told_done(&journal.entries).is_none());

    let verdict = host.concluded(&journal);
    journal.write(What::Verdict { verdict: Box::new(verdict.clone()) });

    assert_eq!(told_done(&journal.entries), Some(&verdict));
    assert_eq!(leaving(&journal.entries), todo(&plan.drain).outgoing);
    let back = host.deploy("v3").unwrap();
    journal.resumed(&back);
    assert!(told_done(&journal.entries).is_none(), "something was done after it");
}

#[test]
fn given_a_failure_in_the_drain_that_recovery_completes_then_it_is_done_with_a_warning() {
    let mut host = Host::serving(WEB);
    let (_, mut journal) = host.switched_to("v2");
    let failure = Failure::new(Exit::Failed, "stage drain: stopping web did not work").because("engine away");
    journal.failed(Stage::Drain, failure);
    let onward = host.way(&journal);
    journal.resumed(&onward);
    host.carry_out(&onward);
    journal.left(Stage::Record);

    let verdict = host.verdict(&journal);

    assert_eq!(verdict.outcome, Outcome::Done);
    assert!(verdict.warnings.iter().any(|text| text.contains("stopping web")), "{:?}", verdict.warnings);
}

#[test]
fn given_a_bot_that_a_way_on_could_not_start_at_first_then_it_is_done_with_a_warning() {
    // What was replaced was being drained already when the run died: there was only a way on.
    let mut host = Host::serving(WEB_AND_BOT);
    let plan = host.deploy("v2").unwrap();
    let mut journal = Journal::of(&plan);
    journal.did(Stage::Switch, Step::Switch);
    host.carry_out(&plan);
    journal.left(Stage::Bake);
    journal.did(Stage::Drain, Step::Stop { instance: "web-blue-1-00000000".parse().unwrap() });
    let onward = host.way(&journal);
    journal.resumed(&onward);
    journal.failed(Stage::Verify, Failure::new(Exit::NotHealthy, "service `bot` could not be started"));
    let again = host.way(&journal);
    journal.resumed(&again);
    journal.left(Stage::Verify);
    journal.left(Stage::Record);

    let verdict = host.verdict(&journal);

    assert_eq!(verdict.outcome, Outcome::Done);
    assert!(verdict.warnings.iter().any(|text| text.contains("`bot`")), "{:?}", verdict.warnings);
}

#[test]
fn given_what_was_live_is_gone_then_the_new_goes_on_and_the_cause_does_not_speak_of_a_database() {
    let mut host = Host::serving(WEB);
    let (plan, mut journal) = host.switched_to("v2");
    let old = plan.live.clone().unwrap();
    host.state.instances.retain(|found| !old.has(&found.name));
    journal.failed(Stage::Verify, unhealthy());
    let onward = host.way(&journal);
    journal.resumed(&onward);
    journal.left(Stage::Record);

    let verdict = host.verdict(&journal);

    let failure = failure(&verdict.outcome).unwrap();
    assert_eq!(failure.exit, Exit::Person);
    assert!(!failure.cause.iter().any(|cause| cause.contains("database")), "{:?}", failure.cause);
}

#[test]
fn given_that_what_served_before_is_not_there_any_more_then_the_way_back_ends_with_a_person() {
    // S14: exit 4 says that what served before serves.
    let mut host = Host::serving(WEB);
    let plan = host.deploy("v2").unwrap();
    let mut journal = Journal::of(&plan);
    journal.failed(Stage::Check, unhealthy());
    host.state.instances.clear();
    let back = host.way(&journal);
    journal.resumed(&back);
    journal.left(Stage::Record);

    let verdict = host.verdict(&journal);

    assert_eq!(verdict.exit(), Exit::Person, "{verdict:?}");
}

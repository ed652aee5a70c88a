//! Verbs that speak with a host, from the plan to the exit code.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::journal::{Step, What};
use cutover_core::plan::Stage;
use cutover_core::verdict::Outcome;
use cutover_core::wire::{Lacking, Reply};

use crate::bench::{APP, Bench, Then, did, event, state, up, verdict};

fn nothing_lacks() -> Lacking {
    Lacking { found: [].into(), layers: [].into(), artifacts: [].into() }
}

fn deploying() -> Vec<Reply> {
    let step = Step::Start { instance: "web-blue-1-deadbeef".parse().unwrap() };
    vec![
        state(),
        up(),
        Reply::Lacking { lacking: nothing_lacks() },
        event(1, What::Entered { stage: Stage::Start }),
        event(2, What::Intent { stage: Stage::Start, step }),
        event(3, What::Left { stage: Stage::Start, took_ms: 61 }),
    ]
}

fn deploy_ending(outcome: Outcome) -> Bench {
    let bench = Bench::with_app(APP);
    let mut replies = deploying();
    replies.push(verdict(outcome));
    bench.session(&replies, Then::Listens);
    bench
}

fn broken() -> Outcome {
    Outcome::Failed {
        failure: Failure::new(Exit::NotHealthy, "release 7f3c9e1 was not put live")
            .because("GET /health answered 500")
            .while_serving("nothing was serving; nothing is")
            .next("see `cutover logs web`"),
    }
}

#[test]
fn a_deploy_talks_on_standard_error_and_exits_with_its_verdict() {
    let did = deploy_ending(Outcome::Done).run("deploy");
    assert_eq!((did.exit, did.data.as_str()), (0, ""), "{}", did.talk);
    let talk: Vec<&str> = did.talk.lines().skip_while(|line| !line.starts_with("  start      …")).collect();
    insta::assert_snapshot!(talk.join("\n"), @r"
          start      …
          start      start web-blue-1-deadbeef
          start      done in 61 ms
        done: release 7f3c9e1 of shop/local is live (1.5 s in all, switched after 420 ms)
        ");
}

#[test]
fn a_deploy_that_failed_gives_the_four_answers_and_its_code() {
    let did = deploy_ending(broken()).run("deploy");
    assert_eq!(did.exit, 4);
    assert!(did.talk.ends_with("  next:  see `cutover logs web`\n"), "{}", did.talk);
}

#[test]
fn json_lines_are_the_plan_the_events_and_the_verdict() {
    let did = deploy_ending(broken()).run("deploy --json");
    let kinds: Vec<String> = did
        .data
        .lines()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["kind"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(kinds, ["plan", "event", "event", "event", "verdict", "failure"]);
    assert_eq!(did.exit, 4);
}

#[test]
fn a_session_that_dies_leaves_the_outcome_unknown() {
    let bench = Bench::with_app(APP);
    bench.session(&deploying(), Then::Ends);
    let did = bench.run("deploy");
    assert_eq!(did.exit, 6, "{}", did.talk);
    assert!(did.talk.contains("`cutover attach` follows it again"), "{}", did.talk);
}

#[test]
fn an_interrupt_lets_go_of_the_run_and_says_how_to_attach() {
    let bench = Bench::with_app(APP);
    bench.session(&deploying(), Then::Listens);
    let mut command = bench.command("deploy");
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut talk = BufReader::new(child.stderr.take().unwrap());
    let mut heard = String::new();
    // The run is followed once its last line was told.
    while !heard.contains("done in 61 ms") {
        assert_ne!(talk.read_line(&mut heard).unwrap(), 0, "{heard}");
    }
    let process = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(process, rustix::process::Signal::INT).unwrap();
    let mut rest = String::new();
    while talk.read_line(&mut rest).unwrap() > 0 {}
    assert_eq!(child.wait().unwrap().code(), Some(6));
    insta::assert_snapshot!(rest, @r"
        error: run 018f3c9e-0000-7000-8000-0000deadbeef is no longer followed from here
          cause: Ctrl-C
          state: the run goes on by itself on the host
          next:  `cutover attach` follows it again; `cutover cancel` ends it
        ");
}

#[test]
fn a_plan_is_data_and_touches_nothing() {
    let bench = Bench::with_app(APP);
    bench.session(&[state()], Then::Listens);
    let did = bench.run("plan");
    assert_eq!((did.exit, did.talk.as_str()), (0, ""));
    assert!(did.data.starts_with("deploy of shop/local: release "), "{}", did.data);
    let asked = bench.asked(1);
    assert!(!asked.contains("\"ask\":\"up\"") && !asked.contains("\"ask\":\"run\""), "{asked}");
}

#[test]
fn a_value_from_the_env_file_reaches_the_host_and_is_shown_nowhere() {
    let bench = Bench::with_app(&format!("{APP}environment:\n  TOKEN:\n"));
    bench.write(".env", "TOKEN=hunter2-secret\n", 0o600);
    let mut replies = deploying();
    replies.push(verdict(Outcome::Done));
    bench.session(&replies, Then::Listens);
    for words in ["deploy", "deploy --json"] {
        let did = bench.run(words);
        assert_eq!(did.exit, 0, "{}", did.talk);
        assert!(!did.talk.contains("hunter2") && !did.data.contains("hunter2"), "{}{}", did.talk, did.data);
    }
    let asked = bench.asked(2);
    assert_eq!(asked.matches("hunter2-secret").count(), 2, "once in each run's env bytes");
    let plans = asked.lines().filter(|line| line.contains("\"ask\":\"run\"")).collect::<Vec<_>>();
    assert!(plans.len() == 2 && plans.iter().all(|plan| !plan.contains("hunter2")));
}

#[test]
fn what_destroys_needs_an_approval_and_without_a_terminal_that_is_yes() {
    let bench = Bench::with_app(APP);
    bench.session(&[state()], Then::Listens);
    let did = bench.run("env unset TOKEN");
    assert_eq!(did.exit, 2);
    insta::assert_snapshot!(did.talk, @r"
        error: this needs an approval, and there is no terminal to ask on
          cause: this takes TOKEN out of the host's env file of shop/local
          state: nothing was touched
          next:  give the answer on the command line: `--yes`
        ");
}

#[test]
fn a_secret_is_read_from_standard_input_and_not_from_the_command_line() {
    let bench = Bench::with_app(&format!("{APP}environment:\n  TOKEN:\n"));
    bench.session(&[state(), Reply::Done], Then::Listens);
    assert_eq!(bench.run("env set TOKEN=hunter2-secret").exit, 2);
    let did = bench.run_with_input("env set TOKEN", "hunter2-secret\n");
    assert_eq!(did.exit, 0, "{}", did.talk);
    assert!(!did.talk.contains("hunter2") && !did.data.contains("hunter2"));
    let asked = bench.asked(1);
    assert!(asked.contains("TOKEN=\"hunter2-secret\""), "{asked}");
}

#[test]
fn status_tells_health_by_its_exit_code_when_asked_to() {
    let bench = Bench::with_app(APP);
    let health = Reply::Health { services: std::collections::BTreeMap::new() };
    let facts = Reply::Facts { facts: Box::default() };
    let backups = Reply::Backups { state: Box::default() };
    bench.session(&[state(), health, facts, backups], Then::Listens);
    assert_eq!(bench.run("status").exit, 0);
    assert_eq!(bench.run("status --check").exit, 4);
    let did = bench.run("status --json");
    let line: serde_json::Value = serde_json::from_str(&did.data).unwrap();
    assert_eq!((line["kind"].as_str(), line["healthy"].as_bool()), (Some("status"), Some(false)));
}

#[test]
fn a_reader_that_leaves_ends_the_logs_quietly() {
    let bench = Bench::with_app(APP);
    let line = Reply::Line {
        instance: "web-blue-1-deadbeef".parse().unwrap(),
        at: None,
        error: false,
        text: "x".repeat(1000),
    };
    bench.session(&vec![line; 500], Then::Listens);
    let mut child = bench.command("logs").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let did = did(child.wait_with_output().unwrap());
    assert_eq!((did.exit, did.talk.as_str()), (0, ""));
}

#[test]
fn a_command_gives_its_output_and_its_exit_code() {
    let bench = Bench::with_app(APP);
    bench.session(&[Reply::Exit { code: 3 }], Then::Listens);
    let did = bench.run("exec --once web ls -la");
    assert_eq!((did.exit, did.data.as_str(), did.talk.as_str()), (3, "", ""));
    assert!(bench.asked(1).contains(r#""command":["ls","-la"],"once":true"#));
}

#[test]
fn a_deploy_that_waits_plans_once_the_lock_is_free() {
    let bench = Bench::with_app(APP);
    let holder = cutover_core::journal::LockHolder {
        app: "shop/local".parse().unwrap(),
        run: "018f3c9e-0000-7000-8000-0000deadbeef".parse().unwrap(),
        by: "bob@ci".to_owned(),
        verb: cutover_core::plan::Verb::Restart,
        since: "2026-11-21T13:59:00Z".parse().unwrap(),
        pid: 7,
    };
    let mut replies = vec![Reply::Lock { holder: Some(holder) }, Reply::Lock { holder: None }];
    replies.extend(deploying());
    replies.push(verdict(Outcome::Done));
    bench.session(&replies, Then::Listens);
    let did = bench.run("deploy --wait");
    assert_eq!(did.exit, 0, "{}", did.talk);
    assert!(did.talk.starts_with("waiting for restart of shop/local by bob@ci\n"), "{}", did.talk);
}

use cutover_core::plan::Verb;
use cutover_core::state::ExitStatus;

use super::super::samples;
use super::*;

fn running(name: &str, healthy: Option<bool>) -> InstanceHealth {
    InstanceHealth {
        name: name.parse().unwrap(),
        state: InstanceState::Running { since: "2026-11-21T13:57:55Z".parse().unwrap(), restarts: 0 },
        healthy,
        crash_loop: false,
        finding: None,
    }
}

fn service(instances: Vec<InstanceHealth>) -> ServiceHealth {
    ServiceHealth { instances, stopped: false, wanted: 1 }
}

fn machine() -> HostLine {
    HostLine {
        name: "deploy@shop.example.com".to_owned(),
        system: "Debian GNU/Linux 12 (bookworm)".to_owned(),
        version: "0.1.0".to_owned(),
        platform: "x86_64-linux".to_owned(),
        ahead_ms: -90_000,
        engine: Some("Docker 26.1.5".to_owned()),
        disk_free: 12 << 30,
        disk_size: 40 << 30,
    }
}

fn live() -> HostState {
    let host = samples::host();
    let plan = samples::plan(&host, &samples::deploy("web 1"));
    samples::after(&host, &plan)
}

#[test]
fn an_empty_host_says_the_next_step() {
    let status = Status::new(&samples::host(), machine(), BTreeMap::new(), BackupState::default());
    insta::assert_snapshot!(
        paint::plain(&super::status(&status)),
        @r"
    shop/local: nothing is live; `cutover deploy` puts a release live
    host deploy@shop.example.com: cutover-host 0.1.0, x86_64-linux, Debian GNU/Linux 12 (bookworm), Docker 26.1.5, 12.0 GiB of 40.0 GiB free, its clock is 1 min 30 s behind ours
    "
    );
    assert!(!is_healthy(&status));
}

#[test]
fn what_is_not_healthy_says_why() {
    let exit = ExitStatus { code: Some(1), signal: None, out_of_memory: false, error: None, at: None };
    let crashed = InstanceHealth {
        state: InstanceState::Restarting { exit, restarts: 6 },
        crash_loop: true,
        ..running("bot-blue-1-deadbeef", None)
    };
    let failing = InstanceHealth {
        finding: Some(Finding::Status { status: 500, body: String::new() }),
        ..running("web-blue-1-deadbeef", Some(false))
    };
    let services = BTreeMap::from([
        ("bot".parse().unwrap(), service(vec![crashed])),
        ("web".parse().unwrap(), service(vec![failing])),
    ]);
    let status = Status::new(&live(), machine(), services, BackupState::default());
    assert!(!is_healthy(&status));
    insta::assert_snapshot!(paint::plain(&super::status(&status)), @r#"
        shop/local: release 7f3c9e1 is live (blue, commit 7f3c9e1 "Greet people by name")
          bot          not healthy, 0 of 1
            bot-blue-1-deadbeef: restarting (6 times so far): exited with code 1; it ends again and again
          web          not healthy, 0 of 1
            web-blue-1-deadbeef: up for 2 min 5 s; its probe fails: it answered 500
        host deploy@shop.example.com: cutover-host 0.1.0, x86_64-linux, Debian GNU/Linux 12 (bookworm), Docker 26.1.5, 12.0 GiB of 40.0 GiB free, its clock is 1 min 30 s behind ours
        "#);
}

#[test]
fn a_stopped_worker_does_not_make_an_app_unhealthy() {
    let stopped = ServiceHealth { instances: Vec::new(), stopped: true, wanted: 1 };
    let services = BTreeMap::from([
        ("bot".parse().unwrap(), stopped),
        ("web".parse().unwrap(), service(vec![running("web-blue-1-deadbeef", Some(true))])),
    ]);
    let status = Status::new(&live(), machine(), services, BackupState::default());
    assert!(is_healthy(&status));
    insta::assert_snapshot!(paint::plain(&super::status(&status)), @r#"
        shop/local: release 7f3c9e1 is live (blue, commit 7f3c9e1 "Greet people by name")
          bot          stopped (until `cutover start` or the next deploy)
          web          healthy, 1 of 1
            web-blue-1-deadbeef: up for 2 min 5 s
        host deploy@shop.example.com: cutover-host 0.1.0, x86_64-linux, Debian GNU/Linux 12 (bookworm), Docker 26.1.5, 12.0 GiB of 40.0 GiB free, its clock is 1 min 30 s behind ours
        "#);
}

#[test]
fn an_app_that_was_stopped_is_not_healthy() {
    let stopped = || ServiceHealth { instances: Vec::new(), stopped: true, wanted: 1 };
    let all = |bot| BTreeMap::from([("bot".parse().unwrap(), bot), ("web".parse().unwrap(), stopped())]);
    let status = Status::new(&live(), machine(), all(stopped()), BackupState::default());
    assert!(!is_healthy(&status));
    let runs = service(vec![running("bot-blue-1-deadbeef", None)]);
    let mut status = Status::new(&live(), machine(), all(runs), BackupState::default());
    assert!(is_healthy(&status));
    status.proxy = true;
    status.routes.push(RouteLine {
        service: "web".to_owned(),
        url: "http://shop.localhost/".to_owned(),
        state: CLOSED,
        release: None,
        slot: None,
        instances: Vec::new(),
    });
    assert!(!is_healthy(&status));
}

#[test]
fn a_run_that_found_the_lock_taken_is_not_the_last_run() {
    let verdict = |verb, outcome| Verdict {
        run: "018f3c9e-0000-7000-8000-000000000001".parse().unwrap(),
        app: "shop/local".parse().unwrap(),
        verb,
        release: None,
        serving: None,
        outcome,
        allowed: Vec::new(),
        by: "ada@laptop".to_owned(),
        started: "2026-11-21T14:00:00Z".parse().unwrap(),
        finished: "2026-11-21T14:00:01Z".parse().unwrap(),
        switched_ms: None,
        freed: None,
        warnings: Vec::new(),
    };
    let failure = cutover_core::failure::Failure::new(Exit::Locked, "another run works on shop/local");
    let verdicts =
        vec![verdict(Verb::Rollback, Outcome::Failed { failure }), verdict(Verb::Deploy, Outcome::Done)];
    let status =
        Status::new(&HostState { verdicts, ..live() }, machine(), BTreeMap::new(), BackupState::default());
    assert_eq!(status.last.map(|last| last.verb), Some(Verb::Deploy));
}

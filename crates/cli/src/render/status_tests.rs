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
fn stopped_services_do_not_make_an_app_unhealthy() {
    let stopped = ServiceHealth { instances: Vec::new(), stopped: true, wanted: 1 };
    let services = BTreeMap::from([
        ("bot".parse().unwrap(), stopped),
        ("web".parse().unwrap(), service(vec![running("web-blue-1-deadbeef", Some(true))])),
    ]);
    let status = Status::new(&live(), machine(), services, BackupState::default());
    assert!(is_healthy(&status));
    insta::assert_snapshot!(paint::plain(&super::status(&status)), @r#"
        shop/local: release 7f3c9e1 is live (blue, commit 7f3c9e1 "Greet people by name")
          bot          stopped (until `cutover start`)
          web          healthy, 1 of 1
            web-blue-1-deadbeef: up for 2 min 5 s
        host deploy@shop.example.com: cutover-host 0.1.0, x86_64-linux, Debian GNU/Linux 12 (bookworm), Docker 26.1.5, 12.0 GiB of 40.0 GiB free, its clock is 1 min 30 s behind ours
        "#);
}

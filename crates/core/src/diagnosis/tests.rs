use std::collections::BTreeMap;

use super::*;

fn http(path: &str) -> Check {
    Check::Http {
        path: path.into(),
        port: None,
        host: Some("shop.test".into()),
        scheme: "https".into(),
        status: (200, 299),
        json: BTreeMap::new(),
        inside: false,
    }
}

fn running() -> Facts {
    Facts {
        service: "web".parse().unwrap(),
        release: "7f3c9e1".parse().unwrap(),
        runtime: RuntimeKind::Container,
        state: Some(InstanceState::Running { since: "2026-11-21T14:00:00Z".parse().unwrap(), restarts: 0 }),
        listening: Some(vec!["0.0.0.0:8080".parse().unwrap()]),
        port: Some(8080),
        check: Some(http("/health")),
        last: None,
        tries: 12,
        elapsed: Duration::from_secs(30),
        log: Vec::new(),
    }
}

fn exited(code: Option<i32>, signal: Option<i32>) -> Facts {
    let exit = ExitStatus { code, signal, out_of_memory: false, error: None, at: None };
    Facts { state: Some(InstanceState::Exited { exit }), elapsed: Duration::from_millis(300), ..running() }
}

#[expect(clippy::unnecessary_wraps, reason = "it fills a field that is optional")]
fn listening(addresses: &[&str]) -> Option<Vec<SocketAddr>> {
    Some(addresses.iter().map(|address| address.parse().unwrap()).collect())
}

fn text(facts: &Facts) -> String {
    let found = diagnose(facts);
    let (causes, next) = (found.cause.iter(), found.next.iter());
    causes.map(|line| format!("cause: {line}\n")).chain(next.map(|line| format!("next: {line}\n"))).collect()
}

#[test]
fn a_status_is_told_with_its_body_and_count() {
    let facts = Facts {
        last: Some(Finding::Status { status: 500, body: "\nno such table: entries\nat …".into() }),
        ..running()
    };

    assert_eq!(
        text(&facts),
        "cause: GET /health answered 500 (12 tries in 30s): no such table: entries\nnext: `/health` fails in the app itself: mend what its log says\nnext: see `cutover logs web --release 7f3c9e1`\n"
    );
}

#[test]
fn loopback_only_is_the_first_cause_for_a_container_and_none_for_a_process() {
    let facts =
        Facts { last: Some(Finding::Refused), listening: listening(&["127.0.0.1:8080"]), ..running() };

    let told = text(&facts);
    assert!(
        told.starts_with("cause: it listens on 127.0.0.1:8080 only, where the proxy cannot reach it\n"),
        "{told}"
    );
    assert!(told.contains("next: the app listens on 127.0.0.1: make it listen on 0.0.0.0\n"), "{told}");

    let process = Facts { runtime: RuntimeKind::Process, ..facts };
    assert!(!text(&process).contains("listens on"), "{}", text(&process));
}

#[test]
fn an_app_that_is_probed_from_within_may_listen_on_loopback_only() {
    let facts = Facts {
        last: Some(Finding::NoAnswer),
        check: Some(Check::Tcp { port: None, inside: true }),
        listening: listening(&["127.0.0.1:8080"]),
        ..running()
    };

    assert!(
        text(&facts).contains("got no answer in time, though something listens there"),
        "{}",
        text(&facts)
    );
}

#[test]
fn a_process_on_the_other_loopback_is_told() {
    let facts = Facts {
        runtime: RuntimeKind::Process,
        last: Some(Finding::Refused),
        listening: listening(&["[::1]:8080"]),
        ..running()
    };

    assert!(text(&facts).contains("next: the app listens on ::1: make it listen on 127.0.0.1\n"));
}

#[test]
fn another_port_is_named() {
    let facts = Facts { last: Some(Finding::Refused), listening: listening(&["0.0.0.0:3000"]), ..running() };

    let told = text(&facts);
    assert!(told.starts_with("cause: it listens on 0.0.0.0:3000, not on port 8080\n"), "{told}");
    assert!(told.contains("set `port: 3000`"), "{told}");
}

#[test]
fn nothing_listening_is_told_apart_from_not_answering() {
    let silent = Facts { last: Some(Finding::Refused), listening: listening(&[]), ..running() };
    let hanging = Facts { last: Some(Finding::NoAnswer), ..running() };

    assert!(text(&silent).contains("nothing in it listens on any port (expected: 8080)"));
    let told = text(&hanging);
    assert!(
        told.starts_with(
            "cause: GET /health got no answer in time, though something listens there (12 tries in 30s)\n"
        ),
        "{told}"
    );
}

#[test]
fn a_refused_host_header_is_the_first_cause() {
    let facts = Facts {
        last: Some(Finding::Status { status: 400, body: "Invalid host header".into() }),
        ..running()
    };

    let told = text(&facts);
    assert!(told.starts_with("cause: it refuses the Host header `shop.test`\n"), "{told}");
    assert!(told.contains("ALLOWED_HOSTS"), "{told}");
}

#[test]
fn a_missing_path_and_a_redirect_have_their_remedies() {
    let with = |status| Facts { last: Some(Finding::Status { status, body: String::new() }), ..running() };

    assert!(text(&with(404)).contains("there is no `/health` in the app"));
    assert!(text(&with(301)).contains("`/health` redirects"));
    assert!(text(&with(401)).contains("wants credentials"));
}

#[test]
fn an_exit_is_told_with_its_code_and_the_missing_variable_first() {
    let facts = Facts { log: vec!["KeyError: 'SECRET_KEY'".into()], ..exited(Some(1), None) };

    assert_eq!(
        text(&facts),
        "cause: the variable SECRET_KEY is missing (its log: `KeyError: 'SECRET_KEY'`)\n\
         cause: it exited with code 1 0.3s after its start\n\
         next: name it under `environment:` in cutover.yml; a secret without a value there (`SECRET_KEY:`), then `cutover env set SECRET_KEY`\n\
         next: see `cutover logs web --release 7f3c9e1`\n"
    );
    assert_eq!(diagnose(&facts).log, ["KeyError: 'SECRET_KEY'"]);
}

#[test]
fn memory_signals_and_odd_exits_are_told() {
    let mut memory = exited(None, Some(9));
    if let Some(InstanceState::Exited { exit }) = &mut memory.state {
        exit.out_of_memory = true;
    }
    assert!(
        text(&memory)
            .starts_with("cause: it was ended by the kernel for want of memory 0.3s after its start\n")
    );
    assert!(text(&exited(None, Some(11))).contains("ended by signal 11"));
    assert!(text(&exited(Some(0), None)).contains("it ended without an error"));
    assert!(text(&exited(Some(127), None)).contains("was not found"));
    assert!(text(&exited(Some(137), None)).contains("somebody killed it"));
    assert!(text(&exited(Some(139), None)).contains("it crashed"));
}

#[test]
fn what_could_not_be_started_says_why() {
    let with = |error: &str| {
        let exit = ExitStatus {
            code: None,
            signal: None,
            out_of_memory: false,
            error: Some(error.into()),
            at: None,
        };
        text(&Facts { state: Some(InstanceState::Exited { exit }), ..running() })
    };

    assert!(with("exec /app/server: Exec format error (os error 8)").contains("this host's processor"));
    assert!(with("/app/server: Permission denied (os error 13)").contains("chmod +x"));
    assert!(with("exec: \"gunicorn\": executable file not found in $PATH").contains("check `command`"));
}

#[test]
fn a_check_whose_command_is_not_in_the_instance_is_told_apart_from_one_that_fails() {
    let with = |code| {
        let command = Check::Command { words: vec!["curl".into(), "-f".into(), "http://127.0.0.1".into()] };
        text(&Facts {
            check: Some(command),
            last: Some(Finding::Exit { code, output: String::new() }),
            ..running()
        })
    };

    assert!(with(127).contains("not in the instance"), "{}", with(127));
    assert!(with(22).contains("has to exit with 0"), "{}", with(22));
}

#[test]
fn a_time_is_told_to_a_tenth_where_that_says_something() {
    let told = [996, 1_000, 1_040, 1_050, 9_940, 12_345].map(|ms| seconds(Duration::from_millis(ms)));
    assert_eq!(told, ["1s", "1s", "1s", "1.1s", "9.9s", "12s"]);
}

#[test]
fn what_did_not_appear_is_named() {
    let log = Check::Log { text: "polling started".into() };
    let facts = Facts { check: Some(log), last: Some(Finding::NotYet), ..running() };

    assert!(text(&facts).starts_with("cause: no line with `polling started` in its log within 30s\n"));
}

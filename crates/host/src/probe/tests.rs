//! Probes against real sockets; runtimes are not asked here.

use std::collections::BTreeMap;

use cutover_core::names::AppId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::watch::fake::FakeRuntime;

const IN_TIME: Duration = Duration::from_secs(5);

fn probes(proxy: Vec<SocketAddr>) -> Probes {
    Probes::new(Arc::new(FakeRuntime::new(RuntimeKind::Process)), None, proxy)
}

fn target(address: SocketAddr) -> ProbeTarget {
    let app: AppId = "shop/local".parse().unwrap();
    ProbeTarget {
        app,
        instance: "web-blue-1-00000000".parse().unwrap(),
        runtime: RuntimeKind::Process,
        address: Some(address),
    }
}

fn http_check(status: (u16, u16)) -> Check {
    Check::Http {
        path: "/health?deep=1".into(),
        port: None,
        host: Some("shop.test".into()),
        scheme: "https".into(),
        status,
        json: BTreeMap::new(),
        inside: false,
    }
}

/// Answers every connection with the same bytes; gives back what the last one asked.
async fn answering(answer: &'static str) -> (SocketAddr, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut asked = Vec::new();
            let mut buffer = [0; 1024];
            while !asked.ends_with(b"\r\n\r\n") {
                match stream.read(&mut buffer).await {
                    Ok(0) | Err(_) => break,
                    Ok(read) => asked.extend_from_slice(&buffer[..read]),
                }
            }
            stream.write_all(answer.as_bytes()).await.ok();
            tell.send(String::from_utf8_lossy(&asked).to_lowercase()).ok();
        }
    });
    (address, told)
}

async fn refusing() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn a_health_answer_passes_and_the_app_is_asked_as_by_its_visitors() {
    let (address, mut asked) = answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;

    let probe = probes(vec![]).probe(&target(address), &http_check((200, 299)), IN_TIME).await;

    assert_eq!(probe, Probe::Passed);
    let asked = asked.recv().await.unwrap();
    assert!(asked.starts_with("get /health?deep=1 http/1.1\r\n"), "{asked}");
    assert!(
        asked.contains("host: shop.test\r\n") && asked.contains("x-forwarded-proto: https\r\n"),
        "{asked}"
    );
}

#[tokio::test]
async fn a_wrong_status_is_found_with_the_beginning_of_its_body() {
    let (address, _asked) =
        answering("HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 5\r\n\r\nlogin").await;

    let probe = probes(vec![]).probe(&target(address), &http_check((200, 299)), IN_TIME).await;

    assert_eq!(probe, Probe::Failed(Finding::Status { status: 302, body: "login".into() }));
}

#[tokio::test]
async fn nobody_silence_and_nonsense_are_told_apart() {
    let check = http_check((200, 299));
    let probes = probes(vec![]);
    let refused = probes.probe(&target(refusing().await), &check, IN_TIME).await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let no_answer =
        probes.probe(&target(silent.local_addr().unwrap()), &check, Duration::from_millis(50)).await;
    let (address, _asked) = answering("SSH-2.0-OpenSSH_9.2\r\n").await;
    let nonsense = probes.probe(&target(address), &check, IN_TIME).await;

    assert_eq!(refused, Probe::Failed(Finding::Refused));
    assert_eq!(no_answer, Probe::Failed(Finding::NoAnswer));
    let expected = other("what listens there does not answer in HTTP");
    assert_eq!(nonsense, Probe::Failed(expected));
}

#[tokio::test]
async fn a_body_without_end_is_read_to_the_bound_only() {
    let body: &'static str = Box::leak(
        format!("HTTP/1.1 500 Oops\r\nConnection: close\r\n\r\n{}", "x".repeat(1 << 20)).into_boxed_str(),
    );
    let (address, _asked) = answering(body).await;

    let probe = probes(vec![]).probe(&target(address), &http_check((200, 299)), IN_TIME).await;

    assert_eq!(probe, Probe::Failed(Finding::Status { status: 500, body: "x".repeat(200) }));
}

#[tokio::test]
async fn a_connection_is_enough_for_tcp_and_another_port_may_be_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let elsewhere = target(refusing().await);

    let named = Check::Tcp { port: Some(port), inside: false };
    let own = Check::Tcp { port: None, inside: false };
    assert_eq!(probes(vec![]).probe(&elsewhere, &named, IN_TIME).await, Probe::Passed);
    assert_eq!(probes(vec![]).probe(&elsewhere, &own, IN_TIME).await, Probe::Failed(Finding::Refused));
}

fn route_check() -> RouteCheck {
    RouteCheck {
        service: "web".parse().unwrap(),
        host: Some("shop.test".into()),
        path: "/health".into(),
        status: (200, 399),
        targets: vec![],
        expect: vec![],
    }
}

#[tokio::test]
async fn an_answer_of_the_proxy_itself_is_no_answer_of_the_app() {
    let (address, _asked) = answering(
        "HTTP/1.1 200 OK\r\nX-Cutover-Error: no-target\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    )
    .await;

    let probe = probes(vec![address]).route(&route_check(), IN_TIME).await;

    let Probe::Failed(Finding::Other { detail }) = probe else { panic!("{probe:?}") };
    assert_eq!(detail, "the proxy answered in the app's place: no-target (200)");
}

#[tokio::test]
async fn a_listener_on_every_address_is_asked_on_loopback() {
    let (address, _asked) = answering("HTTP/1.1 204 No Content\r\n\r\n").await;
    let every = SocketAddr::new("0.0.0.0".parse().unwrap(), address.port());

    assert_eq!(probes(vec![every]).route(&route_check(), IN_TIME).await, Probe::Passed);
}

#[tokio::test]
async fn verify_reads_the_body_through_the_proxy() {
    let (address, mut asked) =
        answering("HTTP/1.1 200 OK\r\nContent-Length: 19\r\n\r\n{\"version\":\"7f3c9\"}").await;
    let probes = probes(vec![address]);
    let expect = |contains: Option<&str>, version: &str| Verify::Http {
        path: "/version".into(),
        contains: contains.map(str::to_owned),
        json: BTreeMap::from([("version".to_owned(), version.to_owned())]),
    };
    let whom = target(address);

    let good = probes.verify(&route_check(), &expect(Some("7f3c9"), "7f3c9"), &whom).await;
    let old = probes.verify(&route_check(), &expect(None, "41d0a"), &whom).await;
    let lacking = probes.verify(&route_check(), &expect(Some("41d0a"), "7f3c9"), &whom).await;

    assert_eq!(good, Probe::Passed);
    assert!(asked.recv().await.unwrap().starts_with("get /version http/1.1\r\nhost: shop.test"));
    assert_eq!(
        old,
        Probe::Failed(Finding::Body { detail: "`version` is `7f3c9` (expected `41d0a`)".into() })
    );
    assert!(matches!(lacking, Probe::Failed(Finding::Body { .. })));
}

#[tokio::test]
async fn a_command_is_judged_by_its_exit() {
    let runtime = Arc::new(FakeRuntime::new(RuntimeKind::Process));
    runtime.answer_exec(0, &[]);
    runtime.answer_exec(3, &["no database"]);
    runtime.answer_exec(1, &[]);
    let probes = Probes::new(runtime, None, vec![]);
    let whom = target("127.0.0.1:1".parse().unwrap());
    let command = Check::Command { words: vec!["check".into()] };

    assert_eq!(probes.probe(&whom, &command, IN_TIME).await, Probe::Passed);
    let failed = Finding::Exit { code: 3, output: "no database".into() };
    assert_eq!(probes.probe(&whom, &command, IN_TIME).await, Probe::Failed(failed));
    let file = Check::File { path: "/ready".into() };
    assert_eq!(probes.probe(&whom, &file, IN_TIME).await, Probe::Failed(Finding::NotYet));
}

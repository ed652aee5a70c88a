//! The probe against a server that misbehaves in a known order: each failure is counted, once, as what it is.
#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cutover_testkit::probe::{Load, Mix, Probe, ProbeOptions, Report};
use cutover_testkit::wait_until;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

const SOON: Duration = Duration::from_secs(10);
const GOOD: &str = "HTTP/1.1 200 OK\r\nx-app-release: r1\r\ncontent-length: 8\r\n\r\n{\"id\":1}";
const OK_HEAD: &str = "HTTP/1.1 200 OK\r\nx-app-release: r1\r\n";

/// What the server does with a request.
#[derive(Clone, Copy, Debug)]
enum Reply {
    /// Says this, and keeps the connection.
    Say(&'static str),
    /// Says this, and closes.
    SayAndClose(&'static str),
    /// Resets the connection, with the request unread in part or in whole.
    Reset,
    /// Says nothing until the client goes.
    Silence,
}

/// Answers the script's replies in order, then `GOOD` for ever.
struct Server {
    address: SocketAddr,
    /// The first lines and headers of the requests, in order.
    requests: Arc<Mutex<Vec<String>>>,
    accepting: AbortHandle,
}

impl Server {
    async fn with(script: &[Reply]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let script = Arc::new(Mutex::new(VecDeque::from(script.to_vec())));
        let heard = Arc::clone(&requests);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // However the connection ends is what the test is about.
                tokio::spawn(serve(stream, Arc::clone(&script), Arc::clone(&heard)));
            }
        })
        .abort_handle();
        Self { address, requests, accepting }
    }

    fn heard(&self, start: &str) -> usize {
        self.requests.lock().unwrap().iter().filter(|request| request.starts_with(start)).count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(
    mut stream: TcpStream,
    script: Arc<Mutex<VecDeque<Reply>>>,
    heard: Arc<Mutex<Vec<String>>>,
) -> io::Result<()> {
    while let Some(request) = read_request(&mut stream).await? {
        heard.lock().unwrap().push(request);
        let reply = script.lock().unwrap().pop_front().unwrap_or(Reply::Say(GOOD));
        match reply {
            Reply::Say(text) => stream.write_all(text.as_bytes()).await?,
            Reply::SayAndClose(text) => {
                stream.write_all(text.as_bytes()).await?;
                return stream.shutdown().await;
            }
            Reply::Reset => return stream.set_zero_linger(),
            Reply::Silence => {
                stream.read_to_end(&mut Vec::new()).await?;
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Head and body of one request; nothing when the client closed.
async fn read_request(stream: &mut TcpStream) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok())
                .unwrap_or(0);
            if body.len() >= length {
                return Ok(Some(text));
            }
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    }
}

fn options(server: &Server, mix: Mix) -> ProbeOptions {
    let mut options = ProbeOptions::new(server.address, "app.localhost");
    options.mix = mix;
    options.pace = Duration::from_millis(1);
    options.deadline = Duration::from_millis(500);
    options
}

/// Lets the probe run until `enough`, and gives its report.
async fn until(options: ProbeOptions, enough: impl Fn(&Report) -> bool) -> Report {
    let probe = Probe::start(options);
    let waited = wait_until("enough requests", SOON, async || enough(&probe.so_far()).then_some(())).await;
    let report = probe.stop().await;
    waited.unwrap_or_else(|late| panic!("{late}\n{report}"));
    report
}

fn get(fresh: usize, keep_alive: usize) -> Mix {
    Mix { get: Load { fresh, keep_alive }, ..Mix::NONE }
}

fn reasons(report: &Report) -> Vec<&str> {
    report.failures.iter().map(|failure| failure.why.as_str()).collect()
}

#[tokio::test]
async fn given_each_way_to_fail_then_each_is_counted_once_as_what_it_is() {
    let server = Server::with(&[
        Reply::Say(GOOD),
        Reply::SayAndClose(""),
        Reply::Reset,
        Reply::SayAndClose("HTTP/1.1 200 OK\r\nx-app-release: r1\r\ncontent-length: 100\r\n\r\nhalf"),
        Reply::SayAndClose("HTTP/1.1 200 OK\r\nx-app-release: r1\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n"),
        Reply::Say("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
        Reply::Say("HTTP/1.1 502 Bad Gateway\r\nx-cutover-error: upstream-broken\r\ncontent-length: 0\r\n\r\n"),
        Reply::Silence,
        Reply::Say("HTTP/1.1 503 Service Unavailable\r\nx-cutover-error: hold-full\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n"),
        Reply::Say("HTTP/1.1 503 Service Unavailable\r\nx-cutover-error: cut\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n"),
        Reply::Say("HTTP/1.1 500 Internal Server Error\r\nx-app-release: r2\r\ncontent-length: 0\r\n\r\n"),
    ])
    .await;

    let report = until(options(&server, get(1, 0)), |report| report.sent() >= 20).await;

    let total = report.total();
    assert_eq!((total.failed, total.told, total.cut, total.app_errors), (7, 1, 1, 1), "{report}");
    assert_eq!(total.sent, total.answered + 10);
    assert_eq!(total.retried, 0);
    assert_eq!(server.heard("GET / "), usize::try_from(total.sent).unwrap());
    let expected = [
        "no answer: ",
        "no answer: ",
        "200 OK, whose body was cut short",
        "200 OK, whose body was cut short",
        "200 OK that the app did not sign",
        "502 Bad Gateway from the proxy: upstream-broken",
        "no whole answer within 500ms",
    ];
    for (why, expected) in reasons(&report).iter().zip(expected) {
        assert!(why.starts_with(expected), "{why}");
    }
    assert_eq!(report.releases_in_order(), ["r1", "r2"]);
    assert_eq!(report.releases[1].errors, 1);
}

#[tokio::test]
async fn given_nobody_listens_then_each_try_is_a_failure() {
    let server = Server::with(&[]).await;
    let mut options = options(&server, get(1, 1));
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    options.address = gone.local_addr().unwrap();
    drop(gone);

    let report = until(options, |report| report.sent() >= 4).await;

    assert_eq!(report.failed(), report.sent());
    assert!(report.failures[0].why.starts_with("cannot connect"), "{report}");
}

#[tokio::test]
async fn given_a_kept_connection_that_closes_with_nothing_said_then_a_get_goes_again() {
    let close = Reply::SayAndClose("");
    let server = Server::with(&[Reply::Say(GOOD), close, Reply::Say(GOOD), close]).await;

    let report = until(options(&server, get(0, 1)), |report| report.sent() >= 5).await;

    let total = report.total();
    assert_eq!((total.failed, total.retried), (0, 2), "{report}");
    assert_eq!(total.answered, total.sent);
}

#[tokio::test]
async fn given_a_kept_connection_that_closes_after_an_answer_then_nothing_is_lost() {
    let close = Reply::SayAndClose(GOOD);
    let server = Server::with(&[close, close, close]).await;

    let report = until(options(&server, get(0, 1)), |report| report.sent() >= 6).await;

    assert_eq!(report.failed(), 0, "{report}");
    assert_eq!(server.heard("GET"), usize::try_from(report.sent()).unwrap());
}

#[tokio::test]
async fn given_a_kept_connection_that_breaks_in_an_answer_then_a_get_has_failed() {
    let server = Server::with(&[Reply::Say(GOOD), Reply::SayAndClose(OK_HEAD)]).await;

    let report = until(options(&server, get(0, 1)), |report| report.sent() >= 4).await;

    assert_eq!((report.failed(), report.total().retried), (1, 0), "{report}");
}

#[tokio::test]
async fn given_a_kept_connection_that_closes_on_a_post_then_it_has_failed_and_is_not_sent_again() {
    let server = Server::with(&[Reply::Say(GOOD), Reply::SayAndClose("")]).await;
    let post = Mix { post: Load { fresh: 0, keep_alive: 1 }, ..Mix::NONE };

    let report = until(options(&server, post), |report| report.sent() >= 4).await;

    assert_eq!((report.failed(), report.total().retried), (1, 0), "{report}");
    assert_eq!(server.heard("POST /entries "), usize::try_from(report.sent()).unwrap());
    assert_eq!(report.acknowledged.len() as u64, report.total().answered);
    let numbers: std::collections::BTreeSet<_> =
        report.acknowledged.iter().map(|entry| entry.number).collect();
    assert_eq!(numbers.len(), report.acknowledged.len());
}

#[tokio::test]
async fn given_a_post_that_is_answered_without_an_id_then_it_has_failed() {
    let server =
        Server::with(&[Reply::Say("HTTP/1.1 200 OK\r\nx-app-release: r1\r\ncontent-length: 2\r\n\r\nok")])
            .await;
    let post = Mix { post: Load { fresh: 1, keep_alive: 0 }, ..Mix::NONE };

    let report = until(options(&server, post), |report| report.sent() >= 3).await;

    assert_eq!(reasons(&report), ["200 OK that acknowledges nothing"]);
}

#[tokio::test]
async fn given_a_slow_answer_without_its_end_then_it_has_failed() {
    let done = "HTTP/1.1 200 OK\r\nx-app-release: r1\r\ncontent-length: 5\r\n\r\ndone\n";
    let server =
        Server::with(&[Reply::Say(done), Reply::Say(GOOD), Reply::Say(done), Reply::Say(done)]).await;
    let slow = Mix { slow: Load { fresh: 1, keep_alive: 0 }, ..Mix::NONE };

    let report = until(options(&server, slow), |report| report.sent() >= 3).await;

    assert_eq!(reasons(&report)[0], "200 OK without its last part");
}

const EVENTS: &str = "HTTP/1.1 200 OK\r\nx-app-release: r1\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
const EVENTS_ENDED: &str = "HTTP/1.1 200 OK\r\nx-app-release: r1\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n11\r\nid: 7\ndata: one\n\n\r\n0\r\n\r\n";

#[tokio::test]
async fn given_event_streams_that_end_then_they_are_closed_and_the_next_goes_on_from_there() {
    let server = Server::with(&[
        Reply::SayAndClose(EVENTS_ENDED),
        Reply::SayAndClose(EVENTS),
        Reply::Say(
            "HTTP/1.1 502 Bad Gateway\r\nx-cutover-error: upstream-broken\r\ncontent-length: 0\r\n\r\n",
        ),
        Reply::Say(EVENTS),
    ])
    .await;
    let mut options = options(&server, Mix { sse: 1, ..Mix::NONE });
    options.deadline = SOON;

    let report = until(options, |report| report.sent() >= 4).await;

    let total = report.total();
    assert_eq!((total.closed, total.closed_abruptly, total.failed), (2, 1, 1), "{report}");
    assert_eq!(total.messages, 1);
    let requests = server.requests.lock().unwrap();
    assert!(!requests[0].contains("last-event-id"));
    assert!(requests.iter().skip(1).all(|request| request.contains("last-event-id: 7")));
}

#[tokio::test]
async fn given_an_open_stream_that_falls_silent_then_it_has_failed() {
    let server = Server::with(&[Reply::Say(EVENTS), Reply::Say(EVENTS_ENDED)]).await;
    let options = options(&server, Mix { sse: 1, ..Mix::NONE });

    let report = until(options, |report| report.failed() >= 1).await;

    assert_eq!(reasons(&report)[0], "open, and silent for 500ms");
}

#[tokio::test]
async fn given_no_websocket_where_one_was_asked_for_then_it_has_failed() {
    let server = Server::with(&[]).await;

    let report =
        until(options(&server, Mix { websocket: 1, ..Mix::NONE }), |report| report.sent() >= 2).await;

    assert_eq!(report.failed(), report.sent());
    assert_eq!(reasons(&report)[0], "200 OK instead of a WebSocket");
}

#[tokio::test]
async fn given_laps_then_each_request_is_in_one_lap_and_all_are_in_the_report() {
    let server = Server::with(&[Reply::SayAndClose("")]).await;
    let probe = Probe::start(options(&server, get(2, 2)));
    let mut laps = 0;
    wait_until("five laps with traffic", SOON, async || {
        laps += probe.lap().sent();
        (laps >= 50).then_some(())
    })
    .await
    .unwrap();

    let report = probe.stop().await;

    assert!(report.sent() >= laps);
    assert_eq!(report.failed(), 1, "{report}");
    assert_eq!(report.total().latencies.len(), report.sent() - 1);
}

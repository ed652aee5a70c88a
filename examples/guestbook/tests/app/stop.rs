//! Told to stop: nothing in flight is lost.

use std::time::Duration;

use cutover_testkit::probe::{Kind, Load, Mix, Probe, fetch_entries};
use cutover_testkit::wait_until;
use rustix::process::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::instance::{Place, SOON, was_killed};

/// A slow download whose first part has come.
async fn begun(address: std::net::SocketAddr) -> (TcpStream, Vec<u8>) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /slow?ms=1000 HTTP/1.1\r\nhost: guestbook.localhost\r\n\r\n").await.unwrap();
    let mut bytes = Vec::new();
    while !String::from_utf8_lossy(&bytes).contains("part 1") {
        assert!(timeout(SOON, stream.read_buf(&mut bytes)).await.unwrap().unwrap() > 0);
    }
    (stream, bytes)
}

#[tokio::test]
async fn given_requests_in_flight_then_they_are_finished_and_the_exit_is_clean() {
    let place = Place::of("v1").migrated().await;
    let mut app = place.serve().await;
    let mut downloads = Vec::new();
    for _ in 0..20 {
        downloads.push(begun(app.address).await);
    }

    app.tell(Signal::TERM);

    for (mut stream, mut bytes) in downloads {
        timeout(SOON, stream.read_to_end(&mut bytes)).await.unwrap().unwrap();
        assert!(bytes.ends_with(b"done\n\r\n0\r\n\r\n"), "{}", String::from_utf8_lossy(&bytes));
    }
    app.says("stopped: everything in flight was finished").await;
    assert_eq!(app.ends().await.code(), Some(0));
}

#[tokio::test]
async fn given_a_stop_under_load_then_no_answer_is_cut_and_no_entry_lost() {
    let place = Place::of("v1").migrated().await;
    let app = place.serve().await;
    let mut options = app.probe();
    options.slow_for = Duration::from_millis(100);
    options.mix = Mix {
        get: Load { fresh: 4, keep_alive: 4 },
        post: Load { fresh: 4, keep_alive: 4 },
        slow: Load { fresh: 4, keep_alive: 4 },
        websocket: 2,
        sse: 2,
    };
    let probe = Probe::start(options);
    wait_until("load", SOON, async || (probe.so_far().sent() >= 200).then_some(())).await.unwrap();

    app.tell(Signal::TERM);
    let status = app.ends().await;
    let report = probe.stop().await;

    assert_eq!(status.code(), Some(0), "{report}");
    // Nobody is there to take new connections; what had begun was finished.
    let cut = report.failures.iter().filter(|failure| failure.why.contains("cut short")).count();
    assert_eq!(cut, 0, "{report}");
    for kind in [Kind::WebSocket, Kind::Sse] {
        // More than two where one came back in the last moment.
        assert!(report.kinds[&kind].closed >= 2, "{report}");
        assert_eq!(report.kinds[&kind].closed_abruptly, 0, "{report}");
    }
    let again = place.serve().await;
    let found = report.verify_entries(&fetch_entries(&again.probe()).await.unwrap());
    assert!(found.is_complete() && found.found > 0, "{found:?}");
}

#[tokio::test]
async fn given_a_knob_to_ignore_the_stop_then_only_a_kill_ends_it() {
    let place = Place::of("v1").with_behaviour("web", r#"{"database": "memory", "ignore_stop": true}"#);
    let mut app = place.serve().await;

    app.tell(Signal::TERM);
    app.says("not listening to that").await;
    assert_eq!(app.get("/health").await.status, 200);

    app.tell(Signal::KILL);
    assert!(was_killed(app.ends().await));
}

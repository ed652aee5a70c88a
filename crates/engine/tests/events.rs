//! Events of a real engine, also across its absence.

#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use std::time::Duration;

use cutover_engine::{Engine, Happening, Heard, RemoveVolumes};
use futures_util::StreamExt;
use support::on_engine;
use tokio::net::{UnixListener, UnixStream};

#[test]
fn a_container_is_heard_from_start_to_removal() {
    on_engine("a_container_is_heard_from_start_to_removal", |place| async move {
        let mut events = std::pin::pin!(place.engine.events(&place.labels()));
        assert_eq!(events.next().await.unwrap(), Heard::Connected);
        // Happens before the request for events is sent, and is heard nevertheless.
        let spec = place.spec("web", "exit 3");
        let id = place.engine.create(&spec).await.unwrap().id;
        place.engine.start(&id).await.unwrap();
        place.engine.wait(&id).await.unwrap();
        let removal = async { place.engine.remove(&id, RemoveVolumes::Unnamed).await.unwrap() };
        let hearing = async {
            let mut heard = Vec::new();
            while heard.last() != Some(&Happening::Removed) {
                let Heard::Happened(event) = events.next().await.unwrap() else { panic!("lost") };
                assert_eq!((&event.id, &event.name), (&id, &spec.name));
                assert_eq!(event.labels.get("cutover.engine-test"), Some(&place.id));
                heard.push(event.what);
            }
            heard
        };
        let ((), heard) = tokio::join!(removal, hearing);
        assert_eq!(heard, [Happening::Started, Happening::Died { code: Some(3) }, Happening::Removed]);
    });
}

#[test]
fn a_lost_engine_is_told_and_heard_again_without_a_gap() {
    on_engine("a_lost_engine_is_told_and_heard_again_without_a_gap", |place| async move {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("sock");
        let real = place.engine.address().strip_prefix("unix://").unwrap().to_owned();
        let first = relay(&socket, &real);
        let engine = Engine::connect_to(&format!("unix://{}", socket.display())).await.unwrap();
        let mut events = std::pin::pin!(engine.events(&place.labels()));
        assert_eq!(events.next().await.unwrap(), Heard::Connected);
        let id = place.engine.create(&place.spec("web", "exit 0")).await.unwrap().id;
        place.engine.start(&id).await.unwrap();
        assert!(
            matches!(events.next().await.unwrap(), Heard::Happened(event) if event.what == Happening::Started)
        );
        place.engine.wait(&id).await.unwrap();
        assert!(
            matches!(events.next().await.unwrap(), Heard::Happened(event) if event.what == Happening::Died { code: Some(0) })
        );

        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        std::fs::remove_file(&socket).unwrap();
        assert!(matches!(events.next().await.unwrap(), Heard::Lost(_)));
        place.engine.remove(&id, RemoveVolumes::Unnamed).await.unwrap();
        let _second = relay(&socket, &real);
        loop {
            match events.next().await.unwrap() {
                Heard::Lost(_) => {}
                Heard::Connected => break,
                Heard::Happened(event) => panic!("heard before it was connected: {event:?}"),
            }
        }
        let next = tokio::time::timeout(Duration::from_secs(10), events.next()).await.unwrap().unwrap();
        assert!(matches!(&next, Heard::Happened(event) if event.what == Happening::Removed), "{next:?}");
    });
}

/// Ends, with every connection through it, when its task is aborted.
fn relay(socket: &std::path::Path, real: &str) -> tokio::task::JoinHandle<()> {
    let listener = UnixListener::bind(socket).unwrap();
    let real = real.to_owned();
    tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut engine = UnixStream::connect(&real).await.unwrap();
            connections.spawn(async move {
                // A connection cut short is what this is for.
                tokio::io::copy_bidirectional(&mut client, &mut engine).await.ok();
            });
        }
    })
}

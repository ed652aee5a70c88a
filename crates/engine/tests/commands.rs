//! Commands inside containers, containers that run once, volumes on a real engine.

#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use cutover_engine::{Kind, Phase, TerminalSize};
use futures_util::StreamExt;
use support::{command, on_engine};
use tokio::io::AsyncWriteExt;

#[test]
fn a_command_runs_inside_with_its_code_and_output() {
    on_engine("a_command_runs_inside_with_its_code_and_output", |place| async move {
        let engine = &place.engine;
        let id = engine.create(&place.idle("web")).await.unwrap().id;
        let error = engine.exec(&id, &command(&["true"])).await.unwrap_err();
        assert_eq!(error.kind, Kind::Conflict, "{error}");

        engine.start(&id).await.unwrap();
        let mut talk = command(&["sh", "-c", "echo out $WHO; echo err >&2; exit 7"]);
        talk.environment.set("WHO", "me");
        let outcome = engine.exec(&id, &talk).await.unwrap();
        assert_eq!(
            (outcome.code, outcome.output.as_str(), outcome.errors.as_str()),
            (7, "out me\n", "err\n")
        );
        assert!(matches!(engine.exec(&id, &command(&["nope"])).await.unwrap().code, 126 | 127));
    });
}

#[test]
fn a_command_has_a_terminal_when_asked() {
    on_engine("a_command_has_a_terminal_when_asked", |place| async move {
        let engine = &place.engine;
        let id = engine.create(&place.idle("web")).await.unwrap().id;
        engine.start(&id).await.unwrap();
        let size = TerminalSize { columns: 91, rows: 17 };
        let mut session = engine.exec_attached(&id, &command(&["sh"]), Some(size)).await.unwrap();
        session.input.write_all(b"stty size; exit 5\n").await.unwrap();
        let mut told = String::new();
        while let Some(piece) = session.output.next().await {
            told.push_str(&String::from_utf8_lossy(&piece.unwrap().1));
        }
        assert!(told.contains("17 91"), "{told}");
        assert_eq!(session.code().await.unwrap(), 5);
    });
}

#[test]
fn input_reaches_a_command_without_a_terminal() {
    on_engine("input_reaches_a_command_without_a_terminal", |place| async move {
        let engine = &place.engine;
        let id = engine.create(&place.idle("web")).await.unwrap().id;
        engine.start(&id).await.unwrap();
        let mut session = engine.exec_attached(&id, &command(&["cat"]), None).await.unwrap();
        session.input.write_all(b"through").await.unwrap();
        session.input.shutdown().await.unwrap();
        let mut told = Vec::new();
        while let Some(piece) = session.output.next().await {
            told.extend_from_slice(&piece.unwrap().1);
        }
        assert_eq!(told, b"through");
        assert_eq!(session.code().await.unwrap(), 0);
    });
}

#[test]
fn a_volume_outlives_its_containers() {
    on_engine("a_volume_outlives_its_containers", |place| async move {
        let engine = &place.engine;
        let volume = engine.create_volume(&place.name("data"), &place.labels()).await.unwrap();
        let mount = |read_only| cutover_engine::Mount {
            source: cutover_engine::MountSource::Volume(volume.name.clone()),
            target: "/data".to_owned(),
            read_only,
        };
        let mut writes = place.spec("writes", "echo kept > /data/file");
        writes.mounts = vec![mount(false)];
        let mut lines = Vec::new();
        let outcome = engine.run_once(&writes, &mut |line| lines.push(line.text)).await.unwrap();
        assert_eq!((outcome.exit.code, outcome.left_behind), (0, None));
        let mut reads = place.spec("reads", "cat /data/file; echo more >> /data/file");
        reads.mounts = vec![mount(true)];
        let outcome = engine.run_once(&reads, &mut |line| lines.push(line.text)).await.unwrap();
        assert_eq!(outcome.exit.code, 1);
        // Which of the two streams comes first is not told.
        assert!(lines.iter().any(|line| line == "kept"), "{lines:?}");
        assert_eq!(engine.list_volumes(&place.labels()).await.unwrap().len(), 1);
        engine.remove_volume(&volume.name).await.unwrap();
        engine.remove_volume(&volume.name).await.unwrap();
        assert_eq!(engine.inspect_volume(&volume.name).await.unwrap_err().kind, Kind::Gone);
    });
}

#[test]
fn what_runs_once_is_followed_and_gone_afterwards() {
    on_engine("what_runs_once_is_followed_and_gone_afterwards", |place| async move {
        let engine = &place.engine;
        let mut lines = Vec::new();
        let spec = place.spec("migrate", "echo step 1; echo step 2; exit 4");
        let outcome = engine.run_once(&spec, &mut |line| lines.push(line.text)).await.unwrap();
        assert_eq!(outcome.exit.code, 4);
        assert_eq!(lines, ["step 1", "step 2"]);
        assert_eq!(engine.list(&place.labels()).await.unwrap(), []);
    });
}

#[test]
fn what_was_dropped_is_found_by_its_label_and_not_run_again() {
    on_engine("what_was_dropped_is_found_by_its_label_and_not_run_again", |place| async move {
        let engine = &place.engine;
        let mut spec = place.idle("migrate");
        spec.command.as_mut().unwrap()[2].insert_str(0, "echo begun; ");
        let mut begun = None;
        let (tell, told) = tokio::sync::oneshot::channel();
        let mut tell = Some(tell);
        {
            let mut on_line = |line: cutover_engine::LogLine| {
                begun = Some(line.text);
                if let Some(tell) = tell.take() {
                    tell.send(()).unwrap();
                }
            };
            tokio::select! {
                outcome = engine.run_once(&spec, &mut on_line) => panic!("it ended: {outcome:?}"),
                said = told => said.unwrap(),
            }
        }
        let left = engine.list(&place.labels()).await.unwrap();
        assert_eq!(left.iter().map(|c| c.phase).collect::<Vec<_>>(), [Phase::Running]);
        let error = engine.run_once(&spec, &mut |_| {}).await.unwrap_err();
        assert_eq!(error.kind, Kind::Exists, "{error}");
    });
}

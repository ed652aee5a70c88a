//! Containers on a real engine.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test; figures are for people")]

mod support;

use std::time::{Duration, Instant};

use cutover_engine::{
    HealthCheck, HealthTest, Kind, Limits, LogQuery, Phase, RemoveVolumes, RestartPolicy, State,
};
use futures_util::StreamExt;
use support::{command, not_run, on_engine};

#[test]
fn a_container_lives_from_creation_to_removal() {
    on_engine("a_container_lives_from_creation_to_removal", |place| async move {
        let engine = &place.engine;
        let mut spec = place.idle("web");
        spec.environment.set("GREETING", "hello");
        let id = engine.create(&spec).await.unwrap().id;
        assert_eq!(engine.inspect(&id).await.unwrap().state, State::Created);

        engine.start(&id).await.unwrap();
        engine.start(&id).await.unwrap();
        let running = engine.inspect(&spec.name).await.unwrap();
        assert_eq!(
            (running.state, running.restart, running.restarts),
            (State::Running, RestartPolicy::No, 0)
        );
        assert!(running.pid.is_some() && running.started_at.is_some());
        assert_eq!(running.environment.get("GREETING"), Some("hello"));
        assert!(!format!("{:?}", running.environment).contains("hello"));

        let listed = engine.list(&place.labels()).await.unwrap();
        assert_eq!(
            listed.iter().map(|c| (c.name.as_str(), c.phase)).collect::<Vec<_>>(),
            [(spec.name.as_str(), Phase::Running)]
        );

        // Before it says so it hears no signal.
        let mut lines = std::pin::pin!(engine.logs(&id, LogQuery { follow: true, ..LogQuery::default() }));
        assert_eq!(lines.next().await.unwrap().unwrap().text, "idle");
        engine.stop(&id, Duration::from_secs(10)).await.unwrap();
        engine.stop(&id, Duration::from_secs(10)).await.unwrap();
        let State::Exited(exit) = engine.inspect(&id).await.unwrap().state else { panic!("it did not end") };
        assert_eq!(exit.code, 0);

        engine.remove(&id, RemoveVolumes::Unnamed).await.unwrap();
        engine.remove(&id, RemoveVolumes::Unnamed).await.unwrap();
        assert_eq!(engine.inspect(&id).await.unwrap_err().kind, Kind::Gone);
        assert_eq!(engine.start(&id).await.unwrap_err().kind, Kind::Gone);
    });
}

#[test]
fn creation_can_be_repeated_but_takes_nothing_of_others() {
    on_engine("creation_can_be_repeated_but_takes_nothing_of_others", |place| async move {
        let engine = &place.engine;
        let spec = place.idle("web");
        let first = engine.create(&spec).await.unwrap();
        let again = engine.create(&spec).await.unwrap();
        assert_eq!((again.id, again.found), (first.id, true));

        let mut other = spec.clone();
        other.labels.insert("cutover.installation".to_owned(), "another".to_owned());
        let error = engine.create(&other).await.unwrap_err();
        assert_eq!(error.kind, Kind::Exists);
        assert!(error.message.contains("cutover.installation"), "{error}");
    });
}

#[test]
fn a_missing_image_is_told_as_such() {
    on_engine("a_missing_image_is_told_as_such", |place| async move {
        let mut spec = place.idle("web");
        spec.image = "cutover-test/nowhere:0".to_owned();
        let error = place.engine.create(&spec).await.unwrap_err();
        assert_eq!(error.kind, Kind::NotFoundImage, "{error}");
        assert!(error.message.contains("cutover-test/nowhere"), "{error}");
    });
}

#[test]
fn a_program_that_is_not_there_fails_the_start() {
    on_engine("a_program_that_is_not_there_fails_the_start", |place| async move {
        let mut spec = place.idle("web");
        spec.command = Some(vec!["/bin/nope".to_owned()]);
        let id = place.engine.create(&spec).await.unwrap().id;
        let error = place.engine.start(&id).await.unwrap_err();
        assert!(error.message.contains("nope"), "{error}");
        let State::Exited(exit) = place.engine.inspect(&id).await.unwrap().state else {
            panic!("it is not ended")
        };
        assert_eq!(exit.code, 127);
    });
}

#[test]
fn the_restart_policy_changes_while_it_runs() {
    on_engine("the_restart_policy_changes_while_it_runs", |place| async move {
        let engine = &place.engine;
        let spec = place.spec("web", "echo up; while [ ! -e /tmp/die ]; do sleep 0.05; done; exit 3");
        let id = engine.create(&spec).await.unwrap().id;
        engine.start(&id).await.unwrap();
        engine.set_restart(&id, RestartPolicy::UnlessStopped).await.unwrap();
        assert_eq!(engine.inspect(&id).await.unwrap().restart, RestartPolicy::UnlessStopped);

        // It ends by itself once, and is started again: two lines of `up` are there to be followed.
        let mut lines = std::pin::pin!(engine.logs(&id, LogQuery { follow: true, ..LogQuery::default() }));
        assert_eq!(lines.next().await.unwrap().unwrap().text, "up");
        engine.exec(&id, &command(&["sh", "-c", "> /tmp/die"])).await.unwrap();
        while engine.inspect(&id).await.unwrap().restarts == 0 {
            tokio::task::yield_now().await;
        }

        engine.set_restart(&id, RestartPolicy::No).await.unwrap();
        assert_eq!(engine.inspect(&id).await.unwrap().restart, RestartPolicy::No);
    });
}

#[test]
fn an_exit_is_told_with_its_code_and_signal() {
    on_engine("an_exit_is_told_with_its_code_and_signal", |place| async move {
        let engine = &place.engine;
        let fails = engine.create(&place.spec("fails", "exit 3")).await.unwrap().id;
        engine.start(&fails).await.unwrap();
        assert_eq!(engine.wait(&fails).await.unwrap().code, 3);

        let killed = engine.create(&place.idle("killed")).await.unwrap().id;
        engine.start(&killed).await.unwrap();
        let waiting = tokio::spawn({
            let (engine, killed) = (engine.clone(), killed.clone());
            async move { engine.wait(&killed).await }
        });
        engine.signal(&killed, "SIGKILL").await.unwrap();
        let exit = waiting.await.unwrap().unwrap();
        assert_eq!((exit.code, exit.signal(), exit.out_of_memory), (137, Some(9), false));
        assert_eq!(engine.signal(&killed, "SIGTERM").await.unwrap_err().kind, Kind::Conflict);
    });
}

#[test]
fn running_out_of_memory_is_told_apart() {
    on_engine("running_out_of_memory_is_told_apart", |place| async move {
        let engine = &place.engine;
        if !engine.info().await.unwrap().limits_memory {
            return not_run("running_out_of_memory_is_told_apart", "the engine cannot limit memory");
        }
        // An engine misses the kernel's word at times (containerd's issue 8893).
        let mut exits = Vec::new();
        for name in ["hungry-1", "hungry-2", "hungry-3", "hungry-4", "hungry-5"] {
            let mut spec = place.spec(name, "x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done");
            spec.limits =
                Limits { memory: Some(16 << 20), memory_and_swap: Some(16 << 20), ..Limits::default() };
            let id = engine.create(&spec).await.unwrap().id;
            engine.start(&id).await.unwrap();
            let exit = engine.wait(&id).await.unwrap();
            if exit.out_of_memory {
                return;
            }
            exits.push(exit);
        }
        panic!("{exits:?}");
    });
}

#[test]
fn settings_reach_the_container() {
    on_engine("settings_reach_the_container", |place| async move {
        let engine = &place.engine;
        let mut spec = place.idle("web");
        spec.read_only = true;
        spec.memory_folders.insert("/tmp".to_owned(), "size=1m,mode=1777".to_owned());
        spec.user = Some("1234:1234".to_owned());
        spec.hostname = Some("named".to_owned());
        spec.capabilities_dropped = vec!["ALL".to_owned()];
        spec.limits.ulimits.push(cutover_engine::Ulimit { name: "nofile".to_owned(), soft: 77, hard: 77 });
        spec.extra_hosts = vec!["elsewhere:10.1.2.3".to_owned()];
        spec.shared_memory = Some(1 << 20);
        spec.init = Some(true);
        spec.stop_signal = Some("SIGINT".to_owned());
        spec.stop_grace = Some(Duration::from_secs(3));
        spec.health = Some(HealthCheck {
            test: Some(HealthTest::Command(vec!["true".to_owned()])),
            interval: Some(Duration::from_hours(1)),
            timeout: None,
            start_period: None,
            retries: Some(2),
        });
        let id = engine.create(&spec).await.unwrap().id;
        engine.start(&id).await.unwrap();
        let script = "id -u; ulimit -n; > /etc/x || echo denied; > /tmp/x && echo ok; cat /etc/hosts; cat /proc/sys/kernel/hostname";
        let outcome = engine.exec(&id, &command(&["sh", "-c", script])).await.unwrap();
        assert!(outcome.output.starts_with("1234\n77\ndenied\nok\n"), "{outcome:?}");
        assert!(outcome.output.contains("10.1.2.3\telsewhere"), "{outcome:?}");
        assert!(outcome.output.trim_end().ends_with("named"), "{outcome:?}");
        let found = engine.inspect(&id).await.unwrap();
        assert_eq!(found.stop_signal.as_deref(), Some("SIGINT"));
        assert_eq!(found.stop_grace, Some(Duration::from_secs(3)));
        assert_eq!(found.health_test, ["CMD", "true"]);
        assert_eq!(found.health.unwrap().status, cutover_engine::HealthStatus::Starting);
    });
}

#[test]
fn creation_and_start_cost_what_the_engine_costs() {
    on_engine("creation_and_start_cost_what_the_engine_costs", |place| async move {
        let engine = &place.engine;
        let began = Instant::now();
        let id = engine.create(&place.idle("web")).await.unwrap().id;
        let created = began.elapsed();
        engine.start(&id).await.unwrap();
        println!("create {created:?}, start {:?}", began.elapsed().checked_sub(created).unwrap());
        let began = Instant::now();
        for _ in 0..20 {
            engine.inspect(&id).await.unwrap();
        }
        println!("inspect {:?}", began.elapsed() / 20);
    });
}

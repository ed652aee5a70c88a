//! Instances as containers of a real engine: their life, who may touch them, how they end, what they wrote.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

#[path = "support/place.rs"]
#[expect(dead_code, reason = "shared by several test binaries")]
mod place;

use std::time::{Duration, Instant};

use cutover_core::layout::label;
use cutover_core::plan::InstanceSpec;
use cutover_core::release::Content;
use cutover_core::secret::{Secret, Secrets};
use cutover_core::state::{InstanceState, RestartPolicy};
use cutover_engine::{RestartPolicy as EnginePolicy, State};
use cutover_host::ports::{Exec, LogQuery, Runtime, RuntimeErrorKind, Scope};
use place::{BASE, IDLE, Place, kind, on_engine, until, within};

#[test]
fn an_instance_is_made_inert_and_known_by_its_labels() {
    on_engine("an_instance_is_made_inert_and_known_by_its_labels", |place| async move {
        let mut spec = place.idle("web");
        spec.settings.labels.insert("team".to_owned(), "shop".to_owned());
        spec.settings.labels.insert(label::APP.to_owned(), "forged/app".to_owned());
        spec.address = Some("10.1.2.3:80".parse().unwrap());
        place.create(&spec).await;

        let found = place.found(&spec.name).await;
        assert_eq!(found.state, InstanceState::Created);
        assert_eq!((found.restart, found.ours), (RestartPolicy::No, true));
        assert_eq!((&found.name, &found.service, found.role), (&spec.name, &spec.service, spec.role));
        assert_eq!((&found.release, found.slot, found.replica), (&spec.release, spec.slot, spec.replica));
        assert_eq!((found.run, found.spec, found.address), (spec.run, spec.hash(), spec.address));
        let container = place.container(&spec).await;
        assert_eq!(container.restart, EnginePolicy::No);
        assert_eq!(container.labels["team"], "shop");
        assert_eq!(container.labels[label::APP], place.app.to_string());
    });
}

#[test]
fn making_one_twice_is_one_and_another_of_its_name_is_refused() {
    on_engine("making_one_twice_is_one_and_another_of_its_name_is_refused", |place| async move {
        let spec = place.started(place.idle("web")).await;
        place.create(&spec).await;
        assert!(place.found(&spec.name).await.is_running());

        let mut other = spec.clone();
        other.replica = 2;
        let (kind, message) = kind(place.runtime.create(&other, &Secrets::new()).await);
        assert_eq!(kind, RuntimeErrorKind::Exists, "{message}");
        assert_eq!(place.found(&spec.name).await.replica, 1);
    });
}

#[test]
fn values_are_filled_in_and_reach_the_environment_only() {
    on_engine("values_are_filled_in_and_reach_the_environment_only", |place| async move {
        let values: Secrets = [("DB_PASSWORD", "hunter2-secret"), ("SLOT", "forged")]
            .into_iter()
            .map(|(name, value)| (name.parse().unwrap(), Secret::new(value)))
            .collect();
        let mut spec = place.script("web", "echo \"$DSN $SLOT $FILE $PEER\"");
        let variables = [
            ("DSN", "db://u:${DB_PASSWORD}@db"),
            ("SLOT", "mine"),
            ("FILE", "${databases.main.file}"),
            ("PEER", "${services.api.url}"),
        ];
        for (name, template) in variables {
            spec.settings.environment.insert(name.parse().unwrap(), template.parse().unwrap());
        }
        spec.given.insert("SLOT".parse().unwrap(), "blue".to_owned());
        spec.files.insert("main".parse().unwrap(), "/data/app.db".to_owned());
        spec.urls.insert("api".parse().unwrap(), "http://api:80".to_owned());
        within(place.runtime.create(&spec, &values)).await.unwrap();
        place.start(&spec).await;
        assert_eq!(place.output(&spec).await, ["db://u:hunter2-secret@db blue /data/app.db http://api:80"]);

        // `Debug` hides the environment, and shows all else.
        let shown = format!("{:?} {:?}", place.container(&spec).await, place.found(&spec.name).await);
        assert!(!shown.contains("hunter2"), "{shown}");
    });
}

#[test]
fn a_missing_value_is_named_and_a_secret_is_no_argument() {
    on_engine("a_missing_value_is_named_and_a_secret_is_no_argument", |place| async move {
        let values: Secrets =
            [("TOKEN".parse().unwrap(), Secret::new("hunter2-secret"))].into_iter().collect();
        let mut missing = place.idle("web");
        missing.settings.environment.insert("DSN".parse().unwrap(), "${ABSENT:?set it}".parse().unwrap());
        let (refusal, message) = kind(place.runtime.create(&missing, &values).await);
        assert_eq!(refusal, RuntimeErrorKind::Refused);
        assert!(
            message.contains("DSN") && message.contains("ABSENT") && message.contains("set it"),
            "{message}"
        );

        let mut argument = place.idle("web");
        argument.settings.command = Some(vec!["run".parse().unwrap(), "${TOKEN}".parse().unwrap()]);
        let (refusal, message) = kind(place.runtime.create(&argument, &values).await);
        assert_eq!(refusal, RuntimeErrorKind::Refused);
        assert!(message.contains("TOKEN") && !message.contains("hunter2"), "{message}");
        assert_eq!(place.runtime.list(&place.app).await.unwrap(), []);
    });
}

#[test]
fn each_act_of_a_life_can_be_repeated() {
    on_engine("each_act_of_a_life_can_be_repeated", |place| async move {
        let spec = place.started(place.idle("web")).await;
        place.start(&spec).await;
        let InstanceState::Running { since, restarts: 0 } = place.state(&spec.name).await else {
            panic!("it does not run")
        };
        assert!(since.duration_until(jiff::Timestamp::now()).as_secs() < 30);
        let (refusal, message) = kind(place.runtime.remove(&place.app, &spec.name).await);
        assert_eq!(refusal, RuntimeErrorKind::Refused, "{message}");

        place.stop(&spec).await;
        place.stop(&spec).await;
        let InstanceState::Exited { exit } = place.state(&spec.name).await else { panic!("it runs") };
        assert_eq!((exit.code, exit.signal, exit.error), (Some(0), None, None));
        place.remove(&spec).await;
        place.remove(&spec).await;
        place.stop(&spec).await;
        assert_eq!(place.runtime.inspect(&place.app, &spec.name).await.unwrap(), None);
        assert_eq!(kind(place.runtime.start(&place.app, &spec.name).await).0, RuntimeErrorKind::Gone);
        assert_eq!(kind(place.runtime.exited(&place.app, &spec.name).await).0, RuntimeErrorKind::Gone);
    });
}

#[test]
fn another_installations_instances_are_seen_and_left_alone() {
    on_engine("another_installations_instances_are_seen_and_left_alone", |place| async move {
        let spec = place.started(place.idle("web")).await;
        let (app, name, neighbour) = (&place.app, &spec.name, place.neighbour());
        let seen = neighbour.list(app).await.unwrap();
        assert_eq!((seen.len(), seen[0].ours), (1, false));
        let acts = [
            kind(neighbour.stop(app, name, &spec.settings.stop).await),
            kind(neighbour.start(app, name).await),
            kind(neighbour.remove(app, name).await),
            kind(neighbour.set_restart(app, name, RestartPolicy::UnlessStopped).await),
        ];
        for (refusal, message) in acts {
            assert_eq!(refusal, RuntimeErrorKind::Refused);
            assert!(message.contains("another installation"), "{message}");
        }
        assert_eq!(kind(neighbour.create(&spec, &Secrets::new()).await).0, RuntimeErrorKind::Exists);
        assert!(place.found(name).await.is_running());
    });
}

#[test]
fn content_that_is_not_there_is_told() {
    on_engine("content_that_is_not_there_is_told", |place| async move {
        let mut spec = place.idle("web");
        spec.content = Content::Image {
            reference: "cutover-test/nowhere:0".to_owned(),
            identity: spec.content.identity().clone(),
            name: None,
            origin: None,
        };
        let (refusal, message) = kind(place.runtime.create(&spec, &Secrets::new()).await);
        assert_eq!(refusal, RuntimeErrorKind::Content);
        assert!(message.contains("cutover-test/nowhere:0 is not on this host"), "{message}");
        assert_eq!(place.runtime.image("cutover-test/nowhere:0").await.unwrap(), None);

        let mut spec = place.idle("web");
        spec.settings.command = Some(vec!["/nope".parse().unwrap()]);
        place.create(&spec).await;
        let (refusal, message) = kind(place.runtime.start(&place.app, &spec.name).await);
        assert_eq!(refusal, RuntimeErrorKind::Content, "{message}");
        assert!(message.contains("/nope"), "{message}");
        let exit = place.exited(&spec).await;
        assert!(exit.error.as_deref().is_some_and(|error| error.contains("/nope")), "{exit:?}");
    });
}

#[test]
fn an_end_is_heard_at_once_and_says_how() {
    on_engine("an_end_is_heard_at_once_and_says_how", |place| async move {
        let cases = [("exit 3", Some(3), None), ("kill -9 $$", None, Some(9)), ("exit 0", Some(0), None)];
        for (ending, code, signal) in cases {
            // A shell that is process 1 cannot be killed from inside.
            let script = format!("while [ ! -e /tmp/go ]; do sleep 0.02; done; {ending}");
            let mut spec = place.script("web", &script);
            spec.settings.init = Some(signal.is_some());
            let spec = place.started(spec).await;
            let end = place.exited(&spec);
            let told = async {
                assert_eq!(place.inside(&spec, ": > /tmp/go").await.0, 0);
                Instant::now()
            };
            let (exit, told) = tokio::join!(end, told);
            let delay = told.elapsed();
            assert_eq!((exit.code, exit.signal, exit.out_of_memory), (code, signal, false), "{ending}");
            println!("{ending}: heard {delay:?} after it was told to");
            // Again, now that it has ended: at once, and the same.
            assert_eq!(place.exited(&spec).await, place.exited(&spec).await);
        }
    });
}

#[test]
fn a_kill_by_hand_is_an_end_that_no_policy_hides() {
    on_engine("a_kill_by_hand_is_an_end_that_no_policy_hides", |place| async move {
        let spec = place.started(place.idle("web")).await;
        place.runtime.set_restart(&place.app, &spec.name, RestartPolicy::UnlessStopped).await.unwrap();
        assert_eq!(place.found(&spec.name).await.restart, RestartPolicy::UnlessStopped);
        let id = place.container(&spec).await.id;
        let (exit, killed) = tokio::join!(place.exited(&spec), async {
            // The one who waits has to be listening first; both orders are right, this one is the harder.
            tokio::task::yield_now().await;
            place.engine.signal(&id, "SIGKILL").await
        });
        killed.unwrap();
        assert_eq!((exit.code, exit.signal), (None, Some(9)));
        assert!(matches!(place.state(&spec.name).await, InstanceState::Exited { .. }));
        // As `watch` does: started again, its policy is as it was.
        place.start(&spec).await;
        assert_eq!(place.found(&spec.name).await.restart, RestartPolicy::UnlessStopped);
    });
}

#[test]
fn a_crash_with_a_policy_is_an_end_too_and_counted() {
    on_engine("a_crash_with_a_policy_is_an_end_too_and_counted", |place| async move {
        let script = "while [ ! -e /tmp/go ]; do sleep 0.02; done; rm /tmp/go; exit 7";
        let spec = place.started(place.script("web", script)).await;
        place.runtime.set_restart(&place.app, &spec.name, RestartPolicy::UnlessStopped).await.unwrap();
        let (exit, _) = tokio::join!(place.exited(&spec), place.inside(&spec, ": > /tmp/go"));
        assert_eq!(exit.code, Some(7));
        until("it runs again", async || {
            matches!(place.state(&spec.name).await, InstanceState::Running { restarts: 1, .. })
        })
        .await;
        // Without the policy an exit is an exit.
        place.runtime.set_restart(&place.app, &spec.name, RestartPolicy::No).await.unwrap();
        let (exit, _) = tokio::join!(place.exited(&spec), place.inside(&spec, ": > /tmp/go"));
        assert_eq!(exit.code, Some(7));
        assert!(matches!(place.state(&spec.name).await, InstanceState::Exited { .. }));
    });
}

#[test]
fn running_out_of_memory_is_told_apart() {
    on_engine("running_out_of_memory_is_told_apart", |place| async move {
        if !place.engine.info().await.unwrap().limits_memory {
            return place::not_run("running_out_of_memory_is_told_apart", "the engine cannot limit memory");
        }
        let mut spec = place.script("web", "x=y; while :; do x=$x$x; done");
        spec.settings.memory = Some(16 << 20);
        let spec = place.started(spec).await;
        let exit = place.exited(&spec).await;
        assert!(exit.out_of_memory, "{exit:?}");
    });
}

#[test]
fn a_stop_uses_its_signal_its_grace_and_then_kills() {
    on_engine("a_stop_uses_its_signal_its_grace_and_then_kills", |place| async move {
        let loops = "echo up; while :; do sleep 0.05; done";
        let mut own = place.script("web", &format!("trap 'exit 12' USR1; {loops}"));
        own.settings.stop.signal = Some("USR1".to_owned());
        let own = place.started(own).await;
        place.says(&own, "up").await;
        place.stop(&own).await;
        assert_eq!(place.exited(&own).await.code, Some(12));

        // Made without a signal of its own, stopped with one.
        let mut other = place.started(place.script("web", &format!("trap 'exit 13' USR2; {loops}"))).await;
        place.says(&other, "up").await;
        place.runtime.set_restart(&place.app, &other.name, RestartPolicy::UnlessStopped).await.unwrap();
        other.settings.stop.signal = Some("SIGUSR2".to_owned());
        place.stop(&other).await;
        assert_eq!(place.exited(&other).await.code, Some(13));

        let mut deaf = place.started(place.script("web", &format!("trap '' TERM; {loops}"))).await;
        place.says(&deaf, "up").await;
        deaf.settings.stop.grace = Duration::from_secs(1);
        let begun = Instant::now();
        place.stop(&deaf).await;
        assert_eq!(place.exited(&deaf).await.signal, Some(9));
        assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
    });
}

#[test]
fn an_end_is_that_of_the_processes_and_a_removal_waits_for_the_rest() {
    on_engine("an_end_is_that_of_the_processes_and_a_removal_waits_for_the_rest", |place| async move {
        let end = async |spec: &InstanceSpec| {
            within(place.runtime.end(&place.app, &spec.name, &spec.settings.stop)).await.unwrap();
        };
        let web = place.started(place.idle("web")).await;
        let namespace = place.runtime.network_namespace(&place.app, &web.name).await.unwrap().unwrap();
        assert!(namespace.exists());

        end(&web).await;

        assert!(!namespace.exists(), "its process is no more");
        place.remove(&web).await;
        assert_eq!(place.runtime.inspect(&place.app, &web.name).await.unwrap(), None);
        end(&web).await;

        // One that the engine would start again has ended when the engine says so.
        let kept = place.started(place.idle("worker")).await;
        place.runtime.set_restart(&place.app, &kept.name, RestartPolicy::UnlessStopped).await.unwrap();
        end(&kept).await;
        assert!(matches!(place.state(&kept.name).await, InstanceState::Exited { .. }));
        end(&kept).await;
    });
}

#[test]
fn output_is_told_by_stream_by_count_and_by_start() {
    on_engine("output_is_told_by_stream_by_count_and_by_start", |place| async move {
        let script =
            format!("n=$(cat /tmp/n || echo 0); echo $((n+1)) > /tmp/n; echo start $n; echo bad >&2; {IDLE}");
        let spec = place.started(place.script("web", &script)).await;
        place.says(&spec, "bad").await;
        let lines = place.runtime.logs(&place.app, &spec.name, &LogQuery::default()).await.unwrap();
        let told: Vec<_> = lines.iter().map(|line| (line.text.as_str(), line.error)).collect();
        assert!(told.contains(&("start 0", false)) && told.contains(&("bad", true)), "{told:?}");
        assert!(lines.iter().all(|line| line.at.is_some()));

        let this_start = LogQuery { scope: Scope::ThisStart, ..LogQuery::default() };
        assert!(place.log(&spec, &this_start).await.contains(&"start 0".to_owned()));
        place.stop(&spec).await;
        place.start(&spec).await;
        place.says(&spec, "start 1").await;
        let newest = place.log(&spec, &this_start).await;
        assert!(
            !newest.contains(&"start 0".to_owned()) && newest.contains(&"start 1".to_owned()),
            "{newest:?}"
        );
        place.stop(&spec).await;
        let ended = place.log(&spec, &this_start).await;
        assert!(ended.contains(&"start 1".to_owned()), "{ended:?}");

        let last = LogQuery { tail: Some(1), ..LogQuery::default() };
        assert_eq!(place.log(&spec, &last).await.len(), 1);
        let later = LogQuery { since: Some(jiff::Timestamp::now()), ..LogQuery::default() };
        assert_eq!(place.log(&spec, &later).await, [] as [&str; 0]);
    });
}

#[test]
fn one_that_is_paused_stands_still_and_goes_on_as_often_as_it_is_asked() {
    on_engine("one_that_is_paused_stands_still_and_goes_on_as_often_as_it_is_asked", |place| async move {
        let script = "trap 'exit 0' TERM; while :; do echo on; sleep 0.05 & wait $!; done";
        let spec = place.started(place.script("web", script)).await;
        place.says(&spec, "on").await;
        let (app, name) = (&place.app, &spec.name);

        for _ in 0..2 {
            within(place.runtime.pause(app, name)).await.unwrap();
        }
        assert_eq!(place.container(&spec).await.state, State::Paused);
        assert!(place.found(name).await.is_running(), "watch would start it");
        for _ in 0..2 {
            within(place.runtime.resume(app, name)).await.unwrap();
        }
        let lines = async || place.log(&spec, &LogQuery::default()).await.len();
        let before = lines().await;
        until("it goes on", async || lines().await > before).await;

        // Paused by somebody who was killed, it is stopped all the same.
        within(place.runtime.pause(app, name)).await.unwrap();
        place.stop(&spec).await;
        assert!(!place.found(name).await.is_running());
        within(place.runtime.resume(app, name)).await.unwrap();
        place.remove(&spec).await;
        within(place.runtime.resume(app, name)).await.unwrap();
        let (kind, message) = kind(within(place.runtime.pause(app, name)).await);
        assert_eq!(kind, RuntimeErrorKind::Gone, "{message}");
    });
}

#[test]
fn commands_run_inside_and_have_their_time() {
    on_engine("commands_run_inside_and_have_their_time", |place| async move {
        let spec = place.started(place.idle("web")).await;
        assert_eq!(place.inside(&spec, "echo out; echo err >&2; exit 4").await, (4, "out\nerr".to_owned()));
        let slow =
            Exec { words: vec!["sleep".to_owned(), "30".to_owned()], timeout: Duration::from_millis(200) };
        assert_eq!(kind(place.runtime.exec(&place.app, &spec.name, &slow).await).0, RuntimeErrorKind::Late);
        let absent = Exec { words: vec!["/nope".to_owned()], timeout: place::DEADLINE };
        let ended = place.runtime.exec(&place.app, &spec.name, &absent).await.unwrap();
        assert!(matches!(ended.exit.code, Some(126 | 127)), "{ended:?}");
        place.stop(&spec).await;
        assert_eq!(kind(place.runtime.exec(&place.app, &spec.name, &absent).await).0, RuntimeErrorKind::Gone);
    });
}

#[test]
fn a_lost_engine_is_an_error_and_an_end_meanwhile_is_told_afterwards() {
    on_engine("a_lost_engine_is_an_error_and_an_end_meanwhile_is_told_afterwards", |place| async move {
        let path = place.folder().join("engine.sock");
        let mut line = Line::to(&place, path.clone());
        let engine = cutover_engine::Engine::connect_to(&format!("unix://{}", path.display())).await.unwrap();
        let far =
            cutover_host::runtime::docker::DockerRuntime::on(engine, &place.layout, &place.installation);
        let spec = place.started(place.idle("web")).await;
        assert_eq!(far.list(&place.app).await.unwrap().len(), 1);

        let waiting = tokio::spawn({
            let (far, app, name) = (far.clone(), place.app.clone(), spec.name.clone());
            async move { far.exited(&app, &name).await }
        });
        until("the line carries the events", async || line.carried() > 0).await;
        line.cut().await;
        assert_eq!(kind(far.list(&place.app).await).0, RuntimeErrorKind::Unreachable);
        assert_eq!(kind(far.inspect(&place.app, &spec.name).await).0, RuntimeErrorKind::Unreachable);
        place.stop(&spec).await;
        assert!(!waiting.is_finished());
        line.mend();
        let exit = within(waiting).await.unwrap().unwrap();
        assert_eq!(exit.code, Some(0));
    });
}

/// A way to the engine that can be cut.
struct Line {
    engine: std::path::PathBuf,
    path: std::path::PathBuf,
    carrying: Option<tokio::task::JoinHandle<()>>,
    carried: std::sync::Arc<std::sync::atomic::AtomicUsize>,
}

impl Line {
    fn to(place: &Place, path: std::path::PathBuf) -> Self {
        let engine = place.engine.address().trim_start_matches("unix://").into();
        let mut line = Self { engine, path, carrying: None, carried: std::sync::Arc::default() };
        line.mend();
        line
    }

    fn mend(&mut self) {
        let listener = tokio::net::UnixListener::bind(&self.path).unwrap();
        let (engine, carried) = (self.engine.clone(), self.carried.clone());
        self.carrying = Some(tokio::spawn(async move {
            let mut streams = tokio::task::JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                let mut far = tokio::net::UnixStream::connect(&engine).await.unwrap();
                carried.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                streams.spawn(async move { tokio::io::copy_bidirectional(&mut near, &mut far).await });
            }
        }));
    }

    /// Connections so far.
    fn carried(&self) -> usize {
        self.carried.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// All connections with it.
    async fn cut(&mut self) {
        let carrying = self.carrying.take().unwrap();
        carrying.abort();
        assert!(carrying.await.unwrap_err().is_cancelled());
        std::fs::remove_file(&self.path).unwrap();
    }
}

#[test]
fn an_image_is_known_by_its_content() {
    on_engine("an_image_is_known_by_its_content", |place| async move {
        let image = place.runtime.image(BASE).await.unwrap().unwrap();
        assert_eq!(place.runtime.image(&image.id).await.unwrap().unwrap(), image);
        assert_eq!((image.healthcheck, image.exposed), (false, vec![]));
        assert!(image.platform.starts_with("linux/"), "{}", image.platform);
    });
}

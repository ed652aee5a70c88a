//! The process runtime with real keepers and real processes.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test, which prints what it measured")]

#[path = "support/rig.rs"]
mod rig;

use std::time::{Duration, Instant};

use cutover_core::secret::{Secret, Secrets};
use cutover_core::state::{InstanceState, RestartPolicy};
use cutover_host::ports::{Exec, LogQuery, Runtime, RuntimeErrorKind, Scope};
use rig::{Rig, kill, lives, read_lines, until, within};

/// Writes down that it is alone, or not, until it is told to end.
const SINGLETON: &str = "
    mkdir $SCRATCH/alone || echo overlap >> $SCRATCH/overlaps
    trap 'rmdir $SCRATCH/alone; exit 0' TERM
    echo $$ >> $SCRATCH/starts
    while :; do sleep 0.02; done";

#[tokio::test]
async fn an_instance_is_created_inert_then_started_stopped_and_removed() {
    let rig = Rig::new();
    let spec = rig.script("echo hello; echo trouble >&2; exec sleep 1000");

    rig.create(&spec).await;
    rig.create(&spec).await;
    let found = rig.runtime.list(&rig.app).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].state, InstanceState::Created);
    assert_eq!((found[0].restart, found[0].ours), (RestartPolicy::No, true));
    assert_eq!(found[0].spec, spec.hash());

    let clock = Instant::now();
    rig.start(&spec).await;
    println!("started in {:?}", clock.elapsed());
    rig.start(&spec).await;
    assert!(matches!(rig.state(&spec.name).await, InstanceState::Running { restarts: 0, .. }));
    assert!(rig.runtime.is_kept(&rig.app, &spec.name).await.unwrap());
    let refused = rig.runtime.remove(&rig.app, &spec.name).await.unwrap_err();
    assert_eq!(refused.kind, RuntimeErrorKind::Refused);

    let child = rig.child_pid(&spec);
    rig.stop(&spec).await;
    rig.stop(&spec).await;
    assert!(!lives(child));
    let InstanceState::Exited { exit } = rig.state(&spec.name).await else { panic!("not exited") };
    assert_eq!((exit.code, exit.signal), (None, Some(15)));
    let mut log = rig.log(&spec).await;
    log.sort();
    assert_eq!(log, ["hello", "trouble"]);

    rig.runtime.remove(&rig.app, &spec.name).await.unwrap();
    rig.runtime.remove(&rig.app, &spec.name).await.unwrap();
    assert_eq!(rig.runtime.inspect(&rig.app, &spec.name).await.unwrap(), None);
    assert!(!rig.layout.keeper_socket(&rig.app, &spec.name).exists());
    assert!(!rig.layout.instance_log(&rig.app, &spec.name).exists());
}

#[tokio::test]
async fn one_that_is_paused_stands_still_with_all_that_it_started_and_its_keeper_answers() {
    let rig = Rig::new();
    let busy = "while :; do echo on >> $SCRATCH/$NAME; sleep 0.01; done";
    let spec = rig
        .started(&format!("export NAME=left; setsid sh -c '{busy}' & export NAME=own; sh -c '{busy}' & wait"))
        .await;
    let written = |name: &str| std::fs::metadata(rig.scratch(name)).map_or(0, |found| found.len());
    let grows = async |than: (u64, u64)| {
        until("it goes on", || written("own") > than.0 && written("left") > than.1).await;
    };
    grows((0, 0)).await;

    for _ in 0..2 {
        rig.runtime.pause(&rig.app, &spec.name).await.unwrap();
    }
    let still = (written("own"), written("left"));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!((written("own"), written("left")), still, "something goes on");
    assert!(matches!(rig.state(&spec.name).await, InstanceState::Running { restarts: 0, .. }));
    assert!(rig.runtime.is_kept(&rig.app, &spec.name).await.unwrap());

    for _ in 0..2 {
        rig.runtime.resume(&rig.app, &spec.name).await.unwrap();
    }
    grows(still).await;
    // Paused by somebody who was killed, it is stopped all the same.
    rig.runtime.pause(&rig.app, &spec.name).await.unwrap();
    rig.stop(&spec).await;
    rig.runtime.remove(&rig.app, &spec.name).await.unwrap();
    rig.runtime.resume(&rig.app, &spec.name).await.unwrap();
    let gone = rig.runtime.pause(&rig.app, &spec.name).await.unwrap_err();
    assert_eq!(gone.kind, RuntimeErrorKind::Gone);
}

#[tokio::test]
async fn another_specification_under_the_same_name_is_refused() {
    let rig = Rig::new();
    let spec = rig.script("exec sleep 1000");
    rig.create(&spec).await;
    let mut other = spec.clone();
    other.replica = 2;
    let error = rig.runtime.create(&other, &Secrets::new()).await.unwrap_err();
    assert_eq!(error.kind, RuntimeErrorKind::Exists);
}

#[tokio::test]
async fn an_exit_is_heard_at_once_and_stays_known() {
    let rig = Rig::new();
    let spec = rig
        .started("while [ ! -e $SCRATCH/go ]; do sleep 0.01; done; date +%s%N > $SCRATCH/end; exit 3")
        .await;
    let exited = rig.exited(&spec);
    let go = async { std::fs::write(rig.scratch("go"), "").unwrap() };

    let (exit, ()) = tokio::join!(exited, go);

    let ended: i128 = read_lines(&rig.scratch("end"))[0].parse().unwrap();
    let delay = jiff::Timestamp::now().as_nanosecond() - ended;
    println!("heard {} ms after the end", delay / 1_000_000);
    assert!(delay < 300_000_000, "{delay} ns");
    assert_eq!((exit.code, exit.signal), (Some(3), None));
    assert_eq!(rig.exited(&spec).await, exit, "again, when it has long ended");
    assert_eq!(rig.state(&spec.name).await, InstanceState::Exited { exit });
    within(rig.runtime.unkept(&rig.app, &spec.name)).await.unwrap();
}

#[tokio::test]
async fn a_crashed_instance_is_started_again_with_growing_pauses() {
    let rig = Rig::new();
    let spec = rig.started("date +%s%N >> $SCRATCH/starts; sleep 0.05; exit 1").await;
    rig.runtime.set_restart(&rig.app, &spec.name, RestartPolicy::UnlessStopped).await.unwrap();

    let starts = rig.lines("starts", 4).await;

    let starts: Vec<u128> = starts.iter().map(|start| start.parse().unwrap()).collect();
    let pauses: Vec<u128> = starts.windows(2).map(|pair| (pair[1] - pair[0]) / 1_000_000).collect();
    println!("pauses between starts: {pauses:?} ms");
    assert!(pauses[0] >= 100 && pauses[1] >= 200 && pauses[2] >= 400, "{pauses:?}");
    let (InstanceState::Running { restarts, .. } | InstanceState::Restarting { restarts, .. }) =
        rig.state(&spec.name).await
    else {
        panic!("given up")
    };
    assert!(restarts >= 3, "{restarts}");

    rig.runtime.set_restart(&rig.app, &spec.name, RestartPolicy::No).await.unwrap();
    within(rig.runtime.unkept(&rig.app, &spec.name)).await.unwrap();
    let InstanceState::Exited { exit } = rig.state(&spec.name).await else { panic!("goes on") };
    assert_eq!(exit.code, Some(1));
}

#[tokio::test]
async fn a_process_killed_by_hand_is_back_within_a_second() {
    let rig = Rig::new();
    let spec = rig.started("echo $$ >> $SCRATCH/starts; exec sleep 1000").await;
    rig.runtime.set_restart(&rig.app, &spec.name, RestartPolicy::UnlessStopped).await.unwrap();
    let first = rig.lines("starts", 1).await;
    let clock = Instant::now();

    kill(first[0].parse().unwrap());
    rig.lines("starts", 2).await;

    println!("back after {:?}", clock.elapsed());
    assert!(clock.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn a_stopped_instance_sleeps_until_it_is_started() {
    let rig = Rig::new();
    let spec = rig.started("exec sleep 1000").await;
    rig.runtime.set_restart(&rig.app, &spec.name, RestartPolicy::UnlessStopped).await.unwrap();
    let policy = async || rig.runtime.inspect(&rig.app, &spec.name).await.unwrap().unwrap().restart;
    assert_eq!(policy().await, RestartPolicy::UnlessStopped);

    rig.stop(&spec).await;
    assert_eq!(policy().await, RestartPolicy::No);
    assert!(!rig.runtime.is_kept(&rig.app, &spec.name).await.unwrap());

    rig.start(&spec).await;
    assert_eq!(policy().await, RestartPolicy::UnlessStopped);
}

#[tokio::test]
async fn stop_ends_the_whole_group_and_what_left_it() {
    let rig = Rig::new();
    let mut spec = rig.script(
        "trap '' TERM; sh -c 'trap \"\" TERM; echo $$ >> $SCRATCH/pids; while :; do sleep 1; done' &
         setsid sh -c 'echo $$ >> $SCRATCH/pids; sleep 1000 & echo $! >> $SCRATCH/pids; wait' &
         echo $$ >> $SCRATCH/pids; while :; do sleep 1; done",
    );
    spec.settings.stop.grace = Duration::from_millis(200);
    rig.create(&spec).await;
    rig.start(&spec).await;
    let pids: Vec<i32> = rig.lines("pids", 4).await.iter().map(|pid| pid.parse().unwrap()).collect();
    assert!(pids.iter().all(|pid| lives(*pid)));
    let clock = Instant::now();

    rig.stop(&spec).await;

    assert!(clock.elapsed() >= Duration::from_millis(200), "the grace was kept");
    assert_eq!(pids.iter().filter(|pid| lives(**pid)).count(), 0);
    let InstanceState::Exited { exit } = rig.state(&spec.name).await else { panic!("not exited") };
    assert_eq!(exit.signal, Some(9));
}

#[tokio::test]
async fn an_exit_takes_along_what_it_left_behind() {
    let rig = Rig::new();
    let spec = rig
        .started("setsid sleep 1000 & echo $! > $SCRATCH/left; sleep 1000 & echo $! >> $SCRATCH/left; exit 0")
        .await;

    assert_eq!(rig.exited(&spec).await.code, Some(0));

    let left = read_lines(&rig.scratch("left"));
    assert_eq!(left.len(), 2);
    assert!(left.iter().all(|pid| !lives(pid.parse().unwrap())));
}

#[tokio::test]
async fn after_a_killed_keeper_the_orphan_ends_before_a_new_start() {
    let rig = Rig::new();
    let spec = rig.started(SINGLETON).await;
    rig.runtime.set_restart(&rig.app, &spec.name, RestartPolicy::UnlessStopped).await.unwrap();
    let first: i32 = rig.lines("starts", 1).await[0].parse().unwrap();

    rig.kill_keeper(&spec).await;
    assert!(lives(first));
    assert!(matches!(rig.state(&spec.name).await, InstanceState::Running { .. }), "an orphan runs");
    assert!(!rig.runtime.is_kept(&rig.app, &spec.name).await.unwrap());

    rig.start(&spec).await;
    let second: i32 = rig.lines("starts", 2).await[1].parse().unwrap();
    assert!(!lives(first) && lives(second));
    assert_eq!(read_lines(&rig.scratch("overlaps")), Vec::<String>::new());
    let found = rig.runtime.inspect(&rig.app, &spec.name).await.unwrap().unwrap();
    assert_eq!(found.restart, RestartPolicy::UnlessStopped);
}

#[tokio::test]
async fn an_orphan_that_left_its_session_and_its_record_is_found_by_its_environment() {
    let rig = Rig::new();
    let spec = rig.started("setsid sh -c 'echo $$ > $SCRATCH/left; exec sleep 1000' & wait").await;
    let left: i32 = rig.lines("left", 1).await[0].parse().unwrap();
    let child = rig.child_pid(&spec);
    rig.kill_keeper(&spec).await;
    std::fs::remove_file(rig.file(&spec, "state.json")).unwrap();
    assert!(matches!(rig.state(&spec.name).await, InstanceState::Running { .. }));

    rig.stop(&spec).await;

    assert!(!lives(left) && !lives(child));
    assert!(matches!(rig.state(&spec.name).await, InstanceState::Exited { .. }));
}

#[tokio::test]
async fn an_orphan_writes_on_without_its_keeper() {
    let rig = Rig::new();
    let spec = rig
        .started("while [ ! -e $SCRATCH/go ]; do sleep 0.01; done; echo into the pipe; echo $? > $SCRATCH/wrote; exec sleep 1000")
        .await;
    rig.kill_keeper(&spec).await;

    std::fs::write(rig.scratch("go"), "").unwrap();

    assert_eq!(rig.lines("wrote", 1).await, ["0"]);
}

#[tokio::test]
async fn the_end_of_an_orphan_is_heard_too() {
    let rig = Rig::new();
    let spec = rig.started("exec sleep 1000").await;
    let child = rig.child_pid(&spec);
    let exited = rig.exited(&spec);
    let kills = async {
        rig.kill_keeper(&spec).await;
        kill(child);
    };

    let (exit, ()) = tokio::join!(exited, kills);

    assert_eq!((exit.code, exit.signal), (None, None), "nobody heard how");
    assert!(matches!(rig.state(&spec.name).await, InstanceState::Exited { .. }));
}

#[tokio::test]
async fn a_keeper_that_hangs_is_replaced() {
    let rig = Rig::new();
    let spec = rig.started(SINGLETON).await;
    rig.lines("starts", 1).await;
    let keeper = rig.keeper_pid(&spec);
    let pid = rustix::process::Pid::from_raw(keeper).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();

    rig.start(&spec).await;

    rig.lines("starts", 2).await;
    assert!(!lives(keeper));
    assert_eq!(read_lines(&rig.scratch("overlaps")), Vec::<String>::new());
}

#[tokio::test]
async fn two_starts_at_once_give_one_process() {
    let rig = Rig::new();
    let spec = rig.script(SINGLETON);
    rig.create(&spec).await;

    tokio::join!(rig.start(&spec), rig.start(&spec), rig.start(&spec));

    rig.lines("starts", 1).await;
    rig.stop(&spec).await;
    assert_eq!(read_lines(&rig.scratch("starts")).len(), 1);
    assert_eq!(read_lines(&rig.scratch("overlaps")), Vec::<String>::new());
}

#[tokio::test]
async fn a_keeper_for_whom_nobody_waits_begins_nothing() {
    let rig = Rig::new();
    let spec = rig.script("echo $$ >> $SCRATCH/starts; exec sleep 1000");
    rig.create(&spec).await;
    std::fs::write(rig.file(&spec, "keeper.lock"), "").unwrap();
    // Whoever started it was killed before it could begin: the pipe has no reader.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);

    let mut keeper = rig.keeper(&spec).stdout(writer).spawn().unwrap();
    let ended = within(tokio::task::spawn_blocking(move || keeper.wait())).await.unwrap().unwrap();

    assert!(ended.success(), "{ended}");
    assert_eq!(rig.processes(&[]), [0; 0]);
    rig.start(&spec).await;
    assert_eq!(rig.lines("starts", 1).await.len(), 1);
}

#[tokio::test]
async fn what_cannot_be_executed_is_told_with_its_cause() {
    let rig = Rig::new();
    let place = |name: &str, text: &str, mode: u32| {
        use std::os::unix::fs::PermissionsExt;
        let path = rig.artifact().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    place("plain", "#!/bin/sh\n", 0o644);
    place("no-program", "neither a script nor a program\n", 0o755);
    place("no-interpreter", "#!/nowhere/at/all\n", 0o755);
    let cases = [
        ("./absent", "is not there"),
        ("no-such-program-anywhere", "PATH"),
        ("./plain", "execute bit"),
        ("./no-program", "no program of this machine"),
        ("./no-interpreter", "interpreter"),
    ];
    for (program, cause) in cases {
        let spec = rig.command(&[program]);
        rig.create(&spec).await;

        let error = within(rig.runtime.start(&rig.app, &spec.name)).await.unwrap_err();

        assert_eq!(error.kind, RuntimeErrorKind::Content, "{error}");
        assert!(error.to_string().contains(cause), "{error}");
        let InstanceState::Exited { exit } = rig.state(&spec.name).await else { panic!("not exited") };
        assert!(exit.error.unwrap().contains(cause));
    }
}

#[tokio::test]
async fn values_reach_the_process_and_nothing_else() {
    let rig = Rig::new();
    let mut spec = rig.script("env > $SCRATCH/env; exec sleep 1000");
    let environment = &mut spec.settings.environment;
    environment.insert("TOKEN".parse().unwrap(), "${TOKEN}".parse().unwrap());
    environment.insert("URL".parse().unwrap(), "${services.api.url}/v1?k=${KEY:-none}".parse().unwrap());
    environment.insert("PORT".parse().unwrap(), "1".parse().unwrap());
    spec.given.insert("PORT".parse().unwrap(), "20001".to_owned());
    spec.urls.insert("api".parse().unwrap(), "http://127.0.0.1:20002".to_owned());
    let missing = rig.runtime.create(&spec, &Secrets::new()).await.unwrap_err();
    assert!(missing.to_string().contains("TOKEN"), "{missing}");
    let mut values = Secrets::new();
    values.insert("TOKEN".parse().unwrap(), Secret::new("hunter2 with \"quotes\"\nand lines"));

    rig.runtime.create(&spec, &values).await.unwrap();
    rig.start(&spec).await;
    let seen = rig.lines("env", 8).await.join("\n");

    let id = format!("CUTOVER_INSTANCE=shop/production/{}", spec.name);
    for line in [
        "TOKEN=hunter2 with \"quotes\"\nand lines",
        "URL=http://127.0.0.1:20002/v1?k=none",
        "PORT=20001",
        &id,
    ] {
        assert!(seen.contains(line), "{line} in {seen}");
    }
    assert!(!seen.contains("CARGO"), "the host's own environment stays outside: {seen}");
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&rig.file(&spec, "env").metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let mut elsewhere = vec![
        format!("/proc/{}/cmdline", rig.keeper_pid(&spec)),
        format!("/proc/{}/environ", rig.keeper_pid(&spec)),
    ];
    elsewhere.extend(
        ["spec.json", "state.json", "keeper.log"]
            .map(|name| rig.file(&spec, name).to_str().unwrap().to_owned()),
    );
    for file in elsewhere {
        let text = String::from_utf8_lossy(&std::fs::read(&file).unwrap()).into_owned();
        assert!(!text.contains("hunter2"), "{file}");
    }
}

#[tokio::test]
async fn a_command_never_carries_a_value() {
    let rig = Rig::new();
    let spec = rig.command(&["/bin/echo", "${TOKEN}"]);
    let mut values = Secrets::new();
    values.insert("TOKEN".parse().unwrap(), Secret::new("hunter2"));
    rig.runtime.create(&spec, &values).await.unwrap();
    let error = within(rig.runtime.start(&rig.app, &spec.name)).await.unwrap_err();
    assert!(error.to_string().contains("without a public value"), "{error}");
}

#[tokio::test]
async fn logs_are_whole_at_the_end_and_known_by_start() {
    let rig = Rig::new();
    let spec =
        rig.started("i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; printf unended").await;
    rig.exited(&spec).await;
    let log = rig.log(&spec).await;
    assert_eq!(log.len(), 2001);
    assert_eq!((log[0].as_str(), log[1999].as_str(), log[2000].as_str()), ("line 0", "line 1999", "unended"));

    rig.start(&spec).await;
    rig.exited(&spec).await;
    assert_eq!(rig.log(&spec).await.len(), 4002);
    let query = LogQuery { scope: Scope::ThisStart, ..LogQuery::default() };
    assert_eq!(rig.runtime.logs(&rig.app, &spec.name, &query).await.unwrap().len(), 2001);
}

#[tokio::test]
async fn a_command_runs_beside_an_instance_and_leaves_nothing() {
    let rig = Rig::new();
    let spec = rig.started("exec sleep 1000").await;
    let words = |script: &str| ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    let exec = |script: &str, timeout| Exec { words: words(script), timeout };

    let finished = exec("echo $CUTOVER_INSTANCE; echo trouble >&2; exit 4", rig::DEADLINE);
    let finished = rig.runtime.exec(&rig.app, &spec.name, &finished).await.unwrap();
    assert_eq!(finished.exit.code, Some(4));
    assert_eq!(finished.output, [format!("shop/production/{}", spec.name), "trouble".to_owned()]);

    let slow = exec("sleep 1000 & echo $! > $SCRATCH/slow; wait", Duration::from_millis(300));
    let error = within(rig.runtime.exec(&rig.app, &spec.name, &slow)).await.unwrap_err();
    assert_eq!(error.kind, RuntimeErrorKind::Late);
    let slow: i32 = rig.lines("slow", 1).await[0].parse().unwrap();
    until("the command's group is gone", || !lives(slow)).await;
}

#[tokio::test]
async fn a_command_that_a_killed_run_left_ends_with_its_instance() {
    let rig = Rig::new();
    let spec = rig.started("exec sleep 1000").await;
    // It waits until the other has left its group, which ends with it.
    let script = "setsid sh -c 'trap : TERM; echo $$ > $SCRATCH/left; while :; do sleep 1; done' > /dev/null 2>&1 & \
                  while [ ! -s $SCRATCH/left ]; do sleep 0.01; done";
    let words = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    rig.runtime.exec(&rig.app, &spec.name, &Exec { words, timeout: rig::DEADLINE }).await.unwrap();
    let left: i32 = rig.lines("left", 1).await[0].parse().unwrap();

    rig.stop(&spec).await;

    assert!(!lives(left), "nobody else would end it");
}

#[tokio::test]
async fn the_end_of_a_keeper_by_signal_ends_its_instance_in_order() {
    let rig = Rig::new();
    let spec = rig.started("trap 'echo bye >> $SCRATCH/bye; exit 0' TERM; echo $$ > $SCRATCH/up; while :; do sleep 0.02; done").await;
    rig.runtime.set_restart(&rig.app, &spec.name, RestartPolicy::UnlessStopped).await.unwrap();
    rig.lines("up", 1).await;
    let pid = rustix::process::Pid::from_raw(rig.keeper_pid(&spec)).unwrap();

    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    within(rig.runtime.unkept(&rig.app, &spec.name)).await.unwrap();

    assert_eq!(rig.lines("bye", 1).await, ["bye"]);
    let found = rig.runtime.inspect(&rig.app, &spec.name).await.unwrap().unwrap();
    assert!(matches!(found.state, InstanceState::Exited { .. }));
    assert_eq!(found.restart, RestartPolicy::UnlessStopped, "a reboot starts it again");
}

#[tokio::test]
async fn an_unreadable_instance_is_named_and_never_left_out() {
    let rig = Rig::new();
    let spec = rig.script("exec sleep 1000");
    rig.create(&spec).await;
    std::fs::write(rig.file(&spec, "spec.json"), "{\"version\":1,").unwrap();
    let error = rig.runtime.list(&rig.app).await.unwrap_err();
    assert!(error.to_string().contains("spec.json"), "{error}");
    std::fs::write(rig.file(&spec, "spec.json"), "{\"version\":99}").unwrap();
    let error = rig.runtime.list(&rig.app).await.unwrap_err();
    assert_eq!(error.kind, RuntimeErrorKind::Refused);
}

#[tokio::test]
async fn the_rest_of_a_group_gets_the_signal_and_the_grace_too() {
    let rig = Rig::new();
    // A shell that waits for its child dies of the signal; the server behind it has not heard of it yet.
    let spec = rig
        .started(
            "sh -c 'trap \"sleep 0.1; echo bye > $SCRATCH/bye; exit 0\" TERM; echo > $SCRATCH/up; while :; do sleep 0.02; done'; true",
        )
        .await;
    rig.lines("up", 1).await;

    rig.stop(&spec).await;

    assert_eq!(read_lines(&rig.scratch("bye")), ["bye"]);
}

#[tokio::test]
async fn listening_sockets_are_told_with_their_address() {
    let rig = Rig::new();
    let python = "import socket,time; s=socket.socket(); s.bind(('127.0.0.1',0)); s.listen(); \
        open('$SCRATCH/port','w').write(str(s.getsockname()[1])+'\\n'); time.sleep(1000)";
    if std::process::Command::new("python3").arg("--version").output().is_err() {
        println!("not run: there is no python3");
        return;
    }
    let spec = rig.started(&format!("exec python3 -c \"{python}\"")).await;
    let port: u16 = rig.lines("port", 1).await[0].parse().unwrap();

    let listening = rig.runtime.listening(&rig.app, &spec.name).await.unwrap();

    assert_eq!(listening, [std::net::SocketAddr::from(([127, 0, 0, 1], port))]);
}

#[tokio::test]
async fn root_runs_an_instance_as_the_user_it_names() {
    use std::os::unix::fs::PermissionsExt;
    if !rustix::process::geteuid().is_root() {
        println!("not run: needs root");
        return;
    }
    let rig = Rig::new();
    std::fs::set_permissions(rig.scratch(""), std::fs::Permissions::from_mode(0o777)).unwrap();
    let mut spec = rig
        .script("id -u > $SCRATCH/id; id -g >> $SCRATCH/id; id -G >> $SCRATCH/id; echo seen > /dev/stdout");
    spec.settings.user = Some("12345:54321".to_owned());
    rig.create(&spec).await;
    rig.start(&spec).await;

    assert_eq!(rig.exited(&spec).await.code, Some(0));
    assert_eq!(rig.lines("id", 3).await, ["12345", "54321", "54321"]);
    assert_eq!(rig.log(&spec).await, ["seen"]);
}

#[tokio::test]
async fn another_user_reaches_artifact_and_volume_and_nothing_else() {
    use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
    if !rustix::process::geteuid().is_root() {
        println!("not run: another_user_reaches_artifact_and_volume: needs root");
        return;
    }
    let rig = Rig::new();
    // The root itself is the administrator's; all below is made as an installation makes it.
    std::fs::set_permissions(rig.scratch(""), std::fs::Permissions::from_mode(0o711)).unwrap();
    std::fs::set_permissions(rig.layout.state(), std::fs::Permissions::from_mode(0o700)).unwrap();
    std::fs::write(rig.artifact().join("page"), "page").unwrap();
    let volume = rig.layout.volume(&rig.app, &"data".parse().unwrap());
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&volume).unwrap();
    let secret = rig.layout.env_file(&rig.app);
    std::fs::write(&secret, "TOKEN=x").unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    let script = format!(
        "cat page > {0}/out || exit 3; cat {1} && exit 4; ls {2} && exit 5; exit 0",
        volume.display(),
        secret.display(),
        rig.layout.state().display()
    );
    let mut spec = rig.script(&script);
    spec.settings.user = Some("12345:54321".to_owned());
    spec.volumes.insert("data".parse().unwrap(), volume.display().to_string());

    rig.create(&spec).await;
    rig.start(&spec).await;

    assert_eq!(rig.exited(&spec).await.code, Some(0), "{:?}", rig.log(&spec).await);
    assert_eq!(std::fs::read_to_string(volume.join("out")).unwrap(), "page");
    assert_eq!(std::fs::metadata(volume.join("out")).unwrap().uid(), 12345);
}

#[tokio::test]
async fn limits_of_the_process_are_set_and_the_keeper_keeps_its_own() {
    let rig = Rig::new();
    let mut spec = rig.script("ulimit -Sn > $SCRATCH/limit; exec sleep 1000");
    spec.settings.ulimits.insert("nofile".to_owned(), (64, 64));
    rig.create(&spec).await;
    rig.start(&spec).await;

    assert_eq!(rig.lines("limit", 1).await, ["64"]);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", rig.keeper_pid(&spec))).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_ne!(files.split_whitespace().nth(3), Some("64"), "{files}");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", rig.child_pid(&spec))).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(files.split_whitespace().nth(4), Some("64"), "the hard one: {files}");
}

#[tokio::test]
async fn a_keeper_whose_socket_was_swept_away_is_reached_again() {
    let rig = Rig::new();
    let spec = rig.started("echo $$ >> $SCRATCH/starts; exec sleep 1000").await;
    std::fs::remove_dir_all(rig.layout.run()).unwrap();

    rig.runtime.set_restart(&rig.app, &spec.name, RestartPolicy::UnlessStopped).await.unwrap();
    assert!(matches!(rig.state(&spec.name).await, InstanceState::Running { .. }));
    rig.stop(&spec).await;

    let InstanceState::Exited { exit } = rig.state(&spec.name).await else { panic!("not exited") };
    assert_eq!(exit.signal, Some(15), "its own keeper ended it");
    assert_eq!(read_lines(&rig.scratch("starts")).len(), 1);
}

/// Whoever asks a keeper just as it goes with its instance is hung up on.
#[tokio::test]
async fn the_policy_of_an_instance_that_ends_meanwhile_is_kept() {
    let rig = Rig::new();
    let spec = rig.script("exit 3");
    rig.create(&spec).await;
    for _ in 0..40 {
        rig.start(&spec).await;
        let mut policies = [RestartPolicy::UnlessStopped, RestartPolicy::No].into_iter().cycle();
        // From its start until it is gone, however long that takes here.
        while rig.runtime.is_kept(&rig.app, &spec.name).await.unwrap() {
            let policy = policies.next().unwrap();
            rig.runtime.set_restart(&rig.app, &spec.name, policy).await.unwrap();
            let found = rig.runtime.inspect(&rig.app, &spec.name).await.unwrap().unwrap();
            assert_eq!(found.restart, policy);
        }
        assert!(matches!(rig.state(&spec.name).await, InstanceState::Exited { .. }));
        rig.runtime.set_restart(&rig.app, &spec.name, RestartPolicy::No).await.unwrap();
    }
}

#[tokio::test]
async fn a_full_disk_keeps_nothing_from_stopping_and_starting_again() {
    let Some(rig) = Rig::on_a_small_disk() else {
        println!("not run: needs root and the right to mount");
        return;
    };
    let spec = rig
        .started("trap 'exit 0' TERM; while :; do for i in 1 2 3 4 5 6 7 8; do echo more and more $i; done; sleep 0.005; done")
        .await;
    rig.fill();

    rig.stop(&spec).await;
    rig.start(&spec).await;

    assert!(matches!(rig.state(&spec.name).await, InstanceState::Running { .. }));
    let error = rig.runtime.create(&rig.script("true"), &Secrets::new()).await.unwrap_err();
    assert_eq!(error.kind, RuntimeErrorKind::Full, "{error}");
    assert!(!rig.processes(&[]).is_empty());
    rig.free();
    rig.stop(&spec).await;
    assert_eq!(rig.processes(&[]), [0; 0]);
}

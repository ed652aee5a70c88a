//! A backup that is put back for a trial: checked, on record, on a schedule, and gone again.

use super::*;
use cutover_core::backup::DrillOutcome;
use cutover_host::backup::drill_lock_name;

const DRILLED: &str = "backup: { to: REPOSITORY, password: \"${BACKUP_PASSWORD}\", every: 31d, drill: { checks: { main: CHECKS } } }";

fn newest(app: &App<'_>) -> cutover_core::backup::DrillRecord {
    serde_json::from_slice(&fs::read(app.site().layout().drill(app.id())).unwrap()).unwrap()
}

/// Nothing lies where backups are put back for a moment.
fn nothing_stays(app: &App<'_>) {
    let room = app.site().layout().drill_room(app.id());
    assert_eq!(fs::read_dir(room).unwrap().count(), 0, "something was left behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drill_puts_the_newest_backup_back_asks_it_and_tells_what_is_not_there() {
    let name = "a_drill_puts_the_newest_backup_back_asks_it_and_tells_what_is_not_there";
    let Some(place) = Place::new(name) else { return };
    let checks = "[\"select count(*) from kept\", \"select text from kept\"]";
    let app = place.app(&DRILLED.replace("CHECKS", checks)).await;
    place.records(&app, 1).await;
    let drill = async |exit| app.cutover(&["backup", "drill"]).await.unwrap().expect(exit).unwrap();

    let told = drill(1).await;
    println!("{}", told.failure());
    assert!(told.failure().contains("did not pass its drill"), "{}", told.talk);
    assert!(told.failure().contains("no such table: kept"), "{}", told.talk);
    nothing_stays(&app);
    let database = app.volume("data").join("guestbook.db");
    let connection = rusqlite::Connection::open(&database).unwrap();
    connection.busy_timeout(SOON).unwrap();
    connection.execute("CREATE TABLE kept (text TEXT)", []).unwrap();
    app.cutover(&["backup", "run"]).await.unwrap().expect(0).unwrap();
    let told = drill(1).await;
    assert!(told.failure().contains("the answer is `0`"), "{}", told.talk);
    connection.execute("INSERT INTO kept VALUES ('a word')", []).unwrap();
    app.cutover(&["backup", "run"]).await.unwrap().expect(0).unwrap();

    let told = drill(0).await;

    println!("{}{}", told.talk, told.output);
    assert!(told.output.contains("passed its drill"), "{}", told.output);
    assert!(
        told.output.contains("`select count(*) from kept`: 1; `select text from kept`: a word"),
        "{}",
        told.output
    );
    nothing_stays(&app);
    assert!(matches!(newest(&app).outcome, DrillOutcome::Good { .. }));
    let status = app.cutover(&["status", "--check"]).await.unwrap().expect(0).unwrap();
    assert!(status.output.contains("last drill"), "{}", status.output);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drill_that_hangs_keeps_nobody_out_and_one_that_was_killed_is_seen_by_status() {
    let name = "a_drill_that_hangs_keeps_nobody_out_and_one_that_was_killed_is_seen_by_status";
    let Some(place) = Place::new(name) else { return };
    let endless =
        "\"with recursive t(n) as (select 1 union all select n + 1 from t) select count(*) from t\"";
    let app = place.app(&DRILLED.replace("CHECKS", &format!("[{endless}]"))).await;
    place.records(&app, 1).await;
    let layout = app.site().layout();
    let mut running = app.command(&["backup", "drill"]).spawn().unwrap();
    let scratch = layout.drill_room(app.id()).join("scratch/volumes/data/guestbook.db");
    wait_until("it came back", SOON, async || scratch.exists().then_some(())).await.unwrap();
    let worker = ProcessLock::peek(&layout, &drill_lock_name(app.id())).unwrap();

    let beside = app.site().folder().join("beside");
    for words in [
        ["backup", "list"].as_slice(),
        &["backup", "run"],
        &["backup", "restore"],
        &["backup", "restore", "--to", beside.to_str().unwrap()],
        &["status", "--check"],
    ] {
        app.cutover(words).await.unwrap().expect(0).unwrap();
    }
    let second = app.cutover(&["backup", "drill"]).await.unwrap().expect(3).unwrap();
    assert!(second.failure().contains("somebody drills"), "{}", second.talk);

    assert!(scratch.exists() && running.try_wait().unwrap().is_none(), "it goes on");
    let worker = rustix::process::Pid::from_raw(i32::try_from(worker).unwrap()).unwrap();
    rustix::process::kill_process(worker, rustix::process::Signal::KILL).unwrap();
    running.wait().await.unwrap();
    let status = app.cutover(&["status"]).await.unwrap().expect(0).unwrap();
    assert!(status.output.contains("it did not come to its end"), "{}", status.output);
    app.cutover(&["backup", "run"]).await.unwrap().expect(0).unwrap();
    nothing_stays(&app);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn the_schedule_drills_once_there_is_a_backup_and_a_bad_one_is_seen_by_status() {
    let name = "the_schedule_drills_once_there_is_a_backup_and_a_bad_one_is_seen_by_status";
    let Some(place) = Place::new(name) else { return };
    let weekly =
        DRILLED.replace("checks:", "every: week, checks:").replace("CHECKS", "select count(*) from absent");
    let app = place.app(&weekly).await;

    let there = || place.site.layout().drill(app.id()).exists();
    wait_until("a drill was made", SOON, async || there().then_some(())).await.unwrap();

    let record = newest(&app);
    assert!(!record.is_good() && record.by == "schedule", "{record:?}");
    let status = app.cutover(&["status", "--check"]).await.unwrap().expect(4).unwrap();
    assert!(status.output.contains("the drill"), "{}", status.output);
    // It is on record before it is cleared away.
    wait_until("nobody drills", SOON, async || {
        ProcessLock::peek(&app.site().layout(), &drill_lock_name(app.id())).is_none().then_some(())
    })
    .await
    .unwrap();
    nothing_stays(&app);
}

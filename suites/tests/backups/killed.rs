//! All of a backup on its way to a new host, killed wherever it is.

use super::*;

/// What is there once a step is behind it: something in a folder whose name begins so.
fn steps(app: &App<'_>) -> [(PathBuf, &'static str); 6] {
    let layout = app.site().layout();
    let (waiting, room) = (layout.returning(app.id()), layout.backup_room(app.id()));
    [
        (room.clone(), "restic"),
        (waiting.clone(), "backup"),
        (room.clone(), ".scratch"),
        (room.join("scratch/volumes"), "data"),
        (waiting.clone(), "data.placed"),
        (waiting, "dumps"),
    ]
}

fn is_there(folder: &Path, begins: &str) -> bool {
    let mut entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.any(|entry| entry.file_name().to_string_lossy().starts_with(begins))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn a_restore_of_all_that_is_killed_at_any_step_goes_on_and_nothing_goes_live_on_a_part() {
    let name = "a_restore_of_all_that_is_killed_at_any_step_goes_on_and_nothing_goes_live_on_a_part";
    let (Some(lost), Some(new)) = (Place::new(name), Place::new(name)) else { return };
    let to = lost.repository();
    {
        let app = lost.app(MONTHLY).await;
        lost.records(&app, 1).await;
        for number in 0..2_000 {
            fs::write(app.volume("data").join(format!("upload{number}")), format!("kept {number}")).unwrap();
        }
        app.cutover(&["backup", "run"]).await.unwrap().expect(0).unwrap();
    }
    let app = new.site.app("guestbook", "guestbook.localhost").unwrap();
    app.add_to_env(&format!("BACKUP_PASSWORD={PASSWORD}")).unwrap();
    let backup = MONTHLY.replace("REPOSITORY", &to.display().to_string());
    app.commit("v1", |text| format!("{text}{backup}\n")).unwrap();
    let waiting = new.site.layout().returning(app.id());
    let mut killed = 0;

    for (folder, what) in steps(&app) {
        let mut running = app.command(&["backup", "restore", "--all"]).spawn().unwrap();
        let worker = async || {
            let worker = ProcessLock::peek(&new.site.layout(), &lock_name(app.id()));
            let has_ended = running.try_wait().unwrap().is_some();
            (has_ended || (worker.is_some() && is_there(&folder, what))).then_some(worker)
        };
        let worker = wait_until(what, SOON, worker).await.unwrap();
        if let Some(worker) = worker {
            signal(worker, rustix::process::Signal::KILL);
            killed += 1;
        }
        tokio::time::timeout(SOON, running.wait_with_output()).await.unwrap().unwrap();
        let (has_begun, is_ready) = (waiting.join("backup").exists(), waiting.join("ready").exists());
        println!("{what}: begun {has_begun}, ready {is_ready}");
        if has_begun && !is_ready {
            let half = app.cutover(&["deploy"]).await.unwrap().expect(7).unwrap();
            assert!(half.failure().contains("only partly back"), "{}", half.talk);
        }
    }
    assert!(killed > 0, "each was over before it could be killed");
    app.cutover(&["backup", "restore", "--all"]).await.unwrap().expect(0).unwrap();
    app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();

    for number in 0..2_000 {
        let upload = fs::read_to_string(app.volume("data").join(format!("upload{number}"))).unwrap();
        assert_eq!(upload, format!("kept {number}"));
    }
    assert!(!waiting.exists(), "what waited is used");
    new.records(&app, 1).await;
    let room = new.site.layout().backup_room(app.id());
    assert_eq!(fs::read_dir(room).unwrap().count(), 0, "something was left behind");
}

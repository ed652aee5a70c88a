//! Migrations of `SQLite` under traffic: held, put back, and taken back.

use cutover_testkit::probe::Report;
use cutover_testkit::site::{App, Site};
use cutover_testkit::{SOON, wait_until};

use super::applications::{as_it_is, deploy, deployed};
use super::counted::{none_failed, nothing_lost, traffic};
use super::deploys::serves;

/// v3 breaks the schema: requests wait, and all that was written is there.
pub async fn a_breaking_migration_holds_requests(site: &Site) {
    let app = deployed(site, "held", as_it_is).await;
    let probe = traffic(&app);
    deploy(&app, "v3", as_it_is).await;
    let report = probe.stop().await;
    none_failed("a breaking migration", &report);
    nothing_lost(&app, &report).await;
}

/// It fails in its rehearsal: nobody waited. It goes well, and then the new release fails its gate: the database is put back, the old serves.
pub async fn a_migration_that_fails_is_put_back(site: &Site) {
    let app = deployed(site, "broken", as_it_is).await;
    let probe = traffic(&app);
    refused(&app, "v5", 5, |_| ()).await;
    let rehearsed = probe.lap();
    assert_eq!(rehearsed.failed(), 0, "{rehearsed}");
    refused(&app, "v3", 4, |app| {
        std::fs::write(app.repository().join("web/behaviour.json"), r#"{ "health_status": 500 }"#).unwrap();
    })
    .await;
    let report = probe.stop().await;
    none_failed("a migration refused, and one put back", &report);
    assert_eq!(seen(&report), 1, "somebody saw a release that was refused: {report}");
    nothing_lost(&app, &report).await;
    // What was put back is as good as before.
    deploy(&app, "v3", as_it_is).await;
    nothing_lost(&app, &report).await;
}

/// What takes v3's migration back: the names return to the entries.
const BACK: &str = "CREATE TABLE entries_with_names (
  id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, message TEXT NOT NULL, created_at INTEGER NOT NULL DEFAULT (unixepoch())
) STRICT;
INSERT INTO entries_with_names SELECT entries.id, name, message, created_at FROM entries JOIN visitors ON visitors.id = visitor_id;
DROP TABLE entries;
ALTER TABLE entries_with_names RENAME TO entries;
DROP TABLE visitors;
";

/// v3 with a command that takes its migration back, by the guestbook's own migrations in another folder.
async fn with_down(app: &App<'_>, sql: &str) {
    let down = "compatible: breaking, down: sh -c 'cd down && ../guestbook migrate' }";
    app.commit("v3", |config| config.replace("compatible: breaking }", down)).unwrap();
    let folder = app.repository().join("web/down/migrations");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("900_back.sql"), sql).unwrap();
    app.record("v3").unwrap();
    app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
    serves(app, "v3").await;
}

/// Without a recorded command it is refused; one that fails on a copy of the file changes nothing; a good one leaves all that was written since.
pub async fn a_breaking_migration_is_taken_back_by_its_own_command(site: &Site) {
    let app = deployed(site, "down", as_it_is).await;
    deploy(&app, "v3", as_it_is).await;
    let down = ["rollback", "--migrate-down", "--yes"];
    let refused = app.cutover(&down).await.unwrap().expect(7).unwrap();
    assert!(refused.failure().contains("has no `down` on record"), "{}", refused.talk);
    let back = app.cutover(&["rollback", "--restore-db", "--yes"]).await.unwrap().expect(0).unwrap();
    assert!(back.talk.contains("changed since, those that migrations changed among them"), "{}", back.talk);
    with_down(&app, "SELECT nonsense;").await;
    let probe = traffic(&app);
    let failed = app.cutover(&down).await.unwrap().expect(5).unwrap();
    assert!(failed.failure().contains("the down migration of `main` failed"), "{}", failed.talk);
    serves(&app, "v3").await;
    let report = probe.stop().await;
    none_failed("a down migration that failed", &report);
    nothing_lost(&app, &report).await;
    app.cutover(&["rollback", "--restore-db", "--yes"]).await.unwrap().expect(0).unwrap();
    with_down(&app, BACK).await;

    let probe = traffic(&app);
    app.cutover(&down).await.unwrap().expect(0).unwrap();

    serves(&app, "v1").await;
    let report = probe.stop().await;
    none_failed("a rollback that migrated down", &report);
    nothing_lost(&app, &report).await;
}

/// A console that was left open keeps the migration away, and nobody waits for long.
pub async fn a_database_that_somebody_has_open_is_not_migrated(site: &Site) {
    let app = deployed(site, "open", as_it_is).await;
    let console = std::fs::File::open(app.volume("data").join("guestbook.db")).unwrap();
    let probe = traffic(&app);

    app.commit("v3", as_it_is).unwrap();
    let refused = app.cutover(&["deploy"]).await.unwrap().expect(5).unwrap();

    assert!(refused.failure().contains("has it open"), "{}", refused.talk);
    serves(&app, "v1").await;
    drop(console);
    deploy(&app, "v3", as_it_is).await;
    let report = probe.stop().await;
    none_failed("a migration that was refused, then done", &report);
    nothing_lost(&app, &report).await;
}

/// A command in an instance could open the file while a run has it closed.
pub async fn nothing_is_run_beside_a_deploy_that_may_migrate(site: &Site) {
    let long = |config: &str| config.replace("bake: 1s", "bake: 5m");
    let app = deployed(site, "alone", long).await;
    app.commit("v2", long).unwrap();
    app.cutover(&["deploy", "--detach"]).await.unwrap().expect(0).unwrap();
    let bakes = async || app.serving().await.is_ok_and(|it| it == "v2").then_some(());
    wait_until("the bake begins", SOON, bakes).await.unwrap();

    let refused = app.cutover(&["exec", "web", "--", "true"]).await.unwrap().expect(3).unwrap();

    assert!(refused.failure().contains("a run works on"), "{}", refused.talk);
    app.cutover(&["cancel"]).await.unwrap().expect(0).unwrap();
    wait_until("v1 serves again", SOON, async || {
        let status = app.status().await.ok()?;
        (status.lock.is_none() && app.serving().await.is_ok_and(|it| it == "v1")).then_some(())
    })
    .await
    .unwrap();
    app.cutover(&["exec", "web", "--", "true"]).await.unwrap().expect(0).unwrap();
}

async fn refused(app: &App<'_>, version: &str, exit: i32, spoil: impl FnOnce(&App<'_>)) {
    app.commit(version, str::to_owned).unwrap();
    spoil(app);
    app.record("spoiled").unwrap();
    let told = app.cutover(&["deploy"]).await.unwrap().expect(exit).unwrap();
    println!("{}", told.failure());
    serves(app, "v1").await;
}

fn seen(report: &Report) -> usize {
    report.releases.len()
}

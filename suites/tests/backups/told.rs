//! What is to be heard of backups beside runs: one event for each change, over a restart of watch.

use super::*;
use cutover_core::event::{Condition, Event};
use cutover_host::store::Store;
use cutover_testkit::site::Process;

fn events(app: &App<'_>) -> Vec<Event> {
    let text = fs::read_to_string(app.site().layout().events_beside_runs()).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Once there are so many: the newest.
async fn told(app: &App<'_>, count: usize) -> Condition {
    let look = async || Some(events(app)).filter(|events| events.len() >= count);
    let events = wait_until("an event was told", SOON, look).await.unwrap();
    assert_eq!(events.len(), count, "{events:?}");
    let newest = events.into_iter().last().unwrap();
    assert_eq!(newest.app, *app.id());
    newest.condition
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_fails_or_is_old_is_told_once_and_so_is_that_it_is_good_again() {
    let name = "a_backup_that_fails_or_is_old_is_told_once_and_so_is_that_it_is_good_again";
    let Some(place) = Place::new(name) else { return };
    let app = place.backed_up().await;
    assert!(matches!(told(&app, 2).await, Condition::Good { .. }));
    assert_eq!(events(&app)[0].condition, Condition::Awaited);

    let aside = place.site.folder().join("aside");
    fs::rename(place.repository(), &aside).unwrap();
    app.cutover(&["backup", "run"]).await.unwrap().expect(1).unwrap();
    let why = told(&app, 3).await;
    assert!(matches!(&why, Condition::Failed { why } if why.contains("there is no repository")), "{why:?}");
    let killed = place.site.kill(|process| *process == Process::Watch).unwrap();
    let again = async || {
        let watch = place.site.await_process("watch", |process| *process == Process::Watch).await.unwrap();
        (watch.pid != killed.pid).then_some(())
    };
    wait_until("watch is back", SOON, again).await.unwrap();
    app.cutover(&["backup", "run"]).await.unwrap().expect(1).unwrap();
    fs::rename(&aside, place.repository()).unwrap();
    app.cutover(&["backup", "run"]).await.unwrap().expect(0).unwrap();
    assert!(matches!(told(&app, 4).await, Condition::Good { .. }), "a second failure was told, too");

    // The host was off for half a year; then the schedule makes up for it.
    let store = Store::open(&place.site.layout()).unwrap();
    let mut old = place.records(&app, 1).await.remove(0);
    old.started -= jiff::SignedDuration::from_hours(24 * 180);
    store.put_backup(app.id(), &old).unwrap();
    // Its end rings for watch, unless that was quicker and works on the backups already.
    app.cutover(&["backup", "list"]).await.unwrap();

    let newest =
        wait_until("the next is good", SOON, async || Some(events(&app)).filter(|all| all.len() >= 6));
    let all: Vec<Condition> = newest.await.unwrap().into_iter().map(|event| event.condition).collect();
    assert!(all[4] == Condition::Old { newest: old.started } && all.len() == 6, "{all:?}");
    assert!(matches!(all[5], Condition::Good { .. }), "{all:?}");
}

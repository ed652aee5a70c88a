//! `prune` killed with -9 at a step of its journal, under traffic. Watch carries out what it left; nothing that somebody needs goes, and the next
//! `prune` finds nothing to do.

use std::time::Duration;

use cutover_core::exit::Exit;
use cutover_host::lock::AppLock;
use cutover_host::store::Store;
use cutover_testkit::probe::Probe;
use cutover_testkit::site::{App, Site};
use cutover_testkit::{Litter, wait_until};

use super::killed::was_killed;
use crate::KILL_AT;

/// How long watch may take to settle a run that died.
const SETTLED: Duration = Duration::from_mins(1);

/// Every `every`-th step from the `first` on, to the run's end.
pub async fn prunes_killed(site: &Site, first: u64, every: usize) {
    let app = site.app("guestbook", "guestbook.localhost").unwrap();
    let other = site.app("other", "other.localhost").unwrap();
    for version in ["v1", "v2"] {
        app.deploy(version).await.unwrap().expect(0).unwrap();
    }
    other.deploy("v1").await.unwrap().expect(0).unwrap();
    let probes = [Probe::start(app.traffic().unwrap()), Probe::start(other.traffic().unwrap())];
    let mut killed = 0;
    for step in (first..).step_by(every) {
        let litter = Litter::lay(&site.layout(), app.id()).unwrap();
        let was_killed = killed_at(&app, step).await;
        let none: [&std::path::Path; 0] = [];
        assert_eq!((litter.left(), litter.missing()), (none.to_vec(), none.to_vec()), "step {step}");
        let told = app.cutover(&["prune", "--yes"]).await.unwrap().expect(0).unwrap();
        assert!(told.talk.contains("nothing to do"), "step {step}: {}{}", told.output, told.talk);
        assert_eq!(litter.missing(), none, "step {step}");
        assert_eq!(app.serving().await.unwrap(), "v2", "step {step}");
        if !was_killed {
            break;
        }
        killed += 1;
    }
    println!("{killed} prunes were killed");
    assert!(killed > 3, "a prune has more steps than {killed} times {every}");
    for probe in probes {
        let report = probe.stop().await;
        assert_eq!(report.failed(), 0, "{report}");
    }
    // What rollback reaches was kept, of both apps.
    app.cutover(&["rollback", "--yes"]).await.unwrap().expect(0).unwrap();
    assert_eq!(app.serving().await.unwrap(), "v1");
    other.cutover(&["restart"]).await.unwrap().expect(0).unwrap();
}

/// Whether the run died at this entry; it is settled then.
async fn killed_at(app: &App<'_>, step: u64) -> bool {
    let (site, layout) = (app.site(), app.site().layout());
    let store = Store::open(&layout).unwrap();
    let newest = || store.verdicts(app.id(), 1).unwrap().pop();
    let before = newest().map(|verdict| verdict.run);
    let mut command = app.command(&["prune", "--yes"]);
    command.env(KILL_AT, step.to_string());
    site.run(command).await.unwrap();
    let settled = async || {
        let verdict = newest().filter(|verdict| Some(verdict.run) != before)?;
        let is_over = store.unfinished(app.id()).ok()?.is_none();
        (is_over && AppLock::peek(&layout, app.id()).is_none()).then_some(verdict)
    };
    let verdict =
        wait_until(&format!("the prune killed at step {step} is settled"), SETTLED, settled).await.unwrap();
    assert_ne!(verdict.exit(), Exit::Person, "step {step}: {verdict:?}");
    was_killed(&site.journal(verdict.run).unwrap(), step)
}

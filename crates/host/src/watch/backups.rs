//! The schedule of backups: each is due by the records of those before it, so that one that was missed while the host was down is made up for, and
//! none is made twice. The work is done by a process of its own; watch only starts it. And it tells when backups are not as they should be, and when they are again.

use std::collections::BTreeMap;
use std::process::Child;
use std::time::Duration;

use cutover_core::backup::{BackupSettings, is_drill_due, is_due};
use cutover_core::event::{Condition, Subject};
use cutover_core::failure::Failure;
use cutover_core::layout::Layout;
use cutover_core::names::AppId;
use cutover_core::wire::{BackupOrder, BackupWork};
use jiff::Timestamp;
use tokio::time::Instant;

use super::told::Told;
use crate::backup::{self, Heard, Job};
use crate::lock::ProcessLock;
use crate::ports::Ports;
use crate::store::Store;

/// From one look at what is due to the next.
pub(super) const LOOK: Duration = Duration::from_secs(20);
/// From a start to the next of the same work for the same app, whatever the records say: a process may die before it writes a word.
const FLOOR: Duration = Duration::from_mins(10);
/// Who asks, in the records.
const BY: &str = "schedule";

/// Begins a backup; what a process of its own does.
pub(super) type Starter = Box<dyn Fn(&Layout, &Job) -> std::io::Result<Option<Child>> + Send + Sync>;

/// What was started, and when; and what was told.
pub(super) struct Backups {
    start: Starter,
    told: Told,
    started: BTreeMap<(AppId, &'static str), (Instant, Option<Child>)>,
    looked: Option<Instant>,
    /// When what was kept as it was last was told to go on.
    let_go: BTreeMap<AppId, Instant>,
}

impl Backups {
    pub(super) fn new(layout: &Layout, start: Starter) -> Self {
        let told = Told::read(layout);
        Self { start, told, started: BTreeMap::new(), looked: None, let_go: BTreeMap::new() }
    }

    /// By real processes.
    pub(super) fn by_processes(layout: &Layout) -> Self {
        Self::new(layout, Box::new(|layout, job| backup::begin(layout, job, Heard::ByNobody).map(Some)))
    }

    /// What is live may have changed: the next pass looks.
    pub(super) fn wake(&mut self) {
        self.looked = None;
    }

    /// One look at all apps, where the last was long ago.
    pub(super) fn pass(&mut self, layout: &Layout, store: &Store, ports: &Ports) {
        self.reap();
        if self.looked.is_some_and(|looked| looked.elapsed() < LOOK) {
            return;
        }
        self.looked = Some(Instant::now());
        let apps = match store.apps() {
            Ok(apps) => apps,
            Err(error) => return tracing::warn!(%error, "whose backups are due cannot be looked for"),
        };
        let now = Timestamp::now();
        for app in &apps {
            self.let_go(layout, ports, app);
            if let Err(failure) = self.look(layout, store, app, now) {
                tracing::warn!(%app, %failure, "whether a backup is due cannot be told");
            }
        }
        for (app, about) in self.told.not_of(&apps) {
            self.told.tell(&app, about, Condition::Unwanted, now);
        }
    }

    fn look(&mut self, layout: &Layout, store: &Store, app: &AppId, now: Timestamp) -> Result<(), Failure> {
        let settings = backup::settings(layout, store, app)?;
        for about in [Subject::Backup, Subject::Drill] {
            let told = self.told.last(app, about);
            let condition = backup::condition(layout, store, app, settings.as_ref(), about, told, now)?;
            self.told.tell(app, about, condition, now);
        }
        settings.map_or(Ok(()), |settings| self.begin(layout, store, app, settings, now))
    }

    fn begin(
        &mut self,
        layout: &Layout,
        store: &Store,
        app: &AppId,
        settings: BackupSettings,
        now: Timestamp,
    ) -> Result<(), Failure> {
        let drill = settings.drill.as_ref().and_then(|drill| drill.every);
        let (work, word) = if is_due(&settings, backup::last(layout, store, app)?, now) {
            (BackupWork::Run, "backup")
        } else if drill
            .is_some_and(|every| is_drill_due(every, backup::newest_drill(layout, app).as_ref(), now))
            && backup::has_one(store, app, &settings.to)?
        {
            (BackupWork::Drill { id: None }, "drill")
        } else {
            return Ok(());
        };
        let was_started = |(at, _): &(Instant, Option<Child>)| at.elapsed() < FLOOR;
        let key = (app.clone(), word);
        if self.started.get(&key).is_some_and(was_started) {
            return Ok(());
        }
        let is_held = |name: &str| ProcessLock::peek(layout, name).is_some();
        if is_held(&backup::lock_name(app)) || (word == "drill" && is_held(&backup::drill_lock_name(app))) {
            return Ok(());
        }
        tracing::info!(%app, "a {word} is due");
        let values = backup::values(layout, app)?;
        let order = BackupOrder { app: app.clone(), settings, by: BY.to_owned(), work };
        match (self.start)(layout, &Job::new(order, &values)) {
            Ok(child) => {
                self.started.insert(key, (Instant::now(), child));
            }
            Err(error) => tracing::warn!(%app, %error, "a {word} that is due could not be started"),
        }
        Ok(())
    }

    /// What a backup that was killed kept as it was goes on.
    fn let_go(&mut self, layout: &Layout, ports: &Ports, app: &AppId) {
        let was_tried = self.let_go.get(app).is_some_and(|at| at.elapsed() < LOOK);
        if was_tried || !backup::is_left(layout, app) {
            return;
        }
        self.let_go.insert(app.clone(), Instant::now());
        tokio::spawn(backup::let_go(ports.clone(), layout.clone(), app.clone()));
    }

    /// Takes the numbers of those back that have ended.
    fn reap(&mut self) {
        for (_, child) in self.started.values_mut() {
            if let Some(process) = child
                && !matches!(process.try_wait(), Ok(None))
            {
                *child = None;
            }
        }
    }
}

//! Volumes that nothing changes while they are copied: the app is told so by a command, or services are paused. What undoes that is on disk before it is
//! done, and done once the copy is there or has failed; of a process that was killed, whoever comes next undoes it: watch, at once.

use std::collections::BTreeSet;
use std::time::Duration;

use cutover_core::backup::Still;
use cutover_core::failure::Failure;
use cutover_core::layout::Layout;
use cutover_core::names::{AppId, InstanceName, ServiceName, VolumeName};
use cutover_core::release::{Live, RuntimeKind};
use cutover_core::state::{FoundInstance, Role};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};

use super::begun;
use super::gather::{failed, trouble};
use super::record::lock_name;
use super::work::doing;
use crate::lock::ProcessLock;
use crate::ports::{Exec, Ports, RuntimeError, RuntimeErrorKind};
use crate::{files, observe, redact};

/// So many of the last lines of a command are told.
const LINES: usize = 5;
/// So often it is tried to let the app go on before a new backup may begin all the same; watch goes on trying.
const TRIES: u32 = 5;
/// Between one try and the next of whoever made the copy; watch leaves more time.
const AGAIN: Duration = Duration::from_secs(1);
/// So long after it was paused at most an instance that does not answer is taken for one that is paused.
const BELIEVED: Duration = Duration::from_mins(10);

/// What is to be undone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "undo", rename_all = "snake_case")]
enum Undo {
    /// The app may go on: so it is told.
    Tell {
        volume: VolumeName,
        service: ServiceName,
        words: Vec<String>,
        timeout: Duration,
        /// How often it was tried in vain.
        #[serde(default)]
        tries: u32,
    },
    /// Instances are paused.
    Resume { volume: VolumeName, instances: Vec<Paused> },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Paused {
    runtime: RuntimeKind,
    name: InstanceName,
}

/// Whose volumes.
#[derive(Clone, Copy)]
pub(super) struct Of<'a> {
    pub(super) ports: &'a Ports,
    pub(super) layout: &'a Layout,
    pub(super) app: &'a AppId,
}

/// Does `copy` while nothing changes the volume. It is given up at the end of the time that the volume may be kept so.
pub(super) async fn keep<T>(
    of: Of<'_>,
    volume: &VolumeName,
    still: &Still,
    copy: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let timeout = match still {
        Still::Hook { timeout, .. } | Still::Pause { timeout, .. } => *timeout,
    };
    let end = Instant::now() + timeout;
    let mut paused = None;
    let mut is_late = false;
    let ready = match still {
        Still::Hook { service, .. } if of.is_stopped(service)? => return copy.await,
        Still::Hook { service, before, after, .. } => {
            let (words, service_of) = (after.clone(), service.clone());
            of.mark(&Undo::Tell { volume: volume.clone(), service: service_of, words, timeout, tries: 0 })?;
            doing(format!("`{service}` keeps volume {volume} as it is"));
            of.tell(volume, "before", service, before, timeout).await.map_err(|ended| {
                is_late = ended.is_late;
                ended.failure
            })
        }
        Still::Pause { services, .. } => {
            let running = of.running(|found| services.contains(&found.service)).await;
            let running = running.map_err(|error| not_paused(volume, &error))?;
            let instances: Vec<Paused> = running
                .iter()
                .map(|found| Paused { runtime: found.runtime, name: found.name.clone() })
                .collect();
            paused = Some((services, running));
            of.mark(&Undo::Resume { volume: volume.clone(), instances: instances.clone() })?;
            let names: Vec<&str> = services.iter().map(ServiceName::as_str).collect();
            doing(format!("{} paused while volume {volume} is copied", are(&names)));
            let pausing = timeout_at(end, of.pause(&instances)).await;
            pausing.map_or_else(
                |_| Err(late(volume, timeout)),
                |paused| paused.map_err(|error| not_paused(volume, &error)),
            )
        }
    };
    let copied = match ready {
        Ok(()) => timeout_at(end, copy).await.unwrap_or_else(|_| Err(late(volume, timeout))),
        Err(failure) => Err(failure),
    };
    let again = begun::read::<Undo>(&of.layout.backup_undo(of.app)).filter(|_| is_late);
    let mut undone = of.undo_soon().await;
    // What was late goes on by itself, and may keep the volume so after it was told to let go: it is told once more.
    if let (Ok(()), Some(again)) = (&undone, again) {
        of.mark(&again)?;
        tokio::time::sleep(timeout).await;
        undone = of.undo_soon().await;
    }
    let copied = match (copied, paused) {
        (Ok(copied), Some((services, before))) => {
            of.refuse_changed(volume, services, &before).await.map(|()| copied)
        }
        (copied, _) => copied,
    };
    match (copied, undone) {
        (copied, Ok(())) => copied,
        (Ok(_), Err(failure)) => Err(failure),
        (Err(failure), Err(also)) => Err(also.next(failure.to_string())),
    }
}

/// Whether something of the app waits to be undone by somebody who is not there any more.
pub(crate) fn is_left(layout: &Layout, app: &AppId) -> bool {
    layout.backup_undo(app).exists() && !ProcessLock::is_held(layout, &lock_name(app))
}

/// Whether the instance is paused, so that no probe of it tells anything.
pub(crate) fn is_paused(layout: &Layout, app: &AppId, name: &InstanceName) -> bool {
    let since = std::fs::metadata(layout.backup_undo(app)).and_then(|about| about.modified());
    let is_new = since.is_ok_and(|at| at.elapsed().is_ok_and(|passed| passed < BELIEVED));
    if !is_new && !ProcessLock::is_held(layout, &lock_name(app)) {
        return false;
    }
    match begun::read::<Undo>(&layout.backup_undo(app)) {
        Some(Undo::Resume { instances, .. }) => instances.iter().any(|paused| paused.name == *name),
        Some(Undo::Tell { .. }) | None => false,
    }
}

/// Undoes what one that was killed has left. Under the lock of who works on the app's backups; nothing, where somebody does.
pub(crate) async fn let_go(ports: Ports, layout: Layout, app: AppId) {
    let Ok(_nobody_works) = ProcessLock::take(&layout, &lock_name(&app)) else { return };
    match (Of { ports: &ports, layout: &layout, app: &app }).undo().await {
        Ok(()) => tracing::info!(%app, "what a backup that was killed had kept as it was goes on"),
        Err(failure) => {
            tracing::error!(%app, %failure, "a backup that was killed left something kept as it is");
        }
    }
}

impl Of<'_> {
    fn mark(self, undo: &Undo) -> Result<(), Failure> {
        begun::begin(&self.layout.backup_undo(self.app), undo)
    }

    /// Undoes what is marked; once that is over, the mark is gone.
    pub(super) async fn undo(self) -> Result<(), Failure> {
        let mark = self.layout.backup_undo(self.app);
        match begun::read::<Undo>(&mark) {
            None if mark.exists() => {
                return Err(failed("what a backup that was killed had kept as it was may not go on")
                    .because(format!("{} cannot be read", mark.display()))
                    .next("`cutover restart` ends and starts what is paused; then remove that file"));
            }
            None => return Ok(()),
            Some(Undo::Tell { words, .. }) if words.is_empty() => {}
            Some(Undo::Tell { service, .. }) if self.has_none(&service).await => {}
            Some(Undo::Tell { volume, service, words, timeout, tries }) => {
                if let Err(ended) = self.tell(&volume, "after", &service, &words, timeout).await {
                    let failure = still_kept(ended.failure, &service, &words);
                    self.mark(&Undo::Tell {
                        volume,
                        service,
                        words,
                        timeout,
                        tries: tries.saturating_add(1),
                    })?;
                    return Err(failure);
                }
            }
            Some(Undo::Resume { volume, instances }) => self.resume(&volume, &instances).await?,
        }
        files::remove(&mark).map_err(|error| trouble(&error))
    }

    /// Whether it was tried so often in vain that nothing else is kept waiting for it.
    pub(super) fn was_tried(self) -> bool {
        let left = begun::read::<Undo>(&self.layout.backup_undo(self.app));
        matches!(left, Some(Undo::Tell { tries, .. }) if tries >= TRIES)
    }

    /// The same by whoever made the copy: what fails for a moment only leaves nothing to watch.
    async fn undo_soon(self) -> Result<(), Failure> {
        let undone = self.undo().await;
        if undone.is_ok() || !self.layout.backup_undo(self.app).exists() {
            return undone;
        }
        tokio::time::sleep(AGAIN).await;
        self.undo().await
    }

    /// An instance that was started meanwhile, by its policy or its engine, is not paused: what was copied may be of several moments.
    async fn refuse_changed(
        self,
        volume: &VolumeName,
        services: &BTreeSet<ServiceName>,
        before: &[FoundInstance],
    ) -> Result<(), Failure> {
        let now = self.running(|found| services.contains(&found.service)).await;
        let now = now.map_err(|error| not_paused(volume, &error))?;
        let told = |all: &[FoundInstance]| -> BTreeSet<(InstanceName, String)> {
            all.iter().map(|found| (found.name.clone(), format!("{:?}", found.state))).collect()
        };
        let (was, is) = (told(before), told(&now));
        match was.symmetric_difference(&is).next() {
            None => Ok(()),
            Some((name, _)) => {
                Err(failed(&format!("the copy of volume `{volume}` may be of several moments"))
                    .because(format!("{name} ended, or was started, while it was made"))
                    .next("see why (`cutover logs`), then `cutover backup run`"))
            }
        }
    }

    async fn pause(self, instances: &[Paused]) -> Result<(), RuntimeError> {
        for Paused { runtime, name } in instances {
            self.ports.runtime(*runtime)?.pause(self.app, name).await?;
        }
        Ok(())
    }

    /// All of them are tried.
    async fn resume(self, volume: &VolumeName, instances: &[Paused]) -> Result<(), Failure> {
        let mut why = Vec::new();
        for Paused { runtime, name } in instances {
            let resumed = async { self.ports.runtime(*runtime)?.resume(self.app, name).await };
            match resumed.await {
                Err(error) if error.kind != RuntimeErrorKind::Gone => why.push(format!("{name}: {error}")),
                Ok(()) | Err(_) => {}
            }
        }
        if why.is_empty() {
            return Ok(());
        }
        let failure = failed(&format!("what was paused for the copy of volume `{volume}` does not go on"));
        let failure = why.into_iter().fold(failure, Failure::because);
        Err(failure
            .while_serving("these instances are paused and answer nobody")
            .next("watch tries again by itself; `cutover restart` ends and starts them"))
    }

    /// Runs a command in a running instance of the service.
    async fn tell(
        self,
        volume: &VolumeName,
        key: &str,
        service: &ServiceName,
        words: &[String],
        timeout: Duration,
    ) -> Result<(), Ended> {
        let shown = words.join(" ");
        let failure = |why: String| {
            let what = match key {
                "before" => format!("volume `{volume}` is not kept as it is for its copy"),
                _ => format!("`{service}` was not told that volume `{volume}` is copied"),
            };
            failed(&what).because(why).next(format!(
                "mend `backup.volumes.{volume}.{key}` (`cutover exec {service} …` tries it), then `cutover backup run`"
            ))
        };
        let not_run = |failure| Ended { is_late: false, failure };
        let live = observe::live_on_disk(self.layout, self.app).map_err(not_run)?;
        let found = self.running(|found| found.service == *service).await;
        let found = found.map_err(|error| not_run(failure(error.to_string())))?;
        let is_live = |found: &&FoundInstance| live.as_ref().is_some_and(|live| live.has(&found.name));
        let Some(instance) = found.iter().find(is_live).or(found.first()) else {
            return Err(not_run(failure(format!("no instance of `{service}` runs"))));
        };
        let exec = Exec { words: words.to_vec(), timeout };
        let ran = async { self.ports.runtime(instance.runtime)?.exec(self.app, &instance.name, &exec).await };
        let finished = ran.await.map_err(|error| {
            // In a plain process it was ended.
            let is_late = error.kind == RuntimeErrorKind::Late && instance.runtime == RuntimeKind::Container;
            Ended { is_late, failure: failure(format!("`{shown}` in {}: {error}", instance.name)) }
        })?;
        if finished.exit.code == Some(0) {
            return Ok(());
        }
        let skipped = finished.output.len().saturating_sub(LINES);
        let values = redact::values(self.layout, self.app, [&instance.release]);
        let said = redact::redact(&values, &finished.output[skipped..].join("; "));
        let why = format!("`{shown}` in {}: {}; {said}", instance.name, finished.exit);
        Err(Ended { is_late: false, failure: failure(why) })
    }

    /// Running instances of the app, of any release.
    async fn running(
        self,
        wanted: impl Fn(&FoundInstance) -> bool,
    ) -> Result<Vec<FoundInstance>, RuntimeError> {
        self.instances(|found| found.is_running() && wanted(found)).await
    }

    async fn instances(
        self,
        wanted: impl Fn(&FoundInstance) -> bool,
    ) -> Result<Vec<FoundInstance>, RuntimeError> {
        let mut instances = Vec::new();
        for runtime in self.ports.runtimes() {
            let found = runtime.list(self.app).await?;
            instances.extend(found.into_iter().filter(|found| {
                matches!(found.role, Role::Service | Role::Backing) && found.ours && wanted(found)
            }));
        }
        Ok(instances)
    }

    /// The app has no such service any more, so that nobody waits to be told. One that is live and not seen, or may be in an engine that does not
    /// answer yet, waits.
    async fn has_none(self, service: &ServiceName) -> bool {
        match observe::live_on_disk(self.layout, self.app) {
            Ok(None) => true,
            Ok(Some(live)) if !live.members.contains_key(service) && self.ports.container.is_some() => {
                self.instances(|found| found.service == *service).await.is_ok_and(|found| found.is_empty())
            }
            Ok(Some(_)) | Err(_) => false,
        }
    }

    /// Nothing of it changes anything, and nobody can be told.
    fn is_stopped(self, service: &ServiceName) -> Result<bool, Failure> {
        let live: Option<Live> = observe::live_on_disk(self.layout, self.app)?;
        Ok(live.is_some_and(|live| live.stopped.contains(service)))
    }
}

/// How a command ended that did not end well.
struct Ended {
    /// It goes on all the same.
    is_late: bool,
    failure: Failure,
}

/// Nobody knows whether it goes on.
fn still_kept(failure: Failure, service: &ServiceName, words: &[String]) -> Failure {
    failure.while_serving(format!("`{service}` may still keep it as it is")).next(format!(
        "`cutover exec {service} -- {}` lets it go on, once it runs; watch tries that by itself, too",
        words.join(" ")
    ))
}

fn are(names: &[&str]) -> String {
    format!("{} {}", names.join(", "), if names.len() == 1 { "is" } else { "are" })
}

fn not_paused(volume: &VolumeName, error: &RuntimeError) -> Failure {
    failed(&format!("what writes to volume `{volume}` was not paused for its copy"))
        .because(error.to_string())
        .next("`cutover doctor` tells what is wrong; then `cutover backup run`")
}

fn late(volume: &VolumeName, timeout: Duration) -> Failure {
    failed(&format!("the copy of volume `{volume}` took too long"))
        .because(format!(
            "it was not there after {} s, and nobody could use the volume meanwhile",
            timeout.as_secs()
        ))
        .next(format!("give it a longer `backup.volumes.{volume}.timeout`"))
        .next("or keep the volume and cutover's state on one file system that shares bytes of copies (XFS, Btrfs)")
}

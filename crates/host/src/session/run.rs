//! Runs, from the session's side: set going detached, followed, cancelled. The run itself never waits for anybody here.

use std::collections::BTreeSet;
use std::time::Duration;

use cutover_core::defaults;
use cutover_core::env_file;
use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::journal::What;
use cutover_core::names::{AppId, RunId, VariableName};
use cutover_core::plan::{HostPlan, PLAN_VERSION, Stage};
use cutover_core::secret::Secrets;
use cutover_core::wire::Reply;
use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep};

use super::frames::Stop;
use super::serve::{Session, unreadable};
use crate::assignment::Assignment;
use crate::events::{self, Follow};
use crate::files;
use crate::host::Host;
use crate::lock::{AppLock, RunLock};
use crate::meter;
use crate::run;
use crate::run_progress;

/// How often it is looked whether a run that is followed still has a process.
const REVIVE: Duration = Duration::from_secs(3);
/// Less room than a word in the records takes, in bytes.
const NO_ROOM: u64 = 64 * 1024;
/// From a run's verdict until its lock is free.
const LET_GO: Duration = Duration::from_secs(2);
/// It takes a moment, which the command waits for.
const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// An env file that is sent has at most so many bytes.
const MOST_ENV: u64 = 4 * 1024 * 1024;

/// What is to be carried out.
pub(super) struct Asked {
    pub(super) plan: HostPlan,
    pub(super) unset: BTreeSet<VariableName>,
    pub(super) keep_env: bool,
    pub(super) detach: bool,
    pub(super) wait: bool,
}

impl<R, W> Session<R, W>
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    /// Starts a run, or attaches to the one of that id (S12).
    pub(super) async fn run(&mut self, asked: Asked, env: u64) -> Result<(), Stop> {
        let sent = self.sent_env(env).await?;
        let host = self.host().await?;
        let (run, app, detach) = (asked.plan.run, asked.plan.app.clone(), asked.detach);
        if asked.plan.version > PLAN_VERSION {
            return Err(newer_plan(asked.plan.version).into());
        }
        if is_known(&host, run, &app)? {
            revive(&host, run, &app)?;
        } else {
            begin(&host, asked, &sent?, std::mem::take(&mut self.brought.fetched))?;
        }
        if detach {
            return Ok(self.outgoing.send(&Reply::Done).await?);
        }
        self.follow(&host, run, &app, 1).await
    }

    /// The text of an env file; unreadable lines are told later, when the conversation is in step again.
    pub(super) async fn sent_env(&mut self, bytes: u64) -> Result<Result<Secrets, Failure>, Stop> {
        if bytes > MOST_ENV {
            self.incoming.skip(bytes).await?;
            let what = format!("what was sent as an env file has {bytes} bytes, the most is {MOST_ENV}");
            return Ok(Err(Failure::new(Exit::Configuration, what)));
        }
        let text = String::from_utf8(self.incoming.bulk(bytes).await?);
        let text =
            text.map_err(|_| Failure::new(Exit::Configuration, "what was sent as an env file is not text"));
        Ok(text.and_then(|text| {
            env_file::parse(&text).map_err(|errors| {
                let failure =
                    Failure::new(Exit::Configuration, "what was sent as an env file cannot be read");
                errors.iter().fold(failure, |failure, error| failure.because(error.to_string()))
            })
        }))
    }

    pub(super) async fn attach(&mut self, run: Option<RunId>, app: &AppId, from: u64) -> Result<(), Stop> {
        let host = self.host().await?;
        let known = match run {
            Some(run) => is_known(&host, run, app)?.then_some(run),
            None => self.newest(&host, app)?,
        };
        let Some(run) = known else {
            let name = run.map_or_else(|| "no run".to_owned(), |run| format!("no run {run}"));
            return Err(Failure::new(Exit::Usage, format!("{name} of {app} is known on this host"))
                .next("`cutover history` shows what was done")
                .into());
        };
        revive(&host, run, app)?;
        self.follow(&host, run, app, from).await
    }

    /// The run that people mean without naming it: the newest; but where that one has ended (it was refused because another was at work, say)
    /// the one that is at work, or is to be settled.
    fn newest(&self, host: &Host, app: &AppId) -> Result<Option<RunId>, Failure> {
        let newest = host.store.newest_run(app).map_err(unreadable)?;
        let Some(run) = newest else { return Ok(None) };
        if host.store.verdict(run).map_err(unreadable)?.is_none() {
            return Ok(newest);
        }
        match AppLock::peek(&self.layout, app).map(|holder| holder.run) {
            Some(at_work) if is_known(host, at_work, app)? => Ok(Some(at_work)),
            _ => Ok(host.store.unfinished(app).map_err(unreadable)?.or(newest)),
        }
    }

    /// Event after event, to the verdict. One that is not "done" is given once the lock is free, so that the next command does not find it held.
    async fn follow(&mut self, host: &Host, run: RunId, app: &AppId, from: u64) -> Result<(), Stop> {
        let lost = |error: events::FollowError| {
            Failure::new(Exit::Unknown, format!("run {run} can no longer be followed"))
                .because(error.to_string())
                .while_serving("the run goes on by itself on the host")
                .next("`cutover attach` follows it again")
        };
        let mut follow = Follow::new(&self.layout, run, from).map_err(lost)?;
        let mut again = tokio::time::interval_at(Instant::now() + REVIVE, REVIVE);
        let (mut looks, file) = (meter::looks(), self.layout.run_progress(run));
        // The last entry that the client has, and how far it was told the act after it to be.
        let (mut last, mut known) = (0, None);
        loop {
            let entry = tokio::select! {
                entry = follow.next(&host.store) => entry.map_err(lost)?,
                error = self.incoming.left() => return Err(error.into()),
                _ = looks.tick() => {
                    let now = run_progress::read(&file, last);
                    if let Some(progress) = now.clone().filter(|_| now != known) {
                        self.progress(progress).await?;
                    }
                    known = now;
                    continue;
                }
                // Its process may have died before it wrote a word.
                _ = again.tick() => {
                    cannot_tell(host, run, app)?;
                    revive(host, run, app)?;
                    continue;
                }
            };
            let Some(entry) = entry else { return Ok(()) };
            if let What::Verdict { verdict } = entry.what {
                // One that is done may have something to put away, for which nobody needs to wait.
                if verdict.exit() != Exit::Done {
                    until_free(host, run, app).await;
                }
                return Ok(self.outgoing.send(&Reply::Verdict { verdict }).await?);
            }
            last = last.max(entry.seq);
            self.outgoing.send(&Reply::Event { entry: Box::new(entry) }).await?;
        }
    }

    /// Asks the app's run to cancel, as long as it can (S21).
    pub(super) async fn cancel(&mut self, app: &AppId, by: &str) -> Result<(), Stop> {
        let host = self.host().await?;
        let holder = AppLock::peek(&self.layout, app).map(|holder| holder.run);
        let unfinished = || -> Result<Option<RunId>, Failure> {
            let all = host.store.all_unfinished().map_err(unreadable)?;
            Ok(all.into_iter().find(|(of, _)| of == app).map(|(_, run)| run))
        };
        let run = match holder {
            Some(run) if host.store.verdict(run).map_err(unreadable)?.is_none() => Some(run),
            _ => unfinished()?,
        };
        let Some(run) = run else {
            return Err(Failure::new(
                Exit::Refused,
                format!("there is nothing to cancel: no run of {app} goes on"),
            )
            .next("`cutover history` shows what was done")
            .into());
        };
        let entries = host.store.entries(run, 1).map_err(unreadable)?;
        if entries.iter().any(|entry| is_past_bake(&entry.what)) {
            return Err(Failure::new(
                Exit::Refused,
                format!("run {run} is past its bake and can no longer be cancelled"),
            )
            .while_serving("the new release is serving")
            .next("`cutover rollback` puts the release before it live again")
            .into());
        }
        host.store.ask_cancel(run, by).map_err(unreadable)?;
        Ok(self.outgoing.send(&Reply::Done).await?)
    }
}

/// Of a run long over only the verdict is left.
fn is_known(host: &Host, run: RunId, app: &AppId) -> Result<bool, Failure> {
    let recorded = host.store.run(run).map_err(unreadable)?.map(|row| row.app);
    let judged = host.store.verdict(run).map_err(unreadable)?.map(|verdict| verdict.app);
    Ok(recorded.or(judged).is_some_and(|of| of == *app))
}

/// The bake has ended, or there was none and the old release is already going.
fn is_past_bake(what: &What) -> bool {
    match what {
        What::Left { stage, .. } | What::Skipped { stage, .. } => *stage >= Stage::Bake,
        What::Entered { stage } => *stage > Stage::Bake,
        _ => false,
    }
}

/// Durable before it is started: plan and env file in the run's folder, the run in the store (S3).
fn begin(host: &Host, asked: Asked, sent: &Secrets, fetched: BTreeSet<String>) -> Result<(), Failure> {
    let Asked { plan, unset, keep_env, wait, .. } = asked;
    let not_started = |why: String| {
        Failure::new(Exit::Failed, format!("the {} was not started", plan.verb.as_str())).because(why)
    };
    refuse_read_only(host, &plan)?;
    let (run, app, verb, by) = (plan.run, plan.app.clone(), plan.verb, plan.by.clone());
    tidy(host, &app);
    let assignment = Assignment { plan: plan.clone(), unset, keep_env, wait, fetched };
    assignment.save(&host.layout, sent).map_err(|error| not_started(error.to_string()))?;
    let is_new = host
        .store
        .begin_run(run, &app, verb, &by, Timestamp::now())
        .map_err(|error| not_started(error.to_string()))?;
    if is_new {
        return run::spawn(&host.layout, run).map_err(|error| not_started(error.to_string()));
    }
    // Another session began the same run in this moment: it starts it.
    if is_known(host, run, &app)? { Ok(()) } else { Err(not_started(format!("run {run} is another app's"))) }
}

/// A disk that a fault has made read-only stays so until somebody has looked.
fn refuse_read_only(host: &Host, plan: &HostPlan) -> Result<(), Failure> {
    let state = host.layout.state();
    if !files::is_read_only(state) {
        return Ok(());
    }
    Err(Failure::new(Exit::Failed, format!("the {} was not started", plan.verb.as_str()))
        .because(format!("{} lies on a file system that can only be read", state.display()))
        .untouched(&cutover_core::recover::serving_text(plan.live.as_ref()))
        .next("the kernel's log (`dmesg`) says what made it so; once it can be written again (`mount -o remount,rw`), try again"))
}

/// A run that is gone and could not even write how it ended: nobody could until there is room, and nobody is kept waiting for that (S24).
fn cannot_tell(host: &Host, run: RunId, app: &AppId) -> Result<(), Failure> {
    let works = RunLock::is_held(&host.layout, run) || AppLock::peek(&host.layout, app).is_some();
    let state = host.layout.state();
    if works || host.store.is_over(run).map_err(unreadable)? || !matches!(files::free(state), Ok(..NO_ROOM)) {
        return Ok(());
    }
    let live = crate::observe::live(host, app, None).ok().flatten();
    Err(Failure::new(Exit::Person, format!("run {run} could not write how it ended"))
        .because(format!("the disk of {} is full{}", state.display(), files::room(state)))
        .while_serving(cutover_core::recover::serving_text(live.as_ref()))
        .next(format!("make room under {}: the run is then settled by itself", state.display()))
        .next(format!("`cutover attach {run}` tells how it ended")))
}

/// A run without a verdict whose process is gone: one that never came to life (the session was killed in between) is started, one that was
/// carried out in part is settled, by whoever asks next (S9).
fn revive(host: &Host, run: RunId, app: &AppId) -> Result<(), Failure> {
    if host.store.is_over(run).map_err(unreadable)? {
        return Ok(());
    }
    let has_begun = host.store.has_begun(run).map_err(unreadable)?;
    let started = if has_begun {
        // Whoever works on it holds the lock; the settling process takes it, or finds it taken.
        if AppLock::peek(&host.layout, app).is_some() { Ok(()) } else { run::spawn_settle(&host.layout, app) }
    } else if RunLock::is_held(&host.layout, run) || !host.layout.run_folder(run).exists() {
        Ok(())
    } else {
        run::spawn(&host.layout, run)
    };
    started.map_err(|error| {
        Failure::new(Exit::Failed, format!("run {run} was not started")).because(error.to_string())
    })
}

async fn until_free(host: &Host, run: RunId, app: &AppId) {
    let end = Instant::now() + LET_GO;
    let is_held = || AppLock::peek(&host.layout, app).is_some_and(|holder| holder.run == run);
    while Instant::now() < end && is_held() {
        sleep(LOOK_AGAIN).await;
    }
}

/// Journals and events of runs long over go; their verdicts stay. Best effort: what stays is tried again by the next run.
fn tidy(host: &Host, app: &AppId) {
    let outcome =
        host.store.forget_runs(app, defaults::RUNS).map_err(|error| error.to_string()).and_then(|runs| {
            runs.into_iter()
                .try_for_each(|run| events::forget(&host.layout, run).map_err(|error| error.to_string()))
        });
    if let Err(error) = outcome {
        tracing::warn!(%error, "what is left of old runs stays");
    }
}

fn newer_plan(version: u32) -> Failure {
    Failure::new(Exit::Refused, "the plan is of a newer version than this cutover-host knows")
        .because(format!("it has version {version}, this cutover-host knows {PLAN_VERSION}"))
        .next("upgrade cutover-host on this host")
}

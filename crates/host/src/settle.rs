//! Look → decide → carry out, again and again until a verdict: the one way every run ends, whether a stage failed, a person cancelled, a
//! deadline passed, or a process died.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cutover_core::defaults;
use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::journal::{Entry, What};
use cutover_core::layout::Layout;
use cutover_core::names::{AppId, RunId};
use cutover_core::plan::{HostPlan, InstanceRef, Verb, deadline};
use cutover_core::recover::{self, Recovery, conclude, leaving, recover, standing_text, unsettled};
use cutover_core::release::Live;
use cutover_core::request::Stamp;
use cutover_core::state::HostState;
use cutover_core::verdict::{Outcome, Verdict};
use futures_util::future::join_all;
use jiff::Timestamp;
use tokio::time::Instant;

use crate::deploy::deploy;
use crate::journal::{Journal, StageError};
use crate::leftovers::forget_torn_snapshots;
use crate::lock::AppLock;
use crate::ports::Ports;
use crate::stages::{Act, EnvChange, MigrationLocks};
use crate::store::{Store, StoreError};
use crate::within::Allowance;

/// Between two looks at a host that cannot be looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Others wait so long for what a run puts away after its verdict: a container with much of its own on a slow disk.
pub(crate) const PUT_AWAY: Duration = Duration::from_secs(10);
/// It is usually over at once.
const MOMENT: Duration = Duration::from_millis(1);

/// How a run looks at its host; the real one sees with [`crate::observe`].
#[async_trait]
pub trait Look: Send + Sync {
    /// The host as it is now.
    async fn look(&self) -> Result<HostState, Failure>;

    /// What is live now, and nothing else.
    async fn live(&self) -> Result<Option<Live>, Failure>;
}

/// What settling works with.
pub struct Settling<'a> {
    /// The ways to act.
    pub ports: &'a Ports,
    /// The run's journal.
    pub journal: &'a Journal,
    /// Where things lie.
    pub layout: &'a Layout,
    /// The records.
    pub store: &'a Arc<Store>,
    /// What the run has of locks in servers: what it goes back with, too.
    pub locks: &'a MigrationLocks,
    /// Whose run it is.
    pub app: &'a AppId,
    /// The way to look.
    pub look: &'a dyn Look,
}

/// Brings the run to its verdict, which is written and given back.
pub async fn settle(settling: &Settling<'_>) -> Verdict {
    if let Some((entries, verdict)) = decided(settling).await {
        return finish(settling, &entries, verdict).await;
    }
    let mut attempt = 0_u32;
    loop {
        let (found, entries) = match see(settling).await {
            Ok(seen) => seen,
            Err(failure) => return unseen(settling, failure),
        };
        let stamp = Stamp { now: Timestamp::now(), run: settling.journal.run() };
        match recover(&entries, &found, stamp) {
            Recovery::Settled(verdict) => return finish(settling, &entries, *verdict).await,
            Recovery::Person(failure) => return person(settling, &found, &entries, *failure, stamp),
            Recovery::Act(plan) => {
                attempt += 1;
                if attempt > defaults::RECOVERIES {
                    return person(settling, &found, &entries, unsettled(&entries, &found), stamp);
                }
                if plan.direction == cutover_core::plan::Direction::Back {
                    settling.journal.go_back();
                }
                let why = format!(
                    "going {}",
                    if plan.direction == cutover_core::plan::Direction::Back { "back" } else { "on" }
                );
                let written = settling.journal.write(What::Resumed { attempt, why });
                let written =
                    written.and_then(|_| settling.journal.write(What::Planned { plan: plan.clone() }));
                if let Err(error) = written {
                    return person(settling, &found, &entries, error.failure(), stamp);
                }
                allow(settling, &plan);
                let act = Act {
                    ports: settling.ports,
                    journal: settling.journal,
                    layout: settling.layout,
                    store: settling.store,
                    locks: settling.locks,
                    plan: &plan,
                };
                carry_out(&act, &EnvChange::of(settling.layout, stamp.run)).await;
            }
        }
    }
}

/// "Done" that was told stays so. Where every stage gave its proof, what is live is all that is looked at: an engine lets nobody look at what it
/// is just taking apart.
async fn decided(settling: &Settling<'_>) -> Option<(Vec<Entry>, Verdict)> {
    let entries = settling.journal.entries().ok()?;
    if let Some(told) = recover::told_done(&entries).cloned() {
        return Some((entries, told));
    }
    let live = tokio::time::timeout(defaults::LOOK, settling.look.live()).await.ok()?.ok()?;
    let stamp = Stamp { now: Timestamp::now(), run: settling.journal.run() };
    let verdict = recover::undisturbed(&entries, settling.app, live.as_ref(), stamp)?;
    Some((entries, verdict))
}

/// The host and the journal. Neither is guessed at where it cannot be read: an unreadable journal is not an empty one. What is away for a
/// moment, an engine that restarts say, is waited for.
async fn see(settling: &Settling<'_>) -> Result<(HostState, Vec<Entry>), Failure> {
    let begun = Instant::now();
    loop {
        let looked = tokio::time::timeout(defaults::LOOK, settling.look.look()).await;
        let seen = looked.unwrap_or_else(|_| Err(unanswered())).and_then(|found| {
            let entries = settling.journal.entries().map_err(|error| unreadable(&error))?;
            Ok((found, entries))
        });
        match seen {
            Err(failure) if begun.elapsed() < defaults::PATIENCE => {
                tracing::warn!(%failure, "the host cannot be looked at");
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            seen => return seen,
        }
    }
}

fn unreadable(error: &StoreError) -> Failure {
    Failure::new(Exit::Person, "the journal of the run cannot be read")
        .because(error.to_string())
        .next("see what runs with `cutover status`, then `cutover deploy` again")
}

/// Each plan has its time anew (S9). A disk without room for that keeps nobody from recovering (S24).
fn allow(settling: &Settling<'_>, plan: &HostPlan) {
    let run = settling.journal.run();
    if let Err(error) = Allowance::grant(settling.layout, run, deadline::whole(plan)) {
        tracing::warn!(%error, "the deadline of a recovery could not be written");
    }
}

fn unanswered() -> Failure {
    Failure::new(Exit::Failed, "the host cannot be looked at")
        .because(format!("something on it did not answer within {} s", defaults::LOOK.as_secs()))
}

/// Carries a plan out; a failing stage is journalled, and the next look decides.
pub async fn carry_out(act: &Act<'_>, env: &EnvChange) {
    if let Err((stage, error)) = deploy(act, env).await {
        let failure = match error {
            StageError::Cancelled { by } if act.plan.verb == Verb::MigrateRehearse => {
                rehearsal_cancelled(&by)
            }
            other => other.failure(),
        };
        let written = act.journal.write(What::Failed { stage, failure });
        if let Err(error) = written {
            // The look decides all the same: not switched goes back, switched goes on.
            tracing::warn!(?error, "a failure could not be written");
            act.journal.go_back();
        }
    }
}

fn rehearsal_cancelled(by: &str) -> Failure {
    Failure::new(Exit::Cancelled, "the rehearsal was cancelled")
        .because(format!("{by} asked for it"))
        .next("`cutover migrate rehearse` again when it is wanted; a backup, a deploy and whatever else changes the app goes before it")
}

/// Recorded, told, and then what is left is put away: a run that dies in between is unfinished, and the next one that settles it does so.
async fn finish(settling: &Settling<'_>, entries: &[Entry], verdict: Verdict) -> Verdict {
    settling.journal.go_back();
    tidy(settling);
    let leaving = leaving(entries);
    let recorded = if leaving.is_empty() {
        settling.store.finish_run(&verdict)
    } else {
        settling.store.decide_run(&verdict)
    };
    if let Err(error) = recorded {
        tracing::warn!(%error, "the verdict could not be recorded");
    }
    let is_told = |entry: &Entry| matches!(&entry.what, What::Verdict { verdict: told } if **told == verdict);
    if !entries.iter().any(is_told) {
        let written = settling.journal.write(What::Verdict { verdict: Box::new(verdict.clone()) });
        if let Err(error) = written {
            tracing::warn!(?error, "the verdict could not be written");
        }
    }
    if !leaving.is_empty() {
        put_away(settling, leaving).await;
        if let Err(error) = settling.store.finish_run(&verdict) {
            tracing::warn!(%error, "that the run is over could not be recorded");
        }
    }
    verdict
}

/// Whether the holder of the app's lock has told that it is done, and only puts away what is left. That takes moments, and is nobody's run any more.
pub(crate) fn is_putting_away(layout: &Layout, store: &Store, app: &AppId) -> bool {
    AppLock::peek(layout, app).is_some_and(|holder| has_told(store, holder.run))
}

/// Whether a run has told that it is done.
pub(crate) fn has_told(store: &Store, run: RunId) -> bool {
    matches!(store.verdict(run), Ok(Some(verdict)) if verdict.exit() == Exit::Done)
}

/// Waits for that, so that what is seen next is what stays. One that takes long is not waited for.
pub(crate) async fn until_put_away(layout: &Layout, store: &Store, app: &AppId) {
    let end = Instant::now() + PUT_AWAY;
    while is_putting_away(layout, store, app) && Instant::now() < end {
        tokio::time::sleep(MOMENT).await;
    }
}

/// Best effort: what is stopped is in nobody's way, and the next deploy takes it away where this did not.
async fn put_away(settling: &Settling<'_>, leaving: &[InstanceRef]) {
    let remove = async |instance: &InstanceRef| {
        settling.ports.runtime(instance.runtime)?.remove(settling.app, &instance.name).await
    };
    let each = leaving.iter().map(async |instance| {
        match tokio::time::timeout(defaults::ENGINE_CALL, remove(instance)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(instance = %instance.name, %error, "what was replaced stays, stopped");
            }
            Err(_) => tracing::warn!(instance = %instance.name, "what was replaced stays: nothing answered"),
        }
    });
    join_all(each).await;
}

/// Half a dump takes as much room as the database: it does not stay until somebody prunes.
fn tidy(settling: &Settling<'_>) {
    if let Err(error) = forget_torn_snapshots(settling.layout, settling.app) {
        tracing::warn!(%error, "half a snapshot stays");
    }
}

/// A person is told; the run stays unfinished, so that watch keeps off what it left, and tries again with growing pauses.
fn give_up(settling: &Settling<'_>, verdict: Verdict) -> Verdict {
    settling.journal.go_back();
    tidy(settling);
    if let Err(error) = settling.store.give_up_run(&verdict) {
        tracing::warn!(%error, "what a person is told could not be recorded");
    }
    let written = settling.journal.write(What::Verdict { verdict: Box::new(verdict.clone()) });
    if let Err(error) = written {
        tracing::warn!(?error, "what a person is told could not be written");
    }
    verdict
}

fn person(
    settling: &Settling<'_>,
    found: &HostState,
    entries: &[Entry],
    mut failure: Failure,
    stamp: Stamp,
) -> Verdict {
    failure.exit = Exit::Person;
    failure.state = standing_text(entries, found);
    let verdict = conclude(entries, found, stamp);
    give_up(settling, Verdict { outcome: Outcome::Failed { failure }, ..verdict })
}

/// What a person is told of a host or a journal that could not even be looked at.
fn unseen(settling: &Settling<'_>, mut failure: Failure) -> Verdict {
    failure.exit = Exit::Person;
    "not known: the host could not be looked at".clone_into(&mut failure.state);
    let (run, now) = (settling.journal.run(), Timestamp::now());
    let entries = settling.journal.entries().unwrap_or_default();
    let goal = cutover_core::recover::goal(&entries);
    let row = settling.store.run(run).ok().flatten();
    let plan = goal.map(|goal| (goal.app.clone(), goal.verb, goal.by.clone()));
    let known = row.map(|row| (row.app, row.verb, row.by, row.started));
    let (app, verb, by, started) = match (known, plan) {
        (Some(known), _) => known,
        (None, Some((app, verb, by))) => (app, verb, by, now),
        (None, None) => (settling.app.clone(), cutover_core::plan::Verb::Deploy, String::new(), now),
    };
    let verdict = Verdict {
        run,
        app,
        verb,
        release: goal.and_then(|goal| goal.release.as_ref()).map(|release| release.id.clone()),
        serving: None,
        outcome: Outcome::Failed { failure },
        allowed: Vec::new(),
        by,
        started,
        finished: now,
        switched_ms: None,
        freed: None,
        warnings: Vec::new(),
    };
    give_up(settling, verdict)
}

#[cfg(test)]
#[path = "settle_tests.rs"]
mod tests;

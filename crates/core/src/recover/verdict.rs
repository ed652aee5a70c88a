//! The verdict of a run that has come to its end.

use std::collections::BTreeMap;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::journal::{Entry, Step, StepResult, What};
use crate::layout;
use crate::names::{AppId, InstanceName};
use crate::plan::{Direction, HeldDatabase, HostPlan, Migration, Stage, Verb};
use crate::release::{Live, Release};
use crate::request::Stamp;
use crate::state::HostState;
use crate::verdict::{Outcome, Verdict};

use super::journalled::{direct, goal, intended, is_undisturbed, restored, switched_forward, undone};
use super::standing::{Standing, is_rehearsal, is_switched, standing, wants_back};
use super::words::{again, serving_text, state_text};

/// The verdict of a run whose plan, forward or back, has been carried out.
pub fn conclude(journal: &[Entry], found: &HostState, stamp: Stamp) -> Verdict {
    let goal = goal(journal);
    let standing = goal.map(|goal| standing(journal, goal, found));
    let switched = standing.as_ref().is_some_and(|standing| standing.switched);
    let mut verdict = verdict_of(journal, &found.app, found.live.as_ref(), stamp);
    let rehearses = goal.is_some_and(is_rehearsal);
    let failure = match standing.and_then(|standing| Some((standing.failed.clone()?, standing))) {
        None if switched => None,
        None if rehearses => Some(rehearsal_killed()),
        None => Some(killed(journal)),
        // What was asked is live; what did not work at first has been done since.
        Some(((stage, failure), standing)) if switched && made_good(journal) && !standing.past_return => {
            verdict.warnings.push(format!("stage {stage} did not work at first: {failure}"));
            None
        }
        Some(((_, failure), standing)) if switched && !wants_back(&standing) => {
            Some(went_on(failure, &standing, goal.zip(before(journal, goal))))
        }
        Some(((_, failure), _)) => Some(failure),
    };
    if let Some(failure) = failure {
        let mut failure = match goal {
            // What is live was not its affair, and how that is now not its to tell.
            Some(goal) if !switched && !rehearses => with_what_is_gone(failure, goal, found),
            _ => failure,
        };
        let first = goal.is_some_and(|goal| goal.live.is_none());
        failure.state = if first && found.live.is_none() {
            "nothing was serving; nothing is".to_owned()
        } else {
            state_text(journal, goal, found)
        };
        if failure.next.is_empty() {
            failure.next.push(format!(
                "see `cutover attach {}` for what was tried; then {}",
                stamp.run,
                again(goal)
            ));
        }
        verdict.outcome = Outcome::Failed { failure };
    }
    verdict
}

/// The verdict of a run whose stages all gave their proofs, one after the other: only what is served is still to be looked at. `None`: it is not
/// such a run, or what it made live is not what is live; then a whole look decides.
pub fn undisturbed(journal: &[Entry], app: &AppId, live: Option<&Live>, stamp: Stamp) -> Option<Verdict> {
    let goal = goal(journal).filter(|goal| is_undisturbed(journal) && is_switched(goal, live));
    goal.map(|_| verdict_of(journal, app, live, stamp))
}

/// Whether ways on have done all that failed before the drain. Once something has failed they no longer bake, and ask no route.
fn made_good(journal: &[Entry]) -> bool {
    let asks = |plan: &HostPlan| plan.verify.todo().is_some_and(|verify| !verify.routes.is_empty());
    let mut ways = None;
    let mut open: BTreeMap<Stage, bool> = BTreeMap::new();
    for entry in journal {
        match (&entry.what, ways) {
            (What::Planned { plan }, _) => {
                ways = (plan.direction == Direction::Forward).then(|| asks(plan));
            }
            (What::Failed { stage, .. }, Some(asked)) if *stage < Stage::Drain => {
                *open.entry(*stage).or_default() |= asked;
            }
            (What::Left { stage, .. }, Some(asks)) if open.get(stage).is_some_and(|asked| asks || !asked) => {
                open.remove(stage);
            }
            _ => {}
        }
    }
    open.is_empty()
}

fn killed(journal: &[Entry]) -> Failure {
    let step = |migration: &Migration| Step::Migrate { database: migration.database.clone() };
    let begun = direct(journal).filter(|migration| intended(journal, &step(migration)));
    let begun: Vec<String> = begun.map(|migration| format!("`{}`", migration.database)).collect();
    let back = "its process died before the switch; what it had begun was taken back";
    Failure::new(Exit::Failed, "the run was ended from outside")
        .because(if begun.is_empty() {
            back.to_owned()
        } else {
            format!("{back}, but for the migration of {}, which had begun", begun.join(", "))
        })
        .next("start it again")
}

fn rehearsal_killed() -> Failure {
    Failure::new(Exit::Failed, "the rehearsal was ended from outside")
        .because("its process died; what it had begun was taken back")
        .next("`cutover migrate rehearse` again")
}

/// What is called the snapshot of what a database was before something from before that took its place: another snapshot, or a schema.
fn before<'a>(journal: &[Entry], goal: Option<&'a HostPlan>) -> Option<&'a str> {
    let goal =
        goal.filter(|goal| !(restored(journal, goal).is_empty() && undone(journal, goal).is_empty()))?;
    let mut held = goal.handover.todo()?.databases.iter();
    let before = held.find_map(|held| match held {
        HeldDatabase::Restore { present, .. } => present.as_deref(),
        HeldDatabase::Migrate { migration } => {
            migration.down.as_ref().map(|_| migration.snapshot_file.as_str())
        }
        HeldDatabase::Password { .. } | HeldDatabase::Settle { .. } => None,
    });
    before.map(layout::snapshot_name)
}

/// A failure with no way back: the new release goes on, and a person must know (S18).
fn went_on(failure: Failure, standing: &Standing, before: Option<(&HostPlan, &str)>) -> Failure {
    let mut failure = failure;
    failure.exit = Exit::Person;
    if let Some((goal, before)) = before.filter(|_| standing.past_return) {
        failure.cause.push(
            "the database is what was asked for and has been written to since, so what is live now goes on"
                .to_owned(),
        );
        let mut next = forward_again(goal, before);
        next.append(&mut failure.next);
        failure.next = next;
    } else if standing.past_return {
        failure
            .cause
            .push("the old release cannot run on the migrated database, so the new one goes on".to_owned());
        failure.next.insert(0, "mend it with a new release, or `cutover rollback --restore-db` (what was written since is then not served)".to_owned());
    } else {
        failure.cause.push("what was live before is no longer all there, so the new one goes on".to_owned());
        failure.next.insert(0, "mend it with a new release, or `cutover rollback`".to_owned());
    }
    failure
}

/// What was before does not fit the release that a rollback has made live: there it is put beside, and no more.
fn forward_again(goal: &HostPlan, before: &str) -> Vec<String> {
    match goal.live.as_ref().filter(|_| goal.verb == Verb::Rollback) {
        Some(was) => vec![
            format!(
                "mend it with a new release, or deploy the commit of release {} again: what was migrated is then migrated anew, and what was written since stays",
                was.release
            ),
            format!(
                "what the database was before: `cutover snapshot restore {before} --to SCRATCH` puts it beside, to look at"
            ),
        ],
        None => vec![format!(
            "mend it with a new release, or `cutover snapshot restore {before}`: what the database was before"
        )],
    }
}

/// That the old release serves is said only when all of it is there and passed its gate (S14).
fn with_what_is_gone(mut failure: Failure, goal: &HostPlan, found: &HostState) -> Failure {
    let members = goal.live.iter().flat_map(|live| live.members.values().flatten());
    let is_gone = |name: &&InstanceName| !found.instances.iter().any(|other| other.name == **name);
    let gone: Vec<String> = members.filter(is_gone).map(|name| format!("`{name}`")).collect();
    if !gone.is_empty() {
        failure.exit = Exit::Person;
        failure.cause.push(format!("{} of what served before is no longer there", gone.join(", ")));
        failure.next.insert(0, "`cutover restart` makes it anew, or deploy again".to_owned());
    }
    failure
}

pub(super) fn verdict_of_none(
    journal: &[Entry],
    found: &HostState,
    stamp: Stamp,
    failure: Failure,
) -> Verdict {
    let mut verdict = verdict_of(journal, &found.app, found.live.as_ref(), stamp);
    let failure = failure.while_serving(serving_text(found.live.as_ref()));
    verdict.outcome = Outcome::Failed { failure };
    verdict
}

fn verdict_of(journal: &[Entry], app: &AppId, live: Option<&Live>, stamp: Stamp) -> Verdict {
    let goal = goal(journal);
    let started = journal.first().map_or(stamp.now, |entry| entry.at);
    let warnings = journal.iter().filter_map(|entry| {
        if let What::Warning { text, .. } = &entry.what { Some(text.clone()) } else { None }
    });
    Verdict {
        run: stamp.run,
        app: app.clone(),
        verb: goal.map_or(Verb::Deploy, |goal| goal.verb),
        release: goal.and_then(|goal| goal.release.as_ref()).map(|release: &Release| release.id.clone()),
        serving: live.map(|live| live.release.clone()),
        outcome: Outcome::Done,
        allowed: goal.map(|goal| goal.allowed.iter().copied().collect()).unwrap_or_default(),
        by: goal.map(|goal| goal.by.clone()).unwrap_or_default(),
        started,
        finished: stamp.now,
        switched_ms: switched_forward(journal)
            .filter(|_| goal.is_some_and(|goal| is_switched(goal, live)))
            .and_then(|entry| u64::try_from(entry.at.duration_since(started).as_millis()).ok()),
        freed: goal.filter(|goal| goal.verb.is_prune()).map(|_| freed(journal)),
        warnings: warnings.collect(),
    }
}

fn freed(journal: &[Entry]) -> u64 {
    let bytes = journal.iter().map(|entry| match &entry.what {
        What::Outcome { result: StepResult::Freed { bytes }, .. } => *bytes,
        _ => 0,
    });
    bytes.sum()
}

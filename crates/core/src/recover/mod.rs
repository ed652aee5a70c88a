//! From a journal and a look to what is done next: the same way for a failed stage, a cancel, a deadline and a crash.
//!
//! What is served and what runs decides; the journal explains it, it does not overrule it (S1). Not yet switched: the new goes, the old
//! goes on. Switched: finish, or switch back while the old is warm.

mod back;
mod databases;
mod journalled;
mod onward;
mod standing;
mod verdict;
mod words;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::journal::{Entry, Step, What};
use crate::plan::{Direction, HostPlan, Stage};
use crate::request::Stamp;
use crate::state::HostState;
use crate::verdict::Verdict;

use back::back;
use databases::{restores, waiting};
use journalled::finished;
use onward::onward;
use standing::{clean, wants_back};
use verdict::verdict_of_none;
use words::person;

pub use journalled::{goal, leaving, migration_records, restored, told_done, undone};
pub use standing::{Standing, standing};
pub use verdict::{conclude, undisturbed};
pub use words::{serving_text, standing_text, unsettled};

/// What is done next.
#[derive(Debug, Clone, PartialEq)]
pub enum Recovery {
    /// Nothing: this is how it ended.
    Settled(Box<Verdict>),
    /// This, by the same executor; then look again.
    Act(Box<HostPlan>),
    /// Nothing that cutover may do by itself.
    Person(Box<Failure>),
}

/// Decides what is done next for a run whose process ended, or whose stage failed.
pub fn recover(journal: &[Entry], found: &HostState, stamp: Stamp) -> Recovery {
    let told = journal.iter().rposition(|entry| matches!(entry.what, What::Verdict { .. }));
    if let Some(What::Verdict { verdict }) = told.map(|at| &journal[at].what)
        && verdict.exit() != Exit::Person
    {
        return Recovery::Settled(verdict.clone());
    }
    let Some(goal) = goal(journal) else {
        let failure = Failure::new(Exit::Failed, "the run ended before it had a plan").next("start it again");
        return Recovery::Settled(Box::new(verdict_of_none(journal, found, stamp, failure)));
    };
    if is_untouched(journal) {
        return Recovery::Settled(Box::new(conclude(journal, found, stamp)));
    }
    let standing = standing(journal, goal, found);
    let carried_out = finished(journal);
    let onward_bound = standing.switched && !wants_back(&standing);
    let is_back = !standing.switched || goal.switch.todo().is_none();
    let is_done = match carried_out {
        Some(Direction::Forward) => onward_bound,
        Some(Direction::Back) => !onward_bound && is_back && clean(goal, found),
        None => false,
    };
    if is_done {
        return Recovery::Settled(Box::new(conclude(journal, found, stamp)));
    }
    // Once a person was told, each process that comes to settle tries once: the journal is not to grow without end.
    let most = if told.is_some() { 1 } else { crate::defaults::RECOVERIES as usize + 1 };
    let since = &journal[told.unwrap_or(0)..];
    if since.iter().filter(|entry| matches!(entry.what, What::Resumed { .. })).count() >= most {
        return Recovery::Person(Box::new(person(journal, goal, found)));
    }
    if onward_bound {
        Recovery::Act(Box::new(onward(goal, &standing, journal)))
    } else {
        Recovery::Act(Box::new(back(goal, journal, found, stamp)))
    }
}

/// Whether a run that a person was told of is in nobody's way: no database waits to be put back, no password to be given back or to be told to
/// earlier releases, and nothing of it runs that is not live. Then another run may go on from what is there.
pub fn is_out_of_the_way(journal: &[Entry], found: &HostState) -> bool {
    let Some(goal) = goal(journal) else { return true };
    let is_settled = standing(journal, goal, found).switched || clean(goal, found);
    is_settled && restores(goal, journal, found).is_empty() && waiting(goal, journal, found).next().is_none()
}

/// The preflight failed: nothing was begun but to write the release's own files. There is nothing to take back, and the way back may need
/// the very thing that is missing.
fn is_untouched(journal: &[Entry]) -> bool {
    let only_looked = |entry: &Entry| match &entry.what {
        What::Intent { step, .. } => matches!(step, Step::Admit),
        What::Resumed { .. } => false,
        _ => true,
    };
    let failed =
        |entry: &Entry| matches!(&entry.what, What::Failed { stage, .. } if *stage <= Stage::Preflight);
    journal.iter().any(failed) && journal.iter().all(only_looked)
}

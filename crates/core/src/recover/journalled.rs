//! What a journal says of its run: what was asked, what was begun, what was done, what failed.

use std::collections::{BTreeMap, BTreeSet};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::journal::{Entry, Step, StepResult, What};
use crate::names::DatabaseName;
use crate::plan::{self, Direction, HeldDatabase, HostPlan, InstanceRef, Migration, Stage};
use crate::state::{Migrated, Restored, Undone};
use crate::verdict::Verdict;

/// The plan that was asked for: the last one forward before any recovery (a rehearsal may have put its alternative in the first one's
/// place). The rest of a way forward is a plan, too, but it no longer says what was handed over.
pub fn goal(journal: &[Entry]) -> Option<&HostPlan> {
    asked(journal).last()
}

/// The plan that was asked for, and its alternative where a rehearsal put that in its place.
fn asked(journal: &[Entry]) -> impl Iterator<Item = &HostPlan> {
    let recovered =
        journal.iter().position(|entry| matches!(entry.what, What::Resumed { .. })).unwrap_or(journal.len());
    plans(&journal[..recovered]).filter(|plan| plan.direction == Direction::Forward)
}

/// Migrations beside the old release. They are done before the alternative takes the plan's place, which does not have them; one that has them
/// again means the same.
pub(super) fn direct(journal: &[Entry]) -> impl Iterator<Item = &Migration> {
    let all = asked(journal).filter_map(|plan| plan.migrate.todo()).flat_map(|migrate| &migrate.direct);
    all.map(|migration| (&migration.database, migration)).collect::<BTreeMap<_, _>>().into_values()
}

pub(super) fn plans(journal: &[Entry]) -> impl Iterator<Item = &HostPlan> {
    journal
        .iter()
        .filter_map(|entry| if let What::Planned { plan } = &entry.what { Some(plan.as_ref()) } else { None })
}

/// What is to be removed once the verdict has been told: of the newest plan, where it was carried out. One that failed before it began has
/// replaced nothing.
pub fn leaving(journal: &[Entry]) -> &[InstanceRef] {
    let carried_out = plans(journal).last().filter(|_| finished(journal).is_some());
    carried_out.map(plan::leaving).unwrap_or_default()
}

/// The verdict "done" that was told already: a run that died while it put away what is left is judged no second time.
pub fn told_done(journal: &[Entry]) -> Option<&Verdict> {
    let decides = |entry: &&Entry| {
        matches!(
            entry.what,
            What::Verdict { .. } | What::Planned { .. } | What::Failed { .. } | What::Resumed { .. }
        )
    };
    match &journal.iter().rev().find(decides)?.what {
        What::Verdict { verdict } if verdict.exit() == Exit::Done => Some(verdict),
        _ => None,
    }
}

/// Whether the way forward was walked to its end in one go: nothing failed, nothing was taken up again, nothing was told yet.
pub(super) fn is_undisturbed(journal: &[Entry]) -> bool {
    let disturbs = |entry: &Entry| {
        matches!(entry.what, What::Failed { .. } | What::Resumed { .. } | What::Verdict { .. })
    };
    finished(journal) == Some(Direction::Forward) && !journal.iter().any(disturbs)
}

/// The direction of the newest plan, when its last stage is over.
pub(super) fn finished(journal: &[Entry]) -> Option<Direction> {
    let at = journal.iter().rposition(|entry| matches!(entry.what, What::Planned { .. }))?;
    let What::Planned { plan } = &journal[at].what else { return None };
    let recorded =
        journal[at..].iter().any(|entry| matches!(entry.what, What::Left { stage: Stage::Record, .. }));
    recorded.then_some(plan.direction)
}

/// The newest failure of the way forward: it turns a run around. One on the way back does not; that way is walked again.
pub(super) fn failure(journal: &[Entry]) -> Option<(Stage, Failure)> {
    let mut forward = true;
    let mut failed = None;
    for entry in journal {
        match &entry.what {
            What::Planned { plan } => forward = plan.direction == Direction::Forward,
            What::Failed { stage, failure } if forward => failed = Some((*stage, failure.clone())),
            _ => {}
        }
    }
    failed
}

/// What keeps the newest way from going back, where it is one.
pub(super) fn failed_back(journal: &[Entry]) -> Option<&Failure> {
    let at = journal.iter().rposition(|entry| matches!(entry.what, What::Planned { .. }))?;
    let is_back = matches!(&journal[at].what, What::Planned { plan } if plan.direction == Direction::Back);
    let mut since = journal[at..].iter().filter(|_| is_back);
    since.find_map(|entry| if let What::Failed { failure, .. } = &entry.what { Some(failure) } else { None })
}

pub(super) fn journal_switched(journal: &[Entry]) -> bool {
    outcomes(journal).any(|(step, _)| matches!(step, Step::Switch | Step::Live)) && {
        // A switch of a way back does not count as one forward.

        plans(journal).all(|plan| plan.direction == Direction::Forward)
    }
}

/// Steps with an outcome, in order.
pub(super) fn outcomes(journal: &[Entry]) -> impl Iterator<Item = (&Step, &StepResult)> {
    journal.iter().filter_map(|entry| {
        let What::Outcome { intent, result } = &entry.what else { return None };
        journal.iter().find_map(|other| match &other.what {
            What::Intent { step, .. } if other.seq == *intent => Some((step, result)),
            _ => None,
        })
    })
}

/// Migrations that were begun on the database itself.
pub(super) fn migrated<'a>(journal: &'a [Entry], goal: &'a HostPlan) -> Vec<&'a Migration> {
    let begun: BTreeSet<&DatabaseName> = journal
        .iter()
        .filter_map(|entry| {
            if let What::Intent { step: Step::Migrate { database }, .. } = &entry.what {
                Some(database)
            } else {
                None
            }
        })
        .collect();
    let held =
        goal.handover.todo().into_iter().flat_map(|plan| &plan.databases).filter_map(|held| match held {
            HeldDatabase::Migrate { migration } => Some(migration.as_ref()),
            HeldDatabase::Restore { .. } | HeldDatabase::Password { .. } | HeldDatabase::Settle { .. } => {
                None
            }
        });
    direct(journal).chain(held).filter(|migration| begun.contains(&migration.database)).collect()
}

/// What the records keep of the migrations that went live with a goal.
pub fn migration_records(journal: &[Entry], goal: &HostPlan) -> Vec<Migrated> {
    let taken: BTreeSet<&String> = outcomes(journal)
        .filter_map(|(step, _)| if let Step::Snapshot { file, .. } = step { Some(file) } else { None })
        .collect();
    let schema = |wanted: &DatabaseName| {
        outcomes(journal).find_map(|(step, result)| match (step, result) {
            (Step::Migrate { database }, StepResult::Migrated { schema, .. }) if database == wanted => {
                Some(schema.clone())
            }
            _ => None,
        })
    };
    migrated(journal, goal)
        .into_iter()
        .filter(|migration| migration.down.is_none())
        .map(|migration| Migrated {
            database: migration.database.clone(),
            compatible: migration.compatible,
            snapshot: taken.contains(&migration.snapshot_file).then(|| migration.snapshot_file.clone()),
            schema: schema(&migration.database),
            changed: changed(journal, &migration.database),
        })
        .collect()
}

/// Whether the migration of a database changed anything, as far as that is known: it is carried out also where only another one is pending.
fn changed(journal: &[Entry], wanted: &DatabaseName) -> Option<bool> {
    let of_it = outcomes(journal).filter_map(|(step, result)| match (step, result) {
        (Step::Migrate { database }, StepResult::Migrated { changed, .. }) if database == wanted => *changed,
        (Step::Rehearse { database }, StepResult::Rehearsed { pending, .. }) if database == wanted => {
            Some(*pending)
        }
        // One that says so may also have failed.
        (Step::Pending { database }, StepResult::Rehearsed { pending: false, .. }) if database == wanted => {
            Some(false)
        }
        _ => None,
    });
    of_it.last()
}

/// The migrations that a goal took back by their own commands.
pub fn undone(journal: &[Entry], goal: &HostPlan) -> Vec<Undone> {
    let is_done = |wanted: &DatabaseName| {
        outcomes(journal).any(|(step, _)| matches!(step, Step::Migrate { database } if database == wanted))
    };
    let all = migrated(journal, goal).into_iter().filter(|migration| is_done(&migration.database));
    all.flat_map(|migration| &migration.down).flat_map(|down| down.undoes.clone()).collect()
}

/// The snapshots that a goal put in the place of databases, because somebody asked for it.
pub fn restored(journal: &[Entry], goal: &HostPlan) -> Vec<Restored> {
    let put: BTreeSet<(&DatabaseName, &String)> =
        outcomes(journal)
            .filter_map(|(step, _)| {
                if let Step::Restore { database, file } = step { Some((database, file)) } else { None }
            })
            .collect();
    let held = goal.handover.todo().into_iter().flat_map(|handover| &handover.databases);
    held.filter_map(|held| match held {
        HeldDatabase::Restore { database, snapshot: Some(snapshot), present: Some(_), .. }
            if put.contains(&(database, snapshot)) =>
        {
            Some(Restored { database: database.clone(), snapshot: snapshot.clone() })
        }
        _ => None,
    })
    .collect()
}

pub(super) fn intended(journal: &[Entry], wanted: &Step) -> bool {
    journal.iter().any(|entry| matches!(&entry.what, What::Intent { step, .. } if step == wanted))
}

/// What a way back has begun already.
pub(super) fn begun_back(journal: &[Entry]) -> Vec<&Step> {
    let mut back = false;
    let begun = journal.iter().filter_map(|entry| match &entry.what {
        What::Planned { plan } => {
            back = plan.direction == Direction::Back;
            None
        }
        What::Intent { step, .. } => back.then_some(step),
        _ => None,
    });
    begun.collect()
}

/// What a way back has done already.
pub(super) fn done_back(journal: &[Entry]) -> Vec<&Step> {
    let mut back = false;
    let mut done = Vec::new();
    for entry in journal {
        match &entry.what {
            What::Planned { plan } => back = plan.direction == Direction::Back,
            What::Outcome { intent, .. } if back => {
                let of = journal.iter().find(|other| other.seq == *intent).map(|other| &other.what);
                if let Some(What::Intent { step, .. }) = of {
                    done.push(step);
                }
            }
            _ => {}
        }
    }
    done
}

/// Where the way forward had switched: the first time that it is known to have.
pub(super) fn switched_forward(journal: &[Entry]) -> Option<&Entry> {
    let mut forward = false;
    journal.iter().find(|entry| match &entry.what {
        What::Planned { plan } => {
            forward = plan.direction == Direction::Forward;
            false
        }
        What::Outcome { intent, .. } if forward => {
            let of = journal.iter().find(|other| other.seq == *intent).map(|other| &other.what);
            matches!(of, Some(What::Intent { step: Step::Switch | Step::Live, .. }))
        }
        _ => false,
    })
}

//! Which databases a way back puts back.

use std::collections::BTreeSet;

use crate::journal::{Entry, Step, What};
use crate::names::DatabaseName;
use crate::plan::{DatabasePlace, HeldDatabase, HostPlan, PasswordChange};
use crate::state::HostState;

use super::journalled::{begun_back, direct, done_back, intended, outcomes, switched_forward};
use super::standing::{seen_switched, standing};

/// Databases to be put back: those that were begun to be changed, unless the schema may stay (the hold has ended and the old release can
/// live with it).
pub(super) fn restores(goal: &HostPlan, journal: &[Entry], found: &HostState) -> Vec<HeldDatabase> {
    // What was stopped for it runs again: it was put back before, and has been written to since.
    let opened = goal.handover.todo().is_some_and(|handover| {
        handover
            .outgoing
            .iter()
            .any(|old| found.instances.iter().any(|other| other.name == old.name && other.is_running()))
    });
    if opened || switched_forward(journal).is_some() || seen_switched(journal, goal, found) {
        return Vec::new();
    }
    // They may have been written to since.
    let restored: BTreeSet<&DatabaseName> = done_back(journal)
        .into_iter()
        .filter_map(|step| if let Step::Restore { database, .. } = step { Some(database) } else { None })
        .collect();
    let taken: BTreeSet<&String> = outcomes(journal)
        .filter_map(|(step, _)| if let Step::Snapshot { file, .. } = step { Some(file) } else { None })
        .collect();
    let touched: BTreeSet<&DatabaseName> = journal
        .iter()
        .filter_map(|entry| match &entry.what {
            What::Intent { step: Step::Migrate { database }, .. } => Some(database),
            // One that is known not to have happened left the database as it was.
            What::Intent { step: Step::Restore { database, .. }, .. } => {
                let not_done = |other: &Entry| {
                    matches!(&other.what, What::Broke { intent, unknown: false, .. } if *intent == entry.seq)
                };
                (!journal.iter().any(not_done)).then_some(database)
            }
            _ => None,
        })
        .collect();
    let held = goal.handover.todo().into_iter().flat_map(|handover| &handover.databases);
    held.filter_map(|held| match held {
        HeldDatabase::Migrate { migration }
            if touched.contains(&migration.database) && !restored.contains(&migration.database) =>
        {
            let place = migration.place.clone()?;
            // `snapshot: none` was decided: there is nothing to put back, and what is there is not thrown away.
            if migration.snapshot == crate::config::settings::SnapshotPolicy::None {
                return None;
            }
            let snapshot = taken.contains(&migration.snapshot_file).then(|| migration.snapshot_file.clone());
            // No file before, and none after; a server's database was there, and is not thrown away either.
            if snapshot.is_none() && migration.file().is_none() {
                return None;
            }
            Some(HeldDatabase::Restore {
                database: migration.database.clone(),
                place,
                snapshot,
                present: None,
            })
        }
        HeldDatabase::Restore { database, place, present: Some(present), .. }
            if touched.contains(database) && taken.contains(present) && !restored.contains(database) =>
        {
            Some(HeldDatabase::Restore {
                database: database.clone(),
                place: place.clone(),
                snapshot: Some(present.clone()),
                present: None,
            })
        }
        _ => None,
    })
    .collect()
}

/// Passwords that were begun to be changed: the roles get back those that what was live before is told. Repeated, it is done already.
pub(super) fn passwords(goal: &HostPlan, journal: &[Entry]) -> Vec<HeldDatabase> {
    let begun = changes(goal).filter(|change| intended(journal, &step(change)));
    begun.map(|change| HeldDatabase::Password { change: Box::new(change.back()) }).collect()
}

/// Of these, the changes that no way back is known to have undone.
pub(super) fn not_given_back<'a>(
    goal: &'a HostPlan,
    journal: &'a [Entry],
) -> impl Iterator<Item = &'a PasswordChange> {
    let done = done_back(journal);
    changes(goal).filter(move |change| intended(journal, &step(change)) && !done.contains(&&step(change)))
}

/// Changes of passwords that are not brought to their end: the server may have the one and the live release the other; or the new one is live, and
/// releases from before, among them the one that made the server's instance, are not told it yet.
pub(super) fn waiting<'a>(
    goal: &'a HostPlan,
    journal: &'a [Entry],
    found: &HostState,
) -> impl Iterator<Item = &'a PasswordChange> {
    let is_told = is_told_new(goal, journal, found);
    let back = not_given_back(goal, journal).filter(move |_| !is_told);
    let is_recorded = outcomes(journal).any(|(step, _)| *step == Step::Record);
    back.chain(changes(goal).filter(move |_| is_told && !is_recorded))
}

/// Whether the server is known to have the new passwords: what is live is told them, and no way back has begun to give the old ones back.
pub(super) fn is_told_new(goal: &HostPlan, journal: &[Entry], found: &HostState) -> bool {
    let begun = begun_back(journal);
    standing(journal, goal, found).switched && !changes(goal).any(|change| begun.contains(&&step(change)))
}

/// The passwords that a plan changes.
pub(super) fn changes(plan: &HostPlan) -> impl Iterator<Item = &PasswordChange> {
    let held = plan.handover.todo().into_iter().flat_map(|handover| &handover.databases);
    held.filter_map(|held| match held {
        HeldDatabase::Password { change } => Some(change.as_ref()),
        HeldDatabase::Migrate { .. } | HeldDatabase::Restore { .. } | HeldDatabase::Settle { .. } => None,
    })
}

fn step(change: &PasswordChange) -> Step {
    Step::Password { service: change.service.clone(), variable: change.variable.clone() }
}

/// Migrations beside the old release whose run ended while they went on: their sessions may still be in the server.
pub(super) fn unsettled(journal: &[Entry]) -> Vec<HeldDatabase> {
    let seen: BTreeSet<&DatabaseName> = outcomes(journal)
        .filter_map(|(step, _)| match step {
            Step::Migrate { database } | Step::Inspect { database } => Some(database),
            _ => None,
        })
        .collect();
    let begun = direct(journal).filter(|migration| {
        let database = migration.database.clone();
        !seen.contains(&database) && intended(journal, &Step::Migrate { database })
    });
    begun
        .filter_map(|migration| match &migration.place {
            Some(place @ DatabasePlace::Server(_)) => {
                Some(HeldDatabase::Settle { database: migration.database.clone(), place: place.clone() })
            }
            Some(DatabasePlace::File(_)) | None => None,
        })
        .collect()
}

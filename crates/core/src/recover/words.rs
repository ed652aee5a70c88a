//! What people are told: what is serving, what became of the databases, and what cutover may not do by itself.

use std::collections::BTreeSet;

use crate::config::settings::ServerKind;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::journal::{Entry, Step, StepResult};
use crate::layout;
use crate::names::{DatabaseName, InstanceName};
use crate::plan::{HeldDatabase, HostPlan, PasswordChange};
use crate::release::{Live, RuntimeKind};
use crate::state::{FoundInstance, HostState, Role, SchemaChange};

use super::databases::{changes, is_told_new, not_given_back, passwords, restores, waiting};
use super::journalled::{failed_back, goal, migrated, outcomes};
use super::standing::{coming, is_rehearsal, standing};

/// What a person is told of a run that recoveries did not bring to an end.
pub fn unsettled(journal: &[Entry], found: &HostState) -> Failure {
    match goal(journal) {
        Some(goal) => person(journal, goal, found),
        None => Failure::new(Exit::Person, format!("a run of {} could not be settled by itself", found.app))
            .because("its journal holds no plan")
            .while_serving(standing_text(journal, found))
            .next("`cutover status` shows what runs"),
    }
}

pub(super) fn person(journal: &[Entry], goal: &HostPlan, found: &HostState) -> Failure {
    let standing = standing(journal, goal, found);
    let mut failure = Failure::new(
        Exit::Person,
        format!("{} of {} could not be settled by itself", goal.verb.as_str(), goal.app),
    );
    if let Some((stage, last)) = &standing.failed {
        failure = failure.because(format!("stage {stage}: {}", last.what));
        failure.cause.extend(last.cause.iter().cloned());
        failure.next.extend(last.next.iter().cloned());
    }
    if let Some(last) = failed_back(journal) {
        failure.cause.push(format!("on the way back: {}", last.what));
        failure.cause.extend(last.cause.iter().cloned());
    }
    if !is_told_new(goal, journal, found) {
        for change in not_given_back(goal, journal) {
            failure.next.push(by_hand(change));
            failure.next.extend(restarted_by_hand(goal, change, found));
        }
    }
    failure.while_serving(standing_text(journal, found)).next(format!(
        "`cutover status` shows what runs; `cutover attach` replays what was tried; then {}",
        again(Some(goal))
    ))
}

/// How what did not work is done once more.
pub(super) fn again(goal: Option<&HostPlan>) -> &'static str {
    if goal.is_some_and(is_rehearsal) { "`cutover migrate rehearse` again" } else { "`cutover deploy` again" }
}

/// What gives a role the password from before. The value is in nobody's message (P6); that it has come about is seen by the next try.
fn by_hand(change: &PasswordChange) -> String {
    let service = &change.service;
    let role = change.role.as_text().unwrap_or("the role");
    let how = match change.place.kind {
        ServerKind::Postgres => {
            format!("`cutover exec {service} -- psql -U {role} postgres`, and there `\\password`")
        }
        ServerKind::Mysql | ServerKind::Mariadb => format!(
            "`cutover exec {service} -- {} -u root -p`, and there `ALTER USER '{role}'@'%' IDENTIFIED BY '…'`",
            change.place.kind.as_str()
        ),
    };
    format!(
        "it is tried again by itself, and by the next run; or by hand: {how}, with the value that {} has in the env file of release {}",
        change.variable, change.from
    )
}

/// What starts a server anew that does not answer: this run is in the way of `backing restart`, and within such a server nothing is carried out.
fn restarted_by_hand(goal: &HostPlan, change: &PasswordChange, found: &HostState) -> Option<String> {
    let is_it = |one: &&FoundInstance| one.role == Role::Backing && one.ours && one.service == change.service;
    let server = found.instances.iter().find(is_it)?;
    let how = match server.runtime {
        RuntimeKind::Container => {
            format!("`docker restart {}` on the host", layout::container(&goal.app, &server.name))
        }
        RuntimeKind::Process => "end its process on the host, and it is started again".to_owned(),
    };
    Some(format!("where that server does not answer: {how} (`cutover backing restart` waits for this run)"))
}

/// What is serving, as a sentence.
pub fn serving_text(live: Option<&Live>) -> String {
    match live {
        None => "nothing is serving".to_owned(),
        Some(live) if live.members.is_empty() => {
            format!("release {} is live, all of it stopped", live.release)
        }
        Some(live) => format!("{} (release {}) is serving", live.slot, live.release),
    }
}

/// The same where a person is needed: what of it does not run is named, and each database that is not as it was.
pub fn standing_text(journal: &[Entry], found: &HostState) -> String {
    let mut parts =
        vec![found.live.as_ref().map_or_else(|| serving_text(None), |live| running_text(live, found))];
    let databases = goal(journal).map(|goal| restores(goal, journal, found)).unwrap_or_default();
    parts.extend(databases.iter().filter_map(|held| match held {
        HeldDatabase::Restore { database, snapshot, .. } => Some(match snapshot {
            Some(file) => format!("the database `{database}` is not put back, its snapshot is {file}"),
            None => format!("the database `{database}` is not put back"),
        }),
        HeldDatabase::Migrate { .. } | HeldDatabase::Password { .. } | HeldDatabase::Settle { .. } => None,
    }));
    if let Some(goal) = goal(journal) {
        let is_told = is_told_new(goal, journal, found);
        parts.extend(waiting(goal, journal, found).map(|change| {
            if is_told {
                format!(
                    "the server of `{}` has the new password, and releases from before are not told it yet",
                    change.service
                )
            } else {
                format!(
                    "it is not known which password the server of `{}` has: the one from before, which {} of release {} says, or the new one",
                    change.service, change.variable, change.from
                )
            }
        }));
    }
    parts.join("; ")
}

fn running_text(live: &Live, found: &HostState) -> String {
    let runs =
        |name: &InstanceName| found.instances.iter().any(|here| here.name == *name && here.is_running());
    let stopped = live.members.iter().filter(|(_, members)| !members.iter().any(runs));
    let stopped: Vec<String> = stopped.map(|(service, _)| format!("`{service}`")).collect();
    if stopped.is_empty() {
        return serving_text(Some(live));
    }
    let (names, release) = (stopped.join(", "), &live.release);
    if stopped.len() == live.members.len() {
        return format!("release {release} is live, and nothing of it runs: {names}");
    }
    format!("{} (release {release}) is serving, without {names}, which is stopped", live.slot)
}

pub(super) fn state_text(journal: &[Entry], goal: Option<&HostPlan>, found: &HostState) -> String {
    let mut parts = vec![serving_text(found.live.as_ref())];
    let Some(goal) = goal else { return parts.remove(0) };
    let coming = coming(goal);
    let kept = found.instances.iter().any(|instance| {
        coming.contains(&instance.name) && !found.live.as_ref().is_some_and(|l| l.has(&instance.name))
    });
    if kept {
        parts.push("the failed candidate is stopped and kept".to_owned());
    }
    if goal.verb.is_of_backing() {
        parts.extend(backing_text(goal, found));
        return parts.join("; ");
    }
    if is_rehearsal(goal) {
        parts.push("nothing live was touched".to_owned());
        return parts.join("; ");
    }
    parts.extend(password_text(journal, goal, found));
    parts.extend(schema_text(journal, goal));
    parts.join("; ")
}

/// Which password a server has, where it was to get another one.
fn password_text(journal: &[Entry], goal: &HostPlan, found: &HostState) -> Option<String> {
    let change = changes(goal).next()?;
    let server = format!("the server of `{}`", change.service);
    Some(if standing(journal, goal, found).switched {
        format!("{server} has the new password")
    } else if passwords(goal, journal).is_empty() {
        format!("the password in {server} was not touched")
    } else if not_given_back(goal, journal).next().is_none() {
        format!("{server} has the password from before again")
    } else {
        format!("which password {server} has is not known")
    })
}

/// Which of a backing service runs.
fn backing_text(goal: &HostPlan, found: &HostState) -> Option<String> {
    let old = goal.handover.todo()?.outgoing.first()?;
    let runs = found.instances.iter().any(|here| here.name == old.name && here.is_running());
    let how = if runs { "runs as it did before" } else { "is down" };
    Some(format!("backing service `{}` {how}", old.service))
}

/// What a migration left that did not come to its end.
fn half_text(journal: &[Entry], half: &DatabaseName) -> String {
    let found = outcomes(journal).find_map(|(step, result)| match (step, result) {
        (Step::Inspect { database }, StepResult::Inspected { changed, schema }) if database == half => {
            Some((*changed, schema))
        }
        _ => None,
    });
    match found {
        None => format!("the schema of `{half}` is not known: its migration did not come to its end"),
        Some((true, schema)) => {
            let changed = format!("the schema of `{half}` was changed by the migration that failed");
            match (&schema.before[..], &schema.after[..]) {
                ([], []) => changed,
                (before, after) if before == after => {
                    format!("{changed}, and its version is still {}", version_text(schema))
                }
                _ => format!("{changed}, and its version is now {}", version_text(schema)),
            }
        }
        Some((false, schema)) if schema.before == schema.after => {
            format!("the schema of `{half}` is as it was before")
        }
        // A tool that marks what it begins, or migrations before it that changed rows only.
        Some((false, schema)) => {
            let version = version_text(schema);
            format!("the tables of `{half}` are as they were before, and its version is now {version}")
        }
    }
}

fn version_text(schema: &SchemaChange) -> String {
    let after: Vec<String> = schema.after.iter().map(ToString::to_string).collect();
    if after.is_empty() { "none".to_owned() } else { after.join(", ") }
}

/// What became of the databases, as far as it is known (S17).
fn schema_text(journal: &[Entry], goal: &HostPlan) -> Option<String> {
    let touched = migrated(journal, goal);
    let ended: BTreeSet<&DatabaseName> = outcomes(journal)
        .filter_map(|(step, _)| if let Step::Migrate { database } = step { Some(database) } else { None })
        .collect();
    let restored: BTreeSet<&DatabaseName> = outcomes(journal)
        .filter_map(|(step, _)| if let Step::Restore { database, .. } = step { Some(database) } else { None })
        .collect();
    let mut names = touched.iter().map(|migration| &migration.database);
    if let Some(half) = names.find(|name| !(ended.contains(name) || restored.contains(name))) {
        return Some(half_text(journal, half));
    }
    if !restored.is_empty() {
        let others =
            touched.iter().map(|migration| &migration.database).filter(|name| !restored.contains(name));
        let others: Vec<String> = others.map(|name| format!("`{name}`")).collect();
        let put_back = "the database was put back as it was".to_owned();
        return Some(match others.as_slice() {
            [] => put_back,
            [one] => format!("{put_back}; {one} stays migrated"),
            several => format!("{put_back}; {} stay migrated", several.join(", ")),
        });
    }
    if touched.iter().any(|migration| migration.down.is_some()) {
        return Some("the migrations of the database were taken back".to_owned());
    }
    if !touched.is_empty() {
        return Some("the database is migrated".to_owned());
    }
    let databases = goal.release.iter().flat_map(|release| release.databases.values());
    databases
        .into_iter()
        .any(|database| !database.migrate.is_empty())
        .then(|| "database not migrated".to_owned())
}
